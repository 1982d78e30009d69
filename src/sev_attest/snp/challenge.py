"""The challenge that an owner sends to a guest: a nonce, for one report and one release.

Nothing in it is secret. That it is used once is the ledger's part.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from sev_attest import _crypto
from sev_attest._keys import Kem
from sev_attest.errors import MalformedInput, NotVerified
from sev_attest.snp.document import Document, is_name, write_document
from sev_attest.snp.transport import NONCE_SIZE, TransportKey, report_data

SCHEMA = "sev-attest/snp-challenge/1"
_STRUCTURE = "challenge"
_FIELDS = ("name", "nonce", "created", "expires", "kems")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A challenge. ``name`` is what its owner calls the launch; it may begin a file's name.

    ``nonce`` is 32 random bytes. ``created`` and ``expires`` have a time zone; ``expires`` is None
    if it does not expire. ``kems`` are the kinds of transport keys that the owner accepts, the
    preferred one first.

    Does not verify: who made it, or that it is not used or expired. Only the owner's own copy
    counts.
    """

    name: str
    nonce: bytes
    created: datetime
    expires: datetime | None = None
    kems: tuple[Kem, ...] = tuple(Kem)

    def __post_init__(self) -> None:
        """Raise MalformedInput for values that no challenge has."""
        if not is_name(self.name):
            raise _wrong("name", "is no name: 1 to 128 letters, digits and _ . + -")
        if len(self.nonce) != NONCE_SIZE:
            raise _wrong("nonce", f"has {len(self.nonce)} bytes, expected {NONCE_SIZE}")
        for name, time in (("created", self.created), ("expires", self.expires)):
            if time is not None and time.utcoffset() is None:
                raise _wrong(name, "has no time zone")
        if not self.kems or len(set(self.kems)) < len(self.kems):
            raise _wrong("kems", "must name at least one KEM, and none twice")

    @classmethod
    def create(
        cls,
        name: str,
        *,
        created: datetime,
        expires: datetime | None = None,
        kems: tuple[Kem, ...] = tuple(Kem),
    ) -> "Challenge":
        """Return a challenge with a new nonce; its times are rounded down to seconds.

        Raises MalformedInput for a name that is none, or a time without zone.
        """
        return cls(
            name=name,
            nonce=_crypto.random_bytes(NONCE_SIZE),
            created=created.replace(microsecond=0),
            expires=expires and expires.replace(microsecond=0),
            kems=kems,
        )

    @property
    def digest(self) -> bytes:
        """SHA-384 of its fields as compact JSON with sorted names, 48 bytes.

        It does not depend on how the file is laid out.
        """
        text = json.dumps(
            {"schema": SCHEMA, **self._fields()}, sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha384(text.encode("ascii")).digest()

    def report_data(self, key: TransportKey) -> bytes:
        """Return what a report must carry to answer this challenge with a transport key."""
        return report_data(self.nonce, key)

    def require_kind(self, key: TransportKey) -> None:
        """Raise NotVerified if the challenge does not accept a transport key of this kind."""
        if key.kem in self.kems:
            return
        accepted = ", ".join(kem.label for kem in self.kems)
        raise NotVerified(
            f"the transport key is of kind {key.kem.label}, the challenge accepts {accepted}",
            check="snp.transport-key.kem",
            hint="the guest must make another key, and ask for a new report",
        )

    def expired(self, at: datetime) -> bool:
        """Return whether its time is over; ``at`` has a time zone."""
        return self.expires is not None and at >= self.expires

    def _fields(self) -> dict[str, object]:
        return {
            "name": self.name,
            "nonce": self.nonce.hex(),
            "created": self.created.isoformat(),
            "expires": self.expires and self.expires.isoformat(),
            "kems": [int(kem) for kem in self.kems],
        }

    def to_json(self) -> bytes:
        """Return NAME.challenge.json."""
        return write_document(SCHEMA, **self._fields())

    @classmethod
    def from_json(cls, data: bytes) -> "Challenge":
        """Read what :meth:`to_json` wrote; raises MalformedInput."""
        document = Document(data, _STRUCTURE, SCHEMA, _FIELDS)
        created = document.time("created")
        if created is None:
            raise document.error("created", "is null")
        try:
            kems = tuple(Kem(number) for number in document.numbers("kems"))
        except ValueError:
            raise document.error("kems", "names a KEM that is not known") from None
        return cls(
            name=document.name("name"),
            nonce=document.hex("nonce", NONCE_SIZE),
            created=created,
            expires=document.time("expires"),
            kems=kems,
        )


def _wrong(field: str, reason: str) -> MalformedInput:
    return MalformedInput(_STRUCTURE, field, reason)
