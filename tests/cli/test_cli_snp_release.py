"""``sev-attest snp challenge`` and ``snp release``: one report for a challenge, one release."""

import json
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Run
from sev_attest import Unsupported, _crypto
from sev_attest._keys import Kem
from sev_attest.cli.commands import snp_challenge
from sev_attest.cli.options.snp_release import SnpReleaseOptions
from sev_attest.owner import Ledger, create_challenge
from sev_attest.owner.snp_release import SnpRelease
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.sealed import SealedSecrets, open_sealed
from sev_attest.snp.transport import TransportPrivateKey
from snp_answers import OWNER, SECRETS, raw_answer
from snp_demands import GENOA
from snp_material import needs

pytestmark = needs(Kem.X25519)
RELEASE = (
    "snp", "release", "report.bin", "certs.der", "--trust-root", "ark.der",
    "--challenge", "vm1.challenge.json", "--transport-key", "key.json",
    "--requirements", "owner.toml",
)  # fmt: skip
TO = ("--secret", "luks-key:luks", "--secret", "token:token", "--out", "vm1.sealed.json")


def challenge(run: Run, *options: str, name: str = "vm1") -> Ran:
    return run("snp", "challenge", "--name", name, *options)


def answer(name: str = "vm1", seed: int = 7) -> None:
    """Write what the guest answers to a challenge."""
    asked = Challenge.from_json(Path(f"{name}.challenge.json").read_bytes())
    report, key = raw_answer(asked, seed)
    Path("report.bin").write_bytes(report)
    Path("key.json").write_bytes(key)


def opened(name: str = "vm1.sealed.json", seed: int = 7) -> dict[str, bytes]:
    """Open sealed secrets in the guest."""
    return open_sealed(
        SealedSecrets.from_json(Path(name).read_bytes()),
        TransportPrivateKey(kem=Kem.X25519, private=seed.to_bytes(32, "big")),
        AttestationReport.from_bytes(Path("report.bin").read_bytes()),
        Challenge.from_json(Path("vm1.challenge.json").read_bytes()),
    )


def shown(run: Run, name: str = "vm1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("ledger", "show", name, "--json").out)
    return found


def kinds(run: Run, name: str = "vm1") -> list[str]:
    return [event["kind"] for event in shown(run, name)["events"]]


@pytest.fixture
def desk(here: Path) -> Path:
    for name, data in {
        "certs.der": GENOA.certificates(),
        "ark.der": GENOA.authority.ark,
        "owner.toml": OWNER.encode(),
        "luks": SECRETS["luks-key"],
        "token": SECRETS["token"],
    }.items():
        Path(name).write_bytes(data)
    return here


@pytest.fixture
def asked(run: Run, desk: Path) -> Path:
    """Make a challenge, and have the honest guest answer it."""
    assert challenge(run, "--requirements", "owner.toml").code == 0
    answer()
    return desk


# challenges


def test_a_challenge_is_a_file_for_the_guest_and_an_attempt_in_the_ledger(
    run: Run, desk: Path
) -> None:
    ran = challenge(run, "--valid-for", "2", "--kem", "x25519", "--out", "out", "-v")
    assert (ran.code, ran.err) == (6, "error: out/vm1.challenge.json: there is no folder out\n")
    (desk / "out").mkdir()
    ran = challenge(run, "--valid-for", "2", "--kem", "x25519", "--out", "out", "-v")
    assert challenge(run, "--valid-for", "1", name="vm2").out == (
        "wrote vm2.challenge.json, valid for 1 hour\n"
    )
    path = desk / "out" / "vm1.challenge.json"
    made = Challenge.from_json(path.read_bytes())
    assert (ran.code, ran.err) == (0, "")
    assert made.expires is not None
    assert (made.expires - made.created, made.kems) == (timedelta(hours=2), (Kem.X25519,))
    entry = shown(run)["session"]
    assert ran.lines == [
        "wrote out/vm1.challenge.json, valid for 2 hours",
        f"expires: {made.expires.isoformat()}",
        f"attempt: {entry['session_id']}",
    ]
    assert (entry["technology"], entry["state"]) == ("snp", "created")
    assert entry["expires"] == made.expires.isoformat()


def test_its_document_has_a_name_that_no_file_has(run: Run, desk: Path) -> None:
    ran = challenge(run, "--json", "--requirements", "owner.toml")
    found = json.loads(ran.out)
    assert found["schema"] == "sev-attest/snp-challenge-made/1"
    assert found["attempt"] == shown(run)["session"]["session_id"]
    assert found["kems"] == [kem.label for kem in Kem]
    assert found["files"] == ["vm1.challenge.json"]
    assert len(found["requirements"]) == 64
    again = json.loads(challenge(run, "--json").out)
    assert (again["schema"], again["ok"]) == (found["schema"], False)
    file = json.loads((desk / "vm1.challenge.json").read_bytes())
    assert file["schema"] == "sev-attest/snp-challenge/1"
    assert challenge(run, "-q", name="vm2").out == ""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--name", "../x"], 2, "'../x' cannot begin a file's name"),
        (["--name", "x", "--kem", "x25519", "--kem", "x25519"], 2, "names a kind of key twice"),
        (["--name", "x", "--ledger", "none"], 2, "a challenge needs a ledger"),
        (["--name", "x", "--valid-for", "0"], 2, "--valid-for"),
        (["--name", "x", "--requirements", "nothing"], 6, "nothing: No such file"),
        (["--name", "vm1"], 6, "vm1.challenge.json: exists already"),
        (["--name", "vm1", "--force"], 5, "vm1 waits already"),
    ],
)
def test_a_challenge_that_cannot_be_is_refused(
    run: Run, asked: Path, options: list[str], code: int, words: str
) -> None:
    ran = run("snp", "challenge", *options)
    assert ran.code == code
    assert words in ran.err
    assert len(json.loads(run("ledger", "list", "--json").out)["sessions"]) == 1
    assert not (asked / "x.challenge.json").exists()


