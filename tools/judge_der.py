"""X.509 as AMD has it, by the second implementation: a walk over DER by tag and length.

No X.509 library is asked: the serial number of a VCEK is 0, which those refuse or will refuse.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from judge_parts import Refused

AMD = bytes.fromhex("2b060104019c7801")
"""The object id under which AMD's extensions are: 1.3.6.1.4.1.3704.1."""
SHA384 = "300d06096086480165030402020500"
PSS = f"a00f{SHA384}a11c301a06092a864886f70d010108{SHA384}a203020130"
ALGORITHMS = (
    bytes.fromhex(f"304106092a864886f70d01010a3034{PSS}"),
    bytes.fromhex(f"304606092a864886f70d01010a3039{PSS}a303020101"),
)
"""RSASSA-PSS with SHA-384 and a salt of 48 bytes, without and with its trailerField."""
ORDERS = {
    0: ("3.1", "3.2", "3.4", "3.5", "3.6", "3.7", "3.3", "3.8"),
    1: ("3.9", "3.1", "3.2", "3.3", "3.5", "3.6", "3.7", "3.8"),
}
"""Object ids of the patch levels, as the bytes of a TCB, by structVersion."""
SPLS = {
    "3.1": "blSPL", "3.2": "teeSPL", "3.3": "snpSPL", "3.4": "spl4", "3.5": "spl5",
    "3.6": "spl6", "3.7": "spl7", "3.8": "ucodeSPL", "3.9": "fmcSPL",
}  # fmt: skip
HWIDS = {0: 64, 1: 8}
X509 = "x.509-certificate"


class Value(NamedTuple):
    """A value of DER: its tag, its contents, and all of it."""

    tag: int
    contents: bytes
    whole: bytes


def values(data: bytes) -> list[Value]:
    """Take DER apart into the values that it has in a row."""
    found = []
    while data:
        head = 2
        size = data[1] if len(data) > 1 else len(data)
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(data[2:head], "big")
        if len(data) < head + size:
            raise Refused(f"{X509}.format")
        found.append(Value(data[0], data[head : head + size], data[: head + size]))
        data = data[head + size :]
    return found


class Certificate(NamedTuple):
    """A certificate: what the checks look at."""

    raw: bytes
    body: bytes
    signature: bytes
    serial: int
    issuer: bytes
    issuer_name: str
    subject: bytes
    name: str
    dates: tuple[datetime, datetime]
    modulus: int
    point: bytes
    amd: dict[str, bytes]

    @property
    def kind(self) -> str:
        """ARK, ASK, ASVK, VCEK or VLEK, by the subject's common name."""
        return kind_of(self.name)[0]

    @property
    def product(self) -> str:
        """The product: of a VEK by its extension, of a CA by its name."""
        if self.modulus:
            return kind_of(self.name)[1]
        return self.amd["2"][2:].decode().partition("-")[0]

    @property
    def tcb(self) -> bytes:
        """The TCB of a VEK, 8 bytes."""
        return bytes(self.amd[which][-1] for which in ORDERS[self.amd["1"][-1]])

    @property
    def hwid(self) -> bytes:
        """The chip of a VCEK; nothing of a VLEK."""
        found = self.amd.get("4", b"")
        return found[2:] if len(found) in (66, 10) else found


def kind_of(name: str) -> tuple[str, str]:
    """Return kind and product by a common name."""
    if name in ("SEV-VCEK", "SEV-VLEK"):
        return name.removeprefix("SEV-"), ""
    for prefix, kind in (("SEV-VLEK-", "ASVK"), ("SEV-", "ASK"), ("ARK-", "ARK")):
        if name.startswith(prefix):
            return kind, name.removeprefix(prefix)
    raise Refused(f"{X509}.subject")


def common_name(name: bytes) -> str:
    """Return the common name of a distinguished name."""
    pairs = [values(values(members.contents)[0].contents) for members in values(name)]
    return next(text.contents.decode() for which, text in pairs if which.contents == b"\x55\4\3")


def when(value: Value, field: str = "time") -> datetime:
    """Read a UTCTime or GeneralizedTime."""
    text = value.contents.decode()
    if value.tag == 0x17:
        text = ("19" if text >= "50" else "20") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refused(f"{X509}.{field}") from None


def validity(value: Value) -> tuple[datetime, datetime]:
    """Read the first and the last second of a certificate."""
    dates = values(value.contents)
    if value.tag != 0x30 or len(dates) != 2:
        raise Refused(f"{X509}.validity")
    return when(dates[0], "notBefore"), when(dates[1], "notAfter")


