"""``sev_attest.snp.verify``: what binds a report to AMD's root, one fault at a time."""

import pickle
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

import pytest

from sev_attest import _crypto
from sev_attest.errors import MalformedInput, ReportInvalid, SevAttestError, Unsupported
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.chain import rsa
from sev_attest.snp.kds import vcek_address
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.roots import PinnedKey, Root, amd_roots, fingerprint
from sev_attest.snp.steps import STEPS
from sev_attest.snp.tcb import Product
from sev_attest.snp.verify import CHECKS, REVOCATION, VerifiedReport, verify_report
from sev_attest.testing.snp import TCBS, SnpAuthority, SnpPlatform
from sev_attest.testing.x509 import Shape
from snp_material import AMD, AT, AUTHORITIES, MILAN, PLATFORMS, failures, read, verify

GENUINE = [(product, kind, v) for product in Product for kind in (Kind.VCEK, Kind.VLEK)
           for v in (2, 3, 5)]  # fmt: skip


def flipped(data: bytes, at: int) -> bytes:
    """Flip one bit, counted from the front."""
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def pinned_root(authority: SnpAuthority = AMD) -> Root:
    """Return the test authority's root as AMD's are pinned: with ASK and ASVK."""
    keys = authority.keys
    return Root(
        ark=keys[Kind.ARK].public,
        product=authority.product,
        ask=PinnedKey(public_key=keys[Kind.ASK].public, serial=0x010001),
        asvk=PinnedKey(public_key=keys[Kind.ASVK].public, serial=0x010101),
    )


# what verifies


@pytest.mark.parametrize(
    ("product", "kind", "version"), GENUINE, ids=lambda one: getattr(one, "name", str(one))
)
def test_a_genuine_report_verifies(product: Product, kind: Kind, version: int) -> None:
    platform = PLATFORMS[product]
    report = platform.report(kind, version=version, report_data=b"nonce".ljust(64, b"\0"))
    verified = verify(report, platform.certificates(kind), roots=[platform.authority.root])
    assert verified.product is product
    assert verified.vek.kind is kind
    assert verified.report.report_data.startswith(b"nonce")
    assert verified.held == CHECKS.keys() - {REVOCATION}
    assert verified.root.name.startswith("not AMD's: ARK ")


@pytest.mark.parametrize("shape", [Shape(trailer_field=True), Shape(wrapped_hwid=True)])
def test_older_and_newer_encodings_verify(shape: Shape) -> None:
    authority = SnpAuthority(shape=Shape(trailer_field=shape.trailer_field))
    parts = MILAN.vek(shape=shape), authority.ask, authority.ark
    assert not failures(MILAN.report(), *parts)


def test_the_order_of_certificates_and_those_of_others_do_not_matter() -> None:
    genoa = PLATFORMS[Product.GENOA]
    other = SnpPlatform.of(b"another chip", AMD)
    parts = [
        AMD.ark, genoa.certificates(), AMD.asvk, other.vek(), AMD.ask, MILAN.vek(Kind.VLEK),
        MILAN.vek(), MILAN.vek(), genoa.vek(Kind.VLEK), SnpAuthority(forged=True).ark,
        SnpAuthority(forged=True).ask,
    ]  # fmt: skip
    for order in (parts, parts[::-1]):
        assert verify(MILAN.report(), *order).vek.raw == MILAN.vek()
        assert verify(MILAN.report(Kind.VLEK), *order).vek.raw == MILAN.vek(Kind.VLEK)


def test_of_two_certificates_of_a_key_the_one_in_date_is_taken() -> None:
    old = MILAN.vek(shape=Shape(not_after=datetime(2021, 1, 1, tzinfo=UTC)))
    assert not failures(MILAN.report(), old, MILAN.certificates())


