"""The vectors of SEV-SNP: reports, certificates, what they come in, launch digests.

``make_vectors.py`` writes them. Every key is fixed, ECDSA is deterministic (RFC 6979), and the salt
of RSA-PSS is derived from the message.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sev_attest.guest import CpuModel, SnpProfile
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.digest import launch_digest
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.tcb import Product
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image
from sev_attest.testing.snp import SnpAuthority, SnpPlatform
from sev_attest.testing.x509 import Shape, certificate, ec_key, ia5_string, integer, rsa_key, tlv
from vector_files import MADE_BY, Case, b64, blob

AT = datetime(2026, 6, 1, tzinfo=UTC)
"""The time at which every report is judged."""
AUTHORITIES = {product: SnpAuthority(product) for product in Product}
PLATFORMS = {p: SnpPlatform.of(b"vectors", authority) for p, authority in AUTHORITIES.items()}
MILAN, GENOA, TURIN = (PLATFORMS[product] for product in Product)
AMD = MILAN.authority
OTHER = SnpPlatform.of(b"another chip", AMD)
FORGED = SnpAuthority(forged=True)
FORGER = SnpPlatform.of(b"vectors", FORGED)
EXPIRED, FUTURE = (
    Shape(not_after=AT - timedelta(seconds=1)),
    Shape(not_before=AT + timedelta(seconds=1)),
)
AMD_OID = "1.3.6.1.4.1.3704.1."


# reports

Pinned = Mapping[str, Any]


def root_of(authority: SnpAuthority, product: str | None = None, **pinned: bytes) -> Pinned:
    """Lay out the root to trust: its ARK, and the certificates whose keys are pinned beside it."""
    parts = {"ark": authority.ark, **pinned}
    return {"product": product, "files": {name: blob(data) for name, data in parts.items()}}


def report_case(
    name: str,
    words: str,
    report: bytes,
    certificates: Iterable[bytes],
    *failed: str,
    root: Pinned | None = None,
    fields: Case | None = None,
) -> Case:
    """Lay out one report: what is at hand, the root to trust, and what must fail."""
    return {
        "id": name,
        "description": words,
        "source": MADE_BY,
        "report": blob(report),
        "certificates": [blob(one) for one in certificates],
        "root": root,
        "at": AT.isoformat(),
        "valid": not failed,
        "failed_checks": sorted(failed),
        "fields": fields,
    }


def case_of_milan(
    name: str, words: str, report: bytes, certificates: Iterable[bytes], *failed: str
) -> Case:
    """Lay out a report under the test authority's root for Milan."""
    fields = None if failed else fields_of(report, Product.MILAN)
    root = root_of(AMD)
    return report_case(name, words, report, certificates, *failed, root=root, fields=fields)


def fields_of(data: bytes, product: Product) -> Case:
    """Read the fields that a vector states."""
    report = AttestationReport.from_bytes(data)
    texts = (
        "family_id", "image_id", "report_data", "measurement", "host_data", "id_key_digest",
        "author_key_digest", "report_id", "report_id_ma", "chip_id",
    )  # fmt: skip
    tcbs = ("current", "reported", "committed", "launch")
    vectors = ("launch_mit_vector", "current_mit_vector")
    cpuid = [report.cpuid_family, report.cpuid_model, report.cpuid_stepping]
    return (
        {name: getattr(report, name).hex() for name in texts}
        | {f"{name}_tcb": report.tcb(name, product).components for name in tcbs}
        | {
            "version": report.version,
            "product": product.value,
            "guest_svn": report.guest_svn,
            "policy": str(report.policy),
            "debug": report.policy.debug,
            "migration_agent": report.policy.migration_agent,
            "vmpl": report.vmpl,
            "platform_info": f"{report.platform_info.value:#x}",
            "alias_check_complete": "alias-check-complete" in report.platform_info.names,
            "author_key": report.key_info.author_key_en,
            "signing_key": report.key_info.signing_key.name,
            "cpuid": None if report.cpuid_family is None else cpuid,
            "current_version": list(report.current_version),
            "committed_version": list(report.committed_version),
        }
        | {n: None if (v := getattr(report, n)) is None else f"{v:#x}" for n in vectors}
    )


def draw(name: str, size: int) -> bytes:
    """Return the fixed bytes of a field."""
    return hashlib.shake_128(name.encode()).digest(size)


def filled(version: int, product: Product) -> dict[str, Any]:
    """Return fields that tell one from the other, as no two have the same bytes."""
    tcb = PLATFORMS[product].tcb
    behind = bytes(max(byte - 1, 0) for byte in tcb)
    found: dict[str, Any] = {
        "guest_svn": 0x01020304,
        "policy": 0x30000 | 0x0137 | 1 << 18 | 1 << 19,
        "vmpl": 2,
        "platform_info": 0x65,
        "current_tcb": bytes(byte + 1 if byte else 0 for byte in tcb),
        "committed_tcb": tcb,
        "launch_tcb": behind,
        "current_major": 1, "current_minor": 55, "current_build": 65,
        "committed_major": 2, "committed_minor": 54, "committed_build": 61,
    }  # fmt: skip
    for name, size in (
        ("family_id", 16), ("image_id", 16), ("report_data", 64), ("measurement", 48),
        ("host_data", 32), ("id_key_digest", 48), ("author_key_digest", 48), ("report_id", 32),
        ("report_id_ma", 32),
    ):  # fmt: skip
        found[name] = draw(name, size)
    if version == 5:
        found |= {"launch_mit_vector": 0x3F, "current_mit_vector": 1 << 63 | 0x7F}
    return found


def genuine_cases() -> list[Case]:
    """List a genuine report of every product, kind of key and version."""
    cases = []
    for product, platform in PLATFORMS.items():
        for kind in (Kind.VCEK, Kind.VLEK):
            authority = platform.authority
            ca = authority.ask if kind is Kind.VCEK else authority.asvk
            for version in (2, 3, 5):
                info = 1 | (0 if kind is Kind.VCEK else 1 << 2)
                values = filled(version, product)
                report = platform.report(kind, version=version, key_info=info, **values)
                cases.append(
                    report_case(
                        f"{product.value}-{kind.name}-version-{version}".lower(),
                        f"a report of {product.value}, version {version}, that a {kind.name} signs",
                        report,
                        (platform.vek(kind), ca, authority.ark),
                        root=root_of(authority),
                        fields=fields_of(report, product),
                    )
                )
    return cases


