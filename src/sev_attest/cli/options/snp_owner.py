"""The owner's side of ``snp verify``: requirements."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.environment import REQUIREMENTS
from sev_attest.cli.inputs import FILE
from sev_attest.cli.options.common import OutputOptions
from sev_attest.errors import RequirementsNotMet

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.snp.verify import VerifiedReport

_CHECK = "requirements.snp"


class SnpDemandOptions(Options, title="Requirements"):
    """What the owner demands of a report."""

    requirements: str | None = option(
        "--requirements",
        type=FILE,
        metavar="FILE",
        envvar=REQUIREMENTS,
        help="Also check the report against [snp] of this owner.toml.",
    )

    @property
    def files(self) -> tuple[str | None, ...]:
        """The files that are read, None for each that is not."""
        return (self.requirements,)

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
        try:
            met = requirements.require_snp(verified, at=datetime.now(UTC))
        except RequirementsNotMet as error:
            show_unmet(error, facts, notes, output)
            raise
        return allowed_as(met, facts)


def show_unmet(
    error: RequirementsNotMet, facts: dict[str, object], notes: list[str], output: OutputOptions
) -> None:
    """Print that a verified report is not allowed, and add its ``facts`` and notes to the error."""
    failed = [{"id": one.check, "ok": False, "detail": one.message} for one in error.failures]
    error.facts = facts | {
        "checks": [*cast("list[object]", facts["checks"]), *failed],
        "failed": [one.check for one in error.failures],
        "notes": notes,
    }
    if output.text:
        terminal.say(f"NOT ALLOWED: {render.one_line(error.failures[0].message)}")
    for note in ("the report itself verifies", *notes):
        error.add_note(note)


def allowed_as(met: "Met", facts: dict[str, object]) -> str:
    """Return the verdict on a report that is allowed, and add it to its ``facts``."""
    name = f"{met.name} ({met.guest})" if met.guest else met.name
    words = f"the requirements allow it as launch {name}"
    facts["checks"] = [
        *cast("list[object]", facts["checks"]),
        {"id": _CHECK, "ok": True, "detail": words},
    ]
    facts["requirements"] = {"launch": met.name, "guest": met.guest}
    return words