def decoys() -> list[bytes]:
    """Certificates that a host can make, or get, that fit the report as well as the right one."""
    forged, genoa = SnpAuthority(forged=True), AUTHORITIES[Product.GENOA]
    theirs = SnpPlatform.of(b"the host's", AMD).key(Kind.VCEK).public_key()
    own = MILAN.key(Kind.VCEK).public_key()
    fits: dict[str, bytes] = {"tcb": MILAN.tcb, "hwid": MILAN.hwid}
    return [
        forged.vek(Kind.VCEK, theirs, **fits),  # type: ignore[arg-type]
        forged.vek(Kind.VCEK, own, **fits),  # type: ignore[arg-type]
        genoa.vek(Kind.VCEK, own, **fits),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("decoy", decoys(), ids=["another key", "its key", "another product"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_decoy_does_not_displace_the_report_s_own_certificate(decoy: bytes, version: int) -> None:
    report = MILAN.report(version=version)
    for parts in ((decoy, MILAN.vek()), (MILAN.vek(), decoy)):
        assert verify(report, *parts, AMD.ask, AMD.ark).vek.raw == MILAN.vek()
    assert failures(report, decoy, AMD.ask, AMD.ark)


def test_the_number_of_keys_that_are_tried_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    holds = _crypto.ecdsa_sha384_holds

    def counted(*given: Any) -> bool:
        tried.append(given)
        return holds(*given)

    monkeypatch.setattr(_crypto, "ecdsa_sha384_holds", counted)
    (decoy,) = read(decoys()[0])
    many = [Certificate(raw=decoy.raw[:-2] + number.to_bytes(2, "big")) for number in range(200)]
    given = [*many, *read(MILAN.certificates())]
    with pytest.raises(ReportInvalid):  # fails closed
        verify_report(AttestationReport.from_bytes(MILAN.report()), given, roots=[AMD.root], at=AT)
    assert len(tried) == 64 + 4
    assert verify_report(
        AttestationReport.from_bytes(MILAN.report()), given[150:], roots=[AMD.root], at=AT
    )


def test_the_root_may_be_left_out_if_it_is_trusted() -> None:
    assert not failures(MILAN.report(), MILAN.vek(), AMD.ask)


def test_a_proof_cannot_be_made_by_hand() -> None:
    verified = verify(MILAN.report(), MILAN.certificates())
    with pytest.raises(TypeError, match=r"only snp.verify_report\(\) makes a VerifiedReport"):
        VerifiedReport(
            report=verified.report, chain=verified.chain, root=verified.root, at=AT, at_is_now=False
        )


def test_without_a_time_it_is_now() -> None:
    verified = verify(MILAN.report(), MILAN.certificates(), at=None)
    assert verified.at_is_now
    assert abs(verified.at - datetime.now(UTC)) < timedelta(days=1)
    assert not any("judged" in note for note in verified.notes)


def test_another_time_is_said() -> None:
    verified = verify(MILAN.report(), MILAN.certificates())
    assert "the certificates were judged at 2026-06-01 00:00:00 UTC, not now" in verified.notes


# what is pinned


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ((MILAN.vek(),), "ASK and ARK"),
        ((MILAN.vek(), AMD.ask), "ARK"),
        ((MILAN.vek(), AMD.ark), "ASK"),
    ],
)
def test_amd_s_keys_stand_in_and_the_verdict_says_so(
    parts: tuple[bytes, ...], missing: str
) -> None:
    verified = verify(MILAN.report(), *parts, roots=[pinned_root()])
    assert verified.root.name == "AMD Milan"
    words = f"no certificate of the {missing} was given: the verdict rests on AMD's pinned key"
    assert words in verified.notes


def test_a_vlek_alone_rests_on_the_pinned_asvk() -> None:
    verified = verify(MILAN.report(Kind.VLEK), MILAN.vek(Kind.VLEK), roots=[pinned_root()])
    assert "no certificate of the ASVK and ARK" in verified.notes[0]


def test_with_every_certificate_nothing_rests_on_a_pinned_key() -> None:
    verified = verify(MILAN.report(), MILAN.certificates(), roots=[pinned_root()])
    assert not any("pinned" in note for note in verified.notes)


def test_amd_s_pinned_ask_is_not_that_of_another_root() -> None:
    # The ARK is a test platform's, the ASK is missing: AMD's own must not fill the gap.
    found = failures(MILAN.report(), MILAN.vek(), AMD.ark, roots=[*amd_roots(), AMD.root])
    assert found.keys() == {"snp.ask.signed-by-ark"}
    assert "none is pinned" in found["snp.ask.signed-by-ark"]


# one fault at a time


class Fault(NamedTuple):
    """A forged report: the check that has to fail, and what is at hand."""

    name: str
    check: str
    words: str
    report: bytes
    parts: tuple[bytes, ...] = (MILAN.certificates(),)
    platform: SnpPlatform = MILAN


def faults() -> list[Fault]:
    ark, ask = AMD.ark, AMD.ask
    report, vlek_report = MILAN.report(), MILAN.report(Kind.VLEK)
    vek, vlek = MILAN.vek(), MILAN.vek(Kind.VLEK)
    forged = SnpAuthority(forged=True)
    forger = SnpPlatform.of(b"a test chip", forged)
    other = SnpPlatform.of(b"another chip", AMD)
    turin, genoa = PLATFORMS[Product.TURIN], PLATFORMS[Product.GENOA]
    expired = Shape(not_after=AT - timedelta(seconds=1))
    future = Shape(not_before=AT + timedelta(seconds=1))
    zeros = bytes(64)
    return [
        Fault("a-forged-root-with-amd-s-names", "snp.ark.trusted", "name of AMD's ARK-Milan, but",
              forger.report(), (forger.certificates(),)),
        Fault("a-forged-root-that-is-left-out", "snp.ask.signed-by-ark", "the ARK's signature",
              forger.report(), (forger.vek(), forged.ask)),
        Fault("an-ark-that-does-not-sign-itself", "snp.ark.trusted", "its own signature over the",
              report, (vek, ask, AMD.ca(Kind.ARK, signer=Kind.ASK))),
        Fault("an-ask-that-the-ark-does-not-sign", "snp.ask.signed-by-ark", "the ARK's signature",
              report, (vek, AMD.ca(Kind.ASK, signer=Kind.ASVK), ark)),
        Fault("no-ask", "snp.ask.signed-by-ark", "there is no ASK that is called SEV-Milan",
              report, (vek, ark)),
        Fault("no-asvk", "snp.ask.signed-by-ark", "there is no ASVK", vlek_report, (vlek, ark)),
        Fault("a-vcek-that-the-ask-does-not-sign", "snp.vek.signed-by-ask", "the ASK's signature",
              report, (MILAN.vek(signer=Kind.ARK), ask, ark)),
        Fault("a-vlek-that-the-asvk-does-not-sign", "snp.vek.signed-by-ask", "the ASVK's",
              vlek_report, (MILAN.vek(Kind.VLEK, signer=Kind.ARK), AMD.asvk, ark)),
        Fault("a-vcek-for-a-report-of-a-vlek", "snp.vek.kind", "says that a VLEK signs it",
              MILAN.report(key_info=1 << 2)),
        Fault("a-vlek-for-a-report-of-a-vcek", "snp.vek.kind", "says that a VCEK signs it",
              MILAN.report(Kind.VLEK, key_info=0), (vlek, AMD.asvk, ark)),
        Fault("a-report-of-no-key", "snp.vek.kind", "no key signs it",
              MILAN.report(key_info=7 << 2)),
        Fault("a-report-of-an-unknown-key", "snp.vek.kind", "a kind of key that is not known",
              MILAN.report(key_info=2 << 2)),
        Fault("a-vlek-under-the-ask", "snp.vek.kind", "by an ASVK, this one by SEV-Milan",
              vlek_report, (MILAN.vek(Kind.VLEK, issuer=Kind.ASK, signer=Kind.ASK), ask, ark)),
        Fault("a-vcek-under-the-asvk", "snp.vek.kind", "by an ASK, this one by SEV-VLEK-Milan",
              report, (MILAN.vek(issuer=Kind.ASVK, signer=Kind.ASVK), AMD.asvk, ark)),
        Fault("a-certificate-for-another-product", "snp.vek.product", "for 'Genoa' and signed by",
              report, (MILAN.vek(product_name="Genoa"), ask, ark)),
        Fault("a-version-2-certificate-for-another", "snp.vek.product", "for 'Genoa' and signed",
              MILAN.report(version=2), (MILAN.vek(product_name="Genoa"), ask, ark)),
        Fault("an-unknown-product", "snp.vek.product", "is for 'Venice'",
              MILAN.report(version=2), (MILAN.vek(product_name="Venice-A0"), ask, ark)),
        Fault("another-cpu", "snp.vek.product", "the report is of Genoa (CPUID family 0x19, model",
              MILAN.report(cpuid_model=0x11)),
        Fault("an-unknown-cpu", "snp.vek.product", "of no known product (CPUID family 0x1c",
              MILAN.report(cpuid_family=0x1C)),
        *(
            Fault(f"{platform.authority.product.value}-tcb-byte-{at}", "snp.vek.tcb", "TCB",
                  platform.report(reported_tcb=flipped(platform.tcb, 8 * at + 1)),
                  (platform.certificates(),), platform)
            for platform in (MILAN, genoa, turin) for at in range(8)
        ),
        Fault("vlek-tcb", "snp.vek.tcb", "microcode 219 (reported: 218)",
              MILAN.report(Kind.VLEK, reported_tcb=MILAN.tcb[:7] + b"\xda"),
              (MILAN.certificates(Kind.VLEK),)),
        Fault("another-chip", "snp.vek.hwid", "is another chip's",
              MILAN.report(chip_id=other.hwid)),
        Fault("a-masked-chip", "snp.vek.hwid", "names no chip (the host masks",
              MILAN.report(chip_id=zeros)),
        Fault("more-than-turin-s-id", "snp.vek.hwid", "is another chip's",
              turin.report(chip_id=turin.hwid + b"\1" + bytes(55)), (turin.certificates(),), turin),
        Fault("a-chip-under-a-vlek", "snp.vek.hwid", "that a VLEK signs names no chip",
              MILAN.report(Kind.VLEK, chip_id=MILAN.hwid), (MILAN.certificates(Kind.VLEK),)),
        Fault("an-expired-vcek", "snp.vek.validity", "VCEK expired on 2026-05-31 23:59:59 UTC",
              report, (MILAN.vek(shape=expired), ask, ark)),
        Fault("an-expired-vlek", "snp.vek.validity", "the VLEK expired on",
              vlek_report, (MILAN.vek(Kind.VLEK, shape=expired), AMD.asvk, ark)),
        Fault("a-vcek-of-tomorrow", "snp.vek.validity", "is valid from 2026-06-01 00:00:01",
              report, (MILAN.vek(shape=future), ask, ark)),
        Fault("an-expired-ask", "snp.vek.validity", "the ASK expired on",
              report, (vek, AMD.ca(Kind.ASK, shape=expired), ark)),
        Fault("an-expired-ark", "snp.vek.validity", "the ARK expired on",
              report, (vek, ask, AMD.ca(Kind.ARK, shape=expired))),
        Fault("another-key", "snp.report.signature", "the VCEK's signature over the report",
              MILAN.report(signed_by=other.key(Kind.VCEK))),
        Fault("no-signature", "snp.report.signature", "is all zeros", report[:0x2A0] + bytes(512)),
        Fault("a-masked-key", "snp.report.signature", "all zeros: the host masks the chip's key",
              MILAN.report(key_info=2)[:0x2A0] + bytes(512)),
        Fault("another-algorithm", "snp.report.signature", "signature_algo is 2; only 1",
              MILAN.report(signature_algo=2)),
        Fault("a-changed-report", "snp.report.signature", "does not hold",
              flipped(report, 8 * 0x90)),
        *(
            Fault(f"version-{version}-reserved-{at:#x}", "snp.report.reserved",
                  f"of version {version}, has reserved bytes in use",
                  MILAN.report(version=version, poked={at: b"\1"}))
            for version, places in {
                2: (0x4C, 0x188, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x208, 0x29F),
                3: (0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x207, 0x29F),
                5: (0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F),
            }.items()
            for at in places
        ),
        Fault("a-policy-without-bit-17", "snp.report.reserved", "policy",
              MILAN.report(policy=0x10000)),
        Fault("a-policy-with-bit-26", "snp.report.reserved", "policy",
              MILAN.report(policy=0x30000 | 1 << 26)),
    ]  # fmt: skip


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_a_forged_report_fails_for_exactly_its_check(fault: Fault) -> None:
    trusted = [*amd_roots(), fault.platform.authority.root]
    if "forged" in fault.name:
        trusted = [*amd_roots()]
    found = failures(fault.report, *fault.parts, roots=trusted)
    assert found.keys() == {fault.check}
    assert fault.words in found[fault.check]


def test_every_check_is_a_step_and_every_step_a_check() -> None:
    assert [*STEPS] == [*CHECKS]


def test_every_check_has_a_forged_report() -> None:
    assert {fault.check for fault in faults()} | {REVOCATION} == CHECKS.keys()


def test_the_forged_root_that_go_sev_guest_took_is_refused_with_amd_s_roots() -> None:
    """Its certificates come with the evidence, name AMD, and are consistent with each other."""
    forged = SnpPlatform.of(b"a test chip", SnpAuthority(forged=True))
    report = AttestationReport.from_bytes(forged.report())
    with pytest.raises(ReportInvalid) as caught:
        verify_report(report, read(forged.certificates()), at=AT)
    assert caught.value.check == "snp.ark.trusted"
    assert caught.value.certificate == "ARK"


def test_a_forged_chain_under_the_genuine_root_is_refused() -> None:
    forged = SnpPlatform.of(b"a test chip", SnpAuthority(forged=True))
    found = failures(forged.report(), forged.certificates(), AMD.ark)
    assert found.keys() == {"snp.ask.signed-by-ark"}


@pytest.mark.parametrize("kind", [Kind.VCEK, Kind.VLEK], ids=["vcek", "vlek"])
def test_an_ask_of_an_ark_with_the_trusted_one_s_name_is_told_apart_by_both_keys(
    kind: Kind,
) -> None:
    authority = SnpAuthority(forged=True)
    forged = SnpPlatform.of(b"a test chip", authority)
    others = [forged.certificates(kind), AMD.ark, AUTHORITIES[Product.GENOA].ark]
    theirs, ours = (fingerprint(one.root.ark)[:16] for one in (authority, AMD))
    name = "ASK" if kind is Kind.VCEK else "ASVK"
    for order in (others, others[::-1]):
        assert failures(forged.report(kind), *order) == {
            "snp.ask.signed-by-ark": f"the {name} is signed by another ARK-Milan than the trusted "
            f"one: the signer's key is {theirs}, the trusted one is {ours}"
        }


def test_an_ark_of_the_same_name_that_signed_nothing_is_not_blamed() -> None:
    forged = SnpAuthority(forged=True)
    report, parts = MILAN.report(), (MILAN.vek(), AMD.ca(Kind.ASK, signer=Kind.ASVK))
    expected = {"snp.ask.signed-by-ark": "the ARK's signature over the ASK does not hold"}
    assert failures(report, *parts, AMD.ark, forged.ark) == expected
    # Nor is one called trusted that is not.
    chain = SnpPlatform.of(b"a test chip", forged).certificates()
    found = failures(MILAN.report(), AMD.ark, chain, roots=[*amd_roots()])
    assert expected.items() <= found.items()


def test_every_failure_is_reported() -> None:
    other = SnpPlatform.of(b"another chip", AMD, tcb=bytes.fromhex("03000000000008aa"))
    expired = Shape(not_after=datetime(2021, 1, 1, tzinfo=UTC))
    report = MILAN.report(poked={0x4C: b"\1"}, cpuid_model=0x11, key_info=4)
    parts = other.vek(signer=Kind.ARK, shape=expired), AMD.ca(Kind.ASK, signer=Kind.ASVK)
    found = failures(report, *parts, roots=[*amd_roots()])
    assert found.keys() == CHECKS.keys() - {REVOCATION, "snp.ark.trusted"}
    assert list(found) == [check for check in CHECKS if check in found]


def test_the_error_survives_a_worker_process() -> None:
    with pytest.raises(ReportInvalid) as caught:
        verify(MILAN.report(signature_algo=2), MILAN.certificates())
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.check, copy.held) == (caught.value.check, caught.value.held)


