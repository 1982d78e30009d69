"""Domain XML of SEV-SNP guests: its rules, what applies to SEV alone, and what is put in."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import MalformedInput, Unsupported
from sev_attest.domain_xml.domain import parse_domain, read_policy
from sev_attest.domain_xml.launch_security import has_author_key, id_block_policy
from sev_attest.domain_xml.prepare import NEEDED, Prepared, prepare
from sev_attest.domain_xml.rule import Severity, Subject
from sev_attest.domain_xml.rules import RULES, apply_rules
from sev_attest.domain_xml.snp_launch import SnpLaunch
from sev_attest.domain_xml.versions import Versions
from sev_attest.guest import Firmware
from sev_attest.testing import ovmf_image
from test_domain_xml import (
    CASES,
    CHOSEN,
    CLEAN,
    EFI,
    HOLE,
    I440FX,
    KERNEL,
    LOADER,
    MEMTUNE,
    MODEL,
    SCSI_DISK,
    SESSION,
    Case,
    capabilities,
)

SNP_HOST = Versions(libvirt=(11, 3), qemu=(10, 0), host_kernel=(6, 12), guest_kernel=(6, 12))
POLICY = 0x20000


def id_block(policy: int = POLICY) -> bytes:
    """Return an ID block of version 1, of no guest."""
    return bytes(range(80)) + b"\1\0\0\0" + bytes(4) + policy.to_bytes(8, "little")


def id_auth(*, author: bool) -> bytes:
    """Return an ID authentication with an ID key, and possibly an author key."""
    algorithms = b"\1\0\0\0" + (b"\1" if author else b"\0") + bytes(3)
    return algorithms + bytes(range(250)) * 16 + bytes(88)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


BLOCK, AUTH, AUTHORED = id_block(), id_auth(author=False), id_auth(author=True)
HOST_DATA = bytes(range(32))
LAUNCH = SnpLaunch(policy=POLICY, id_block=BLOCK, id_auth=AUTHORED, host_data=HOST_DATA)
ELEMENT = f"""\
  <launchSecurity type='sev-snp' authorKey='yes'>
    <policy>{POLICY:#x}</policy>
    <idBlock>{base64_of(BLOCK)}</idBlock>
    <idAuth>{base64_of(AUTHORED)}</idAuth>
    <hostData>{base64_of(HOST_DATA)}</hostData>
  </launchSecurity>
"""
SNP_LOADER = "<loader type='rom' stateless='yes'>/srv/OVMF.amdsev.fd</loader>"
SNP_CLEAN = CLEAN.replace(LOADER, SNP_LOADER).replace(MEMTUNE, "").replace("q35-7.2", "q35-9.1")
SNP_CLEAN = SNP_CLEAN[: SNP_CLEAN.index("  <launchSecurity")] + ELEMENT + "</domain>\n"
TYPE = "type='sev-snp' authorKey='yes'"
POLICY_ELEMENT = f"<policy>{POLICY:#x}</policy>"
BLOCK_ELEMENT = f"    <idBlock>{base64_of(BLOCK)}</idBlock>\n"
AUTH_ELEMENT = f"    <idAuth>{base64_of(AUTHORED)}</idAuth>\n"
NO_ID = ((BLOCK_ELEMENT, ""), (AUTH_ELEMENT, ""), (TYPE, "type='sev-snp'"))
"""Edits after which any policy may be there."""
BIOS = Firmware.read(ovmf_image(8192, sections=[(0x80D000, 0x1000, 2)]))
"""An image with SEV metadata, and no section for kernel hashes."""
NO_IOMMU = frozenset({"domain.virtio.model"})


@dataclass(frozen=True, kw_only=True)
class SnpCase(Case):
    """The clean XML of an SEV-SNP guest with some text replaced."""

    versions: Versions = SNP_HOST
    clean: str = SNP_CLEAN
    launch: SnpLaunch = field(default_factory=SnpLaunch)
    """What prepare puts in."""

    def prepare(self, **options: Any) -> Prepared:
        return prepare(self.subject, self.launch, **options)


def case(old: str, new: str, severity: str = "E", **more: Any) -> SnpCase:
    return SnpCase(edits=((old, new),), severity=Severity(severity), **more)


def cases(edits: tuple[tuple[str, str], ...], severity: str = "E", **more: Any) -> SnpCase:
    return SnpCase(edits=edits, severity=Severity(severity), **more)


def policy(value: str, severity: str = "E", **more: Any) -> SnpCase:
    return cases((*NO_ID, (POLICY_ELEMENT, f"<policy>{value}</policy>")), severity, **more)


SNP_CASES: Mapping[str, list[SnpCase]] = {
    # What holds for SEV too, in its own words.
    "domain.type": [case("domain type='kvm'", "domain type='qemu'")],
    "domain.cpu.mode": [case(MODEL, "<cpu mode='host-passthrough'/>", "W")],
    "domain.cpu.model": [case("EPYC-Milan", "Skylake-Server", "W")],
    "domain.vcpu.hotplug": [
        case("<vcpu placement='static'>", "<vcpu placement='static' current='2'>"),
    ],
    "domain.reboot": [case("<on_reboot>destroy", "<on_reboot>restart", "W")],
    "domain.smm": [case("<acpi/>", "<acpi/><smm state='on'/>")],
    "domain.loader.smm": [case("OVMF.amdsev.fd", "OVMF_CODE.secboot.fd", "W")],
    "domain.loader.secure": [case("type='rom'", "type='rom' secure='yes'")],
    "domain.loader.missing": [case(SNP_LOADER, "")],
    "domain.loader.nvram": [
        case(SNP_LOADER, SNP_LOADER + "<nvram>/srv/vm1_VARS.fd</nvram>"),
    ],
    "domain.loader.chosen": [cases(((SNP_LOADER, "<loader stateless='yes'/>"), EFI), "W")],
    "domain.firmware.es": [
        case("acpi", "acpi", known={"firmware": Firmware.read(
            ovmf_image(8192, reset_address=None, sections=[(0x80D000, 0x1000, 2)]))}),
    ],
    "domain.memory.hotplug": [
        case("  <vcpu ", "  <maxMemory slots='4' unit='GiB'>8</maxMemory>\n  <vcpu ", "W"),
    ],
    "domain.memory.hard-limit": [
        case("  <vcpu ", MEMTUNE.replace("4456448", "4194304") + "  <vcpu ", "W"),
    ],
    "domain.kernel-hashes.missing": [case(HOLE, KERNEL)],
    "domain.kernel-hashes.unused": [
        case(TYPE, f"{TYPE} kernelHashes='yes'"),
        case(TYPE, f"{TYPE} kernelHashes='yes'", launch=SnpLaunch(kernel_hashes=True),
             known={"launch": SnpLaunch(kernel_hashes=True)}),
    ],
    "domain.launch-security.missing": [case(ELEMENT, "", launch=LAUNCH, known={"launch": LAUNCH})],
    "domain.launch-security.cbitpos": [
        case(POLICY_ELEMENT, f"{POLICY_ELEMENT}<cbitpos>51</cbitpos>", "I"),
        case(POLICY_ELEMENT, f"{POLICY_ELEMENT}<cbitpos>47</cbitpos>",
             known={"capabilities": capabilities()}),
    ],
    "domain.launch-security.reduced-phys-bits": [
        case(POLICY_ELEMENT, f"{POLICY_ELEMENT}<reducedPhysBits>0</reducedPhysBits>"),
    ],
    "domain.launch-security.foreign": [
        case(POLICY_ELEMENT, f"{POLICY_ELEMENT}<dhCert>AAAA</dhCert>"),
        case(POLICY_ELEMENT, f"{POLICY_ELEMENT}<session>AAAA</session><handle>0</handle>"),
    ],
    "domain.host": [
        case("acpi", "acpi", known={"capabilities": replace(capabilities(), types=("sev",))}),
        case("acpi", "acpi", known={"capabilities": capabilities(maxESGuests=0)}),
        case("acpi", "acpi", known={"capabilities": capabilities(supported="no")}),
    ],
    "domain.libvirt": [
        case("acpi", "acpi", versions=SNP_HOST._replace(libvirt=(10, 4))),
        case("acpi", "acpi", "I", versions=SNP_HOST._replace(libvirt=None)),
    ],
    "domain.qemu": [
        case("acpi", "acpi", versions=SNP_HOST._replace(qemu=(9, 0, 2))),
        case("acpi", "acpi", "I", versions=SNP_HOST._replace(qemu=None)),
    ],
    "domain.value": [case("authorKey='yes'", "authorKey='on'",
                          beside=frozenset({"domain.snp.author-key"}))],
    "domain.policy.missing": [
        cases((*NO_ID, (f"    {POLICY_ELEMENT}\n", "")), launch=SnpLaunch(policy=POLICY),
              known={"launch": SnpLaunch(policy=POLICY)}),
        cases((*NO_ID, (f"    {POLICY_ELEMENT}\n", ""))),
    ],
    "domain.policy.format": [
        policy("0x20000 "), policy("five"), policy("0x10000000000020000"),
    ],
    "domain.policy.decimal": [policy("20000", "W")],
    "domain.policy.debug": [policy("0xa0000")],
    "domain.policy.reserved": [
        policy("0x0"), policy("0x4020000"), policy("0x8000000000020000"),
    ],
    "domain.policy.differs": [
        policy("0x30000", launch=SnpLaunch(policy=POLICY), known={"launch": SnpLaunch(
            policy=POLICY)}, beside=frozenset({"domain.policy.permits"})),
    ],
    # What is SEV-SNP's alone.
    "domain.policy.migration": [policy("0x60000", "W")],
    "domain.policy.permits": [policy("0x30000", "I"), policy("0x230000", "I")],
    "domain.policy.demands": [policy("0x120000", "I"), policy("0x3d20000", "I")],
    "domain.machine.snp": [
        case("pc-q35-9.1", "microvm"),
        cases((("pc-q35-9.1", "pc-i440fx-9.1"), *I440FX[1:])),
    ],
    "domain.loader.rom": [
        case("type='rom'", "type='pflash' readonly='yes'"),
        case("type='rom'", "type='pflash'"),
        case("type='rom'", "type='pflash' readonly='no'"),
        case("type='rom' stateless='yes'", "type='pflash' readonly='yes'",
             beside=frozenset({"domain.loader.stateless"})),
        case("type='rom' ", "", "W"),
        cases(((SNP_LOADER, "<loader type='pflash' stateless='yes'/>"), EFI), beside=CHOSEN),
    ],
    "domain.firmware.snp": [
        case("acpi", "acpi", known={"firmware": Firmware.read(ovmf_image(8192))}),
        cases(((HOLE, KERNEL), (TYPE, f"{TYPE} kernelHashes='yes'")), known={"firmware": BIOS}),
        case("acpi", "acpi", known={"firmware": Firmware.read(
            ovmf_image(8192, sections=[(0, 0x1000, 2)]).replace(b"ASEV\x1c", b"ASEV\x10"))}),
    ],
    "domain.memory.backing": [
        case("  <vcpu ", "  <memoryBacking><hugepages/></memoryBacking>\n  <vcpu ", "W"),
        case("  <vcpu ", "  <memoryBacking><source type='memfd'/><access mode='shared'/>"
             "</memoryBacking>\n  <vcpu ", "W"),
        case("  <vcpu ", "  <memoryBacking><locked/></memoryBacking>\n  <vcpu ", "W",
             beside=frozenset({"domain.memory.unlimited"})),
    ],
    "domain.host-kernel": [
        case("acpi", "acpi", versions=SNP_HOST._replace(host_kernel=(6, 10, 9))),
        case("acpi", "acpi", "I", versions=SNP_HOST._replace(host_kernel=None)),
    ],
    "domain.guest-kernel": [
        case("acpi", "acpi", versions=SNP_HOST._replace(guest_kernel=(5, 18))),
        case(SCSI_DISK, "<target dev='vda' bus='virtio'/>", "I",
             versions=SNP_HOST._replace(guest_kernel=None)),
    ],
    "domain.snp.base64": [
        case(base64_of(HOST_DATA), "not base64!"),
        case(base64_of(HOST_DATA), f"\n      {base64_of(HOST_DATA)}\n    "),
    ],
    "domain.snp.length": [
        case(base64_of(HOST_DATA), base64_of(HOST_DATA[1:])),
        case(base64_of(BLOCK), base64_of(BLOCK[:-1])),
        cases(((base64_of(AUTHORED), base64_of(AUTH[:-4])), (TYPE, "type='sev-snp'"))),
        case(POLICY_ELEMENT, f"{POLICY_ELEMENT}<guestVisibleWorkarounds>AAAA"
             "</guestVisibleWorkarounds>"),
        case(base64_of(HOST_DATA), ""),
    ],
    "domain.snp.id-pair": [
        cases(((AUTH_ELEMENT, ""), (TYPE, "type='sev-snp'"))),
        case(BLOCK_ELEMENT, ""),
    ],
    "domain.snp.id-policy": [
        case(base64_of(BLOCK), base64_of(id_block(0x120000))),
        case(POLICY_ELEMENT, "<policy>0x120000</policy>",
             beside=frozenset({"domain.policy.demands"})),
    ],
    "domain.snp.author-key": [
        case(base64_of(AUTHORED), base64_of(AUTH)),
        cases(((BLOCK_ELEMENT, ""), (AUTH_ELEMENT, ""))),
        case(TYPE, "type='sev-snp'", "W"),
        case(TYPE, "type='sev-snp' authorKey='no'", launch=LAUNCH, known={"launch": LAUNCH}),
    ],
    "domain.snp.vcek": [case(TYPE, f"{TYPE} vcek='no'", "I")],
    "domain.snp.differs": [
        case(base64_of(HOST_DATA), base64_of(HOST_DATA[::-1]), launch=LAUNCH,
             known={"launch": LAUNCH}),
        case(base64_of(HOST_DATA), f" {base64_of(HOST_DATA)}", launch=LAUNCH,
             known={"launch": LAUNCH}),
        cases(((BLOCK_ELEMENT, ""), (AUTH_ELEMENT, "")), launch=LAUNCH, known={"launch": LAUNCH}),
        case(base64_of(BLOCK), base64_of(id_block(0x120000)), launch=LAUNCH,
             known={"launch": LAUNCH}),
        case("acpi", "acpi", launch=SnpLaunch(kernel_hashes=True),
             known={"launch": SnpLaunch(kernel_hashes=True)}),
    ],
}  # fmt: skip


def params(*, ready: bool) -> list[Any]:
    """Return every case; with ``ready``, those that prepare leaves without an error."""
    return [
        pytest.param(name, one, id=f"{name}-{number}")
        for name, listed in SNP_CASES.items()
        for number, one in enumerate(listed)
        if not (ready and one.prepare(everything=True).errors)
    ]


SNP_EVERY = params(ready=False)


def test_every_rule_has_a_case() -> None:
    assert CASES.keys() | SNP_CASES.keys() == RULES.keys()


def test_every_rule_that_says_so_mends() -> None:
    mending = {
        name
        for name, broken in (
            (name, broken)
            for table in (CASES, SNP_CASES)
            for name, listed in table.items()
            for broken in listed
        )
        if any(one.id == name for one in broken.prepare(everything=True).mended)
    }
    assert mending == {rule.id for rule in RULES.values() if rule.mends}


def test_the_clean_domain_has_no_finding() -> None:
    known: dict[str, Any] = {
        "firmware": Firmware.read(ovmf_image(8192, sections=[(0x810000, 0x1000, 0x10)])),
        "capabilities": capabilities(),
        "launch": LAUNCH,
    }
    domain = parse_domain(SNP_CLEAN.encode())
    assert apply_rules(Subject(domain=domain, versions=SNP_HOST)) == []
    assert apply_rules(Subject(domain=domain, versions=SNP_HOST, **known)) == []


@pytest.mark.parametrize(("name", "broken"), SNP_EVERY)
def test_what_breaks_one_rule_is_named_by_its_id(name: str, broken: SnpCase) -> None:
    findings = broken.find()
    assert {finding.id for finding in findings} == {name} | broken.beside
    for finding in (one for one in findings if one.id == name):
        assert finding.severity is broken.severity
        assert not finding.mendable or RULES[name].mends
        assert finding.fix


@pytest.mark.parametrize(("name", "broken"), SNP_EVERY)
def test_what_can_be_mended_is_mended_once_and_nothing_else_is(name: str, broken: SnpCase) -> None:
    prepared = broken.prepare(everything=True)
    assert {one.id for one in prepared.remaining if one.mendable} == set()
    again = replace(broken, edits=((SNP_CLEAN, prepared.xml.decode()),)).prepare(everything=True)
    assert (again.xml, again.mended) == (prepared.xml, ())
    unasked = broken.prepare()
    for finding in unasked.mended:
        assert finding.severity is Severity.ERROR or finding.id in NEEDED
    assert not any(finding.mendable for finding in unasked.errors)


def test_what_is_said_names_sev_snp_and_no_session() -> None:
    for name, listed in SNP_CASES.items():
        for broken in listed:
            for finding in broken.find():
                words = f"{finding.message} {finding.fix}"
                assert "SEV-ES guest" not in words.replace("or SEV-ES guest", ""), name
                assert name == "domain.launch-security.missing" or "session" not in words.replace(
                    "<session>", ""
                ), name


def test_a_prepared_domain_keeps_its_layout_and_has_what_was_given() -> None:
    bare = SNP_CLEAN.replace(ELEMENT, "  <launchSecurity type='sev-snp'>\n  </launchSecurity>\n")
    bare = bare.replace(SNP_LOADER, SNP_LOADER.replace("'rom'", "'pflash' readonly='yes'"))
    subject = Subject(domain=parse_domain(bare.encode()), versions=SNP_HOST)
    prepared = prepare(subject, LAUNCH)
    assert prepared.remaining == ()
    ready = "type='rom' readonly='yes' stateless='yes'"
    text = prepared.xml.decode().replace(ready, "type='rom' stateless='yes'")
    domain = parse_domain(text.encode())
    assert domain.policy == POLICY
    for name, data in LAUNCH.blobs.items():
        assert domain.place(f"launchSecurity/{name}").text == base64_of(data)
    assert domain.snp is not None
    assert domain.snp.get("authorKey") == "yes"
    before, after = (one[: one.index("  <launchSecurity")] for one in (SNP_CLEAN, text))
    assert before == after


def test_a_domain_without_the_element_gets_it() -> None:
    bare = SNP_CLEAN.replace(ELEMENT, "")
    subject = Subject(domain=parse_domain(bare.encode()), versions=SNP_HOST)
    assert prepare(subject, LAUNCH).xml.decode() == SNP_CLEAN
    assert prepare(subject, replace(LAUNCH, policy=None)).xml.decode() == SNP_CLEAN
    plain = prepare(subject, SnpLaunch(policy=0x30000, kernel_hashes=True))
    assert "  <launchSecurity type='sev-snp' kernelHashes='yes'>\n" in plain.xml.decode()
    assert [one.id for one in plain.errors] == ["domain.kernel-hashes.unused"]
    unknown = prepare(subject, SnpLaunch(host_data=HOST_DATA))
    assert [one.id for one in unknown.errors] == ["domain.launch-security.missing"]


def test_without_an_author_key_it_is_not_asked_for() -> None:
    subject = Subject(domain=parse_domain(SNP_CLEAN.encode()), versions=SNP_HOST)
    prepared = prepare(subject, replace(LAUNCH, id_auth=AUTH))
    expected = SNP_CLEAN.replace(base64_of(AUTHORED), base64_of(AUTH))
    assert prepared.xml.decode() == expected.replace(TYPE, "type='sev-snp'")


def test_a_session_is_for_sev_and_an_id_block_for_sev_snp() -> None:
    snp = Subject(domain=parse_domain(SNP_CLEAN.encode()))
    with pytest.raises(Unsupported, match="this is an SEV-SNP guest") as refused:
        prepare(snp, SESSION)
    assert refused.value.check == "domain.snp"
    with pytest.raises(Unsupported, match="this is a guest of SEV or SEV-ES") as refused:
        prepare(Subject(domain=parse_domain(CLEAN.encode())), LAUNCH)
    assert refused.value.check == "domain.sev"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"id_block": BLOCK}, "ID block: ID block and ID authentication come together"),
        ({"id_auth": AUTH}, "come together"),
        ({"id_block": BLOCK[1:], "id_auth": AUTH}, "idBlock: 95 bytes, expected 96"),
        ({"host_data": bytes(31)}, "hostData: 31 bytes, expected 32"),
        ({"policy": 0x10000}, "policy 0x10000: bits 0x20000 are reserved"),
        ({"policy": 0x4020000}, "policy 0x4020000: bits 0x4000000 are reserved"),
        ({"policy": 0x30000, "id_block": BLOCK, "id_auth": AUTH},
         "it approves policy 0x20000, not 0x30000"),
    ],
)  # fmt: skip
def test_what_the_firmware_would_refuse_is_not_put_in(parts: Any, words: str) -> None:
    with pytest.raises((MalformedInput, Unsupported), match=words):
        SnpLaunch(**parts)


def test_a_policy_of_sev_snp_has_64_bits() -> None:
    assert read_policy("0xffffffffffffffff", snp=True) == 0xFFFF_FFFF_FFFF_FFFF
    assert read_policy("0x00000000000000030000", snp=True) == 0x30000
    assert read_policy("0x10000000000000000", snp=True) is None
    assert read_policy("0x100000000") is None


@pytest.mark.parametrize("name", ["idBlock", "idAuth", "hostData", "guestVisibleWorkarounds"])
def test_of_two_nobody_says_which_counts(name: str) -> None:
    twice = f"<{name}/><{name}/>"
    with pytest.raises(MalformedInput, match=f"<{name}> is there twice"):
        parse_domain(SNP_CLEAN.replace(POLICY_ELEMENT, POLICY_ELEMENT + twice * 2).encode())


@pytest.mark.parametrize("name", ["virtee", "sev-snp-measure", "lit"])
def test_real_id_blocks_are_read(real: Path, name: str) -> None:
    folder = real / "snp" / "id"
    block, auth = ((folder / f"{name}.{kind}.bin").read_bytes() for kind in ("block", "auth"))
    assert (id_block_policy(block), has_author_key(auth)) == (0x30000, True)
    launch = SnpLaunch(id_block=block, id_auth=auth)
    bare = SNP_CLEAN.replace(ELEMENT, "")
    subject = Subject(domain=parse_domain(bare.encode()), versions=SNP_HOST)
    prepared = prepare(subject, launch)
    assert prepared.errors == ()
    assert parse_domain(prepared.xml).policy == 0x30000


@given(st.data())
def test_whatever_is_changed_only_our_errors_come_out(data: st.DataObject) -> None:
    element = SNP_CLEAN.index("  <launchSecurity")
    text = bytearray(SNP_CLEAN.replace(base64_of(AUTHORED), base64_of(AUTHORED)[:40]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(element, len(text) - 1))
        cut = data.draw(st.integers(0, 12))
        text[at : at + cut] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"<a/>", b"9" * 5000, b"sev-snp", b" "])
        )
    try:
        subject = Subject(domain=parse_domain(bytes(text)))
        apply_rules(subject)
        prepared = prepare(subject, LAUNCH, everything=True)
    except (MalformedInput, Unsupported):
        return
    assert not any(finding.mendable for finding in prepared.remaining)
    again = prepare(Subject(domain=parse_domain(prepared.xml)), LAUNCH, everything=True)
    assert again.xml == prepared.xml
