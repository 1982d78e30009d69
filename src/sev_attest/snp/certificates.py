"""The X.509 certificates behind a report: ARK, ASK, ASVK, VCEK and VLEK.

Read strictly, and as they came: the signed bytes are kept. Unlike most X.509 libraries, this reader
takes what AMD's certificates really hold: the serial number 0 of every VCEK and VLEK, and the
trailerField that older ones state although it is the default.

Source: RFC 5280, 4.1; RFC 5480 (EC keys); AMD 57230 for names and extensions
(:mod:`sev_attest.snp.extensions`); held against real certificates of 2020 to 2026.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cached_property

from sev_attest import _crypto, _der
from sev_attest._der import Der
from sev_attest._keys import Curve, EccPublicKey, RsaPublicKey
from sev_attest.errors import MalformedInput
from sev_attest.snp.extensions import PREFIX, VekExtensions, decode
from sev_attest.snp.x509 import (
    Extensions,
    Name,
    Signed,
    read_extensions,
    read_name,
    read_serial,
    read_time,
)

STRUCTURE = "X.509 certificate"
MAX_CERTIFICATE = 1 << 14
"""Most bytes of a certificate; AMD's have at most 1.7 KiB."""


class Kind(Enum):
    """What a certificate's key is for. AMD says it in the subject's common name."""

    ARK = "AMD root key"
    ASK = "AMD SEV key: signs VCEKs"
    ASVK = "AMD SEV VLEK key: signs VLEKs"
    VCEK = "versioned chip endorsement key"
    VLEK = "versioned loaded endorsement key, for a cloud provider"


VEKS = (Kind.VCEK, Kind.VLEK)
"""Keys that sign reports."""
_VEK_NAMES = {"SEV-VCEK": Kind.VCEK, "SEV-VLEK": Kind.VLEK}
_CA_NAMES = {"ARK": Kind.ARK, "SEV": Kind.ASK, "SEV-VLEK": Kind.ASVK}
_CA_NAME = re.compile(r"(ARK|SEV-VLEK|SEV)-([A-Za-z0-9]+)")
_BASIC_CONSTRAINTS, _KEY_USAGE = "2.5.29.19", "2.5.29.15"
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")
_P384 = bytes.fromhex("301006072a8648ce3d020106052b81040022")
_P384_SIZE = 48
_UNCOMPRESSED = 0x04
_RSA_BITS, _RSA_EXPONENT = 4096, 65537
_V3 = 2


@dataclass(frozen=True, kw_only=True, repr=False)
class Certificate:
    """An X.509 certificate of AMD's. Every field is read from ``raw``; raises MalformedInput.

    It also raises for a certificate that is none of AMD's five kinds, and for another key or
    signature algorithm than AMD's.

    Does not verify: its signature, or its dates.
    """

    raw: bytes
    """Its DER, as received."""
    body: bytes = field(init=False, compare=False)
    """The signed bytes, as received."""
    serial: int = field(init=False, compare=False)
    issuer: Name = field(init=False, compare=False)
    subject: Name = field(init=False, compare=False)
    not_before: datetime = field(init=False, compare=False)
    not_after: datetime = field(init=False, compare=False)
    kind: Kind = field(init=False, compare=False)
    public_key: RsaPublicKey | EccPublicKey = field(init=False, compare=False)
    """RSA 4096 of a CA; EC P-384 of a VCEK or VLEK."""
    key_info: bytes = field(init=False, compare=False)
    """The DER of its subjectPublicKeyInfo, as received."""
    product_name: str = field(init=False, compare=False)
    """The product that it states: "Milan" of ARK-Milan, and of a VCEK for "Milan-B0"."""
    extensions: VekExtensions | None = field(init=False, compare=False)
    """AMD's extensions of a VCEK or VLEK; None for a CA."""
    signature: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Read the fields."""
        object.__setattr__(self, "raw", bytes(self.raw))
        if len(self.raw) > MAX_CERTIFICATE:
            raise MalformedInput(STRUCTURE, "length", f"more than {MAX_CERTIFICATE} bytes")
        signed = Signed(self.raw, STRUCTURE)
        fields: dict[str, object] = {"body": signed.body, "signature": signed.signature}
        tbs = signed.read()
        version = tbs.inside(_der.context(0), "version")
        if version.number("version") != _V3 or version.more:
            raise tbs.error("version", "not 3")
        fields["serial"] = read_serial(tbs, "serialNumber")
        signed.check_algorithm(tbs)
        fields["issuer"] = read_name(tbs, "issuer")
        dates = tbs.inside(_der.SEQUENCE, "validity")
        fields["not_before"] = read_time(dates, "notBefore")
        fields["not_after"] = read_time(dates, "notAfter")
        dates.finish("validity")
        subject = fields["subject"] = read_name(tbs, "subject")
        key_info = fields["key_info"] = tbs.whole(_der.SEQUENCE, "subjectPublicKeyInfo")
        key = fields["public_key"] = _public_key(Der(key_info, STRUCTURE))
        extensions = read_extensions(
            tbs.inside(_der.context(3), "extensions"), (_BASIC_CONSTRAINTS, _KEY_USAGE)
        )
        tbs.finish("extensions")
        for name, value in {**fields, **_role(subject, key, extensions)}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Show its kind, subject and the start of the fingerprint."""
        return f"Certificate({self.kind.name} {self.subject} {self.fingerprint[:16]})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the whole certificate, in hex."""
        return _crypto.sha256(self.raw).hex()

    @property
    def signer(self) -> tuple[Kind, str] | None:
        """Kind and product of the CA that it names as its issuer; None if that is none of AMD's."""
        return ca_of(self.issuer.common_name)

    @cached_property
    def point(self) -> _crypto.P384PublicKey | None:
        """The key of a VCEK or VLEK; None if it is no point on P-384, and for a CA."""
        key = self.public_key
        return _crypto.p384_point(key) if isinstance(key, EccPublicKey) else None

    def signed_by(self, key: RsaPublicKey) -> bool:
        """Return whether a key's signature over this certificate holds."""
        return _crypto.rsa_pss_holds(key, self.signature, self.body)


