"""Reports and certificates of real platforms: each as ``expected.json`` says."""

import base64
import hashlib
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import judge_der
import judge_snp
from conftest import Run
from sev_attest.errors import MalformedInput, ReportInvalid, SevAttestError
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.chain import rsa
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.roots import amd_roots
from sev_attest.snp.verify import verify_report
from snp_material import VCEK_GUID, VLEK_GUID, pem, table
from test_snp_verify import flipped

COUNT = 22


class Real(NamedTuple):
    """A real report, its certificate if there is one, and what is known of it."""

    name: str
    known: dict[str, Any]
    report: bytes
    vek: bytes

    @property
    def at(self) -> datetime:
        """A time at which its certificate was valid."""
        return Certificate(raw=self.vek).not_before + timedelta(days=1)


@pytest.fixture(scope="session")
def reports(real: Path) -> list[Real]:
    """Read every real report; a file that is missing fails."""
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["reports"]
    assert len(known) >= COUNT
    found = []
    for name, case in known.items():
        report = (folder / case["report"]).read_bytes()
        assert hashlib.sha256(report).hexdigest() == case["sha256"]
        vek = (folder / case["vek"]).read_bytes() if "vek" in case else b""
        found.append(Real(name, case, report, vek))
    return found


@pytest.fixture(scope="session")
def verifying(reports: list[Real]) -> list[Real]:
    """Return those with a certificate: every one of them verifies."""
    found = [one for one in reports if one.vek]
    assert len(found) >= COUNT - 3
    assert all(one.known["verdict"] == "verifies" for one in found)
    return found


def test_the_second_implementation_of_the_vectors_verifies_them_too(
    verifying: list[Real], real: Path
) -> None:
    """Who refuses what real chips sign, or takes a change of it, is no judge of vectors."""
    for one in verifying:
        vek = judge_der.certificate(one.vek)
        product = vek.product.lower()
        ca, ark = (
            judge_der.certificate((real / "snp" / "roots" / f"{name}-{product}.der").read_bytes())
            for name in ("ask" if vek.kind == "VCEK" else "asvk", "ark")
        )
        root = judge_snp.Root(ark, vek.product, {})
        (chain,) = judge_snp.chains([vek, ca, ark], root)
        assert judge_snp.chain_failures(one.report, chain, one.at) == set(), one.name
        changed = flipped(one.report, 8 * 0x90)
        failed = judge_snp.chain_failures(changed, chain, one.at)
        assert failed == {"snp.report.signature"}
        said, known = judge_snp.fields(one.report, vek.product), one.known["fields"]
        for name in ("measurement", "report_data", "host_data", "chip_id", "id_key_digest", "vmpl"):
            assert said[name] == known[name], (one.name, name)


def test_every_real_report_verifies(verifying: list[Real]) -> None:
    for one in verifying:
        report = AttestationReport.from_bytes(one.report)
        verified = verify_report(report, read_certificates(one.vek), at=one.at)
        chain = one.known["chain"]
        assert verified.product.value.lower() == chain["product"], one.name
        assert verified.vek.kind.name.lower() == chain["kind"]
        extensions = verified.vek.extensions
        assert extensions is not None
        assert extensions.struct_version == chain["struct"]
        assert extensions.product_name == chain["name"]
        assert (extensions.csp_id or None) == chain["csp_id"]
        spls = {name: extensions.spls[f"{name}SPL"] for name in chain["tcb"]}
        assert spls == chain["tcb"]
        assert verified.notes[0].endswith("the verdict rests on AMD's pinned key")


def test_without_a_certificate_it_is_said_where_there_is_one(reports: list[Real]) -> None:
    for one in reports:
        if not one.vek:
            with pytest.raises(MalformedInput, match="there is no VCEK and no VLEK") as caught:
                verify_report(AttestationReport.from_bytes(one.report), [])
            assert "AMD serves the VCEK at" in caught.value.hint or "provider" in caught.value.hint


def test_amd_s_own_certificates_complete_each_chain(real: Path, verifying: list[Real]) -> None:
    authorities = [
        one for path in sorted((real / "snp" / "roots").glob("*.der"))
        for one in read_certificates(path.read_bytes())
    ]  # fmt: skip
    assert len(authorities) == 9
    for one in verifying:
        report = AttestationReport.from_bytes(one.report)
        every = [*authorities, *read_certificates(one.vek)]
        verified = verify_report(report, every, at=one.at)
        assert not verified.chain.missing, one.name
        assert len(verified.notes) == 1


