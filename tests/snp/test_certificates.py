"""``sev_attest.snp.certificates``, ``extensions``, ``revocation``, ``roots``: read, strictly."""

import hashlib
import random
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from sev_attest._keys import RsaPublicKey
from sev_attest.errors import MalformedInput
from sev_attest.sev.chain.roots import amd_roots as sev_roots
from sev_attest.snp import revocation
from sev_attest.snp.certificates import MAX_CERTIFICATE, Certificate, Kind
from sev_attest.snp.extensions import PREFIX
from sev_attest.snp.revocation import RevocationList
from sev_attest.snp.roots import Root, amd_roots, fingerprint
from sev_attest.snp.tcb import Product
from sev_attest.testing import x509
from sev_attest.testing.authority import SigningKey
from sev_attest.testing.snp import SnpAuthority
from sev_attest.testing.x509 import Shape
from snp_material import AMD, AT, AUTHORITIES, MILAN, PLATFORMS

VEK, VLEK = MILAN.vek(), MILAN.vek(Kind.VLEK)


def refused(data: bytes) -> str:
    with pytest.raises(MalformedInput) as caught:
        Certificate(raw=data)
    assert caught.value.exit_code == 6
    return str(caught.value)


def with_extension(which: str, value: bytes | None, kind: Kind = Kind.VCEK) -> bytes:
    return MILAN.vek(kind, shape=Shape(extensions={PREFIX + which: value}))


# what is read


@pytest.mark.parametrize("product", Product)
def test_a_vcek_is_read(product: Product) -> None:
    platform = PLATFORMS[product]
    found = Certificate(raw=platform.vek())
    assert (found.kind, found.product_name, found.serial) == (Kind.VCEK, product.value, 0)
    assert found.extensions is not None
    assert found.extensions.tcb == platform.tcb
    assert found.extensions.hwid == platform.hwid
    assert found.extensions.csp_id == ""
    assert found.signer == (Kind.ASK, product.value)
    assert str(found.issuer) == f"SEV-{product.value}"
    assert found.not_before == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_vlek_is_read() -> None:
    found = Certificate(raw=VLEK)
    assert found.kind is Kind.VLEK
    assert found.extensions is not None
    assert (found.extensions.hwid, found.extensions.csp_id) == (b"", "CN=cc-test.example.com")
    assert found.signer == (Kind.ASVK, "Milan")


@pytest.mark.parametrize("kind", [Kind.ARK, Kind.ASK, Kind.ASVK])
def test_a_ca_is_read(kind: Kind) -> None:
    found = Certificate(raw=AMD.ca(kind))
    assert (found.kind, found.product_name, found.extensions) == (kind, "Milan", None)
    assert found.public_key == AMD.keys[kind].public
    assert repr(found) == f"Certificate({kind.name} {AMD.name(kind)} {found.fingerprint[:16]})"
    assert repr(found.subject) == f"Name({AMD.name(kind)!r})"
    assert found.fingerprint == hashlib.sha256(found.raw).hexdigest()


def test_an_issuer_that_is_none_of_amd_s_has_no_kind() -> None:
    assert Certificate(raw=a_certificate(issuer="Some CA")).signer is None


def test_dates_from_2050_on_are_read() -> None:
    until = datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert Certificate(raw=MILAN.vek(shape=Shape(not_after=until))).not_after == until


def test_dates_before_2000_are_read() -> None:
    since = datetime(1999, 12, 31, tzinfo=UTC)
    assert Certificate(raw=MILAN.vek(shape=Shape(not_before=since))).not_before == since


def test_the_fields_cannot_be_given_other_values() -> None:
    # ValueError before Python 3.13.
    with pytest.raises((TypeError, ValueError), match="init=False"):
        replace(Certificate(raw=VEK), kind=Kind.ARK)
    assert Certificate(raw=VEK) == Certificate(raw=bytearray(VEK))  # type: ignore[arg-type]


