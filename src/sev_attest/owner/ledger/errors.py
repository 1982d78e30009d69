"""What can go wrong with a ledger, in words."""

from collections.abc import Mapping

from sev_attest.errors import SevAttestError


class LedgerError(SevAttestError):
    """The ledger cannot be used: missing, locked, full, read-only, damaged, not reached."""

    exit_code = 6


PROBLEMS: Mapping[str, tuple[str, str]] = {
    "missing": ("there is no ledger", "`sev-attest session{ledger}` begins one"),
    "locked": ("another process holds it locked", "try again; nothing was released"),
    "read-only": ("it can only be read", "make the file and its folder writable for its owner"),
    "full": ("the disk is full", "make room and try again; nothing was released"),
    "permission": ("it cannot be opened", "run this as the ledger's owner"),
    "place": ("this cannot be the ledger", ""),
    "damaged": (
        "this is no ledger, or it is damaged",
        "keep it as evidence; restore a copy, and compare it with a head noted elsewhere",
    ),
    "schema": ("this is a ledger of a newer sev-attest", "use that one"),
    "connection": ("the connection failed", "nothing was released; see that the server answers"),
    "trouble": ("reading or writing it failed", ""),
}
"""By the last part of the check id: what is wrong, and what to do; {ledger} is ``--ledger``."""

UNKNOWN_OUTCOME = (
    "what was under way may have been done: look with `sev-attest ledger show{ledger}`"
)
_MOST_WORDS = 200


def first_line(words: str) -> str:
    """Cut a driver's words short: they may quote what is in the ledger."""
    return words.partition("\n")[0][:_MOST_WORDS]
