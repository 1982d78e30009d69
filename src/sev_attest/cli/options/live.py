"""Guests on a host that is connected to: what is read from them, and passed to them."""

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from sev_attest.cli.inputs import Number, option_name, options
from sev_attest.cli.options.guest import FILES, cpu_model, profile
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
    from sev_attest.host import HostConnection, RunningGuest
    from sev_attest.sev.launch_info import Claims
    from sev_attest.sev.secret import SecretPacket

_SYSTEM = "qemu:///system"
_KERNEL = ("kernel", "initrd", "cmdline")
_MAX_FIRMWARE = 16 << 20

connect_option = options(
    click.option(
        "-c",
        "--connect",
        metavar="URI",
        help="The host: a URI of libvirt's, qmp+unix:///PATH or qmp+tcp://HOST:PORT.",
    ),
    click.option(
        "--timeout",
        type=Number(86400, 1),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for each of its answers.",
    ),
)
domain_options = options(
    connect_option,
    click.option(
        "-o",
        "--domain",
        metavar="ID|NAME|UUID",
        help=f"Ask libvirt about this domain (--connect is {_SYSTEM} if it is not given).",
    ),
    click.option(
        "-i",
        "--insecure",
        is_flag=True,
        help="Go on with an unverified platform, on the host itself, or with what the host says.",
    ),
    click.option(
        "-g", "--ignore-config", is_flag=True, help="Do not look at the domain's configuration."
    ),
)


def is_live(given: dict[str, Any]) -> bool:
    """Tell whether the guest is on a host to be connected to."""
    return given["connect"] is not None or given["domain"] is not None


def check_usage(given: dict[str, Any]) -> None:
    """Refuse options that have no place beside a connection; raises Unsupported."""
    if not is_live(given):
        return
    if given["domain"] is None and not _is_qmp(given["connect"]):
        raise Unsupported("--connect needs --domain (but for QMP)", check="usage")
    for name in ("launch_info", "secret_header", "secret_payload"):
        if given[name] is not None:
            raise Unsupported(
                f"{option_name(name)} has no place beside a connection", check="usage"
            )


def _is_qmp(uri: str | None) -> bool:
    return uri is not None and uri.lower().startswith("qmp+")


def connect(uri: str, timeout: float, *, insecure: bool) -> "tuple[HostConnection, list[str]]":
    """Connect to a host until the command ends; gives it, and notes.

    Raises Insecure if it is this machine, unless that is said to be fine.
    """
    from sev_attest.host import libvirt, qmp

    kind = qmp.QmpConnection if _is_qmp(uri) else libvirt.LibvirtConnection
    host: HostConnection = kind(uri, timeout)
    click.get_current_context().call_on_close(host.close)
    if not host.is_local():
        return host, []
    message = "this is the host itself, or cannot be told from it: it could change what you see"
    if not insecure:
        raise Insecure(
            message,
            check="host.local",
            hint="run it on a machine that you trust, with the host's --launch-info or a remote "
            "--connect; for tests, --insecure goes on",
        )
    return host, [f"INSECURE: {message}"]


