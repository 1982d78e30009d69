"""Documents of `simulate`."""

from typing import Annotated, Literal, TypedDict

from sev_attest.cli.documents.parts import (
    AnyGeneration,
    Api,
    Base64,
    Byte,
    Count,
    Done,
    Fingerprints,
    Hex,
    Hex48,
    Policy32,
    one_of,
)


class Simulated(Done):
    """Something of a simulated host: nothing of it is a real platform."""

    simulated: Literal[True]
    """It is a simulation."""


class Host(TypedDict):
    """A simulated host."""

    generation: AnyGeneration
    """The generation of AMD's chips that it is like."""
    api: Api
    """Its SEV API."""
    build: Byte
    """The build of its SEV firmware."""
    fault: str | None
    """What is wrong with it."""


class SevGuest(TypedDict):
    """A simulated guest of SEV or SEV-ES."""

    guest: str
    """Its name."""
    state: Annotated[str, one_of("paused", "running")]
    """Its state."""
    policy: Policy32
    """The guest policy."""
    measurement: Base64
    """Its measurement: HMAC and nonce, 48 bytes."""
    api: Api
    """The SEV API of the launch."""
    build_id: Byte
    """The build of the SEV firmware."""


class SnpGuest(TypedDict):
    """A simulated guest of SEV-SNP."""

    guest: str
    """Its name."""
    state: Annotated[str, one_of("paused", "running")]
    """Its state."""
    policy: Count
    """The guest policy."""
    snp: Literal[True]
    """It is a guest of SEV-SNP."""
    launch_digest: Hex48
    """Its launch digest."""


class SimulateHost(Simulated, Host):
    """A simulated host that was made."""

    folder: str
    """Its folder."""
    files: list[str]
    """The files in it."""


class SimulateExport(Simulated):
    """The chain of a simulated host that was written."""

    file: str
    """The file."""
    fingerprints: Fingerprints
    """The certificates of the chain."""


class SimulateStart(Simulated, SevGuest):
    """A simulated guest that is paused and measured."""


class SimulateStartSnp(Simulated, SnpGuest):
    """A simulated guest of SEV-SNP that is measured and runs."""


class SimulateSnpReport(Simulated):
    """A report of a simulated guest."""

    guest: str
    """The guest's name."""
    folder: str
    """The folder that was written."""
    files: list[str]
    """The files in it."""
    report: Hex
    """The report."""


class SimulateDomlaunchsecinfo(Simulated, SevGuest):
    """What a simulated host reports of a launch."""


class SimulateDomsetlaunchsecstate(Simulated):
    """Secrets that a simulated guest got."""

    guest: str
    """The guest's name."""


class SimulateResume(Simulated):
    """A simulated guest that runs."""

    guest: str
    """The guest's name."""


class SimulateDestroy(Simulated):
    """A simulated guest that is gone."""

    guest: str
    """The guest's name."""


class SimulateList(Simulated, Host):
    """A simulated host and its guests."""

    guests: list[SevGuest | SnpGuest]
    """Its guests."""


class SimulateGuest(Simulated, SevGuest):
    """What a simulated guest sees."""

    sev: Literal[True]
    """SEV is active."""
    sev_es: bool
    """Whether SEV-ES is active."""
    secrets: dict[str, Count]
    """The secrets that arrived: the GUID of each, and its size in bytes."""
    files: list[str]
    """The files that were written."""


class SimulateGuestSnp(Simulated, SnpGuest):
    """What a simulated guest of SEV-SNP sees."""

    sev: Literal[True]
    """SEV is active."""
    sev_es: Literal[True]
    """SEV-ES is active."""
    sev_snp: Literal[True]
    """SEV-SNP is active."""
