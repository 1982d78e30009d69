"""Public-key and cipher operations: the only importer of ``cryptography``, except ``testing/``.

HMAC and SHA-2 come from the standard library, so checking a measurement does not load OpenSSL's
bindings. Fingerprints of certificates are hashed here: for them alone, hashlib would load another
OpenSSL, which takes 2 ms. Parts of ``cryptography`` that few checks need are imported by the
functions that need them: X.509 alone takes as long as all the rest.
"""

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from sev_attest._keys import Algorithm, Curve, EccPublicKey, Kem, RsaPublicKey
from sev_attest.errors import Unsupported

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, Suite
    from cryptography.x509 import Certificate

P384PrivateKey = ec.EllipticCurvePrivateKey
P384PublicKey = ec.EllipticCurvePublicKey

_P384 = ec.SECP384R1()
_P384_PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1
_HASHES: dict[Algorithm, hashes.HashAlgorithm] = {
    Algorithm.RSA_SHA256: hashes.SHA256(),
    Algorithm.RSA_SHA384: hashes.SHA384(),
}
_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())
_ECDSA_SHA384 = ec.ECDSA(hashes.SHA384())


def p384_point(key: EccPublicKey) -> P384PublicKey | None:
    """Return a P-384 public key; None for another curve, or if it is not a point on the curve.

    A coordinate that is not below the field's prime is refused here: OpenSSL would reduce it.
    """
    if key.curve is not Curve.P384 or key.x >= _P384_PRIME or key.y >= _P384_PRIME:
        return None
    try:
        return ec.EllipticCurvePublicNumbers(key.x, key.y, _P384).public_key()
    except Exception:  # noqa: BLE001 - whatever the library makes of a stranger's key
        return None


def ecdsa_sha256_holds(key: P384PublicKey, numbers: tuple[int, int], message: bytes) -> bool:
    """Return whether (R, S) is ``key``'s ECDSA signature with SHA-256 over ``message``."""
    return _ecdsa_holds(key, numbers, message, _ECDSA_SHA256)


def ecdsa_sha384_holds(key: P384PublicKey, numbers: tuple[int, int], message: bytes) -> bool:
    """Return whether (R, S) is ``key``'s ECDSA signature with SHA-384 over ``message``."""
    return _ecdsa_holds(key, numbers, message, _ECDSA_SHA384)


def _ecdsa_holds(
    key: P384PublicKey, numbers: tuple[int, int], message: bytes, scheme: ec.ECDSA
) -> bool:
    try:
        key.verify(encode_dss_signature(*numbers), message, scheme)
    except InvalidSignature:
        return False
    return True


def rsa_pss_holds(key: RsaPublicKey, signature: bytes, message: bytes) -> bool:
    """Return whether ``signature`` is ``key``'s RSA-PSS signature (salt as long as the hash)."""
    digest = _HASHES[key.algorithm]
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    try:
        _rsa_key(key).verify(signature, message, scheme, digest)
    except Exception:  # noqa: BLE001 - ValueError for what is no RSA key; more is not promised
        return False
    return True


@lru_cache(maxsize=32)
def _rsa_key(key: RsaPublicKey) -> rsa.RSAPublicKey:
    """Return a key as OpenSSL takes it; the few of a process that sign are made once."""
    return rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()


def new_p384_key() -> P384PrivateKey:
    """Return a new private key, from OpenSSL's random generator."""
    return ec.generate_private_key(_P384)


def p384_private_key(pem: bytes) -> P384PrivateKey | None:
    """Return an unencrypted P-384 private key in PEM; None for anything else."""
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(pem, None)
    except Exception:  # noqa: BLE001 - the library documents no closed list
        return None
    right = isinstance(key, P384PrivateKey) and key.curve.name == _P384.name
    return key if right and isinstance(key, P384PrivateKey) else None


