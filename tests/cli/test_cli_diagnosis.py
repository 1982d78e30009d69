"""What ``sev-attest validate`` says of a mismatch: what would fit, and what to do."""

import json
import os
import shlex
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest import sev
from sev_attest.cli import at_hand, diagnosis
from sev_attest.guest import CpuModel, VmsaProfile
from sev_attest.owner import LaunchRecord, Ledger
from sev_attest.owner.ledger import default_place
from sev_attest.testing import Guest, Host, Platform, launch_guest, ovmf_image

OVMF = ovmf_image(1 << 14)
MISMATCH = "error: Measurement does not match, VM is not trustworthy"
LINE = "root=/dev/vda quiet"
ASKED = (
    *("validate", "--launch-info", "info", "--policy", "0x5", "-f", "OVMF.fd"),
    *("-k", "kernel", "-r", "initrd", "-e", LINE),
)
VCPUS = ("-n", "4", "--cpu-model-name", "EPYC-Milan")
KEYS = ("--tik", "vm_tik.bin", "--tek", "vm_tek.bin")


@pytest.fixture
def session(milan: Platform, here: Path) -> sev.Session:
    """Write the files of an owner whose launch the host has just reported."""
    session = sev.Session.create_unverified(milan.export().pdh, policy=sev.GuestPolicy(5))
    pages = VmsaProfile(cpu=CpuModel.named("EPYC-Milan")).pages(0x80_B004)
    files = {
        "vm_tik.bin": session.keys.tik,
        "vm_tek.bin": session.keys.tek,
        "vm_tk.bin": session.keys.tek + session.keys.tik,
        "OVMF.fd": OVMF,
        "kernel": b"kernel",
        "initrd": b"initrd",
        "boot.vmsa": pages.boot,
        "ap.vmsa": pages.ap or b"",
        "disk.key": b"the disk key",
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
    report(milan, session)
    record(session)
    with Ledger.open(default_place()) as ledger:
        ledger.create(session.keys.session_id, name="vm")
    return session


def record(session: sev.Session, **parts: Any) -> None:
    """Write the record of a session, as if its platform had been verified."""
    made = LaunchRecord.of(session, "vm", datetime.now(UTC))
    made = replace(made, **{"root": "a root", **parts}).signed(session.keys)
    Path("vm.launch.json").write_bytes(made.to_bytes())


def report(platform: Platform, session: sev.Session, **guest: Any) -> Guest:
    asked: dict[str, Any] = {"firmware": OVMF, "kernel": b"kernel", "initrd": b"initrd"}
    asked |= {"cmdline": LINE.encode(), "vcpus": 4}
    godh, blob = session.godh.to_bytes(), session.blob
    started = launch_guest(platform, policy=5, godh=godh, session=blob, **asked | guest)
    Path("info").write_text(started.domlaunchsecinfo())
    return started


def corrected(err: str) -> list[str]:
    """Find the command that is offered."""
    (line,) = [line for line in err.splitlines() if line.startswith("note: if you meant that: ")]
    words = shlex.split(line.removeprefix("note: if you meant that: "))
    assert words[0] == "sev-attest"
    return words[1:]


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ((*KEYS, "-n", "2", *VCPUS[2:]), "it was launched with 4 vCPUs, not 2"),
        ((*KEYS, *VCPUS[:2], "--cpu-model-name", "EPYC-Rome"), "its CPU model was EPYC-Milan"),
        (
            (*KEYS, *VCPUS[:2], *["--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "2"]),
            "its CPU model was EPYC-Milan",
        ),
        (
            (*KEYS, *VCPUS, "--vmsa-profile", "qemu-init2"),
            "its vCPUs were set up as in VMSA profile qemu-legacy",
        ),
        (
            ("--tik", "vm_tek.bin", "--tek", "vm_tik.bin", *VCPUS),
            "TIK and TEK are swapped",
        ),
        (
            (*KEYS, *VCPUS[:2], "-0", "ap.vmsa", "-1", "boot.vmsa"),
            "the vCPUs' pages are swapped",
        ),
        ((*KEYS, *VCPUS, "--build-id", "18"), "build was 24, not 18"),
        (
            (*KEYS, *VCPUS, "--api-minor", "24", "--build-id", "55"),
            "API minor was 55, not 24 and build was 24, not 55",
        ),
        (("--tik", "o_tik.bin", "--tek", "o_tek.bin", *VCPUS), "the keys are those of vm_tik.bin"),
        (("--tk", "o_tk.bin", *VCPUS), "the keys are those of vm_tik.bin"),
        (
            ("--tk", "elsewhere/tk.bin", "--keys", ".", *VCPUS),
            "the keys are those of vm_tik.bin",
        ),
        ((*KEYS, *VCPUS[2:], "-n", "4", "--build-id", "0x17"), "build was 24, not 23"),
        (
            (*KEYS, *VCPUS[:2], *["--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "9"]),
            "its CPU model was EPYC-Milan",
        ),
    ],
)
def test_a_slip_is_named_and_the_corrected_command_is_right(
    session: sev.Session, run: Run, options: tuple[str, ...], fits: str
) -> None:
    Path("elsewhere").mkdir()
    for name, size in (
        ("o_tik.bin", 16),
        ("o_tek.bin", 16),
        ("o_tk.bin", 32),
        ("elsewhere/tk.bin", 32),
    ):
        Path(name).write_bytes(b"k" * size)
    Path("x_tik.bin").write_bytes(b"no key")
    Path("tk.txt").write_bytes(b"no key")
    ran = run(*ASKED, *options)
    assert (ran.code, ran.out) == (1, "")
    error, hint, *_ = ran.err.splitlines()
    assert error == MISMATCH
    assert hint.startswith("hint: the measurement fits if ")
    assert fits in hint
    command = corrected(ran.err)
    assert ("--record" in command) is fits.startswith("the keys are those of ")
    again = run(*command)
    assert (again.code, again.lines[0]) == (0, "OK: Looks good to me")


def test_a_stepping_is_given_by_numbers(milan: Platform, session: sev.Session, run: Run) -> None:
    report(milan, session, cpu=CpuModel(family=25, model=1, stepping=2).signature)
    ran = run(*ASKED, *KEYS, *VCPUS)
    command = corrected(ran.err)
    assert "--cpu-model-name" not in command
    assert command[command.index("--cpu-stepping") + 1] == "2"
    assert run(*command).code == 0


def test_a_cpu_model_is_given_by_name(session: sev.Session, run: Run) -> None:
    numbers = ("--cpu-family", "23", "--cpu-model", "49", "--cpu-stepping", "0")
    command = corrected(run(*ASKED, *KEYS, *VCPUS[:2], *numbers).err)
    assert "--cpu-family" not in command
    assert command[command.index("--cpu-model-name") + 1] == "EPYC-Milan"


OTHER_KEYS = ("--tik", "o_tik.bin", "--tek", "o_tek.bin")


def other_keys() -> None:
    for name in ("o_tik.bin", "o_tek.bin"):
        Path(name).write_bytes(b"k" * 16)


@pytest.mark.parametrize("parts", [{"root": None}, {"policy": 1}, None])
def test_keys_of_a_session_that_nobody_verified_are_not_proposed(
    session: sev.Session, run: Run, parts: dict[str, object] | None
) -> None:
    other_keys()
    if parts is None:
        Path("vm.launch.json").unlink()
    else:
        record(session, **parts)
    ran = run(*ASKED, *OTHER_KEYS, *VCPUS)
    _, hint, note = ran.err.splitlines()
    assert hint.endswith("the keys are those of vm_tik.bin")
    assert "in another session (vm_tik.bin), of which no record of a verified platform" in note
    found = json.loads(run(*ASKED, *OTHER_KEYS, *VCPUS, "--json").out)["diagnosis"]
    assert [set(finding) for finding in found] == [ENTRY]
    assert found[0]["command"] is None
    assert "do not trust it" in found[0]["meaning"]


def test_keys_whose_record_was_edited_are_not_proposed(session: sev.Session, run: Run) -> None:
    other_keys()
    path = Path("vm.launch.json")
    path.write_text(path.read_text().replace('"a root"', '"a better root"'))
    ran = run(*ASKED, *OTHER_KEYS, *VCPUS)
    assert (ran.code, "the keys are those of vm_tik.bin" in ran.err) == (1, True)
    assert "of which no record of a verified platform" in ran.err
    assert "if you meant that" not in ran.err


ENTRY = {"hypothesis", "detail", "changes", "meaning", "command"}


def test_a_found_sessions_record_takes_the_place_of_the_one_that_was_named(
    milan: Platform, session: sev.Session, run: Run
) -> None:
    other = sev.Session.create_unverified(milan.export().pdh, policy=sev.GuestPolicy(5))
    for name, key in (("o_tik.bin", other.keys.tik), ("o_tek.bin", other.keys.tek)):
        Path(name).write_bytes(key)
    Path("vm.launch.json").rename("right.launch.json")
    record(other)
    command = corrected(run(*ASKED, *OTHER_KEYS, *VCPUS, "--record", "vm.launch.json").err)
    assert command[command.index("--record") + 1] == "right.launch.json"
    assert run(*command).code == 0


@pytest.mark.parametrize(
    "encode", [bytes.hex, lambda key: b64encode(key).decode() + "\n"], ids=["hex", "base64"]
)
def test_keys_are_found_in_whatever_form_and_name(
    session: sev.Session, run: Run, encode: Callable[[bytes], str]
) -> None:
    other_keys()
    for name in ("vm_tik.bin", "vm_tek.bin", "vm_tk.bin"):
        Path(name).unlink()
    Path("tiktik.key").write_text(encode(session.keys.tik))
    Path("tiktek.key").write_text(encode(session.keys.tek))
    ran = run(*ASKED, *OTHER_KEYS, *VCPUS)
    assert "the keys are those of tiktik.key" in ran.err
    assert run(*corrected(ran.err)).code == 0


def test_a_corrected_command_writes_no_evidence_over_that_of_the_refusal(
    session: sev.Session, run: Run
) -> None:
    ran = run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:], "--evidence", "refused.json")
    assert Path("refused.json").exists()
    command = corrected(ran.err)
    assert "--evidence" not in command
    assert run(*command).code == 0


def test_a_corrected_command_makes_no_packet(session: sev.Session, run: Run) -> None:
    secret = ("-s", "luks-key:disk.key", "--secret-header", "h", "--secret-payload", "p")
    ran = run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:], *secret)
    command = corrected(ran.err)
    assert not {"--inject-secret", "--secret-header", "--secret-payload"} & set(command)
    again = run(*command)
    assert (again.code, Path("h").exists(), Path("p").exists()) == (0, False, False)


