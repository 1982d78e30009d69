"""``sev_attest.snp.sealed``: who can seal what, for which report, and who can open it."""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpke_peer
from sev_attest import _crypto
from sev_attest._keys import Kem
from sev_attest.errors import (
    MalformedInput,
    NotVerified,
    ReportInvalid,
    SevAttestError,
    Unsupported,
)
from sev_attest.snp import sealed as module
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.content import MAX_CONTENT
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.sealed import SealedSecrets, open_sealed, seal
from sev_attest.snp.spec import HOST_VMPL
from sev_attest.snp.transport import SIZES, TransportKey, TransportPrivateKey
from sev_attest.snp.verify import VerifiedReport
from snp_material import AMD, KEMS, MILAN, needs, verify
from test_snp_transport import CHALLENGE, CREATED, NONCE, PRIVATE, PRIVATE_KEY

SECRETS = {"luks-key": b"a passphrase", "736869e5-84f0-4973-92ec-06879ce3da0b": bytes(range(256))}


class Side(NamedTuple):
    """What guest and owner have after a report was verified."""

    key: TransportPrivateKey
    challenge: Challenge
    report: VerifiedReport

    def seal(self, **changes: object) -> SealedSecrets:
        arguments = {
            "key": self.key.public, "report": self.report, "challenge": self.challenge, **changes,
        }  # fmt: skip
        return seal(arguments.pop("secrets", SECRETS), **arguments)  # type: ignore[arg-type]

    def open(self, sealed: SealedSecrets, **changes: object) -> dict[str, bytes]:
        arguments = {
            "private_key": self.key, "report": self.report.report, "challenge": self.challenge,
            **changes,
        }  # fmt: skip
        return open_sealed(sealed, **arguments)  # type: ignore[arg-type]


def reported(report_data: bytes, vmpl: int = 0) -> VerifiedReport:
    report = MILAN.report(report_data=report_data, vmpl=vmpl)
    return verify(report, MILAN.vek(), AMD.ask, AMD.ark)


@cache
def side(kem: Kem = Kem.X25519) -> Side:
    private = (PRIVATE * 3)[: SIZES[kem].private]
    key = TransportPrivateKey(kem=kem, private=private)
    return Side(key, CHALLENGE, reported(CHALLENGE.report_data(key.public)))


def sealed_as(content: bytes, one: Side) -> SealedSecrets:
    """Seal what an owner's own program would not: anyone can seal to a public key."""
    info = module.LABEL + hashlib.sha384(one.report.report.raw).digest() + one.challenge.digest
    raw = _crypto.hpke_sealed(one.key.kem, one.key.public.public, content, info)
    assert raw is not None
    size = SIZES[one.key.kem].enc
    return replace(one.seal(), enc=raw[:size], ciphertext=raw[size:])


# from the owner to the guest


@pytest.mark.parametrize("kem", KEMS)
def test_what_is_sealed_opens_in_the_guest_and_from_the_file(kem: Kem) -> None:
    one = side(kem)
    sealed = one.seal()
    assert one.open(sealed) == SECRETS
    assert one.open(SealedSecrets.from_json(sealed.to_json())) == SECRETS


@pytest.mark.parametrize("kem", KEMS)
def test_a_second_implementation_of_hpke_opens_it(kem: Kem) -> None:
    one = side(kem)
    document = json.loads(one.seal().to_json())
    info = (
        b"sev-attest/snp/sealed/1\0"
        + hashlib.sha384(one.report.report.raw).digest()
        + one.challenge.digest
    )
    assert (document["kem"], document["kdf"], document["aead"]) == (int(kem), 1, 2)
    sealed = SealedSecrets.from_json(one.seal().to_json())
    content = hpke_peer.opened(kem, one.key.private, sealed.enc, sealed.ciphertext, info)
    names = sorted(SECRETS)
    expected = b"\x02\x00" + b"".join(
        bytes((len(name),)) + name.encode() + len(SECRETS[name]).to_bytes(4, "little")
        + SECRETS[name] for name in names
    )  # fmt: skip
    assert content == expected.ljust(1024, b"\0")


@needs(Kem.X25519)
def test_nothing_of_the_secrets_is_in_the_file() -> None:
    text = side().seal().to_json()
    for name, secret in SECRETS.items():
        assert name.encode() not in text
        assert secret not in text
        assert secret.hex().encode() not in text


@needs(Kem.X25519)
def test_the_length_tells_the_size_in_steps_of_1024_only() -> None:
    sizes = [
        len(side().seal(secrets={"a": bytes(size)}).ciphertext) - 16 for size in range(1, 3000)
    ]
    assert set(sizes) == {1024, 2048, 3072}
    assert all(after - before in (0, 1024) for before, after in pairwise(sizes))
    # 2 for the count, 1 and 1 for the name, 4 for the length
    assert sizes[1024 - 8 - 1] == 1024
    assert sizes[1024 - 8] == 2048


@needs(Kem.X25519)
@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}\Z"),
        st.binary(min_size=1, max_size=300),
        min_size=1,
        max_size=64,
    )
)
def test_any_secrets_come_back(secrets: dict[str, bytes]) -> None:
    assert side().open(side().seal(secrets=secrets)) == secrets


