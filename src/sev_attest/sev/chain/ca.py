"""AMD's own certificates: the SEV signing key (ASK) and the root key (ARK).

Source: AMD 55766, appendix "AMD signing key certificate format". Every number little-endian;
N is 256 bytes (2048-bit keys: Naples) or 512 (4096-bit keys: Rome and later):

======  ====  ==================================================================
offset  size  field
======  ====  ==================================================================
0x00    4     version (1)
0x04    16    key id
0x14    16    id of the certifying key
0x24    4     usage of the key: 0x0 ARK, 0x13 ASK
0x28    16    reserved
0x38    4     size of the exponent in bits (8 N)
0x3c    4     size of the modulus in bits (8 N)
0x40    N     exponent
+N      N     modulus
+2N     N     signature, RSA-PSS; absent in the Naples ARK that AMD publishes
======  ====  ==================================================================

The signature covers everything before it, as it came, with SHA-256 (2048 bits) or SHA-384 (4096
bits). Nonzero reserved bytes are named by :attr:`AmdCaCertificate.reserved`.
"""

from dataclasses import dataclass, field
from functools import cached_property

from sev_attest._keys import RSA_ALGORITHMS, Algorithm, RsaPublicKey
from sev_attest._wire import Reader, le, number_at
from sev_attest.sev.spec import Usage

_HEADER = 0x40
_STRUCTURE = "ASK/ARK certificate"
_ROLES = (Usage.ARK, Usage.ASK)


@dataclass(frozen=True, kw_only=True, repr=False)
class AmdCaCertificate:
    """An ASK or ARK certificate, parsed. Does not verify: its signature, or its owner."""

    key_id: bytes
    certifying_id: bytes
    usage: Usage
    public_key: RsaPublicKey
    signature: bytes
    """RSA-PSS value, big-endian; empty if the certificate carries none."""
    parsed: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether :meth:`from_bytes` made it: only then its fields surely match its bytes."""
    body: bytes
    """The signed bytes as received."""

    def __repr__(self) -> str:
        """Show role, key and the start of the fingerprint."""
        return f"AmdCaCertificate({self.role} {self.key_name} {self.fingerprint[:16]})"

    @classmethod
    def from_bytes(cls, data: bytes) -> "AmdCaCertificate":
        """Parse 832 or 1600 bytes (576 or 1088 without signature); raises MalformedInput."""
        role = number_at(data, 0x24)
        part = Usage(role).name if len(data) > 0x24 and role in _ROLES else ""  # noqa: PLR2004
        reader = Reader(data, _STRUCTURE, part=part)
        version = reader.number(4, "version")  # 0x00
        if version != 1:
            raise reader.error("version", f"{version}, expected 1", back=4)
        key_id = reader.raw(16, "key_id")  # 0x04
        certifying_id = reader.raw(16, "certifying_id")  # 0x14
        usage = reader.code(Usage, "key_usage")  # 0x24
        if usage not in _ROLES:
            raise reader.error("key_usage", f"{usage.name}, expected ARK or ASK", back=4)
        reader.raw(16, "reserved")  # 0x28
        exponent_bits = reader.number(4, "pubexp_size")  # 0x38
        bits = reader.number(4, "modulus_size")  # 0x3c
        if bits not in RSA_ALGORITHMS:
            raise reader.error("modulus_size", f"{bits} bits, expected 2048 or 4096", back=4)
        if exponent_bits != bits:
            raise reader.error("pubexp_size", f"{exponent_bits} bits, expected {bits}", back=8)
        size = bits // 8
        exponent = reader.number(size, "pubexp")  # 0x40
        modulus = reader.number(size, "modulus")
        signed = _HEADER + 2 * size
        signature = b""
        if len(data) != signed:
            signature = reader.raw(size, "signature")[::-1]
        Reader(data, _STRUCTURE, signed + len(signature), part=part)  # exact length
        found = cls(
            key_id=key_id,
            certifying_id=certifying_id,
            usage=usage,
            public_key=RsaPublicKey(modulus=modulus, exponent=exponent, bits=bits),
            signature=signature,
            body=data[:signed],
        )
        object.__setattr__(found, "parsed", True)  # frozen; dataclasses.replace() resets it
        return found

    @classmethod
    def build(
        cls,
        *,
        usage: Usage,
        key_id: bytes,
        certifying_id: bytes,
        public_key: RsaPublicKey,
        signature: bytes = b"",
    ) -> "AmdCaCertificate":
        """Return a certificate. To sign it, sign :attr:`body`, then build with the signature."""
        size = public_key.bits // 8
        body = le(1, 4) + key_id + certifying_id + le(usage, 4) + bytes(16)
        body += le(public_key.bits, 4) * 2
        body += le(public_key.exponent, size) + le(public_key.modulus, size)
        return cls.from_bytes(body + signature[::-1])

    def to_bytes(self) -> bytes:
        """Return the bytes that were parsed."""
        return self.body + self.signature[::-1]

    @property
    def role(self) -> str:
        """ASK or ARK."""
        return self.usage.name

    @property
    def key_name(self) -> str:
        """The key as sevctl names it: "R4096 R384" is 4096-bit RSA that signs with SHA-384."""
        digest = self.public_key.algorithm.name.partition("_SHA")[2]
        return f"R{self.public_key.bits} R{digest}"

    @property
    def reserved(self) -> tuple[str, ...]:
        """Names of the reserved fields in the signed bytes that are not zero."""
        return ("reserved",) if any(self.body[0x28:0x38]) else ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (2048-bit keys) or SHA-384 (4096-bit keys) of the signed bytes, in hex."""
        from sev_attest import _crypto

        sha384 = self.public_key.algorithm is Algorithm.RSA_SHA384
        return (_crypto.sha384 if sha384 else _crypto.sha256)(self.body).hex()
