"""Read a ledger of any size in pages, so that memory stays constant.

A page is one statement, which fetches its rows at once: nothing in the database waits until Python
has parsed them. Each page begins after the last row of the one before it.
"""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.schema import NAME_INDEXED
from sev_attest.owner.ledger.store import Store
from sev_attest.owner.ledger.story import (
    CHECKPOINT,
    LEDGER,
    UNKNOWN_ROOT,
    Event,
    Head,
    LedgerEntry,
    challenge_of,
    root_of,
)

if TYPE_CHECKING:
    from sev_attest.owner.ledger.checkpoint import Checkpoint
    from sev_attest.owner.ledger.kept import KeptChallenge, SealedKeys

Row = tuple[Any, ...]
PAGE = 500
"""Rows in a page."""

# The names in braces are those of Store.names.
_SESSIONS = "SELECT {session} FROM sev_attest_session"
_EVENTS = "SELECT {event} FROM sev_attest_event"
CREATED_AS = "SELECT {detail} FROM sev_attest_event WHERE session_id = ? AND kind = 'created'"
_CHECKPOINTS = f"""SELECT {{detail}} FROM sev_attest_event
    WHERE session_id = '{LEDGER}' AND kind = '{CHECKPOINT}' ORDER BY seq DESC"""  # noqa: S608 - constants
_EVENT_AT = """SELECT (SELECT {hash} FROM sev_attest_event WHERE seq = ?),
    (SELECT max(seq) FROM sev_attest_event)"""
LAST_CHECKPOINT = f"{_CHECKPOINTS} LIMIT 1"
# SQLite would put the value of a plain `name = ?` into the indexed expression too, and then no
# index has it.
_NAMED = f"{NAME_INDEXED} = substr(?, 1, 64) AND name || '' = ?"
_WAITING = "state IN ('created', 'measured') AND (expires IS NULL OR expires > ?)"
_ID, _CREATED, _SEQ = 0, 3, 0  # columns of the key of a page
_EVENT_ID = 2


