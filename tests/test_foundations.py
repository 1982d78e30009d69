"""errors, _wire, _encoding, policy, keys: what everything else stands on."""

import base64
import enum
import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sev_attest
from sev_attest import (
    MalformedInput,
    NotAttestable,
    SevAttestError,
    Unsupported,
    _wire,
    errors,
    sev,
)
from sev_attest._encoding import blob, from_base64, looks_like_text
from sev_attest._keys import Algorithm, Curve
from sev_attest.guest import CpuModel, Firmware, KernelHashes, VmsaProfile
from sev_attest.guest.footer import Footer
from sev_attest.owner import LaunchRecord, LedgerDamaged, Requirements
from sev_attest.owner.requirements import ReferenceValue
from sev_attest.sev import spec, states
from sev_attest.sev.launch import expected_measure
from sev_attest.sev.policy import compose
from sev_attest.sev.spec import Usage


def test_a_malformed_input_names_source_structure_field_place_and_reason() -> None:
    error = errors.MalformedInput("SEV certificate", "version", "9, expected 1", offset=0)
    with pytest.raises(MalformedInput), errors.reading("pdh.cert"), errors.reading("pdh"):
        raise error
    assert str(error) == "pdh: SEV certificate version at byte 0x0: 9, expected 1"
    assert error.check == "sev-certificate.version"
    assert error.exit_code == 6


def test_reading_names_the_file_of_a_nameless_os_error_and_of_a_guest_that_cannot_be() -> None:
    with pytest.raises(OSError, match="'initrd'"), errors.reading("initrd"):
        raise OSError(5, "Input/output error")
    with pytest.raises(OSError, match="'named'"), errors.reading("initrd"):
        raise OSError(5, "Input/output error", "named")
    with pytest.raises(NotAttestable, match="fw: no hashes"), errors.reading("fw"):
        raise errors.NotAttestable("no hashes")


def test_reading_leaves_other_errors_alone() -> None:
    with pytest.raises(KeyError), errors.reading("x"):
        raise KeyError


@pytest.mark.parametrize(
    "error",
    [
        errors.MalformedInput("TIK", "length", "3 bytes", offset=3, hint="h"),
        errors.ChainInvalid((errors.Failure("chain.a.b", "words", "hint", certificate="A"),)),
        errors.MeasurementMismatch("no", check="launch.measurement"),
        errors.RequirementsNotMet((errors.Failure("a.b", "words"), errors.Failure("a.c", "more"))),
        LedgerDamaged(("one", "two")),
    ],
)
def test_errors_cross_process_borders_whole(error: SevAttestError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.check, copy.hint) == (type(error), error.check, error.hint)
    assert str(copy) == str(error)
    assert vars(copy).keys() == vars(error).keys()


def test_every_error_of_the_library_can_be_raised_by_a_worker_process() -> None:
    """One that cannot be unpickled would end all the workers of a pool."""

    def kinds(kind: type[SevAttestError]) -> Iterator[type[SevAttestError]]:
        yield kind
        for each in kind.__subclasses__():
            yield from kinds(each)

    for kind in kinds(SevAttestError):
        error = kind.__new__(kind, "words")
        error.__dict__ = {"check": "a.b", "hint": "", "source": "", "facts": {}, "more": (1,)}
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.args, vars(copy)) == (kind, ("words",), vars(error))


def test_a_failure_shows_its_id() -> None:
    assert "chain.a.b" in repr(errors.Failure("chain.a.b", "words"))


def test_a_reader_never_reads_behind_the_end() -> None:
    reader = _wire.Reader(b"\1\2\3", "thing")
    assert reader.number(2, "first") == 0x0201
    with pytest.raises(MalformedInput, match="thing second at byte 0x2: 1 bytes left, 2 needed"):
        reader.number(2, "second")


def test_a_reader_refuses_unknown_codes_reserved_bytes_and_wrong_lengths() -> None:
    with pytest.raises(MalformedInput, match="usage at byte 0x0: unknown code 0x63"):
        _wire.Reader(b"\x63\0\0\0", "thing").code(Usage, "usage")
    with pytest.raises(MalformedInput, match="reserved bytes are not zero"):
        _wire.Reader(b"\0\1", "thing").zeros(2, "reserved")
    with pytest.raises(MalformedInput, match="thing: 1 bytes, expected 2"):
        _wire.Reader(b"\0", "thing", 2)


