"""The owner's side of ``snp verify``: requirements."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE, STDIN, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.errors import RequirementsNotMet, Unsupported

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Requirements
    from sev_attest.snp.verify import VerifiedReport

_CHECK = "requirements.snp"


class SnpDemandOptions(Options, title="Requirements"):
    """What the owner demands of a report."""

    requirements: str | None = option(
        "--requirements",
        type=FILE,
        metavar="FILE",
        help="Hold the report to [snp] of this owner.toml too.",
    )

    def errors(self, *inputs: str) -> Iterator[Unsupported]:
        """Yield an error if the requirements and another input would be standard input."""
        if self.requirements == STDIN and STDIN in inputs:
            yield from stdin_errors(self.requirements, STDIN)

    def read(self) -> "Requirements | None":
        """Read --requirements; None without it."""
        if self.requirements is None:
            return None
        from sev_attest.cli.commands.requirements import read_requirements

        return read_requirements(self.requirements)

    @staticmethod
    def hold(
        requirements: "Requirements",
        verified: "VerifiedReport",
        facts: dict[str, object],
        notes: list[str],
        output: OutputOptions,
    ) -> str:
        """Hold a verified report to the requirements, add to its ``facts``, and return the verdict.

        Raises RequirementsNotMet, with the facts and notes.
        """
        checks = cast("list[object]", facts["checks"])
        try:
            met = requirements.require_snp(verified, at=datetime.now(UTC))
        except RequirementsNotMet as error:
            failed = [
                {"id": one.check, "ok": False, "detail": one.message} for one in error.failures
            ]
            error.facts = facts | {
                "checks": [*checks, *failed],
                "failed": [one.check for one in error.failures],
                "notes": notes,
            }
            if output.text:
                click.echo(f"NOT ALLOWED: {render.one_line(error.failures[0].message)}")
            for note in ("the report itself verifies", *notes):
                error.add_note(note)
            raise
        name = f"{met.name} ({met.guest})" if met.guest else met.name
        words = f"the requirements allow it as launch {name}"
        facts["checks"] = [*checks, {"id": _CHECK, "ok": True, "detail": words}]
        facts["requirements"] = {"launch": met.name, "guest": met.guest}
        return words
