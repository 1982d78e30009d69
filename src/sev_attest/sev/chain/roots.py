"""Trusted roots: AMD's pinned ones, and those that a user names on purpose."""

from enum import StrEnum
from functools import cache
from typing import NamedTuple

from sev_attest._keys import RsaPublicKey
from sev_attest.sev.chain._amd_keys import AMD_KEYS, EXPONENT
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.spec import Usage


class Generation(StrEnum):
    """EPYC generations with a root of their own (Bergamo and Siena use Genoa's)."""

    NAPLES = "naples"
    ROME = "rome"
    MILAN = "milan"
    GENOA = "genoa"
    TURIN = "turin"


class Root(NamedTuple):
    """A trusted root, identified by its key alone.

    ``generation`` is None for a root that is not AMD's. ``ask`` completes a chain without an ASK.
    """

    ark: AmdCaCertificate
    ask: AmdCaCertificate | None = None
    generation: Generation | None = None

    def __repr__(self) -> str:
        """Show its name."""
        return f"Root({self.name})"

    @property
    def name(self) -> str:
        """Name for people: "AMD Milan", or for another root the start of the ARK's fingerprint."""
        if self.generation is None:
            return f"not AMD's: ARK {self.ark.fingerprint[:16]}"
        return f"AMD {self.generation.title()}"


@cache
def amd_roots() -> tuple[Root, ...]:
    """Return AMD's roots, one per generation; the keys are in ``_amd_keys.py``."""
    return tuple(
        Root(
            ark=_certificate(generation, Usage.ARK),
            ask=_certificate(generation, Usage.ASK),
            generation=generation,
        )
        for generation in Generation
    )


def _certificate(generation: Generation, usage: Usage) -> AmdCaCertificate:
    keys = AMD_KEYS[generation]
    key = keys[usage.name.lower()]
    bits = 4 * len(key["modulus"])
    return AmdCaCertificate.build(
        usage=usage,
        key_id=bytes.fromhex(key["key_id"]),
        certifying_id=bytes.fromhex(keys["ark"]["key_id"]),
        public_key=RsaPublicKey(modulus=int(key["modulus"], 16), exponent=EXPONENT, bits=bits),
        signature=bytes.fromhex(key["signature"]),
    )
