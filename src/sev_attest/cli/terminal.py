"""What a terminal gets and a pipe does not: colour, and lines that end between words.

Colour repeats what the words say; it never says anything alone.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

VARIABLE = "SEV_ATTEST_COLOR"
MODES = ("auto", "always", "never")
_LABELS = {
    "OK": "green",
    "NOT VERIFIED": "red",
    "NOT ALLOWED": "red",
    "NOT READ": "red",
    "error": "red",
    "hint": "cyan",
    "note": "yellow",
}
# A command to be copied stays whole: in backquotes, or from its name to the end of the line.
_WORD = r"`[^`]*`\S*|sev-attest .*|\S+"
_INDENT = "  "
_NARROW = 20


class _Chosen:
    """The mode that --color names on this command line; None if it names none."""

    mode: str | None = None


def choose(mode: str) -> None:
    """Use colour as --color says, until the command line is done."""
    _Chosen.mode = mode


@contextmanager
def restored() -> Iterator[None]:
    """Forget at the end what --color says: the next command line of this process may differ."""
    before = _Chosen.mode
    try:
        yield
    finally:
        _Chosen.mode = before


def colored(stream: TextIO) -> bool:
    """Return whether a stream gets colour.

    Source of the convention: https://no-color.org.
    """
    mode = _Chosen.mode or os.environ.get(VARIABLE) or "auto"
    if mode in ("always", "never"):
        return mode == "always"
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def paint(text: str, color: str, *, err: bool = False) -> str:
    """Return text in a colour, if its stream gets any."""
    return click.style(text, fg=color) if colored(_stream(err=err)) else text


def echo(text: str, *, err: bool = False) -> None:
    """Print text that may have been painted."""
    if colored(_stream(err=err)):
        # Otherwise click would take the colour out again where --color asks for it.
        click.echo(text, err=err, color=True)
    else:
        click.echo(text, err=err)


def say(line: str, *, err: bool = False) -> None:
    """Print a line that begins with what it is: ``error: ...``."""
    stream = _stream(err=err)
    if stream.isatty():
        line = wrapped(line, width_of(stream))
    label, colon, rest = line.partition(":")
    if colon and label in _LABELS and colored(stream):
        line = click.style(f"{label}:", fg=_LABELS[label], bold=True) + rest
    echo(line, err=err)


def width_of(stream: TextIO) -> int:
    """Return how many columns a terminal has; COLUMNS wins, as in a shell."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal():
        columns = int(asked[:6])
    else:
        try:
            columns = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
    return columns if columns >= _NARROW else 80


def wrapped(text: str, width: int) -> str:
    """Return text in lines of at most ``width`` columns, broken between words only.

    A longer word, and a command that somebody may copy, stay in one piece.
    """
    return folded(re.findall(_WORD, text), width)


def folded(words: Iterable[str], width: int, *, indent: str = _INDENT, end: str = "") -> str:
    """Join words to lines of at most ``width``; ``indent`` begins and ``end`` joins later ones."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) + len(end) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent if lines else ''}{word}")
    return f"{end}\n".join(lines)


def _stream(*, err: bool) -> TextIO:
    return sys.stderr if err else sys.stdout
