"""cli/: what holds for every command."""

import atexit
import fcntl
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

import sev_attest
from conftest import Run
from sev_attest import SevAttestError, Unsupported, errors, guest, owner, sev, snp
from sev_attest.cli import exits, inputs, interrupts, main, outputs
from sev_attest.cli.commands import demo
from sev_attest.cli.outputs import write_all


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Give the signals back to pytest after a test that runs the entry point."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


TOOL = [sys.executable, "-m", "sev_attest"]


def test_the_help_lists_every_command(run: Run) -> None:
    shown = run("--help")
    assert shown.code == 0
    for name in main.cli.list_commands(click.Context(main.cli)):
        assert f"\n  {name} " in shown.out
        assert run(name, "--help").code == 0


def test_the_help_names_every_exit_code_of_the_readme(run: Run) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text().partition("## Exit codes")[2]
    codes = re.findall(r"^\| ([0-9]+) \|", readme.partition("\n## ")[0], re.MULTILINE)
    shown = run("--help").out.partition("Exit codes: ")[2]
    assert re.findall(r"(?<!\w)([0-9]+)(?= )", " ".join(shown.split())) == codes


def test_the_version_is_the_package_s(run: Run) -> None:
    assert run("--version").out == f"sev-attest {sev_attest.__version__}\n"


def test_an_unknown_command_or_option_is_a_usage_error(run: Run) -> None:
    for arguments in (["verfy"], ["verify", "--chain", "x"], ["--nope"], ["session", "x"]):
        ran = run(*arguments)
        assert ran.code == 2
        assert ran.err.startswith("error: ")
        assert re.search(r"--help` shows the (options|commands)", ran.err)
        assert ran.out == ""


def test_a_usage_error_is_json_too_when_json_was_asked_for(run: Run) -> None:
    document = json.loads(run("verify", "--json", "--nope").out)
    assert document["schema"] == "sev-attest/verify/1"
    assert (document["ok"], document["exit"]) == (False, 2)
    assert document["errors"][0]["check"] == "usage"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotVerified("m", check="c"), 1),
        (errors.Unsupported("m", check="c"), 2),
        (errors.Insecure("m", check="c"), 3),
        (errors.NotAttestable("m", check="c"), 4),
        (errors.MalformedInput("m", "c", "r"), 6),
        (OSError(28, "No space left on device", "file"), 6),
        (OSError("odd"), 6),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 6),
        (ValueError("secret bytes"), 70),
        (RecursionError(), 70),
    ],
)
def test_every_error_has_its_exit_code_and_no_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(main.cli, "invoke", fail)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    ran = run("verify")
    assert ran.code == code
    assert "Traceback" not in ran.err
    assert "secret bytes" not in ran.err
    if code == 70:
        assert ran.err.startswith(f"error: internal error ({type(error).__name__} in fail:")


def test_an_internal_error_without_a_trace_is_reported_too() -> None:
    assert exits.explain(ValueError(), [])[0] == 70


def test_a_usage_error_without_context_is_reported_too() -> None:
    assert "`sev-attest --help`" in exits.explain(click.UsageError("x"), [])[1][0].hint


