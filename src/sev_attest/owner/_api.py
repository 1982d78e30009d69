"""The public names of :mod:`sev_attest.owner`."""

from sev_attest.owner.key_errors import KeyAccessError
from sev_attest.owner.key_release import release
from sev_attest.owner.key_wrapping import KeyEncryption, key_encryption
from sev_attest.owner.ledger import (
    Event,
    Head,
    Ledger,
    LedgerDamaged,
    LedgerEntry,
    LedgerError,
    LedgerExport,
    State,
    default_place,
)
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.requirements import Met, Minimum, ReferenceValue, Requirements

__all__ = [
    "Event", "Head", "KeyAccessError", "KeyEncryption", "LaunchRecord", "Ledger", "LedgerDamaged",
    "LedgerEntry", "LedgerError", "LedgerExport", "Met", "Minimum", "ReferenceValue",
    "Requirements", "State", "default_place", "key_encryption", "release",
]  # fmt: skip
