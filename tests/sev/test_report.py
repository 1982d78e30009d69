"""report.py, ``sev-attest report verify`` and ``sev-attest secret build``."""

import base64
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest import LaunchRefused, MalformedInput, SevAttestError, sev
from sev_attest.sev.report import CHECKS
from sev_attest.testing import Guest, Platform, launch_guest, ovmf_image

OVMF = ovmf_image(4096)
NONCE = bytes(range(16))
B64 = base64.b64encode(NONCE).decode()
DIGEST = sev.launch_digest(OVMF)
TRUSTING = ("--trust-root", "root")


@pytest.fixture(scope="module")
def guest(milan: Platform) -> Guest:
    return launch_guest(milan, policy=1, firmware=OVMF)


@pytest.fixture(scope="module")
def report(guest: Guest) -> bytes:
    return guest.platform.attestation(guest.handle, NONCE)


@pytest.fixture
def files(here: Path, milan: Platform, report: bytes) -> Path:
    """Lay out a report and its platform's chain."""
    authority = milan.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("chain").write_bytes(milan.export().to_bytes())
    Path("report").write_bytes(report)
    Path("fw").write_bytes(OVMF)
    return here


def test_an_honest_report_verifies(report: bytes, verified: sev.VerifiedChain) -> None:
    parsed = sev.AttestationReport.from_bytes(report)
    assert (parsed.nonce, parsed.digest, parsed.policy) == (NONCE, DIGEST, sev.GuestPolicy(1))
    for meant in ({}, {"digest": DIGEST, "policy": sev.GuestPolicy(1)}):
        found = sev.verify_report(parsed, verified, nonce=NONCE, **meant)  # type: ignore[arg-type]
        assert (found.report, found.platform) == (parsed, verified)


def test_every_flipped_bit_of_a_report_is_refused(
    report: bytes, verified: sev.VerifiedChain
) -> None:
    for bit in range(208 * 8):
        changed = bytearray(report)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((MalformedInput, LaunchRefused)) as caught:
            sev.verify_report(
                sev.AttestationReport.from_bytes(bytes(changed)), verified, nonce=NONCE
            )
        if bit < 0x34 * 8:
            assert caught.value.check == "report.signature"


@pytest.mark.parametrize(
    ("meant", "check"),
    [
        ({"nonce": bytes(16)}, "report.nonce"),
        ({"policy": sev.GuestPolicy(5)}, "report.policy"),
        ({"digest": bytes(32)}, "report.digest"),
        ({"nonce": bytes(15)}, "nonce.length"),
        ({"digest": bytes(31)}, "launch-digest.length"),
    ],
)
def test_a_report_of_something_else_is_refused(
    report: bytes, verified: sev.VerifiedChain, meant: dict[str, Any], check: str
) -> None:
    parsed = sev.AttestationReport.from_bytes(report)
    with pytest.raises(SevAttestError) as caught:
        sev.verify_report(parsed, verified, **({"nonce": NONCE} | meant))
    assert caught.value.check == check


def test_another_platform_s_report_is_refused(report: bytes) -> None:
    other = Platform(b"another")
    chain = sev.verify_chain(other.export(), roots=[other.authority.root])
    with pytest.raises(LaunchRefused, match="PEK's signature"):
        sev.verify_report(sev.AttestationReport.from_bytes(report), chain, nonce=NONCE)


def test_only_verified_things_count(
    report: bytes, milan: Platform, verified: sev.VerifiedChain
) -> None:
    parsed = sev.AttestationReport.from_bytes(report)
    with pytest.raises(TypeError, match="VerifiedChain"):
        sev.verify_report(parsed, milan.export(), nonce=NONCE)  # type: ignore[arg-type]
    found = sev.verify_report(parsed, verified, nonce=NONCE)
    with pytest.raises(TypeError, match="only verify_report"):
        sev.VerifiedReport(**{f.name: getattr(found, f.name) for f in fields(found)})
    with pytest.raises(TypeError):
        replace(found, report=parsed)


