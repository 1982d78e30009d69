"""The record of a session: NAME.launch.json. It contains no secret.

Its MAC is HMAC-SHA256(TIK, "sev-attest record" || SHA-256(TEK) || fields), with the fields as
compact JSON with sorted names. Without the session's keys nobody can change the record, and the
TEK of another session does not match it.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, get_args

from sev_attest.errors import LaunchRefused, MalformedInput
from sev_attest.sev.chain._amd_keys import AMD_KEYS
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from datetime import datetime

    from sev_attest.sev.keys import TransportKeys
    from sev_attest.sev.session import Session

_SCHEMA = "sev-attest/launch/1"
_STRUCTURE = "launch record"
_HEX = {
    "claimed_platform_id": 128,
    "cek": 64,
    "pdh": 64,
    "session_id": 64,
    "godh_sha256": 64,
    "session_sha256": 64,
    "mac": 64,
}
"""The fields in hex, with their number of digits."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LaunchRecord:
    """What the owner knows of a session, independently of any host.

    ``root`` is the root of the verified platform, None if nobody verified it.
    ``generation`` is None in that case too, and if the root is not AMD's.
    ``cek`` and ``pdh`` are the SHA-256 of the signed bytes in hex, as sevctl prints it.
    ``claimed_platform_id`` comes from the host and is unauthenticated.
    ``kernel_hashes`` is whether libvirt was asked to measure the kernel.
    ``created`` is UTC in ISO 8601.
    """

    name: str
    created: str
    root: str | None
    generation: str | None
    claimed_platform_id: str | None
    cek: str | None
    pdh: str
    policy: int
    kernel_hashes: bool
    session_id: str
    godh_sha256: str
    session_sha256: str
    mac: str = ""

    def __repr__(self) -> str:
        """Return its name and the start of the session's id."""
        return f"LaunchRecord({self.name!r}, session_id={self.session_id[:16]})"

    @classmethod
    def of(
        cls, session: "Session", name: str, created: "datetime", *, kernel_hashes: bool = False
    ) -> "LaunchRecord":
        """Return the record of a session, with its MAC.

        ``created`` is a time in UTC. ``kernel_hashes`` is whether libvirt is asked to measure the
        kernel.
        """
        platform = session.platform
        chain = platform and platform.chain
        return cls(
            name=name,
            created=created.isoformat(timespec="seconds"),
            root=platform.root.name if platform else None,
            generation=platform.generation if platform else None,
            claimed_platform_id=(chain.platform_id.hex() if chain and chain.platform_id else None),
            cek=chain.cek.fingerprint if chain else None,
            pdh=session.pdh.fingerprint,
            policy=session.policy.value,
            kernel_hashes=kernel_hashes,
            session_id=session.keys.session_id,
            godh_sha256=hashlib.sha256(session.godh.to_bytes()).hexdigest(),
            session_sha256=hashlib.sha256(session.blob).hexdigest(),
        ).signed(session.keys)

    def signed(self, keys: "TransportKeys") -> "LaunchRecord":
        """Return a copy with its MAC set, by the keys of its session."""
        return replace(self, mac=self._mac(keys))

    def require(self, keys: "TransportKeys") -> None:
        """Check that the record matches these keys; raises LaunchRefused."""
        if not hmac.compare_digest(self.session_id, keys.session_id):
            raise LaunchRefused(
                "the keys are not those of the session in the record", check="record.session"
            )
        if not hmac.compare_digest(self.mac, self._mac(keys)):
            raise LaunchRefused(
                "the record was changed, or the TEK is not that of its session",
                check="record.mac",
                hint="use the record and the keys of one session",
            )

    def _mac(self, keys: "TransportKeys") -> str:
        covered = asdict(self)
        del covered["mac"]
        text = json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()
        message = b"sev-attest record" + hashlib.sha256(keys.tek).digest() + text
        return hmac.digest(keys.tik, message, "sha256").hex()

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=2).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "LaunchRecord":
        """Read a record; raises MalformedInput if :meth:`to_bytes` did not write it."""
        try:
            document = json.loads(data)
        except Exception:  # noqa: BLE001 - json raises more than it documents
            raise MalformedInput(_STRUCTURE, "format", "this is not JSON") from None
        if not isinstance(document, dict) or document.pop("schema", None) != _SCHEMA:
            raise MalformedInput(_STRUCTURE, "schema", f"this is not a {_SCHEMA} document")
        _check_types(document)
        GuestPolicy(document["policy"])
        for name, digits in _HEX.items():
            value = document[name]
            if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                raise MalformedInput(_STRUCTURE, name, f"is not {digits} hex digits")
        generation, root = document["generation"], document["root"]
        known = generation is None or (generation in AMD_KEYS and root is not None)
        if not known:
            raise MalformedInput(_STRUCTURE, "generation", "is not one of AMD's")
        return cls(**document)


def _check_types(document: Mapping[str, object]) -> None:
    # Not __annotations__: Python 3.14 evaluates those lazily, and instances have none.
    declared = {field.name: field.type for field in fields(LaunchRecord)}
    for name, kind in declared.items():
        kinds = get_args(kind) or (kind,)
        if name not in document or type(document[name]) not in kinds:
            raise MalformedInput(_STRUCTURE, name, "is missing or of the wrong type")
    unknown = document.keys() - declared.keys()
    if unknown:
        raise MalformedInput(_STRUCTURE, "fields", f"unknown: {', '.join(sorted(unknown))}")
