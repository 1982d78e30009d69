"""Linux's driver of /dev/sev, with a simulated platform for its firmware.

Written from what drivers/crypto/ccp/sev-dev.c does: it initialises the platform where a command
needs that, shuts it down for a factory reset, refuses that while guests run, and needs a file that
is open for writing for all that changes something. Its layouts are its own, on purpose: those of
the library are what is tested.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from sev_attest.sev.states import PlatformState, Status
from sev_attest.testing import FirmwareError, Platform

ISSUE = 0xC0105300
RESET, STATUS, PEK_GEN, CSR, PDH_GEN, EXPORT, IMPORT, GET_ID, GET_ID2 = range(9)
SIZES = {STATUS: 12, CSR: 12, EXPORT: 24, IMPORT: 24, GET_ID2: 12}
"""Sizes of the structures of the commands; the others have none."""
_WRITERS = (RESET, PEK_GEN, CSR, PDH_GEN, IMPORT)


@dataclass
class Reply:
    """What a call returns: an errno or 0, the status code, the structure, and the buffers."""

    error: int = 0
    status: int = 0
    data: bytes = b""
    buffers: list[bytes] = field(default_factory=list)


@dataclass
class Driver:
    """A driver. ``fails`` holds the errno and the status code with which commands fail."""

    platform: Platform
    es: bool = True
    sockets: int = 1
    writable: bool = True
    fails: dict[int, tuple[int, int]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    """The commands that came in."""

    def issue(self, command: int, data: bytes, blobs: list[bytes]) -> Reply:
        """Do a command; ``blobs`` are the buffers that its structure points to."""
        self.seen.append(command)
        if command in self.fails:
            error, status = self.fails[command]
            return Reply(error, status, data, blobs)
        if command in _WRITERS and not self.writable:
            return Reply(errno.EPERM, 0xFFFF_FFFF, data, blobs)
        if command == RESET and self.platform.state is PlatformState.WORKING:
            return Reply(errno.EBUSY, 0xFFFF_FFFF, data, blobs)
        if self.platform.state is PlatformState.UNINIT and command not in (RESET, STATUS, GET_ID2):
            self.platform.init()
        try:
            return self._done(command, data, blobs)
        except FirmwareError as failed:
            return Reply(errno.EIO, failed.status, data, blobs)

    def _done(self, command: int, data: bytes, blobs: list[bytes]) -> Reply:
        platform = self.platform
        if command == STATUS:
            found = platform.platform_status()
            flags = found.externally_owned | self.es << 8
            versions = bytes((found.api_major, found.api_minor, found.state))
            tail = bytes((found.build,)) + found.guest_count.to_bytes(4, "little")
            return Reply(data=versions + flags.to_bytes(4, "little") + tail)
        if command == CSR:
            return _filled(data, [platform.pek_csr().to_bytes()])
        if command == EXPORT:
            return _filled(data, list(platform.pdh_cert_export()))
        if command == GET_ID2:
            return _filled(data, [b"".join([platform.get_id()] * self.sockets)])
        if command == IMPORT:
            platform.pek_cert_import(*blobs)
        elif command == RESET:
            platform.shutdown()
            platform.platform_reset()
        else:
            {PEK_GEN: platform.pek_gen, PDH_GEN: platform.pdh_gen}[command]()
        return Reply(data=data, buffers=blobs)

    def ioctl(self, _file: int, request: int, argument: bytearray, mutate: bool) -> int:  # noqa: FBT001
        """Do what the system call does, in this process, through the addresses in ``argument``."""
        assert request == ISSUE
        assert mutate
        assert len(argument) > 1024  # Python copies others, and may drop the copy on errors
        command, address = struct.unpack_from("<IQ", argument)
        data = ctypes.string_at(address, SIZES[command]) if command in SIZES else b""
        places = [] if command == STATUS else list(struct.iter_unpack("<QI", data))
        blobs = [ctypes.string_at(*place) for place in places]
        reply = self.issue(command, data, blobs)
        struct.pack_into("<I", argument, 12, reply.status)
        if data:
            ctypes.memmove(address, reply.data, len(data))
        for (place, room), found in zip(places, reply.buffers, strict=True):
            ctypes.memmove(place, found, min(room, len(found)))
        if reply.error:
            raise OSError(reply.error, os.strerror(reply.error))
        return 0


def _filled(data: bytes, replies: list[bytes]) -> Reply:
    """Put replies into buffers of the sizes in ``data``: all of them, or only the sizes."""
    places = [list(place) for place in struct.iter_unpack("<QI", data)]
    short = any(place[1] < len(reply) for place, reply in zip(places, replies, strict=True))
    sized = b"".join(
        struct.pack("<QI", place[0], len(reply))
        for place, reply in zip(places, replies, strict=True)
    )
    if short:
        return Reply(errno.EIO, Status.INVALID_LEN, sized, [b"" for _ in replies])
    return Reply(data=sized, buffers=replies)


Ioctl = Callable[[int, int, bytearray, bool], int]
