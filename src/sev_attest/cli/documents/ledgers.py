"""Documents of `ledger`."""

from collections.abc import Iterable
from typing import Annotated, NotRequired, TypedDict

from sev_attest.cli.documents.parts import (
    Base64,
    Count,
    Done,
    Failed,
    Head,
    Hex32,
    Hex48,
    Noted,
    one_of,
)


class LedgerSession(TypedDict):
    """A session, as the ledger has it."""

    session_id: Hex32
    """The id of its keys."""
    name: str
    """What its owner calls it; may be empty."""
    state: Annotated[str, one_of("created", "measured", "released", "failed", "expired", "closed")]
    """Its state."""
    explained: str
    """The state in words."""
    created: str
    """When it was made."""
    changed: str
    """When its state changed last."""
    expires: str | None
    """When its time is over; null if it does not expire."""
    measurement: Base64 | None
    """The measurement that it is bound to; null before a launch."""
    note: str
    """What was noted of it."""
    refused: Count
    """How many launches were refused in it."""
    technology: Annotated[str, one_of("sev", "snp")]
    """What it is for: a session for SEV and SEV-ES, a challenge for SEV-SNP."""
    report_sha384: Hex48 | None
    """SHA-384 of the report that it is bound to; null before, and for SEV and SEV-ES."""


class LedgerEvent(TypedDict):
    """An event in the ledger's log."""

    seq: Count
    """Its number, from 1."""
    time: str
    """When it happened."""
    session_id: str
    """The session that it is of."""
    kind: str
    """What happened."""
    detail: str
    """More of that."""
    previous: Hex32
    """The hash of the event before."""
    hash: Hex32
    """The hash of this event and all before it."""


class LedgerInit(Done):
    """A ledger that is there, and of this version."""

    ledger: str
    """Where it is."""
    head: Head
    """Its last event."""


class LedgerList(Done):
    """The sessions of a ledger."""

    sessions: Iterable[LedgerSession]
    """The sessions, the oldest first."""


class KeptKeys(TypedDict):
    """The keys of a session."""

    keys: Annotated[str, one_of("sealed here", "sealed here, damaged", "gone")] | None
    """Where its keys are; null if the ledger never had them."""
    kek: str | None
    """The id of the key that they are sealed under."""


class ShownSession(LedgerSession, KeptKeys):
    """A session with its keys and its platform."""

    verified: bool | None
    """Whether its platform was verified; null if nothing says so."""
    root: str | None
    """The trusted root of its platform."""


class LedgerShow(Done):
    """A session and everything that happened in it."""

    session: ShownSession
    """The session."""
    events: Iterable[LedgerEvent]
    """Its events, the oldest first."""


class LedgerClose(Done):
    """A session that was ended."""

    session: LedgerSession
    """The session."""


class LedgerExpire(Done):
    """Sessions whose time is over."""

    expired: Count
    """How many were recorded as expired."""


class LedgerAcceptHead(Done):
    """A ledger that goes on after it lost events."""

    head: Head
    """Its last event."""


class LedgerPrune(Done):
    """Sessions that were removed."""

    files: list[str]
    """The file that has them; empty if there were none."""
    sessions: Count
    """How many sessions were removed, in all."""
    events: Count
    """How many events were removed, in all."""
    head: Head
    """The ledger's last event."""


class RemovedSession(LedgerSession):
    """A session with its events."""

    events: list[LedgerEvent]
    """Its events, the oldest first."""


class LedgerSegment(Done):
    """The file that `ledger prune` writes: what it removed."""

    head: Head
    """The last event that was there when they were removed."""
    sessions: Iterable[RemovedSession]
    """The sessions that were removed."""


class LedgerExport(Done):
    """Everything in a ledger."""

    head: Head
    """Its last event."""
    sessions: Iterable[LedgerSession]
    """The sessions, the oldest first."""
    events: Iterable[LedgerEvent]
    """The events, the oldest first."""


class LedgerExported(Done):
    """A ledger that was written to a file."""

    files: list[str]
    """The file that was written."""
    head: Head
    """The ledger's last event."""


class LedgerVerify(Noted):
    """A ledger that nobody tampered with."""

    head: Head
    """Its last event; keep it elsewhere."""


class LedgerVerifyRefused(Failed):
    """A ledger that is damaged."""

    findings: NotRequired[list[str]]
    """Everything that is wrong with it."""
