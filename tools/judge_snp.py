"""SEV-SNP reports and what they come in, by the second implementation.

A verdict is what fails over the best of all chains that the certificates allow. AMD's roots are not
known here: no vector is of a real chip, so they admit none.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from judge_der import Certificate, CertificateList, certificate, ec_holds, kind_of, read, rsa_holds
from judge_parts import FOLDER, Case, Refused, little

SIZE, SIGNED = 1184, 0x2A0
PRODUCTS = ("Milan", "Genoa", "Turin")
SIGNERS = {"VCEK": "ASK", "VLEK": "ASVK"}
REPORT, TABLE, RESPONSE, HCL = "sev-snp-report", "certificate-table", "response", "hcl-blob"
RESERVED = {
    2: ((0x4C, 0x50), (0x188, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)),
    3: ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)),
    5: ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0)),
}
"""The bytes of the signed part that have to be zero, by version."""
TEXT = (
    "family_id:10:16 image_id:20:16 report_data:50:64 measurement:90:48 host_data:c0:32 "
    "id_key_digest:e0:48 author_key_digest:110:48 report_id:140:32 report_id_ma:160:32 "
    "chip_id:1a0:64"
)
"""Fields that are shown in hex, with their offsets and sizes."""
MILAN = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
TURIN = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}


# reports


def check_report(data: bytes) -> bytes:
    """Refuse what is no report: by size, version, and what nothing signs."""
    if len(data) != SIZE:
        raise Refused(f"{REPORT}.length")
    if little(data[:4]) not in RESERVED:
        raise Refused(f"{REPORT}.version")
    for at, end, name in ((0x2D0, 0x2E8, " R"), (0x318, 0x330, " S"), (0x330, SIZE, "")):
        if any(data[at:end]):
            raise Refused(f"{REPORT}.signature{name}")
    return data


def cpuid_product(report: bytes) -> str | None:
    """Return the product by CPUID: none in version 2, "" for a chip that is not known."""
    if little(report[:4]) == 2:
        return None
    family, model = report[0x188], report[0x189]
    if family == 0x19 and model < 0x20:
        return "Milan" if model < 0x10 else "Genoa"
    if family == 0x19 and 0xA0 <= model <= 0xAF:
        return "Genoa"
    return "Turin" if family == 0x1A and model <= 0x11 else ""


def signer_of(report: bytes) -> str:
    """Return the kind of key that the report says it is signed with."""
    return {0: "VCEK", 1: "VLEK"}.get(report[0x48] >> 2 & 7, "")


def reserved_used(report: bytes) -> bool:
    """Return whether a reserved byte, or bit of the policy, has another value than it must."""
    policy = little(report[8:16])
    used = any(any(report[at:end]) for at, end in RESERVED[little(report[:4])])
    return used or policy >> 26 != 0 or not policy >> 17 & 1


def signed_by(report: bytes, vek: Certificate) -> bool:
    """Return whether a VEK's key signs the report."""
    r, s = little(report[0x2A0:0x2D0]), little(report[0x2E8:0x318])
    signature = encode_dss_signature(r, s)
    return little(report[0x34:0x38]) == 1 and ec_holds(vek.point, signature, report[:SIGNED])


def fields(report: bytes, product: str) -> dict[str, Any]:
    """Read the fields that vectors state; ``product`` is the chip's."""
    version = little(report[:4])
    places = (entry.split(":") for entry in TEXT.split())
    shown: dict[str, Any] = {
        name: report[int(at, 16) :][: int(size)].hex() for name, at, size in places
    }
    order = TURIN if product == "Turin" else MILAN
    for name, at in (
        ("current", 0x38),
        ("reported", 0x180),
        ("committed", 0x1E0),
        ("launch", 0x1F0),
    ):
        shown[f"{name}_tcb"] = {part: report[at + place] for part, place in order.items()}
    policy, platform = little(report[8:16]), little(report[0x40:0x48])
    return shown | {
        "version": version,
        "product": product,
        "guest_svn": little(report[4:8]),
        "policy": f"{policy:#x}",
        "debug": bool(policy >> 19 & 1),
        "migration_agent": bool(policy >> 18 & 1),
        "vmpl": little(report[0x30:0x34]),
        "platform_info": f"{platform:#x}",
        "alias_check_complete": bool(platform >> 5 & 1),
        "author_key": bool(report[0x48] & 1),
        "signing_key": signer_of(report),
        "cpuid": [*report[0x188:0x18B]] if version > 2 else None,
        "current_version": [report[0x1EA], report[0x1E9], report[0x1E8]],
        "committed_version": [report[0x1EE], report[0x1ED], report[0x1EC]],
        "launch_mit_vector": f"{little(report[0x1F8:0x200]):#x}" if version == 5 else None,
        "current_mit_vector": f"{little(report[0x200:0x208]):#x}" if version == 5 else None,
    }


