"""The SEV firmware of this machine, through Linux's /dev/sev.

Source: include/uapi/linux/psp-sev.h of Linux. There is one ioctl, SEV_ISSUE_CMD, whose argument is
packed and little-endian:

======  ====  ==================================================================
offset  size  struct sev_issue_cmd
======  ====  ==================================================================
0x00    4     command
0x04    8     address of the command's own structure
0x0c    4     status code of the firmware, if it was called
======  ====  ==================================================================

Linux initialises the platform where a command needs that, and shuts it down for a factory reset.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from sev_attest.errors import SevAttestError, WrongState
from sev_attest.host.connection import HostError
from sev_attest.host.device_errors import call_error, open_error, status_error
from sev_attest.sev.spec import CERTIFICATE_SIZE
from sev_attest.sev.states import PlatformState, Status

DEVICE = "/dev/sev"
SEV_ISSUE_CMD = 0xC0105300
"""_IOWR('S', 0, struct sev_issue_cmd)"""
ISSUE = struct.Struct("<IQI")
"""struct sev_issue_cmd"""
STATUS = struct.Struct("<BBBIBI")
"""struct sev_user_data_status: API major and minor, state, flags, build, number of guests"""
IMPORT = struct.Struct("<QIQI")
"""struct sev_user_data_pek_cert_import: address and size of PEK and of OCA"""
BUFFER = struct.Struct("<QI")
"""struct sev_user_data_pek_csr and _get_id2: address and size; _pdh_cert_export has two of them"""
ID_SIZE = 64
"""Bytes of the id of one socket's chip."""
_MAX_REPLY = 0x4000
"""Most bytes that Linux accepts for a buffer (SEV_FW_BLOB_MAX_SIZE)."""
_OWNED = 1 << 0
_ES = 1 << 8
"""Flags of PLATFORM_STATUS; the second is SEV_STATUS_FLAGS_CONFIG_ES."""
_NO_FIRMWARE_CALL = 0xFFFF_FFFF
_IN_PLACE = 1025
"""Bytes from which on fcntl.ioctl() passes a buffer itself.

It passes a copy of a smaller one. Newer Pythons drop the copy if the call fails, and the status
code with it (Modules/fcntlmodule.c).
"""
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class Command(IntEnum):
    """Commands of SEV_ISSUE_CMD that are used here."""

    FACTORY_RESET = 0
    PLATFORM_STATUS = 1
    PEK_GEN = 2
    PEK_CSR = 3
    PDH_GEN = 4
    PDH_CERT_EXPORT = 5
    PEK_CERT_IMPORT = 6
    GET_ID2 = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """The reply to PLATFORM_STATUS."""

    api_major: int
    api_minor: int
    build: int
    state: PlatformState
    externally_owned: bool
    """Whether an owner imported an OCA."""
    es: bool
    """Whether the platform is initialised for SEV-ES."""
    guest_count: int


Ioctl = Callable[[int, int, bytearray, bool], int]


