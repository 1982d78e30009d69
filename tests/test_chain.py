"""chain/: certificates, roots, packagings, and the check."""

import base64
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sev_attest as sev
from sev_attest import _crypto
from sev_attest.chain import verify
from sev_attest.chain._amd_keys import AMD_KEYS
from sev_attest.chain.files import MAX_FILE, Collected, certificate_of, read_contents
from sev_attest.spec import Algorithm, Curve, Usage
from sev_attest.testing import Authority, Platform

LINKS = ("pdh", "pek", "oca", "cek")


def checks(chain: sev.Chain, roots: list[sev.Root] | None = None) -> set[str]:
    """Verify a chain that must fail, and give the ids of all that failed."""
    with pytest.raises(sev.ChainInvalid) as caught:
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
        assert sev.CaCertificate.from_bytes(ca.to_bytes()).to_bytes() == ca.to_bytes()
        unsigned = replace(ca, signature=b"").to_bytes()
        assert sev.CaCertificate.from_bytes(unsigned).signature == b""


def test_every_truncation_and_extension_of_a_certificate_is_refused(platform: Platform) -> None:
    data = platform.export().pdh.to_bytes()
    for size in (*range(len(data)), len(data) + 1):
        with pytest.raises(sev.MalformedInput, match="expected 2084"):
            sev.Certificate.from_bytes(data.ljust(size, b"\0")[:size])
    data = platform.authority.ask.to_bytes()
    good = {len(data), len(platform.authority.ask.body)}
    for size in set(range(len(data) + 2)) - good:
        with pytest.raises(sev.MalformedInput):
            sev.CaCertificate.from_bytes(data.ljust(size, b"\0")[:size])


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [
        (0x000, 2, "version"),
        (0x006, 1, "reserved"),
        (0x008, 0x13, "pub_key_usage"),
        (0x008, 0x77, "pub_key_usage"),
        (0x00C, 0x77, "pub_key_algo"),
        (0x010, 7, "curve"),
        (0x200, 1, "pub_key"),
        (0x414, 0x77, "sig1_usage"),
        (0x418, 0x77, "sig1_algo"),
        (0x61C, 0x77, "sig2_usage"),
        (0x620, 0x77, "sig2_algo"),
    ],
)
def test_a_certificate_with_an_odd_field_is_refused(
    milan: Platform, offset: int, value: int, field: str
) -> None:
    data = bytearray(milan.export().pek.to_bytes())
    data[offset : offset + 2] = value.to_bytes(2, "little")
    with pytest.raises(sev.MalformedInput) as caught:
        sev.Certificate.from_bytes(bytes(data))
    assert caught.value.check == f"sev-certificate.{field}"


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [
        (0x00, 2, "version"),
        (0x24, 0x1002, "key_usage"),
        (0x24, 0x77, "key_usage"),
        (0x28, 1, "reserved"),
        (0x38, 2048, "pubexp_size"),
        (0x3C, 1024, "modulus_size"),
    ],
)
def test_a_ca_certificate_with_an_odd_field_is_refused(offset: int, value: int, field: str) -> None:
    data = bytearray(Authority().ask.to_bytes())
    data[offset : offset + 4] = value.to_bytes(4, "little")
    with pytest.raises(sev.MalformedInput) as caught:
        sev.CaCertificate.from_bytes(bytes(data))
    assert caught.value.check == f"ask/ark-certificate.{field}"


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
    with pytest.raises(sev.Unsupported, match="no trusted root"):
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
    with pytest.raises(sev.ChainInvalid, match=f"id of the AMD {generation.title()} ARK, but"):
        sev.verify_chain(replace(chain, ask=forger.ask, ark=forger.ark))


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


@pytest.mark.parametrize("name", LINKS)
def test_every_flipped_bit_that_a_platform_s_signatures_cover_is_refused(
    milan: Platform, name: str
) -> None:
    chain, roots = milan.export(), [milan.authority.root]
    data = getattr(chain, name).to_bytes()
    for bit in range(0x414 * 8):
        try:
            changed = sev.Certificate.from_bytes(flipped(data, bit))
        except sev.MalformedInput:
            continue
        assert any(name in check for check in checks(swapped(chain, name, changed), roots))


