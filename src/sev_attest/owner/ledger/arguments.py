"""What a caller may pass to a ledger, and how the ledger writes it."""

import re
from datetime import UTC, datetime

from sev_attest._encoding import to_base64
from sev_attest.errors import Unsupported
from sev_attest.sev.spec import MEASUREMENT_SIZE

_ID = re.compile(r"[0-9a-f]{64}")
_MAX_TEXT = 1 << 14


def check_id(attempt: str) -> None:
    """Raise ValueError if this is no id of an attempt."""
    if not _ID.fullmatch(attempt):  # not quoted in the message: it may be a key
        raise ValueError("an attempt is named by 64 hex digits, such as TransportKeys.session_id")


def utc(time: datetime) -> str:
    """Return a time as the ledger writes it; raises ValueError for one without a time zone."""
    if time.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return time.astimezone(UTC).isoformat(timespec="seconds")


def measurement_text(measurement: bytes) -> str:
    """Return a measurement as the ledger writes it; raises ValueError unless it is 48 bytes."""
    if len(measurement) != MEASUREMENT_SIZE:
        raise ValueError(f"a measurement is {MEASUREMENT_SIZE} bytes")
    return to_base64(measurement)


def clean(text: str) -> str:
    """Return text that every database accepts: without NUL and surrogates."""
    if len(text) > _MAX_TEXT:
        raise Unsupported(
            f"a text of {len(text)} characters is too long for the ledger: {_MAX_TEXT} at most",
            check="ledger.text",
        )
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
