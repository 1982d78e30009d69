"""The options that describe a simulated host, and a guest to launch on it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sev_attest._encoding import blob
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import (
    API,
    BYTE,
    FILE,
    POLICY,
    Number,
    ParamType,
    read_small,
    stdin_errors,
)
from sev_attest.cli.usage import usage
from sev_attest.errors import MalformedInput, NotAttestable, Unsupported, reading
from sev_attest.guest.spec import MAX_VCPUS
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.spec import SESSION_BLOB_SIZE
from sev_attest.testing.folder import HostFolder
from sev_attest.testing.host import Fault, fault_name
from sev_attest.testing.qemu import (
    CPUS,
    PROFILES,
    BootInputs,
    GuestInputs,
    LacksCpu,
    LacksSev,
    QemuError,
    cpu_signature,
    guest_of_domain,
)
from sev_attest.testing.snp_qemu import SNP_PROFILES
from sev_attest.testing.state import GENERATIONS, HostState

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from sev_attest.domain_xml.domain import Domain

_MAX_IMAGE = 256 << 20
_GODH_SIZE = 2084
_MAX_POLICY = 0xFFFF_FFFF
_SEV_PROFILES = [f"{name}{end}" for name in PROFILES for end in ("", "+debug-swap")]
_GUEST = (
    "policy", "godh", "session", "firmware", "kernel", "initrd", "cmdline", "num_cpus",
    "cpu_model_name",
)  # fmt: skip


class _Host(ParamType[HostFolder]):
    """A simulated host."""

    name = "folder"

    def convert(
        self, value: object, _param: click.Parameter | None, _ctx: click.Context | None
    ) -> HostFolder:
        """Open it."""
        return HostFolder(Path(FILE.convert(value, _param, _ctx)))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[str]]":
        """Have the shell complete names of folders."""
        return FILE.shell_complete(ctx, param, incomplete)


HOST = _Host()


def fault_option(*, in_chain: bool | None = None) -> Fault | None:
    """Declare --fault: of the exported chain (``in_chain``), of a launch, or of either."""
    names = [fault_name(fault) for fault in Fault if in_chain is None or fault.in_chain == in_chain]
    found: Fault | None = option(
        "--fault", type=click.Choice(names), help="What the host does wrong.", callback=_fault
    )
    return found


def _fault(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Fault | None:
    return None if value is None else Fault[value.upper().replace("-", "_")]


class HostOptions(Options, title="Simulated host"):
    """What the host is."""

    generation: str = option(
        "--generation",
        type=click.Choice(list(GENERATIONS)),
        default="milan",
        help="The platform's generation (default: milan). naples has keys of 2048 bits.",
    )
    api: tuple[int, int] | None = option(
        "--api", type=API, metavar="MAJOR.MINOR", help="SEV API version (default: a usual one)."
    )
    build: int | None = option("--build", type=BYTE, help="SEV firmware build.")
    seed: str | None = option(
        "--seed", metavar="TEXT", help="The same seed makes the same host (default: a random one)."
    )
    fault: Fault | None = fault_option()

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for an empty seed: a shell variable was not set."""
        if self.seed == "":
            yield usage("the seed is empty")

    def state(self) -> HostState:
        """Return the state of the new host."""
        model = GENERATIONS[self.generation]
        return HostState(
            seed=os.urandom(32) if self.seed is None else os.fsencode(self.seed),
            generation=self.generation,
            api=self.api or model.api,
            build=model.build if self.build is None else self.build,
            fault=self.fault,
            launches=0,
        )