# explanations


def hint_of(report: bytes, *parts: bytes) -> str:
    with pytest.raises(ReportInvalid) as caught:
        verify(report, *parts)
    return caught.value.hint


def test_a_wrong_tcb_is_explained_with_the_address_of_the_right_one() -> None:
    other = SnpPlatform.of(b"a test chip", AMD, tcb=bytes.fromhex("03000000000008aa"))
    report = MILAN.report()
    found = failures(report, other.vek(), AMD.ask, AMD.ark)
    assert found["snp.vek.tcb"] == (
        "the VCEK is for another TCB than the reported: bootloader 3 (reported: 4), "
        "snp 8 (reported: 24), microcode 170 (reported: 219)"
    )
    hint = hint_of(report, other.vek(), AMD.ask, AMD.ark)
    assert hint == (
        f"AMD serves the right one at https://kdsintf.amd.com/vcek/v1/Milan/{MILAN.hwid.hex()}"
        "?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    )


def test_turin_s_address_has_eight_bytes_and_the_fmc() -> None:
    turin = PLATFORMS[Product.TURIN]
    address = vcek_address(AttestationReport.from_bytes(turin.report()), Product.TURIN)
    assert address == (
        f"https://kdsintf.amd.com/vcek/v1/Turin/{turin.hwid.hex()}"
        "?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=80"
    )
    assert len(turin.hwid) == 8


@pytest.mark.parametrize("at", [2, 5])
def test_a_reserved_byte_of_the_tcb_is_shown_in_hex(at: int) -> None:
    report = MILAN.report(reported_tcb=flipped(MILAN.tcb, 8 * at))
    assert MILAN.tcb.hex() in failures(report, MILAN.certificates())["snp.vek.tcb"]


def test_a_tcb_of_an_unknown_product_is_shown_in_hex() -> None:
    vek = MILAN.vek(product_name="Venice")
    found = failures(MILAN.report(version=2, reported_tcb=bytes(8)), vek, AMD.ask, AMD.ark)
    assert "reported is 0000000000000000" in found["snp.vek.tcb"]


def test_no_address_is_named_where_nobody_can_know_it() -> None:
    assert "masks" not in hint_of(MILAN.report(key_info=0, chip_id=bytes(64), version=2,
                                               signature_algo=2), MILAN.certificates())  # fmt: skip
    vek = MILAN.vek(product_name="Venice")
    assert hint_of(MILAN.report(version=2), vek, AMD.ask, AMD.ark) == ""


def test_a_vlek_comes_from_the_cloud_provider() -> None:
    report = MILAN.report(Kind.VLEK, reported_tcb=bytes(8))
    assert "cloud provider" in hint_of(report, MILAN.certificates(Kind.VLEK))
    assert "cloud provider" in hint_of(MILAN.report(key_info=4), MILAN.certificates())


def test_an_untrusted_root_is_named_by_what_it_claims_to_be() -> None:
    roots = [AUTHORITIES[Product.GENOA].root]
    forged = SnpPlatform.of(b"a test chip", SnpAuthority(forged=True))
    vek, ask = forged.vek(), forged.authority.ask
    found = failures(forged.report(), vek, ask, roots=roots)
    assert found["snp.ark.trusted"] == "there is no ARK, and no trusted root for SEV-Milan"
    venice = b"ARK-Nilan"
    odd = [part.replace(b"ARK-Milan", venice) for part in (ask, forged.authority.ark)]
    found = failures(forged.report(), vek, *odd, roots=roots)
    assert found["snp.ark.trusted"] == "the ARK-Nilan is no trusted root: its key is none of AMD's"


# what is missing, or no use


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (MILAN.report(), f"AMD serves the VCEK at https://kdsintf.amd.com/vcek/v1/Milan/{MILAN.hwid.hex()}?bl"),
        (MILAN.report(version=2), " or https://kdsintf.amd.com/vcek/v1/Genoa/"),
        (MILAN.report(Kind.VLEK), "cloud provider"),
    ],
)  # fmt: skip
def test_without_a_vcek_it_is_said_where_there_is_one(report: bytes, words: str) -> None:
    with pytest.raises(MalformedInput, match="there is no VCEK and no VLEK") as caught:
        verify(report, AMD.ask, AMD.ark)
    assert words in caught.value.hint
    assert caught.value.exit_code == 6