@pytest.mark.parametrize("form", ["binary", "base64", "qmp", "qmp-return"])
def test_the_command_reads_every_form(run: Run, files: Path, report: bytes, form: str) -> None:
    text = base64.b64encode(report).decode()
    forms = {
        "binary": report,
        "base64": text.encode(),
        "qmp": json.dumps({"data": text}).encode(),
        "qmp-return": json.dumps({"return": {"data": text}}).encode(),
    }
    Path("report").write_bytes(forms[form])
    given = ("report", "verify", "report", "chain", "--nonce", B64, *TRUSTING)
    ran = run(*given, "--firmware", "fw", "--policy", "1")
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[0] == "OK: the platform signed this report"
    assert ran.lines[1:3] == [f"launch digest: {DIGEST.hex()}", "policy: 0x0001"]
    assert "compared with none" not in ran.err
    loose = run(*given, "-v")
    assert loose.err.count("compared with none") == 2
    assert "-    report.digest" in loose.out
    document = json.loads(run(*given, "--launch-digest", DIGEST.hex(), "--json").out)
    assert document["schema"] == "sev-attest/report verify/1"
    assert {c["id"]: c["ok"] for c in document["checks"]} == dict.fromkeys(CHECKS, True) | {
        "report.policy": None
    }
    assert run(*given, "-q").out == ""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("--nonce AAAA", 6, "--nonce: nonce: 3 bytes"),
        (f"--nonce {base64.b64encode(bytes(16)).decode()}", 1, "answers another nonce"),
        (f"--nonce {B64} --policy 3", 1, "under policy 0x0001, not 0x0003"),
        (f"--nonce {B64} --launch-digest {'00' * 32}", 1, "another launch digest than expected"),
        (f"--nonce {B64} --launch-digest 00", 6, "--launch-digest: launch digest: 1 bytes"),
        (f"--nonce {B64} -f fw --policy 5 --cpu-model-name EPYC", 2, "needs the number of vCPUs"),
        (f"--nonce {B64} -f fw -n 2 --cpu-model-name EPYC", 2, "--policy is needed beside the"),
        (f"--nonce {B64} --policy 1 --num-cpus 4", 2, "--firmware (or --launch-digest) is needed"),
        (f"--nonce {B64} --policy 1 --kernel nowhere", 2, "--firmware (or --launch-digest)"),
        ("--nonce 0123456789abcdef", 6, "--nonce: nonce: 12 bytes (decoded from text)"),
        ("", 2, "Missing option '--nonce'"),
    ],
)
def test_a_report_that_is_not_right_gets_one_clear_line(
    run: Run, files: Path, options: str, code: int, words: str
) -> None:
    ran = run("report", "verify", "report", "chain", *options.split(), *TRUSTING)
    assert ran.code == code
    assert words in ran.err
    assert ran.err.count("error: ") == 1


def test_a_nonce_that_looks_like_json_is_none(run: Run, files: Path, guest: Guest) -> None:
    nonce = b"{" * 16
    Path("report").write_bytes(guest.platform.attestation(guest.handle, nonce))
    asked = base64.b64encode(nonce).decode()
    assert run("report", "verify", "report", "chain", "--nonce", asked, *TRUSTING).code == 0


def test_what_is_no_report_is_refused(run: Run, files: Path) -> None:
    for data, words in (
        (bytes(207), "207 bytes, expected 208"),
        (b"{}", 'the JSON has no "data" text'),
        (b'{"data": 5}', 'the JSON has no "data" text'),
        (b"[" * 99999, "this is no JSON"),
        (b"[1]", "the JSON is no object"),
    ):
        Path("odd").write_bytes(data)
        ran = run("report", "verify", "odd", "chain", "--nonce", B64, *TRUSTING)
        assert (ran.code, ran.out) == (6, "")
        assert f"odd: attestation report: {words}" in ran.err
    refused = run("report", "verify", "report", "chain", "--nonce", B64)
    assert refused.code == 1
    verbose = run("report", "verify", "report", "chain", "--nonce", B64, "-v", "--policy", "9",
                  *TRUSTING)  # fmt: skip
    assert "FAIL report.policy" in verbose.out


