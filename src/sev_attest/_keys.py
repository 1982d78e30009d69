"""Public keys as plain numbers: nothing here checks or computes with them.

The codes of algorithms and curves are those of SEV certificates (AMD 55766, "SEV certificate
format").
"""

from dataclasses import dataclass
from enum import IntEnum


class Algorithm(IntEnum):
    """Key and signature algorithms; bit 8 chooses SHA-384 over SHA-256."""

    INVALID = 0x0
    RSA_SHA256 = 0x1
    ECDSA_SHA256 = 0x2
    ECDH_SHA256 = 0x3
    RSA_SHA384 = 0x101
    ECDSA_SHA384 = 0x102
    ECDH_SHA384 = 0x103


class Curve(IntEnum):
    """Elliptic curves of an ECC public key."""

    INVALID = 0
    P256 = 1
    P384 = 2


class Kem(IntEnum):
    """What secrets are sealed to: key encapsulation mechanisms, by their ids in HPKE's registry.

    The second is a hybrid of ML-KEM-768 and X25519, the one that is also called X-Wing.

    Source: RFC 9180 section 7.1; draft-ietf-hpke-pq for the hybrid, whose id a second
    implementation in the tests confirms.
    """

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A

    @property
    def label(self) -> str:
        """The name for people: "x25519", "mlkem768-x25519"."""
        return self.name.lower().replace("_", "-")


RSA_ALGORITHMS = {2048: Algorithm.RSA_SHA256, 4096: Algorithm.RSA_SHA384}
"""What AMD signs with, by the size of the key in bits: Naples, and Rome and later."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RsaPublicKey:
    """An RSA key: modulus, exponent, and the size of the modulus in bits (2048 or 4096)."""

    modulus: int
    exponent: int
    bits: int

    def __repr__(self) -> str:
        """Show the size and the start of the modulus."""
        return f"RsaPublicKey({self.bits} bits, modulus={hex(self.modulus)[:14]}...)"

    @property
    def algorithm(self) -> Algorithm:
        """What AMD signs with under a key of this size."""
        return RSA_ALGORITHMS[self.bits]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EccPublicKey:
    """A point on a curve, as stated: nothing has checked yet that it lies on it."""

    curve: Curve
    x: int
    y: int

    def __repr__(self) -> str:
        """Show the curve and the start of the key."""
        return f"EccPublicKey({self.curve.name}, x={hex(self.x)[:14]}...)"