def test_without_a_vcek_of_an_unknown_product_there_is_no_address() -> None:
    with pytest.raises(MalformedInput) as caught:
        verify(MILAN.report(cpuid_family=0x1C), AMD.ask)
    assert caught.value.hint == ""


def test_no_root_means_no_verdict() -> None:
    with pytest.raises(Unsupported, match="no trusted root"):
        verify(MILAN.report(), MILAN.certificates(), roots=[])


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(Unsupported, match="no time zone"):
        verify(MILAN.report(), MILAN.certificates(), at=datetime(2026, 6, 1))  # noqa: DTZ001

    class Nowhere(tzinfo):
        """A zone that does not know its offset."""

        def utcoffset(self, _when: datetime | None) -> None:
            """Return None."""

        dst = utcoffset

        def tzname(self, _when: datetime | None) -> str:
            """Return no name."""
            return ""

    with pytest.raises(Unsupported, match="no time zone"):
        verify(MILAN.report(), MILAN.certificates(), at=datetime(2026, 6, 1, tzinfo=Nowhere()))


def test_a_vcek_has_no_rsa_key() -> None:
    with pytest.raises(TypeError, match="has no RSA key"):
        rsa(Certificate(raw=MILAN.vek()))


def test_a_key_that_is_no_point_verifies_nothing() -> None:
    vek = Certificate(raw=MILAN.vek())
    raw = MILAN.vek().replace(vek.public_key.y.to_bytes(48, "big"), bytes(48))  # type: ignore[union-attr]
    found = failures(MILAN.report(), raw, AMD.ask, AMD.ark)
    assert found["snp.report.signature"] == "the VCEK's key is no point on P-384"
    assert Certificate(raw=AMD.ark).point is None


