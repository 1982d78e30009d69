"""``snp release --evidence``: written together with the sealed secrets, and without them."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Run
from schemas import misfits
from sev_attest._keys import Kem
from sev_attest.cli import outputs
from sev_attest.cli.evidence import parts
from sev_attest.errors import Insecure
from sev_attest.owner.snp_release import SnpRelease
from sev_attest.snp.sealed import SealedSecrets
from sev_attest.snp.transport import TransportKey
from snp_answers import OWNER, SECRETS
from snp_material import needs
from test_cli_evidence import forms
from test_cli_snp_release import RELEASE, TO, answer, asked, desk, kinds, opened, shown

__all__ = ["asked", "desk"]  # fixtures

pytestmark = needs(Kem.X25519)
EVIDENCE = ("--evidence", "e.json")
AGAIN = ("evidence", "verify", "e.json", "--json", "--trust-root", "ark.der")


def saved(ran: Ran, code: int) -> Any:
    """Return the evidence that a release, or its refusal, left."""
    assert ran.code == code, ran.err
    found = json.loads(Path("e.json").read_bytes())
    assert misfits(found) == []
    assert (found["command"], found["ok"], found["exit"]) == ("snp-release", code == 0, code)
    return found


def again(run: Run, *options: str, code: int) -> Any:
    ran = run(*AGAIN, *options)
    assert ran.code == code, ran.out
    return {one["check"]: one for one in json.loads(ran.out)["claims"]}


def test_a_release_leaves_evidence_that_is_recomputed(run: Run, asked: Path) -> None:
    found = saved(run(*RELEASE, *TO, *EVIDENCE), 0)
    sealed = SealedSecrets.from_json(Path("vm1.sealed.json").read_bytes())
    assert opened() == SECRETS
    key = TransportKey.from_json(Path("key.json").read_bytes())
    assert found["summary"] == (
        "the report verifies (its root is not AMD's): Genoa, VCEK, VMPL 0; "
        f"2 secrets were sealed to the x25519 key of vm1 (SHA-384 {key.digest.hex()})"
    )
    assert found["requirements"]["launch"] == "web"
    assert [one["kind"] for one in found["ledger"]] == ["created", "measured", "released"]
    assert base64.b64encode(sealed.report_digest).decode() in found["ledger"][1]["detail"]
    assert [one["what"] for one in found["inputs"]] == ["report"]
    assert found["repeat"] == (
        "sev-attest evidence verify e.json --trust-root ark.der --requirements owner.toml"
    )
    claims = again(run, "--requirements", "owner.toml", code=0)
    for check in ("snp.report.signature", "snp.report-data", "requirements", "ledger.events"):
        assert claims[check]["found"] is True, check
    assert again(run, code=0)["requirements"]["found"] is None


def test_one_secret_is_one(run: Run, asked: Path) -> None:
    found = saved(run(*RELEASE, "--secret", "a:luks", "--out", "s", *EVIDENCE), 0)
    assert "; 1 secret was sealed to the x25519 key of vm1 (" in found["summary"]


def without_report_data(evidence: Any) -> None:
    evidence["report"].update(report_data=None)
    evidence["checks"] = [one for one in evidence["checks"] if one["id"] != "snp.report-data"]


FORGERIES: dict[str, Callable[[Any], object]] = {
    "snp.report-data": without_report_data,
    "snp.report.signature": lambda e: e.update(report=None, checks=[]),
    "requirements": lambda e: e["requirements"].update(launch="db"),
    "ledger.events": lambda e: e["ledger"][2].update(kind="closed"),
}
"""By the claim that differs then."""


@pytest.mark.parametrize("check", FORGERIES)
def test_forged_evidence_of_a_release_is_refused(run: Run, asked: Path, check: str) -> None:
    found = saved(run(*RELEASE, *TO, *EVIDENCE), 0)
    FORGERIES[check](found)
    Path("e.json").write_text(json.dumps(found))
    claims = again(run, "--requirements", "owner.toml", code=1)
    assert claims[check]["agrees"] is False


def test_a_release_without_requirements_is_none(run: Run, asked: Path) -> None:
    found = saved(run(*RELEASE, *TO, *EVIDENCE), 0)
    Path("e.json").write_text(json.dumps(found | {"requirements": None}))
    assert again(run, code=1)["requirements"]["agrees"] is False
    refused = {"ok": False, "exit": 5, "requirements": None}
    Path("e.json").write_text(json.dumps(found | refused))
    assert "requirements" not in again(run, code=1)


def test_what_no_release_has_is_no_part_of_its_evidence(run: Run, asked: Path) -> None:
    found = saved(run(*RELEASE, *TO, *EVIDENCE), 0)
    part: dict[str, object] = {"digest": "00", "vcpus": None, "ranges": [], "kernel_hashes": None}
    Path("e.json").write_text(json.dumps(found | {"measured": part}))
    assert "is no part of snp-release" in run("evidence", "verify", "e.json").err


# refusals


def test_requirements_that_are_not_met_leave_evidence(run: Run, asked: Path) -> None:
    Path("owner.toml").write_text(OWNER.replace("1.55.43", "1.55.44"))
    found = saved(run(*RELEASE, *TO, "--requirements-now", *EVIDENCE), 1)
    assert found["requirements"]["met"] is False
    assert "secrets were" not in found["summary"]
    assert found["errors"][0]["check"] == "requirements.snp.minimum.firmware"
    claims = again(run, "--requirements", "owner.toml", code=1)
    assert claims["requirements"]["found"] is claims["requirements"]["claimed"] is False
    assert not (asked / "vm1.sealed.json").exists()


def test_a_release_of_another_launch_s_secrets_is_not_judged_again(run: Run, asked: Path) -> None:
    other = f'[[snp.launch]]\nname = "db"\ndigest = "{bytes(48).hex()}"\n'
    Path("owner.toml").write_text(f"{OWNER}\n{other}")
    found = saved(run(*RELEASE, *TO, "--requirements-now", "--launch", "db", *EVIDENCE), 1)
    assert found["requirements"]["met"] is False
    claim = again(run, "--requirements", "owner.toml", code=1)["requirements"]
    assert (claim["claimed"], claim["found"], claim["agrees"]) == (False, None, True)
    assert "they allow it as launch web; " in claim["why"]


def test_a_report_that_does_not_verify_leaves_evidence(run: Run, asked: Path) -> None:
    data = bytearray(Path("report.bin").read_bytes())
    data[0x90] ^= 1
    Path("report.bin").write_bytes(data)
    found = saved(run(*RELEASE, *TO, *EVIDENCE), 1)
    assert found["errors"][0]["check"] == "snp.report.signature"
    assert (found["requirements"]["met"], found["ledger"]) == (None, [])
    claims = again(run, "--requirements", "owner.toml", code=1)
    assert all(one["agrees"] for one in claims.values())


def _released(run: Run) -> None:
    assert run(*RELEASE, *TO).code == 0
    Path("vm1.sealed.json").unlink()


def _there(_run: Run) -> None:
    Path("vm1.sealed.json").touch()


@pytest.mark.parametrize(
    ("before", "options", "code", "check"),
    [
        (_released, (), 5, "ledger.released"),
        (_there, (), 6, "output.exists"),
        (_there, ("--ledger", "other"), 6, "ledger.missing"),
    ],
    ids=["released", "exists", "no-ledger"],
)
def test_a_refusal_of_the_ledger_leaves_what_is_known_of_the_report(
    run: Run,
    asked: Path,
    before: Callable[[Run], None],
    options: tuple[str, ...],
    code: int,
    check: str,
) -> None:
    before(run)
    ran = run(*RELEASE, *TO, *options, *EVIDENCE, "--json")
    found = saved(ran, code)
    document = json.loads(ran.out)
    assert misfits(document) == []
    assert (document["product"], document["failed"]) == ("Genoa", [])
    assert found["errors"][0]["check"] == check
    claims = again(run, "--requirements", "owner.toml", code=1)
    assert all(one["agrees"] for one in claims.values())
    assert claims["snp.report.signature"]["found"] is True


# its file


def test_the_places_are_tried_before_the_ledger_commits(run: Run, asked: Path) -> None:
    Path("e.json").write_text("mine")
    ran = run(*RELEASE, *TO, *EVIDENCE)
    assert (ran.code, "e.json: exists already" in ran.err) == (6, True)
    assert kinds(run) == ["created"]
    same = ("--secret", "a:luks", "--out", "same.json", "--evidence", "same.json")
    ran = run(*RELEASE, *same)
    assert (ran.code, "two of the outputs are one file" in ran.err) == (2, True)
    assert kinds(run) == ["created", "measured"]
    assert not Path("same.json").exists()
    assert run(*RELEASE, *TO, *EVIDENCE, "--force").code == 0
    ran = run(*RELEASE, *TO, "--evidence", "e.txt")
    assert (ran.code, "ends in .html or .json" in ran.err) == (2, True)


@pytest.mark.parametrize("at", ["made", "written"])
def test_no_secret_is_out_whose_evidence_is_not(
    run: Run, asked: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    place = outputs._place

    def full(temporary: str, path: str) -> None:
        if path == "e.json":
            raise OSError(28, "No space left on device", "e.json")
        place(temporary, path)

    def broken() -> None:
        raise OSError(28, "No space left on device", "e.json")

    if at == "written":
        monkeypatch.setattr(outputs, "_place", full)
    else:
        monkeypatch.setattr(parts, "_software", broken)
    ran = run(*RELEASE, *TO, *EVIDENCE)
    assert (ran.code, ran.out) == (6, "")
    assert "error: e.json: No space left on device" in ran.err
    assert "note: the one release of this challenge is spent: make a new one" in ran.err
    assert {*asked.glob("*.sealed.json"), *asked.glob("e.*"), *asked.glob(".sev-attest*")} == set()
    entry = shown(run)["session"]
    assert (entry["state"], entry["note"]) == ("failed", "the sealed secrets did not get out")


def test_a_commit_that_fails_leaves_no_evidence_of_a_release(
    run: Run, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_steps: SnpRelease) -> SealedSecrets:
        raise Insecure("another machine released it", check="ledger.released")

    monkeypatch.setattr(SnpRelease, "commit", lost)
    found = saved(run(*RELEASE, *TO, *EVIDENCE), 3)
    assert found["summary"] == "another machine released it"
    assert not (asked / "vm1.sealed.json").exists()


def test_an_interruption_right_after_the_commit_is_in_the_ledger(
    run: Run, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("sev_attest.cli.commands.snp_release.allowed_as", interrupted)
    ran = run(*RELEASE, *TO, *EVIDENCE)
    assert ran.code == 130
    assert "the one release of this challenge is spent" in ran.err
    assert not (asked / "vm1.sealed.json").exists()
    assert shown(run)["session"]["state"] == "failed"


def test_an_interruption_leaves_no_evidence(
    run: Run, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_steps: SnpRelease) -> SealedSecrets:
        raise KeyboardInterrupt

    monkeypatch.setattr(SnpRelease, "commit", interrupted)
    assert run(*RELEASE, *TO, *EVIDENCE).code == 130
    assert not (asked / "e.json").exists()


# what is never in it


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("more", [(), ("--json",), ("-v",)])
def test_no_evidence_of_a_release_has_a_secret_or_what_is_sealed(
    run: Run, asked: Path, more: tuple[str, ...], *, allowed: bool
) -> None:
    pytest.importorskip("jinja2", reason="Jinja2 is not installed")
    canary = b"canary 7f3a9c41"
    Path("luks").write_bytes(canary)
    private = hashlib.sha256(canary).digest()
    answer(seed=int.from_bytes(private, "big"))
    text = OWNER if allowed else OWNER.replace("1.55.43", "1.55.44")
    Path("owner.toml").write_text(text)
    options = ("--requirements-now", *EVIDENCE, "--evidence", "e.html", *more)
    assert run(*RELEASE, *TO, *options).code == (0 if allowed else 1)
    secrets = [canary, private]
    if allowed:
        document = json.loads(Path("vm1.sealed.json").read_bytes())
        sealed = max((v for v in document.values() if isinstance(v, str)), key=len)
        secrets.append(base64.b64decode(sealed))
        assert len(secrets[-1]) > 64
    for name in ("e.json", "e.html"):
        data = Path(name).read_bytes()
        assert not any(form in data for secret in secrets for form in forms(secret)), name
        assert Path(name).stat().st_mode & 0o777 == 0o600


HOSTILE = "<script>alert(1)</script>\u202e\x9b2J"


def test_hostile_text_of_a_release_stays_text(run: Run, asked: Path) -> None:
    pytest.importorskip("jinja2", reason="Jinja2 is not installed")
    Path("owner.toml").write_text(OWNER.replace('"web"', json.dumps(HOSTILE)))
    Path("report.bin").rename("<img src=x onerror=alert(1)>\u202e.bin")
    release = [one.replace("report.bin", "<img src=x onerror=alert(1)>\u202e.bin")
               for one in RELEASE]  # fmt: skip
    options = ("--requirements-now", *EVIDENCE, "--evidence", "e.html")
    assert run(*release, *TO, *options).code == 0
    page = Path("e.html").read_text(encoding="utf-8")
    assert "<h1>A release of secrets to an SEV-SNP guest</h1>" in page
    assert "Evidence of <code>sev-attest snp release</code>" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x202e\\x9b2J" in page
    assert "&lt;img src=x onerror=alert(1)&gt;\\x202e.bin" in page
    assert not [text for text in ("<script", "<img", "\u202e", "\x9b") if text in page]
    assert run("evidence", "show", "e.json", "--output", "again.html").code == 0
    assert Path("again.html").read_text(encoding="utf-8") == page
