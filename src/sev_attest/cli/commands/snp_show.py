"""``sev-attest snp show``."""

from typing import NamedTuple

import click

from sev_attest.cli import render, snp_fields
from sev_attest.cli.bundle import Command
from sev_attest.cli.inputs import FILE, STDIN, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.usage import refuse
from sev_attest.snp.packaging import Evidence

_CAUTION = "nothing was verified: `sev-attest snp verify` does that"


class Shown(NamedTuple):
    """One input: its part of the JSON document, and its lines for people."""

    facts: dict[str, object]
    title: str
    lines: list[str]
    notes: tuple[str, ...]


@click.command("show", cls=Command)
@click.argument("inputs", nargs=-1, type=FILE, required=True, metavar="REPORT...")
@OutputOptions.given("output")
def command(*, inputs: tuple[str, ...], output: OutputOptions) -> None:
    """Show every field of a REPORT, with the meaning of every bit. Verifies nothing.

    REPORT is a file: 1184 bytes, binary, hex or base64, alone or behind the header of the
    kernel's response, with a certificate table or in Azure's HCL blob (- is stdin); or a folder,
    as snpguest and configfs-tsm leave it.
    """
    refuse(stdin_errors(*inputs))
    found = [(path, _shown(path)) for path in inputs]
    if output.as_json:
        shown = [{"source": path, **one.facts, "notes": list(one.notes)} for path, one in found]
        render.document("snp-show", ok=True, inputs=shown, notes=[_CAUTION])
        return
    for path, one in found:
        name = "standard input" if path == STDIN else render.one_line(path)
        click.echo(f"{name}: {one.title}")
        for line in one.lines:
            click.echo(f"  {render.one_line(line)}")
        if output.text:
            render.notes(one.notes)
    if output.text:
        render.notes([_CAUTION])


def _shown(path: str) -> Shown:
    content = content_at(path)
    return _report(evidence_of(path, content))


def _report(evidence: Evidence) -> Shown:
    report, runtime = evidence.report, evidence.runtime_data
    lines = [*snp_fields.lines(report)]
    azure: dict[str, object] | None = None
    if runtime is not None:
        azure = {
            "text": runtime.content.decode("utf-8", "replace"),
            "hash": runtime.hash_name,
            "bound": runtime.bound_to(report),
        }
        bound = "report_data is its hash" if azure["bound"] else "NOT bound to the report"
        lines.append(f"{'runtime data':<20} {azure['text']}  ({runtime.hash_name}: {bound})")
    brought = evidence.certificates
    lines += [f"beside it: {one.source}, {len(one.content)} bytes" for one in brought]
    return Shown(
        facts={
            "kind": "report",
            "report": snp_fields.facts(report),
            "meaning": snp_fields.meanings(report),
            "runtime_data": azure,
            "certificates": [{"source": c.source, "size": len(c.content)} for c in brought],
        },
        title=f"an SEV-SNP report, version {report.version} (not verified)",
        lines=lines,
        notes=evidence.notes,
    )
