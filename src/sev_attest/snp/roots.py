"""Trusted roots of SEV-SNP: AMD's pinned keys, and those that a user names on purpose.

The ARK and the ASK of a product are the very keys that sign its SEV certificates, so they are
pinned already. Only the ASVK is SEV-SNP's own.
"""

from functools import cache
from typing import NamedTuple

from sev_attest import _crypto
from sev_attest._keys import EccPublicKey, RsaPublicKey
from sev_attest.errors import MalformedInput
from sev_attest.sev.chain._amd_keys import AMD_KEYS, EXPONENT
from sev_attest.snp._asvk_keys import ASVK_KEYS, SERIALS
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.tcb import Product

_KEY_INFO = (
    bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100"),
    bytes.fromhex("0203010001"),
)
"""What is before and after the modulus in the SubjectPublicKeyInfo of RSA 4096, exponent 65537."""


class PinnedKey(NamedTuple):
    """AMD's ASK or ASVK of a product, which stands in for a certificate that is missing.

    ``serial`` is the serial number of the certificate that AMD publishes for the key.
    """

    public_key: RsaPublicKey
    serial: int


class Root(NamedTuple):
    """A trusted root, identified by the key of its ARK alone.

    ``product`` is None, and nothing is ``pinned``, for a root that is not AMD's.
    """

    ark: RsaPublicKey
    product: Product | None = None
    ask: PinnedKey | None = None
    asvk: PinnedKey | None = None

    @classmethod
    def of(cls, certificate: Certificate) -> "Root":
        """Return the root of an ARK that is not AMD's; raises MalformedInput for another kind."""
        key = certificate.public_key
        if certificate.kind is not Kind.ARK or not isinstance(key, RsaPublicKey):
            reason = f"{certificate.subject} is no ARK"
            raise MalformedInput("root", "ARK", reason)
        return cls(ark=key)

    def __repr__(self) -> str:
        """Show its name."""
        return f"Root({self.name})"

    @property
    def name(self) -> str:
        """Name for people: "AMD Milan", or for another root the start of its key's fingerprint."""
        if self.product is None:
            return f"not AMD's: ARK {fingerprint(self.ark)[:16]}"
        return f"AMD {self.product.value}"

    def pinned(self, kind: Kind) -> PinnedKey | None:
        """Return the pinned key of this kind, ASK or ASVK; None if there is none."""
        return {Kind.ASK: self.ask, Kind.ASVK: self.asvk}.get(kind)


@cache
def amd_roots() -> tuple[Root, ...]:
    """Return AMD's roots, one per product."""
    return tuple(
        Root(
            ark=_key(AMD_KEYS[product.name.lower()]["ark"]["modulus"]),
            product=product,
            ask=_pinned(AMD_KEYS[product.name.lower()]["ask"]["modulus"], product, Kind.ASK),
            asvk=_pinned(ASVK_KEYS[product.value], product, Kind.ASVK),
        )
        for product in Product
    )


def pinned_name(key: RsaPublicKey | EccPublicKey) -> str:
    """Return which of AMD's pinned keys this is ("AMD Milan ASK"); "" for any other key."""
    for root in amd_roots():
        for kind in (Kind.ARK, Kind.ASK, Kind.ASVK):
            pinned = root.pinned(kind)
            if key == (pinned.public_key if pinned else root.ark):
                return f"{root.name} {kind.name}"
    return ""


def fingerprint(key: RsaPublicKey) -> str:
    """Return the SHA-256 of the SubjectPublicKeyInfo of an RSA 4096 key, in hex."""
    info = _KEY_INFO[0] + key.modulus.to_bytes(key.bits // 8, "big") + _KEY_INFO[1]
    return _crypto.sha256(info).hex()


def _pinned(modulus: str, product: Product, kind: Kind) -> PinnedKey:
    return PinnedKey(public_key=_key(modulus), serial=SERIALS[product.value, kind.name])


def _key(modulus: str) -> RsaPublicKey:
    return RsaPublicKey(modulus=int(modulus, 16), exponent=EXPONENT, bits=4 * len(modulus))
