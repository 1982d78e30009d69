"""Feed a stranger's bytes to every parser, under a limit of memory and one of time for each input.

Inputs come from a grammar for each format, whose numbers of names, blanks, attributes, children and
levels go up to the size that is read, and from valid inputs that are mutated. Only SevAttestError
may come out. A seed gives the same inputs again; one that gets out is written to a file.

A plain generator and no coverage-guided engine: it runs on every Python that the project does, with
nothing to install, and what was found so far was found by size, not by rare branches.
"""

import argparse
import base64
import hashlib
import io
import json
import mmap
import os
import random
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sev_attest import sev
from sev_attest._encoding import blob, from_text
from sev_attest.cli.evidence.claims import AtHand
from sev_attest.cli.evidence.document import SCHEMA
from sev_attest.cli.evidence.reader import from_bytes
from sev_attest.cli.evidence.recompute import recompute
from sev_attest.domain_xml.capabilities import SevCapabilities
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.prepare import SessionFiles, prepare
from sev_attest.domain_xml.rule import Subject
from sev_attest.domain_xml.rules import apply_rules
from sev_attest.domain_xml.versions import Versions
from sev_attest.errors import SevAttestError
from sev_attest.guest.firmware import Firmware
from sev_attest.host.config import read_config
from sev_attest.host.place import public
from sev_attest.host.qmp import QmpConnection
from sev_attest.owner.manifest_file import (
    MANIFEST_SCHEMA,
    SNP_MANIFEST_SCHEMA,
    read_manifest,
    read_snp_manifest,
)
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.sealing import Box
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.packaging import read_contents
from sev_attest.sev.chain.roots import amd_roots
from sev_attest.sev.launch_info import LaunchInfo, read_report
from sev_attest.sev.report import AttestationReport
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.certificates import Kind
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.content import read_content
from sev_attest.snp.firmware import SnpFirmware, Svsm
from sev_attest.snp.id_block import IdAuth, IdBlock
from sev_attest.snp.id_block_verify import verify_id_block
from sev_attest.snp.id_key import IdKey
from sev_attest.snp.packaging import read_evidence
from sev_attest.snp.policy import GuestPolicy
from sev_attest.snp.roots import amd_roots as snp_roots
from sev_attest.snp.sealed import SealedSecrets
from sev_attest.snp.transport import TransportKey
from sev_attest.testing import Platform, ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image
from sev_attest.testing.snp import SnpPlatform

MOST = 1 << 20
"""Bytes that are read of any file but firmware."""
MEMORY = 640 << 20
"""Bytes of private memory that a process may take, beside what it had at the start."""
SECONDS = 20.0
"""Of processor time for one input: ten times what the largest takes on a slow machine."""
OLD = Versions(libvirt=(9, 0), qemu=(5, 0), guest_kernel=(5, 0))


# What valid inputs are made of


@cache
def chain() -> sev.Chain:
    """Make the chain of a simulated platform."""
    return Platform(b"fuzz").export()


GODH, BLOB = bytes(2084), bytes(128)
RECORD = LaunchRecord(
    name="vm",
    created="2026-01-01T00:00:00+00:00",
    root=None,
    generation=None,
    claimed_platform_id=None,
    cek=None,
    pdh="0" * 64,
    policy=5,
    kernel_hashes=True,
    session_id="0" * 64,
    godh_sha256=hashlib.sha256(GODH).hexdigest(),
    session_sha256=hashlib.sha256(BLOB).hexdigest(),
    mac="0" * 64,
)
FILES = SessionFiles(record=RECORD, godh=GODH, blob=BLOB)


# The grammars


