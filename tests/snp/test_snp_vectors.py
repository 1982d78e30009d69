"""The vectors of SEV-SNP: this implementation gives every verdict they hold."""

import base64
import hashlib
from datetime import datetime
from typing import Any

import pytest

import judge_snp
import judge_snp_digest
from sev_attest import SevAttestError, snp
from sev_attest.errors import MalformedInput, ReportInvalid
from sev_attest.guest import CpuModel, SnpProfile
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.snp import Certificate, Product, read_evidence
from sev_attest.snp.certificate_table import read_table
from sev_attest.snp.chain import rsa
from sev_attest.snp.roots import PinnedKey
from sev_attest.snp.verify import CHECKS
from vector_cases import FOLDER, cases


def snp_root(given: dict[str, Any] | None) -> list[snp.Root]:
    """Return AMD's roots, and the one of a case: if it has a product, in the place of AMD's."""
    if given is None:
        return [*snp.amd_roots()]
    found = {name: Certificate(raw=read(file)) for name, file in given["files"].items()}
    pinned = {
        name: PinnedKey(public_key=rsa(one), serial=one.serial)
        for name, one in found.items()
        if name != "ark"
    }
    product = Product(given["product"]) if given["product"] else None
    others = [root for root in snp.amd_roots() if root.product is not product]
    return [*others, snp.Root(ark=rsa(found["ark"]), product=product, **pinned)]


def read(name: str) -> bytes:
    """Read a file of the vectors."""
    return (FOLDER / name).read_bytes()


def value_of(verified: snp.VerifiedReport, name: str) -> Any:
    """Return a field of a report as the vectors have it."""
    report = verified.report
    read_in_words: dict[str, Any] = {
        "product": verified.product.value,
        "debug": report.policy.debug,
        "migration_agent": report.policy.migration_agent,
        "alias_check_complete": "alias-check-complete" in report.platform_info.names,
        "author_key": report.key_info.author_key_en,
        "signing_key": report.key_info.signing_key.name,
        "cpuid": None
        if report.version == 2
        else [report.cpuid_family, report.cpuid_model, report.cpuid_stepping],
    }
    if name in read_in_words:
        return read_in_words[name]
    if name.endswith("_tcb"):
        return report.tcb(name.removesuffix("_tcb"), verified.product).components
    value = getattr(report, name)
    if name in ("policy", "platform_info") or (name.endswith("mit_vector") and value is not None):
        return f"{int(value):#x}"
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("case", cases("snp-report"))
def test_a_report_fails_exactly_the_checks_it_must(case: dict[str, Any]) -> None:
    at = datetime.fromisoformat(case["at"])
    failed: list[str] = []
    try:
        report = snp.AttestationReport.from_bytes(read(case["report"]))
        given = [one for name in case["certificates"] for one in snp.read_certificates(read(name))]
        verified = snp.verify_report(report, given, roots=snp_root(case["root"]), at=at)
    except ReportInvalid as error:
        failed = sorted(failure.check for failure in error.failures)
    except SevAttestError as error:
        failed = [error.check]
    assert failed == case["failed_checks"]
    assert case["valid"] is not bool(failed)
    if not failed:
        assert {name: value_of(verified, name) for name in case["fields"]} == case["fields"]


def test_every_check_of_a_report_has_a_vector_that_fails_for_it_alone() -> None:
    lone = [case.values[0]["failed_checks"] for case in cases("snp-report")]
    assert {checks[0] for checks in lone if len(checks) == 1} >= CHECKS.keys()


@pytest.mark.parametrize("case", cases("snp-certificate"))
def test_a_certificate_says_what_it_must(case: dict[str, Any]) -> None:
    data = read(case["certificate"])
    if case["failed_check"]:
        with pytest.raises(MalformedInput) as caught:
            Certificate(raw=data)
        assert caught.value.check == case["failed_check"]
        return
    found = Certificate(raw=data)
    amd = found.extensions
    assert case["says"] == {
        "kind": found.kind.name,
        "product": found.product_name,
        "serial": f"{found.serial:#x}",
        "issuer": found.issuer.common_name,
        "not_before": found.not_before.isoformat(),
        "not_after": found.not_after.isoformat(),
        "tcb": amd and amd.tcb.hex(),
        "hwid": amd and amd.hwid.hex(),
        "csp_id": (amd and amd.csp_id) or None,
    }


