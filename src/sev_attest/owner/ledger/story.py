"""What follows from what: the states of a session, and the events that lead through them.

The ledger goes by :func:`applied` when it writes, and the audit when it reads: there is one rule.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a session stands. The event that leads there is of the same name."""

    CREATED = "created"
    MEASURED = "measured"
    RELEASED = "released"
    FAILED = "failed"
    EXPIRED = "expired"
    CLOSED = "closed"


COMES_FROM: Mapping[State, frozenset[State]] = {
    State.MEASURED: frozenset({State.CREATED}),
    State.RELEASED: frozenset({State.MEASURED}),
    State.FAILED: frozenset({State.CREATED, State.MEASURED, State.RELEASED}),
    State.EXPIRED: frozenset({State.CREATED, State.MEASURED}),
    State.CLOSED: frozenset({State.CREATED, State.MEASURED}),
}
"""The only ways from one state to another."""

REFUSED = "refused"
"""The kind of event that keeps an attempt to use a session twice."""

MEASUREMENT_SIZE = 48
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00")
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_NEW = "make a new session for another launch"
_SAYS: Mapping[State, str] = {
    State.CREATED: "not measured yet",
    State.MEASURED: "measured on {changed}, no secret has left",
    State.RELEASED: "its secret left on {changed}; if the guest never got it, make a new session",
    State.FAILED: f"failed on {{changed}}{{because}}; {_NEW}",
    State.EXPIRED: f"its time was over on {{expires}}; {_NEW}",
    State.CLOSED: f"closed on {{changed}}{{because}}; {_NEW}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One session as it stands now. The fields are the columns of its row, in their order.

    ``session_id`` is 64 hex digits, ``measurement`` the 48 bytes it is bound to. Times are UTC in
    ISO 8601, to the second.
    """

    session_id: str
    name: str
    state: State
    created: str
    changed: str
    expires: str | None
    measurement: bytes | None
    note: str

    @property
    def label(self) -> str:
        """Call it by its name, or by the beginning of its id if it has none."""
        return self.name or self.session_id[:12]

    def overdue(self, now: str) -> bool:
        """Tell whether its time was over before it came to an end."""
        open_still = self.state in COMES_FROM[State.EXPIRED]
        return open_still and self.expires is not None and self.expires <= now

    def fresh(self, now: str) -> bool:
        """Tell whether nothing of it was used yet."""
        return self.state is State.CREATED and not self.overdue(now)

    def explain(self, now: str) -> str:
        """Say in words where it stands, and what its owner can do about it."""
        says = _SAYS[State.EXPIRED if self.overdue(now) else self.state]
        because = f": {self.note}" if self.note else ""
        told = says.format(changed=self.changed, expires=self.expires, because=because)
        return f"{self.state}: {told}"

    def to_row(self) -> tuple[str | None, ...]:
        """Give what the database holds of it."""
        measurement = None if self.measurement is None else to_text(self.measurement)
        return (
            self.session_id,
            self.name,
            self.state.value,
            self.created,
            self.changed,
            self.expires,
            measurement,
            self.note,
        )

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "LedgerEntry":
        """Read it back; raises ValueError or TypeError for what :meth:`to_row` did not give."""
        session_id, name, state, created, changed, expires, text, note = row
        if not all(isinstance(value, str) for value in (session_id, name, state, note)):
            raise TypeError("SQLite takes any type in any column")
        times = (created, changed) if expires is None else (created, changed, expires)
        if not all(map(TIME.fullmatch, times)):
            raise ValueError("this is no time as the ledger writes it")
        measurement = None if text is None else base64.b64decode(text, validate=True)
        if measurement is not None and len(measurement) != MEASUREMENT_SIZE:
            raise ValueError("this is no measurement")
        return cls(
            session_id=session_id,
            name=name,
            state=State(state),
            created=created,
            changed=changed,
            expires=expires,
            measurement=measurement,
            note=note,
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the log: how many events there are, and the hash of the last (64 hex digits).

    Written as COUNT:HASH. Whoever keeps one elsewhere can tell later that nothing before it is
    another.
    """

    count: int
    hash: str

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"


EMPTY = Head(0, "0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the log. The fields are the columns of its row, in their order.

    ``detail`` is a JSON object as text, ``previous`` the hash of the event before this one.
    """

    seq: int
    time: str
    session_id: str
    kind: str
    detail: str
    previous: str
    hash: str

    @classmethod
    def after(
        cls, head: Head, *, time: str, session_id: str, kind: str, detail: Mapping[str, object]
    ) -> "Event":
        """Make the event that follows the last one."""
        fields = (head.count + 1, time, session_id, kind, _json(detail), head.hash)
        return cls(
            seq=fields[0],
            time=time,
            session_id=session_id,
            kind=kind,
            detail=fields[4],
            previous=head.hash,
            hash=event_hash(fields),
        )

    @property
    def head(self) -> Head:
        """Give the head of the log that ends with this event."""
        return Head(self.seq, self.hash)

    def to_row(self) -> tuple[Any, ...]:
        """Give what the database holds of it."""
        return (
            self.seq,
            self.time,
            self.session_id,
            self.kind,
            self.detail,
            self.previous,
            self.hash,
        )

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "Event":
        """Read it back; raises TypeError for what :meth:`to_row` did not give."""
        seq, time, session_id, kind, detail, previous, own_hash = row
        if type(seq) is not int or not all(isinstance(text, str) for text in row[1:]):
            raise TypeError("SQLite takes any type in any column")
        return cls(
            seq=seq,
            time=time,
            session_id=session_id,
            kind=kind,
            detail=detail,
            previous=previous,
            hash=own_hash,
        )


def event_hash(fields: tuple[object, ...]) -> str:
    """Hash an event's fields before its hash: SHA-256 of them as a JSON array, in ASCII.

    Raises TypeError if one is neither a number nor text.
    """
    return hashlib.sha256(_json(fields).encode("ascii")).hexdigest()


class ImpossibleError(ValueError):
    """An event that cannot follow those before it."""


UNKNOWN_ROOT = ""
"""The root of a session's platform where nothing tells whether anybody verified it."""


def root_of(detail: Mapping[str, Any]) -> str | None:
    """Return the root that a ``created`` event tells; None if nobody verified the platform.

    Sessions of other tools have UNKNOWN_ROOT, and those that an older sev-attest opened. Raises
    TypeError if it is no text.
    """
    root = detail.get("root", UNKNOWN_ROOT)
    if not isinstance(root, str | None):
        raise TypeError("the name of a root is text")
    return root


def applied(
    entry: LedgerEntry | None, *, time: str, session_id: str, kind: str, detail: Mapping[str, Any]
) -> LedgerEntry:
    """Give the entry as it stands after an event.

    Raises ImpossibleError if the event cannot follow; KeyError, ValueError, TypeError or
    AttributeError if its detail is not what the ledger writes.
    """
    if kind == State.CREATED:
        if entry is not None:
            raise ImpossibleError("is created a second time")
        root_of(detail)
        return LedgerEntry(
            session_id=session_id,
            name=detail["name"],
            state=State.CREATED,
            created=time,
            changed=time,
            expires=detail["expires"],
            measurement=None,
            note=detail["note"],
        )
    if entry is None:
        raise ImpossibleError(f"is {kind[:40]} before it was created")
    if kind not in COMES_FROM:
        return entry
    state = State(kind)
    if entry.state not in COMES_FROM[state]:
        raise ImpossibleError(f"is {kind} although it was {entry.state}")
    if state is State.MEASURED:
        measurement = base64.b64decode(detail["measurement"], validate=True)
        return replace(entry, state=state, changed=time, measurement=measurement)
    return replace(entry, state=state, changed=time, note=detail.get("note", entry.note))


def to_text(measurement: bytes) -> str:
    """Write a measurement as hosts do."""
    return base64.b64encode(measurement).decode("ascii")


def _json(value: object) -> str:
    return _ENCODER.encode(value)
