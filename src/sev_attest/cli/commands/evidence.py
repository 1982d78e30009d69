"""``sev-attest evidence``: the saved evidence of a verdict."""

import click

from sev_attest.cli.lazy import LazyGroup

_COMMANDS = {
    "show": "make the page of saved evidence",
    "verify": "recompute what saved evidence claims",
}


@click.group(
    "evidence", cls=LazyGroup, commands_by_name=_COMMANDS, prefix="evidence_",
    no_args_is_help=False,
)  # fmt: skip
def command() -> None:
    """Show and verify the evidence of a verdict, as --evidence FILE.json wrote it."""