# chains


class Root(NamedTuple):
    """The root to trust: the ARK's key, and what is pinned beside it."""

    ark: Certificate
    product: str | None
    pinned: dict[str, Certificate]


class Chain(NamedTuple):
    """One way to put certificates behind a report."""

    vek: Certificate
    ca: Certificate | None
    ark: Certificate | None
    every: list[Certificate]
    lists: list[CertificateList]
    root: Root | None


def chains(given: list[Certificate | CertificateList], root: Root | None) -> Iterator[Chain]:
    """Yield every chain that the names of the certificates allow."""
    every = [one for one in given if isinstance(one, Certificate)]
    lists = [one for one in given if isinstance(one, CertificateList)]
    for vek in every:
        if vek.modulus:
            continue
        cas = [one for one in every if one.kind in ("ASK", "ASVK") and one.subject == vek.issuer]
        product = kind_of(vek.issuer_name)[1]
        for ca in [*cas] or (None,):
            name = ca.issuer_name if ca else f"ARK-{product}"
            arks = [one for one in every if one.kind == "ARK" and one.name == name]
            for ark in [*arks] or (None,):
                yield Chain(vek, ca, ark, every, lists, root)


def trusts(root: Root | None, chain: Chain) -> bool:
    """Return whether a chain ends in the root; without an ARK, whether the root stands there."""
    if root is None:
        return False
    if chain.ark:
        return chain.ark.modulus == root.ark.modulus
    if chain.ca:
        return rsa_holds(root.ark.modulus, chain.ca.signature, chain.ca.body)
    return root.product == kind_of(chain.vek.issuer_name)[1]


def chain_failures(report: bytes, chain: Chain, at: datetime) -> set[str]:
    """Hold a report to one chain; return the checks that fail."""
    vek, ca, ark, root = chain.vek, chain.ca, chain.ark, chain.root
    issuer_kind, issuer_product = kind_of(vek.issuer_name)
    trusted = trusts(root, chain)
    ark_key = ark.modulus if ark else root.ark.modulus if root and trusted else 0
    own = SIGNERS[vek.kind]
    pinned = root.pinned.get(own) if root and trusted else None
    signer = ca or pinned
    chip, product = report[0x1A0:0x1E0], cpuid_product(report)
    products = {issuer_product, vek.product, issuer_product if product is None else product}
    if root and trusted and root.product:
        products.add(root.product)
    dates = [one.dates for one in (vek, ca, ark) if one]
    held = {
        # Without an ARK it is AMD's of this product that would have to sign; it signs no vector.
        "snp.ark.trusted": (trusted and rsa_holds(ark_key, ark.signature, ark.body))
        if ark
        else (trusted or issuer_product in PRODUCTS),
        "snp.ask.signed-by-ark": rsa_holds(ark_key, ca.signature, ca.body)
        if ca and ark_key
        else pinned is not None,
        "snp.vek.signed-by-ask": signer is None
        or rsa_holds(signer.modulus, vek.signature, vek.body),
        "snp.vek.kind": issuer_kind == own and signer_of(report) == vek.kind,
        "snp.vek.product": len(products) == 1 and products <= {*PRODUCTS},
        "snp.vek.tcb": vek.tcb == report[0x180:0x188],
        "snp.vek.hwid": chip == vek.hwid.ljust(64, b"\0"),
        "snp.vek.validity": all(first <= at <= last for first, last in dates),
        "snp.report.signature": signed_by(report, vek),
        "snp.report.reserved": not reserved_used(report),
    }
    if chain.lists and ark_key:
        held["snp.ask.not-revoked"] = not_revoked(chain, ark_key, signer, issuer_product, at)
    return {check for check, good in held.items() if not good}