def test_the_pinned_keys_and_serials_are_those_of_amd_s_certificates(real: Path) -> None:
    for root in amd_roots():
        assert root.product is not None
        for kind in (Kind.ASK, Kind.ASVK):
            path = real / "snp" / "roots" / f"{kind.name.lower()}-{root.product.value.lower()}.der"
            found = Certificate(raw=path.read_bytes())
            pinned = root.pinned(kind)
            assert pinned is not None
            assert (rsa(found), found.serial) == (pinned.public_key, pinned.serial)
            assert found.signed_by(root.ark)


def test_no_real_report_verifies_with_another_s_certificate(verifying: list[Real]) -> None:
    for one, other in zip(verifying, verifying[1:] + verifying[:1], strict=True):
        with pytest.raises(ReportInvalid) as caught:
            verify_report(AttestationReport.from_bytes(one.report), read_certificates(other.vek),
                          at=one.at)  # fmt: skip
        assert "snp.report.signature" in {failure.check for failure in caught.value.failures}


def test_certificates_without_a_report_are_read_and_forged_ones_are_told(real: Path) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["certs_without_report"]
    for name, case in known.items():
        found = Certificate(raw=(folder / case["file"]).read_bytes())
        keys = [root.pinned(Kind.ASK) or None for root in amd_roots()]
        keys += [root.pinned(Kind.ASVK) or None for root in amd_roots()]
        signed = any(key is not None and found.signed_by(key.public_key) for key in keys)
        assert signed is ("INVALIDSIG" not in name), name


def test_no_sampled_bit_of_a_real_report_or_certificate_can_be_flipped(
    verifying: list[Real],
) -> None:
    chosen = random.Random(4)
    for one in verifying:
        for at in chosen.sample(range(8 * len(one.report)), 40):
            with pytest.raises((ReportInvalid, MalformedInput)):
                verify_report(AttestationReport.from_bytes(flipped(one.report, at)),
                              read_certificates(one.vek), at=one.at)  # fmt: skip
        for at in chosen.sample(range(8 * len(one.vek)), 40):
            with pytest.raises(SevAttestError):
                verify_report(AttestationReport.from_bytes(one.report),
                              read_certificates(flipped(one.vek, at)), at=one.at)  # fmt: skip


def in_table(one: Real) -> bytes:
    guid = VLEK_GUID if one.known["chain"]["kind"] == "vlek" else VCEK_GUID
    return one.report + table((guid, one.vek))


PACKED: dict[str, Callable[[Real], tuple[bytes, bytes]]] = {
    "binary, DER": lambda one: (one.report, one.vek),
    "hex, PEM": lambda one: (one.report.hex().encode(), pem(one.vek)),
    "base64, base64": lambda one: (base64.encodebytes(one.report), base64.b64encode(one.vek)),
    "with a certificate table": lambda one: (in_table(one), b""),
    "a response": lambda one: (
        bytes(4) + len(one.report).to_bytes(4, "little") + bytes(24) + one.report, one.vek,
    ),
}  # fmt: skip


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_every_real_report_verifies_on_the_command_line(
    run: Run, here: Path, verifying: list[Real], pack: Callable[[Real], tuple[bytes, bytes]]
) -> None:
    for one in verifying:
        report, vek = pack(one)
        Path("report").write_bytes(report)
        Path("vek").write_bytes(vek)
        arguments = ["report", "vek"] if vek else ["report"]
        ran = run("snp", "verify", *arguments, "--at", one.at.isoformat(), "--json")
        assert (ran.code, ran.err) == (0, ""), one.name
        found = json.loads(ran.out)
        assert found["product"].lower() == one.known["chain"]["product"]
        assert found["key"].lower() == one.known["chain"]["kind"]
        fields = {
            name: found["report"][name] for name in one.known["fields"] if name in found["report"]
        }
        assert len(fields) >= 17
        assert fields == {name: one.known["fields"][name] for name in fields}


def test_every_real_report_verifies_from_the_folders_of_others(
    run: Run, here: Path, verifying: list[Real]
) -> None:
    for one in verifying:
        snpguest, configfs = Path(one.name, "snpguest"), Path(one.name, "configfs")
        (snpguest / "certs").mkdir(parents=True)
        (snpguest / "attestation-report.bin").write_bytes(one.report)
        (snpguest / "certs" / f"{one.known['chain']['kind']}.pem").write_bytes(pem(one.vek))
        configfs.mkdir()
        (configfs / "outblob").write_bytes(one.report)
        (configfs / "auxblob").write_bytes(in_table(one)[len(one.report) :])
        for folder in (snpguest, configfs):
            ran = run("snp", "verify", folder, "--at", one.at.isoformat())
            assert (ran.code, ran.errors) == (0, []), folder
            assert ran.lines[0].startswith("OK: the report is AMD's: ")


