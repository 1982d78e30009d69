"""``sev-attest guest``: check, inside a guest, that SEV is active."""

import click

from sev_attest.cli.bundle import Group


@click.group("guest", cls=Group, no_args_is_help=False)
def command() -> None:
    """Check, inside a guest, that SEV is active."""
