"""``sev-attest snp verify`` and ``snp certs``."""

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Run
from sev_attest.cli import snp_fields
from sev_attest.cli.commands import snp_certs
from sev_attest.cli.options import snp_expected
from sev_attest.snp.certificates import Kind
from sev_attest.snp.report import LAYOUT
from sev_attest.snp.verify import CHECKS
from sev_attest.testing import Platform
from sev_attest.testing.snp import SnpAuthority, SnpPlatform
from snp_material import AMD, ASK_GUID, MILAN, VCEK_GUID, VLEK_GUID, pem, table
from snp_reports import bound, hcl
from vault_stand_in import StandIn, serving

DATA, DIGEST = bytes(range(64)), bytes(range(48))
REPORT = MILAN.report(report_data=DATA, measurement=DIGEST)
ROOT = ("--trust-root", "root.der")
CHAIN = table((VCEK_GUID, MILAN.vek()), (ASK_GUID, AMD.ask))


@pytest.fixture
def files(here: Path) -> Path:
    """Lay out a report, its certificates, and those of a forger."""
    forged = SnpPlatform.of(b"a test chip", SnpAuthority(forged=True))
    contents = {
        "report.bin": REPORT,
        "vcek.der": MILAN.vek(),
        "ask.pem": pem(AMD.ask),
        "root.der": AMD.ark,
        "vlek.bin": MILAN.report(Kind.VLEK),
        "vlek.der": MILAN.vek(Kind.VLEK),
        "asvk.der": AMD.asvk,
        "forged.bin": forged.report(),
        "forged.der": forged.certificates(),
        "crl.der": AMD.crl(5),
        "revoked.pem": pem(AMD.crl(0x010001), "X509 CRL"),
        "debug.bin": MILAN.report(policy=0xB0000, vmpl=0xFFFFFFFF),
    }
    for name, data in contents.items():
        Path(name).write_bytes(data)
    Path("large.pem").write_bytes(pem(AMD.ask) * 600)
    for folder, names in {"certs": ("vcek.der", "ask.pem", "root.der"), "other": ()}.items():
        Path(folder).mkdir()
        Path(folder, "README").write_text("no certificate", encoding="utf-8")
        for name in names:
            Path(folder, name).write_bytes(contents[name])
    return here


VERIFIED = "OK: the report verifies (its root is not AMD's)"


def verified(ran: Ran, first: str = f"{VERIFIED}: Milan, VCEK, VMPL 0") -> bool:
    assert ran.errors == []
    assert ran.code == 0
    return ran.lines[0] == first


def document(ran: Ran, code: int = 0) -> Any:
    assert (ran.code, ran.err) == (code, "")
    return json.loads(ran.out)


# what verifies


def test_a_report_verifies_and_the_verdict_says_what_it_rests_on(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "report.bin", "vcek.der", "ask.pem", *ROOT)
    assert verified(ran)
    assert len(ran.lines) == 1
    assert ran.notes == [
        "note: this root is not AMD's: it was trusted only because it was named",
        f"note: {snp_expected.FRESHNESS}",
        f"note: {snp_expected.GUEST}",
    ]


@pytest.mark.parametrize(
    "form", [bytes, base64.b64encode, lambda data: data.hex().encode(),
             lambda data: data[:1184] + table((VCEK_GUID, MILAN.vek()), (ASK_GUID, pem(AMD.ask)))],
)  # fmt: skip
def test_reports_verify_in_several_forms(run: Run, files: Path, form: Any) -> None:
    Path("other.bin").write_bytes(form(REPORT))
    assert verified(run("snp", "verify", "other.bin", "certs", *ROOT))


def test_a_folder_of_snpguest_verifies(run: Run, files: Path) -> None:
    Path("certs/attestation-report.bin").write_bytes(REPORT)
    assert verified(run("snp", "verify", "certs", *ROOT))


def test_a_folder_of_configfs_tsm_verifies(run: Run, files: Path) -> None:
    Path("other/outblob").write_bytes(REPORT)
    Path("other/auxblob").write_bytes(CHAIN)
    assert verified(run("snp", "verify", "other", *ROOT))
    assert verified(run("snp", "verify", "report.bin", "other", *ROOT))


