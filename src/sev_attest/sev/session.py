"""A session with one platform: the guest owner's certificate (GODH) and the session blob.

Source: AMD 55766, "LAUNCH_START" and its session data buffer; the sev crate does the same.

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
from sev_attest._seal import Seal
from sev_attest._wire import le
from sev_attest.errors import NotVerified
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.verify import VerifiedChain
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.policy import GuestPolicy, require_policy_type
from sev_attest.sev.spec import Usage

_SEAL = Seal("Session.create()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session for one launch on one platform. Never use it for a second launch.

    ``godh`` and ``blob`` go to the host, ``keys`` stay with the owner. ``platform`` is None if the
    platform was not verified.
    """

    godh: Certificate
    blob: bytes = field(repr=False)
    """Session blob, 128 bytes."""
    keys: TransportKeys
    policy: GuestPolicy
    pdh: Certificate
    platform: VerifiedChain | None
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Raise TypeError for a value made by hand: the type is the proof."""
        _SEAL.require(_seal, self)

    @classmethod
    def create(cls, platform: VerifiedChain, *, policy: GuestPolicy) -> "Session":
        """Return a new session for a verified platform, with fresh random keys.

        Raises Unsupported for a policy with reserved bits, TypeError for an unverified chain.
        """
        if not isinstance(platform, VerifiedChain):
            raise TypeError("a session is made for a VerifiedChain: call verify_chain() first")
        return cls._create(platform.pdh, platform, policy)

    @classmethod
    def create_unverified(cls, pdh: Certificate, *, policy: GuestPolicy) -> "Session":
        """Return a session for an unverified PDH: its maker may read everything. For tests only.

        Raises Unsupported as :meth:`create`, NotVerified if the PDH is not a P-384 DH key.
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
            raise NotVerified("the PDH's key is not a point on P-384", check="chain.pdh.point")
        own = _crypto.new_p384_key()
        keys = TransportKeys(tek=_crypto.random_bytes(16), tik=_crypto.random_bytes(16))
        # As sevctl writes it: API 0.0, unsigned.
        godh = Certificate.build(
            usage=Usage.PDH,
            algorithm=Algorithm.ECDH_SHA256,
            public_key=_crypto.p384_numbers(own.public_key()),
        )
        blob = session_blob(
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


def session_blob(
    keys: TransportKeys, policy: GuestPolicy, *, shared: bytes, nonce: bytes, iv: bytes
) -> bytes:
    """Return the session blob, 128 bytes.

    ``shared`` is the secret of the key agreement (48 bytes, big-endian); ``nonce`` and ``iv`` are
    16 random bytes each.
    """
    master = _crypto.kdf(shared, b"sev-master-secret", nonce)
    kek = _crypto.kdf(master, b"sev-kek")
    kik = _crypto.kdf(master, b"sev-kik")
    wrap_tk = _crypto.aes_ctr(kek, iv, keys.tek + keys.tik)
    wrap_mac = hmac.digest(kik, wrap_tk, "sha256")
    policy_mac = hmac.digest(keys.tik, le(policy.value, 4), "sha256")
    return nonce + wrap_tk + iv + wrap_mac + policy_mac
