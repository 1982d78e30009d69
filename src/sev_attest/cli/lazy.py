"""Groups whose commands are files, imported only when one runs."""

from collections.abc import Iterator, Mapping
from importlib import import_module

import click

from sev_attest.cli.help import HelpfulGroup


class LazyGroup(HelpfulGroup):
    """Imports a command's file only when that command runs (or shows its help)."""

    def __init__(
        self, *, commands_by_name: Mapping[str, str], prefix: str = "", **settings: object
    ) -> None:
        """Take each command's name, and its line in the help.

        The file of a command is ``prefix`` and its name, with ``_`` for ``-``, in
        ``cli/commands/``.
        """
        super().__init__(**settings)  # type: ignore[arg-type] # click's own settings
        self._table = commands_by_name
        self._prefix = prefix

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names, in the order of the help."""
        return list(self._table)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Return a command; None for an unknown one."""
        if name not in self._table:
            return None
        file = self._prefix + name.replace("-", "_")
        module = import_module(f"sev_attest.cli.commands.{file}")
        command: click.Command = module.command
        return command

    def summaries(self, _ctx: click.Context) -> Iterator[tuple[str, str]]:
        """Yield each command and its line in the help, without importing it."""
        return ((name, line[:1].upper() + line[1:]) for name, line in self._table.items())