@needs(Kem.X25519)
def test_as_much_as_fits_comes_back() -> None:
    secrets = {"a": bytes(MAX_CONTENT - 8)}
    sealed = side().seal(secrets=secrets)
    assert side().open(SealedSecrets.from_json(sealed.to_json())) == secrets


# what the owner's side refuses


@needs(Kem.X25519)
def test_a_report_that_does_not_bind_the_key_to_the_challenge_gets_nothing() -> None:
    other = TransportPrivateKey(kem=Kem.X25519, private=bytes(32)).public
    cases: list[dict[str, object]] = [
        {"key": other},
        {"challenge": replace(CHALLENGE, nonce=bytes(32))},
        {"report": reported(bytes(64))},
        {"report": reported(CHALLENGE.report_data(other))},
    ]
    for changes in cases:
        with pytest.raises(
            ReportInvalid, match=r"key to challenge vm1 \(nonce .*: report_data is "
        ) as caught:
            side().seal(**changes)
        assert (caught.value.check, caught.value.exit_code) == ("snp.report-data", 1)


@needs(Kem.X25519)
def test_a_report_that_the_host_asked_for_gets_nothing() -> None:
    report = reported(CHALLENGE.report_data(PRIVATE_KEY.public), vmpl=HOST_VMPL)
    with pytest.raises(NotVerified, match="the host asked for this report") as caught:
        side().seal(report=report)
    assert caught.value.check == "snp.report-data"


def test_a_report_that_nobody_verified_gets_nothing() -> None:
    with pytest.raises(TypeError, match="VerifiedReport"):
        side().seal(report=side().report.report)


def test_a_key_of_a_kind_that_the_owner_does_not_accept_gets_nothing() -> None:
    challenge = replace(CHALLENGE, kems=(Kem.MLKEM768_X25519,))
    with pytest.raises(
        NotVerified, match=r"kind x25519, the challenge accepts mlkem768-x"
    ) as caught:
        side().seal(challenge=challenge)
    assert caught.value.check == "snp.transport-key.kem"


@needs(Kem.X25519)
def test_bytes_that_are_no_public_key_are_refused() -> None:
    key = TransportKey(kem=Kem.X25519, public=bytes(32))  # of low order: the secret would be zero
    report = reported(CHALLENGE.report_data(key))
    with pytest.raises(MalformedInput, match="nothing can be sealed to this key"):
        side().seal(key=key, report=report)


