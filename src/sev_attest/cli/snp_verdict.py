"""The verdict on a report of SEV-SNP: its verification, and the output of ``snp verify``."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from sev_attest.cli import render, snp_fields, terminal
from sev_attest.cli.bundle import option
from sev_attest.cli.options.common import OutputOptions
from sev_attest.errors import ReportInvalid
from sev_attest.snp.expected import Expected
from sev_attest.snp.packaging import Evidence
from sev_attest.snp.spec import HOST_VMPL
from sev_attest.snp.verify import CHECKS, REVOCATION, VerifiedReport, verify_report

if TYPE_CHECKING:
    from sev_attest.cli.options.firmware_search import FirmwareSearchOptions
    from sev_attest.cli.options.snp_guest import SnpGuestOptions, SnpMeasured
    from sev_attest.snp.certificate_files import X509Value
    from sev_attest.snp.roots import Root

_DIGEST = "snp.launch-digest"
_NOT_SEARCHED = (
    "why the launch digest differs was not looked for: it says nothing until the report verifies"
)


class SnpVerdictOptions(OutputOptions, title="Output"):
    """What the command prints of its verdict."""

    explain: bool = option(
        "--explain", is_flag=True, help="List everything measured, and the digest after it."
    )


class SnpCase(NamedTuple):
    """A report to be verified, what it must say, and the output of the verdict."""

    evidence: Evidence
    expected: Expected
    measured: "SnpMeasured | None"
    """The guest whose launch digest is expected; None if there is none, or only its digest."""
    output: OutputOptions
    explain: bool = False

    @property
    def checks(self) -> dict[str, str]:
        """Every check, and what it guarantees."""
        return {**CHECKS, **self.expected.checks}

    @property
    def notes(self) -> list[str]:
        """What was noted of the inputs."""
        return [*self.evidence.notes, *(self.measured.notes if self.measured else ())]

    def verify(
        self, found: Iterable["X509Value"], roots: list["Root"], at: datetime | None
    ) -> VerifiedReport:
        """Verify the report, and hold it to what is expected; raise every failure of both."""
        report = self.evidence.report
        try:
            verified = verify_report(report, found, roots=roots, at=at)
        except ReportInvalid as error:
            raise self.expected.added_to(error, report) from None
        self.expected.require(verified)
        return verified

    def refused(
        self,
        error: ReportInvalid,
        guest: "SnpGuestOptions | None" = None,
        search: "FirmwareSearchOptions | None" = None,
    ) -> None:
        """Print why it is refused, and add to the error what explains a digest that differs."""
        failed = {failure.check: failure.message for failure in error.failures}
        notes = self.notes
        error.facts = self._facts(error.held, failed) | {"notes": notes}
        if self.output.text:
            terminal.say(f"NOT VERIFIED: {render.one_line(error.failures[0].message)}")
        self._steps(error.held, failed.keys())
        searching = search is not None and not (search.no_diagnose or self.output.quiet)
        if guest and search and searching and self.measured and _DIGEST in failed:
            if failed.keys() & CHECKS.keys():
                notes.append(_NOT_SEARCHED)
            else:
                self._diagnose(error, self.measured, notes, guest, search)
        for note in notes:
            error.add_note(note)

    def _diagnose(
        self,
        error: ReportInvalid,
        measured: "SnpMeasured",
        notes: list[str],
        guest: "SnpGuestOptions",
        search: "FirmwareSearchOptions",
    ) -> None:
        """Add to the error what would fit; the digest's own failure gets the hint."""
        from sev_attest.cli.advice import Told, add_cause

        def find() -> Told:
            from sev_attest.cli.snp_diagnosis import diagnose

            digest, progress = self.evidence.report.measurement, self.output.text
            return diagnose(digest, measured, options=guest, search=search, progress=progress)

        (failure,) = (one for one in error.failures if one.check == _DIGEST)
        error.hint = failure.hint
        add_cause(error, notes, find)
        failure.hint, error.hint = error.hint, error.failures[0].hint

    def facts(self, verified: VerifiedReport) -> dict[str, object]:
        """Return the fields of the document on a verified report."""
        held = verified.held | self.expected.checks.keys()
        return self._facts(held, {}) | _verified_facts(verified)

    def accepted(
        self,
        verified: VerifiedReport,
        facts: Mapping[str, object],
        notes: Iterable[str],
        *said: str,
        command: str = "snp-verify",
    ) -> None:
        """Print that it is verified, and what else is ``said`` of it; ``facts`` are its fields.

        ``notes`` say what that leaves open.
        """
        if self.output.as_json:
            render.any_document(command, ok=True, **facts, notes=[*notes])
        if self.output.text:
            for line in (first_line(verified), *said):
                terminal.say(f"OK: {render.one_line(line)}")
        self._steps(verified.held | self.expected.checks.keys())
        if self.output.text and self.output.verbose:
            for one in verified.chain.certificates:
                name = render.one_line(one.subject.common_name)
                until = f"until {one.not_after:%Y-%m-%d}"
                click.echo(f"{one.kind.name:<5}{one.fingerprint} {name}, {until}")
        if self.output.text:
            render.notes(notes)

    def _steps(self, held: AbstractSet[str], failed: AbstractSet[str] = frozenset()) -> None:
        """Print every check, and everything that was measured, as far as asked for."""
        output, measured = self.output, self.measured
        if output.text and output.verbose:
            render.steps(self.checks, held, failed)
        if output.text and measured is not None and (self.explain or output.verbose):
            for line in measured.lines():
                click.echo(line)

    def _facts(self, held: AbstractSet[str], failed: Mapping[str, str]) -> dict[str, object]:
        """Return the fields that both documents have; product and root are known if it verifies."""
        checks, report = self.checks, self.evidence.report
        made = [one for one in checks if one in held or one in failed or one != REVOCATION]
        return {
            "product": None,
            "key": report.key_info.signing_key.name,
            "root": None,
            "at": None,
            "report": snp_fields.facts(report),
            "checks": [
                {**one, "detail": failed.get(check, checks[check])}
                for check, one in zip(made, render.checks(made, held, failed.keys()), strict=True)
            ],
            "failed": [*failed],
            "requirements": None,
            "certificates": [],
            "guest": self.measured and self.measured.facts,
        }


def _verified_facts(verified: VerifiedReport) -> dict[str, object]:
    return {
        "product": verified.product.value,
        "root": verified.root.name,
        "at": verified.at.isoformat(),
        "certificates": [
            {
                "kind": one.kind.name,
                "subject": one.subject.common_name,
                "fingerprint": one.fingerprint,
                "not_before": one.not_before.isoformat(),
                "not_after": one.not_after.isoformat(),
            }
            for one in verified.chain.certificates
        ],
    }


def first_line(verified: VerifiedReport) -> str:
    """Return the verdict on a verified report in one line."""
    other = verified.root.product is None
    whose = "verifies (its root is not AMD's)" if other else "is AMD's"
    vmpl = "asked for by the host" if verified.report.vmpl == HOST_VMPL else verified.report.vmpl
    key = verified.vek.kind.name
    return f"the report {whose}: {verified.product.value}, {key}, VMPL {vmpl}"
