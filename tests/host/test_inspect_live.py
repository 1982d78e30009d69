"""host/inspect/live.py: what the running machine is asked, on files in place of devices."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from sev_attest.host import device
from sev_attest.host.connection import HostError
from sev_attest.host.inspect import live
from sev_attest.host.inspect.live import running_machine
from sev_attest.host.inspect.tree import Unreadable
from sev_attest.testing import Platform
from sev_driver import Driver

MACHINE = running_machine()


def test_cpuid_is_read_at_its_leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "cpuid").open("wb") as file:
        file.seek(0x8000001F)
        file.write(bytes(range(16)))
    monkeypatch.setattr(live, "_CPUID", str(tmp_path / "cpuid"))
    assert MACHINE.cpuid is not None
    assert MACHINE.cpuid(0x8000001F) == bytes(range(16))
    with pytest.raises(Unreadable, match="too short an answer"):
        MACHINE.cpuid(0x80000020)


def test_an_msr_is_read_at_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "msr").open("wb") as file:
        file.seek(0xC0010131)
        file.write((7).to_bytes(8, "little"))
    monkeypatch.setattr(live, "_MSR", str(tmp_path / "msr"))
    assert MACHINE.msr is not None
    assert MACHINE.msr(0xC0010131) == 7
    monkeypatch.setattr(live, "_MSR", str(tmp_path / "none"))
    with pytest.raises(Unreadable, match="none: No such file or directory"):
        MACHINE.msr(0xC0010131)


@contextmanager
def records(monkeypatch: pytest.MonkeyPatch, answers: list[bytes | OSError]) -> Iterator[None]:
    """Let each read of the log return, or raise, one of these."""
    left = iter(answers)

    def read(_file: int, size: int) -> bytes:
        assert size >= 8192
        answer = next(left)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(live, "_KMSG", os.devnull)
    monkeypatch.setattr(os, "read", read)
    yield
    monkeypatch.undo()
    assert next(left, None) is None


def test_the_log_is_read_record_by_record(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bytes | OSError] = [
        b"6,1,0,-;Linux version 6.12\n SUBSYSTEM=x\n",
        BrokenPipeError(32, "overwritten"),
        b"6,3,0,-;Memory; SEV\n",
        BlockingIOError(11, "no more"),
    ]
    assert MACHINE.log is not None
    with records(monkeypatch, answers):
        log = MACHINE.log()
    assert log == "Linux version 6.12\nMemory; SEV"


def test_the_log_s_end_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MACHINE.log is not None
    with records(monkeypatch, [b"6,1,0,-;a\n", b""]):
        assert MACHINE.log() == "a"


def test_a_log_without_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MAX_RECORDS", 3)
    assert MACHINE.log is not None
    with records(monkeypatch, [b"6,1,0,-;a\n"] * 3):
        assert MACHINE.log() == "a\na\na"


def test_a_log_that_is_a_pipe_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "kmsg")
    writing = os.open(tmp_path / "kmsg", os.O_RDWR)
    os.write(writing, b"6,1,0,-;hello\n")
    monkeypatch.setattr(live, "_KMSG", str(tmp_path / "kmsg"))
    assert MACHINE.log is not None
    assert MACHINE.log() == "hello"
    os.close(writing)


def test_the_firmware_is_asked_through_the_device(
    monkeypatch: pytest.MonkeyPatch, sev_platform: Platform
) -> None:
    ioctl = Driver(sev_platform).ioctl
    monkeypatch.setattr(device, "Device", partial(device.Device, os.devnull, ioctl=ioctl))
    assert MACHINE.platform_status is not None
    assert MACHINE.platform_status().build == sev_platform.build


def test_firmware_that_fails_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise HostError("the firmware is busy", check="device.busy", hint="wait")

    monkeypatch.setattr(device, "Device", fail)
    assert MACHINE.platform_status is not None
    with pytest.raises(Unreadable, match=r"^/dev/sev: the firmware is busy$") as caught:
        MACHINE.platform_status()
    assert caught.value.hint == "wait"