class StartOptions(Options, title="The guest"):
    """The guest to launch: option by option, or as libvirt's XML describes it."""

    name: str | None = option("--name", help="What to call the guest.")
    xml: str | None = option(
        "--xml", type=FILE, metavar="FILE", help="Take the guest from libvirt's domain XML."
    )
    policy: int | None = option(
        "--policy", type=POLICY, help="Guest policy (with --snp, default: 0x30000)."
    )
    godh: str | None = option(
        "--godh", type=FILE, metavar="FILE", help="The owner's NAME_godh.b64."
    )
    session: str | None = option(
        "--session", type=FILE, metavar="FILE", help="The owner's NAME_session.b64."
    )
    firmware: str | None = option(
        "-f", "--firmware", type=FILE, metavar="FILE", help="Firmware image."
    )
    kernel: str | None = option(
        "-k", "--kernel", type=FILE, metavar="FILE",
        help="Kernel, booted directly; the hashes of kernel, initrd and cmdline are measured.",
    )  # fmt: skip
    initrd: str | None = option(
        "-r", "--initrd", type=FILE, metavar="FILE", help="Initrd of that kernel."
    )
    cmdline: str | None = option(
        "-e", "--cmdline", metavar="TEXT", help="Command line of that kernel."
    )
    num_cpus: int | None = option(
        "-n", "--num-cpus", type=Number(MAX_VCPUS, 1), help="Number of vCPUs (default: 1)."
    )
    cpu_model_name: str | None = option(
        "--cpu-model-name",
        metavar="NAME",
        help=f"QEMU's name of the CPU: {', '.join(CPUS)}, in any version (default: EPYC-Milan).",
    )
    vmsa_profile: str | None = option(
        "--vmsa-profile",
        type=click.Choice([*_SEV_PROFILES, *SNP_PROFILES]),
        help=f"How the host sets up vCPUs (default: {PROFILES[0]}; with --snp, qemu).",
    )
    fault: Fault | None = fault_option(in_chain=False)

    def errors(self, *, snp: bool) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another."""
        known = list(SNP_PROFILES) if snp else _SEV_PROFILES
        if self.vmsa_profile not in (None, *known):
            kind = "an SEV-SNP guest" if snp else "an SEV-ES guest; --snp starts an SEV-SNP guest"
            yield usage(f"VMSA profile {self.vmsa_profile} is not for {kind}")
        yield from stdin_errors(
            self.xml, self.godh, self.session, self.firmware, self.kernel, self.initrd
        )
        if self.xml is not None:
            beside = self.stated(*_GUEST)
            if beside:
                yield usage(f"--xml excludes {', '.join(beside)}")
            return
        needed = ("name", "firmware") if snp else ("name", "policy", "firmware")
        missing = [n for n in needed if not self.stated(n)]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            instead = "" if snp else " (or --xml)"
            yield usage(f"{', '.join(f'--{n}' for n in missing)}{instead} {verb} needed")
        if len(self.stated("godh", "session")) == 1:
            yield usage("--godh and --session go together")
        if self.kernel is None and self.stated("initrd", "cmdline"):
            yield usage(f"--kernel is needed for {self.stated('initrd', 'cmdline')[0]}")
        try:
            cpu_signature(self.cpu_model_name or "EPYC-Milan")
        except QemuError as error:
            yield usage(str(error))

    def guest(self) -> tuple[str, GuestInputs]:
        """Return the guest's name, and what it is launched with.

        Raises OSError, MalformedInput; NotAttestable for a domain without SEV, or of an SEV-ES
        guest without a CPU model; Unsupported for a fault that would not show.
        """
        if self.xml is None:
            name, inputs = self.name or "", self._inputs()
        else:
            name, inputs = self._domain(self.xml)
        if self.fault is Fault.OTHER_VCPU_COUNT and not GuestPolicy(inputs["policy"]).es:
            raise usage("--fault other-vcpu-count shows with an SEV-ES policy only (0x5, for one)")
        return name, inputs

    def _inputs(self) -> GuestInputs:
        return GuestInputs(
            policy=self.policy or 0,
            godh=_session_file(self.godh, _GODH_SIZE, "GODH"),
            session=_session_file(self.session, SESSION_BLOB_SIZE, "session"),
            **self.boot(PROFILES[0]),
        )

    def boot(self, profile: str) -> BootInputs:
        """Return what any kind of guest is started with; ``profile`` is the default.

        Raises OSError, MalformedInput.
        """
        return BootInputs(
            profile=self.vmsa_profile or profile,
            firmware=_image(self.firmware or ""),
            kernel=None if self.kernel is None else _image(self.kernel),
            initrd=b"" if self.initrd is None else _image(self.initrd),
            cmdline=os.fsencode(self.cmdline or ""),
            vcpus=self.num_cpus or 1,
            cpu=cpu_signature(self.cpu_model_name or "EPYC-Milan"),
        )

    def _domain(self, path: str) -> tuple[str, GuestInputs]:
        """Read a domain. The safe reader sees the XML first."""
        from sev_attest.domain_xml.domain import STRUCTURE, parse_domain

        with reading(path):
            data = read_small(path, STRUCTURE)
            domain = parse_domain(data)
            try:
                inputs = guest_of_domain(
                    data.decode("utf-8-sig"),
                    profile=self.vmsa_profile or PROFILES[0],
                    read=_image,
                )
            except LacksSev as error:
                hint = "`sev-attest domain prepare` puts a session in"
                raise NotAttestable(str(error), check="simulate.domain", hint=hint) from None
            except LacksCpu as error:
                raise NotAttestable(str(error), check="simulate.domain") from None
            except QemuError as error:
                raise Unsupported(str(error), check="simulate.domain") from None
            except ValueError:
                reason = "its policy, dhCert, session or vcpu cannot be read"
                raise MalformedInput(STRUCTURE, "launchSecurity", reason) from None
            if not (0 <= inputs["policy"] <= _MAX_POLICY and 1 <= inputs["vcpus"] <= MAX_VCPUS):
                reason = f"the policy has 32 bits, and a guest 1 to {MAX_VCPUS} vCPUs"
                raise MalformedInput(STRUCTURE, "launchSecurity", reason)
        return self.name or _name(domain), inputs


def _name(domain: "Domain") -> str:
    found = domain.root.find("name")
    return "" if found is None else found.text


def _image(path: str) -> bytes:
    return read_small(path, "image", _MAX_IMAGE)


def _session_file(path: str | None, size: int, what: str) -> bytes | None:
    if path is None:
        return None
    with reading(path):
        return blob(read_small(path, what), (size,), what)
