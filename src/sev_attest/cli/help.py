"""What click shows of commands: their help, and what is near to a mistyped word.

:class:`Helpful` is the base of every command, :class:`HelpfulGroup` of every group. The help lists
options in titled sections, and then examples, which ``examples`` of the command holds as data.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_NARROW_COLUMN = 8
"""In a narrow terminal: a name that is longer has a line of its own."""
_MOST = 5
_WHOLE = 1000
_LONGEST = 64
_HYPHEN = "\N{NON-BREAKING HYPHEN}"
_CHOICES = r"\[(\S+\|\S+)\]$"
_SHELL_WORD = r"(?:'[^']*'|\"[^\"]*\"|\S)+"


def _choose_color(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    # The environment is read where colour is used: it must not win over a group's --color.
    if value and ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
        terminal.choose(value)


class Option(click.Option):
    """An option whose help is one line, as it stands: click imports inspect to tidy it (4 ms)."""

    def __init__(self, *arguments: object, help: str = "", **settings: object) -> None:  # noqa: A002
        """Take click's own settings."""
        super().__init__(*arguments, **settings)  # type: ignore[arg-type] # click's own settings
        self.help: str | None = help or None


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

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        """Take click's own settings; without a width, that of the terminal counts.

        click's lines are never shorter than 50 columns.
        """
        columns = min(terminal.width_of(sys.stdout), max_width or MAX_WIDTH)
        super().__init__(indent_increment, width or columns - 2, max_width)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage line; click does not break the name of a command."""
        words = [prefix or "Usage:", *prog.split(), *args.split()]
        self.write(f"{terminal.folded(words, self.width, indent='    ')}\n")

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
        given = (*args,)  # click's parser empties the list
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            hint = self.place_of(ctx, name, given)
            raise _unknown("option", name, _options(self, ctx), ctx, hint) from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click's parser does not say which command it reads
            raise

    def place_of(self, _ctx: click.Context, _option: str, _args: Sequence[str]) -> str:
        """Return a hint where an option belongs that this command does not have."""
        return ""

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
                    words = _with_values(re.findall(_SHELL_WORD, example), width // 2)
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
        word = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, word) is None:
            option = f"--{word}"
            hint = f"did you mean {option}?" if option in _options(self, ctx) else ""
            raise _unknown("command", word, self.list_commands(ctx), ctx, hint)
        return super().resolve_command(ctx, args)

    def place_of(self, ctx: click.Context, option: str, args: Sequence[str]) -> str:
        """Return a hint if the command that follows has the option."""
        found: click.Command = self
        path = [ctx.command_path]
        for word in args:
            inner = found.get_command(ctx, word) if isinstance(found, click.Group) else None
            if inner is not None:
                found = inner
                path.append(word)
        if found is self or not any(option in one.opts for one in found.get_params(ctx)):
            return ""
        return f"put it after the command: `{' '.join(path)} {option}`"

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
    most = _COLUMN if formatter.width >= 2 * _COLUMN else _NARROW_COLUMN
    names = [len(name) for rows in sections.values() for name, _ in rows]
    width = max((length for length in names if length <= most), default=0)
    for title, rows in sections.items():
        with formatter.section(title):
            # click makes the column as wide as its longest name.
            formatter.write_dl([(f"{name:<{width}}", text) for name, text in rows], width or most)


def _joined(text: str) -> str:
    """Return text in which hyphens end no line."""
    return text.replace("-", _HYPHEN)


def _short(name: str, text: str) -> tuple[str, str]:
    """Return a row of a table; a long list of choices moves from its first to its second column."""
    choices = re.search(_CHOICES, name)
    if choices is None or len(name) <= _COLUMN:
        return name, text
    name = f"{name[: choices.start()]}NAME"
    return name, f"{text} One of: {choices[1].replace('|', ', ')}."


def _with_values(words: Iterable[str], most: int) -> list[str]:
    """Return the words of a command line, options of at most ``most`` characters with a value."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        one = f"{before} {word}"
        if before.startswith("--") and " " not in before and word[0] != "-" and len(one) <= most:
            joined[-1] = one
        else:
            joined.append(word)
    return joined


def _options(command: click.Command, ctx: click.Context) -> list[str]:
    """Return the long names of a command's options."""
    return [name for one in command.get_params(ctx) for name in one.opts if name[:2] == "--"]


def _unknown(
    what: str, word: str, known: list[str], ctx: click.Context, hint: str = ""
) -> Unsupported:
    """Return the error for an unknown option or command, with what is near in its hint."""
    shows = f"`{ctx.command_path} --help` shows the {what}s"
    hint = hint or _guess(word, known)
    shown = word or "'' (an empty word)"
    return usage(f"No such {what}: {shown}", hint=f"{hint} ({shows})" if hint else shows)


def _guess(word: str, known: list[str]) -> str:
    """Return which of the known words may be meant; "" for none."""
    begun = [one for one in known if len(word.strip("-")) > 1 and one.startswith(word)]
    if begun:
        return f"write it whole: {' or '.join(begun[:_MOST])}"
    found = _near(word, known)
    return f"did you mean {' or '.join(found)}?" if found else ""


def _near(word: str, known: list[str]) -> list[str]:
    """Return the known words that are near to one; a long one is near to none."""
    if len(word) > _LONGEST:
        return []
    from difflib import get_close_matches

    return get_close_matches(word, known)
