"""Firmware images and other files that are measured, and their hashes."""

import hashlib
import os
from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from typing import BinaryIO

from sev_attest.guest.footer import Ends, Footer

Source = bytes | str | os.PathLike[str] | BinaryIO
"""What is measured: bytes, the path of a file, or a file open for reading."""

_CHUNK = 1 << 18  # fits into a core's cache, so hashing reads it from there
_LARGE = 32 << 20


def stream(source: Source, consume: Callable[[bytes], object]) -> None:
    """Call ``consume`` with chunks of ``source``, 256 KiB of a file at most; raises OSError."""
    if isinstance(source, bytes):
        consume(source)
        return
    with _open(source) as file:
        while chunk := file.read(_CHUNK):
            consume(chunk)


def _is_large(file: BinaryIO) -> bool:
    """Return whether hashing it in a thread pays. A pipe, which may block, never does."""
    try:
        return os.fstat(file.fileno()).st_size >= _LARGE
    except (OSError, AttributeError):  # in memory
        return False


def _open(source: Source) -> BinaryIO | nullcontext[BinaryIO]:
    if isinstance(source, bytes):
        return BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return open(source, "rb")  # noqa: PTH123 - the caller's `with` closes it
    return nullcontext(source)


def sha256_of(source: Source) -> bytes:
    """Return the SHA-256 of ``source``, 32 bytes, in constant memory; raises OSError."""
    digest = hashlib.sha256()
    stream(source, digest.update)
    return digest.digest()


def sha256_of_both(one: Source, other: Source) -> tuple[bytes, bytes]:
    """Return the SHA-256 of two sources, in two threads if both are large files."""
    with _open(one) as first, _open(other) as second:
        if first is second or not (_is_large(first) and _is_large(second)):
            return sha256_of(first), sha256_of(second)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as beside:
            coming = beside.submit(sha256_of, second)
            return sha256_of(first), coming.result()


class Firmware(Footer):
    """A firmware image, read once: the bytes that are hashed are the bytes that are parsed.

    Only the hash and the last 64 KiB are kept. :meth:`read` makes one.
    """

    __slots__ = ("_hash",)
    _hash: "hashlib._Hash"

    def __init__(self, ends: Ends, digest: "hashlib._Hash") -> None:
        """Keep the ends and the hash of an image."""
        super().__init__(ends)
        self._keep(_hash=digest)

    @classmethod
    def read(cls, source: Source) -> "Firmware":
        """Read an image; raises OSError, and MalformedInput for an empty file."""
        digest = hashlib.sha256()
        ends = Ends()

        def consume(chunk: bytes) -> None:
            digest.update(chunk)
            ends.take(chunk)

        stream(source, consume)
        ends.check()
        return cls(ends, digest)

    @property
    def sha256(self) -> bytes:
        """Hash of the image, 32 bytes."""
        return self._hash.digest()

    def hasher(self) -> "hashlib._Hash":
        """Return a SHA-256 state that has consumed the image: the start of a launch digest."""
        return self._hash.copy()
