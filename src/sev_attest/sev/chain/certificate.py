"""The SEV certificate: PDH, PEK, OCA and CEK of a platform, and the guest owner's GODH.

Source: AMD 55766, appendix "SEV certificate format". 2084 bytes, every number little-endian:

======  ====  ==================================================================
offset  size  field
======  ====  ==================================================================
0x000   4     version (1)
0x004   1     API major
0x005   1     API minor
0x006   2     reserved
0x008   4     usage of the public key
0x00c   4     algorithm of the public key
0x010   1028  public key: curve (4), Qx (72), Qy (72), reserved (880)
0x414   520   signature 1: usage of the signing key (4), algorithm (4), value (512)
0x61c   520   signature 2, likewise
======  ====  ==================================================================

The signatures cover the first 0x414 bytes as received. Reserved bytes in this range are usually
zero, but the OCAs of some owners have others: the signature decides, and
:attr:`Certificate.reserved` names them. Nothing signs the slots themselves, so every byte after a
signature must be zero. An ECDSA value is R (72) and S (72), an RSA value is as long as the modulus,
both little-endian. An empty slot has usage INVALID.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from sev_attest._keys import Algorithm, Curve, EccPublicKey
from sev_attest._wire import Reader, le, number_at
from sev_attest.sev.spec import CEK_ADDRESS, CERTIFICATE_SIZE, Usage

_BODY_SIZE = 0x414
ROLES = (Usage.PDH, Usage.PEK, Usage.OCA, Usage.CEK)
"""Usages that the key of an SEV certificate may have."""
_COORDINATE = 72
_VALUE = 512
_SIGNATURE_SIZES = {
    Algorithm.RSA_SHA256: 256,
    Algorithm.ECDSA_SHA256: 2 * _COORDINATE,
    Algorithm.ECDSA_SHA384: 2 * _COORDINATE,
}
"""Size of a signature that does not fill the slot, in bytes; RSA_SHA256 has 2048-bit keys."""
_RESERVED = {"reserved": slice(0x006, 0x008), "pub_key": slice(0x0A4, _BODY_SIZE)}
"""Reserved bytes that the signatures cover."""
_SWAPPED_INVALID = 0x10
"""INVALID with its bytes swapped: sig2_usage in CEKs that AMD served before 2019."""


def cek_address(platform_id: bytes | None = None) -> str:
    """Return the address of the signed CEK at AMD, for a platform's 64-byte id."""
    if platform_id is None:
        return f"{CEK_ADDRESS} followed by the platform's id (cpu0-id of `virsh nodesevinfo`)"
    return CEK_ADDRESS + platform_id.hex()


class Signature(NamedTuple):
    """One signature slot: usage of the signing key, algorithm, and the 512 bytes of the value."""

    usage: Usage = Usage.INVALID
    algorithm: Algorithm = Algorithm.INVALID
    value: bytes = bytes(_VALUE)

    def __repr__(self) -> str:
        """Show who signed and how."""
        return f"Signature({self.usage.name}, {self.algorithm.name})"

    @property
    def empty(self) -> bool:
        """Whether the slot holds no signature."""
        return self.usage is Usage.INVALID or not self.value.strip(b"\0")

    @classmethod
    def ecdsa(cls, usage: Usage, r: int, s: int) -> "Signature":
        """Return the slot of an ECDSA signature with SHA-256."""
        value = (le(r, _COORDINATE) + le(s, _COORDINATE)).ljust(_VALUE, b"\0")
        return cls(usage=usage, algorithm=Algorithm.ECDSA_SHA256, value=value)

    def ecdsa_numbers(self) -> tuple[int, int]:
        """Return R and S."""
        r = int.from_bytes(self.value[:_COORDINATE], "little")
        return r, int.from_bytes(self.value[_COORDINATE : 2 * _COORDINATE], "little")

    def rsa_value(self, size: int) -> bytes:
        """Return an RSA signature of ``size`` bytes, big-endian."""
        return self.value[size - 1 :: -1]

    def to_bytes(self) -> bytes:
        """Return the 520 bytes of the slot."""
        return le(self.usage, 4) + le(self.algorithm, 4) + self.value


