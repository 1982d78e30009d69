"""Firmware images to launch: random bytes with an OVMF footer."""

import hashlib

from sev_attest._wire import guid_bytes, le
from sev_attest.spec import OVMF_FOOTER, OVMF_HASH_TABLE, OVMF_SEV_INFO


def ovmf_image(
    size: int = 1 << 16,
    *,
    seed: bytes = b"firmware",
    reset_address: int | None = 0x80_B004,
    hash_table: tuple[int, int] | None = (0x81_0C00, 0x400),
) -> bytes:
    """Make an image of ``size`` bytes whose footer declares what is not None.

    ``reset_address`` is where an SEV-ES guest's other vCPUs start, ``hash_table`` the base and size
    of the area for kernel hashes.
    """
    entries = b""
    if hash_table is not None:
        entries += _entry(OVMF_HASH_TABLE, le(hash_table[0], 4) + le(hash_table[1], 4))
    if reset_address is not None:
        entries += _entry(OVMF_SEV_INFO, le(reset_address, 4))
    footer = entries + le(len(entries) + 18, 2) + guid_bytes(OVMF_FOOTER)
    filler = hashlib.shake_128(seed).digest(size - len(footer))
    return filler[:-32] + footer + filler[-32:]


def _entry(guid: str, data: bytes) -> bytes:
    return data + le(len(data) + 18, 2) + guid_bytes(guid)
