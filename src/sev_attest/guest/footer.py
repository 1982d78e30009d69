"""What a firmware file declares of itself: the footer table of OVMF, and the kind of file.

Source: OVMF's OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm, read by QEMU's hw/i386/pc_sysfw_ovmf.c.
The table ends 32 bytes before the end of the image. Read backwards from there: the footer's GUID
(16), the length of the whole table (u16), then entries, each GUID (16), length (u16, itself and the
GUID included) and data. Numbers are little-endian. Older firmware has no footer: the
entry "SEV-ES reset" stands where it would be, and QEMU still reads it.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NoReturn

from sev_attest._wire import Reader, guid_bytes, guid_text
from sev_attest.errors import MalformedInput, NotAttestable
from sev_attest.guest.spec import (
    EFI_NV_DATA_VOLUME,
    HASH_TABLE_SIZE,
    OVMF_FOOTER,
    OVMF_HASH_TABLE,
    OVMF_IGVM_PARAMETERS,
    OVMF_SEV_INFO,
    OVMF_SEV_METADATA,
    OVMF_SEV_SECRET,
    OVMF_SVSM_INFO,
    OVMF_TDX_METADATA,
)

_BEHIND_TABLE = 32
_ENTRY_TAIL = 18
_MAX_TABLE = 0xFFFF
_HEAD = 32
_TAIL = _MAX_TABLE + _BEHIND_TABLE

ENTRIES = {
    OVMF_SEV_INFO: "SEV-ES reset",
    OVMF_SEV_SECRET: "SEV secret area",
    OVMF_HASH_TABLE: "SEV kernel-hash area",
    OVMF_SEV_METADATA: "SEV metadata",
    OVMF_TDX_METADATA: "TDX metadata",
    OVMF_IGVM_PARAMETERS: "IGVM parameter areas",
    OVMF_SVSM_INFO: "SVSM info",
}
"""Names of the footer table's entries, by GUID."""
SECTIONS = {
    1: "SEC_MEM",
    2: "SECRETS",
    3: "CPUID",
    4: "SVSM_CAA",
    0x10: "KERNEL_HASHES",
}
"""Types of the sections that SEV metadata lists (for SNP)."""
_CONTAINERS = {b"QFI\xfb": "qcow2", b"IGVM": "IGVM"}
"""Container formats, by their first bytes."""
_UNFIT = {
    "SVSM": "an SVSM, which is for SEV-SNP guests: no SEV or SEV-ES guest starts from it",
    "descriptor": "a firmware descriptor (JSON); the firmware is ",
    "qcow2": "a qcow2 image: QEMU measures the firmware in it, not this file (`qemu-img convert "
    "-O raw` takes it out)",
    "IGVM": "an IGVM file: what is measured of it is not known here",
}
"""Kinds of files that no SEV or SEV-ES guest starts from, and the message for each."""
_SHOWN = 200
"""Most characters of a path in a descriptor that a message repeats."""