class Reader:
    """Reads a ledger with ``fetch``, which runs one statement and returns its rows.

    Every method raises LedgerError for what is damaged, but for those that return raw rows.
    """

    def __init__(self, store: Store, fetch: Callable[[str, Row], list[Any]]) -> None:
        """Take the store and what runs its statements."""
        self.store: Store = store
        self._fetch = fetch

    def now(self) -> str:
        """Return the time of the database: UTC, ISO 8601, to the second."""
        return str(self._fetch("SELECT {now}", ())[0][0])

    def head(self) -> Head:
        """Return the head of the log."""
        return head_of(self.store, self.head_row())

    def lost(self, floor: Head) -> LedgerError | None:
        """Return the error for a ledger that lacks the event ``floor``; None if it has it."""
        found, last = self._fetch(_EVENT_AT, (floor.count,))[0]
        return lost(self.store, floor, found, last or 0)

    def waiting(self, name: str, now: str) -> list[LedgerEntry]:
        """Return the entries of this name that are open and not over at ``now``, two at most."""
        where = f"{_NAMED} AND {_WAITING} ORDER BY created LIMIT 2"
        found = self._fetch(f"{_SESSIONS} WHERE {where}", (name, name, now))
        return [self._entry(row) for row in found]

    def head_row(self) -> Row | None:
        """Return the row of the head of the log, or None if it is missing."""
        rows = self._fetch("SELECT {head} FROM sev_attest_ledger", ())
        return rows[0] if rows else None

    def entry(self, attempt: str) -> LedgerEntry | None:
        """Return the entry of an attempt, or None if it is unknown."""
        rows = self._fetch(f"{_SESSIONS} WHERE session_id = ?", (attempt,))
        return self._entry(rows[0]) if rows else None

    def root(self, attempt: str) -> str | None:
        """Return the root that an attempt was created with, as :meth:`Ledger.root` does."""
        return root_in(self.store, self._fetch(CREATED_AS, (attempt,)))

    def challenge(self, attempt: str) -> "KeptChallenge | None":
        """Return what is kept of a challenge; None if the attempt is none."""
        for row in self._fetch(CREATED_AS, (attempt,)):
            return self.store.read(lambda row: challenge_of(json.loads(row[0])), row)
        return None

    def sealed(self, attempt: str) -> "SealedKeys | None":
        """Return the sealed keys of an attempt; None if they were never stored here."""
        from sev_attest.owner.ledger.kept import SealedKeys

        select = "SELECT {sealed} FROM sev_attest_pending WHERE session_id = ?"
        rows = self._fetch(select, (attempt,))
        return self.store.read(SealedKeys.from_row, rows[0]) if rows else None

    def named(self, name: str, most: int) -> list[LedgerEntry]:
        """Return the entries of this name, ``most`` at most."""
        where = f"WHERE {_NAMED} ORDER BY created LIMIT {most}"
        return [self._entry(row) for row in self._fetch(f"{_SESSIONS} {where}", (name, name))]

    def beginning(self, digits: str, most: int) -> list[LedgerEntry]:
        """Return the entries whose id begins with these hex digits, ``most`` at most."""
        where = f"WHERE session_id >= ? AND session_id <= ? ORDER BY session_id LIMIT {most}"
        found = self._fetch(f"{_SESSIONS} {where}", (digits, f"{digits:f<64}"))
        return [self._entry(row) for row in found]

    def entries(self) -> Iterator[LedgerEntry]:
        """Read all entries, oldest first."""
        where: str = ""
        last: Row = ()
        while rows := self._page(_SESSIONS, where, last, "created, session_id"):
            yield from [self._entry(row) for row in rows]
            where, last = "(created, session_id) > (?, ?)", (rows[-1][_CREATED], rows[-1][_ID])

    def events(self, attempt: str | None = None) -> Iterator[Event]:
        """Read the log of one attempt, or of all, oldest first."""
        for row in self.event_rows() if attempt is None else self._event_rows_of(attempt):
            yield self.store.read(Event.from_row, row)

    def _event_rows_of(self, attempt: str) -> Iterator[Row]:
        where = "session_id = ?"
        last: Row = (attempt,)
        while rows := self._page(_EVENTS, where, last, "seq"):
            yield from rows
            where, last = "session_id = ? AND seq > ?", (attempt, rows[-1][_SEQ])

    def event_rows(self) -> Iterator[Row]:
        """Read the rows of the log, in order."""
        where: str = ""
        last: Row = ()
        while rows := self._page(_EVENTS, where, last, "seq"):
            yield from rows
            where, last = "seq > ?", (rows[-1][_SEQ],)

    def checkpoint(self) -> "Checkpoint | None":
        """Return the last checkpoint, with the numbers of all; None if nothing was removed."""
        from sev_attest.owner.ledger.checkpoint import Checkpoint

        rows = self._fetch(_CHECKPOINTS, ())
        every = [self.store.read(lambda row: Checkpoint.from_detail(row[0]), row) for row in rows]
        if not every:
            return None
        return every[0]._replace(
            sessions=sum(each.sessions for each in every),
            removed=sum(each.removed for each in every),
        )

    def attempts(self) -> Iterator[tuple[dict[object, Row], Iterator[Row]]]:
        """Read all rows by attempt: those of a page by id, and the events of the same range of ids.

        The events of an attempt come one after the other, in order. All must be read before the
        next page.
        """
        low: Row = ()
        while True:
            rows = self._page(_SESSIONS, "session_id > ?" if low else "", low, "session_id")
            high = (rows[-1][_ID],) if len(rows) == PAGE else ()
            yield {row[_ID]: row for row in rows}, self._event_rows_between(low, high)
            if not high:
                return
            low = high

    def _event_rows_between(self, low: Row, high: Row) -> Iterator[Row]:
        upto = ["session_id <= ?"] if high else []
        after, last = (["session_id > ?"] if low else []), low
        order = "session_id, seq"
        while rows := self._page(_EVENTS, " AND ".join(after + upto), (*last, *high), order):
            yield from rows
            after, last = ["(session_id, seq) > (?, ?)"], (rows[-1][_EVENT_ID], rows[-1][_SEQ])

    def _page(self, select: str, where: str, values: Row, order: str) -> list[Any]:
        only = f" WHERE {where}" if where else ""
        return self._fetch(f"{select}{only} ORDER BY {order} LIMIT {PAGE}", values)

    def _entry(self, row: Row) -> LedgerEntry:
        return self.store.read(LedgerEntry.from_row, row)


def head_of(store: Store, row: Row | None) -> Head:
    """Return the head of the log from its row; raises LedgerError if it is missing or damaged."""
    if row is None or type(row[0]) is not int or not isinstance(row[1], str):
        raise store.fault("damaged", "the head of its log is missing")
    return Head(row[0], row[1])


def lost(store: Store, floor: Head, found: str | None, last: int) -> LedgerError | None:
    """Return the error for a log that lacks an event; None if it has it, or ``floor`` is EMPTY.

    ``found`` is the hash of the event of that number in the log, ``last`` the number of its last.
    """
    if floor.count == 0 or found == floor.hash:
        return None
    detail = f"event {floor.count}; its last one is {last}"
    if found is not None:
        detail = f"event {floor.count} is not the one that was noted: it was restored, and went on"
    elif floor.count <= last:
        detail = f"event {floor.count} is not in it any more: its owner pruned it, or changed it"
    return store.fault("lost", detail)


def root_in(store: Store, rows: list[Any]) -> str | None:
    """Return the root in the rows that CREATED_AS finds."""
    return store.read(lambda row: root_of(json.loads(row[0])), rows[0]) if rows else UNKNOWN_ROOT
