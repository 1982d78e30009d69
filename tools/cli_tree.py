"""The commands of ``sev-attest`` as values, for the man pages and for the pages of the site.

Click itself is asked what its help shows: a title, an option or an example that the help gets is
in both at once.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "src") not in sys.path:
    sys.path.insert(0, str(ROOT / "src"))

_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*[a-z0-9])(?![\w-])")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the help: rows of two columns, then paragraphs."""

    title: str
    rows: tuple[tuple[str, str], ...] = ()
    text: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the help says about a command."""

    words: tuple[str, ...]
    """What is typed for it: ("sev-attest", "snp", "verify")."""
    summary: str
    """One line, without a capital at its start and a full stop at its end."""
    usage: tuple[str, ...]
    """What follows its words: ("[OPTIONS]", "REPORT")."""
    text: tuple[str, ...]
    """Its description, in paragraphs."""
    options: tuple[Section, ...]
    groups: tuple[Section, ...]
    """The table of its commands."""
    epilog: tuple[Section, ...]
    """What stands below the options, but for the exit codes: see :func:`exit_codes`."""
    variables: tuple[tuple[str, str], ...]
    """Environment variables, and the option that each stands for."""
    commands: tuple["Page", ...]

    @property
    def name(self) -> str:
        """The name of its page: "sev-attest-snp-verify"."""
        return "-".join(self.words)

    @property
    def typed(self) -> str:
        """The command as it is typed, in one string."""
        return " ".join(self.words)

    def walk(self) -> Iterator["Page"]:
        """Yield this command, and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


class _Recorder(click.HelpFormatter):
    """Keeps what a command writes into its help, instead of laying it out."""

    def __init__(self, width: int) -> None:
        """Take a width, for what a command lays out itself."""
        super().__init__(width=width)
        self._title = ""
        self._rows: dict[str, list[tuple[str, str]]] = {}
        self._text: dict[str, list[str]] = {}

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Note the title of what follows."""
        before, self._title = self._title, name
        yield
        self._title = before

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Note rows, but no argument without help: some releases of click list those."""
        del col_max, col_spacing
        plain = [(click.unstyle(first).strip(), click.unstyle(second)) for first, second in rows]
        found = [row for row in plain if row[1] or row[0].startswith("-")]
        self._rows.setdefault(self._title, []).extend(found)

    def write(self, string: str) -> None:
        """Note lines that are laid out already, as one paragraph that keeps them."""
        noted = self._text.setdefault(self._title, [])
        if string.strip() and noted and noted[-1].startswith("\n"):
            noted[-1] += f"\n{click.unstyle(string).rstrip()}"
        elif string.strip():
            noted.append(f"\n{click.unstyle(string).rstrip()}")

    def write_text(self, text: str) -> None:
        """Note text, in paragraphs."""
        self._text.setdefault(self._title, []).extend(paragraphs(click.unstyle(text)))

    def sections(self) -> tuple[Section, ...]:
        """Return what was noted, as sections in their order."""
        return tuple(
            Section(
                title=title,
                rows=tuple(self._rows.get(title, ())),
                text=tuple(self._text.get(title, ())),
            )
            for title in dict.fromkeys((*self._rows, *self._text))
            if self._rows.get(title) or self._text.get(title)
        )


def paragraphs(text: str) -> list[str]:
    r"""Return the paragraphs of a help text, one line each.

    One that click must not wrap (marked with ``\b``), or whose lines are indented, keeps its lines,
    and starts with a newline.
    """
    found = re.split(r"\n\s*\n", inspect.cleandoc(text).partition("\f")[0])
    return [_paragraph(one) for one in found if one.strip()]


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if lines[0].strip() == "\b" or all(line.startswith("  ") for line in lines):
        return "\n" + inspect.cleandoc("\n" + "\n".join(lines).replace("\b", "").strip("\n"))
    return " ".join(text.split())


def described(
    command: click.Command, name: str, summary: str = "", parent: click.Context | None = None
) -> Page:
    """Return a command and all below it, as their help shows them; hidden ones are left out."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    below: dict[str, click.Command | None] = {}
    groups: tuple[Section, ...] = ()
    if isinstance(command, click.Group):
        # Click cuts summaries to the width.
        groups = _recorded(command.format_commands, context, width=10_000)
        below = {one: command.get_command(context, one) for one in command.list_commands(context)}
    options = _recorded(command.format_options, context)
    titles = {section.title for section in groups}
    summaries = dict(row for section in groups for row in section.rows)
    return Page(
        words=tuple(context.command_path.split()),
        summary=_one_line(summary or command.get_short_help_str(10_000)),
        usage=tuple(command.collect_usage_pieces(context)),
        text=tuple(paragraphs(command.help or "")),
        options=tuple(s for s in options if s.title not in titles),
        groups=groups,
        epilog=tuple(s for s in _recorded(command.format_epilog, context) if not _is_codes(s)),
        variables=tuple(_variables(command, context)),
        commands=tuple(
            described(one, key, summaries.get(key, ""), context)
            for key, one in below.items()
            if one is not None and not one.hidden
        ),
    )


def _recorded(
    write: Callable[[click.Context, click.HelpFormatter], None],
    context: click.Context,
    *,
    width: int = 76,
) -> tuple[Section, ...]:
    recorder = _Recorder(width)
    write(context, recorder)
    return recorder.sections()


def _is_codes(section: Section) -> bool:
    return " ".join((section.title, *section.text)).lstrip().startswith("Exit codes")


def _one_line(text: str) -> str:
    text = text.rstrip(" .,")
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _variables(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        names = parameter.envvar or ()
        for name in (names,) if isinstance(names, str) else names:
            yield name, max(parameter.opts, key=len)


def marked(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a help text, and of each whether it is typed as it stands.

    That is what is between backticks, and what looks like an option.
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text]
    for number, part in enumerate(parts):
        if number % 2:
            yield part, True
            continue
        for place, piece in enumerate(_OPTION.split(part)):
            if piece:
                yield piece, place % 2 == 1


def program() -> Page:
    """Return ``sev-attest`` and all its commands."""
    from sev_attest.cli.main import cli

    return described(cli, "sev-attest")


def version() -> str:
    """Return the version of the program."""
    from sev_attest import __version__

    return __version__


def exit_codes() -> list[tuple[str, str]]:
    """Return the exit codes and what they mean: README.md's table."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Exit codes\n")[2]
    return re.findall(r"^\| (\d+) \| (.*) \|$", table.partition("\n## ")[0], re.MULTILINE)
