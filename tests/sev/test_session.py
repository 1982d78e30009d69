"""session.py and owner/record.py."""

import hashlib
import hmac
import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import MalformedInput, NotVerified, Unsupported, _crypto, sev
from sev_attest._keys import Curve
from sev_attest.owner import LaunchRecord
from sev_attest.sev.session import session_blob
from sev_attest.sev.states import Status
from sev_attest.testing import FirmwareError, Platform

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_the_platform_opens_the_session_and_has_the_same_keys(
    milan: Platform, session: sev.Session
) -> None:
    assert len(session.blob) == 128
    assert len(session.godh.to_bytes()) == 2084
    handle = milan.launch_start(session.policy.value, session.godh.to_bytes(), session.blob)
    guest = milan._guests[handle]
    assert (guest.tek, guest.tik) == (session.keys.tek, session.keys.tik)


def test_another_platform_cannot_open_it(session: sev.Session) -> None:
    with pytest.raises(FirmwareError) as caught:
        Platform(b"another").launch_start(5, session.godh.to_bytes(), session.blob)
    assert caught.value.status is Status.BAD_MEASUREMENT


@given(st.integers(0, 128 * 8 - 1))
def test_a_flipped_bit_in_the_blob_closes_it(bit: int) -> None:
    blob = bytearray(SESSION.blob)
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FirmwareError) as caught:
        PLATFORM.launch_start(5, SESSION.godh.to_bytes(), bytes(blob))
    assert caught.value.status is Status.BAD_MEASUREMENT


PLATFORM = Platform(b"p")
SESSION = sev.Session.create_unverified(PLATFORM.export().pdh, policy=sev.GuestPolicy(5))


@pytest.mark.parametrize("policy", [0, 1, 4, 7, 0x33010005])
def test_another_policy_than_the_session_s_does_not_launch(policy: int) -> None:
    with pytest.raises(FirmwareError) as caught:
        PLATFORM.launch_start(policy, SESSION.godh.to_bytes(), SESSION.blob)
    assert caught.value.status is Status.BAD_MEASUREMENT


def test_the_guest_owner_s_certificate_is_as_sevctl_writes_it(session: sev.Session) -> None:
    godh = session.godh
    assert (godh.version, godh.api_major, godh.api_minor) == (1, 0, 0)
    assert (godh.role, godh.algorithm.name, godh.public_key.curve.name) == (
        "PDH",
        "ECDH_SHA256",
        "P384",
    )
    assert godh.unsigned
    assert godh.to_bytes()[0x414:0x418] == b"\x00\x10\0\0"
    assert not any(godh.to_bytes()[0x418:0x61C])


def test_no_two_sessions_share_anything(verified: sev.VerifiedChain) -> None:
    policy = sev.GuestPolicy(1)
    sessions = [sev.Session.create(verified, policy=policy) for _ in range(8)]
    seen: set[bytes] = set()
    for one in sessions:
        parts = [one.keys.tik, one.keys.tek, one.godh.body]
        parts += [one.blob[at : at + 16] for at in range(0, 128, 16)]
        assert len(set(parts) - seen) == len(parts)
        seen.update(parts)
    assert all(s.keys.tik != s.keys.tek for s in sessions)


def test_a_chain_that_nobody_verified_makes_no_session(milan: Platform) -> None:
    with pytest.raises(TypeError, match="VerifiedChain"):
        sev.Session.create(milan.export(), policy=sev.GuestPolicy(5))  # type: ignore[arg-type]


def test_reserved_policy_bits_are_refused(verified: sev.VerifiedChain) -> None:
    with pytest.raises(Unsupported, match="bits 0x40 are reserved"):
        sev.Session.create(verified, policy=sev.GuestPolicy(0x41))


def test_a_pdh_off_the_curve_or_of_another_role_makes_no_session(milan: Platform) -> None:
    pdh = milan.export().pdh
    key = pdh.public_key
    for odd in (
        replace(pdh, public_key=replace(key, y=key.y ^ 1)),
        replace(pdh, public_key=replace(key, curve=Curve.P256)),
        milan.export().pek,
    ):
        with pytest.raises(NotVerified, match="not a point on P-384") as caught:
            sev.Session.create_unverified(odd, policy=sev.GuestPolicy(1))
        assert caught.value.check == "chain.pdh.point"


