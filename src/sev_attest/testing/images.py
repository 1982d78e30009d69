"""Firmware images to launch: random bytes with an OVMF footer."""

import hashlib
from collections.abc import Iterable, Mapping

from sev_attest._wire import guid_bytes, le
from sev_attest.guest.spec import (
    OVMF_FOOTER,
    OVMF_HASH_TABLE,
    OVMF_SEV_INFO,
    OVMF_SEV_METADATA,
    OVMF_SEV_SECRET,
    OVMF_SVSM_INFO,
)

SNP_SECTIONS = (
    (0x80_0000, 0x9000, 1),  # memory of the first stage
    (0x80_A000, 0x3000, 1),
    (0x80_D000, 0x1000, 2),  # secrets
    (0x80_E000, 0x1000, 3),  # CPUID
    (0x80_F000, 0x1000, 4),  # the SVSM's calling area
    (0x81_1000, 0xF000, 1),
    (0x81_0000, 0x1000, 0x10),  # kernel hashes
)
"""Sections as OvmfPkg/AmdSev declares them: guest address, size, type."""


def ovmf_image(
    size: int = 1 << 16,
    *,
    seed: bytes = b"firmware",
    reset_address: int | None = 0x80_B004,
    hash_table: tuple[int, int] | None = (0x81_0C00, 0x400),
    secret_area: tuple[int, int] | None = (0x81_0000, 0xC00),
    sections: Iterable[tuple[int, int, int]] | None = None,
) -> bytes:
    """Return an image of ``size`` bytes; the footer declares every address that is not None.

    ``seed`` determines the random bytes. ``reset_address`` is where an SEV-ES guest's other vCPUs
    start. ``hash_table`` and ``secret_area`` are base and size of the areas for kernel hashes and
    for secrets. ``sections`` are those of the SEV metadata, for SEV-SNP (:data:`SNP_SECTIONS`).
    """
    entries: dict[str, bytes] = {}
    for guid, area in ((OVMF_HASH_TABLE, hash_table), (OVMF_SEV_SECRET, secret_area)):
        if area is not None:
            entries[guid] = le(area[0], 4) + le(area[1], 4)
    if reset_address is not None:
        entries[OVMF_SEV_INFO] = le(reset_address, 4)
    metadata = b"" if sections is None else sev_metadata(sections)
    return with_footer(entries, size=size, seed=seed, metadata=metadata)


def svsm_image(
    size: int = 1 << 15,
    *,
    seed: bytes = b"svsm",
    entry: int = 0x1000,
    sections: Iterable[tuple[int, int, int]] = ((0x80_0000, 0x2000, 2), (0x80_2000, 0x1000, 3)),
) -> bytes:
    """Return an SVSM of ``size`` bytes whose vCPUs start at ``entry``."""
    info = {OVMF_SVSM_INFO: le(entry, 4)}
    return with_footer(info, size=size, seed=seed, metadata=sev_metadata(sections))


def sev_metadata(sections: Iterable[tuple[int, int, int]]) -> bytes:
    """Return SEV metadata with these sections: guest address, size, type."""
    body = b"".join(le(number, 4) for section in sections for number in section)
    return b"ASEV" + le(16 + len(body), 4) + le(1, 4) + le(len(body) // 12, 4) + body


def with_footer(
    entries: Mapping[str, bytes],
    *,
    size: int,
    seed: bytes = b"firmware",
    metadata: bytes = b"",
) -> bytes:
    """Return an image of ``size`` bytes with these entries (data by GUID) in its footer table.

    ``metadata`` stands before the table, and has an entry of its own.
    """
    table = b"".join(_entry(guid, data) for guid, data in entries.items())
    if metadata:
        offset = len(metadata) + len(table) + (4 + 18) + 18 + 32
        table = _entry(OVMF_SEV_METADATA, le(offset, 4)) + table
    footer = metadata + table + le(len(table) + 18, 2) + guid_bytes(OVMF_FOOTER)
    filler = hashlib.shake_128(seed).digest(size - len(footer))
    return filler[:-32] + footer + filler[-32:]


def _entry(guid: str, data: bytes) -> bytes:
    return data + le(len(data) + 18, 2) + guid_bytes(guid)