def private_pem(key: P384PrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS #8 PEM."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def ecdsa_sha256(key: P384PrivateKey, message: bytes) -> tuple[int, int]:
    """Return an ECDSA signature with SHA-256: R and S."""
    return decode_dss_signature(key.sign(message, _ECDSA_SHA256))


def ecdsa_sha384(key: P384PrivateKey, message: bytes) -> tuple[int, int]:
    """Return an ECDSA signature with SHA-384: R and S."""
    return decode_dss_signature(key.sign(message, _ECDSA_SHA384))


def rsa_keys_of_pem(pem: bytes) -> list[RsaPublicKey] | None:
    """Return the RSA keys of X.509 certificates; None if one is malformed or has another key."""
    try:
        keys = [certificate.public_key() for certificate in _x509(pem)]
    except Exception:  # noqa: BLE001 - whatever the library makes of a stranger's certificate
        return None
    found = []
    for key in keys:
        if not isinstance(key, rsa.RSAPublicKey):
            return None
        numbers = key.public_numbers()
        found.append(RsaPublicKey(modulus=numbers.n, exponent=numbers.e, bits=key.key_size))
    return found


def common_names(data: bytes) -> list[str]:
    """Return the subjects' common names of X.509 certificates in PEM or DER; empty if malformed."""
    from cryptography.x509.oid import NameOID

    try:
        subjects = [certificate.subject for certificate in _x509(data)]
        names = [n.value for s in subjects for n in s.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Exception:  # noqa: BLE001 - whatever the library makes of a stranger's certificate
        return []
    return [name for name in names if isinstance(name, str)]


def _x509(data: bytes) -> "list[Certificate]":
    import warnings

    from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd serial numbers: only key and name count
        if b"-----BEGIN CERTIFICATE-----" in data:
            return load_pem_x509_certificates(data)
        return [load_der_x509_certificate(data)]


def p384_numbers(key: P384PublicKey) -> EccPublicKey:
    """Return a public key's coordinates."""
    numbers = key.public_numbers()
    return EccPublicKey(curve=Curve.P384, x=numbers.x, y=numbers.y)


def ecdh(key: P384PrivateKey, peer: P384PublicKey) -> bytes:
    """Return the shared secret: the x coordinate of the shared point, 48 bytes, big-endian."""
    return key.exchange(ec.ECDH(), peer)


def kdf(key: bytes, label: bytes, context: bytes = b"") -> bytes:
    """Return 16 derived bytes: NIST SP 800-108 counter mode, HMAC-SHA256, little-endian numbers."""
    import hmac

    bits = (128).to_bytes(4, "little")
    counter = (1).to_bytes(4, "little")
    return hmac.digest(key, counter + label + b"\0" + context + bits, "sha256")[:16]


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt with AES-128-CTR; ``iv`` is the 16-byte initial counter block."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    cipher = Cipher(algorithms.AES128(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()


def aes_gcm(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """Encrypt with AES-256-GCM; return the ciphertext and its tag of 16 bytes.

    ``key`` is 32 bytes, ``nonce`` 12. Never use the same nonce twice with the same key.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(nonce, plaintext, associated_data)


def aes_gcm_opened(
    key: bytes, nonce: bytes, ciphertext: bytes, associated_data: bytes
) -> bytes | None:
    """Return the plaintext of what :func:`aes_gcm` made; None if anything was changed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, ciphertext, associated_data)
    except InvalidTag:
        return None


def sha256(data: bytes) -> bytes:
    """Return a SHA-256, 32 bytes."""
    return _hashed(data, hashes.SHA256())


def sha384(data: bytes) -> bytes:
    """Return a SHA-384, 48 bytes."""
    return _hashed(data, hashes.SHA384())


def _hashed(data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def random_bytes(size: int) -> bytes:
    """Return bytes from the operating system's random generator."""
    return os.urandom(size)


_HPKE_SINCE = 47
_SEED, _MLKEM768_PUBLIC = 64, 1184
"""Bytes of an ML-KEM key's seed (d and z of FIPS 203), and of an ML-KEM-768 public key."""


def require_hpke(kem: Kem) -> None:
    """Raise Unsupported if the installed ``cryptography`` cannot seal to keys of this kind.

    HPKE is newer than the oldest version that everything else needs; and ML-KEM is missing where
    its OpenSSL has none.
    """
    from cryptography import __version__
    from cryptography.exceptions import UnsupportedAlgorithm

    hint = "install a newer one, in a virtual environment where the system has an older one"
    try:
        _suite(kem)
    except ImportError:
        raise Unsupported(
            f"HPKE needs cryptography {_HPKE_SINCE} or later; this is {__version__}",
            check="crypto.hpke",
            hint=hint,
        ) from None
    try:
        if kem is Kem.MLKEM768_X25519:
            _mlkem(bytes(_SEED))
    except UnsupportedAlgorithm:
        raise Unsupported(
            f"the installed cryptography {__version__} has no ML-KEM-768",
            check="crypto.mlkem",
            hint=f"use {Kem.X25519.label}; or {hint}",
        ) from None


def _suite(kem: Kem) -> "Suite":
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    kems = {Kem.X25519: KEM.X25519, Kem.MLKEM768_X25519: KEM.MLKEM768_X25519}
    return Suite(kems[kem], KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _mlkem(seed: bytes) -> "MLKEM768PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    return MLKEM768PrivateKey.from_seed_bytes(seed)


def _x25519(private: bytes) -> "X25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private)


def _hybrid(private: bytes) -> "MLKEM768X25519PrivateKey":
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

    return MLKEM768X25519PrivateKey(_mlkem(private[:_SEED]), _x25519(private[_SEED:]))


def kem_public(kem: Kem, private: bytes) -> bytes:
    """Return the raw public key of a raw private key.

    A private key is 32 random bytes for X25519. For the hybrid it is 96: ML-KEM's seed of 64, then
    X25519's 32; its public key is ML-KEM's 1184 bytes, then X25519's 32. Raises Unsupported.
    """
    if kem is Kem.X25519:
        return _x25519(private).public_key().public_bytes_raw()
    require_hpke(kem)
    lattice, point = _mlkem(private[:_SEED]), _x25519(private[_SEED:])
    return lattice.public_key().public_bytes_raw() + point.public_key().public_bytes_raw()


def hpke_sealed(kem: Kem, public: bytes, plaintext: bytes, info: bytes) -> bytes | None:
    """Seal with HPKE to a raw public key; return enc, the ciphertext and its tag in a row.

    Base mode, HKDF-SHA256, AES-256-GCM, no associated data. None for bytes that are no public key
    of this kind. Raises Unsupported.

    Source: RFC 9180 section 6.1 (SealBase).
    """
    require_hpke(kem)
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey

    try:
        point = X25519PublicKey.from_public_bytes(public[-32:])
        if kem is Kem.X25519:
            return _suite(kem).encrypt(plaintext, point, info)
        lattice = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM768_PUBLIC])
        return _suite(kem).encrypt(plaintext, MLKEM768X25519PublicKey(lattice, point), info)
    except Exception:  # noqa: BLE001 - whatever the library makes of a stranger's key
        return None


def hpke_opened(kem: Kem, private: bytes, sealed: bytes, info: bytes) -> bytes | None:
    """Return the plaintext of what :func:`hpke_sealed` made; None if anything was changed.

    Raises Unsupported.
    """
    require_hpke(kem)
    key = _x25519(private) if kem is Kem.X25519 else _hybrid(private)
    try:
        return _suite(kem).decrypt(sealed, key, info)
    except Exception:  # noqa: BLE001 - whatever the library makes of a stranger's bytes
        return None
