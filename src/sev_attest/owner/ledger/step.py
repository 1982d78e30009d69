"""One step of one attempt: what is read, what is refused, and the rows that are written."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from sev_attest._encoding import to_base64
from sev_attest.errors import Insecure, WrongState
from sev_attest.owner.ledger.reading import (
    CREATED_AS,
    LAST_CHECKPOINT,
    Reader,
    head_of,
    lost,
    root_in,
)
from sev_attest.owner.ledger.store import Store, StoreConnection
from sev_attest.owner.ledger.story import (
    COMES_FROM,
    MAX_REFUSED,
    OPEN,
    REFUSED,
    TIME,
    Event,
    Head,
    LedgerEntry,
    State,
    Technology,
    applied,
    to_json,
)
from sev_attest.owner.unverified import unverified

if TYPE_CHECKING:
    from sev_attest.owner.ledger.kept import SealedKeys

# The names in braces are those of Store.names.
LOOK = """SELECT {head}, (SELECT {hash} FROM sev_attest_event WHERE seq = ?), {now}, {session}
    FROM sev_attest_ledger LEFT JOIN sev_attest_session ON session_id = ?"""
INSERT_EVENT = """INSERT INTO sev_attest_event
    (seq, time, session_id, kind, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_MEASURED_AT = "SELECT {time} FROM sev_attest_event WHERE session_id = ? AND kind = 'measured'"
_TOLD = """SELECT {detail} FROM sev_attest_event WHERE session_id = ? AND kind = ?
    ORDER BY seq LIMIT 64"""
_INSERT_SESSION = """INSERT INTO sev_attest_session
    (session_id, name, state, created, changed, expires, measurement, note, technology, refused)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
UPDATE_SESSION = """UPDATE sev_attest_session
    SET state = ?, changed = ?, measurement = ?, note = ?, refused = ?
    WHERE session_id = ? AND state = ?"""
_INSERT_SEALED = "INSERT INTO sev_attest_pending (session_id, box, requirements) VALUES (?, ?, ?)"
_EMPTY_BOX = "UPDATE sev_attest_pending SET box = NULL WHERE session_id = ? AND box IS NOT NULL"
UPDATE_HEAD = "UPDATE sev_attest_ledger SET events = ?, hash = ? WHERE events = ?"

_ONE_LAUNCH: Mapping[Technology, str] = {
    Technology.SEV: "a session is for one launch: make a new one",
    Technology.SNP: "a challenge is for one report: make a new one",
}
_BOUND: Mapping[Technology, str] = {
    Technology.SEV: "session {name} was used for another launch: since {at} it is bound to the "
    "measurement {measurement}",
    Technology.SNP: "challenge {name} was answered with another report: since {at} it is bound to "
    "the one with the SHA-384 {report}",
}


class Step:
    """A transaction on one attempt; ``entry`` is its present entry, None if it is unknown."""

    __slots__ = ("_before", "_connection", "_count", "_head", "_id", "_store", "_time", "entry")

    def __init__(
        self,
        store: Store,
        connection: StoreConnection,
        attempt: str,
        *,
        floor: Head,
        clock: Callable[[], str] | None,
    ) -> None:
        """Read the attempt and the head of the log, in a transaction that has begun.

        ``floor`` is an event that the log must have: LedgerError is raised if it has not.
        """
        row = connection.execute(LOOK, (floor.count, attempt)).fetchone()
        self._store = store
        self._connection = connection
        self._id = attempt
        self._head = head_of(store, row)
        self._count = self._head.count
        if (error := lost(store, floor, row[2], self._count)) is not None:
            raise error
        found = None if row[4] is None else store.read(LedgerEntry.from_row, row[4:])
        self._before = found
        self.entry: LedgerEntry | None = found
        self._time: str = row[3] if clock is None else clock()

    def known(self) -> LedgerEntry:
        """Return the entry; raises WrongState if the attempt is unknown."""
        if self.entry is None:
            raise WrongState(
                f"session {self._id[:12]} is not in the ledger {self._store.place}",
                check="ledger.unknown",
                hint="open the ledger in which it was created",
            )
        return self.entry

    def adopt(self) -> None:
        """Create the attempt if it is unknown, as one that another tool made.

        Raises WrongState if attempts were removed from the ledger: it may be one of them.
        """
        if self.entry is not None:
            return
        if self._connection.execute(LAST_CHECKPOINT).fetchall():
            raise WrongState(
                f"session {self._id[:12]} is not in the ledger {self._store.place}, from which "
                "sessions were removed: it may be one of them",
                check="ledger.pruned",
                hint="make a new session",
            )
        note = "made by another tool"
        self.note(State.CREATED, {"name": "", "expires": None, "note": note})

    def usable(self, measurement: bytes, technology: Technology) -> LedgerEntry:
        """Return the entry if the attempt is open and not bound to another measurement.

        A released one counts as open here: its state decides later whether a step is possible.
        Raises WrongState for an attempt of the other technology.
        """
        entry = self.known()
        if entry.technology is not technology:
            raise other_technology(entry)
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

    def refuse(self, kind: str, detail: Mapping[str, object]) -> None:
        """Count a launch that is refused, and log the first of each reason for a measurement.

        A host that asks without end is told the same without end, but writes to the log a bounded
        number of times: the last one fails the attempt if it was open.
        """
        entry = self.known()
        if entry.refused == MAX_REFUSED:
            return
        self._note_once(kind, detail)
        self.entry = entry = self.known()._replace(refused=entry.refused + 1)
        if entry.refused == MAX_REFUSED and entry.state in OPEN:
            self.enter(State.FAILED, {"note": f"it was refused {MAX_REFUSED} times"})

    def _note_once(self, kind: str, detail: Mapping[str, object]) -> None:
        told = self._connection.execute(_TOLD, (self._id, kind)).fetchall()
        if (to_json(detail),) not in told:
            self.note(kind, detail)

    def require_free(self, name: str) -> None:
        """Raise WrongState if an attempt of this name waits: the name would find neither."""
        reader = Reader(self._store, lambda sql, row: self._connection.execute(sql, row).fetchall())
        if name and reader.waiting(name, self._time):
            raise WrongState(
                f"{name} waits already in {self._store.place}",
                check="pending.name",
                hint="choose another name, or close it",
            )

    def seal(self, sealed: "SealedKeys") -> None:
        """Store the keys of the attempt beside its row, until it ends."""
        self._connection.execute(_INSERT_SEALED, (self._id, *sealed.to_row()))

    def write(self) -> None:
        """Write what the events changed: the row of the attempt, and the head of the log.

        The sealed keys of an attempt that ended are removed.
        """
        before, entry, execute = self._before, self.entry, self._connection.execute
        if entry is not None and before is None:
            execute(_INSERT_SESSION, entry.to_row())
        elif entry is not None and before is not None and entry is not before:
            _, _, state, _, changed, _, measurement, note, _, refused = entry.to_row()
            values = (state, changed, measurement, note, refused, self._id, before.state.value)
            self._exactly_one(execute(UPDATE_SESSION, values).rowcount)
            if before.state in OPEN and entry.state not in OPEN:
                execute(_EMPTY_BOX, (self._id,))
        if self._head.count != self._count:
            head = (self._head.count, self._head.hash, self._count)
            self._exactly_one(execute(UPDATE_HEAD, head).rowcount)
            self._connection.wrote = True
        self._connection.head = self._head

    def _exactly_one(self, rows: int) -> None:
        if rows != 1:
            raise self._store.fault("damaged", "a row changed while it was locked")

    def require_root(self) -> None:
        """Raise Insecure if the platform is known not to have been verified."""
        rows = self._connection.execute(CREATED_AS, (self._id,)).fetchall()
        if root_in(self._store, rows) is None:
            raise unverified("ledger")

    def _wrong(self) -> WrongState:
        entry = self.known()
        return WrongState(
            f"{entry.technology.attempt} {entry.label} is {entry.explain(self._time)}",
            check=f"ledger.{entry.state}",
        )

    def refuse_again(self, entry: LedgerEntry) -> NoReturn:
        """Refuse to create an attempt that exists, and log that."""
        self._note_once(REFUSED, {"step": "create"})
        raise Insecure(
            f"{entry.technology.attempt} {entry.label} is in the ledger already: "
            f"{entry.explain(self._time)}",
            check="ledger.reused",
            hint=_ONE_LAUNCH[entry.technology],
        )

    def _refuse_another(self, entry: LedgerEntry, measurement: bytes) -> NoReturn:
        self.refuse(REFUSED, {"step": "bind", "measurement": to_base64(measurement)})
        row = self._connection.execute(_MEASURED_AT, (entry.session_id,)).fetchone()
        at = self._store.read(_time_of, row) if row else "an unknown time"
        bound = {"measurement": to_base64(entry.measurement or b""), "at": at}
        error = Insecure(
            _BOUND[entry.technology].format(
                name=entry.label, report=(entry.measurement or b"").hex(), **bound
            ),
            check="ledger.reused",
            hint=f"do not trust this launch; {_ONE_LAUNCH[entry.technology]}",
        )
        error.facts = {"session_id": entry.session_id, "bound": bound}
        raise error


def other_technology(entry: LedgerEntry) -> WrongState:
    """Return the error for a step of SEV on a challenge, or of SEV-SNP on a session."""
    return WrongState(
        f"{entry.label} is a {entry.technology.attempt} in the ledger: it is for the release of "
        f"{'SEV and SEV-ES' if entry.technology is Technology.SEV else 'SEV-SNP'}",
        check="ledger.technology",
        hint="name the attempt that this guest answers",
    )


def _time_of(row: tuple[Any, ...]) -> str:
    if not TIME.fullmatch(row[0]):
        raise ValueError("this is not a time as the ledger writes it")
    return str(row[0])
