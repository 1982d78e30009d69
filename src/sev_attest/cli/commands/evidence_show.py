"""``sev-attest evidence show``."""

from pathlib import Path

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command, bare_option
from sev_attest.cli.evidence.document import STRUCTURE
from sev_attest.cli.evidence.reader import MAX_FILE, from_bytes
from sev_attest.cli.inputs import FILE, OUTPUT, read_small
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.evidence import page_errors
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.usage import refuse
from sev_attest.errors import reading


@click.command(
    "show", cls=Command, examples=("sev-attest evidence show vm1.json --output vm1.html",)
)
@click.argument("file", type=FILE)
@bare_option(
    "-o", "--output", "place", type=OUTPUT, metavar="FILE",
    help="Write the page here (default: standard output).",
)  # fmt: skip
@bare_option("--force", is_flag=True, help="Write over a file that exists.")
@OutputOptions.given("output")
def command(*, file: str, place: str | None, force: bool, output: OutputOptions) -> None:
    """Make the page of saved evidence: one HTML file without scripts, to read and to print.

    It shows what FILE says, and verifies nothing: `evidence verify` does.
    """
    from sev_attest.cli.evidence.page import page

    refuse(page_errors())
    if place is not None:
        check_writable([Path(place)], force=force)
    with reading(file):
        evidence = from_bytes(read_small(file, STRUCTURE, MAX_FILE))
        made = page(evidence)
    if place is not None:
        write_all([(Path(place), made)], force=force)
    if output.as_json:
        html = None if place is not None else made.decode()
        render.document("evidence show", ok=True, file=place, html=html)
    elif place is None:
        click.echo(made, nl=False)
    elif output.text:
        click.echo(f"wrote {render.one_line(place)}")
