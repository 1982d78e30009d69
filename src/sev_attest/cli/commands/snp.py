"""``sev-attest snp``: SEV-SNP guests."""

import click

from sev_attest.cli.lazy import LazyGroup

_COMMANDS = {
    "verify": "verify a report up to AMD's pinned root",
    "certs": "show where AMD serves the certificates of a report; fetch them when asked",
    "id-block": "make ID blocks, with which an owner approves a launch; show and check them",
    "measure": "compute the launch digest of an SEV-SNP guest",
    "challenge": "make a challenge for one report, and note it in the ledger",
    "release": "release secrets to the guest that answered a challenge, once",
    "show": "show what reports and certificates say, field by field; verifies nothing",
}


@click.group("snp", cls=LazyGroup, commands_by_name=_COMMANDS, prefix="snp_", no_args_is_help=False)
def command() -> None:
    """Verify SEV-SNP attestation reports, and compute launch digests."""