def test_only_create_makes_a_session_and_its_repr_hides_the_keys(session: sev.Session) -> None:
    with pytest.raises(TypeError, match=r"only Session\.create"):
        sev.Session(**{f.name: getattr(session, f.name) for f in fields(session)})
    assert session.keys.tik.hex() not in repr(session)
    assert repr(session.keys.tik) not in repr(session)


def test_the_session_blob_of_all_zeros_is_the_published_one(real: Path) -> None:
    known = json.loads((real / "expected.json").read_bytes())["session"]
    zero = bytes(16)
    assert _crypto.kdf(zero, b"sev-master-secret", zero).hex() == known["kdf_master_hex"]
    keys = sev.TransportKeys(tek=zero, tik=zero)
    blob = session_blob(keys, sev.GuestPolicy(0), shared=zero, nonce=zero, iv=zero)
    assert blob[:16] == blob[48:64] == zero
    assert blob[16:48].hex() == known["wrap_tk_hex"]
    assert blob[64:96].hex() == known["wrap_mac_hex"]
    assert blob[96:].hex() == known["policy_mac_hex"]


def test_a_record_is_read_as_it_was_written(session: sev.Session, milan: Platform) -> None:
    record = LaunchRecord.of(session, "vm1", NOW)
    assert LaunchRecord.from_bytes(record.to_bytes()) == record
    assert record.created == "2026-01-02T03:04:05+00:00"
    assert record.pdh == milan.export().pdh.fingerprint
    assert record.cek == milan.export().cek.fingerprint
    assert record.claimed_platform_id == milan.get_id().hex()
    assert record.generation is None
    assert str(record.root).startswith("not AMD's: ARK ")
    assert record.godh_sha256 == hashlib.sha256(session.godh.to_bytes()).hexdigest()


def test_a_record_of_an_unverified_platform_says_so() -> None:
    record = LaunchRecord.of(SESSION, "vm1", NOW)
    assert (record.root, record.cek, record.claimed_platform_id) == (None, None, None)
    assert LaunchRecord.from_bytes(record.to_bytes()) == record


def test_a_record_holds_no_key(session: sev.Session) -> None:
    data = LaunchRecord.of(session, "vm1", NOW).to_bytes()
    for key in (session.keys.tik, session.keys.tek):
        assert key.hex().encode() not in data
        assert key not in data


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"policy": "5"}, "launch-record.policy"),
        ({"policy": True}, "launch-record.policy"),
        ({"kernel_hashes": 1}, "launch-record.kernel_hashes"),
        ({"policy": -1}, "policy.range"),
        ({"pdh": None}, "launch-record.pdh"),
        ({"schema": "sev-attest/launch/2"}, "launch-record.schema"),
        ({"tik": "00"}, "launch-record.fields"),
        ({"session_id": "00"}, "launch-record.session_id"),
        ({"session_id": "é" * 64}, "launch-record.session_id"),
        ({"cek": "xyz"}, "launch-record.cek"),
        ({"generation": "zen"}, "launch-record.generation"),
        ({"generation": "milan", "root": None}, "launch-record.generation"),
        ({"mac": ""}, "launch-record.mac"),
        ({"mac": None}, "launch-record.mac"),
    ],
)
def test_a_record_with_an_odd_field_is_refused(change: dict[str, object], check: str) -> None:
    fields_ = json.loads(LaunchRecord.of(SESSION, "vm1", NOW).to_bytes()) | change
    with pytest.raises(MalformedInput) as caught:
        LaunchRecord.from_bytes(json.dumps(fields_).encode())
    assert caught.value.check == check


def test_a_record_without_its_mac_is_refused() -> None:
    fields_ = json.loads(LaunchRecord.of(SESSION, "vm1", NOW).to_bytes())
    del fields_["mac"]
    with pytest.raises(MalformedInput, match="launch record mac: is missing"):
        LaunchRecord.from_bytes(json.dumps(fields_).encode())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b"[" * 100_000, b"\xff\xff", b"1" * 5000]
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput, match="launch record"):
        LaunchRecord.from_bytes(data)


