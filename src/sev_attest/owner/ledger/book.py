"""The ledger itself: one transaction for every step."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, Self, TypeVar

from sev_attest.errors import Insecure, Unsupported, WrongState
from sev_attest.owner.ledger.audit import LedgerDamaged, findings
from sev_attest.owner.ledger.stores import TABLES, VERSION, Connection, Store, store_at
from sev_attest.owner.ledger.story import (
    COMES_FROM,
    MEASUREMENT_SIZE,
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

# The names in braces are the store's (Store.names).
_SESSIONS = """SELECT session_id, name, state, created, changed, expires, measurement, note
    FROM {sessions} s"""
_EVENTS = """SELECT seq, time, session_id, kind, detail, previous, hash
    FROM {events} e"""
_KEPT_HEAD = "SELECT events, hash FROM {head} l"
_LOOK = """SELECT l.events, l.hash, s.session_id, s.name, s.state, s.created, s.changed,
    s.expires, s.measurement, s.note
    FROM {head} l LEFT JOIN {sessions} s ON s.session_id = ?"""
_CREATED_AS = "SELECT {detail} FROM sev_attest_event WHERE session_id = ? AND kind = 'created'"
_MEASURED_AT = "SELECT {time} FROM sev_attest_event WHERE session_id = ? AND kind = 'measured'"
_ENTER = """INSERT INTO sev_attest_session
    (session_id, name, state, created, changed, expires, measurement, note)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_MOVE = """UPDATE sev_attest_session SET state = ?, changed = ?, measurement = ?, note = ?
    WHERE session_id = ? AND state = ?"""
_TELL = """INSERT INTO sev_attest_event
    (seq, time, session_id, kind, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_HEAD = "UPDATE sev_attest_ledger SET events = ?, hash = ? WHERE events = ?"

_Read = TypeVar("_Read")

_ID = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_MOST_TEXT = 1 << 14
_UNMEASURED = "its measurement has to be accepted first: `sev-attest validate{ledger}`"
_HINT = "a session is for one launch: make a new one with `sev-attest session{ledger}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything in a ledger at one moment. Read, not verified."""

    head: Head
    entries: tuple[LedgerEntry, ...]
    events: tuple[Event, ...]


