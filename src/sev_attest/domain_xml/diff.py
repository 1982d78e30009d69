"""The unified diff of a text and its edited form.

It is computed from the edits, so its cost is linear; difflib's is not.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sev_attest.domain_xml.xml import Edit

_CONTEXT = 3
_NEWLINE = re.compile(rb"\n")
_UNENDED = "\\ No newline at end of file"


class Span(NamedTuple):
    """``size`` bytes that edits did not change: where they were, and where they are now."""

    old: int
    new: int
    size: int


def kept(size: int, edits: Iterable[Edit]) -> list[Span]:
    """Return the spans of ``size`` bytes that edits, which do not touch each other, leave."""
    spans = []
    at = moved = 0
    for edit in [*sorted(edits, key=lambda edit: edit.start), Edit(size, size, b"")]:
        spans.append(Span(at, at + moved, edit.start - at))
        at = edit.end
        moved += len(edit.text) - (edit.end - edit.start)
    return spans


def through(first: list[Span], second: list[Span]) -> list[Span]:
    """Return the spans that are left after edits (``first``) and edits of their result."""
    spans = []
    i = j = 0
    while i < len(first) and j < len(second):
        one, other = first[i], second[j]
        start = max(one.new, other.old)
        end = min(one.new + one.size, other.old + other.size)
        if start < end:
            spans.append(
                Span(one.old + start - one.new, other.new + start - other.old, end - start)
            )
        if one.new + one.size < other.old + other.size:
            i += 1
        else:
            j += 1
    return spans


def unified(old: bytes, new: bytes, spans: list[Span], names: tuple[str, str]) -> Iterator[str]:
    """Return the lines that ``diff -u`` prints; ``spans`` are what ``old`` and ``new`` share."""
    before, after = _Lines(old), _Lines(new)
    changes = [*_changes(before, after, spans)]
    if changes:
        yield f"--- {names[0]}"
        yield f"+++ {names[1]}"
    for hunk in _hunks(changes):
        first, last = hunk[0], hunk[-1]
        lead = min(_CONTEXT, first.old)
        tail = min(_CONTEXT, len(before) - last.old_end)
        removed = _range(first.old - lead, last.old_end + tail)
        yield f"@@ -{removed} +{_range(first.new - lead, last.new_end + tail)} @@"
        at = first.old - lead
        for change in hunk:
            yield from before.shown(" ", at, change.old)
            yield from before.shown("-", change.old, change.old_end)
            yield from after.shown("+", change.new, change.new_end)
            at = change.old_end
        yield from before.shown(" ", at, at + tail)


class _Lines:
    """The lines of a text: where each begins, and where the last one ends."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.starts: array[int] = array("Q", [0])
        self.starts.extend(found.end() for found in _NEWLINE.finditer(text))
        if text and not text.endswith(b"\n"):
            self.starts.append(len(text))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> bytes:
        return self._text[self.starts[number] : self.starts[number + 1]]

    def begun(self, at: int) -> int | None:
        """Return the number of the line that begins at an offset, None if none does."""
        number = bisect_left(self.starts, at)
        return number if number < len(self.starts) and self.starts[number] == at else None

    def shown(self, mark: str, begin: int, end: int) -> Iterator[str]:
        """Return the lines from ``begin`` up to ``end``, each after ``mark``."""
        for number in range(begin, end):
            line = self[number]
            yield mark + line.removesuffix(b"\n").decode()
            if not line.endswith(b"\n"):
                yield _UNENDED


class _Change(NamedTuple):
    """Lines ``old`` up to ``old_end`` were replaced by lines ``new`` up to ``new_end``."""

    old: int
    old_end: int
    new: int
    new_end: int


def _changes(before: _Lines, after: _Lines, spans: list[Span]) -> Iterator[_Change]:
    """Return the changes: the lines between those that a span contains whole."""
    old = new = 0
    for span in spans:
        moved = span.new - span.old
        begin = bisect_left(before.starts, span.old)
        end = bisect_right(before.starts, span.old + span.size) - 1
        if begin < end and after.begun(before.starts[begin] + moved) is None:
            begin += 1
        if begin < end and after.begun(before.starts[end] + moved) is None:
            end -= 1
        first = after.begun(before.starts[begin] + moved) if begin < end else None
        if first is not None:
            yield from _trimmed(before, after, _Change(old, begin, new, first))
            old, new = end, first + end - begin
    yield from _trimmed(before, after, _Change(old, len(before), new, len(after)))


def _trimmed(before: _Lines, after: _Lines, change: _Change) -> Iterator[_Change]:
    """Return a change without equal lines at its ends; nothing if all are equal."""
    old, new, old_end, new_end = change.old, change.new, change.old_end, change.new_end
    while old < old_end and new < new_end and before[old] == after[new]:
        old, new = old + 1, new + 1
    while old < old_end and new < new_end and before[old_end - 1] == after[new_end - 1]:
        old_end, new_end = old_end - 1, new_end - 1
    if old < old_end or new < new_end:
        yield _Change(old, old_end, new, new_end)


def _hunks(changes: Iterable[_Change]) -> Iterator[list[_Change]]:
    """Return the changes in groups whose contexts touch."""
    hunk: list[_Change] = []
    for change in changes:
        if hunk and change.old - hunk[-1].old_end > 2 * _CONTEXT:
            yield hunk
            hunk = []
        hunk.append(change)
    if hunk:
        yield hunk


def _range(begin: int, end: int) -> str:
    """Return a range of lines; an empty one is named by the line before it."""
    count = end - begin
    return f"{begin + 1 if count else begin},{count}"