def not_revoked(
    chain: Chain, ark_key: int, signer: Certificate | None, product: str, at: datetime
) -> bool:
    """Return whether a list in force clears the ASK's key, and none names it."""
    lists = [
        one
        for one in chain.lists
        if one.issuer_name == f"ARK-{product}" and rsa_holds(ark_key, one.signature, one.body)
    ]
    known = [c for c in chain.every if rsa_holds(ark_key, c.signature, c.body)]
    known += [*chain.root.pinned.values()] if chain.root else []
    serials = {c.serial for c in known if signer and c.modulus == signer.modulus}
    if any(serials & one.serials for one in lists):
        return False
    return any(
        first <= at and (last is None or at <= last) for first, last in (o.dates for o in lists)
    )


def judged(case: Case) -> tuple[set[str], Case | None]:
    """Return the checks that fail over the best chain, and the fields of a report that verifies."""
    report = check_report((FOLDER / case["report"]).read_bytes())
    given = [read((FOLDER / name).read_bytes()) for name in case["certificates"]]
    at, best = datetime.fromisoformat(case["at"]), {"certificates.incomplete"}
    for number, chain in enumerate(chains(given, root_of(case["root"]))):
        failed = chain_failures(report, chain, at)
        if not failed:
            return failed, fields(report, chain.vek.product)
        best = failed if not number or len(failed) < len(best) else best
    return best, None


def report_problems(case: Case) -> list[str]:
    """Judge a report with its certificates."""
    try:
        failed, says = judged(case)
    except Refused as error:
        failed, says = {error.check}, None
    right = failed == {*case["failed_checks"]} and case["valid"] is not bool(failed)
    wrong = [] if right else [f"{sorted(failed)} fail"]
    return wrong if says == case["fields"] else [*wrong, "it has other fields"]


def root_of(given: dict[str, Any] | None) -> Root | None:
    """Read the root of a case."""
    if given is None:
        return None
    read_one = {key: read((FOLDER / name).read_bytes()) for key, name in given["files"].items()}
    found = {key: one for key, one in read_one.items() if isinstance(one, Certificate)}
    return Root(found.pop("ark"), given["product"], {key.upper(): c for key, c in found.items()})


def compared(read_it: Callable[[Case], Any], name: str) -> Callable[[Case], list[str]]:
    """Return a judge that compares what is read with a field of the case, or who refuses it."""

    def problems(case: Case) -> list[str]:
        try:
            says, refused = read_it(case), None
        except Refused as error:
            says, refused = None, error.check
        if refused != case["failed_check"]:
            return [f"{refused or 'nothing'} refuses it"]
        return [] if says == case[name] else ["it says something else"]

    return problems


# certificates


def certificate_says(case: Case) -> Case:
    """Read one certificate."""
    found = certificate((FOLDER / case["certificate"]).read_bytes())
    vek = not found.modulus
    return {
        "kind": found.kind,
        "product": found.product,
        "serial": f"{found.serial:#x}",
        "issuer": found.issuer_name,
        "not_before": found.dates[0].isoformat(),
        "not_after": found.dates[1].isoformat(),
        "tcb": found.tcb.hex() if vek else None,
        "hwid": found.hwid.hex() if vek else None,
        "csp_id": found.amd["5"][2:].decode() if "5" in found.amd else None,
    }


# what reports and certificates come in


def table_entries(table: bytes) -> list[tuple[str, bytes]]:
    """Take a certificate table apart: GUID and content."""
    places: list[tuple[int, int, str]] = []
    for at in range(0, len(table) + 1, 24):
        entry = table[at : at + 24]
        if not any(table):
            return []
        if len(entry) < 16:
            raise Refused(f"{TABLE}.GUID")
        if not any(entry[:16]):
            if any(entry) or len(entry) < 24:
                raise Refused(f"{TABLE}.end")
            break
        if len(places) == 64:
            raise Refused(f"{TABLE}.length")
        offset, size = struct.unpack("<II", entry[16:])
        places.append((offset, size, str(UUID(bytes=entry[:16]))))
    end = 24 * (len(places) + 1)
    for offset, size, _ in sorted(places):
        if size and not end <= offset <= len(table) - size:
            raise Refused(f"{TABLE}.offset")
        end = offset + size if size else end
    return [(guid, table[offset : offset + size]) for offset, size, guid in places if size]


