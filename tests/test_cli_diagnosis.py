"""What ``sev-attest validate`` says of a mismatch: what would fit, and what to do."""

import json
import shlex
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

import sev_attest as sev
from conftest import Run
from sev_attest.cli import diagnosis
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
    pages = sev.VmsaProfile(cpu=sev.CpuModel.named("EPYC-Milan")).pages(0x80_B004)
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
    return session


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
            "TIK and TEK are in each other's place",
        ),
        (
            (*KEYS, *VCPUS[:2], "-0", "ap.vmsa", "-1", "boot.vmsa"),
            "--vmsa-cpu0 and --vmsa-cpu1 are in each other's place",
        ),
        ((*KEYS, *VCPUS, "--build-id", "0x24"), "build was 24, not 36"),
        ((*KEYS, *VCPUS, "--api-minor", "1", "--api-major", "55"), "API major was 1, not 55"),
        (("--tik", "o_tik.bin", "--tek", "o_tek.bin", *VCPUS), "the keys are those of vm_tik.bin"),
        (("--tk", "o_tk.bin", *VCPUS), "the keys are those of vm_tik.bin"),
        (
            ("--tk", "elsewhere/tk.bin", "--keys", ".", *VCPUS),
            "the keys are those of vm_tik.bin",
        ),
        (
            (*KEYS, *VCPUS[:2], "-0", "kernel.vmsa", "-1", "kernel.vmsa"),
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
    Path("kernel.vmsa").write_bytes(bytes(4096))
    Path("x_tik.bin").write_bytes(b"no key")
    Path("tk.txt").write_bytes(b"no key")
    ran = run(*ASKED, *options)
    assert (ran.code, ran.out) == (1, "")
    error, hint, *_ = ran.err.splitlines()
    assert error == MISMATCH
    assert hint.startswith("hint: the measurement fits if ")
    assert fits in hint
    again = run(*corrected(ran.err))
    assert (again.code, again.lines[0]) == (0, "OK: Looks good to me")


def test_swapped_keys_in_one_file_cannot_be_mended_by_options(
    session: sev.Session, run: Run
) -> None:
    Path("swapped.tk").write_bytes(session.keys.tik + session.keys.tek)
    for name in ("vm_tik.bin", "vm_tek.bin", "vm_tk.bin"):
        Path(name).unlink()
    ran = run(*ASKED, *VCPUS, "--tk", "swapped.tk")
    assert ran.err.splitlines()[1] == (
        "hint: the measurement fits if TIK and TEK are in each other's place"
    )
    assert "if you meant that" not in ran.err


@pytest.mark.parametrize(
    ("options", "guest", "fits", "meaning"),
    [
        (("--policy", "4"), {}, "its policy was 0x0005, not 0x0004", "debug commands"),
        ((), {"kernel": None}, "without kernelHashes='yes'", "the host chose them"),
        ((), {"cmdline": LINE.encode() + b"\n"}, "ended in a newline", "yours to decide"),
        ((), {"firmware": ovmf_image(1 << 14, seed=b"2")}, "was more/two.fd", "can lie"),
        (("--build-id", "30"), {}, "build was 24, not 30", "older firmware than it reports"),
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


def test_nothing_found_is_said_with_what_it_rules_out(
    milan: Platform, session: sev.Session, run: Run
) -> None:
    report(milan, session, firmware=ovmf_image(1 << 14, seed=b"nobody has this"))
    ran = run(*ASKED, *KEYS, *VCPUS, "--diagnose-budget", "600")
    error, hint, note, *rest = ran.err.splitlines()
    assert (ran.code, error, rest) == (1, MISMATCH, [])
    assert hint.startswith("hint: none of ")
    assert note.startswith("note: ruled out: TIK and TEK in each other's place; ")


def test_time_that_is_up_is_said(session: sev.Session, run: Run) -> None:
    ran = run("validate", "--launch-info", "info", "--policy", "5", "-f", "OVMF.fd", *KEYS, *VCPUS,
              "--diagnose-budget", "0")  # fmt: skip
    assert ran.err.splitlines()[1:] == [
        (
            "hint: none of 0 likely differences explains it; --explain shows what went into it, "
            "to compare with what the host started"
        ),
        "note: the time for the search is up: --diagnose-budget SECONDS gives it more",
        "note: a guest with kernelHashes='yes' needs --kernel, --initrd and --cmdline",
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
    assert "with 4 vCPUs, not 2" in ran.err


def test_a_terminal_shows_how_far_the_search_is(
    milan: Platform, session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(milan, session, firmware=ovmf_image(1 << 14, seed=b"nobody has this"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ran = run(*ASKED, *KEYS, *VCPUS)
    assert "\rlooking for what fits: 4096 combinations" in ran.err
    assert f"\r\033[K{MISMATCH}" in ran.err


def test_what_cannot_be_read_is_no_clue(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    Path("other.fd").write_bytes(b"x")
    Path("x_tik.bin").write_bytes(b"x")
    monkeypatch.setattr(diagnosis, "_bytes", refuse)
    assert "with 4 vCPUs, not 2" in run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:]).err
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "with 4 vCPUs, not 2" in run(*ASKED, *KEYS, "-n", "2", *VCPUS[2:]).err


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


def test_a_folder_full_of_keys_is_searched_to_a_bound(
    session: sev.Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a_tik.bin", "a_tek.bin"):
        Path(name).write_bytes(name.encode().ljust(16))
    monkeypatch.setattr(diagnosis, "_MOST_FILES", 1)
    options = ("--tik", "o_tik.bin", "--tek", "o_tek.bin", *VCPUS)
    for name in ("o_tik.bin", "o_tek.bin"):
        Path(name).write_bytes(name.encode().ljust(16))
    ran = run(*ASKED, *options, "--diagnose-budget", "0.2")
    assert (ran.code, "the keys are those of" in ran.err) == (1, False)
