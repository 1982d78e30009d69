"""The ID block of an SEV-SNP guest and its authentication: an owner's approval of one launch.

Firmware compares the block with the launch, and does not finish it if they differ. It puts the
digests of the keys into the guest's reports.

Source: virtee/sev src/measurement/idblock_types.rs and sev-snp-measure's id_block.py; blocks that
three tools made. Numbers are little-endian.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from sev_attest._wire import Reader, le
from sev_attest.errors import MalformedInput
from sev_attest.snp.id_key import (
    KEY_SIZE,
    SIGNATURE_SIZE,
    IdKey,
    IdPrivateKey,
    Signature,
    read_signature,
    signature_bytes,
)
from sev_attest.snp.policy import GuestPolicy
from sev_attest.snp.spec import PolicyBit

BLOCK_SIZE = 96
AUTH_SIZE = 4096
BLOCK = "ID block"
AUTH = "ID auth"
"""What errors call the two structures."""
VERSION = 1
_SIZES = {"ld": 48, "family_id": 16, "image_id": 16}
_MOST_SVN = 0xFFFF_FFFF


class KeyAlgo(IntEnum):
    """Codes of ``id_key_algo`` and ``auth_key_algo``."""

    NONE = 0
    ECDSA_P384_SHA384 = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IdBlock:
    """An ID block: the launch that its owner approves.

    ``ld`` is the launch digest, 48 bytes. ``family_id`` and ``image_id`` are 16 bytes of the
    owner's choice, and ``guest_svn`` a number of 32 bits: reports carry them.

    Raises MalformedInput for a value of another size, and a policy that no guest can start with.
    """

    ld: bytes
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    policy: GuestPolicy

    def __post_init__(self) -> None:
        """Check sizes, ranges and reserved bits."""
        for name, size in _SIZES.items():
            found = len(getattr(self, name))
            if found != size:
                raise MalformedInput(BLOCK, name, f"{found} bytes, expected {size}")
        if not 0 <= self.guest_svn <= _MOST_SVN:
            raise MalformedInput(BLOCK, "guest_svn", f"{self.guest_svn} is not in 0..{_MOST_SVN}")
        fault = policy_fault(self.policy)
        if fault:
            raise MalformedInput(BLOCK, "policy", fault)

    @classmethod
    def from_bytes(cls, data: bytes) -> "IdBlock":
        """Parse 96 bytes; raises MalformedInput."""
        reader = Reader(data, BLOCK, BLOCK_SIZE)
        fields = {name: reader.raw(size, name) for name, size in _SIZES.items()}  # 00, 30, 40
        version = reader.number(4, "version")  # 50
        if version != VERSION:
            raise reader.error("version", f"{version}, expected {VERSION}", back=4)
        svn = reader.number(4, "guest_svn")  # 54
        policy = GuestPolicy(reader.number(8, "policy"))  # 58
        return cls(**fields, guest_svn=svn, policy=policy)

    def to_bytes(self) -> bytes:
        """Return the 96 bytes."""
        numbers = le(VERSION, 4) + le(self.guest_svn, 4) + le(int(self.policy), 8)
        return self.ld + self.family_id + self.image_id + numbers


def policy_fault(policy: GuestPolicy) -> str:
    """Return what is wrong with a policy: a reserved bit of another value; empty if nothing is."""
    wrong = policy.reserved
    if wrong & PolicyBit.RESERVED_ONE:
        return f"policy {policy}: bit 17 must be one"
    return f"policy {policy}: bits 26 to 63 must be zero" if wrong else ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IdAuth:
    """The ID authentication page, 4096 bytes: public keys, and what they sign.

    Every field is read from :attr:`raw`. A page with bytes in use that are reserved, an unknown
    algorithm, a key that is not on P-384 or a signature out of range is malformed.

    Does not verify: the signatures.
    """

    raw: bytes
    """The 4096 bytes, as received."""
    block_signature: Signature = field(init=False)
    """By the ID key, over the 96 bytes of the ID block."""
    id_key: IdKey = field(init=False)
    id_key_signature: Signature | None = field(init=False)
    """By the author key, over the 0x404 bytes of the ID key; None without author key."""
    author_key: IdKey | None = field(init=False)

    def __post_init__(self) -> None:
        """Read the fields from ``raw``; raises MalformedInput."""
        raw = bytes(memoryview(self.raw))
        object.__setattr__(self, "raw", raw)
        reader = Reader(raw, AUTH, AUTH_SIZE)
        if reader.code(KeyAlgo, "id_key_algo") is KeyAlgo.NONE:  # 000
            raise reader.error("id_key_algo", "there is no ID key", back=4)
        author = reader.code(KeyAlgo, "auth_key_algo") is not KeyAlgo.NONE  # 004
        reader.zeros(56, "reserved")  # 008
        object.__setattr__(self, "block_signature", read_signature(reader, "id_block_sig"))  # 040
        object.__setattr__(self, "id_key", IdKey.read(reader, "id_key"))  # 240
        reader.zeros(60, "reserved")  # 644
        signature, key = None, None
        if author:
            signature = read_signature(reader, "id_key_sig")  # 680
            key = IdKey.read(reader, "author_key")  # 880
        else:
            unused = "bytes of an author key, though auth_key_algo is 0,"
            reader.zeros(SIGNATURE_SIZE, "id_key_sig", what=unused)  # 680
            reader.zeros(KEY_SIZE, "author_key", what=unused)  # 880
        object.__setattr__(self, "id_key_signature", signature)
        object.__setattr__(self, "author_key", key)
        reader.zeros(892, "reserved")  # c84

    @classmethod
    def from_bytes(cls, data: bytes) -> "IdAuth":
        """Parse 4096 bytes; raises MalformedInput."""
        return cls(raw=data)

    def to_bytes(self) -> bytes:
        """Return the 4096 bytes."""
        return self.raw

    def __repr__(self) -> str:
        """Show the keys."""
        return f"IdAuth(id_key={self.id_key}, author_key={self.author_key})"


def sign_id_block(
    block: IdBlock, id_key: IdPrivateKey, author_key: IdPrivateKey | None = None
) -> IdAuth:
    """Return the ID authentication of a block, signed with the ID key.

    With an author key, that signs the ID key. QEMU's ``author-key-enabled`` and libvirt's
    ``authorKey`` must say whether there is one.
    """
    public = id_key.public.to_bytes()
    parts = [
        le(KeyAlgo.ECDSA_P384_SHA384, 4),
        le(KeyAlgo.ECDSA_P384_SHA384 if author_key else KeyAlgo.NONE, 4),
        bytes(56),
        signature_bytes(id_key.sign(block.to_bytes())),
        public,
        bytes(60),
    ]
    if author_key is not None:
        parts += [signature_bytes(author_key.sign(public)), author_key.public.to_bytes()]
    return IdAuth(raw=b"".join(parts).ljust(AUTH_SIZE, b"\0"))
