"""Documents of `ledger`, `requirements` and `advisories`."""

from typing import Annotated, Literal, NotRequired, TypedDict

from sev_attest.cli.documents.parts import (
    AnyGeneration,
    Api,
    Base64,
    Byte,
    Count,
    Done,
    Exposed,
    Failed,
    Head,
    Hex,
    Hex32,
    Noted,
    Policy32,
    Weakness,
)


class LedgerSession(TypedDict):
    """A session, as the ledger has it."""

    session_id: Hex32
    """The id of its keys."""
    name: str
    """What its owner calls it; may be empty."""
    state: str
    """Its state; `ledger list --help` lists them."""
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

    schema: Literal["sev-attest/ledger init/1"]
    ledger: str
    """Where it is."""
    head: Head
    """Its last event."""


class LedgerList(Done):
    """The sessions of a ledger."""

    schema: Literal["sev-attest/ledger list/1"]
    sessions: list[LedgerSession]
    """The sessions, the oldest first."""


class ShownSession(LedgerSession):
    """A session with its keys and its platform."""

    keys: Literal["sealed here", "sealed here, damaged", "gone"] | None
    """Where its keys are; null if the ledger never had them."""
    kek: str | None
    """The id of the key that they are sealed under."""
    verified: bool | None
    """Whether its platform was verified; null if nothing says so."""
    root: str | None
    """The trusted root of its platform."""


class LedgerShow(Done):
    """A session and everything that happened in it."""

    schema: Literal["sev-attest/ledger show/1"]
    session: ShownSession
    """The session."""
    events: list[LedgerEvent]
    """Its events, the oldest first."""


class LedgerClose(Done):
    """A session that was ended."""

    schema: Literal["sev-attest/ledger close/1"]
    session: LedgerSession
    """The session."""


class LedgerExpire(Done):
    """Sessions whose time is over."""

    schema: Literal["sev-attest/ledger expire/1"]
    expired: Count
    """How many were recorded as expired."""


class LedgerAcceptHead(Done):
    """A ledger that goes on after it lost events."""

    schema: Literal["sev-attest/ledger accept-head/1"]
    head: Head
    """Its last event."""


class LedgerPrune(Done):
    """Sessions that were removed."""

    schema: Literal["sev-attest/ledger prune/1"]
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

    schema: Literal["sev-attest/ledger segment/1"]
    head: Head
    """The last event that was there when they were removed."""
    sessions: list[RemovedSession]
    """The sessions that were removed."""


class LedgerExport(Done):
    """Everything in a ledger."""

    schema: Literal["sev-attest/ledger export/1"]
    head: Head
    """Its last event."""
    sessions: list[LedgerSession]
    """The sessions, the oldest first."""
    events: list[LedgerEvent]
    """The events, the oldest first."""


class LedgerExported(Done):
    """A ledger that was written to a file."""

    schema: Literal["sev-attest/ledger export/1"]
    files: list[str]
    """The file that was written."""
    head: Head
    """The ledger's last event."""


class LedgerVerify(Noted):
    """A ledger that nobody tampered with."""

    schema: Literal["sev-attest/ledger verify/1"]
    head: Head
    """Its last event; keep it elsewhere."""


class LedgerVerifyFailed(Failed):
    """A ledger that is damaged."""

    schema: Literal["sev-attest/ledger verify/1"]
    findings: NotRequired[list[str]]
    """Everything that is wrong with it."""


class RequirementsInit(Done):
    """An owner.toml that was written."""

    schema: Literal["sev-attest/requirements init/1"]
    file: str
    """The file."""


class AcceptedFirmware(TypedDict):
    """The oldest SEV firmware that is accepted."""

    api: str
    """Its API, MAJOR.MINOR."""
    build: Byte
    """Its build."""


class RequiredPolicy(TypedDict):
    """What is required of the guest policy."""

    set: list[str]
    """Bits that must be set."""
    clear: list[str]
    """Bits that must be clear."""
    minimum_api: bool
    """Whether a policy must have a minimum API."""


class AllowedGuest(TypedDict):
    """A guest that may get its secret."""

    name: str
    """Its name."""
    digests: dict[Hex, str]
    """Its launch digests, each with a description."""
    expires: str | None
    """When it is not allowed any more; null for never."""
    expired: bool
    """Whether that is over."""
    note: str
    """What was noted of it."""


class Allows(TypedDict):
    """What owner.toml allows; "*" in a list allows all."""

    generations: list[str]
    """The generations of AMD's chips; "test" is a root that is not AMD's."""
    ceks: list[str]
    """The chips, by CEK."""
    platform_ids: list[str]
    """The platform ids, as hosts claim them."""
    pdhs: list[str]
    """The PDHs."""
    denied_ceks: list[str]
    """The chips that are denied."""
    denied_platform_ids: list[str]
    """The platform ids that are denied."""
    denied_pdhs: list[str]
    """The PDHs that are denied."""
    acknowledged: list[str]
    """Advisories that may affect the platform."""
    refused: list[str]
    """Advisories that must not affect the platform."""
    minimum: dict[str, AcceptedFirmware]
    """The oldest firmware of each generation."""
    policy: RequiredPolicy
    """What is required of the guest policy."""
    launches: list[AllowedGuest]
    """The guests that may get their secret."""


class RequirementsCheck(Noted):
    """What an owner.toml allows."""

    schema: Literal["sev-attest/requirements check/1"]
    possible: bool
    """Whether any launch can meet it."""
    allows: Allows
    """What it allows."""


class KnownFacts(TypedDict):
    """What is known of a launch; null is unknown."""

    generation: AnyGeneration | None
    """The generation of AMD's chips."""
    api: Api | None
    """The SEV API."""
    build: Byte | None
    """The build of the SEV firmware."""
    policy: Policy32 | None
    """The guest policy."""


class Advisories(Done):
    """Known weaknesses, and whether they affect a launch."""

    schema: Literal["sev-attest/advisories/1"]
    as_of: Annotated[str, {"format": "date"}]
    """The day on which they were last checked."""
    facts: KnownFacts
    """What is known of the launch."""
    advisories: list[Exposed] | list[Weakness]
    """The weaknesses; with a verdict each if anything is known of the launch."""
