"""What a stranger's bytes cost: processor time and memory that grow with the size, not faster.

Of 16 times the input each parser takes less than 24 times as long, and no more memory than a stated
multiple of the input. The inputs are those that amplify: long names around many children, blanks,
depth, many attributes, many findings.
"""

import base64
import datetime as dt
import io
import json
import os
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sev_attest._encoding import blob, from_base64, from_text, json_documents
from sev_attest._wire import guid_bytes
from sev_attest.cli.evidence.reader import from_bytes, to_bytes
from sev_attest.domain_xml.capabilities import SevCapabilities
from sev_attest.domain_xml.compare import same_but_session
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.prepare import SessionFiles, prepare
from sev_attest.domain_xml.rule import Subject
from sev_attest.domain_xml.rules import apply_rules
from sev_attest.domain_xml.versions import Versions
from sev_attest.errors import SevAttestError
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.spec import OVMF_FOOTER
from sev_attest.host import qmp
from sev_attest.host.config import read_config
from sev_attest.host.inspect import Need
from sev_attest.host.inspect.machine import LOGS
from sev_attest.host.inspect.tree import MAX_FILE
from sev_attest.host.place import public
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.sealing import Box
from sev_attest.sev.chain.packaging import read_contents
from sev_attest.sev.chain.roots import amd_roots
from sev_attest.sev.launch_info import read_report
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.certificate_table import read_table
from sev_attest.snp.challenge import SCHEMA as CHALLENGE
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.content import read_content
from sev_attest.snp.firmware import SnpFirmware
from sev_attest.snp.packaging import read_evidence
from sev_attest.snp.sealed import SealedSecrets
from sev_attest.testing import Platform, ovmf_image
from sev_attest.testing.images import SNP_SECTIONS
from simulated_trees import CACHE, both_of, descriptor, guest, host, lay_out
from snp_material import AMD, MILAN
from snp_material import pem as label
from snp_reports import VCEK, hcl, report, table
from test_domain_xml import BLOB_B64, GODH_B64, RECORD
from test_evidence_document import WHOLE

STEP = 16
MOST = 24
"""How many times as long 16 times the input may take."""
ROUNDS = 30
MEASURABLE = 0.002
"""Seconds of a smaller input, below which a ratio says nothing."""
CONSTANT = 2 << 20
"""Bytes of memory that any input may take."""
OLD = Versions(qemu=(5, 0), libvirt=(9, 0))
FILES = SessionFiles(
    record=RECORD, godh=base64.b64decode(GODH_B64), blob=base64.b64decode(BLOB_B64)
)

# what is parsed


def look(data: bytes) -> object:
    return apply_rules(Subject(domain=parse_domain(data), versions=OLD))


def mend(data: bytes) -> object:
    subject = Subject(domain=parse_domain(data), versions=OLD)
    return [*prepare(subject, FILES, everything=True).diff("old", "new")]


def compare(data: bytes) -> object:
    return same_but_session(parse_domain(data), parse_domain(data))


def connect(data: bytes) -> object:
    return read_config(data.decode())


def decode(data: bytes) -> object:
    return from_base64(data, "blob"), from_text(data, "blob")


def key(data: bytes) -> object:
    return blob(data, (16,), "key")


def documents(data: bytes) -> object:
    return json_documents(data, "JSON")


def firmware(data: bytes) -> object:
    image = Firmware.read(data)
    return image.kind, image.sections()


def snp_firmware(data: bytes) -> object:
    return SnpFirmware.read(data)


def challenge(kems: bytes) -> object:
    document = Challenge.create("vm1", created=dt.datetime.now(dt.UTC)).to_json()
    start, end = document.index(b"["), document.index(b"]")
    return Challenge.from_json(document[: start + 1] + kems + document[end:])


