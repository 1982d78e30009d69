"""Firmware images to launch: random bytes with an OVMF footer."""

import hashlib
from collections.abc import Mapping

from sev_attest._wire import guid_bytes, le
from sev_attest.guest.spec import OVMF_FOOTER, OVMF_HASH_TABLE, OVMF_SEV_INFO, OVMF_SEV_SECRET


def ovmf_image(
    size: int = 1 << 16,
    *,
    seed: bytes = b"firmware",
    reset_address: int | None = 0x80_B004,
    hash_table: tuple[int, int] | None = (0x81_0C00, 0x400),
    secret_area: tuple[int, int] | None = (0x81_0000, 0xC00),
) -> bytes:
    """Return an image of ``size`` bytes; the footer declares every address that is not None.

    ``seed`` determines the random bytes. ``reset_address`` is where an SEV-ES guest's other vCPUs
    start. ``hash_table`` and ``secret_area`` are base and size of the areas for kernel hashes and
    for secrets.
    """
    entries: dict[str, bytes] = {}
    for guid, area in ((OVMF_HASH_TABLE, hash_table), (OVMF_SEV_SECRET, secret_area)):
        if area is not None:
            entries[guid] = le(area[0], 4) + le(area[1], 4)
    if reset_address is not None:
        entries[OVMF_SEV_INFO] = le(reset_address, 4)
    return with_footer(entries, size=size, seed=seed)


def with_footer(entries: Mapping[str, bytes], *, size: int, seed: bytes = b"firmware") -> bytes:
    """Return an image of ``size`` bytes with these entries (data by GUID) in its footer table."""
    table = b"".join(_entry(guid, data) for guid, data in entries.items())
    footer = table + le(len(table) + 18, 2) + guid_bytes(OVMF_FOOTER)
    filler = hashlib.shake_128(seed).digest(size - len(footer))
    return filler[:-32] + footer + filler[-32:]


def _entry(guid: str, data: bytes) -> bytes:
    return data + le(len(data) + 18, 2) + guid_bytes(guid)
