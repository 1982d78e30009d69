"""``sev_attest.snp.transport`` and ``.challenge``: keys, nonces, and how a report binds them."""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from sev_attest import _crypto
from sev_attest._keys import Kem
from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.document import MAX_DOCUMENT
from sev_attest.snp.transport import SIZES, TransportKey, TransportPrivateKey, report_data
from snp_material import KEMS, needs

NONCE = bytes(range(32))
PRIVATE = bytes(range(0x20, 0x40))
PUBLIC = bytes.fromhex("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254")
REPORT_DATA = bytes.fromhex(
    "66446dd57645dbf28294f4e223fdc676d61d62e467d532034e03aa82bda22b93"
    "b3385f2237fc11258293344df9880b5f66761d966b56f465e37091a3d3bef59f"
)
"""The vector of docs/snp-release.md: nonce, private key, public key, report_data."""
HYBRID_REPORT_DATA = bytes.fromhex(
    "dfa413cdebd82b9356a1df45bbc390482d0eb25834bdd330ecfd90fb0176d5cd"
    "a87075696559edc50895a186c8d38d079302a35ef68a6af547af58edc9d2a5c9"
)
HYBRID_PUBLIC = bytes(range(256)) * 4 + bytes(192)
CREATED = datetime(2026, 5, 4, 12, tzinfo=UTC)
CHALLENGE = Challenge(
    name="vm1", nonce=NONCE, created=CREATED, expires=CREATED + timedelta(hours=1)
)
CHALLENGE_DIGEST = (
    "37121afb4b889fef066f5c35d4caee343bc4c4c6f84015c3"
    "e146d87edca29ab519d86c4db90d936a476cc9db7610c30e"
)
KEY = TransportKey(kem=Kem.X25519, public=PUBLIC)
PRIVATE_KEY = TransportPrivateKey(kem=Kem.X25519, private=PRIVATE)


# what a report carries


def test_the_vector_of_the_page() -> None:
    assert PRIVATE_KEY.public == KEY
    assert report_data(NONCE, KEY) == CHALLENGE.report_data(KEY) == REPORT_DATA


def test_report_data_is_the_hash_that_the_page_describes() -> None:
    key = hashlib.sha384(b"\x00\x20" + PUBLIC).digest()
    whole = b"sev-attest/snp/report-data/1\0" + NONCE + key
    assert hashlib.sha512(whole).digest() == REPORT_DATA
    assert len(whole) == 29 + 32 + 48


def test_the_hybrid_s_id_and_both_of_its_keys_are_hashed() -> None:
    key = TransportKey(kem=Kem.MLKEM768_X25519, public=HYBRID_PUBLIC)
    assert key.to_bytes() == b"\x64\x7a" + HYBRID_PUBLIC
    assert report_data(NONCE, key) == HYBRID_REPORT_DATA


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_nonce_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(Unsupported, match="32 bytes") as caught:
        report_data(bytes(size), KEY)
    assert caught.value.check == "snp.challenge"


# keys


@pytest.mark.parametrize("kem", KEMS)
def test_each_key_is_new_and_has_the_sizes_of_its_kind(kem: Kem) -> None:
    keys = [TransportPrivateKey.generate(kem) for _ in range(2)]
    assert keys[0].private != keys[1].private
    for key in keys:
        assert (len(key.public.public), len(key.private)) == SIZES[kem][:2]
        assert key.public.kem is key.kem is kem


@pytest.mark.parametrize("kem", KEMS)
def test_keys_come_back_from_their_files(kem: Kem) -> None:
    private = TransportPrivateKey.generate(kem)
    assert TransportKey.from_json(private.public.to_json()) == private.public
    read = TransportPrivateKey.from_json(private.to_json())
    assert (read.kem, read.private) == (kem, private.private)


def test_a_file_with_a_byte_order_mark_and_other_line_ends_is_read() -> None:
    text = b"\xef\xbb\xbf" + KEY.to_json().replace(b"\n", b"\r\n")
    assert TransportKey.from_json(text) == KEY


