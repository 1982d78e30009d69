"""The owner's side of ``session``, ``validate`` and ``measure``: ledger, demands, manifests."""

import base64
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Run
from sev_attest import WrongState, sev
from sev_attest.guest import CpuModel, VmsaProfile
from sev_attest.owner import LaunchRecord
from sev_attest.owner.advisories import load
from sev_attest.owner.ledger import Ledger, LedgerEntry
from sev_attest.owner.manifest_file import read_manifest
from sev_attest.testing import Guest, Platform, launch_guest, ovmf_image

OVMF = ovmf_image(1 << 13)
OTHER = ovmf_image(1 << 13, seed=b"another firmware")
DIGEST = sev.launch_digest(OVMF).hex()
SECRET = ("-s", "luks-key:key", "--secret-header", "h", "--secret-payload", "p")
RECORD = ("--record", "vm.launch.json")
ALL = ", ".join(f'"{advisory.id}"' for advisory in load())
OWNER = f"""
schema = "sev-attest/requirements/1"
[platform]
generations = ["test"]
ceks = ["*"]
platform_ids = ["*"]
pdhs = ["*"]
[minimum.test]
api = "1.55"
build = 24
[policy]
set = ["no-debug"]
[[launch]]
name = "web"
digest = "{DIGEST}"
[advisories]
acknowledged = [{ALL}]
"""


DB = f'[[launch]]\nname = "db"\ndigest = "{"00" * 32}"\n'
UNKNOWN = "without --record, nothing says whether the platform was verified"
UNVERIFIED = "nobody verified the platform that this session was made for"
NAME_IT = "name the guest (--firmware ...) to learn what differs"


@dataclass
class Desk:
    """The owner's folder: a platform's chain, firmware, a secret, a ledger."""

    run: Run
    platform: Platform

    def session(self, *options: str, name: str = "vm", policy: str = "1") -> Ran:
        given = ("chain", policy, "--trust-root", "root", "--ledger", "ledger")
        return self.run("session", "--name", name, *given, *options)

    def start(self, firmware: bytes = OVMF, *, name: str = "vm", **guest: Any) -> Guest:
        """Start a guest in a session, and write what its host reports."""
        godh, blob = (
            base64.b64decode(Path(f"{name}_{kind}.b64").read_bytes())
            for kind in ("godh", "session")
        )
        policy = LaunchRecord.from_bytes(Path(f"{name}.launch.json").read_bytes()).policy
        started = launch_guest(
            self.platform, policy=policy, godh=godh, session=blob, firmware=firmware, **guest
        )
        Path("info").write_text(started.domlaunchsecinfo())
        return started

    def validate(
        self, *options: str, name: str = "vm", guest: tuple[str, ...] = ("-f", "fw")
    ) -> Ran:
        keys = ("--tik", f"{name}_tik.bin", "--tek", f"{name}_tek.bin")
        usual = ("--ledger", "ledger", "--diagnose-budget", "0", "--launch-info", "info")
        return self.run("validate", *usual, *keys, *guest, *options)

    def row(self, name: str = "vm") -> LedgerEntry:
        with Ledger.open("ledger", create=False) as ledger:
            ledger.verify()
            (entry,) = (entry for entry in ledger.entries() if entry.name == name)
        return entry

    def kinds(self, name: str = "vm") -> list[str]:
        with Ledger.open("ledger", create=False) as ledger:
            return [event.kind for event in ledger.events(self.row(name).session_id)]


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform(b"desk")


