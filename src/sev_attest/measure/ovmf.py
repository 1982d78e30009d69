"""A firmware image: its hash, and what its footer table declares.

Source: OVMF's OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm, read by QEMU's hw/i386/pc_sysfw_ovmf.c.
The table ends 32 bytes before the end of the image. Read backwards from there: the footer's GUID
(16), the length of the whole table (u16), then entries, each GUID (16), length (u16, itself and the
GUID included) and data. Numbers are little-endian.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from types import MappingProxyType
from typing import BinaryIO

from sev_attest._wire import Reader, guid_bytes, guid_text
from sev_attest.errors import MalformedInput, NotAttestable
from sev_attest.spec import OVMF_FOOTER, OVMF_HASH_TABLE, OVMF_SEV_INFO

Source = bytes | str | os.PathLike[str] | BinaryIO
"""What is measured: bytes as they are, the path of a file, or a file open for reading."""

_CHUNK = 1 << 20
_BEHIND_TABLE = 32
_ENTRY_TAIL = 18
_MAX_TABLE = 0xFFFF
_HASH_TABLE_SIZE = 176
_TAIL = _MAX_TABLE + _BEHIND_TABLE


def stream(source: Source, consume: Callable[[bytes], object]) -> None:
    """Pass ``source`` on in chunks of 1 MiB at most; raises OSError."""
    with _open(source) as file:
        while chunk := file.read(_CHUNK):
            consume(chunk)


def _open(source: Source) -> BinaryIO | nullcontext[BinaryIO]:
    if isinstance(source, bytes):
        return BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return open(source, "rb")  # noqa: PTH123 - the caller's `with` closes it
    return nullcontext(source)


def sha256_of(source: Source) -> bytes:
    """Hash ``source`` (32 bytes), in constant memory."""
    digest = hashlib.sha256()
    stream(source, digest.update)
    return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """A firmware image that was read once: what was hashed is what is parsed.

    The image itself is not kept, only its hash and its last 64 KiB.
    """

    size: int
    _hash: "hashlib._Hash" = field(repr=False, compare=False)
    _tail: bytes = field(repr=False)

    @classmethod
    def read(cls, source: Source) -> "Firmware":
        """Read an image; raises OSError, and MalformedInput if it is empty."""
        digest = hashlib.sha256()
        size = 0
        tail = b""

        def consume(chunk: bytes) -> None:
            nonlocal size, tail
            digest.update(chunk)
            size += len(chunk)
            tail = (tail + chunk)[-_TAIL:]

        stream(source, consume)
        if not size:
            raise MalformedInput("firmware", "length", "the file is empty")
        return cls(size=size, _hash=digest, _tail=tail)

    @property
    def sha256(self) -> bytes:
        """Hash of the image, 32 bytes."""
        return self._hash.digest()

    def hasher(self) -> "hashlib._Hash":
        """Start a launch digest: a SHA-256 state that has taken in the image."""
        return self._hash.copy()

    def tables(self) -> Mapping[str, bytes]:
        """Read the footer table: data by GUID. Empty for an image without footer.

        Raises MalformedInput for a footer whose lengths do not fit.
        """
        footer = self._tail[: len(self._tail) - _BEHIND_TABLE]
        if not footer.endswith(guid_bytes(OVMF_FOOTER)):
            return MappingProxyType({})
        size = _entry_size(footer, "footer")
        entries = footer[len(footer) - size : len(footer) - _ENTRY_TAIL]
        tables: dict[str, bytes] = {}
        while entries:
            size = _entry_size(entries, "footer entry")
            guid = guid_text(entries[-16:])
            if guid in tables:
                raise MalformedInput("firmware", "footer entry", f"{guid} is there twice")
            tables[guid] = entries[len(entries) - size : len(entries) - _ENTRY_TAIL]
            entries = entries[: len(entries) - size]
        return MappingProxyType(tables)

    def reset_address(self) -> int:
        """Where the other vCPUs start in an SEV-ES guest: CS base in bits 31-16, IP in 15-0.

        Raises MalformedInput for firmware that does not say (it cannot run SEV-ES guests).
        """
        entry = self.tables().get(OVMF_SEV_INFO)
        if entry is None:
            raise MalformedInput(
                "firmware",
                "SEV-ES reset block",
                "there is none, so this firmware cannot start SEV-ES guests",
                hint="take an OVMF build with SEV-ES support, or give the pages with --vmsa-cpu0/1",
            )
        return Reader(entry, "firmware SEV-ES reset block", 4).number(4, "address")

    def require_hash_table(self) -> None:
        """Refuse firmware that QEMU could not give kernel hashes to; raises NotAttestable."""
        entry = self.tables().get(OVMF_HASH_TABLE)
        what = "declares no kernel-hash area"
        if entry is not None:
            reader = Reader(entry, "firmware kernel-hash area", 8)
            base, size = reader.number(4, "base"), reader.number(4, "size")
            if base and size >= _HASH_TABLE_SIZE:
                return
            what = f"declares a kernel-hash area of {size} bytes ({_HASH_TABLE_SIZE} are needed)"
            if not base or not size:
                what = "declares an empty kernel-hash area"
        raise NotAttestable(
            f"the firmware {what}, so the kernel, initrd and command line cannot be measured",
            check="firmware.hash-table",
            hint="use an OVMF build for SEV direct boot (OvmfPkg/AmdSev), or leave out --kernel",
        )


def _entry_size(data: bytes, what: str) -> int:
    """Read the length that stands before the GUID at the end of ``data``, and hold it to fit."""
    if len(data) < _ENTRY_TAIL:
        raise MalformedInput("firmware", what, f"{len(data)} bytes are too few for one")
    size = int.from_bytes(data[-_ENTRY_TAIL:-16], "little")
    if not _ENTRY_TAIL <= size <= len(data):
        reason = f"its length is {size}, but {_ENTRY_TAIL} to {len(data)} bytes are there"
        raise MalformedInput("firmware", what, reason)
    return size
