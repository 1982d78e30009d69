"""What Vault and commands answer: a stranger's text, which may contain a secret."""

import re

from sev_attest._encoding import json_documents
from sev_attest.errors import MalformedInput

_MOST = 200
# Shorter than a token of Vault (26 characters at least) and a key of 16 bytes in hex or 32 in
# base64: an error that echoes one does not show it, not even most of it.
_LONG_WORD = re.compile(r"\S{24,}")


def quoted(text: str) -> str:
    """Return the first line of a message in printable ASCII, cut short, without long words."""
    line = text.strip().partition("\n")[0]
    return ascii(_LONG_WORD.sub("...", line)[:_MOST])[1:-1]


def json_object(text: bytes) -> dict[str, object] | None:
    """Return the one JSON object that ``text`` is; None for anything else."""
    # Not in an except block: the JSON library's error holds the whole text.
    try:
        text.decode()  # the reader replaces what is no UTF-8, and a secret would be another one
        documents = json_documents(text, "answer")
    except (MalformedInput, UnicodeDecodeError):
        documents = []
    return documents[0] if len(documents) == 1 else None


def table(value: object) -> dict[str, object]:
    """Return a value that is a table; an empty one for any other value."""
    return value if isinstance(value, dict) else {}
