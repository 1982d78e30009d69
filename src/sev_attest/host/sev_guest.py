"""A guest's report through the device /dev/sev-guest.

Source: include/uapi/linux/sev-guest.h of Linux; drivers/virt/coco/sev-guest/sev-guest.c for the
errors. Two ioctls have the same argument, little-endian, in the layout that C gives it:

======  ====  ======================================================================
offset  size  struct snp_guest_request_ioctl
======  ====  ======================================================================
0x00    1     version of the message: 1
0x08    8     address of the request
0x10    8     address of the response: 4000 bytes, a header of 32 and the report
0x18    8     exitinfo2: the firmware's status code; the VMM's error from bit 32 on
======  ====  ======================================================================
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable

from sev_attest.host.connection import HostError
from sev_attest.host.device_errors import STATUS
from sev_attest.host.guest_errors import refused
from sev_attest.snp.spec import REPORT_SIZE

DEVICE = "/dev/sev-guest"
SNP_GET_REPORT = 0xC0205300
"""_IOWR('S', 0, struct snp_guest_request_ioctl)"""
SNP_GET_EXT_REPORT = 0xC0205302
"""_IOWR('S', 2, struct snp_guest_request_ioctl)"""
ARGUMENT = struct.Struct("<B7xQQQ")
"""struct snp_guest_request_ioctl"""
REQUEST = struct.Struct("<64sI28x")
"""struct snp_report_req: report_data, VMPL"""
EXTENDED = struct.Struct("<64sI28xQI4x")
"""struct snp_ext_report_req: the same; address and length of the buffer for certificates"""
HEADER = struct.Struct("<II24x")
"""What comes before the report in a response: status code, size of the report"""
RESPONSE_SIZE = 4000
TABLE_SIZE = 0x4000
"""Bytes of the buffer for certificates: the most that Linux accepts (SEV_FW_BLOB_MAX_SIZE)."""
_NO_FIRMWARE_CALL = 0xFFFF_FFFF
_INVALID_LEN = 1
"""SNP_GUEST_VMM_ERR_INVALID_LEN: the host's table is larger than the buffer."""
_IN_PLACE = 1025
"""Bytes from which on fcntl.ioctl() passes a buffer itself: see ``host/device.py``."""
_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO)

Ioctl = Callable[[int, int, bytearray, bool], int]


def request(
    report_data: bytes,
    vmpl: int | None = None,
    *,
    path: str = DEVICE,
    ioctl: Ioctl = fcntl.ioctl,
) -> tuple[bytes, bytes] | None:
    """Return a report and its certificate table; None if there is no such device.

    A table that is larger than 16 KiB is left out. Raises HostError.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise refused(path, error) from None
    try:
        return _Caller(path, file, ioctl).report(report_data, vmpl or 0)
    finally:
        os.close(file)


class _Caller:
    """Makes the calls to an open device."""

    def __init__(self, path: str, file: int, ioctl: Ioctl) -> None:
        self._path, self._file, self._ioctl = path, file, ioctl

    def report(self, report_data: bytes, vmpl: int) -> tuple[bytes, bytes]:
        table = ctypes.create_string_buffer(TABLE_SIZE)
        asked = EXTENDED.pack(report_data, vmpl, ctypes.addressof(table), len(table))
        response, vmm_error = self._call(SNP_GET_EXT_REPORT, asked)
        certificates = table.raw if any(table.raw) else b""
        if vmm_error == _INVALID_LEN:
            certificates = b""
            response, vmm_error = self._call(SNP_GET_REPORT, REQUEST.pack(report_data, vmpl))
        if vmm_error:
            words = f"{self._path}: the host refused (error {vmm_error:#x})"
            raise HostError(words, check="guest.report.refused", hint="try again later")
        return self._parsed(response), certificates

    def _call(self, command: int, asked: bytes) -> tuple[bytes, int]:
        """Return the response, and the VMM's error; if that is not 0, there is no response."""
        own = ctypes.create_string_buffer(asked, len(asked))
        response = ctypes.create_string_buffer(RESPONSE_SIZE)
        places = ctypes.addressof(own), ctypes.addressof(response)
        argument = bytearray(_IN_PLACE)
        ARGUMENT.pack_into(argument, 0, 1, *places, _NO_FIRMWARE_CALL)
        try:
            self._ioctl(self._file, command, argument, True)  # noqa: FBT003 - as fcntl has it
        except OSError as error:
            exitinfo2: int = ARGUMENT.unpack_from(argument)[3]
            vmm_error, status = exitinfo2 >> 32, exitinfo2 & 0xFFFF_FFFF
            if error.errno == errno.EIO and vmm_error:
                return b"", vmm_error
            if error.errno == errno.EIO and status not in (0, _NO_FIRMWARE_CALL):
                raise self._status(status) from None
            raise refused(self._path, error) from None
        return response.raw, 0

    def _status(self, status: int) -> HostError:
        name, words, _ = STATUS.get(status, ("", "a code that is not known here", ""))
        shown = f"{name}, code {status:#x}" if name else f"code {status:#x}"
        hint = "is the VMPL right? the host's firmware may need an update"
        reason = f"{self._path}: the firmware refused: {words} ({shown})"
        return HostError(reason, check="guest.report.refused", hint=hint)

    def _parsed(self, response: bytes) -> bytes:
        """Return the report in a response; status and size come first (AMD 56860)."""
        status, size = HEADER.unpack_from(response)
        if status:
            raise self._status(status)
        if size != REPORT_SIZE:
            words = f"{self._path}: the firmware answered with a report of {size} bytes"
            raise HostError(words, check="guest.report.format", hint="update this program")
        return response[HEADER.size : HEADER.size + REPORT_SIZE]
