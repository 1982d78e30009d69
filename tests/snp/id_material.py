"""ID blocks and ID auths laid out, signed and verified by hand: nothing of `snp/` is used."""

import hashlib
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

LD = bytes(range(48))
ID_KEY, AUTHOR_KEY = (ec.derive_private_key(number, ec.SECP384R1()) for number in (7, 11))
SCHEME = ec.ECDSA(hashes.SHA384())


def block(
    ld: bytes = LD, ids: bytes = bytes(32), version: int = 1, svn: int = 0, policy: int = 0x30000
) -> bytes:
    """Lay out an ID block."""
    return struct.pack("<48s32sIIQ", ld, ids, version, svn, policy)


def key(private: ec.EllipticCurvePrivateKey) -> bytes:
    """Lay out the 0x404 bytes of a public key."""
    numbers = private.public_key().public_numbers()
    coordinates = (number.to_bytes(72, "little") for number in (numbers.x, numbers.y))
    return struct.pack("<I72s72s880x", 2, *coordinates)


def digest(private: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha384(key(private)).digest()


def signature(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign, and lay out the 512 bytes."""
    numbers = decode_dss_signature(private.sign(message, SCHEME))
    return b"".join(number.to_bytes(72, "little") for number in numbers).ljust(512, b"\0")


def auth(
    signed: bytes,
    id_key: ec.EllipticCurvePrivateKey = ID_KEY,
    author_key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Sign a block, and lay out the ID auth."""
    page = struct.pack("<II56x", 1, 1 if author_key else 0)
    page += signature(id_key, signed) + key(id_key) + bytes(60)
    if author_key:
        page += signature(author_key, key(id_key)) + key(author_key)
    return page.ljust(4096, b"\0")


def _signs(public: bytes, signed: bytes, message: bytes) -> bool:
    curve, x, y = struct.unpack("<I72s72s", public[:148])
    assert (curve, public[148:]) == (2, bytes(880))
    x, y = (int.from_bytes(part, "little") for part in (x, y))
    point = ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
    r, s = (int.from_bytes(signed[at : at + 72], "little") for at in (0, 72))
    assert signed[144:] == bytes(368)
    try:
        point.verify(encode_dss_signature(r, s), message, SCHEME)
    except InvalidSignature:
        return False
    return True


def verified(signed: bytes, page: bytes) -> tuple[bytes, bytes | None]:
    """Verify an ID auth by the offsets alone; return the digests of ID key and author key."""
    assert (len(signed), len(page)) == (96, 4096)
    id_algo, author_algo = struct.unpack("<II", page[:8])
    id_key, author_key = page[0x240:0x644], page[0x880:0xC84]
    assert id_algo == 1
    assert page[8:0x40] + page[0x644:0x680] + page[0xC84:] == bytes(56 + 60 + 892)
    assert _signs(id_key, page[0x40:0x240], signed)
    if author_algo == 0:
        assert page[0x680:] == bytes(0x980)
        return hashlib.sha384(id_key).digest(), None
    assert _signs(author_key, page[0x680:0x880], id_key)
    return hashlib.sha384(id_key).digest(), hashlib.sha384(author_key).digest()


PKCS8 = serialization.PrivateFormat.PKCS8
SEC1 = serialization.PrivateFormat.TraditionalOpenSSL


def pem(
    private: ec.EllipticCurvePrivateKey,
    form: serialization.PrivateFormat = PKCS8,
    password: bytes | None = None,
) -> bytes:
    """Return a private key in PEM."""
    return private.private_bytes(
        serialization.Encoding.PEM,
        form,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )
