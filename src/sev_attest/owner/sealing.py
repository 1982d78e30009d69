"""Seals what must be stored: envelope encryption with AES-256-GCM.

A data key of 32 random bytes encrypts; a key-encryption key (KEK) wraps the data key, which is
stored with what it encrypted. So a process asks the KEK once for each data key, not for each box.

A box is stored as (numbers are little-endian)::

    size  field
    1     version: 1
    1     length of the KEK's id, 1 to 128
    ..    the KEK's id, printable ASCII without blanks
    2     length of the wrapped data key, 1 to 4096
    ..    the wrapped data key
    12    nonce
    ..    ciphertext, then its tag of 16 bytes

The associated data of AES-GCM are everything before the nonce, then the caller's. Python cannot
erase a key from memory.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from sev_attest import _crypto
from sev_attest._wire import Reader, le
from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.owner.key_errors import KeyAccessError, SealError, damaged
from sev_attest.owner.key_wrapping import CHECK, KEY_SIZE, MAX_ID, MAX_WRAPPED

if TYPE_CHECKING:
    from sev_attest.owner.key_wrapping import KeyEncryption

Value = TypeVar("Value")

MAX_PLAINTEXT = 1 << 16
"""Bytes that one box may hold."""
# With random nonces of 96 bits, NIST SP 800-38D (8.3) allows 2**32 encryptions for one key: the
# probability that any two of them have the same nonce then is 2**-33. A process that seals 1000
# boxes a second makes 86 million a day, of the 4295 million that are allowed.
MAX_BOXES = 1 << 32
"""Boxes for one data key."""
MAX_OPENED = 1024
"""Data keys that are kept in memory to open boxes."""
_VERSION = 1
_NONCE, _TAG = 12, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Sealed data, as it is stored. Nothing in it is secret.

    ``kek`` is the id of the key-encryption key, ``wrapped`` the data key that it wrapped (1 to 4096
    bytes). ``nonce`` is 12 bytes. ``ciphertext`` ends with the tag, 16 bytes.
    """

    kek: str
    wrapped: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise SealError for sizes that no box has."""
        if not _is_id(self.kek):
            raise damaged("this is no id of a key-encryption key")
        sizes = (
            ("wrapped data key", self.wrapped, 1, MAX_WRAPPED),
            ("nonce", self.nonce, _NONCE, _NONCE),
            ("ciphertext", self.ciphertext, _TAG, MAX_PLAINTEXT + _TAG),
        )
        for name, value, least, most in sizes:
            if not least <= len(value) <= most:
                raise damaged(f"{len(value)} bytes of {name}")

    @property
    def data_key(self) -> str:
        """Public name of the data key: 32 hex digits. Boxes of one data key have the same."""
        named = b"sev-attest data key name\0" + _header(self.kek, self.wrapped)
        return sha256(named).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """Return the box as it is stored."""
        return _header(self.kek, self.wrapped) + self.nonce + self.ciphertext

    @classmethod
    def from_bytes(cls, data: bytes) -> "Box":
        """Read a stored box. Raises SealError with check ``pending.damaged``."""
        reader = Reader(data, "box")
        try:
            version = reader.number(1, "version")
            if version != _VERSION:
                raise damaged(f"version {version}, expected {_VERSION}")
            kek = reader.raw(reader.number(1, "KEK"), "KEK").decode("latin-1")
            wrapped = reader.raw(reader.number(2, "data key"), "data key")
            nonce = reader.raw(_NONCE, "nonce")
        except MalformedInput:
            raise damaged(f"{len(data)} bytes, which end too early") from None
        rest = data[len(_header(kek, wrapped)) + _NONCE :]
        return cls(kek=kek, wrapped=wrapped, nonce=nonce, ciphertext=rest)


def _is_id(text: str) -> bool:
    return 1 <= len(text) <= MAX_ID and all("!" <= character <= "~" for character in text)


def _header(kek: str, wrapped: bytes) -> bytes:
    name = kek.encode("latin-1")
    return le(_VERSION, 1) + le(len(name), 1) + name + le(len(wrapped), 2) + wrapped


class _Shared(Generic[Value]):
    """A value that the first thread makes, while the others wait for it, or for its failure."""

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make, self._begun = make, Lock()
        self._future: Future[Value] = Future()

    def get(self) -> Value:
        if self._begun.acquire(blocking=False):  # never released: made once
            try:
                self._future.set_result(self._make())
            except BaseException as error:  # noqa: BLE001 - or the others would wait forever
                self._future.set_exception(error)
        return self._future.result()

    @property
    def failed(self) -> bool:
        return self._future.done() and self._future.exception() is not None


@dataclass(frozen=True, slots=True)
class _DataKey:
    key: bytes = field(repr=False)
    wrapped: bytes = field(repr=False)


class _Memory:
    """What one process keeps: the data key that seals, and those that open."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = Lock()
        self.day = date.min
        self.boxes = 0
        self.sealing: _Shared[_DataKey] | None = None
        self.opening: dict[tuple[str, bytes], _Shared[bytes]] = {}