def test_what_is_not_printable_is_quoted_so_that_a_shell_reads_it(
    milan: Platform, session: sev.Session, run: Run
) -> None:
    line = "it's \\ caf\u00e9\n"
    report(milan, session, cmdline=line.encode())
    asked = [line if word == LINE else word for word in ASKED]
    ran = run(*asked, *KEYS, "-n", "2", *VCPUS[2:])
    assert r"--cmdline $'it\x27s \x5c café\x0a' " in ran.err


def test_a_command_that_would_not_work_again_is_not_offered_whole(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("o_tk.bin").write_bytes(b"k" * 32)
    asked = [*ASKED[:6], "-", *ASKED[7:], *VCPUS, "--json", "--tk", "o_tk.bin"]
    with Path("OVMF.fd").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        found = json.loads(run(*asked).out)["diagnosis"]
        file.seek(0)
        ran = run(*(word for word in asked if word != "--json"))
    assert (found[0]["hypothesis"], found[0]["command"]) == ("keys.other", None)
    assert ran.err.splitlines()[2] == (
        "note: if you meant that: the same with --record vm.launch.json --tik vm_tik.bin "
        "--tek vm_tek.bin, without --tk"
    )


def test_swapped_keys_in_one_file_cannot_be_mended_by_options(
    session: sev.Session, run: Run
) -> None:
    Path("swapped.tk").write_bytes(session.keys.tik + session.keys.tek)
    for name in ("vm_tik.bin", "vm_tek.bin", "vm_tk.bin"):
        Path(name).unlink()
    ran = run(*ASKED, *VCPUS, "--tk", "swapped.tk")
    assert ran.err.splitlines()[1] == ("hint: the measurement fits if TIK and TEK are swapped")
    assert "if you meant that" not in ran.err
    assert "note: the file for --tk holds TEK, then TIK" in ran.err


@pytest.mark.parametrize(
    ("options", "guest", "fits", "meaning"),
    [
        (("--policy", "4"), {}, "its policy was 0x0005, not 0x0004", "debug commands"),
        ((), {"kernel": None}, "without kernelHashes='yes'", "the host chose them"),
        ((), {"cmdline": LINE.encode() + b"\n"}, "ended in a newline", "yours to decide"),
        ((), {"firmware": ovmf_image(1 << 14, seed=b"2")}, "was more/two.fd", "can lie"),
        (("--build-id", "30"), {}, "build was 24, not 30", "older firmware than these"),
        (("--vmsa-profile", "qemu-legacy+debug-swap"), {}, "VMSA profile qemu-legacy", "kernel's"),
        ((), {"kernel": b"initrd", "initrd": b"kernel"}, "are swapped", "wrong order"),
    ],
)
def test_what_the_owner_decided_is_not_mended_but_explained(
    milan: Platform,
    session: sev.Session,
    run: Run,
    options: tuple[str, ...],
    guest: dict[str, Any],
    fits: str,
    meaning: str,
) -> None:
    Path("more").mkdir()
    Path("more/two.fd").write_bytes(ovmf_image(1 << 14, seed=b"2"))
    with Path("more/huge.fd").open("wb") as huge:
        huge.truncate(1 << 30)
    report(milan, session, **guest)
    ran = run(*ASKED, *VCPUS, *KEYS, "--firmware-dir", "more", *options)
    _, hint, note, *rest = ran.err.splitlines()
    assert ran.code == 1
    assert fits in hint
    assert note.startswith("note: ")
    assert meaning in note
    assert "if you meant that" not in "".join(rest)


def test_the_sessions_record_tells_its_policy(milan: Platform, run: Run, here: Path) -> None:
    Path("chain").write_bytes(Host(milan).chain().to_bytes())
    Path("ark").write_bytes(milan.authority.ark.to_bytes())
    Path("OVMF.fd").write_bytes(OVMF)
    Path("0.launch.json").write_bytes(b"{}")
    for name, policy in (("other", "0x1"), ("vm", "0x33")):
        made = run("session", "--name", name, "chain", policy, "--trust-root", "ark")
        assert made.code == 0
    guest = launch_guest(
        milan,
        policy=0x33,
        godh=b64decode(Path("vm_godh.b64").read_bytes()),
        session=b64decode(Path("vm_session.b64").read_bytes()),
        firmware=OVMF,
    )
    Path("info").write_text(guest.domlaunchsecinfo())
    ran = run("validate", "--launch-info", "info", "--policy", "0x4", "-f", "OVMF.fd", *KEYS,
              "-n", "1", "--cpu-model-name", "EPYC", "--json")  # fmt: skip
    found = json.loads(ran.out)
    assert found["diagnosis"][0]["hypothesis"] == "policy.session"
    assert found["diagnosis"][0]["changes"] == {"policy": 0x33}


SPOILED = {
    "vcpus": ("-n", "3"),
    "cpu.model": ("--cpu-model-name", "EPYC"),
    "vmsa.profile": ("--vmsa-profile", "qemu-init2+debug-swap"),
    "keys.swapped": ("--tik", "vm_tek.bin", "--tek", "vm_tik.bin"),
    "policy.bit": ("--policy", "0x7"),
    "cmdline": ("-e", f"{LINE}\n"),
    "numbers.one": ("--build-id", "200"),
    "es.off": (),
}


@pytest.mark.parametrize(("hypothesis", "options"), SPOILED.items(), ids=SPOILED)
@pytest.mark.parametrize("insecure", [(), ("--insecure",)])
def test_whatever_is_found_it_stays_a_mismatch_and_no_secret_leaves(
    milan: Platform,
    session: sev.Session,
    run: Run,
    hypothesis: str,
    options: tuple[str, ...],
    insecure: tuple[str, ...],
) -> None:
    if hypothesis == "es.off":
        plain = sev.Session.create_unverified(milan.export().pdh, policy=sev.GuestPolicy(1))
        Path("vm_tik.bin").write_bytes(plain.keys.tik)
        godh, blob = plain.godh.to_bytes(), plain.blob
        guest = launch_guest(milan, policy=1, godh=godh, session=blob, firmware=OVMF,
                             kernel=b"kernel", initrd=b"initrd", cmdline=LINE.encode())  # fmt: skip
        Path("info").write_text(guest.domlaunchsecinfo())
    Path("vm.launch.json").unlink()
    secret = ("-s", "luks-key:disk.key", "--secret-header", "h", "--secret-payload", "p")
    ran = run(*ASKED, *KEYS, *VCPUS, *secret, *insecure, "--json", *options)
    found = json.loads(ran.out)
    assert (ran.code, found["ok"], found["exit"]) == (1, False, 1)
    assert found["errors"][0]["check"] == "launch.measurement"
    assert [finding["hypothesis"] for finding in found["diagnosis"]] == [hypothesis]
    assert found["search"]["complete"]
    assert not Path("h").exists()
    assert not Path("p").exists()
    for key in (session.keys.tik, session.keys.tek):
        assert key.hex() not in ran.out


def test_nothing_found_is_said_with_what_it_rules_out(session: sev.Session, run: Run) -> None:
    ran = run(*ASKED[:5], "--launch-digest", "00" * 32, *KEYS, "--diagnose-budget", "600")
    error, hint, note, *rest = ran.err.splitlines()
    assert (ran.code, error, rest) == (1, MISMATCH, [])
    assert hint.startswith("hint: none of ")
    assert note.startswith("note: ruled out: TIK and TEK swapped; ")


def test_time_that_is_up_is_said(session: sev.Session, run: Run) -> None:
    ran = run("validate", "--launch-info", "info", "--policy", "5", "-f", "OVMF.fd", *KEYS, *VCPUS,
              "--diagnose-budget", "0")  # fmt: skip
    assert ran.err.splitlines()[1:] == [
        (
            "hint: none of 0 likely differences explains it; --explain shows what went into it, "
            "to compare with what the host started"
        ),
        "note: the time for the search is up: --diagnose-budget SECONDS gives it more",
        (
            "note: with kernelHashes='yes', name everything that is booted: "
            "--kernel, --initrd, --cmdline missing"
        ),
    ]


@pytest.mark.parametrize("option", ["--no-diagnose", "--quiet"])
def test_nobody_has_to_wait_for_a_search(session: sev.Session, run: Run, option: str) -> None:
    ran = run(*ASKED, *KEYS, "-n", "3", *VCPUS[2:], option)
    assert ran.code == 1
    assert "fits" not in ran.err
    again = run(*ASKED, *KEYS, "-n", "3", *VCPUS[2:], option, "--json")
    assert "diagnosis" not in json.loads(again.out)


def test_a_digest_that_was_given_is_searched_for_keys_and_numbers(
    session: sev.Session, run: Run
) -> None:
    digest = run("measure", "--policy", "5", *ASKED[5:], *VCPUS).out.strip()
    ran = run("validate", "--launch-info", "info", "--launch-digest", digest, *KEYS,
              "--build-id", "25")  # fmt: skip
    assert "fits if build was 24, not 25" in ran.err


def test_firmware_and_keys_from_a_pipe_leave_no_folder_to_look_in(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("OVMF.fd").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        asked = [*ASKED[:6], "-", *ASKED[7:]]
        ran = run(*asked, *KEYS, "-n", "2", *VCPUS[2:])
    assert "note: if you meant that: the same with --num-cpus 4" in ran.err.splitlines()


def test_a_terminal_shows_how_far_the_search_is(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sev_attest.guest.diagnosis.search._TELL_EVERY", 2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    ran = run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:])
    assert "\rlooking for what fits: 2 combinations" in ran.err
    assert f"\r\033[K{MISMATCH}" in ran.err


def test_what_cannot_be_read_is_not_at_hand(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    Path("other.fd").write_bytes(b"x")
    Path("x_tik.bin").write_bytes(b"x")
    for name in ("_open", "read"):
        monkeypatch.setattr(at_hand, name, refuse)
        assert "with 4 vCPUs, not 2" in run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:]).err
    monkeypatch.setattr(os, "scandir", refuse)
    assert "with 4 vCPUs, not 2" in run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:]).err


