"""The names of :mod:`sev_attest.owner.ledger`."""

from sev_attest.owner.ledger.audit import LedgerDamaged
from sev_attest.owner.ledger.book import Ledger
from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.kept import KeptChallenge, SealedKeys
from sev_attest.owner.ledger.place import default_place
from sev_attest.owner.ledger.story import Event, Head, LedgerEntry, State, Technology

__all__ = [
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
    "default_place",
]
