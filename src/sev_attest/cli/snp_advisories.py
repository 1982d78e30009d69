"""``sev-attest advisories`` for SEV-SNP."""

from collections.abc import Iterator

import click

from sev_attest.cli import render, snp_fields
from sev_attest.cli.commands.advisories import document_of, documents, grouped, listed
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported
from sev_attest.owner.snp_advisories import as_of, evaluate, load, standing
from sev_attest.snp.report import AttestationReport


def show(product: str | None, place: str | None, output: OutputOptions) -> None:
    """Print the weaknesses of SEV-SNP, and which of them affect the guest of a report.

    Raises MalformedInput for a report that cannot be read; Unsupported for one of another product.
    """
    report = None if place is None else evidence_of(place, content_at(place)).report
    if report is not None:
        refuse(_product_errors(product, report))
        product = product or (report.product and report.product.value.lower())
    known = product is not None or report is not None
    exposures = evaluate(product, report)
    words = [] if report is None or product is None else standing(product, report)
    if output.as_json:
        facts = {
            "product": product,
            "report": report and snp_fields.facts(report),
            "standing": words,
        }
        entries = documents(exposures) if known else [document_of(each) for each in load()]
        day = as_of().isoformat()
        render.any_document("advisories", ok=True, as_of=day, facts=facts, advisories=entries)
        return
    click.echo(f"known weaknesses of SEV-SNP as of {as_of()}")
    verbose = output.verbose
    for line in grouped(exposures, verbose=verbose) if known else listed(load(), verbose=verbose):
        click.echo(line)
    render.notes(words if output.text else ())


def _product_errors(product: str | None, report: AttestationReport) -> Iterator[Unsupported]:
    """Yield an error if the report says that it is of another product."""
    if report.cpuid_family is None or product is None:
        return
    found = report.product.value if report.product else "an unknown product"
    if found.lower() != product:
        yield usage(f"--product {product}: the report is of {found}")