@needs(Kem.MLKEM768_X25519)
def test_bytes_that_are_no_hybrid_key_are_refused() -> None:
    key = TransportKey(kem=Kem.MLKEM768_X25519, public=b"\xff" * 1216)
    report = reported(CHALLENGE.report_data(key))
    with pytest.raises(MalformedInput, match="nothing can be sealed to this key"):
        side().seal(key=key, report=report)


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({}, "not 0"),
        ({str(number): b"x" for number in range(65)}, "not 65"),
        ({"": b"x"}, "a secret's name is"),
        ({"../key": b"x"}, "a secret's name is"),
        ({".key": b"x"}, "a secret's name is"),
        ({"k\u00e9y": b"x"}, "a secret's name is"),
        ({"k" * 129: b"x"}, "a secret's name is"),
        ({"key": b""}, "the secret key is empty"),
        ({"a": bytes(MAX_CONTENT - 7)}, "at most 524288"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_secrets_that_have_no_place_are_refused(secrets: dict[str, bytes], words: str) -> None:
    with pytest.raises(Unsupported, match=words) as caught:
        side().seal(secrets=secrets)
    assert caught.value.check == "snp.secrets"


def test_what_could_be_a_secret_in_a_name_s_place_is_not_shown() -> None:
    with pytest.raises(Unsupported) as caught:
        side().seal(secrets={"my pass phrase": b"x"})
    assert "phrase" not in str(caught.value)


# what the guest's side refuses


@needs(Kem.X25519)
def test_each_thing_of_another_is_named() -> None:
    one, sealed = side(), side().seal()
    other = TransportPrivateKey(kem=Kem.X25519, private=bytes(32))
    hybrid = TransportPrivateKey(kem=Kem.MLKEM768_X25519, private=bytes(96))
    fresh = AttestationReport.from_bytes(
        MILAN.report(report_data=one.report.report.report_data, guest_svn=1)
    )
    cases: dict[str, dict[str, object]] = {
        "challenge": {"challenge": replace(CHALLENGE, nonce=bytes(32))},
        "report": {"report": fresh},
        "key": {"private_key": other},
    }
    for check, changes in cases.items():
        with pytest.raises(NotVerified, match=f"another .*{check}") as caught:
            one.open(sealed, **changes)
        assert (caught.value.check, caught.value.exit_code) == (f"snp.sealed.{check}", 1)
    with pytest.raises(NotVerified, match="another transport key"):
        one.open(sealed, private_key=hybrid)
    # It says that it is for this report, which binds another key.
    answer = AttestationReport.from_bytes(MILAN.report(report_data=bytes(64)))
    lying = replace(sealed, report_digest=hashlib.sha384(answer.raw).digest())
    with pytest.raises(NotVerified, match="another transport key"):
        one.open(lying, report=answer)


@needs(Kem.X25519)
def test_a_report_or_challenge_that_only_says_it_is_the_same_does_not_open_it() -> None:
    one, sealed = side(), side().seal()
    fresh = AttestationReport.from_bytes(
        MILAN.report(report_data=one.report.report.report_data, guest_svn=1)
    )
    relabelled = replace(sealed, report_digest=hashlib.sha384(fresh.raw).digest())
    cases: list[tuple[SealedSecrets, dict[str, object]]] = [
        (relabelled, {"report": fresh}),
        (sealed, {"challenge": replace(CHALLENGE, expires=None)}),
        (sealed, {"challenge": replace(CHALLENGE, name="vm2")}),
        (sealed, {"challenge": replace(CHALLENGE, created=CREATED - timedelta(days=1))}),
    ]
    for given_, changes in cases:
        with pytest.raises(NotVerified, match="it was changed, or the challenge was") as caught:
            one.open(given_, **changes)
        assert caught.value.check == "snp.sealed.damaged"


@pytest.mark.parametrize("kem", KEMS)
def test_every_changed_byte_is_damage(kem: Kem) -> None:
    one, sealed = side(kem), side(kem).seal()
    step = 7 if kem is Kem.X25519 else 101
    for name in ("enc", "ciphertext"):
        value: bytes = getattr(sealed, name)
        for at in range(0, len(value), step):
            changed = value[:at] + bytes((value[at] ^ 0x01,)) + value[at + 1 :]
            with pytest.raises(NotVerified) as caught:
                one.open(replace(sealed, **{name: changed}))  # type: ignore[arg-type]
            assert caught.value.check == "snp.sealed.damaged"


ENTRY = b"\x01a\x01\x00\x00\x00x"


@needs(Kem.X25519)
@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x00",
        b"\x01\x00",
        b"\x41\x00" + ENTRY,
        b"\xff\xff" + ENTRY,
        b"\x01\x00" + b"\x00\x01\x00\x00\x00x",
        b"\x01\x00" + b"\x02..\x01\x00\x00\x00x",
        b"\x01\x00" + b"\x01/\x01\x00\x00\x00x",
        b"\x01\x00" + b"\x01a\x00\x00\x00\x00",
        b"\x01\x00" + b"\x01a\xff\xff\xff\xff",
        b"\x02\x00" + ENTRY + ENTRY,
        b"\x02\x00" + ENTRY.replace(b"a", b"b") + ENTRY,
        b"\x01\x00" + ENTRY + b"\x00\x01",
        b"\x01\x00" + ENTRY + bytes(1024),
    ],
    ids=[
        "none", "no-entry", "65", "65535", "no-name", "dots", "slash", "empty", "long", "twice",
        "order", "padding", "too-much-padding",
    ],
)  # fmt: skip
def test_content_that_no_owner_seals_is_damage(content: bytes) -> None:
    one = side()
    padded = content.ljust(-(-len(content) // 1024) * 1024, b"\0")
    with pytest.raises(NotVerified) as caught:
        one.open(sealed_as(padded, one))
    assert caught.value.check == "snp.sealed.damaged"


# the file


@cache
def written() -> SealedSecrets:
    """Return a file's value without HPKE: its bytes are no one's."""
    return SealedSecrets(
        challenge="vm1", nonce=NONCE, report_digest=bytes(48), kem=Kem.X25519, enc=bytes(32),
        ciphertext=bytes(1040),
    )  # fmt: skip


def test_the_file_comes_back() -> None:
    assert SealedSecrets.from_json(written().to_json()) == written()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("challenge", ".."), ("challenge", None), ("nonce", "00"), ("report_sha384", "00" * 32),
        ("kem", 0x10), ("kdf", 2), ("kdf", "1"), ("aead", 1), ("aead", None),
        ("enc", "AAAA"), ("enc", ""), ("ciphertext", ""), ("ciphertext", "AAAA"),
        ("ciphertext", "A" * 4096),
    ],
)  # fmt: skip
def test_a_field_with_another_value_is_malformed(name: str, value: object) -> None:
    document = json.loads(written().to_json()) | {name: value}
    with pytest.raises(MalformedInput) as caught:
        SealedSecrets.from_json(json.dumps(document).encode())
    assert caught.value.check == f"sealed-secrets.{name}"


def test_a_ciphertext_longer_than_any_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="which nothing sealed has"):
        replace(written(), ciphertext=bytes(MAX_CONTENT + 1024 + 16))


@needs(Kem.X25519)
def test_what_cannot_be_opened_says_nothing_secret() -> None:
    one = side()
    with pytest.raises(SevAttestError) as caught:
        one.open(written(), report=one.report.report)
    for hidden in (PRIVATE.hex(), *SECRETS):
        assert hidden not in str(caught.value)
    assert cast("NotVerified", caught.value).check == "snp.sealed.report"
