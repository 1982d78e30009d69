"""docs/troubleshooting.md: the messages that it lists are in the programs that print them."""

import errno
import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

from test_troubleshooting import LAUNCH, SECRET

LIBVIRT = "domain must be in a paused state"
LIBC = "Value too large for defined data type"


def messages() -> list[str]:
    """Take the messages out of the first column of the page's last two tables."""
    tables = LAUNCH.partition("## The guest does not start")[2] + SECRET
    cells = re.findall(r"^\| (.*?) \|", tables, re.MULTILINE)
    return sorted({words for cell in cells for words in re.findall(r"`([^`]+)`", cell)})


def pieces(message: str) -> list[str]:
    """Cut a message at what QEMU fills in: numbers, and words in quotes."""
    parts = re.split(r"=-?(?:0x)?[0-9a-f]+\b|[' ()]*'|:$", message)
    return [part.strip(" ()") for part in parts if len(part.strip(" ()")) > 1]


@cache
def program(*names: str) -> bytes:
    for path in filter(None, map(shutil.which, names)):
        return Path(path).read_bytes()
    pytest.skip(f"{names[0]} is not installed")


def test_the_page_has_messages() -> None:
    assert {LIBVIRT, LIBC} < set(messages())
    assert len(messages()) > 15
    assert pieces("LAUNCH_START ret=1 fw_error=21 'Feature not supported'") == [
        *("LAUNCH_START ret", "fw_error", "Feature not supported"),
    ]
    assert pieces("area is invalid (base=0x0 size=0x0)") == ["area is invalid (base", "size"]


@pytest.mark.parametrize("message", [one for one in messages() if one not in (LIBVIRT, LIBC)])
def test_qemu_has_the_words(message: str) -> None:
    binary = program("qemu-system-x86_64")
    assert [piece for piece in pieces(message) if piece.encode() not in binary] == []


def test_libvirt_and_libc_have_theirs() -> None:
    assert os.strerror(errno.EOVERFLOW) == LIBC
    drivers = [*Path("/usr/lib").glob("*/libvirt/connection-driver/libvirt_driver_qemu.so")]
    if not drivers:
        pytest.skip("libvirt-daemon-driver-qemu is not installed")
    assert LIBVIRT.encode() in drivers[0].read_bytes()