@pytest.mark.parametrize("kem", list(Kem), ids=lambda kem: kem.label)
@pytest.mark.parametrize("off", [-1, 1])
def test_a_key_of_another_length_is_malformed(kem: Kem, off: int) -> None:
    public, private, _ = SIZES[kem]
    with pytest.raises(MalformedInput, match="expected"):
        TransportKey(kem=kem, public=bytes(public + off))
    with pytest.raises(MalformedInput, match="expected"):
        TransportPrivateKey(kem=kem, private=bytes(private + off))


def test_no_repr_shows_a_private_key() -> None:
    for shown in (repr(PRIVATE_KEY), str(PRIVATE_KEY)):
        assert PRIVATE.hex() not in shown
        assert str(PRIVATE)[2:-1] not in shown
    assert repr(KEY).startswith("TransportKey(x25519, digest=")


def test_a_private_key_given_for_a_public_one_is_named_and_not_shown() -> None:
    with pytest.raises(MalformedInput, match="snp-transport-private-key/1 document") as caught:
        TransportKey.from_json(PRIVATE_KEY.to_json())
    assert json.loads(PRIVATE_KEY.to_json())["private_key"] not in str(caught.value)


# an installed cryptography that is too old, or has no ML-KEM


@pytest.mark.parametrize("kem", list(Kem), ids=lambda kem: kem.label)
def test_an_older_cryptography_is_told_before_a_key_is_made(
    monkeypatch: pytest.MonkeyPatch, kem: Kem
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hpke", None)
    with pytest.raises(Unsupported, match="needs cryptography 47 or later; this is ") as caught:
        TransportPrivateKey.generate(kem)
    assert (caught.value.check, caught.value.exit_code) == ("crypto.hpke", 2)
    assert PRIVATE_KEY.public == KEY  # nothing but sealing needs the newer one


@needs(Kem.X25519)
def test_a_cryptography_without_mlkem_is_told_and_x25519_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(_seed: bytes) -> None:
        raise UnsupportedAlgorithm("ML-KEM-768 is not supported by this backend.")

    monkeypatch.setattr(_crypto, "_mlkem", none)
    with pytest.raises(Unsupported, match="has no ML-KEM-768") as caught:
        TransportPrivateKey.generate(Kem.MLKEM768_X25519)
    assert caught.value.check == "crypto.mlkem"
    assert TransportPrivateKey.generate(Kem.X25519).kem is Kem.X25519


# challenges


def test_a_challenge_comes_back_from_its_file() -> None:
    for challenge in (CHALLENGE, replace(CHALLENGE, expires=None, kems=(Kem.MLKEM768_X25519,))):
        read = Challenge.from_json(challenge.to_json())
        assert read == challenge
        assert read.digest == challenge.digest


def test_each_challenge_has_its_own_nonce() -> None:
    made = [Challenge.create("vm1", created=CREATED) for _ in range(2)]
    assert made[0].nonce != made[1].nonce
    assert made[0].expires is None
    later = CREATED.replace(microsecond=999_999)
    rounded = Challenge.create("vm1", created=later, expires=later)
    assert (rounded.created, rounded.expires) == (CREATED, CREATED)
    assert made[0].kems == (Kem.X25519, Kem.MLKEM768_X25519)


def test_the_digest_covers_every_field_and_no_layout() -> None:
    compact = json.dumps(json.loads(CHALLENGE.to_json()), sort_keys=True, separators=(",", ":"))
    assert hashlib.sha384(compact.encode()).digest() == CHALLENGE.digest
    assert CHALLENGE.digest.hex() == CHALLENGE_DIGEST
    assert Challenge.from_json(compact.encode()).digest == CHALLENGE.digest
    others = [
        replace(CHALLENGE, name="vm2"),
        replace(CHALLENGE, nonce=bytes(32)),
        replace(CHALLENGE, created=CREATED + timedelta(seconds=1)),
        replace(CHALLENGE, expires=None),
        replace(CHALLENGE, kems=(Kem.X25519,)),
        replace(CHALLENGE, kems=CHALLENGE.kems[::-1]),
    ]
    assert len({CHALLENGE.digest, *(other.digest for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "../vm1"}, "name"),
        ({"name": "v" * 129}, "name"),
        ({"nonce": bytes(31)}, "nonce"),
        ({"created": CREATED.replace(tzinfo=None)}, "created"),
        ({"expires": CREATED.replace(tzinfo=None)}, "expires"),
        ({"kems": ()}, "kems"),
        ({"kems": (Kem.X25519, Kem.X25519)}, "kems"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_challenge_has_such_values(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        replace(CHALLENGE, **changes)
    assert caught.value.check == f"challenge.{field}"


# documents


READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "challenge": (Challenge.from_json, CHALLENGE.to_json()),
    "key": (TransportKey.from_json, KEY.to_json()),
    "private": (TransportPrivateKey.from_json, PRIVATE_KEY.to_json()),
}
WRONG: dict[str, list[tuple[str, object]]] = {
    "challenge": [
        ("name", 5), ("name", "a b"), ("name", None),
        ("nonce", NONCE.hex().upper()), ("nonce", "00"), ("nonce", 0), ("nonce", "0x" + "0" * 62),
        ("created", None), ("created", "yesterday"), ("created", "2026-05-04T12:00:00Z"),
        ("created", "2026-05-04T12:00:00"), ("created", 1),
        ("expires", "2026-05-04"), ("expires", []),
        ("kems", []), ("kems", [32, 32]), ("kems", [1]), ("kems", ["32"]), ("kems", 32),
        ("kems", [True]), ("kems", [32.0]),
    ],
    "key": [
        ("kem", 1), ("kem", "32"), ("kem", True), ("kem", None),
        ("public_key", ""), ("public_key", "AAAA"), ("public_key", "\u00e9"), ("public_key", 7),
        ("public_key", json.loads(KEY.to_json())["public_key"] + "\n"),
        ("public_key", json.loads(KEY.to_json())["public_key"].rstrip("=")),
        # the last character has bits that no byte takes
        ("public_key", json.loads(KEY.to_json())["public_key"][:-2] + "R="),
    ],
    "private": [("kem", 0), ("private_key", "AAAA")],
}  # fmt: skip


@pytest.mark.parametrize("which", READERS)
def test_a_document_is_closed(which: str) -> None:
    read, text = READERS[which]
    whole = json.loads(text)
    for name in whole:
        with pytest.raises(MalformedInput):
            read(json.dumps({k: v for k, v in whole.items() if k != name}).encode())
    for name, value in WRONG[which]:
        with pytest.raises(MalformedInput) as caught:
            read(json.dumps({**whole, name: value}).encode())
        assert caught.value.field == name, (name, value)
    with pytest.raises(MalformedInput, match="other fields"):
        read(json.dumps({**whole, "more": 1}).encode())


@pytest.mark.parametrize("which", READERS)
@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b"9" * 5000,
        b'{"schema": 1}', b'{"schema": "sev-attest/launch/1"}', b'{"schema": "\\u001b[2J/1"}',
        b"\0" * (MAX_DOCUMENT + 1),
    ],
    ids=lambda text: repr(text[:24]),
)  # fmt: skip
def test_what_is_no_document_is_malformed(which: str, text: bytes) -> None:
    read, _ = READERS[which]
    with pytest.raises(MalformedInput) as caught:
        read(text)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("which", READERS)
def test_a_document_of_another_kind_is_named(which: str) -> None:
    for other, (_, text) in READERS.items():
        if other != which:
            with pytest.raises(
                MalformedInput, match=r"this is a sev-attest/snp-[a-z-]+/1 document"
            ):
                READERS[which][0](text)


@pytest.mark.parametrize("which", READERS)
def test_a_field_that_is_given_twice_is_malformed(which: str) -> None:
    read, text = READERS[which]
    line = text.splitlines()[-2]
    with pytest.raises(MalformedInput, match="twice"):
        read(text.replace(line, line + b"," + line))


@pytest.mark.parametrize("which", READERS)
def test_of_every_cut_and_flipped_byte_only_our_error_comes(which: str) -> None:
    read, text = READERS[which]
    for at in range(len(text) - 1):
        for changed in (text[:at], text[:at] + bytes((text[at] ^ 0x80,)) + text[at + 1 :]):
            with pytest.raises(MalformedInput):
                read(changed)
