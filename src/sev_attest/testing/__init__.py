"""A software model of an SEV platform, to test a guest owner's side against.

Its roots are never trusted unless a user names them. It shares the certificate format and the
primitives with the library, not the code that it is there to check.
"""

from sev_attest.testing.authority import Authority
from sev_attest.testing.images import ovmf_image
from sev_attest.testing.platform import FirmwareError, Platform
from sev_attest.testing.qemu import Guest, launch_guest

__all__ = ["Authority", "FirmwareError", "Guest", "Platform", "launch_guest", "ovmf_image"]
