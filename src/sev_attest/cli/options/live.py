"""Guests on a host that is connected to: what they report, and what is sent to them."""

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sev_attest.cli.bundle import option, option_name
from sev_attest.cli.interrupts import running
from sev_attest.cli.options.boot import KERNEL
from sev_attest.cli.options.connect import ConnectOptions, connect, is_qmp
from sev_attest.cli.options.guest import GuestOptions
from sev_attest.cli.usage import usage
from sev_attest.errors import (
    Insecure,
    MalformedInput,
    SevAttestError,
    Unsupported,
    WrongState,
    reading,
)
from sev_attest.guest.spec import MAX_VCPUS
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.host import DomainConfig, RunningGuest
    from sev_attest.sev.launch_info import Claims
    from sev_attest.sev.secret import SecretPacket

_SYSTEM = "qemu:///system"
_FILES = ("firmware", "kernel", "initrd")
_MAX_FIRMWARE = 16 << 20


class HostOptions(ConnectOptions, title="The host"):
    """The guest on a host to connect to, and what is accepted of that host."""

    domain: str | None = option(
        "-o",
        "--domain",
        metavar="ID|NAME|UUID",
        help=f"Ask libvirt about this domain (--connect is {_SYSTEM} if it is not given).",
    )
    insecure: bool = option(
        "-i",
        "--insecure",
        is_flag=True,
        help="Go on with an unverified platform, on the host itself, or with what the host says.",
    )
    ignore_config: bool = option(
        "-g", "--ignore-config", is_flag=True, help="Do not look at the domain's configuration."
    )

    @property
    def live(self) -> bool:
        """Whether the guest is on a host to connect to."""
        return self.connect is not None or self.domain is not None

    def errors(self, beside: list[str]) -> Iterator[Unsupported]:
        """Yield an error if the domain is missing, or for options (``beside``) that exclude one."""
        if not self.live:
            return
        if self.domain is None and not is_qmp(self.connect):
            yield usage("--connect needs --domain (except for QMP)")
        if beside:
            yield usage(f"{', '.join(beside)} cannot be combined with --connect or --domain")


class Live:
    """A guest on a host: to be verified and, if its launch is right, to be given its secrets."""

    def __init__(
        self,
        guest: "RunningGuest",
        claims: "Claims",
        notes: list[str],
        *,
        local: bool,
        insecure: bool,
    ) -> None:
        """Take the guest and what the host reports of it.

        ``local``: the host is this machine; ``insecure``: what the host says is accepted.
        """
        self.guest: RunningGuest = guest
        self.claims: Claims = claims
        self.notes: list[str] = notes
        self.local: bool = local
        self.insecure: bool = insecure
        self.refused: bool = False
        """Whether the secret was not sent, or the host says that it was not taken."""
        self.sending: bool = False
        """Whether the host was asked to take the secret."""
        self.injected: bool = False
        """Whether the host took the secret."""
        self.runs: bool = False
        """Whether the host let the guest run, because it was asked to."""

    def complete(self, options: GuestOptions, policy: GuestPolicy) -> GuestOptions:
        """Return the options with what they leave to the host; it is noted in ``notes``.

        Raises Insecure if that needs --insecure, Unsupported if the host does not report it.
        """
        if options.launch_digest is not None:
            return options
        if policy.es and options.num_cpus is None:
            self._allow("the number of vCPUs", "--num-cpus")
            options = options.replace(num_cpus=_number_of_vcpus(self.guest.vcpus()))
        options = options.replace(**self._files(options))
        stateless = options.vmsa_cpu0 is None and options.profile() is None
        if policy.es and stateless and options.firmware is not None:
            self._allow("the CPU", "--cpu-model-name")
            options = options.replace(**self._cpu())
        return options

    def _allow(self, what: str, option: str) -> None:
        """Note that a value is the host's; raises Insecure if that needs --insecure."""
        if not self.insecure:
            raise Insecure(
                f"{what} would be what the host says",
                check="host.claim",
                hint=f"say it with {option}; for tests, --insecure goes on",
            )
        self.notes.append(f"INSECURE: {what} is what the host says")

    def _files(self, options: GuestOptions) -> dict[str, str]:
        """Return what the domain boots, as far as the options leave it to the host."""
        config = self.guest.config
        if config is None:
            return {}
        wanted: tuple[str, ...] = ("firmware",)
        if config.kernel_hashes and options.kernel_hashes is None:
            wanted += KERNEL
        found = {}
        for name in wanted:
            value = getattr(config, name)
            if getattr(options, name) is not None or not value:
                continue
            if name in _FILES:
                self._require_here(name, value)
            self._allow(f"the {name}", option_name(name))
            if name in _FILES:
                _check_file(name, value)
            found[name] = value
        return found

    def _require_here(self, name: str, path: str) -> None:
        """Raise an error for a file on another machine, or in an unknown folder."""
        if not self.local:
            raise usage(
                f"the host names a {name}, but the file is there, not here",
                hint=f"give your own with {option_name(name)}",
            )
        if not path.startswith("/"):
            raise MalformedInput("domain XML", name, "is not an absolute path")

    def _cpu(self) -> dict[str, int]:
        """Return the CPU that the guest sees: the host's own only if it is passed through."""
        config = self.guest.config
        numbers = None
        if config and config.cpu_mode == "host-passthrough":
            numbers = self.guest.cpu()
        elif config and config.cpu_model:
            from sev_attest.guest.cpu import CpuModel

            model = CpuModel.named(config.cpu_model)
            numbers = (model.family, model.model, model.stepping)
        if numbers is None:
            raise Unsupported(
                "the host does not say which CPU the guest sees",
                check="host.cpu",
                hint="say it with --cpu-model-name",
            )
        return dict(zip(("cpu_family", "cpu_model", "cpu_stepping"), numbers, strict=True))

    def release(self, packet: "SecretPacket") -> None:
        """Inject the secret once, and resume the guest; raises WrongState, HostError.

        A signal waits until the host has answered. One that comes while the guest is resumed is
        ignored: all is done then.
        """
        self.confirm()
        try:
            with running.held():
                self.refused, self.sending = False, True
                self.guest.inject(packet.header, packet.payload)
                self.injected = True
        except WrongState:
            self.refused = True
            raise
        self._resume("the guest has its secret, do not send it again")

    def run(self) -> None:
        """Resume the guest without a secret; raises WrongState, HostError."""
        self.confirm()
        self._resume("the guest was verified")

    def _resume(self, true: str) -> None:
        try:
            with running.held(drop=True):
                self.guest.resume()
                self.runs = True
        except SevAttestError as error:
            error.hint = f"{true}: {self.guest.resumes} lets it run"
            raise

    def confirm(self) -> None:
        """Check that this is still the guest that was measured; raises WrongState, HostError."""
        self.refused = True
        try:
            self.guest.confirm()
        except SevAttestError as error:
            error.hint = "nothing was sent: start the guest anew, with a new session"
            raise


