"""A bounds-checked reader for little-endian structures, and writers."""

from enum import IntEnum
from typing import TypeVar

from sev_attest.errors import MalformedInput

Code = TypeVar("Code", bound=IntEnum)


class Reader:
    """Reads one structure from front to back; raises MalformedInput for whatever does not fit."""

    def __init__(
        self, data: bytes, structure: str, size: int | None = None, *, part: str = ""
    ) -> None:
        """Read ``data`` as ``structure``, exactly ``size`` bytes long if given.

        ``part`` names it in errors among others of its kind ("OCA").
        """
        if size is not None and len(data) != size:
            reason = f"{len(data)} bytes, expected {size}"
            raise MalformedInput(structure, "length", reason, part=part)
        self._data = data
        self._at = 0
        self.structure = structure
        self.part = part

    def error(self, field: str, reason: str, *, back: int = 0) -> MalformedInput:
        """Return the error for ``field``, which began ``back`` bytes before the current offset."""
        offset = self._at - back
        return MalformedInput(self.structure, field, reason, offset=offset, part=self.part)

    def _short(self, size: int, field: str) -> MalformedInput:
        return self.error(field, f"{len(self._data) - self._at} bytes left, {size} needed")

    def raw(self, size: int, field: str) -> bytes:
        """Return the next ``size`` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise self._short(size, field)
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int, field: str) -> int:
        """Return the next unsigned number, ``size`` bytes long."""
        end = self._at + size
        if end > len(self._data):
            raise self._short(size, field)
        value = int.from_bytes(self._data[self._at : end], "little")
        self._at = end
        return value

    def code(self, codes: type[Code], field: str) -> Code:
        """Return the next number of 4 bytes, which must be one of ``codes``."""
        value = self.number(4, field)
        try:
            return codes(value)
        except ValueError:
            raise self.error(field, f"unknown code {value:#x}", back=4) from None

    def zeros(self, size: int, field: str, *, what: str = "reserved bytes") -> None:
        """Skip ``size`` bytes, which must be zero; ``what`` names them in the error."""
        stray = len(self.raw(size, field).lstrip(b"\0"))
        if stray:
            raise self.error(field, f"{what} are not zero", back=stray)


def number_at(data: bytes | memoryview, offset: int, size: int = 4) -> int:
    """Return the number at ``offset``; bytes beyond the end of ``data`` count as zero."""
    return int.from_bytes(data[offset : offset + size], "little")


def le(value: int, size: int) -> bytes:
    """Return an unsigned number as ``size`` little-endian bytes."""
    return value.to_bytes(size, "little")


def guid_bytes(guid: str) -> bytes:
    """Return the 16 bytes of a GUID on the wire: the first three groups are little-endian."""
    raw = bytes.fromhex(guid.replace("-", ""))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def guid_text(raw: bytes) -> str:
    """Return a GUID's 16 bytes as text."""
    text = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
