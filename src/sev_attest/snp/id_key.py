"""The keys behind an ID block: ECDSA on P-384, public as firmware takes them, private as PEM.

Source: virtee/sev src/measurement/idblock_types.rs and sev-snp-measure's id_block.py; blocks that
three tools made.
"""

import hashlib
from dataclasses import dataclass, field

from sev_attest import _crypto
from sev_attest._keys import Curve, EccPublicKey
from sev_attest._wire import Reader, le
from sev_attest.errors import MalformedInput

KEY_SIZE = 0x404
SIGNATURE_SIZE = 0x200
_NUMBER_SIZE = 72
"""Bytes of a coordinate, of R and of S: 48 significant ones, then zeros."""
_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
"""The order of P-384 (SEC 2, 2.5.1)."""
_NEW_KEY = "`openssl ecparam -name secp384r1 -genkey -noout -out KEY.pem` makes one"

Signature = tuple[int, int]
"""R and S, each from 1 to the order of the curve less 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdKey:
    """A public ID key or author key: a point on P-384.

    Raises MalformedInput for coordinates of no such point.
    """

    x: int = field(repr=False)
    y: int = field(repr=False)

    def __post_init__(self) -> None:
        """Check that the point is on the curve."""
        if _crypto.p384_point(self._numbers) is None:
            raise MalformedInput("ID key", "point", "it is not on P-384")

    def __repr__(self) -> str:
        """Show the digest."""
        return f"IdKey(digest={self.digest.hex()})"

    @property
    def _numbers(self) -> EccPublicKey:
        return EccPublicKey(curve=Curve.P384, x=self.x, y=self.y)

    @classmethod
    def read(cls, reader: Reader, name: str) -> "IdKey":
        """Read the next 0x404 bytes as the key ``name``; raises MalformedInput."""
        curve = reader.code(Curve, f"{name} curve")  # 000
        if curve is not Curve.P384:
            raise reader.error(f"{name} curve", f"{curve.name}, expected P384", back=4)
        x = reader.number(_NUMBER_SIZE, f"{name} qx")  # 004
        y = reader.number(_NUMBER_SIZE, f"{name} qy")  # 04c
        reader.zeros(KEY_SIZE - 4 - 2 * _NUMBER_SIZE, name)  # 094
        try:
            return cls(x=x, y=y)
        except MalformedInput as error:
            raise reader.error(name, error.reason, back=KEY_SIZE) from None

    @classmethod
    def from_bytes(cls, data: bytes) -> "IdKey":
        """Parse 0x404 bytes: curve, x and y, little-endian, zeros. Raises MalformedInput."""
        return cls.read(Reader(data, "ID key", KEY_SIZE), "key")

    def to_bytes(self) -> bytes:
        """Return the 0x404 bytes."""
        numbers = le(Curve.P384, 4) + le(self.x, _NUMBER_SIZE) + le(self.y, _NUMBER_SIZE)
        return numbers.ljust(KEY_SIZE, b"\0")

    @property
    def digest(self) -> bytes:
        """SHA-384 of the 0x404 bytes, 48 bytes: what a report names the key by."""
        return hashlib.sha384(self.to_bytes()).digest()

    def signs(self, signature: Signature, message: bytes) -> bool:
        """Return whether this key made a signature over ``message``."""
        point = _crypto.p384_point(self._numbers)
        return point is not None and _crypto.ecdsa_sha384_holds(point, signature, message)


@dataclass(frozen=True, slots=True)
class IdPrivateKey:
    """A private ID key or author key, P-384. It never shows in a repr.

    Its signatures differ from call to call: OpenSSL mixes random bytes into each of them.
    """

    _key: _crypto.P384PrivateKey = field(repr=False)

    @classmethod
    def from_pem(cls, data: bytes) -> "IdPrivateKey":
        """Read an unencrypted P-384 key in PEM, PKCS #8 or SEC 1.

        Raises MalformedInput for anything else; the message never shows the content.
        """
        key = _crypto.p384_private_key(data)
        if key is None:
            reason, hint = _refusal(data)
            raise MalformedInput("private key", "format", reason, hint=hint)
        return cls(key)

    @property
    def public(self) -> IdKey:
        """The public key."""
        numbers = _crypto.p384_numbers(self._key.public_key())
        return IdKey(x=numbers.x, y=numbers.y)

    def sign(self, message: bytes) -> Signature:
        """Return an ECDSA signature with SHA-384 over ``message``."""
        return _crypto.ecdsa_sha384(self._key, message)


def _refusal(data: bytes) -> tuple[str, str]:
    """Return what is wrong with a file that is no private key, and what to do."""
    if b"ENCRYPTED" in data:
        return (
            "the key is encrypted",
            "`openssl pkey -in KEY.pem` prints it decrypted: pass that on standard input (-)",
        )
    if b"PRIVATE KEY-----" in data:
        return "not a P-384 key, or damaged", _NEW_KEY
    if b"-----BEGIN" in data:
        return "no private key is in this PEM file", "name the file of the private key"
    return "not a private key in PEM", _NEW_KEY


def read_signature(reader: Reader, name: str) -> Signature:
    """Read the next 512 bytes: R and S, 72 bytes each, little-endian, zeros.

    Raises MalformedInput for a number out of range, too.
    """
    numbers = reader.number(_NUMBER_SIZE, name), reader.number(_NUMBER_SIZE, name)
    if not all(0 < number < _ORDER for number in numbers):
        raise reader.error(name, "R or S is out of range", back=2 * _NUMBER_SIZE)
    reader.zeros(SIGNATURE_SIZE - 2 * _NUMBER_SIZE, name)
    return numbers


def signature_bytes(signature: Signature) -> bytes:
    """Return the 512 bytes of a signature."""
    r, s = signature
    return (le(r, _NUMBER_SIZE) + le(s, _NUMBER_SIZE)).ljust(SIGNATURE_SIZE, b"\0")
