"""``sev-attest host check``."""

import click


@click.command("check")
def command() -> None:
    """Check that this host is ready for SEV guests."""