class Ends:
    """Keeps the two ends of a file that is read once: what a :class:`Footer` is made of."""

    __slots__ = ("_recent", "head", "size")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.size: int = 0
        self.head: bytes = b""
        self._recent = b""

    def take(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        self.size += len(chunk)
        if len(self.head) < _HEAD:
            self.head = (self.head + chunk[:_HEAD])[:_HEAD]
        # A large chunk is kept as it is: to cut each would copy a quarter of the file.
        self._recent = chunk if len(chunk) >= _TAIL else (self._recent + chunk)[-_TAIL:]

    @property
    def tail(self) -> bytes:
        """The last bytes so far."""
        return self._recent[-_TAIL:]

    def check(self) -> None:
        """Raise MalformedInput if the file was empty."""
        if not self.size:
            raise MalformedInput("firmware", "length", "the file is empty")

    def footer(self) -> "Footer":
        """Return what the file declares; raises MalformedInput for an empty file."""
        self.check()
        return Footer(self)


class Footer:
    """The ends of a firmware file of ``size`` bytes, and what they declare."""

    __slots__ = ("_head", "_tail", "size")
    size: int
    _head: bytes
    _tail: bytes

    def __init__(self, ends: Ends) -> None:
        """Keep the ends of a file that was read."""
        self._keep(size=ends.size, _head=ends.head, _tail=ends.tail)

    def __repr__(self) -> str:
        """Show the size."""
        return f"{type(self).__name__}(size={self.size})"

    def _keep(self, **parts: object) -> None:
        for name, part in parts.items():
            object.__setattr__(self, name, part)

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")

    def tables(self) -> Mapping[str, bytes]:
        """Return the footer table: data by GUID. Empty for an image without a footer.

        Raises MalformedInput for a footer whose lengths do not fit.
        """
        return _tables(self._tail)

    @property
    def kind(self) -> str:
        """Kind of the file.

        CODE is firmware without variables, VARS a store for UEFI variables, "whole" both in one
        file. "SVSM" is a module for SEV-SNP. A "descriptor" is a JSON file of libvirt and QEMU that
        names an image. "qcow2" and "IGVM" are containers. "unknown" is any other file without a
        footer table.
        """
        container = _CONTAINERS.get(self._head[:4])
        if container is not None:
            return container
        store = self._head[16:] == guid_bytes(EFI_NV_DATA_VOLUME)
        tables = self.tables()
        if OVMF_SVSM_INFO in tables:
            return "SVSM"
        if tables:
            return "whole" if store else "CODE"
        if store:
            return "VARS"
        return "unknown" if self.described is None else "descriptor"

    @property
    def described(self) -> str | None:
        """Path of the image that a firmware descriptor names; None if this is not a descriptor.

        Source: QEMU docs/interop/firmware.json.
        """
        if self.size > len(self._tail) or not self._tail.lstrip().startswith(b"{"):
            return None
        import json

        try:
            mapping = json.loads(self._tail)["mapping"]
            named = mapping.get("executable", mapping)["filename"]
        except Exception:  # noqa: BLE001 - a stranger's JSON: it names no file
            return None
        return named[:_SHOWN] if isinstance(named, str) else None

    @property
    def unfit(self) -> str:
        """Reason why no SEV or SEV-ES guest starts from this file; empty if one may."""
        why = _UNFIT.get(self.kind, "")
        return f"{why}{self.described}" if self.kind == "descriptor" else why

    def require_firmware(self, *, es: bool) -> None:
        """Raise an error if QEMU cannot start an SEV guest (SEV-ES if ``es``) from this file.

        Raises MalformedInput if it is not a firmware image, NotAttestable for an SVSM and, for
        SEV-ES, a reset address of 0. Firmware without a reset address passes: a VMM that needs none
        may start it, with pages of its own.
        """
        why = self.unfit
        if why and self.kind == "SVSM":
            raise NotAttestable(f"this is {why}", check="firmware.kind")
        if why:
            raise MalformedInput("firmware", "format", f"this is {why}")
        if es and OVMF_SEV_INFO in self.tables():
            self._reset_address()

    def reset_address(self) -> int:
        """Return where the APs of an SEV-ES guest start: CS base in bits 31-16, IP in bits 15-0.

        Raises NotAttestable if the firmware declares none, or 0: QEMU starts no SEV-ES guest from
        it, not even with one vCPU. Raises MalformedInput for a file without a footer table,
        and as :meth:`require_firmware` for other files.
        """
        self.require_firmware(es=False)
        return self._reset_address()

    def _reset_address(self) -> int:
        tables = self.tables()
        if not tables:
            reason = "there is none, so it cannot start SEV-ES guests"
            raise MalformedInput("firmware", "footer", reason, hint="is it an OVMF image?")
        entry = tables.get(OVMF_SEV_INFO)
        if entry is None:
            raise NotAttestable(
                "the firmware has no SEV-ES reset block, so it cannot start SEV-ES guests",
                check="firmware.sev-es-reset",
                hint="take an OVMF build with SEV-ES support, or give the vCPUs' pages yourself",
            )
        address = Reader(entry, "firmware SEV-ES reset block", 4).number(4, "address")
        # QEMU refuses it ("SEV-ES reset address is zero", target/i386/sev.c).
        if not address:
            raise NotAttestable(
                "the firmware's SEV-ES reset address is 0, so it cannot start SEV-ES guests",
                check="firmware.sev-es-reset",
                hint="take an OVMF build with SEV-ES support",
            )
        return address

    def hash_area(self) -> tuple[int, int] | None:
        """Return base and size (bytes) of the area for kernel hashes; None without one."""
        return self._area(OVMF_HASH_TABLE, "kernel-hash area")

    def secret_area(self) -> tuple[int, int] | None:
        """Return base and size (bytes) of the area for secrets; None without one."""
        return self._area(OVMF_SEV_SECRET, "secret area")

    def _area(self, guid: str, what: str) -> tuple[int, int] | None:
        entry = self.tables().get(guid)
        if entry is None:
            return None
        reader = Reader(entry, f"firmware {what}", 8)
        return reader.number(4, "base"), reader.number(4, "size")

    def require_hash_table(self) -> None:
        """Raise NotAttestable if QEMU cannot pass kernel hashes to this firmware."""
        area = self.hash_area()
        if area is not None and area[0] and area[1] >= HASH_TABLE_SIZE:
            return
        what = "declares no kernel-hash area"
        if area is not None:
            what = f"declares a kernel-hash area of {area[1]} bytes ({HASH_TABLE_SIZE} are needed)"
            if not all(area):
                what = "declares an empty kernel-hash area"
        raise NotAttestable(
            f"the firmware {what}, so the kernel, initrd and command line cannot be measured",
            check="firmware.hash-table",
            hint="use an OVMF build for SEV direct boot (OvmfPkg/AmdSev), or leave out the kernel",
        )

    def sections(self) -> list[tuple[int, int, int]]:
        """Return the sections of the SEV metadata: guest address, size, type (:data:`SECTIONS`).

        Empty without metadata; raises MalformedInput for metadata that does not fit the image.
        """
        entry = self.tables().get(OVMF_SEV_METADATA)
        if entry is None:
            return []
        structure = "firmware SEV metadata"
        offset = Reader(entry, structure, 4).number(4, "offset")
        if offset > len(self._tail):
            reason = f"its offset from the end is {offset}, but it must be within {len(self._tail)}"
            raise MalformedInput(structure, "offset", reason)
        reader = Reader(self._tail[len(self._tail) - offset :], structure)
        if reader.raw(4, "signature") != b"ASEV":
            raise MalformedInput(structure, "signature", "is not ASEV")
        size = reader.number(4, "size")
        version = reader.number(4, "version")
        if version != 1:
            raise MalformedInput(structure, "version", f"{version}, expected 1")
        count = reader.number(4, "count")
        # QEMU copies as many bytes as the size says, and then reads every section of the copy.
        if size < 16 + 12 * count:
            raise MalformedInput(structure, "size", f"{size} bytes do not hold {count} sections")
        return [
            (
                reader.number(4, "address"),
                reader.number(4, "section size"),
                reader.number(4, "section type"),
            )
            for _ in range(count)
        ]


# A diagnosis reads the tables of the same few images thousands of times.
@lru_cache(maxsize=8)
def _tables(tail: bytes) -> Mapping[str, bytes]:
    footer = tail[: len(tail) - _BEHIND_TABLE]
    if footer.endswith(guid_bytes(OVMF_SEV_INFO)):  # older than the footer
        size = _entry_size(footer, "SEV-ES reset block")
        data = footer[len(footer) - size : len(footer) - _ENTRY_TAIL]
        return MappingProxyType({OVMF_SEV_INFO: data})
    if not footer.endswith(guid_bytes(OVMF_FOOTER)):
        return MappingProxyType({})
    size = _entry_size(footer, "footer")
    entries = memoryview(footer)[len(footer) - size : len(footer) - _ENTRY_TAIL]
    tables: dict[str, bytes] = {}
    while entries:
        size = _entry_size(entries, "footer entry")
        guid = guid_text(bytes(entries[-16:]))
        if guid in tables:
            raise MalformedInput("firmware", "footer entry", f"{guid} is there twice")
        tables[guid] = bytes(entries[len(entries) - size : len(entries) - _ENTRY_TAIL])
        entries = entries[: len(entries) - size]
    return MappingProxyType(tables)


def _entry_size(data: bytes | memoryview, what: str) -> int:
    """Return the length in front of the GUID at the end of ``data``; raises MalformedInput."""
    if len(data) < _ENTRY_TAIL:
        raise MalformedInput("firmware", what, f"{len(data)} bytes are too few for one")
    size = int.from_bytes(data[-_ENTRY_TAIL:-16], "little")
    if not _ENTRY_TAIL <= size <= len(data):
        reason = f"its length is {size}, but {_ENTRY_TAIL} to {len(data)} bytes are there"
        raise MalformedInput("firmware", what, reason)
    return size
