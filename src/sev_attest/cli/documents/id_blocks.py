"""Documents of `snp id-block`."""

from typing import Annotated, Literal, TypedDict

from sev_attest.cli.documents.parts import (
    Base64,
    Count,
    DetailedCheck,
    Hex16,
    Hex48,
    Noted,
    Refused,
    rules,
)
from sev_attest.cli.documents.snp import PolicyMeaning, Signature


class IdBlock(TypedDict):
    """Every field of an ID block, by AMD's names."""

    ld: Hex48
    """The launch digest."""
    family_id: Hex16
    """The family."""
    image_id: Hex16
    """The image."""
    version: Annotated[int, rules({"const": 1})]
    """The version of the format."""
    guest_svn: Count
    """The guest's security version."""
    policy: Count
    """The guest policy."""


class IdKey(TypedDict):
    """A public key on P-384."""

    x: Hex48
    """X, big-endian."""
    y: Hex48
    """Y, big-endian."""
    digest: Hex48
    """SHA-384 of the key, by which a report names it."""


class IdAuth(TypedDict):
    """Every field of an ID auth, by AMD's names."""

    id_key: IdKey
    """The ID key."""
    id_block_sig: Signature
    """Its signature of the ID block."""
    author_key: IdKey | None
    """The author key; null for none."""
    id_key_sig: Signature | None
    """Its signature of the ID key; null for none."""


class SnpIdBlockBuild(Noted):
    """An ID block that was made and signed."""

    id_block: IdBlock
    """The ID block."""
    id_auth: IdAuth
    """The ID auth."""
    id_block_base64: Base64
    """The ID block, 96 bytes."""
    id_auth_base64: Base64
    """The ID auth, 4096 bytes."""
    id_key_digest: Hex48
    """SHA-384 of the ID key."""
    author_key_digest: Hex48 | None
    """SHA-384 of the author key; null for none."""
    files: list[str]
    """The files that were written."""
    launch_security: str
    """libvirt's <launchSecurity> element."""
    qemu: str
    """The properties of QEMU's sev-snp-guest object."""


class BlockMeaning(TypedDict):
    """What the bits of an ID block stand for."""

    policy: PolicyMeaning
    """The guest policy."""


class ShownBlock(TypedDict):
    """An ID block."""

    source: str
    """The file."""
    kind: Literal["id-block"]
    """It is an ID block."""
    id_block: IdBlock
    """Its fields."""
    meaning: BlockMeaning
    """What its bits stand for."""


class ShownAuth(TypedDict):
    """An ID auth."""

    source: str
    """The file."""
    kind: Literal["id-auth"]
    """It is an ID auth."""
    id_auth: IdAuth
    """Its fields."""


class SnpIdBlockShow(Noted):
    """ID blocks and ID auths; nothing was verified."""

    inputs: list[ShownBlock | ShownAuth]
    """What each input is, in order."""


class IdBlockFacts(TypedDict):
    """An ID block, and what was checked of it."""

    id_block: IdBlock
    """The ID block."""
    id_auth: IdAuth
    """The ID auth."""
    checks: list[DetailedCheck]
    """Every check, in order; null for what was compared with nothing."""
    failed: list[str]
    """The ids of the checks that failed."""


class SnpIdBlockCheck(Noted, IdBlockFacts):
    """The verdict on an ID block."""


class SnpIdBlockCheckRefused(Refused):
    """An ID block that is not verified."""
