"""Versioned JSON documents that an owner and a guest exchange: closed, and read strictly.

A document has ``schema``, and every field of its schema once: nothing is missing, unknown or given
twice. Bytes are lower-case hex, or base64 without line breaks. Numbers are integers. Times are
ISO 8601 with a numeric zone, as Python's ``isoformat()`` writes them. So each value has one text.
"""

import binascii
import json
import re
from base64 import b64encode
from collections.abc import Collection
from datetime import datetime

from sev_attest._encoding import unique_names
from sev_attest.errors import MalformedInput

MAX_DOCUMENT = 1 << 20
"""Most bytes of a document."""
_SCHEMA = re.compile(r"sev-attest/[a-z-]{1,40}/[0-9]{1,4}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_BOM = b"\xef\xbb\xbf"


def is_name(text: str) -> bool:
    """Return whether a name can begin a file's name: 1 to 128 letters, digits and ``_ . + -``."""
    return _NAME.fullmatch(text) is not None


class Document:
    """The fields of one document. Every method raises MalformedInput, without showing a value."""

    def __init__(self, data: bytes, structure: str, schema: str, fields: Collection[str]) -> None:
        """Parse ``data`` as a document of ``schema`` with these fields, beside the schema itself.

        ``structure`` is what errors call it.
        """
        self._structure = structure
        if len(data) > MAX_DOCUMENT:
            raise self.error("length", f"more than {MAX_DOCUMENT} bytes")
        try:
            values = json.loads(data.removeprefix(_BOM).decode(), object_pairs_hook=unique_names)
        except Exception:  # noqa: BLE001 - json raises more than it documents
            raise self.error("format", "this is not JSON, or a field is given twice") from None
        found = values.pop("schema", None) if isinstance(values, dict) else None
        if found != schema:
            known = isinstance(found, str) and _SCHEMA.fullmatch(found)
            what = f"this is a {found} document" if known else "this is another kind of file"
            raise self.error("format", f"{what}, expected {schema}")
        self._values: dict[str, object] = values
        for name in fields:
            if name not in values:
                raise self.error(name, "is missing")
        if values.keys() - set(fields):
            raise self.error("format", f"has other fields than {', '.join(fields)}")

    def error(self, field: str, reason: str) -> MalformedInput:
        """Return the error for a field."""
        return MalformedInput(self._structure, field, reason)

    def text(self, field: str) -> str:
        """Return a string."""
        value = self._values[field]
        if not isinstance(value, str):
            raise self.error(field, "is not a string")
        return value

    def name(self, field: str) -> str:
        """Return a name, as :func:`is_name` has it."""
        value = self.text(field)
        if not is_name(value):
            raise self.error(field, "is no name: 1 to 128 letters, digits and _ . + -")
        return value

    def number(self, field: str) -> int:
        """Return an integer."""
        value = self._values[field]
        if type(value) is not int:
            raise self.error(field, "is not an integer")
        return value

    def numbers(self, field: str) -> list[int]:
        """Return a list of integers."""
        value = self._values[field]
        if not isinstance(value, list) or any(type(one) is not int for one in value):
            raise self.error(field, "is not a list of integers")
        return value

    def hex(self, field: str, size: int) -> bytes:
        """Return ``size`` bytes from hex."""
        value = self.text(field)
        if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value):
            raise self.error(field, f"is not {2 * size} lower-case hex digits")
        return bytes.fromhex(value)

    def base64(self, field: str) -> bytes:
        """Return bytes from base64: each value has one text only."""
        value = self.text(field)
        try:
            found = binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
        except ValueError:
            found = b""
        if to_base64(found) != value:
            raise self.error(field, "is not base64 (without line breaks)")
        return found

    def time(self, field: str) -> datetime | None:
        """Return a time, which may be without a zone; None for null."""
        if self._values[field] is None:
            return None
        value = self.text(field)
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
        if found is None or found.isoformat() != value:
            raise self.error(field, "is no time such as 2026-05-04T12:00:00+00:00")
        return found


def write_document(schema: str, **fields: object) -> bytes:
    """Return a document as JSON, one field a line."""
    return json.dumps({"schema": schema, **fields}, indent=2).encode("ascii") + b"\n"


def to_base64(data: bytes) -> str:
    """Return bytes in base64, on one line."""
    return b64encode(data).decode("ascii")
