"""What a release asks of an attempt, whether it is a session of SEV or a challenge of SEV-SNP."""

from typing import TYPE_CHECKING

from sev_attest.errors import LaunchRefused, Unsupported, WrongState
from sev_attest.owner.ledger.book import Ledger
from sev_attest.owner.ledger.story import LedgerEntry

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Requirements


def find_attempt(ledger: Ledger, text: str) -> LedgerEntry:
    """Return the entry of the attempt of this name or id.

    As in :meth:`Ledger.find`, a name wins, and 8 digits of an id suffice. Of several attempts of
    one name, the one that waits is meant.

    Raises WrongState if it is unknown; Unsupported if the name is that of several.
    """
    found = ledger.find(text)
    if not found:
        raise ledger.unknown(text)
    if len(found) > 1:
        found = ledger.waiting(text) or found
    if len(found) > 1:
        ids = ", ".join(f"{entry.session_id[:12]} ({entry.state})" for entry in found)
        raise Unsupported(
            f"several sessions are called {text[:80]!r}: {ids}",
            check="pending.several",
            hint="give the id: at least 8 of its digits",
        )
    return found[0]


def ended(entry: LedgerEntry, now: str) -> WrongState:
    """Return the error for an attempt that has ended."""
    return WrongState(
        f"{entry.technology.attempt} {entry.label} is {entry.explain(now)}",
        check=f"ledger.{entry.state_at(now)}",
    )


def require_same(what: str, bound_to: str | None, given: "Requirements | None") -> None:
    """Raise LaunchRefused if an attempt was made under other requirements than these.

    ``bound_to`` is the fingerprint of those, None if it is bound to none.
    """
    found = None if given is None else given.fingerprint
    attempt = what.partition(" ")[0]
    if bound_to not in (None, found):
        raise LaunchRefused(
            f"{what} was made under other requirements: {bound_to[:12]}, these are "
            f"{found[:12] if found else 'none'}",
            check="requirements.changed",
            hint=f"use those, make a new {attempt}, or say that those of now count",
        )
