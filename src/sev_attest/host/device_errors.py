"""What goes wrong with /dev/sev: the firmware's status codes and the kernel's errors, in words.

Sources: include/uapi/linux/psp-sev.h of Linux 6.14 for the numbers of the codes (6.11 to 6.13 have
wrong ones from 0x19 on); drivers/crypto/ccp/sev-dev.c for the errors of the system calls.
"""

import errno
import os
from collections.abc import Mapping

from sev_attest.errors import SevAttestError, WrongState
from sev_attest.host.connection import HostError

_GUESTS = "stop this host's SEV guests, then try again"
_LOG = "the kernel log (`dmesg | grep ccp`) may say more"
_UPDATE = f"update the BIOS and the SEV firmware; {_LOG}"
_REBOOT = f"reboot the host; {_LOG}"
_OTHERS = f"no command for the platform should meet this: {_LOG}"
_INPUT = "make the PEK from this platform's CSR, sign it with the OCA's key, and give both"

STATUS: Mapping[int, tuple[str, str, str]] = {
    0x01: ("INVALID_PLATFORM_STATE", "the platform's state does not allow it", _GUESTS),
    0x02: ("INVALID_GUEST_STATE", "a guest's state does not allow it", _GUESTS),
    0x03: ("INVALID_CONFIG", "the platform's configuration does not allow it", _UPDATE),
    0x04: ("INVALID_LEN", "a buffer has the wrong size", _UPDATE),
    0x05: ("ALREADY_OWNED", "the platform has an external owner", "end its ownership first"),
    0x06: ("INVALID_CERTIFICATE", "a certificate is not valid for it", _INPUT),
    0x07: ("POLICY_FAILURE", "a guest's policy does not allow it", _OTHERS),
    0x08: ("INACTIVE", "the guest is not active", _OTHERS),
    0x09: ("INVALID_ADDRESS", "an address is not valid", _UPDATE),
    0x0A: ("BAD_SIGNATURE", "a signature does not hold", _INPUT),
    0x0B: ("BAD_MEASUREMENT", "a measurement or MAC does not match", _OTHERS),
    0x0C: ("ASID_OWNED", "the address space id belongs to another guest", _OTHERS),
    0x0D: ("INVALID_ASID", "the address space id is not valid", _OTHERS),
    0x0E: ("WBINVD_REQUIRED", "the CPU caches must be written back first", _OTHERS),
    0x0F: ("DFFLUSH_REQUIRED", "the data fabric must be flushed first", _OTHERS),
    0x10: ("INVALID_GUEST", "there is no such guest", _OTHERS),
    0x11: ("INVALID_COMMAND", "the firmware does not know this command", _UPDATE),
    0x12: ("ACTIVE", "a guest is active", _GUESTS),
    0x13: ("HWSEV_RET_PLATFORM", "the hardware failed; the platform is safe", _REBOOT),
    0x14: ("HWSEV_RET_UNSAFE", "the hardware failed; the platform is unsafe", _REBOOT),
    0x15: ("UNSUPPORTED", "the firmware does not support it", _UPDATE),
    0x16: ("INVALID_PARAM", "a parameter is not valid", _UPDATE),
    0x17: ("RESOURCE_LIMIT", "the firmware has no resources left", _GUESTS),
    0x18: ("SECURE_DATA_INVALID", "the platform's stored keys failed their check", _UPDATE),
    # From here on they are SEV-SNP's.
    0x19: ("INVALID_PAGE_SIZE", "a page has the wrong size", _OTHERS),
    0x1A: ("INVALID_PAGE_STATE", "a page is in the wrong state", _OTHERS),
    0x1B: ("INVALID_MDATA_ENTRY", "a metadata entry is not valid", _OTHERS),
    0x1C: ("INVALID_PAGE_OWNER", "a page belongs to another guest", _OTHERS),
    0x1D: ("AEAD_OFLOW", "a counter of the encryption is used up", _REBOOT),
    0x1F: ("EXIT_RING_BUFFER", "the firmware left its ring buffer mode", _OTHERS),
    0x20: ("RMP_INIT_REQUIRED", "SEV-SNP must be initialised first", _REBOOT),
    0x21: ("BAD_SVN", "a security version is too low", _UPDATE),
    0x22: ("BAD_VERSION", "a firmware version is not accepted", _UPDATE),
    0x23: ("SHUTDOWN_REQUIRED", "the platform must be shut down first", _GUESTS),
    0x24: ("UPDATE_FAILED", "a firmware update failed", _UPDATE),
    0x25: ("RESTORE_REQUIRED", "the earlier firmware must be restored first", _UPDATE),
    0x26: ("RMP_INITIALIZATION_FAILED", "SEV-SNP could not be initialised", _UPDATE),
    0x27: ("INVALID_KEY", "a key is not valid for it", _OTHERS),
}
"""Name, meaning and advice by the firmware's status code; 0 is success."""
_WRONG_STATE = frozenset((0x01, 0x02, 0x05, 0x12, 0x20, 0x23))
"""Codes that say that the platform or a guest is in the wrong state."""

