"""``sev-attest snp verify`` with the guest that was meant: its digest, and why another differs."""

import base64
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Run
from sev_attest.cli import snp_diagnosis
from sev_attest.cli.options import snp_expected
from sev_attest.cli.options.snp_guest import read_digest
from sev_attest.errors import MalformedInput
from sev_attest.guest import CpuModel, SnpProfile
from sev_attest.guest.diagnosis.search import Diagnosis
from sev_attest.snp.digest import launch_digest
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image
from sev_attest.testing.snp import SnpAuthority, SnpPlatform
from snp_material import AMD, MILAN
from snp_reports import bound, hcl

OVMF = ovmf_image(8192, sections=SNP_SECTIONS)
OTHER = ovmf_image(8192, seed=b"other", sections=SNP_SECTIONS)
CPU = CpuModel.named("EPYC-Milan")
DATA = bytes(range(64))
VERIFY = ("snp", "verify", "report", "vcek", "--trust-root", "root")
GUEST = ("-f", "fw", "-n", "2", "--cpu-model-name", "EPYC-Milan")
LONG = ("--diagnose-budget", "600")
DIFFERS = "the launch digest is "


def digest_of(firmware: bytes = OVMF, **given: Any) -> bytes:
    parts: dict[str, Any] = {"vcpus": 2, "vmsa": CPU} | given
    return launch_digest(firmware, **parts)


def measures(**given: Any) -> bytes:
    """Write the report of a guest, and return its launch digest."""
    digest = digest_of(**given)
    Path("report").write_bytes(MILAN.report(report_data=DATA, measurement=digest))
    return digest


@pytest.fixture(autouse=True)
def files(here: Path) -> None:
    """Lay out a report, its certificates and a guest's files."""
    for name, data in {
        "vcek": MILAN.vek() + AMD.ask,
        "root": AMD.ark,
        "fw": OVMF,
        "plain": ovmf_image(8192),
        "svsm": svsm_image(),
        "kernel": b"kernel",
        "initrd": b"initrd",
    }.items():
        Path(name).write_bytes(data)
    measures()


def refused(ran: Ran, *checks: str) -> Any:
    """Return the document of a report that fails for exactly these checks."""
    assert (ran.code, ran.err) == (1, "")
    document = json.loads(ran.out)
    assert (document["ok"], document["exit"], document["failed"]) == (False, 1, [*checks])
    assert [check["id"] for check in document["checks"] if check["ok"] is False] == [*checks]
    return document


# a digest that is right


def test_the_guest_that_was_meant_is_held_against_the_report(run: Run) -> None:
    ran = run(*VERIFY, *GUEST, "--report-data", DATA.hex())
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[0] == "OK: the report verifies (its root is not AMD's): Milan, VCEK, VMPL 0"
    assert f"note: {snp_expected.GUEST}" not in ran.notes
    document = json.loads(run(*VERIFY, *GUEST, "--json").out)
    assert document["checks"][-1] == {
        "id": "snp.launch-digest", "ok": True,
        "detail": "the launch digest is the one that was expected",
    }  # fmt: skip
    assert document["guest"]["digest"] == digest_of().hex()
    assert (document["guest"]["vcpus"], document["guest"]["vmsa_profile"]) == (2, "qemu")
    assert json.loads(run(*VERIFY, "--json").out)["guest"] is None


def test_kernel_svsm_profile_and_pages_describe_it_as_for_measure(run: Run) -> None:
    kernel = {"kernel": b"kernel", "initrd": b"initrd", "cmdline": "quiet"}
    pages = SnpProfile(cpu=CPU).pages(0x80_B004)
    Path("v0").write_bytes(pages.boot)
    Path("v1").write_bytes(pages.ap or b"")
    svsm: dict[str, Any] = {"firmware": ovmf_image(8192), "svsm": svsm_image(), "vars_size": 4096}
    for given, options in (
        (kernel, (*GUEST, "-k", "kernel", "-r", "initrd", "-e", "quiet")),
        ({"vmsa": SnpProfile(name="ec2")}, ("-f", "fw", "-n", "2", "--vmsa-profile", "ec2")),
        ({}, ("-f", "fw", "-n", "2", "-0", "v0", "-1", "v1")),
        (svsm, (*GUEST, "-f", "plain", "--svsm", "svsm", "--vars-size", "4096")),
    ):
        measures(**given)
        ran = run(*VERIFY, *options)
        assert (ran.code, ran.errors) == (0, []), options
        measured = run("snp", "measure", *options)
        assert measured.out == f"{digest_of(**given).hex()}\n"


