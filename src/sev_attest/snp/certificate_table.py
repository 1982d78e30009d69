"""The certificate table that a host sends with an extended report.

Source: AMD 56421 (GHCB), "SNP Extended Guest Request", as read by google/go-sev-guest
abi/abi.go. Entries of 24 bytes, then what they point to; offsets count from the table's start:

======  ====  =====================================================
offset  size  field
======  ====  =====================================================
0x00    16    GUID, in the order of its text; zero ends the table
0x10    4     offset of the content, little-endian
0x14    4     its length
======  ====  =====================================================

Nothing signs the table: it says what a host claims. Does not verify: anything.
"""

from typing import NamedTuple

from sev_attest._snp import TABLE_CERTIFICATES
from sev_attest._wire import Reader
from sev_attest.errors import MalformedInput

_STRUCTURE = "certificate table"
_ENTRY = 24
_MOST_ENTRIES = 64
"""Real tables have one to six; a host could fill a file with them."""

_OTHERS = {
    "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6": "go-sev-guest's extra platform info",
    "9f4116cd-c503-4f5a-8f6f-fb68882f4ce2": "Google's firmware endorsement",
}


class Entry(NamedTuple):
    """One content of a table, DER or PEM as its host has it."""

    guid: str
    content: bytes

    @property
    def name(self) -> str:
        """What the GUID stands for; the GUID itself if nobody knows."""
        return TABLE_CERTIFICATES.get(self.guid) or _OTHERS.get(self.guid) or self.guid


def read_table(data: bytes) -> tuple[Entry, ...]:
    """Return the entries of a table that are not empty; none for no bytes, or only zeros.

    Raises MalformedInput for a table that does not end, that has more than 64 entries, or whose
    contents lie outside of it or overlap.
    """
    if not any(data):
        return ()
    places = _places(data)
    end = (len(places) + 1) * _ENTRY
    for offset, size, _guid in sorted(place for place in places if place[1]):
        if offset < end:
            raise MalformedInput(_STRUCTURE, "offset", f"contents overlap at byte {offset:#x}")
        end = offset + size
        if end > len(data):
            reason = f"{size} bytes at {offset:#x} are outside of the table's {len(data)} bytes"
            raise MalformedInput(_STRUCTURE, "offset", reason)
    return tuple(Entry(guid, data[offset : offset + size]) for offset, size, guid in places if size)


def _places(data: bytes) -> list[tuple[int, int, str]]:
    """Return offset, length and GUID of each entry, up to the one that ends the table."""
    reader = Reader(data, _STRUCTURE)
    found: list[tuple[int, int, str]] = []
    while any(guid := reader.raw(16, "GUID")):
        offset, size = reader.number(4, "offset"), reader.number(4, "content length")
        if len(found) == _MOST_ENTRIES:
            raise MalformedInput(_STRUCTURE, "length", f"more than {_MOST_ENTRIES} entries")
        found.append((offset, size, _guid_text(guid)))
    reader.zeros(8, "end")
    return found


def _guid_text(raw: bytes) -> str:
    """Return a GUID whose bytes are in the order of its text."""
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