@dataclass(frozen=True, kw_only=True, repr=False)
class Certificate:
    """An SEV certificate, parsed. Does not verify: any signature, the role, the point."""

    version: int
    api_major: int
    api_minor: int
    usage: Usage
    algorithm: Algorithm
    public_key: EccPublicKey
    signatures: tuple[Signature, Signature]
    parsed: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether :meth:`from_bytes` made it: only then its fields surely match its bytes."""
    body: bytes
    """The signed bytes as received: the first 1044."""

    def __repr__(self) -> str:
        """Show role, key and the start of the fingerprint."""
        return f"Certificate({self.role} {self.key_name} {self.fingerprint[:16]})"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Certificate":
        """Parse 2084 bytes; raises MalformedInput."""
        role = number_at(data, 0x08)
        part = Usage(role).name if role in ROLES else ""
        reader = Reader(data, "SEV certificate", CERTIFICATE_SIZE, part=part)
        version = reader.number(4, "version")  # 0x000
        if version != 1:
            raise reader.error("version", f"{version}, expected 1", back=4)
        api_major = reader.number(1, "api_major")  # 0x004
        api_minor = reader.number(1, "api_minor")  # 0x005
        reader.raw(2, "reserved")  # 0x006
        usage = reader.code(Usage, "pub_key_usage")  # 0x008
        if usage not in ROLES:
            raise reader.error("pub_key_usage", f"{usage.name} is no platform key", back=4)
        algorithm = reader.code(Algorithm, "pub_key_algo")  # 0x00c
        curve = reader.code(Curve, "curve")  # 0x010
        x = reader.number(_COORDINATE, "Qx")  # 0x014
        y = reader.number(_COORDINATE, "Qy")  # 0x05c
        reader.raw(880, "pub_key")  # 0x0a4
        first = _slot(reader, "sig1")  # 0x414
        if usage is Usage.CEK and number_at(data, 0x61C) == _SWAPPED_INVALID:
            error = reader.error("sig2_usage", "this CEK is as AMD served it before 2019")
            error.hint = f"download it again: {cek_address()}"
            raise error
        second = _slot(reader, "sig2")  # 0x61c
        found = cls(
            version=version,
            api_major=api_major,
            api_minor=api_minor,
            usage=usage,
            algorithm=algorithm,
            public_key=EccPublicKey(curve=curve, x=x, y=y),
            signatures=(first, second),
            body=data[:_BODY_SIZE],
        )
        object.__setattr__(found, "parsed", True)  # frozen; dataclasses.replace() resets it
        return found

    @classmethod
    def build(
        cls,
        *,
        usage: Usage,
        algorithm: Algorithm,
        public_key: EccPublicKey,
        api: tuple[int, int] = (0, 0),
    ) -> "Certificate":
        """Return an unsigned certificate. To sign it, sign :attr:`body`, set ``signatures``."""
        body = le(1, 4) + le(api[0], 1) + le(api[1], 1) + le(0, 2)
        body += le(usage, 4) + le(algorithm, 4) + _public_key(public_key)
        return cls.from_bytes(body + Signature().to_bytes() * 2)

    def to_bytes(self) -> bytes:
        """Return the 2084 bytes that were parsed."""
        return self.body + b"".join(slot.to_bytes() for slot in self.signatures)

    @property
    def role(self) -> str:
        """PDH, PEK, OCA or CEK."""
        return self.usage.name

    @property
    def key_name(self) -> str:
        """The key as sevctl names it: "EP384 D256" is a P-384 key for ECDH with SHA-256."""
        kind, _, digest = self.algorithm.name.partition("_SHA")
        letter = {"ECDSA": "E", "ECDH": "D"}.get(kind, kind[:1])
        return f"E{self.public_key.curve.name} {letter}{digest}"

    @property
    def reserved(self) -> tuple[str, ...]:
        """Names of the reserved fields in the signed bytes that are not zero."""
        return tuple(name for name, place in _RESERVED.items() if self.body[place].strip(b"\0"))

    @property
    def unsigned(self) -> bool:
        """Whether both signature slots are empty."""
        return all(slot.empty for slot in self.signatures)

    def signature_by(self, usage: Usage) -> Signature | None:
        """Return the signature made by the key with that usage; None without one."""
        return next((s for s in self.signatures if s.usage is usage and not s.empty), None)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the signed bytes in hex, as sevctl prints it."""
        from sev_attest import _crypto  # what needs only a certificate's size does not load it

        return _crypto.sha256(self.body).hex()


def _slot(reader: Reader, name: str) -> Signature:
    """Read a signature slot (520 bytes); raises MalformedInput for bytes after the signature."""
    usage = reader.code(Usage, f"{name}_usage")
    algorithm = reader.code(Algorithm, f"{name}_algo")
    size = 0 if usage is Usage.INVALID else _SIGNATURE_SIZES.get(algorithm, _VALUE)
    value = reader.raw(size, name)
    reader.zeros(_VALUE - size, name, what="bytes after the signature, which nothing signs,")
    return Signature(usage=usage, algorithm=algorithm, value=value.ljust(_VALUE, b"\0"))


def _public_key(key: EccPublicKey) -> bytes:
    """Return the 1028 bytes of the certificate's public key field."""
    point = le(key.x, _COORDINATE) + le(key.y, _COORDINATE)
    return (le(key.curve, 4) + point).ljust(_BODY_SIZE - 0x10, b"\0")