def test_explain_lists_every_piece(run: Run) -> None:
    for option in ("--explain", "-v"):
        ran = run(*VERIFY, *GUEST, option)
        assert ran.code == 0
        assert any(line.startswith("     0xffffe000      2 NORMAL     firm") for line in ran.lines)
        assert f"launch digest: {digest_of().hex()}" in ran.lines
    assert "launch digest: " not in run(*VERIFY, *GUEST).out
    assert run(*VERIFY, *GUEST, "--explain", "-q").out == ""
    measures(vcpus=3)
    ran = run(*VERIFY, *GUEST, "--explain", "--no-diagnose")
    assert (ran.code, ran.lines[-1]) == (1, f"launch digest: {digest_of().hex()}")


def test_what_is_odd_of_the_guest_is_noted_whatever_the_verdict(run: Run) -> None:
    words = "guest features 0x20 lack bit 0 (SNP active), which KVM always sets"
    odd = (*GUEST, "--guest-features", "0x20", "--no-diagnose")
    ran = run(*VERIFY, *odd)
    assert (ran.code, f"note: {words}" in ran.err.splitlines()) == (1, True)
    assert words in refused(run(*VERIFY, *odd, "--json"), "snp.launch-digest")["notes"]
    measures(vmsa=SnpProfile(cpu=CPU, features=0x20))
    ran = run(*VERIFY, *odd)
    assert (ran.code, f"note: {words}" in ran.notes) == (0, True)


# a digest that differs


def test_a_difference_is_refused_and_explained(run: Run) -> None:
    digest = measures(vcpus=4, vmsa=SnpProfile(name="qemu-old", cpu=CPU))
    options = (*GUEST, "--report-data", DATA.hex(), "--at", "2026-06-01", *LONG)
    ran = run(*VERIFY, *options)
    words = f"{DIFFERS}{digest.hex()}, expected {digest_of().hex()}"
    assert (ran.code, ran.lines) == (1, [f"NOT VERIFIED: {words}"])
    error, hint, note = ran.err.splitlines()
    assert error == f"error: {words}"
    assert hint == (
        "hint: the launch digest fits if it was launched with 4 vCPUs, not 2, and its vCPUs were "
        "set up as in VMSA profile qemu-old"
    )
    command = note.removeprefix("note: if you meant that: sev-attest ")
    assert command.startswith("snp verify report vcek ")
    assert run(*shlex.split(command)).code == 0
    assert run(*VERIFY, *options).code == 1  # the explanation changed nothing


def test_the_corrected_command_writes_no_evidence_over_that_of_the_refusal(run: Run) -> None:
    measures(vcpus=4)
    ran = run(*VERIFY, *GUEST, *LONG, "--evidence", "refused.json")
    command = ran.err.splitlines()[-1].removeprefix("note: if you meant that: sev-attest ")
    assert Path("refused.json").exists()
    assert "--evidence" not in command
    assert run(*shlex.split(command)).code == 0


def test_the_document_of_a_difference_has_what_explains_it(run: Run) -> None:
    digest = measures(vcpus=4)
    document = refused(run(*VERIFY, *GUEST, *LONG, "--json"), "snp.launch-digest")
    (found,) = document["diagnosis"]
    assert (found["hypothesis"], found["changes"]) == ("vcpus", {"num_cpus": 4})
    assert found["command"].startswith("sev-attest snp verify report vcek ")
    assert document["search"]["complete"] is True
    assert document["errors"][0]["hint"].startswith("the launch digest fits if it was launched wit")
    assert document["guest"]["digest"] == digest_of().hex()
    assert document["report"]["measurement"] == digest.hex()


def test_no_search_where_none_is_wanted(run: Run) -> None:
    measures(vcpus=4)
    for option in ("--no-diagnose", "-q"):
        ran = run(*VERIFY, *GUEST, option)
        assert (ran.code, "4 vCPUs" in ran.err) == (1, False)
        assert "hint: another guest was started" in ran.err
    document = refused(run(*VERIFY, *GUEST, "--no-diagnose", "--json"), "snp.launch-digest")
    assert not document.keys() & {"diagnosis", "search"}


def test_a_given_digest_that_differs_is_refused_without_a_search(run: Run) -> None:
    ran = run(*VERIFY, "--launch-digest", "00" * 48, "--json")
    assert not refused(ran, "snp.launch-digest").keys() & {"diagnosis", "search"}