def test_serial_0_neither_warns_nor_breaks() -> None:
    """Newer versions of cryptography warn of it, and say that it will be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(Warning):
            _ = library.load_der_x509_certificate(VEK).serial_number
        assert Certificate(raw=VEK).serial == 0


def test_x509_is_not_read_with_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise AssertionError("X.509 of cryptography is used")

    for name in ("load_der_x509_certificate", "load_pem_x509_certificates"):
        monkeypatch.setattr(f"cryptography.x509.{name}", gone)
    for shape in (Shape(trailer_field=True), Shape()):
        vek = Certificate(raw=MILAN.vek(shape=shape))
        assert vek.signed_by(AMD.keys[Kind.ASK].public)
        assert vek.point is not None


@pytest.mark.filterwarnings("ignore")
def test_another_reader_reads_the_simulated_certificates_alike() -> None:
    vek = library.load_der_x509_certificate(PLATFORMS[Product.TURIN].vek())
    ask = library.load_der_x509_certificate(AUTHORITIES[Product.TURIN].ask)
    assert vek.issuer == ask.subject
    key = ask.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    key.verify(vek.signature, vek.tbs_certificate_bytes, pss, hashes.SHA384())
    own = Certificate(raw=PLATFORMS[Product.TURIN].vek())
    point = vek.public_key()
    assert isinstance(point, ec.EllipticCurvePublicKey)
    assert own.point is not None
    assert own.point.public_numbers() == point.public_numbers()
    assert own.not_after == vek.not_valid_after_utc
    assert own.body == vek.tbs_certificate_bytes
    crl = library.load_der_x509_crl(AMD.crl(5, 0x010001))
    read = RevocationList(raw=AMD.crl(5, 0x010001)).serials
    assert sorted(one.serial_number for one in crl) == [*read]


# what is refused


def test_every_truncation_is_refused() -> None:
    for size in range(len(VEK)):
        refused(VEK[:size])


def test_what_follows_is_refused() -> None:
    assert "1 bytes after its end" in refused(VEK + b"\0")


def test_the_size_is_limited() -> None:
    assert "more than 16384 bytes" in refused(VEK + bytes(MAX_CERTIFICATE))


@pytest.mark.parametrize(
    ("which", "value", "words"),
    [
        ("1", x509.integer(2), "structVersion: no INTEGER from 0 to 1"),
        ("1", None, "structVersion: no INTEGER"),
        ("1", x509.integer(1), "missing or too many"),
        ("2", x509.integer(1), "productName: no IA5String"),
        ("2", x509.ia5_string(""), "productName: no IA5String"),
        ("2", x509.ia5_string("Mil\x1ban"), "productName: no IA5String"),
        ("2", x509.tlv(0x0C, b"Milan"), "productName: no IA5String"),
        ("3.1", x509.integer(256), "blSPL: no INTEGER from 0 to 255"),
        ("3.1", b"\x02\x01\xff", "blSPL: no INTEGER"),
        ("3.1", b"\x02\x02\x00\x01", "blSPL: no INTEGER"),
        ("3.1", x509.integer(3) + b"\0", "blSPL: no INTEGER"),
        ("3.1", None, "blSPL: missing or too many"),
        ("3.8", None, "ucodeSPL: missing or too many"),
        ("3.9", x509.integer(1), "fmcSPL: missing or too many"),
        ("4", None, "hwID: a VCEK has one"),
        ("4", bytes(63), "hwID: 63 bytes, 64 were expected"),
        ("4", bytes(8), "hwID: 8 bytes, 64 were expected"),
        ("4", x509.tlv(0x04, bytes(63)), "hwID: 65 bytes"),
        ("4", x509.tlv(0x05, bytes(64)), "hwID: 66 bytes"),
        ("5", x509.tlv(0x16, b"\xff"), "cspID: no IA5String"),
        ("6", x509.integer(1), "unknown ones of AMD's: 1.3.6.1.4.1.3704.1.6"),
        ("3.10", x509.integer(1), "unknown ones of AMD's: 1.3.6.1.4.1.3704.1.3.10"),
    ],
)
def test_amd_s_extensions_are_read_strictly(which: str, value: bytes | None, words: str) -> None:
    assert words in refused(with_extension(which, value))


def test_a_vlek_names_no_chip() -> None:
    assert "hwID: a VCEK has one, a VLEK has none" in refused(
        with_extension("4", bytes(64), Kind.VLEK)
    )


def test_a_hwid_that_begins_like_an_octet_string_is_raw() -> None:
    raw = b"\x04\x40" + bytes(range(62))
    found = Certificate(raw=MILAN.vek(hwid=raw)).extensions
    assert found is not None
    assert found.hwid == raw
    wrapped = Certificate(raw=MILAN.vek(hwid=raw, shape=Shape(wrapped_hwid=True))).extensions
    assert wrapped is not None
    assert wrapped.hwid == raw


def swapped(old: bytes, new: bytes, data: bytes = VEK, count: int = -1) -> bytes:
    """Replace bytes by as many others."""
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new, count)


PSS = x509.algorithm(trailer_field=False)
EC_KEY = x509.object_id("1.3.132.0.34")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (swapped(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"), "version"),
        (swapped(b"SEV-VCEK", b"SEV_VCEK"), "'SEV_VCEK' is none of AMD's"),
        (swapped(b"SEV-VCEK", b"SEV-VLEK"), "a VCEK has one, a VLEK has none"),
        (swapped(PSS, PSS[:-1] + b"\x20"), "not RSASSA-PSS with SHA-384 and a salt of 48"),
        (swapped(PSS, PSS[:-1] + b"\x20", count=1), "not RSASSA-PSS"),
        (VEK[::-1].replace(PSS[::-1], (PSS[:-1] + b"\x20")[::-1], 1)[::-1], "differs from"),
        (swapped(EC_KEY, EC_KEY[:-1] + b"\x23"), "neither RSA nor EC P-384"),
        (swapped(b"\x03\x62\x00\x04", b"\x03\x62\x00\x02"), "not an uncompressed point"),
        (swapped(b"\x03\x62\x00\x04", b"\x03\x62\x01\x04"), "not of whole bytes"),
        (swapped(b"\x17\x0d", b"\x18\x0d"), "notBefore"),
        (swapped(b"\x17\x0d", b"\x16\x0d"), "no time"),
        (swapped(b"200101000000Z", b"201301000000Z"), "no such date or time"),
        (swapped(b"200101000000Z", b"200101000060Z"), "no such date or time"),
        (swapped(b"200101000000Z", b"2001010000000"), "not in the form YYMMDDhhmmssZ"),
        (swapped(b"\x0c\x0bEng", b"\x1e\x0bEng"), "a text of an unknown type (tag 0x1e)"),
        (swapped(b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x04\x0b"), "0 common names, expected one"),
        (swapped(b"\x06\x03\x55\x04\x0b", b"\x06\x03\x55\x04\x03"), "2 common names, expected one"),
        (swapped(b"SEV-VCEK", b"SEV-\xff\xfeEK"), "none of AMD's"),
    ],
)  # fmt: skip
def test_another_structure_is_refused(data: bytes, words: str) -> None:
    assert words in refused(data)


CA = {"2.5.29.19": bytes.fromhex("30030101ff")}
CA_KEY = x509.rsa_key(AMD.keys[Kind.ASK].public)


def a_certificate(
    found: Mapping[str, bytes] = CA,
    *,
    subject: str = "SEV-Milan",
    issuer: str = "ARK-Milan",
    key: bytes = CA_KEY,
    critical: tuple[str, ...] = (),
) -> bytes:
    return x509.certificate(
        issuer=issuer, subject=subject, key=key, serial=1, found=found, critical=critical,
        signer=AMD.keys[Kind.ARK],
    )  # fmt: skip


def test_another_s_critical_extension_is_refused() -> None:
    found = {**CA, "1.2.3": b""}
    assert Certificate(raw=a_certificate(found)).kind is Kind.ASK
    assert "1.2.3 is critical, and not known here" in refused(
        a_certificate(found, critical=("1.2.3",))
    )


def test_an_extension_that_is_there_twice_is_refused() -> None:
    raw = a_certificate({**CA, "1.2.3": b"", "1.2.4": b""})
    twice = swapped(x509.object_id("1.2.3"), x509.object_id("1.2.4"), raw)
    assert "1.2.4 is there twice, or malformed" in refused(twice)


def test_an_object_id_that_is_not_der_is_refused() -> None:
    long = x509.object_id("1.2.840")
    odd = swapped(long, long[:-1] + b"\x80", a_certificate({**CA, "1.2.840": b""}))
    assert "an object id is there twice, or malformed" in refused(odd)


@pytest.mark.parametrize("value", [None, bytes.fromhex("3000"), bytes.fromhex("3003010100"), b""])
def test_a_ca_says_that_it_is_one(value: bytes | None) -> None:
    raw = AMD.ca(Kind.ASK, shape=Shape(extensions={"2.5.29.19": value}))
    assert "SEV-Milan is not said to be a CA" in refused(raw)


def test_keys_are_of_the_kind_that_the_name_says() -> None:
    numbers = MILAN.key(Kind.VCEK).public_key().public_numbers()
    raw = a_certificate(key=x509.ec_key(numbers.x, numbers.y))
    assert "SEV-Milan: its key is not RSA" in refused(raw)
    assert "SEV-VCEK: its key is not EC P-384" in refused(a_certificate(subject="SEV-VCEK"))


@pytest.mark.parametrize(
    "key",
    [
        SigningKey.named(2048, "ASK").public,
        RsaPublicKey(modulus=AMD.keys[Kind.ASK].public.modulus, exponent=3, bits=4096),
        RsaPublicKey(modulus=AMD.keys[Kind.ASK].public.modulus, exponent=1 << 4095, bits=4096),
    ],
)
def test_another_size_or_exponent_of_rsa_is_refused(key: RsaPublicKey) -> None:
    raw = a_certificate(key=x509.rsa_key(key))
    assert "not an RSA key of 4096 bits with exponent 65537" in refused(raw)


def test_an_rsa_key_that_is_none_verifies_nothing() -> None:
    even = RsaPublicKey(modulus=1 << 4095, exponent=65537, bits=4096)
    assert not Certificate(raw=VEK).signed_by(even)
    assert len(fingerprint(even)) == 64


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x80" * 5000,
        b"\x30\x84\x7f\xff\xff\xff" * 2000,
        b"".join(b"\x30\x83" + (4 * n).to_bytes(3, "big") for n in range(4000, 0, -1)),
        b"\x30\x03\x30\x01" + bytes(10),
        b"\x30\x00",
        b"\x30",
        b"",
        b"\xa0" * 10000,
    ],
    ids=["indefinite", "huge", "nested", "inner", "empty", "tag", "nothing", "tags"],
)
def test_a_der_bomb_is_refused(data: bytes) -> None:
    refused(data)


def test_only_our_errors_come_out_of_changed_certificates() -> None:
    chosen = random.Random(3)
    for _ in range(2000):
        data = bytearray(chosen.choice([VEK, VLEK, AMD.ask]))
        for _ in range(chosen.randint(1, 3)):
            data[chosen.randrange(min(len(data), 800))] = chosen.randrange(256)
        try:
            Certificate(raw=bytes(data))
        except MalformedInput:
            continue


# revocation lists


def test_a_revocation_list_is_read() -> None:
    crl = RevocationList(raw=AMD.crl(1, 0x010001, next_update=AT))
    assert crl.serials == (1, 0x010001)
    assert (str(crl.issuer), crl.next_update) == ("ARK-Milan", AT)
    assert repr(crl) == "RevocationList(ARK-Milan, 2020-01-01, 2 revoked)"
    assert crl.signed_by(AMD.keys[Kind.ARK].public)
    assert not crl.signed_by(AMD.keys[Kind.ASK].public)
    assert RevocationList(raw=AMD.crl(next_update=None)).next_update is None


def crl_body(*parts: bytes) -> bytes:
    which = x509.algorithm(trailer_field=False)
    body = x509.tlv(0x30, x509.integer(1), which, x509.name("ARK-Milan"), x509.time(AT), *parts)
    return x509.tlv(0x30, body, which, x509.tlv(0x03, bytes(513)))


def test_the_optional_parts_of_a_list_may_be_missing() -> None:
    assert RevocationList(raw=crl_body()).serials == ()
    reason = x509.extensions([("2.5.29.21", b"\x0a\x01\x01")])
    entry = x509.tlv(0x30, x509.tlv(0x30, x509.integer(7), x509.time(AT), reason))
    with pytest.raises(MalformedInput):  # an entry's extensions come without a tag of their own
        RevocationList(raw=crl_body(x509.tlv(0xA0, entry)))
    assert RevocationList(raw=crl_body(entry)).serials == (7,)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (crl_body(x509.tlv(0x05)), "crlExtensions"),
        (crl_body(x509.tlv(0xA0, x509.extensions([("1.2.3", b"")], ["1.2.3"]))), "critical"),
        (crl_body(x509.tlv(0x30, x509.tlv(0x30, x509.integer(7)))), "revokedCertificates"),
        (AMD.crl().replace(x509.integer(1) + PSS, x509.integer(0) + PSS), "version"),
        (AMD.crl() + b"\0", "after its end"),
    ],
)  # fmt: skip
def test_another_list_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(MalformedInput, match=words):
        RevocationList(raw=raw)


# roots


def test_the_roots_are_those_of_sev() -> None:
    sev = {root.generation: root for root in sev_roots()}
    for root in amd_roots():
        assert root.product is not None
        theirs = sev[next(g for g in sev if g and g.value == root.product.name.lower())]
        assert theirs.ask is not None
        assert root.ark == theirs.ark.public_key
        assert root.ask is not None
        assert root.ask.public_key == theirs.ask.public_key


def test_the_pinned_keys_have_amd_s_fingerprints() -> None:
    found = {}
    for root in amd_roots():
        assert root.product is not None
        assert root.asvk is not None
        found[root.product.value] = (fingerprint(root.ark), fingerprint(root.asvk.public_key))
    assert found == {
        "Milan": ("9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
                  "66450a123ea5876206df67f2514a4fea224c0f63b18313423078b0edc4535e33"),
        "Genoa": ("429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
                  "7d1633252ebbadaa75f96e9b4e6f7d43a90ceb3f843937482630f8da2459264e"),
        "Turin": ("4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
                  "bfc441408b2f806c5dbf180bd8920e6e60dd404d82141780d85dbf962954d386"),
    }  # fmt: skip
    assert [repr(root) for root in amd_roots()] == [
        "Root(AMD Milan)",
        "Root(AMD Genoa)",
        "Root(AMD Turin)",
    ]


def test_a_root_is_made_of_an_ark_only() -> None:
    assert Root.of(Certificate(raw=AMD.ark)) == AMD.root
    assert AMD.root.pinned(Kind.ASK) is None
    for raw in (AMD.ask, VEK):
        with pytest.raises(MalformedInput, match="is no ARK"):
            Root.of(Certificate(raw=raw))


def test_a_test_platform_is_not_amd_s() -> None:
    amd = {root.ark for root in amd_roots()}
    assert not any(SnpAuthority(p).root.ark in amd for p in Product)


def test_a_list_names_the_serials_that_are_in_it() -> None:
    crl = RevocationList(raw=AMD.crl(9, 0, 5, 5))
    assert [number for number in range(12) if crl.names(number)] == [0, 5, 9]
    assert not RevocationList(raw=AMD.crl()).names(0)


def test_a_list_is_in_force_from_its_date_until_the_next_is_due() -> None:
    second = timedelta(seconds=1)
    crl = RevocationList(raw=AMD.crl(this_update=AT, next_update=AT + second))
    assert [crl.in_force(AT + n * second) for n in (-1, 0, 1, 2)] == [False, True, True, False]
    assert RevocationList(raw=AMD.crl(this_update=AT, next_update=None)).in_force(AT + second)


def test_serial_numbers_have_at_most_20_octets() -> None:
    most = 2**159 - 1
    assert RevocationList(raw=AMD.crl(most)).serials == (most,)
    assert Certificate(raw=AMD.ca(Kind.ASK, serial=most)).serial == most
    with pytest.raises(MalformedInput, match="more than 20 octets"):
        RevocationList(raw=AMD.crl(most + 1))
    with pytest.raises(MalformedInput, match="more than 20 octets"):
        Certificate(raw=AMD.ca(Kind.ASK, serial=most + 1))


def test_a_list_has_a_largest_size() -> None:
    step = len(AMD.crl(*range(2000, 4001))) - len(AMD.crl(*range(2000, 4000)))
    last = 4000 + (revocation.MAX_LIST - len(AMD.crl(*range(2000, 4000)))) // step
    assert len(RevocationList(raw=AMD.crl(*range(2000, last))).serials) == last - 2000
    with pytest.raises(MalformedInput, match="revocation list: more than 65536 bytes"):
        RevocationList(raw=AMD.crl(*range(2000, last + 1)))


def test_serials_with_one_hash_cost_no_more_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's hash of a number is the number modulo 2**61 - 1, without a seed."""
    monkeypatch.setattr(revocation, "MAX_LIST", 1 << 20, raising=False)

    def cost(step: int) -> float:
        raw = AMD.crl(*(number * step for number in range(1, 20_001)))
        begin = time.process_time()
        RevocationList(raw=raw)
        return time.process_time() - begin

    assert hash(2**61 - 1) == hash(0)
    assert cost(2**61 - 1) < 4 * cost(2**61 + 1)
