"""``sev-attest snp``: SEV-SNP guests."""

import click

from sev_attest.cli.bundle import Group
from sev_attest.cli.commands.snp_measure import command as measure


@click.group("snp", cls=Group, no_args_is_help=False)
def command() -> None:
    """Verify SEV-SNP attestation reports, and compute launch digests."""


command.add_command(measure)
