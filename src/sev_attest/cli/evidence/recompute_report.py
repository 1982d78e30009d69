"""Recompute an SEV-SNP report in evidence: from its bytes, up to a trusted root."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sev_attest.cli.evidence.claims import AtHand, Claim, checks_again, same
from sev_attest.cli.evidence.document import STRUCTURE, ReportPart
from sev_attest.cli.evidence.reader import decoded, moment, unhexed
from sev_attest.cli.evidence.values import certificate_part
from sev_attest.errors import MalformedInput, ReportInvalid

if TYPE_CHECKING:
    from sev_attest.snp.certificate_files import X509Value
    from sev_attest.snp.expected import Expected
    from sev_attest.snp.report import AttestationReport
    from sev_attest.snp.verify import VerifiedReport

_HASHES = ("sha256", "sha384", "sha512")
_MOST_CERTIFICATES, _MOST_LISTS = 1000, 100
"""Each may cost a signature's check; an honest report has three certificates and one list."""


def recompute_report(
    part: ReportPart, claimed: Mapping[str, bool | None], at_hand: AtHand
) -> "tuple[list[Claim], VerifiedReport | None]":
    """Return every check of a report, made again at the time that the file states; and the report.

    ``claimed`` are the checks of the file. The report is None unless it verified, and says what it
    had to say. Raises MalformedInput for bytes of another kind.
    """
    from sev_attest.snp.verify import CHECKS, verify_report

    report, given, expected = _received(part)
    when = moment(part["at"], "report.at")
    verified, failed = None, {}
    try:
        verified = verify_report(report, given, roots=at_hand.snp_roots, at=when)
    except ReportInvalid as error:
        whole = expected.added_to(error, report)
        held, failed = whole.held, {one.check: one.message for one in whole.failures}
    except MalformedInput as error:  # no certificate that could have signed it
        why = str(error)
        return [Claim(check="snp.report.signature", claimed=None, found=None, why=why)], None
    else:
        unmet = {one.check: one.message for one in expected.failures(report)}
        held = (verified.held | expected.checks.keys()) - unmet.keys()
        failed = unmet
    claims = [*checks_again({**CHECKS, **expected.checks}, held, failed, claimed)]
    if verified is not None:
        root, product = verified.root.name, verified.product.value
        judged = f"judged at {part['at']}, the time that the file states"
        alike = part["root"] in (None, root) and part["product"] in (None, product)
        other = part["root"] if part["root"] not in (None, root) else f"one of {part['product']}"
        claims.append(
            same(
                "snp.root",
                alike,
                f"it leads to {root}, {judged}",
                f"it leads to {root}, not to {other}, {judged}",
            )
        )
    return claims, None if failed else verified


def _received(part: ReportPart) -> "tuple[AttestationReport, list[X509Value], Expected]":
    """Return the report, the certificates and lists with it, and what it had to say."""
    from sev_attest.snp.certificate_files import read_certificates
    from sev_attest.snp.certificates import Certificate
    from sev_attest.snp.expected import Expected
    from sev_attest.snp.hcl import RuntimeData
    from sev_attest.snp.report import AttestationReport

    values: dict[str, Any] = {}
    runtime = part["runtime_data"]
    if runtime is not None:
        if runtime["hash_name"] not in _HASHES:
            raise MalformedInput(STRUCTURE, "report.runtime_data", "is bound by an unknown hash")
        content = decoded(runtime["content"], "report.runtime_data")
        values["runtime_data"] = RuntimeData(content=content, hash_name=runtime["hash_name"])
    for name, text in (
        ("report_data", part["report_data"]),
        ("launch_digest", part["launch_digest"]),
    ):
        if text is not None:
            values[name] = unhexed(text, f"report.{name}")
    if (
        len(part["certificates"]) > _MOST_CERTIFICATES
        or len(part["revocation_lists"]) > _MOST_LISTS
    ):
        raise MalformedInput(STRUCTURE, "report", "has too many certificates or lists")
    given: list[X509Value] = []
    report = AttestationReport.from_bytes(decoded(part["report"], "report"))
    for one in part["certificates"]:
        found = read_certificates(decoded(one["bytes"], "report.certificates"))
        parts = [certificate_part(each) for each in found if isinstance(each, Certificate)]
        if [each["fingerprint"] for each in parts] != [one["fingerprint"]]:
            raise MalformedInput(STRUCTURE, "fingerprint", "is not that of the certificate")
        if parts != [one]:
            raise MalformedInput(STRUCTURE, "certificates", "one is not as it is described")
        given += found
    for text in part["revocation_lists"]:
        given += read_certificates(decoded(text, "report.revocation_lists"))
    return report, given, Expected(**values)
