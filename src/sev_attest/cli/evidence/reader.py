"""Reads and writes the JSON of evidence. The reader is closed: a file is a stranger's."""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, Literal, NoReturn, Union, cast, get_args, get_origin, get_type_hints

from sev_attest.cli.evidence.document import SCHEMA, STRUCTURE, Evidence
from sev_attest.errors import MalformedInput

MAX_FILE = 4 << 20
"""Most bytes of a file; that of an SEV-SNP guest with 64 vCPUs takes about 60 KiB."""
_MOST_NUMBER = 1 << 64
_PARTS = {
    "verify": {"chain"},
    "validate": {"launch", "record", "measured"},
    "launch": {"chain", "launch", "record", "measured"},
    "snp-verify": {"report", "measured"},
    "snp-release": {"report"},
}
"""The parts that the evidence of each command may have."""


def to_bytes(evidence: Evidence) -> bytes:
    """Return evidence as JSON."""
    return json.dumps(evidence, indent=2).encode() + b"\n"


def from_bytes(data: bytes) -> Evidence:
    """Read evidence; raises MalformedInput if :func:`to_bytes` did not write it.

    Does not verify: anything that it says.
    """
    try:
        found = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except MalformedInput:
        raise
    except Exception:  # noqa: BLE001 - deep nesting and long numbers raise their own errors
        raise MalformedInput(STRUCTURE, "format", "this is not JSON") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise MalformedInput(STRUCTURE, "schema", f"this is not a {SCHEMA} document")
    _conform(found, Evidence, "")
    for name in sorted(set().union(*_PARTS.values()) - _PARTS[found["command"]]):
        if found[name] is not None:
            raise MalformedInput(STRUCTURE, name, f"is no part of {found['command']}")
    return cast("Evidence", found)


def encoded(data: bytes) -> str:
    """Return bytes as the document has them."""
    return base64.b64encode(data).decode()


def decoded(text: str, field: str) -> bytes:
    """Return the bytes of a base64 value; raises MalformedInput, naming the field."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedInput(STRUCTURE, field, "is not base64") from None


def unhexed(text: str, field: str) -> bytes:
    """Return the bytes of a hex value; raises MalformedInput, naming the field."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise MalformedInput(STRUCTURE, field, "is not hex") from None


def moment(text: str, field: str) -> datetime:
    """Return a time, with its zone; raises MalformedInput, naming the field."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise MalformedInput(STRUCTURE, field, "is not a time") from None
    if found.tzinfo is None:
        raise MalformedInput(STRUCTURE, field, "has no time zone")
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; raises MalformedInput for a name that is in it twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedInput(STRUCTURE, "format", "a name is twice in one object")
    return found


def _no_constant(_name: str) -> NoReturn:
    raise MalformedInput(STRUCTURE, "format", "NaN and Infinity are no JSON")


_fields_of = cache(get_type_hints)
"""The fields of a TypedDict and their types: finding them takes longer than one of its values."""


def _conform(value: object, kind: Any, place: str) -> None:
    """Raise MalformedInput if a value is not of a type of this module, down to its leaves."""
    if get_origin(kind) in {Union, UnionType}:
        if value is not None:
            _conform(value, get_args(kind)[0], place)
    elif get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise MalformedInput(STRUCTURE, place, f"is none of {', '.join(get_args(kind))}")
    elif get_origin(kind) is list:
        for at, one in enumerate(_of(list, value, place)):
            _conform(one, get_args(kind)[0], f"{place}[{at}]")
    elif isinstance(kind, type) and issubclass(kind, dict):  # a TypedDict
        _conform_fields(_of(dict, value, place), _fields_of(kind), place)
    elif kind is int and not -1 < _of(int, value, place) < _MOST_NUMBER:
        raise MalformedInput(STRUCTURE, place, "is out of range")
    else:
        _of(kind, value, place)


def _conform_fields(value: dict[str, object], fields: Mapping[str, object], place: str) -> None:
    for name, kind in fields.items():
        where = f"{place}.{name}" if place else name
        if name not in value:
            raise MalformedInput(STRUCTURE, where, "is missing")
        _conform(value[name], kind, where)
    if value.keys() - fields.keys():
        raise MalformedInput(STRUCTURE, place or "fields", "has fields that are not known")


def _of(kind: type[Any], value: object, place: str) -> Any:
    if type(value) is not kind:
        raise MalformedInput(STRUCTURE, place, "is of the wrong type")
    return value
