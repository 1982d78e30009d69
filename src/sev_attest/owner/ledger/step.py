"""One step of one attempt: what is read, what is refused, and the rows that are written."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from sev_attest.errors import Insecure, WrongState
from sev_attest.owner.ledger.store import Store, StoreConnection
from sev_attest.owner.ledger.story import (
    COMES_FROM,
    REFUSED,
    TIME,
    UNKNOWN_ROOT,
    Event,
    Head,
    LedgerEntry,
    State,
    applied,
    root_of,
    to_text,
)
from sev_attest.owner.unverified import unverified

# The names in braces are those of Store.names.
LOOK = """SELECT l.events, l.hash, s.session_id, s.name, s.state, s.created, s.changed,
    s.expires, s.measurement, s.note
    FROM {head} l LEFT JOIN {sessions} s ON s.session_id = ?"""
INSERT_EVENT = """INSERT INTO sev_attest_event
    (seq, time, session_id, kind, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_CREATED_AS = "SELECT {detail} FROM sev_attest_event WHERE session_id = ? AND kind = 'created'"
_MEASURED_AT = "SELECT {time} FROM sev_attest_event WHERE session_id = ? AND kind = 'measured'"
_INSERT_SESSION = """INSERT INTO sev_attest_session
    (session_id, name, state, created, changed, expires, measurement, note)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
UPDATE_SESSION = """UPDATE sev_attest_session
    SET state = ?, changed = ?, measurement = ?, note = ?
    WHERE session_id = ? AND state = ?"""
UPDATE_HEAD = "UPDATE sev_attest_ledger SET events = ?, hash = ? WHERE events = ?"

_ONE_LAUNCH = "a session is for one launch: make a new one"


class Step:
    """A transaction on one attempt; ``entry`` is its present entry, None if it is unknown."""

    __slots__ = ("_before", "_connection", "_count", "_head", "_id", "_store", "_time", "entry")

    def __init__(self, store: Store, connection: StoreConnection, attempt: str, time: str) -> None:
        """Read the attempt and the head of the log, in a transaction that has begun at ``time``."""
        row = connection.execute(LOOK, (attempt,)).fetchone()
        self._store = store
        self._connection = connection
        self._id = attempt
        self._head = head_of(store, row)
        self._count = self._head.count
        found = None if row[2] is None else store.read(LedgerEntry.from_row, row[2:])
        self._before = found
        self.entry: LedgerEntry | None = found
        self._time = time

    def known(self) -> LedgerEntry:
        """Return the entry; raises WrongState if the attempt is unknown."""
        if self.entry is None:
            raise WrongState(
                f"session {self._id[:12]} is not in the ledger {self._store.place}",
                check="ledger.unknown",
                hint="open the ledger in which it was created",
            )
        return self.entry

    def usable(self, measurement: bytes) -> LedgerEntry:
        """Return the entry if the attempt is open and not bound to another measurement.

        A released one counts as open here: its state decides later whether a step is possible.
        """
        entry = self.known()
        if entry.measurement not in (None, measurement):
            self._refuse_another(entry, measurement)
        if entry.overdue(self._time):
            self.enter(State.EXPIRED, {})
            raise self._wrong()
        if entry.state not in (State.CREATED, State.MEASURED, State.RELEASED):
            raise self._wrong()
        return entry

    def enter(self, state: State, detail: Mapping[str, object]) -> LedgerEntry:
        """Move to a state, and return the entry; raises WrongState if that is not possible."""
        if self.known().state not in COMES_FROM[state]:
            raise self._wrong()
        return self.note(state, detail)

    def note(self, kind: str, detail: Mapping[str, object]) -> LedgerEntry:
        """Append an event to the log, and return the entry after it."""
        event = Event.after(
            self._head, time=self._time, session_id=self._id, kind=kind, detail=detail
        )
        entry = applied(self.entry, time=event.time, session_id=self._id, kind=kind, detail=detail)
        self._connection.execute(INSERT_EVENT, event.to_row())
        self._head, self.entry = event.head, entry
        return entry

    def write(self) -> None:
        """Write what the events changed: the row of the attempt, and the head of the log."""
        before, entry, execute = self._before, self.entry, self._connection.execute
        if entry is not None and before is None:
            execute(_INSERT_SESSION, entry.to_row())
        elif entry is not None and before is not None and entry is not before:
            _, _, state, _, changed, _, measurement, note = entry.to_row()
            values = (state, changed, measurement, note, self._id, before.state.value)
            self._exactly_one(execute(UPDATE_SESSION, values).rowcount)
        if self._head.count != self._count:
            head = (self._head.count, self._head.hash, self._count)
            self._exactly_one(execute(UPDATE_HEAD, head).rowcount)

    def _exactly_one(self, rows: int) -> None:
        if rows != 1:
            raise self._store.fault("damaged", "a row changed while it was locked")

    def require_root(self) -> None:
        """Raise Insecure if the platform is known not to have been verified."""
        if root_in(self._store, self._connection, self._id) is None:
            raise unverified("ledger")

    def _wrong(self) -> WrongState:
        entry = self.known()
        return WrongState(
            f"session {entry.label} is {entry.explain(self._time)}", check=f"ledger.{entry.state}"
        )

    def refuse_again(self, entry: LedgerEntry) -> NoReturn:
        """Refuse to create an attempt that exists, and log that."""
        self.note(REFUSED, {"step": "create"})
        raise Insecure(
            f"session {entry.label} is in the ledger already: {entry.explain(self._time)}",
            check="ledger.reused",
            hint=_ONE_LAUNCH,
        )

    def _refuse_another(self, entry: LedgerEntry, measurement: bytes) -> NoReturn:
        self.note(REFUSED, {"step": "bind", "measurement": to_text(measurement)})
        row = self._connection.execute(_MEASURED_AT, (entry.session_id,)).fetchone()
        at = self._store.read(_time_of, row) if row else "an unknown time"
        bound = {"measurement": to_text(entry.measurement or b""), "at": at}
        error = Insecure(
            f"session {entry.label} was used for another launch: since {bound['at']} it is bound "
            f"to the measurement {bound['measurement']}",
            check="ledger.reused",
            hint=f"do not trust this launch; {_ONE_LAUNCH}",
        )
        error.facts = {"session_id": entry.session_id, "bound": bound}
        raise error


def head_of(store: Store, row: tuple[Any, ...] | None) -> Head:
    """Return the head of the log from its row; raises LedgerError if it is missing or damaged."""
    if row is None or type(row[0]) is not int or not isinstance(row[1], str):
        raise store.fault("damaged", "the head of its log is missing")
    return Head(row[0], row[1])


def root_in(store: Store, connection: StoreConnection, attempt: str) -> str | None:
    """Return the root that an attempt was created with, as :meth:`Ledger.root` does."""
    row = connection.execute(_CREATED_AS, (attempt,)).fetchone()
    return UNKNOWN_ROOT if row is None else store.read(_root_of, row)


def _root_of(row: tuple[Any, ...]) -> str | None:
    return root_of(json.loads(row[0]))


def _time_of(row: tuple[Any, ...]) -> str:
    if not TIME.fullmatch(row[0]):
        raise ValueError("this is no time as the ledger writes it")
    return str(row[0])
