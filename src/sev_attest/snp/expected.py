"""What an owner expects of a report, beside that AMD's key signed it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sev_attest.errors import Failure, ReportInvalid, Unsupported
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import HOST_VMPL
from sev_attest.snp.verify import VerifiedReport

if TYPE_CHECKING:
    from sev_attest.snp.hcl import RuntimeData

_REPORT_DATA, _DIGEST = 64, 48

CHECKS = {
    "snp.report-data": "report_data is the one that was expected",
    "snp.launch-digest": "the launch digest is the one that was expected",
    "snp.hcl.bound": "the runtime data that came with the report is bound to it",
}
"""Every check id of an expectation, and what it guarantees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Values that a report must have; None for one that does not matter.

    ``report_data`` is 64 bytes, what the guest was asked to put there: it shows that the report is
    fresh. ``launch_digest`` is 48 bytes, of the guest that was meant to start. ``runtime_data`` is
    what came with the report (``Evidence.runtime_data``): only if the report binds it is it the
    guest's, and with it the keys of the vTPM that it names.
    """

    report_data: bytes | None = None
    launch_digest: bytes | None = None
    runtime_data: "RuntimeData | None" = None

    def __post_init__(self) -> None:
        """Raise Unsupported for a value of another size: no report could have it."""
        for name, value, size in (
            ("report_data", self.report_data, _REPORT_DATA),
            ("launch_digest", self.launch_digest, _DIGEST),
        ):
            if value is not None and len(value) != size:
                raise Unsupported(
                    f"{name} has {size} bytes, not {len(value)}", check="snp.expected"
                )

    @property
    def checks(self) -> dict[str, str]:
        """The checks that this makes, and what each guarantees."""
        values = (self.report_data, self.launch_digest, self.runtime_data)
        return {
            check: words
            for (check, words), value in zip(CHECKS.items(), values, strict=True)
            if value is not None
        }

    def failures(self, report: AttestationReport) -> Iterator[Failure]:
        """Yield what is not as expected. Says nothing about who made the report."""
        if self.report_data is not None:
            yield from _report_data(self.report_data, report)
        if self.launch_digest is not None and report.measurement != self.launch_digest:
            words = f"the launch digest is {report.measurement.hex()}"
            yield Failure(
                "snp.launch-digest",
                f"{words}, expected {self.launch_digest.hex()}",
                "another guest was started, or the expected digest was computed of other inputs",
            )

        if self.runtime_data is not None and not self.runtime_data.bound_to(report):
            words = "the runtime data is not bound to the report: report_data is not its hash"
            hint = "it was changed, or is another report's: trust none of the keys in it"
            yield Failure("snp.hcl.bound", words, hint)

    def require(self, verified: VerifiedReport) -> None:
        """Raise ReportInvalid if a report is not as expected, with every failure."""
        found = tuple(self.failures(verified.report))
        if found:
            raise ReportInvalid(found, verified.held | self._held(found))

    def added_to(self, error: ReportInvalid, report: AttestationReport) -> ReportInvalid:
        """Return an error with its failures, and then those of what is not as expected."""
        found = tuple(self.failures(report))
        return ReportInvalid((*error.failures, *found), error.held | self._held(found))

    def _held(self, found: tuple[Failure, ...]) -> frozenset[str]:
        return frozenset(self.checks.keys() - {failure.check for failure in found})


def _report_data(expected: bytes, report: AttestationReport) -> Iterator[Failure]:
    check = "snp.report-data"
    if report.vmpl == HOST_VMPL:
        words = f"the host asked for this report (VMPL {HOST_VMPL:#x}): it chose report_data"
        yield Failure(check, words, "a report that the guest asked for is needed")
    elif report.report_data != expected:
        words = f"report_data is {report.report_data.hex()}, expected {expected.hex()}"
        yield Failure(check, words, "it is another request's report, or an old one")
