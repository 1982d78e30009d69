"""Every single bit of real reports and of a real VCEK: flipped, none verifies."""

import json
from pathlib import Path

import pytest

from sev_attest.errors import SevAttestError
from sev_attest.snp.certificates import Certificate
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.verify import verify_report
from test_snp_verify import flipped

NAMES = ("milan-v2-virtee", "genoa-v3-veraison", "turin-v5-oak")


def real_case(real: Path, name: str) -> tuple[bytes, bytes]:
    folder = real / "snp"
    case = json.loads((folder / "expected.json").read_bytes())["reports"][name]
    return (folder / case["report"]).read_bytes(), (folder / case["vek"]).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_no_bit_of_a_real_report_can_be_flipped(real: Path, name: str) -> None:
    report, vek = real_case(real, name)
    certificate = Certificate(raw=vek)
    at = certificate.not_before
    verify_report(AttestationReport.from_bytes(report), [certificate], at=at)
    for bit in range(8 * len(report)):
        with pytest.raises(SevAttestError):
            verify_report(AttestationReport.from_bytes(flipped(report, bit)), [certificate], at=at)


def test_no_bit_of_a_real_vcek_can_be_flipped(real: Path) -> None:
    data, vek = real_case(real, NAMES[0])
    report, at = AttestationReport.from_bytes(data), Certificate(raw=vek).not_before
    for bit in range(8 * len(vek)):
        with pytest.raises(SevAttestError):
            verify_report(report, [Certificate(raw=flipped(vek, bit))], at=at)
