"""The ledger itself: one transaction for every step."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sev_attest.errors import Insecure, Unsupported, WrongState
from sev_attest.owner.ledger.audit import LedgerDamaged, findings
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.owner.ledger.step import Step, head_of, root_in
from sev_attest.owner.ledger.store import TABLE_NAMES, VERSION, Store, StoreConnection
from sev_attest.owner.ledger.story import (
    REFUSED,
    UNKNOWN_ROOT,
    Event,
    Head,
    LedgerEntry,
    State,
    to_text,
)
from sev_attest.sev.spec import MEASUREMENT_SIZE

# The names in braces are those of Store.names.
_SESSIONS = """SELECT session_id, name, state, created, changed, expires, measurement, note
    FROM {sessions} s"""
_EVENTS = """SELECT seq, time, session_id, kind, detail, previous, hash
    FROM {events} e"""
KEPT_HEAD = "SELECT events, hash FROM {head} l"

_ID = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_MAX_TEXT = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExport:
    """Everything in a ledger at one moment. Does not verify: see :meth:`Ledger.verify`."""

    head: Head
    entries: tuple[LedgerEntry, ...]
    events: tuple[Event, ...]


class Ledger:
    """The attempts of an owner, and the state of each.

    An attempt is one launch that its owner prepared. For SEV it is a session, and its id is
    ``TransportKeys.session_id`` (64 hex digits), which entries and events keep as ``session_id``.

    One object serves all threads of a process, and any number of processes share one ledger: of
    those that take the same step concurrently, exactly one succeeds. After a fork, the child opens
    connections of its own.

    Every method raises LedgerError (exit code 6) if the database fails or is damaged. The step was
    not taken then; only if the connection to a server breaks during a commit is that unknown.
    Texts have at most 16384 characters: Unsupported is raised for longer ones. ValueError is raised
    for an id that is not 64 hex digits, and for a measurement that is not 48 bytes.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        """Use :meth:`open`."""
        self._store = store
        self._clock = clock
        self._idle: list[StoreConnection] = []
        self._inherited: list[list[StoreConnection]] = []
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
        """Open the ledger at a path (SQLite) or a ``postgresql://`` URL.

        ``create`` makes it if it is missing. ``timeout`` is how long a step waits for other
        processes, in seconds. ``clock`` returns the time, with a time zone.

        Raises LedgerError if it cannot be used, is missing and ``create`` is False, or other users
        (except root) could replace the file; Unsupported for a URL that is malformed or has a
        password, or if psycopg is missing.
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
        """Its name in messages: the path, or the server and database."""
        return self._store.place

    @property
    def now(self) -> str:
        """Current time of the ledger's clock: UTC, ISO 8601, to the second."""
        return _utc(self._clock())

    def disconnect(self) -> None:
        """Close the connections that no step is using. The next step opens a new one."""
        self._leave_inherited()
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().close()

    # The steps. Each raises WrongState if the attempt is unknown or its state does not allow it.

    def create(
        self,
        attempt: str,
        *,
        name: str = "",
        expires: datetime | None = None,
        root: str | None = UNKNOWN_ROOT,
    ) -> LedgerEntry:
        """Create an attempt (-> created); raises Insecure if it exists.

        ``root`` is the name of the root that its platform was verified up to. None means that
        nobody verified it, and :meth:`release` refuses it; empty means that this is unknown.
        """
        limit = None if expires is None else _utc(expires)
        detail: dict[str, object] = {"name": _clean(name), "expires": limit, "note": ""}
        if root != UNKNOWN_ROOT:
            detail["root"] = root
        with self._step(attempt) as step:
            if step.entry is not None:
                step.refuse_again(step.entry)
            return step.note(State.CREATED, detail)

    def bind(self, attempt: str, measurement: bytes, *, adopt: bool = False) -> LedgerEntry:
        """Bind an attempt to the measurement that its owner accepted (-> measured).

        ``measurement`` is 48 bytes. ``adopt`` creates an attempt that is unknown, for one that
        another tool made.

        Binding the same measurement again changes nothing, also after the release. Another one
        raises Insecure and is logged: the attempt was used for two launches.
        """
        with self._step(attempt) as step:
            return self._bind(step, measurement, adopt=adopt)

    @staticmethod
    def _bind(step: Step, measurement: bytes, *, adopt: bool) -> LedgerEntry:
        text = _measurement_text(measurement)
        if step.entry is None and adopt:
            note = "made by another tool"
            step.note(State.CREATED, {"name": "", "expires": None, "note": note})
        entry = step.usable(measurement)
        if entry.measurement is None:
            entry = step.enter(State.MEASURED, {"measurement": text})
        return entry

    def release(
        self, attempt: str, measurement: bytes, *, adopt: bool = False, insecure: bool = False
    ) -> LedgerEntry:
        """Commit the release of the secret to this measurement, 48 bytes (measured -> released).

        An attempt that is not bound yet is bound in the same transaction, as by :meth:`bind`. The
        secret may leave only after this returns: every later call raises WrongState. Raises
        Insecure if nobody verified the platform, unless ``insecure``.
        """
        with self._step(attempt) as step:
            self._bind(step, measurement, adopt=adopt)
            if not insecure:
                step.require_root()
            return step.enter(State.RELEASED, {"measurement": _measurement_text(measurement)})

    def fail(self, attempt: str, reason: str) -> LedgerEntry:
        """Mark an attempt as failed, also after a release whose packet did not get out."""
        with self._step(attempt) as step:
            return step.enter(State.FAILED, {"note": _clean(reason)})

    def close(self, attempt: str, reason: str = "") -> LedgerEntry:
        """End an attempt that released nothing (-> closed)."""
        with self._step(attempt) as step:
            return step.enter(State.CLOSED, {"note": _clean(reason)})

    def log(self, attempt: str, kind: str, detail: str = "") -> None:
        """Log an event that changes no state, such as a measurement that did not match.

        ``kind`` is a word in lower case that is not a state; else ValueError is raised. ``detail``
        is stored as it is: it must contain no keys or secrets.
        """
        if not _KIND.fullmatch(kind) or kind in (*State, REFUSED):
            raise ValueError("the kind of an event is a word of its own, in lower case")
        with self._step(attempt) as step:
            step.known()
            step.note(kind, {"text": _clean(detail)})

    # Reading.

    def get(self, attempt: str) -> LedgerEntry | None:
        """Return the entry of an attempt, or None if it is unknown."""
        _check_id(attempt)
        with self._transaction(self._store.reading) as connection:
            row = connection.execute(f"{_SESSIONS} WHERE session_id = ?", (attempt,)).fetchone()
            return None if row is None else self._store.read(LedgerEntry.from_row, row)

    def root(self, attempt: str) -> str | None:
        """Return the root that :meth:`create` was given.

        None if nobody verified the platform; empty if that is unknown, or the attempt is.
        """
        _check_id(attempt)
        with self._transaction(self._store.reading) as connection:
            return root_in(self._store, connection, attempt)

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries, oldest first."""
        with self._transaction(self._store.reading) as connection:
            return self._entries(connection)

    def events(self, attempt: str | None = None) -> tuple[Event, ...]:
        """Return the log of one attempt, or of all, oldest first."""
        if attempt is not None:
            _check_id(attempt)
        with self._transaction(self._store.reading) as connection:
            return self._events(connection, attempt)

    def export(self) -> LedgerExport:
        """Return everything, as of one moment."""
        with self._transaction(self._store.reading) as connection:
            return LedgerExport(
                head=head_of(self._store, connection.execute(KEPT_HEAD).fetchone()),
                entries=self._entries(connection),
                events=self._events(connection),
            )

    def verify(self, head: Head | None = None) -> Head:
        """Check the log from its first event, compare the rows with it, and return its head.

        ``head`` was noted elsewhere, and must be part of the log: nothing else shows that the whole
        database was replaced. Raises LedgerDamaged with every finding.
        """
        with self._transaction(self._store.reading) as connection:
            sessions = connection.execute(_SESSIONS).fetchall()
            events = connection.execute(f"{_EVENTS} ORDER BY seq").fetchall()
            kept = connection.execute(KEPT_HEAD).fetchone()
        found = findings(sessions, events, kept, head)
        if found:
            raise LedgerDamaged(tuple(found))
        return Head(*kept)

    # Transactions.

    def _check_schema(self) -> None:
        with self._transaction(self._store.reading) as connection:
            found = {name for (name,) in connection.execute(self._store.tables).fetchall()}
            if not found >= TABLE_NAMES:
                raise self._store.fault("damaged", "its tables are missing")
            row = connection.execute("SELECT version FROM sev_attest_ledger").fetchone()
        if row is None or type(row[0]) is not int or row[0] < VERSION:
            raise self._store.fault("damaged", "its version is missing")
        if row[0] > VERSION:
            raise self._store.fault("schema", f"version {row[0]}, this one knows {VERSION}")

    @contextmanager
    def _step(self, attempt: str) -> Iterator[Step]:
        _check_id(attempt)
        with self._transaction(self._store.writing) as connection:
            # The time is read here, after the wait for other processes.
            step = Step(self._store, connection, attempt, self.now)
            try:
                yield step
            except (Insecure, WrongState):
                step.write()
                raise
            step.write()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[StoreConnection]:
        """Run one transaction. A refusal commits too, so its event is kept."""
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
                connection.close()  # rolls back
            self.disconnect()  # the others may be broken too
            raise
        self._idle.append(connection)
        if refusal is not None:
            raise refusal

    def _leave_inherited(self) -> None:
        if self._process != os.getpid():
            # After a fork these are the parent's: using or closing them here would break them.
            self._inherited.append(self._idle)
            self._idle, self._process = [], os.getpid()

    def _take(self) -> StoreConnection:
        self._leave_inherited()
        try:
            return self._idle.pop()
        except IndexError:
            return self._store.connect()

    def _entries(self, connection: StoreConnection) -> tuple[LedgerEntry, ...]:
        rows = connection.execute(f"{_SESSIONS} ORDER BY created, session_id").fetchall()
        return tuple(self._store.read(LedgerEntry.from_row, row) for row in rows)

    def _events(self, connection: StoreConnection, attempt: str | None = None) -> tuple[Event, ...]:
        only, values = ("", ()) if attempt is None else (" WHERE session_id = ?", (attempt,))
        rows = connection.execute(f"{_EVENTS}{only} ORDER BY seq", values).fetchall()
        return tuple(self._store.read(Event.from_row, row) for row in rows)


def store_at(place: str | os.PathLike[str], timeout: float) -> Store:
    """Return the store: a path is a SQLite file, ``postgresql://...`` a database on a server.

    Raises Unsupported for any other URL, and for a path on a system that is not POSIX.
    """
    text = os.fspath(place)
    if re.match("postgres(ql)?:", text):
        from sev_attest.owner.ledger.postgres import Postgres

        return Postgres(text, timeout)
    if "://" in text or "\0" in text:
        raise Unsupported(
            "a ledger is a file or a postgresql:// database, and this is neither",
            check="ledger.place",
            hint="choose another place",
        )
    if not hasattr(os, "geteuid"):
        raise Unsupported(
            "a ledger file needs a POSIX system, to check that nobody else can write to it",
            check="ledger.platform",
            hint="use a postgresql:// ledger",
        )
    return Sqlite(Path(text), timeout)


def _check_id(attempt: str) -> None:
    if not _ID.fullmatch(attempt):  # not quoted in the message: it may be a key
        raise ValueError("an attempt is named by 64 hex digits, such as TransportKeys.session_id")


def _utc(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return time.astimezone(UTC).isoformat(timespec="seconds")


def _measurement_text(measurement: bytes) -> str:
    if len(measurement) != MEASUREMENT_SIZE:
        raise ValueError(f"a measurement is {MEASUREMENT_SIZE} bytes")
    return to_text(measurement)


def _clean(text: str) -> str:
    """Return text that every database accepts: without NUL and surrogates."""
    if len(text) > _MAX_TEXT:
        raise Unsupported(
            f"a text of {len(text)} characters is too long for the ledger: {_MAX_TEXT} at most",
            check="ledger.text",
        )
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
