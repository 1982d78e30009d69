"""Tables of owner.toml: each value is taken once, with its type, and nothing is ignored."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import NamedTuple, TypeVar

from sev_attest.errors import MalformedInput

_STRUCTURE = "requirements"
_MAX_BYTE = 0xFF
_Kind = TypeVar("_Kind")
_KINDS: Mapping[type, str] = {
    str: "string", list: "list", int: "number", bool: "true or false",
}  # fmt: skip


def wrong(name: str, reason: str, hint: str = "") -> MalformedInput:
    """Return the error for what is wrong at a place of the file."""
    return MalformedInput(_STRUCTURE, name, reason, hint=hint)


class Values(NamedTuple):
    """What may be in a list: a check for each string, and what it expects, in words."""

    fits: Callable[[str], bool]
    expected: str


def one_of(names: Iterable[str], expected: str = "", *, anything: bool = False) -> Values:
    """Return a list's values: any of ``names``, or (``anything``) ``*``."""
    known = (*names, *("*" * anything))
    words = f"one of {', '.join(known[:-1])}, or *" if anything else f"one of {', '.join(known)}"
    return Values(frozenset(known).__contains__, expected or words)


def hexes(*counts: int, anything: bool = True) -> Values:
    """Return a list's values: one of these numbers of hex digits, or (``anything``) ``*``."""
    shapes = [f"[0-9a-f]{{{count}}}" for count in counts] + ["[*]"] * anything
    shape = re.compile("|".join(shapes))
    words = f"{' or '.join(map(str, counts))} hex digits in lower case{', or *' * anything}"
    return Values(lambda text: shape.fullmatch(text) is not None, words)


class Table:
    """A table of the file; ``rest`` is what was not taken yet."""

    def __init__(self, name: str, value: object) -> None:
        """Take a table's name and value; raises MalformedInput for another value."""
        if not isinstance(value, dict):
            raise wrong(name, "is not a table")
        self.name: str = name
        self.rest: dict[str, object] = dict(value)

    def place(self, key: str) -> str:
        """Return the name of a key, for errors."""
        return f"{self.name}.{key}" if self.name else key

    def take(self, key: str, kind: type[_Kind], default: _Kind | None = None) -> _Kind:
        """Return a value of this type; without ``default`` it must not be missing."""
        value = self.rest.pop(key, default)
        if value is None:
            raise wrong(self.place(key), "is missing")
        if type(value) is not kind:
            raise wrong(self.place(key), f"is not a {_KINDS[kind]}")
        return value

    def number(self, key: str, most: int, default: int | None = None) -> int:
        """Return a number from 0 to ``most``."""
        value = self.take(key, int, default)
        if not 0 <= value <= most:
            # Its value is not shown: Python refuses to print a number of more than 4300 digits.
            raise wrong(self.place(key), f"is not in 0..{most}")
        return value

    def strings(self, key: str, values: Values) -> frozenset[str]:
        """Return a list of such values; an empty one if it is missing."""
        found = self.take(key, list, [])
        for value in found:
            if not isinstance(value, str) or not values.fits(value):
                shown = repr(value)[:80] if isinstance(value, str) else f"a {type(value).__name__}"
                raise wrong(self.place(key), f"{shown} does not belong there", values.expected)
        return frozenset(found)

    def numbers(self, key: str, most: int) -> frozenset[int]:
        """Return a list of numbers from 0 to ``most``; an empty one if it is missing."""
        found = self.take(key, list, [])
        if not all(type(value) is int and 0 <= value <= most for value in found):
            raise wrong(self.place(key), f"is not a list of numbers in 0..{most}")
        return frozenset(found)

    def version(self, key: str, parts: int, example: str) -> tuple[int, ...]:
        """Return the numbers of a version, each 0 to 255: ``example`` is one."""
        text = self.take(key, str)
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})*", text):
            numbers: tuple[int, ...] = ()
        else:
            numbers = tuple(map(int, text.split(".")))
        if len(numbers) != parts or max(numbers) > _MAX_BYTE:
            what = {2: "an API version", 3: "a firmware version"}[parts]
            raise wrong(self.place(key), f'{text!r} is not {what} ("{example}")')
        return numbers

    def moment(self, key: str) -> datetime | None:
        """Return a time with time zone, or a day at 00:00 UTC; None if it is missing."""
        value = self.rest.pop(key, None)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise wrong(self.place(key), "has no time zone (a day needs none)")
            try:
                value.astimezone(UTC)
            except OverflowError:
                raise wrong(self.place(key), "is not in the years 1 to 9999 (UTC)") from None
            return value
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
        if value is not None:
            raise wrong(self.place(key), "is not a date")
        return None

    def table(self, key: str) -> "Table":
        """Return a table; an empty one if it is missing."""
        return Table(self.place(key), self.rest.pop(key, {}))

    def tables(self, key: str, name: str) -> "list[Table]":
        """Return a list of tables, which errors call ``name`` with their number."""
        return [Table(f"{name} {at}", one) for at, one in enumerate(self.take(key, list, []), 1)]

    def end(self) -> None:
        """Raise MalformedInput for a name that was not taken."""
        if self.rest:
            raise wrong(self.place(next(iter(self.rest))), "is not known here")