@pytest.mark.parametrize("name", LINKS)
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
        except sev.MalformedInput:
            continue
        assert any(name in check for check in checks(swapped(chain, name, changed), roots))


@pytest.mark.parametrize("name", ["ask", "ark"])
def test_every_flipped_byte_of_a_ca_certificate_is_refused(platform: Platform, name: str) -> None:
    authority = platform.authority
    chain = replace(platform.export(), ask=authority.ask, ark=authority.ark)
    data = getattr(authority, name).to_bytes()
    for at in range(len(data)):
        try:
            changed = sev.CaCertificate.from_bytes(flipped(data, at * 8 + at % 8))
        except sev.MalformedInput:
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
    bad_ark = sev.CaCertificate.from_bytes(flipped(ark.to_bytes(), 8 * (len(ark.to_bytes()) - 9)))
    bad_ask = sev.CaCertificate.from_bytes(flipped(ask.to_bytes(), 8 * (len(ask.to_bytes()) - 9)))
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
    odd = type(pdh.signatures[0]).ecdsa(Usage.PEK, Algorithm.ECDSA_SHA256, *r_and_s)
    if not any(r_and_s):
        odd = replace(odd, value=odd.value[:-1] + b"\1")
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
    signature = replace(chain.pdh.signatures[0], algorithm=Algorithm.ECDSA_SHA384)
    pdh = replace(chain.pdh, signatures=(signature, chain.pdh.signatures[1]))
    roots = [platform.authority.root]
    assert checks(replace(chain, pdh=pdh), roots) == {"chain.pdh.signed-by-pek"}
    other = Algorithm.RSA_SHA256
    if chain.cek.signatures[0].algorithm is other:
        other = Algorithm.RSA_SHA384
    signature = replace(chain.cek.signatures[0], algorithm=other)
    cek = replace(chain.cek, signatures=(signature, chain.cek.signatures[1]))
    whole = replace(chain, cek=cek, ask=platform.authority.ask)
    assert checks(whole, roots) == {"chain.cek.signed-by-ask"}


def test_bytes_behind_a_signature_are_refused(milan: Platform) -> None:
    chain, roots = milan.export(), [milan.authority.root]
    for name, size in (("pdh", 144), ("oca", 144)):
        certificate = getattr(chain, name)
        first, second = certificate.signatures
        value = first.value[:size] + b"\1" + first.value[size + 1 :]
        changed = replace(certificate, signatures=(replace(first, value=value), second))
        assert len(checks(swapped(chain, name, changed), roots)) == 1
    naples = Platform(b"p", authority=Authority(2048))
    cek = naples.export().cek
    value = cek.signatures[0].value[:511] + b"\1"
    longer = replace(cek.signatures[0], value=value)
    changed_cek = replace(cek, signatures=(longer, cek.signatures[1]))
    assert "chain.cek.signed-by-ask" in checks(
        naples.export().with_cek(changed_cek), [naples.authority.root]
    )


def test_an_unsigned_cek_is_told_apart_with_the_address_of_the_signed_one(
    platform: Platform,
) -> None:
    chain, roots = platform.export(signed_cek=False), [platform.authority.root]
    with pytest.raises(sev.ChainInvalid) as caught:
        sev.verify_chain(chain, roots=roots)
    cek = next(f for f in caught.value.failures if f.certificate == "CEK")
    assert cek.check == "chain.cek.unsigned"
    assert f"https://kdsintf.amd.com/cek/id/{platform.get_id().hex()}" in cek.hint
    with pytest.raises(sev.ChainInvalid) as caught:
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
    with pytest.raises(sev.MalformedInput):
        sev.verify_chain(replace(chain, pdh=replace(chain.pdh, body=b"")), roots=roots)


