"""A software model of an SEV platform, for tests of a guest owner's side.

Its roots are not trusted unless a user names them. It uses the library's certificate format and
primitives, but not the code that it is meant to check.
"""

from sev_attest.testing.authority import Authority
from sev_attest.testing.folder import HostFolder
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
from sev_attest.testing.state import HostState

__all__ = [
    "Authority",
    "Fault",
    "FirmwareError",
    "Guest",
    "GuestInputs",
    "Host",
    "HostFolder",
    "HostState",
    "Platform",
    "QemuError",
    "guest_of_domain",
    "launch_guest",
    "ovmf_image",
    "vcpu_pages",
]