@pytest.fixture
def desk(platform: Platform, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    # Nobody waits for a lock here.
    monkeypatch.setattr(Ledger, "open", partial(Ledger.open, timeout=0))
    authority = platform.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("chain").write_bytes(platform.export().to_bytes())
    Path("fw").write_bytes(OVMF)
    Path("other").write_bytes(OTHER)
    Path("key").write_bytes(b"hunter2")
    Path("owner.toml").write_text(OWNER)
    return Desk(run, platform)


@pytest.fixture
def opened(desk: Desk) -> Desk:
    """Give a desk with a session."""
    assert desk.session().code == 0
    return desk


def packet() -> tuple[bytes, bytes]:
    header, payload = (base64.b64decode(Path(name).read_bytes()) for name in "hp")
    return header, payload


def no_packet() -> bool:
    return not (Path("h").exists() or Path("p").exists())


@pytest.mark.parametrize("secret", ["foo:key", "luks-key:nothing"])
def test_a_secret_that_cannot_be_is_refused_before_the_session_is_bound(
    opened: Desk, secret: str
) -> None:
    opened.start()
    Path("nothing").touch()
    assert opened.validate(*RECORD, "-s", secret, *SECRET[2:]).code == 2
    assert opened.row().state == "created"
    assert opened.validate(*RECORD, *SECRET).code == 0


# session


def test_a_session_opens_a_row(desk: Desk) -> None:
    assert desk.session("--valid-for", "48").code == 0
    row = desk.row()
    assert (row.name, row.state, row.measurement) == ("vm", "created", None)
    record = LaunchRecord.from_bytes(Path("vm.launch.json").read_bytes())
    assert row.session_id == record.session_id
    assert row.expires is not None
    lasts = datetime.fromisoformat(row.expires) - datetime.fromisoformat(record.created)
    assert abs(lasts - timedelta(hours=48)) < timedelta(minutes=5)  # by the ledger's clock
    assert desk.session(name="two").code == 0
    assert desk.row("two").expires is None
    for hours in ("0", "87601", "x"):
        assert desk.session("--valid-for", hours, name="three").code == 2


def test_without_a_ledger_none_is_made(desk: Desk) -> None:
    assert desk.session("--ledger", "none").code == 0
    desk.start()
    note = "note: INSECURE: no ledger keeps that this secret leaves only once"
    ran = desk.validate("--ledger", "none", *RECORD)
    assert (ran.code, note in ran.lines) == (0, False)
    ran = desk.validate("--ledger", "none", *RECORD, *SECRET)
    assert (ran.code, note in ran.notes) == (0, True)
    assert not Path("ledger").exists()


def full(descriptor: int) -> None:
    """Stand in for os.fsync on a disk that is full."""
    raise OSError(28, os.strerror(28))


def locked(*_: object) -> None:
    """Stand in for a method of a ledger that is locked."""
    raise WrongState("not now")


@pytest.mark.parametrize("noted", [True, False])
def test_a_session_whose_files_cannot_be_written_has_failed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, noted: bool
) -> None:
    assert desk.session(name="first").code == 0
    monkeypatch.setattr(os, "fsync", full)
    if not noted:
        monkeypatch.setattr(Ledger, "fail", locked)
    ran = desk.session()
    assert (ran.code, ran.err) == (6, "error: vm_tik.bin: No space left on device\n")
    assert not list(Path().glob("vm*"))
    row = desk.row()
    assert row.state == ("failed" if noted else "created")
    assert row.note == ("its files were not written" if noted else "")


def test_files_that_exist_stay_and_leave_no_row(opened: Desk) -> None:
    kept = {path: path.read_bytes() for path in Path().glob("vm*")}
    for left in range(len(kept)):
        for path in list(kept)[:left]:
            path.unlink()
        ran = opened.session()
        assert (ran.code, ran.out, "exists already" in ran.err) == (6, "", True)
        assert {path: path.read_bytes() for path in Path().glob("vm*")} == {
            path: data for path, data in kept.items() if path.exists()
        }
        for path, data in kept.items():
            path.write_bytes(data)
    assert opened.kinds() == ["created"]
    assert opened.session("--force").code == 0
    with Ledger.open("ledger") as ledger:
        assert [entry.state for entry in ledger.entries()] == ["created", "created"]


@pytest.mark.parametrize("out", ["nowhere", "fw"])
def test_a_folder_that_takes_no_files_leaves_no_row(opened: Desk, out: str) -> None:
    ran = opened.session("--out", out, name="two")
    assert (ran.code, ran.out) == (6, "")
    assert f"error: {out}/two_tik.bin: " in ran.err
    with Ledger.open("ledger") as ledger:
        assert [entry.name for entry in ledger.entries()] == ["vm"]


# validate, with the ledger


def test_validate_binds_the_session_to_its_measurement(opened: Desk) -> None:
    guest = opened.start()
    for _ in range(2):
        ran = opened.validate(*RECORD)
        assert (ran.code, ran.lines[0], ran.errors) == (0, "OK: Looks good to me", [])
    assert (opened.row().state, opened.row().measurement) == ("measured", guest.measurement)
    assert opened.kinds() == ["created", "measured"]


def test_a_wrong_measurement_binds_nothing(opened: Desk) -> None:
    opened.start(OTHER)
    assert opened.validate(*RECORD).code == 1
    assert opened.kinds() == ["created"]


def test_a_session_of_another_tool_is_adopted(desk: Desk) -> None:
    assert desk.session("--ledger", "none").code == 0
    desk.start()
    new = "note: this session is new to the ledger ledger"
    ran = desk.validate(*SECRET)
    assert (ran.code, new in ran.notes) == (0, True)
    assert f"note: INSECURE: {UNKNOWN}" in ran.notes
    row = desk.row("")
    assert (row.state, row.note) == ("released", "made by another tool")
    ran = desk.validate()
    assert (ran.code, new in ran.lines) == (0, False)


