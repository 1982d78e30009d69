"""The firmware's part of an SEV-SNP guest: its launch, page by page, and its reports.

Source: AMD 56860 (SNP_LAUNCH_UPDATE, SNP_LAUNCH_FINISH, PAGE_INFO, the ID block and its
authentication), as virtee/sev and sev-snp-measure have it. Nothing of ``sev_attest.snp.digest`` is
used here. [MEM] marks status codes that could not be confirmed from a public source.
"""

import dataclasses
import hashlib
import struct
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sev_attest.sev.states import Status
from sev_attest.snp.certificates import Kind
from sev_attest.snp.tcb import Product
from sev_attest.testing.platform import FirmwareError
from sev_attest.testing.snp import SnpPlatform

NORMAL, VMSA, ZERO, SECRETS, CPUID = 1, 2, 3, 5, 6
"""Types of pages; only those of NORMAL and VMSA pages have measured contents."""
ID_BLOCK_SIZE, ID_AUTH_SIZE = 96, 4096
_PAGE_INFO = struct.Struct("<48s48sHBB4xQ")
_ID_BLOCK = struct.Struct("<48s16s16sIIQ")
_ID_AUTH = struct.Struct("<II56x512s1028s60x512s1028s892x")
_NUMBERS = struct.Struct("<72s72s")
_P384 = 2
_FINISH = "SNP_LAUNCH_FINISH"
_VERSIONS = {
    Product.MILAN: (1, 55, 29),
    Product.GENOA: (1, 55, 43),
    Product.TURIN: (1, 55, 61),
}
"""Firmware versions of real reports: major, minor, build."""
_MITIGATIONS = 0x1
SIGNING_KEY = {Kind.VCEK: 0, Kind.VLEK: 1 << 2}
"""Bits of key_info."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpGuest:
    """A launched guest, which runs and can ask for reports; what its firmware knows of it.

    Sizes: ``measurement`` and the digests 48 bytes, ``host_data`` and ``report_id`` 32,
    ``family_id`` and ``image_id`` 16. ``key_info`` has bit 0 if the author's key was used.
    """

    platform: SnpPlatform
    policy: int
    measurement: bytes
    """Launch digest."""
    report_id: bytes
    host_data: bytes
    family_id: bytes
    image_id: bytes
    guest_svn: int
    id_key_digest: bytes
    author_key_digest: bytes
    key_info: int

    def report(
        self,
        report_data: bytes = bytes(64),
        *,
        kind: Kind = Kind.VCEK,
        version: int = 3,
        vmpl: int = 0,
        **fields: Any,
    ) -> bytes:
        """Return a report that the guest asked for, 1184 bytes.

        ``report_data`` has 64 bytes. ``kind`` is the key that signs, ``version`` 2, 3 or 5.
        ``fields`` are other values for fields of :data:`~sev_attest.snp.report.LAYOUT`, and what
        else :meth:`SnpPlatform.report` takes.
        """
        major, minor, build = _VERSIONS[self.platform.authority.product]
        names = (one.name for one in dataclasses.fields(self) if one.name != "platform")
        launched = {name: getattr(self, name) for name in names}
        values: dict[str, Any] = {
            "report_data": report_data,
            "vmpl": vmpl,
            "launch_mit_vector": _MITIGATIONS,
            "current_mit_vector": _MITIGATIONS,
            **launched,
            "key_info": self.key_info | SIGNING_KEY[kind],
        }
        for when in ("current", "committed"):
            values |= {f"{when}_major": major, f"{when}_minor": minor, f"{when}_build": build}
        return self.platform.report(kind, version=version, **values | fields)


@dataclass(slots=True)
class SnpLaunch:
    """A guest that is being launched, and its launch digest so far."""

    platform: SnpPlatform
    policy: int
    digest: bytes = bytes(48)

    def update(self, kind: int, address: int, page: bytes) -> None:
        """Measure a page of 4096 bytes at a guest address."""
        contents = hashlib.sha384(page).digest() if kind in (NORMAL, VMSA) else bytes(48)
        info = _PAGE_INFO.pack(self.digest, contents, _PAGE_INFO.size, kind, 0, address)
        self.digest = hashlib.sha384(info).digest()

    def finish(
        self,
        *,
        host_data: bytes = bytes(32),
        id_block: bytes | None = None,
        id_auth: bytes = b"",
        instance: bytes = b"",
    ) -> SnpGuest:
        """Let the guest run.

        ``host_data`` has 32 bytes, an ID block 96, its authentication 4096. ``instance`` tells
        guests apart that are launched in the same way: each has a ``report_id`` of its own.

        Raises FirmwareError if the ID block is not for this guest, or a signature does not hold.
        """
        named = _Named() if id_block is None else self._named(id_block, id_auth)
        unique = hashlib.sha256(self.platform.seed + self.digest + instance).digest()
        return SnpGuest(
            platform=self.platform,
            policy=self.policy,
            measurement=self.digest,
            report_id=unique,
            host_data=host_data,
            family_id=named.family_id,
            image_id=named.image_id,
            guest_svn=named.guest_svn,
            id_key_digest=named.id_key_digest,
            author_key_digest=named.author_key_digest,
            key_info=int(any(named.author_key_digest)),
        )

    def _named(self, id_block: bytes, id_auth: bytes) -> "_Named":
        digest, family_id, image_id, version, guest_svn, policy = _ID_BLOCK.unpack(id_block)
        id_algo, author_algo, signature, id_key, key_signature, author_key = _ID_AUTH.unpack(
            id_auth
        )
        if (version, id_algo) != (1, 1) or author_algo not in (0, 1):
            raise FirmwareError(Status.INVALID_PARAM, _FINISH)  # [MEM]
        if digest != self.digest:
            raise FirmwareError(Status.BAD_MEASUREMENT, _FINISH)
        if policy != self.policy:
            raise FirmwareError(Status.POLICY_FAILURE, _FINISH)  # [MEM]
        if not _signs(id_key, signature, id_block):
            raise FirmwareError(Status.BAD_SIGNATURE, _FINISH)  # [MEM]
        if author_algo and not _signs(author_key, key_signature, id_key):
            raise FirmwareError(Status.BAD_SIGNATURE, _FINISH)  # [MEM]
        author = hashlib.sha384(author_key).digest() if author_algo else bytes(48)
        return _Named(family_id, image_id, guest_svn, hashlib.sha384(id_key).digest(), author)


@dataclass(frozen=True, slots=True)
class _Named:
    """What an ID block says of a guest; zeros without one."""

    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)


def _signs(key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether a key (curve, then X and Y in 72 bytes each) signed a message."""
    x, y = (int.from_bytes(part, "little") for part in _NUMBERS.unpack_from(key, 4))
    r, s = (int.from_bytes(part, "little") for part in _NUMBERS.unpack_from(signature))
    if int.from_bytes(key[:4], "little") != _P384:
        return False
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
        public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature):
        return False
    return True
