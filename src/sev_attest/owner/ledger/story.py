"""The states of an attempt, its entry and its events, and which event may follow which.

The ledger uses :func:`applied` when it writes, and the audit when it reads: the rules are the same.
"""

import binascii
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from sev_attest._encoding import to_base64
from sev_attest.sev.spec import MEASUREMENT_SIZE

if TYPE_CHECKING:
    from sev_attest.owner.ledger.kept import KeptChallenge


class Technology(StrEnum):
    """What an attempt is for: a session for SEV and SEV-ES, a challenge for SEV-SNP."""

    SEV = "sev"
    SNP = "snp"

    @property
    def attempt(self) -> str:
        """What an attempt is called."""
        return "session" if self is Technology.SEV else "challenge"


class State(StrEnum):
    """The state of an attempt. The event that leads to it has the same name."""

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
"""For each state, those it can be reached from."""

OPEN: frozenset[State] = COMES_FROM[State.CLOSED]
"""The states in which a session may still be released."""
REFUSED = "refused"
"""The kind of event that logs a second use of an attempt."""
LEDGER = ""
"""The session id in events of the ledger itself."""
CHECKPOINT = "checkpoint"
"""The kind of event, of the ledger itself, that logs that events were removed."""
ACCEPTED = "accepted"
"""The kind of event, of the ledger itself, that logs that somebody went on after a loss."""
REQUIREMENTS = "requirements"
"""The kind of event that logs which requirements a launch did not meet."""
MAX_REFUSED = 16
"""How many times a launch with a right measurement may be refused, before its attempt fails."""

TIME: re.Pattern[str] = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00")
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_SAYS: Mapping[State, str] = {
    State.CREATED: "no {launch} was verified yet",
    State.MEASURED: "{measured}on {changed}, no secret has left",
    State.RELEASED: "its secret left on {changed}; if the guest never got it, make a new {attempt}",
    State.FAILED: "on {changed}{because}; make a new {attempt} for another {launch}",
    State.EXPIRED: "its time was over on {expires}; make a new {attempt} for another {launch}",
    State.CLOSED: "on {changed}{because}; make a new {attempt} for another {launch}",
}
_WORDS: Mapping[Technology, Mapping[str, str]] = {
    Technology.SEV: {"launch": "launch", "measured": ""},
    Technology.SNP: {"launch": "report", "measured": "bound to a report "},
}


class LedgerEntry(NamedTuple):
    """The present state of an attempt. The fields are the columns of its row, in their order.

    ``session_id`` is the id of the attempt, 64 hex digits. ``measurement`` is what it is bound to,
    48 bytes: for SEV-SNP, the SHA-384 of the report. Times are UTC in ISO 8601, to the second.
    ``refused`` counts the launches with a right measurement that were refused; the log has the
    first of each reason.
    """

    session_id: str
    name: str
    state: State
    created: str
    changed: str
    expires: str | None
    measurement: bytes | None
    note: str
    technology: Technology = Technology.SEV
    refused: int = 0

    @property
    def label(self) -> str:
        """Its name, or the first 12 digits of its id if it has none."""
        return self.name or self.session_id[:12]

    def overdue(self, now: str) -> bool:
        """Return whether its time was over at ``now`` before it was released or ended."""
        open_still = self.state in COMES_FROM[State.EXPIRED]
        return open_still and self.expires is not None and self.expires <= now

    def fresh(self, now: str) -> bool:
        """Return whether it is unused and not over at ``now``."""
        return self.state is State.CREATED and not self.overdue(now)

    def explain(self, now: str) -> str:
        """Return a sentence for people: its state, and what its owner can do."""
        state = self.state_at(now)
        because = f": {self.note}" if self.note else ""
        told = _SAYS[state].format(
            changed=self.changed,
            expires=self.expires,
            because=because,
            attempt=self.technology.attempt,
            **_WORDS[self.technology],
        )
        return f"{state}: {told}"

    def state_at(self, now: str) -> State:
        """Return its state, or ``expired`` if its time was over at ``now``."""
        return State.EXPIRED if self.overdue(now) else self.state

    def to_row(self) -> tuple[str | int | None, ...]:
        """Return its row in the database."""
        measurement = None if self.measurement is None else to_base64(self.measurement)
        return (
            self.session_id,
            self.name,
            self.state.value,
            self.created,
            self.changed,
            self.expires,
            measurement,
            self.note,
            self.technology.value,
            self.refused,
        )

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "LedgerEntry":
        """Read a row; raises ValueError or TypeError for one that the ledger does not write."""
        session_id, name, state, created, changed, expires, text, note, technology, refused = row
        texts = (session_id, name, state, note, technology)
        if not all(isinstance(value, str) for value in texts) or type(refused) is not int:
            raise TypeError("SQLite takes any type in any column")
        if not 0 <= refused <= MAX_REFUSED:
            raise ValueError("this is not a number of refusals")
        times = (created, changed) if expires is None else (created, changed, expires)
        if not all(map(TIME.fullmatch, times)):
            raise ValueError("this is not a time as the ledger writes it")
        measurement = None if text is None else from_text(text)
        if measurement is not None and len(measurement) != MEASUREMENT_SIZE:
            raise ValueError("this is not a measurement")
        return cls(
            session_id=session_id,
            name=name,
            state=State(state),
            created=created,
            changed=changed,
            expires=expires,
            measurement=measurement,
            note=note,
            technology=Technology(technology),
            refused=refused,
        )