def sealed(text: bytes) -> object:
    fields = {
        "schema": "sev-attest/snp-sealed/1", "challenge": "vm1", "nonce": "0" * 64,
        "report_sha384": "0" * 96, "kem": 32, "kdf": 1, "aead": 2, "enc": text.decode(),
        "ciphertext": text.decode(),
    }  # fmt: skip
    return SealedSecrets.from_json(json.dumps(fields).encode())


def evidence(name: str, data: bytes) -> object:
    """Read and show evidence with a list of many things."""
    document = json.loads(to_bytes(WHOLE))
    (one,) = document[name]
    document[name] = [one] * (len(data) // len(json.dumps(one)))
    return from_bytes(json.dumps(document).encode())


def reply(data: bytes) -> object:
    return read_report(qmp._text(json.loads(data), "launch info"))


def words(data: bytes) -> object:
    return public(data.decode(), "qemu:///system")


# what it is made of


def many(unit: str, size: int) -> str:
    return unit * (size // len(unit))


def numbered(unit: str, size: int) -> str:
    return "".join(unit.format(number) for number in range(size // len(unit)))


def domain(*, attributes: str = "", os: str = "", devices: str = "", more: str = "",
           security: str = "", machine: str = "pc-i440fx-2.0") -> str:  # fmt: skip
    return (
        f"<domain type='kvm'{attributes}><os><type machine='{machine}'>hvm</type>{os}</os>"
        f"<devices>{devices}</devices>{more}"
        f"<launchSecurity type='sev'>{security}<policy>5</policy></launchSecurity></domain>"
    )


CARD = "<interface><model type='virtio'/></interface>"
DISK = "<disk><target bus='virtio'/><driver iommu='off'/><boot order='1'/></disk>"
QEMU = " xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'"


def named(size: int) -> str:
    name = "n" * (size // 3)
    return domain(more=f"<{name}>{many('<b/><c/>', size // 3)}</{name}>")


def spaced(size: int) -> str:
    children = numbered("<q:a{0}/>", size // 2)
    return domain(more=f"<m xmlns:q='{'u' * (size // 2)}'>{children}</m>")


def spaced_attributes(size: int) -> str:
    attributes = numbered(" q:a{0}=''", size // 2)
    return domain(more=f"<q:m xmlns:q='{'u' * (size // 2)}'{attributes}/>")


def stores(size: int) -> str:
    loader = f"<loader type='pflash'{numbered(' a{0}=_'.replace('_', chr(39) * 2), size // 2)}>/x"
    return domain(os=f"{loader}</loader>{many('<varstore/>', size // 2)}")


def entity(size: int) -> str:
    head = f"<!DOCTYPE d [<!ENTITY a '{'a' * (size // 2)}'>]>"
    return f"{head}<domain b='{many('&a;', size // 2)}'/>"


DOMAINS: dict[str, Callable[[int], str]] = {
    "a long name around many": named,
    "a long namespace around many": spaced,
    "a long namespace of many attributes": spaced_attributes,
    "an entity": entity,
    "blanks in a tag": lambda size: domain(os=f"<loader{' ' * size}/>"),
    "blanks in many tags": lambda size: domain(
        devices=many(f"<interface><model type='virtio'{' ' * 400}/></interface>", size)
    ),
    "blanks before many": lambda size: domain(
        security=f"\n{' ' * (size // 2)}{many('<handle/>', size // 2)}"
    ),
    "blanks before many devices": lambda size: domain(
        devices=f"\n{' ' * (size // 2)}{many(CARD, size // 2)}"
    ),
    "blanks as a policy": lambda size: domain(security=f"<dhCert>{' ' * size}</dhCert>"),
    "lines": lambda size: domain(more="\n" * size),
    "lines between": lambda size: domain(security=many("<handle/>\n", size)),
    "attributes": lambda size: domain(os=f"<loader {numbered(' a{0}=_', size)}/>").replace(
        "_", "''"
    ),
    "attributes around stores": stores,
    "depth": lambda size: domain(more=many("<a>" * 60 + "</a>" * 60, size)),
    "depth around a text": lambda size: domain(more="<a>" * 60 + "x" * size + "</a>" * 60),
    "too deep": lambda size: "<a>" * (size // 3),
    "comments": lambda size: domain(more=many("<!-- -->x", size)),
    "comments before": lambda size: many("<!-- > -->", size) + domain(),
    "findings": lambda size: domain(devices=many(CARD, size)),
    "findings of disks": lambda size: domain(devices=many(DISK, size)),
    "findings of elements side by side": lambda size: domain(security=many("<handle/>", size)),
    "findings that quote": lambda size: domain(
        machine="pc-i440fx-2.0" + "x" * (size // 2), devices=many(CARD, size // 2)
    ),
    "findings among other lines": lambda size: domain(
        devices=numbered("<!--{0}-->\n<rng model='virtio'/>\n", size)
    ),
    "findings in a namespace": lambda size: domain(
        attributes=QEMU, more=numbered("<q:c{0}><q:a/></q:c{0}>", size)
    ),
}


@cache
def pem() -> bytes:
    """Make a certificate."""
    private = ec.derive_private_key(1, ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, day, day)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@cache
def pdh() -> bytes:
    return Platform(b"a test platform").export().pdh.to_bytes()


def ark() -> bytes:
    return amd_roots()[0].ark.to_bytes()


def zipped(size: int, members: int, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(members):
            archive.writestr(f"{number}.cert", content * (size // members // len(content)))
    return file.getvalue()


def footer(size: int) -> bytes:
    entries = b"".join(b"\x12\0" + n.to_bytes(16, "little") for n in range(size // 18))
    return entries + (len(entries) + 18).to_bytes(2, "little") + guid_bytes(OVMF_FOOTER) + bytes(32)


def pages(size: int) -> bytes:
    return ovmf_image(size, sections=SNP_SECTIONS)


def sections(size: int) -> bytes:
    """Make an image that is full of sections, as far as the footer reaches."""
    found = [(number << 12, 1 << 12, 1) for number in range(min(size, 60_000) // 12 - 20)]
    return ovmf_image(max(size, 1 << 16), sections=found)


@cache
def vcek() -> bytes:
    return MILAN.vek()


def nested(size: int) -> bytes:
    """Nest sequences: each contains the next, up to the end."""
    ends = (at.to_bytes(4, "big") for at in range(size - 6, 0, -6))
    return b"".join(b"\x30\x84" + end for end in ends)


def in_text(data: bytes, size: int) -> bytes:
    return base64.b64encode(data * (size * 3 // 4 // len(data)))


@dataclass(frozen=True)
class Case:
    parse: Callable[[bytes], object]
    make: Callable[[int], bytes]
    memory: int = 64
    """The most bytes of memory for each byte of input."""
    size: int = 1 << 17
    """Bytes of the larger input, about."""


def encoded(make: Callable[[int], str]) -> Callable[[int], bytes]:
    return lambda size: make(size).encode()


CASES = {
    f"{parse.__name__}: {name}": Case(parse, encoded(make), memory, size)
    for name, make in DOMAINS.items()
    for parse, memory, size in ((look, 160, 1 << 15), (mend, 240, 1 << 14), (compare, 240, 1 << 14))
} | {
    # libvirt's capabilities, and a running domain
    "connect: a long name around many": Case(connect, encoded(named), 160, 1 << 16),
    "capabilities: values": Case(
        SevCapabilities.from_bytes,
        lambda size: (
            "<domainCapabilities><os>"
            + many("<enum name='firmware'><value>efi</value></enum>", size)
            + "</os></domainCapabilities>"
        ).encode(),
        size=1 << 16,
    ),
    "an error of libvirt's": Case(words, lambda size: b"a" * size),
    "an error of libvirt's, URIs": Case(words, encoded(lambda size: many("a://b@c ", size))),
    # JSON
    "JSON: documents": Case(documents, lambda size: b"{}" * (size // 2)),
    "JSON: a list": Case(documents, encoded(lambda size: f"[{many('{},', size)}{{}}]")),
    "JSON: depth": Case(documents, lambda size: b"[" * size),
    "JSON: names": Case(documents, encoded(lambda size: f"{{{numbered('_{0}_:0,', size)}_a_:0}}"
                                            .replace("_", '"'))),
    "JSON: a number": Case(documents, lambda size: b"1" * size),
    "JSON: blanks": Case(documents, lambda size: b"{}" + b" " * size + b"x"),
    "JSON: chain": Case(read_contents, lambda size: b'{"pdh":""}' * (size // 10)),
    "JSON: launch info": Case(read_report, lambda size: b'{"measurement":""}' * (size // 18)),
    "JSON: record": Case(
        LaunchRecord.from_bytes,
        encoded(lambda size: f'{{"schema":"sev-attest/launch/1"{numbered(",_{0}_:0", size)}}}'
                .replace("_", '"')),
    ),
    "QMP: reply": Case(reply, encoded(lambda size: f"[{many('{},', size)}{{}}]")),
    # text
    "launch info: lines": Case(read_report, encoded(lambda size: numbered("sev-{0}:\n", size))),
    "launch info: colons": Case(read_report, lambda size: b":" * size),
    "launch info: blanks": Case(read_report, lambda size: b"sev-policy:" + b" " * size + b"x"),
    "text: base64": Case(decode, lambda size: b"AAAA" * (size // 4)),
    "text: padded base64": Case(decode, lambda size: b"AA==" * (size // 4)),
    "text: padding": Case(decode, lambda size: b"=" * size),
    "text: wrapped": Case(decode, lambda size: b"A " * (size // 2)),
    "text: hex": Case(decode, lambda size: b"ab" * (size // 2)),
    "text: half a hex digit too many": Case(decode, lambda size: b"ab" * (size // 2) + b"a"),
    "text: key": Case(key, lambda size: b"ab\n" * (size // 3)),
    # certificates in every packaging
    "chain: SEV certificates": Case(read_contents, lambda size: pdh() * (size // len(pdh()))),
    "chain: CA certificates": Case(read_contents, lambda size: ark() * (size // len(ark()))),
    "chain: base64": Case(read_contents, lambda size: in_text(ark(), size)),
    "chain: nodesevinfo": Case(
        read_contents, lambda size: b"pdh: \ncert-chain: " + in_text(ark(), size)
    ),
    "chain: lines": Case(read_contents, lambda size: b":\n" * (size // 2)),
    "chain: a zip": Case(read_contents, lambda size: zipped(size, 16, ark())),
    "chain: a zip of many": Case(read_contents, lambda size: zipped(0, size // 100, b"x")),
    "chain: PEM": Case(read_contents, lambda size: pem() * (size // len(pem()))),
    "chain: PEM that never ends": Case(
        read_contents, lambda size: b"-----BEGIN CERTIFICATE-----\n" * (size // 28)
    ),
    "chain: PEM, long": Case(
        read_contents,
        lambda size: b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----" % (b"A" * size),
    ),
    # reports of SEV-SNP
    "SNP: a table of many": Case(read_table, lambda size: (b"\1" * 24) * (size // 24)),
    "SNP: a table that is large": Case(
        read_evidence, lambda size: report() + table(*[(VCEK, bytes(size // 64))] * 64)
    ),
    "SNP: zeros after a report": Case(read_evidence, lambda size: report() + bytes(size)),
    "SNP: an HCL blob": Case(read_evidence, lambda size: hcl(report(), b"{" * size)),
    "SNP: base64": Case(read_evidence, lambda size: in_text(report(), size)),
    "SNP: JSON, a list": Case(
        read_evidence, lambda size: b'{"report":[%b0]}' % (b"0," * (size // 2))
    ),
    "SNP: JSON, base64": Case(read_evidence, lambda size: b'{"report":"%b"}' % (b"-" * size)),
    "SNP: certificates": Case(read_certificates, lambda size: vcek() * (size // len(vcek()))),
    "SNP: PEM": Case(read_certificates, lambda size: label(vcek()) * (size // len(label(vcek())))),
    "SNP: PEM that never ends": Case(
        read_certificates, lambda size: b"-----BEGIN CERTIFICATE-----\n" * (size // 28)
    ),
    "SNP: PEM, long": Case(read_certificates, lambda size: label(bytes(size))),
    "SNP: certificates in base64": Case(read_certificates, lambda size: in_text(vcek(), size)),
    "SNP: nested DER": Case(read_certificates, nested),
    "SNP: indefinite DER": Case(read_certificates, lambda size: b"\x30\x80" * (size // 2)),
    "SNP: a revocation list": Case(
        read_certificates, lambda size: AMD.crl(*range(size // 20)), 200
    ),
    "SNP: JSON, many": Case(read_evidence, lambda size: b'{"report":0}' * (size // 12)),
    # what owner and guest exchange
    "document: names": Case(
        Challenge.from_json,
        encoded(lambda size: f"{{_schema_:_{CHALLENGE}_{numbered(',_{0}_:0', size)}}}"
                .replace("_", '"')),
    ),
    "document: numbers": Case(challenge, lambda size: b"32," * (size // 3) + b"32", 100),
    "document: base64": Case(sealed, lambda size: b"A" * size),
    "document: depth": Case(SealedSecrets.from_json, lambda size: b"[" * size),
    "sealed: names": Case(
        read_content, lambda size: b"\x40\0" + b"\1a\1\0\0\0x" * (size // 7), size=1 << 15
    ),
    "sealed: padding": Case(
        read_content, lambda size: b"\1\0\1a\1\0\0\0x" + bytes(size), size=1 << 15
    ),
    "evidence: checks": Case(partial(evidence, "checks"), lambda size: b" " * size),
    "evidence: advisories": Case(partial(evidence, "advisories"), lambda size: b" " * size),
    "evidence: depth": Case(from_bytes, lambda size: b"[" * size),
    "evidence: names": Case(
        from_bytes, encoded(lambda size: f"{{{numbered('_{0}_:0,', size)}_a_:0}}".replace("_", '"'))
    ),
    # what a ledger's database may hold
    "box: whole": Case(Box.from_bytes, lambda size: b"\1\1k\1\0w" + bytes(size), size=1 << 16),
    "box: random": Case(Box.from_bytes, lambda size: bytes(range(256)) * (size // 256)),
    # a host's or guest's files, each of them
    **{
        f"files: {name}": Case(both_of, encoded(partial(many, unit)), 240, 1 << 16)
        for name, unit in {
            "blanks": " ", "lines": "\n", "words": "kvm_amd.sev=1 ", "colons": "flags : x\n",
            "packages": "Package: libvirt\n\n", "fields": "Package: libvirt\n",
            "boots": "Linux version ",
            "options": "options kvm_amd sev=1\n", "guests": "sev 1\n", "limits": "MemoryMax= ",
        }.items()
    },
    # firmware
    "firmware: entries": Case(firmware, footer, size=64_000),
    "snp firmware: pages": Case(snp_firmware, pages, size=1 << 18),
    "snp firmware: sections": Case(snp_firmware, sections, size=1 << 15),
}  # fmt: skip


def attempt(case: Case, data: bytes) -> None:
    with suppress(SevAttestError):
        case.parse(data)


def seconds(case: Case, data: bytes) -> float:
    """Take the processor time of one run."""
    begin = time.process_time()
    attempt(case, data)
    return time.process_time() - begin


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_linear(case: Case) -> None:
    small, large = case.make(case.size // STEP), case.make(case.size)
    assert len(large) < 1.1 * STEP * len(small) + CONSTANT
    # A busy machine slows one run, not all: both sizes are measured side by side, until one round
    # is good. What is quadratic takes 256 times as long in every round.
    for _ in range(ROUNDS):
        ratio = seconds(case, large) / max(seconds(case, small), MEASURABLE)
        if ratio < MOST:
            break
    assert ratio < MOST

    tracemalloc.start()
    try:
        attempt(case, large)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < case.memory * len(large) + CONSTANT


# trees of files, each of them as large as it may be

FEATURES = [*(f"{number:x}" for number in range(30_000)), "amd-sev", "amd-sev-es", "amd-sev-snp"]
FULL = {
    "modprobe.d, lines": ("/etc/modprobe.d/{}.conf", "\n" * MAX_FILE),
    "modprobe.d, a line": ("/etc/modprobe.d/{}.conf", f"install kvm_amd {'x' * 1_000_000}"),
    "modprobe.d, words": ("/etc/modprobe.d/{}.conf", f"options kvm_amd{' sev=1' * 170_000}"),
    "machine.slice, lines": ("/etc/systemd/system/machine.slice.d/{}.conf", "\n" * MAX_FILE),
    "machine.slice, a limit": (
        "/etc/systemd/system/machine.slice.d/{}.conf", f"MemoryMax={'9' * 1_000_000}",
    ),
    "descriptors": ("/etc/qemu/firmware/{}.json", descriptor(FEATURES)),
    "cache": (f"{CACHE}/{{}}.xml", f"<qemuCaps>{' ' * 1_000_000}</qemuCaps>"),
    "secrets": ("/sys/kernel/security/secrets/coco/{}", "x" * MAX_FILE),
    "pacman": ("/var/lib/pacman/local/libvirt-{}-1/desc", ""),
}  # fmt: skip
LARGE = {
    "dpkg": ("/var/lib/dpkg/status", "Package: \n\n"),
    "apk": ("/lib/apk/db/installed", "P:\n\n"),
    "dmesg": ("/var/log/dmesg", f"SEV: Status: {'A ' * 490}\n"),
    "kern.log": ("/var/log/kern.log", f"kvm_amd: SEV supported: 1 ASIDs {'😀' * 200}\n"),
}
"""Text that has a character of four bytes makes each of them take four."""


def inspected(root: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> int:
    """Check a host and a guest, and return the peak of memory; fail if they read more than that."""
    read, left = os.read, most

    def counted(file: int, size: int) -> bytes:
        nonlocal left
        data = read(file, size)
        left -= len(data)
        assert left >= 0
        return data

    monkeypatch.setattr(os, "read", counted)
    tracemalloc.start()
    try:
        host(root, Need.SNP)
        guest(root)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", FULL)
def test_a_folder_of_many_files_costs_no_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, content = FULL[name]
    lay_out(tmp_path, {path.format(0): content, "/proc/cmdline": "x", "/etc/x": "", "/sys/x": ""})
    for number in range(1, 200):
        link = tmp_path / path.format(number).lstrip("/")
        link.parent.mkdir(exist_ok=True)
        link.hardlink_to(tmp_path / path.format(0).lstrip("/"))
    assert inspected(tmp_path, monkeypatch, 18 << 20) <= 64 << 20


@pytest.mark.parametrize("name", LARGE)
def test_a_large_file_is_read_once_and_takes_a_multiple_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, unit = LARGE[name]
    size = 8 << 20
    content = ("Linux version 6.1 😀\n\n" + many(unit, size)).encode()[:size]
    lay_out(tmp_path, {path: content, "/proc/cmdline": "x", "/etc/x": "", "/sys/x": ""})
    once = 2 * size  # as a host, and as a guest
    assert inspected(tmp_path, monkeypatch, once + MAX_FILE) <= 5 * size


def test_a_file_that_is_too_large_is_not_read_for_every_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for log in LOGS:
        place = tmp_path / log.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            file.truncate((32 << 20) + 1)
    inspected(tmp_path, monkeypatch, MAX_FILE)


def test_what_is_measured_is_parsed() -> None:
    for name in ("a long name around many", "blanks in a tag", "findings", "attributes"):
        look(DOMAINS[name](1 << 16).encode())
