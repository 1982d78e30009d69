"""The launch digest of an SEV-SNP guest: SHA-384 over the pages that it is launched with.

Source: QEMU's target/i386/sev.c; other VMMs as sev-snp-measure and the sev crate have them. In
order:

1. the firmware, at the end of the first 4 GiB (then the SVSM, below it)
2. the sections of the firmware's SEV metadata, in their order
3. each vCPU's page, the boot vCPU's first

========================  ==================================================================
section                   measured as
========================  ==================================================================
SEC_MEM, SVSM_CAA         zero pages (SEC_MEM in ``gce``: unmeasured pages)
SECRETS, CPUID            pages of that type, without contents (CPUID last in ``ec2``)
KERNEL_HASHES             with a kernel: a page with the table of its hashes; else zero pages
any other type            zero pages in ``qemu`` (QEMU 9.1 and later); refused for other VMMs
========================  ==================================================================
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import TYPE_CHECKING, NamedTuple

from sev_attest.errors import NotAttestable, Unsupported
from sev_attest.guest.firmware import Source
from sev_attest.guest.spec import MAX_VCPUS, SNP_LAYOUTS
from sev_attest.guest.vmsa import VmsaPages, unknown_profile
from sev_attest.snp.firmware import Section, SnpFirmware, Svsm
from sev_attest.snp.pages import (
    NO_CONTENTS,
    PAGE_SIZE,
    VMSA_ADDRESS,
    PageType,
    contents_of,
    extend,
    vcpu_digests,
)
from sev_attest.snp.vmsa import SnpProfile

if TYPE_CHECKING:
    from sev_attest.guest.cpu import CpuModel
    from sev_attest.guest.kernel_hashes import KernelHashes

SEC_MEM, SECRETS, CPUID, SVSM_CAA, KERNEL_HASHES = 1, 2, 3, 4, 0x10
_TYPES = {
    SEC_MEM: PageType.ZERO,
    SECRETS: PageType.SECRETS,
    CPUID: PageType.CPUID,
    SVSM_CAA: PageType.ZERO,
    KERNEL_HASHES: PageType.ZERO,
}
_ZERO_UNKNOWN = ("qemu",)
_UNMEASURED_MEMORY = ("gce",)
_CPUID_LAST = ("ec2", "ec2-old")
_SVSM = ("svsm", "svsm-init2")


class MeasuredPages(NamedTuple):
    """Consecutive pages of one kind, and the launch digest after the last of them, in hex.

    ``address`` is the guest address of the first; ``pages`` and ``type`` are how many and what.
    """

    what: str
    address: int
    pages: int
    type: str
    digest: str


class _Piece(NamedTuple):
    what: str
    kind: PageType
    address: int
    pages: int
    contents: Iterable[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpGuest:
    """What is measured of an SEV-SNP guest: firmware, kernel hashes, vCPU pages.

    ``layout`` is the VMM, one of :data:`SNP_LAYOUTS`: it decides how sections are measured.
    """

    firmware: SnpFirmware
    vmsa: VmsaPages
    kernel: "KernelHashes | None" = None
    layout: str = "qemu"

    def __post_init__(self) -> None:
        """Check that this VMM can start the guest from this firmware.

        Raises Unsupported for an unknown layout, a layout for an SVSM without one or the reverse,
        and a kernel beside an SVSM; NotAttestable if the firmware has no place for kernel hashes,
        or a section that the VMM does not know.
        """
        if self.layout not in SNP_LAYOUTS:
            raise unknown_profile(self.layout, SNP_LAYOUTS)
        if self.firmware.svsm != (self.layout in _SVSM):
            needs = "is for an SVSM" if self.layout in _SVSM else "does not start from an SVSM"
            raise Unsupported(f"VMSA profile {self.layout} {needs}", check="svsm.layout")
        if self.kernel is not None:
            if self.firmware.svsm:
                raise Unsupported(
                    "with an SVSM no kernel is measured: leave the kernel out", check="svsm.kernel"
                )
            self.firmware.require_hash_section()
        unknown = [s for s in self.firmware.sections if s.kind not in _TYPES]
        if unknown and self.layout not in _ZERO_UNKNOWN:
            raise NotAttestable(
                f"the firmware has a section of {unknown[0].name} at {unknown[0].address:#x}; only "
                f"QEMU is known to load such a section, not {self.layout}",
                check="firmware.section",
            )

    def digests(self, most: int) -> list[bytes]:
        """Return the launch digests for 1, 2, ... ``most`` vCPUs, 48 bytes each, in one pass.

        Raises Unsupported for a count out of range.
        """
        self.vmsa.for_vcpus(most)
        return list(islice(self.each(), most))

    def each(self) -> Iterator[bytes]:
        """Yield the launch digests for 1, 2, ... vCPUs, 48 bytes each, computed on demand."""
        return vcpu_digests(self.loaded(), self.vmsa.for_vcpus(MAX_VCPUS if self.vmsa.ap else 1))

    def loaded(self) -> bytes:
        """Return the launch digest before the first vCPU, 48 bytes."""
        digest = self.firmware.prefix
        for piece in self._pieces():
            digest = extend(digest, piece.kind, piece.address, piece.contents)
        return digest

    def ranges(self, vcpus: int) -> list[MeasuredPages]:
        """Return what is measured, in order; raises as :meth:`digests`."""
        firmware = self.firmware
        what = "firmware and SVSM" if firmware.svsm else "firmware"
        pages = firmware.size // PAGE_SIZE
        digest = firmware.prefix
        found = [MeasuredPages(what, firmware.start, pages, "NORMAL", digest.hex())]
        for piece in self._pieces():
            digest = extend(digest, piece.kind, piece.address, piece.contents)
            found.append(
                MeasuredPages(piece.what, piece.address, piece.pages, piece.kind.name, digest.hex())
            )
        for number, one in enumerate(self.digests(vcpus)):
            what = f"VMSA of vCPU {number}"
            found.append(MeasuredPages(what, VMSA_ADDRESS, 1, "VMSA", one.hex()))
        return found

    def _pieces(self) -> Iterator[_Piece]:
        """Yield what is measured between the firmware and the vCPUs."""
        sections = self.firmware.sections
        if self.layout in _CPUID_LAST:
            sections = sorted(sections, key=lambda section: section.kind == CPUID)
        for section in sections:
            kind = _TYPES.get(section.kind, PageType.ZERO)
            if section.kind == SEC_MEM and self.layout in _UNMEASURED_MEMORY:
                kind = PageType.UNMEASURED
            contents: Iterable[bytes] = repeat(NO_CONTENTS, section.pages)
            if section.kind == KERNEL_HASHES and self.kernel is not None:
                kind, contents = PageType.NORMAL, self._hash_pages(self.kernel, section)
            yield _Piece(section.name, kind, section.address, section.pages, contents)

    def _hash_pages(self, kernel: "KernelHashes", section: Section) -> list[bytes]:
        """Return the hash of each page of the section for kernel hashes: zeros, the table in them.

        QEMU takes the table's offset in its page from the firmware's kernel-hash area.
        """
        offset = (self.firmware.hash_table or 0) % PAGE_SIZE
        return contents_of((bytes(offset) + kernel.to_bytes()).ljust(section.size, b"\0"))


def snp_pages_for(profile: SnpProfile, firmware: SnpFirmware) -> VmsaPages:
    """Return the vCPUs' pages; raises NotAttestable if the firmware cannot start SEV-SNP.

    libkrun starts vCPUs at its own fixed address.
    """
    return profile.pages(0 if profile.layout == "krun" else firmware.require_reset_address())


def launch_digest(
    firmware: SnpFirmware | Source,
    *,
    vcpus: int,
    vmsa: "VmsaPages | SnpProfile | CpuModel",
    kernel: "KernelHashes | Source | None" = None,
    initrd: Source | None = None,
    cmdline: str | bytes | None = None,
    svsm: Source | None = None,
    vars_size: int = 0,
) -> bytes:
    """Return the launch digest of an SEV-SNP guest: 48 bytes, SHA-384.

    ``firmware``, ``kernel``, ``initrd`` and ``svsm`` are bytes, paths or open files. Where the
    image is not at hand, ``firmware`` is a :class:`SnpFirmware` with the digest of its pages.
    ``vcpus`` is 1 to 4096. ``vmsa`` is a profile, a CPU model for QEMU's profile, or the pages, for
    which QEMU is assumed. ``cmdline`` is hashed exactly as given, with one NUL appended.
    ``vars_size`` is the size of the UEFI variables between firmware and SVSM, in bytes.

    Raises OSError; MalformedInput if ``firmware`` is not an OVMF image, or its metadata lies;
    NotAttestable if it cannot start such a guest, or does not measure kernel hashes; Unsupported
    for parts that are missing or contradict each other.
    """
    from sev_attest.guest.cpu import CpuModel
    from sev_attest.guest.kernel_hashes import KernelHashes

    if kernel is None and (initrd is not None or cmdline is not None):
        raise Unsupported("an initrd or a command line needs a kernel", check="kernel.missing")
    if svsm is not None:
        if isinstance(firmware, SnpFirmware):
            raise Unsupported("this firmware has its SVSM already", check="svsm.twice")
        firmware = SnpFirmware.with_svsm(firmware, Svsm.read(svsm), vars_size)
    elif not isinstance(firmware, SnpFirmware):
        firmware = SnpFirmware.read(firmware)
    if kernel is not None and not isinstance(kernel, KernelHashes):
        kernel = KernelHashes.of(kernel, initrd, cmdline)
    layout = "svsm" if firmware.svsm else "qemu"
    if isinstance(vmsa, CpuModel):
        vmsa = SnpProfile(name=layout, cpu=vmsa)
    if isinstance(vmsa, SnpProfile):
        layout = vmsa.name
        vmsa = snp_pages_for(vmsa, firmware)
    guest = SnpGuest(firmware=firmware, vmsa=vmsa, kernel=kernel, layout=layout)
    return guest.digests(vcpus)[-1]