@pytest.mark.parametrize("record", [(), RECORD], ids=["bare", "record"])
def test_a_session_of_a_platform_that_nobody_verified_is_refused(
    desk: Desk, record: tuple[str, ...]
) -> None:
    Path("chain").write_bytes(desk.platform.export().pdh.to_bytes())
    assert desk.session("--insecure").code == 0
    desk.start()
    for options in ((), SECRET):
        ran = desk.validate(*record, *options)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err.startswith(f"error: {UNVERIFIED}\n")
        assert "--insecure" in ran.err
    check = "record.unverified" if record else "ledger.unverified"
    assert json.loads(desk.validate(*record, "--json").out)["errors"][0]["check"] == check
    assert no_packet()
    assert desk.row().state == ("created" if record else "measured")
    ran = desk.validate(*record, *SECRET, "--insecure")
    assert (ran.code, f"note: INSECURE: {UNVERIFIED}" in ran.notes) == (0, True)
    assert desk.row().state == "released"
    shown = desk.run("ledger", "show", "vm", "--ledger", "ledger")
    assert "platform: NOT VERIFIED" in shown.lines
    document = json.loads(desk.run("ledger", "show", "vm", "--ledger", "ledger", "--json").out)
    assert (document["session"]["verified"], document["session"]["root"]) == (False, None)


def test_without_record_and_ledger_nothing_tells_of_the_platform(desk: Desk) -> None:
    Path("chain").write_bytes(desk.platform.export().pdh.to_bytes())
    assert desk.session("--insecure", "--ledger", "none").code == 0
    desk.start()
    ran = desk.validate(*SECRET, "--ledger", "none")
    assert (ran.code, f"note: INSECURE: {UNKNOWN}" in ran.notes) == (0, True)


def test_a_root_that_is_not_amds_is_told_without_the_record_too(opened: Desk) -> None:
    opened.start()
    root = LaunchRecord.from_bytes(Path("vm.launch.json").read_bytes()).root
    note = f"note: this session's platform has a root that is {root}"
    for options in ((), RECORD, SECRET):
        ran = opened.validate(*options)
        assert (ran.code, ran.notes.count(note), UNKNOWN in ran.err) == (0, 1, False)
    shown = opened.run("ledger", "show", "vm", "--ledger", "ledger")
    assert f"platform: verified, root {root}" in shown.lines
    document = json.loads(opened.run("ledger", "show", "vm", "--ledger", "ledger", "--json").out)
    assert (document["session"]["verified"], document["session"]["root"]) == (True, root)


def test_of_amd_s_own_roots_and_of_old_ledgers_notes_are_right(desk: Desk) -> None:
    assert desk.session("--ledger", "none").code == 0
    session = LaunchRecord.from_bytes(Path("vm.launch.json").read_bytes()).session_id
    desk.start()
    for name, root, told in (("amd", "AMD Milan", ()), ("old", "", (UNKNOWN,))):
        with Ledger.open(name) as ledger:
            ledger.create(session, root=root)
        ran = desk.validate(*SECRET, "--force", "--ledger", name)
        assert ran.code == 0
        assert [line for line in ran.notes if "INSECURE" in line or " root " in line] == [
            f"note: INSECURE: {words}" for words in told
        ]
    shown = desk.run("ledger", "show", session, "--ledger", "old")
    assert "platform: nothing says whether it was verified" in shown.lines


def test_a_session_that_is_in_a_record_but_not_in_the_ledger_is_refused(desk: Desk) -> None:
    assert desk.session("--ledger", "none").code == 0
    desk.start()
    for options in ([], SECRET, ["--insecure"], ["--requirements", "owner.toml"]):
        ran = desk.validate(*RECORD, *options)
        assert (ran.code, ran.out) == (5, "")
        assert "is not in the ledger ledger" in ran.err
        assert "note: the measurement itself is right" in ran.err
    found = json.loads(desk.validate(*RECORD, "--json").out)
    assert found["errors"][0]["check"] == "ledger.unknown"
    assert no_packet()
    with Ledger.open("ledger") as ledger:
        assert [*ledger.entries()] == []


@pytest.mark.parametrize("change", [{"generation": "milan", "root": "AMD"}, {"cek": "0f" * 32}])
def test_a_record_that_was_edited_is_refused(opened: Desk, change: dict[str, str]) -> None:
    opened.start()
    record = json.loads(Path("vm.launch.json").read_bytes())
    Path("vm.launch.json").write_text(json.dumps(record | change))
    for options in ([], ["--insecure"], ["--requirements", "owner.toml", *SECRET]):
        ran = opened.validate(*RECORD, *options)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.splitlines() == [
            "error: the record was changed, or the TEK is not that of its session",
            "hint: use the record and the keys that `sev-attest session` wrote together",
        ]
    assert opened.kinds() == ["created"]