class Head(NamedTuple):
    """The end of the log: the number of events, and the hash of the last one (64 hex digits).

    As text it is COUNT:HASH. A head that is noted elsewhere shows later that no event before it was
    changed.
    """

    count: int  # type: ignore[assignment] # not the method of tuples
    hash: str

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"


EMPTY: Head = Head(0, "0" * 64)


class Event(NamedTuple):
    """One entry of the log. The fields are the columns of its row, in their order.

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
        """Return the event that follows ``head``."""
        fields = (head.count + 1, time, session_id, kind, to_json(detail), head.hash)
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
        """The head of the log that ends with this event."""
        return Head(self.seq, self.hash)

    def to_row(self) -> tuple[Any, ...]:
        """Return its row in the database."""
        return tuple(self)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "Event":
        """Read a row; raises TypeError for one that the ledger does not write."""
        seq, *texts = row
        if type(seq) is not int or not all(isinstance(text, str) for text in texts):
            raise TypeError("SQLite takes any type in any column")
        return cls._make(row)


def event_hash(fields: tuple[object, ...]) -> str:
    """Return the hash of an event: SHA-256 of its other fields as a JSON array, in ASCII.

    Raises TypeError for a field that is neither a number nor text.
    """
    from hashlib import sha256  # it brings in OpenSSL, and what only reads hashes nothing

    return sha256(to_json(fields).encode("ascii")).hexdigest()


class ImpossibleError(ValueError):
    """An event that cannot follow those before it."""


UNKNOWN_ROOT = ""
"""The root of a platform if it is unknown whether anybody verified it."""


def root_of(detail: Mapping[str, Any]) -> str | None:
    """Return the root in a ``created`` event; None if nobody verified the platform.

    It is UNKNOWN_ROOT for sessions of other tools, and for those that an older sev-attest created.
    Raises TypeError if it is not text.
    """
    root = detail.get("root", UNKNOWN_ROOT)
    if not isinstance(root, str | None):
        raise TypeError("the name of a root is text")
    return root


def challenge_of(detail: Mapping[str, Any]) -> "KeptChallenge | None":
    """Return the challenge in a ``created`` event; None in that of a session."""
    told = detail.get("challenge")
    if told is None:
        return None
    from sev_attest.owner.ledger.kept import KeptChallenge

    return KeptChallenge.from_detail(told)


def applied(
    entry: LedgerEntry | None, *, time: str, session_id: str, kind: str, detail: Mapping[str, Any]
) -> LedgerEntry:
    """Return the entry after an event.

    Raises ImpossibleError if the event cannot follow; KeyError, ValueError, TypeError or
    AttributeError for a detail that the ledger does not write.
    """
    if kind == State.CREATED:
        if entry is not None:
            raise ImpossibleError("is created a second time")
        root_of(detail)
        challenge = challenge_of(detail)
        if challenge is not None and challenge.attempt != session_id:
            raise ImpossibleError("is not the one of its challenge")
        return LedgerEntry(
            session_id=session_id,
            name=detail["name"],
            state=State.CREATED,
            created=time,
            changed=time,
            expires=detail["expires"],
            measurement=None,
            note=detail["note"],
            technology=Technology.SEV if challenge is None else Technology.SNP,
        )
    if entry is None:
        raise ImpossibleError(f"is {kind[:40]} before it was created")
    if kind not in COMES_FROM:
        return entry
    state = State(kind)
    if entry.state not in COMES_FROM[state]:
        raise ImpossibleError(f"is {kind} although it was {entry.state}")
    if state is State.MEASURED:
        measurement = from_text(detail["measurement"])
        return entry._replace(state=state, changed=time, measurement=measurement)
    return entry._replace(state=state, changed=time, note=detail.get("note", entry.note))


def from_text(text: str) -> bytes:
    """Decode base64; raises ValueError or TypeError for anything else."""
    return binascii.a2b_base64(text, strict_mode=True)


def to_json(value: object) -> str:
    """Return a detail as the log keeps it: JSON in ASCII, without spaces."""
    return _ENCODER.encode(value)
