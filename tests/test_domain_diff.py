"""The diff of known edits: what it says, applied to the text before, gives the text after."""

import difflib
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest.domain_xml.diff import Span, kept, through, unified
from sev_attest.domain_xml.xml import Edit, apply

TEXT = st.text("ab\n", max_size=60).map(str.encode)
CUTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4), TEXT), max_size=6)


def edits(size: int, cuts: list[tuple[int, int, bytes]]) -> Iterator[Edit]:
    """Make edits that do not touch each other."""
    free = 0
    for start, length, text in sorted(cuts):
        if free <= start <= start + length <= size:
            yield Edit(start, start + length, text)
            free = start + length + 1


def patched(old: bytes, diff: list[str]) -> bytes:
    """Apply a unified diff, strictly."""
    before = old.decode().splitlines(keepends=True)
    after: list[str] = []
    at, last = 0, ""
    for line in diff[2:]:
        if hunk := re.fullmatch(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@", line):
            begin, count, new, size = map(int, hunk.groups())
            begin -= bool(count)
            after += before[at:begin]
            at = begin
            assert len(after) == new - bool(size)
        elif line.startswith("\\"):
            if last == "+":
                after[-1] = after[-1].removesuffix("\n")
            else:
                assert not before[at - 1].endswith("\n")
        else:
            last = line[0]
            if last in " -":
                assert before[at].removesuffix("\n") == line[1:]
                at += 1
            if last in " +":
                after.append(before[at - 1] if last == " " else f"{line[1:]}\n")
    return "".join([*after, *before[at:]]).encode()


@given(TEXT, CUTS, CUTS)
def test_it_leads_from_the_text_before_to_the_text_after_two_rounds_of_edits(
    old: bytes, first: list[tuple[int, int, bytes]], second: list[tuple[int, int, bytes]]
) -> None:
    spans, new = [Span(0, 0, len(old))], old
    for cuts in (first, second):
        made = [*edits(len(new), cuts)]
        spans, new = through(spans, kept(len(new), made)), apply(new, made)
    for span in spans:
        one, other = (at + span.size for at in (span.old, span.new))
        assert old[span.old : one] == new[span.new : other]
    diff = [*unified(old, new, spans, ("old", "new"))]
    assert patched(old, diff) == new
    assert bool(diff) == (old != new)


def test_lines_that_are_equal_though_nothing_says_so_are_no_change() -> None:
    old, new = b"a\nb\nc\nd\n", b"a\nc\nX\nd\n"
    diff = [*unified(old, new, [Span(0, 0, 2)], ("old", "new"))]
    assert patched(old, diff) == new
    assert diff[3:] == [" a", "-b", "-c", "+c", "+X", " d"]


@pytest.mark.parametrize(
    "made",
    [
        [Edit(6, 7, b"X")],
        [Edit(0, 2, b"")],
        [Edit(1, 1, b"\nnew")],
        [Edit(6, 7, b"X"), Edit(18, 19, b"Y")],
        [Edit(6, 7, b"X"), Edit(30, 31, b"Y")],
        [Edit(40, 40, b"at\nthe\nend\n")],
    ],
)
def test_it_is_what_others_write(made: list[Edit]) -> None:
    old = "".join(f"{letter}\n" for letter in "abcdefghijklmnopqrst").encode()
    new = apply(old, made)
    mine = [*unified(old, new, kept(len(old), made), ("old", "new"))]
    before, after = (text.decode().splitlines() for text in (old, new))
    assert mine == [*difflib.unified_diff(before, after, "old", "new", lineterm="")]


def test_a_last_line_without_a_newline_is_told() -> None:
    made = [Edit(2, 3, b"x")]
    assert [*unified(b"a\nb", b"a\nx", kept(3, made), ("old", "new"))] == [
        "--- old",
        "+++ new",
        "@@ -1,2 +1,2 @@",
        " a",
        "-b",
        "\\ No newline at end of file",
        "+x",
        "\\ No newline at end of file",
    ]


def test_a_last_line_that_goes_on_is_changed() -> None:
    made = [Edit(3, 3, b"c\n")]
    diff = [*unified(b"a\nb", b"a\nbc\n", kept(3, made), ("old", "new"))]
    assert diff[2:] == ["@@ -1,2 +1,2 @@", " a", "-b", "\\ No newline at end of file", "+bc"]
