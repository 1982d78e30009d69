"""A guest's report through configfs-tsm: an entry that is made, written, read and removed.

Source: Linux, Documentation/ABI/testing/configfs-tsm; for what each step returns,
drivers/virt/coco/tsm.c and fs/configfs/file.c. An entry has:

===============  =====================================================================
file             meaning
===============  =====================================================================
provider         who makes reports: sev_guest
privlevel_floor  the lowest VMPL that may be asked for; newer kernels
privlevel        VMPL, a number; written
inblob           report_data, 64 bytes; written
outblob          the report: reading it asks the firmware
auxblob          the host's certificate table; may be empty
generation       a count of the writes
===============  =====================================================================

The kernel takes inblob when the file is closed, and drops an error of it. Only ``generation`` and
the report itself tell whether it arrived.
"""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from sev_attest.errors import NotAttestable
from sev_attest.host.connection import HostError
from sev_attest.host.guest_errors import refused

FOLDER = "/sys/kernel/config/tsm/report"
_PROVIDER = "sev_guest"
_MOST = 1 << 15
"""Most bytes of a file (TSM_OUTBLOB_MAX)."""
_NUMBER = re.compile(rb"[0-9]{1,20}")
_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ENXIO)
"""No configfs-tsm here, or nothing in this kernel makes reports: sev-guest is not loaded."""


class Files(Protocol):
    """The operations on configfs. Each raises OSError."""

    def make(self, folder: str) -> None:
        """Make a folder; configfs puts the entry's files into it."""

    def remove(self, folder: str) -> None:
        """Remove an entry."""

    def read(self, path: str) -> bytes:
        """Return what is in a file."""

    def write(self, path: str, data: bytes) -> None:
        """Write to a file that exists, in one piece."""


class System:
    """The running system's."""

    def make(self, folder: str) -> None:
        """Make a folder."""
        os.mkdir(folder)  # noqa: PTH102 - as the other calls here

    def remove(self, folder: str) -> None:
        """Remove an entry; configfs removes its files."""
        os.rmdir(folder)  # noqa: PTH106 - as the other calls here

    def read(self, path: str) -> bytes:
        """Return what is in a file, at most 32 KiB."""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as the other calls here
            found = b""
            while chunk := file.read(_MOST - len(found)):
                found += chunk
        return found

    def write(self, path: str, data: bytes) -> None:
        """Write to a file that exists."""
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


def request(
    report_data: bytes, vmpl: int | None = None, *, files: Files | None = None
) -> tuple[bytes, bytes] | None:
    """Return a report and its certificate table; None if this system has no configfs-tsm.

    Raises NotAttestable if another kind of guest answers, HostError if a step fails. The entry is
    removed in any case.
    """
    files = files or System()
    with _made(files) as path:
        return None if path is None else _answer(_Entry(files, path), report_data, vmpl)


@contextmanager
def _made(files: Files) -> Iterator[str | None]:
    """Make an entry of an own name; None if there is no place for it. Removes it at the end."""
    path = f"{FOLDER}/sev-attest-{secrets.token_hex(8)}"
    try:
        try:
            files.make(path)
        except OSError as error:
            if error.errno not in _NONE:
                raise refused(FOLDER, error) from None
            yield None
        else:
            yield path
    finally:
        with suppress(OSError):  # it was not made
            files.remove(path)


class _Entry:
    """The files of an entry."""

    def __init__(self, files: Files, path: str) -> None:
        self._files, self._path = files, path

    def read(self, name: str) -> bytes:
        """Return a file's content; raises HostError, naming the file."""
        found = self.optional(name)
        if found is None:
            raise HostError(f"{FOLDER}: the entry has no {name}", check="guest.report.refused")
        return found

    def optional(self, name: str) -> bytes | None:
        """Return a file's content; None if this kernel does not have it."""
        try:
            return self._files.read(f"{self._path}/{name}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refused(f"{FOLDER}: {name}", error) from None

    def write(self, name: str, data: bytes) -> None:
        """Write a file; raises HostError, naming it."""
        try:
            self._files.write(f"{self._path}/{name}", data)
        except OSError as error:
            raise refused(f"{FOLDER}: {name}", error) from None

    def number(self, text: bytes, name: str) -> int:
        """Return a decimal number; raises HostError."""
        if not _NUMBER.fullmatch(text.strip()):
            raise HostError(f"{FOLDER}: {name} is no number", check="guest.report.refused")
        return int(text)


def _answer(entry: _Entry, report_data: bytes, vmpl: int | None) -> tuple[bytes, bytes]:
    provider = entry.read("provider").strip()
    if provider != _PROVIDER.encode():
        who = provider.decode("ascii", "replace")
        raise NotAttestable(
            f"{FOLDER}: {who} makes the reports of this machine, not {_PROVIDER}: it is no SEV-SNP "
            "guest",
            check="guest.report",
        )
    before = entry.number(entry.read("generation"), "generation")
    level = _level(entry, vmpl)
    writes = {} if level is None else {"privlevel": str(level).encode()}
    writes["inblob"] = report_data
    for name, data in writes.items():
        entry.write(name, data)
    report, certificates = entry.read("outblob"), entry.optional("auxblob") or b""
    if entry.number(entry.read("generation"), "generation") != before + len(writes):
        raise HostError(
            f"{FOLDER}: the request did not arrive, or another program wrote to it",
            check="guest.report.generation",
            hint="try again",
        )
    return report, certificates


def _level(entry: _Entry, vmpl: int | None) -> int | None:
    """Return the VMPL to ask for; None if neither the caller nor the kernel says."""
    text = entry.optional("privlevel_floor")
    if text is None:
        return vmpl
    floor = entry.number(text, "privlevel_floor")
    if vmpl is not None and vmpl < floor:
        raise HostError(
            f"{FOLDER}: this guest can ask for VMPL {floor} and above, not for {vmpl}",
            check="guest.vmpl",
            hint="what runs below it, an SVSM or a paravisor, has the lower ones",
        )
    return floor if vmpl is None else vmpl
