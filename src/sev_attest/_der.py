"""A strict reader for DER, and the only importer of ``pyasn1``.

The structure of a certificate is walked here, because the signed bytes have to be kept as they came
and because AMD's certificates are not quite what X.509 libraries accept: their serial number is 0,
and older ones state the default trailerField. The walk follows a fixed schema, so depth and time
are bounded whatever the input claims. What AMD's own extensions hold is decoded with ``pyasn1``, as
are object ids, and has to encode to the same bytes again.

Source: ITU-T X.690, 8 and 10 (DER: one definite, shortest length; one encoding of each value).
"""

from functools import lru_cache
from typing import Any

from pyasn1.codec.der import decoder, encoder
from pyasn1.type import char, univ

from sev_attest.errors import MalformedInput

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x01, 0x02, 0x03, 0x04, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
UTF8_STRING, PRINTABLE_STRING, IA5_STRING = 0x0C, 0x13, 0x16

_LONG = 0x80
_MOST_LENGTH_BYTES = 4


def context(number: int) -> int:
    """Return the tag of an explicitly tagged value, [number]."""
    return 0xA0 | number


class Der:
    """Reads the values of one DER structure in order; raises MalformedInput for what is wrong."""

    def __init__(self, data: bytes, structure: str, *, at: int = 0, end: int | None = None) -> None:
        """Read ``data`` from offset ``at`` up to ``end``; ``structure`` names it in errors."""
        self.data = data
        self.structure = structure
        self._at = at
        self._end = len(data) if end is None else end

    def error(self, field: str, reason: str, at: int | None = None) -> MalformedInput:
        """Return the error for a field, at the current offset unless another is given."""
        offset = self._at if at is None else at
        return MalformedInput(self.structure, field, reason, offset=offset)

    @property
    def more(self) -> bool:
        """Whether values are left."""
        return self._at < self._end

    @property
    def tag(self) -> int:
        """The tag of the next value; -1 at the end."""
        return self.data[self._at] if self.more else -1

    def value(self, tag: int, field: str) -> bytes:
        """Return the contents of the next value, which must have this tag."""
        start, end = self._next(tag, field)
        return self.data[start:end]

    def whole(self, tag: int, field: str) -> bytes:
        """Return the next value with its tag and length."""
        first = self._at
        _, end = self._next(tag, field)
        return self.data[first:end]

    def inside(self, tag: int, field: str) -> "Der":
        """Return a reader for the contents of the next value."""
        start, end = self._next(tag, field)
        return Der(self.data, self.structure, at=start, end=end)

    def bits(self, field: str) -> bytes:
        """Return the next BIT STRING, which must be of whole bytes."""
        found = self.value(BIT_STRING, field)
        if found[:1] != b"\0":
            raise self.error(field, "the bit string is not of whole bytes")
        return found[1:]

    def number(self, field: str) -> int:
        """Return the next INTEGER, which must not be negative."""
        found = self.value(INTEGER, field)
        if not found or found[0] >= _LONG:
            raise self.error(field, "a negative number, or an empty one")
        if found[0] == 0 and found[1:2] and found[1] < _LONG:
            raise self.error(field, "the number is not in its shortest form")
        return int.from_bytes(found, "big")

    def finish(self, field: str) -> None:
        """Raise MalformedInput if anything is left."""
        if self.more:
            raise self.error(field, f"{self._end - self._at} bytes after its end")

    def _next(self, tag: int, field: str) -> tuple[int, int]:
        """Step over the next value; return where its contents start and end."""
        found = self.tag
        if found != tag:
            seen = f"tag {found:#04x}" if self.more else "nothing"
            raise self.error(field, f"{seen} where tag {tag:#04x} was expected")
        start, size = self._length(field)
        end = start + size
        if end > self._end:
            raise self.error(field, f"{self._end - start} bytes left, {size} stated")
        self._at = end
        return start, end

    def _length(self, field: str) -> tuple[int, int]:
        """Return where the next value's contents start, and their size."""
        at = self._at + 1
        if at >= self._end:
            raise self.error(field, "the length is missing")
        first = self.data[at]
        if first < _LONG:
            return at + 1, first
        count = first - _LONG
        stated = self.data[at + 1 : min(at + 1 + count, self._end)]
        if not 0 < count <= _MOST_LENGTH_BYTES or len(stated) != count:
            raise self.error(field, "the length is indefinite, cut short or of too many bytes")
        size = int.from_bytes(stated, "big")
        if stated[0] == 0 or size < _LONG:
            raise self.error(field, "the length is not in its shortest form")
        return at + 1 + count, size


def integer(data: bytes) -> int | None:
    """Return the value of a DER INTEGER; None if ``data`` is anything else, or it is negative."""
    found = _decoded(data, univ.Integer())
    return None if found is None or found < 0 else int(found)


def ia5_string(data: bytes) -> str | None:
    """Return the text of a DER IA5String; None if ``data`` is anything else."""
    found = _decoded(data, char.IA5String())
    return None if found is None else str(found)


def octet_string(data: bytes) -> bytes | None:
    """Return the bytes of a DER OCTET STRING; None if ``data`` is anything else."""
    found = _decoded(data, univ.OctetString())
    return None if found is None else bytes(found)


@lru_cache(maxsize=256)
def dotted(contents: bytes) -> str:
    """Return an OBJECT IDENTIFIER, given by its contents, as "1.2.840"; "" if it is not DER."""
    found = _decoded(bytes([OID, len(contents) % _LONG]) + contents, univ.ObjectIdentifier())
    return "" if found is None else str(found)


def _decoded(data: bytes, kind: Any) -> Any:
    """Return a value of one kind; None unless ``data`` is the DER of one, and nothing else."""
    try:
        found, rest = decoder.decode(data, asn1Spec=kind)
        # pyasn1 also takes some encodings that are BER only, as an INTEGER with leading zeros.
        same = not rest and encoder.encode(found) == data
    except Exception:  # noqa: BLE001 - pyasn1 promises no closed list for a stranger's bytes
        return None
    return found if same else None
