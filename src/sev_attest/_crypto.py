"""Public-key and cipher operations: the only importer of ``cryptography``.

Whoever needs no more than HMAC and SHA-2 takes them from the standard library, so that checking a
measurement does not load OpenSSL's bindings.
"""

import hmac
import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sev_attest.chain.ca import RsaPublicKey
from sev_attest.chain.certificate import EccPublicKey
from sev_attest.spec import Algorithm, Curve

_P384 = ec.SECP384R1()
_HASHES: dict[Algorithm, hashes.HashAlgorithm] = {
    Algorithm.RSA_SHA256: hashes.SHA256(),
    Algorithm.RSA_SHA384: hashes.SHA384(),
}
_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())


def p384_point(key: EccPublicKey) -> ec.EllipticCurvePublicKey | None:
    """Load a P-384 key; None if it is of another curve or no point on it."""
    if key.curve is not Curve.P384:
        return None
    try:
        return ec.EllipticCurvePublicNumbers(key.x, key.y, _P384).public_key()
    except ValueError:
        return None


def ecdsa_sha256_holds(
    key: ec.EllipticCurvePublicKey, numbers: tuple[int, int], message: bytes
) -> bool:
    """Tell whether (R, S) is ``key``'s ECDSA signature with SHA-256 over ``message``."""
    try:
        key.verify(encode_dss_signature(*numbers), message, _ECDSA_SHA256)
    except InvalidSignature:
        return False
    return True


def rsa_pss_holds(key: RsaPublicKey, signature: bytes, message: bytes) -> bool:
    """Tell whether ``signature`` is ``key``'s RSA-PSS signature (salt as long as the hash)."""
    digest = _HASHES[key.algorithm]
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    try:
        public = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
        public.verify(signature, message, scheme, digest)
    except (InvalidSignature, ValueError):  # ValueError: not an RSA key at all
        return False
    return True


def new_p384_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key from OpenSSL's randomness."""
    return ec.generate_private_key(_P384)


def p384_numbers(key: ec.EllipticCurvePublicKey) -> EccPublicKey:
    """Write a key as the certificate does."""
    numbers = key.public_numbers()
    return EccPublicKey(curve=Curve.P384, x=numbers.x, y=numbers.y)


def ecdh(key: ec.EllipticCurvePrivateKey, peer: ec.EllipticCurvePublicKey) -> bytes:
    """Agree on a secret: the x coordinate of the shared point, 48 bytes, big-endian."""
    return key.exchange(ec.ECDH(), peer)


def kdf(key: bytes, label: bytes, context: bytes = b"") -> bytes:
    """Derive 16 bytes: NIST SP 800-108 counter mode with HMAC-SHA256, numbers little-endian."""
    bits = (128).to_bytes(4, "little")
    counter = (1).to_bytes(4, "little")
    return hmac.digest(key, counter + label + b"\0" + context + bits, "sha256")[:16]


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt with AES-128-CTR; ``iv`` is the 16-byte initial counter block."""
    cipher = Cipher(algorithms.AES128(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()


def random_bytes(size: int) -> bytes:
    """Draw from the operating system's generator."""
    return secrets.token_bytes(size)
