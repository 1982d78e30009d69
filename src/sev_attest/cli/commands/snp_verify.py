"""``sev-attest snp verify``."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

import click

from sev_attest.cli import render, snp_fields
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import FILE
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.snp import HexBytes, SnpCertificateOptions
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.usage import refuse
from sev_attest.errors import ReportInvalid
from sev_attest.snp.certificate_files import X509Value
from sev_attest.snp.expected import Expected
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.roots import Root
from sev_attest.snp.spec import HOST_VMPL, NO_MIGRATION_AGENT
from sev_attest.snp.verify import CHECKS, REVOCATION, VerifiedReport, verify_report

_FRESHNESS = "nothing shows that this report is fresh: report_data was not compared (--report-data)"
_GUEST = "nothing shows which guest it is: the launch digest was not compared (--launch-digest)"
_AGENT = "the guest has a migration agent (report_id_ma), which can move it to another platform"
_HOST = "the host asked for this report, not the guest: report_data is the host's"


class ExpectedOptions(Options, title="Expected"):
    """What the report must say."""

    report_data: bytes | None = option(
        "--report-data",
        type=HexBytes(64),
        metavar="HEX",
        help="The 64 bytes that the guest was asked to put into the report.",
    )
    launch_digest: bytes | None = option(
        "--launch-digest",
        type=HexBytes(48),
        metavar="HEX",
        help="The 48 bytes that the guest you meant is measured as.",
    )

    @property
    def expected(self) -> Expected:
        """The values, for the library."""
        return Expected(report_data=self.report_data, launch_digest=self.launch_digest)

    def notes(self, report: AttestationReport) -> list[str]:
        """Return what a verdict leaves open, and what it permits the host."""
        found = []
        if self.report_data is None:
            found.append(_FRESHNESS)
        if self.launch_digest is None:
            found.append(_GUEST)
        warnings = {
            _HOST: report.vmpl == HOST_VMPL,
            snp_fields.DEBUG: report.policy.debug,
            snp_fields.MIGRATION: report.policy.migration_agent,
            _AGENT: report.report_id_ma != NO_MIGRATION_AGENT,
        }
        return [*found, *(words for words, said in warnings.items() if said)]


@click.command("verify", cls=Command)
@click.argument("report", type=FILE)
@click.argument("certificates", nargs=-1, type=FILE, metavar="[CERT]...")
@SnpCertificateOptions.given("options")
@ExpectedOptions.given("owner")
@OutputOptions.given("output")
def command(
    *,
    report: str,
    certificates: tuple[str, ...],
    options: SnpCertificateOptions,
    owner: ExpectedOptions,
    output: OutputOptions,
) -> None:
    """Verify an SEV-SNP report up to AMD's pinned root.

    REPORT is a file (1184 bytes, binary, hex or base64; with a certificate table; Azure's HCL blob;
    - is stdin) or a folder, as snpguest and configfs-tsm leave it. CERT is the VCEK or VLEK unless
    it came with the report; ASK, ASVK and ARK may be left out: AMD's are built in. DER or PEM,
    files or folders, in any number and order.

    `snp certs` shows where AMD serves the VCEK.
    """
    refuse(options.errors(report, certificates))
    evidence = evidence_of(report, content_at(report))
    found, roots = options.read(evidence.certificates, certificates)
    expected = replace(owner.expected, runtime_data=evidence.runtime_data)
    checks = {**CHECKS, **expected.checks}
    try:
        verified = _verified(evidence.report, expected, found, roots, options.at)
    except ReportInvalid as error:
        failed = {failure.check: failure.message for failure in error.failures}
        error.facts = _facts(evidence.report, checks, error.held, failed)
        if output.text:
            click.echo(f"NOT VERIFIED: {render.one_line(error.failures[0].message)}")
        if output.text and output.verbose:
            render.steps(checks, error.held, failed.keys())
        raise
    notes = [*verified.notes, *owner.notes(verified.report), *evidence.notes]
    held = verified.held | expected.checks.keys()
    if output.as_json:
        facts = _facts(evidence.report, checks, held, {}) | _verified_facts(verified)
        render.document("snp-verify", ok=True, **facts, notes=notes)
    elif output.text:
        _show(verified, checks, held, notes, verbose=output.verbose)


def _verified(
    report: AttestationReport,
    expected: Expected,
    found: list[X509Value],
    roots: list[Root],
    at: datetime | None,
) -> VerifiedReport:
    """Verify a report, and hold it to what is expected; raise every failure of both."""
    try:
        verified = verify_report(report, found, roots=roots, at=at)
    except ReportInvalid as error:
        raise expected.added_to(error, report) from None
    expected.require(verified)
    return verified


def _facts(
    report: AttestationReport,
    checks: Mapping[str, str],
    held: AbstractSet[str],
    failed: Mapping[str, str],
) -> dict[str, object]:
    """Return the fields that both documents have; product and root are known if it verifies."""
    made = [check for check in checks if check in held or check in failed or check != REVOCATION]
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
        "certificates": [],
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


def _show(
    verified: VerifiedReport,
    checks: Mapping[str, str],
    held: AbstractSet[str],
    notes: list[str],
    *,
    verbose: bool,
) -> None:
    whose = "not AMD's" if verified.root.product is None else "AMD's"
    vmpl = "asked for by the host" if verified.report.vmpl == HOST_VMPL else verified.report.vmpl
    key = verified.vek.kind.name
    click.echo(f"OK: the report is {whose}: {verified.product.value}, {key}, VMPL {vmpl}")
    if verbose:
        render.steps(checks, held)
        for one in verified.chain.certificates:
            name = render.one_line(one.subject.common_name)
            click.echo(
                f"{one.kind.name:<5}{one.fingerprint} {name}, until {one.not_after:%Y-%m-%d}"
            )
    render.notes(notes)