# revocation


def revocation(
    *lists: bytes,
    parts: tuple[bytes, ...] | None = None,
    roots: list[Root] | None = None,
    report: bytes | None = None,
) -> str:
    given = (MILAN.certificates(),) if parts is None else parts
    found = failures(report or MILAN.report(), *given, *lists, roots=roots)
    assert found.keys() <= {REVOCATION}
    return found.get(REVOCATION, "")


def test_a_list_that_does_not_name_the_ask_holds() -> None:
    verified = verify(MILAN.report(), MILAN.certificates(), AMD.crl(0x010002))
    assert verified.held == CHECKS.keys()
    assert any("AMD revokes no chip" in note for note in verified.notes)
    assert not revocation(AMD.crl(), AMD.crl(next_update=None))


def test_a_revoked_ask_is_refused() -> None:
    assert "the ARK has revoked this ASK" in revocation(AMD.crl(0x010001))
    report, parts = MILAN.report(Kind.VLEK), (MILAN.certificates(Kind.VLEK),)
    assert not revocation(AMD.crl(0x010001), report=report, parts=parts)
    assert "this ASVK" in revocation(AMD.crl(0x010101), report=report, parts=parts)


def test_a_revoked_ask_that_is_pinned_is_refused_too() -> None:
    pinned = {"parts": (MILAN.vek(),), "roots": [pinned_root()]}
    assert not revocation(AMD.crl(), **pinned)  # type: ignore[arg-type]
    assert "revoked" in revocation(AMD.crl(0x010001), **pinned)  # type: ignore[arg-type]