def test_a_guid_is_mixed_endian_on_the_wire() -> None:
    guid = "736869e5-84f0-4973-92ec-06879ce3da0b"
    raw = _wire.guid_bytes(guid)
    assert raw.hex() == "e5696873f084734992ec06879ce3da0b"
    assert _wire.guid_text(raw) == guid


@given(st.binary(min_size=1, max_size=200), st.integers(1, 80), st.sampled_from(["\n", "\r\n"]))
def test_base64_is_read_however_it_is_wrapped(data: bytes, width: int, newline: str) -> None:
    text = base64.b64encode(data).decode()
    wrapped = newline.join(text[at : at + width] for at in range(0, len(text), width))
    for form in (wrapped, wrapped + newline, "\ufeff" + wrapped, text):
        assert from_base64(form.encode(), "blob") == data


@pytest.mark.parametrize("text", ["QUJ", "Q", "=", "QUJD=", "QUI=QQ", "A===", "==QQ"])
def test_cut_or_wrongly_padded_base64_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match="not base64"):
        from_base64(text.encode(), "blob")


@pytest.mark.parametrize("text", ["QUJ*", "QU-D", "QU_D", "QUJD\x00", "QÜJD"])
def test_a_wrong_alphabet_is_named(text: str) -> None:
    with pytest.raises(MalformedInput, match=r"at byte 0x\d: not base64: character"):
        from_base64(text.encode(), "blob")


@given(st.binary(min_size=16, max_size=16))
def test_a_key_is_read_as_binary_base64_or_hex(key: bytes) -> None:
    for form in (key, base64.b64encode(key), key.hex().encode(), b" " + key.hex().upper().encode()):
        assert blob(form, (16,), "TIK") == key


def test_hex_digits_that_are_base64_are_read_by_size() -> None:
    text = b"abcdef0123456789abcdef01"  # 12 bytes as hex, 18 as base64
    assert len(blob(text, (18,), "blob")) == 18
    assert len(blob(text, (12,), "blob")) == 12


@given(st.binary(max_size=64).filter(lambda data: len(data) != 16))
def test_a_wrong_size_is_refused_without_showing_the_bytes(data: bytes) -> None:
    with suppress(MalformedInput):
        assert len(blob(data, (16,), "TIK")) == 16  # text of 16 bytes in hex or base64
        return
    with pytest.raises(MalformedInput, match="expected 16") as caught:
        blob(data, (16,), "TIK")
    assert len(str(caught.value)) < 100


def test_text_is_told_from_binary() -> None:
    assert looks_like_text(b"\xef\xbb\xbfab c\r\n")
    assert not looks_like_text(b"ab\0")
    assert not looks_like_text(b"\xff")


@given(st.integers(0, 0xFFFFFFFF))
def test_a_policy_keeps_its_number(value: int) -> None:
    policy = sev.GuestPolicy(value)
    assert int(policy) == value
    assert int(str(policy), 16) == value
    assert policy.min_api == (value >> 16 & 0xFF, value >> 24)
    assert policy.reserved == value & 0xFFC0
    assert policy.es == bool(value & 4)
    assert policy.debug != bool(value & 1)


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_a_policy_has_32_bits(value: int) -> None:
    with pytest.raises(MalformedInput, match="policy"):
        sev.GuestPolicy(value)


def test_transport_keys_never_show() -> None:
    keys = sev.TransportKeys.from_tk(b"T" * 16 + b"I" * 16)
    assert (keys.tek, keys.tik) == (b"T" * 16, b"I" * 16)
    assert repr(keys) == "TransportKeys()"


@pytest.mark.parametrize(("tek", "tik", "name"), [(15, 16, "TEK"), (16, 17, "TIK")])
def test_transport_keys_have_16_bytes_each(tek: int, tik: int, name: str) -> None:
    with pytest.raises(MalformedInput, match=f"^{name}: 1[57] bytes, expected 16"):
        sev.TransportKeys(tek=bytes(tek), tik=bytes(tik))