def test_a_tek_of_another_session_is_refused(opened: Desk) -> None:
    assert opened.session(name="two").code == 0
    opened.start()
    Path("vm_tek.bin").write_bytes(Path("two_tek.bin").read_bytes())
    ran = opened.validate(*RECORD, *SECRET)
    assert (ran.code, "the TEK is not that of its session" in ran.err) == (1, True)
    assert no_packet()


def test_a_second_launch_in_a_session_is_refused_and_the_first_is_shown(opened: Desk) -> None:
    first = base64.b64encode(opened.start().measurement).decode()
    assert opened.validate(*RECORD).code == 0
    opened.start()
    ran = opened.validate(*RECORD, *SECRET)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: session vm was used for another launch: since ")
    assert f"it is bound to the measurement {first}\n" in ran.err
    assert "hint: do not trust this launch; a session is for one launch" in ran.err
    assert "note: the measurement itself is right" in ran.err
    found = json.loads(opened.validate(*RECORD, "--json").out)
    assert (found["ok"], found["exit"]) == (False, 3)
    assert found["errors"][0]["check"] == "ledger.reused"
    assert found["bound"]["measurement"] == first
    assert found["session_id"] == opened.row().session_id
    assert found["notes"][0] == "the measurement itself is right"
    assert found["advisories"]
    assert no_packet()
    # It may be looked at, but gets no secret.
    ran = opened.validate(*RECORD, *SECRET, "--insecure")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: session vm was used for another launch: since ")
    assert no_packet()
    ran = opened.validate(*RECORD, "--insecure")
    assert (ran.code, ran.lines[0]) == (0, "OK: Looks good to me")
    (note,) = [line for line in ran.notes if line.startswith("note: INSECURE")]
    assert first in note
    assert opened.row().state == "measured"
    assert base64.b64encode(opened.row().measurement or b"").decode() == first
    assert opened.kinds() == ["created", "measured", "refused"]


def test_secrets_are_released_once(opened: Desk) -> None:
    guest = opened.start()
    ran = opened.validate(*RECORD, *SECRET)
    assert (ran.code, ran.lines[1]) == (0, "OK: Injected 1 secrets")
    assert guest.inject(*packet())
    before = packet()
    for options in ([], ["--insecure"]):
        ran = opened.validate(*RECORD, *SECRET, "--force", *options)
        assert (ran.code, ran.out) == (5, "")
        assert "session vm is released: its secret left on " in ran.err
        assert "if the guest never got it, make a new session" in ran.err
    assert packet() == before
    assert opened.validate(*RECORD).code == 0
    assert opened.kinds() == ["created", "measured", "released"]


@pytest.mark.parametrize("taken", ["h", "p"])
def test_outputs_that_exist_refuse_before_the_release(opened: Desk, taken: str) -> None:
    opened.start()
    Path(taken).write_text("mine")
    ran = opened.validate(*RECORD, *SECRET)
    assert (ran.code, ran.out) == (6, "")
    assert f"{taken}: exists already" in ran.err
    assert "note: the measurement itself is right" in ran.err
    assert opened.kinds() == ["created", "measured"]
    assert Path(taken).read_text() == "mine"
    assert opened.validate(*RECORD, *SECRET, "--force").code == 0


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere/p", "nowhere/p: there is no folder nowhere"),
        ("fw/p", "fw/p: there is no folder fw"),
    ],
)
def test_a_folder_that_takes_no_files_refuses_before_the_release(
    opened: Desk, place: str, words: str
) -> None:
    opened.start()
    ran = opened.validate(*RECORD, *SECRET, "--secret-payload", place)
    assert (ran.code, ran.out, ran.err) == (6, "", f"error: {words}\n")
    assert opened.kinds() == ["created", "measured"]


@pytest.mark.parametrize("noted", [True, False])
def test_a_disk_that_fills_while_the_packet_is_written_fails_the_session(
    opened: Desk, monkeypatch: pytest.MonkeyPatch, *, noted: bool
) -> None:
    opened.start()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        if not noted:
            patch.setattr(Ledger, "fail", locked)
        ran = opened.validate(*RECORD, *SECRET)
    assert (ran.code, ran.out) == (6, "")
    assert ran.err.splitlines() == [
        "error: h: No space left on device",
        "note: the one release of this session is spent: make a new session",
    ]
    assert no_packet()
    assert opened.row().state == ("failed" if noted else "released")
    ran = opened.validate(*RECORD, *SECRET)
    assert ran.code == 5
    assert "make a new session" in ran.err


