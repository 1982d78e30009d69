"""What the ledger keeps of an attempt beside its entry: sealed keys, a challenge."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sev_attest._encoding import to_base64
from sev_attest._keys import Kem
from sev_attest.owner.ledger.story import TIME, from_text

_FINGERPRINT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKeys:
    """What is stored beside the row of a session that waits: see :mod:`sev_attest.owner.pending`.

    ``box`` has its keys and its record, sealed; None once the session has ended. ``requirements``
    is the fingerprint of those that the session was made under, None if it is bound to none.
    """

    box: bytes | None = field(repr=False)
    requirements: str | None = None

    def to_row(self) -> tuple[str | None, ...]:
        """Return its row in the database, without the id of the session."""
        return (None if self.box is None else to_base64(self.box), self.requirements)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "SealedKeys":
        """Read a row; raises ValueError or TypeError for one that the ledger does not write."""
        text, requirements = row
        if requirements is not None and not _FINGERPRINT.fullmatch(requirements):
            raise ValueError("this is not a fingerprint")
        box = None if text is None else from_text(text)
        return cls(box=box, requirements=requirements)


CHALLENGE_LABEL = b"sev-attest/snp/challenge-id/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptChallenge:
    """What the ``created`` event of a challenge has of it, beside its name and when it expires.

    ``nonce`` is 32 bytes, ``created`` a time as the ledger writes it. ``requirements`` is the
    fingerprint of those that it was made under, None if it is bound to none. Nothing is secret.
    """

    nonce: bytes
    created: str
    kems: tuple[Kem, ...]
    requirements: str | None = None

    @property
    def attempt(self) -> str:
        """The id of its attempt: SHA-256 over CHALLENGE_LABEL and the nonce, 64 hex digits."""
        return hashlib.sha256(CHALLENGE_LABEL + self.nonce).hexdigest()

    def to_detail(self) -> Mapping[str, object]:
        """Return what the detail of the event has under ``challenge``."""
        return {
            "nonce": self.nonce.hex(),
            "created": self.created,
            "kems": [*map(int, self.kems)],
            "requirements": self.requirements,
        }

    @classmethod
    def from_detail(cls, told: Mapping[str, Any]) -> "KeptChallenge":
        """Read that; raises an exception, as ``story.applied`` does, for any other value."""
        found = cls(
            nonce=bytes.fromhex(told.get("nonce", "")),
            created=told.get("created", ""),
            kems=tuple(Kem(number) for number in told.get("kems", ())),
            requirements=told.get("requirements"),
        )
        known = found.requirements is None or _FINGERPRINT.fullmatch(found.requirements)
        if not (known and TIME.fullmatch(found.created) and dict(told) == found.to_detail()):
            raise ValueError("this is not a challenge as the ledger writes it")
        return found
