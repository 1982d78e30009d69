"""What click shows of commands: their help, and what is near to a mistyped word.

:class:`Helpful` is the base of every command, :class:`HelpfulGroup` of every group. The help lists
options in titled sections, and then examples, which ``examples`` of the command holds as data.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from sev_attest.cli import completion, terminal
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

OPTIONS = "Options"
OUTPUT = "Output"
MAX_WIDTH = 100
_COLUMN = 28
_MOST = 5
_WHOLE = 1000
_LONGEST = 64
_HYPHEN = "\N{NON-BREAKING HYPHEN}"
_CHOICES = re.compile(r"\[(\S+\|\S+)\]$")
_SHELL_WORD = re.compile(r"(?:'[^']*'|\"[^\"]*\"|\S)+")


def _choose_color(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    # The environment is read where colour is used: it must not win over a group's --color.
    if value and ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
        terminal.choose(value)


class Option(click.Option):
    """An option whose help is one line, as it stands: click imports inspect to tidy it (4 ms)."""

    def __init__(self, *arguments: object, help: str = "", **settings: object) -> None:  # noqa: A002
        """Take click's own settings."""
        super().__init__(*arguments, **settings)  # type: ignore[arg-type] # click's own settings
        self.help = help or None


def _show_help(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


_COLOR = Option(
    ["--color"],
    type=click.Choice(terminal.MODES),
    envvar=terminal.VARIABLE,
    show_envvar=True,
    is_eager=True,
    expose_value=False,
    callback=_choose_color,
    help="Use colour (default: on terminals, unless NO_COLOR is set).",
)

_HELP = Option(
    ["-h", "--help"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_help,
    help="Show this message and exit.",
)


class _Formatter(click.HelpFormatter):
    """Breaks lines between words only, not after a hyphen (``qemu-init2``, ``--cpu-model``)."""

    def write_text(self, text: str) -> None:
        """Write text, wrapped."""
        super().write_text(_joined(text))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write a table of two columns, the second one wrapped."""
        super().write_dl([(name, _joined(text)) for name, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """Return what was written."""
        return super().getvalue().replace(_HYPHEN, "-")


class _Context(click.Context):
    """A context whose help is written so."""

    formatter_class = _Formatter


class Helpful(click.Command):
    """A command whose help has titled sections and examples."""

    context_class: type[click.Context] = _Context

    def __init__(
        self, *arguments: object, examples: Iterable[str] = (), **settings: object
    ) -> None:
        """Take ``examples``, command lines that show how it is used, and click's own settings."""
        super().__init__(*arguments, **settings)  # type: ignore[arg-type] # click's own settings
        self.add_help_option = False  # ours is in get_params()
        self.examples: tuple[str, ...] = (*examples,)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters; every command takes --color and --help."""
        return [*super().get_params(ctx), _COLOR, _HELP]

    def titles(self) -> Mapping[str, str]:
        """Return the titles of the sections that options are listed in, by parameter."""
        return {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; an unknown one is an error that names what is near."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [name for one in self.get_params(ctx) for name in one.opts if name[:2] == "--"]
            raise _unknown("option", error.option_name, known, ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        titles = self.titles()
        output = OUTPUT if OUTPUT in titles.values() else OPTIONS
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # Since 8.2, click has records of arguments too: the usage line names them.
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                fallback = output if parameter is _COLOR else OPTIONS
                title = titles.get(str(parameter.name), fallback)
                sections.setdefault(title, []).append(_short(*record))
        _write_sections(formatter, sections)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        if self.examples:
            with formatter.section("Examples"):
                width = formatter.width - formatter.current_indent
                for example in self.examples:
                    words = _SHELL_WORD.findall(example)
                    lines = terminal.folded(words, width, indent="    ", end=" \\")
                    for line in lines.split("\n"):
                        formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


class HelpfulGroup(Helpful, click.Group):
    """A group that shows its help if no command is given, and knows what a mistyped one is near."""

    def summaries(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """Yield each command and its line in the help."""
        for name in self.list_commands(ctx):
            yield name, self.commands[name].get_short_help_str(_WHOLE).rstrip(".")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; without any argument, show the help.

        The exit code is that of a usage error: a script in which a variable is empty has not
        verified anything.
        """
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(Unsupported.exit_code)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; an unknown one is an error."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise _unknown("command", args[0], self.list_commands(ctx), ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """Return the commands and options that begin so; click would import every command."""
        found = completion.commands(self.summaries(ctx), incomplete)
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands, with whole sentences."""
        _write_sections(formatter, {"Commands": [*self.summaries(ctx)]})


def _write_sections(
    formatter: click.HelpFormatter, sections: Mapping[str, list[tuple[str, str]]]
) -> None:
    """Write tables under their titles, all with the same columns."""
    names = [len(name) for rows in sections.values() for name, _ in rows]
    width = max((length for length in names if length <= _COLUMN), default=0)
    for title, rows in sections.items():
        with formatter.section(title):
            # click makes the column as wide as its longest name.
            formatter.write_dl(
                [(f"{name:<{width}}", text) for name, text in rows], width or _COLUMN
            )


def _joined(text: str) -> str:
    """Return text in which hyphens end no line."""
    return text.replace("-", _HYPHEN)


def _short(name: str, text: str) -> tuple[str, str]:
    """Return a row of a table; a long list of choices moves from its first to its second column."""
    choices = _CHOICES.search(name)
    if choices is None or len(name) <= _COLUMN:
        return name, text
    name = f"{name[: choices.start()]}NAME"
    return name, f"{text} One of: {choices[1].replace('|', ', ')}."


def _unknown(what: str, word: str, known: list[str], ctx: click.Context) -> Unsupported:
    """Return the error for an unknown option or command, with what is near in its hint."""
    shows = f"`{ctx.command_path} --help` shows the {what}s"
    begun = [one for one in known if len(word.strip("-")) > 1 and one.startswith(word)]
    if begun:
        hint = f"write it whole: {' or '.join(begun[:_MOST])}"
    else:
        found = _near(word, known)
        hint = f"did you mean {' or '.join(found)}?" if found else ""
    return usage(f"No such {what}: {word}", hint=f"{hint} ({shows})" if hint else shows)


def _near(word: str, known: list[str]) -> list[str]:
    """Return the known words that are near to one; a long one is near to none."""
    if len(word) > _LONGEST:
        return []
    from difflib import get_close_matches

    return get_close_matches(word, known)