_NOT_SEV = "it is no SEV device"
_MISSING = "load the kernel module ccp, and enable SEV in the BIOS"
_RIGHTS = "be root, or join the group that the device belongs to; a container must be given it"
_WRITE = f"it needs the right to write to the device: {_RIGHTS}"
_NAME = "name the device of the SEV firmware, which is /dev/sev"
_OLD = f"update the kernel, or {_NAME}"
_STUCK = f"the secure processor may have stopped answering: {_REBOOT}"
_OPEN: Mapping[int, tuple[str, str, str]] = {
    errno.ENOENT: ("missing", "there is no such device", _MISSING),
    errno.ENODEV: ("absent", "no SEV firmware is behind it", _MISSING),
    errno.ENXIO: ("absent", "no SEV firmware is behind it", _MISSING),
    errno.EACCES: ("permission", "permission denied", _RIGHTS),
    errno.EPERM: ("permission", "not permitted", _RIGHTS),
    errno.EISDIR: ("not-sev", "it is a folder, no device", _NAME),
    errno.ENOTDIR: ("missing", "there is no such device", _NAME),
    errno.EBUSY: ("busy", "it is in use", "try again later"),
}
_ENOTSUPP = 524
"""An error that is internal to Linux, but reaches programs from GET_ID."""
_CALL: Mapping[int, tuple[str, str, str]] = {
    errno.ENOTTY: ("not-sev", _NOT_SEV, _NAME),
    errno.ENODEV: ("absent", "no SEV firmware is behind it", _MISSING),
    errno.EPERM: ("permission", "not permitted", _WRITE),
    errno.EACCES: ("permission", "permission denied", _WRITE),
    errno.EINVAL: ("kernel", "the device does not know this command", _OLD),
    errno.EOPNOTSUPP: ("kernel", "the kernel or the firmware does not support it", _UPDATE),
    _ENOTSUPP: ("kernel", "the kernel or the firmware does not support it", _UPDATE),
    errno.EBUSY: ("busy", "the platform is busy", _STUCK),
    errno.ETIMEDOUT: ("timeout", "the firmware did not answer", _STUCK),
    errno.EIO: ("io", "the firmware could not be called", _UPDATE),
    errno.EFAULT: ("io", "the kernel could not copy the data", "update the kernel"),
    errno.ENOMEM: ("memory", "the kernel has no memory left", "try again later"),
}
"""Check, words and advice by the error of the system call: to open the device, and to use it."""


def status_error(device: str, command: str, code: int) -> SevAttestError:
    """Return the error for a status code of the firmware: WrongState, or HostError."""
    unknown = ("", "a code that is not known here", _UPDATE)
    name, words, hint = STATUS.get(code, unknown)
    kind = WrongState if code in _WRONG_STATE else HostError
    check = f"device.{(name or 'status').lower().replace('_', '-')}"
    shown = f"{name}, code {code:#x}" if name else f"code {code:#x}"
    return kind(f"{device}: {command}: {words} ({shown})", check=check, hint=hint)


def open_error(device: str, error: OSError) -> HostError:
    """Return the error for a device that cannot be opened."""
    return _system(device, error, _OPEN)


def call_error(device: str, command: str, error: OSError) -> HostError:
    """Return the error for a call that the kernel refused, or could not pass to the firmware."""
    return _system(f"{device}: {command}", error, _CALL)


def _system(what: str, error: OSError, known: Mapping[int, tuple[str, str, str]]) -> HostError:
    number = error.errno or 0
    check, words, hint = known.get(number, ("io", os.strerror(number), _LOG))
    return HostError(f"{what}: {words}", check=f"device.{check}", hint=hint)
