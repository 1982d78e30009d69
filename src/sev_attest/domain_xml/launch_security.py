"""libvirt's ``<launchSecurity type='sev'>`` element: how it is written, and what is in it.

Source: libvirt, formatdomain.html, "Launch Security".
"""

from collections.abc import Mapping

from sev_attest.sev.chain.certificate import CERTIFICATE_SIZE
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.spec import SESSION_BLOB_SIZE

BLOB_SIZES: Mapping[str, int] = {"dhCert": CERTIFICATE_SIZE, "session": SESSION_BLOB_SIZE}
"""Bytes of what its elements hold in base64: the GODH and the session blob."""


def launch_security(policy: GuestPolicy, godh: str, blob: str, *, kernel_hashes: bool) -> str:
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