class Ledger:
    """Which sessions there are, and how far each has come.

    One object serves all threads of a process; any number of processes share one ledger, and of
    those that try one step at once, exactly one wins. After a fork, the child opens connections of
    its own. Every method raises LedgerError (exit code 6) if the database fails or is damaged;
    then the step was not taken, or, if the connection to a server broke at its end, is not known
    to be. Texts have 16384 characters at most: Unsupported if one has more.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        """Use :meth:`open`."""
        self._store = store
        self._clock = clock
        self._idle: list[Connection] = []
        self._inherited: list[list[Connection]] = []
        self._process = os.getpid()

    @classmethod
    def open(
        cls,
        place: str | os.PathLike[str],
        *,
        create: bool = True,
        timeout: float = 5.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> "Ledger":
        """Open the ledger at a path (SQLite) or a ``postgresql://`` URL; make it if need be.

        ``timeout`` is how long a step waits for others, in seconds; ``clock`` gives an aware time.
        Raises LedgerError if it cannot be used (or made, or is missing and ``create`` is False),
        or if users other than root could replace the file; Unsupported for a URL that is none or
        has a password in it, or if psycopg is missing.
        """
        store = store_at(place, timeout)
        store.prepare(create=create)
        ledger = cls(store, clock)
        try:
            ledger._check_schema()
        except BaseException:
            ledger.disconnect()
            raise
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return f"Ledger({self._store.place!r})"

    @property
    def place(self) -> str:
        """What messages call it: the path, or the server and database."""
        return self._store.place

    @property
    def option(self) -> str:
        """Return what a ``sev-attest`` command needs to use it: `` --ledger PLACE``, or nothing."""
        return self._store.option

    @property
    def now(self) -> str:
        """The time by its clock, as its entries have it."""
        return _utc(self._clock())

    def disconnect(self) -> None:
        """Close the connections that no step is using. The next step opens one again."""
        self._leave_inherited()
        with suppress(IndexError):  # another thread may take the last
            while True:
                self._idle.pop().close()

    # The steps. Each raises WrongState if the session is unknown or its state does not allow it.

    def create(
        self,
        session_id: str,
        *,
        name: str = "",
        expires: datetime | None = None,
        root: str | None = UNKNOWN_ROOT,
    ) -> LedgerEntry:
        """Open a session (-> created). Nothing may be known of it yet: raises Insecure.

        ``root`` is the name of the root that its platform was verified up to, or None if nobody
        verified it: then :meth:`release` refuses it. Empty means that nothing tells.
        """
        limit = None if expires is None else _utc(expires)
        detail: dict[str, object] = {"name": _clean(name), "expires": limit, "note": ""}
        if root != UNKNOWN_ROOT:
            detail["root"] = root
        with self._step(session_id) as step:
            if step.entry is not None:
                step.refuse_again(step.entry)
            return step.note(State.CREATED, detail)

    def bind(self, session_id: str, measurement: bytes, *, adopt: bool = False) -> LedgerEntry:
        """Bind a session to the measurement (48 bytes) that its owner accepted (-> measured).

        The same measurement may be bound again, also after the release: nothing changes. Another
        one raises Insecure, and is noted: somebody used the session for two launches. ``adopt``
        takes in a session that another tool made, which is then unknown here.
        """
        with self._step(session_id) as step:
            return self._bind(step, measurement, adopt=adopt)

    @staticmethod
    def _bind(step: "_Step", measurement: bytes, *, adopt: bool) -> LedgerEntry:
        text = _measurement_text(measurement)
        if step.entry is None and adopt:
            note = "made by another tool"
            step.note(State.CREATED, {"name": "", "expires": None, "note": note})
        entry = step.usable(measurement)
        if entry.measurement is None:
            entry = step.enter(State.MEASURED, {"measurement": text})
        return entry

    def release(
        self, session_id: str, measurement: bytes, *, adopt: bool = False, insecure: bool = False
    ) -> LedgerEntry:
        """Note that the secret leaves, for that very measurement (measured -> released).

        A session that is not bound yet is bound in the same transaction, as by :meth:`bind`. Only
        whoever gets the entry back may let the secret out: a second call raises WrongState.
        Raises Insecure for a session whose platform is known not to have been verified, unless
        ``insecure``.
        """
        with self._step(session_id) as step:
            self._bind(step, measurement, adopt=adopt)
            if not insecure:
                step.require_root()
            return step.enter(State.RELEASED, {"measurement": _measurement_text(measurement)})

    def fail(self, session_id: str, reason: str) -> LedgerEntry:
        """Give a session up (-> failed); after its release too, if the packet did not get out."""
        with self._step(session_id) as step:
            return step.enter(State.FAILED, {"note": _clean(reason)})

    def close(self, session_id: str, reason: str = "") -> LedgerEntry:
        """End a session that released nothing (-> closed)."""
        with self._step(session_id) as step:
            return step.enter(State.CLOSED, {"note": _clean(reason)})

    def log(self, session_id: str, kind: str, detail: str = "") -> None:
        """Note an event that changes nothing, such as a measurement that did not match.

        ``kind`` is a word in small letters that names no state (else ValueError). Keep keys and
        secrets out of ``detail``: it is stored as it is.
        """
        if not _KIND.fullmatch(kind) or kind in (*State, REFUSED):
            raise ValueError("the kind of an event is a word of its own, in small letters")
        with self._step(session_id) as step:
            step.known()
            step.note(kind, {"text": _clean(detail)})

    # What it tells.

    def get(self, session_id: str) -> LedgerEntry | None:
        """Give one session, or None if it is unknown."""
        _check_id(session_id)
        with self._transaction(self._store.reading) as connection:
            row = connection.execute(f"{_SESSIONS} WHERE session_id = ?", (session_id,)).fetchone()
            return None if row is None else _sound(self._store, LedgerEntry.from_row, row)

    def root(self, session_id: str) -> str | None:
        """Return the root that :meth:`create` was told.

        None if nobody verified the platform; empty if nothing tells, or the session is unknown.
        """
        _check_id(session_id)
        with self._transaction(self._store.reading) as connection:
            return _root(self._store, connection, session_id)

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Give all sessions, the oldest first."""
        with self._transaction(self._store.reading) as connection:
            return self._entries(connection)

    def events(self, session_id: str | None = None) -> tuple[Event, ...]:
        """Give the log, of one session or of all, the oldest first."""
        if session_id is not None:
            _check_id(session_id)
        with self._transaction(self._store.reading) as connection:
            return self._events(connection, session_id)

    def contents(self) -> Contents:
        """Give everything, as it was at one moment."""
        with self._transaction(self._store.reading) as connection:
            return Contents(
                head=self._head(connection.execute(_KEPT_HEAD).fetchone()),
                entries=self._entries(connection),
                events=self._events(connection),
            )

    def verify(self, head: Head | None = None) -> Head:
        """Follow the log from its first event and compare the rows with what it tells.

        ``head`` is one that was noted elsewhere, which must be part of the log: nothing else shows
        that the whole database was replaced. Returns the head to note now; raises LedgerDamaged
        with every finding.
        """
        with self._transaction(self._store.reading) as connection:
            sessions = connection.execute(_SESSIONS).fetchall()
            events = connection.execute(f"{_EVENTS} ORDER BY seq").fetchall()
            kept = connection.execute(_KEPT_HEAD).fetchone()
        found = findings(sessions, events, kept, head)
        if found:
            raise LedgerDamaged(tuple(found))
        return Head(*kept)

    # How.

    def _check_schema(self) -> None:
        with self._transaction(self._store.reading) as connection:
            found = {name for (name,) in connection.execute(self._store.tables).fetchall()}
            if not found >= TABLES:
                raise self._store.fault("damaged", "its tables are not there")
            row = connection.execute("SELECT version FROM sev_attest_ledger").fetchone()
        if row is None or type(row[0]) is not int or row[0] < VERSION:
            raise self._store.fault("damaged", "its version is not there")
        if row[0] > VERSION:
            raise self._store.fault("schema", f"version {row[0]}, this one knows {VERSION}")

    @contextmanager
    def _step(self, session_id: str) -> Iterator["_Step"]:
        _check_id(session_id)
        with self._transaction(self._store.writing) as connection:
            row = connection.execute(_LOOK, (session_id,)).fetchone()
            head = self._head(row)
            entry = None if row[2] is None else _sound(self._store, LedgerEntry.from_row, row[2:])
            now = self.now  # after the wait for others
            step = _Step(self._store, connection, head, entry, session_id=session_id, time=now)
            try:
                yield step
            except (Insecure, WrongState):
                step.write()
                raise
            step.write()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        """Run one transaction. A refusal ends it as success does: what it noted stays."""
        refusal = None
        connection = None
        try:
            connection = self._take()
            connection.execute(begin)
            try:
                yield connection
            except (Insecure, WrongState) as error:
                refusal = error
            connection.execute("COMMIT")
        except BaseException:
            if connection is not None:
                connection.close()  # undoes what was begun
            self.disconnect()  # the others may be as broken
            raise
        self._idle.append(connection)
        if refusal is not None:
            raise refusal

    def _leave_inherited(self) -> None:
        if self._process != os.getpid():
            # After a fork these are the parent's: to use or close them here would break its own.
            self._inherited.append(self._idle)
            self._idle, self._process = [], os.getpid()

    def _take(self) -> Connection:
        self._leave_inherited()
        try:
            return self._idle.pop()
        except IndexError:
            return self._store.connect()

    def _entries(self, connection: Connection) -> tuple[LedgerEntry, ...]:
        rows = connection.execute(f"{_SESSIONS} ORDER BY created, session_id").fetchall()
        return tuple(_sound(self._store, LedgerEntry.from_row, row) for row in rows)

    def _events(self, connection: Connection, session_id: str | None = None) -> tuple[Event, ...]:
        only, values = ("", ()) if session_id is None else (" WHERE session_id = ?", (session_id,))
        rows = connection.execute(f"{_EVENTS}{only} ORDER BY seq", values).fetchall()
        return tuple(_sound(self._store, Event.from_row, row) for row in rows)

    def _head(self, row: tuple[Any, ...] | None) -> Head:
        if row is None or type(row[0]) is not int or not isinstance(row[1], str):
            raise self._store.fault("damaged", "the head of its log is missing")
        return Head(row[0], row[1])