def test_standard_input_is_read_once(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(REPORT)))
    assert verified(run("snp", "verify", "-", "certs", *ROOT))
    for arguments in (("-", "-"), ("-", "--crl", "-"), ("report.bin", "--trust-root", "-", "-")):
        ran = run("snp", "verify", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "only one input can be standard input" in ran.err


def test_a_vlek_verifies(run: Run, files: Path) -> None:
    Path("table").write_bytes(table((VLEK_GUID, MILAN.vek(Kind.VLEK))))
    for given in ("vlek.der", "table"):
        ran = run("snp", "verify", "vlek.bin", given, "asvk.der", *ROOT)
        assert verified(ran, f"{VERIFIED}: Milan, VLEK, VMPL 0")


def test_what_is_expected_is_compared(run: Run, files: Path) -> None:
    options = ("--report-data", DATA.hex(), "--launch-digest", DIGEST.hex().upper())
    ran = run("snp", "verify", "report.bin", "certs", *ROOT, *options)
    assert verified(ran)
    assert (len(ran.lines), len(ran.notes)) == (1, 1)


def test_quiet_prints_nothing_and_verbose_every_step(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "report.bin", "certs", *ROOT, "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    ran = run("snp", "verify", "report.bin", "certs", *ROOT, "-v", "--report-data", DATA.hex())
    assert verified(ran)
    steps = [line.split()[:2] for line in ran.lines[1 : len(CHECKS) + 2]]
    made = [check for check in CHECKS if check != "snp.ask.not-revoked"]
    assert [check for word, check in steps if word == "ok"] == [*made, "snp.report-data"]
    assert ["-", "snp.ask.not-revoked"] in steps
    assert sum("SEV-VCEK, until 2049-12-31" in line for line in ran.lines) == 1


def test_debug_and_the_host_s_own_reports_are_said(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "debug.bin", "certs", *ROOT)
    assert verified(ran, f"{VERIFIED}: Milan, VCEK, VMPL asked for by the host")
    assert {f"note: {snp_fields.DEBUG}", f"note: {snp_expected.HOST}"} <= {*ran.notes}
    ran = run("snp", "verify", "debug.bin", "certs", *ROOT, "--report-data", bytes(64).hex())
    assert (ran.code, ran.lines[0][:41]) == (1, "NOT VERIFIED: the host asked for this rep")


def test_a_guest_that_can_be_moved_is_said(run: Run, files: Path) -> None:
    report = MILAN.report(
        policy=0x70000, report_id_ma=b"\1" * 32, measurement=DIGEST, report_data=DATA
    )
    Path("moves.bin").write_bytes(report)
    options = ("--report-data", DATA.hex(), "--launch-digest", DIGEST.hex())
    ran = run("snp", "verify", "moves.bin", "certs", *ROOT, *options)
    assert verified(ran)
    assert ran.notes[1:] == [f"note: {snp_fields.MIGRATION}", f"note: {snp_expected.AGENT}"]


def test_runtime_data_has_to_be_bound(run: Run, files: Path) -> None:
    Path("bound.bin").write_bytes(hcl(MILAN.report(report_data=bound())))
    Path("unbound.bin").write_bytes(hcl(MILAN.report(report_data=bound(b"{}"))))
    found = document(run("snp", "verify", "bound.bin", "certs", *ROOT, "--json"))
    assert (found["checks"][-1]["id"], found["checks"][-1]["ok"]) == ("snp.hcl.bound", True)
    found = document(run("snp", "verify", "unbound.bin", "certs", *ROOT, "--json"), code=1)
    assert (found["ok"], found["failed"]) == (False, ["snp.hcl.bound"])
    assert found["checks"][-1]["ok"] is False
    ran = run("snp", "verify", "unbound.bin", "certs", *ROOT, "-v")
    assert (ran.code, "FAIL snp.hcl.bound" in ran.out) == (1, True)
    assert "error: the runtime data is not bound to the report" in ran.err


def test_the_json_document(run: Run, files: Path) -> None:
    options = ("--at", "2026-05-04", "--crl", "crl.der", "--launch-digest", DIGEST.hex(), "--json")
    found = document(run("snp", "verify", "report.bin", "certs", *ROOT, *options))
    assert found["schema"] == "sev-attest/snp-verify/1"
    assert (found["ok"], found["product"], found["key"]) == (True, "Milan", "VCEK")
    assert found["at"] == "2026-05-04T00:00:00+00:00"
    assert [check["id"] for check in found["checks"]] == [*CHECKS, "snp.launch-digest"]
    assert all(check["ok"] for check in found["checks"])
    assert found["failed"] == []
    assert found["report"]["measurement"] == DIGEST.hex()
    assert found["report"].keys() == {row.name for row in LAYOUT} | {"signature"}
    assert [one["kind"] for one in found["certificates"]] == ["VCEK", "ASK", "ARK"]
    assert found["root"].startswith("not AMD's: ARK ")


# what does not


def test_a_forged_root_is_refused(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "forged.bin", "forged.der")
    words = "the ARK has the name of AMD's ARK-Milan, but another key"
    assert (ran.code, ran.lines) == (1, [f"NOT VERIFIED: {words}"])
    hint = "a test platform's root can be named on purpose (--trust-root)"
    assert ran.err.splitlines() == [f"error: {words}", f"hint: {hint}"]


def test_every_failure_is_printed(run: Run, files: Path) -> None:
    options = ("--report-data", DATA.hex(), "--launch-digest", DIGEST.hex(), "-v")
    ran = run("snp", "verify", "vlek.bin", "certs", *ROOT, *options)
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len([line for line in ran.lines if line.startswith("FAIL ")]) == 5
    assert ran.lines[0] == f"NOT VERIFIED: {errors[0].removeprefix('error: ')}"


def test_the_json_document_of_a_failure(run: Run, files: Path) -> None:
    options = ("--report-data", bytes(64).hex(), "--json")
    found = document(run("snp", "verify", "report.bin", "certs", *ROOT, *options), code=1)
    assert found["schema"] == "sev-attest/snp-verify/1"
    assert (found["ok"], found["failed"]) == (False, ["snp.report-data"])
    last = found["checks"][-1]
    assert (last["id"], last["ok"]) == ("snp.report-data", False)
    assert last["detail"] == found["errors"][0]["message"]
    assert "snp.ask.not-revoked" not in [check["id"] for check in found["checks"]]
    assert found["product"] is None


def test_quiet_prints_the_errors_of_a_failure(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "forged.bin", "forged.der", "-q")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")


def test_a_time_outside_the_certificates_is_refused(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "report.bin", "certs", *ROOT, "--at", "2019-12-31T23:59:59Z")
    assert ran.code == 1
    assert "VCEK is valid from 2020-01-01 00:00:00 UTC" in ran.err
    assert "--at" in ran.err
    assert verified(
        run("snp", "verify", "report.bin", "certs", *ROOT, "--at", "2020-01-01T02:00+02:00")
    )


def test_revocation_lists_are_held_against_it(run: Run, files: Path) -> None:
    assert verified(run("snp", "verify", "report.bin", "certs", *ROOT, "--crl", "crl.der"))
    for given in ("--crl revoked.pem", "revoked.pem", "--crl revoked.pem --crl crl.der"):
        ran = run("snp", "verify", "report.bin", "certs", *ROOT, *given.split())
        assert ran.code == 1
        assert "the ARK has revoked this ASK" in ran.err


# what is no use


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("report.bin", 6, "there is no VCEK and no VLEK"),
        ("report.bin other", 6, "other: certificates: no file of this folder is a certificate"),
        ("report.bin report.bin", 6, "report.bin: certificates: this is a report"),
        ("vcek.der", 6, "this is a certificate"),
        ("missing", 6, "missing"),
        ("report.bin missing", 6, "missing"),
        ("report.bin --crl ask.pem", 6, "ask.pem: revocation list: there is none in this file"),
        ("report.bin --trust-root ask.pem", 6, "ask.pem: root ARK: there is no ARK certificate"),
        ("report.bin large.pem", 6, "large.pem: certificates: more than 1048576 bytes"),
        ("report.bin --at yesterday", 2, "yesterday is no time: 2026-05-04 or"),
        ("report.bin --report-data 00", 2, "1 bytes, expected 64 (128 hex digits)"),
        ("report.bin --launch-digest xy", 2, "xy is not hex"),
        ("", 2, "REPORT"),
        ("report.bin --challenge x", 2, "--challenge and --transport-key go together"),
    ],
)
def test_what_cannot_be_read_is_said(
    run: Run, files: Path, arguments: str, code: int, words: str
) -> None:
    ran = run("snp", "verify", *arguments.split())
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err


