"""Domain XML: every rule is broken by one XML and named by its id alone; what is mended stays."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import Insecure, MalformedInput, Unsupported, sev
from sev_attest.domain_xml import xml
from sev_attest.domain_xml.capabilities import SevCapabilities
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.prepare import NEEDED, Prepared, SessionFiles, prepare
from sev_attest.domain_xml.rule import Finding, Severity, Subject
from sev_attest.domain_xml.rules import RULES, apply_rules, tally
from sev_attest.domain_xml.versions import Versions, before, read_version
from sev_attest.guest import Firmware
from sev_attest.owner import LaunchRecord
from sev_attest.testing import ovmf_image

GODH, BLOB = bytes(range(256)) * 8 + bytes(36), bytes(range(128))
GODH_B64, BLOB_B64 = (base64.b64encode(data).decode() for data in (GODH, BLOB))
OTHER_GODH, OTHER_BLOB = (base64.b64encode(data[::-1]).decode() for data in (GODH, BLOB))
RECORD = LaunchRecord(
    name="vm1",
    created="2026-01-01T00:00:00+00:00",
    root="AMD Milan",
    generation=sev.Generation.MILAN,
    claimed_platform_id=None,
    cek=None,
    pdh="0" * 64,
    policy=7,
    kernel_hashes=False,
    session_id="0" * 64,
    godh_sha256=hashlib.sha256(GODH).hexdigest(),
    session_sha256=hashlib.sha256(BLOB).hexdigest(),
    mac="0" * 64,
)
WITH_HASHES = replace(RECORD, kernel_hashes=True)
SESSION = SessionFiles(record=RECORD, godh=GODH, blob=BLOB)
DEBIAN_12 = Versions(libvirt=(9, 0), qemu=(7, 2), guest_kernel=(6, 1))
CURRENT = Versions(libvirt=(11, 3), qemu=(10, 0), guest_kernel=(6, 12))
CURRENT_12 = CURRENT._replace(libvirt=(12, 8))
OLD = Versions(libvirt=(9, 0), qemu=(5, 2), guest_kernel=(6, 1))
UNKNOWN = Versions()

CLEAN = f"""\
<domain type='kvm'>
  <name>vm1</name>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>4194304</currentMemory>
  <memtune>
    <hard_limit unit='KiB'>4456448</hard_limit>
  </memtune>
  <vcpu placement='static'>4</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash' stateless='yes'>/srv/OVMF.amdsev.fd</loader>
    <!-- the kernel goes here -->
  </os>
  <sysinfo type='smbios'>
    <bios>
      <entry name='vendor'>somebody</entry>
    </bios>
  </sysinfo>
  <features>
    <acpi/>
    <vmport state='off'/>
  </features>
  <cpu mode='custom' match='exact'>
    <model fallback='forbid'>EPYC-Milan</model>
  </cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <pm>
    <suspend-to-mem enabled='no'/>
    <suspend-to-disk enabled='no'/>
  </pm>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/srv/vm1.qcow2'/>
      <target dev='sda' bus='scsi'/>
      <boot order='1'/>
    </disk>
    <controller type='scsi' index='0' model='virtio-scsi'>
      <driver iommu='on'/>
    </controller>
    <controller type='virtio-serial' index='0'>
      <driver iommu='on'/>
    </controller>
    <interface type='network'>
      <source network='default'/>
      <model type='virtio'/>
      <driver iommu='on'/>
      <rom enabled='no'/>
    </interface>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <video>
      <model type='none'/>
    </video>
    <memballoon model='virtio'>
      <driver iommu='on'/>
    </memballoon>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
      <driver iommu='on'/>
    </rng>
  </devices>
  <launchSecurity type='sev'>
    <policy>0x0007</policy>
    <dhCert>{GODH_B64}</dhCert>
    <session>{BLOB_B64}</session>
  </launchSecurity>
</domain>
"""
LOADER = "<loader readonly='yes' type='pflash' stateless='yes'>/srv/OVMF.amdsev.fd</loader>"
HOLE = "<!-- the kernel goes here -->"
KERNEL = "<kernel>/srv/vmlinuz</kernel>"
HASHES = ("type='sev'", "type='sev' kernelHashes='yes'")
SCSI_DISK = "<target dev='sda' bus='scsi'/>"
MODEL = (
    "<cpu mode='custom' match='exact'>\n    <model fallback='forbid'>EPYC-Milan</model>\n  </cpu>"
)
POLICY = "<policy>0x0007</policy>"
BALLOON = "    <memballoon model='virtio'>\n      <driver iommu='on'/>\n    </memballoon>\n"
SERIAL = """\
    <controller type='virtio-serial' index='0'>
      <driver iommu='on'/>
    </controller>
"""
MEMTUNE = """\
  <memtune>
    <hard_limit unit='KiB'>4456448</hard_limit>
  </memtune>
"""
BACKEND = "      <backend model='random'>/dev/urandom</backend>\n"
SECURE_FEATURE = "<firmware><feature enabled='yes' name='secure-boot'/></firmware>"
SECURE_BOOT = f"<loader stateless='yes'/>{SECURE_FEATURE}"
EFI = ("<os>", "<os firmware='efi'>")
CHOSEN = frozenset({"domain.loader.chosen"})
UNMEASURED = frozenset({"domain.unmeasured"})
SLIC = "<table type='slic'>/srv/slic.dat</table>"
RAW = "<table type='raw'>/srv/raw.dat</table>"
FW_CFG = "  <sysinfo type='fwcfg'><entry name='opt/x'>y</entry></sysinfo>\n  <os>"
FIVE = "\N{ARABIC-INDIC DIGIT FIVE}"
I440FX = (
    ("pc-q35-7.2", "pc-i440fx-7.2"),
    ("model='virtio-scsi'", "model='virtio-non-transitional'"),
    ("'virtio-serial' index", "'virtio-serial' model='virtio-non-transitional' index"),
    ("model type='virtio'", "model type='virtio-non-transitional'"),
    ("memballoon model='virtio'", "memballoon model='virtio-non-transitional'"),
    ("rng model='virtio'", "rng model='virtio-non-transitional'"),
)
HOST = {"supported": "yes", "cbitpos": 51, "maxGuests": 509, "maxESGuests": 99}


def domcapabilities(**sev_facts: object) -> bytes:
    """Write what `virsh domcapabilities` prints."""
    facts = HOST | sev_facts
    supported = facts.pop("supported")
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in facts.items())
    sev_element = f"<sev supported='{supported}'>{inner}</sev>" if supported else ""
    return f"""<domainCapabilities>
  <path>/usr/bin/qemu-system-x86_64</path>
  <domain>kvm</domain>
  <machine>pc-q35-7.2</machine>
  <os supported='yes'>
    <enum name='firmware'><value>efi</value></enum>
    <loader supported='yes'>
      <enum name='type'><value>rom</value><value>pflash</value></enum>
    </loader>
  </os>
  <features>
    {sev_element}
    <launchSecurity supported='yes'>
      <enum name='sectype'><value>sev</value><value>sev-snp</value></enum>
    </launchSecurity>
  </features>