def accepted_cases() -> list[Case]:
    """List reports that verify by less, or more, than one chain."""
    report, vlek_report = MILAN.report(), MILAN.report(Kind.VLEK)
    vek, vlek, ask, asvk, ark = MILAN.vek(), MILAN.vek(Kind.VLEK), AMD.ask, AMD.asvk, AMD.ark
    old = Shape(trailer_field=True)
    pinned = root_of(AMD, "Milan", ask=ask, asvk=asvk)
    case = case_of_milan

    def with_pinned(name: str, words: str, data: bytes, given: Iterable[bytes]) -> Case:
        fields = fields_of(data, Product.MILAN)
        return report_case(name, words, data, given, root=pinned, fields=fields)

    return [
        case("trailer-field", "certificates state the default trailerField, as before autumn 2024",
             report, (MILAN.vek(shape=old), AMD.ca(Kind.ASK, shape=old), ark)),
        case("wrapped-hwid", "the hwID is in an OCTET STRING", report,
             (MILAN.vek(shape=Shape(wrapped_hwid=True)), ask, ark)),
        case("no-ark", "the ARK is left out: the root's key signs the ASK", report, (vek, ask)),
        with_pinned("pinned-ask", "the ASK is left out, and its key is pinned", report, (vek, ark)),
        with_pinned("pinned-chain", "a VCEK alone, whose ASK and ARK are pinned", report, (vek,)),
        with_pinned("pinned-asvk", "a VLEK alone, whose ASVK and ARK are pinned", vlek_report,
                    (vlek,)),
        case("any-order", "certificates of others, and in any order", report,
             (ark, GENOA.vek(), asvk, OTHER.vek(), ask, vlek, vek, FORGED.ark, FORGED.ask)),
        case("decoy", "before the VCEK stands one of a forger's, with its names and extensions",
             report, (FORGER.vek(), vek, ask, ark)),
        case("crl", "a revocation list that does not name the ASK", report,
             (vek, ask, ark, AMD.crl(0x010002))),
        case("crl-of-the-asvk", "the list names the ASVK, and a VCEK signs the report", report,
             (vek, ask, ark, AMD.crl(0x010101))),
        case("last-second", "the VCEK is valid up to this second", report,
             (MILAN.vek(shape=Shape(not_after=AT)), ask, ark)),
        case("unknown-platform-bits", "bits of platform_info and key_info that have no name",
             MILAN.report(platform_info=1 << 63, key_info=1 << 31), (vek, ask, ark)),
        case("asked-by-the-host", "vmpl is ffffffff", MILAN.report(vmpl=0xFFFFFFFF),
             (vek, ask, ark)),
    ]  # fmt: skip


def chain_fault_cases() -> list[Case]:
    """List reports whose certificates have one fault."""
    report, vlek_report = MILAN.report(), MILAN.report(Kind.VLEK)
    vek, vlek, ask, asvk, ark = MILAN.vek(), MILAN.vek(Kind.VLEK), AMD.ask, AMD.asvk, AMD.ark
    forged = FORGER.vek(), FORGED.ask, FORGED.ark
    revocation = "snp.ask.not-revoked"
    new = AMD.ca(Kind.ASK, serial=0x01000F)
    early = AMD.crl(this_update=AT + timedelta(seconds=1))
    late = AMD.crl(next_update=AT - timedelta(seconds=1))
    case = case_of_milan
    return [
        case("forged-root", "a whole chain of the attacker's own, with AMD's names",
             FORGER.report(), forged, "snp.ark.trusted"),
        report_case("untrusted-root", "the test root is not trusted, and it is not AMD's", report,
                    (vek, ask, ark), "snp.ark.trusted"),
        case("ark-not-self-signed", "the ARK has the trusted key, and does not sign itself", report,
             (vek, ask, AMD.ca(Kind.ARK, signer=Kind.ASK)), "snp.ark.trusted"),
        case("forged-under-the-root", "a forged chain under the genuine ARK", FORGER.report(),
             (FORGER.vek(), FORGED.ask, ark), "snp.ask.signed-by-ark"),
        case("forged-without-root", "a forged chain whose ARK is left out", FORGER.report(),
             (FORGER.vek(), FORGED.ask), "snp.ask.signed-by-ark"),
        case("ask-not-signed", "another key than the ARK's signs the ASK", report,
             (vek, AMD.ca(Kind.ASK, signer=Kind.ASVK), ark), "snp.ask.signed-by-ark"),
        case("no-ask", "the ASK is left out, and none is pinned", report, (vek, ark),
             "snp.ask.signed-by-ark"),
        case("asvk-instead", "the ASVK stands where the ASK is needed", report, (vek, asvk, ark),
             "snp.ask.signed-by-ark"),
        case("vcek-not-signed", "another key than the ASK's signs the VCEK", report,
             (MILAN.vek(signer=Kind.ARK), ask, ark), "snp.vek.signed-by-ask"),
        case("vlek-not-signed", "another key than the ASVK's signs the VLEK", vlek_report,
             (MILAN.vek(Kind.VLEK, signer=Kind.ASK), asvk, ark), "snp.vek.signed-by-ask"),
        case("vlek-under-ask", "an ASK, which is for VCEKs, signs the VLEK", vlek_report,
             (MILAN.vek(Kind.VLEK, issuer=Kind.ASK, signer=Kind.ASK), ask, ark), "snp.vek.kind"),
        case("vcek-under-asvk", "an ASVK, which is for VLEKs, signs the VCEK", report,
             (MILAN.vek(issuer=Kind.ASVK, signer=Kind.ASVK), asvk, ark), "snp.vek.kind"),
        case("expired-vcek", "the VCEK expired a second ago", report,
             (MILAN.vek(shape=EXPIRED), ask, ark), "snp.vek.validity"),
        case("expired-vlek", "the VLEK expired a second ago", vlek_report,
             (MILAN.vek(Kind.VLEK, shape=EXPIRED), asvk, ark), "snp.vek.validity"),
        case("future-vcek", "the VCEK becomes valid in a second", report,
             (MILAN.vek(shape=FUTURE), ask, ark), "snp.vek.validity"),
        case("expired-ask", "the ASK expired a second ago", report,
             (vek, AMD.ca(Kind.ASK, shape=EXPIRED), ark), "snp.vek.validity"),
        case("expired-ark", "the ARK expired a second ago", report,
             (vek, ask, AMD.ca(Kind.ARK, shape=EXPIRED)), "snp.vek.validity"),
        case("revoked-ask", "the list names the ASK", report, (vek, ask, ark, AMD.crl(0x010001)),
             revocation),
        case("revoked-asvk", "the list names the ASVK", vlek_report,
             (vlek, asvk, ark, AMD.crl(0x010101)), revocation),
        case("revoked-key", "the list names an older certificate of the ASK's key", report,
             (vek, new, ask, ark, AMD.crl(0x010001)), revocation),
        case("revoked-by-an-old-list", "a list that is out of date still revokes", report,
             (vek, ask, ark, AMD.crl(0x010001, next_update=AT - timedelta(days=1)), AMD.crl()),
             revocation),
        case("old-list", "the list is out of date", report, (vek, ask, ark, late), revocation),
        case("list-of-tomorrow", "the list is not valid yet", report, (vek, ask, ark, early),
             revocation),
        case("list-of-another", "the list is another product's", report,
             (vek, ask, ark, AUTHORITIES[Product.GENOA].crl()), revocation),
        case("list-not-signed", "another key than the ARK's signs the list", report,
             (vek, ask, ark, AMD.crl(signer=Kind.ASK)), revocation),
        report_case("revoked-pinned-ask", "the list names the ASK that is pinned", report,
                    (vek, AMD.crl(0x010001)), revocation, root=root_of(AMD, "Milan", ask=ask)),
        report_case("pinned-for-another-product", "the root is pinned for Genoa", report,
                    (vek, ask, ark), "snp.vek.product", root=root_of(AMD, "Genoa", ask=ask)),
    ]  # fmt: skip


