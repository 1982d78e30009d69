"""The options that describe an SEV or SEV-ES guest, and what is measured of it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sev_attest._encoding import blob
from sev_attest.cli.bundle import option
from sev_attest.cli.inputs import Number, NumberRange, large_file
from sev_attest.cli.options.boot import (
    BUILT,
    KERNEL,
    PAGES,
    KernelOptions,
    StateOptions,
    hashes_of,
    no_state,
)
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported, reading
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.spec import MAX_VCPUS
from sev_attest.sev.digest import MeasuredGuest, MeasuredRange, pages_for
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.cli.documents.sev import MeasuredGuest as MeasuredFacts
    from sev_attest.guest.vmsa import VmsaPages

FILES = ("firmware", "kernel", "initrd", "vmsa_cpu0", "vmsa_cpu1")
VCPU_STATE = (*PAGES, *BUILT)
_VCPU = ("num_cpus", *VCPU_STATE)
_DESCRIPTION = ("firmware", *KERNEL, "kernel_hashes", *_VCPU)


class BootOptions(KernelOptions, title="The guest"):
    """What a guest boots, or its launch digest."""

    launch_digest: str | None = option(
        "--launch-digest", metavar="HEX|B64", help="Digest, instead of all these."
    )


class AnyGuestOptions(StateOptions, BootOptions, title="The guest's vCPUs"):
    """A guest, with one number of vCPUs or several."""

    num_cpus: int | range | None

    @property
    def described(self) -> bool:
        """Whether any option describes the guest."""
        return bool(self.stated("launch_digest", *_DESCRIPTION))

    def errors(self, *, hosted: bool = False) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another.

        ``hosted``: a host that is connected to may name what is missing.
        """
        digest, beside = self.launch_digest is not None, self.stated(*_DESCRIPTION)
        if digest and beside:
            yield usage(f"--launch-digest excludes {', '.join(beside)}")
        if not digest and not hosted and self.firmware is None:
            yield no_firmware()
        yield from self.kernel_errors()
        yield from self.state_errors()

    def vcpu_errors(self, policy: GuestPolicy) -> Iterator[Unsupported]:
        """Yield an error for what an SEV-ES guest lacks, or a plain SEV guest does not have."""
        if not policy.es:
            yield from self.unmeasured(policy, _VCPU)
            return
        if self.num_cpus is None:
            yield usage("an SEV-ES policy needs the number of vCPUs: --num-cpus")
        with suppress(Unsupported):  # errors() has it
            if self.vmsa_cpu0 is None and self.profile() is None:
                yield no_state("an SEV-ES policy")

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
        kernel = self.read_kernel(progress=progress)
        with reading(self.firmware):
            vmsa = self.vmsa(firmware) if policy.es else None
            return MeasuredGuest(firmware=firmware, kernel=kernel, vmsa=vmsa)

    def vmsa(self, firmware: Firmware) -> "VmsaPages":
        """Build the vCPUs' state for this firmware, or read its pages.

        Raises Unsupported if no option names a state.
        """
        built = self.profile()
        if built is not None:
            return pages_for(built, firmware)
        pages = self.read_pages()
        if pages is None:
            raise no_state("an SEV-ES policy")
        return pages


class GuestOptions(AnyGuestOptions, title="The guest's vCPUs"):
    """A guest."""

    num_cpus: int | None = option(
        "-n", "--num-cpus", type=Number(MAX_VCPUS, 1), help="Number of vCPUs (SEV-ES)."
    )


class GuestRangeOptions(AnyGuestOptions, title="The guest's vCPUs"):
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
    def facts(self) -> "MeasuredFacts":
        """The fields of a JSON document."""
        return {
            "digest": self.digest.hex(),
            "measured": [
                {"what": one.what, "offset": one.offset, "size": one.size, "sha256": one.sha256}
                for one in self.ranges
            ],
            "kernel_hashes": hashes_of(self.guest.kernel if self.guest else None),
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


def no_firmware() -> Unsupported:
    """Return the error for a guest of which no firmware is named."""
    return usage("--firmware (or --launch-digest) is needed")