</domainCapabilities>
""".encode()


def capabilities(**sev_facts: object) -> SevCapabilities:
    return SevCapabilities.from_bytes(domcapabilities(**sev_facts))


def subject_of(text: str, versions: Versions = UNKNOWN, **known: Any) -> Subject:
    return Subject(domain=parse_domain(text.encode()), versions=versions, **known)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The clean XML with some text replaced, and what is then found."""

    edits: tuple[tuple[str, str], ...]
    severity: Severity = Severity.ERROR
    versions: Versions = DEBIAN_12
    known: Mapping[str, Any] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()
    """Other rules that cannot but be broken with it."""
    valid: bool = True
    """Whether libvirt (9.0) takes it, once it is mended."""
    clean: str = CLEAN

    @property
    def text(self) -> str:
        text = self.clean
        for old, new in self.edits:
            assert old in text, old
            text = text.replace(old, new)
        return text

    def find(self) -> list[Finding]:
        return apply_rules(self.subject)

    @property
    def subject(self) -> Subject:
        return subject_of(self.text, self.versions, **self.known)

    def prepare(self, **options: Any) -> Prepared:
        record = self.known.get("record", RECORD)
        return prepare(self.subject, replace(SESSION, record=record), **options)


def case(old: str, new: str, severity: str = "E", **more: Any) -> Case:
    return Case(edits=((old, new),), severity=Severity(severity), **more)


def cases(edits: tuple[tuple[str, str], ...], severity: str = "E", **more: Any) -> Case:
    return Case(edits=edits, severity=Severity(severity), **more)


