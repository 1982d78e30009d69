"""chain/: certificates, roots, packagings, and the check."""

import base64
import json
import struct
import uuid
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from sev_attest import (
    ChainInvalid,
    MalformedInput,
    NotVerified,
    SevAttestError,
    Unsupported,
    _crypto,
    sev,
)
from sev_attest._keys import Algorithm, Curve
from sev_attest._snp import TABLE_CERTIFICATES
from sev_attest.sev.chain import verify
from sev_attest.sev.chain._amd_keys import AMD_KEYS, AMD_ROOTS
from sev_attest.sev.chain.chain import Collected
from sev_attest.sev.chain.packaging import MAX_FILE, certificate_of, read_contents
from sev_attest.sev.spec import Usage
from sev_attest.testing import Authority, Platform

LINKS = ("pdh", "pek", "oca", "cek")


def checks(chain: sev.Chain, roots: list[sev.Root] | None = None) -> set[str]:
    """Verify a chain that must fail, and give the ids of all that failed."""
    with pytest.raises(ChainInvalid) as caught:
        sev.verify_chain(chain, roots=roots)
    assert caught.value.check == caught.value.failures[0].check
    assert caught.value.certificate == caught.value.failures[0].certificate
    found = {failure.check for failure in caught.value.failures}
    assert found <= verify.CHECKS.keys()
    return found


def swapped(chain: sev.Chain, name: str, certificate: Any) -> sev.Chain:
    """Put another certificate in the place of that name."""
    return replace(chain, **{name: certificate})


# certificates


def test_a_certificate_is_written_as_it_was_read(platform: Platform) -> None:
    for name in LINKS:
        data = getattr(platform.export(), name).to_bytes()
        assert len(data) == 2084
        assert sev.Certificate.from_bytes(data).to_bytes() == data
    for ca in (platform.authority.ask, platform.authority.ark):
        assert sev.AmdCaCertificate.from_bytes(ca.to_bytes()).to_bytes() == ca.to_bytes()
        unsigned = replace(ca, signature=b"").to_bytes()
        assert sev.AmdCaCertificate.from_bytes(unsigned).signature == b""


def test_every_truncation_and_extension_of_a_certificate_is_refused(platform: Platform) -> None:
    data = platform.export().pdh.to_bytes()
    for size in (*range(len(data)), len(data) + 1):
        with pytest.raises(MalformedInput, match="expected 2084"):
            sev.Certificate.from_bytes(data.ljust(size, b"\0")[:size])
    data = platform.authority.ask.to_bytes()
    good = {len(data), len(platform.authority.ask.body)}
    for size in set(range(len(data) + 2)) - good:
        with pytest.raises(MalformedInput):
            sev.AmdCaCertificate.from_bytes(data.ljust(size, b"\0")[:size])


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [
        (0x000, 2, "version"),
        (0x008, 0x13, "pub_key_usage"),
        (0x008, 0x77, "pub_key_usage"),
        (0x00C, 0x77, "pub_key_algo"),
        (0x010, 7, "curve"),
        (0x414, 0x77, "sig1_usage"),
        (0x418, 0x77, "sig1_algo"),
        (0x61C, 0x77, "sig2_usage"),
        (0x620, 0x77, "sig2_algo"),
        (0x4AC, 1, "sig1"),
        (0x6B4, 1, "sig2"),
    ],
)
def test_a_certificate_with_an_odd_field_is_refused(
    milan: Platform, offset: int, value: int, field: str
) -> None:
    data = bytearray(milan.export().pek.to_bytes())
    data[offset : offset + 2] = value.to_bytes(2, "little")
    with pytest.raises(MalformedInput) as caught:
        sev.Certificate.from_bytes(bytes(data))
    assert caught.value.check == f"sev-certificate.{field}"
    named = "SEV certificate" if field == "pub_key_usage" else "SEV certificate (PEK)"
    assert str(caught.value).startswith(named)


def test_a_cek_as_amd_served_it_before_2019_is_to_be_downloaded_again(milan: Platform) -> None:
    data = bytearray(milan.export().cek.to_bytes())
    data[0x61C:0x620] = (0x10).to_bytes(4, "little")
    with pytest.raises(MalformedInput, match=r"^SEV certificate \(CEK\) sig2_usage") as caught:
        sev.Certificate.from_bytes(bytes(data))
    assert "before 2019" in str(caught.value)
    assert caught.value.hint.startswith("download it again: https://kdsintf.amd.com/cek/id/")


def owned(platform: Platform, changes: dict[int, bytes]) -> sev.Chain:
    """Have a platform taken over by an owner whose OCA has ``changes`` in its signed bytes."""
    owner = sev.OwnerKey.generate()
    body = bytearray(owner.certificate().body)
    for at, data in changes.items():
        body[at : at + len(data)] = data
    oca = owner.sign(replace(owner.certificate(), body=bytes(body)))
    platform.pek_cert_import(owner.sign_pek(platform.pek_csr()).to_bytes(), oca.to_bytes())
    return platform.export()


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, ()),
        ({0x0A4: b"\xa5" * 880}, ("pub_key",)),
        ({0x413: b"\1"}, ("pub_key",)),
        ({0x006: b"\0\1"}, ("reserved",)),
        ({0x006: b"\1", 0x200: b"\1"}, ("reserved", "pub_key")),
    ],
)
def test_reserved_bytes_that_are_signed_are_taken_as_they_came(
    changes: dict[int, bytes], fields: tuple[str, ...]
) -> None:
    platform = Platform(b"owned")
    chain = sev.Chain.from_bytes(owned(platform, changes).to_bytes())
    verified = sev.verify_chain(chain, roots=[platform.authority.root])
    assert chain.oca.reserved == fields
    assert (chain.pdh.reserved, chain.pek.reserved, chain.cek.reserved) == ((), (), ())
    assert sev.Session.create(verified, policy=sev.GuestPolicy(1)).platform is verified