def certificate(raw: bytes) -> Certificate:
    """Read a certificate."""
    outer = values(raw)
    if len(outer) != 1:
        raise Refused(f"{X509}.length")
    body, algorithm, signature = values(outer[0].contents)
    version, serial, inner, issuer, dates, subject, key, extensions, *more = values(body.contents)
    if more:
        raise Refused(f"{X509}.extensions")
    if version.contents != b"\2\1\2":
        raise Refused(f"{X509}.version")
    if serial.contents[0] & 0x80:
        raise Refused(f"{X509}.serialNumber")
    if inner.whole not in ALGORITHMS or algorithm.whole != inner.whole:
        raise Refused(f"{X509}.signature")
    modulus, point = public_key(key)
    name = common_name(subject.contents)
    amd, ca = extension_values(extensions)
    kind = kind_of(name)[0]
    if bool(modulus) is (kind in ("VCEK", "VLEK")):
        raise Refused(f"{X509}.subjectPublicKeyInfo")
    if kind in ("VCEK", "VLEK"):
        check_amd(kind, amd)
    elif not ca:
        raise Refused(f"{X509}.basicConstraints")
    return Certificate(
        raw=raw,
        body=body.whole,
        signature=signature.contents[1:],
        serial=int.from_bytes(serial.contents, "big"),
        issuer=issuer.whole,
        issuer_name=common_name(issuer.contents),
        subject=subject.whole,
        name=name,
        dates=validity(dates),
        modulus=modulus,
        point=point,
        amd=amd,
    )


def public_key(info: Value) -> tuple[int, bytes]:
    """Return the modulus of an RSA key, or the point of an EC key."""
    if info.tag != 0x30:
        raise Refused(f"{X509}.subjectPublicKeyInfo")
    algorithm, bits = values(info.contents)
    key = bits.contents[1:]
    if algorithm.whole == bytes.fromhex("301006072a8648ce3d020106052b81040022"):
        if len(key) != 97 or key[0] != 4:
            raise Refused(f"{X509}.subjectPublicKeyInfo")
        return 0, key
    pair, *more = values(key)
    modulus, exponent = (int.from_bytes(one.contents, "big") for one in values(pair.contents))
    if more or modulus.bit_length() != 4096 or exponent != 65537:
        raise Refused(f"{X509}.subjectPublicKeyInfo")
    return modulus, b""


def extension_values(wrapped: Value) -> tuple[dict[str, bytes], bool]:
    """Return AMD's extensions by what follows AMD's object id, and whether it is a CA."""
    amd, ca = {}, False
    for one in values(values(wrapped.contents)[0].contents):
        which, *_, value = values(one.contents)
        if which.contents.startswith(AMD):
            amd[".".join(map(str, which.contents[len(AMD) :]))] = value.contents
        ca = ca or (which.contents == b"\x55\x1d\x13" and b"\1\1\xff" in value.contents)
    return amd, ca


def check_amd(kind: str, amd: dict[str, bytes]) -> None:
    """Refuse extensions that are missing, too many, of another type or size."""
    if not {"1", "2", "4", "5", *SPLS} >= amd.keys():
        raise Refused(f"{X509}.extensions")
    numbers = {which: value for which, value in amd.items() if which in ("1", *SPLS)}
    for which, value in numbers.items():
        (one,) = values(value)
        wide = len(one.contents) == 2 and one.contents[0] == 0 and one.contents[1] >= 0x80
        if one.tag != 2 or not (wide or (len(one.contents) == 1 and one.contents[0] < 0x80)):
            raise Refused(f"{X509}.{({'1': 'structVersion'} | SPLS)[which]}")
    version = amd["1"][-1] if "1" in amd else 2
    if version not in ORDERS:
        raise Refused(f"{X509}.structVersion")
    if {*ORDERS[version]} != amd.keys() & SPLS.keys():
        raise Refused(f"{X509}.extensions")
    if amd.get("2", b"")[:1] != b"\x16":
        raise Refused(f"{X509}.productName")
    hwid, size = amd.get("4", b""), HWIDS[version]
    wrapped = hwid[:2] == bytes((4, size)) and len(hwid) == size + 2
    if (kind == "VCEK") is not bool(hwid) or (hwid and len(hwid) != size and not wrapped):
        raise Refused(f"{X509}.hwID")


class CertificateList(NamedTuple):
    """A revocation list: what the checks look at."""

    body: bytes
    signature: bytes
    issuer_name: str
    dates: tuple[datetime, datetime | None]
    serials: frozenset[int]


def revocation_list(raw: bytes) -> CertificateList:
    """Read a revocation list."""
    body, _, signature = values(values(raw)[0].contents)
    _, _, issuer, this, *rest = values(body.contents)
    due = when(rest.pop(0)) if rest and rest[0].tag in (0x17, 0x18) else None
    revoked = values(rest[0].contents) if rest and rest[0].tag == 0x30 else []
    serials = (values(one.contents)[0].contents for one in revoked)
    return CertificateList(
        body=body.whole,
        signature=signature.contents[1:],
        issuer_name=common_name(issuer.contents),
        dates=(when(this), due),
        serials=frozenset(int.from_bytes(serial, "big") for serial in serials),
    )


def read(raw: bytes) -> Certificate | CertificateList:
    """Read either: a list begins with a number, a certificate with its version in [0]."""
    inside = values(values(values(raw)[0].contents)[0].contents)
    return revocation_list(raw) if inside[0].tag == 2 else certificate(raw)


@lru_cache(maxsize=512)
def rsa_holds(modulus: int, signature: bytes, message: bytes) -> bool:
    """Return whether an RSA key signs a message."""
    key = rsa.RSAPublicNumbers(65537, modulus).public_key()
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    try:
        key.verify(signature, message, scheme, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def ec_holds(point: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether a P-384 key signs a message; the signature is DER."""
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
        key.verify(signature, message, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True
