"""The transport keys of one launch. They never show in a repr, a message or a log."""

import hmac
from dataclasses import dataclass, field

from sev_attest._encoding import blob
from sev_attest.errors import MalformedInput

_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportKeys:
    """TIK (integrity of measurement and secrets) and TEK (encryption of secrets), 16 bytes each.

    >>> TransportKeys(tek=bytes(16), tik=bytes(16))
    TransportKeys()
    """

    tek: bytes = field(repr=False)
    tik: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise MalformedInput for a key that is not 16 bytes long."""
        for name, key in (("TEK", self.tek), ("TIK", self.tik)):
            if len(key) != _SIZE:
                raise MalformedInput(name, "length", f"{len(key)} bytes, expected {_SIZE}")

    @property
    def session_id(self) -> str:
        """Public name of the session, derived from the TIK: 64 hex digits."""
        return hmac.digest(self.tik, b"sev-attest session", "sha256").hex()

    @classmethod
    def from_tk(cls, data: bytes) -> "TransportKeys":
        """Read a combined file, TEK then TIK: 32 bytes in binary, base64 or hex."""
        tk = blob(data, (2 * _SIZE,), "TK")
        return cls(tek=tk[:_SIZE], tik=tk[_SIZE:])