@pytest.mark.parametrize("at", [*range(0x006, 0x008), *range(0x0A4, 0x414, 97), 0x413])
def test_a_reserved_byte_that_was_changed_after_signing_breaks_the_signature(at: int) -> None:
    platform = Platform(b"owned")
    chain = owned(platform, {0x0A4: b"\xa5" * 880})
    body = bytearray(chain.oca.body)
    body[at] ^= 1
    changed = replace(chain, oca=replace(chain.oca, body=bytes(body)))
    assert "chain.oca.self-signed" in checks(changed, [platform.authority.root])


def test_reserved_bytes_of_asks_and_arks_are_taken_if_they_are_signed() -> None:
    authority = Authority()
    data = bytearray(authority.ask.to_bytes())
    data[0x28] = 1
    ask = sev.AmdCaCertificate.from_bytes(bytes(data))
    assert (ask.reserved, authority.ask.reserved) == (("reserved",), ())
    platform = Platform(b"p", authority=authority)
    chain = replace(platform.export(), ask=ask, ark=authority.ark)
    found = checks(chain, [authority.root])
    assert "chain.ask.signed-by-ark" in found


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [
        (0x00, 2, "version"),
        (0x24, 0x1002, "key_usage"),
        (0x24, 0x77, "key_usage"),
        (0x38, 2048, "pubexp_size"),
        (0x3C, 1024, "modulus_size"),
    ],
)
def test_a_ca_certificate_with_an_odd_field_is_refused(offset: int, value: int, field: str) -> None:
    data = bytearray(Authority().ask.to_bytes())
    data[offset : offset + 4] = value.to_bytes(4, "little")
    with pytest.raises(MalformedInput) as caught:
        sev.AmdCaCertificate.from_bytes(bytes(data))
    assert caught.value.check == f"ask/ark-certificate.{field}"
    named = "ASK/ARK certificate" if field == "key_usage" else "ASK/ARK certificate (ASK)"
    assert str(caught.value).startswith(named)


# roots


def test_the_pinned_keys_have_the_fingerprints_that_amd_s_certificates_have() -> None:
    assert [root.generation for root in sev.amd_roots()] == list(sev.Generation)
    for root in sev.amd_roots():
        assert root.generation is not None
        assert root.ask is not None
        keys = AMD_KEYS[root.generation]
        assert root.ark.fingerprint == keys["ark"]["fingerprint"]
        assert root.ask.fingerprint == keys["ask"]["fingerprint"]


def test_the_pinned_roots_sign_themselves_and_their_ask() -> None:
    for root in sev.amd_roots():
        assert root.ask is not None
        assert verify._rsa_signs(root.ark, root.ark)
        assert verify._rsa_signs(root.ark, root.ask)


# the check


def test_an_honest_chain_verifies_with_and_without_its_ca(platform: Platform) -> None:
    authority = platform.authority
    for ask in (None, authority.ask):
        for ark in (None, authority.ark):
            chain = replace(platform.export(), ask=ask, ark=ark)
            verified = sev.verify_chain(chain, roots=[*sev.amd_roots(), authority.root])
            assert verified.root == authority.root
            assert verified.generation is None
            assert verified.chain.ask == authority.ask
            assert verified.chain.ark == authority.ark
            assert verified.pdh == platform.export().pdh


def test_a_test_platform_is_refused_unless_its_root_is_named(platform: Platform) -> None:
    assert checks(platform.export()) == {"chain.cek.signed-by-ask"}
    whole = replace(platform.export(), ask=platform.authority.ask, ark=platform.authority.ark)
    assert checks(whole) == {"chain.ark.trusted"}


def test_no_root_at_all_is_an_error_not_an_approval(milan: Platform) -> None:
    with pytest.raises(Unsupported, match="no trusted root"):
        sev.verify_chain(milan.export(), roots=[])


@pytest.mark.parametrize("generation", list(sev.Generation))
@pytest.mark.parametrize("signed", [True, False], ids=["self-signed", "unsigned"])
def test_a_forged_chain_with_amd_s_key_ids_is_refused(
    generation: sev.Generation, *, signed: bool
) -> None:
    amd = next(root for root in sev.amd_roots() if root.generation is generation)
    assert amd.ask is not None
    forger = Authority(
        amd.ark.public_key.bits, key_ids=(amd.ark.key_id, amd.ask.key_id), signed_ark=signed
    )
    chain = Platform(b"forger", authority=forger).export()
    expected = {"chain.ark.trusted"} if signed else {"chain.ark.trusted", "chain.ark.self-signed"}
    assert checks(replace(chain, ask=forger.ask, ark=forger.ark)) == expected
    # under AMD's own certificates, or a mixture, the forged signatures do not hold
    assert "chain.cek.signed-by-ask" in checks(chain)
    assert "chain.cek.signed-by-ask" in checks(replace(chain, ask=amd.ask, ark=amd.ark))
    assert "chain.ask.signed-by-ark" in checks(replace(chain, ask=forger.ask, ark=amd.ark))
    assert "chain.cek.signed-by-ask" in checks(replace(chain, ark=amd.ark))
    assert "chain.ark.trusted" in checks(replace(chain, ask=forger.ask))
    with pytest.raises(ChainInvalid, match=f"id of the AMD {generation.title()} ARK, but"):
        sev.verify_chain(replace(chain, ask=forger.ask, ark=forger.ark))
    name = f"AMD {generation.title()} ASK"
    for ark, words in (
        (amd.ark, "the ARK's signature over the ASK does not hold"),
        (None, "the chain has no ARK, and no trusted root signs its ASK"),
    ):
        expected_words = f"{words} (it carries the id of the {name}, but another key)"
        with pytest.raises(ChainInvalid) as caught:
            sev.verify_chain(replace(chain, ask=forger.ask, ark=ark))
        assert expected_words in [failure.message for failure in caught.value.failures]


