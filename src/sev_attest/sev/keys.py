"""The transport keys of one launch. They never show in a repr, a message or a log."""

import hmac
from dataclasses import dataclass, field

from sev_attest._encoding import blob
from sev_attest.errors import MalformedInput

_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportKeys:
    """TIK (integrity: makes the measurement) and TEK (encryption: wraps secrets), 16 bytes each.

    >>> TransportKeys(tek=bytes(16), tik=bytes(16))
    TransportKeys()
    """

    tek: bytes = field(repr=False)
    tik: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Hold each key to 16 bytes (MalformedInput)."""
        for name, key in (("TEK", self.tek), ("TIK", self.tik)):
            if len(key) != _SIZE:
                raise MalformedInput(name, "length", f"{len(key)} bytes, expected {_SIZE}")

    @property
    def session_id(self) -> str:
        """Name the session without telling its keys: 64 hex digits, by the TIK alone."""
        return hmac.digest(self.tik, b"sev-attest session", "sha256").hex()

    @classmethod
    def from_tk(cls, data: bytes) -> "TransportKeys":
        """Read the 32 bytes of a combined file: TEK, then TIK (binary, base64 or hex)."""
        tk = blob(data, (2 * _SIZE,), "TK")
        return cls(tek=tk[:_SIZE], tik=tk[_SIZE:])
