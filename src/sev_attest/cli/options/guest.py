"""The options that describe a guest, and what is measured of it."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from sev_attest._encoding import blob
from sev_attest.cli.inputs import (
    BYTE,
    FILE,
    Function,
    Number,
    large_file,
    large_files,
    option_name,
    options,
    read_small,
)
from sev_attest.errors import Unsupported, reading
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.spec import MAX_VCPUS, VMSA_PROFILES
from sev_attest.sev.digest import MeasuredGuest, MeasuredRange, pages_for
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.guest.cpu import CpuModel
    from sev_attest.guest.kernel_hashes import KernelHashes
    from sev_attest.guest.vmsa import VmsaPages, VmsaProfile

VCPUS = Number(MAX_VCPUS, 1)

cpu_options = options(
    click.option("--cpu-family", type=Number(270), help="CPU family, to build vCPU state from."),
    click.option("--cpu-model", type=BYTE, help="CPU model."),
    click.option("--cpu-stepping", type=Number(15), help="CPU stepping."),
    click.option("--cpu-model-name", metavar="NAME", help="Instead: QEMU's name (EPYC-Milan-v2)."),
    click.option(
        "--vmsa-profile",
        metavar="NAME",
        help=f"How the VMM sets up vCPUs: {', '.join(VMSA_PROFILES)} "
        f"(default: {VMSA_PROFILES[0]}).",
    ),
)


def guest_options(vcpus: "click.ParamType[Any]") -> Callable[[Function], Function]:
    """Bundle the options that describe a guest; ``vcpus`` is the type of --num-cpus."""
    return options(
        click.option("-f", "--firmware", type=FILE, metavar="FILE", help="Firmware image."),
        click.option("-k", "--kernel", type=FILE, metavar="FILE", help="Kernel, booted directly."),
        click.option("-r", "--initrd", type=FILE, metavar="FILE", help="Initrd of that kernel."),
        click.option("-e", "--cmdline", metavar="TEXT", help="Command line of that kernel."),
        click.option(
            "--kernel-hashes",
            metavar="HEX:HEX:HEX",
            help="SHA-256 of kernel, initrd and command line (with its NUL), instead of these.",
        ),
        click.option("--launch-digest", metavar="HEX|B64", help="Digest, instead of all these."),
        click.option("-n", "--num-cpus", type=vcpus, help="Number of vCPUs (SEV-ES)."),
        click.option("-0", "--vmsa-cpu0", type=FILE, metavar="FILE", help="Boot vCPU's state."),
        click.option("-1", "--vmsa-cpu1", type=FILE, metavar="FILE", help="Other vCPUs' state."),
        cpu_options,
    )


FILES = ("firmware", "kernel", "initrd", "vmsa_cpu0", "vmsa_cpu1")
_MODEL = ("cpu_family", "cpu_model", "cpu_stepping")
_BUILT = (*_MODEL, "cpu_model_name", "vmsa_profile")
_PAGES = ("vmsa_cpu0", "vmsa_cpu1")
VCPU_STATE = (*_PAGES, *_BUILT)
_VCPU = ("num_cpus", *VCPU_STATE)
_HASHES = ("kernel", "initrd", "cmdline")


@dataclass(slots=True)
class Measured:
    """What the options describe: a launch digest, and where they say so, what is behind it."""

    digest: bytes
    guest: MeasuredGuest | None = None
    vcpus: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ranges(self) -> list[MeasuredRange]:
        """Every piece that was measured, in order; none for a digest that was given."""
        return self.guest.ranges(self.vcpus) if self.guest else []

    @property
    def facts(self) -> dict[str, object]:
        """What a JSON document says of it."""
        kernel = self.guest and self.guest.kernel
        hashes = {name: getattr(kernel, name).hex() for name in _HASHES} if kernel else None
        return {
            "digest": self.digest.hex(),
            "measured": [asdict(part) for part in self.ranges],
            "kernel_hashes": hashes,
        }

    def lines(self) -> list[str]:
        """Explain it to people: each range with its place, size and hash."""
        kernel = self.guest and self.guest.kernel
        found = [f"{'offset':>10} {'size':>10}  what"] if self.guest else []
        for part in self.ranges:
            found.append(f"{part.offset:10} {part.size:10}  {part.what}: sha256 {part.sha256}")
            if part.what == "kernel hashes" and kernel:
                indent = " " * 25
                found += [f"{indent}{n}: sha256 {getattr(kernel, n).hex()}" for n in _HASHES]
        return [*found, f"launch digest: {self.digest.hex()}"]


def check_guest(given: dict[str, Any], *, hosted: bool = False) -> None:
    """Refuse guest options that contradict each other; raises Unsupported.

    ``hosted``: a host is there to name what is missing.
    """

    def there(*names: str) -> list[str]:
        return [option_name(name) for name in names if given[name] is not None]

    digest, hashes = there("launch_digest"), there("kernel_hashes")
    parts, pages, built = there(*_HASHES), there(*_PAGES), there(*_BUILT)
    beside = there("firmware", *_HASHES, "kernel_hashes", *_VCPU)
    rules = (
        (digest and beside, f"--launch-digest excludes {', '.join(beside)}"),
        (not (digest or hosted or there("firmware")), "--firmware (or --launch-digest) is needed"),
        (hashes and parts, f"--kernel-hashes excludes {', '.join(parts)}"),
        (parts and "--kernel" not in parts, f"--kernel is needed for {' and '.join(parts)}"),
        (built and pages, f"--vmsa-cpu0/1 exclude {', '.join(built)}"),
        (pages == ["--vmsa-cpu1"], "--vmsa-cpu1 needs --vmsa-cpu0"),
    )
    for broken, message in rules:
        if broken:
            raise Unsupported(message, check="usage")
    cpu_model(given)
    profile(given, None)


def cpu_model(given: dict[str, Any]) -> "CpuModel | None":
    """Read the CPU model of :data:`cpu_options`, if there is one; raises Unsupported."""
    numbers = [given[name] for name in _MODEL]
    if given["cpu_model_name"] is None and numbers == [None] * len(numbers):
        return None
    from sev_attest.guest.cpu import CpuModel

    if given["cpu_model_name"] is not None:
        if any(number is not None for number in numbers):
            raise Unsupported(
                "--cpu-model-name excludes --cpu-family, --cpu-model and --cpu-stepping",
                check="usage",
            )
        return CpuModel.named(given["cpu_model_name"])
    if None in numbers:
        raise Unsupported("--cpu-family, --cpu-model, --cpu-stepping go together", check="usage")
    return CpuModel(**{name.removeprefix("cpu_"): given[name] for name in _MODEL})


def profile(given: dict[str, Any], cpu: "CpuModel | None") -> "VmsaProfile | None":
    """Choose the profile of :data:`cpu_options`; None if they name no vCPU state."""
    name = given["vmsa_profile"]
    if name is None and cpu is None:
        return None
    from sev_attest.guest.vmsa import PROFILES, VmsaProfile

    if name is None:
        return VmsaProfile(cpu=cpu)
    if cpu is None and name in PROFILES and VmsaProfile.needs_cpu(name):
        return None
    return VmsaProfile(name=name, cpu=cpu)


def refuse_unmeasured(
    given: dict[str, Any], policy: GuestPolicy, names: Iterable[str] = _VCPU
) -> None:
    """Refuse vCPU options that this policy does not measure; raises Unsupported.

    Whoever gives them means SEV-ES: the digest of a plain SEV guest is not what they ask for.
    """
    there = [option_name(name) for name in names if given[name] is not None]
    if there and not policy.es:
        raise Unsupported(
            f"{there[0]} is measured for SEV-ES guests alone, and policy {policy} is plain SEV",
            check="usage",
            hint="an SEV-ES policy has bit 2 set: --policy 0x5, for one",
        )


def cpu_notes(given: dict[str, Any]) -> list[str]:
    """Say so if the profile shows guests another CPU than the options name."""
    name = given["vmsa_profile"]
    cpu = [option_name(one) for one in (*_MODEL, "cpu_model_name") if given[one] is not None]
    if name is None or not cpu:
        return []
    from sev_attest.guest.vmsa import VmsaProfile

    if VmsaProfile.shows_cpu(name):
        return []
    return [f"profile {name} shows guests a CPU of its own: {cpu[0]} plays no part"]


def describes_guest(given: dict[str, Any]) -> bool:
    """Tell whether any option describes the guest."""
    names = ("firmware", "launch_digest", "kernel_hashes", *_HASHES, *_VCPU)
    return any(given[name] is not None for name in names)


def measure_guest(given: dict[str, Any], policy: GuestPolicy, *, progress: bool) -> Measured:
    """Compute the launch digest of the options; raises what :func:`launch_digest` does."""
    if given["launch_digest"] is not None:
        with reading("--launch-digest"):
            return Measured(
                blob(os.fsencode(given["launch_digest"]), (32,), "launch digest", only_text=True)
            )
    guest = read_guest(given, policy, progress=progress)
    vcpus = given["num_cpus"] if policy.es else None
    notes = []
    if guest.firmware.kind == "VARS":
        notes.append("the firmware file is a store for UEFI variables, which is never measured")
    if not policy.es and any(given[name] is not None for name in _VCPU):
        notes.append(f"policy {policy} is plain SEV: vCPU options play no part in its measurement")
    return Measured(guest.digests(vcpus)[-1], guest, vcpus, [*notes, *cpu_notes(given)])


def read_guest(given: dict[str, Any], policy: GuestPolicy, *, progress: bool) -> MeasuredGuest:
    """Read everything that the options name, each file once."""
    if policy.es and given["num_cpus"] is None:
        raise Unsupported("an SEV-ES policy needs the number of vCPUs: --num-cpus", check="usage")
    with reading(given["firmware"]), large_file(given["firmware"], progress=progress) as file:
        firmware = Firmware.read(file)
    kernel = _kernel_hashes(given, progress=progress)
    with reading(given["firmware"]):
        vmsa = read_vmsa(given, firmware) if policy.es else None
        return MeasuredGuest(firmware=firmware, kernel=kernel, vmsa=vmsa)


def _kernel_hashes(given: dict[str, Any], *, progress: bool) -> "KernelHashes | None":
    if given["kernel"] is None and given["kernel_hashes"] is None:
        return None
    from sev_attest.guest.kernel_hashes import KernelHashes

    if given["kernel_hashes"] is not None:
        parts = given["kernel_hashes"].split(":")
        names = [name for name, text in zip(_HASHES, parts, strict=False) if text]
        if len(parts) != len(_HASHES) or "kernel" not in names:
            raise Unsupported(
                "--kernel-hashes takes KERNEL:INITRD:CMDLINE (the last two may be empty)",
                check="usage",
            )
        with reading("--kernel-hashes"):
            digests = zip(_HASHES, map(os.fsencode, parts), strict=True)
            return KernelHashes(
                **{n: blob(part, (32,), n, only_text=True) for n, part in digests if part}
            )
    cmdline = None if given["cmdline"] is None else os.fsencode(given["cmdline"])
    paths = [given[name] for name in ("kernel", "initrd") if given[name] is not None]
    with large_files(*paths, progress=progress) as (kernel, *rest):
        return KernelHashes.of(kernel, rest[0] if rest else None, cmdline)


def read_vmsa(given: dict[str, Any], firmware: Firmware) -> "VmsaPages":
    """Build the vCPUs' state for this firmware, or read its pages; raises Unsupported for none."""
    built = profile(given, cpu_model(given))
    if built is not None:
        return pages_for(built, firmware)
    if given["vmsa_cpu0"] is None:
        raise Unsupported(
            "an SEV-ES policy needs the vCPUs' state: --vmsa-cpu0 (and --vmsa-cpu1), "
            "--cpu-model-name, or --cpu-family, --cpu-model and --cpu-stepping",
            check="usage",
        )
    from sev_attest.guest.vmsa import VmsaPages

    boot = read_page(given["vmsa_cpu0"])
    ap = None if given["vmsa_cpu1"] is None else read_page(given["vmsa_cpu1"])
    return VmsaPages(boot=boot, ap=ap)


def read_page(path: str) -> bytes:
    """Read a VMSA page from a file."""
    from sev_attest.guest.vmsa import VmsaPages

    with reading(path):
        page = read_small(path, "VMSA page")
        VmsaPages(boot=page)  # here, so that an error names the file
    return page