def test_a_forged_chain_with_the_key_ids_of_a_named_root_is_told_apart() -> None:
    genuine = Authority()
    ids = (genuine.ark.key_id, genuine.ask.key_id)
    forger = Authority(key_ids=ids, forged=True)
    chain = replace(Platform(b"forger", authority=forger).export(), ask=forger.ask)
    roots = [*sev.amd_roots(), sev.Root(ark=genuine.ark, ask=genuine.ask)]
    for ark, role, known in (
        (forger.ark, "ARK", genuine.ark),
        (genuine.ark, "ASK", genuine.ask),
    ):
        with pytest.raises(ChainInvalid) as caught:
            sev.verify_chain(replace(chain, ark=ark), roots=roots)
        words = f"(it carries the id of the trusted {role} {known.fingerprint[:16]}, but another"
        assert words in caught.value.failures[0].message
    # A root without an ASK has none to be mistaken for.
    with pytest.raises(ChainInvalid) as caught:
        sev.verify_chain(replace(chain, ark=genuine.ark), roots=[sev.Root(ark=genuine.ark)])
    assert caught.value.failures[0].message == "the ARK's signature over the ASK does not hold"


def test_a_chain_with_a_trusted_ark_but_no_ask_that_signs_the_cek_is_refused(
    milan: Platform,
) -> None:
    bare = sev.Root(ark=milan.authority.ark)
    assert checks(milan.export(), [bare]) == {"chain.cek.signed-by-ask"}
    with_ark = replace(milan.export(), ark=milan.authority.ark)
    assert checks(with_ark, [bare]) == {"chain.cek.signed-by-ask"}


def test_an_ark_without_signature_is_known_by_a_trusted_root_to_the_byte() -> None:
    signed, unsigned = Authority(2048), Authority(2048, signed_ark=False)
    chain = Platform(b"p", authority=signed).export()
    whole = replace(chain, ask=signed.ask, ark=unsigned.ark)
    assert sev.verify_chain(whole, roots=[signed.root]).root == signed.root
    other_id = replace(whole, ark=Authority(2048, key_ids=(bytes(16),) * 2, signed_ark=False).ark)
    assert checks(other_id, [signed.root]) == {"chain.ark.self-signed"}