def binding_fault_cases() -> list[Case]:
    """List reports that are not bound to their certificate, in one way each."""
    vek, vlek, ask, asvk, ark = MILAN.vek(), MILAN.vek(Kind.VLEK), AMD.ask, AMD.asvk, AMD.ark
    usual, for_vlek = (vek, ask, ark), (vlek, asvk, ark)
    report = MILAN.report()
    turin = TURIN.vek(), TURIN.authority.ask, TURIN.authority.ark
    zeros = bytes(512)
    changed = bytearray(report)
    changed[0x90] ^= 1
    case = case_of_milan
    kind, product, hwid = "snp.vek.kind", "snp.vek.product", "snp.vek.hwid"
    signature = "snp.report.signature"
    return [
        case("states-a-vlek", "the report says that a VLEK signs it", MILAN.report(key_info=1 << 2),
             usual, kind),
        case("states-a-vcek", "the report says that a VCEK signs it, and a VLEK does",
             MILAN.report(Kind.VLEK, key_info=0), for_vlek, kind),
        case("states-no-key", "the report says that no key signs it", MILAN.report(key_info=7 << 2),
             usual, kind),
        case("states-an-unknown-key", "the report states a reserved kind of key",
             MILAN.report(key_info=2 << 2), usual, kind),
        case("certificate-of-another-product", "the VCEK states Genoa, in a chain of Milan",
             MILAN.report(version=2), (MILAN.vek(product_name="Genoa"), ask, ark), product),
        case("unknown-product", "the VCEK states a product that is not known",
             MILAN.report(version=2), (MILAN.vek(product_name="Venice-A0"), ask, ark), product),
        case("cpuid-of-another-product", "the report's CPUID is Genoa's",
             MILAN.report(cpuid_model=0x11), usual, product),
        case("cpuid-of-no-product", "the report's CPUID is no known product's",
             MILAN.report(cpuid_family=0x1C), usual, product),
        *(
            report_case(f"tcb-{platform.authority.product.value}-byte-{at}".lower(),
                        f"byte {at} of the reported TCB is another",
                        platform.report(reported_tcb=other_byte(platform.tcb, at)),
                        (platform.vek(), platform.authority.ask, platform.authority.ark),
                        "snp.vek.tcb", root=root_of(platform.authority))
            for platform in (MILAN, TURIN) for at in range(8)
        ),
        case("tcb-vlek", "the VLEK is for another TCB",
             MILAN.report(Kind.VLEK, reported_tcb=other_byte(MILAN.tcb, 7)), for_vlek,
             "snp.vek.tcb"),
        case("another-chip", "the report names another chip", MILAN.report(chip_id=OTHER.hwid),
             usual, hwid),
        case("masked-chip-id", "the report names no chip", MILAN.report(chip_id=bytes(64)), usual,
             hwid),
        case("vlek-with-a-chip", "the report names a chip, and a VLEK signs it",
             MILAN.report(Kind.VLEK, chip_id=MILAN.hwid), for_vlek, hwid),
        report_case("turin-more-than-its-id", "a byte stands behind Turin's 8 bytes of chip_id",
                    TURIN.report(chip_id=TURIN.hwid + b"\1" + bytes(55)), turin, hwid,
                    root=root_of(TURIN.authority)),
        case("another-key", "another chip's key signs the report",
             MILAN.report(signed_by=OTHER.key(Kind.VCEK)), usual, signature),
        case("changed-report", "a bit of the measurement is changed", bytes(changed), usual,
             signature),
        case("masked-key", "the host masks the chip's key: the signature is zero",
             MILAN.report(key_info=2)[:0x2A0] + zeros, usual, signature),
        case("no-signature", "the signature is zero", report[:0x2A0] + zeros, usual, signature),
        case("another-algorithm", "signature_algo is 2", MILAN.report(signature_algo=2), usual,
             signature),
        case("several-faults", "another chip, another TCB, and a reserved byte",
             MILAN.report(chip_id=OTHER.hwid, reported_tcb=bytes(8), poked={0x4C: b"\1"}), usual,
             hwid, "snp.vek.tcb", "snp.report.reserved"),
        case("wrong-key-and-expired", "another chip's key signs, and the VCEK expired",
             MILAN.report(signed_by=OTHER.key(Kind.VCEK)), (MILAN.vek(shape=EXPIRED), ask, ark),
             signature, "snp.vek.validity"),
    ]  # fmt: skip