FIRST_KEYS = sev.TransportKeys(tek=b"\xf1" * 16, tik=b"\x01" * 16)
FIRST_RECORD = f"""{{
  "schema": "sev-attest/launch/1",
  "name": "vm \\u00e9",
  "created": "2026-01-02T03:04:05+00:00",
  "root": "AMD Milan",
  "generation": "milan",
  "claimed_platform_id": "{"1a" * 64}",
  "cek": "{"2b" * 32}",
  "pdh": "{"3c" * 32}",
  "policy": 5,
  "kernel_hashes": true,
  "session_id": "35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402",
  "godh_sha256": "{"4d" * 32}",
  "session_sha256": "{"5e" * 32}",
  "mac": "bb372a853ef16d0cac8d2a9072bd4fe79cea229854c18cb90f2fb6b9a019d093"
}}
"""
"""A record as owners keep it. Its MAC is held below without the code that makes it."""


def test_a_record_that_an_owner_keeps_stays_good() -> None:
    record = LaunchRecord.from_bytes(FIRST_RECORD.encode())
    record.require(FIRST_KEYS)
    assert record.to_bytes().decode() == FIRST_RECORD
    assert record.signed(FIRST_KEYS) == record
    told = {name: value for name, value in json.loads(FIRST_RECORD).items() if name != "schema"}
    mac = told.pop("mac")
    text = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    message = b"sev-attest record" + hashlib.sha256(FIRST_KEYS.tek).digest() + text
    assert hmac.new(FIRST_KEYS.tik, message, "sha256").hexdigest() == mac


HEX_FIELDS = {
    "claimed_platform_id": 128,
    "cek": 64,
    "pdh": 64,
    "session_id": 64,
    "godh_sha256": 64,
    "session_sha256": 64,
    "mac": 64,
}


@pytest.mark.parametrize("name", HEX_FIELDS)
def test_every_fingerprint_of_a_record_is_held_to_its_digits(name: str) -> None:
    digits = HEX_FIELDS[name]
    fields_ = json.loads(FIRST_RECORD)
    for odd in (
        *("", "0" * (digits - 1), "0" * (digits + 1), "A" * digits, "g" * digits),
        *("0" * digits + "\n", " " + "0" * (digits - 1), "٣" * digits),
    ):
        with pytest.raises(MalformedInput) as caught:
            LaunchRecord.from_bytes(json.dumps(fields_ | {name: odd}).encode())
        assert str(caught.value) == f"launch record {name}: is not {digits} hex digits"


@pytest.mark.parametrize("name", [field.name for field in fields(LaunchRecord)])
def test_every_field_of_a_record_is_held_to_its_kind(name: str) -> None:
    fields_ = json.loads(FIRST_RECORD)
    may_be_none = name in ("root", "generation", "claimed_platform_id", "cek")
    kinds = (fields_[name].__class__, *((type(None),) if may_be_none else ()))
    odds: tuple[object, ...] = (None, True, 7, 0.5, [], {}, "x")
    for odd in odds:
        if type(odd) not in kinds:
            with pytest.raises(MalformedInput, match=f"{name}: is missing or of the wrong"):
                LaunchRecord.from_bytes(json.dumps(fields_ | {name: odd}).encode())
    del fields_[name]
    with pytest.raises(MalformedInput, match=f"{name}: is missing or of the wrong"):
        LaunchRecord.from_bytes(json.dumps(fields_).encode())


@pytest.mark.parametrize("root", [None, "AMD Milan", "not AMD's: ARK 00"])
@pytest.mark.parametrize("generation", ["zen", "Milan", "", "bergamo"])
def test_a_generation_that_amd_has_not_is_refused_whatever_the_root(
    generation: str, root: str | None
) -> None:
    fields_ = json.loads(FIRST_RECORD) | {"generation": generation, "root": root}
    with pytest.raises(MalformedInput, match="generation: is not one of AMD's"):
        LaunchRecord.from_bytes(json.dumps(fields_).encode())
