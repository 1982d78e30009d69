"""A certificate authority like AMD's: an ARK, an ASK, and the signing of CEKs."""

import hashlib
import hmac
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from sev_attest._keys import RsaPublicKey
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.chain.roots import Root
from sev_attest.sev.spec import Usage
from sev_attest.testing._primes import PRIMES

_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key. Its PSS salt is derived from the message, so that signatures are repeatable."""

    p: int
    q: int

    @classmethod
    def named(cls, bits: int, name: str) -> "SigningKey":
        """Return the key of this size and name ("ARK")."""
        return cls(*(int(prime, 16) for prime in PRIMES[bits][name]))

    @property
    def public(self) -> RsaPublicKey:
        """The public key."""
        modulus = self.p * self.q
        return RsaPublicKey(modulus=modulus, exponent=_EXPONENT, bits=modulus.bit_length())


@lru_cache(maxsize=256)
def rsa_pss_sign(key: SigningKey, message: bytes) -> bytes:
    """Return the RSA-PSS signature of a message, big-endian. The salt is as long as the hash.

    Signatures are cached, because RSA in pure Python is slow.

    Source: RFC 8017, 9.1.1.
    """
    bits = key.public.bits
    algorithm = "sha256" if bits == 2048 else "sha384"  # noqa: PLR2004 - the size for Naples
    salt = hmac.digest(key.p.to_bytes(bits // 16, "big"), message, algorithm)
    size = len(salt)
    digest = hashlib.new(algorithm, message).digest()
    mac = hashlib.new(algorithm, bytes(8) + digest + salt).digest()
    block = bytes(bits // 8 - 2 * size - 2) + b"\1" + salt
    counters = range((len(block) + size - 1) // size)
    mask = b"".join(
        hashlib.new(algorithm, mac + counter.to_bytes(4, "big")).digest() for counter in counters
    )
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=False))
    masked[0] &= 0x7F
    encoded = int.from_bytes(bytes(masked) + mac + b"\xbc", "big")
    exponent = pow(_EXPONENT, -1, (key.p - 1) * (key.q - 1))
    # The Chinese remainder theorem: four times as fast as one large power.
    at_p = pow(encoded, exponent % (key.p - 1), key.p)
    at_q = pow(encoded, exponent % (key.q - 1), key.q)
    value = at_q + key.q * ((at_p - at_q) * pow(key.q, -1, key.p) % key.p)
    return value.to_bytes(bits // 8, "big")


class Authority:
    """An ARK and an ASK of ``bits``: 2048 as for Naples, 4096 as for Rome and later.

    All authorities of a size have the same keys, unless they are ``forged``. ``key_ids`` are the
    key ids of ARK and ASK, 16 bytes each. With ``signed_ark=False`` the ARK has no signature, as
    the one that AMD publishes for Naples.
    """

    def __init__(
        self,
        bits: int = 4096,
        *,
        key_ids: tuple[bytes, bytes] = (b"sev-attest testA", b"sev-attest testS"),
        signed_ark: bool = True,
        forged: bool = False,
    ) -> None:
        """Choose the keys. Each certificate is built when it is first asked for."""
        names = ("ASK", "ARK") if forged else ("ARK", "ASK")
        self._ark_key, self._ask_key = (SigningKey.named(bits, name) for name in names)
        self._key_ids = key_ids
        self._signed_ark = signed_ark

    @cached_property
    def ark(self) -> AmdCaCertificate:
        """The ARK's certificate."""
        key_id, _ = self._key_ids
        ark = AmdCaCertificate.build(
            usage=Usage.ARK,
            key_id=key_id,
            certifying_id=key_id,
            public_key=self._ark_key.public,
        )
        if not self._signed_ark:
            return ark
        return replace(ark, signature=rsa_pss_sign(self._ark_key, ark.body))

    @cached_property
    def ask(self) -> AmdCaCertificate:
        """The ASK's certificate."""
        certifying_id, key_id = self._key_ids
        ask = AmdCaCertificate.build(
            usage=Usage.ASK,
            key_id=key_id,
            certifying_id=certifying_id,
            public_key=self._ask_key.public,
        )
        return replace(ask, signature=rsa_pss_sign(self._ark_key, ask.body))

    @property
    def root(self) -> Root:
        """The root to pass to a chain check that has to accept this authority's platforms."""
        return Root(ark=self.ark, ask=self.ask)

    def sign_cek(self, cek: Certificate) -> Certificate:
        """Return a CEK with the ASK's signature, as AMD's key server does."""
        value = rsa_pss_sign(self._ask_key, cek.body)[::-1]
        signature = Signature(
            usage=Usage.ASK,
            algorithm=self._ask_key.public.algorithm,
            value=value.ljust(512, b"\0"),
        )
        return replace(cek, signatures=(signature, Signature()))
