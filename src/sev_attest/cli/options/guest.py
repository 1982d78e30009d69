"""The options that describe a guest, and what is measured of it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sev_attest._encoding import blob
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import (
    BYTE,
    FILE,
    Number,
    NumberRange,
    large_file,
    large_files,
    read_small,
)
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported, reading
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.spec import MAX_VCPUS, VMSA_PROFILES
from sev_attest.sev.digest import MeasuredGuest, MeasuredRange, pages_for
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.guest.cpu import CpuModel
    from sev_attest.guest.kernel_hashes import KernelHashes
    from sev_attest.guest.vmsa import VmsaPages, VmsaProfile

FILES = ("firmware", "kernel", "initrd", "vmsa_cpu0", "vmsa_cpu1")
_MODEL = ("cpu_family", "cpu_model", "cpu_stepping")
_BUILT = (*_MODEL, "cpu_model_name", "vmsa_profile")
_PAGES = ("vmsa_cpu0", "vmsa_cpu1")
VCPU_STATE = (*_PAGES, *_BUILT)
_VCPU = ("num_cpus", *VCPU_STATE)
KERNEL = ("kernel", "initrd", "cmdline")
_DESCRIPTION = ("firmware", *KERNEL, "kernel_hashes", *_VCPU)


class CpuOptions(Options, title="vCPUs of an SEV-ES guest"):
    """The CPU that a guest sees, and how its VMM sets it up."""

    cpu_family: int | None = option(
        "--cpu-family", type=Number(270), help="CPU family, to build vCPU state from."
    )
    cpu_model: int | None = option("--cpu-model", type=BYTE, help="CPU model.")
    cpu_stepping: int | None = option("--cpu-stepping", type=Number(15), help="CPU stepping.")
    cpu_model_name: str | None = option(
        "--cpu-model-name", metavar="NAME", help="Instead: QEMU's name (EPYC-Milan-v2)."
    )
    vmsa_profile: str | None = option(
        "--vmsa-profile",
        metavar="NAME",
        help=f"How the VMM sets up vCPUs: {', '.join(VMSA_PROFILES)} "
        f"(default: {VMSA_PROFILES[0]}).",
    )

    def model(self) -> "CpuModel | None":
        """Return the CPU model, None if no option names one.

        Raises Unsupported for an unknown name, or options that contradict each other.
        """
        family, model, stepping = self.cpu_family, self.cpu_model, self.cpu_stepping
        numbers = self.stated(*_MODEL)
        if self.cpu_model_name is None and not numbers:
            return None
        from sev_attest.guest.cpu import CpuModel

        if self.cpu_model_name is not None:
            if numbers:
                raise usage(
                    "--cpu-model-name excludes --cpu-family, --cpu-model and --cpu-stepping"
                )
            return CpuModel.named(self.cpu_model_name)
        if family is None or model is None or stepping is None:
            raise usage("--cpu-family, --cpu-model, --cpu-stepping go together")
        return CpuModel(family=family, model=model, stepping=stepping)

    def profile(self) -> "VmsaProfile | None":
        """Return how the vCPUs are set up, None if these options name no vCPU state.

        Raises Unsupported for an unknown profile, and as :meth:`model` does.
        """
        name, cpu = self.vmsa_profile, self.model()
        if name is None and cpu is None:
            return None
        from sev_attest.guest.vmsa import VmsaProfile

        if name is None:
            return VmsaProfile(cpu=cpu)
        if cpu is None and name in VMSA_PROFILES and VmsaProfile.needs_cpu(name):
            return None
        return VmsaProfile(name=name, cpu=cpu)

    def notes(self) -> list[str]:
        """Return a note if the profile shows guests another CPU than the options name."""
        name, cpu = self.vmsa_profile, self.stated(*_MODEL, "cpu_model_name")
        if name is None or not cpu:
            return []
        from sev_attest.guest.vmsa import VmsaProfile

        if VmsaProfile.shows_cpu(name):
            return []
        return [f"profile {name} shows guests a CPU of its own: {cpu[0]} plays no part"]


class BootOptions(Options, title="Guest"):
    """What a guest boots, or its launch digest."""

    firmware: str | None = option(
        "-f", "--firmware", type=FILE, metavar="FILE", help="Firmware image."
    )
    kernel: str | None = option(
        "-k", "--kernel", type=FILE, metavar="FILE", help="Kernel, booted directly."
    )
    initrd: str | None = option(
        "-r", "--initrd", type=FILE, metavar="FILE", help="Initrd of that kernel."
    )
    cmdline: str | None = option(
        "-e", "--cmdline", metavar="TEXT", help="Command line of that kernel."
    )
    kernel_hashes: str | None = option(
        "--kernel-hashes",
        metavar="HEX:HEX:HEX",
        help="SHA-256 of kernel, initrd and command line (with its NUL), instead of these.",
    )
    launch_digest: str | None = option(
        "--launch-digest", metavar="HEX|B64", help="Digest, instead of all these."
    )


class AnyGuestOptions(CpuOptions, BootOptions, title="vCPUs of an SEV-ES guest"):
    """A guest, with one number of vCPUs or several."""

    num_cpus: int | range | None
    vmsa_cpu0: str | None = option(
        "-0", "--vmsa-cpu0", type=FILE, metavar="FILE", help="Boot vCPU's state."
    )
    vmsa_cpu1: str | None = option(
        "-1", "--vmsa-cpu1", type=FILE, metavar="FILE", help="Other vCPUs' state."
    )

    @property
    def described(self) -> bool:
        """Whether any option describes the guest."""
        return bool(self.stated("launch_digest", *_DESCRIPTION))

    def errors(self, *, hosted: bool = False) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another.

        ``hosted``: a host that is connected to may name what is missing.
        """
        digest, beside = self.launch_digest is not None, self.stated(*_DESCRIPTION)
        parts, pages, built = self.stated(*KERNEL), self.stated(*_PAGES), self.stated(*_BUILT)
        if digest and beside:
            yield usage(f"--launch-digest excludes {', '.join(beside)}")
        if not digest and not hosted and self.firmware is None:
            yield no_firmware()
        if self.kernel_hashes is not None and parts:
            yield usage(f"--kernel-hashes excludes {', '.join(parts)}")
        elif parts and self.kernel is None:
            yield usage(f"--kernel is needed for {' and '.join(parts)}")
        if built and pages:
            yield usage(f"--vmsa-cpu0/1 exclude {', '.join(built)}")
        elif pages == ["--vmsa-cpu1"]:
            yield usage("--vmsa-cpu1 needs --vmsa-cpu0")
        try:
            self.profile()
        except Unsupported as error:
            yield error

    def vcpu_errors(self, policy: GuestPolicy) -> Iterator[Unsupported]:
        """Yield an error for what an SEV-ES guest lacks, or a plain SEV guest does not have."""
        if not policy.es:
            yield from self.unmeasured(policy, _VCPU)
            return
        if self.num_cpus is None:
            yield usage("an SEV-ES policy needs the number of vCPUs: --num-cpus")
        with suppress(Unsupported):  # errors() has it
            if self.vmsa_cpu0 is None and self.profile() is None:
                yield _no_state()

    def unmeasured(self, policy: GuestPolicy, fields: Iterable[str]) -> Iterator[Unsupported]:
        """Yield an error for a vCPU option that a plain SEV policy does not measure.

        Such an option means an SEV-ES guest: the digest of a plain SEV guest would mislead.
        """
        stated = self.stated(*fields)
        if stated and not policy.es:
            yield usage(
                f"{stated[0]} is measured for SEV-ES guests alone, and policy {policy} is "
                "plain SEV",
                hint="an SEV-ES policy has bit 2 set: --policy 0x5, for one",
            )

    def read(self, policy: GuestPolicy, *, progress: bool) -> MeasuredGuest:
        """Read the files of the guest, each once; raises Unsupported if something is missing."""
        if self.firmware is None:
            raise no_firmware()
        if policy.es:
            refuse(self.vcpu_errors(policy))
        with reading(self.firmware), large_file(self.firmware, progress=progress) as file:
            firmware = Firmware.read(file)
        kernel = self._read_kernel(progress=progress)
        with reading(self.firmware):
            vmsa = self.vmsa(firmware) if policy.es else None
            return MeasuredGuest(firmware=firmware, kernel=kernel, vmsa=vmsa)

    def _read_kernel(self, *, progress: bool) -> "KernelHashes | None":
        if self.kernel_hashes is not None:
            return _kernel_hashes(self.kernel_hashes)
        if self.kernel is None:
            return None
        from sev_attest.guest.kernel_hashes import KernelHashes

        cmdline = None if self.cmdline is None else os.fsencode(self.cmdline)
        paths = (self.kernel,) if self.initrd is None else (self.kernel, self.initrd)
        with large_files(*paths, progress=progress) as (kernel, *rest):
            return KernelHashes.of(kernel, rest[0] if rest else None, cmdline)

    def vmsa(self, firmware: Firmware) -> "VmsaPages":
        """Build the vCPUs' state for this firmware, or read its pages.

        Raises Unsupported if no option names a state.
        """
        built = self.profile()
        if built is not None:
            return pages_for(built, firmware)
        if self.vmsa_cpu0 is None:
            raise _no_state()
        from sev_attest.guest.vmsa import VmsaPages

        boot = read_page(self.vmsa_cpu0)
        ap = None if self.vmsa_cpu1 is None else read_page(self.vmsa_cpu1)
        return VmsaPages(boot=boot, ap=ap)


