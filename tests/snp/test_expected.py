"""``sev_attest.snp.expected`` and ``kds``: the owner's values, and AMD's addresses."""

import hashlib

import pytest

from sev_attest import snp
from sev_attest.errors import ReportInvalid, Unsupported
from sev_attest.snp.certificates import Kind
from sev_attest.snp.expected import CHECKS, Expected
from sev_attest.snp.hcl import RuntimeData
from sev_attest.snp.kds import addresses, possible_products
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.tcb import Product
from sev_attest.snp.verify import CHECKS as STEPS
from sev_attest.snp.verify import REVOCATION
from snp_material import MILAN, PLATFORMS, verify

DATA, DIGEST = bytes(range(64)), bytes(range(48))
REPORT = MILAN.report(report_data=DATA, measurement=DIGEST)
RUNTIME = RuntimeData(content=b"{}", hash_name="sha256")
BOTH = ["snp.report-data", "snp.launch-digest"]


def test_what_is_expected_holds() -> None:
    verified = verify(REPORT, MILAN.certificates())
    for expected in (Expected(), Expected(report_data=DATA), Expected(launch_digest=DIGEST)):
        expected.require(verified)
    assert Expected().checks == {}
    assert Expected(report_data=DATA, launch_digest=DIGEST, runtime_data=RUNTIME).checks == CHECKS
    assert Expected(launch_digest=DIGEST).checks.keys() == {"snp.launch-digest"}


@pytest.mark.parametrize(
    ("expected", "failed"),
    [
        (Expected(report_data=bytes(64), launch_digest=DIGEST), ["snp.report-data"]),
        (Expected(report_data=DATA, launch_digest=bytes(48)), ["snp.launch-digest"]),
        (Expected(report_data=bytes(64), launch_digest=bytes(48)), BOTH),
    ],
)
def test_what_differs_is_reported(expected: Expected, failed: list[str]) -> None:
    verified = verify(REPORT, MILAN.certificates())
    with pytest.raises(ReportInvalid) as caught:
        expected.require(verified)
    assert [failure.check for failure in caught.value.failures] == failed
    assert caught.value.held == (STEPS.keys() - {REVOCATION}) | (set(BOTH) - set(failed))
    assert DATA.hex() in str(caught.value) or DIGEST.hex() in str(caught.value)


def test_runtime_data_must_be_bound_to_the_report() -> None:
    digest = hashlib.sha256(RUNTIME.content).digest()
    bound = MILAN.report(report_data=digest.ljust(64, b"\0"))
    expected = Expected(runtime_data=RUNTIME)
    expected.require(verify(bound, MILAN.certificates()))
    with pytest.raises(ReportInvalid, match="is not bound to the report") as caught:
        expected.require(verify(REPORT, MILAN.certificates()))
    assert caught.value.check == "snp.hcl.bound"


def test_report_data_of_a_report_that_the_host_asked_for_shows_nothing() -> None:
    report = MILAN.report(report_data=DATA, vmpl=0xFFFF_FFFF)
    verified = verify(report, MILAN.certificates())
    Expected(launch_digest=bytes(48)).require(verified)
    with pytest.raises(ReportInvalid, match=r"the host asked for .*0xffffffff") as caught:
        Expected(report_data=DATA).require(verified)
    assert [failure.check for failure in caught.value.failures] == ["snp.report-data"]


def test_nothing_hides_behind_an_invalid_report() -> None:
    forged = MILAN.report(report_data=DATA, signature_algo=2)
    with pytest.raises(ReportInvalid) as caught:
        verify(forged, MILAN.certificates())
    expected = Expected(report_data=bytes(64), launch_digest=bytes(48))
    both = expected.added_to(caught.value, AttestationReport.from_bytes(forged))
    found = [failure.check for failure in both.failures]
    assert found == ["snp.report.signature", "snp.report-data"]
    assert "snp.launch-digest" in both.held


@pytest.mark.parametrize("values", [{"report_data": bytes(63)}, {"launch_digest": bytes(32)}])
def test_a_value_of_another_size_is_refused(values: dict[str, bytes]) -> None:
    with pytest.raises(Unsupported, match="bytes, not"):
        Expected(**values)  # type: ignore[arg-type]


def test_the_public_names_are_there() -> None:
    assert snp.verify_report.__name__ == "verify_report"
    assert {"verify_report", "Expected", "read_certificates"} <= set(dir(snp))


def addresses_of(report: bytes) -> list[tuple[str, str, str]]:
    found = addresses(AttestationReport.from_bytes(report))
    return [(one.what, one.product.value, one.path) for one in found]


def test_the_addresses_of_a_report_are_those_of_its_product() -> None:
    hwid = MILAN.hwid.hex()
    assert addresses_of(MILAN.report()) == [
        ("VCEK", "Milan", f"/vcek/v1/Milan/{hwid}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"),
        ("ASK, ARK", "Milan", "/vcek/v1/Milan/cert_chain"),
        ("CRL", "Milan", "/vcek/v1/Milan/crl"),
    ]
    assert addresses_of(MILAN.report(Kind.VLEK)) == [
        ("ASVK, ARK", "Milan", "/vlek/v1/Milan/cert_chain"),
        ("CRL", "Milan", "/vlek/v1/Milan/crl"),
    ]
    assert [one[0] for one in addresses_of(MILAN.report(chip_id=bytes(64)))] == ["ASK, ARK", "CRL"]


def test_a_report_of_version_2_may_be_of_several_products() -> None:
    def products(report: bytes) -> list[Product]:
        return [*possible_products(AttestationReport.from_bytes(report))]

    assert products(MILAN.report(version=2)) == [Product.MILAN, Product.GENOA]
    assert products(PLATFORMS[Product.TURIN].report(version=2)) == [*Product]
    assert products(MILAN.report(Kind.VLEK, version=2)) == [*Product]
    assert products(MILAN.report(cpuid_family=0x1C)) == []
