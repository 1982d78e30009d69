"""``sev-attest snp verify``."""

import click

from sev_attest.cli.bundle import Command
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.inputs import FILE
from sev_attest.cli.options.evidence import EvidenceFileOptions
from sev_attest.cli.options.firmware_search import FirmwareSearchOptions
from sev_attest.cli.options.snp import SnpCertificateOptions
from sev_attest.cli.options.snp_expected import (
    GUEST,
    ExpectedOptions,
    guest_errors,
    open_notes,
)
from sev_attest.cli.options.snp_guest import SnpGuestOptions, measure_snp_guest
from sev_attest.cli.options.snp_owner import SnpDemandOptions
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.snp_verdict import SnpCase, SnpVerdictOptions
from sev_attest.cli.usage import refuse
from sev_attest.errors import ReportInvalid
from sev_attest.snp.expected import Expected


@click.command(
    "verify",
    cls=Command,
    examples=(
        (
            'sev-attest snp verify vm1.report vcek.der --report-data "$(cat nonce.hex)" '
            '--launch-digest "$(cat digest.hex)"'
        ),
        (
            "sev-attest snp verify vm1.report certs --firmware OVMF.fd --num-cpus 4 "
            "--cpu-model-name EPYC-Milan"
        ),
    ),
)
@click.argument("report", type=FILE)
@click.argument("certificates", nargs=-1, type=FILE, metavar="[CERT]...")
@SnpCertificateOptions.given("options")
@ExpectedOptions.given("owner")
@SnpGuestOptions.given("guest")
@FirmwareSearchOptions.given("search")
@SnpDemandOptions.given("demands")
@EvidenceFileOptions.given("evidence")
@SnpVerdictOptions.given("output")
def command(
    *,
    report: str,
    certificates: tuple[str, ...],
    options: SnpCertificateOptions,
    owner: ExpectedOptions,
    guest: SnpGuestOptions,
    search: FirmwareSearchOptions,
    demands: SnpDemandOptions,
    evidence: EvidenceFileOptions,
    output: SnpVerdictOptions,
) -> None:
    """Verify an SEV-SNP report up to AMD's pinned root.

    REPORT is a file (1184 bytes, binary, hex or base64; with a certificate table; Azure's HCL blob;
    - is stdin) or a folder, as snpguest and configfs-tsm leave it. CERT is the VCEK or VLEK unless
    it came with the report; ASK, ASVK and ARK may be left out: AMD's are built in. DER or PEM,
    files or folders, in any number and order.

    The guest that you meant may be described, as for `snp measure`: the report's launch digest must
    be its own. If it differs, the likely cause is shown. `snp certs` shows where AMD serves the
    VCEK.
    """
    refuse(
        options.errors(report, certificates, (*guest.files, *owner.files, *demands.files)),
        owner.errors(),
        guest_errors(guest, owner, search, explain=output.explain),
        evidence.errors(),
    )
    with evidence.kept("snp-verify", force=evidence.force) as kept:
        _verify(report, certificates, options, owner, guest, search=search, demands=demands,
                output=output, kept=kept)  # fmt: skip


def _verify(
    report: str,
    certificates: tuple[str, ...],
    options: SnpCertificateOptions,
    owner: ExpectedOptions,
    guest: SnpGuestOptions,
    *,
    search: FirmwareSearchOptions,
    demands: SnpDemandOptions,
    output: SnpVerdictOptions,
    kept: Kept,
) -> None:
    """Verify a report, then what its owner requires, and print the verdict."""
    demanded = kept.requirements = demands.read()
    received = evidence_of(report, content_at(report))
    found, roots = options.read(received.certificates, certificates)
    kept.certificates, kept.at = found, options.at
    measured = measure_snp_guest(guest, progress=output.text) if guest.described else None
    report_data, answered = owner.bound_data()
    expected = Expected(
        report_data=report_data,
        launch_digest=measured.digest if measured else owner.launch_digest,
        runtime_data=received.runtime_data,
    )
    case = kept.case = SnpCase(received, expected, measured, output, output.explain)
    kept.measured = measured
    try:
        verified = kept.verified = case.verify(found, roots, options.at)
    except ReportInvalid as error:
        case.refused(error, guest, search)
        raise
    facts, said = case.facts(verified), []
    left = [*open_notes(received.report, expected), *answered]
    notes = [*verified.notes, *left, *case.notes]
    if demanded is not None:
        notes = [note for note in notes if note != GUEST]
        said = [demands.hold(demanded, verified, facts, notes, output)]
    kept.accepted(facts, notes)
    case.accepted(verified, facts, notes, *said)