def test_firmware_at_hand_is_tried_and_is_no_slip(run: Run) -> None:
    measures(firmware=OTHER)
    Path("others").mkdir()
    Path("others/other.fd").write_bytes(OTHER)
    ran = run(*VERIFY, *GUEST, *LONG, "--firmware-dir", "others")
    assert ran.code == 1
    assert "hint: the launch digest fits if its firmware was others/other.fd" in ran.err
    assert "note: firmware decides what the guest runs" in ran.err
    ran = run(*VERIFY, *GUEST, *LONG)
    assert (ran.code, "likely differences explains it" in ran.err) == (1, True)


@pytest.mark.parametrize(
    "given",
    [{"vcpus": 3}, {"vmsa": SnpProfile(name="gce")}, {"kernel": b"kernel"}, {"firmware": OTHER}],
)
def test_no_explanation_makes_it_verify(run: Run, given: dict[str, Any]) -> None:
    Path("other.fd").write_bytes(OTHER)
    measures(**given)
    document = refused(run(*VERIFY, *GUEST, *LONG, "--json"), "snp.launch-digest")
    assert document["product"] is None
    assert run(*VERIFY, *GUEST, *LONG).lines[0].startswith(f"NOT VERIFIED: {DIFFERS}")


def test_only_the_digest_s_own_failure_gets_the_explanation(run: Run) -> None:
    measures(vcpus=4)
    ran = run(*VERIFY, *GUEST, *LONG, "--report-data", bytes(64).hex(), "--json")
    first, second = refused(ran, "snp.report-data", "snp.launch-digest")["errors"]
    assert first["hint"] == "it is another request's report, or an old one"
    assert second["hint"].startswith("the launch digest fits if it was launched with 4 vCPUs")


def test_the_digest_of_a_forged_report_is_not_explained(run: Run) -> None:
    forged = SnpPlatform.of(b"a test chip", SnpAuthority(forged=True))
    Path("report").write_bytes(forged.report(measurement=digest_of(vcpus=4)))
    Path("vcek").write_bytes(forged.certificates())
    ran = run(*VERIFY, *GUEST, *LONG)
    assert ran.code == 1
    (line,) = ran.lines
    assert line.startswith("NOT VERIFIED: the ASK is signed by another ARK-Milan than the trusted")
    assert "4 vCPUs" not in ran.err
    assert "note: why the launch digest differs was not looked for" in ran.err
    document = refused(run(*VERIFY, *GUEST, "--json"), "snp.ask.signed-by-ark", "snp.launch-digest")
    assert "diagnosis" not in document
    Path("report").write_bytes(forged.report(measurement=digest_of()))
    assert "not looked for" not in run(*VERIFY, *GUEST).err


def test_azure_s_notes_are_there_whatever_the_verdict(run: Run) -> None:
    note = "note: Azure makes this report once, when the VM boots"
    report = MILAN.report(report_data=bound(), measurement=digest_of(vcpus=3))
    Path("report").write_bytes(hcl(report))
    ran = run(*VERIFY, *GUEST, "--no-diagnose")
    assert (ran.code, note in ran.err) == (1, True)


def test_an_interrupted_or_broken_search_leaves_the_verdict(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException) -> Any:
        def explain(*_arguments: object, **_given: object) -> Diagnosis:
            raise error

        return explain

    measures(vcpus=4)
    for error, words in (
        (KeyboardInterrupt(), "note: the search was interrupted"),
        (ZeroDivisionError(), "note: the search for what fits failed (ZeroDivisionError): a bug"),
    ):
        monkeypatch.setattr(snp_diagnosis, "explain_digest", fail(error))
        ran = run(*VERIFY, *GUEST)
        assert (ran.code, words in ran.err.splitlines()) == (1, True)
        assert "hint: another guest was started" in ran.err


def test_a_report_of_standard_input_is_not_in_a_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures(vcpus=3)
    text = io.BytesIO(Path("report").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(text))
    ran = run("snp", "verify", "-", "vcek", "--trust-root", "root", *GUEST, *LONG)
    assert "note: if you meant that: the same with --num-cpus 3" in ran.err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("vcek").read_bytes())))
    ran = run("snp", "verify", "report", "-", "--trust-root", "root", *GUEST, *LONG)
    assert "note: if you meant that: the same with --num-cpus 3" in ran.err


