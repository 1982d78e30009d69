"""A software model of an SEV and SEV-SNP platform, for tests of a guest owner's side.

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
from sev_attest.testing.snp import SnpAuthority, SnpPlatform
from sev_attest.testing.snp_answer import SnpAnswer
from sev_attest.testing.snp_fault import SnpFault
from sev_attest.testing.snp_host import SnpHost
from sev_attest.testing.snp_launch import SnpGuest
from sev_attest.testing.snp_qemu import SnpInputs, launch_snp_guest
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
    "SnpAnswer",
    "SnpAuthority",
    "SnpFault",
    "SnpGuest",
    "SnpHost",
    "SnpInputs",
    "SnpPlatform",
    "guest_of_domain",
    "launch_guest",
    "launch_snp_guest",
    "ovmf_image",
    "vcpu_pages",
]