class Source(random.Random):
    """Random choices; ``left`` is how many bytes an input may still grow by, about."""

    def __init__(self, seed: str) -> None:
        """Start an input: most are small, some as large as what is read."""
        super().__init__(seed)
        self.left = self.choice((200, 2000, 20_000, MOST // 4, MOST - (MOST >> 4)))

    def count(self, cost: int) -> int:
        """Choose how often something that takes ``cost`` bytes comes: mostly a few times."""
        most = max(self.left // max(cost, 1), 0)
        found = min(self.choice((0, 1, 1, 2, 3, 5)), most)
        if self.random() < 0.08:
            found = self.randint(0, most)
        self.left -= found * cost
        return found

    def text(self, letters: str = "ab0 =&\t\n\u202e:\u00e9") -> str:
        """Make a text, of one letter if it is long."""
        return self.choice(letters) * self.count(1)

    def word(self, words: tuple[str, ...]) -> str:
        """Choose a word; sometimes another, or a long one."""
        if self.random() < 0.9:
            return self.choice(words)
        return self.choice("abz") * max(self.count(2), 1)


NAMES = (
    "domain", "os", "type", "loader", "nvram", "varstore", "kernel", "cmdline", "firmware",
    "feature", "devices", "disk", "target", "driver", "boot", "interface", "model", "rom", "rng",
    "backend", "controller", "video", "memballoon", "channel", "launchSecurity", "policy", "dhCert",
    "session", "handle", "cbitpos", "reducedPhysBits", "memory", "memoryBacking", "locked",
    "memtune", "hard_limit", "cpu", "vcpu", "vcpus", "on_reboot", "pm", "suspend-to-mem",
    "features", "smm", "vmport", "acpi", "sysinfo", "table", "q:commandline", "q:arg",
    "domainCapabilities", "sev", "enum", "value", "cbitpos", "maxGuests", "maxESGuests",
)  # fmt: skip
ATTRIBUTES = (
    "type", "machine", "arch", "firmware", "stateless", "readonly", "secure", "enabled", "state",
    "bus", "dev", "model", "iommu", "name", "unit", "current", "mode", "kernelHashes", "supported",
    "order", "xmlns", "xmlns:q", "q:type",
)  # fmt: skip
VALUES = (
    "sev", "yes", "no", "on", "off", "efi", "hvm", "pc-q35-7.2", "pc-i440fx-3.0", "pflash", "rom",
    "virtio", "virtio-transitional", "vda", "5", "0x7", "KiB", "custom", "kvm", "x86_64", "",
    "http://libvirt.org/schemas/domain/qemu/1.0", "9" * 30, "restart", "host-model",
)  # fmt: skip
TREE = {
    "domain": ("os", "devices", "launchSecurity", "memory", "features", "cpu", "vcpu", "pm",
               "on_reboot", "memtune", "memoryBacking", "q:commandline", "vcpus", "sysinfo"),
    "os": ("type", "loader", "nvram", "varstore", "kernel", "firmware", "cmdline", "acpi"),
    "devices": ("disk", "interface", "controller", "rng", "video", "memballoon", "memory"),
    "disk": ("target", "driver", "boot"), "interface": ("model", "driver", "rom"),
    "launchSecurity": ("policy", "dhCert", "session", "handle", "cbitpos", "reducedPhysBits"),
    "features": ("smm", "vmport", "sev", "launchSecurity"), "firmware": ("feature",),
    "domainCapabilities": ("features", "os", "domain", "machine"), "enum": ("value",),
    "sev": ("cbitpos", "reducedPhysBits", "maxGuests", "maxESGuests"),
}  # fmt: skip
"""What is mostly in what."""


def element(of: Source, name: str, depth: int = 0) -> str:
    """Make an element and all that is in it; what is many is one thing many times."""
    attributes = "".join(
        f"{' ' * max(of.count(1), 1)}{of.word(ATTRIBUTES)}{i or ''}={of.text(' ')}'{value(of)}'"
        for i in range(min(of.count(12), 4))
    )
    if of.random() < 0.05:
        attributes += "".join(f" a{i}=''" for i in range(of.count(10)))
    inner = TREE.get(name, NAMES) if of.random() < 0.9 else NAMES
    content = of.word((*VALUES, "")) if name not in TREE else ""
    if depth < 5 and (name in TREE or of.random() < 0.1):
        for _ in range(of.randint(1, 6)):
            child = of.text(" \t\n") + element(of, of.word(inner), depth + 1)
            content += child * max(of.count(len(child)), 1)
    if of.random() < 0.02:
        levels = of.choice((10, 60, 70, of.count(7)))
        content = "<a>" * levels + content + "</a>" * levels
    if of.random() < 0.03:
        content += of.choice(("<!-- -->", "<![CDATA[x]]>", "<?x y?>", "&lt;", "&#65;")) * of.count(
            9
        )
    blanks = of.text(" \n")
    end = f"</{name}{of.text(' ')}>" if content or of.random() < 0.5 else ""
    return (
        f"<{name}{attributes}{blanks}>{content}{end}" if end else f"<{name}{attributes}{blanks}/>"
    )


def value(of: Source) -> str:
    """Make the value of an attribute."""
    return of.word(VALUES).replace("'", "")


def xml(root: str) -> Callable[[Source], bytes]:
    """Make documents with a root."""

    def make(of: Source) -> bytes:
        head = of.choice(("", "", "", "<?xml version='1.0'?>", "\ufeff", "<!DOCTYPE d>", "\n"))
        if of.random() < 0.05:
            head += "<!-- > -->" * of.count(10)
        text = element(of, root)
        if "q:" in text and of.random() < 0.8:
            text = text.replace(f"<{root}", f"<{root} xmlns:q='{of.choice(VALUES) or 'u'}'", 1)
        return (head + text + of.text("\n ")).encode()

    return make


def amplified(root: str) -> Callable[[Source], bytes]:
    """Make documents in which one long thing is around, or beside, many short ones."""

    def make(of: Source) -> bytes:
        size = of.choice((20_000, MOST // 8, MOST // 3))
        outer = of.choice((*TREE, "m"))
        short = element(of, of.choice(TREE.get(outer, NAMES)), 5)[:200]
        short = short if short.endswith(">") else "<a/>"
        many = (short + of.choice(("", "\n"))) * min(size // len(short), 19_000)
        kind = of.randrange(5)
        name = "n" * size if kind == 0 else outer
        inside = {1: " " * size, 2: f" xmlns:q='{'u' * size}'"}.get(kind, "")
        if kind == 3:
            inside = "".join(f" a{i}=''" for i in range(size // 10))
        before = "\n" + " " * size if kind == 4 else ""
        tail = of.choice((">", "/>"))
        body = f"<{name}{inside}{tail}" + (f"{before}{many}</{name}>" if tail == ">" else many)
        return f"<{root} type='kvm'>{body}</{root}>".encode()

    return make


def json_value(of: Source, depth: int = 0) -> str:
    """Make JSON; what is many is one thing many times."""
    if depth > 3 or of.random() < 0.5:
        encoded = json.dumps(base64.b64encode(chain().to_bytes()).decode())
        known = ("0", "1", "255", "-1", "5e9", "1.5", "true", "null", "{}", "[]", '""', '"AAAA"',
                 '"\\ud800"', "NaN", encoded)  # fmt: skip
        return of.choice((*known, of.choice("1[{") * of.count(1), f'"{of.text("abA=")}"'))
    if of.random() < 0.3:
        one = json_value(of, depth + 1)
        return f"[{', '.join([one] * of.count(len(one) + 2))}]"
    return json_object(of, {}, depth + 1)


def json_object(of: Source, known: dict[str, str], depth: int = 0) -> str:
    """Make an object with some of what is known, and more."""
    fields = {name: text for name, text in known.items() if of.random() < 0.95}
    for _ in range(of.randint(0, 3)):
        name = of.word((*known, "event", "return", "sev-type", "measurement"))
        fields[name] = json_value(of, depth + 1)
    if of.random() < 0.05:
        fields |= {f"a{i}": "0" for i in range(of.count(10))}
    blanks = of.text(" \n")
    return f"{{{blanks}{', '.join(f'{json.dumps(n)}: {t}' for n, t in fields.items())}{blanks}}}"


def json_of(known: dict[str, object]) -> Callable[[Source], bytes]:
    """Make documents that are like one, one or several."""
    written = {name: json.dumps(one) for name, one in known.items()}

    def make(of: Source) -> bytes:
        one = json_object(of, written)
        if of.random() < 0.1:
            one = json_value(of)
        many = max(of.count(len(one)), 1)
        return of.choice((one * many, f"[{','.join([one] * many)}]")).encode()

    return make


def lines_of(known: dict[str, str]) -> Callable[[Source], bytes]:
    """Make "label : value" lines."""

    def make(of: Source) -> bytes:
        text = ""
        for name, one in known.items():
            label = of.word((name,) * 3 + (*known,))
            line = (
                f"{of.text(' ')}{label}{of.text(' ')}:{of.text(' :')}{of.choice((one, one, '9'))}"
            )
            text += f"{line}{of.choice(chr(10) * 3 + chr(13))}\n" * max(of.count(len(line)), 1)
        if of.random() < 0.1:
            text += "".join(f"sev-{i}: {i}\n" for i in range(of.count(14)))
        return text.encode()

    return make


def binary(*seeds: bytes) -> Callable[[Source], bytes]:
    """Make one thing many times, or several behind each other."""

    def make(of: Source) -> bytes:
        parts = [of.choice(seeds) for _ in range(of.randint(1, 4))]
        parts[0] *= max(of.count(len(parts[0])), 1)
        return b"".join(parts)

    return make


def text_of(make: Callable[[Source], bytes]) -> Callable[[Source], bytes]:
    """Write bytes as people hold them."""

    def made(of: Source) -> bytes:
        data = make(of)
        text = of.choice((base64.b64encode, base64.encodebytes, lambda d: d.hex().encode()))(data)
        return text.replace(b"A", b"A" + of.text(" \n=").encode(), 3)

    return made


def zipped(of: Source) -> bytes:
    """Make zips: of members that are long, many, or zips; some with numbers that lie."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", of.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as made:
        for number in range(max(of.count(100), 1)):
            content = of.choice((chain().pdh.to_bytes(), b"", bytes(max(of.count(1), 0))))
            made.writestr(
                f"{of.choice(('', '../', '/', 'd/'))}{number}{of.text('x')[:999]}", content
            )
    data = bytearray(file.getvalue())
    for _ in range(of.choice((0, 0, 1, 3))):  # the sizes and offsets in the directory at its end
        at = len(data) - 1 - of.randrange(min(len(data), 120))
        data[at : at + 4] = of.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"))
    return bytes(data)


def footers(of: Source) -> bytes:
    """Make firmware whose footer has many entries, or entries that lie."""
    size = of.choice((17, 18, 19, 22, 26, 30, 0, 0xFFFF))
    guids = max(min(of.count(18), 3600), 1)
    entry = bytes(max(size - 18, 0) % 64) + size.to_bytes(2, "little")
    table = b"".join(entry + n.to_bytes(16, "little") for n in range(guids))[-0xFF00:]
    image = ovmf_image(4096)
    return image[:-50] + table + (len(table) + 18).to_bytes(2, "little") + image[-48:]


def mutated(of: Source, data: bytes) -> bytes:
    """Change a few places: bytes, pieces left out, pieces many times."""
    made = bytearray(data)
    for _ in range(of.choice((0, 0, 0, 1, 1, 2, 8))):
        at = of.randrange(len(made) + 1)
        end = min(at + of.choice((0, 1, 1, 4, 100)), len(made))
        piece = bytes(made[at:end])
        made[at:end] = of.choice((
            of.randbytes(len(piece)), b"", piece * of.count(max(len(piece), 1)), b"\xff" * 4,
            of.choice((b"<", b"'", b">", b"\0", b"=", b":", b"{", b"&a;", b" " * of.count(1))),
        ))  # fmt: skip
    return bytes(made[:MOST])


# The parsers


class Reply(QmpConnection):
    """A QMP connection whose every reply is one document."""

    def __init__(self, reply: object) -> None:
        """Know the reply."""
        self._reply = reply

    def _ask(self, command: str, **_arguments: object) -> Any:  # noqa: ARG002
        return self._reply


def qmp(data: bytes) -> None:
    """Read a reply as every command does; the client library reads the JSON."""
    try:
        reply = Reply(json.loads(data))
    except (ValueError, RecursionError):
        return
    for read in (reply.chain, lambda: reply.guest(None), reply.state, reply.claims, reply.vcpus):
        try:
            read()
        except SevAttestError:
            continue


def domain(data: bytes) -> None:
    """Check a domain, then mend it."""
    apply_rules(Subject(domain=parse_domain(data), versions=OLD, record=RECORD))
    subject = Subject(domain=parse_domain(data), versions=OLD)
    list(prepare(subject, FILES, everything=True).diff("old", "new"))


def certificates(data: bytes) -> None:
    """Read a packaging, and verify what is in it."""
    read_contents(data)
    sev.verify_chain(sev.Chain.from_bytes(data))


def keys(data: bytes) -> None:
    """Read a key, a measurement and what is of any size."""
    for read in (
        lambda: blob(data, (16, 32), "key"), lambda: LaunchInfo.from_text(data),
        lambda: from_text(data, "text"), lambda: public(data.decode("latin-1"), "qemu:///system"),
    ):  # fmt: skip
        try:
            read()
        except SevAttestError:
            continue


def exchanged(data: bytes) -> None:
    """Read each document that owner and guest exchange, and what is sealed."""
    for read in (
        Challenge.from_json, TransportKey.from_json, SealedSecrets.from_json, read_content,
    ):  # fmt: skip
        try:
            read(data)
        except SevAttestError:
            continue


def id_block(data: bytes) -> None:
    """Read an ID block, or an ID auth and judge its signatures."""
    try:
        IdBlock.from_bytes(data)
    except SevAttestError:
        block = IdBlock(ld=bytes(48), policy=GuestPolicy(0x30000))
        verify_id_block(block, IdAuth.from_bytes(data))


def id_auth(key: IdKey) -> bytes:
    """Return an ID auth with this key twice, whose signatures do not hold."""
    signature = (b"\1" + bytes(71)) * 2 + bytes(368)
    signed = signature + key.to_bytes() + bytes(60)
    return (b"\1\0\0\0" * 2 + bytes(56) + signed * 2).ljust(4096, b"\0")


def firmware(data: bytes) -> None:
    """Read all that an image declares."""
    image = Firmware.read(data)
    for read in (
        image.tables, lambda: image.kind, image.reset_address, image.hash_area, image.secret_area,
        image.require_hash_table, image.sections,
    ):  # fmt: skip
        try:
            read()
        except SevAttestError:
            continue


def snp_firmware(data: bytes) -> None:
    """Read an image as SEV-SNP measures it, alone and beside an SVSM."""
    for read in (SnpFirmware.read, Svsm.read):
        try:
            read(data)
        except SevAttestError:
            continue


@dataclass(frozen=True)
class Target:
    """A parser, and what makes inputs for it."""

    parse: Callable[[bytes], object]
    make: tuple[Callable[[Source], bytes], ...]


def evidence(data: bytes) -> object:
    """Recompute what evidence claims."""
    return recompute(
        from_bytes(data), AtHand(tik=bytes(16), roots=[*amd_roots()], snp_roots=[*snp_roots()])
    )


def evidences(links: sev.Chain, report: bytes) -> dict[str, object]:
    """Return the fields of evidence, of a launch and of a report."""
    dates = dict.fromkeys(("subject", "not_before", "not_after"))
    certificates = [
        {"role": one.role, "fingerprint": one.fingerprint, **dates,
         "bytes": base64.b64encode(one.to_bytes()).decode()}
        for one in links.certificates
    ]  # fmt: skip
    text = {"summary": "", "repeat": "", "record": None, "requirements": None, "measured": None}
    lists: dict[str, object] = {
        name: []
        for name in ("errors", "checks", "notes", "advisories", "ledger", "steps", "inputs")
    }
    launch = {"measurement": "A" * 64, "nonce": "0" * 32, "api_major": 1, "api_minor": 55,
              "build_id": 24, "policy": 5, "reported_policy": 5}  # fmt: skip
    snp: dict[str, object] = {
           "report": base64.b64encode(report).decode(), "at": "2026-01-01T00:00:00+00:00",
           "product": None, "root": None, "certificates": [], "revocation_lists": [],
           "runtime_data": None, "report_data": None, "launch_digest": None}  # fmt: skip
    chain = {"root": None, "generation": None, "platform_id": None, "certificates": certificates}
    made = {"sev_attest": "1", "python": "3", "cryptography": "43", "made": "now"}
    return {"schema": SCHEMA, "command": "launch", "ok": True, "exit": 0, **text, **lists,
            "chain": chain, "launch": launch, "report": None, "software": made,
            "command ": "snp-verify", "report ": snp}  # fmt: skip


def targets() -> dict[str, Target]:
    """List the parsers by name."""
    links = chain()
    images = ovmf_image(4096, sections=SNP_SECTIONS), svsm_image(4096)
    pdh, rest = links.pdh.to_bytes(), links.to_bytes()[len(links.pdh.to_bytes()) :]
    node = {name: base64.b64encode(data).decode() for name, data in
            {"pdh": pdh, "cert-chain": rest, "cpu0-id": bytes(64)}.items()}  # fmt: skip
    measurement = base64.b64encode(bytes(48)).decode()
    numbers = {"sev-api-major": "1", "sev-api-minor": "55", "sev-build-id": "21", "sev-policy": "5"}
    qemu: dict[str, object] = {"api-major": 1, "api-minor": 55, "build-id": 21, "policy": 5,
                               "data": measurement, "enabled": True, "state": "launch-secret",
                               "status": "prelaunch", **node}  # fmt: skip
    launches = [{"digest": "0" * 64, "vcpus": 1, "cpu": "EPYC", "vmsa_profile": "qemu-legacy"}]
    snp_launches = [{"digest": "0" * 96, "vcpus": 1, "cpu": "EPYC", "guest_features": "0x1"}]
    roots = [ca.to_bytes() for root in amd_roots() for ca in (root.ark, root.ask) if ca]
    signed = binary(links.to_bytes(), pdh, *roots)
    domains = (xml("domain"), amplified("domain"))
    hosts = (xml("domainCapabilities"), amplified("domainCapabilities"))
    pem = b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n"
    snp = (b"\3" + bytes(9) + b"\3").ljust(1184, b"\0")
    header = bytes(4) + len(snp).to_bytes(4, "little") + bytes(24)
    table = bytes(15) + b"\1" + bytes(8)
    chip = SnpPlatform.of(b"a chip")
    point = chip.key(Kind.VCEK).public_key().public_numbers()
    nonce, sizes = "0" * 64, {"kem": 32, "kdf": 1, "aead": 2}
    challenge = {"schema": "sev-attest/snp-challenge/1", "name": "vm1", "nonce": nonce,
                 "created": "2026-05-04T12:00:00+00:00", "expires": None, "kems": [32]}  # fmt: skip
    sealed = {"schema": "sev-attest/snp-sealed/1", "challenge": "vm1", "nonce": nonce,
              "report_sha384": "0" * 96, **sizes, "enc": "A" * 43 + "=",
              "ciphertext": "A" * 1386 + "=="}  # fmt: skip
    transport = {"schema": "sev-attest/snp-transport-key/1", "kem": 32,
                 "public_key": "A" * 43 + "="}  # fmt: skip
    return {
        "domain": Target(domain, domains),
        "connect": Target(lambda data: read_config(data.decode("latin-1")), domains),
        "capabilities": Target(SevCapabilities.from_bytes, hosts),
        "chain": Target(certificates, (
            signed, text_of(signed), lines_of(node), json_of({**node}), zipped,
            binary(pem % base64.encodebytes(roots[0]), pem, pem[:28]),
        )),
        "certificate": Target(Certificate.from_bytes, (binary(pdh),)),
        "ca": Target(AmdCaCertificate.from_bytes, (binary(*roots),)),
        "launch-info": Target(
            read_report, (lines_of({"sev-measurement": measurement, **numbers}), json_of(qemu))
        ),
        "qmp": Target(qmp, (json_of(qemu),)),
        "record": Target(LaunchRecord.from_bytes, (json_of(json.loads(RECORD.to_bytes())),)),
        "evidence": Target(evidence, (json_of(evidences(links, snp)),)),
        "manifest": Target(
            read_manifest, (json_of({"schema": MANIFEST_SCHEMA, "launches": launches}),)
        ),
        "snp-manifest": Target(
            read_snp_manifest, (json_of({"schema": SNP_MANIFEST_SCHEMA, "launches": snp_launches}),)
        ),
        "text": Target(keys, (text_of(binary(bytes(16), bytes(48))), binary(b"a://b@c ", b"a"))),
        "firmware": Target(firmware, (binary(ovmf_image(4096)), footers)),
        "snp-firmware": Target(snp_firmware, (binary(*images), footers)),
        "box": Target(Box.from_bytes, (binary(b"\1\5kek-1\4\0" + bytes(64), b"\1\5kek-1"),)),
        "report": Target(AttestationReport.from_bytes, (binary(bytes(sev.report.REPORT_SIZE)),)),
        "snp-report": Target(read_evidence, (
            binary(snp, table, header), text_of(binary(snp)), json_of({"hcl_report": snp.hex()}),
            binary(b"HCLA", snp, bytes(28)),
        )),
        "snp-release": Target(exchanged, (
            json_of({**challenge}), json_of({**sealed}), json_of({**transport}),
            binary(b"\1\0", b"\1a\1\0\0\0x", bytes(1015)),
        )),
        "snp-id-block": Target(id_block, (
            binary(bytes(80) + b"\1\0\0\0" + bytes(4) + b"\0\0\3" + bytes(5)),
            binary(id_auth(IdKey(x=point.x, y=point.y))),
        )),
        "snp-certificates": Target(read_certificates, (
            binary(chip.vek(), chip.authority.crl(1), b"\x30\x82"), text_of(binary(chip.vek())),
            binary(pem % base64.encodebytes(chip.vek()), pem, pem[:28]),
            binary(table, chip.vek()),
        )),
    }  # fmt: skip


# The runs


class Slot:
    """The input that a child is at, where its parent finds it."""

    def __init__(self) -> None:
        """Share memory with what is forked."""
        self._memory = mmap.mmap(-1, 2 * MOST)

    def put(self, data: bytes) -> None:
        """Keep an input."""
        self._memory[:8] = len(data).to_bytes(8, "little")
        self._memory[8 : 8 + len(data)] = data

    def get(self) -> bytes:
        """Take it out."""
        return self._memory[8 : 8 + int.from_bytes(self._memory[:8], "little")]


def attempt(target: Target, data: bytes) -> None:
    """Parse one input; the kernel ends the process where that takes too long."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        target.parse(data)
    except SevAttestError as error:
        str(error)
    signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory() -> None:
    """Let this process have no more than :data:`MEMORY` beyond what it has."""
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))


def inputs(target: Target, seed: str, seconds: float, slot: Slot, told: int) -> int:
    """Try inputs, in a child; gives 1 if one gets out, and says how many there were."""
    limit_memory()
    number, end = 0, time.monotonic() + seconds
    try:
        while not number or time.monotonic() < end:
            of = Source(f"{seed}/{number}")
            data = mutated(of, of.choice(target.make)(of))
            slot.put(data)
            attempt(target, data)
            number += 1
    except BaseException:  # noqa: BLE001 - whatever comes out is what is looked for
        traceback.print_exc()
        return 1
    os.write(told, str(number).encode())
    return 0


def run(name: str, target: Target, seed: str, seconds: float) -> bool:
    """Try inputs for some seconds; tell whether none got out."""
    slot, (hear, told) = Slot(), os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os._exit(inputs(target, seed, seconds, slot, told))
    os.close(told)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(hear) as counted:
        count = counted.read()
    if status == 0:
        print(f"{name}: {count} inputs", flush=True)
        return True
    data = slot.get()
    path = Path(f"fuzz-{name}-{hashlib.sha256(data).hexdigest()[:12]}")
    path.write_bytes(data)
    what = "gets out" if status > 0 else f"is ended by {signal.Signals(-status).name}"
    print(
        f"error: {name}: {path} ({len(data)} bytes) {what}; again: --target {name} --input {path}"
    )
    return False


def main() -> int:
    """Run the targets in turn, each for its share of the time."""
    every = targets()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all of it (60)")
    parser.add_argument("--target", choices=every, help="one parser alone")
    parser.add_argument("--seed", default="1", help="other inputs (1)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try this alone, in --target")
    given = parser.parse_args()
    chosen = {given.target: every[given.target]} if given.target else every
    if given.input:
        limit_memory()
        attempt(every[given.target], given.input.read_bytes())
        return 0
    share = given.seconds / len(chosen)
    held = [run(name, target, f"{given.seed}/{name}", share) for name, target in chosen.items()]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
