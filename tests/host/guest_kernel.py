"""What Linux offers in an SEV-SNP guest, with a simulated platform for its firmware.

Written from drivers/virt/coco/tsm.c, fs/configfs/file.c and sev-guest.c; its layouts are its own,
on purpose: those of the library are what is tested.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass, field

from snp_material import MILAN

FOLDER = "/sys/kernel/config/tsm/report"
GET_REPORT, GET_EXT_REPORT = 0xC0205300, 0xC0205302


@dataclass
class Firmware:
    """The firmware of a guest; ``certificates`` is the host's table. ``asked`` is what came in."""

    certificates: bytes = b""
    level: int = 0
    """The VMPL that the kernel runs at."""
    lies: bytes = b""
    """Another report_data than it is asked for."""
    asked: list[tuple[bytes, int]] = field(default_factory=list)

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        self.asked.append((report_data, vmpl))
        return MILAN.report(report_data=self.lies or report_data, vmpl=vmpl)


@dataclass
class Tsm:
    """configfs-tsm, as ``sev_attest.host.tsm`` sees files.

    ``absent`` are files that this kernel does not have; ``fails`` the errno of operations, by file
    ("make" and "remove" for the entry). ``deaf`` drops what is written to inblob, as Linux may.
    """

    firmware: Firmware = field(default_factory=Firmware)
    provider: str = "sev_guest"
    absent: set[str] = field(default_factory=set)
    fails: dict[str, int] = field(default_factory=dict)
    deaf: bool = False
    other_writes: int = 0
    """How often another program writes while the report is made."""
    entries: dict[str, dict[str, bytes]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def _step(self, what: str) -> None:
        self.log.append(what)
        if what in self.fails:
            raise OSError(self.fails[what], os.strerror(self.fails[what]))

    def _file(self, path: str) -> tuple[dict[str, bytes], str]:
        folder, _, name = path.rpartition("/")
        if folder not in self.entries or name in self.absent:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        self._step(name)
        return self.entries[folder], name

    def make(self, folder: str) -> None:
        self._step("make")
        assert folder.rpartition("/")[0] == FOLDER
        assert folder not in self.entries
        self.entries[folder] = {"generation": b"0", "inblob": b"", "privlevel": b"0"}

    def remove(self, folder: str) -> None:
        self._step("remove")
        if folder not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "no such entry")
        del self.entries[folder]

    def write(self, path: str, data: bytes) -> None:
        entry, name = self._file(path)
        if name == "privlevel" and int(data) < self.firmware.level:
            raise OSError(errno.EINVAL, "below the floor")
        if name == "inblob" and self.deaf:
            return
        entry[name] = data
        entry["generation"] = b"%d" % (int(entry["generation"]) + 1)

    def read(self, path: str) -> bytes:
        entry, name = self._file(path)
        if name == "outblob":
            if len(entry["inblob"]) != 64:
                raise OSError(errno.EINVAL, "no inblob")
            report = self.firmware.report(entry["inblob"], int(entry["privlevel"]))
            entry["generation"] = b"%d" % (int(entry["generation"]) + self.other_writes)
            return report
        if name == "generation":
            return entry["generation"] + b"\n"
        return {
            "provider": self.provider.encode() + b"\n",
            "privlevel_floor": b"%d\n" % self.firmware.level,
            "auxblob": self.firmware.certificates,
        }[name]


@dataclass
class SevGuest:
    """/dev/sev-guest. ``fails``: the errno and exitinfo2 of a call, by its number."""

    firmware: Firmware = field(default_factory=Firmware)
    fails: dict[int, tuple[int, int]] = field(default_factory=dict)
    status: int = 0
    """The status in the response's header."""
    size: int = 1184
    seen: list[int] = field(default_factory=list)

    def ioctl(self, _file: int, number: int, argument: bytearray, mutate: bool) -> int:  # noqa: FBT001
        """Do what the system call does, in this process, through the addresses in ``argument``."""
        assert mutate
        assert len(argument) > 1024  # Python copies others, and may drop the copy on errors
        self.seen.append(number)
        version, asked, response, exitinfo2 = struct.unpack_from("<B7xQQQ", argument)
        assert (version, exitinfo2) == (1, 0xFFFF_FFFF)
        if number in self.fails:
            code, told = self.fails[number]
            struct.pack_into("<Q", argument, 24, told)
            raise OSError(code, os.strerror(code))
        report_data, vmpl, reserved = struct.unpack("<64sI28s", ctypes.string_at(asked, 96))
        assert not any(reserved)
        if number == GET_EXT_REPORT:
            place, room = struct.unpack("<QI", ctypes.string_at(asked + 96, 12))
            if len(self.firmware.certificates) > room:
                struct.pack_into("<Q", argument, 24, 1 << 32)
                raise OSError(errno.EIO, "the table is larger")
            ctypes.memmove(place, self.firmware.certificates, len(self.firmware.certificates))
        else:
            assert number == GET_REPORT
        report = self.firmware.report(report_data, vmpl)
        header = struct.pack("<II24x", self.status, self.size)
        ctypes.memmove(response, (header + report).ljust(4000, b"\0"), 4000)
        return 0