def test_without_a_ledger_a_disk_that_fills_says_so(
    opened: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.start()

    def beaten(*_: object) -> None:
        raise FileExistsError(17, os.strerror(17))

    monkeypatch.setattr(os, "link", beaten)
    ran = opened.validate(*RECORD, *SECRET, "--ledger", "none")
    assert (ran.code, "h: exists already" in ran.err) == (6, True)
    assert opened.kinds() == ["created"]


def test_a_session_past_its_end_takes_no_launch(opened: Desk) -> None:
    opened.start()
    assert opened.run("ledger", "close", "vm", "--ledger", "ledger", "--reason", "spare").code == 0
    ran = opened.validate(*RECORD, *SECRET)
    assert (ran.code, ran.out) == (5, "")
    assert "session vm is closed: on " in ran.err
    assert no_packet()


def _locked() -> Callable[[], None]:
    other = sqlite3.connect("ledger", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def _corrupt() -> Callable[[], None]:
    for left in Path().glob("ledger-*"):
        left.unlink()
    Path("ledger").write_bytes(b"no database" * 1000)
    return lambda: None


def _shared() -> Callable[[], None]:
    Path("ledger").chmod(0o666)
    return lambda: None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_locked, "another process holds it locked"),
        (_corrupt, "this is not a ledger, or it is damaged"),
        (_shared, "others can write to it"),
    ],
)
def test_a_ledger_that_fails_releases_nothing(
    opened: Desk, spoil: Callable[[], Callable[[], None]], words: str
) -> None:
    opened.start()
    end = spoil()
    for options in ([], ["--insecure"]):
        ran = opened.validate(*RECORD, *SECRET, *options)
        assert (ran.code, ran.out) == (6, "")
        assert words in ran.err
        assert no_packet()
    ran = opened.session(name="two")
    assert ran.code == 6
    assert not list(Path().glob("two*"))
    end()


# validate, with requirements


def test_requirements_that_are_met(opened: Desk) -> None:
    guest = opened.start()
    ran = opened.validate(*RECORD, *SECRET, "--requirements", "owner.toml")
    assert (ran.code, ran.lines[0], ran.errors) == (0, "OK: Looks good to me", [])
    assert ran.lines[1:3] == [
        "OK: Injected 1 secrets",
        "OK: the requirements allow it as launch web",
    ]
    assert guest.inject(*packet())
    assert opened.row().state == "released"
    found = json.loads(opened.validate(*RECORD, "--requirements", "owner.toml", "--json").out)
    assert found["requirements"] == {"launch": "web", "guest": ""}
    ran = opened.validate(*RECORD)
    assert "the requirements" not in ran.out
    assert json.loads(opened.validate(*RECORD, "--json").out)["requirements"] is None


def test_all_that_is_not_met_is_listed_and_the_measurement_is_right(opened: Desk) -> None:
    strict = OWNER.replace('"no-debug"', '"es", "no-send"').replace("build = 24", "build = 25")
    Path("owner.toml").write_text(strict.replace(DIGEST, "00" * 32).replace(ALL, ""))
    opened.start()
    given = (*RECORD, *SECRET, "--requirements", "owner.toml")
    ran = opened.validate(*given, "-v")
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert errors[:4] == [
        "error: build 24 is below 25",
        "error: policy 0x0001 lacks es",
        "error: policy 0x0001 lacks no-send",
        "error: its launch digest is not among those allowed",
    ]
    assert all("affects this platform" in line for line in errors[4:])
    assert len(errors) > 5
    assert "note: the measurement itself is right" in ran.err.splitlines()
    assert "ok   launch.measurement" in ran.out
    assert "OK: " not in ran.out
    assert opened.validate(*given, "-q").out == ""
    found = json.loads(opened.validate(*given, "--json").out)
    assert (found["ok"], found["exit"]) == (False, 1)
    assert [error["check"] for error in found["errors"]][:4] == [
        "requirements.minimum.build",
        "requirements.policy.es",
        "requirements.policy.no-send",
        "requirements.launch.digest",
    ]
    assert not [check for check in found["checks"] if check["ok"] is False]
    assert "the measurement itself is right" in found["notes"]
    affected = [entry["id"] for entry in found["advisories"]]
    every = json.loads(opened.validate(*given, "--json", "-v").out)["advisories"]
    assert [entry["id"] for entry in every] == [entry.id for entry in load()]
    by_verdict = {
        verdict: [entry["id"] for entry in every if entry["verdict"] == verdict]
        for verdict in ("affected", "attestation cannot see this", "not affected")
    }
    assert affected == by_verdict["affected"] != []
    assert found["unseen_advisories"] == by_verdict["attestation cannot see this"] != []
    assert by_verdict["not affected"]
    assert no_packet()
    assert opened.row().state == "measured"
    assert opened.kinds() == ["created", "measured", "requirements"]


def test_requirements_need_the_record(opened: Desk) -> None:
    opened.start()
    ran = opened.validate("--requirements", "owner.toml")
    assert (ran.code, ran.err) == (
        2,
        "error: --requirements needs --record: it knows the platform of the session\n",
    )


