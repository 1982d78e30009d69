"""A secret channel to one platform: the guest owner's certificate (GODH) and the session blob.

Source: AMD 55766, "LAUNCH_START" and its session data buffer; the sev crate makes the same.

The owner's fresh DH key and the platform's PDH agree on z (ECDH on P-384). From it::

    master = KDF(z, "sev-master-secret", nonce)      KEK = KDF(master, "sev-kek")
                                                     KIK = KDF(master, "sev-kik")

and the session blob, 128 bytes:

======  ====  =================================================
offset  size  field
======  ====  =================================================
0x00    16    NONCE
0x10    32    WRAP_TK: AES-128-CTR(KEK, WRAP_IV, TEK || TIK)
0x30    16    WRAP_IV
0x40    32    WRAP_MAC: HMAC-SHA256(KIK, WRAP_TK)
0x60    32    POLICY_MAC: HMAC-SHA256(TIK, policy as LE32)
======  ====  =================================================
"""

import hmac
from dataclasses import InitVar, dataclass, field

from sev_attest import _crypto
from sev_attest._keys import Algorithm
from sev_attest._wire import le
from sev_attest.errors import NotVerified
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.verify import VerifiedChain
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.policy import GuestPolicy, require_policy_type
from sev_attest.sev.spec import Usage

_SEAL = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What one launch on one platform needs. Use it for that launch only, never again.

    ``godh`` and ``blob`` go to the host, ``keys`` stay with the owner. ``platform`` is None for a
    session whose platform nobody verified.
    """

    godh: Certificate
    blob: bytes = field(repr=False)
    """The 128 bytes of the session data."""
    keys: TransportKeys
    policy: GuestPolicy
    pdh: Certificate
    platform: VerifiedChain | None
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Refuse to be made by hand (TypeError)."""
        if _seal is not _SEAL:
            raise TypeError("only Session.create() makes a Session")

    @classmethod
    def create(cls, platform: VerifiedChain, *, policy: GuestPolicy) -> "Session":
        """Make a session for a verified platform, with keys from the system's randomness.

        Raises Unsupported for a policy with reserved bits, TypeError for an unverified chain.
        """
        if not isinstance(platform, VerifiedChain):
            raise TypeError("a session is made for a VerifiedChain: call verify_chain() first")
        return cls._create(platform.pdh, platform, policy)

    @classmethod
    def create_unverified(cls, pdh: Certificate, *, policy: GuestPolicy) -> "Session":
        """Make a session for a bare PDH: whoever made it up can read everything. For tests only.

        Raises Unsupported as :meth:`create`, NotVerified if the PDH is no usable P-384 DH key.
        """
        return cls._create(pdh, None, policy)

    @classmethod
    def _create(
        cls, pdh: Certificate, platform: VerifiedChain | None, policy: GuestPolicy
    ) -> "Session":
        require_policy_type(policy)
        policy.require_unreserved()
        peer = _crypto.p384_point(pdh.public_key)
        if peer is None or pdh.usage is not Usage.PDH:
            raise NotVerified("the PDH holds no point on P-384", check="chain.pdh.point")
        own = _crypto.new_p384_key()
        keys = TransportKeys(tek=_crypto.random_bytes(16), tik=_crypto.random_bytes(16))
        # The certificate as sevctl writes it: API 0.0, nobody signs it.
        godh = Certificate.build(
            usage=Usage.PDH,
            algorithm=Algorithm.ECDH_SHA256,
            public_key=_crypto.p384_numbers(own.public_key()),
        )
        blob = wrap(
            keys,
            policy,
            shared=_crypto.ecdh(own, peer),
            nonce=_crypto.random_bytes(16),
            iv=_crypto.random_bytes(16),
        )
        return cls(
            godh=godh,
            blob=blob,
            keys=keys,
            policy=policy,
            pdh=pdh,
            platform=platform,
            _seal=_SEAL,
        )


def wrap(
    keys: TransportKeys, policy: GuestPolicy, *, shared: bytes, nonce: bytes, iv: bytes
) -> bytes:
    """Lay out the session blob (128 bytes) for the shared secret of the key agreement."""
    master = _crypto.kdf(shared, b"sev-master-secret", nonce)
    kek = _crypto.kdf(master, b"sev-kek")
    kik = _crypto.kdf(master, b"sev-kik")
    wrap_tk = _crypto.aes_ctr(kek, iv, keys.tek + keys.tik)
    wrap_mac = hmac.digest(kik, wrap_tk, "sha256")
    policy_mac = hmac.digest(keys.tik, le(policy.value, 4), "sha256")
    return nonce + wrap_tk + iv + wrap_mac + policy_mac
