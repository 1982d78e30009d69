"""libvirt's ``<launchSecurity type='sev-snp'>``: what an owner puts in it, and how it is written.

Source: libvirt, formatdomain.html, "Launch Security".
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from sev_attest.domain_xml.launch_security import SNP_BLOB_SIZES, has_author_key, id_block_policy
from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.snp.policy import GuestPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpLaunch:
    """What an owner puts into the element; None for what is left as the XML has it.

    ``policy`` is the ID block's if it is not given. ``id_block`` is 96 bytes, ``id_auth`` 4096,
    ``host_data`` 32. ``kernel_hashes`` asks for the hashes of a kernel.
    """

    policy: int | None = None
    id_block: bytes | None = None
    id_auth: bytes | None = None
    host_data: bytes | None = None
    kernel_hashes: bool = False

    def __post_init__(self) -> None:
        """Raise MalformedInput for wrong sizes and parts that do not fit, Unsupported for a policy.

        Firmware refuses a policy with reserved bits, and another than the ID block's.
        """
        for name, data in self.blobs.items():
            if len(data) != SNP_BLOB_SIZES[name]:
                reason = f"{len(data)} bytes, expected {SNP_BLOB_SIZES[name]}"
                raise MalformedInput(name, "length", reason)
        if (self.id_block is None) != (self.id_auth is None):
            reason = "ID block and ID authentication come together"
            raise MalformedInput("ID block", "conflict", reason)
        reserved = 0 if self.policy is None else GuestPolicy(self.policy).reserved
        if reserved:
            raise Unsupported(
                f"policy {self.policy:#x}: bits {reserved:#x} are reserved",
                check="policy.reserved",
                hint="bit 17 (0x20000) is always set, bits 26-63 are clear",
            )
        if self.id_block is None:
            return
        approved = id_block_policy(self.id_block)
        if self.policy not in (None, approved):
            reason = f"it approves policy {approved:#x}, not {self.policy:#x}"
            raise MalformedInput("ID block", "policy", reason, hint="sign one for this policy")

    @property
    def blobs(self) -> Mapping[str, bytes]:
        """The blobs that are given, by the names of their elements."""
        given = {"idBlock": self.id_block, "idAuth": self.id_auth, "hostData": self.host_data}
        return {name: data for name, data in given.items() if data is not None}

    @property
    def wanted_policy(self) -> int | None:
        """The policy that is given, or else that of the ID block."""
        if self.policy is None and self.id_block is not None:
            return id_block_policy(self.id_block)
        return self.policy

    @property
    def author_key(self) -> bool:
        """Whether an author key is given."""
        return self.id_auth is not None and has_author_key(self.id_auth)


def snp_launch_security(launch: SnpLaunch, policy: int) -> str:
    """Return the element, over several lines, without a newline at the end."""
    asked = {"kernelHashes": launch.kernel_hashes, "authorKey": launch.author_key}
    attributes = "".join(f" {name}='yes'" for name, there in asked.items() if there)
    blobs = "".join(
        f"  <{name}>{base64.b64encode(data).decode()}</{name}>\n"
        for name, data in launch.blobs.items()
    )
    return (
        f"<launchSecurity type='sev-snp'{attributes}>\n"
        f"  <policy>{GuestPolicy(policy)}</policy>\n"
        f"{blobs}"
        "</launchSecurity>"
    )
