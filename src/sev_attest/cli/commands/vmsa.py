"""``sev-attest vmsa``: build, show and compare VMSA pages."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.inputs import FILE, OUTPUT, Number, large_file, stdin_errors
from sev_attest.cli.options.boot import CpuOptions, read_page
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.outputs import write_all
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import reading
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.spec import MAX_VCPUS
from sev_attest.guest.vmsa import FIELDS, SEGMENTS, unnamed, values_of

if TYPE_CHECKING:
    from sev_attest.cli.documents.guests import Segment


@click.group("vmsa", cls=Group, examples=("sev-attest vmsa diff vmsa0.bin host-vmsa0.bin",))
def command() -> None:
    """Build, show and compare the measured state of SEV-ES vCPUs (VMSA pages)."""


@command.command(
    "build",
    examples=(
        "sev-attest vmsa build vmsa0.bin --cpu-model-name EPYC-Milan",
        "sev-attest vmsa build vmsa1.bin --cpu 1 --cpu-model-name EPYC-Milan --firmware OVMF.fd",
    ),
)
@click.argument("out", type=OUTPUT)
@bare_option("--cpu", type=Number(MAX_VCPUS - 1), default=0, help="Which vCPU (0 boots).")
@CpuOptions.given("model")
@bare_option("-f", "--firmware", type=FILE, metavar="FILE", help="Firmware, for vCPUs above 0.")
@bare_option("--force", is_flag=True, help="Write over a file that exists.")
@OutputOptions.given("output")
def build(
    *,
    out: str,
    cpu: int,
    model: CpuOptions,
    firmware: str | None,
    force: bool,
    output: OutputOptions,
) -> None:
    """Write the page of a vCPU to OUT, as QEMU (or --vmsa-profile) sets it up."""
    chosen = model.profile()
    if chosen is None:
        raise usage(
            "the CPU is needed: --cpu-model-name, or --cpu-family, --cpu-model and --cpu-stepping"
        )
    reset = 0
    if firmware is not None:
        with reading(firmware), large_file(firmware, progress=False) as file:
            reset = Firmware.read(file).reset_address()
    elif cpu and chosen.layout != "krun":
        raise usage("--firmware is needed: it says where vCPUs above 0 start")
    pages = chosen.pages(reset)
    page = pages.boot if cpu == 0 else pages.ap or b""
    write_all([(Path(out), page)], force=force)
    if output.as_json:
        render.document(
            "vmsa build", ok=True, file=out, profile=chosen.name, cpu=cpu, notes=model.notes()
        )
    elif output.text:
        click.echo(f"wrote {render.one_line(out)}: vCPU {cpu}, profile {chosen.name}")
        if output.verbose:
            _lines(_nested(page))
        render.notes(model.notes())


@command.command("show", examples=("sev-attest vmsa show vmsa0.bin",))
@click.argument("file", type=FILE)
@OutputOptions.given("output")
def show(*, file: str, output: OutputOptions) -> None:
    """Show the fields of a page: those that are not zero, with --verbose all of them."""
    page = read_page(file)
    if output.as_json:
        render.document("vmsa show", ok=True, fields=_nested(page), unnamed=unnamed(page))
        return
    _lines(_nested(page), zeros=output.verbose)
    for at in unnamed(page):
        click.echo(f"byte {at:#05x} belongs to no named field, and is {page[at]:#04x}")


@command.command("diff", examples=("sev-attest vmsa diff vmsa0.bin host-vmsa0.bin",))
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@OutputOptions.given("output")
def diff(*, first: str, second: str, output: OutputOptions) -> None:
    """Name the fields in which two pages differ; exit 1 if they do."""
    refuse(stdin_errors(first, second))
    pages = read_page(first), read_page(second)
    values = values_of(pages[0]), values_of(pages[1])
    found = {n: (values[0][n], values[1][n]) for n in FIELDS if values[0][n] != values[1][n]}
    others = [
        at
        for at in sorted({*unnamed(pages[0]), *unnamed(pages[1])})
        if pages[0][at] != pages[1][at]
    ]
    same = not (found or others)
    if output.as_json:
        differing = {name: list(pair) for name, pair in found.items()}
        render.document("vmsa diff", ok=same, fields=differing, unnamed=others)
    else:
        for name, (one, other) in found.items():
            click.echo(f"{name:<16} {one:#x} {other:#x}")
        for at in others:
            click.echo(f"byte {at:#05x}       {pages[0][at]:#x} {pages[1][at]:#x}")
        if same and not output.quiet:
            click.echo("the pages are the same")
    if not same:
        raise click.exceptions.Exit(1)


def _nested(page: bytes) -> "dict[str, int | Segment]":
    """Return the fields by name, each segment register as one field of four parts."""
    values = values_of(page)
    nested: dict[str, int | Segment] = {
        segment: {
            "selector": values[f"{segment}.selector"],
            "attrib": values[f"{segment}.attrib"],
            "limit": values[f"{segment}.limit"],
            "base": values[f"{segment}.base"],
        }
        for segment in SEGMENTS
    }
    return nested | {name: value for name, value in values.items() if "." not in name}


def _lines(fields: "dict[str, int | Segment]", *, zeros: bool = False) -> None:
    for name, value in fields.items():
        if isinstance(value, dict):
            if zeros or any(value.values()):
                parts = "  ".join(f"{part} {number:#x}" for part, number in value.items())
                click.echo(f"{name:<16} {parts}")
        elif value or zeros:
            click.echo(f"{name:<16} {value:#x}")
