"""``sev-attest snp show``."""

from collections.abc import Iterable
from typing import NamedTuple

import click

from sev_attest.cli import render, snp_certificate_fields, snp_fields
from sev_attest.cli.bundle import Command
from sev_attest.cli.inputs import FILE, STDIN, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.snp_evidence import (
    certificates_of,
    content_at,
    evidence_of,
    holds_certificates,
)
from sev_attest.cli.usage import refuse
from sev_attest.errors import MalformedInput, reading
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.packaging import CertificateBytes, Evidence

_CAUTION = "nothing was verified: `sev-attest snp verify` does that"


class Block(NamedTuple):
    """A report, certificate or list: where it was, what it is, and its lines for people."""

    source: str
    title: str
    lines: list[str]


class Shown(NamedTuple):
    """One input: its part of the JSON document, and its blocks for people."""

    facts: dict[str, object]
    blocks: list[Block]
    notes: tuple[str, ...]


@click.command(
    "show",
    cls=Command,
    examples=(
        "sev-attest snp show vm1.report",
        "sev-attest snp show vcek.der cert_chain.pem --json",
    ),
)
@click.argument("inputs", nargs=-1, type=FILE, required=True, metavar="REPORT|CERT...")
@OutputOptions.given("output")
def command(*, inputs: tuple[str, ...], output: OutputOptions) -> None:
    """Show every field of reports and certificates, with the meaning of each. Verifies nothing.

    REPORT is a file: 1184 bytes, binary, hex or base64, alone or behind the header of the
    kernel's response, with a certificate table or in Azure's HCL blob (- is stdin); or a folder,
    as snpguest and configfs-tsm leave it. CERT holds VCEK, VLEK, ASK, ASVK, ARK or revocation
    lists: DER or PEM, one or several, a certificate table, or a folder of these.
    """
    refuse(stdin_errors(*inputs))
    found = [(path, _shown(path)) for path in inputs]
    if output.as_json:
        shown = [{"source": path, **one.facts, "notes": list(one.notes)} for path, one in found]
        render.any_document("snp-show", ok=True, inputs=shown, notes=[_CAUTION])
        return
    for _, one in found:
        for block in one.blocks:
            click.echo(render.one_line(f"{block.source}: {block.title} (not verified)"))
            for line in block.lines:
                click.echo(f"  {render.one_line(line)}")
        if output.text:
            render.notes(one.notes)
    if output.text:
        render.notes([_CAUTION])


def _shown(path: str) -> Shown:
    content = content_at(path)
    source = "standard input" if path == STDIN else path
    if holds_certificates(content):
        return _certificates(certificates_of(source, content))
    return _report(source, evidence_of(path, content))


def _certificates(files: Iterable[CertificateBytes]) -> Shown:
    read = [_read(one, one.source) for one in files]
    return Shown(
        facts={"kind": "certificates", "certificates": [facts for facts, _ in read]},
        blocks=[block for _, blocks in read for block in blocks],
        notes=(),
    )


def _read(one: CertificateBytes, source: str) -> tuple[dict[str, object], list[Block]]:
    """Return what a file holds, and its blocks; raises MalformedInput."""
    with reading(source):
        values = read_certificates(one.content)
    found = [snp_certificate_fields.facts(value) for value in values]
    blocks = [
        Block(source, snp_certificate_fields.title(value), [*snp_certificate_fields.lines(value)])
        for value in values
    ]
    return {"source": one.source, "size": len(one.content), "found": found}, blocks


def _report(source: str, evidence: Evidence) -> Shown:
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
    brought, blocks, notes = _brought(source, evidence.certificates)
    lines += [f"beside it: {one.source}, {len(one.content)} bytes" for one in evidence.certificates]
    title = f"an SEV-SNP report, version {report.version}"
    return Shown(
        facts={
            "kind": "report",
            "report": snp_fields.facts(report),
            "meaning": snp_fields.meanings(report),
            "runtime_data": azure,
            "certificates": brought,
        },
        blocks=[Block(source, title, lines), *blocks],
        notes=(*evidence.notes, *notes),
    )


def _brought(
    source: str, certificates: Iterable[CertificateBytes]
) -> tuple[list[dict[str, object]], list[Block], list[str]]:
    """Return what came with a report: facts, blocks, and notes on what cannot be read."""
    facts, blocks, notes = [], [], []
    for one in certificates:
        try:
            found, more = _read(one, f"{source}, {one.source}")
        except MalformedInput as error:
            found, more = {"source": one.source, "size": len(one.content), "found": []}, []
            notes.append(f"cannot be read: {error}")
        facts.append(found)
        blocks += more
    return facts, blocks, notes