def test_an_old_list_still_revokes_but_does_not_clear() -> None:
    old = AT - timedelta(days=1)
    assert "ARK-Milan's of 2020-01-01 00:00:00 UTC (the next is due 2026-05-31" in revocation(
        AMD.crl(next_update=old)
    )
    assert "revoked" in revocation(AMD.crl(0x010001, next_update=old), AMD.crl())


def test_a_list_of_tomorrow_revokes_but_does_not_clear() -> None:
    tomorrow = AT + timedelta(days=1)
    for due in (None, tomorrow + timedelta(days=1)):
        found = revocation(AMD.crl(this_update=tomorrow, next_update=due))
        assert (
            "is not valid yet at 2026-06-01 00:00:00 UTC: it is ARK-Milan's of 2026-06-02" in found
        )
    assert "revoked" in revocation(AMD.crl(0x010001, this_update=tomorrow), AMD.crl())
    assert not revocation(AMD.crl(this_update=tomorrow), AMD.crl())
    old = AMD.crl(next_update=AT - timedelta(days=1))
    assert "out of date" in revocation(AMD.crl(this_update=tomorrow), old)


def test_the_list_that_cleared_is_named_with_its_dates() -> None:
    lists = (
        AMD.crl(next_update=AT - timedelta(days=1)),
        AMD.crl(this_update=AT - timedelta(days=2), next_update=None),
        AMD.crl(this_update=AT + timedelta(days=1)),
        AUTHORITIES[Product.GENOA].crl(),
    )
    notes = verify(MILAN.report(), MILAN.certificates(), *lists).notes
    words = "ARK-Milan's of 2026-05-30 00:00:00 UTC (no next is stated)"
    assert f"the revocation list is {words}" in notes


