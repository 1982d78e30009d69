"""Errors of a ledger, and their messages."""

from collections.abc import Mapping

from sev_attest.errors import SevAttestError


class LedgerError(SevAttestError):
    """The ledger cannot be used: missing, locked, full, read-only, damaged or out of reach."""

    exit_code: int = 6


UNKNOWN_OUTCOME = "the last step may have been taken: look at the session before you go on"
PROBLEMS: Mapping[str, tuple[str, str]] = {
    "missing": ("there is no ledger", "create a session, which begins one"),
    "locked": ("another process holds it locked", "try again; nothing was released"),
    "busy": ("this process uses all its connections", "try again; nothing was released"),
    "interrupted": ("another thread was interrupted in the same transaction", UNKNOWN_OUTCOME),
    "lost": (
        "events that it had are missing",
        "this is an older copy, or a standby that lacks what was last written: find the newest one",
    ),
    "forked": (
        "this process was forked while its parent used the ledger",
        "open the ledger again in the child; nothing was released",
    ),
    "owner": (
        "its tables belong to another role",
        "run this as the owner of the tables; nothing was removed",
    ),
    "moved": ("a session changed meanwhile", "try again; nothing was removed"),
    "read-only": ("it can only be read", "make the file and its folder writable for its owner"),
    "full": ("the disk is full", "free some space and try again; nothing was released"),
    "permission": ("it cannot be opened", "run this as the ledger's owner"),
    "place": ("this cannot be the ledger", "name a file"),
    "damaged": (
        "this is not a ledger, or it is damaged",
        "keep it as evidence; restore a copy, and compare it with a head noted elsewhere",
    ),
    "schema": ("this is a ledger of a newer sev-attest", "use that version"),
    "old": (
        "this is a ledger of an older sev-attest",
        "its owner must upgrade it: this role may not change its tables",
    ),
    "connection": ("the connection failed", "nothing was released; check that the server answers"),
    "trouble": ("reading or writing it failed", ""),
}
"""Message and hint, by the last part of the check id."""

_MAX_LENGTH = 200


def first_line(text: str) -> str:
    """Return the first line of a driver's message, cut short: it may quote what is stored."""
    return text.partition("\n")[0][:_MAX_LENGTH]


def message_of(error: Exception) -> str:
    """Return the message of an exception, or the name of its type if it has none."""
    return str(error) or type(error).__name__
