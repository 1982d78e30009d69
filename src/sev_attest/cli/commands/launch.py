"""``sev-attest launch``."""

import click


@click.command("launch")
def command() -> None:
    """Launch a libvirt guest, attest it and hand over its secrets."""