def ca_of(common_name: str) -> tuple[Kind, str] | None:
    """Return kind and product of the CA with this name ("SEV-Milan"); None if it is no name of one.

    Does not verify: that AMD has such a product.
    """
    found = _CA_NAME.fullmatch(common_name)
    return (_CA_NAMES[found[1]], found[2]) if found else None


def _role(
    subject: Name, key: RsaPublicKey | EccPublicKey, extensions: Extensions
) -> dict[str, object]:
    """Return what a certificate is for: its kind, product and AMD's extensions."""
    common = subject.common_name
    if common in _VEK_NAMES:
        _require_key(common, key, EccPublicKey, "EC P-384")
        amd = _amd(_VEK_NAMES[common], extensions)
        product = amd.product_name.partition("-")[0]
        return {"kind": _VEK_NAMES[common], "product_name": product, "extensions": amd}
    ca = ca_of(common)
    if not ca:
        reason = f"{common!r} is none of AMD's: ARK-, SEV- or SEV-VLEK-PRODUCT, SEV-VCEK, SEV-VLEK"
        raise MalformedInput(STRUCTURE, "subject", reason)
    _require_key(common, key, RsaPublicKey, "RSA")
    if not _is_ca(extensions.get(_BASIC_CONSTRAINTS, b"")):
        raise MalformedInput(STRUCTURE, "basicConstraints", f"{common} is not said to be a CA")
    return {"kind": ca[0], "product_name": ca[1], "extensions": None}


def _require_key(common: str, key: object, kind: type, name: str) -> None:
    if not isinstance(key, kind):
        raise MalformedInput(STRUCTURE, "subjectPublicKeyInfo", f"{common}: its key is not {name}")


def _is_ca(value: bytes) -> bool:
    """Return whether basicConstraints begins with cA TRUE; a path length may follow."""
    return value[:1] == b"\x30" and value[2:5] == b"\x01\x01\xff"


def _amd(kind: Kind, extensions: Extensions) -> VekExtensions:
    own = [name for name in extensions if name.startswith(PREFIX)]
    found = decode({name.removeprefix(PREFIX): extensions[name] for name in own}, STRUCTURE)
    if bool(found.hwid) != (kind is Kind.VCEK):
        reason = f"a VCEK has one, a VLEK has none; this is a {kind.name}"
        raise MalformedInput(STRUCTURE, "hwID", reason)
    return found


def _public_key(whole: Der) -> RsaPublicKey | EccPublicKey:
    what = "subjectPublicKeyInfo"
    info = whole.inside(_der.SEQUENCE, what)
    algorithm = info.whole(_der.SEQUENCE, what)
    key = info.bits(what)
    info.finish(what)
    if algorithm == _P384:
        if len(key) != 1 + 2 * _P384_SIZE or key[0] != _UNCOMPRESSED:
            raise info.error(what, "not an uncompressed point of 97 bytes")
        x, y = key[1 : 1 + _P384_SIZE], key[1 + _P384_SIZE :]
        return EccPublicKey(
            curve=Curve.P384, x=int.from_bytes(x, "big"), y=int.from_bytes(y, "big")
        )
    if algorithm != _RSA:
        raise info.error(what, "neither RSA nor EC P-384")
    numbers = Der(key, info.structure)
    pair = numbers.inside(_der.SEQUENCE, what)
    numbers.finish(what)
    modulus, exponent = pair.number(what), pair.number(what)
    pair.finish(what)
    if modulus.bit_length() != _RSA_BITS or exponent != _RSA_EXPONENT:
        raise info.error(what, f"not an RSA key of {_RSA_BITS} bits with exponent {_RSA_EXPONENT}")
    return RsaPublicKey(modulus=modulus, exponent=exponent, bits=_RSA_BITS)
