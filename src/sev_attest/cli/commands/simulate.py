"""``sev-attest simulate``: a simulated SEV host in a folder."""

import click

from sev_attest.cli.bundle import Group


@click.group("simulate", cls=Group, no_args_is_help=False)
def command() -> None:
    """A simulated SEV host in a folder."""