def test_what_could_not_be_checked_is_not_said_to_hold(milan: Platform) -> None:
    with pytest.raises(sev.ChainInvalid) as caught:
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
    odd = sev.CaCertificate.build(
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
    with pytest.raises(sev.MalformedInput, match=r"two: chain: .*two different PEK .*/one\)"):
        sev.Chain.from_files([tmp_path / "one", tmp_path / "two"])
    both = milan.export().to_bytes() + Platform(b"another").export().pek.to_bytes()
    with pytest.raises(sev.MalformedInput, match=r"two different PEK certificates$"):
        sev.Chain.from_bytes(both)


def test_a_missing_certificate_is_named(milan: Platform, tmp_path: Path) -> None:
    pdh = milan.export().pdh.to_bytes()
    with pytest.raises(sev.MalformedInput, match=r"no PEK, OCA, CEK certificate \(found only PDH"):
        sev.Chain.from_bytes(pdh)
    for number in range(5):
        (tmp_path / "junk" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "junk" / str(number)).write_bytes(b"\0")
    with pytest.raises(sev.MalformedInput, match=r"; and 2 more$"):
        sev.Chain.from_files(tmp_path / "junk")
    with pytest.raises(sev.MalformedInput, match=r"no PDH, PEK, OCA, CEK certificate$"):
        sev.Chain.from_files([tmp_path])
    (tmp_path / "pdh.cert").write_bytes(pdh[:-1])
    (tmp_path / "large").write_bytes(bytes(MAX_FILE + 1))
    (tmp_path / ".hidden").write_bytes(b"")
    with pytest.raises(sev.MalformedInput) as caught:
        sev.Chain.from_files([tmp_path])
    assert "pdh.cert: SEV certificate: 2083 bytes, expected 2084" in str(caught.value)
    assert "large: chain: more than" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_guest_owner_s_certificate_is_no_pdh(
    milan: Platform, session: sev.Session, tmp_path: Path
) -> None:
    (tmp_path / "chain").write_bytes(milan.export().to_bytes())
    (tmp_path / "godh.cert").write_bytes(session.godh.to_bytes())
    assert sev.Chain.from_files([tmp_path]).pdh == milan.export().pdh
    with pytest.raises(sev.MalformedInput, match="GODH"):
        sev.Chain.from_files([tmp_path / "godh.cert"])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\1" * 63, bytes(4096), b"hello", b"QUJD", b"no certificate!", b"\xff" * 2084],
)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(sev.MalformedInput):
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
        sev.verify_chain(chain, roots=[Authority().root])
    except sev.SevAttestError:
        return


FORMS = [
    replace(Platform(b"x").export(), ask=Authority().ask, ark=Authority().ark).to_bytes(),
    base64.b64encode(Platform(b"x").export().to_bytes()),
    nodesevinfo(Platform(b"x").export()),
]


def test_a_flaw_is_placed_in_the_whole_file(milan: Platform) -> None:
    data = bytearray(milan.export().to_bytes())
    data[2084 + 0x200] = 1
    with pytest.raises(sev.MalformedInput) as caught:
        sev.Chain.from_bytes(bytes(data))
    assert caught.value.offset == 2084 + 0xA4


@pytest.mark.parametrize("data", [b"PK\3\4" + bytes(99), b'{"return": {}}', b"-----BEGIN", b"\0"])
def test_an_unknown_packaging_is_told_what_is_read(data: bytes) -> None:
    with pytest.raises(sev.MalformedInput) as caught:
        sev.Chain.from_bytes(data)
    assert caught.value.hint.startswith("what is read: ")


def test_two_different_lines_of_one_name_are_refused(milan: Platform) -> None:
    other = Platform(b"another").export()
    both = nodesevinfo(milan.export()) + nodesevinfo(other)
    with pytest.raises(sev.MalformedInput, match="two different pdh lines"):
        sev.Chain.from_bytes(both)
    assert sev.Chain.from_bytes(nodesevinfo(milan.export()) * 2) == milan.export()


def test_one_expected_certificate_is_one(milan: Platform) -> None:
    cek = milan.export().cek
    assert certificate_of(Usage.CEK, cek.to_bytes()) == cek
    with pytest.raises(sev.MalformedInput, match="this is PDH; one CEK expected"):
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


def test_a_real_naples_chain_with_any_byte_changed_is_refused(real: Path) -> None:
    chain = sev.Chain.from_files([real / "naples"])
    for name in LINKS:
        data = getattr(chain, name).to_bytes()
        for at in range(0, 0x414 + 8 + 144, 3):
            try:
                changed = sev.Certificate.from_bytes(flipped(data, at * 8 + at % 7))
            except sev.MalformedInput:
                continue
            assert checks(swapped(chain, name, changed))
