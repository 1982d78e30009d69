"""What SEV-SNP measures of a firmware image: its pages, and the sections that it declares.

QEMU loads the image at the end of the first 4 GiB (with ``-bios``; pflash cannot be measured), then
the sections that the firmware's SEV metadata lists, in their order.

Source: QEMU's target/i386/sev.c; OVMF's OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm; for an SVSM
COCONUT's fork of QEMU, as sev-snp-measure has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sev_attest._wire import Reader
from sev_attest.errors import MalformedInput, NotAttestable
from sev_attest.guest.firmware import Source, stream
from sev_attest.guest.footer import SECTIONS, Ends, Footer
from sev_attest.guest.spec import (
    HASH_TABLE_SIZE,
    OVMF_SEV_INFO,
    OVMF_SEV_METADATA,
    OVMF_SVSM_INFO,
)
from sev_attest.snp.pages import FOUR_GIB, PAGE_SIZE, START, PageHasher, PageType, extend

MAX_IMAGE = 64 << 20
"""Most bytes of an image: four times the space that PCs reserve for firmware."""
MAX_SECTION_PAGES = 1 << 16
"""Most pages of all sections: 256 MiB. OVMF declares 48 pages."""
_METADATA = "firmware SEV metadata"
_DIGEST_SIZE = 48
_KERNEL_HASHES = 0x10
_LAST_PLACE = PAGE_SIZE - HASH_TABLE_SIZE
"""Last offset in the section's first page at which the table of kernel hashes fits."""


class Section(NamedTuple):
    """A range of guest memory that the firmware asks for: address, bytes, type (:data:`SECTIONS`).

    >>> Section(0x80D000, 0x1000, 2).name
    'SECRETS'
    """

    address: int
    size: int
    kind: int

    @property
    def name(self) -> str:
        """Name of its type."""
        return SECTIONS.get(self.kind, f"type {self.kind:#x}")

    @property
    def pages(self) -> int:
        """Number of its pages."""
        return self.size // PAGE_SIZE


class _Image(NamedTuple):
    """An image: what it declares, and the SHA-384 of each of its pages."""

    footer: Footer
    contents: list[bytes]

    @property
    def size(self) -> int:
        return self.footer.size

    @classmethod
    def read(cls, source: Source, structure: str) -> "_Image":
        """Read an image; raises OSError, and MalformedInput for a size that is not whole pages."""
        ends, hasher = Ends(), PageHasher()

        def consume(chunk: bytes) -> None:
            ends.take(chunk)
            if ends.size > MAX_IMAGE:
                reason = f"more than {MAX_IMAGE >> 20} MiB: no guest starts from such an image"
                raise MalformedInput(structure, "length", reason)
            hasher.take(chunk)

        stream(source, consume)
        if hasher.rest:
            reason = f"{ends.size} bytes are not whole pages of {PAGE_SIZE}"
            hint = "is it an OVMF image?" if structure == "firmware" else ""
            raise MalformedInput(structure, "length", reason, hint=hint)
        return cls(ends.footer(), hasher.contents)

    def after(self, digest: bytes, address: int) -> bytes:
        """Return the launch digest after this image's pages, the first at ``address``."""
        return extend(digest, PageType.NORMAL, address, self.contents)


