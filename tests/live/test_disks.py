"""Session files on real file systems that are full or read-only (needs root, for mount)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run
from sev_attest.testing import Platform


@pytest.fixture
def disk(here: Path) -> Iterator[Path]:
    """Mount a file system of two pages."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mounted = here / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", mounted], check=True)
    yield mounted
    subprocess.run(["umount", mounted], check=True)


@pytest.fixture
def command(here: Path, milan: Platform) -> list[str]:
    """Make a session for a simulated platform."""
    authority = milan.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("chain").write_bytes(milan.export().to_bytes())
    return ["session", "--name", "vm1", "chain", "5", "--out", "disk", "--trust-root", "root"]


def test_a_full_disk_leaves_nothing_behind(run: Run, disk: Path, command: list[str]) -> None:
    ran = run(*command)
    assert ran.code == 6
    assert ran.err.endswith("No space left on device\n")
    assert ran.err.startswith("error: disk/vm1")
    assert list(disk.iterdir()) == []


def test_a_read_only_disk_is_named(run: Run, disk: Path, command: list[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    ran = run(*command)
    assert (ran.code, ran.err) == (6, "error: disk/vm1_tik.bin: Read-only file system\n")