CASES: dict[str, list[Case]] = {
    "domain.type": [
        case("domain type='kvm'", "domain type='qemu'"),
        case("domain type='kvm'", "domain", valid=False),
    ],
    "domain.arch": [
        case("arch='x86_64'", "arch='aarch64'"),
        case(">hvm<", ">exe<", valid=False),
        case(">hvm<", ">hvm\n<", valid=False),
        case("    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\n", "", valid=False,
             beside=frozenset({"domain.machine.i440fx", "domain.virtio.model"})),
    ],
    "domain.machine.i440fx": [cases(I440FX, "W")],
    "domain.machine.unknown": [case("pc-q35-7.2", "microvm", "W")],
    "domain.virtio.model": [
        case("model type='virtio'", "model type='virtio-transitional'"),
        case("rng model='virtio'", "rng model='virtio-transitional'"),
        cases(I440FX[:-1], "W", beside=frozenset({"domain.machine.i440fx"})),
        cases(I440FX[:-1], "E", versions=OLD, beside=frozenset({"domain.machine.i440fx"})),
    ],
    "domain.virtio.gpu": [
        cases((*I440FX, ("<model type='none'/>", "<model type='virtio'/>")),
              beside=frozenset({"domain.machine.i440fx"})),
    ],
    "domain.acpi": [
        case("<acpi/>", ""),
        case("<acpi/>", "<!-- no acpi --><pae/>"),
        case("  <features>\n    <acpi/>\n    <vmport state='off'/>\n  </features>\n", ""),
        cases((("<acpi/>", ""), (LOADER, "<loader stateless='yes'/>"), EFI), beside=CHOSEN),
        cases((("<acpi/>", ""), ("'pflash'", "'rom'")), "W"),
    ],
    "domain.acpi.table": [
        case(HOLE, "<acpi><table>/srv/a</table></acpi>", beside=UNMEASURED, valid=False),
        case(HOLE, "<acpi><table type='raw'>/srv/a</table></acpi>", beside=UNMEASURED, valid=False),
        case(HOLE, "<acpi><table type='rawset'>/srv/a</table></acpi>", beside=UNMEASURED,
             versions=CURRENT, valid=False),
        case(HOLE, f"<acpi>{SLIC}{SLIC}</acpi>", beside=UNMEASURED, valid=False),
    ],
    "domain.loader.missing": [
        case(LOADER, ""),
        case(LOADER, "<loader/>"),
        case(LOADER, "<loader readonly='yes' type='pflash'/>"),
        case(LOADER, "<!-- none -->"),
        cases(((LOADER, ""), ("<os>", "<os type='efi'>"))),
        cases(((LOADER, ""), ("<os>", "<os firmware='bios'>"))),
    ],
    "domain.loader.nvram": [
        case(LOADER, LOADER + "\n    <nvram>/srv/vm1_VARS.fd</nvram>"),
        case(LOADER, LOADER.replace(" stateless='yes'", "")
             + "\n    <nvram template='/srv/VARS.fd'/>"),
        case(LOADER, LOADER + "<varstore path='/srv/vars.json'/>"),
        cases(((LOADER, "<nvram>/srv/vm1_VARS.fd</nvram>"), EFI), beside=CHOSEN),
    ],
    "domain.loader.stateless": [
        case(" stateless='yes'", ""),
        case(" stateless='yes'", " stateless='no'"),
        cases((("'pflash'", "'rom'"), (" stateless='yes'", " stateless='no'"))),
        case(" type='pflash' stateless='yes'", " stateless='no'"),
        cases(((LOADER, "<loader stateless='no'/>"), EFI), beside=CHOSEN),
        cases(((LOADER, LOADER.replace(" stateless='yes'", "")), EFI), versions=CURRENT,
              beside=CHOSEN),
        case(" type='pflash' stateless='yes'", "", "W"),
        cases(((LOADER, ""), EFI), "W", beside=CHOSEN),
        cases(((LOADER, "<loader></loader>"), EFI), "W", beside=CHOSEN),
    ],
    "domain.loader.readonly": [
        case("readonly='yes' type='pflash' stateless='yes'", "type='pflash'"),
        case("readonly='yes'", "readonly='no'"),
        case("readonly='yes' ", ""),
        case("readonly='yes' type='pflash' stateless='yes'", "type='pflash' readonly='no'"),
        case("readonly='yes' type='pflash' stateless='yes'",
             "type='pflash' readonly='no' stateless='no'",
             beside=frozenset({"domain.loader.stateless"})),
        case("readonly='yes' type='pflash' stateless='yes'>/srv/OVMF.amdsev.fd</loader>",
             "type='pflash'>/srv/OVMF.amdsev.fd</loader><nvram>/srv/VARS.fd</nvram>",
             beside=frozenset({"domain.loader.nvram"})),
        case("readonly='yes' type='pflash'", "readonly='no' type='rom'", versions=CURRENT_12),
        case("readonly='yes' type='pflash'", "readonly='no'", versions=CURRENT_12),
    ],
    "domain.loader.feature": [
        case(HOLE, "<firmware><feature enabled='no' name='secure-boot'/></firmware>"),
        case(HOLE, "<firmware><feature enabled='no' name='enrolled-keys'/></firmware>",
             versions=CURRENT),
        cases(((HOLE, "<firmware><feature enabled='no' name='secure-boot'/></firmware>"),
               ("readonly='yes' type='pflash' stateless='yes'", "type='rom'")), "W",
              versions=DEBIAN_12._replace(libvirt=(8, 5))),
    ],
    "domain.loader.choice": [
        cases((EFI,)),
        cases((EFI,), "I", versions=CURRENT._replace(libvirt=None),
              beside=CHOSEN | {"domain.libvirt"}),
        cases((("<os>", "<os firmware='bios'>"),), versions=CURRENT),
        cases(((LOADER, "<loader stateless='yes' type='rom'/>"), EFI), "I",
              versions=CURRENT._replace(libvirt=None), beside=CHOSEN | {"domain.libvirt"}),
        cases(((LOADER, "<loader stateless='yes' readonly='no'/>"), EFI), versions=CURRENT,
              beside=CHOSEN),
        cases(((LOADER, "<loader stateless='yes' readonly='no'/>"), EFI),
              versions=CURRENT._replace(libvirt=None), beside=CHOSEN | {"domain.libvirt"}),
        cases(((LOADER, "<loader stateless='yes' secure='no'/>"), EFI), beside=CHOSEN),
        cases(((LOADER, "<loader stateless='yes'> </loader>"), ("<os>", "<os firmware='bios'>"))),
        cases(((LOADER, f"{SECURE_FEATURE}{LOADER}"), EFI),
              beside=frozenset({"domain.loader.secure"})),
        cases(((LOADER, "<loader stateless='yes' type='rom' readonly='no'/>"), EFI),
              beside=CHOSEN),
        cases(((LOADER, "<loader stateless='yes' readonly='yes'></loader>"), EFI),
              beside=CHOSEN),
    ],
    "domain.loader.chosen": [
        cases(((LOADER, "<loader stateless='yes'/>"), EFI), "W"),
        cases(((LOADER, "<loader stateless='yes'/>"), EFI, ("0x0007", "0x0003")), "W",
              beside=frozenset({"domain.policy.es"})),
        cases((EFI,), "W", versions=CURRENT),
    ],
    "domain.loader.smm": [
        case("OVMF.amdsev.fd", "OVMF_CODE_4M.ms.fd", "W"),
        case("OVMF.amdsev.fd", "OVMF_CODE.secboot.fd", "W"),
        case("OVMF.amdsev.fd", "OVMF_CODE_4M.Secure.fd", "W"),
        case("OVMF.amdsev.fd", "edk2-x86_64-secure-code.fd", "W"),
    ],
    "domain.loader.secure": [
        case("type='pflash'", "type='pflash' secure='yes'"),
        cases(((LOADER, SECURE_BOOT), EFI), beside=CHOSEN),
        cases(((LOADER, "<loader stateless='yes' secure='yes'/>"), EFI), beside=CHOSEN),
        cases((("type='pflash'", "type='pflash' secure='yes'"), ("0x0007", "0x0003")),
              beside=frozenset({"domain.policy.es"})),
    ],
    "domain.smm": [
        case("<acpi/>", "<acpi/><smm state='on'/>"),
        case("<acpi/>", "<acpi/><smm/>"),
        cases((("<acpi/>", "<acpi/><smm/>"), ("0x0007", "0x0003")), "W",
              beside=frozenset({"domain.policy.es"})),
    ],
    "domain.kernel-hashes.missing": [
        case(HOLE, KERNEL),
        cases(((HOLE, KERNEL), ("type='sev'", "type='sev' kernelHashes='no'"))),
        case(HOLE, "<kernel> </kernel>", valid=False),
    ],
    "domain.kernel-hashes.unused": [
        cases((HASHES,)),
        cases((HASHES, (HOLE, "<kernel></kernel>")), valid=False),
        cases((HASHES,), known={"record": WITH_HASHES}),
    ],
    "domain.kernel-hashes.differs": [
        case("acpi", "acpi", known={"record": WITH_HASHES}),
        cases((HASHES, (HOLE, KERNEL)), "I", known={"record": RECORD}),
    ],
    "domain.kernel.shim": [
        cases((HASHES, (HOLE, f"{KERNEL}<shim>/srv/shim.efi</shim>")), "W", versions=CURRENT,
              valid=False),
        case(HOLE, "<shim>/srv/shim.efi</shim>", versions=CURRENT),
    ],
    "domain.kernel.dtb": [
        cases((HASHES, (HOLE, f"{KERNEL}<dtb>/srv/x.dtb</dtb>")), "W"),
    ],
    "domain.kernel.rng-seed": [
        cases((HASHES, (HOLE, KERNEL)), versions=DEBIAN_12._replace(qemu=(7, 2, 0))),
        cases((HASHES, (HOLE, KERNEL), ("pc-q35-7.2", "q35")),
              versions=DEBIAN_12._replace(qemu=(7, 2, 0))),
    ],
    "domain.firmware.hash-area": [
        cases((HASHES, (HOLE, KERNEL)),
              known={"firmware": Firmware.read(ovmf_image(8192, hash_table=None))}),
    ],
    "domain.firmware.es": [
        case("acpi", "acpi",
             known={"firmware": Firmware.read(ovmf_image(8192, reset_address=None))}),
        case("acpi", "acpi",
             known={"firmware": Firmware.read(ovmf_image(8192, reset_address=0))}),
    ],
    "domain.firmware.kind": [
        case("acpi", "acpi", known={"firmware": Firmware.read(bytes(8192))},
             beside=frozenset({"domain.firmware.es"})),
        case("acpi", "acpi", known={"firmware": Firmware.read(b"IGVM" + bytes(508))}),
    ],
    "domain.unmeasured": [
        case(HOLE, f"<acpi>{SLIC}</acpi>", "I"),
        case(HOLE, f"<acpi>{SLIC}{RAW}{RAW}</acpi>", "I", versions=CURRENT, valid=False),
        case("  <os>", FW_CFG, "I"),
    ],
    "domain.qemu-commandline": [
        cases((("<domain type='kvm'>",
                "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"),
               ("</domain>", "  <q:commandline><q:arg value='-s'/></q:commandline>\n</domain>")),
              "W"),
    ],
    "domain.memory.locked": [
        case(MEMTUNE, ""),
        case(MEMTUNE,
             "  <memoryBacking><nosharepages/></memoryBacking>\n"),
    ],
    "domain.memory.hard-limit": [
        case("<hard_limit unit='KiB'>4456448", "<hard_limit unit='KiB'>4456447", "W"),
        case("<hard_limit unit='KiB'>4456448", "<hard_limit unit='MiB'>4096", "W"),
        case("<hard_limit unit='KiB'>4456448", "<hard_limit>4456447", "W"),
    ],
    "domain.memory.unlimited": [
        case(MEMTUNE,
             "  <memoryBacking><locked/></memoryBacking>\n", "I"),
    ],
    "domain.memory.hotplug": [
        case("  <memtune>", "  <maxMemory slots='4' unit='GiB'>8</maxMemory>\n  <memtune>", "W"),
        case("    <video>", "    <memory model='dimm'><target><size>1</size><node>0</node></target>"
             "</memory>\n    <video>", "W", valid=False),  # it needs NUMA nodes
    ],
    "domain.cpu.mode": [
        case(MODEL, "<cpu mode='host-model'/>", "W"),
        case(MODEL, "<cpu mode='host-passthrough'/>", "W"),
        case(MODEL, "<cpu><topology sockets='1' cores='4' threads='1'/></cpu>", "W"),
        case(MODEL, "", "W"),
    ],
    "domain.cpu.model": [case("EPYC-Milan", "Skylake-Server", "W")],
    "domain.vcpu.hotplug": [
        case("<vcpu placement='static'>", "<vcpu placement='static' current='2'>"),
        case("  <os>", "  <vcpus><vcpu id='0' enabled='yes'/><vcpu id='1' enabled='no' "
             "hotpluggable='yes'/></vcpus>\n  <os>"),
    ],
    "domain.vcpu.limit": [
        case("'static'>4<", "'static'>289<"),
        case("'static'>4<", "'static'>0<", valid=False),
        cases((("'static'>4<", "'static'>1025<"), ("pc-q35-7.2", "pc-q35-8.2"))),
        cases((("'static'>4<", "'static'>4097<"), ("pc-q35-7.2", "q35")), versions=UNKNOWN,
              beside=frozenset({"domain.libvirt"})),
        cases((*I440FX, ("'static'>4<", "'static'>256<")),
              beside=frozenset({"domain.machine.i440fx"})),
    ],
    "domain.virtio.iommu": [
        case("<model type='virtio'/>\n      <driver iommu='on'/>", "<model type='virtio'/>",
             versions=OLD),
        case("iommu='on'/>\n      <rom", "iommu='off'/>\n      <rom"),
        case("iommu='on'/>\n      <rom", "/>\n      <rom", versions=OLD),
        case(BALLOON, "", versions=OLD),
        case(SERIAL, "", versions=OLD),
        case(BALLOON, "    <memballoon model='virtio'/>\n", versions=OLD),
        case("    <video>", "    <vsock model='virtio'/><input type='tablet' bus='virtio'/>\n"
             "    <video>", versions=OLD),
        case("<video>\n      <model type='none'/>", "<video>\n      <model type='virtio'/>",
             versions=OLD),
        case("    <video>", "    <filesystem><source dir='/a'/><target dir='b'/></filesystem>"
             "<disk><driver name='qemu'/><source file='/b'/><target dev='vda'/></disk><video>",
             versions=OLD),
        cases(((BALLOON, ""), *I440FX[:4], *I440FX[5:]), versions=OLD,
              beside=frozenset({"domain.machine.i440fx"})),
    ],
    "domain.virtio.rom": [
        case("      <rom enabled='no'/>\n", "", "W"),
        case("<rom enabled='no'/>", "<rom file='/srv/ipxe.rom'/>", "W"),
    ],
    "domain.disk.virtio-blk": [
        case(SCSI_DISK, "<target dev='vda' bus='virtio'/>",
             versions=DEBIAN_12._replace(guest_kernel=(5, 0))),
        case(SCSI_DISK, "<target dev='vda'/>", "I", versions=DEBIAN_12._replace(guest_kernel=None)),
        cases(((SCSI_DISK, "<target dev='vda' bus='virtio'/>"), ("      <boot order='1'/>\n", "")),
              versions=DEBIAN_12._replace(guest_kernel=(4, 19, 3))),
    ],
    "domain.rng.backend": [
        case(BACKEND, ""),
    ],
    "domain.hostdev": [
        case("    <video>", "    <hostdev mode='subsystem' type='pci'><source><address domain='0' "
             "bus='0' slot='2' function='0'/></source></hostdev>\n    <video>", "W"),
        case("    <video>", "    <interface type='hostdev'><source><address type='pci' domain='0' "
             "bus='0' slot='2' function='0'/></source></interface>\n    <video>", "W"),
    ],
    "domain.reboot": [
        case("<on_reboot>destroy", "<on_reboot>restart", "W"),
        case("  <on_reboot>destroy</on_reboot>\n", "", "W"),
    ],
    "domain.power": [
        case("suspend-to-mem enabled='no'", "suspend-to-mem enabled='yes'", "I"),
        case("suspend-to-disk enabled='no'", "suspend-to-disk enabled='yes'", "I"),
        case("vmport state='off'", "vmport state='on'", "I"),
    ],
    "domain.launch-security.missing": [
        case(CLEAN[CLEAN.index("  <launchSecurity") : CLEAN.index("</domain>")], ""),
    ],
    "domain.launch-security.type": [
        case("launchSecurity type='sev'", "launchSecurity type='tdx'", valid=False),
        case("launchSecurity type='sev'", "launchSecurity", valid=False),
    ],
    "domain.launch-security.foreign": [
        case(POLICY, f"{POLICY}<hostData>AAAA</hostData>"),
        cases((("type='sev'", "type='sev' vcek='no' authorKey='yes'"),)),
    ],
    "domain.launch-security.handle": [case(POLICY, f"{POLICY}<handle>0</handle>", "W")],
    "domain.launch-security.cbitpos": [
        case(POLICY, f"{POLICY}<cbitpos>51</cbitpos>", "I"),
        case(POLICY, f"{POLICY}<cbitpos>many</cbitpos>"),
        case(POLICY, f"{POLICY}<cbitpos>47</cbitpos>", known={"capabilities": capabilities()}),
    ],
    "domain.launch-security.reduced-phys-bits": [
        case(POLICY, f"{POLICY}<reducedPhysBits>0</reducedPhysBits>"),
        case(POLICY, f"{POLICY}<reducedPhysBits>64</reducedPhysBits>"),
        case(POLICY, f"{POLICY}<reducedPhysBits/>"),
        case(POLICY, f"{POLICY}<reducedPhysBits>1 </reducedPhysBits>"),
    ],
    "domain.policy.missing": [
        case(f"    {POLICY}\n", "", known={"record": RECORD}),
    ],
    "domain.policy.format": [
        case("0x0007", "0x0007 "),
        case("0x0007", ""),
        case("0x0007", "five", known={"record": RECORD}),
        case("0x0007", "0x100000007", known={"record": RECORD}),
    ],
    "domain.policy.decimal": [case("0x0007", "17", "W")],
    "domain.policy.debug": [case("0x0007", "0x0006")],
    "domain.policy.key-sharing": [case("0x0007", "0x0005", "W")],
    "domain.policy.es": [case("0x0007", "0x0003", "W")],
    "domain.policy.reserved": [case("0x0007", "0x0047")],
    "domain.policy.differs": [case("0x0007", "0x000f", known={"record": RECORD})],
    "domain.session.missing": [
        case(f"    <dhCert>{GODH_B64}</dhCert>\n", ""),
        case(f"    <session>{BLOB_B64}</session>\n", "<session/>\n"),
    ],
    "domain.session.base64": [
        case(GODH_B64, "not base64!"),
        case(BLOB_B64, BLOB_B64[:-1]),
    ],
    "domain.session.length": [
        case(GODH_B64, GODH_B64[4:]),
        case(BLOB_B64, BLOB_B64[4:]),
    ],
    "domain.session.swapped": [
        cases(((GODH_B64, "TMP"), (BLOB_B64, GODH_B64), ("TMP", BLOB_B64))),
        cases(((GODH_B64, "TMP"), (BLOB_B64, GODH_B64), ("TMP", BLOB_B64)),
              known={"record": RECORD}),
    ],
    "domain.session.differs": [
        case(GODH_B64, OTHER_GODH, known={"record": RECORD}),
        case(BLOB_B64, OTHER_BLOB, known={"record": RECORD}),
    ],
    "domain.session.reused": [
        case("acpi", "acpi", known={"used": {RECORD.session_sha256: "launched"}.get}),
    ],
    "domain.libvirt": [
        case("acpi", "acpi", "E", versions=DEBIAN_12._replace(libvirt=(8, 5))),
        case("type='pflash'", "type='pflash' format='qcow2'", valid=False),
        cases(((LOADER, ""), EFI), versions=DEBIAN_12._replace(libvirt=(5, 1, 1)),
              beside=CHOSEN | {"domain.loader.stateless"}),
        case("acpi", "acpi", "I", versions=DEBIAN_12._replace(libvirt=None)),
        cases((HASHES, (HOLE, KERNEL), (" stateless='yes'", ""), ("'pflash'", "'rom'")),
              versions=DEBIAN_12._replace(libvirt=(7, 10))),
        cases(((" stateless='yes'", ""), ("'pflash'", "'rom'"), *I440FX),
              versions=DEBIAN_12._replace(libvirt=(5, 1, 1)),
              beside=frozenset({"domain.machine.i440fx"})),
    ],
    "domain.libvirt.dev-sev": [
        cases(((" stateless='yes'", ""), ("'pflash'", "'rom'")), "I",
              versions=DEBIAN_12._replace(libvirt=(5, 1, 0))),
    ],
    "domain.qemu": [
        cases((HASHES, (HOLE, KERNEL)), versions=DEBIAN_12._replace(qemu=(6, 1))),
        case("iommu='on'/>\n      <rom", "/>\n      <rom", "I",
             versions=DEBIAN_12._replace(qemu=None)),
    ],
    "domain.host": [
        case("acpi", "acpi", known={"capabilities": capabilities(supported="no")}),
        case("acpi", "acpi", known={"capabilities": capabilities(maxESGuests=0)}),
        case("acpi", "acpi", known={"capabilities": capabilities(maxGuests=0, maxESGuests=0)}),
        case("0x0007", "0x0003", known={"capabilities": capabilities(maxGuests=0)},
             beside=frozenset({"domain.policy.es"})),
    ],
    "domain.value": [
        cases((("type='sev'", "type='sev' kernelHashes='true'"),), valid=False),
        case("readonly='yes'", "readonly='1'", beside=frozenset({"domain.loader.readonly"})),
        case("readonly='yes'", "readonly='yes' format='vmdk'", valid=False),
        cases(((LOADER, "<loader stateless='yes'/>"), (HOLE, "<firmware><feature/></firmware>"),
               EFI), beside=CHOSEN, valid=False),
        cases(((LOADER, "<loader stateless='yes'/>"), EFI,
               (HOLE, "<firmware><feature enabled='no' name='x'/></firmware>")),
              beside=CHOSEN, valid=False),
        case(HOLE, "<boot/>", valid=False),
        case(HOLE, "<boot dev='hda'/>", valid=False),
        case(HOLE, "<bootmenu enable='1'/>", valid=False),
        case("suspend-to-mem enabled='no'", "suspend-to-mem enabled='off'", valid=False),
        case("<memory unit='KiB'>", "<memory unit='pages'>", valid=False),
        case("<currentMemory unit='KiB'>4194304", "<currentMemory>4 GiB", valid=False),
        case("'static'>4<", "'static'>four<", valid=False),
        case("'static'>4<", "'static'> 4\n<", valid=False),
        case("<memory unit='KiB'>4194304", "<memory unit='KiB'>4194304 ", valid=False),
    ],
}  # fmt: skip
EVERY = [
    pytest.param(name, one, id=f"{name}-{number}")
    for name, listed in CASES.items()
    for number, one in enumerate(listed)
]