@pytest.mark.parametrize("first", [True, False])
def test_a_new_certificate_of_a_revoked_key_does_not_help(*, first: bool) -> None:
    """The serial is that of whatever certificate the host brings: the key is what is revoked."""
    new, list_ = AMD.ca(Kind.ASK, serial=0x01000F), AMD.crl(0x010001)
    given = (new, AMD.ask) if first else (AMD.ask, new)
    assert "revoked" in revocation(list_, parts=(MILAN.vek(), *given, AMD.ark))
    assert "revoked" in revocation(
        list_, parts=(MILAN.vek(), new, AMD.ark), roots=[pinned_root()]
    )  # fmt: skip
    # Nobody but the ARK says which serial numbers a key has.
    false = AMD.ca(Kind.ASK, serial=0x01000F, signer=Kind.ASVK)
    assert not revocation(AMD.crl(0x01000F), parts=(MILAN.vek(), AMD.ask, false, AMD.ark))
    assert not revocation(AMD.crl(0x010101), parts=(MILAN.certificates(), AMD.asvk))


def test_another_s_list_does_not_count() -> None:
    assert "is of ARK-Genoa, not of this" in revocation(AUTHORITIES[Product.GENOA].crl())
    assert "does not hold" in revocation(AMD.crl(signer=Kind.ASK))
    assert "does not hold" in revocation(AMD.crl(0x010001, signer=Kind.ASK))