def test_a_file_s_name_cannot_steer_the_terminal(run: Run, here: Path) -> None:
    ran = run("verify", "no\x1b[2J\nerror: fine\u202e")
    assert ran.code == 6
    assert ran.err == ("error: no\\x1b[2J\\x0aerror: fine\\x202e: No such file or directory\n")


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_who_leaves_is_no_traceback(
    milan_chain: Path, buffered: str, options: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [*TOOL, "verify", str(milan_chain), *options],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": buffered},
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (6, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_standard_output_is_an_error(
    milan_chain: Path, buffered: str, options: list[str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [*TOOL, "verify", str(milan_chain), *options],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
        )
    assert ran.returncode == 6
    assert ran.stderr.endswith(b"No space left on device\n")
    assert ran.stderr.count(b"error: ") == 1


@pytest.mark.parametrize(
    ("redirection", "codes"),
    [(">&-", {1}), ("2>&-", {1}), ("2>/dev/full", {1}), (">&- 2>&-", {1})],
)
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_closed_streams_do_not_change_the_verdict(
    milan_chain: Path, redirection: str, codes: set[int], buffered: str
) -> None:
    line = f'exec "$@" {redirection}'
    command = ["sh", "-c", line, "sh", *TOOL, "verify", str(milan_chain)]
    ran = subprocess.run(
        command,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": buffered},
    )
    assert ran.returncode in codes
    assert b"Traceback" not in ran.stderr


def test_a_closed_standard_input_is_unreadable() -> None:
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *TOOL, "verify", "-"]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (6, b"error: standard input: it is closed\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_files_take_their_names_leaves_nothing_behind(
    milan_chain: Path, number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # whatever the tests were started under
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sev_attest.cli import main\n"
        "link = os.link\n"
        "def late(source, target):\n"
        "    link(source, target)\n"
        f"    if target.endswith('vm_godh.b64'): os.kill(os.getpid(), {int(number)})\n"
        "os.link = late\n"
        "main.main(sys.argv[1:])\n"
    )
    (tmp_path / "pdh").write_bytes(milan_chain.read_bytes()[:2084])
    options = ["--name", "vm", "--out", str(out), "--insecure", str(tmp_path / "pdh"), "5"]
    ran = subprocess.run(
        [sys.executable, "-c", code, "session", *options], capture_output=True, check=False
    )
    assert (ran.returncode, list(out.iterdir())) == (130, [])


def test_nohup_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is interrupts._interrupt


def test_a_signal_ends_a_command_as_ctrl_c_does_and_the_process_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.running:
        interrupts._interrupt(15, None)
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(interrupts.running, "code", 7)
    interrupts._interrupt(15, None)
    assert codes == [7]


@pytest.mark.parametrize("started", ["sev-attest", "-m"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_it_starts_shows_nothing(
    started: str, number: signal.Signals, tmp_path: Path
) -> None:
    """The signal comes while click is imported: at the first import behind our first line."""
    (tmp_path / "click.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    entry = "from sev_attest.__main__ import main; main()"
    command = ["-c", entry] if started == "sev-attest" else ["-m", "sev_attest"]
    ran = subprocess.run(
        [sys.executable, *command, "--version"],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"")


def test_a_signal_at_the_first_import_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupts, "handle", interrupted)
    monkeypatch.delitem(sys.modules, "sev_attest.__main__", raising=False)
    with pytest.raises(SystemExit) as caught:
        import_module("sev_attest.__main__")
    assert caught.value.code == 130
    monkeypatch.undo()
    assert callable(import_module("sev_attest.__main__").main)  # an import runs nothing
    del sys.modules["sev_attest.__main__"]  # for those who run it


def test_an_error_that_nobody_can_read_still_has_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    discarded: list[object] = []
    monkeypatch.setattr(exits, "_discard", discarded.append)
    monkeypatch.setattr(click, "echo", full)
    assert exits.run(main.cli, ["verify"]) == 2
    assert discarded == [sys.stderr, sys.stderr]


def test_output_that_fails_only_at_the_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:  # pytest flushes it too
        patch.setattr(os, "dup2", lambda *_: None)
        patch.setattr(sys.stdout, "flush", full)
        patch.setattr(exits, "_run", lambda *_: 0)
        assert exits.run(main.cli, []) == 6
        patch.setattr(exits, "_run", lambda *_: 1)
        assert exits.run(main.cli, []) == 1


@pytest.fixture
def milan_chain(milan: object, tmp_path: Path) -> Path:
    path = tmp_path / "host.chain"
    path.write_bytes(milan.export().to_bytes())  # type: ignore[attr-defined]
    return path


def test_it_runs_where_the_locale_knows_no_unicode(milan_chain: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ran = subprocess.run(
        [*TOOL, "verify", str(milan_chain)], capture_output=True, check=False, env=environment
    )
    assert ran.returncode == 1
    assert b"\\u2b11 PEK EP384 E256" in ran.stdout
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "arguments", ["validate --tk /dev/null --firmware /dev/null", "advisories -q"]
)
def test_neither_cryptography_nor_anything_but_click_is_imported_beside_the_standard_library(
    arguments: str,
) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from sev_attest.cli.main import cli\n"
        "from sev_attest.cli.exits import run\n"
        "run(cli, sys.argv[1:])\n"
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], capture_output=True, check=True, text=True
    )
    imported = ran.stdout.splitlines()[-1].split()
    tops = {name for name in imported if name not in sys.stdlib_module_names}
    assert tops - {"__mp_main__"} == {"click", "sev_attest"}


def test_what_goes_nowhere_is_lost_without_a_word() -> None:
    with main._nowhere() as stream:
        stream.write("⬑")
        assert stream.name == os.devnull


PUBLIC = {
    sev_attest: """
        ChainInvalid ChecksFailed Failure IdBlockInvalid Insecure LaunchRefused MalformedInput
        MeasurementMismatch NotAttestable NotVerified ReportInvalid RequirementsNotMet
        SevAttestError Unsupported WrongState guest owner sev snp
    """,
    guest: "CpuModel Firmware KernelHashes SnpProfile VmsaPages VmsaProfile",
    sev: """
        AmdCaCertificate AttestationReport Certificate Chain Clues Diagnosis Explanation Generation
        GuestPolicy LaunchInfo MeasuredGuest MeasuredRange OwnerKey Root SecretPacket Session
        TransportKeys VerifiedChain VerifiedLaunch VerifiedReport amd_roots build_secret
        build_secret_unverified explain_mismatch launch_digest verify_chain verify_launch
        verify_report
    """,
    snp: """
        AttestationReport Certificate Challenge Evidence Expected GuestPolicy IdAuth IdBlock IdKey
        IdPrivateKey Kem Kind MeasuredPages Product RevocationList Root RuntimeData SealedSecrets
        Section SnpClues SnpFirmware SnpGuest Svsm Tcb TransportKey TransportPrivateKey
        VerifiedIdBlock VerifiedReport amd_roots explain_digest launch_digest open_sealed
        read_certificates read_evidence report_data seal sign_id_block verify_id_block verify_report
    """,
    owner: """
        Event Head KeyAccessError KeyEncryption LaunchRecord Ledger LedgerDamaged LedgerEntry
        LedgerError Met Minimum PendingSession PendingSessions ReferenceValue Requirements SealError
        SecretSource SnpMinimum SnpReferenceValue SnpRequirements State create_challenge
        default_place key_encryption release release_snp secret_source
    """,
}


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_every_public_name_is_there_and_no_other_is(package: Any) -> None:
    assert set(package.__all__) == set(PUBLIC[package].split())
    for name in package.__all__:
        value = getattr(package, name)
        assert value.__doc__, name
        assert getattr(value, "__module__", value.__name__).startswith("sev_attest.")
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        package.nope  # noqa: B018


# reading


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("255", 255), ("0xff", 255), ("0XFF", 255), (" 7 ", 7)]
)
def test_numbers_are_decimal_or_hex(text: str, number: int) -> None:
    assert inputs.BYTE.convert(text, None, None) == number