def test_sev_s_cek_is_named_as_such(run: Run, files: Path, milan: Platform) -> None:
    Path("cek.cert").write_bytes(milan.export().cek.to_bytes())
    ran = run("snp", "verify", "report.bin", "cek.cert")
    assert ran.code == 6
    assert "cek.cert: certificates: these are certificates of SEV (CEK)" in ran.err


def test_without_a_vcek_its_address_is_printed(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "report.bin")
    assert f"https://kdsintf.amd.com/vcek/v1/Milan/{MILAN.hwid.hex()}?blSPL=04" in ran.err
    assert "`sev-attest snp certs`" in ran.err


# certs


def test_the_addresses_are_printed(run: Run, files: Path) -> None:
    ran = run("snp", "certs", "report.bin")
    hwid = MILAN.hwid.hex()
    assert (ran.code, ran.err) == (0, "")
    assert [line.rsplit(maxsplit=1) for line in ran.lines] == [
        ["VCEK      Milan", f"https://kdsintf.amd.com/vcek/v1/Milan/{hwid}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"],
        ["ASK, ARK  Milan", "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain"],
        ["CRL       Milan", "https://kdsintf.amd.com/vcek/v1/Milan/crl"],
    ]  # fmt: skip


def test_a_mirror_s_addresses_are_printed(run: Run, files: Path) -> None:
    ran = run("snp", "certs", "vlek.bin", "--kds", "https://mirror/amd/")
    assert ran.lines[0].endswith("https://mirror/amd/vlek/v1/Milan/cert_chain")
    assert ran.err.splitlines() == [f"note: {snp_certs._FROM_PROVIDER}"]
    assert run("snp", "certs", "vlek.bin", "-q").err == ""


