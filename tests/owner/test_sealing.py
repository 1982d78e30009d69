"""Boxes: what they hold opens with the right key only, and every byte of them is a stranger's."""

import dataclasses
import datetime as dt
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import _crypto
from sev_attest.errors import SevAttestError, Unsupported
from sev_attest.owner import KeyAccessError, key_errors, sealing
from sev_attest.owner.key_errors import SealError
from sev_attest.owner.sealing import MAX_OPENED, MAX_PLAINTEXT, Box, DataKeys
from vault_stand_in import told

SECRET = b"canary: TEK and TIK of a session"
FOR = b"session 17"


class Kek:
    """A key-encryption key that counts what it is asked."""

    def __init__(self, name: str = "kek-1") -> None:
        self.id = name
        self.wraps = 0
        self.unwraps = 0
        self.before: Callable[[], object] = lambda: None
        """What happens before it answers."""

    def wrap(self, data_key: bytes) -> bytes:
        self.wraps += 1
        self.before()
        return b"W" + self._mask(data_key)

    def unwrap(self, wrapped: bytes) -> bytes:
        self.unwraps += 1
        self.before()
        if len(wrapped) != 33 or wrapped[:1] != b"W":
            raise key_errors.damaged("this wrapped nothing of the kind")
        return self._mask(wrapped[1:])

    def _mask(self, data: bytes) -> bytes:
        stream = hashlib.sha256(self.id.encode()).digest()
        return bytes(one ^ other for one, other in zip(data, stream, strict=False))


