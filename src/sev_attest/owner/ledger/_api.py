"""The names of :mod:`sev_attest.owner.ledger`."""

from sev_attest.owner.ledger.audit import LedgerDamaged
from sev_attest.owner.ledger.book import Ledger
from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.kept import KeptChallenge, SealedKeys
from sev_attest.owner.ledger.place import check_home, default_place
from sev_attest.owner.ledger.story import (
    UNKNOWN_ROOT,
    Event,
    Head,
    LedgerEntry,
    State,
    Technology,
)

__all__ = [
    "UNKNOWN_ROOT",
    "Event",
    "Head",
    "KeptChallenge",
    "Ledger",
    "LedgerDamaged",
    "LedgerEntry",
    "LedgerError",
    "SealedKeys",
    "State",
    "Technology",
    "check_home",
    "default_place",
]