def test_no_pipe_and_no_device_holds_the_search_up(
    milan: Platform, session: sev.Session, run: Run
) -> None:
    report(milan, session, firmware=ovmf_image(1 << 14, seed=b"2"))
    Path("a_tik.bin").write_bytes(b"k" * 16)
    for name in ("a_tek.bin", "b_tik.bin", "tk.bin", "a.launch.json", "a.fd"):
        os.mkfifo(name)
    Path("folder_tik.bin").mkdir()
    Path("zero.fd").symlink_to("/dev/zero")
    Path("zz.fd").write_bytes(ovmf_image(1 << 14, seed=b"2"))
    assert "its firmware was zz.fd" in run(*ASKED, *KEYS, *VCPUS).err


def test_an_interrupted_search_leaves_the_verdict(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(diagnosis, "explain_mismatch", interrupt)
    asked = (*ASKED, *KEYS, "-n", "2", *VCPUS[2:])
    ran = run(*asked)
    assert (ran.code, ran.err.splitlines()[0]) == (1, MISMATCH)
    assert "note: the search was interrupted" in ran.err.splitlines()
    found = json.loads(run(*asked, "--json").out)
    assert (found["ok"], found["exit"]) == (False, 1)
    assert "the search was interrupted" in found["notes"]


def test_a_bug_in_the_search_changes_no_verdict(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(diagnosis, "explain_mismatch", break_down)
    ran = run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:])
    assert (ran.code, ran.err.splitlines()[0]) == (1, MISMATCH)
    assert "the search for what fits failed (ZeroDivisionError): a bug" in ran.err


