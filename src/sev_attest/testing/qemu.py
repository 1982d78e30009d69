"""What QEMU does with the firmware: launch a guest, report on it.

Written apart from ``sev_attest.measure``: this is the other side of what that computes.
"""

import base64
import hashlib
from dataclasses import dataclass
from uuid import UUID

from sev_attest.testing.platform import Platform

_TABLE = UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_ENTRIES = (
    ("cmdline", UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")),
    ("initrd", UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")),
    ("kernel", UUID("4de79437-abd2-427f-b835-d5b172d2045b")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A launched guest: its handle, and what the host reports of it."""

    platform: Platform
    handle: int
    policy: int
    measurement: bytes
    """MEASURE and MNONCE, 48 bytes."""

    def domlaunchsecinfo(self) -> str:
        """Print what ``virsh domlaunchsecinfo`` prints."""
        values = {
            "sev-measurement": base64.b64encode(self.measurement).decode(),
            "sev-api-major": self.platform.api[0],
            "sev-api-minor": self.platform.api[1],
            "sev-build-id": self.platform.build,
            "sev-policy": self.policy,
        }
        return "".join(f"{key:<15}: {value}\n" for key, value in values.items()) + "\n"


def launch_guest(
    platform: Platform,
    *,
    policy: int,
    godh: bytes | None = None,
    session: bytes | None = None,
    firmware: bytes,
    kernel: bytes | None = None,
    initrd: bytes = b"",
    cmdline: bytes = b"",
    vmsa: tuple[bytes, ...] = (),
) -> Guest:
    """Start a guest, paused before its first instruction, and measure it.

    ``kernel`` means direct boot with kernel-hashes=on; ``vmsa`` holds each vCPU's page (SEV-ES).
    Raises FirmwareError.
    """
    handle = platform.launch_start(policy, godh, session)
    platform.launch_update_data(handle, firmware)
    if kernel is not None:
        blobs = {"kernel": kernel, "initrd": initrd, "cmdline": cmdline + b"\0"}
        table = _TABLE.bytes_le + (168).to_bytes(2, "little")
        for name, guid in _ENTRIES:
            digest = hashlib.sha256(blobs[name]).digest()
            table += guid.bytes_le + (50).to_bytes(2, "little") + digest
        platform.launch_update_data(handle, table + bytes(8))
    for page in vmsa:
        platform.launch_update_vmsa(handle, page)
    measurement = platform.launch_measure(handle)
    return Guest(platform=platform, handle=handle, policy=policy, measurement=measurement)
