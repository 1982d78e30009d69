"""What the running machine can be asked beyond its files: CPUID, MSRs and the kernel's log.

Sources: Linux, cpuid(4), msr(4) and Documentation/ABI/testing/dev-kmsg.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sev_attest.errors import SevAttestError
from sev_attest.host.inspect.machine import MAX_LINE, Live
from sev_attest.host.inspect.tree import Unreadable

if TYPE_CHECKING:
    from sev_attest.host.device import PlatformStatus

_CPUID = "/dev/cpu/0/cpuid"
_MSR = "/dev/cpu/0/msr"
_KMSG = "/dev/kmsg"
_MAX_RECORDS = 1 << 17
_RECORD = 8192
"""Bytes of a record of /dev/kmsg, at most (include/linux/printk.h, PRINTK_MESSAGE_MAX is less)."""


def running_machine() -> Live:
    """Return what this machine itself can be asked."""
    return Live(cpuid=_cpuid, msr=_msr, log=_log, platform_status=_platform_status)


def _cpuid(leaf: int) -> bytes:
    return _at(_CPUID, leaf, 16)


def _msr(number: int) -> int:
    return int.from_bytes(_at(_MSR, number, 8), "little")


def _at(path: str, offset: int, size: int) -> bytes:
    with _device(path) as file:
        data = os.pread(file, size, offset)
    if len(data) != size:
        raise Unreadable(path, "too short an answer")
    return data


def _log() -> str:
    """Return the kernel's log; each read is one record, and none waits for the next one."""
    lines = []
    with _device(_KMSG) as file:
        for _ in range(_MAX_RECORDS):
            try:
                record = os.read(file, _RECORD)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # the record was overwritten meanwhile
            if not record:
                break
            # "priority,sequence,time,flags;text", then lines that begin with a space.
            text = record.decode("utf-8", "replace").partition(";")[2]
            lines.append(text.partition("\n")[0][:MAX_LINE])
    return "\n".join(lines)


def _platform_status() -> "PlatformStatus":
    from sev_attest.host.device import DEVICE, Device

    try:
        with Device() as firmware:
            return firmware.platform_status()
    except SevAttestError as error:
        raise Unreadable(DEVICE, str(error), hint=error.hint) from None


@contextmanager
def _device(path: str) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield file
        finally:
            os.close(file)
    except OSError as error:
        raise Unreadable.because(path, error) from None