@pytest.mark.parametrize("versions", [DEBIAN_12, CURRENT], ids=["libvirt-9.0", "libvirt-11.3"])
def test_the_clean_domain_has_no_finding(versions: Versions) -> None:
    assert apply_rules(subject_of(CLEAN, versions)) == []
    known = {
        "record": RECORD,
        "firmware": Firmware.read(ovmf_image(8192)),
        "capabilities": capabilities(),
        "used": lambda _: None,
    }
    assert apply_rules(subject_of(CLEAN, versions, **known)) == []


@pytest.mark.parametrize(("name", "broken"), EVERY)
def test_what_breaks_one_rule_is_named_by_its_id(name: str, broken: Case) -> None:
    findings = broken.find()
    assert {finding.id for finding in findings} == {name} | broken.beside
    for finding in (one for one in findings if one.id == name):
        assert finding.severity is broken.severity
        assert finding.fix
        assert finding.source == RULES[name].source
        assert finding.path.startswith("/domain")
        line = broken.text.splitlines()[finding.line - 1]
        assert finding.path.rpartition("/")[2].partition("[")[0] in line
        assert not finding.mendable or RULES[name].mends


@pytest.mark.parametrize(("name", "broken"), EVERY)
def test_what_can_be_mended_is_mended_once_and_nothing_else_is(name: str, broken: Case) -> None:
    prepared = broken.prepare(everything=True)
    assert {one.id for one in prepared.remaining if one.mendable} == set()
    again = replace(broken, edits=((CLEAN, prepared.xml.decode()),)).prepare(everything=True)
    assert (again.xml, again.mended) == (prepared.xml, ())
    assert "\n  <name>vm1</name>\n" in prepared.xml.decode()