def test_real_reports_without_a_certificate_fail_for_the_named_reason(
    run: Run, here: Path, reports: list[Real]
) -> None:
    left = [one for one in reports if not one.vek]
    assert len(left) == 3
    for one in left:
        for name, pack in PACKED.items():
            if "table" in name:
                continue
            Path("report").write_bytes(pack(one)[0])
            ran = run("snp", "verify", "report", "--json")
            document = json.loads(ran.out)
            assert (ran.code, ran.err, document["ok"]) == (6, "", False)
            (error,) = document["errors"]
            assert error["check"] == "certificates.incomplete", one.name
            assert "there is no VCEK and no VLEK" in error["message"]
            wanted = "provider" if one.known["fields"]["signing_key"] == "vlek" else "https://"
            assert wanted in error["hint"]


def test_real_azure_reports_verify_with_the_runtime_data_that_they_bind(
    run: Run, here: Path, real: Path, verifying: list[Real]
) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["hcl"]
    by_report = {one.known["sha256"]: one for one in verifying}
    found = 0
    for case in known.values():
        one = by_report.get(case["expect"][2])
        blob = (folder / case["blob"]).read_bytes()
        if one is None:  # no certificate of its chip is at hand
            continue
        found += 1
        Path("vek").write_bytes(one.vek)
        arguments = ("blob", "vek", "--at", one.at.isoformat(), "--json")
        Path("blob").write_bytes(blob)
        checks = json.loads(run("snp", "verify", *arguments).out)["checks"]
        assert checks[-1]["id"] == "snp.hcl.bound"
        assert all(check["ok"] for check in checks)
        changed = blob.replace(b"HCLAkPub", b"HCLAkPuc")
        for data in (changed, base64.b64encode(changed)):
            Path("blob").write_bytes(data)
            ran = run("snp", "verify", *arguments)
            assert (ran.code, json.loads(ran.out)["failed"]) == (1, ["snp.hcl.bound"])
    assert found >= 3


def test_real_evidence_of_trustee_verifies(run: Run, real: Path) -> None:
    for version in ("v0", "v1", "v2", "genoa"):
        path = real / "snp" / "hcl" / f"evidence-{version}.json"
        ran = run("snp", "verify", path, "--at", "2026-01-01")
        assert (ran.code, ran.errors) == (0, []), version


BLYSS = "genoa-v2-vmpl1-blyss-1"


def blyss(reports: list[Real], real: Path) -> tuple[Any, ...]:
    """Return the arguments that verify a report of real hardware, with the guest it is of."""
    (one,) = (one for one in reports if one.name == BLYSS)
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["launch_digests"]
    inputs = known["hardware-qemu-blyss-1"]["inputs"]
    return (
        "snp", "verify", folder / one.known["report"], folder / one.known["vek"],
        "--at", one.at.isoformat(), "--firmware", folder / inputs["firmware"],
        "--cpu-model-name", "EPYC-v4", "--kernel-hashes",
        ":".join(inputs["sha256"][name] for name in ("kernel", "initrd", "cmdline")),
    )  # fmt: skip


def test_a_real_guest_verifies_with_what_it_was_started_from(
    run: Run, reports: list[Real], real: Path
) -> None:
    given = (*blyss(reports, real), "--num-cpus", "4", "--vmsa-profile", "qemu-old")
    ran = run(*given)
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[0] == "OK: the report is AMD's: Genoa, VCEK, VMPL 1"
    assert json.loads(run(*given, "--json").out)["checks"][-1]["id"] == "snp.launch-digest"


def test_why_a_real_guest_differs_is_found_and_stays_a_no(
    run: Run, reports: list[Real], real: Path
) -> None:
    ran = run(*blyss(reports, real), "--num-cpus", "2", "--diagnose-budget", "600")
    assert ran.code == 1
    assert "NOT VERIFIED: the launch digest is a1eee53f" in ran.out
    assert "4 vCPUs, not 2, and its vCPUs were set up as in VMSA profile qemu-old" in ran.err


def test_expired_vleks_are_named_as_such(run: Run, here: Path, verifying: list[Real]) -> None:
    for one in verifying:
        vek = Certificate(raw=one.vek)
        if vek.kind is Kind.VLEK and vek.not_after < datetime(2026, 1, 1, tzinfo=UTC):
            Path("report").write_bytes(one.report)
            Path("vek").write_bytes(one.vek)
            ran = run("snp", "verify", "report", "vek")
            assert ran.code == 1
            assert ran.err.startswith("error: the VLEK expired on ")
            assert len([line for line in ran.err.splitlines() if line.startswith("error: ")]) == 1
