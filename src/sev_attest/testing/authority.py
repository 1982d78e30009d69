"""A certificate authority shaped like AMD's: an ARK, an ASK, and the signing of CEKs."""

import hashlib
import hmac
from dataclasses import dataclass, replace
from functools import lru_cache

from sev_attest._keys import RsaPublicKey
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.chain.roots import Root
from sev_attest.sev.spec import Usage
from sev_attest.testing._primes import PRIMES

_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class _Key:
    """An RSA key that signs with PSS; the salt follows from the message, so runs are repeatable."""

    p: int
    q: int

    @property
    def public(self) -> RsaPublicKey:
        modulus = self.p * self.q
        return RsaPublicKey(modulus=modulus, exponent=_EXPONENT, bits=modulus.bit_length())


@lru_cache(maxsize=256)
def _sign(key: _Key, message: bytes) -> bytes:
    """Sign with RSA-PSS (RFC 8017, 9.1.1), big-endian; the salt is as long as the hash.

    Equal inputs give equal signatures, so those of recent certificates are kept: RSA in pure Python
    is slow.
    """
    bits = key.public.bits
    algorithm = "sha256" if bits == 2048 else "sha384"  # noqa: PLR2004 - Naples' size
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
    # Chinese remainders: four times as fast as one large power.
    at_p = pow(encoded, exponent % (key.p - 1), key.p)
    at_q = pow(encoded, exponent % (key.q - 1), key.q)
    value = at_q + key.q * ((at_p - at_q) * pow(key.q, -1, key.p) % key.p)
    return value.to_bytes(bits // 8, "big")


class Authority:
    """An ARK and an ASK of ``bits`` (2048: Naples' shape; 4096: that of Rome and later).

    All authorities of a size have the same keys, as AMD's have for one generation; one that is
    ``forged`` has others. ``key_ids`` (ARK's, ASK's) lets it carry somebody else's ids;
    ``signed_ark=False`` leaves the ARK without signature, as AMD publishes Naples'.
    """

    def __init__(
        self,
        bits: int = 4096,
        *,
        key_ids: tuple[bytes, bytes] = (b"sev-attest testA", b"sev-attest testS"),
        signed_ark: bool = True,
        forged: bool = False,
    ) -> None:
        """Make the two certificates."""
        names = ("ASK", "ARK") if forged else ("ARK", "ASK")
        ark_key, self._ask_key = (
            _Key(*(int(prime, 16) for prime in PRIMES[bits][name])) for name in names
        )
        ark = AmdCaCertificate.build(
            usage=Usage.ARK, key_id=key_ids[0], certifying_id=key_ids[0], public_key=ark_key.public
        )
        ask = AmdCaCertificate.build(
            usage=Usage.ASK,
            key_id=key_ids[1],
            certifying_id=key_ids[0],
            public_key=self._ask_key.public,
        )
        self.ark = replace(ark, signature=_sign(ark_key, ark.body)) if signed_ark else ark
        self.ask = replace(ask, signature=_sign(ark_key, ask.body))

    @property
    def root(self) -> Root:
        """What to name on purpose to have its platforms accepted."""
        return Root(ark=self.ark, ask=self.ask)

    def sign_cek(self, cek: Certificate) -> Certificate:
        """Put the ASK's signature on a CEK, as AMD's key server does."""
        value = _sign(self._ask_key, cek.body)[::-1]
        signature = Signature(
            usage=Usage.ASK,
            algorithm=self._ask_key.public.algorithm,
            value=value.ljust(512, b"\0"),
        )
        return replace(cek, signatures=(signature, Signature()))