def other_byte(data: bytes, at: int) -> bytes:
    """Return bytes with another one at an offset."""
    return data[:at] + bytes((data[at] ^ 2,)) + data[at + 1 :]


RESERVED = {
    2: (0x4C, 0x4F, 0x188, 0x18A, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x207, 0x29F),
    3: (0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x207, 0x29F),
    5: (0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F),
}
"""Bytes that are reserved, the first and last of each range, by version."""


def reserved_cases() -> list[Case]:
    """List reports that use what their version reserves."""
    usual = MILAN.vek(), AMD.ask, AMD.ark
    check = "snp.report.reserved"
    cases = [
        case_of_milan(f"version-{version}-byte-{at:x}",
                      f"byte {at:#x} is reserved in version {version}, and in use",
                      MILAN.report(version=version, poked={at: b"\1"}), usual, check)
        for version, places in RESERVED.items() for at in places
    ]  # fmt: skip
    for name, policy in (("policy-bit-17", 0x10000), ("policy-bit-26", 0x30000 | 1 << 26),
                         ("policy-bit-63", 0x30000 | 1 << 63)):  # fmt: skip
        words = "a reserved bit of the policy has another value than it must"
        cases.append(case_of_milan(name, words, MILAN.report(policy=policy), usual, check))
    return cases


def malformed_cases() -> list[Case]:
    """List what is no report, or comes without the certificate that it needs."""
    usual = MILAN.vek(), AMD.ask, AMD.ark
    report = MILAN.report()
    check = "sev-snp-report"
    cases = [
        case_of_milan("truncated", "the last byte is missing", report[:-1], usual,
                      f"{check}.length"),
        case_of_milan("too-long", "a byte follows", report + b"\0", usual, f"{check}.length"),
        case_of_milan("signed-part-alone", "the signature is missing", report[:0x2A0], usual,
                      f"{check}.length"),
        case_of_milan("no-vek", "neither a VCEK nor a VLEK is at hand", report, (AMD.ask, AMD.ark),
                      "certificates.incomplete"),
    ]  # fmt: skip
    for version in (0, 1, 4, 6, 9, 0xFFFFFFFF):
        data = version.to_bytes(4, "little") + report[4:]
        words = f"version {version} is not known"
        name = f"version-{version}"
        cases.append(case_of_milan(name, words, data, usual, f"{check}.version"))
    for name, at, field in (
        ("r", 0x2D0, "signature R"), ("s", 0x32F, "signature S"), ("behind", 0x330, "signature"),
        ("last", 0x49F, "signature"),
    ):  # fmt: skip
        data = report[:at] + b"\1" + report[at + 1 :]
        words = f"byte {at:#x}, which nothing signs, is not zero"
        cases.append(case_of_milan(f"unsigned-{name}", words, data, usual, f"{check}.{field}"))
    return cases


def report_cases() -> list[Case]:
    """List the reports."""
    return [
        *genuine_cases(), *accepted_cases(), *chain_fault_cases(), *binding_fault_cases(),
        *reserved_cases(), *malformed_cases(),
    ]  # fmt: skip


# certificates


def certificate_case(name: str, words: str, data: bytes, failed: str | None = None) -> Case:
    """Lay out one certificate, and what it says."""
    says = None
    if failed is None:
        found = Certificate(raw=data)
        amd = found.extensions
        says = {
            "kind": found.kind.name,
            "product": found.product_name,
            "serial": f"{found.serial:#x}",
            "issuer": str(found.issuer),
            "not_before": found.not_before.isoformat(),
            "not_after": found.not_after.isoformat(),
            "tcb": amd.tcb.hex() if amd else None,
            "hwid": amd.hwid.hex() if amd else None,
            "csp_id": amd.csp_id or None if amd else None,
        }
    return {
        "id": name,
        "description": words,
        "source": MADE_BY,
        "certificate": blob(data),
        "says": says,
        "failed_check": failed and f"x.509-certificate.{failed}",
    }


def with_extension(which: str, value: bytes | None, kind: Kind = Kind.VCEK) -> bytes:
    """Return a VCEK or VLEK in which one of AMD's extensions is another, or missing."""
    return MILAN.vek(kind, shape=Shape(extensions={AMD_OID + which: value}))


def readable_cases() -> list[Case]:
    """List certificates of every kind, product and shape."""
    case = certificate_case
    cases = []
    for product, platform in PLATFORMS.items():
        authority = platform.authority
        for name, data in (
            ("ark", authority.ark), ("ask", authority.ask), ("asvk", authority.asvk),
            ("vcek", platform.vek()), ("vlek", platform.vek(Kind.VLEK)),
        ):  # fmt: skip
            words = f"{name.upper()} of {product.value}"
            cases.append(case(f"{product.value}-{name}".lower(), words, data))
    high = SnpPlatform.of(b"vectors", AMD, tcb=bytes.fromhex("ff8000000000807f"))
    late = Shape(not_after=datetime(2050, 1, 1, tzinfo=UTC))
    begins_with_04 = AMD.vek(
        Kind.VCEK, MILAN.key(Kind.VCEK).public_key(), tcb=MILAN.tcb, hwid=b"\x04\x40" + bytes(62)
    )
    path_length = Shape(extensions={"2.5.29.19": bytes.fromhex("30060101ff020100")})
    return [
        *cases,
        case("path-length", "an ASK that says how many CAs may follow",
             AMD.ca(Kind.ASK, shape=path_length)),
        case("high-patch-levels", "patch levels above 127 take two bytes", high.vek()),
        case("trailer-field", "the default trailerField is stated",
             MILAN.vek(shape=Shape(trailer_field=True))),
        case("wrapped-hwid", "the hwID is in an OCTET STRING",
             MILAN.vek(shape=Shape(wrapped_hwid=True))),
        case("wrapped-hwid-turin", "the hwID of 8 bytes is in an OCTET STRING",
             TURIN.vek(shape=Shape(wrapped_hwid=True))),
        case("hwid-that-begins-with-0440", "a hwID without a tag begins like an OCTET STRING",
             begins_with_04),
        case("generalized-time", "it is valid beyond 2049", MILAN.vek(shape=late)),
    ]  # fmt: skip