def test_requirements_alone_name_the_guest(opened: Desk) -> None:
    Path("owner.toml").write_text(f"{OWNER}{DB}")
    given = (*RECORD, "--requirements", "owner.toml")
    other = opened.start(OTHER)
    ran = opened.validate(*given, guest=())
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[:2] == [
        "error: Measurement does not match, VM is not trustworthy",
        f"hint: it is none of the 2 launch digests that the requirements allow: {NAME_IT}",
    ]
    assert "note: this session's platform has a root that is not AMD's" in ran.err
    found = json.loads(opened.validate(*given, "--json", guest=()).out)
    assert (found["digest"], found["measurement"], found["policy"]) == (
        None,
        base64.b64encode(other.measurement).decode(),
        1,
    )
    assert "diagnosis" not in found
    assert [check["id"] for check in found["checks"] if check["ok"] is False] == [
        "launch.measurement"
    ]
    assert found["notes"] == [line.removeprefix("note: ") for line in ran.err.splitlines()[2:]]
    assert opened.kinds() == ["created"]
    opened.start()
    Path("info").write_text(Path("info").read_text().replace("policy     : 1", "policy     : 3"))
    ran = opened.validate(*given, guest=())
    assert (ran.code, "the session was made for 0x0001" in ran.err) == (1, True)
    opened.start()
    ran = opened.validate(*given, "--build-id", "25", guest=())
    assert ran.code == 1
    ran = opened.validate(*given, *SECRET, "--launch", "web", "--json", guest=())
    found = json.loads(ran.out)
    assert (ran.code, found["digest"], found["secrets"]) == (0, DIGEST, 1)
    assert found["requirements"] == {"launch": "web", "guest": ""}


def test_a_secret_for_one_of_several_launches_needs_its_name(opened: Desk) -> None:
    Path("owner.toml").write_text(f"{OWNER}{DB}")
    given = (*RECORD, "--requirements", "owner.toml")
    opened.start()
    ran = opened.validate(*given, *SECRET, guest=())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "error: nothing says which launch the secret is for: web, db",
        "hint: name it (--launch), or describe the guest (--firmware ...)",
    ]
    ran = opened.validate(*given, *SECRET, "--launch", "mail", guest=())
    assert (ran.code, "have no launch 'mail': web, db" in ran.err) == (2, True)
    ran = opened.validate(*given, *SECRET, "--launch", "db", guest=())
    assert (ran.code, "Measurement does not match" in ran.err) == (1, True)
    assert opened.kinds() == ["created"]
    # A guest that is named has to be the launch that is named.
    ran = opened.validate(*given, *SECRET, "--launch", "db")
    assert (ran.code, "its launch digest is not among those allowed" in ran.err) == (1, True)
    assert no_packet()
    # Without secrets, whichever it is.
    assert opened.validate(*given, guest=()).code == 0
    ran = opened.validate(*given, *SECRET)
    assert (ran.code, "OK: the requirements allow it as launch web" in ran.lines) == (0, True)


def test_a_launch_is_one_of_the_requirements(opened: Desk) -> None:
    opened.start()
    ran = opened.validate(*RECORD, "--launch", "web")
    assert (ran.code, ran.err) == (2, "error: --launch needs --requirements\n")


def test_a_guest_beside_the_requirements_has_to_be_allowed_too(opened: Desk) -> None:
    opened.start(OTHER)
    given = (*RECORD, "--requirements", "owner.toml")
    ran = opened.validate(*given, guest=("-f", "other"))
    assert (ran.code, "its launch digest is not among those allowed" in ran.err) == (1, True)
    ran = opened.validate(*given, guest=("-n", "2"))
    assert (ran.code, ran.err) == (2, "error: --firmware (or --launch-digest) is needed\n")


def test_a_policy_whose_minimum_the_host_misses_is_refused_whatever_the_digest(desk: Desk) -> None:
    assert desk.session(policy="0x37010001").code == 0
    desk.start()
    given = (*RECORD, "--requirements", "owner.toml", "--api-minor", "54")
    ran = desk.validate(*given, guest=())
    assert (ran.code, "none of the" in ran.err) == (1, False)
    assert "the host reports SEV API 1.54, the policy demands 1.55" in ran.err


def test_requirements_that_allow_no_launch_name_no_guest(opened: Desk) -> None:
    Path("owner.toml").write_text(
        OWNER.replace(f'[[launch]]\nname = "web"\ndigest = "{DIGEST}"', "")
    )
    opened.start()
    for secret in ((), SECRET):
        ran = opened.validate(*RECORD, *secret, "--requirements", "owner.toml", guest=())
        assert (ran.code, ran.err.splitlines()[0]) == (
            1,
            "error: Measurement does not match, VM is not trustworthy",
        )
        assert "none of the 0 launch digests that the requirements allow" in ran.err
    assert no_packet()