@pytest.mark.parametrize(
    "text",
    ["256", "-1", "0x100", "", "x", "1e2", "0b1", "0o7", "ff", "1_0", "+5", "\u0665", "9" * 5000],
)
def test_numbers_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(click.UsageError):
        inputs.BYTE.convert(text, None, None)


def test_a_standard_input_that_is_closed_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(OSError, match="'standard input'"):
        inputs.stdin()


def test_a_large_file_shows_its_progress_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(bytes(5000))
    monkeypatch.setattr(inputs, "_PROGRESS_FROM", 5000)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with inputs.large_file(str(path), progress=False) as file:
        assert file.read(4000) == bytes(4000)
    assert capsys.readouterr().err == ""
    with inputs.large_file(str(path)) as file:
        assert file.read(4000) == bytes(4000)
        assert file.read(4000) == bytes(1000)
    shown = capsys.readouterr()
    assert "hashing" in shown.err
    assert shown.out == ""


# writing


def test_files_are_written_whole_and_private(tmp_path: Path) -> None:
    files = {tmp_path / name: name.encode() * 9999 for name in ("a", "b")}
    old = os.umask(0)
    try:
        write_all(files.items(), force=False)
    finally:
        os.umask(old)
    for path, data in files.items():
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_failure_under_force_brings_back_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"old {name}")
    link = os.link

    def fails(source: str, target: str) -> None:
        if Path(target).name == "c":
            raise KeyboardInterrupt
        link(source, target)

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(KeyboardInterrupt):
        write_all({tmp_path / name: b"new" for name in "abc"}.items(), force=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old a", "b": "old b"}


def test_a_file_that_exists_is_not_written_over_unasked(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"mine")
    files = {tmp_path / "a": b"1", tmp_path / "b": b"2"}
    with pytest.raises(SevAttestError, match="b: exists already"):
        write_all(files.items(), force=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"b": b"mine"}
    write_all(files.items(), force=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


def test_not_even_through_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SevAttestError, match="exists already"):
        write_all({tmp_path / "a": b"1"}.items(), force=False)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_in_between_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    link = os.link

    def late(source: str, target: str) -> None:
        if Path(target).name == "b":
            Path(target).write_bytes(b"theirs")
        if not links:
            raise OSError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(SevAttestError, match="b: exists already"):
        write_all({tmp_path / "a": b"1", tmp_path / "b": b"2"}.items(), force=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"b": b"theirs"}


def test_two_names_of_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for other in (
        tmp_path / "a",
        tmp_path / "d" / ".." / "a",
        Path(os.path.relpath(tmp_path / "a")),
    ):
        for force in (True, False):
            with pytest.raises(Unsupported, match="two of the outputs are one file"):
                write_all([(tmp_path / "a", b"1"), (other, b"2")], force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_file_that_cannot_be_moved_aside_stays_and_so_do_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / name).write_text(f"old {name}")
    rename = os.rename

    def refuse(path: str, target: str) -> None:
        if Path(path).name == "c":
            raise PermissionError(1, "Operation not permitted", path, None, target)
        rename(path, target)

    def no_links(*_paths: str) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError, match=r"Operation not permitted: '.*/c'$"):
        write_all({tmp_path / name: b"new" for name in "abc"}.items(), force=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {n: f"old {n}" for n in "abc"}


def test_a_signal_while_a_key_is_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_all({tmp_path / "tik": b"x"}.items(), force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: str) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_all({tmp_path / "a": b"1"}.items(), force=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"1"}


def killed_while_writing(folder: Path, *, force: bool) -> subprocess.Popen[bytes]:
    """Begin to write in a process of its own, and stop before the second file has its name."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from sev_attest.cli import outputs\n"
        "link = os.link\n"
        "def late(source, target):\n"
        "    there, here = os.path.basename(target), os.path.basename(source)\n"
        "    if there == 'b' or not here.startswith('.'):\n"
        "        print('there', flush=True)\n"
        "        time.sleep(600)\n"
        "    return link(source, target)\n"
        "os.link = late\n"
        "files = [(Path(sys.argv[1]) / name, b'a key') for name in 'ab']\n"
        f"outputs.write_all(files, force={force})\n"
    )
    writing = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    assert writing.stdout is not None
    assert writing.stdout.readline() == b"there\n"
    return writing


@pytest.mark.parametrize("force", [True, False])
def test_what_a_killed_run_left_behind_is_named_and_removed_by_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, force: bool
) -> None:
    if force:
        (tmp_path / "b").write_bytes(b"mine")
    (tmp_path / ".sev-attest.abcdefgh").mkdir()
    (tmp_path / ".sev-attest.backup").touch()
    (tmp_path / ".sev-attest.12345678").symlink_to("/dev/null")
    stays = sorted(path.name for path in tmp_path.glob(".sev-attest*"))
    writing = killed_while_writing(tmp_path, force=force)
    hidden = {path for path in tmp_path.glob(".*") if path.name not in stays}
    assert {path.read_bytes() for path in hidden} == {b"a key"}
    write_all([(tmp_path / "c", b"another")], force=False)
    assert hidden <= set(tmp_path.glob(".*"))  # its writer lives
    writing.kill()
    writing.wait()
    writing.stdout.close()  # type: ignore[union-attr]
    assert capsys.readouterr().err == ""
    write_all([(tmp_path / "d", b"another")], force=False)
    assert sorted(path.name for path in tmp_path.glob(".*")) == stays
    told = capsys.readouterr().err.splitlines()
    assert set(told) == {f"note: removed {path}, which a killed run left behind" for path in hidden}
    if force:
        assert (tmp_path / "b").read_bytes() == b"mine"


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert runpy.run_path(outputs.__file__)["_LOCKS"] is False
    monkeypatch.setattr(outputs, "_LOCKS", False)
    monkeypatch.delattr(signal, "pthread_sigmask")  # as Windows lacks it
    (tmp_path / ".sev-attest.abcdefgh").write_bytes(b"")
    (tmp_path / "a").write_bytes(b"old")
    write_all([(tmp_path / "a", b"new")], force=True)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {".sev-attest.abcdefgh": b"", "a": b"new"}


def test_what_stood_in_a_place_is_named_and_stays_where_a_run_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / ".sev-attest.abcdefgh.old"
    old.write_bytes(b"the only copy")
    write_all([(tmp_path / "a", b"new")], force=False)
    assert old.read_bytes() == b"the only copy"
    assert f"note: {old} is an old file that a killed run" in capsys.readouterr().err


def test_another_user_s_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".sev-attest.abcdefgh").write_bytes(b"theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    write_all([(tmp_path / "a", b"new")], force=False)
    assert (tmp_path / ".sev-attest.abcdefgh").read_bytes() == b"theirs"


def test_a_file_that_another_run_swept_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    swept: list[Path] = []

    def late(descriptor: int, flags: int) -> None:
        if not swept:
            swept.extend(tmp_path.glob(".sev-attest.*"))
            swept[0].unlink()
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    write_all([(tmp_path / "a", b"new")], force=False)
    assert len(swept) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_what_cannot_be_brought_back_stays_beside_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    link, replace = os.link, os.replace

    def fails(source: str, target: str) -> None:
        if Path(target).name == "b":
            monkeypatch.setattr(os, "replace", refuse)
            raise KeyboardInterrupt
        link(source, target)

    def refuse(*_paths: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(KeyboardInterrupt):
        write_all({tmp_path / name: b"new" for name in "ab"}.items(), force=True)
    monkeypatch.setattr(os, "replace", replace)
    assert {path.read_bytes() for path in tmp_path.glob("*.old")} == {b"old"}


def test_a_signal_that_comes_when_all_is_done_is_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unlink = os.unlink

    def late(path: str) -> None:
        signal.raise_signal(signal.SIGINT)
        unlink(path)

    monkeypatch.setattr(os, "unlink", late)
    (tmp_path / "a").write_bytes(b"old")
    write_all([(tmp_path / "a", b"new")], force=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_all([(tmp_path / ("n" * 255), b"new")], force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]


@pytest.mark.parametrize("force", [True, False])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, force: bool
) -> None:
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    files = {tmp_path / name: b"x" for name in "abcde"}
    with pytest.raises(OSError, match=r"No space left on device: '.*/c'"):
        write_all(files.items(), force=force)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_files_take_their_names_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def interrupted(source: str, target: str) -> None:
        if Path(target).name == "c":
            raise KeyboardInterrupt
        link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_all({tmp_path / name: b"x" for name in "abcde"}.items(), force=False)
    assert list(tmp_path.iterdir()) == []


def test_the_demo_tells_the_whole_story(run: Run, here: Path) -> None:
    ran = run("demo", "--keep", "kept")
    assert ran.code == 0
    assert ran.out.count("OK: Looks good to me") == 1
    assert "secret 736869e5-84f0-4973-92ec-06879ce3da0b (luks-key): 32 bytes" in ran.out
    assert ran.out.count("(exit code 1)") == 2
    assert "error: Measurement does not match, VM is not trustworthy" in ran.err
    assert (here / "kept" / "vm1_tik.bin").stat().st_size == 16
    assert run("simulate", "list", "kept/host").out.count("policy 0x0005") == 2
    again = run("demo", "--keep", "kept")
    assert (again.code, again.err) == (
        6,
        "error: kept: exists already\nhint: choose another name\n",
    )
    assert sorted(p.name for p in here.iterdir()) == ["kept"]


def test_the_demo_leaves_nothing_unless_asked(run: Run, here: Path) -> None:
    assert run("demo").code == 0
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "where", ["sev_attest.cli.diagnosis.diagnose", "sev_attest.cli.commands.simulate.write_all"]
)
def test_a_signal_ends_the_demo_also_in_a_search(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, lambda *_, **__: interrupts._interrupt(signal.SIGINT, None))
    ran = run("demo")
    assert (ran.code, "That was the whole story" in ran.out) == (130, False)
    assert list(here.iterdir()) == []


def test_a_signal_between_the_commands_of_the_demo_ends_it_as_well(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = demo._say

    def interrupted(text: str) -> None:
        said(text)
        if text.startswith("To go on"):
            interrupts._interrupt(signal.SIGINT, None)

    monkeypatch.setattr(demo, "_say", interrupted)
    assert run("demo").code == 130
    assert list(here.iterdir()) == []


def test_a_demo_that_goes_wrong_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran_as_asked = exits.run
    monkeypatch.setattr("sev_attest.cli.commands.demo.exits.run", lambda *_: 0)
    assert ran_as_asked(main.cli, ["demo"]) == 6


def test_the_entry_points_exit_with_the_code(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["verify"])
    assert caught.value.code == 2
    done: list[object] = []
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: done.append("exit functions"))
    monkeypatch.setattr(os, "_exit", done.append)
    for arguments, code in (["--version"], 0), (["verify"], 2):
        monkeypatch.setattr(sys, "argv", ["sev-attest", *arguments])
        runpy.run_module("sev_attest", run_name="__main__")
        assert done[-2:] == ["exit functions", code]
    assert capfd.readouterr().out == f"sev-attest {sev_attest.__version__}\n"


def test_exit_functions_run_and_output_is_whole(tmp_path: Path) -> None:
    """The process ends without the interpreter's own way out."""
    script = (
        "import atexit, sys; from pathlib import Path\n"
        f"atexit.register(lambda: Path({str(tmp_path / 'ran')!r}).touch())\n"
        "from sev_attest.__main__ import main\n"
        "sys.argv[1:] = ['policy', '0x5', '--json']; main()"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert json.loads(ran.stdout)["ok"]
    assert (tmp_path / "ran").exists()
