"""A checkpoint: what the log says of the events that were removed from it.

It is an event of the ledger itself. It names the head up to which events were removed, and has a
digest of those up to there that stayed. The events after it follow as ever, so whoever notes a
later head holds the checkpoint too.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sev_attest.owner.ledger.story import Head

_HEAD = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})")


class Checkpoint(NamedTuple):
    """What the detail of a ``checkpoint`` event says.

    Up to the event ``head``, those of ``sessions`` sessions were removed, ``removed`` events; they
    were over before ``before``. ``digest`` is that of the events that stayed, see :class:`Kept`.
    """

    head: Head
    before: str
    sessions: int
    removed: int
    digest: str

    def to_detail(self) -> Mapping[str, object]:
        """Return the detail of the event."""
        return self._asdict() | {"head": str(self.head)}

    @classmethod
    def from_detail(cls, detail: str) -> "Checkpoint":
        """Read the detail of an event; raises ValueError or TypeError for any other text."""
        told: dict[str, Any] = dict(json.loads(detail))
        head = _HEAD.fullmatch(str(told.pop("head", "")))
        if head is None or not all(type(told.get(name)) is int for name in ("sessions", "removed")):
            raise ValueError("this is not a checkpoint")
        return cls(head=Head(int(head[1]), head[2]), **told)


class Kept:
    """The digest of events that stayed, added in the order of their session ids, then numbers.

    It is the SHA-256 of one line ``NUMBER:HASH`` for each.
    """

    def __init__(self) -> None:
        """Begin without any event."""
        self._sha256 = hashlib.sha256()

    def add(self, seq: int, own_hash: str) -> None:
        """Add an event."""
        self._sha256.update(f"{seq}:{own_hash}\n".encode())

    @property
    def digest(self) -> str:
        """The digest of those that were added, 64 hex digits."""
        return self._sha256.hexdigest()