def test_explain_shows_ranges_and_fields_whatever_the_verdict(
    session: sev.Session, run: Run
) -> None:
    right = run(*ASKED, *KEYS, *VCPUS, "--explain")
    wrong = run(*ASKED, *KEYS, *VCPUS, "--explain", "--build-id", "25")
    assert (right.code, wrong.code) == (0, 1)
    for ran in (right, wrong):
        shown = ran.out
        for part in ("firmware: sha256", "kernel hashes: sha256", "VMSA of vCPU 3", "nonce: "):
            assert part in shown
        assert "launch.measurement" not in shown
    assert "build: 25" in wrong.lines


LEFT_OUT = {"keys.other", "firmware.other", "firmware.joined"}


def kept(*_arguments: object, **given: Any) -> sev.Diagnosis:
    """Look at every clue, and find nothing."""
    clues = given["clues"]
    images, keys = [name for name, _ in clues.images], list(clues.keys)
    shown = (*images, *keys, *sorted(clues.left_out))
    return sev.Diagnosis(findings=(), tried=0, ruled_out=shown, complete=not clues.left_out)


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        ({}, ["a.fd", "a_tik.bin", "b_tik.bin"]),
        ({"MOST_FILES": 1}, ["OVMF.fd", "a_tik.bin", *LEFT_OUT]),
        ({"_MOST_NAMES": 2}, [*LEFT_OUT]),
        ({"_MOST_IMAGE": 8192}, ["a.fd", "firmware.joined", "firmware.other"]),
        ({"MOST_SMALL": 8}, ["a.fd"]),  # larger than a key is no key
    ],
)
def test_what_is_passed_over_is_not_ruled_out(
    session: sev.Session,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    limit: dict[str, int],
    shown: list[str],
) -> None:
    for name in ("a_tik.bin", "a_tek.bin", "b_tik.bin", "b_tek.bin"):
        Path(name).write_bytes(name.encode().ljust(16))
    for name, size in (("a.fd", 8192), ("b.fd", 8191), ("c.fd", 0), ("d.txt", 4096)):
        Path(name).write_bytes(bytes(size))
    for name, value in limit.items():
        monkeypatch.setattr(at_hand, name, value)
    monkeypatch.setattr(diagnosis, "explain_mismatch", kept)
    asked = (*ASKED, *KEYS, *VCPUS, "-n", "2")
    found = json.loads(run(*asked, "--json").out)["search"]
    complete = not LEFT_OUT & set(shown)
    assert found["complete"] is complete
    assert set(shown) <= set(found["ruled_out"])
    assert LEFT_OUT & set(shown) == LEFT_OUT & set(found["ruled_out"])
    assert not {"b.fd", "c.fd", "d.txt"} & set(found["ruled_out"])
    note = "note: not every file at hand was tried: there are too many, or they are too large"
    assert (note in run(*asked).err.splitlines()) is not complete


@pytest.mark.parametrize("budget", ["0", "600"])
def test_without_time_nothing_is_looked_at(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    looked = []

    def read(path: Path, _most: int) -> bytes:
        looked.append(path)
        raise OSError

    monkeypatch.setattr(at_hand, "read", read)
    run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:], "--diagnose-budget", budget)
    assert bool(looked) is (budget != "0")


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (("-k", "kernel", "-r", "initrd"), "--cmdline"),
        (("-k", "kernel"), "--initrd, --cmdline"),
        ((), "--kernel, --initrd, --cmdline"),
        (("--kernel-hashes", f"{'00' * 32}::"), None),
    ],
)
def test_what_was_not_stated_of_a_kernel_is_said(
    session: sev.Session,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    missing: str | None,
) -> None:
    monkeypatch.setattr(diagnosis, "explain_mismatch", kept)
    ran = run(*ASKED[:7], *KEYS, *VCPUS, *options)
    assert ran.code == 1
    assert ("name everything that is booted" in ran.err) is (missing is not None)
    if missing:
        assert f"name everything that is booted: {missing} missing" in ran.err