def _check_file(name: str, path: str) -> None:
    """Raise an error for a device, a pipe or a large file that a host names."""
    found = os.stat(path)  # noqa: PTH116 - pathlib takes longer to import
    if not stat.S_ISREG(found.st_mode):
        raise MalformedInput("domain XML", name, f"{path} is not a regular file")
    if name == "firmware" and found.st_size > _MAX_FIRMWARE:
        raise MalformedInput("domain XML", name, f"{path} is larger than {_MAX_FIRMWARE} bytes")


def _number_of_vcpus(claimed: int) -> int:
    if not 1 <= claimed <= MAX_VCPUS:
        raise MalformedInput("vCPUs", "range", f"the host says {claimed}, not 1..{MAX_VCPUS}")
    return claimed


def attach(options: HostOptions, *, kernel: bool) -> Live | None:
    """Return the guest of the options, paused and fit to be attested; None without a connection.

    ``kernel``: whether the owner's options name a kernel, which the domain must have measured.
    """
    if not options.live:
        return None
    insecure = options.insecure
    uri = _SYSTEM if options.connect is None else options.connect
    host, notes = connect(uri, options.timeout, insecure=insecure)
    local = bool(notes)
    guest = host.guest(options.domain)
    config = None if options.ignore_config else guest.config
    notes += check_paused(guest, insecure=insecure)
    notes += check_domain(config, kernel=kernel, insecure=insecure)
    with reading("the host"):
        claims = guest.claims()
    return Live(guest, claims, notes, local=local, insecure=insecure)


def check_paused(guest: "RunningGuest", *, insecure: bool) -> list[str]:
    """Check that a guest is paused; return notes. Raises WrongState, unless ``insecure``."""
    state = guest.state()
    if state == "paused":
        return []
    message = f"the guest is not paused, but {state}"
    if insecure:
        return [f"INSECURE: {message}"]
    raise WrongState(
        message,
        check="host.state",
        hint=f"only a guest that has not run yet can be attested: {guest.starts}",
    )


def check_domain(config: "DomainConfig | None", *, kernel: bool, insecure: bool) -> list[str]:
    """Check that a domain can be attested; return notes. None, unknown, is accepted.

    ``kernel``: whether the owner names a kernel, which the domain must have measured. ``insecure``
    turns a risk into a note. Raises what ``check_config`` raises.
    """
    if config is None:
        return []
    from sev_attest.host.config import check_config

    try:
        return check_config(config, kernel=kernel, insecure=insecure)
    except Insecure as error:
        error.hint = "for tests, --insecure goes on"
        raise