def test_the_session_s_name_follows_from_the_tik_alone_and_does_not_tell_it() -> None:
    keys = sev.TransportKeys(tek=bytes(16), tik=b"I" * 16)
    assert keys.session_id == sev.TransportKeys(tek=b"T" * 16, tik=b"I" * 16).session_id
    assert keys.session_id != sev.TransportKeys(tek=bytes(16), tik=bytes(16)).session_id
    assert len(keys.session_id) == 64
    assert keys.tik.hex() not in keys.session_id


def fields_of(one: object) -> list[str]:
    """Name the fields of a dataclass, a named tuple or a class of firmware; none of all others."""
    if not isinstance(one, type):
        return []
    if is_dataclass(one):
        return [field.name for field in fields(one)]
    if issubclass(one, Footer):
        return [name for kind in one.__mro__ for name in getattr(kind, "__slots__", ())]
    return list(getattr(one, "_fields", ())) if issubclass(one, tuple) else []


def library_values() -> list[type]:
    """Find every value type of the library, which `cli` and `testing` do not belong to."""
    found: set[type] = set()
    for module in pkgutil.walk_packages(sev_attest.__path__, "sev_attest."):
        if module.name.split(".")[1] in ("cli", "testing", "__main__"):
            continue
        module_ = importlib.import_module(module.name)
        found |= {one for one in vars(module_).values() if fields_of(one)}
    return sorted(found, key=lambda one: (one.__module__, one.__name__))


PROOFS = {"VerifiedChain", "VerifiedLaunch", "VerifiedReport", "Session", "LaunchRecord"}


@pytest.mark.parametrize("made", library_values(), ids=lambda made: made.__name__)
def test_what_the_library_hands_out_cannot_be_changed(made: type) -> None:
    one: Any = made.__new__(made, *fields_of(made)) if issubclass(made, tuple) else None
    one = object.__new__(made) if one is None else one
    for name in fields_of(made):
        with pytest.raises(AttributeError):  # for a dataclass, that is FrozenInstanceError
            setattr(one, name, None)
        with pytest.raises(AttributeError):
            delattr(one, name)


def test_the_proofs_are_among_what_cannot_be_changed() -> None:
    made = {made.__name__: made for made in library_values()}
    assert made.keys() >= PROOFS | {"Firmware", "Signature"}
    assert all(is_dataclass(made[proof]) for proof in PROOFS)  # nobody makes one from a tuple


def test_a_proof_that_was_made_cannot_be_changed(session: sev.Session) -> None:
    for proof, name, value in (
        (session, "policy", sev.GuestPolicy(0)),
        (session.keys, "tik", bytes(16)),
        (session.platform, "root", None),
        (session.policy, "value", 0),
        (session.godh, "body", b""),
        (session.pdh.public_key, "x", 0),
        (session.pdh.signatures[0], "value", b""),
    ):
        before = getattr(proof, name)
        with pytest.raises(AttributeError):
            setattr(proof, name, value)
        assert getattr(proof, name) is before


def test_the_session_s_name_stays_what_owners_ledgers_have() -> None:
    # HMAC-SHA256 with the TIK over "sev-attest session": `printf 'sev-attest session' |
    # openssl dgst -sha256 -mac HMAC -macopt hexkey:000102030405060708090a0b0c0d0e0f`
    keys = sev.TransportKeys(tek=bytes(16), tik=bytes(range(16)))
    assert keys.session_id == "479ccc42c99b6e43ef02ceeddeff739718ab036f6afc17293103b39c7db98f5b"


NAMED = {
    "no-debug": 0x1,
    "no-key-sharing": 0x2,
    "es": 0x4,
    "no-send": 0x8,
    "domain": 0x10,
    "sev": 0x20,
}


