"""``sev-attest evidence``: the saved evidence of a verdict."""

import click

from sev_attest.cli.lazy import LazyGroup

_COMMANDS = {
    "show": "make the page of saved evidence",
    "verify": "recompute what saved evidence claims",
}


@click.group(
    "evidence",
    cls=LazyGroup,
    commands_by_name=_COMMANDS,
    prefix="evidence_",
    examples=(
        "sev-attest evidence show vm1.json --output vm1.html",
        "sev-attest evidence verify vm1.json --tik vm1_tik.bin --firmware OVMF.fd",
    ),
)
def command() -> None:
    """Show and verify the evidence of a verdict, as --evidence FILE.json wrote it."""
