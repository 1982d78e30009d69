"""Transport keys: what an owner seals secrets to, and how a report binds such a key.

A guest makes a key for one challenge. Its report says which key that is: ``report_data`` is the
hash of the challenge's nonce and of the key. ``docs/snp-release.md`` describes both to the byte.

=================  ======  ==========  ===========  =======================================
KEM                id      public key  private key  parts of the keys
=================  ======  ==========  ===========  =======================================
x25519             0x0020  32          32           X25519
mlkem768-x25519    0x647a  1216        96           ML-KEM-768 (public 1184, private its
                                                    seed of 64), then X25519
=================  ======  ==========  ===========  =======================================
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sev_attest import _crypto
from sev_attest._keys import Kem
from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.snp.document import Document, to_base64, write_document

LABEL = b"sev-attest/snp/report-data/1\0"
"""What comes first in what ``report_data`` is the hash of."""
NONCE_SIZE = 32
_SCHEMA = "sev-attest/snp-transport-key/1"
_PRIVATE_SCHEMA = "sev-attest/snp-transport-private-key/1"
_STRUCTURE, _PRIVATE_STRUCTURE = "transport key", "transport private key"


class Sizes(NamedTuple):
    """Bytes of a KEM's raw public and private keys, and of what it encapsulates (HPKE's enc)."""

    public: int
    private: int
    enc: int


SIZES: Mapping[Kem, Sizes] = {
    Kem.X25519: Sizes(32, 32, 32),
    Kem.MLKEM768_X25519: Sizes(1216, 96, 1120),
}
"""Nothing has another length, so what is hashed can be read in one way only."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportKey:
    """A public key that secrets are sealed to: its KEM, and the raw key in the KEM's length.

    Does not verify: whose key it is. Only a report that binds it says that.
    """

    kem: Kem
    public: bytes

    def __post_init__(self) -> None:
        """Raise MalformedInput for a key of another length."""
        _check_length(_STRUCTURE, "public_key", self.public, SIZES[self.kem].public)

    def __repr__(self) -> str:
        """Show the KEM and the start of the digest."""
        return f"TransportKey({self.kem.label}, digest={self.digest.hex()[:16]})"

    def to_bytes(self) -> bytes:
        """Return what is hashed: the KEM's id (2 bytes, big-endian as in HPKE), the raw key."""
        return self.kem.to_bytes(2, "big") + self.public

    @property
    def digest(self) -> bytes:
        """SHA-384 of :meth:`to_bytes`, 48 bytes: the key's fingerprint."""
        return hashlib.sha384(self.to_bytes()).digest()

    def to_json(self) -> bytes:
        """Return the file that goes to the owner."""
        return write_document(_SCHEMA, kem=int(self.kem), public_key=to_base64(self.public))

    @classmethod
    def from_json(cls, data: bytes) -> "TransportKey":
        """Read what :meth:`to_json` wrote; raises MalformedInput."""
        document = Document(data, _STRUCTURE, _SCHEMA, ("kem", "public_key"))
        return cls(kem=read_kem(document, "kem"), public=document.base64("public_key"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransportPrivateKey:
    """A transport key with its private part, which never leaves the guest. No repr shows it."""

    kem: Kem
    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise MalformedInput for a key of another length."""
        _check_length(_PRIVATE_STRUCTURE, "private_key", self.private, SIZES[self.kem].private)

    @classmethod
    def generate(cls, kem: Kem = Kem.X25519) -> "TransportPrivateKey":
        """Return a new key.

        Raises Unsupported if the installed ``cryptography`` could not open what is sealed to it.
        """
        _crypto.require_hpke(kem)
        # Both kinds are uniformly random bytes: RFC 7748 section 5, FIPS 203 section 7.1.
        return cls(kem=kem, private=_crypto.random_bytes(SIZES[kem].private))

    @property
    def public(self) -> TransportKey:
        """The public key. Raises Unsupported if the installed ``cryptography`` has no ML-KEM."""
        return TransportKey(kem=self.kem, public=_crypto.kem_public(self.kem, self.private))

    def to_json(self) -> bytes:
        """Return the file that the guest keeps: it holds the secret."""
        text = to_base64(self.private)
        return write_document(_PRIVATE_SCHEMA, kem=int(self.kem), private_key=text)

    @classmethod
    def from_json(cls, data: bytes) -> "TransportPrivateKey":
        """Read what :meth:`to_json` wrote; raises MalformedInput, which shows nothing of it."""
        document = Document(data, _PRIVATE_STRUCTURE, _PRIVATE_SCHEMA, ("kem", "private_key"))
        return cls(kem=read_kem(document, "kem"), private=document.base64("private_key"))


def _check_length(structure: str, name: str, key: bytes, size: int) -> None:
    if len(key) != size:
        raise MalformedInput(structure, name, f"has {len(key)} bytes, expected {size}")


def read_kem(document: Document, name: str) -> Kem:
    """Return the KEM that a document names by its id; raises MalformedInput."""
    try:
        return Kem(document.number(name))
    except ValueError:
        known = ", ".join(f"{int(kem)} ({kem.label})" for kem in Kem)
        raise document.error(name, f"is no KEM that is known: {known}") from None


def report_data(nonce: bytes, key: TransportKey) -> bytes:
    """Return the 64 bytes that a report must carry to bind a key to a challenge.

    SHA-512(:data:`LABEL` || ``nonce`` || SHA-384(KEM id || raw public key)). ``nonce`` is the
    challenge's, 32 bytes. Raises Unsupported for another size.
    """
    if len(nonce) != NONCE_SIZE:
        raise Unsupported(
            f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}", check="snp.challenge"
        )
    return hashlib.sha512(LABEL + nonce + key.digest).digest()