def wrong_extension_cases() -> list[Case]:
    """List certificates with a wrong extension, each refused for it."""
    case = certificate_case
    return [
        case("no-ca", "an ASK that is not said to be a CA",
             AMD.ca(Kind.ASK, shape=Shape(extensions={"2.5.29.19": b"\x30\0"})),
             "basicConstraints"),
        case("no-hwid", "a VCEK without hwID", with_extension("4", None), "hwID"),
        case("vlek-with-hwid", "a VLEK with a hwID", with_extension("4", bytes(64), Kind.VLEK),
             "hwID"),
        case("short-hwid", "a hwID of 63 bytes", with_extension("4", bytes(63)), "hwID"),
        case("hwid-of-another-size", "Milan's VCEK has a hwID of 8 bytes",
             with_extension("4", bytes(8)), "hwID"),
        case("no-patch-level", "snpSPL is missing", with_extension("3.3", None), "extensions"),
        case("turin-s-patch-level", "Milan's VCEK has a fmcSPL",
             with_extension("3.9", integer(1)), "extensions"),
        case("unknown-extension", "an extension of AMD's that is not known",
             with_extension("9", integer(1)), "extensions"),
        case("patch-level-256", "a patch level of 256", with_extension("3.8", integer(256)),
             "ucodeSPL"),
        case("negative-patch-level", "a patch level of -1", with_extension("3.8", b"\2\1\xff"),
             "ucodeSPL"),
        case("long-patch-level", "a patch level with a needless zero",
             with_extension("3.8", b"\2\2\0\1"), "ucodeSPL"),
        case("patch-level-text", "a patch level that is a text",
             with_extension("3.1", ia5_string("1")), "blSPL"),
        case("no-product-name", "productName is missing", with_extension("2", None), "productName"),
        case("product-name-utf8", "productName is a UTF8String",
             with_extension("2", b"\x0c\5Milan"), "productName"),
        case("unknown-structure", "structVersion is 2", with_extension("1", integer(2)),
             "structVersion"),
    ]  # fmt: skip


