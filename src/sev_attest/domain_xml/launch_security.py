"""libvirt's ``<launchSecurity>`` element: what is in it, and how a session's is written.

Source: libvirt, formatdomain.html, "Launch Security"; QEMU target/i386/sev.c for the sizes; AMD
56860, ID_BLOCK and ID_AUTH, as virtee/sev lays them out.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sev_attest._wire import number_at
from sev_attest.sev.spec import CERTIFICATE_SIZE, SESSION_BLOB_SIZE

if TYPE_CHECKING:
    from sev_attest.sev.policy import GuestPolicy

BLOB_SIZES: Mapping[str, int] = {"dhCert": CERTIFICATE_SIZE, "session": SESSION_BLOB_SIZE}
"""Bytes of what SEV's elements hold in base64: the GODH and the session blob."""
SNP_BLOB_SIZES: Mapping[str, int] = {
    "guestVisibleWorkarounds": 16, "idBlock": 96, "idAuth": 4096, "hostData": 32,
}  # fmt: skip
"""Bytes of what SEV-SNP's elements hold in base64."""
_ID_BLOCK_POLICY = 0x58
_AUTHOR_KEY_ALGO = 4


def id_block_policy(block: bytes) -> int:
    """Return the policy in an ID block of 96 bytes; firmware compares it with the guest's."""
    return number_at(block, _ID_BLOCK_POLICY, 8)


def has_author_key(auth: bytes) -> bool:
    """Return whether an ID authentication of 4096 bytes has an author key."""
    return number_at(auth, _AUTHOR_KEY_ALGO) != 0


def launch_security(policy: "GuestPolicy", godh: str, blob: str, *, kernel_hashes: bool) -> str:
    """Return the element of a session, over several lines, without a newline at the end.

    ``godh`` and ``blob`` (the session blob) are base64.
    """
    hashes = " kernelHashes='yes'" if kernel_hashes else ""
    return (
        f"<launchSecurity type='sev'{hashes}>\n"
        f"  <policy>{policy}</policy>\n"
        f"  <dhCert>{godh}</dhCert>\n"
        f"  <session>{blob}</session>\n"
        "</launchSecurity>"
    )
