"""Completion in real shells: bash, zsh and fish, each on a terminal of its own."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sev_attest.owner import Ledger

_SECONDS = 60
_ESCAPES = re.compile(
    r"\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|[\]P][^\x07\x1b]*(\x07|\x1b\\)|[()][0-9A-Z]|.)"
)
_READY = "ready-%"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a ledger and files, and ``sev-attest`` in its ``bin``."""
    tmp_path.chmod(0o700)
    with Ledger.open(tmp_path / "launches.sqlite3") as ledger:
        for number, name in enumerate(["vm-blue", "vm-green"]):
            ledger.create(f"{number:064x}", name=name)
    (tmp_path / "OVMF.amdsev.fd").touch()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sev-attest"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sev_attest "$@"\n')
    program.chmod(0o755)
    return tmp_path


class Shell:
    """An interactive shell on a terminal, with our script loaded."""

    def __init__(self, name: str, folder: Path) -> None:
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"no {name} is installed (apt-get install {name})")
        options, start = _STARTS[name]
        self._leader, follower = pty.openpty()
        environment = os.environ | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(folder),
            "TERM": "xterm",
            "COLUMNS": "200",
            "SEV_ATTEST_LEDGER": "launches.sqlite3",
        }
        self._process = subprocess.Popen(
            # A shell wants the terminal to be its own.
            ["setsid", "--ctty", program, *options],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            cwd=folder,
        )
        os.close(follower)
        self._send(f"{start}\necho read''y-%\n")
        self._until(_READY)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._leader)

    def completes(self, line: str, expected: str) -> None:
        """Type a line and a tab; the shell must then show what is expected."""
        self._send(f"{line}\t")
        self._until(expected)
        self._send("\x03")

    def _send(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def _until(self, expected: str) -> None:
        end, seen = time.monotonic() + _SECONDS, ""
        while expected not in _ESCAPES.sub("", seen):
            ready, _, _ = select.select([self._leader], [], [], max(0, end - time.monotonic()))
            assert ready, f"{expected!r} is not in {seen!r}"
            chunk = os.read(self._leader, 1 << 12).decode(errors="replace")
            if "\x1b[c" in chunk or "\x1b[0c" in chunk:  # fish asks what terminal this is
                self._send("\x1b[?62;c")
            seen += chunk


_STARTS = {
    "bash": (("--norc", "--noprofile", "-i"), "source <(sev-attest completion bash)"),
    "zsh": (
        ("-f", "-i"),
        "autoload -Uz compinit; compinit -D; source <(sev-attest completion zsh)",
    ),
    "fish": (("--no-config", "--interactive"), "sev-attest completion fish | source"),
}


@pytest.fixture(params=_STARTS)
def shell(request: pytest.FixtureRequest, folder: Path) -> Iterator[Shell]:
    found = Shell(request.param, folder)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sev-attest valid", "sev-attest validate "),
        ("sev-attest validate --meas", "sev-attest validate --measurement "),
        ("sev-attest measure --cpu-model-name EPYC-Mi", "--cpu-model-name EPYC-Milan "),
        ("sev-attest measure --vmsa-profile kr", "--vmsa-profile krun "),
        ("sev-attest snp measure --vmsa-profile qemu-", "--vmsa-profile qemu-old "),
        ("sev-attest policy no-de", "policy no-debug "),
        ("sev-attest policy no-debug,no-s", "policy no-debug,no-send "),
        ("sev-attest schema snp-ver", "schema snp-verify "),
        ("sev-attest ledger show vm-b", "ledger show vm-blue "),
        ("sev-attest firmware OV", "firmware OVMF.amdsev.fd "),
    ],
)
def test_a_tab_completes_it(shell: Shell, line: str, expected: str) -> None:
    shell.completes(line, expected)
