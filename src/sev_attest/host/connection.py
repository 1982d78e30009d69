"""The interface to a host and to a guest on it; ``libvirt`` and ``qmp`` implement it."""

from dataclasses import dataclass
from typing import Protocol

from sev_attest.domain_xml.versions import Versions
from sev_attest.errors import SevAttestError
from sev_attest.sev.launch_info import Claims

UNSURE = (
    "the guest may have the secret: do not send it again, start the guest anew in a new session"
)
"""The hint if no answer to a secret arrives."""
NOT_TAKEN = "the guest is not the one that was measured, or it runs already"
"""The hint if the firmware refuses a secret."""


class HostError(SevAttestError):
    """A host that cannot be reached, does not answer in time, or cannot do what it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """The parts of a domain's XML that matter to its owner, as the host reports them.

    Paths and the command line are None if the XML has none.
    """

    sev: bool
    snp: bool
    """Whether it is an SEV-SNP guest; then it is none of SEV or SEV-ES."""
    owner_keys: bool
    """Whether it has both dhCert and session."""
    kernel_hashes: bool
    nvram: bool
    firmware: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    cpu_mode: str = ""
    cpu_model: str = ""
    session: str = ""
    """Session blob, base64."""


class RunningGuest(Protocol):
    """A guest on a host.

    Every method raises HostError if the host fails or does not answer in time, WrongState if the
    guest is gone, and MalformedInput for an answer of another shape.
    """

    starts: str
    """What starts a guest paused, in words for people."""
    resumes: str
    """What lets a guest run, in words for people."""

    @property
    def config(self) -> DomainConfig | None:
        """The configuration it was started with; None if the host does not report it."""

    def state(self) -> str:
        """Return "paused", or the host's word for another state."""

    def claims(self) -> Claims:
        """Return what the host reports of the guest's launch."""

    def vcpus(self) -> int:
        """Return the number of vCPUs."""

    def cpu(self) -> tuple[int, int, int] | None:
        """Return family, model and stepping of the host's CPU; None if it is not reported."""

    def confirm(self) -> None:
        """Raise WrongState if this is no longer the guest that was found."""

    def inject(self, header: bytes, payload: bytes) -> None:
        """Pass a secret packet to the guest.

        Raises WrongState if the packet is refused; the guest has no secret then. Raises HostError
        if it is not known whether the packet arrived.
        """

    def resume(self) -> None:
        """Let the guest run."""


class HostDomain(Protocol):
    """A domain that a host has defined. Its methods raise as those of :class:`RunningGuest` do."""

    def xml(self) -> str:
        """Return the XML that it would be started with, passwords included."""

    def active(self) -> bool:
        """Return whether it runs or is paused."""

    def state(self) -> str:
        """Return "paused", or the host's word for another state."""

    def start_paused(self) -> None:
        """Start it, with no vCPU running. Raises WrongState if it is active."""

    def started_here(self) -> bool:
        """Return whether its guest is the one that :meth:`start_paused` started."""

    def live_session(self) -> str:
        """Return the session blob that its guest was started in (base64), "" if it has none."""

    def running(self) -> RunningGuest:
        """Return its guest. Raises WrongState if it is not active."""

    def destroy(self) -> None:
        """End its guest at once. Raises WrongState if it is not active."""

    def undefine(self) -> None:
        """Remove its definition. Files that it names stay."""


class HostConnection(Protocol):
    """A connection to a host. Its methods raise as those of :class:`RunningGuest` do."""

    def close(self) -> None:
        """Disconnect. Raises nothing."""

    def hurry(self, seconds: float) -> None:
        """Let all later answers together take ``seconds`` at most."""

    def is_local(self) -> bool:
        """Return whether the host is this machine, or cannot be told apart from it."""

    def chain(self) -> bytes:
        """Return the platform's certificates, as JSON with QMP's names."""

    def guest(self, name: str | None) -> RunningGuest:
        """Return the guest of this name; None is the only one.

        Raises HostError if there is no such guest, WrongState if it does not run, Unsupported if
        the host needs a name or takes none.
        """

    def versions(self) -> Versions:
        """Return the versions of libvirt and QEMU, as far as the host reports them."""

    def find(self, name: str, /) -> HostDomain | None:
        """Return the domain of this name, None if there is none.

        Raises Unsupported if a host of this kind defines no domains.
        """

    def define(self, xml: str, /) -> HostDomain:
        """Define a domain, or replace the definition of one that has its name and UUID.

        Raises Unsupported if a host of this kind defines no domains.
        """