def flipped(data: bytes, bit: int) -> bytes:
    """Change one bit."""
    return data[: bit // 8] + bytes((data[bit // 8] ^ 1 << bit % 8,)) + data[bit // 8 + 1 :]


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("name", LINKS)
def test_every_flipped_bit_that_a_platform_s_signatures_cover_is_refused(
    milan: Platform, name: str
) -> None:
    chain, roots = milan.export(), [milan.authority.root]
    data = getattr(chain, name).to_bytes()
    # Of the reserved bytes behind the key, which are as good as each other, a bit of every fourth.
    for bit in (*range(0xA4 * 8), *range(0xA4 * 8, 0x414 * 8, 33)):
        try:
            changed = sev.Certificate.from_bytes(flipped(data, bit))
        except MalformedInput:
            continue
        assert any(name in check for check in checks(swapped(chain, name, changed), roots))


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize(
    ("platform", "name"),
    [*((4096, name) for name in LINKS), (2048, "cek")],  # 2048 bits change that signature
    indirect=["platform"],
    ids=[*LINKS, "cek-of-naples"],
)
def test_every_flipped_byte_of_a_platform_certificate_is_refused(
    platform: Platform, name: str
) -> None:
    chain, roots = platform.export(), [platform.authority.root]
    certificate = getattr(chain, name)
    data = certificate.to_bytes()
    used = [0x414 + 8 + 144, 0x61C + 8 + 144]
    if name == "cek":
        used[0] = 0x414 + 8 + platform.authority.ark.public_key.bits // 8
    second = 0x61C if certificate.signatures[1].empty else used[1]
    # The signed range and each signature in use: one bit of every byte, another one each time.
    for at in (*range(used[0]), *range(0x61C, second)):
        try:
            changed = sev.Certificate.from_bytes(flipped(data, at * 8 + at % 8))
        except MalformedInput:
            continue
        assert any(name in check for check in checks(swapped(chain, name, changed), roots))


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("name", ["ask", "ark"])
def test_every_flipped_byte_of_a_ca_certificate_is_refused(platform: Platform, name: str) -> None:
    authority = platform.authority
    chain = replace(platform.export(), ask=authority.ask, ark=authority.ark)
    data = getattr(authority, name).to_bytes()
    for at in range(len(data)):
        try:
            changed = sev.AmdCaCertificate.from_bytes(flipped(data, at * 8 + at % 8))
        except MalformedInput:
            continue
        assert checks(swapped(chain, name, changed), [authority.root])


def test_a_wrong_algorithm_or_curve_is_refused_even_if_it_is_signed(milan: Platform) -> None:
    chain, roots = milan.export(), [milan.authority.root]
    key = chain.pdh.public_key
    for change, expected in (
        ({"algorithm": Algorithm.ECDSA_SHA256}, "chain.pdh.algorithm"),
        ({"algorithm": Algorithm.ECDH_SHA384}, "chain.pdh.algorithm"),
        ({"public_key": replace(key, curve=Curve.P256)}, "chain.pdh.curve"),
        ({"public_key": replace(key, y=key.y ^ 1)}, "chain.pdh.point"),
        ({"public_key": replace(key, x=0, y=0)}, "chain.pdh.point"),
        ({"public_key": replace(key, x=1 << 575)}, "chain.pdh.point"),
    ):
        base = {"usage": Usage.PDH, "algorithm": chain.pdh.algorithm, "public_key": key}
        pdh = sev.Certificate.build(**(base | change))  # type: ignore[arg-type]
        signed = replace(pdh, signatures=(milan.sign(Usage.PEK, pdh.body), chain.cek.signatures[1]))
        assert checks(replace(chain, pdh=signed), roots) == {expected}


P384 = 2**384 - 2**128 - 2**96 + 2**32 - 1


def test_only_points_of_the_curve_in_their_one_form_are_loaded(milan: Platform) -> None:
    good = milan.export().pdh.public_key
    assert _crypto.p384_point(good) is not None
    # x = 0 is on the curve: its y is a root of b, which is a square
    b = int(
        "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875a"
        "c656398d8a2ed19d2a85c8edd3ec2aef",
        16,
    )
    root = pow(b, (P384 + 1) // 4, P384)
    assert _crypto.p384_point(replace(good, x=0, y=root)) is not None
    for x, y in (
        (0, 0),
        (P384, root),
        (P384, 0),
        (0, P384),
        (0, root + P384),
        (good.x + P384, good.y),
        (good.x, good.y + P384),
        (good.x, P384 - good.y + 1),
        (good.y, good.x),
        (2**384 - 1, 2**384 - 1),
        (2**384, good.y),
        (2**576 - 1, 2**576 - 1),
    ):
        assert _crypto.p384_point(replace(good, x=x, y=y)) is None
    assert _crypto.p384_point(replace(good, y=P384 - good.y)) is not None


B384 = int(
    "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875a"
    "c656398d8a2ed19d2a85c8edd3ec2aef",
    16,
)


@pytest.mark.parametrize("x", [0, 2, 3, P384 - 4, P384 - 3, P384 - 1])
def test_a_point_near_the_ends_of_the_field_has_one_form(milan: Platform, x: int) -> None:
    key = milan.export().pdh.public_key
    y = pow(x**3 - 3 * x + B384, (P384 + 1) // 4, P384)
    for one in (y, P384 - y):
        assert _crypto.p384_point(replace(key, x=x, y=one)) is not None
        for more, other in ((P384, 0), (0, P384), (P384, P384), (2 * P384, 0)):
            odd = replace(key, x=x + more, y=one + other)
            assert _crypto.p384_point(odd) is None


def test_a_root_s_own_signatures_are_computed_once_and_a_stranger_s_each_time(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[bytes] = []
    compute = _crypto.rsa_pss_holds

    def count(key: Any, signature: bytes, message: bytes) -> bool:
        computed.append(message)
        return compute(key, signature, message)

    monkeypatch.setattr(_crypto, "rsa_pss_holds", count)
    verify._root_signs.cache_clear()
    authority = platform.authority
    data = replace(platform.export(), ask=authority.ask, ark=authority.ark).to_bytes()
    ca = [authority.ark.body, authority.ask.body]
    cek = platform.export().cek.body
    for expected in ([*ca, cek], [cek], [cek]):
        computed.clear()
        sev.verify_chain(sev.Chain.from_bytes(data), roots=[authority.root])
        assert computed == expected
    # the same certificates, with another root trusted, or with a signature changed
    forged = replace(authority.ask, signature=authority.ask.signature[:-1] + b"\0")
    whole = sev.Chain.from_bytes(data)
    for chain, roots in (
        (whole, list(sev.amd_roots())),
        (replace(whole, ask=forged), [authority.root]),
    ):
        for _ in range(2):
            computed.clear()
            assert checks(chain, roots)
            assert chain.ask is not None
            assert chain.ask.body in computed


def test_a_root_whose_own_signatures_do_not_hold_is_refused_every_time(platform: Platform) -> None:
    ask, ark = platform.authority.ask, platform.authority.ark
    bad_ark = sev.AmdCaCertificate.from_bytes(
        flipped(ark.to_bytes(), 8 * (len(ark.to_bytes()) - 9))
    )
    bad_ask = sev.AmdCaCertificate.from_bytes(
        flipped(ask.to_bytes(), 8 * (len(ask.to_bytes()) - 9))
    )
    for root, failed in (
        (sev.Root(ark=bad_ark, ask=ask), "chain.ark.self-signed"),
        (sev.Root(ark=ark, ask=bad_ask), "chain.ask.signed-by-ark"),
    ):
        for _ in range(2):
            chain = replace(platform.export(), ask=root.ask, ark=root.ark)
            assert checks(chain, [root]) == {failed}


def test_a_certificate_in_the_wrong_role_is_refused(milan: Platform) -> None:
    chain, roots = milan.export(), [milan.authority.root]
    for name in LINKS:
        for other in set(LINKS) - {name}:
            found = checks(swapped(chain, name, getattr(chain, other)), roots)
            assert f"chain.{name}.role" in found
    whole = replace(chain, ask=milan.authority.ark, ark=milan.authority.ark)
    assert "chain.ask.signed-by-ark" in checks(whole, roots)
    whole = replace(chain, ask=milan.authority.ask, ark=milan.authority.ask)
    assert "chain.ark.trusted" in checks(whole, roots)
    ask_as_root = sev.Root(ark=milan.authority.ask)
    assert checks(whole, [ask_as_root]) == {"chain.ark.self-signed", "chain.ask.signed-by-ark"}


@pytest.mark.parametrize("r_and_s", [(0, 1), (1, 0), (0, 0), (1 << 384, 1), (1, 1 << 575)])
def test_signature_numbers_out_of_range_are_refused(
    milan: Platform, r_and_s: tuple[int, int]
) -> None:
    chain = milan.export()
    pdh = chain.pdh
    odd = type(pdh.signatures[0]).ecdsa(Usage.PEK, *r_and_s)
    changed = replace(pdh, signatures=(odd, pdh.signatures[1]))
    assert checks(replace(chain, pdh=changed), [milan.authority.root]) == {
        "chain.pdh.signed-by-pek"
    }


def test_the_pek_needs_both_its_signatures(milan: Platform) -> None:
    chain = milan.export()
    oca, cek = chain.pek.signatures
    empty = chain.pdh.signatures[1]
    for signatures, missing in (((oca, empty), "cek"), ((cek, empty), "oca")):
        pek = replace(chain.pek, signatures=signatures)
        assert checks(replace(chain, pek=pek), [milan.authority.root]) == {
            f"chain.pek.signed-by-{missing}"
        }
    swapped = replace(chain.pek, signatures=(cek, oca))
    assert sev.verify_chain(replace(chain, pek=swapped), roots=[milan.authority.root])


def test_a_signature_with_another_algorithm_s_code_is_refused(platform: Platform) -> None:
    chain = platform.export()
    signature = chain.pdh.signatures[0]._replace(algorithm=Algorithm.ECDSA_SHA384)
    pdh = replace(chain.pdh, signatures=(signature, chain.pdh.signatures[1]))
    roots = [platform.authority.root]
    assert checks(replace(chain, pdh=pdh), roots) == {"chain.pdh.signed-by-pek"}
    short = chain.cek.signatures[0].algorithm is Algorithm.RSA_SHA256
    other = Algorithm.RSA_SHA384 if short else Algorithm.RSA_SHA256
    signature = chain.cek.signatures[0]._replace(algorithm=other)
    cek = replace(chain.cek, signatures=(signature, chain.cek.signatures[1]))
    whole = replace(chain, cek=cek, ask=platform.authority.ask)
    if short:
        assert checks(whole, roots) == {"chain.cek.signed-by-ask"}
    else:  # a signature of 4096 bits is longer than one that goes with SHA-256
        with pytest.raises(MalformedInput, match="bytes after the signature"):
            sev.verify_chain(whole, roots=roots)


@pytest.mark.parametrize("bits", [2048, 4096])
def test_every_byte_that_nothing_signs_must_be_zero(bits: int) -> None:
    chain = Platform(b"p", authority=Authority(bits)).export()
    sizes = {"pdh": (144, 0), "pek": (144, 144), "oca": (144, 0), "cek": (bits // 8, 0)}
    for name, ends in sizes.items():
        data = getattr(chain, name).to_bytes()
        for slot, end in zip((0x41C, 0x624), ends, strict=True):
            for at in range(slot + end, slot + 512):
                changed = data[:at] + b"\1" + data[at + 1 :]
                with pytest.raises(MalformedInput) as caught:
                    sev.Certificate.from_bytes(changed)
                assert caught.value.offset == at
                assert f"({name.upper()})" in str(caught.value)


@pytest.mark.parametrize("name", ["ask", "ark"])
def test_a_signature_of_zeros_is_called_empty(milan: Platform, name: str) -> None:
    authority = milan.authority
    empty = replace(getattr(authority, name), signature=bytes(512))
    whole = replace(milan.export(), **{"ask": authority.ask, "ark": authority.ark, name: empty})
    with pytest.raises(ChainInvalid, match=f"{name.upper()} is empty|itself is empty"):
        sev.verify_chain(whole, roots=[authority.root])


def test_an_unsigned_cek_is_told_apart_with_the_address_of_the_signed_one(
    platform: Platform,
) -> None:
    chain, roots = platform.export(signed_cek=False), [platform.authority.root]
    with pytest.raises(ChainInvalid) as caught:
        sev.verify_chain(chain, roots=roots)
    cek = next(f for f in caught.value.failures if f.certificate == "CEK")
    assert cek.check == "chain.cek.unsigned"
    assert f"https://kdsintf.amd.com/cek/id/{platform.get_id().hex()}" in cek.hint
    with pytest.raises(ChainInvalid) as caught:
        sev.verify_chain(replace(chain, platform_id=None), roots=roots)
    assert "cpu0-id" in "".join(failure.hint for failure in caught.value.failures)
    signed = platform.export().cek
    assert sev.verify_chain(chain.with_cek(signed), roots=roots)


def test_a_field_that_says_another_thing_than_the_signed_bytes_counts_for_nothing(
    milan: Platform,
) -> None:
    chain, roots = milan.export(), [milan.authority.root]
    evil = Platform(b"evil").export().pdh.public_key
    altered = replace(chain, pdh=replace(chain.pdh, public_key=evil))
    assert sev.verify_chain(altered, roots=roots).pdh.public_key == chain.pdh.public_key
    with pytest.raises(MalformedInput):
        sev.verify_chain(replace(chain, pdh=replace(chain.pdh, body=b"")), roots=roots)


def test_what_could_not_be_checked_is_not_said_to_hold(milan: Platform) -> None:
    with pytest.raises(ChainInvalid) as caught:
        sev.verify_chain(milan.export(signed_cek=False))
    assert {failure.check for failure in caught.value.failures} == {"chain.cek.unsigned"}
    never = {"chain.ark.trusted", "chain.ark.self-signed", "chain.ask.signed-by-ark"}
    never |= {"chain.cek.signed-by-ask", "chain.cek.unsigned"}
    assert caught.value.held == verify.CHECKS.keys() - never


def test_every_failure_is_reported_not_only_the_first(milan: Platform) -> None:
    other = Platform(b"another").export()
    mixed = replace(milan.export(), pek=other.pek, oca=other.oca)
    found = checks(mixed, [milan.authority.root])
    assert found == {"chain.pek.signed-by-cek", "chain.pdh.signed-by-pek"}


def test_only_verify_chain_makes_a_verified_chain(verified: sev.VerifiedChain) -> None:
    values = {f.name: getattr(verified, f.name) for f in fields(verified)}
    with pytest.raises(TypeError, match="only verify_chain"):
        sev.VerifiedChain(**values)
    with pytest.raises(TypeError):
        replace(verified, root=sev.amd_roots()[0])


def test_an_ask_that_is_no_rsa_key_is_refused(milan: Platform) -> None:
    ask = milan.authority.ask
    odd = sev.AmdCaCertificate.build(
        usage=Usage.ASK,
        key_id=ask.key_id,
        certifying_id=ask.certifying_id,
        public_key=replace(ask.public_key, exponent=2),
        signature=ask.signature,
    )
    found = checks(replace(milan.export(), ask=odd), [milan.authority.root])
    assert "chain.cek.signed-by-ask" in found


# packagings


def nodesevinfo(chain: sev.Chain, newline: str = "\n") -> bytes:
    """Print a platform as ``virsh nodesevinfo`` does."""
    rest = (chain.pek, chain.oca, chain.cek)
    values = {
        "pdh": base64.b64encode(chain.pdh.to_bytes()).decode(),
        "cert-chain": base64.b64encode(b"".join(c.to_bytes() for c in rest)).decode(),
        "cpu0-id": base64.b64encode(chain.platform_id or b"").decode(),
        "cbitpos": "51",
        "reduced-phys-bits": "1",
        "max-guests": "509",
    }
    return "".join(f"{key:<18}: {value}{newline}" for key, value in values.items()).encode()


def test_a_chain_is_read_from_every_packaging(platform: Platform, tmp_path: Path) -> None:
    ask, ark = platform.authority.ask, platform.authority.ark
    chain = replace(platform.export(), platform_id=None)
    whole = replace(chain, ask=ask, ark=ark)
    for expected in (chain, whole):
        data = expected.to_bytes()
        text = base64.encodebytes(data)
        for form in (
            data,
            text,
            text.replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + base64.b64encode(data),
            data.hex().encode(),
        ):
            assert sev.Chain.from_bytes(form) == expected
    parts = [c.to_bytes() for c in (ark, chain.cek, chain.pek, ask, chain.pdh, chain.oca)]
    assert sev.Chain.from_bytes(b"".join(parts)) == whole
    pieces = b"".join(base64.b64encode(part) for part in parts)
    assert sev.Chain.from_bytes(pieces) == whole
    for at, part in enumerate(parts):
        (tmp_path / f"{at}.cert").write_bytes(part if at % 2 else base64.b64encode(part))
    assert sev.Chain.from_files([tmp_path]) == whole
    assert sev.Chain.from_files(tmp_path) == sev.Chain.from_files(str(tmp_path)) == whole
    assert sev.Chain.from_files(sorted(tmp_path.iterdir(), reverse=True)) == whole
    for newline in ("\n", "\r\n"):
        read = sev.Chain.from_bytes(nodesevinfo(platform.export(signed_cek=False), newline))
        assert read == platform.export(signed_cek=False)


def test_an_ark_without_signature_is_read_wherever_it_stands(tmp_path: Path) -> None:
    naples = Authority(2048, signed_ark=False)
    chain = replace(Platform(b"p", authority=naples).export(), platform_id=None)
    whole = replace(chain, ask=naples.ask, ark=naples.ark)
    data = whole.to_bytes()
    assert sev.Chain.from_bytes(data) == whole
    ark = naples.ark.to_bytes()
    assert len(ark) == 576
    assert sev.Chain.from_bytes(ark + data[: -len(ark)]) == whole


def test_a_platform_id_of_zeros_or_another_size_is_none(milan: Platform) -> None:
    chain = milan.export()
    for odd in (bytes(64), b"\1" * 63):
        assert (
            sev.Chain.from_bytes(nodesevinfo(replace(chain, platform_id=odd))).platform_id is None
        )
    two_sockets = replace(chain, platform_id=b"\1" * 64 + b"\2" * 64)
    assert sev.Chain.from_bytes(nodesevinfo(two_sockets)).platform_id == b"\1" * 64


def test_of_one_cek_with_and_without_signature_the_signed_one_is_taken(
    milan: Platform, tmp_path: Path
) -> None:
    signed, unsigned = tmp_path / "a", tmp_path / "b"
    signed.write_bytes(milan.export().cek.to_bytes())
    unsigned.write_bytes(milan.export(signed_cek=False).to_bytes())
    for order in ([signed, unsigned], [unsigned, signed]):
        assert sev.Chain.from_files(order).cek == milan.export().cek


def test_two_different_certificates_of_one_role_are_refused(
    milan: Platform, tmp_path: Path
) -> None:
    (tmp_path / "one").write_bytes(milan.export().to_bytes())
    (tmp_path / "two").write_bytes(Platform(b"another").export().pek.to_bytes())
    with pytest.raises(MalformedInput, match=r"two: chain: .*two different PEK .*/one\)"):
        sev.Chain.from_files([tmp_path / "one", tmp_path / "two"])
    both = milan.export().to_bytes() + Platform(b"another").export().pek.to_bytes()
    with pytest.raises(MalformedInput, match=r"two different PEK certificates$"):
        sev.Chain.from_bytes(both)


def test_a_missing_certificate_is_named(milan: Platform, tmp_path: Path) -> None:
    pdh = milan.export().pdh.to_bytes()
    with pytest.raises(MalformedInput, match=r"no PEK, OCA, CEK certificate \(found only PDH"):
        sev.Chain.from_bytes(pdh)
    for number in range(5):
        (tmp_path / "junk" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "junk" / str(number)).write_bytes(b"\0")
    with pytest.raises(MalformedInput, match=r"; and 2 more$"):
        sev.Chain.from_files(tmp_path / "junk")
    with pytest.raises(MalformedInput, match=r"no PDH, PEK, OCA, CEK certificate$"):
        sev.Chain.from_files([tmp_path])
    (tmp_path / "pdh.cert").write_bytes(pdh[:-1])
    (tmp_path / "large").write_bytes(bytes(MAX_FILE + 1))
    (tmp_path / ".hidden").write_bytes(b"")
    with pytest.raises(MalformedInput) as caught:
        sev.Chain.from_files([tmp_path])
    assert "pdh.cert: SEV certificate (PDH): 2083 bytes, expected 2084" in str(caught.value)
    assert "large: chain: more than" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_guest_owner_s_certificate_is_no_pdh(
    milan: Platform, session: sev.Session, tmp_path: Path
) -> None:
    (tmp_path / "chain").write_bytes(milan.export().to_bytes())
    (tmp_path / "godh.cert").write_bytes(session.godh.to_bytes())
    assert sev.Chain.from_files([tmp_path]).pdh == milan.export().pdh
    with pytest.raises(MalformedInput, match="GODH"):
        sev.Chain.from_files([tmp_path / "godh.cert"])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\1" * 63, bytes(4096), b"hello", b"QUJD", b"no certificate!", b"\xff" * 2084],
)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        sev.Chain.from_bytes(data)


@settings(max_examples=300)
@given(st.data())
def test_whatever_a_stranger_sends_only_our_errors_come_out(data: st.DataObject) -> None:
    honest = data.draw(st.sampled_from(FORMS))
    cut = data.draw(st.integers(0, len(honest)))
    middle = data.draw(st.binary(max_size=40))
    skip = data.draw(st.integers(0, 40))
    try:
        chain = sev.Chain.from_bytes(honest[:cut] + middle + honest[cut + skip :])
        sev.verify_chain(chain, roots=[AUTHORITY.root])
    except SevAttestError:
        return


AUTHORITY = Authority()
FORMS = [
    replace(Platform(b"x").export(), ask=AUTHORITY.ask, ark=AUTHORITY.ark).to_bytes(),
    base64.b64encode(Platform(b"x").export().to_bytes()),
    nodesevinfo(Platform(b"x").export()),
]


def test_a_flaw_is_placed_in_the_whole_file(milan: Platform) -> None:
    data = bytearray(milan.export().to_bytes())
    data[2084 + 0x41C + 144] = 1
    with pytest.raises(MalformedInput) as caught:
        sev.Chain.from_bytes(bytes(data))
    assert caught.value.offset == 2084 + 0x41C + 144


@pytest.mark.parametrize("data", [b"PK\3\4" + bytes(99), b'{"return": {}}', b"-----BEGIN", b"\0"])
def test_an_unknown_packaging_is_told_what_is_read(data: bytes) -> None:
    with pytest.raises(MalformedInput) as caught:
        sev.Chain.from_bytes(data)
    assert caught.value.hint.startswith("formats: ")


def test_two_different_lines_of_one_name_are_refused(milan: Platform) -> None:
    other = Platform(b"another").export()
    both = nodesevinfo(milan.export()) + nodesevinfo(other)
    with pytest.raises(MalformedInput, match="two different pdh lines"):
        sev.Chain.from_bytes(both)
    assert sev.Chain.from_bytes(nodesevinfo(milan.export()) * 2) == milan.export()


def test_one_expected_certificate_is_one(milan: Platform) -> None:
    cek = milan.export().cek
    assert certificate_of(Usage.CEK, cek.to_bytes()) == cek
    with pytest.raises(MalformedInput, match="this is PDH; one CEK expected"):
        certificate_of(Usage.CEK, milan.export().pdh.to_bytes())


def test_the_pdh_can_be_had_alone(milan: Platform) -> None:
    collected = Collected()
    collected.add(read_contents(milan.export().pdh.to_bytes()), "")
    assert collected.pdh() == milan.export().pdh


# real platforms


def test_a_real_naples_chain_verifies(real: Path) -> None:
    verified = sev.verify_chain(sev.Chain.from_files([real / "naples"]))
    assert verified.generation is sev.Generation.NAPLES
    assert verified.root.name == "AMD Naples"


@pytest.mark.usefixtures("remembered")
def test_a_real_naples_chain_with_any_byte_changed_is_refused(real: Path) -> None:
    chain = sev.Chain.from_files([real / "naples"])
    for name in LINKS:
        data = getattr(chain, name).to_bytes()
        for at in range(0, 0x414 + 8 + 144, 3):
            try:
                changed = sev.Certificate.from_bytes(flipped(data, at * 8 + at % 7))
            except MalformedInput:
                continue
            assert checks(swapped(chain, name, changed))


def test_amd_s_roots_are_known_by_name() -> None:
    assert {root.name for root in sev.amd_roots()} == AMD_ROOTS


# what is not SEV's


@pytest.mark.parametrize(
    ("document", "check"),
    [
        ("{}", "chain.format"),
        ('{"pdh":"","certChain":"x","cert-chain":"y"}', "chain.conflict"),
        ('{"pdh":1}', "chain.pdh"),
        ("{", "chain.format"),
    ],
)
def test_what_json_has_instead_of_a_chain_has_its_own_id(document: str, check: str) -> None:
    with pytest.raises(MalformedInput) as refused:
        sev.Chain.from_bytes(document.encode())
    assert refused.value.check == check


def zip64_far_away() -> bytes:
    """Make a zip whose only member begins 2**63 bytes behind the archive's start."""
    name, extra = b"pdh.cert", struct.pack("<HHQ", 1, 8, 1 << 63)
    sizes = (0, 0, 0, len(name), len(extra), 0, 0, 0, 0, 0xFFFF_FFFF)
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 45, 45, 0, 0, 0, 33, *sizes)
    directory = entry + name + extra
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(directory), 4, 0)
    return b"PK\3\4" + directory + end


def test_a_zip_on_which_the_library_fails_in_its_own_way_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="this zip is damaged"):
        sev.Chain.from_bytes(zip64_far_away())


def certificate_named(name: str, *, rsa_key: bool = False) -> x509.Certificate:
    """Make an X.509 certificate of that name, as AMD's key server gives them."""
    key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(CURVE)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2024, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=9999))
    return builder.sign(key, hashes.SHA384())


