"""``sev-attest guest request`` and ``guest open``, on a simulated kernel."""

import errno
import hashlib
import json
import os
import stat
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import Ran, Run
from guest_kernel import Firmware, Tsm
from sev_attest._keys import Kem
from sev_attest.cli import kept
from sev_attest.cli.options.snp_expected import EXPIRED
from sev_attest.host import guest_report, sev_guest, tsm
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.packaging import read_evidence
from sev_attest.snp.sealed import seal
from sev_attest.snp.transport import TransportKey, TransportPrivateKey
from snp_material import AMD, KEMS, MILAN, VCEK_GUID, needs, table, verify

pytestmark = needs(Kem.X25519)
SECRETS = {"luks-key": b"a passphrase", "token": bytes(range(256))}
CHALLENGE = Challenge.create("vm1", created=datetime(2026, 5, 4, tzinfo=UTC))
OUT = ["auxblob", "outblob", "transport-key.json"]
KEPT = ["challenge.json", "outblob", "private-key.json"]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Tsm:
    """Return the kernel of this guest; its host sends a VCEK."""
    made = Tsm(Firmware(table((VCEK_GUID, MILAN.vek()))))
    monkeypatch.setattr(tsm, "System", lambda: made)
    return made


@pytest.fixture
def guest(here: Path, kernel: Tsm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a guest that has a challenge, and its own /run."""
    monkeypatch.setattr(kept, "BASE", str(here / "run" / "sev-attest"))
    (here / "run").mkdir()
    (here / "vm1.challenge.json").write_bytes(CHALLENGE.to_json())
    return here


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def request(run: Run, *options: object) -> Ran:
    return run("guest", "request", "--challenge", "vm1.challenge.json", "--out", "out", *options)


def seal_for(folder: Path, challenge: Challenge = CHALLENGE) -> None:
    """Do the owner's part: verify what came, and write the sealed file."""
    report = verify((folder / "outblob").read_bytes(), MILAN.vek(), AMD.ask, AMD.ark)
    key = TransportKey.from_json((folder / "transport-key.json").read_bytes())
    sealed = seal(SECRETS, key=key, report=report, challenge=challenge)
    (folder.parent / "vm1.sealed.json").write_bytes(sealed.to_json())


@pytest.fixture
def sealed(guest: Path, run: Run) -> Path:
    """Return a guest that asked, and got an answer."""
    assert request(run).code == 0
    seal_for(guest / "out")
    return guest


# the request


@pytest.mark.parametrize("kem", KEMS)
def test_a_request_leaves_what_the_owner_needs_and_keeps_the_rest(
    guest: Path, run: Run, kem: Kem
) -> None:
    ran = request(run, "--kem", kem.label)
    assert (ran.code, ran.lines) == (0, [f"wrote out/{name}" for name in OUT[::-1]])
    folder = guest / "run" / "sev-attest" / "vm1"
    assert (names(guest / "out"), names(folder)) == (OUT, KEPT)
    where = f"note: the private key stays in this guest, in {folder}"
    assert ran.err == f"{where}: `sev-attest guest open` needs it\n"
    private = TransportPrivateKey.from_json((folder / "private-key.json").read_bytes())
    public = TransportKey.from_json((guest / "out" / "transport-key.json").read_bytes())
    assert private.public == public
    assert public.kem is kem
    report = read_evidence((guest / "out" / "outblob").read_bytes()).report
    assert report.report_data == CHALLENGE.report_data(public)
    text = (folder / "private-key.json").read_text()
    secret = json.loads(text)["private_key"]
    for path in (guest / "out").iterdir():
        assert secret not in path.read_text("latin-1")


def test_what_is_kept_is_private(guest: Path, run: Run) -> None:
    assert request(run).code == 0
    base = guest / "run" / "sev-attest"
    for folder in (base, base / "vm1"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in KEPT:
        assert stat.S_IMODE((base / "vm1" / name).stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o702, 0o777, 0o757])
def test_no_secret_goes_where_every_user_can_replace_it(sealed: Path, run: Run, mode: int) -> None:
    (sealed / "open").mkdir()
    (sealed / "open").chmod(mode)
    opening = run("guest", "open", "vm1.sealed.json", "--out", "open")
    asking = run(
        "guest", "request", "--challenge", "vm1.challenge.json", "--out", "new", "--kept", "open"
    )
    words = "error: open: another user can replace what is written into this folder\n"
    for ran in (opening, asking):
        assert (ran.code, ran.out, ran.err.startswith(words)) == (3, "", True)
    assert (names(sealed / "open"), (sealed / "new").exists()) == ([], False)


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")
def test_no_secret_goes_into_another_user_s_folder(
    sealed: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.geteuid()
    (sealed / "theirs").mkdir(mode=0o700)
    if not mine:
        os.chown(sealed / "theirs", 1234, -1)
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    ran = run("guest", "open", "vm1.sealed.json", "--out", "theirs")
    assert (ran.code, ran.out, names(sealed / "theirs")) == (3, "", [])


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")
def test_a_folder_with_the_sticky_bit_may_be_everybody_s(sealed: Path, run: Run) -> None:
    (sealed / "tmp").mkdir()
    (sealed / "tmp").chmod(0o1777)
    assert run("guest", "open", "vm1.sealed.json", "--out", "tmp").code == 0


def test_a_challenge_and_its_key_verify_together(guest: Path, run: Run) -> None:
    assert request(run).code == 0
    (guest / "ark.der").write_bytes(AMD.ark)
    (guest / "ask.der").write_bytes(AMD.ask)
    chain = ("ask.der", "--trust-root", "ark.der", "--json")
    answer = ("--challenge", "vm1.challenge.json", "--transport-key", "out/transport-key.json")
    document = json.loads(run("snp", "verify", "out", *chain, *answer).out)
    assert document["ok"]
    assert not [note for note in document["notes"] if "fresh" in note or "expired" in note]


def test_an_answer_to_a_challenge_that_has_expired_is_noted(guest: Path, run: Run) -> None:
    """The report verifies, but is no fresh one: its host chose when to show it."""
    assert request(run).code == 0
    (guest / "ark.der").write_bytes(AMD.ark)
    (guest / "ask.der").write_bytes(AMD.ask)
    late = replace(CHALLENGE, expires=datetime(2020, 5, 4, tzinfo=UTC))
    (guest / "late.json").write_bytes(late.to_json())
    chain = ("ask.der", "--trust-root", "ark.der")
    answer = ("--challenge", "late.json", "--transport-key", "out/transport-key.json")
    ran = run("snp", "verify", "out", *chain, *answer)
    assert ran.code == 0
    assert f"note: {EXPIRED}" in ran.notes


def test_a_key_of_a_kind_that_the_challenge_does_not_accept_answers_nothing(
    guest: Path, run: Run
) -> None:
    assert request(run, "--kem", "x25519").code == 0
    other = replace(CHALLENGE, kems=(Kem.MLKEM768_X25519,))
    (guest / "other.json").write_bytes(other.to_json())
    answer = ("--challenge", "other.json", "--transport-key", "out/transport-key.json")
    ran = run("snp", "verify", "out", *answer, "--json")
    assert ran.code == 1
    assert [one["check"] for one in json.loads(ran.out)["errors"]] == ["snp.transport-key.kem"]


def test_the_owner_verifies_the_folder_as_it_is(guest: Path, run: Run) -> None:
    assert request(run).code == 0
    (guest / "ark.der").write_bytes(AMD.ark)
    (guest / "ask.der").write_bytes(AMD.ask)
    public = TransportKey.from_json((guest / "out" / "transport-key.json").read_bytes())
    expected = CHALLENGE.report_data(public).hex()
    ran = run(
        "snp", "verify", "out", "ask.der", "--trust-root", "ark.der", "--report-data", expected
    )
    assert ran.code == 0
    assert ran.lines[0] == "OK: the report verifies (its root is not AMD's): Milan, VCEK, VMPL 0"


def test_a_vmpl_is_asked_for(guest: Path, run: Run, kernel: Tsm) -> None:
    assert request(run, "--vmpl", "2").code == 0
    assert [vmpl for _, vmpl in kernel.firmware.asked] == [2]


def test_a_host_without_certificates_is_told(guest: Path, run: Run, kernel: Tsm) -> None:
    kernel.firmware.certificates = b""
    assert "the owner has to get the VCEK (`snp certs`)" in request(run).err


def test_quiet_says_nothing(guest: Path, run: Run) -> None:
    ran = request(run, "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_json_tells_what_was_asked(guest: Path, run: Run) -> None:
    document = json.loads(request(run, "--json", "--kept", "kept").out)
    public = TransportKey.from_json((guest / "out" / "transport-key.json").read_bytes())
    assert document == {
        "schema": "sev-attest/guest request/1",
        "ok": True,
        "challenge": "vm1",
        "kem": "x25519",
        "report_data": CHALLENGE.report_data(public).hex(),
        "source": tsm.FOLDER,
        "files": [f"out/{name}" for name in OUT[::-1]],
        "kept": "kept",
    }


def test_verbose_says_what_was_asked_and_where(guest: Path, run: Run) -> None:
    lines = request(run, "-v").lines[3:]
    public = TransportKey.from_json((guest / "out" / "transport-key.json").read_bytes())
    assert lines == [
        "challenge: vm1",
        "kem: x25519",
        f"report_data: {CHALLENGE.report_data(public).hex()}",
        f"source: {tsm.FOLDER}",
    ]


def test_the_report_data_alone_is_for_another_program(guest: Path, run: Run, kernel: Tsm) -> None:
    ran = request(run, "--report-data-only")
    public = TransportKey.from_json((guest / "out" / "transport-key.json").read_bytes())
    assert (ran.code, ran.out) == (0, CHALLENGE.report_data(public).hex() + "\n")
    assert "(--report)" in ran.err
    assert kernel.log == []
    assert names(guest / "out") == ["transport-key.json"]
    (guest / "out" / "outblob").write_bytes(MILAN.report(report_data=bytes.fromhex(ran.out)))
    seal_for(guest / "out")
    opened = run("guest", "open", "vm1.sealed.json", "--report", "out", "--secret", "luks-key")
    assert (opened.code, opened.out) == (0, "a passphrase")


def test_the_first_kind_that_the_challenge_accepts_is_the_default(guest: Path, run: Run) -> None:
    only = replace(CHALLENGE, kems=(Kem.X25519,))
    (guest / "vm1.challenge.json").write_bytes(only.to_json())
    assert request(run).code == 0
    refused = request(run, "--kem", "mlkem768-x25519", "--force")
    assert refused.code == 2
    assert "does not accept mlkem768-x25519 keys, but x25519" in refused.err


def test_an_older_cryptography_is_told_before_a_report_is_asked_for(
    guest: Path, run: Run, kernel: Tsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hpke", None)
    ran = request(run)
    assert ran.code == 2
    assert "HPKE needs cryptography 47 or later; this is " in ran.err
    assert kernel.log == []
    assert names(guest) == ["run", "vm1.challenge.json"]


@pytest.mark.parametrize("place", ["out", "out/kept", "./out/../out"])
def test_what_stays_is_never_in_what_goes(guest: Path, run: Run, place: str) -> None:
    ran = request(run, "--kept", place)
    assert ran.code == 2
    assert "it cannot be in that folder" in ran.err
    assert not (guest / "out").exists()


def test_outside_a_guest_nothing_is_left(
    guest: Path, run: Run, kernel: Tsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.fails["make"] = errno.ENOENT
    monkeypatch.setitem(guest_report.WAYS, sev_guest.DEVICE, lambda _data, _vmpl: None)
    ran = request(run)
    assert ran.code == 4
    assert ran.err.startswith("error: this machine offers no SEV-SNP report: neither /sys")
    assert "sev-attest guest check" in ran.err
    assert names(guest) == ["run", "vm1.challenge.json"]
    assert names(guest / "run") == []


def test_a_refusal_of_the_kernel_is_told_and_nothing_is_left(
    guest: Path, run: Run, kernel: Tsm
) -> None:
    kernel.fails["outblob"] = errno.ENOTTY
    ran = request(run)
    assert ran.code == 6
    assert "the guest's key to the firmware is disabled" in ran.err
    assert (names(guest / "run"), (guest / "out").exists()) == ([], False)
    assert kernel.entries == {}


def test_a_second_request_does_not_write_over_the_first(guest: Path, run: Run, kernel: Tsm) -> None:
    assert request(run).code == 0
    asked = len(kernel.firmware.asked)
    before = (guest / "run" / "sev-attest" / "vm1" / "private-key.json").read_bytes()
    ran = request(run)
    assert (ran.code, len(kernel.firmware.asked)) == (6, asked)
    assert "exists already" in ran.err
    assert (guest / "run" / "sev-attest" / "vm1" / "private-key.json").read_bytes() == before
    assert request(run, "--force").code == 0
    assert (guest / "run" / "sev-attest" / "vm1" / "private-key.json").read_bytes() != before


def test_a_challenge_that_is_none_is_named(guest: Path, run: Run) -> None:
    (guest / "vm1.challenge.json").write_text("{}")
    ran = request(run)
    assert ran.code == 6
    assert ran.err.startswith("error: vm1.challenge.json: challenge: this is another kind of file")


# the answer


def test_the_secrets_come_out_as_they_went_in(sealed: Path, run: Run) -> None:
    ran = run("guest", "open", "vm1.sealed.json", "--out", "secrets")
    assert (ran.code, ran.lines) == (
        0, ["wrote secrets/luks-key, 12 bytes", "wrote secrets/token, 256 bytes"],
    )  # fmt: skip
    for name, secret in SECRETS.items():
        path = sealed / "secrets" / name
        assert path.read_bytes() == secret
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((sealed / "secrets").stat().st_mode) == 0o700


def test_verbose_says_what_it_was_sealed_for(sealed: Path, run: Run) -> None:
    lines = run("guest", "open", "vm1.sealed.json", "--out", "secrets", "-v").lines[2:]
    digest = hashlib.sha384((sealed / "out" / "outblob").read_bytes()).hexdigest()
    assert lines == [
        f"challenge: vm1, nonce {CHALLENGE.nonce.hex()}",
        "sealed to: a key of kind x25519",
        f"report, SHA-384: {digest}",
    ]


def test_json_tells_names_and_sizes_and_no_secret(sealed: Path, run: Run) -> None:
    ran = run("guest", "open", "vm1.sealed.json", "--out", "secrets", "--json")
    assert json.loads(ran.out) == {
        "schema": "sev-attest/guest open/1",
        "ok": True,
        "challenge": "vm1",
        "files": {"secrets/luks-key": 12, "secrets/token": 256},
    }


def test_quiet_writes_and_says_nothing(sealed: Path, run: Run) -> None:
    ran = run("guest", "open", "vm1.sealed.json", "--out", "secrets", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert names(sealed / "secrets") == ["luks-key", "token"]


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_one_secret_is_printed_byte_for_byte(sealed: Path, run: Run, quiet: list[str]) -> None:
    ran = run("guest", "open", "vm1.sealed.json", "--secret", "luks-key", *quiet)
    assert (ran.code, ran.out, ran.err) == (0, "a passphrase", "")


def test_a_secret_that_is_not_there_is_named(sealed: Path, run: Run) -> None:
    ran = run("guest", "open", "vm1.sealed.json", "--secret", "luks")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no secret 'luks' in it; it has luks-key, token" in ran.err


def test_files_of_elsewhere_can_be_named(sealed: Path, run: Run) -> None:
    (sealed / "run" / "sev-attest" / "vm1").rename(sealed / "elsewhere")
    lost = run("guest", "open", "vm1.sealed.json", "--secret", "luks-key")
    assert lost.code == 6
    assert ": what `guest request` keeps is not here; --kept names its folder" in lost.err
    for options in (
        ["--kept", "elsewhere"],
        ["--key", "elsewhere/private-key.json", "--report", "out", "--challenge",
         "vm1.challenge.json"],
    ):  # fmt: skip
        ran = run("guest", "open", "vm1.sealed.json", "--secret", "luks-key", *options)
        assert (ran.code, ran.out) == (0, "a passphrase")


def test_secrets_that_exist_are_not_written_over(sealed: Path, run: Run) -> None:
    (sealed / "secrets").mkdir()
    (sealed / "secrets" / "token").write_bytes(b"mine")
    ran = run("guest", "open", "vm1.sealed.json", "--out", "secrets")
    assert ran.code == 6
    assert names(sealed / "secrets") == ["token"]
    assert (sealed / "secrets" / "token").read_bytes() == b"mine"
    assert run("guest", "open", "vm1.sealed.json", "--out", "secrets", "--force").code == 0
    assert (sealed / "secrets" / "token").read_bytes() == SECRETS["token"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "say where the secrets go: --out or --secret"),
        (["--out", "x", "--secret", "token"], "say where the secrets go: --out or --secret"),
        (["--secret", "token", "--json"], "cannot be combined with --json"),
        (["--secret", "token", "--force"], "--force is for --out"),
        (["--secret", "token", "--key", "-", "--report", "-"], "only one input can be standard"),
    ],
)
def test_options_that_contradict_are_refused(
    sealed: Path, run: Run, options: list[str], words: str
) -> None:
    ran = run("guest", "open", "vm1.sealed.json", *options)
    assert ran.code == 2
    assert words in ran.err + ran.out
    assert "a passphrase" not in ran.out


def test_what_cannot_be_opened_leaves_nothing(sealed: Path, run: Run) -> None:
    document = json.loads((sealed / "vm1.sealed.json").read_text())
    text = document["ciphertext"]
    changed = ("B" if text[0] == "A" else "A") + text[1:]
    (sealed / "changed.json").write_text(json.dumps(document | {"ciphertext": changed}))
    for file, options, words in (
        ("changed.json", [], "it cannot be opened"),
        ("vm1.sealed.json", ["--key", "other.json"], "another transport key"),
        (
            "vm1.sealed.json",
            ["--challenge", "other-challenge.json"],
            "another challenge, vm1 (nonce ",
        ),
        ("vm1.sealed.json", ["--report", "other-report"], "another report"),
    ):
        other = TransportPrivateKey(kem=Kem.X25519, private=bytes(32))
        (sealed / "other.json").write_bytes(other.to_json())
        fresh = replace(CHALLENGE, nonce=bytes(32))
        (sealed / "other-challenge.json").write_bytes(fresh.to_json())
        (sealed / "other-report").write_bytes(MILAN.report())
        ran = run("guest", "open", file, "--out", "secrets", *options)
        assert ran.code == 1
        assert words in ran.err
        assert not (sealed / "secrets").exists()


def test_another_kind_of_file_is_named(sealed: Path, run: Run) -> None:
    ran = run("guest", "open", "vm1.challenge.json", "--secret", "token")
    assert ran.code == 6
    assert ran.err.startswith(
        "error: vm1.challenge.json: sealed secrets: this is a sev-attest/snp-challenge/1 document"
    )
