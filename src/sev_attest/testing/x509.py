"""Writes X.509 as AMD's certificates are, and their revocation lists.

It shares nothing with the reader that it is to test. Source: RFC 5280; AMD 57230; the shapes are
those of real certificates: serial number 0 of VCEK and VLEK, RSASSA-PSS with or without the
trailerField, which is the default.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sev_attest._keys import RsaPublicKey
from sev_attest.testing.authority import SigningKey, rsa_pss_sign

_SHA384 = bytes.fromhex("300d06096086480165030402020500")
_NAME = (
    ("2.5.4.11", "Engineering"),
    ("2.5.4.6", "US"),
    ("2.5.4.7", "Santa Clara"),
    ("2.5.4.8", "CA"),
    ("2.5.4.10", "Advanced Micro Devices"),
)
_COMMON_NAME, _COUNTRY = "2.5.4.3", "2.5.4.6"
_PSS, _MGF1 = "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"
_RSA, _EC, _P384 = "1.2.840.113549.1.1.1", "1.2.840.10045.2.1", "1.3.132.0.34"
_UTC_TIME_UNTIL = 2050
_SHORT, _BYTE = 0x80, 0xFF


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return the DER of a value: its tag, its length in the shortest form, its contents."""
    contents = b"".join(parts)
    size = len(contents)
    if size < _SHORT:
        return bytes([tag, size]) + contents
    stated = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _SHORT | len(stated)]) + stated + contents


def integer(value: int) -> bytes:
    """Return an INTEGER of 0 or more."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def object_id(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    contents = bytearray([40 * first + second])
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(_SHORT | arc & 0x7F)
        contents += bytes(reversed(groups))
    return tlv(0x06, bytes(contents))


def ia5_string(text: str) -> bytes:
    """Return an IA5String."""
    return tlv(0x16, text.encode("ascii"))


def name(common_name: str) -> bytes:
    """Return the distinguished name of one of AMD's keys."""
    pairs = (*_NAME, (_COMMON_NAME, common_name))
    texts = ((which, 0x13 if which == _COUNTRY else 0x0C, text.encode()) for which, text in pairs)
    members = (tlv(0x31, tlv(0x30, object_id(which), tlv(tag, text))) for which, tag, text in texts)
    return tlv(0x30, *members)


def time(when: datetime) -> bytes:
    """Return a UTCTime, or from 2050 on a GeneralizedTime."""
    text = when.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode()
    return tlv(0x17, text[2:]) if when.year < _UTC_TIME_UNTIL else tlv(0x18, text)


def algorithm(*, trailer_field: bool) -> bytes:
    """Return the identifier of RSASSA-PSS with SHA-384 and a salt of 48 bytes."""
    fields = [
        tlv(0xA0, _SHA384),
        tlv(0xA1, tlv(0x30, object_id(_MGF1), _SHA384)),
        tlv(0xA2, integer(48)),
    ]
    if trailer_field:
        fields.append(tlv(0xA3, integer(1)))
    return tlv(0x30, object_id(_PSS), tlv(0x30, *fields))


def rsa_key(key: RsaPublicKey) -> bytes:
    """Return the SubjectPublicKeyInfo of an RSA key."""
    numbers = tlv(0x30, integer(key.modulus), integer(key.exponent))
    return tlv(0x30, tlv(0x30, object_id(_RSA), tlv(0x05)), tlv(0x03, b"\0", numbers))


def ec_key(x: int, y: int) -> bytes:
    """Return the SubjectPublicKeyInfo of a P-384 key."""
    point = b"\x04" + x.to_bytes(48, "big") + y.to_bytes(48, "big")
    which = tlv(0x30, object_id(_EC), object_id(_P384))
    return tlv(0x30, which, tlv(0x03, b"\0", point))


def extensions(found: Iterable[tuple[str, bytes]], critical: Iterable[str] = ()) -> bytes:
    """Return extensions, without the tag of the structure that they are in."""
    return tlv(
        0x30,
        *(
            tlv(
                0x30, object_id(which), *([b"\x01\x01\xff"] * (which in critical)), tlv(0x04, value)
            )
            for which, value in found
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What differs between certificates of one kind: dates, encodings, and faults on demand."""

    not_before: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    not_after: datetime = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    trailer_field: bool = False
    """Whether the default trailerField is stated, as before autumn 2024."""
    wrapped_hwid: bool = False
    """Whether the hwID is in an OCTET STRING, as AMD 57230 prescribes."""
    extensions: Mapping[str, bytes | None] | None = None
    """Values by object id in place of the right ones; None leaves one out."""


DEFAULT = Shape()


def certificate(
    *,
    issuer: str,
    subject: str,
    key: bytes,
    serial: int,
    found: Mapping[str, bytes],
    signer: SigningKey,
    shape: Shape = DEFAULT,
    critical: Iterable[str] = (),
) -> bytes:
    """Return the DER of a certificate; ``key`` is a SubjectPublicKeyInfo, ``found`` extensions."""
    changed: dict[str, bytes | None] = {**found, **(shape.extensions or {})}
    kept = [(which, value) for which, value in changed.items() if value is not None]
    which = algorithm(trailer_field=shape.trailer_field)
    body = tlv(
        0x30,
        tlv(0xA0, integer(2)),
        integer(serial),
        which,
        name(issuer),
        tlv(0x30, time(shape.not_before), time(shape.not_after)),
        name(subject),
        key,
        tlv(0xA3, extensions(kept, critical)),
    )
    return _signed(body, which, signer)


def revocation_list(
    *,
    issuer: str,
    serials: Iterable[int],
    this_update: datetime,
    next_update: datetime | None,
    signer: SigningKey,
) -> bytes:
    """Return the DER of a revocation list."""
    which = algorithm(trailer_field=False)
    revoked = [tlv(0x30, integer(serial), time(this_update)) for serial in serials]
    parts = [integer(1), which, name(issuer), time(this_update)]
    if next_update is not None:
        parts.append(time(next_update))
    if revoked:
        parts.append(tlv(0x30, *revoked))
    number = extensions([("2.5.29.20", integer(1))])
    return _signed(tlv(0x30, *parts, tlv(0xA0, number)), which, signer)


def _signed(body: bytes, which: bytes, signer: SigningKey) -> bytes:
    return tlv(0x30, body, which, tlv(0x03, b"\0", rsa_pss_sign(signer, body)))