CURVE = ec.SECP384R1()


@pytest.mark.parametrize(
    ("name", "called"), [("SEV-VCEK", "a VCEK"), ("SEV-VLEK", "a VLEK"), ("SEV-VLEK-X", "an ASVK")]
)
def test_certificates_of_sev_snp_are_called_what_they_are(name: str, called: str) -> None:
    certificate = certificate_named(name, rsa_key=name == "SEV-VLEK-X")
    der = certificate.public_bytes(serialization.Encoding.DER)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    for data in (der, pem, base64.b64encode(der), der.hex().encode()):
        with pytest.raises(MalformedInput, match=f"this is {called}, a certificate of SEV-SNP"):
            sev.Chain.from_bytes(data)


@pytest.mark.parametrize("name", ["ARK-Milan", "SEV-Genoa"])
def test_an_ark_or_ask_in_the_form_of_sev_snp_is_called_that(name: str) -> None:
    certificate = certificate_named(name, rsa_key=True)
    with pytest.raises(MalformedInput, match=f"this is {name} as X.509 in DER, the form that SEV-"):
        sev.Chain.from_bytes(certificate.public_bytes(serialization.Encoding.DER))
    with pytest.raises(MalformedInput, match="is none of AMD's ASK and ARK keys"):
        sev.Chain.from_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize("guid", TABLE_CERTIFICATES)