def test_secrets_are_files_or_standard_input_without_a_guest_too(opened: Desk) -> None:
    opened.start()
    given = (*RECORD, "--requirements", "-", "-s", "luks-key:-", *SECRET[2:])
    ran = opened.validate(*given, guest=())
    assert (ran.code, "can be standard input" in ran.err) == (2, True)


# advisories


def test_known_weaknesses_are_counted_or_with_v_listed(opened: Desk) -> None:
    opened.start()
    ran = opened.validate(*RECORD)
    (line,) = [line for line in ran.notes if "known weaknesses" in line]
    count = int(line.split()[1])
    assert line.endswith("`sev-attest advisories --api 1.55 --build 24 --policy 0x0001` lists them")
    shown = opened.run(*line.split("`")[1].split()[1:])
    assert shown.lines[1] == f"affected ({count}):"
    ran = opened.validate(*RECORD, "-v")
    listed = [line for line in ran.notes if line.startswith("note: advisory ")]
    assert len(listed) == count
    some = listed[0].removeprefix("note: advisory ").partition(": ")[0]
    Path("owner.toml").write_text(OWNER.replace(ALL, f'"{some}"'))
    ran = opened.validate(*RECORD, "--requirements", "owner.toml", "-v")
    assert ran.code == 1
    Path("owner.toml").write_text(OWNER)
    for flag in ("-v", "-d"):
        ran = opened.validate(*RECORD, "--requirements", "owner.toml", flag)
        assert (ran.code, "advisory" in ran.out) == (0, False)
    without = opened.validate("--policy", "1")
    assert (without.code, "weaknesses" in without.out) == (0, False)


def test_the_count_names_the_generation_if_it_is_known(opened: Desk) -> None:
    opened.start()
    record = LaunchRecord.from_bytes(Path("vm.launch.json").read_bytes())
    tik, tek = (Path(f"vm_{key}.bin").read_bytes() for key in ("tik", "tek"))
    milan = replace(record, generation="milan", root="AMD Milan")
    signed = milan.signed(sev.TransportKeys(tik=tik, tek=tek))
    Path("vm.launch.json").write_bytes(signed.to_bytes())
    ran = opened.validate(*RECORD)
    assert "`sev-attest advisories --generation milan --api 1.55" in ran.err


def test_of_a_platform_that_nobody_verified_no_weaknesses_are_told(desk: Desk) -> None:
    Path("chain").write_bytes(desk.platform.export().pdh.to_bytes())
    assert desk.session("--insecure").code == 0
    desk.start()
    ran = desk.validate(*RECORD, "--insecure", "-v")
    assert (ran.code, "advisor" in ran.out, "weaknesses" in ran.out) == (0, False, False)
    found = json.loads(desk.validate(*RECORD, "--insecure", "--json").out)
    assert (found["ok"], "advisories" in found) == (True, False)


# measure --manifest


