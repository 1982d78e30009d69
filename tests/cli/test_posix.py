"""What works on a system that is not POSIX: tried in a process without what only POSIX has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sev_attest.errors import Unsupported
from sev_attest.owner.ledger.stores import store_at
from sev_attest.testing import Platform, ovmf_image
from test_imports import launch_options

MISSING = {
    "os": (
        "O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown",
        "chroot", "fchdir", "fchmod", "fchown", "fork", "forkpty", "fstatvfs", "getegid", "geteuid",
        "getgid", "getgroups", "getpgid", "getuid", "killpg", "lchown", "mkfifo", "nice", "pipe2",
        "posix_spawn", "pread", "pwrite", "sched_getaffinity", "sendfile", "setsid", "statvfs",
        "sysconf", "uname", "wait",
    ),
    "signal": (
        "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP",
        "SIGTSTP", "SIGUSR1", "SIGUSR2", "alarm", "pause", "pthread_sigmask", "setitimer",
        "sigwait",
    ),
    "socket": ("AF_UNIX", "socketpair"),
}  # fmt: skip
"""Names that Python documents as not for Windows."""
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")

WITHOUT = f"""
import importlib, sys
import click, concurrent.futures, json, pathlib, sqlite3, tempfile, zipfile  # these know Windows
import cryptography.x509
for name in {MODULES!r}:
    sys.modules[name] = None
for module, names in {MISSING!r}.items():
    for name in names:
        vars(importlib.import_module(module)).pop(name, None)
from sev_attest.cli.main import main
main()
"""


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"XDG_STATE_HOME": str(folder / "state")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_version_is_shown(tmp_path: Path) -> None:
    ran = run(tmp_path, "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("sev-attest ")


def test_a_platform_is_verified(tmp_path: Path, milan: Platform) -> None:
    authority = milan.authority
    (tmp_path / "root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    (tmp_path / "chain").write_bytes(milan.export().to_bytes())
    ran = run(tmp_path, "verify", "chain", "--trust-root", "root")
    assert ran.returncode == 0
    assert all(line.startswith("note: ") for line in ran.stderr.splitlines())
    # Many at once take several processes, where there are any.
    ran = run(tmp_path, "verify", "--each", *["chain"] * 9, "--trust-root", "root")
    assert ran.returncode == 0
    assert all(line.startswith("note: ") for line in ran.stderr.splitlines())


def test_a_launch_is_measured_and_validated_without_a_ledger(tmp_path: Path) -> None:
    options = launch_options(tmp_path)
    ran = run(tmp_path, "measure", "--firmware", "OVMF.fd")
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = run(tmp_path, "validate", *options, "--ledger", "none")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("OK: Looks good to me")
    (tmp_path / "other.fd").write_bytes(bytes(4096))
    ran = run(tmp_path, "validate", *options, "--policy", "3", "--ledger", "none")
    assert ran.returncode == 1
    assert "Measurement does not match" in ran.stderr


@pytest.mark.parametrize("ledger", [[], ["--ledger", "ledger"]], ids=["default", "named"])
def test_a_ledger_file_says_in_one_line_that_it_needs_posix(
    tmp_path: Path, ledger: list[str]
) -> None:
    ran = run(tmp_path, "validate", *launch_options(tmp_path), *ledger)
    assert (ran.returncode, ran.stdout) == (2, "")
    error, hint, note = ran.stderr.splitlines()
    assert error.startswith("error: a ledger file needs a POSIX system")
    assert hint.startswith("hint: ")
    assert note == "note: the measurement itself is right"
    assert not (tmp_path / "ledger").exists()


def test_a_ledger_on_a_server_needs_no_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "geteuid")
    assert store_at("postgresql:///keys", 1).place
    with pytest.raises(Unsupported) as refused:
        store_at("ledger", 1)
    assert refused.value.check == "ledger.platform"


def test_a_simulated_host_says_what_it_needs(tmp_path: Path) -> None:
    assert run(tmp_path, "simulate", "host", "host").returncode == 0
    (tmp_path / "fw").write_bytes(ovmf_image(4096))
    guest = ("--name", "vm1", "--policy", "1", "--firmware", "fw")
    ran = run(tmp_path, "simulate", "start", "host", *guest)
    words = "error: a simulated host needs a POSIX system\n"
    assert (ran.returncode, ran.stderr) == (2, words)