def test_a_certificate_table_is_called_one(guid: str) -> None:
    table = uuid.UUID(guid).bytes + struct.pack("<II", 48, 2084) + bytes(24 + 2084)
    with pytest.raises(MalformedInput, match="this is a certificate table of SEV-SNP"):
        sev.Chain.from_bytes(table)


def test_a_folder_of_sev_snp_s_is_called_that_unless_it_has_certificates_of_sev(
    platform: Platform, tmp_path: Path
) -> None:
    (tmp_path / "a text").write_text("nothing of the kind")
    (tmp_path / "b").write_bytes(snp_report())
    (tmp_path / "c").write_bytes(b"HCLA" + snp_report())
    with pytest.raises(MalformedInput, match="this is an SEV-SNP attestation report") as caught:
        sev.Chain.from_files([tmp_path])
    assert caught.value.source == str(tmp_path / "b")
    (tmp_path / "d").write_bytes(platform.export().pek.to_bytes())
    with pytest.raises(MalformedInput, match="no PDH, OCA, CEK certificate"):
        sev.Chain.from_files([tmp_path])


@pytest.mark.parametrize("name", ["pdh", "cert-chain"])
def test_an_error_in_a_host_s_json_names_the_field_beside_the_file(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "host.json"
    path.write_text(json.dumps({name: "QUJD"}))
    with pytest.raises(MalformedInput, match="are too few for a certificate") as caught:
        sev.Chain.from_files([path])
    assert str(caught.value).startswith(f"{path}: chain ({name}): 3 bytes")
    path.write_text(json.dumps({name: 5}))
    with pytest.raises(MalformedInput) as caught:
        sev.Chain.from_files([path])
    assert str(caught.value) == f"{path}: chain {name}: is no text"


def test_other_certificates_are_not_called_sev_snp_s() -> None:
    for rsa_key in (True, False):
        certificate = certificate_named("somebody", rsa_key=rsa_key)
        for encoding in (serialization.Encoding.DER, serialization.Encoding.PEM):
            with pytest.raises(MalformedInput) as caught:
                sev.Chain.from_bytes(certificate.public_bytes(encoding))
            assert "SNP" not in str(caught.value)
    for junk in (b"\x30\x82\1\2" + bytes(99), b"-----BEGIN CERTIFICATE-----\nQUJD\n"):
        with pytest.raises(MalformedInput) as caught:
            sev.Chain.from_bytes(junk)
        assert "SNP" not in str(caught.value)


def snp_report(version: int = 3) -> bytes:
    """Lay out what makes an SEV-SNP report: its version, its policy, its size."""
    return struct.pack("<IIQ", version, 0, 0x30000).ljust(1184, b"\0")


@pytest.mark.parametrize("version", [2, 3, 5])
def test_a_report_of_sev_snp_is_called_what_it_is(version: int) -> None:
    report = snp_report(version)
    header = struct.pack("<II", 0, len(report)).ljust(32, b"\0")
    for data in (report, header + report, report.ljust(4000, b"\0"), base64.b64encode(report)):
        with pytest.raises(MalformedInput, match="this is an SEV-SNP attestation report"):
            sev.Chain.from_bytes(data)
    with pytest.raises(MalformedInput, match="an Azure HCL blob"):
        sev.Chain.from_bytes(b"HCLA" + bytes(28) + report)


@pytest.mark.parametrize("data", [snp_report()[:1183], snp_report(99), bytes(1184)])
def test_what_is_no_report_of_sev_snp_is_not_called_one(data: bytes) -> None:
    with pytest.raises(MalformedInput) as caught:
        sev.Chain.from_bytes(data)
    assert "SNP" not in str(caught.value)


def test_the_real_material_of_sev_snp_is_called_what_it_is(real: Path) -> None:
    found = [*(real / "snp" / "reports").iterdir(), *(real / "snp" / "certs").iterdir()]
    assert found
    for path in [*found, *(real / "snp" / "roots").glob("asvk*")]:
        with pytest.raises(MalformedInput, match=r"this is an? .*SEV-SNP"):
            sev.Chain.from_files(path)


def test_the_real_chains_with_reserved_bytes_are_judged_by_their_signatures(real: Path) -> None:
    folder = real / "cases" / "reserved"
    ark = sev.Chain.from_files([folder / "clean.chain", folder / "root.ark"]).ark
    assert ark is not None
    for name, used in (
        ("clean", ()),
        ("oca-key-tail", ("pub_key",)),
        ("oca-key-tail-one", ("pub_key",)),
        ("oca-reserved-u16", ("reserved",)),
    ):
        chain = sev.Chain.from_files([folder / f"{name}.chain", folder / "ask_ark.cert"])
        assert sev.verify_chain(chain, roots=[sev.Root(ark=ark)]).chain.oca.reserved == used
    with pytest.raises(MalformedInput, match=r"SEV certificate \(OCA\) sig1 at byte"):
        sev.Chain.from_files([folder / "oca-sig-tail.chain", folder / "ask_ark.cert"])


def test_another_chip_s_cek_is_not_put_into_a_chain(platform: Platform) -> None:
    other = Platform(b"another chip", authority=platform.authority)
    for known in (None, bytes(range(64))):
        collected = Collected()
        chain = replace(platform.export(signed_cek=False), platform_id=known)
        collected.add(read_contents(chain.to_bytes()), "host")
        collected.platform_id = known
        with pytest.raises(NotVerified, match="another chip's CEK") as caught:
            collected.replace(other.export().cek)
        address = known.hex() if known else "followed by"
        assert address in caught.value.hint
        collected.replace(platform.export().cek)
        assert collected.chain().cek == platform.export().cek
    collected = Collected()
    collected.replace(other.export().cek)
    assert collected.by_role["CEK"][0] == other.export().cek
