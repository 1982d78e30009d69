"""What the judges of vectors share. Nothing of ``sev_attest`` is imported here either."""

import hashlib
import struct
from pathlib import Path
from typing import Any
from uuid import UUID

FOLDER = Path(__file__).resolve().parent.parent / "vectors"
Case = dict[str, Any]


class Refused(Exception):
    """What a check refuses; ``check`` is its id."""

    def __init__(self, check: str) -> None:
        """Keep the id of the check."""
        super().__init__(check)
        self.check = check


def little(data: bytes) -> int:
    """Read a little-endian number."""
    return int.from_bytes(data, "little")


def hash_table(kernel: bytes, initrd: bytes, cmdline: bytes) -> bytes:
    """Lay out QEMU's table of kernel hashes for these files."""
    return table_of(*(hashlib.sha256(part).digest() for part in (kernel, initrd, cmdline + b"\0")))


def table_of(kernel: bytes, initrd: bytes, cmdline: bytes) -> bytes:
    """Lay out QEMU's table of kernel hashes, given the hashes."""
    table = UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le + struct.pack("<H", 168)
    for guid, digest in (
        ("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", cmdline),
        ("44baf731-3a2f-4bd7-9af1-41e29169781d", initrd),
        ("4de79437-abd2-427f-b835-d5b172d2045b", kernel),
    ):
        table += UUID(guid).bytes_le + struct.pack("<H", 50) + digest
    return table + bytes(8)


def footer_entry(image: bytes, guid: str) -> bytes:
    """Find an entry of OVMF's footer table, walking back from the footer."""
    end = len(image) - 50
    start = len(image) - 32 - struct.unpack_from("<H", image, end)[0]
    while end > start:
        size = struct.unpack_from("<H", image, end - 18)[0]
        if image[end - 16 : end] == UUID(guid).bytes_le:
            return image[end - size : end - 18]
        end -= size
    return b""


def cpu_signature(cpu: dict[str, int]) -> int:
    """Return what CPUID function 1 has in EAX."""
    base = min(cpu["family"], 15)
    signature = (cpu["family"] - base) << 20 | (cpu["model"] >> 4) << 16
    return signature | base << 8 | (cpu["model"] & 15) << 4 | cpu["stepping"]


def vcpu_page(signature: int, start: int) -> bytes:
    """Lay out the state of a vCPU that starts at CS base and IP ``start``."""
    page = bytearray(4096)

    def segment(at: int, selector: int, attributes: int, base: int = 0) -> None:
        struct.pack_into("<HHIQ", page, at, selector, attributes, 0xFFFF, base)

    for at in (0x00, 0x20, 0x30, 0x40, 0x50):
        segment(at, 0, 0x93)
    segment(0x10, 0xF000, 0x9B, start & 0xFFFF0000)
    for at, attributes in ((0x60, 0), (0x70, 0x82), (0x80, 0), (0x90, 0x8B)):
        segment(at, 0, attributes)
    for at, value in (
        (0xD0, 0x1000), (0x148, 0x40), (0x158, 0x10), (0x160, 0x400), (0x168, 0xFFFF0FF0),
        (0x170, 2), (0x178, start & 0xFFFF), (0x268, 0x0007040600070406), (0x310, signature),
        (0x3E8, 1),
    ):  # fmt: skip
        struct.pack_into("<Q", page, at, value)
    return bytes(page)
