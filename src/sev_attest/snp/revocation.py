"""AMD's certificate revocation lists: which ASK and ASVK are revoked.

Source: RFC 5280, 5.1. No list of AMD's was at hand. Only the ARK signs them, and they name ASKs and
ASVKs: a bad chip is not revoked by AMD's means.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sev_attest import _crypto, _der
from sev_attest._der import Der
from sev_attest._keys import RsaPublicKey
from sev_attest.errors import MalformedInput
from sev_attest.snp.x509 import (
    TIMES,
    Name,
    Signed,
    read_extensions,
    read_name,
    read_serial,
    read_time,
)

STRUCTURE = "revocation list"
MAX_LIST = 1 << 16
"""Most bytes of a list; it names ASKs and ASVKs, of which a product has few."""
_V2 = 1


@dataclass(frozen=True, kw_only=True, repr=False)
class RevocationList:
    """A certificate revocation list. Every field is read from ``raw``; raises MalformedInput.

    Does not verify: its signature, or its dates.
    """

    raw: bytes
    """Its DER, as received."""
    body: bytes = field(init=False, compare=False)
    """The signed bytes, as received."""
    issuer: Name = field(init=False, compare=False)
    this_update: datetime = field(init=False, compare=False)
    next_update: datetime | None = field(init=False, compare=False)
    serials: tuple[int, ...] = field(init=False, compare=False)
    """Serial numbers of the revoked certificates, in ascending order.

    No set: whoever makes a list may choose numbers whose hashes in Python are all the same.
    """
    signature: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Read the fields."""
        object.__setattr__(self, "raw", bytes(self.raw))
        if len(self.raw) > MAX_LIST:
            raise MalformedInput(STRUCTURE, "length", f"more than {MAX_LIST} bytes")
        signed = Signed(self.raw, STRUCTURE)
        tbs = signed.read()
        if tbs.number("version") != _V2:
            raise tbs.error("version", "not 2")
        signed.check_algorithm(tbs)
        fields: dict[str, object] = {
            "body": signed.body,
            "signature": signed.signature,
            "issuer": read_name(tbs, "issuer"),
            "this_update": read_time(tbs, "thisUpdate"),
            "next_update": read_time(tbs, "nextUpdate") if tbs.tag in TIMES else None,
            "serials": tuple(sorted(_revoked(tbs))),
        }
        if tbs.more:
            read_extensions(tbs.inside(_der.context(0), "crlExtensions"))
        tbs.finish("crlExtensions")
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Show its issuer, date and length."""
        date = self.this_update.date().isoformat()
        return f"RevocationList({self.issuer}, {date}, {len(self.serials)} revoked)"

    def names(self, serial: int) -> bool:
        """Return whether the certificate with a serial number is revoked."""
        at = bisect_left(self.serials, serial)
        return self.serials[at : at + 1] == (serial,)

    def in_force(self, when: datetime) -> bool:
        """Return whether this was issued by then, and the next one was not due yet."""
        return self.this_update <= when and (self.next_update is None or when <= self.next_update)

    def signed_by(self, key: RsaPublicKey) -> bool:
        """Return whether a key's signature over this list holds."""
        return _crypto.rsa_pss_holds(key, self.signature, self.body)


def _revoked(tbs: Der) -> Iterator[int]:
    """Yield the serial numbers of revoked certificates; the whole sequence may be missing."""
    what = "revokedCertificates"
    if tbs.tag != _der.SEQUENCE:
        return
    every = tbs.inside(_der.SEQUENCE, what)
    while every.more:
        one = every.inside(_der.SEQUENCE, what)
        yield read_serial(one, what)
        read_time(one, what)
        if one.more:
            read_extensions(one)
        one.finish(what)