@pytest.mark.parametrize(("name", "broken"), EVERY)
def test_only_errors_and_what_is_needed_are_mended_unasked(name: str, broken: Case) -> None:
    prepared = broken.prepare()
    for finding in prepared.mended:
        assert finding.severity is Severity.ERROR or finding.id in NEEDED
    assert not any(finding.mendable for finding in prepared.errors)
    asked = broken.prepare(also=[name])
    assert not any(one.mendable for one in asked.remaining if one.id == name)


def test_what_takes_too_many_passes_is_left_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sev_attest.domain_xml.prepare._PASSES", 1)
    prepared = Case(
        edits=((f"    <dhCert>{GODH_B64}</dhCert>\n    <session>{BLOB_B64}</session>\n", ""),)
    ).prepare()
    assert [one.id for one in prepared.mended] == ["domain.session.missing"]
    assert [one.id for one in prepared.errors] == ["domain.session.missing"]


def test_a_domain_that_needs_nothing_stays_byte_for_byte() -> None:
    subject = subject_of(CLEAN, DEBIAN_12)
    assert prepare(subject, SESSION, everything=True).xml == CLEAN.encode()


def test_comments_quotes_blanks_and_other_namespaces_stay() -> None:
    text = (
        CLEAN.replace("'", '"')
        .replace("\n", "\r\n")
        .replace("<on_reboot>destroy", "<on_reboot>restart")
    )
    text = text.replace(' stateless="yes"', "").replace("<acpi/>", "<acpi/><!-- ü > & ' -->")
    text = "<?xml version='1.0' encoding='UTF-8'?>\r\n<!-- first -->\r\n" + text + "<!-- last -->"
    data = b"\xef\xbb\xbf" + text.encode()
    subject = Subject(domain=parse_domain(data), versions=DEBIAN_12)
    prepared = prepare(subject, SESSION, everything=True)
    expected = data.replace(b"<on_reboot>restart", b"<on_reboot>destroy")
    expected = expected.replace(b'type="pflash"', b'type="pflash" stateless="yes"')
    assert prepared.xml == expected
    assert [one.id for one in prepared.mended] == ["domain.loader.stateless", "domain.reboot"]


def test_layout_is_kept_where_elements_come_and_go() -> None:
    text = (
        CLEAN.replace(" stateless='yes'", "")
        .replace(HOLE, "<nvram>/srv/VARS.fd</nvram>")
        .replace(BACKEND, "")
        .replace("      <rom enabled='no'/>\n", "")
    )
    subject = subject_of(text, DEBIAN_12)
    mended = prepare(subject, SESSION, everything=True).xml.decode()
    assert f"    {LOADER}\n  </os>\n" in mended
    assert "      <driver iommu='on'/>\n      <rom enabled='no'/>\n    </interface>" in mended
    assert f"      <driver iommu='on'/>\n{BACKEND}    </rng>" in mended


@pytest.mark.parametrize(
    "empty",
    ["<domain type='kvm'/>", "<domain type='kvm'></domain>", "<domain>\n  <os/>\n</domain>"],
)
def test_even_an_empty_domain_is_taken_as_far_as_it_can_be(empty: str) -> None:
    subject = subject_of(empty, DEBIAN_12)
    prepared = prepare(subject, SESSION, everything=True)
    left = {finding.id for finding in prepared.errors}
    assert left <= {"domain.arch", "domain.type"}
    domain = parse_domain(prepared.xml)
    assert domain.policy == 7
    assert domain.place("launchSecurity/session").text == BLOB_B64
    assert "\n  <memoryBacking>\n    <locked/>\n  </memoryBacking>\n" in prepared.xml.decode()