class Svsm(NamedTuple):
    """An SVSM, a module that runs below the guest's firmware.

    ``entry`` is where its vCPUs start, in bytes from its start.
    """

    image: _Image
    sections: Sequence[Section]
    entry: int

    @classmethod
    def read(cls, source: Source) -> "Svsm":
        """Read an SVSM.

        Raises OSError; MalformedInput for another file, a length that is not whole pages or more
        than 64 MiB, and metadata that lies; NotAttestable for one without SEV metadata.
        """
        image = _Image.read(source, "SVSM")
        info = image.footer.tables().get(OVMF_SVSM_INFO)
        if info is None:
            raise MalformedInput("SVSM", "format", "this is not an SVSM: its footer names no entry")
        entry = Reader(info, "SVSM info", 4).number(4, "entry")
        if entry >= image.size:
            raise MalformedInput("SVSM info", "entry", f"{entry:#x} is behind its end")
        return cls(image, _sections(image.footer), entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpFirmware:
    """A firmware image as SEV-SNP measures it.

    ``prefix`` is the launch digest after the image's pages, 48 bytes; it takes the place of the
    image. ``sections`` are in the order of the firmware's SEV metadata. ``reset_address`` is where
    the APs start (with an SVSM, every vCPU), None if the firmware does not say. ``hash_table`` is
    the guest address of the table of kernel hashes, None without one. ``start`` is where the first
    image is loaded, ``size`` how many bytes are loaded from there on; 0 if they are not known.
    """

    prefix: bytes
    sections: Sequence[Section] = field(repr=False)
    reset_address: int | None = None
    hash_table: int | None = None
    svsm: bool = False
    start: int = FOUR_GIB
    size: int = 0

    def __post_init__(self) -> None:
        """Check the sections and the digest.

        Raises MalformedInput for a digest of another size, and for sections that no platform can
        load: not whole pages, overlapping, outside the first 4 GiB, too many. Raises NotAttestable
        if there are none.
        """
        if len(self.prefix) != _DIGEST_SIZE:
            reason = f"{len(self.prefix)} bytes, expected {_DIGEST_SIZE}"
            raise MalformedInput("firmware digest", "length", reason)
        if not self.sections:
            raise _no_metadata()
        _check_sections(self.sections, self.start)

    @classmethod
    def read(cls, source: Source, *, prefix: bytes | None = None) -> "SnpFirmware":
        """Read an OVMF image. With a ``prefix``, only its metadata is read from ``source``.

        Raises OSError; MalformedInput for another file, a length that is not whole pages or more
        than 64 MiB, and metadata that lies; NotAttestable for an image without SEV metadata.
        """
        image = _Image.read(source, "firmware")
        footer = image.footer
        _require_ovmf(footer)
        if OVMF_SEV_METADATA not in footer.tables():
            raise _no_metadata()
        start = FOUR_GIB - image.size
        area = footer.hash_area()
        return cls(
            prefix=image.after(START, start) if prefix is None else prefix,
            sections=_sections(footer),
            reset_address=footer.reset_address() if OVMF_SEV_INFO in footer.tables() else None,
            hash_table=area[0] if area and area[0] else None,
            start=start,
            size=image.size,
        )

    @classmethod
    def with_svsm(cls, source: Source, svsm: "Svsm", vars_size: int) -> "SnpFirmware":
        """Read an OVMF image that is loaded above an SVSM.

        ``vars_size`` is the size in bytes of the UEFI variables between the two, whole pages. The
        sections, and where vCPUs start, are the SVSM's. Raises as :meth:`read`.
        """
        image = _Image.read(source, "firmware")
        _require_ovmf(image.footer)
        if not 0 <= vars_size <= MAX_IMAGE or vars_size % PAGE_SIZE:
            reason = f"{vars_size} bytes of variables are not whole pages of {PAGE_SIZE}"
            raise MalformedInput("SVSM", "variables", reason)
        top = FOUR_GIB - image.size
        start = top - vars_size - svsm.image.size
        return cls(
            prefix=svsm.image.after(image.after(START, top), start),
            sections=svsm.sections,
            reset_address=start + svsm.entry,
            svsm=True,
            start=start,
            size=image.size + svsm.image.size,
        )

    def require_reset_address(self) -> int:
        """Return where APs start; raises NotAttestable if the firmware does not say."""
        if self.reset_address is None:
            raise NotAttestable(
                "the firmware has no SEV-ES reset block, so it cannot start SEV-SNP guests",
                check="firmware.sev-es-reset",
                hint="take an OVMF build with SEV-SNP support, or give the vCPUs' pages yourself",
            )
        return self.reset_address

    def require_hash_section(self) -> None:
        """Raise NotAttestable if the hashes of a kernel would not be measured."""
        sections = [section for section in self.sections if section.kind == _KERNEL_HASHES]
        what = ""
        if not sections:
            what = "has no section for kernel hashes in its SEV metadata"
        elif self.hash_table is None:
            what = "declares no kernel-hash area"
        elif not any(0 <= self.hash_table - s.address <= _LAST_PLACE for s in sections):
            what = "declares a kernel-hash area outside the section that is measured for it"
        if what:
            raise NotAttestable(
                f"the firmware {what}, so the kernel, initrd and command line cannot be measured",
                check="firmware.hash-section",
                hint="use an OVMF build for SEV direct boot (OvmfPkg/AmdSev), or leave out the "
                "kernel",
            )


def _require_ovmf(footer: Footer) -> None:
    """Raise MalformedInput or NotAttestable if no SEV-SNP guest starts from this file."""
    if footer.kind == "SVSM":
        raise MalformedInput(
            "firmware",
            "format",
            "this is an SVSM, which is loaded beside the firmware",
            hint="name the OVMF image as firmware, and this file as SVSM",
        )
    footer.require_firmware(es=False)
    if not footer.tables():
        reason = "there is none, so it cannot start SEV-SNP guests"
        raise MalformedInput("firmware", "footer", reason, hint="is it an OVMF image?")


def _no_metadata() -> NotAttestable:
    return NotAttestable(
        "the firmware has no SEV metadata, so it cannot start SEV-SNP guests",
        check="firmware.snp-metadata",
        hint="take an OVMF build with SEV-SNP support (edk2-stable202205 or later, with CPUID and "
        "secrets pages)",
    )


def _sections(footer: Footer) -> tuple[Section, ...]:
    return tuple(Section(*section) for section in footer.sections())


def _check_sections(sections: Sequence[Section], start: int) -> None:
    """Raise MalformedInput for sections that cannot be loaded below ``start``.

    A page that is loaded twice fails the launch, and the address of a section is 32 bits wide.
    """
    if sum(section.pages for section in sections) > MAX_SECTION_PAGES:
        most = MAX_SECTION_PAGES * PAGE_SIZE >> 20
        raise MalformedInput(_METADATA, "section size", f"more than {most} MiB in all sections")
    end, before = 0, "the start of memory"
    for section in sorted(sections):
        place = f"section {section.name} at {section.address:#x}, {section.size:#x} bytes"
        if section.address % PAGE_SIZE or section.size % PAGE_SIZE or not section.size:
            raise MalformedInput(_METADATA, "section", f"{place}: not whole pages of {PAGE_SIZE}")
        if section.address < end:
            raise MalformedInput(_METADATA, "section", f"{place}: it overlaps {before}")
        end, before = section.address + section.size, place
    if end > start:
        raise MalformedInput(
            _METADATA, "section", f"{before}: it ends above {start:#x}, where the firmware begins"
        )