CERTIFICATES = {
    "63da758d-e664-4564-adc5-f4b93be8accd",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
}


def table_holds(case: Case) -> list[Case]:
    """Read a certificate table."""
    found = table_entries((FOLDER / case["table"]).read_bytes())
    return [{"guid": guid, "sha256": sha256(content)} for guid, content in found]


def sha256(data: bytes) -> str:
    """Return a hash in hex."""
    return hashlib.sha256(data).hexdigest()


class Package(NamedTuple):
    """What a file holds."""

    report: bytes
    certificates: list[bytes]
    runtime: tuple[str, bytes] | None = None


def unpack(data: bytes) -> Package:
    """Find the report in a file of any known format."""
    if data.isascii() and not data.strip().startswith((b"{", b"[")):
        data = decoded(data)
    if data[:4] == b"HCLA":
        return hcl(data)
    if little(data[4:8]) == SIZE and not any(data[8:32]):
        if any(data[:4]):
            raise Refused(f"{RESPONSE}.status")
        if len(data) < 32 + SIZE:
            raise Refused(f"{RESPONSE}.report")
        report = check_report(data[32 : 32 + SIZE])
        if any(data[32 + SIZE :]):
            raise Refused(f"{RESPONSE}.padding")
        return Package(report, [])
    report = check_report(data[:SIZE])
    entries = table_entries(data[SIZE:])
    return Package(report, [content for guid, content in entries if guid in CERTIFICATES])


def decoded(text: bytes) -> bytes:
    """Decode hex or base64, in lines or not."""
    packed = b"".join(text.split())
    try:
        return bytes.fromhex(packed.decode())
    except ValueError:
        pass
    try:
        return base64.b64decode(packed, validate=True)
    except binascii.Error:
        raise Refused(f"{REPORT}.base64") from None


def hcl(data: bytes) -> Package:
    """Read Azure's blob."""
    version, size = struct.unpack_from("<II", data, 4)
    if version not in (1, 2):
        raise Refused(f"{HCL}.version")
    if any(data[0x10:0x20]):
        raise Refused(f"{HCL}.reserved")
    report = check_report(data[0x20:0x4C0])
    left, _, kind, code, length = struct.unpack_from("<IIIII", data, 0x4C0)
    names = {1: "sha256", 2: "sha384", 3: "sha512"}
    for wrong, field in (
        (left != size - 0x4C0, "data size"),
        (kind != 2, "report type"),
        (code not in names, "hash type"),
        (length != left - 20, "JSON length"),
        (len(data) < 0x4D4 + length, "runtime data"),
        (any(data[size:]), "padding"),
    ):
        if wrong:
            raise Refused(f"{HCL}.{field}")
    return Package(report, [], (names[code], data[0x4D4 : 0x4D4 + length]))


def package_holds(case: Case) -> Case:
    """Unpack a file."""
    found = unpack((FOLDER / case["file"]).read_bytes())
    says: Case = {
        "report": sha256(found.report),
        "certificates": [sha256(one) for one in found.certificates],
        "runtime_data": None,
    }
    if found.runtime:
        name, content = found.runtime
        digest = hashlib.new(name, content).digest().ljust(64, b"\0")
        bound = digest == found.report[0x50:0x90]
        says["runtime_data"] = {"sha256": sha256(content), "hash": name, "bound": bound}
    return says


JUDGES: dict[str, Callable[[Case], list[str]]] = {
    "snp-report": report_problems,
    "snp-certificate": compared(certificate_says, "says"),
    "snp-table": compared(table_holds, "entries"),
    "snp-packaging": compared(package_holds, "holds"),
}
"""What lists the problems of a case, by the name of its file."""