def test_what_makes_addresses_uncertain_is_said(run: Run, files: Path) -> None:
    Path("v2").write_bytes(MILAN.report(version=2))
    Path("masked").write_bytes(MILAN.report(chip_id=bytes(64)))
    ran = run("snp", "certs", "v2")
    assert len(ran.lines) == 6
    assert "a report of version 2 does not say its product" in ran.err
    ran = run("snp", "certs", "masked", "--json")
    found = document(ran)
    assert found["notes"] == [snp_certs._NO_CHIP]
    assert [one["what"] for one in found["addresses"]] == ["ASK, ARK", "CRL"]


@pytest.fixture
def server(tmp_path: Path, files: Path, _loopback: None) -> Iterator[StandIn]:
    """Run a key server, which knows the chip, and is busy at first."""
    has = {
        f"/vcek/v1/Milan/{MILAN.hwid.hex()}": MILAN.vek(),
        "/vcek/v1/Milan/cert_chain": pem(AMD.ask) + pem(AMD.ark),
        "/vlek/v1/Milan/cert_chain": pem(AMD.asvk) + pem(AMD.ark),
    }
    busy = [True]

    def answer(handler: Any) -> None:
        if busy:
            busy.clear()
            handler.send(429, b"", **{"Retry-After": "0"})
            return
        data = has.get(handler.path.partition("?")[0])
        handler.send(*((200, data) if data else (404, b"")))

    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server", tls=False) as stand_in:
        stand_in.fault = answer
        yield stand_in


def test_they_are_fetched_and_verify(run: Run, server: StandIn) -> None:
    fetch = ("--fetch", "--out", "new", "--kds", f"http://{server.host}")
    ran = run("snp", "certs", "report.bin", *fetch)
    assert (ran.code, ran.lines) == (0, ["wrote new/vcek.der", "wrote new/cert_chain.pem"])
    assert "it asks to wait 0 seconds" in ran.err
    assert verified(run("snp", "verify", "report.bin", "new", *ROOT))
    again = run("snp", "certs", "report.bin", *fetch)
    assert (again.code, again.out) == (6, "")
    assert "new/vcek.der: exists already" in again.err
    forced = document(run("snp", "certs", "report.bin", *fetch, "--force", "--json"))
    assert forced["schema"] == "sev-attest/snp-certs/1"
    assert forced["files"] == ["new/vcek.der", "new/cert_chain.pem"]
    ran = run("snp", "certs", "report.bin", *fetch, "--force", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_for_a_vlek_the_chain_is_fetched(run: Run, server: StandIn) -> None:
    fetch = ("--fetch", "--out", "new", "--kds", f"http://{server.host}", "-q")
    ran = run("snp", "certs", "vlek.bin", *fetch)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert [path.name for path in Path("new").iterdir()] == ["cert_chain.pem"]


def test_a_chip_that_is_not_served_leaves_nothing(run: Run, server: StandIn) -> None:
    Path("other.bin").write_bytes(MILAN.report(chip_id=bytes(range(64))))
    fetch = ("--fetch", "--out", "new", "--kds", f"http://{server.host}")
    ran = run("snp", "certs", "other.bin", *fetch)
    assert (ran.code, ran.out) == (6, "")
    assert "no VCEK of this chip at this TCB (status 404)" in ran.err
    assert not Path("new").exists()
    Path("old").mkdir()
    assert run("snp", "certs", "other.bin", *fetch[:2], "old", *fetch[3:]).code == 6
    assert Path("old").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--fetch", "--fetch needs --out"),
        ("--out new", "--out and --force are for --fetch"),
        ("--force", "--out and --force are for --fetch"),
        ("--kds ftp://x", "the key server is https://HOST"),
        ("--fetch --out missing/new", "missing/new"),
        ("--fetch --out report.bin", "report.bin"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    run: Run, files: Path, options: str, words: str
) -> None:
    ran = run("snp", "certs", "report.bin", *options.split())
    assert ran.code in (2, 6)
    assert ran.out == ""
    assert words in ran.err
