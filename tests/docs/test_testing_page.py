"""docs/testing.md: its commands print what it shows, and it names every command of `simulate`."""

from pathlib import Path

import click

from console import commands, show_what_they_print
from sev_attest.cli.commands.simulate import command

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


def test_its_commands_print_what_it_shows(here: Path) -> None:
    show_what_they_print(commands(PAGE), here)


def test_every_command_of_simulate_is_on_it() -> None:
    assert isinstance(command, click.Group)
    for name in command.commands:
        assert f"`simulate {name} DIR" in PAGE or f"`{name} DIR" in PAGE