class _Step:
    """One transaction on one session, and what it has come to."""

    __slots__ = (
        "_before", "_connection", "_count", "_head", "_session_id", "_store", "_time", "entry",
    )  # fmt: skip

    def __init__(
        self,
        store: Store,
        connection: Connection,
        head: Head,
        entry: LedgerEntry | None,
        *,
        session_id: str,
        time: str,
    ) -> None:
        self._store = store
        self._connection = connection
        self._session_id = session_id
        self._head = head
        self._time = time
        self._before = self.entry = entry
        self._count = head.count

    def known(self) -> LedgerEntry:
        """Give the session; raises WrongState if there is none."""
        if self.entry is None:
            raise WrongState(
                f"session {self._session_id[:12]} is not in the ledger {self._store.place}",
                check="ledger.unknown",
                hint="the ledger that `sev-attest session` wrote to is the one to name (--ledger)",
            )
        return self.entry

    def usable(self, measurement: bytes) -> LedgerEntry:
        """Give the session if this measurement may be used in it, its state apart."""
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
        """Take the session to a state; raises WrongState if it cannot come there from its own."""
        if self.known().state not in COMES_FROM[state]:
            raise self._wrong()
        return self.note(state, detail)

    def note(self, kind: str, detail: Mapping[str, object]) -> LedgerEntry:
        """Add an event to the log; the row changes as it tells, when the step ends."""
        event = Event.after(
            self._head, time=self._time, session_id=self._session_id, kind=kind, detail=detail
        )
        entry = applied(
            self.entry, time=event.time, session_id=self._session_id, kind=kind, detail=detail
        )
        self._connection.execute(_TELL, event.to_row())
        self._head, self.entry = event.head, entry
        return entry

    def write(self) -> None:
        """Write what the events came to: the row of the session, and the head of the log."""
        before, entry, execute = self._before, self.entry, self._connection.execute
        if entry is not None and before is None:
            execute(_ENTER, entry.to_row())
        elif entry is not None and before is not None and entry is not before:
            _, _, state, _, changed, _, measurement, note = entry.to_row()
            moved = (state, changed, measurement, note, self._session_id, before.state.value)
            self._exactly_one(execute(_MOVE, moved).rowcount)
        if self._head.count != self._count:
            told = (self._head.count, self._head.hash, self._count)
            self._exactly_one(execute(_HEAD, told).rowcount)

    def _exactly_one(self, rows: int) -> None:
        if rows != 1:
            words = "a row changed while it was locked"
            raise self._store.fault("damaged", words)

    def require_root(self) -> None:
        """Raise Insecure if the platform of the session is known not to have been verified."""
        if _root(self._store, self._connection, self._session_id) is None:
            raise unverified("ledger")

    def _told(self, hint: str) -> str:
        return hint.replace("{ledger}", self._store.option)

    def _wrong(self) -> WrongState:
        entry = self.known()
        return WrongState(
            f"session {entry.label} is {entry.explain(self._time)}",
            check=f"ledger.{entry.state}",
            hint=self._told(_UNMEASURED) if entry.state is State.CREATED else "",
        )

    def refuse_again(self, entry: LedgerEntry) -> NoReturn:
        """Refuse to open a session that was opened before."""
        self.note(REFUSED, {"step": "create"})
        raise Insecure(
            f"session {entry.label} is in the ledger already: {entry.explain(self._time)}",
            check="ledger.reused",
            hint=self._told(_HINT),
        )

    def _refuse_another(self, entry: LedgerEntry, measurement: bytes) -> NoReturn:
        self.note(REFUSED, {"step": "bind", "measurement": to_text(measurement)})
        row = self._connection.execute(_MEASURED_AT, (entry.session_id,)).fetchone()
        at = _sound(self._store, _told_time, row) if row else "an unknown time"
        bound = {"measurement": to_text(entry.measurement or b""), "at": at}
        error = Insecure(
            f"session {entry.label} was used for another launch: since {bound['at']} it is bound "
            f"to the measurement {bound['measurement']}",
            check="ledger.reused",
            hint=f"do not trust this launch; {self._told(_HINT)}",
        )
        error.facts = {"session_id": entry.session_id, "bound": bound}
        raise error


