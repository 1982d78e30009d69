"""``sev-attest guest check``."""

import click

from sev_attest.cli.bundle import Command
from sev_attest.cli.inspection import TreeOptions, show
from sev_attest.cli.options.common import OutputOptions

_CAUTION = (
    "this is the guest's own word and proves nothing: the proof is the launch that its owner "
    "validated (`sev-attest validate`)"
)


@click.command("check", cls=Command)
@TreeOptions.given("tree")
@OutputOptions.given("output")
def command(*, tree: TreeOptions, output: OutputOptions) -> None:
    """Check, inside a guest, that SEV is active and which secrets arrived.

    Secrets are listed by GUID; their bytes are never read. The exit code is 4 if SEV is not active,
    or nothing says whether it is: outside of a guest, for example.
    """
    from sev_attest.host.inspect import inspect_guest

    show(
        "guest check",
        inspect_guest(tree.machine()),
        output,
        verdict="SEV is active in this guest",
        contrary="SEV is not active in this guest",
        caution=_CAUTION,
        root=tree.root,
    )
