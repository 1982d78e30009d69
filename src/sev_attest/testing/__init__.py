"""A software model of an SEV platform, to test a guest owner's side against.

Its roots are never trusted unless a user names them. It shares the certificate format and the
primitives with the library, not the code that it is there to check.
"""

from sev_attest.testing.authority import Authority
from sev_attest.testing.host import Fault, Host
from sev_attest.testing.images import ovmf_image
from sev_attest.testing.platform import FirmwareError, Platform
from sev_attest.testing.qemu import (
    Guest,
    GuestInputs,
    QemuError,
    guest_of_domain,
    launch_guest,
    vcpu_pages,
)

__all__ = [
    "Authority",
    "Fault",
    "FirmwareError",
    "Guest",
    "GuestInputs",
    "Host",
    "Platform",
    "QemuError",
    "guest_of_domain",
    "launch_guest",
    "ovmf_image",
    "vcpu_pages",
]
