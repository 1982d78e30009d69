"""HPKE's base mode in another hand, from RFC 9180 and draft-ietf-hpke-pq: opens, and no more.

HKDF-SHA256 and AES-256-GCM; the primitives of the KEMs come from ``cryptography``.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

X25519, HYBRID = 0x0020, 0x647A


def opened(kem: int, private: bytes, enc: bytes, ciphertext: bytes, info: bytes) -> bytes:
    """Return the plaintext (RFC 9180, 5.1 and 5.2)."""
    shared = (_x25519 if kem == X25519 else _hybrid)(private, enc)
    suite = b"HPKE" + kem.to_bytes(2, "big") + b"\x00\x01" + b"\x00\x02"
    context = (
        b"\0" + _extract(suite, b"", b"psk_id_hash") + _extract(suite, b"", b"info_hash", info)
    )
    secret = _extract(suite, shared, b"secret")
    key = _expand(suite, secret, b"key", context, 32)
    nonce = _expand(suite, secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, None)


def _x25519(private: bytes, enc: bytes) -> bytes:
    """DHKEM (RFC 9180, 4.1)."""
    own = X25519PrivateKey.from_private_bytes(private)
    point = own.exchange(X25519PublicKey.from_public_bytes(enc))
    suite = b"KEM" + X25519.to_bytes(2, "big")
    context = enc + own.public_key().public_bytes_raw()
    return _expand(suite, _extract(suite, b"", b"eae_prk", point), b"shared_secret", context, 32)


def _hybrid(private: bytes, enc: bytes) -> bytes:
    """X-Wing's combiner (draft-connolly-cfrg-xwing-kem, 5.3)."""
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    lattice = MLKEM768PrivateKey.from_seed_bytes(private[:64]).decapsulate(enc[:1088])
    own, point = X25519PrivateKey.from_private_bytes(private[64:]), enc[1088:]
    shared = own.exchange(X25519PublicKey.from_public_bytes(point))
    label = b"\\.//^\\"
    parts = lattice + shared + point + own.public_key().public_bytes_raw() + label
    return hashlib.sha3_256(parts).digest()


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes = b"") -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    whole = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, whole + b"\x01", "sha256")[:size]