def test_a_policy_is_composed_of_the_names_that_people_write() -> None:
    for name, value in NAMED.items():
        assert compose([name]) == compose([name.upper(), f" {name} "]) == sev.GuestPolicy(value)
        assert sev.GuestPolicy(value).names() == [name]
    assert sev.GuestPolicy(0x3F).names() == [*NAMED]
    assert compose([*NAMED, "api>=255.255"]) == sev.GuestPolicy(0xFFFF003F)
    assert compose(["api>=1.51"]).names() == ["api>=1.51"]
    assert compose(["api>=0.17"]).names() == ["api>=0.17"]
    assert compose(["api>=1.0"]).names() == ["api>=1.0"]
    for odd in ("", "debug", "api>=1", "api>=256.0", "api>=0.256", "api>=1.1.1", "api>=٣.1", "0x1"):
        with pytest.raises(Unsupported, match="no policy bit") as caught:
            compose([odd])
        assert caught.value.check == "policy.name"
    with pytest.raises(Unsupported, match="a policy has one api>=") as caught:
        compose(["api>=0.1", "api>=1.0"])
    assert caught.value.check == "policy.name"


@pytest.mark.parametrize(
    ("value", "risks"), [(0, 7), (0x3F, 1), (0x0100003F, 0), (0x0001003F, 0), (0x05, 5)]
)
def test_each_clear_bit_and_a_missing_minimum_is_a_risk(value: int, risks: int) -> None:
    found = sev.GuestPolicy(value).risks()
    assert len(found) == len(set(found)) == risks
    assert any("any API version" in risk for risk in found) == (value >> 16 == 0)


CODES: dict[type[enum.IntEnum | enum.IntFlag], dict[str, int]] = {
    spec.Usage: {
        "ARK": 0, "ASK": 0x13, "INVALID": 0x1000, "OCA": 0x1001, "PEK": 0x1002, "PDH": 0x1003,
        "CEK": 0x1004,
    },
    Algorithm: {
        "INVALID": 0, "RSA_SHA256": 1, "ECDSA_SHA256": 2, "ECDH_SHA256": 3, "RSA_SHA384": 0x101,
        "ECDSA_SHA384": 0x102, "ECDH_SHA384": 0x103,
    },
    Curve: {"INVALID": 0, "P256": 1, "P384": 2},
    spec.PolicyBit: {"NODBG": 1, "NOKS": 2, "ES": 4, "NOSEND": 8, "DOMAIN": 16, "SEV": 32},
    spec.Context: {"LAUNCH_SECRET": 1, "LAUNCH_MEASURE": 4},
    states.PlatformState: {"UNINIT": 0, "INIT": 1, "WORKING": 2},
    states.GuestState: {
        "UNINIT": 0, "LUPDATE": 1, "LSECRET": 2, "RUNNING": 3, "SUPDATE": 4, "RUPDATE": 5,
        "SENT": 6,
    },
    states.Status: {
        "SUCCESS": 0, "INVALID_PLATFORM_STATE": 1, "INVALID_GUEST_STATE": 2, "INVALID_CONFIG": 3,
        "INVALID_LEN": 4, "ALREADY_OWNED": 5, "INVALID_CERTIFICATE": 6, "POLICY_FAILURE": 7,
        "INACTIVE": 8, "INVALID_ADDRESS": 9, "BAD_SIGNATURE": 10, "BAD_MEASUREMENT": 11,
        "ASID_OWNED": 12, "INVALID_ASID": 13, "WBINVD_REQUIRED": 14, "DFFLUSH_REQUIRED": 15,
        "INVALID_GUEST": 16, "INVALID_COMMAND": 17, "ACTIVE": 18, "HW_PLATFORM": 19,
        "HW_UNSAFE": 20, "UNSUPPORTED": 21, "INVALID_PARAM": 22, "RESOURCE_LIMIT": 23,
        "SECURE_DATA_INVALID": 24,
    },
}  # fmt: skip
"""AMD 55766; the status codes also in Linux's include/uapi/linux/psp-sev.h."""


@pytest.mark.parametrize("codes", CODES, ids=lambda codes: codes.__name__)
def test_the_codes_are_amd_s(codes: type[enum.IntEnum | enum.IntFlag]) -> None:
    assert {code.name: code.value for code in codes} == CODES[codes]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_key_is_named_as_sevctl_names_it(algorithm: Algorithm, session: sev.Session) -> None:
    names = {"ECDSA_SHA256": "E256", "ECDH_SHA256": "D256", "ECDSA_SHA384": "E384",
             "ECDH_SHA384": "D384", "RSA_SHA256": "R256", "RSA_SHA384": "R384",
             "INVALID": "I"}  # fmt: skip
    certificate = replace(session.pdh, algorithm=algorithm)
    assert certificate.key_name == f"EP384 {names[algorithm.name]}"