def refused(call: Callable[[], object], check: str) -> str:
    with pytest.raises(SevAttestError) as caught:
        call()
    assert caught.value.check == check
    assert type(caught.value) is (KeyAccessError if check == "pending.kek" else SealError)
    assert "canary" not in told(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def damaged(call: Callable[[], object]) -> None:
    assert refused(call, "pending.damaged").startswith("the sealed data is damaged: ")


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the day."""

    def set_to(number: int) -> None:
        monkeypatch.setattr(sealing, "_today", lambda: dt.date(2027, 1, number))

    set_to(1)
    return set_to


# what a box holds


@pytest.mark.parametrize("size", [0, 1, 32, MAX_PLAINTEXT])
def test_what_is_sealed_opens_with_the_same_associated_data(size: int) -> None:
    keys = DataKeys(Kek())
    box = keys.seal(bytes(size), FOR)
    assert len(box.nonce) == 12
    assert len(box.ciphertext) == size + 16
    assert keys.open(Box.from_bytes(box.to_bytes()), FOR) == bytes(size)
    for other in (b"", b"session 18", FOR + b"\0"):
        damaged(lambda other=other: keys.open(box, other))  # type: ignore[misc]


def test_more_than_a_box_holds_is_unsupported() -> None:
    with pytest.raises(Unsupported) as caught:
        DataKeys(Kek()).seal(bytes(MAX_PLAINTEXT + 1), FOR)
    assert caught.value.check == "pending.size"


def test_every_box_has_a_nonce_of_its_own() -> None:
    keys = DataKeys(Kek())
    assert len({keys.seal(SECRET, FOR).nonce for _ in range(1000)}) == 1000


def test_nothing_shows_a_key_or_what_is_sealed() -> None:
    keys = DataKeys(Kek(), Kek("kek-0"))
    box = keys.seal(SECRET, FOR)
    assert repr(keys) == "DataKeys('kek-1', 'kek-0')"
    assert repr(box) == "Box(kek='kek-1')"
    assert SECRET not in box.to_bytes()
    data_key = keys._sealing()
    key = data_key.key
    for shown in (repr(data_key), repr(keys), repr(vars(keys)), repr(vars(keys._kept)), repr(box)):
        assert repr(key) not in shown
        assert key.hex() not in shown
    assert key not in box.to_bytes()


def test_the_format_of_a_box_is_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_crypto, "random_bytes", lambda size: bytes(range(size)))
    box = DataKeys(Kek()).seal(b"sealed", FOR)
    header = b"\x01\x05kek-1\x21\x00" + box.wrapped
    whole = header + bytes(range(12)) + box.ciphertext
    assert box.to_bytes() == whole
    made = AESGCM(bytes(range(32))).encrypt(bytes(range(12)), b"sealed", header + FOR)
    assert box.ciphertext == made
    assert whole.hex() == STORED
    assert box.data_key == "b179e25a4915b4d6c63b0e0195ef38f8"
    assert DataKeys(Kek()).open(Box.from_bytes(bytes.fromhex(STORED)), FOR) == b"sealed"


STORED = (
    "01056b656b2d312100"
    "576ad5fd28f9325416d59ec1b305ee56f19ae8350cda6522e6bd5f0253731996bf"
    "000102030405060708090a0b"
    "3467b777a081b3f16aa99ac0a84a292895392f3509d4"
)
"""A box as the first version wrote it: it must open for as long as rows live."""


# a stranger's bytes


def test_every_bit_of_a_box_counts() -> None:
    keys = DataKeys(Kek())
    whole = keys.seal(SECRET, FOR).to_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            with pytest.raises(SealError) as caught:
                keys.open(Box.from_bytes(bytes(changed)), FOR)
            assert caught.value.check in ("pending.damaged", "pending.key")
            assert "canary" not in told(caught.value)


def test_every_cut_of_a_box_is_damage() -> None:
    keys = DataKeys(Kek())
    whole = keys.seal(SECRET, FOR).to_bytes()
    for size in range(len(whole)):
        damaged(lambda size=size: keys.open(Box.from_bytes(whole[:size]), FOR))  # type: ignore[misc]
    damaged(lambda: keys.open(Box.from_bytes(whole + b"\0"), FOR))


@given(st.binary(max_size=300))
def test_random_bytes_are_damage_or_of_another_key(data: bytes) -> None:
    with pytest.raises(SealError):
        DataKeys(Kek()).open(Box.from_bytes(data), FOR)
    with pytest.raises(SealError):
        DataKeys(Kek()).open(Box.from_bytes(b"\x01\x05kek-1\x04\x00" + data), FOR)


@pytest.mark.parametrize(
    "change",
    [
        {"kek": ""},
        {"kek": "k" * 129},
        {"kek": "kek 1"},
        {"kek": "k\u00e4k"},
        {"kek": "kek\n"},
        {"wrapped": b""},
        {"wrapped": bytes(4097)},
        {"nonce": bytes(11)},
        {"nonce": bytes(13)},
        {"ciphertext": bytes(15)},
        {"ciphertext": bytes(MAX_PLAINTEXT + 17)},
    ],
)
def test_a_box_of_sizes_that_none_has_is_damage(change: dict[str, object]) -> None:
    box = DataKeys(Kek()).seal(SECRET, FOR)
    damaged(lambda: dataclasses.replace(box, **change))  # type: ignore[arg-type]


def test_a_box_of_another_version_is_named() -> None:
    whole = DataKeys(Kek()).seal(SECRET, FOR).to_bytes()
    said = refused(lambda: Box.from_bytes(b"\x02" + whole[1:]), "pending.damaged")
    assert "version 2, expected 1" in said


def test_parts_of_two_boxes_do_not_open() -> None:
    keys, others = DataKeys(Kek()), DataKeys(Kek())
    one, same, other = keys.seal(SECRET, FOR), keys.seal(SECRET, FOR), others.seal(SECRET, FOR)
    damaged(lambda: keys.open(dataclasses.replace(one, nonce=same.nonce), FOR))
    damaged(lambda: keys.open(dataclasses.replace(one, ciphertext=same.ciphertext), FOR))
    damaged(lambda: keys.open(dataclasses.replace(one, wrapped=other.wrapped), FOR))
    assert keys.open(one, FOR) == keys.open(other, FOR) == SECRET


# which key-encryption key


def test_a_box_of_another_key_names_both() -> None:
    box = DataKeys(Kek("kek-2026")).seal(SECRET, FOR)
    keys = DataKeys(Kek("kek-2028"), Kek("kek-2027"))
    said = refused(lambda: keys.open(box, FOR), "pending.key")
    assert said == (
        "this was sealed with the key-encryption key kek-2026; here is kek-2028, kek-2027"
    )


def test_a_new_key_seals_and_the_old_one_opens_what_it_sealed() -> None:
    old, new = Kek("kek-2026"), Kek("kek-2027")
    box = DataKeys(old).seal(SECRET, FOR)
    keys = DataKeys(new, old)
    assert keys.open(box, FOR) == SECRET
    assert keys.seal(SECRET, FOR).kek == "kek-2027"
    assert (old.wraps, old.unwraps, new.wraps) == (1, 1, 1)


@pytest.mark.parametrize("wrapped", [b"", bytes(4097), None])
def test_a_key_that_does_not_wrap_seals_nothing(wrapped: bytes | None) -> None:
    kek = Kek()

    def wrap(data_key: bytes) -> bytes:
        return b"as it is: " + data_key if wrapped is None else wrapped

    kek.wrap = wrap  # type: ignore[method-assign]
    said = refused(lambda: DataKeys(kek).seal(SECRET, FOR), "pending.kek")
    words = "it returned the data key unwrapped"
    if wrapped is not None:
        words = f"it wraps a data key in {len(wrapped)} bytes, 1 to 4096 are possible"
    assert said == f"kek-1: {words}"


def test_a_key_that_unwraps_another_size_opens_nothing() -> None:
    box = DataKeys(Kek()).seal(SECRET, FOR)
    kek = Kek()
    kek.unwrap = lambda wrapped: bytes(16)  # type: ignore[method-assign]
    said = refused(lambda: DataKeys(kek).open(box, FOR), "pending.kek")
    assert said == "kek-1: it unwraps 16 bytes, expected 32"


# data keys


def test_a_data_key_is_wrapped_once_a_day_and_unwrapped_once(day: Callable[[int], None]) -> None:
    kek = Kek()
    keys = DataKeys(kek)
    first = [keys.seal(SECRET, FOR) for _ in range(10)]
    assert (kek.wraps, len({box.data_key for box in first})) == (1, 1)
    day(2)
    second = [keys.seal(SECRET, FOR) for _ in range(10)]
    assert (kek.wraps, len({box.data_key for box in first + second})) == (2, 2)
    for box in first + second:
        assert keys.open(box, FOR) == SECRET
    assert kek.unwraps == 0  # its own
    others = DataKeys(kek)
    for box in first + second:
        assert others.open(box, FOR) == SECRET
    assert kek.unwraps == 2


def test_the_day_is_that_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(sealing._today() - dt.datetime.now(dt.UTC).date()) <= dt.timedelta(days=1)


def test_a_data_key_seals_no_more_boxes_than_random_nonces_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sealing.MAX_BOXES == 2**32
    monkeypatch.setattr(sealing, "MAX_BOXES", 3)
    keys = DataKeys(Kek())
    names = [keys.seal(SECRET, FOR).data_key for _ in range(7)]
    assert [names.index(name) for name in names] == [0, 0, 0, 3, 3, 3, 6]


def test_a_failure_is_raised_and_the_next_call_tries_again() -> None:
    kek = Kek()

    def fail() -> None:
        raise KeyAccessError("out of reach", check="pending.kek")

    kek.before = fail
    keys = DataKeys(kek)
    for _ in range(2):
        assert refused(lambda: keys.seal(SECRET, FOR), "pending.kek") == "out of reach"
    kek.before = lambda: None
    box = keys.seal(SECRET, FOR)
    others = DataKeys(kek)
    kek.before = fail
    refused(lambda: others.open(box, FOR), "pending.kek")
    kek.before = lambda: None
    assert others.open(box, FOR) == SECRET
    assert (kek.wraps, kek.unwraps) == (3, 2)


def test_only_so_many_data_keys_are_kept_those_used_last() -> None:
    kek = Kek()
    keys = DataKeys(kek)
    boxes = [DataKeys(kek).seal(SECRET, FOR) for _ in range(MAX_OPENED + 1)]
    for box in boxes[:-1]:
        keys.open(box, FOR)
    keys.open(boxes[0], FOR)
    assert kek.unwraps == MAX_OPENED
    keys.open(boxes[-1], FOR)
    assert len(keys._kept.opening) == MAX_OPENED
    keys.open(boxes[0], FOR)
    assert kek.unwraps == MAX_OPENED + 1
    keys.open(boxes[1], FOR)
    assert kek.unwraps == MAX_OPENED + 2


def test_many_threads_ask_for_one_data_key_and_unwrap_it_once() -> None:
    kek = Kek()
    kek.before = lambda: time.sleep(0.05)
    keys, others = DataKeys(kek), DataKeys(kek)
    boxes: list[Box] = []
    start = threading.Barrier(16)

    def seal() -> None:
        start.wait()
        boxes.append(keys.seal(SECRET, FOR))

    def unseal() -> None:
        start.wait()
        assert others.open(boxes[0], FOR) == SECRET
        opened.append(True)

    opened: list[bool] = []
    for work in (seal, unseal):
        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(boxes), len(opened), kek.wraps, kek.unwraps) == (16, 16, 1, 1)


def test_another_process_makes_a_data_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = DataKeys(Kek())
    before = keys.seal(SECRET, FOR)
    keys._kept.lock.acquire()  # another thread of the parent
    monkeypatch.setattr(os, "getpid", lambda: -1)
    after = keys.seal(SECRET, FOR)
    assert before.data_key != after.data_key
    assert keys.open(before, FOR) == keys.open(after, FOR) == SECRET


FORKED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_sealing import FOR, SECRET, Kek
from sev_attest.owner.sealing import DataKeys
keys = DataKeys(Kek())
before = keys.seal(SECRET, FOR)
keys._memory().lock.acquire()
child = os.fork()
if not child:
    own = keys.seal(SECRET, FOR)
    right = own.data_key != before.data_key and keys.open(before, FOR) == SECRET
    os._exit(0 if right else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_makes_a_data_key_of_its_own() -> None:
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", FORKED, here], check=True, timeout=60)
