"""What `host check` and `guest check` share: the machine they look at, and how they print it."""

from typing import TYPE_CHECKING

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FOLDER
from sev_attest.cli.options.common import OutputOptions
from sev_attest.errors import NotAttestable

if TYPE_CHECKING:
    from sev_attest.host.inspect import Finding, Machine, Report

_NAMED = 4
"""The number of checks that an error message names."""


class TreeOptions(Options, title="What is looked at"):
    """The root of the files; "/" is the running machine."""

    root: str = option(
        "--root",
        type=FOLDER,
        metavar="DIR",
        default="/",
        help="Read a copied or simulated tree instead of the running machine.",
    )

    def machine(self) -> "Machine":
        """Return the machine; the running one can also be asked what no file tells."""
        from sev_attest.host.inspect import Live, Machine, Tree
        from sev_attest.host.inspect.live import running_machine

        tree = Tree(self.root)
        return Machine(tree=tree, live=running_machine() if tree.live else Live())


def show(
    command: str,
    report: "Report",
    output: OutputOptions,
    *,
    verdict: str,
    contrary: str,
    caution: str,
    **facts: object,
) -> None:
    """Print a report.

    ``verdict`` is the first line if the machine is ready, ``contrary`` its contrary. ``caution``
    says what this does not prove.

    Raises NotAttestable if something is missing, or essential and not told.
    """
    facts |= {"findings": [_document(one) for one in report.findings], "notes": [caution]}
    if output.text:
        if report.ready:
            terminal.say(f"OK: {verdict}")
        _list(report, verbose=output.verbose)
        render.notes([caution])
    if not report.ready:
        raise _refusal(report, verdict, contrary, facts)
    if output.as_json:
        render.any_document(command, ok=True, **facts)


def _refusal(
    report: "Report", verdict: str, contrary: str, facts: dict[str, object]
) -> NotAttestable:
    """Return the error that names what is missing, or else what is not told."""
    failed = report.missing or report.untold
    names = ", ".join(one.id for one in failed[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if failed[_NAMED:] else ""
    what = contrary if report.missing else f"cannot tell whether {verdict}"
    error = NotAttestable(
        f"{what}: {names}{more}",
        check=failed[0].id,
        hint=failed[0].fix,
    )
    error.facts = facts
    return error


def _document(finding: "Finding") -> dict[str, object]:
    return {
        "id": finding.id,
        "subject": finding.subject,
        "status": finding.status.value,
        "found": finding.found,
        "fix": finding.fix,
        "essential": finding.essential,
    }


def _list(report: "Report", *, verbose: bool) -> None:
    for subject, findings in report.subjects():
        click.echo(f"{subject}:")
        for one in findings:
            found = render.one_line(one.found)
            click.echo(f"  {one.status.value:<12}{one.id:<26}{found}")
            if one.fix:
                click.echo(f"      fix: {render.one_line(one.fix)}")
            if verbose:
                click.echo(f"      looks for: {one.says}")
                click.echo(f"      reads: {one.reads}")
                click.echo(f"      source: {one.source}")
