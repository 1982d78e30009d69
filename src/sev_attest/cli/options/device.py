"""The options of commands for a host's SEV firmware."""

import sys
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import OUTPUT
from sev_attest.cli.usage import usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sev_attest.errors import Unsupported
    from sev_attest.host.device import Device


class DeviceOptions(Options, title="Device"):
    """The device of the SEV firmware."""

    device: str = option(
        "--device",
        type=OUTPUT,
        metavar="PATH",
        default="/dev/sev",
        show_default=True,
        help="The device of the SEV firmware.",
    )

    def open(self) -> "Device":
        """Open the device; raises HostError."""
        from sev_attest.host.device import Device

        return Device(self.device)


class ConfirmOptions(Options, title="Confirmation"):
    """Whether to ask before something is lost."""

    yes: bool = option("--yes", is_flag=True, help="Do it without asking.")

    def errors(self, losses: "Iterable[str]") -> "Iterator[Unsupported]":
        """Yield an error if nobody can be asked; ``losses`` are what would be lost."""
        if not self.yes and not (sys.stdin is not None and sys.stdin.isatty()):
            reason = f"there is no terminal to ask: {'; '.join(losses)}"
            yield usage(reason, hint="--yes goes on without asking")

    def ask(self, losses: "Iterable[str]", question: str) -> None:
        """Show what will be lost, and ask; raises Unsupported if the answer is not yes."""
        if self.yes:
            return
        render.notes(losses)
        # Not click.confirm(): it writes to standard output too.
        click.echo(f"{question} [y/N] ", nl=False, err=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise usage("not confirmed: nothing was changed")