@dataclass(slots=True, kw_only=True)
class Live:
    """A guest to be validated and, if all is well, to be given its secrets."""

    guest: "RunningGuest"
    claims: "Claims"
    local: bool
    insecure: bool
    notes: list[str] = field(default_factory=list)
    refused: bool = False
    """Whether the host certainly did not take the secret."""

    def complete(self, given: dict[str, Any], policy: GuestPolicy) -> list[str]:
        """Fill in what the options leave to the host; gives every note.

        Raises Insecure if that needs --insecure, Unsupported if the host does not tell it.
        """
        if given["launch_digest"] is not None:
            return self.notes
        if policy.es and given["num_cpus"] is None:
            self._allow("the number of vCPUs", "--num-cpus")
            given["num_cpus"] = _number_of_vcpus(self.guest.vcpus())
        self._complete_files(given)
        built = profile(given, cpu_model(given))
        if policy.es and built is None and given["vmsa_cpu0"] is None:
            self._allow("the CPU", "--cpu-model-name")
            given |= self._cpu()
        return self.notes

    def _allow(self, what: str, option: str) -> None:
        if not self.insecure:
            raise Insecure(
                f"{what} would be what the host says",
                check="host.claim",
                hint=f"say it with {option}; for tests, --insecure goes on",
            )
        self.notes.append(f"INSECURE: {what} is what the host says")

    def _complete_files(self, given: dict[str, Any]) -> None:
        config = self.guest.config
        wanted: tuple[str, ...] = ("firmware",)
        if config and config.kernel_hashes and given["kernel_hashes"] is None:
            wanted += _KERNEL
        for name in wanted:
            value = getattr(config, name, None)
            if given[name] is not None or not value:
                continue
            if name in FILES and not self.local:
                raise Unsupported(
                    f"the host names a {name}, but the file is there, not here",
                    check="usage",
                    hint=f"give your own with {option_name(name)}",
                )
            if name in FILES and not value.startswith("/"):
                raise MalformedInput("domain XML", name, "is no absolute path")
            self._allow(f"the {name}", option_name(name))
            if name in FILES:
                _check_file(name, value)
            given[name] = value
        if given["firmware"] is None:
            raise Unsupported("--firmware (or --launch-digest) is needed", check="usage")

    def _cpu(self) -> dict[str, int]:
        """Find the CPU that the guest sees: the host's own only if it is passed through."""
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
        """Give the guest its secret, once, and let it run. Raises WrongState, HostError."""
        self.refused = True
        try:
            self.guest.confirm()
        except SevAttestError as error:
            error.hint = "nothing was sent: start the guest anew, with a new session"
            raise
        self.refused = False
        try:
            self.guest.inject(packet.header, packet.payload)
        except WrongState:
            self.refused = True
            raise
        try:
            self.guest.resume()
        except SevAttestError as error:
            error.hint = (
                f"the guest has its secret, do not send it again: {self.guest.resumes} lets it run"
            )
            raise


def _check_file(name: str, path: str) -> None:
    """Refuse what a host may name to have it read or waited for: devices, pipes, large files."""
    found = os.stat(path)  # noqa: PTH116 - pathlib takes longer to import
    if not stat.S_ISREG(found.st_mode):
        raise MalformedInput("domain XML", name, f"{path} is no regular file")
    if name == "firmware" and found.st_size > _MAX_FIRMWARE:
        raise MalformedInput("domain XML", name, f"{path} is larger than {_MAX_FIRMWARE} bytes")


def _number_of_vcpus(claimed: int) -> int:
    if not 1 <= claimed <= MAX_VCPUS:
        raise MalformedInput("vCPUs", "range", f"the host says {claimed}, not 1..{MAX_VCPUS}")
    return claimed


def attach(given: dict[str, Any]) -> Live | None:
    """Find the guest of the options, paused and fit to be attested; None without a connection."""
    if not is_live(given):
        return None
    insecure = given["insecure"]
    uri = _SYSTEM if given["connect"] is None else given["connect"]
    host, notes = connect(uri, given["timeout"], insecure=insecure)
    local = bool(notes)
    guest = host.guest(given["domain"])
    state = guest.state()
    if state != "paused" and not insecure:
        raise WrongState(
            f"the guest is not paused, but {state}",
            check="host.state",
            hint=f"only a guest that has not run yet can be attested: {guest.starts}",
        )
    if state != "paused":
        notes.append(f"INSECURE: the guest is not paused, but {state}")
    if guest.config is not None and not given["ignore_config"]:
        from sev_attest.host.config import check_config

        kernel = any(given[name] is not None for name in ("kernel", "kernel_hashes"))
        try:
            notes += check_config(guest.config, kernel=kernel, insecure=insecure)
        except Insecure as error:
            error.hint = "for tests, --insecure goes on"
            raise
    with reading("the host"):
        claims = guest.claims()
    return Live(guest=guest, claims=claims, local=local, insecure=insecure, notes=notes)