class GuestOptions(AnyGuestOptions, title="vCPUs of an SEV-ES guest"):
    """A guest."""

    num_cpus: int | None = option(
        "-n", "--num-cpus", type=Number(MAX_VCPUS, 1), help="Number of vCPUs (SEV-ES)."
    )


class GuestRangeOptions(AnyGuestOptions, title="vCPUs of an SEV-ES guest"):
    """A guest with each number of vCPUs in a range."""

    num_cpus: range | None = option(
        "-n", "--num-cpus", type=NumberRange(MAX_VCPUS), help="Number of vCPUs (SEV-ES)."
    )


class Measured(NamedTuple):
    """A launch digest, and the guest that it was computed of; None for a digest that was given."""

    digest: bytes
    guest: MeasuredGuest | None = None
    vcpus: int | None = None
    notes: Sequence[str] = ()

    @property
    def secret_area_size(self) -> int | None:
        """Bytes of the firmware's area for secrets; None without one, or for a given digest."""
        area = self.guest and self.guest.firmware.secret_area()
        return area[1] if area and all(area) else None

    @property
    def lacks_secret_area(self) -> bool:
        """Whether the firmware is known, and declares no area for secrets."""
        return self.guest is not None and self.secret_area_size is None

    @property
    def ranges(self) -> list[MeasuredRange]:
        """Every piece that was measured, in order; none for a digest that was given."""
        return self.guest.ranges(self.vcpus) if self.guest else []

    @property
    def facts(self) -> dict[str, object]:
        """The fields of a JSON document."""
        kernel = self.guest and self.guest.kernel
        hashes = {name: getattr(kernel, name).hex() for name in KERNEL} if kernel else None
        return {
            "digest": self.digest.hex(),
            "measured": [part._asdict() for part in self.ranges],
            "kernel_hashes": hashes,
        }

    def lines(self) -> list[str]:
        """Return the lines of --explain: each range with its offset, size and hash."""
        kernel = self.guest and self.guest.kernel
        found = [f"{'offset':>10} {'size':>10}  what"] if self.guest else []
        for part in self.ranges:
            found.append(f"{part.offset:10} {part.size:10}  {part.what}: sha256 {part.sha256}")
            if part.what == "kernel hashes" and kernel:
                indent = " " * 25
                found += [f"{indent}{n}: sha256 {getattr(kernel, n).hex()}" for n in KERNEL]
        return [*found, f"launch digest: {self.digest.hex()}"]


