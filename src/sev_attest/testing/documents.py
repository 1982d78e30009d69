"""JSON documents that a simulated host in a folder keeps between commands, and their reading."""

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sev_attest.errors import MalformedInput, reading

_MAX_SIZE = 1 << 20
"""Bytes of a file. The secrets of a guest are 16 KiB at most."""


def hex_bytes(*sizes: int) -> Callable[[Any], bytes]:
    """Return a reader of bytes in hex, of one of these sizes; of any size without one."""

    def read(value: Any) -> bytes:
        data = bytes.fromhex(value)
        if sizes and len(data) not in sizes:
            raise ValueError
        return data

    return read


def number(most: int) -> Callable[[Any], int]:
    """Return a reader of a number, 0 to ``most``."""

    def read(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError
        return value

    return read


def pair(most: int) -> Callable[[Any], tuple[int, int]]:
    """Return a reader of two such numbers."""

    def read(value: Any) -> tuple[int, int]:
        first, second = map(number(most), value)
        return first, second

    return read


def one_of(names: Mapping[str, object]) -> Callable[[Any], str]:
    """Return a reader of one of these names."""

    def read(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return read


def kept(read: Callable[[Any], Any]) -> dict[str, Any]:
    """Note what reads a field of a file; ``read`` raises for a JSON value that it cannot have."""
    return {"read": read}


class Document:
    """What is kept as JSON."""

    WHAT: ClassVar[str]
    NOTE: ClassVar[str] = "simulated: this is not a real platform, never trust it with real secrets"

    def to_bytes(self) -> bytes:
        """Return the JSON document: bytes as hex."""
        document = {"what": self.WHAT, "note": self.NOTE, **asdict(self)}  # type: ignore[call-overload]
        return json.dumps(document, indent=2, default=_plain).encode() + b"\n"


D = TypeVar("D", bound=Document)


def read_document(path: Path, *kinds: type[D]) -> D:
    """Return the document in a file, which is of one of these kinds.

    Raises OSError, MalformedInput.
    """
    what = kinds[0].WHAT
    with reading(str(path)):
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MalformedInput(what, "format", "this is no regular file")
            data = file.read(_MAX_SIZE)
        try:
            document = json.loads(data)
        except Exception:  # noqa: BLE001 - json raises more than it documents
            raise MalformedInput(what, "format", "this is not JSON") from None
        stated = document.get("what") if isinstance(document, dict) else None
        for kind in kinds:
            if stated == kind.WHAT:
                return kind(**_fields(kind, document))
        raise MalformedInput(what, "format", "this is the file of something else")


def _fields(kind: type[Document], document: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a document; raises MalformedInput."""
    found = {}
    for one in fields(kind):  # type: ignore[arg-type]
        try:
            found[one.name] = one.metadata["read"](document[one.name])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            reason = "is missing or damaged"
            raise MalformedInput(kind.WHAT, one.name, reason) from None
    return found


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: a FIFO without a writer must not hang.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _plain(value: bytes | Enum) -> str:
    return value.name if isinstance(value, Enum) else value.hex()