def wrong_structure_cases() -> list[Case]:
    """List certificates with another wrong part."""
    case = certificate_case
    vek = MILAN.vek()
    point = MILAN.key(Kind.VCEK).public_key().public_numbers()
    numbers = tlv(0x30, integer(AMD.keys[Kind.ASK].public.modulus), integer(65537))
    rsa = bytes.fromhex("300d06092a864886f70d0101010500")
    long_key = tlv(0x30, rsa, tlv(0x03, b"\0", numbers, b"\5\0"))
    return [
        case("unknown-name", "the subject is no key of AMD's",
             vek.replace(b"SEV-VCEK", b"SEW-VCEK"), "subject"),
        case("vcek-with-rsa-key", "a VCEK has an RSA key",
             with_key("SEV-VCEK", rsa_key(AMD.keys[Kind.ASK].public)), "subjectPublicKeyInfo"),
        case("bytes-after-the-rsa-key", "something follows modulus and exponent",
             with_key("SEV-Milan", long_key), "subjectPublicKeyInfo"),
        case("ask-with-ec-key", "an ASK has an EC key",
             with_key("SEV-Milan", ec_key(point.x, point.y)), "subjectPublicKeyInfo"),
        case("other-algorithm", "the signature is made with SHA-256",
             vek.replace(bytes.fromhex("0609608648016503040202"),
                         bytes.fromhex("0609608648016503040201")), "signature"),
        case("bytes-after-it", "something follows", vek + b"\5\0", "length"),
        case("extra-element", "something follows the extensions",
             taken_apart(vek, lambda body: body + b"\5\0"), "extensions"),
        case("key-of-another-type", "the key is a SET",
             taken_apart(vek, lambda body: body.replace(b"\x30\x76\x30\x10", b"\x31\x76\x30\x10")),
             "subjectPublicKeyInfo"),
        case("dates-of-another-type", "the validity is a SET",
             taken_apart(vek, lambda body: body.replace(b"\x30\x1e\x17", b"\x31\x1e\x17")),
             "validity"),
        case("no-such-date", "it is valid from the 13th month on",
             taken_apart(vek, lambda body: body.replace(b"\x17\x0d2001", b"\x17\x0d2013")),
             "notBefore"),
        case("date-without-zone", "it is valid up to a local time",
             taken_apart(vek, lambda body: body.replace(b"235959Z", b"235959A")), "notAfter"),
        case("negative-serial", "the serial number is -1",
             taken_apart(vek, lambda body: body.replace(b"\2\1\2\2\1\0", b"\2\1\2\2\1\xff")),
             "serialNumber"),
        case("version-2", "an X.509 certificate of version 2",
             vek.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\1"), "version"),
    ]  # fmt: skip


def certificate_cases() -> list[Case]:
    """List the certificates."""
    return [*readable_cases(), *wrong_extension_cases(), *wrong_structure_cases()]


def taken_apart(der: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a certificate whose signed contents are changed; its lengths are right."""
    body = Certificate(raw=der).body
    rest = der[der.index(body) + len(body) :]
    return tlv(0x30, tlv(0x30, change(body[4:])), rest)


def with_key(subject: str, key: bytes) -> bytes:
    """Return a certificate of Milan's ASK's issuer with another subject or key."""
    found = {"2.5.29.19": bytes.fromhex("30030101ff")}
    signer = AMD.keys[Kind.ARK]
    return certificate(
        issuer="ARK-Milan", subject=subject, key=key, serial=1, found=found, signer=signer
    )


# certificate tables

GUIDS = {
    "VCEK": "63da758d-e664-4564-adc5-f4b93be8accd",
    "VLEK": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ASK": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ARK": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "CRL": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    "extra": "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6",
    "endorsement": "9f4116cd-c503-4f5a-8f6f-fb68882f4ce2",
}
Place = tuple[str, int, int]


def raw_table(places: Iterable[Place], contents: bytes = b"", end: bytes = bytes(24)) -> bytes:
    """Return a table with these entries: GUID, offset, length."""
    entries = (UUID(guid).bytes + struct.pack("<II", at, size) for guid, at, size in places)
    return b"".join(entries) + end + contents


def table(*contents: tuple[str, bytes]) -> bytes:
    """Return a table with these contents, by the name of their GUID."""
    places, at = [], 24 * (len(contents) + 1)
    for name, data in contents:
        places.append((GUIDS[name], at, len(data)))
        at += len(data)
    return raw_table(places, b"".join(data for _, data in contents))


FULL_TABLE = table(("VCEK", MILAN.vek()), ("ASK", AMD.ask), ("ARK", AMD.ark))


def table_case(
    name: str, words: str, data: bytes, entries: Iterable[tuple[str, bytes]] = (), failed: str = ""
) -> Case:
    """Lay out one certificate table and its contents."""
    return {
        "id": name,
        "description": words,
        "source": MADE_BY,
        "table": blob(data),
        "entries": None
        if failed
        else [{"guid": GUIDS.get(which, which), "sha256": sha256(one)} for which, one in entries],
        "failed_check": f"certificate-table.{failed}" if failed else None,
    }


def sha256(data: bytes) -> str:
    """Return a hash in hex."""
    return hashlib.sha256(data).hexdigest()


def table_cases() -> list[Case]:
    """List certificate tables, honest and otherwise."""
    vcek, guid = MILAN.vek(), GUIDS["VCEK"]
    chain = (("VCEK", vcek), ("ASK", AMD.ask), ("ARK", AMD.ark))
    cloud = (("VCEK", vcek), ("extra", struct.pack("<II", 8, 0xA00F11)), ("endorsement", b"signed"))
    unknown = "00112233-4455-6677-8899-aabbccddeeff"
    case = table_case
    many = [(unknown, 24 * 66, 0)] * 64
    return [
        case("chain", "VCEK, ASK and ARK", FULL_TABLE, chain),
        case("vlek-alone", "a VLEK alone, as Amazon's", table(("VLEK", MILAN.vek(Kind.VLEK))),
             [("VLEK", MILAN.vek(Kind.VLEK))]),
        case("with-extras", "a VCEK and what is no certificate, as Google's", table(*cloud), cloud),
        case("crl", "a revocation list", table(("CRL", AMD.crl())), [("CRL", AMD.crl())]),
        case("unknown-guid", "a GUID that is not known",
             raw_table([(unknown, 48, 3)], b"abc"), [(unknown, b"abc")]),
        case("no-bytes", "no bytes at all", b""),
        case("zeros", "zeros, as plain QEMU has it", bytes(4096)),
        case("empty-entry", "an entry without contents counts for nothing",
             raw_table([(guid, 0, 0), (GUIDS["ASK"], 72, 3)], b"ask"), [("ASK", b"ask")]),
        case("other-order", "the contents stand in another order than the entries",
             raw_table([(guid, 76, 4), (GUIDS["ASK"], 72, 4)], b"ask.vcek"),
             [("VCEK", b"vcek"), ("ASK", b"ask.")]),
        case("most-entries", "64 entries, all of them empty", raw_table(many)),
        case("too-many-entries", "65 entries", raw_table([*many, many[0]]), failed="length"),
        case("no-end", "no entry of zeros ends it", raw_table([(guid, 24, 4)], b"vcek", b""),
             failed="GUID"),
        case("outside", "contents end a byte after the table",
             raw_table([(guid, 48, 5)], b"vcek"), failed="offset"),
        case("far-outside", "offset and length together exceed 32 bits",
             raw_table([(guid, 0xFFFFFFFF, 0xFFFFFFFF)], b"vcek"), failed="offset"),
        case("in-the-header", "contents begin in the entries", raw_table([(guid, 47, 4)], b"vcek"),
             failed="offset"),
        case("overlap", "two contents share a byte",
             raw_table([(guid, 72, 5), (GUIDS["ASK"], 76, 4)], b"vcek.ask"), failed="offset"),
        case("end-with-a-place", "the entry that ends it has an offset",
             raw_table([(guid, 48, 4)], b"vcek", bytes(16) + b"\1" + bytes(7)), failed="end"),
    ]  # fmt: skip


# packagings

JSON = b'{"keys":[{"kid":"HCLAkPub"}],"vm-configuration":{},"user-data":"00"}'


def response(data: bytes, status: int = 0) -> bytes:
    """Put the header of the kernel's response before a report."""
    return struct.pack("<II24x", status, 1184) + data


def hcl(report: bytes, content: bytes = JSON, **lies: int) -> bytes:
    """Return Azure's blob around a report; ``lies`` are fields with another value."""
    has = {
        "version": 2, "size": 0x4D4 + len(content), "data": 20 + len(content), "type": 2,
        "hash": 1, "length": len(content),
    } | lies  # fmt: skip
    head = b"HCLA" + struct.pack("<III16x", has["version"], has["size"], 2)
    names = ("data", "type", "hash", "length")
    data, kind, code, length = (has[name] for name in names)
    body = struct.pack("<IIIII", data, 1, kind, code, length) + content
    return (head + report + body).ljust(2600, b"\0")


def bound(name: str = "sha256") -> bytes:
    """Return the report_data that binds the runtime data."""
    return hashlib.new(name, JSON).digest().ljust(64, b"\0")


def packaging_case(
    name: str,
    words: str,
    data: bytes,
    report: bytes = b"",
    certificates: Iterable[bytes] = (),
    *,
    runtime: tuple[str, bool] | None = None,
    failed: str | None = None,
) -> Case:
    """Lay out one file and what it holds; ``runtime`` is Azure's hash and whether it binds."""
    holds = None
    if failed is None:
        holds = {
            "report": sha256(report),
            "certificates": [sha256(one) for one in certificates],
            "runtime_data": runtime
            and {"sha256": sha256(JSON), "hash": runtime[0], "bound": runtime[1]},
        }
    return {
        "id": name,
        "description": words,
        "source": MADE_BY,
        "file": blob(data),
        "holds": holds,
        "failed_check": failed,
    }


def packaging_cases() -> list[Case]:
    """List files that hold a report, and files that lie."""
    report = MILAN.report()
    bare = packaging_case
    azure = {
        name: MILAN.report(version=2, report_data=bound(name)) for name in ("sha256", "sha512")
    }
    chain = MILAN.vek(), AMD.ask, AMD.ark
    lying: Callable[..., Case] = lambda name, words, data, check: bare(  # noqa: E731
        name, words, data, failed=check
    )
    lines = b"\r\n".join(report[at : at + 16].hex().upper().encode() for at in range(0, 1184, 16))
    blob_of = azure["sha256"]
    return [
        bare("binary", "1184 bytes", report, report),
        bare("hex", "hex in one line", report.hex().encode(), report),
        bare("hex-in-lines", "upper case hex in lines", lines, report),
        bare("base64", "base64 in one line", b64(report).encode(), report),
        bare("response", "behind the header of the kernel's response", response(report), report),
        bare("response-4000", "the same, with zeros up to 4000 bytes",
             response(report).ljust(4000, b"\0"), report),
        bare("table", "a certificate table follows", report + FULL_TABLE, report, chain),
        bare("table-of-zeros", "an empty certificate table follows", report + bytes(24), report),
        bare("table-with-extras", "what is no certificate is left out",
             report + table(("extra", b"12345678"), ("VCEK", chain[0])), report, chain[:1]),
        bare("hcl", "Azure's blob", hcl(blob_of), blob_of, runtime=("sha256", True)),
        bare("hcl-version-1", "Azure's blob of version 1", hcl(blob_of, version=1), blob_of,
             runtime=("sha256", True)),
        bare("hcl-sha512", "Azure's blob whose JSON is bound by SHA-512",
             hcl(azure["sha512"], hash=3), azure["sha512"], runtime=("sha512", True)),
        bare("hcl-not-bound", "the runtime data is not what the guest bound", hcl(report), report,
             runtime=("sha256", False)),
        lying("refused", "firmware refused to report", response(report, 0x16), "response.status"),
        lying("response-cut", "the report in the response is cut short", response(report)[:-1],
              "response.report"),
        lying("response-and-more", "a byte follows in the response", response(report) + b"\1",
              "response.padding"),
        lying("cut", "the report is cut short", report[:-1], "sev-snp-report.length"),
        lying("base64-cut", "base64 that is cut short", b64(report).encode()[:-3],
              "sev-snp-report.base64"),
        lying("table-lies", "the certificate table that follows lies",
              report + raw_table([(GUIDS["VCEK"], 48, 9)], b"vcek"), "certificate-table.offset"),
        lying("hcl-version-3", "Azure's blob of an unknown version", hcl(blob_of, version=3),
              "hcl-blob.version"),
        lying("hcl-size", "the blob's size is a byte too large",
              hcl(blob_of, size=0x4D5 + len(JSON)), "hcl-blob.data size"),
        lying("hcl-tdx", "the blob holds a report of Intel TDX", hcl(blob_of, type=4),
              "hcl-blob.report type"),
        lying("hcl-hash", "the hash is not known", hcl(blob_of, hash=4), "hcl-blob.hash type"),
        lying("hcl-json-length", "the JSON's length is a byte short",
              hcl(blob_of, length=len(JSON) - 1), "hcl-blob.JSON length"),
        lying("hcl-padding", "a byte follows in the blob", hcl(blob_of)[:-1] + b"\1",
              "hcl-blob.padding"),
    ]  # fmt: skip


# launch digests

CPUS = {"EPYC-Milan": (25, 1, 1), "EPYC-Genoa": (25, 17, 0), "EPYC": (23, 1, 2)}
FIRMWARE = ovmf_image(8192, seed=b"snp", sections=SNP_SECTIONS)
BOOTED = {"kernel": b"a kernel", "initrd": b"an initrd", "cmdline": b"console=ttyS0  quiet "}
COUNTS = (1, 2, 5, 64)


def digest_case(
    name: str,
    words: str,
    *,
    firmware: bytes = FIRMWARE,
    layout: str = "qemu",
    cpu: str | None = "EPYC-Milan",
    features: int = 1,
    counts: Iterable[int] = COUNTS,
    booted: Mapping[str, bytes] | None = None,
    svsm: tuple[bytes, int] | None = None,
    failed: str | None = None,
) -> Case:
    """Lay out one guest, and its digest for each number of vCPUs."""
    model = CPUS[cpu] if cpu else None
    guest: Case = {
        "layout": layout,
        "firmware": blob(firmware),
        "cpu": dict(zip(("family", "model", "stepping"), model, strict=True)) if model else None,
        "features": f"{features:#x}",
        **{key: b64(data) for key, data in (booted or {}).items()},
    }
    parts: dict[str, Any] = dict(booted or {})
    if svsm:
        guest |= {"svsm": blob(svsm[0]), "vars_size": svsm[1]}
        parts |= {"svsm": svsm[0], "vars_size": svsm[1]}
    digests = None
    if failed is None:
        shown = CpuModel(family=model[0], model=model[1], stepping=model[2]) if model else None
        vmsa = SnpProfile(name=layout, cpu=shown, features=features)
        digests = {
            str(n): launch_digest(firmware, vcpus=n, vmsa=vmsa, **parts).hex() for n in counts
        }
    return {
        "id": name,
        "description": words,
        "source": "sev_attest.snp.digest.launch_digest",
        "guest": guest,
        "digests": digests,
        "failed_check": failed,
    }


def layout_cases() -> list[Case]:
    """List every layout: firmware alone, with a kernel, with other features."""
    cases = []
    module = svsm_image(), 0x2000
    for layout in SNP_LAYOUTS:
        svsm = module if layout.startswith("svsm") else None
        cpu = None if layout in ("ec2", "ec2-old", "gce") else "EPYC-Milan"
        given: Case = {"layout": layout, "cpu": cpu, "svsm": svsm}
        if svsm:
            given["firmware"] = ovmf_image(8192)
        cases.append(digest_case(layout, f"layout {layout}: firmware alone", **given))
        cases.append(
            digest_case(f"{layout}-features", "guest features 0x221: debug swap and secure TSC",
                        features=0x221, counts=(1, 3), **given)
        )  # fmt: skip
        if not svsm:
            words = "kernel, initrd and command line"
            cases.append(
                digest_case(f"{layout}-kernel", words, counts=(1, 2), booted=BOOTED, **given)
            )
    return cases


def image(found: Iterable[tuple[int, int, int]] | None, **changes: Any) -> bytes:
    """Return firmware with these sections."""
    return ovmf_image(8192, seed=b"snp", sections=found, **changes)


ODD = [*SNP_SECTIONS, (0x90_0000, 0x2000, 0x77)]
"""Sections, one of them of an unknown type."""


def measured_cases() -> list[Case]:
    """List guests that differ in one part."""
    case = digest_case
    one = (1,)
    sections = [*SNP_SECTIONS]
    cpuid_first = [sections[3], *sections[:3], *sections[4:]]
    large = [(0x80_0000, 0x1000, 2), (0x80_1000, 0x1000, 3), (0x80_2000, 0x3000, 0x10)]
    return [
        case("cpu-genoa", "another CPU model", cpu="EPYC-Genoa", counts=(2,)),
        case("cpu-epyc", "another CPU model", cpu="EPYC", counts=(2,)),
        case("krun-without-cpu", "libkrun's layout, whose CPU model nobody states", layout="krun",
             cpu=None, counts=(2,)),
        case("all-features", "every bit of the guest features", features=2**64 - 1, counts=one),
        case("kernel-alone", "neither an initrd nor a command line", counts=one,
             booted={"kernel": b"a kernel"}),
        case("empty-kernel", "a kernel without a byte is one too", counts=one,
             booted={"kernel": b""}),
        case("command-line-trimmed", "the blank at the command line's end is gone", counts=one,
             booted=BOOTED | {"cmdline": BOOTED["cmdline"].strip()}),
        case("sections-in-reverse", "the sections are measured in the file's order", counts=one,
             firmware=image(sections[::-1])),
        case("cpuid-first", "QEMU keeps the CPUID section where it is", counts=one,
             firmware=image(cpuid_first)),
        case("cpuid-first-ec2", "Amazon's comes last", counts=one, layout="ec2", cpu=None,
             firmware=image(cpuid_first)),
        case("unknown-section", "QEMU loads zeros for a type that it does not know", counts=one,
             firmware=image(ODD)),
        case("three-hash-pages", "the section for hashes has three pages", counts=one,
             firmware=image(large, hash_table=(0x80_2F50, 0x400)), booted=BOOTED),
        case("other-reset-address", "the APs start elsewhere", counts=(2,),
             firmware=image(sections, reset_address=0xFFC0_1234)),
        case("svsm-without-variables", "no variables between the firmware and the SVSM",
             layout="svsm", counts=(2,), firmware=ovmf_image(8192), svsm=(svsm_image(), 0)),
    ]  # fmt: skip


def refused_cases() -> list[Case]:
    """List guests that no VMM can start, or whose kernel would not be measured."""
    sections = [*SNP_SECTIONS]
    section = "firmware-sev-metadata.section"

    def case(name: str, words: str, check: str, **given: Any) -> Case:
        return digest_case(name, words, failed=check, **given)

    return [
        case("no-metadata", "firmware without SEV metadata", "firmware.snp-metadata",
             firmware=image(None)),
        case("no-reset-address", "firmware without a reset block", "firmware.sev-es-reset",
             firmware=image(sections, reset_address=None)),
        case("reset-address-0", "the reset address is 0", "firmware.sev-es-reset",
             firmware=image(sections, reset_address=0)),
        case("no-hash-section", "a kernel, and no section for its hashes",
             "firmware.hash-section", firmware=image(sections[:-1]), booted=BOOTED),
        case("hash-area-outside", "the firmware looks for the hashes outside of the section",
             "firmware.hash-section", firmware=image(sections, hash_table=(0x90_0C00, 0x400)),
             booted=BOOTED),
        case("hash-area-over-the-end", "the table does not fit the section's page",
             "firmware.hash-section", firmware=image(sections, hash_table=(0x81_0F51, 0x400)),
             booted=BOOTED),
        case("unknown-section-gce", "it is not known what others than QEMU load",
             "firmware.section", layout="gce", cpu=None, firmware=image(ODD)),
        case("svsm-missing", "a layout for an SVSM, and none is there", "svsm.layout",
             layout="svsm"),
        case("svsm-unused", "an SVSM, and a layout that does not start from one", "svsm.layout",
             firmware=ovmf_image(8192), svsm=(svsm_image(), 0x2000)),
        case("svsm-with-kernel", "with an SVSM no kernel is measured", "svsm.kernel",
             layout="svsm", firmware=ovmf_image(8192), svsm=(svsm_image(), 0x2000),
             booted=BOOTED),
        case("overlap", "two sections share a page", section,
             firmware=image([(0x1000, 0x2000, 1), (0x2000, 0x1000, 2)])),
        case("not-a-page", "a section does not begin at a page", section,
             firmware=image([(0x1001, 0x1000, 2)])),
        case("empty-section", "a section of no bytes", section,
             firmware=image([(0x1000, 0, 2)])),
        case("in-the-firmware", "a section reaches into the firmware", section,
             firmware=image([(0xFFFF_D000, 0x2000, 1)])),
        case("too-large", "more than 256 MiB in all sections",
             "firmware-sev-metadata.section size",
             firmware=image([(0, 0x1000_1000, 1)])),
    ]  # fmt: skip


def digest_cases() -> list[Case]:
    """List guests and their launch digests."""
    return [*layout_cases(), *measured_cases(), *refused_cases()]


CASES: dict[str, Callable[[], list[Case]]] = {
    "snp-report": report_cases,
    "snp-certificate": certificate_cases,
    "snp-table": table_cases,
    "snp-packaging": packaging_cases,
    "snp-digest": digest_cases,
}
"""What lists the cases of a file, by its name."""