def test_the_address_of_the_list_is_named_for_amd_s_products() -> None:
    with pytest.raises(ReportInvalid) as caught:
        verify(MILAN.report(), MILAN.vek(), AMD.crl(signer=Kind.ASK), roots=[pinned_root()])
    assert caught.value.hint == "AMD serves it at https://kdsintf.amd.com/vcek/v1/Milan/crl"


def test_without_a_root_no_list_counts() -> None:
    forged = SnpPlatform.of(b"a chip", SnpAuthority(forged=True))
    parts = forged.vek(), forged.authority.ask, AMD.crl()
    found = failures(forged.report(), *parts, roots=[AUTHORITIES[Product.GENOA].root])
    assert "snp.ark.trusted" in found


# sweeps


def test_no_bit_of_a_report_can_be_flipped() -> None:
    report, certificates = MILAN.report(), read(MILAN.certificates())
    for at in random.Random(1).sample(range(8 * len(report)), 1500):
        with pytest.raises((ReportInvalid, MalformedInput)):
            verify_report(
                AttestationReport.from_bytes(flipped(report, at)),
                certificates,
                roots=[AMD.root],
                at=AT,
            )


@pytest.mark.parametrize("which", [0, 1, 2], ids=["vcek", "ask", "ark"])
def test_no_bit_of_a_certificate_can_be_flipped(which: int) -> None:
    report = AttestationReport.from_bytes(MILAN.report())
    parts = [MILAN.vek(), AMD.ask, AMD.ark]
    for at in random.Random(2).sample(range(8 * len(parts[which])), 400):
        changed = [flipped(d, at) if n == which else d for n, d in enumerate(parts)]
        with suppress(SevAttestError):
            verified = verify_report(report, read(*changed), roots=[AMD.root], at=AT)
            # An ARK of another name is another's: the key of this one is known without it.
            assert which == 2
            assert verified.chain.ark is None


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("byte", [0, 0x7F, 0x80, 0xFF])
def test_patch_levels_have_every_value(product: Product, byte: int) -> None:
    reserved = {Product.TURIN: (4, 5, 6)}.get(product, (2, 3, 4, 5))
    tcb = bytes(0 if at in reserved else byte for at in range(8))
    platform = SnpPlatform.of(b"a chip", AUTHORITIES[product], tcb=tcb)
    assert not failures(platform.report(), platform.certificates(), roots=[platform.authority.root])
    assert len(TCBS[product]) == 8
