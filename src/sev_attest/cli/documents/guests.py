"""Documents of the commands that measure guests of SEV and SEV-ES, and read what they boot."""

from typing import Annotated, NotRequired, TypedDict

from sev_attest.cli.documents.parts import (
    Api,
    Base64,
    Byte,
    Count,
    Done,
    Hex16,
    Hex32,
    Noted,
    Policy32,
    one_of,
)
from sev_attest.cli.documents.sev import MeasuredGuest

PolicyBit = Annotated[str, one_of("NODBG", "NOKS", "ES", "NOSEND", "DOMAIN", "SEV")]


class MeasureFacts(MeasuredGuest):
    """A launch digest, and with --tik the measurement to expect."""

    notes: list[str]
    """Remarks for people."""
    policy: Policy32
    """The guest policy."""
    measurement: Base64 | None
    """The measurement to expect; null without --tik. The host must not learn it."""
    api_major: NotRequired[Byte]
    """The SEV API; with --tik only."""
    api_minor: NotRequired[Byte]
    """The SEV API; with --tik only."""
    build_id: NotRequired[Byte]
    """The build of the SEV firmware; with --tik only."""
    nonce: NotRequired[Hex16]
    """The firmware's nonce; with --tik only."""


class Measure(Done, MeasureFacts):
    """A launch digest, and with --tik the measurement to expect."""


class MeasureTable(Done):
    """The launch digests of a guest with each number of vCPUs."""

    policy: Policy32
    """The guest policy."""
    digests: dict[str, Hex32]
    """The launch digest for each number of vCPUs."""


class MeasureManifest(Done):
    """Launch digests that were written to a file."""

    manifest: str
    """The file."""
    digests: Count
    """How many digests it has."""


class VmsaBuild(Noted):
    """A vCPU's page that was written."""

    file: str
    """The file."""
    profile: str
    """The VMSA profile."""
    cpu: Count
    """The number of the vCPU; 0 boots."""


class Segment(TypedDict):
    """A segment register."""

    selector: Count
    """Its selector."""
    attrib: Count
    """Its attributes."""
    limit: Count
    """Its limit."""
    base: Count
    """Its base."""


class VmsaShow(Done):
    """The fields of a vCPU's page."""

    fields: dict[str, Count | Segment]
    """Every field by its name in AMD's manual; zeros too."""
    unnamed: list[Count]
    """The offsets of bytes in use that belong to no named field."""


class VmsaDiff(TypedDict):
    """The fields in which two pages differ."""

    ok: bool
    """Whether the pages are the same."""
    fields: dict[str, list[Count]]
    """Both values of each field that differs."""
    unnamed: list[Count]
    """The offsets of bytes that differ and belong to no named field."""


class FirmwareEntry(TypedDict):
    """An entry of the firmware's footer table."""

    guid: str
    """Its GUID."""
    name: str
    """Its name; "unknown" for one without."""
    value: str
    """Its numbers in hex, joined by commas."""


class FirmwareSection(TypedDict):
    """A section of the firmware's SEV metadata."""

    address: Count
    """Its guest address."""
    size: Count
    """Its size in bytes."""
    type: str
    """What it is for."""


class Firmware(Noted):
    """What an OVMF image declares, and what it can attest."""

    size: Count
    """The size of the image in bytes."""
    sha256: Hex32
    """Its SHA-256."""
    kind: str
    """What it is: CODE, VARS, whole, or unknown."""
    entries: list[FirmwareEntry]
    """The entries of its footer table."""
    sections: list[FirmwareSection]
    """The sections of its SEV metadata."""
    attests: dict[Annotated[str, one_of("SEV", "SEV-ES", "kernel hashes", "secrets")], bool | str]
    """What a guest with it can be attested for; of secrets: how large they may be, or false."""


class PolicyMeaning(TypedDict):
    """A guest policy, explained."""

    policy: Policy32
    """The policy."""
    hex: str
    """The policy as hex, as XML has it."""
    names: list[str]
    """The names that `policy` composes it from."""
    bits: dict[PolicyBit, bool]
    """Whether each bit is set."""
    min_api: Api
    """The oldest SEV API that it accepts; 0.0 accepts any."""
    risks: list[str]
    """What its clear bits leave open."""


class Policy(Done):
    """Guest policies, explained or composed."""

    policies: list[PolicyMeaning]
    """Every policy, in order."""
