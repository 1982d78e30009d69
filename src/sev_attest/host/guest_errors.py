"""What goes wrong when a guest asks for its report: errors of system calls, in words.

Source: Linux, drivers/virt/coco/sev-guest/sev-guest.c and drivers/virt/coco/tsm.c.
"""

import errno
import os
from collections.abc import Mapping

from sev_attest.host.connection import HostError

_LOG = "the kernel's log (`dmesg`) may say more"
_ROOT = "be root"
_LATER = "try again later: a host may limit how often a guest asks"
_ERRORS: Mapping[int, tuple[str, str]] = {
    errno.EACCES: ("permission denied", _ROOT),
    errno.EPERM: ("not permitted", _ROOT),
    errno.EROFS: ("read-only", "a container must be given it for writing"),
    # "VMPCK is disabled": Linux gives up the key after a failure, lest it encrypt twice with it.
    errno.ENOTTY: (
        "the guest's key to the firmware is disabled, or this is another device",
        f"an earlier request failed: restart the guest; {_LOG}",
    ),
    errno.EINVAL: ("the kernel does not accept this request", f"is the VMPL right? {_LOG}"),
    errno.EIO: ("the firmware or the host refused", _LOG),
    errno.EBUSY: ("it is busy", _LATER),
    errno.EAGAIN: ("it is busy", _LATER),
    errno.ETIMEDOUT: ("the host did not answer in time", _LATER),
}


def refused(what: str, error: OSError) -> HostError:
    """Return the error for a request that the system refused; ``what`` names the place."""
    number = error.errno or 0
    words, hint = _ERRORS.get(number, (os.strerror(number), _LOG))
    return HostError(f"{what}: {words}", check="guest.report.refused", hint=hint)