def test_the_session_is_put_in_in_place_of_another() -> None:
    text = CLEAN.replace(GODH_B64, OTHER_GODH).replace(BLOB_B64, OTHER_BLOB).replace("0x0007", "3")
    used = {hashlib.sha256(BLOB[::-1]).hexdigest(): "launched"}.get
    subject = Subject(domain=parse_domain(text.encode()), versions=DEBIAN_12, used=used)
    prepared = prepare(subject, SESSION)
    assert prepared.xml.decode() == CLEAN
    assert prepared.remaining == ()
    hashed = replace(SESSION, record=WITH_HASHES)
    for before_it in ("", CLEAN[CLEAN.index("  <launchSecurity") : CLEAN.index("</domain>")]):
        bare = CLEAN.replace(
            CLEAN[CLEAN.index("  <launchSecurity") : CLEAN.index("</domain>")], before_it
        )
        subject = subject_of(bare, DEBIAN_12)
        prepared = prepare(subject, hashed)
        assert "<launchSecurity type='sev' kernelHashes='yes'>" in prepared.xml.decode()
        assert [one.id for one in prepared.remaining] == ["domain.kernel-hashes.unused"]


def test_dh_cert_and_session_are_put_in_their_places() -> None:
    """By the session's record if there is one, else by swapping them."""
    swapped = CLEAN.replace(GODH_B64, "TMP").replace(BLOB_B64, GODH_B64).replace("TMP", BLOB_B64)
    subject = subject_of(swapped, DEBIAN_12)
    assert prepare(subject, SESSION).xml.decode() == CLEAN
    (found,) = apply_rules(subject)
    assert found.message.startswith("<dhCert> and <session> are swapped")
    assert xml.apply(subject.document.source, found.edits).decode() == CLEAN
    wrapped = swapped.replace(GODH_B64, f"\n{GODH_B64}\n").replace(BLOB_B64, f" {BLOB_B64[:-1]}\n=")
    (found,) = apply_rules(subject_of(wrapped, DEBIAN_12))
    assert found.id == "domain.session.swapped"


def test_session_files_must_be_of_one_session() -> None:
    record = RECORD.to_bytes()
    read = SessionFiles.from_files(record, GODH_B64.encode(), BLOB_B64.encode())
    assert read == SESSION
    with pytest.raises(MalformedInput, match="GODH: it does not belong to the record of vm1"):
        SessionFiles.from_files(record, OTHER_GODH.encode(), BLOB_B64.encode())
    with pytest.raises(MalformedInput, match="session blob: it does not belong to"):
        SessionFiles.from_files(record, GODH_B64.encode(), OTHER_BLOB.encode())
    with pytest.raises(MalformedInput, match="GODH: 128 bytes"):
        SessionFiles.from_files(record, BLOB_B64.encode(), BLOB_B64.encode())


def test_a_used_session_is_refused() -> None:
    SESSION.require_unused(None)
    SESSION.require_unused(lambda _: None)
    with pytest.raises(Insecure, match="vm1 was used already: released") as refused:
        SESSION.require_unused(lambda _: "released")
    assert refused.value.check == "domain.session.reused"


# what is refused

BOMB = """<?xml version="1.0"?>
<!DOCTYPE domain [
 <!ENTITY a "aaaaaaaaaaaaaaaaaaaa">
 <!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
]>
<domain><name>&b;</name></domain>
"""
HIDING = {"a stranger's": "xmlns:x='u' x:kernelHashes='no'", "XML's": "xml:kernelHashes='no'"}
BAD = {
    "nothing": (b"", "line 1: column 1: no element found"),
    "blanks": (b"  \n\n", "no element found"),
    "text": (b"vm1 is running\n", "line 1: column 1: syntax error"),
    "a bomb": (BOMB.encode(), "DOCTYPE: line 2: a document type"),
    "an external entity": (
        b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain>&x;</domain>',
        "DOCTYPE: line 1",
    ),
    "a DTD elsewhere": (b'<!DOCTYPE domain SYSTEM "http://localhost/x"><domain/>', "DOCTYPE"),
    "an entity of its own": (b"<domain>&x;</domain>", "line 1: column 9: undefined entity"),
    "10 MB": (CLEAN.encode().replace(b"vm1", b"v" * (10 << 20)), "more than 1048576 bytes"),
    "too deep": (b"<domain>" * 65, "line 1: more than 64 nested elements"),
    "too many": (b"<domain>" + b"<a/>" * 20_000 + b"</domain>", "more than 20000 elements"),
    "UTF-16": (CLEAN.encode("utf-16"), "this is not UTF-8 text"),
    "latin-1": ("<domain>ü</domain>".encode("latin-1"), "not well-formed"),
    "declared latin-1": (b"<?xml version='1.0' encoding='latin-1'?><domain/>", "latin-1, expected"),
    "an unknown encoding": (b"<?xml version='1.0' encoding='x'?><domain/>", "x, expected UTF-8"),
    "a NUL": (b"<domain>\0</domain>", "this is not UTF-8 text"),
    "cut short": (CLEAN.encode()[:-4], "unclosed token"),
    "another root": (b"<domainsnapshot><domain/></domainsnapshot>", "<domainsnapshot>, expected"),
    "a root in a namespace": (b"<domain xmlns='urn:x'/>", "<urn:x domain>, expected <domain>"),
    "two roots": (b"<domain/><domain/>", "junk after document element"),
    "two launchSecurity": (
        b"<domain>\n<launchSecurity type='sev'/>\n<launchSecurity type='sev'/></domain>",
        "line 3: <launchSecurity> is there twice",
    ),
    "two loaders": (b"<domain><os><loader/><loader/></os></domain>", "<loader> is there twice"),
    "an attribute twice": (b"<domain type='kvm' type='qemu'/>", "duplicate attribute"),
    **{
        f"an attribute in a namespace, {name}": (
            CLEAN.replace("launchSecurity type", f"launchSecurity {text} type").encode(),
            "attribute: line 65: kernelHashes in a namespace, on <launchSecurity>",
        )
        for name, text in HIDING.items()
    },
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD)
def test_what_is_no_domain_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(MalformedInput) as refused:
        parse_domain(data)
    assert words in str(refused.value)
    assert str(refused.value).startswith("domain XML")
    assert "\n" not in str(refused.value)


def test_what_is_mended_stays_within_what_is_read() -> None:
    long = "x" * (xml.MAX_SIZE - len(CLEAN))
    many = "<a/>" * (xml.MAX_ELEMENTS - len(re.findall("<[a-z]", CLEAN)) + 1)
    for filler, limit in ((f"<!--{long[7:]}-->", "length"), (many, "size")):
        text = CLEAN.replace(SERIAL, SERIAL.replace("<driver iommu='on'/>", filler))
        subject = subject_of(text, OLD)
        with pytest.raises(MalformedInput, match="the XML would become too large") as refused:
            prepare(subject, SESSION)
        assert refused.value.field == limit


def test_what_is_built_for_smm_is_no_matter_to_plain_sev() -> None:
    text = CLEAN.replace("OVMF.amdsev.fd", "OVMF.secboot.fd").replace("0x0007", "0x0003")
    found = apply_rules(subject_of(text, DEBIAN_12))
    assert {finding.id for finding in found} == {"domain.policy.es"}


def test_what_libvirt_9_2_says_of_the_firmware_that_it_chose_is_left_alone() -> None:
    text = CLEAN.replace(*EFI)
    subject = subject_of(text, CURRENT)
    assert prepare(subject, SESSION, everything=True).xml.decode() == text


