"""Write the man pages of ``sev-attest`` and all its commands into a folder.

For the wheel (``tools/hatch_build.py``), for packages of distributions, and by hand:
``python tools/make_man.py build/man``, then ``man -l build/man/sev-attest-validate.1``.
What is in a page comes from the command's help. The date is SOURCE_DATE_EPOCH's; without it there
is none, so that the same source makes the same bytes.
"""

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cli_tree import Page, Section, exit_codes, marked, program, version

FILES = (
    (
        "$XDG_STATE_HOME/sev-attest/ledger.sqlite3",
        "The ledger, unless --ledger names another; by default below ~/.local/state.",
    ),
    ("NAME_tik.bin, NAME_tek.bin", "The keys of a session. The host must never see them."),
    ("NAME_godh.b64, NAME_session.b64", "What the host gets of a session."),
    ("NAME.launch.json", "The record of a launch. It has no secret in it."),
    ("owner.toml", "What an owner requires of a launch."),
)
VARIABLES = (
    ("CREDENTIALS_DIRECTORY", "Where systemd puts what `credential:NAME` names."),
    (
        "PGHOST, PGSSLMODE, PGSERVICE, ...",
        "As for every client of PostgreSQL, for a ledger there.",
    ),
    ("VAULT_TOKEN", "The token for Vault, unless a file with it is named."),
    ("XDG_STATE_HOME", "Where the ledger is: see FILES."),
)
_FLAT = ("Options", "Commands")
"""Titles that would only repeat the heading above them."""
_ESCAPES = str.maketrans(
    {
        "\\": r"\e", "-": r"\-", "~": r"\(ti", "^": r"\(ha", "'": r"\(aq", "`": r"\(ga",
        '"': r"\(dq",
        "|": r"|\:",  # a list of choices may be wider than the page: it can be broken here
    }
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Write all pages into the folder that is named."""
    if len(arguments) != 1:
        print("usage: make_man.py FOLDER", file=sys.stderr)
        return 2
    print(f"{len(write(Path(arguments[0])))} man pages are in {arguments[0]}")
    return 0


def write(folder: Path) -> list[Path]:
    """Write all pages into a folder, and return their paths; removes older pages there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("sev-attest*.1"):
        old.unlink()
    made = []
    for name, text in pages(program()).items():
        made.append(folder / f"{name}.1")
        made[-1].write_text(text, encoding="ascii")
    return made


def pages(top: Page) -> dict[str, str]:
    """Return the page of a program and of each of its commands, in the macros of man(7)."""
    above = {command.name: page for page in top.walk() for command in page.commands}
    return {page.name: _text(_lines(page, above.get(page.name))) for page in top.walk()}


def _text(lines: Iterator[str]) -> str:
    """Return a page. No space is stretched, no word broken: groff forgets that at each heading."""
    ragged = (f"{line}\n.ad l\n.nh" if line.startswith(".SH ") else line for line in lines)
    return "\n".join([*ragged, ""])


def _lines(page: Page, above: Page | None) -> Iterator[str]:
    summary = page.summary.replace("`", "")
    title = f"sev\\-attest {version()}"
    yield f'.TH {_plain(page.name.upper())} 1 "{_date()}" "{title}" "User Commands"'
    yield from (".SH NAME", _wrapped(f"{_plain(page.name)} \\- {_plain(summary)}"))
    usage = "".join(f" \\fI{_plain(piece)}\\fP" for piece in page.usage)
    yield from (".SH SYNOPSIS", _wrapped(f"\\fB{_plain(page.typed)}\\fP{usage}"))
    yield from (".SH DESCRIPTION", *_paragraphs(page.text))
    yield from _sections("COMMANDS", page.groups)
    yield from _sections("OPTIONS", page.options)
    for section in page.epilog:
        yield from _sections(section.title.upper() or "NOTES", (replace(section, title=""),))
    yield from (".SH EXIT STATUS", *_names(exit_codes()))
    if above is None:
        yield from (".SH FILES", *_names(FILES))
    read = {pair for one in (page.walk() if above is None else (page,)) for pair in one.variables}
    variables = [(name, f"Stands for {option}.") for name, option in read]
    variables += VARIABLES if above is None else ()
    if variables:
        yield from (".SH ENVIRONMENT", *_names(sorted(variables)))
    names = [one.name for one in ((above,) if above else ()) + page.commands]
    yield from (".SH SEE ALSO", ",\n".join(f"\\fB{_plain(name)}\\fP(1)" for name in names))


def _date() -> str:
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%d}" if seconds else ""


def _sections(heading: str, sections: tuple[Section, ...]) -> Iterator[str]:
    if sections:
        yield f".SH {_plain(heading)}"
    for section in sections:
        if section.title and section.title not in _FLAT:
            yield f".SS {_plain(section.title)}"
        yield from _rows(section.rows)
        yield from _paragraphs(section.text, below_rows=bool(section.rows))


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield rows: what is typed as it is in bold, what stands for a value in italics."""
    for first, second in rows:
        parts = re.split(r"([\s,]+)", first)
        shown = [
            f"\\f{_font(part)}{_plain(part)}\\fP" if part.strip(" ,") else part for part in parts
        ]
        yield from (".TP", "".join(shown), _marked(second) or "\\&")


def _font(word: str) -> str:
    """Return the font of a word beside an option: italics for a metavar (NAME, HEX|B64, [a|b])."""
    return "B" if re.match(r"[a-z\d-]", word) else "I"


def _names(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield rows of names that are typed as they stand."""
    for name, meaning in rows:
        yield from (".TP", f"\\fB{_plain(name)}\\fP", _marked(meaning))


def _paragraphs(texts: Iterable[str], *, below_rows: bool = False) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number or below_rows:
            yield ".PP"
        if text.startswith("\n"):
            yield from (".EX", *map(_plain, text[1:].splitlines()), ".EE")
        else:
            yield _marked(text)


def _marked(text: str) -> str:
    """Return text, wrapped, in which what is typed as it stands is bold."""
    return _wrapped(
        "".join(
            f"\\fB{_escaped(part)}\\fP" if typed else _escaped(part) for part, typed in marked(text)
        )
    )


def _wrapped(text: str) -> str:
    """Return text in lines of 80 bytes at most, as mandoc's linter wants them."""
    lines = textwrap.wrap(text, 79, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in lines)


def _plain(text: str) -> str:
    """Return text as roff takes it, also at the start of a line."""
    return f"\\&{_escaped(text)}" if text.startswith(".") else _escaped(text)


def _escaped(text: str) -> str:
    return re.sub(
        r"[^\x20-\x7e]", lambda found: f"\\[u{ord(found[0]):04X}]", text.translate(_ESCAPES)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
