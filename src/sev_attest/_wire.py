"""A bounds-checked little-endian reader, and writers: here a stranger's bytes are sliced."""

from enum import IntEnum
from typing import TypeVar

from sev_attest.errors import MalformedInput

Code = TypeVar("Code", bound=IntEnum)


class Reader:
    """Reads one structure front to back; whatever does not fit raises :class:`MalformedInput`."""

    def __init__(
        self, data: bytes, structure: str, size: int | None = None, *, part: str = ""
    ) -> None:
        """Read ``data`` as ``structure``, which has exactly ``size`` bytes if that is given.

        ``part`` names it among others of its kind ("OCA") in errors.
        """
        if size is not None and len(data) != size:
            reason = f"{len(data)} bytes, expected {size}"
            raise MalformedInput(structure, "length", reason, part=part)
        self._data = data
        self._at = 0
        self.structure = structure
        self.part = part

    def error(self, field: str, reason: str, *, back: int = 0) -> MalformedInput:
        """Make the error for ``field``, which began ``back`` bytes before the present place."""
        offset = self._at - back
        return MalformedInput(self.structure, field, reason, offset=offset, part=self.part)

    def _short(self, size: int, field: str) -> MalformedInput:
        return self.error(field, f"{len(self._data) - self._at} bytes left, {size} needed")

    def raw(self, size: int, field: str) -> bytes:
        """Take ``size`` bytes as they are."""
        end = self._at + size
        if end > len(self._data):
            raise self._short(size, field)
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int, field: str) -> int:
        """Take an unsigned number of ``size`` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise self._short(size, field)
        value = int.from_bytes(self._data[self._at : end], "little")
        self._at = end
        return value

    def code(self, codes: type[Code], field: str, size: int = 4) -> Code:
        """Take a number that must be one of ``codes``."""
        value = self.number(size, field)
        try:
            return codes(value)
        except ValueError:
            raise self.error(field, f"unknown code {value:#x}", back=size) from None

    def zeros(self, size: int, field: str, *, what: str = "reserved bytes") -> None:
        """Take ``size`` bytes that nothing signs: they must be zero. ``what`` names them."""
        stray = len(self.raw(size, field).lstrip(b"\0"))
        if stray:
            raise self.error(field, f"{what} are not zero", back=stray)


def number_at(data: bytes, offset: int, size: int = 4) -> int:
    """Look at one number, without reading on; beyond the end of ``data`` there are zeros."""
    return int.from_bytes(data[offset : offset + size], "little")


def le(value: int, size: int) -> bytes:
    """Write an unsigned number as ``size`` little-endian bytes."""
    return value.to_bytes(size, "little")


def guid_bytes(guid: str) -> bytes:
    """Write a GUID as its 16 bytes on the wire (the first three groups little-endian)."""
    raw = bytes.fromhex(guid.replace("-", ""))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def guid_text(raw: bytes) -> str:
    """Read the 16 bytes of a GUID as text."""
    text = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