@pytest.mark.parametrize(
    "attributes",
    [
        "type='pflash'",
        "readonly='no' type='pflash'",
        "type='pflash' stateless='yes'",
        "readonly='no' type='pflash' stateless='yes'",
        "stateless='no' readonly='no' type='pflash'",
    ],
)
def test_a_writable_flash_is_mended_whole(attributes: str) -> None:
    writable = case("readonly='yes' type='pflash' stateless='yes'", attributes)
    found = [one for one in writable.find() if one.id == "domain.loader.readonly"]
    assert ["changes the next launch's measurement" in one.message for one in found] == [True]
    loader = parse_domain(writable.prepare().xml).place("os/loader")
    assert loader.attributes == {"type": "pflash", "readonly": "yes", "stateless": "yes"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("<type>linux</type>", "the guest's type is 'linux': SEV guests are hvm, on x86_64"),
        ("<type arch='aarch64'>hvm</type>", "the guest's type is 'hvm' on aarch64: SEV guests"),
        ("<type/>", "the guest's type is '': SEV guests"),
    ],
)
def test_the_guest_s_type_is_named_as_it_stands(kind: str, words: str) -> None:
    broken = case("<type arch='x86_64' machine='pc-q35-7.2'>hvm</type>", kind)
    found = next(one for one in broken.find() if one.id == "domain.arch")
    assert found.message.startswith(words)


def test_an_empty_list_of_features_is_harmless() -> None:
    text = CLEAN.replace(HOLE, "<firmware></firmware>")
    assert apply_rules(subject_of(text, CURRENT)) == []


@pytest.mark.parametrize("name", ["firmware", "varstore"])
def test_of_two_nobody_says_which_counts(name: str) -> None:
    with pytest.raises(MalformedInput, match=f"<{name}> is there twice"):
        parse_domain(CLEAN.replace(HOLE, f"<{name}/><{name}/>").encode())


def test_firmware_is_named_or_chosen_once_mended_for_libvirt_9_0() -> None:
    for loader, firmware in (
        (LOADER, ""),
        ("<loader stateless='yes' readonly='yes' type='rom'></loader>", " firmware='efi'"),
    ):
        text = CLEAN.replace(LOADER, f"{loader}\n    {SECURE_FEATURE}").replace(*EFI)
        subject = subject_of(text, DEBIAN_12)
        mended = prepare(subject, SESSION).xml.decode()
        kept = loader if not firmware else "<loader stateless='yes'></loader>"
        feature = SECURE_FEATURE.replace("'yes'", "'no'") if firmware else ""
        expected = CLEAN.replace("<os>", f"<os{firmware}>")
        assert mended == expected.replace(LOADER, f"{kept}\n    {feature}" if feature else kept)


def test_every_truncation_is_refused() -> None:
    data = CLEAN.replace(GODH_B64, "AAAA").encode().rstrip()
    for end in range(len(data)):
        with pytest.raises(MalformedInput):
            parse_domain(data[:end])


@given(st.data())
def test_whatever_is_changed_only_our_errors_come_out(data: st.DataObject) -> None:
    text = bytearray(CLEAN.replace(GODH_B64, "AAAA").encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        cut = data.draw(st.integers(0, 12))
        text[at : at + cut] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"<a/>", b"9" * 5000])
        )
    try:
        domain = parse_domain(bytes(text))
    except MalformedInput:
        return
    apply_rules(Subject(domain=domain))
    prepared = prepare(Subject(domain=domain), SESSION, everything=True)
    assert not any(finding.mendable for finding in prepared.remaining)
    again = prepare(Subject(domain=parse_domain(prepared.xml)), SESSION, everything=True)
    assert again.xml == prepared.xml


@given(st.sets(st.sampled_from([*CASES])))
def test_any_mixture_of_breaks_is_mended_for_good(mixed: set[str]) -> None:
    text = CLEAN
    for name in sorted(mixed):
        for old, new in CASES[name][0].edits:
            text = text.replace(old, new, 1)
    try:
        domain = parse_domain(text.encode())
    except MalformedInput:  # two of them put in the same element
        return
    prepared = prepare(Subject(domain=domain, versions=OLD), SESSION, everything=True)
    assert not any(finding.mendable for finding in prepared.remaining)


def test_libvirt_s_reading_of_a_policy() -> None:
    for text, value in {
        "5": 5, "0x5": 5, "10": 16, "0XfF": 255, "ffffffff": 0xFFFFFFFF, "\n 5": 5, "+5": 5,
        "0x0000000000000005": 5, "0" * 5000: 0,
    }.items():  # fmt: skip
        domain = parse_domain(CLEAN.replace("0x0007", text).encode())
        assert domain.policy == value
        apply_rules(Subject(domain=domain))
    for text in ("", "5 ", "-5", "+ 5", "0x", "0x 5", "five", "100000000", FIVE, "5<!-- --> "):
        assert parse_domain(CLEAN.replace("0x0007", text).encode()).policy is None
    assert parse_domain(CLEAN.replace("0x0007", "0x<!-- x -->7").encode()).policy == 7


def test_machines() -> None:
    for machine, q35, i440fx in (
        ("q35", True, False), ("pc-q35-rhel9.2.0", True, False), ("pc", False, True),
        ("pc-i440fx-jammy", False, True), ("pc-1.3", False, True), ("ubuntu-q35", True, False),
        ("microvm", False, False),
    ):  # fmt: skip
        domain = parse_domain(CLEAN.replace("pc-q35-7.2", machine).encode())
        assert (domain.q35, domain.i440fx) == (q35, i440fx)


def test_the_boot_disk_is_the_first_of_the_order_or_of_all() -> None:
    def boot(*disks: str) -> str | None:
        text = "<domain><devices>" + "".join(disks) + "</devices></domain>"
        found = parse_domain(text.encode()).boot_disk
        return found.path if found else None

    assert boot() is None
    assert boot("<disk device='cdrom'/>") is None
    assert boot("<disk device='cdrom'/>", "<disk/>", "<disk/>") == "/domain/devices/disk[2]"
    second = "<disk><boot order='2'/></disk>"
    assert boot("<disk/>", second, "<disk><boot order='1'/></disk>") == "/domain/devices/disk[3]"
    assert boot("<disk/>", second) == "/domain/devices/disk[2]"


def test_virtio_devices_that_are_none() -> None:
    one = parse_domain(b"<domain><devices><vsock/></devices></domain>")
    assert [device.model for device in one.virtio] == ["virtio"]
    for device in (
        "<disk/>", "<disk><target dev='sda'/></disk>", "<interface type='network'/>",
        "<interface type='network'><model type='e1000e'/></interface>", "<tpm model='x'/>",
        "<memballoon model='none'/>",
        "<controller type='scsi'/>", "<controller type='usb' model='qemu-xhci'/>", "<video/>",
        "<input type='mouse' bus='ps2'/>", "<video><model type='qxl'/></video>",
    ):  # fmt: skip
        text = f"<domain><devices>{device}</devices></domain>"
        assert parse_domain(text.encode()).virtio == ()


def test_amounts_of_memory() -> None:
    for text, severities in {
        "<hard_limit unit='bytes'>4563402752": [], "<hard_limit unit='b'>4563402751": ["W"],
        "<hard_limit unit='G'>5": [], "<hard_limit unit='GB'>4": ["W"],
        "<hard_limit unit='TiB'>1": [],
        "<hard_limit unit='KiB'>99999999999999999999": ["E"], f"<hard_limit>{FIVE}": ["E"],
    }.items():  # fmt: skip
        broken = case("<hard_limit unit='KiB'>4456448", text)
        assert [finding.severity for finding in broken.find()] == severities


def test_versions() -> None:
    for text, version in {
        "9.0": (9, 0), "11.3.0": (11, 3, 0), "v6.1": (6, 1), "6.1.0-13-amd64": (6, 1, 0),
        "7.2.22 (Debian 1:7.2+dfsg-7)": (7, 2, 22), "11": (11,),
    }.items():  # fmt: skip
        assert read_version(text) == version
    for text in ("", "new", "9.", "-1", "1.2.3.4.5", "9.x"):
        with pytest.raises(Unsupported, match="is not a version"):
            read_version(text)
    assert before((7,), (7, 1))
    assert not before((7, 0, 0), (7,))
    assert not before(None, (7,))