def test_a_challenge_whose_file_is_not_written_is_none(
    run: Run, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **_more: object) -> None:
        raise OSError(28, "No space left on device", "vm1.challenge.json")

    with monkeypatch.context() as patch:
        patch.setattr(snp_challenge, "write_all", full)
        assert challenge(run).code == 6
    entry = shown(run)["session"]
    assert (entry["state"], entry["note"]) == ("failed", "its file was not written")
    assert challenge(run).code == 0  # the name is free


# releases


def test_from_a_challenge_to_a_released_secret(run: Run, asked: Path) -> None:
    ran = run(*RELEASE, *TO)
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[0] == "OK: the report verifies (its root is not AMD's): Genoa, VCEK, VMPL 0"
    assert ran.lines[1] == "OK: the requirements allow it as launch web"
    assert ran.lines[2] == "OK: 2 secrets sealed to the x25519 key of vm1: vm1.sealed.json"
    assert len(ran.lines) == 3
    assert ran.notes == ["note: this root is not AMD's: it was trusted only because it was named"]
    assert opened() == SECRETS
    assert stat.S_IMODE((asked / "vm1.sealed.json").stat().st_mode) == 0o600
    assert kinds(run) == ["created", "measured", "released"]
    assert run("ledger", "verify").code == 0


def test_its_document_says_what_was_released_to_whom(run: Run, asked: Path) -> None:
    found = json.loads(run(*RELEASE, *TO, "--json").out)
    sealed = SealedSecrets.from_json(Path("vm1.sealed.json").read_bytes())
    assert found["schema"] == "sev-attest/snp-release/1"
    assert found["challenge"] == "vm1"
    assert found["report_sha384"] == sealed.report_digest.hex()
    assert found["transport_key"]["kem"] == "x25519"
    assert (found["secrets"], found["files"]) == (2, ["vm1.sealed.json"])
    assert found["requirements"] == {"launch": "web", "guest": ""}
    entry = shown(run)["session"]
    assert (entry["session_id"], entry["report_sha384"]) == (
        found["attempt"], found["report_sha384"],
    )  # fmt: skip
    again = json.loads(run(*RELEASE, *TO, "--force", "--json").out)
    assert again["errors"][0]["check"] == "ledger.released"


