"""``sev-attest guest``: for inside a guest."""

import click

from sev_attest.cli.lazy import LazyGroup

_COMMANDS = {
    "check": "check that SEV is active, and which secrets arrived",
    "request": "ask for an SEV-SNP report that answers an owner's challenge",
    "open": "open the secrets that the owner sealed for that report",
}


@click.group(
    "guest", cls=LazyGroup, commands_by_name=_COMMANDS, prefix="guest_", no_args_is_help=False
)
def command() -> None:
    """Look at a guest from inside; with SEV-SNP, ask for its report and open its secrets."""
