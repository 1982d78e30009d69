"""The options that describe an SEV-SNP guest, and what is measured of it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sev_attest._encoding import sha384_digest
from sev_attest.cli import completion
from sev_attest.cli.bundle import option
from sev_attest.cli.inputs import FILE, Number, NumberRange, large_file
from sev_attest.cli.options.boot import (
    BUILT,
    KERNEL,
    KernelOptions,
    StateOptions,
    hashes_of,
    no_state,
)
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported, reading
from sev_attest.guest.spec import MAX_VCPUS, SNP_LAYOUTS

# What measures a guest is imported where it is used: `snp verify` often needs none of it.
if TYPE_CHECKING:
    from sev_attest.cli.documents.snp import MeasuredGuest as MeasuredFacts
    from sev_attest.guest.kernel_hashes import KernelHashes
    from sev_attest.guest.vmsa import VmsaPages
    from sev_attest.snp.digest import MeasuredPages, SnpGuest
    from sev_attest.snp.firmware import SnpFirmware, Svsm
    from sev_attest.snp.vmsa import SnpProfile

_FEATURES = Number(0xFFFF_FFFF_FFFF_FFFF)
_IMAGE = Number(0xFFFF_FFFF)


class SnpGuestOptions(StateOptions, KernelOptions, title="The guest's vCPUs"):
    """An SEV-SNP guest with each number of vCPUs in a range."""

    vmsa_profile: str | None = option(
        "--vmsa-profile",
        metavar="NAME",
        shell_complete=completion.snp_layouts,
        help=f"How the VMM starts guests: {', '.join(SNP_LAYOUTS)} "
        "(default: qemu; with --svsm, svsm).",
    )
    guest_features: int | None = option(
        "--guest-features",
        type=_FEATURES,
        metavar="HEX",
        help="SEV_FEATURES of the vCPUs: 0x1 (default), 0x21 with debug swap, 0x201 with secure "
        "TSC.",
    )
    num_cpus: range | None = option(
        "-n", "--num-cpus", type=NumberRange(MAX_VCPUS), metavar="NUMBER", help="Number of vCPUs."
    )
    firmware_digest: str | None = option(
        "--firmware-digest",
        metavar="HEX|B64",
        help="Digest of the firmware's pages; --firmware then gives only its metadata.",
    )
    svsm: str | None = option(
        "--svsm", type=FILE, metavar="FILE", help="SVSM that is loaded below the firmware."
    )
    vars_size: int | None = option(
        "--vars-size",
        type=_IMAGE,
        metavar="N",
        help="Bytes of UEFI variables between the firmware and the SVSM.",
    )

    @classmethod
    def profiles(cls) -> "type[SnpProfile]":
        """Return the type of the profile."""
        from sev_attest.snp.vmsa import SnpProfile

        return SnpProfile

    @property
    def described(self) -> list[str]:
        """The names of the options that were given."""
        return self.stated(*self.declared())

    @property
    def files(self) -> tuple[str | None, ...]:
        """The files that are read, None for each that is not."""
        return (self.firmware, self.kernel, self.initrd, self.svsm, self.vmsa_cpu0, self.vmsa_cpu1)

    @property
    def layout(self) -> str:
        """Name of the VMM's way to start guests."""
        return self.vmsa_profile or ("qemu" if self.svsm is None else "svsm")

    def profile(self) -> "SnpProfile | None":
        """Return how the vCPUs are set up, None for pages that are given, or without a CPU model.

        Raises Unsupported for an unknown profile, and as :meth:`model` does.
        """
        from sev_attest.snp.vmsa import SNP_ACTIVE, SnpProfile

        cpu, known = self.model(), self.layout in SNP_LAYOUTS
        if self.vmsa_cpu0 is not None or (
            cpu is None and known and SnpProfile.needs_cpu(self.layout)
        ):
            return None
        features = SNP_ACTIVE if self.guest_features is None else self.guest_features
        return SnpProfile(name=self.layout, cpu=cpu, features=features)

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another."""
        if self.firmware is None:
            yield usage("--firmware is needed")
        yield from self.kernel_errors()
        yield from self.state_errors((*_STATE, "guest_features"))
        if self.num_cpus is None:
            yield usage("an SEV-SNP guest needs the number of vCPUs: --num-cpus")
        with suppress(Unsupported):  # state_errors() has it
            if self.vmsa_cpu0 is None and self.profile() is None:
                yield no_state("an SEV-SNP guest")
        yield from self._svsm_errors()

    def _svsm_errors(self) -> Iterator[Unsupported]:
        beside = self.stated(*KERNEL, "kernel_hashes", "firmware_digest")
        if self.svsm is None and self.vars_size is not None:
            yield usage("--vars-size is for an SVSM: --svsm is needed")
        if self.svsm is None and self.layout.startswith("svsm"):
            yield usage(f"--vmsa-profile {self.layout} needs --svsm and --vars-size")
        if self.svsm is not None and self.vars_size is None:
            yield usage("--svsm needs --vars-size: how many bytes lie between it and the firmware")
        if self.svsm is not None and beside:
            yield usage(f"--svsm excludes {', '.join(beside)}")

    def read(self, *, progress: bool) -> "SnpInputs":
        """Read the files of the guest, each once.

        Raises OSError; MalformedInput or NotAttestable for its files.
        """
        from sev_attest.snp.firmware import SnpFirmware, Svsm

        module = None
        if self.svsm is not None:
            with reading(self.svsm), large_file(self.svsm, progress=progress) as file:
                module = Svsm.read(file)
        prefix = None
        if self.firmware_digest is not None:
            prefix = read_digest("--firmware-digest", self.firmware_digest, "firmware digest")
        path = str(self.firmware)
        with reading(path), large_file(path, progress=progress) as file:
            if module is not None:
                firmware = SnpFirmware.with_svsm(file, module, self.vars_size or 0)
            else:
                firmware = SnpFirmware.read(file, prefix=prefix)
            if self.kernel is not None or self.kernel_hashes is not None:
                firmware.require_hash_section()  # before a large kernel is hashed
        return SnpInputs(firmware, self.read_kernel(progress=progress), module)

    def guest(self, inputs: "SnpInputs") -> "SnpGuest":
        """Return the guest as these options set it up; raises NotAttestable if it cannot start."""
        from sev_attest.snp.digest import SnpGuest

        with reading(str(self.firmware)):
            return SnpGuest(
                firmware=inputs.firmware,
                vmsa=self._vmsa(inputs.firmware),
                kernel=inputs.kernel,
                layout=self.layout,
            )

    def _vmsa(self, firmware: "SnpFirmware") -> "VmsaPages":
        from sev_attest.snp.digest import snp_pages_for

        built = self.profile()
        if built is not None:
            return snp_pages_for(built, firmware)
        pages = self.read_pages()
        if pages is None:
            raise no_state("an SEV-SNP guest")
        return pages

    def notes(self) -> list[str]:
        """Return notes on options that play no part, and on features that no guest has."""
        from sev_attest.snp.vmsa import SNP_ACTIVE

        found = StateOptions.notes(self)
        features = self.guest_features
        if features is not None and not features & SNP_ACTIVE:
            found.append(
                f"guest features {features:#x} lack bit 0 (SNP active), which KVM always sets"
            )
        return found


_STATE = tuple(name for name in BUILT if name != "vmsa_profile")
"""What excludes pages; a profile does not: it also says how the VMM loads the firmware."""


class SnpInputs(NamedTuple):
    """The files of a guest, read and hashed."""

    firmware: "SnpFirmware"
    kernel: "KernelHashes | None"
    svsm: "Svsm | None"


class SnpMeasured(NamedTuple):
    """A launch digest, and the guest that it was computed of."""

    digest: bytes
    guest: "SnpGuest"
    vcpus: int
    inputs: SnpInputs
    notes: list[str]

    @property
    def ranges(self) -> "list[MeasuredPages]":
        """Every piece that was measured, in order."""
        return self.guest.ranges(self.vcpus)

    @property
    def facts(self) -> "MeasuredFacts":
        """The fields of a JSON document."""
        return {
            "digest": self.digest.hex(),
            "vmsa_profile": self.guest.layout,
            "vcpus": self.vcpus,
            "measured": [
                {
                    "what": one.what,
                    "address": one.address,
                    "pages": one.pages,
                    "type": one.type,
                    "digest": one.digest,
                }
                for one in self.ranges
            ],
            "kernel_hashes": hashes_of(self.guest.kernel),
        }

    def lines(self) -> list[str]:
        """Return the lines of --explain: each piece, and the digest after it."""
        found = [f"{'address':>15} {'pages':>6} {'type':10} what, and the digest after it"]
        for piece in self.ranges:
            where = f"{piece.address:#15x} {piece.pages:6} {piece.type:10}"
            found.append(f"{where} {piece.what}: {piece.digest}")
            if piece.what == "KERNEL_HASHES":
                indent = " " * 34
                hashes = dict(hashes_of(self.guest.kernel) or {})
                found += [f"{indent}{name}: sha256 {value}" for name, value in hashes.items()]
        return [*found, f"launch digest: {self.digest.hex()}"]


def read_digest(name: str, text: str, what: str) -> bytes:
    """Return the digest that an option holds, 48 bytes as hex or base64; raises MalformedInput.

    Nothing but hex digits is hex, whatever it would be as base64: 64 of them are a SHA-256, and not
    base64 of 48 bytes.
    """
    with reading(name):
        return sha384_digest(os.fsencode(text), what)


def measure_snp_guest(options: SnpGuestOptions, *, progress: bool) -> SnpMeasured:
    """Compute the launch digest of a guest with one number of vCPUs.

    The options passed :meth:`SnpGuestOptions.errors`, and :attr:`num_cpus` is one number. Raises as
    :meth:`SnpGuestOptions.read`.
    """
    inputs = options.read(progress=progress)
    guest = options.guest(inputs)
    vcpus = options.num_cpus[0] if options.num_cpus else 1
    digest = guest.digests(vcpus)[-1]
    return SnpMeasured(
        digest=digest, guest=guest, vcpus=vcpus, inputs=inputs, notes=options.notes()
    )