# secret build


@pytest.fixture
def packet(here: Path, milan: Platform, verified: sev.VerifiedChain) -> tuple[Guest, str]:
    """Launch a guest in a session, and lay out its keys and a secret."""
    session = sev.Session.create(verified, policy=sev.GuestPolicy(1))
    godh, blob = session.godh.to_bytes(), session.blob
    started = launch_guest(milan, policy=1, firmware=OVMF, godh=godh, session=blob)
    Path("tk").write_bytes(session.keys.tek + session.keys.tik)
    Path("tik").write_bytes(session.keys.tik)
    Path("tek").write_bytes(session.keys.tek)
    Path("key").write_bytes(b"hunter2")
    return started, base64.b64encode(started.measurement).decode()


@pytest.mark.parametrize("form", ["base64", "binary"])
@pytest.mark.parametrize("keys", ["--tk tk", "--tik tik --tek tek"])
def test_a_packet_is_built_without_a_verdict_if_asked_to(
    run: Run, packet: tuple[Guest, str], form: str, keys: str
) -> None:
    started, measurement = packet
    given = ("secret", "build", "h", "p", *keys.split(), "-m", measurement, "-s", "luks-key:key")
    refused = run(*given)
    assert (refused.code, refused.out) == (3, "")
    assert not Path("h").exists()
    ran = run(*given, "--insecure", "--format", form, "-v")
    assert ran.code == 0
    assert "note: INSECURE" in ran.err
    decode = base64.b64decode if form == "base64" else bytes
    parts = [decode(Path(name).read_bytes()) for name in "hp"]
    assert list(started.inject(*parts).values()) == [b"hunter2"]
    assert run(*given, "--insecure").code == 6
    document = json.loads(run(*given, "--insecure", "--force", "--json").out)
    assert (document["schema"], document["size"]) == ("sev-attest/secret build/1", 48)
    assert run(*given, "--insecure", "--force", "-q").out == ""
    assert run(*given, "--insecure", "--force").lines[0] == "wrote 1 secret, 48 bytes"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("h p --tk tk -m {m} -s key", 2, "given as ALIAS-OR-GUID:PATH"),
        ("h p --tk tk -m AAAA -s luks-key:key", 6, "--measurement: measurement: 3 bytes"),
        ("h h --tk tk -m {m} -s luks-key:key", 2, "are one file"),
        ("h p -m {m} -s luks-key:key", 2, "the session's keys are needed"),
        ("h p --tk tk -s luks-key:key", 2, "Missing option '-m'"),
        ("h p --tk - -m {m} -s luks-key:-", 2, "only one input can be standard input"),
        ("h p --tk tk -m {m} -s luks-key:nowhere", 6, "the file of secret luks-key: No such"),
        ("h p --tk key -m {m} -s luks-key:key", 6, "key: TK: 7 characters that are no base64"),
    ],
)
def test_bad_input_to_secret_build_gets_one_clear_line(
    run: Run, packet: tuple[Guest, str], options: str, code: int, words: str
) -> None:
    ran = run("secret", "build", *options.format(m=packet[1]).split(), "--insecure")
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert not Path("h").exists()


def test_a_report_of_sev_snp_is_called_what_it_is(run: Run, files: Path) -> None:
    (files / "report").write_bytes(bytes((2, *[0] * 9, 3, 0)).ljust(1184, b"\0"))
    ran = run("report", "verify", "report", "chain", "--nonce", B64, *TRUSTING)
    assert ran.code == 6
    assert "error: report: attestation report: this is an SEV-SNP attestation" in ran.err
