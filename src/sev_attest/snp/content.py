"""What is encrypted of secrets: their names and bytes, in a length that says little of them.

Numbers are little-endian::

    size  field
    2     number of secrets, 1 to 64; then for each, sorted by name:
    1     length of the name, 1 to 128
    ..    the name: ASCII letters, digits and _ . + -
    4     length of the secret, at least 1
    ..    the secret
    ..    zeros up to the next multiple of 1024

Each set of secrets has one encoding.
"""

from collections.abc import Mapping

from sev_attest._wire import Reader, le
from sev_attest.errors import Unsupported
from sev_attest.snp.document import is_name

BLOCK = 1024
MAX_SECRETS = 64
MAX_CONTENT = 1 << 19
"""Most bytes of names and secrets together, as they are encrypted."""
_STRUCTURE = "sealed secrets"


def write_content(secrets: Mapping[str, bytes]) -> bytes:
    """Return what is encrypted; raises Unsupported for secrets that have no place in it."""
    if not 1 <= len(secrets) <= MAX_SECRETS:
        raise _unfit(f"1 to {MAX_SECRETS} secrets can be sealed, not {len(secrets)}")
    parts = [le(len(secrets), 2)]
    for name, secret in sorted(secrets.items()):
        if not is_name(name):
            # The text stays out of the message: it may be the secret itself.
            raise _unfit("a secret's name is 1 to 128 letters, digits and _ . + -")
        if not secret:
            raise _unfit(f"the secret {name} is empty")
        parts += [le(len(name), 1), name.encode("ascii"), le(len(secret), 4), secret]
    content = b"".join(parts)
    if len(content) > MAX_CONTENT:
        raise _unfit(f"the secrets take {len(content)} bytes, at most {MAX_CONTENT} can be sealed")
    return content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0")


def _unfit(words: str) -> Unsupported:
    return Unsupported(words, check="snp.secrets")


def read_content(content: bytes) -> dict[str, bytes]:
    """Read what :func:`write_content` made; raises MalformedInput."""
    reader = Reader(content, _STRUCTURE)
    found: dict[str, bytes] = {}
    count, used, last = reader.number(2, "count"), 2, ""
    if not 1 <= count <= MAX_SECRETS:
        raise reader.error("count", f"{count} secrets", back=2)
    for _ in range(count):
        raw = reader.raw(reader.number(1, "name length"), "name")
        secret = reader.raw(reader.number(4, "secret length"), "secret")
        name = raw.decode("latin-1")
        if not is_name(name) or not secret or name <= last:
            raise reader.error("name", "is no name, is not in order, or has no secret")
        found[name] = secret
        last, used = name, used + 1 + len(raw) + 4 + len(secret)
    padding = len(content) - used
    if padding >= BLOCK:
        raise reader.error("padding", f"{padding} bytes, more than there can be")
    reader.zeros(padding, "padding", what="padding bytes")
    return found