@pytest.mark.parametrize("case", cases("snp-table"))
def test_a_certificate_table_has_the_contents(case: dict[str, Any]) -> None:
    if case["failed_check"]:
        with pytest.raises(MalformedInput) as caught:
            read_table(read(case["table"]))
        assert caught.value.check == case["failed_check"]
        return
    found = read_table(read(case["table"]))
    assert [{"guid": o.guid, "sha256": sha256(o.content)} for o in found] == case["entries"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("case", cases("snp-packaging"))
def test_a_file_holds_the_report(case: dict[str, Any]) -> None:
    data = read(case["file"])
    if case["failed_check"]:
        with pytest.raises(MalformedInput) as caught:
            read_evidence(data)
        assert caught.value.check == case["failed_check"]
        return
    found = read_evidence(data)
    runtime = found.runtime_data
    assert case["holds"] == {
        "report": sha256(found.report.raw),
        "certificates": [sha256(one.content) for one in found.certificates],
        "runtime_data": runtime
        and {
            "sha256": sha256(runtime.content),
            "hash": runtime.hash_name,
            "bound": runtime.bound_to(found.report),
        },
    }


@pytest.mark.parametrize("case", cases("snp-digest"))
def test_a_launch_digest_is_the_one(case: dict[str, Any]) -> None:
    guest = case["guest"]
    parts: dict[str, Any] = {
        key: base64.b64decode(guest[key]) for key in ("kernel", "initrd", "cmdline") if key in guest
    }
    if "svsm" in guest:
        parts |= {"svsm": read(guest["svsm"]), "vars_size": guest["vars_size"]}
    cpu = CpuModel(**guest["cpu"]) if guest["cpu"] else None
    vmsa = SnpProfile(name=guest["layout"], cpu=cpu, features=int(guest["features"], 16))
    image = read(guest["firmware"])
    if case["failed_check"]:
        with pytest.raises(SevAttestError) as caught:
            snp.launch_digest(image, vcpus=1, vmsa=vmsa, **parts)
        assert caught.value.check == case["failed_check"]
        return
    found = {
        count: snp.launch_digest(image, vcpus=int(count), vmsa=vmsa, **parts).hex()
        for count in case["digests"]
    }
    assert found == case["digests"]


def test_every_layout_has_a_vector() -> None:
    layouts = {case.values[0]["guest"]["layout"] for case in cases("snp-digest")}
    assert layouts == {*SNP_LAYOUTS}


# the second implementation

JUDGES = judge_snp.JUDGES | {"snp-digest": judge_snp_digest.problems}
EVERY = [
    pytest.param(kind, *case.values, id=f"{kind}-{case.id}")
    for kind in JUDGES
    for case in cases(kind)
]


def otherwise(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case with another verdict: what fails is valid, and the reverse."""
    key = "failed_checks" if "failed_checks" in case else "failed_check"
    wrong: Any = ["snp.vek.tcb"] if key == "failed_checks" else "snp.vek.tcb"
    right: Any = [] if key == "failed_checks" else None
    return case | {key: right if case[key] else wrong}


@pytest.mark.parametrize(("kind", "case"), EVERY)
def test_the_second_implementation_agrees_and_with_no_other_verdict(
    kind: str, case: dict[str, Any]
) -> None:
    assert JUDGES[kind](case) == []
    assert JUDGES[kind](otherwise(case))


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("snp-report", "fields"),
        ("snp-certificate", "says"),
        ("snp-table", "entries"),
        ("snp-packaging", "holds"),
        ("snp-digest", "digests"),
    ],
)
def test_the_second_implementation_compares_every_value(kind: str, where: str) -> None:
    for param in cases(kind):
        (case,) = param.values
        for name in case[where] or ():
            if isinstance(case[where], dict):
                other = case[where] | {name: "another"}
            else:
                other = [one for one in case[where] if one is not name]
            assert JUDGES[kind](case | {where: other}), (param.id, name)


def test_their_page_explains_every_check_of_a_report() -> None:
    page = (FOLDER / "README.md").read_text()
    assert all(f"| `{check}` |" in page for check in CHECKS)