class Device:
    """The SEV firmware behind a device, which is closed at the end of a ``with`` block.

    Every method raises HostError if the command cannot be made or fails, and WrongState if the
    platform is in the wrong state for it. What the firmware reports is the host's own claim.
    """

    def __init__(self, path: str = DEVICE, *, ioctl: Ioctl = fcntl.ioctl) -> None:
        """Open the device; raises HostError.

        It is opened for reading only if nothing else is allowed. Linux then permits
        ``platform_status`` and ``get_id``, and ``pdh_cert_export`` if the platform is initialised.
        """
        self.path: str = path
        self._ioctl = ioctl
        self._file = _opened(path)

    def __enter__(self) -> Self:
        """Return the device."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the device."""
        self.close()

    def close(self) -> None:
        """Close the device, once."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def platform_status(self) -> PlatformStatus:
        """PLATFORM_STATUS: return the versions, the state and the number of guests."""
        reply = self._issue(Command.PLATFORM_STATUS, bytes(STATUS.size))
        major, minor, state, flags, build, guests = STATUS.unpack(reply)
        if state not in list(PlatformState):
            raise self._odd(Command.PLATFORM_STATUS, f"an unknown platform state, {state}")
        return PlatformStatus(
            api_major=major,
            api_minor=minor,
            build=build,
            state=PlatformState(state),
            externally_owned=bool(flags & _OWNED),
            es=bool(flags & _ES),
            guest_count=guests,
        )

    def pdh_cert_export(self) -> tuple[bytes, bytes]:
        """PDH_CERT_EXPORT: return the PDH (2084 bytes), and PEK, OCA and CEK in a row (6252)."""
        sizes = (CERTIFICATE_SIZE, 3 * CERTIFICATE_SIZE)
        pdh, chain = self._replies(Command.PDH_CERT_EXPORT, sizes)
        return pdh, chain

    def pek_csr(self) -> bytes:
        """PEK_CSR: return the PEK without signatures, for an owner's OCA to sign (2084 bytes)."""
        return self._replies(Command.PEK_CSR, (CERTIFICATE_SIZE,))[0]

    def get_id(self) -> bytes:
        """GET_ID: return the id of the first socket's chip, 64 bytes: AMD serves its CEK under it.

        Raises HostError also for an id that is all zeros, which some hosts report.
        """
        # The reply has one id for each socket; AMD's machines have at most two.
        found = self._replies(Command.GET_ID2, (2 * ID_SIZE,))[0][:ID_SIZE]
        if len(found) < ID_SIZE or not any(found):
            raise self._odd(Command.GET_ID2, f"{found.hex() or 'nothing'}, which is no id")
        return found

    def pek_cert_import(self, pek: bytes, oca: bytes) -> None:
        """PEK_CERT_IMPORT: take an owner's OCA, and the PEK that it signed. Makes a new PDH."""
        given = [ctypes.create_string_buffer(data, len(data)) for data in (pek, oca)]
        places = [number for one in given for number in (ctypes.addressof(one), len(one))]
        self._issue(Command.PEK_CERT_IMPORT, IMPORT.pack(*places))

    def pek_gen(self) -> None:
        """PEK_GEN: make a new OCA, PEK and PDH; the platform owns itself again."""
        self._issue(Command.PEK_GEN)

    def pdh_gen(self) -> None:
        """PDH_GEN: make a new PDH."""
        self._issue(Command.PDH_GEN)

    def factory_reset(self) -> None:
        """FACTORY_RESET: forget every key but the CEK. Raises WrongState while guests run."""
        try:
            self._issue(Command.FACTORY_RESET)
        except HostError as error:
            # Linux checks the state itself (sev_ioctl_do_reset).
            if error.check != "device.busy":
                raise
            hint = f"stop this host's SEV guests; if there are none, {error.hint}"
            reason = f"{self.path}: FACTORY_RESET: guests are running"
            raise WrongState(reason, check="device.busy", hint=hint) from None

    def _replies(self, command: Command, sizes: Sequence[int]) -> list[bytes]:
        """Return what a command writes into buffers, which it is given with these sizes.

        A firmware that needs others says which (INVALID_LEN), and is asked once more.
        """
        for _ in range(2):
            status, buffers, needed = self._filled(command, sizes)
            if status != Status.INVALID_LEN:
                break
            if max(needed) > _MAX_REPLY:
                raise self._odd(command, f"a size of {max(needed)} bytes")
            sizes = [max(pair) for pair in zip(sizes, needed, strict=True)]
        if status != Status.SUCCESS:
            raise self._failed(command, status)
        if any(size > len(one) for one, size in zip(buffers, needed, strict=True)):
            raise self._odd(command, f"{max(needed)} bytes, more than there was room for")
        return [one[:size] for one, size in zip(buffers, needed, strict=True)]

    def _filled(
        self, command: Command, sizes: Sequence[int]
    ) -> tuple[int, list[bytes], tuple[int, ...]]:
        """Return the status code of a command, its buffers, and the sizes that it left there."""
        buffers = [ctypes.create_string_buffer(size) for size in sizes]
        layout = BUFFER.format + BUFFER.format[1:] * (len(buffers) - 1)
        places = [number for one in buffers for number in (ctypes.addressof(one), len(one))]
        status, reply = self._call(command, struct.pack(layout, *places))
        return status, [one.raw for one in buffers], struct.unpack(layout, reply)[1::2]

    def _issue(self, command: Command, data: bytes = b"") -> bytes:
        """Return the command's own structure as the firmware leaves it."""
        status, reply = self._call(command, data)
        if status != Status.SUCCESS:
            raise self._failed(command, status)
        return reply

    def _call(self, command: Command, data: bytes) -> tuple[int, bytes]:
        """Return the firmware's status code, and the command's own structure."""
        own = ctypes.create_string_buffer(data, len(data)) if data else None
        address = ctypes.addressof(own) if own is not None else 0
        argument = bytearray(_IN_PLACE)
        ISSUE.pack_into(argument, 0, command, address, _NO_FIRMWARE_CALL)
        failure = None
        try:
            self._ioctl(self._file, SEV_ISSUE_CMD, argument, True)  # noqa: FBT003 - as fcntl has it
        except OSError as error:
            failure = error
        status: int = ISSUE.unpack_from(argument)[2]
        called = status not in (Status.SUCCESS, _NO_FIRMWARE_CALL)
        # EIO stands for a status code; with any other error the code is of no command.
        if failure is not None and not (failure.errno == errno.EIO and called):
            raise call_error(self.path, command.name, failure)
        return status if called else Status.SUCCESS, own.raw if own is not None else b""

    def _failed(self, command: Command, status: int) -> SevAttestError:
        return status_error(self.path, command.name, status)

    def _odd(self, command: Command, what: str) -> HostError:
        reason = f"{self.path}: {command.name}: the firmware replied with {what}"
        return HostError(reason, check="device.reply", hint="update the SEV firmware")


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise open_error(path, error) from None
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise open_error(path, error) from None