# what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-n 2 --cpu-model-name EPYC-Milan", "--firmware is needed"),
        ("-f fw --cpu-model-name EPYC-Milan", "needs the number of vCPUs: --num-cpus"),
        ("-f fw -n 2", "an SEV-SNP guest needs the vCPUs' state: --vmsa-cpu0"),
        ("-f fw -n 1-4 --cpu-model-name EPYC-Milan", "--num-cpus takes one number here"),
        ("-f fw -n 0 --cpu-model-name EPYC-Milan", "0 is not in 1..4096"),
        ("-f fw -n 2 --cpu-model-name EPYC-99", "EPYC-99"),
        ("-f fw -n 2 --cpu-model-name EPYC-Milan -e x", "--kernel is needed for --cmdline"),
        ("-f fw -n 2 --cpu-model-name EPYC-Milan --vars-size 0", "--svsm is needed"),
        ("-f fw -n 2 -0 v0 --guest-features 1", "--vmsa-cpu0/1 exclude --guest-features"),
        (f"--launch-digest {'00' * 48} -f fw", "--launch-digest excludes --firmware"),
        (f"--launch-digest {'00' * 48} -n 2", "--launch-digest excludes --num-cpus"),
        ("--explain", "--explain is for a guest that is described (--firmware ...)"),
        ("--firmware-dir .", "--firmware-dir is for a guest that is described (--firmware ...)"),
        ("-f - -n 2 --cpu-model-name EPYC-Milan --crl -", "only one input can be standard input"),
        ("-f - -n 2 -0 -", "only one input can be standard input"),
        ("--policy 1", "--policy"),
        ("--guest-features x", "'x' is no number"),
    ],
)
def test_options_that_are_missing_contradict_or_play_no_part(
    run: Run, options: str, words: str
) -> None:
    ran = run(*VERIFY, *options.split())
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("-f plain", 4, "plain: the firmware has no SEV metadata"),
        ("-f missing", 6, "missing: No such file or directory"),
        ("-f svsm", 6, "svsm: firmware: this is an SVSM"),
        ("--firmware-digest 00", 6, "--firmware-digest: firmware digest: 1 bytes, expected 48"),
        ("-k none", 6, "none: No such file or directory"),
    ],
)
def test_a_guest_that_cannot_be_measured_is_no_verdict(
    run: Run, options: str, code: int, words: str
) -> None:
    ran = run(*VERIFY, *GUEST, *options.split())
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err


# one reading of digests and report data


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--launch-digest", "ab" * 32, "32 bytes, expected 48 (96 hex digits)"),
        ("--launch-digest", base64.b64encode(b"\xff" * 48).decode(), "is not hex"),
        ("--launch-digest", base64.b64encode(b"\xff" * 72).decode(), "is not hex"),
        ("--launch-digest", "0x" + "ab" * 48, "is not hex"),
        ("--launch-digest", "", "0 bytes, expected 48"),
        ("--report-data", "ab" * 48, "48 bytes, expected 64 (128 hex digits)"),
        ("--report-data", base64.b64encode(bytes(64)).decode(), "is not hex"),
        ("--report-data", base64.b64encode(b"\xff" * 96).decode(), "is not hex"),
        ("--report-data", "0" * 127, "is not hex"),
    ],
)
def test_digest_and_report_data_are_hex_and_nothing_else(
    run: Run, option: str, text: str, words: str
) -> None:
    ran = run(*VERIFY, option, text)
    assert (ran.code, ran.out, words in ran.err) == (2, "", True)


def test_hex_that_is_base64_too_is_hex(run: Run) -> None:
    report = MILAN.report(report_data=b"\xab" * 64, measurement=b"\xcd" * 48)
    Path("report").write_bytes(report)
    for data, digest in (("ab" * 64, "cd" * 48), ("AB" * 64, "CD " * 48)):
        ran = run(*VERIFY, "--report-data", data, "--launch-digest", digest)
        assert (ran.code, ran.errors) == (0, [])
    ran = run(*VERIFY, "--report-data", "ba" * 64)
    assert (ran.code, "error: report_data is abab" in ran.err) == (1, True)


@pytest.mark.parametrize("form", ["{}", " {}\n", "\ufeff{}"])
def test_a_sha256_is_never_base64_of_a_longer_digest(form: str) -> None:
    """64 hex digits are base64 of 48 bytes too: the size that a launch digest has."""
    spaced = " ".join("ab" for _ in range(32))
    for text in ("ab" * 32, "AB" * 32, spaced, "abab\n" * 16):
        with pytest.raises(MalformedInput, match="32 bytes, expected 48: this is a SHA-256"):
            read_digest("--expect", form.format(text), "launch digest")
    digest = bytes(range(48))
    for text in (digest.hex(), digest.hex(" "), base64.b64encode(digest).decode()):
        assert read_digest("--expect", form.format(text), "launch digest") == digest