def manifest(path: str = "web.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_bytes())
    return found


def test_a_manifest_of_a_plain_guest_has_one_digest(desk: Desk) -> None:
    assert desk.run("measure", "-f", "fw", "-n", "1-4", "--manifest", "web.json").code == 2
    ran = desk.run("measure", "-f", "fw", "--manifest", "web.json")
    assert (ran.code, ran.out) == (0, "wrote web.json: 1 digest\n")
    found = manifest()
    assert found["launches"] == [{"digest": DIGEST}]
    assert found["kernel_hashes"] is None
    assert found["firmware"] == {
        "file": "fw", "size": len(OVMF), "sha256": DIGEST,
    }  # fmt: skip
    ran = desk.run("measure", "-f", "fw", "--manifest", "web.json")
    assert (ran.code, "web.json: exists already" in ran.err) == (6, True)
    ran = desk.run("measure", "-f", "fw", "--manifest", "web.json", "--force", "--json")
    told = json.loads(ran.out)
    assert (told["manifest"], told["digests"]) == ("web.json", 1)
    assert desk.run("measure", "-f", "fw", "--manifest", "two.json", "-q").out == ""


def test_a_manifest_has_every_count_model_and_profile(desk: Desk) -> None:
    Path("kernel").write_bytes(b"a kernel")
    models, profiles = ("EPYC-Milan", "EPYC-Rome"), ("qemu-legacy", "qemu-init2")
    given = ("-f", "fw", "-k", "kernel", "--policy", "5")
    ran = desk.run(
        "measure", *given, "-n", "2-4", "--cpu-model-name", ",".join(models),
        "--vmsa-profile", ",".join(profiles), "--manifest", "web.json",
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "wrote web.json: 12 digests\n")
    launches = manifest()["launches"]
    kinds = {(one["vcpus"], one["cpu"], one["vmsa_profile"]) for one in launches}
    assert kinds == {
        (n, model, layout) for n in (2, 3, 4) for model in models for layout in profiles
    }
    for one in launches:
        alone = desk.run("measure", *given, "-n", str(one["vcpus"]), "--cpu-model-name",
                         one["cpu"], "--vmsa-profile", one["vmsa_profile"])  # fmt: skip
        assert alone.out == f"{one['digest']}\n"
    assert manifest()["kernel_hashes"]["kernel"]
    words = read_manifest(Path("web.json").read_bytes()).values()
    assert "3 vCPUs, EPYC-Rome, qemu-init2" in words


def test_a_manifest_takes_pages_and_cpu_numbers(desk: Desk) -> None:
    pages = VmsaProfile(cpu=CpuModel.named("EPYC-Milan")).pages(0x80B004)
    Path("vmsa0").write_bytes(pages.boot)
    Path("vmsa1").write_bytes(pages.ap or b"")
    given = ("measure", "-f", "fw", "--policy", "5", "-n", "1-3")
    assert desk.run(*given, "-0", "vmsa0", "-1", "vmsa1", "--manifest", "pages.json").code == 0
    numbers = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
    assert desk.run(*given, *numbers, "--manifest", "numbers.json").code == 0
    assert desk.run(*given, "--vmsa-profile", "krun", "--manifest", "krun.json").code == 0
    by_page, by_number = manifest("pages.json")["launches"], manifest("numbers.json")["launches"]
    assert [one["digest"] for one in by_page] == [one["digest"] for one in by_number]
    assert (by_page[0]["cpu"], by_page[0]["vmsa_profile"]) == (None, None)
    assert (by_number[0]["cpu"], by_number[0]["vmsa_profile"]) == (
        "signature 0xa00f11",
        "qemu-legacy",
    )
    assert manifest("krun.json")["launches"][0]["cpu"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (f"--launch-digest {DIGEST}", "--manifest needs the guest itself, not --launch-digest"),
        ("-f fw --tik key --api-major 1 --api-minor 1 --build-id 1 --policy 1 --nonce AAAA",
         "--manifest holds digests: it excludes --tik"),
        ("-f fw --policy 5 --cpu-model-name EPYC-Milan", "needs the number of vCPUs"),
        ("-f fw --policy 5 -n 1 --cpu-model-name EPYC-Milan,Xeon", "'Xeon' is not one of QEMU's"),
        ("-f fw --policy 5 -n 1 --cpu-model-name EPYC-Milan,", "'' is not one of QEMU's"),
        ("-f fw --policy 5 -n 1 --vmsa-profile krun,x", "no VMSA profile 'x'"),
        # its vCPUs would be those of krun, under no name
        ("-f fw --policy 5 -n 1 --vmsa-profile krun,qemu-init2", "needs the vCPUs' state"),
        ("-f fw --policy 5 -n 1 --vmsa-profile qemu-init2,krun", "needs the vCPUs' state"),
        ("-f fw --nonce AAAA", "--manifest holds digests: it excludes --nonce"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_is_refused(desk: Desk, options: str, words: str) -> None:
    ran = desk.run("measure", *options.split(), "--manifest", "web.json")
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not Path("web.json").exists()


def test_requirements_take_a_manifest(desk: Desk) -> None:
    given = ("-f", "fw", "--policy", "5", "-n", "1-4", "--cpu-model-name", "EPYC-Milan,EPYC-Rome")
    Path("sub").mkdir()
    assert desk.run("measure", *given, "--manifest", "sub/web.json").code == 0
    text = OWNER.replace(f'digest = "{DIGEST}"', 'manifest = "web.json"')
    Path("sub/owner.toml").write_text(text)
    ran = desk.run("requirements", "check", "sub/owner.toml")
    assert "launch web: 8 digests, no end" in ran.lines
    assert desk.session(policy="5").code == 0
    guest = desk.start(vcpus=3)
    ran = desk.validate(*RECORD, *SECRET, "--requirements", "sub/owner.toml", guest=())
    assert ran.code == 0
    allowed = "OK: the requirements allow it as launch web (3 vCPUs, EPYC-Milan, qemu-legacy)"
    assert ran.lines[2] == allowed
    assert guest.inject(*packet())
    ran = desk.validate(*RECORD, "--requirements", "sub/owner.toml", "--json", guest=())
    found = json.loads(ran.out)["requirements"]
    assert found == {"launch": "web", "guest": "3 vCPUs, EPYC-Milan, qemu-legacy"}
    assert desk.session(name="two", policy="5").code == 0
    desk.start(name="two", vcpus=5)
    two = ("--record", "two.launch.json", "--requirements", "sub/owner.toml")
    assert desk.validate(*two, name="two", guest=()).code == 1