class DataKeys:
    """Seals with a data key of its own for each UTC day, and opens with any. For many threads.

    The first key-encryption key wraps new data keys; the others open what they wrapped before: to
    rotate, put a new one first.

    After a fork, a child makes a data key of its own. Otherwise each process would count only its
    own boxes under the one key, and a lock that another thread held would stay locked.
    """

    def __init__(self, kek: "KeyEncryption", *older: "KeyEncryption") -> None:
        """Take the key-encryption keys; ``kek`` is for new data keys. It is not asked yet."""
        self._kek = kek
        self._keks = {one.id: one for one in (*older, kek)}
        self._kept = _Memory()

    def __repr__(self) -> str:
        """Return the ids of the key-encryption keys."""
        return f"DataKeys({', '.join(map(repr, reversed(self._keks)))})"

    def seal(self, plaintext: bytes, associated_data: bytes) -> Box:
        """Return up to 64 KiB, sealed.

        ``associated_data`` says what it is for; the same is needed to open the box.
        Raises Unsupported if there is more, KeyAccessError if the key-encryption key fails.
        """
        if len(plaintext) > MAX_PLAINTEXT:
            raise Unsupported(
                f"{len(plaintext)} bytes to seal, {MAX_PLAINTEXT} at most", check="pending.size"
            )
        data_key = self._sealing()
        header = _header(self._kek.id, data_key.wrapped)
        nonce = _crypto.random_bytes(_NONCE)
        return Box(
            kek=self._kek.id,
            wrapped=data_key.wrapped,
            nonce=nonce,
            ciphertext=_crypto.aes_gcm(data_key.key, nonce, plaintext, header + associated_data),
        )

    def open(self, box: Box, associated_data: bytes) -> bytes:
        """Return what was sealed with the same associated data.

        Raises SealError if anything was changed (``pending.damaged``) or its key-encryption key is
        not one of these (``pending.key``), KeyAccessError if that fails.
        """
        header = _header(box.kek, box.wrapped)
        key = self._opening(box)
        plaintext = _crypto.aes_gcm_opened(key, box.nonce, box.ciphertext, header + associated_data)
        if plaintext is None:
            raise damaged("it was changed, or belongs elsewhere")
        return plaintext

    def _memory(self) -> _Memory:
        if self._kept.process != os.getpid():
            self._kept = _Memory()
        return self._kept

    def _sealing(self) -> _DataKey:
        """Return the data key of this process and day, and count one box for it."""
        memory, today = self._memory(), _today()
        with memory.lock:
            current, full = memory.sealing, memory.boxes >= MAX_BOXES
            if current is None or current.failed or full or memory.day != today:
                current = memory.sealing = _Shared(self._new)
                memory.day, memory.boxes = today, 0
            memory.boxes += 1
        return current.get()

    def _new(self) -> _DataKey:
        key = _crypto.random_bytes(KEY_SIZE)
        wrapped = self._kek.wrap(key)
        if key in wrapped:
            raise _wrong(self._kek, "it returned the data key unwrapped")
        if not 1 <= len(wrapped) <= MAX_WRAPPED:
            told = f"it wraps a data key in {len(wrapped)} bytes, 1 to {MAX_WRAPPED} are possible"
            raise _wrong(self._kek, told)
        self._shared(self._kek, wrapped, lambda: key)  # this process opens its own boxes, too
        return _DataKey(key, wrapped)

    def _opening(self, box: Box) -> bytes:
        """Return the data key of a box, which is unwrapped once."""
        kek = self._keks.get(box.kek)
        if kek is None:
            raise SealError(
                f"this was sealed with the key-encryption key {box.kek}; "
                f"here is {', '.join(reversed(self._keks))}",
                check="pending.key",
                hint="use the key that it was sealed with, beside the new one",
            )

        def unwrap() -> bytes:
            key = kek.unwrap(box.wrapped)
            if len(key) != KEY_SIZE:
                raise _wrong(kek, f"it unwraps {len(key)} bytes, expected {KEY_SIZE}")
            return key

        return self._shared(kek, box.wrapped, unwrap).get()

    def _shared(
        self, kek: "KeyEncryption", wrapped: bytes, unwrap: Callable[[], bytes]
    ) -> _Shared[bytes]:
        # Found by all that the KEK is asked for: no box can put another key in its place.
        memory, name = self._memory(), (kek.id, wrapped)
        with memory.lock:
            known = memory.opening.pop(name, None)
            if known is None or known.failed:
                known = _Shared(unwrap)
                if len(memory.opening) >= MAX_OPENED:
                    del memory.opening[next(iter(memory.opening))]  # unused for longest
            memory.opening[name] = known
        return known


def _wrong(kek: "KeyEncryption", reason: str) -> KeyAccessError:
    hint = "it must encrypt what it wraps, and return that again"
    return KeyAccessError(f"{kek.id}: {reason}", check=CHECK, hint=hint)


def _today() -> date:
    return datetime.now(UTC).date()