def test_findings_are_counted_in_words() -> None:
    found = case("0x0007", "0x0000").find()
    assert tally(found) == "1 error, 2 warnings"


def test_edits_within_tags() -> None:
    source = b"""<a><b  x = "1>'" y='2'/><c/><d></d><e></e ></a>"""
    document = xml.Document.parse(source, "XML")
    b, c, d, e = document.root.children
    edits = [
        document.set_attribute(b, "y", "3"), document.set_attribute(c, "z", "4"),
        document.set_text(d, "5"), document.replace(e, "<f/>"),
    ]  # fmt: skip
    mended = xml.apply(source, edits)
    assert mended == b"""<a><b  x = "1>'" y='3'/><c z='4'/><d>5</d><f/></a>"""
    added = xml.apply(source, [document.set_attribute(b, "z", "4")])
    assert added == source.replace(b"y='2'", b"y='2' z='4'")
    assert xml.apply(source, [document.remove_attribute(b, "x")])[:12] == b"<a><b y='2'/"
    assert xml.apply(source, [document.remove(c)]) == source.replace(b"<c/>", b"")
    kept = xml.Document.parse(b"<a>\n  <b><!-- c -->\n  </b>\n</a>", "XML")
    inner = kept.root.find("b")
    assert inner is not None
    assert xml.apply(kept.source, [kept.append(inner, "<d/>")]) == (
        b"<a>\n  <b><!-- c -->\n    <d/>\n  </b>\n</a>"
    )


# capabilities


def test_capabilities_are_read() -> None:
    host = capabilities(reducedPhysBits=" 1 ")
    assert (host.supported, host.es, host.listed) == (True, True, True)
    assert (host.cbitpos, host.reduced_phys_bits, host.max_guests, host.max_es_guests) == (
        51,
        1,
        509,
        99,
    )
    assert host.types == ("sev", "sev-snp")
    assert (host.domain_type, host.machine) == ("kvm", "pc-q35-7.2")
    assert (host.firmware, host.loaders) == (("efi",), ("rom", "pflash"))
    assert (host.obstacles(), host.limits()) == ([], [])


def test_why_a_host_offers_none() -> None:
    absent = capabilities(supported="")
    assert not absent.listed
    assert absent.max_guests is None
    assert any("libvirt 4.5" in words for words in absent.obstacles())
    emulated = SevCapabilities.from_bytes(
        domcapabilities(supported="no").replace(b"<domain>kvm", b"<domain>qemu")
    )
    assert "--virttype kvm" in emulated.obstacles()[0]
    assert not emulated.es
    bare = SevCapabilities.from_bytes(b"<domainCapabilities/>")
    assert (bare.domain_type, bare.types, bare.limits()) == ("", (), [])
    unsupported = domcapabilities().replace(
        b"launchSecurity supported='yes'", b"launchSecurity supported='no'"
    )
    assert SevCapabilities.from_bytes(unsupported).types == ()
    assert "SEV-ES" in capabilities(maxESGuests=0).limits()[0]
    assert "keeps every ASID" in capabilities(maxGuests=0).limits()[0]


@pytest.mark.parametrize(
    ("facts", "offered"),
    [
        ({"maxGuests": 0, "maxESGuests": 0}, set()),
        ({"maxGuests": 0, "maxESGuests": 9}, {"SEV-ES"}),
        ({"maxGuests": 9, "maxESGuests": 0}, {"SEV"}),
        ({"maxGuests": 9, "maxESGuests": 9}, {"SEV", "SEV-ES"}),
        ({"supported": "no"}, set()),
    ],
)
def test_a_host_offers_as_many_guests_as_it_counts(
    facts: dict[str, object], offered: set[str]
) -> None:
    host = capabilities(**facts)
    assert (host.sev, host.es) == ("SEV" in offered, "SEV-ES" in offered)
    assert bool(host.obstacles()) is not bool(offered)
    assert bool(host.limits()) is (len(offered) == 1)


def test_other_hosts_are_told_for_what_they_are() -> None:
    head = b"<machine>pc-q35-7.2</machine>"
    assert head in domcapabilities()
    for arch in ("aarch64", "s390x", "i686"):
        told = domcapabilities().replace(head, head + f"<arch>{arch}</arch>".encode())
        host = SevCapabilities.from_bytes(told)
        assert (host.arch, host.sev, host.es) == (arch, False, False)
        assert host.obstacles() == [host.foreign]
        assert f"for {arch} guests" in host.foreign
    told = domcapabilities(supported="no").replace(b"<value>sev</value>", b"<value>tdx</value>")
    host = SevCapabilities.from_bytes(told.replace(head, head + b"<arch>x86_64</arch>"))
    assert host.obstacles() == [host.foreign]
    assert "Intel TDX" in host.foreign
    assert (
        SevCapabilities.from_bytes(told.replace(b"supported='no'", b"supported='yes'")).foreign
        == ""
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<capabilities/>", "<capabilities>, expected <domainCapabilities>"),
        (CLEAN.encode(), "<domain>, expected <domainCapabilities>"),
        (domcapabilities(cbitpos="many"), "cbitpos: line 12: is not a number"),
        (domcapabilities(maxGuests=FIVE), "maxGuests: line 12: is not a number"),
        (domcapabilities(maxGuests="9</maxGuests></sev><sev><maxGuests>9"), "<sev> is there twice"),
        (BOMB.encode(), "DOCTYPE"),
    ],
)  # fmt: skip
def test_what_are_no_capabilities_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(MalformedInput, match=re.escape(words)):
        SevCapabilities.from_bytes(data)


# docs/domain.md


def test_the_page_has_every_rule_as_the_code_has_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "domain.md").read_text()
    rows = re.findall(
        r"^\| `(domain\.[^`]+)` \| (.) \| (.+) \| (.+) \| (.*) \|$", page, re.MULTILINE
    )
    assert [name for name, *_ in rows] == [*RULES]
    for name, severity, says, source, mended in rows:
        rule = RULES[name]
        by_itself = rule.severity is Severity.ERROR or name in NEEDED
        how = ("yes" if by_itself else "when asked") if rule.mends else ""
        assert (severity, says.replace("`", "")) == (rule.severity.value, rule.says)
        assert (source, mended) == (rule.source, how)


def test_a_recent_kernel_boots_from_virtio_blk() -> None:
    text = CLEAN.replace(SCSI_DISK, "<target dev='vda' bus='virtio'/>")
    found = apply_rules(subject_of(text, DEBIAN_12))
    assert "domain.disk.virtio-blk" not in {finding.id for finding in found}


def test_a_namespace_has_a_bounded_name() -> None:
    with pytest.raises(MalformedInput, match="line 2: more than 256 characters, on <m>"):
        parse_domain(f"<domain>\n<m xmlns:q='{'u' * 257}'/></domain>".encode())
    parse_domain(f"<domain><m xmlns:q='{'u' * 256}'/></domain>".encode())


def test_a_path_shows_the_beginning_of_a_long_name() -> None:
    root = parse_domain(f"<domain><{'n' * 41}><b/><b/></{'n' * 41}></domain>".encode()).root
    (outer,) = root.children
    assert [child.path for child in outer.children] == [
        f"/domain/{'n' * 40}.../b[{number}]" for number in (1, 2)
    ]