def public_values(verified: sev.VerifiedChain, session: sev.Session) -> list[object]:
    """Return one of every public value, as large as they come."""
    chain = verified.chain
    assert chain.ark is not None
    cpu = CpuModel.named("EPYC-Milan")
    pages = VmsaProfile(cpu=cpu).pages(0x80B004)
    firmware = Firmware.read(bytes(range(256)) * 4096)
    kernel = KernelHashes.of(b"kernel")
    info = sev.LaunchInfo(measurement=bytes(48), api_major=1, api_minor=51, build_id=1)
    digest = bytes(32)
    measure = expected_measure(
        session.keys.tik,
        api=(1, 51),
        build_id=1,
        policy=session.policy,
        digest=digest,
        nonce=bytes(16),
    )
    right = replace(info, measurement=measure + bytes(16))
    launch = sev.verify_launch(right, keys=session.keys, policy=session.policy, digest=digest)
    report = sev.AttestationReport.from_bytes(
        bytes(48) + bytes(4) + b"\2\x10\0\0" + b"\2\0\0\0" + bytes(4) + b"\xff" * 144
    )
    record = LaunchRecord.of(session, "a name", datetime.now(UTC))
    launches = (ReferenceValue(name="vm", digests={bytes((n,)) * 32: "" for n in range(99)}),)
    return [
        chain,
        chain.pdh,
        chain.pdh.public_key,
        chain.pdh.signatures[0],
        chain.ark,
        chain.ark.public_key,
        verified,
        verified.root,
        session,
        session.keys,
        session.policy,
        cpu,
        pages,
        firmware,
        kernel,
        sev.MeasuredGuest(firmware=firmware, vmsa=pages),
        sev.MeasuredRange(what="firmware", offset=0, size=1, sha256="0" * 64),
        right,
        launch,
        report,
        record,
        sev.build_secret(launch, {"luks-key": bytes(9999)}),
        Requirements(launches=launches, ceks=frozenset(f"{n:064}" for n in range(99))),
        *launches,
        sev.OwnerKey.generate(),
        sev.Diagnosis(findings=(), tried=0, ruled_out=(), complete=True),
    ]


def test_a_repr_is_short_and_tells_no_key(
    verified: sev.VerifiedChain, session: sev.Session
) -> None:
    keys = (session.keys.tik, session.keys.tek)
    for value in public_values(verified, session):
        shown = repr(value)
        assert shown.startswith(type(value).__name__)
        assert len(shown) < 500, type(value)
        assert not any(key.hex() in shown or repr(key) in shown for key in keys)


def test_what_is_no_policy_is_named_with_what_is_wanted(
    verified: sev.VerifiedChain, session: sev.Session
) -> None:
    wanted = r"policy must be a GuestPolicy, such as GuestPolicy\(0x5\), not int"
    five: Any = 5
    report = sev.AttestationReport.from_bytes(
        bytes(48) + bytes(4) + b"\2\x10\0\0" + b"\2\0\0\0" + bytes(148)
    )
    info = sev.LaunchInfo(measurement=bytes(48), api_major=1, api_minor=51, build_id=1)
    with pytest.raises(TypeError, match=wanted):
        sev.Session.create(verified, policy=five)
    with pytest.raises(TypeError, match=wanted):
        sev.Session.create_unverified(verified.pdh, policy=five)
    with pytest.raises(TypeError, match=wanted):
        sev.verify_launch(info, keys=session.keys, policy=five, digest=bytes(32))
    with pytest.raises(TypeError, match=wanted):
        sev.verify_report(report, verified, nonce=bytes(16), policy=five)


def test_standard_input_is_called_that() -> None:
    with pytest.raises(MalformedInput, match=r"^standard input: TIK: 1"), errors.reading("-"):
        raise errors.MalformedInput("TIK", "length", "1 bytes, expected 16")
