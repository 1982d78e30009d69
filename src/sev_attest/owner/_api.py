"""The public names of :mod:`sev_attest.owner`."""

from sev_attest.owner.key_errors import KeyAccessError, SealError
from sev_attest.owner.key_release import release
from sev_attest.owner.key_wrapping import KeyEncryption, key_encryption
from sev_attest.owner.ledger import (
    Event,
    Head,
    Ledger,
    LedgerDamaged,
    LedgerEntry,
    LedgerError,
    State,
    default_place,
)
from sev_attest.owner.pending import PendingSession, PendingSessions
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.requirements import Met, Minimum, ReferenceValue, Requirements
from sev_attest.owner.secret_sources import SecretSource, secret_source
from sev_attest.owner.snp_challenges import create_challenge
from sev_attest.owner.snp_minimum import SnpMinimum
from sev_attest.owner.snp_reference import SnpReferenceValue
from sev_attest.owner.snp_release import release_snp
from sev_attest.owner.snp_requirements import SnpRequirements

__all__ = [
    "Event", "Head", "KeyAccessError", "KeyEncryption", "LaunchRecord", "Ledger", "LedgerDamaged",
    "LedgerEntry", "LedgerError", "Met", "Minimum", "PendingSession", "PendingSessions",
    "ReferenceValue", "Requirements", "SealError", "SecretSource", "SnpMinimum",
    "SnpReferenceValue", "SnpRequirements", "State", "create_challenge", "default_place",
    "key_encryption", "release", "release_snp", "secret_source",
]  # fmt: skip
