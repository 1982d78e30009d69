"""``sev-attest snp id-block show``."""

from typing import TYPE_CHECKING

import click

from sev_attest.cli import id_blocks, render
from sev_attest.cli.bundle import Command
from sev_attest.cli.inputs import FILE, STDIN, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.usage import refuse
from sev_attest.snp.id_block import IdAuth, IdBlock

if TYPE_CHECKING:
    from sev_attest.cli.documents.id_blocks import ShownAuth, ShownBlock

_CAUTION = "nothing was verified: `sev-attest snp id-block check` does that"


@click.command(
    "show", cls=Command, examples=("sev-attest snp id-block show vm1_idblock.b64 vm1_idauth.b64",)
)
@click.argument("inputs", nargs=-1, type=FILE, required=True, metavar="BLOCK|AUTH...")
@OutputOptions.given("output")
def command(*, inputs: tuple[str, ...], output: OutputOptions) -> None:
    """Show every field of ID blocks (96 bytes) and ID auths (4096). Verifies nothing.

    Each input is a file in binary, base64 or hex (- is stdin); they are told apart by their size.
    """
    refuse(stdin_errors(*inputs))
    found = [(path, id_blocks.read_either(path)) for path in inputs]
    if output.as_json:
        shown = [_facts(path, one) for path, one in found]
        render.document("snp-id-block-show", ok=True, inputs=shown, notes=[_CAUTION])
        return
    for path, one in found:
        name = "standard input" if path == STDIN else render.one_line(path)
        click.echo(f"{name}: {_title(one)} (not verified)")
        for line in id_blocks.lines(one):
            click.echo(f"  {line}")
    if output.text:
        render.notes([_CAUTION])


def _title(found: IdBlock | IdAuth) -> str:
    return "an ID block" if isinstance(found, IdBlock) else "an ID auth"


def _facts(path: str, found: IdBlock | IdAuth) -> "ShownBlock | ShownAuth":
    if isinstance(found, IdBlock):
        return {
            "source": path,
            "kind": "id-block",
            "id_block": id_blocks.block_facts(found),
            "meaning": id_blocks.meaning(found),
        }
    return {"source": path, "kind": "id-auth", "id_auth": id_blocks.auth_facts(found)}