def test_quiet_prints_nothing(run: Run, asked: Path) -> None:
    ran = run(*RELEASE, *TO, "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert opened() == SECRETS


def test_a_source_has_the_secrets_of_the_launch(run: Run, asked: Path) -> None:
    folder = asked / "web"
    folder.mkdir(mode=0o700)
    (folder / "luks-key").write_bytes(b"of web")
    (folder / "luks-key").chmod(0o600)
    ran = run(*RELEASE, "--secret-source", "folder:{launch}", "--out", "vm1.sealed.json")
    assert ran.code == 0
    assert "OK: 1 secret sealed to the x25519 key" in ran.out
    assert opened() == {"luks-key": b"of web"}


def _other_guest(_run: Run) -> None:
    answer(seed=9)


def _other_key(_run: Run) -> None:
    key = Path("key.json").read_bytes()
    answer(seed=9)
    Path("key.json").write_bytes(key)


def _edited(_run: Run) -> None:
    path = Path("vm1.challenge.json")
    made = Challenge.from_json(path.read_bytes())
    path.write_bytes(replace(made, expires=None).to_json())


def _other_nonce(_run: Run) -> None:
    path = Path("vm1.challenge.json")
    made = Challenge.from_json(path.read_bytes())
    path.write_bytes(replace(made, nonce=bytes(32)).to_json())
    answer()


def _unmet(_run: Run) -> None:
    path = Path("owner.toml")
    path.write_text(path.read_text().replace("1.55.43", "1.55.44"))


def _restored(_run: Run) -> None:
    Path("owner.toml").write_text(OWNER)


def _closed(run: Run) -> None:
    assert run("ledger", "close", "vm1").code == 0


def _flipped(_run: Run) -> None:
    data = bytearray(Path("report.bin").read_bytes())
    data[0x90] ^= 1
    Path("report.bin").write_bytes(data)


def _untrusted(_run: Run) -> None:
    Path("ark.der").write_bytes(b"x")


def _bound(run: Run) -> None:
    assert run(*RELEASE, "--secret", "x:luks", "--out", "nowhere/x").code == 6
    answer(seed=9)


@pytest.mark.parametrize(
    ("fault", "code", "check", "after"),
    [
        (_other_key, 1, "snp.report-data", ["created"]),
        (_edited, 1, "challenge.changed", ["created"]),
        (_other_nonce, 5, "ledger.unknown", ["created"]),
        (_unmet, 1, "requirements.changed", ["created", "measured"]),
        (_closed, 5, "ledger.closed", ["created", "closed"]),
        (_flipped, 1, "snp.report.signature", ["created"]),
        (_untrusted, 6, "certificates.base64", ["created"]),
        (_bound, 3, "ledger.reused", ["created", "measured", "refused"]),
    ],
)
def test_each_fault_is_refused_by_its_name(
    run: Run, asked: Path, fault: Any, code: int, check: str, after: list[str]
) -> None:
    fault(run)
    ran = run(*RELEASE, *TO, "--json")
    found = json.loads(ran.out)
    assert ran.code == code
    assert found["schema"] == "sev-attest/snp-release/1"
    assert found["errors"][0]["check"] == check, found
    assert kinds(run) == after
    assert not (asked / "vm1.sealed.json").exists()


def test_requirements_that_are_not_met_are_all_told(run: Run, asked: Path) -> None:
    _unmet(run)
    ran = run(*RELEASE, *TO, "--requirements-now")
    assert ran.code == 1
    assert ran.lines[0].startswith("NOT ALLOWED: ")
    assert "note: the report itself verifies" in ran.err
    found = json.loads(run(*RELEASE, *TO, "--requirements-now", "--json").out)
    assert found["failed"] == ["requirements.snp.minimum.firmware"]
    assert found["report"]["vmpl"] == 0
    assert kinds(run) == ["created", "measured", "requirements"]
    Path("owner.toml").write_text(OWNER)
    assert run(*RELEASE, *TO).code == 0


def test_what_cannot_be_read_of_the_report_is_said_as_verify_says_it(run: Run, asked: Path) -> None:
    _flipped(run)
    ran = run(*RELEASE, *TO)
    assert ran.lines[0].startswith("NOT VERIFIED: ")
    assert ran.code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "x"], "--secret or --secret-source is needed"),
        (["--secret", "a:luks", "--secret-source", "x", "--out", "x"], "excludes --secret"),
        (["--secret", "luks", "--out", "x"], "a secret is given as NAME:PATH"),
        (["--secret", "a b:luks", "--out", "x"], "a secret is given as NAME:PATH"),
        (
            ["--secret", "a:luks", "--secret", "a:token", "--out", "x"],
            "there are two secrets for a",
        ),
        (["--secret", "a:-", "--secret", "b:-", "--out", "x"], "standard input"),
        (["--secret", "a:luks", "--out", "-"], "not to standard output"),
        (["--secret", "a:luks", "--out", "x", "--ledger", "none"], "a release needs the ledger"),
        (["--secret", "a:luks", "--out", "x", "--launch", "db"], "no launch 'db': web"),
        (["--secret", "a:luks"], "--out"),
        (["--secret", "a:luks", "--out", "x", "--at", "2026-01-01"], "No such option"),
    ],
)
def test_a_usage_error_is_told_and_costs_nothing(
    run: Run, asked: Path, options: list[str], words: str
) -> None:
    ran = run(*RELEASE, *options)
    assert ran.code == 2
    assert words in ran.err
    assert kinds(run) == ["created"]


def test_a_ledger_that_is_missing_is_not_made(run: Run, asked: Path) -> None:
    ran = run(*RELEASE, *TO, "--ledger", "other")
    assert ran.code == 6
    assert "hint: `sev-attest snp challenge --ledger other` begins one" in ran.err
    assert not (asked / "other").exists()


def test_a_place_that_cannot_be_written_is_found_before_the_release(run: Run, asked: Path) -> None:
    (asked / "vm1.sealed.json").write_text("there already")
    ran = run(*RELEASE, *TO)
    assert ran.code == 6
    assert "vm1.sealed.json: exists already" in ran.err
    assert kinds(run) == ["created", "measured"]
    assert run(*RELEASE, *TO, "--force").code == 0
    assert opened() == SECRETS


