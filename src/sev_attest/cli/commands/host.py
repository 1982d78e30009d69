"""``sev-attest host``: for the administrator of an SEV host."""

import click

from sev_attest.cli.bundle import Group
from sev_attest.cli.commands.host_check import command as check


@click.group("host", cls=Group, no_args_is_help=False)
def command() -> None:
    """Check that a host is ready for SEV, and manage its platform's certificates."""


command.add_command(check)
