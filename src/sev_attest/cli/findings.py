"""What is printed of findings in a domain's XML: for ``domain`` and ``launch``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.inputs import STDIN
from sev_attest.domain_xml.rule import Finding, Severity
from sev_attest.errors import NotAttestable

if TYPE_CHECKING:
    from sev_attest.cli.documents.parts import Finding as Document

_NAMED = 4
"""The number of rules that an error message names."""


def errors_of(findings: Sequence[Finding]) -> list[Finding]:
    """Return the errors among findings."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def refusal(
    xml: str, errors: Sequence[Finding], facts: dict[str, object], hint: str
) -> NotAttestable:
    """Return the error that names the rules that prevent attestation.

    ``xml`` names the file or the domain, ``facts`` are for the JSON document.
    """
    every = [*dict.fromkeys(f"{finding.id} (line {finding.line})" for finding in errors)]
    named = every[:_NAMED]
    more = [f"{len(every) - _NAMED} more"] if every[_NAMED:] else []
    error = NotAttestable(
        f"this domain cannot be attested: {', '.join([*named, *more])}",
        check=errors[0].id,
        hint=hint,
    )
    error.source = "standard input" if xml == STDIN else xml
    error.facts = facts
    return error


def document(finding: Finding) -> "Document":
    """Return the fields of a finding in a JSON document."""
    return {
        "id": finding.id,
        "severity": finding.severity.value,
        "line": finding.line,
        "path": finding.path,
        "message": finding.message,
        "fix": finding.fix,
        "source": finding.source,
        "mendable": finding.mendable,
    }


def listed(findings: Sequence[Finding], head: str = "", *, err: bool = False) -> None:
    """Print findings; without ``head``, each with its fix."""
    for one in findings:
        line = f"{head}{one.severity} {one.id}, line {one.line}, {one.path}: {one.message}"
        click.echo(render.one_line(line), err=err)
        if not head:
            click.echo(f"    fix: {render.one_line(one.fix)}", err=err)
