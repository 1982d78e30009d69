"""``sev-attest host check``."""

import click

from sev_attest.cli.bundle import Command, bare_option
from sev_attest.cli.inspection import TreeOptions, show
from sev_attest.cli.options.common import OutputOptions

_CAUTION = (
    "this is the host's own word and proves nothing: attest from a machine that you trust "
    "(`sev-attest verify`, `sev-attest launch`)"
)
_KINDS = ("sev", "sev-es", "sev-snp")


@click.command(
    "check",
    cls=Command,
    examples=(
        "sev-attest host check",
        "sev-attest host check --for sev-snp --json",
    ),
)
@bare_option(
    "--for",
    "kind",
    type=click.Choice(_KINDS),
    default=_KINDS[0],
    show_default=True,
    help="The guests that it is to run; each kind needs what those before it need.",
)
@TreeOptions.given("tree")
@OutputOptions.given("output")
def command(*, kind: str, tree: TreeOptions, output: OutputOptions) -> None:
    """Check that this host is ready for SEV guests, step by step as in libvirt's guide.

    Each check says what was found, whether that is OK, missing, or cannot be told, and what fixes
    it. Nothing is changed and no program is run: versions are those of the package database. If
    something is missing, or cannot be told and SEV depends on it, the exit code is 4.
    """
    from sev_attest.host.inspect import Need, inspect_host

    need = Need(_KINDS.index(kind) + 1)
    show(
        "host check",
        inspect_host(tree.machine(), need),
        output,
        verdict=f"this host is ready for {need.title} guests",
        contrary=f"this host is not ready for {need.title} guests",
        caution=_CAUTION,
        root=tree.root,
        kind=kind,
    )
