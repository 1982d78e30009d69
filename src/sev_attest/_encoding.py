"""Base64, hex and JSON, as people hold keys, blobs and reports; recognised by content."""

import binascii
import re
from collections.abc import Collection, Iterator

from sev_attest.errors import MalformedInput

_BOM = b"\xef\xbb\xbf"
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")
_PIECE = re.compile(rb"[^=]*+=*+")
_MOST_PADDING = 2
_SPACE = re.compile(r"\s*")
_MOST_WORDS = 500
_HEX = re.compile(rb"[0-9A-Fa-f]++")
_SHA256_SIZE, _SHA384_SIZE = 32, 48
_WHITE = b" \t\n\r\v\f"


def from_base64(text: bytes, structure: str) -> bytes:
    """Decode base64, wrapped or not; raises MalformedInput with the offset of a wrong character."""
    packed = _packed(text)
    odd = _NOT_BASE64.search(packed)
    if odd:
        reason = f"not base64: character {odd.group().decode('latin-1')!r}"
        raise MalformedInput(structure, "base64", reason, offset=text.index(odd.group()))
    # A blob may be several pieces of base64, each with its own padding (virsh's cert-chain).
    decoded = bytearray()
    for found in _PIECE.finditer(packed):
        piece = found[0]
        if len(piece) % 4 or piece.endswith(b"=" * (_MOST_PADDING + 1)):
            reason = f"not base64: {len(packed)} characters, cut short or wrongly padded"
            raise MalformedInput(structure, "base64", reason)
        decoded += binascii.a2b_base64(piece)
    return bytes(decoded)


def to_base64(data: bytes) -> str:
    """Return base64 on one line."""
    return binascii.b2a_base64(data, newline=False).decode()


def _packed(text: bytes) -> bytes:
    return text.removeprefix(_BOM).translate(None, _WHITE)


def from_text(text: bytes, structure: str) -> bytes:
    """Decode hex if there are only pairs of hex digits and white space, else base64."""
    packed = _packed(text)
    if _HEX.fullmatch(packed) and len(packed) % 2 == 0:
        return bytes.fromhex(packed.decode("ascii"))
    return from_base64(text, structure)


def labelled_lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield the "label : value" lines that virsh prints; other lines are ignored."""
    for line in text.removeprefix("\ufeff").split("\n"):
        label, colon, value = line.partition(":")
        if colon:
            yield label.strip(), value.strip()


def json_documents(text: bytes, structure: str) -> list[dict[str, object]]:
    """Return JSON objects: one, several in a row, or a list; QMP's "return" is unwrapped.

    Raises MalformedInput for text that is not JSON, other values than objects, and QMP errors.
    """
    import json

    whole = text.removeprefix(_BOM).decode("utf-8", errors="replace").rstrip()
    decoder = json.JSONDecoder()
    values: list[object] = []
    at = 0
    try:
        while at < len(whole):
            value, at = decoder.raw_decode(whole, _SPACE.match(whole, at).end())  # type: ignore[union-attr]
            values += value if isinstance(value, list) else [value]
    except Exception:  # noqa: BLE001 - deep nesting and long numbers raise their own errors
        raise MalformedInput(structure, "format", "this is no JSON") from None
    found = []
    for value in values:
        opened = value.get("return", value) if isinstance(value, dict) else value
        if not isinstance(opened, dict):
            raise MalformedInput(structure, "format", "the JSON is no object")
        error = opened.get("error")
        if isinstance(error, dict) and isinstance(error.get("desc"), str):
            words = error["desc"][:_MOST_WORDS]
            reason = f"QEMU answered with an error: {words}"
            hint = "correct it on the host, then ask again"
            raise MalformedInput(structure, "qmp", reason, hint=hint)
        found.append(opened)
    return found


def unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the members of a JSON object; raises ValueError for a name that is there twice.

    It is an ``object_pairs_hook`` of :mod:`json`, which takes the last of them without a word.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def looks_like_json(data: bytes) -> bool:
    """Return whether text begins like a JSON object or list."""
    return data.removeprefix(_BOM).lstrip()[:1] in (b"{", b"[")


def looks_like_text(data: bytes) -> bool:
    """Return whether ``data`` is printable ASCII, as base64 and hex are; a BOM may precede it."""
    body = data.removeprefix(_BOM)
    return body.isascii() and all(byte in b"\t\r\n" or byte >= 0x20 for byte in set(body))  # noqa: PLR2004 - the space


def blob(data: bytes, sizes: Collection[int], structure: str, *, only_text: bool = False) -> bytes:
    """Return a blob of one of ``sizes`` bytes, from binary (unless ``only_text``), base64 or hex.

    Raises MalformedInput for any other size. The message never shows the content, which may be a
    key.
    """
    if len(data) in sizes and not only_text:
        return data
    expected = " or ".join(str(size) for size in sizes)
    found = f"{len(data)} bytes"
    if data.strip() and looks_like_text(data):
        found = f"{len(data.strip())} characters that are no base64 (cut short, or a wrong one?)"
        # 32 hex digits are good base64 too: the reading of the right size counts.
        for decode in (from_text, from_base64):
            try:
                decoded = decode(data, structure)
            except MalformedInput:
                continue
            if len(decoded) in sizes:
                return decoded
            found = f"{len(decoded)} bytes (decoded from text)"
    raise MalformedInput(structure, "length", f"{found}, expected {expected}")


def sha384_digest(data: bytes, structure: str) -> bytes:
    """Return a digest of 48 bytes, from hex or base64; raises MalformedInput.

    Nothing but hex digits is hex, whatever it would be as base64: 64 of them are a SHA-256, and not
    base64 of 48 bytes.
    """
    found = from_text(data, structure)
    if len(found) != _SHA384_SIZE:
        sha256 = ": this is a SHA-256, SEV-SNP's digests are SHA-384"
        reason = f"{len(found)} bytes, expected {_SHA384_SIZE}"
        reason += sha256 if len(found) == _SHA256_SIZE else ""
        raise MalformedInput(structure, "length", reason)
    return found