def _check_id(session_id: str) -> None:
    if not _ID.fullmatch(session_id):  # and do not quote it: it may be a key
        raise ValueError("a session is named by 64 hex digits: TransportKeys.session_id")


def _utc(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return time.astimezone(UTC).isoformat(timespec="seconds")


def _measurement_text(measurement: bytes) -> str:
    if len(measurement) != MEASUREMENT_SIZE:
        raise ValueError(f"a measurement is {MEASUREMENT_SIZE} bytes")
    return to_text(measurement)


def _clean(text: str) -> str:
    """Make it text that every database takes: no NUL, no half of a surrogate pair."""
    if len(text) > _MOST_TEXT:
        raise Unsupported(
            f"a text of {len(text)} characters is too long for the ledger: {_MOST_TEXT} at most",
            check="ledger.text",
        )
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _root(store: Store, connection: Connection, session_id: str) -> str | None:
    row = connection.execute(_CREATED_AS, (session_id,)).fetchone()
    return UNKNOWN_ROOT if row is None else _sound(store, _told_root, row)


def _told_root(row: tuple[Any, ...]) -> str | None:
    return root_of(json.loads(row[0]))


def _told_time(row: tuple[Any, ...]) -> str:
    if not TIME.fullmatch(row[0]):
        raise ValueError("this is no time as the ledger writes it")
    return str(row[0])


def _sound(store: Store, read: Callable[[tuple[Any, ...]], _Read], row: tuple[Any, ...]) -> _Read:
    """Read a row; raises LedgerError for one that the ledger does not write."""
    try:
        return read(row)
    except (ValueError, TypeError, AttributeError, RecursionError):
        words = "it has a row that the ledger does not write"
        raise store.fault("damaged", words) from None