def measure_guest(
    options: AnyGuestOptions, vcpus: int | None, policy: GuestPolicy, *, progress: bool
) -> Measured:
    """Compute the launch digest of a guest with this number of vCPUs, or take the given one.

    Raises Unsupported if something is missing, MalformedInput or NotAttestable for its files.
    """
    if options.launch_digest is not None:
        with reading("--launch-digest"):
            text = os.fsencode(options.launch_digest)
            return Measured(blob(text, (32,), "launch digest", only_text=True))
    guest = options.read(policy, progress=progress)
    notes = []
    if guest.firmware.kind == "VARS":
        notes.append("the firmware file is a store for UEFI variables, which is never measured")
    if not policy.es and options.stated(*_VCPU):
        notes.append(f"policy {policy} is plain SEV: vCPU options play no part in its measurement")
    counted = vcpus if policy.es else None
    return Measured(guest.digests(counted)[-1], guest, counted, [*notes, *options.notes()])


def _kernel_hashes(text: str) -> "KernelHashes":
    """Read KERNEL:INITRD:CMDLINE, SHA-256 each."""
    from sev_attest.guest.kernel_hashes import KernelHashes

    parts = text.split(":")
    stated = [name for name, part in zip(KERNEL, parts, strict=False) if part]
    if len(parts) != len(KERNEL) or "kernel" not in stated:
        raise usage("--kernel-hashes takes KERNEL:INITRD:CMDLINE (the last two may be empty)")
    with reading("--kernel-hashes"):
        digests = zip(KERNEL, map(os.fsencode, parts), strict=True)
        return KernelHashes(
            **{n: blob(part, (32,), n, only_text=True) for n, part in digests if part}
        )


def read_page(path: str) -> bytes:
    """Read a VMSA page, 4096 bytes, from a file."""
    from sev_attest.guest.vmsa import VmsaPages

    with reading(path):
        page = read_small(path, "VMSA page")
        VmsaPages(boot=page)  # here, so that an error names the file
    return page


def no_firmware() -> Unsupported:
    """Return the error for a guest of which no firmware is named."""
    return usage("--firmware (or --launch-digest) is needed")


def _no_state() -> Unsupported:
    return usage(
        "an SEV-ES policy needs the vCPUs' state: --vmsa-cpu0 (and --vmsa-cpu1), "
        "--cpu-model-name, or --cpu-family, --cpu-model and --cpu-stepping"
    )
