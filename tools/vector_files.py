"""What the makers of vectors share: where the files are, and how bytes stand in them."""

import base64
import hashlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "vectors"
MADE_BY = "the simulated platform (sev_attest.testing), from a fixed seed"

Case = dict[str, Any]
BLOBS: dict[str, bytes] = {}
"""The files of their own, by their path in the folder."""


def blob(data: bytes) -> str:
    """Keep bytes in a file of their own, named for their hash."""
    name = f"blobs/{hashlib.sha256(data).hexdigest()[:16]}.bin"
    BLOBS[name] = data
    return name


def b64(data: bytes) -> str:
    """Write short bytes in place."""
    return base64.b64encode(data).decode()
