"""Documents of `host` and `guest`."""

from typing import Annotated, TypedDict

from sev_attest.cli.documents.parts import (
    AnyGeneration,
    Byte,
    Count,
    Done,
    Fingerprints,
    Hex,
    Hex32,
    Noted,
    Refused,
    one_of,
)


class Inspected(TypedDict):
    """The result of one check of a machine."""

    id: str
    """The id of the check; it is stable."""
    subject: str
    """What it looks at: CPU, kernel, ..."""
    status: Annotated[str, one_of("OK", "missing", "cannot tell", "note")]
    """The result."""
    found: str
    """What was found."""
    fix: str
    """What to do about it; may be empty."""
    essential: bool
    """Whether the machine is not ready without it."""


class Inspection(Noted):
    """Every check of a machine."""

    root: str
    """The root of the files that were read; "/" is the running machine."""
    findings: list[Inspected]
    """Every check, in order."""


class HostCheck(Inspection):
    """A host that is ready for its guests."""

    kind: Annotated[str, one_of("sev", "es", "snp")]
    """What its guests are to be: SEV, SEV-ES or SEV-SNP."""


class HostCheckRefused(Refused):
    """A host that is not ready."""


class GuestCheck(Inspection):
    """A guest in which SEV is active, as it says."""


class GuestCheckRefused(Refused):
    """A guest in which SEV is not active."""


class Status(TypedDict):
    """What the platform's firmware reports."""

    api_major: Byte
    """The SEV API."""
    api_minor: Byte
    """The SEV API."""
    build: Byte
    """The build of the firmware."""
    state: Annotated[str, one_of("UNINIT", "INIT", "WORKING")]
    """Not initialised, without guests, or with guests."""
    externally_owned: bool
    """Whether an owner imported an OCA."""
    es: bool
    """Whether it is initialised for SEV-ES."""
    guest_count: Count
    """How many guests there are."""


class HostStatus(Done, Status):
    """The state of a platform, as it says."""

    platform_id: Hex | None
    """The id of the chip; null if it is not reported."""


class HostCsr(Done):
    """A PEK that was written, for an OCA to sign."""

    files: list[str]
    """The file that was written."""


class HostProvision(Done):
    """A platform that an OCA owns now."""

    before: Status
    """The state of the platform before."""
    oca: Hex32
    """The fingerprint of the OCA."""


class HostRotate(Done):
    """A platform with new keys."""

    before: Status
    """The state of the platform before."""


class HostReset(Done):
    """A platform that was reset."""

    before: Status
    """The state of the platform before."""


class HostExport(Noted):
    """A platform's chain that was written, for guest owners."""

    files: list[str]
    """The file that was written."""
    fingerprints: Fingerprints
    """The certificates of the chain."""
    cek_signed: bool
    """Whether AMD's signature is on the CEK, and the chain was verified."""
    cek_address: str
    """Where AMD serves the signed CEK."""
    generation: AnyGeneration | None
    """The generation of AMD's chips; null if the chain was not verified."""
    root: str | None
    """The trusted root; null if the chain was not verified."""