def test_secrets_that_did_not_get_out_are_spent_and_the_ledger_says_so(
    run: Run, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **_more: object) -> None:
        raise OSError(28, "No space left on device", "vm1.sealed.json")

    with monkeypatch.context() as patch:
        patch.setattr(SnpReleaseOptions, "write", full)
        ran = run(*RELEASE, *TO)
    assert ran.code == 6
    assert "note: the one release of this challenge is spent: make a new one" in ran.err
    entry = shown(run)["session"]
    assert (entry["state"], entry["note"]) == ("failed", "the sealed secrets did not get out")
    assert run(*RELEASE, *TO).code == 5


def test_who_interrupts_the_commit_is_told_that_it_may_be_released(
    run: Run, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_steps: SnpRelease) -> SealedSecrets:
        raise KeyboardInterrupt

    monkeypatch.setattr(SnpRelease, "commit", interrupted)
    ran = run(*RELEASE, *TO)
    assert ran.code == 130
    assert "the challenge may be released, without its secrets: look with" in ran.err
    assert not (asked / "vm1.sealed.json").exists()


def test_an_older_cryptography_is_said_before_anything_is_written(
    run: Run, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(_kem: Kem) -> None:
        raise Unsupported("the installed cryptography is too old", check="hpke")

    monkeypatch.setattr(_crypto, "require_hpke", older)
    ran = run(*RELEASE, *TO)
    assert (ran.code, ran.err.splitlines()[0]) == (
        2, "error: the installed cryptography is too old",
    )  # fmt: skip
    assert kinds(run) == ["created"]


# the ledger, and verify


def test_the_ledger_s_commands_know_challenges(run: Run, asked: Path) -> None:
    attempt = shown(run)["session"]["session_id"]
    (line,) = run("ledger", "list").lines
    assert line == f"{attempt[:12]}  vm1  created: no report was verified yet (SEV-SNP)"
    text = run("ledger", "show", "vm1").out
    assert "technology: snp\n" in text
    assert "platform: verified with each report\n" in text
    assert '"nonce"' in text
    assert run(*RELEASE, *TO).code == 0
    digest = json.loads(Path("vm1.sealed.json").read_bytes())["report_sha384"]
    assert f"report sha384: {digest}\n" in run("ledger", "show", "vm1").out
    (entry,) = json.loads(run("ledger", "export").out)["sessions"]
    assert (entry["technology"], entry["state"]) == ("snp", "released")
    assert challenge(run, name="vm2").code == 0
    assert run("ledger", "close", "vm2", "--reason", "not needed").code == 0
    assert run("ledger", "expire").code == 0
    assert run("ledger", "verify").code == 0


def test_validate_does_not_take_a_challenge_for_a_session(run: Run, asked: Path) -> None:
    with Ledger.open(Path("kek-store")) as ledger:
        create_challenge(ledger, "vm1")
    kek = asked / "kek"
    kek.write_bytes(bytes(32))
    kek.chmod(0o600)
    ran = run(
        "validate", "--session", "vm1", "--store", "kek-store", "--kek", "kek", "-m", "x",
        "--api-major", "1", "--api-minor", "55", "--build-id", "1", "-f", "luks",
    )  # fmt: skip
    assert ran.code == 5
    assert "vm1 is a challenge in the ledger" in ran.err


def test_verify_checks_the_binding_without_a_ledger(run: Run, asked: Path) -> None:
    verify = ("snp", "verify", "report.bin", "certs.der", "--trust-root", "ark.der")
    binding = ("--challenge", "vm1.challenge.json", "--transport-key", "key.json")
    ran = run(*verify, *binding)
    assert ran.code == 0
    assert "nothing shows that this report is fresh" not in ran.out
    _other_key(run)
    ran = run(*verify, *binding, "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["failed"] == ["snp.report-data"]
    assert run(*verify, *binding[:2]).code == 2
    assert run(*verify, *binding, "--report-data", "00" * 64).code == 2
    assert run(*verify, "--challenge", "owner.toml", "--transport-key", "key.json").code == 6
    assert kinds(run) == ["created"]


def test_no_secret_is_in_any_output_or_file(run: Run, asked: Path) -> None:
    canary = b"canary 7f3a9c41"
    Path("luks").write_bytes(canary)
    said = ""
    for fault in (_unmet, _restored, _other_guest):
        fault(run)
        for more in (["-v"], ["--json"]):
            ran = run(*RELEASE, *TO, "--force", *more)
            said += ran.out + ran.err
    said += run("ledger", "export").out
    private = (7).to_bytes(32, "big")
    kept = b"".join(path.read_bytes() for path in asked.iterdir() if path.name != "luks")
    for form in (canary, canary.hex().encode(), private.hex().encode()):
        assert form not in said.encode() + kept
