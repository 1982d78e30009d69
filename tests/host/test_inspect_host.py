"""host/inspect: every check of a host, on simulated trees: OK, missing, and cannot tell."""

import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest.host.device import PlatformStatus
from sev_attest.host.inspect import HOST, Live, Machine, Need, Status, Tree, check, inspect_host
from sev_attest.host.inspect.tree import Unreadable
from sev_attest.sev.states import PlatformState
from simulated_trees import (
    AMDSEV,
    CACHE,
    DESCRIPTORS,
    GENERATIONS,
    Content,
    both_of,
    cpuinfo,
    descriptor,
    dpkg,
    host,
    host_files,
    lay_out,
    qemu_caps,
    rpm_database,
    rpm_header,
)

OK, MISSING, UNKNOWN, NOTE = Status
PARAMETERS = "/sys/module/kvm_amd/parameters"
INTEL = cpuinfo("Intel(R) Xeon(R) Gold 6338", 6, 106, "vmx", vendor="GenuineIntel")
HYGON = cpuinfo("Hygon C86 7285", 24, 1, "sme sev", vendor="HygonGenuine")
VIA = cpuinfo("VIA Nano", 6, 15, "", vendor="CentaurHauls")
OTHER = cpuinfo("Vortex86", 5, 2, "", vendor="Vortex86 SoC")
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
RYZEN = cpuinfo("AMD Ryzen 9 5950X 16-Core Processor", 25, 33, "svm sme")
ZEN_DESKTOP = cpuinfo("AMD Ryzen 7 1800X Eight-Core Processor", 23, 1, "svm sme sev")
NESTED = cpuinfo("AMD EPYC-Milan Processor", 25, 1, "hypervisor")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_host_of_each_generation_is_ready(tmp_path: Path, generation: str) -> None:
    lay_out(tmp_path, host_files(generation))
    report = inspect_host(Machine(tree=Tree(str(tmp_path))))
    assert [(one.id, one.found) for one in (*report.missing, *report.untold)] == []
    assert report.ready
    found = {one.id: one for one in report.findings}
    named = "genoa" if generation == "siena" else generation
    assert found["host.cpu.generation"].found == named.title()


@pytest.mark.parametrize(
    ("generation", "most"), [("naples", Need.SEV), ("rome", Need.ES), ("turin", Need.SNP)]
)
def test_a_host_is_ready_for_what_its_cpu_can_do(
    tmp_path: Path, generation: str, most: Need
) -> None:
    lay_out(tmp_path, host_files(generation))
    for need in Need:
        report = inspect_host(Machine(tree=Tree(str(tmp_path))), need)
        assert report.ready == (need <= most), need
        parts = {one.id.rpartition(".")[2] for one in report.missing}
        wanted = {one.title.lower() for one in Need if most < one <= need}
        assert parts == wanted, need


def test_nothing_is_told_of_an_empty_tree(tmp_path: Path) -> None:
    found = host(tmp_path)
    assert MISSING not in {one.status for one in found.values()}
    untold = {name for name, one in found.items() if one.essential}
    assert untold == {"host.cpu.vendor", "host.cpu.sev", "host.kvm.sev", "host.dev-sev"}
    told = {name for name, one in found.items() if one.status is not UNKNOWN}
    assert told == {"host.virtio-blk", "host.memory.locked"}  # notes for the guest's owner
    assert all(one.fix for one in found.values() if one.essential)


def test_every_check_has_an_id_of_its_own() -> None:
    checks = [each for group in HOST.values() for each in group]
    assert len({each.id for each in checks}) == len(checks)
    assert all(re.fullmatch(r"host(\.[a-z0-9-]+)+", each.id) for each in checks)


@dataclass
class Case:
    """What one check finds in a tree that differs from a ready one."""

    name: str
    id: str
    status: Status
    found: str
    files: Mapping[str, Content] = field(default_factory=dict)
    fix: str = ""
    need: Need = Need.SEV
    generation: str = "milan"


CPU = "/proc/cpuinfo"
RELEASE = "/proc/sys/kernel/osrelease"
CMDLINE = "/proc/cmdline"
STATUS = "/var/lib/dpkg/status"
DESCRIPTOR = f"{DESCRIPTORS}/60-edk2-x86_64-amdsev.json"
OLD = {f"{CACHE}/3c76.xml": qemu_caps(sev=False)}
FLASH = {"device": "flash", "executable": {"filename": AMDSEV, "format": "raw"}}
CASES = [
    # CPU
    Case("amd", "host.cpu.vendor", OK, "AMD EPYC 7313 16-Core Processor, family 25, model 1"),
    Case("intel", "host.cpu.vendor", MISSING, "an Intel CPU: SEV is AMD's", {CPU: INTEL}, "EPYC"),
    Case("hygon", "host.cpu.vendor", MISSING, "a Hygon CPU: its CSV", {CPU: HYGON}, "EPYC"),
    Case("via", "host.cpu.vendor", MISSING, "a Centaur CPU", {CPU: VIA}, "EPYC"),
    Case("odd", "host.cpu.vendor", MISSING, "CPU of Vortex86 SoC", {CPU: OTHER}, "EPYC"),
    Case("arm", "host.cpu.vendor", MISSING, "no x86 CPU (ARM or another)", {CPU: ARM}, "EPYC"),
    Case("nothing", "host.cpu.vendor", UNKNOWN, "/proc/cpuinfo is missing", {CPU: None}, "copy"),
    Case("empty", "host.cpu.vendor", UNKNOWN, "/proc/cpuinfo is missing or empty", {CPU: ""}),
    Case("rubbish", "host.cpu.vendor", MISSING, "no x86 CPU", {CPU: b"\xff\0" * 999}),
    Case("huge", "host.cpu.vendor", UNKNOWN, "more than 8388608 bytes", {CPU: b"a" * (9 << 20)}),
    Case("milan", "host.cpu.generation", OK, "Milan"),
    Case("ryzen", "host.cpu.generation", NOTE, "no EPYC generation", {CPU: RYZEN}, "EPYC"),
    Case("zen", "host.cpu.generation", NOTE, "Naples by family and model, but not named EPYC",
         {CPU: ZEN_DESKTOP}),
    Case("intel", "host.cpu.generation", NOTE, "no EPYC generation", {CPU: INTEL}),
    Case("none", "host.cpu.generation", UNKNOWN, "/proc/cpuinfo is missing", {CPU: None}),
    Case("flag", "host.cpu.sev", OK, "the CPU has the flag sev"),
    Case("bios", "host.cpu.sev", MISSING, "the CPU has no flag sev", {CPU: RYZEN}, "SMEE"),
    Case("intel", "host.cpu.sev", MISSING, "no flag sev", {CPU: INTEL}, "AMD EPYC"),
    Case("nested", "host.cpu.sev", MISSING, "itself a virtual machine", {CPU: NESTED}, "physical"),
    Case("none", "host.cpu.sev", UNKNOWN, "/proc/cpuinfo is missing", {CPU: None}),
    Case("es", "host.cpu.sev-es", OK, "the CPU has the flag sev_es"),
    Case("es", "host.cpu.sev-es", NOTE, "the CPU has no flag sev_es", fix="minimum SEV ASID",
         generation="naples"),
    Case("snp", "host.cpu.sev-snp", MISSING, "no flag sev_snp", fix="RMP", generation="rome",
         need=Need.SNP),
    Case("copied", "host.cpu.encryption", UNKNOWN, "only the running host", fix="domcapabilities"),
    Case("snp", "host.cpu.sev-snp", OK, "the CPU has the flag sev_snp"),
    # kernel
    Case("new", "host.kernel.version", OK, "6.12.38, new enough for SEV, SEV-ES, SEV-SNP"),
    Case("no-snp", "host.kernel.version", OK, "6.1.0, new enough for SEV, SEV-ES",
         {RELEASE: "6.1.0-13-amd64"}),
    Case("old", "host.kernel.version", MISSING, "4.15.0: SEV guests need 4.16",
         {RELEASE: "4.15.0-213-generic", f"{PARAMETERS}/sev": None}, "a kernel of 4.16"),
    Case("backport", "host.kernel.version", NOTE, "4.18.0: SEV-ES guests need 5.11, but kvm_amd",
         {RELEASE: "4.18.0-553.el8_10.x86_64"}, need=Need.ES),
    Case("version", "host.kernel.version", OK, "6.10.3, new",
         {RELEASE: None, "/proc/version": "Linux version 6.10.3 (x@y) #1 SMP"}),
    Case("none", "host.kernel.version", UNKNOWN, "not known", {RELEASE: None}, "uname -r"),
    Case("rubbish", "host.kernel.version", UNKNOWN, "not known", {RELEASE: b"\xff" * 99}),
    Case("on", "host.sme", OK, "mem_encrypt=on, the CPU the flag sme"),
    Case("flag", "host.sme", NOTE, "but the CPU has no flag sme", {CPU: NESTED}, "SMEE"),
    Case("off", "host.sme", NOTE, "has mem_encrypt=off",
         {CMDLINE: "mem_encrypt=on mem_encrypt=off"},
         "GRUB_CMDLINE_LINUX"),
    Case("unset", "host.sme", NOTE, "has no mem_encrypt=on", {CMDLINE: "quiet"}, "grub2-mkconfig"),
    Case("none", "host.sme", UNKNOWN, "/proc/cmdline is missing", {CMDLINE: None}),
    Case("y", "host.kvm.sev", OK, f"{PARAMETERS}/sev is on"),
    Case("1", "host.kvm.sev", OK, "is on", {f"{PARAMETERS}/sev": "1\n"}),
    Case("n", "host.kvm.sev", MISSING, "sev is off", {f"{PARAMETERS}/sev": "N\n"},
         "options kvm_amd sev=1' > /etc/modprobe.d/sev.conf"),
    Case("0", "host.kvm.sev", MISSING, "sev is off", {f"{PARAMETERS}/sev": "0\n"}),
    Case("rubbish", "host.kvm.sev", MISSING, "sev is off", {f"{PARAMETERS}/sev": b"\xff\0"}),
    Case("unloaded", "host.kvm.sev", MISSING, "not loaded",
         {f"{PARAMETERS}/sev{kind}": None for kind in ("", "_es", "_snp")}, "modprobe kvm_amd"),
    Case("unbuilt", "host.kvm.sev", MISSING, "kvm_amd has no parameter sev",
         {f"{PARAMETERS}/sev": None}, "CONFIG_KVM_AMD_SEV"),
    Case("es", "host.kvm.sev-es", NOTE, "sev_es is off", {f"{PARAMETERS}/sev_es": "N"},
         "sev=1 sev_es=1"),
    Case("es", "host.kvm.sev-es", MISSING, "sev_es is off", {f"{PARAMETERS}/sev_es": "N"},
         need=Need.ES),
    Case("old", "host.kvm.sev-snp", NOTE, "no parameter sev_snp", {f"{PARAMETERS}/sev_snp": None},
         "newer kernel"),
    Case("cmdline", "host.kvm.settings", OK, "kvm_amd.sev=1 on the command line"),
    Case("modprobe", "host.kvm.settings", OK, "sev=1 in /etc/modprobe.d/sev.conf",
         {CMDLINE: "", "/etc/modprobe.d/sev.conf": "# x\noptions kvm-amd nested=1 \\\n sev=1\n"}),
    Case("bare", "host.kvm.settings", OK, "sev in /usr/lib/modprobe.d/sev.conf",
         {CMDLINE: "", "/usr/lib/modprobe.d/sev.conf": "options kvm_amd sev\n"}),
    Case("masked", "host.kvm.settings", OK, "sev=1 in /etc/modprobe.d/a.conf",
         {CMDLINE: "", "/etc/modprobe.d/a.conf": "options kvm_amd sev=1",
          "/usr/lib/modprobe.d/a.conf": "options kvm_amd sev=0"}),
    Case("contradiction", "host.kvm.settings", UNKNOWN, "they contradict each other",
         {"/etc/modprobe.d/a.conf": "options kvm_amd sev=0"}, "keep one"),
    Case("off", "host.kvm.settings", MISSING, "sev=off in /etc/modprobe.d/a.conf",
         {CMDLINE: "", "/etc/modprobe.d/a.conf": "options kvm_amd sev=off"},
         "options kvm_amd sev=1`"),
    Case("es", "host.kvm.settings", MISSING, "sev_es=0", need=Need.ES, fix="sev=1 sev_es=1",
         files={CMDLINE: "kvm_amd.sev_es=0"}),
    Case("es", "host.kvm.settings", OK, "kvm_amd.sev=1",
         {CMDLINE: "kvm_amd.sev=1 kvm_amd.sev_es=0"}),
    Case("blacklist", "host.kvm.settings", MISSING, "`blacklist kvm_amd` in /etc/modprobe.d/b.conf",
         {CMDLINE: "", "/etc/modprobe.d/b.conf": "blacklist kvm_amd\nblacklist nouveau\n"}),
    Case("install", "host.kvm.settings", MISSING, "install kvm_amd /bin/false",
         {CMDLINE: "", "/etc/modprobe.d/b.conf": "install kvm_amd /bin/false"}),
    Case("default", "host.kvm.settings", OK, "by itself",
         {CMDLINE: "kvm_amd.sev=maybe kvm_amd.avic=1"}),
    Case("no-cmdline", "host.kvm.settings", UNKNOWN, "no /proc/cmdline here, where it may be set",
         {CMDLINE: None}, "/proc/cmdline"),
    Case("no-modprobe", "host.kvm.settings", UNKNOWN, "no modprobe.d here, where it may be set",
         {CMDLINE: "quiet", "/etc/modprobe.d/kvm.conf": None}, "modprobe -c"),
    Case("unset", "host.kvm.settings", NOTE, "nothing is set",
         {CMDLINE: "quiet", f"{PARAMETERS}/sev": "N",
         "/etc/modprobe.d/c.txt": "options kvm_amd sev=1"},
         "/etc/modprobe.d/sev.conf"),
    Case("grub", "host.boot", OK, "mem_encrypt=on is in"),
    Case("uki", "host.boot", OK, "mem_encrypt=on is in",
         {"/etc/default/grub": None, "/etc/kernel/cmdline": "quiet mem_encrypt=on"}),
    Case("comment", "host.boot", NOTE, "is not in",
         {"/etc/default/grub": "# mem_encrypt=on\nGRUB_CMDLINE_LINUX=quiet\n"}, "grub2-mkconfig"),
    Case("none", "host.boot", NOTE, "no /etc/default/grub", {"/etc/default/grub": None}),
    Case("kvm", "host.kvm.device", OK, "/dev/kvm is there"),
    Case("kvm", "host.kvm.device", MISSING, "no /dev/kvm", {"/dev/kvm": None}, "SVM"),
    Case("kvm", "host.kvm.device", UNKNOWN, "no /dev here", {"/dev/kvm": None, "/dev/sev": None}),
    Case("new", "host.virtio-blk", OK, "6.12.38"),
    Case("old", "host.virtio-blk", NOTE, "the host's is 4.18.0", {RELEASE: "4.18.0"},
         "virtio-scsi"),
    Case("none", "host.virtio-blk", NOTE, "the host's is not known", {RELEASE: None}),
    # firmware
    Case("stand-in", "host.dev-sev", OK, "a file stands for the device"),
    Case("none", "host.dev-sev", MISSING, "no /dev/sev", {"/dev/sev": None}, "modprobe ccp"),
    Case("no-dev", "host.dev-sev", UNKNOWN, "no /dev here", {"/dev/kvm": None,
         "/dev/sev": None}),
    Case("folder", "host.dev-sev", MISSING, "is no character device",
         {"/dev/sev": None, "/dev/sev/x": ""}, "copy it as a regular file"),
    Case("none", "host.dev-sev.access", UNKNOWN, "no device /dev/sev", {"/dev/sev": None}, "ls -l"),
    Case("stand-in", "host.dev-sev.access", UNKNOWN,
         "in this tree, a file stands for /dev/sev: it has no permissions to judge", fix="ls -l"),
    Case("off", "host.selinux", OK, "does not enforce"),
    Case("permissive", "host.selinux", OK, "does not enforce",
         {"/sys/fs/selinux/enforce": "0", "/etc/selinux/config": "SELINUX=enforcing"}),
    Case("unlabelled", "host.selinux", UNKNOWN, "the label of /dev/sev is not known",
         {"/etc/selinux/config": "# x\nSELINUX=enforcing\n"}, "ls -Z"),
    Case("old", "host.selinux", MISSING, "selinux-policy is older than 3.14.2.40",
         {"/sys/fs/selinux/enforce": "1", STATUS: dpkg({"selinux-policy": "3.14.1-9"})},
         "audit2allow"),
    Case("log", "host.firmware", NOTE, "SEV API 1.55, build 24 (as the kernel logged it)",
         fix="advisories --generation milan --api 1.55 --build 24"),
    Case("snp", "host.firmware", NOTE, "SEV API 1.58, build 7",
         {"/var/log/dmesg": "Linux version 6\nccp: SEV-SNP API:1.58 build:7\n", CPU: None},
         "advisories --api 1.58"),
    Case("earlier", "host.firmware", UNKNOWN, "neither /dev/sev nor a kernel log",
         {"/var/log/dmesg": "SEV API:1.55 build:24\nLinux version 6\n"}, "host status"),
    Case("rotated", "host.firmware", UNKNOWN, "neither",
         {"/var/log/dmesg": None, "/var/log/kern.log": "ccp: SEV API:1.55 build:24\n"}),
    Case("large", "host.firmware", UNKNOWN, "/var/log/dmesg: more than",
         {"/var/log/dmesg": b"a" * ((32 << 20) + 1)}),
    Case("next", "host.firmware", NOTE, "SEV API 0.24, build 15",
         {"/var/log/dmesg": None, "/var/log/dmesg/x": "",
          "/var/log/messages": "Linux version 6\nSEV API:0.24 build:15"}),
    Case("cgroup", "host.guests", OK, "410 of SEV (2 in use), 99 of SEV-ES and SEV-SNP (0 in use)"),
    Case("no-es", "host.guests", NOTE, "509 of SEV (2 in use), 0 of SEV-ES",
         {"/sys/fs/cgroup/misc.capacity": "sev 509\ntdx 3\nsev_es x\n"}, "minimum SEV ASID"),
    Case("no-es", "host.guests", MISSING, "0 of SEV-ES", need=Need.ES,
         files={"/sys/fs/cgroup/misc.capacity": "sev 509\n"}),
    Case("no-sev", "host.guests", MISSING, "0 of SEV (2 in use), 509 of SEV-ES",
         {"/sys/fs/cgroup/misc.capacity": "sev_es 509\n"}),
    Case("log", "host.guests", OK, "410 of SEV, 99 of SEV-ES and SEV-SNP (kernel log)",
         {"/sys/fs/cgroup/misc.capacity": None, "/sys/fs/cgroup/misc.current": None,
          "/var/log/dmesg": "Linux version 6\nkvm_amd: SEV enabled (ASIDs 100 - 509)\n"
          "kvm_amd: SEV-ES enabled (ASIDs 1 - 99)\n"}),
    Case("old-log", "host.guests", NOTE, "410 of SEV, 0 of SEV-ES",
         {"/sys/fs/cgroup/misc.capacity": None, "/sys/fs/cgroup/misc.current": None,
          "/var/log/dmesg": "Linux version 5\nkvm_amd: SEV supported: 410 ASIDs\n"}),
    Case("none", "host.guests", UNKNOWN, "neither a misc cgroup, CPUID nor a kernel log says",
         {"/sys/fs/cgroup/misc.capacity": None}, "nodesevinfo"),
    # virtualization
    Case("new", "host.libvirt", OK, "libvirt 11.3.0 (libvirt-daemon-driver-qemu, dpkg)"),
    Case("5.1", "host.libvirt", NOTE, "later than 5.1.0 is recommended",
         {STATUS: dpkg({"libvirt-daemon": "5.1.0-1"})}, "upgrade"),
    Case("4.0", "host.libvirt", MISSING, "libvirt 4.0.0 (libvirt-daemon, dpkg): SEV needs 4.5",
         {STATUS: dpkg({"libvirt-daemon": "4.0.0-1ubuntu8"})}, "install libvirt 4.5"),
    Case("snp", "host.libvirt", MISSING, "SEV-SNP needs 10.5", need=Need.SNP,
         files={STATUS: dpkg({"libvirt0": "9.0.0-4+deb12u2"})}),
    Case("none", "host.libvirt", MISSING, "libvirt is not installed", {STATUS: dpkg({"a": "1"})}),
    Case("built", "host.libvirt", UNKNOWN, "/usr/local/sbin/libvirtd is of no known package",
         {STATUS: dpkg({"a": "1"}), "/usr/local/sbin/libvirtd": ""}, "--version"),
    Case("odd", "host.libvirt", UNKNOWN, "no version that can be compared",
         {STATUS: dpkg({"libvirt": "git"})}),
    Case("no-database", "host.libvirt", UNKNOWN, "no package database", {STATUS: None},
         "`virsh version` must print 4.5 or later"),
    Case("no-database", "host.qemu", UNKNOWN, "no package database", {STATUS: None},
         "`qemu-system-x86_64 --version` must print 2.12 or later"),
    Case("folder", "host.qemu", UNKNOWN, "is a folder", {STATUS: None, f"{STATUS}/x": ""}),
    Case("new", "host.qemu", OK, "QEMU 10.0.2 (qemu-system-x86, dpkg)"),
    Case("2.11", "host.qemu", MISSING, "SEV needs 2.12",
         {STATUS: dpkg({"qemu-kvm": "1:2.11+dfsg-1"})}),
    Case("5.2", "host.qemu", MISSING, "SEV-ES needs 6.0", need=Need.ES,
         files={STATUS: dpkg({"qemu-system-x86": "1:5.2+dfsg-11"})}),
    Case("snp", "host.qemu", MISSING, "SEV-SNP needs 9.1", need=Need.SNP,
         files={STATUS: dpkg({"qemu-system-x86": "1:7.2+dfsg-7"})}),
    Case("known", "host.libvirt.cache", OK, "knows SEV of /usr/bin/qemu-system-x86_64"),
    Case("none", "host.libvirt.cache", OK, "nothing is cached", {f"{CACHE}/3c76.xml": None}),
    Case("arm", "host.libvirt.cache", OK, "nothing is cached",
         {f"{CACHE}/3c76.xml": qemu_caps(sev=False, arch="aarch64"), f"{CACHE}/x.xml": "<a/>",
          f"{CACHE}/y.xml": b"\xff\0", f"{CACHE}/z.txt": ""}),
    Case("later", "host.libvirt.cache", NOTE, "libvirt probes again", OLD, "restart libvirtd"),
    Case("stale", "host.libvirt.cache", MISSING, "libvirt before 6.5.0 does not probe again",
         {**OLD, STATUS: dpkg({"libvirt0": "6.0.0-0ubuntu8"})}, f"rm -f {CACHE}/*"),
    Case("off", "host.libvirt.cache", NOTE, "KVM has SEV off, too",
         {**OLD, f"{PARAMETERS}/sev": "N"}, "host.kvm.sev"),
    Case("known", "host.domcapabilities", OK, "cbitpos 51"),
    Case("none", "host.domcapabilities", UNKNOWN, "not asked", OLD, "domain capabilities -"),
    Case("amdsev", "host.descriptor", OK, f"amd-sev: {AMDSEV} ({DESCRIPTOR})"),
    Case("none", "host.descriptor", NOTE, "no firmware descriptor has amd-sev", {DESCRIPTOR: None},
         "edk2-ovmf"),
    Case("others", "host.descriptor", NOTE, "has amd-sev-snp (there is amd-sev, amd-sev-es)",
         {DESCRIPTOR: descriptor()}, need=Need.SNP),
    Case("image", "host.descriptor", MISSING, f"names {AMDSEV}, which is missing",
         {AMDSEV: None, AMDSEV.replace("amdsev", "other"): ""}, "Debian forky and later"),
    Case("copy", "host.descriptor", UNKNOWN, f"names {AMDSEV}: its folder is not in this copy",
         {AMDSEV: None}, f"`ls -l {AMDSEV}` on the host"),
    Case("copy", "host.descriptor.stateless", UNKNOWN, "its folder is not in this copy",
         {AMDSEV: None}),
    Case("masked", "host.descriptor", NOTE, "no firmware descriptor",
         {f"/etc/qemu/firmware/{DESCRIPTOR.rpartition('/')[2]}": ""}),
    Case("replaced", "host.descriptor", OK, "(/etc/qemu/firmware/60-edk2-x86_64-amdsev.json)",
         {f"/etc/qemu/firmware/{DESCRIPTOR.rpartition('/')[2]}": descriptor()}),
    Case("order", "host.descriptor", OK, "(/etc/qemu/firmware/10-own.json)",
         {"/etc/qemu/firmware/10-own.json": descriptor(), "/etc/qemu/firmware/README": "x"}),
    Case("first", "host.descriptor", MISSING, "10-own.json names /none, which is missing",
         {"/etc/qemu/firmware/10-own.json": descriptor(
             mapping={"device": "memory", "filename": "/none"})}),
    Case("smm", "host.descriptor", NOTE, "which needs SMM",
         {DESCRIPTOR: descriptor(("amd-sev", "requires-smm"))}),
    Case("arm", "host.descriptor", NOTE, "no firmware descriptor",
         {DESCRIPTOR: descriptor(arch="aarch64")}),
    Case("rubbish", "host.descriptor", NOTE, "no firmware descriptor", {DESCRIPTOR: b"\xff{"}),
    Case("deep", "host.descriptor", NOTE, "no firmware descriptor", {DESCRIPTOR: "[" * 200000}),
    Case("list", "host.descriptor", NOTE, "no firmware descriptor", {DESCRIPTOR: "[]"}),
    Case("number", "host.descriptor", NOTE, "no firmware descriptor",
         {DESCRIPTOR: descriptor(mapping={"device": "memory", "filename": 5})}),
    Case("huge", "host.descriptor", UNKNOWN, "more than 262144 bytes",
         {DESCRIPTOR: " " * (1 << 19)}),
    Case("folder", "host.descriptor", UNKNOWN, "is a folder", {DESCRIPTOR: None,
         f"{DESCRIPTOR}/x": ""}),
    Case("memory", "host.descriptor.stateless", OK, f"stateless: {AMDSEV}"),
    Case("flash", "host.descriptor.stateless", OK, "stateless",
         {DESCRIPTOR: descriptor(mapping={**FLASH, "mode": "stateless"})}),
    Case("split", "host.descriptor.stateless", NOTE, "no descriptor of stateless firmware",
         {DESCRIPTOR: descriptor(mapping=FLASH)}, "<loader type='rom'>"),
    Case("combined", "host.descriptor.stateless", NOTE, "no descriptor of stateless firmware",
         {DESCRIPTOR: descriptor(mapping={**FLASH, "mode": "combined"})}),
    # memory
    Case("total", "host.memory", OK, "125.0 GiB"),
    Case("none", "host.memory", UNKNOWN, "does not say", {"/proc/meminfo": None}, "free -h"),
    Case("high", "host.memory.limit", OK, "MemoryHigh of machine.slice is 120000000000 bytes"),
    Case("max", "host.memory.limit", OK, "MemoryMax of machine.slice is 5 bytes",
         {"/sys/fs/cgroup/machine.slice/memory.high": "max",
          "/sys/fs/cgroup/machine.slice/memory.max": "5\n"}),
    Case("drop-in", "host.memory.limit", OK, "MemoryMax=100G in /etc/systemd/system.control/",
         {"/sys/fs/cgroup/machine.slice/memory.high": None,
          "/etc/systemd/system.control/machine.slice.d/90-MemoryMax.conf":
          "[Slice]\nMemoryHigh=infinity\nMemoryMax=100G\n",
          "/etc/systemd/system.control/machine.slice.d/README": "MemoryMax=1"}),
    Case("infinite", "host.memory.limit", NOTE, "has no limit",
         {"/sys/fs/cgroup/machine.slice/memory.high": None,
          "/etc/systemd/system/machine.slice.d/a.conf": "[Slice]\nMemoryMax=infinity\n",
          "/etc/systemd/system/machine.slice.d/README": "MemoryMax=1"}),
    Case("none", "host.memory.limit", NOTE, "has no limit",
         {"/sys/fs/cgroup/machine.slice/memory.high": "max\n"}, "MemoryHigh=112G"),
    Case("unknown", "host.memory.limit", NOTE, "has no limit", fix="MemoryHigh=<value>",
         files={"/sys/fs/cgroup/machine.slice/memory.high": None, "/proc/meminfo": None}),
    Case("limits", "host.memory.locked", NOTE, "soft 65536, hard 131072 bytes", fix="domain check"),
    Case("none", "host.memory.locked", NOTE, "libvirt sets it", {"/proc/self/limits": None}),
    # place
    Case("bare", "host.container", OK, "no sign"),
    Case("podman", "host.container", NOTE, "container (podman)", {"/run/.containerenv": ""}),
    Case("docker", "host.container", NOTE, "container (docker)", {"/.dockerenv": ""}),
    Case("nspawn", "host.container", NOTE, "(systemd-nspawn)",
         {"/run/systemd/container": "systemd-nspawn\n"}),
    Case("lxc", "host.container", NOTE, "container (lxc)",
         {"/proc/1/environ": "A=b\0container=lxc\0"}),
    Case("empty", "host.container", NOTE, "(unknown)", {"/run/systemd/container": ""}),
    Case("vm", "host.container", NOTE, "a virtual machine", {CPU: NESTED}),
    Case("odd", "host.container", OK, "no sign", {"/run/.containerenv/x": "", CPU: None}),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.id}-{case.name}-{case.status.name}"
)
def test_a_check_finds(tmp_path: Path, case: Case) -> None:
    lay_out(tmp_path, host_files(case.generation) | dict(case.files))
    found = host(tmp_path, case.need)[case.id]
    assert (found.status, found.found) == (case.status, found.found)
    assert case.found in found.found
    assert case.fix in found.fix
    assert found.fix or found.status is not MISSING


def test_every_check_has_cases() -> None:
    below = {"host.cpu.encryption", "host.dev-sev.access"}
    for each in (each for group in HOST.values() for each in group):
        statuses = {case.status for case in CASES if case.id == each.id}
        assert each.id in below or len(statuses) > 1 or statuses == {NOTE}, each.id


@pytest.mark.parametrize("mark", ["/.dockerenv", "/run/.containerenv"])
def test_what_a_container_hides_is_not_missing(tmp_path: Path, mark: str) -> None:
    files = host_files() | {f"{PARAMETERS}/sev{kind}": None for kind in ("", "_es", "_snp")}
    gone = {"/dev/sev": None, STATUS: dpkg({"a": "1"}), "/dev/null": "", "/dev/kvm": None}
    gone |= {CMDLINE: "quiet", "/etc/default/grub": None, DESCRIPTOR: None}
    gone |= {f"{CACHE}/3c76.xml": None}
    lay_out(tmp_path, files | gone | {mark: ""})
    report = inspect_host(Machine(tree=Tree(str(tmp_path))))
    assert not report.missing
    assert {one.id for one in report.untold} == {"host.kvm.sev", "host.dev-sev"}
    assert not report.ready
    hidden = {one.id for one in report.findings if "inside a container, which" in one.found}
    assert hidden == {
        "host.kvm.sev",
        "host.kvm.sev-es",
        "host.kvm.sev-snp",
        "host.kvm.settings",
        "host.boot",
        "host.descriptor",
        "host.descriptor.stateless",
        "host.libvirt.cache",
        "host.dev-sev",
        "host.kvm.device",
        "host.libvirt",
        "host.qemu",
    }


def test_what_is_seen_in_a_container_is_missing(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files() | {"/.dockerenv": "", f"{PARAMETERS}/sev": "N"})
    assert host(tmp_path)["host.kvm.sev"].status is MISSING


def test_a_stale_cache_that_is_older_than_the_boot_is_said_to_be(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files() | OLD | {STATUS: dpkg({"libvirt0": "6.0.0"})})
    assert "older than this boot" not in host(tmp_path)["host.libvirt.cache"].found
    os.utime(tmp_path / CACHE.lstrip("/") / "3c76.xml", (1, 1))
    assert "older than this boot" in host(tmp_path)["host.libvirt.cache"].found
    (tmp_path / "proc/stat").write_text("btime x\n")
    assert "older than this boot" not in host(tmp_path)["host.libvirt.cache"].found


def test_a_link_to_nowhere_in_the_cache_is_left_out(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files() | {f"{CACHE}/3c76.xml": None})
    (tmp_path / CACHE.lstrip("/")).mkdir(parents=True)
    (tmp_path / CACHE.lstrip("/") / "gone.xml").symlink_to("nowhere")
    assert host(tmp_path)["host.libvirt.cache"].found.startswith("nothing is cached")


def test_a_fedora_host_is_ready(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files() | {STATUS: None, "/var/lib/dpkg": None})
    headers = {
        "libvirt-daemon-driver-qemu": rpm_header("10.6.0", "3.fc41"),
        "qemu-system-x86-core": rpm_header("9.1.2", "2.fc41"),
        "selinux-policy": rpm_header("41.27", "1.fc41"),
    }
    rpm_database(tmp_path / "usr/lib/sysimage/rpm/rpmdb.sqlite", headers)
    found = host(tmp_path, Need.SNP)
    assert found["host.libvirt"].found == "libvirt 10.6.0 (libvirt-daemon-driver-qemu, rpm)"
    assert found["host.qemu"].found == "QEMU 9.1.2 (qemu-system-x86-core, rpm)"
    assert not [one for one in found.values() if one.status is MISSING]


def test_a_descriptor_is_masked_by_a_link_to_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, host_files() | {"/etc/qemu/firmware/x": "", "/dev/null": None})
    masked = tmp_path / "etc/qemu/firmware" / DESCRIPTOR.rpartition("/")[2]
    masked.symlink_to("/dev/null")  # whether the tree has that device or not
    assert host(tmp_path)["host.descriptor"].status is NOTE
    null, found = Path("/dev/null").stat(), Tree.stat
    monkeypatch.setattr(
        Tree, "stat", lambda self, path: null if path.startswith("/etc/qemu") else found(self, path)
    )
    assert host(tmp_path)["host.descriptor"].status is NOTE


def test_the_running_host_has_no_copy_s_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tree, "live", True)
    gone = {AMDSEV: None, CMDLINE: "quiet", "/etc/modprobe.d/kvm.conf": None}
    lay_out(tmp_path, host_files() | gone)
    found = host(tmp_path)
    assert (found["host.descriptor"].status, found["host.kvm.settings"].status) == (MISSING, OK)
    # A regular file in place of the device: kvm_amd uses ccp, so both are removed first.
    assert found["host.dev-sev"].status is MISSING
    assert found["host.dev-sev"].fix.startswith("reboot, or, with no guest running, `modprobe -r")
    assert found["host.dev-sev.access"].found == "no device /dev/sev"


# /dev/sev as a device: making one needs root, so its stat is made up


def device(mode: int, *, user: int = 0, group: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFCHR | mode, 1, 1, 1, user, group, 0, 0, 0, 0))


@pytest.fixture
def with_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that lays out a host with such a device, and checks it."""

    def look(info: os.stat_result, files: Mapping[str, Content] | None = None) -> Any:
        found = Tree.stat
        monkeypatch.setattr(
            Tree, "stat", lambda self, path: info if path == "/dev/sev" else found(self, path)
        )
        lay_out(tmp_path, host_files() | dict(files or {}))
        return host(tmp_path)

    return look


OLD_LIBVIRT = {STATUS: dpkg({"libvirt-daemon": "5.1.0-1"})}


@pytest.mark.parametrize(
    ("info", "files", "status", "words"),
    [
        (device(0o600), {}, OK, "mode 0600, user 0, group root; libvirt since 5.1.1 opens"),
        (device(0o660, group=108), {}, OK, "group kvm"),
        (device(0o666), {}, NOTE, "every user can use the SEV firmware"),
        (device(0o600), OLD_LIBVIRT, MISSING, "libvirt up to 5.1.0 cannot probe"),
        (device(0o660, group=77), OLD_LIBVIRT, OK, "group 77; libvirt up to 5.1.0 needs"),
        (device(0o600), {STATUS: dpkg({"a": "1"})}, OK, "libvirt since 5.1.1"),
    ],
)
def test_permissions_are_judged_by_the_libvirt_that_is_there(
    with_device: Any, info: os.stat_result, files: dict[str, Content], status: Status, words: str
) -> None:
    found = with_device(info, files)
    assert found["host.dev-sev"].found == "/dev/sev is a character device"
    assert found["host.dev-sev.access"].status is status
    assert words in found["host.dev-sev.access"].found


@pytest.mark.parametrize(
    ("label", "policy", "status", "fix"),
    [
        ("system_u:object_r:sev_device_t:s0", "41.27", OK, ""),
        ("system_u:object_r:device_t:s0", "41.27", MISSING, "`restorecon -v /dev/sev`;"),
        ("system_u:object_r:device_t:s0", "3.14.2-39.fc28", MISSING, "upgrade selinux-policy"),
        ("system_u:object_r:device_t:s0", "3.14.2-40.fc28", MISSING, "`restorecon -v /dev/sev`"),
        ("system_u:object_r:device_t:s0", "3.13.1-268.el7", MISSING, "upgrade selinux-policy"),
        ("system_u:object_r:device_t:s0", "odd", MISSING, "`restorecon -v /dev/sev`"),
    ],
)
def test_the_selinux_label_is_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    label: str,
    policy: str,
    status: Status,
    fix: str,
) -> None:
    monkeypatch.setattr(Tree, "label", lambda _tree, path: label if path == "/dev/sev" else None)
    packages = dpkg({"selinux-policy": policy})
    lay_out(tmp_path, host_files() | {STATUS: packages, "/sys/fs/selinux/enforce": "1"})
    found = host(tmp_path)["host.selinux"]
    assert found.status is status
    assert found.fix.startswith(fix)


def test_an_unknown_label_with_another_policy_package_is_not_told(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files() | {"/sys/fs/selinux/enforce": "1"})
    assert host(tmp_path)["host.selinux"].status is UNKNOWN


# what the running machine adds


REPORTED = PlatformStatus(
    api_major=1,
    api_minor=55,
    build=30,
    state=PlatformState.WORKING,
    externally_owned=False,
    es=True,
    guest_count=3,
)


def leaf(eax: int = 0b11111, *, ecx: int = 509, edx: int = 100) -> bytes:
    return struct.pack("<4I", eax, 51 | 5 << 6, ecx, edx)


def test_the_firmware_itself_tells_its_version(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files())
    found = host(tmp_path, live=Live(platform_status=lambda: REPORTED))["host.firmware"]
    assert found.found == "SEV API 1.55, build 30 (3 SEV guests now)"


def test_firmware_that_does_not_answer_is_not_told(tmp_path: Path) -> None:
    def fail() -> PlatformStatus:
        raise Unreadable("/dev/sev", "Permission denied", hint="run this as root")

    lay_out(tmp_path, host_files())
    live = Live(platform_status=fail)
    assert (
        "SEV API 1.55, build 24 (as the kernel" in host(tmp_path, live=live)["host.firmware"].found
    )
    (tmp_path / "var/log/dmesg").unlink()
    found = host(tmp_path, live=live)["host.firmware"]
    assert (found.status, found.fix) == (UNKNOWN, "run this as root")


def test_the_cpu_itself_tells_its_encryption(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files())
    found = host(tmp_path, live=Live(cpuid=lambda _: leaf()))["host.cpu.encryption"]
    assert (found.status, found.found) == (
        OK,
        "C-bit 51, 5 address bits fewer, with page flush MSR",
    )
    found = host(tmp_path, live=Live(cpuid=lambda _: leaf(0b11011)))["host.cpu.encryption"]
    assert "without page flush MSR" in found.found
    found = host(tmp_path, live=Live(cpuid=lambda _: leaf(0)))["host.cpu.encryption"]
    assert found.status is NOTE


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (leaf(), "410 of SEV, 99 of SEV-ES and SEV-SNP (CPUID 8000001f)"),
        (leaf(edx=0), "509 of SEV, 0 of SEV-ES"),
        (leaf(ecx=5, edx=510), "0 of SEV, 509 of SEV-ES"),
        (leaf(0), "neither a misc cgroup, CPUID nor"),
    ],
)
def test_the_cpu_counts_guests_if_nothing_else_does(
    tmp_path: Path, data: bytes, words: str
) -> None:
    gone = {"/sys/fs/cgroup/misc.capacity": None, "/sys/fs/cgroup/misc.current": None}
    lay_out(tmp_path, host_files() | gone)
    found = host(tmp_path, live=Live(cpuid=lambda _: data))["host.guests"]
    assert words in found.found


def test_the_running_kernel_s_log_comes_before_files(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files())
    log = "Linux version 6\nccp: SEV API:1.56 build:1"
    assert "1.56" in host(tmp_path, live=Live(log=lambda: log))["host.firmware"].found


def test_a_log_that_must_not_be_read_is_not_told(tmp_path: Path) -> None:
    def fail() -> str:
        raise Unreadable("/dev/kmsg", "Operation not permitted", hint="run this as root")

    lay_out(tmp_path, host_files() | {"/var/log/dmesg": None})
    found = host(tmp_path, live=Live(log=fail))["host.firmware"]
    assert (found.status, found.fix) == (UNKNOWN, "run this as root")


# hostile trees


def test_a_hostile_tree_tells_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    """Wherever a check looks, there is a pipe, a loop, a folder or a link out of the tree."""
    paths = [path for path, content in host_files().items() if content is not None]
    for number, path in enumerate([*paths, "/var/log/messages", "/etc/modprobe.d/x.conf"]):
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        match number % 4:
            case 0:
                os.mkfifo(place)
            case 1:
                place.symlink_to(place.name)
            case 2:
                place.mkdir()
            case _:
                place.symlink_to("/" + "../" * 30 + "etc/passwd")
    for need in Need:
        report = inspect_host(Machine(tree=Tree(str(tmp_path))), need)
        assert not report.ready
        assert all(len(one.found) < 700 for one in report.findings)


LINES = [
    "V:1-r0", "vendor_id : AuthenticAMD", "flags : sev hypervisor", "options kvm_amd sev=1",
    "kvm_amd.sev=0 mem_encrypt=on", "P:libvirt", "Package: libvirt", "Version: 1:9.0-1",
    "Status: install ok installed", "Linux version 6.1.0-13 (x)", "SEV API:1.55 build:24",
    "SEV enabled (ASIDs 9 - 1)", "MemTotal: 9 kB", "MemoryMax=5G", "SELINUX=enforcing", "sev 410",
    "Memory Encryption Features active: AMD SEV", "<qemuCaps><sev/></qemuCaps>", descriptor(),
    "btime 5", "sev_es 99", "1",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES) | st.text(max_size=20) | st.just("\n"), max_size=12))
def test_whatever_files_say_is_only_found(lines: list[str]) -> None:
    for report in both_of("\n".join(lines).encode(errors="surrogatepass")):
        assert all(isinstance(one.status, Status) for one in report.findings)


@pytest.mark.parametrize("content", [b"\xff" * 5000, b"\0" * 5000, b"\n" * 5000, b"sev " * 3000])
def test_rubbish_in_every_file_breaks_nothing(tmp_path: Path, content: bytes) -> None:
    lay_out(tmp_path, dict.fromkeys(host_files(), content))
    for need in Need:
        assert not inspect_host(Machine(tree=Tree(str(tmp_path))), need).ready


def test_what_was_found_is_cut_to_a_length(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files() | {CMDLINE: "mem_encrypt=" + "x" * 9000})
    found = host(tmp_path)["host.sme"].found
    assert len(found) == check._MAX_TEXT + 3
    assert found.endswith("...")


def test_the_newest_boot_in_a_log_counts(tmp_path: Path) -> None:
    log = "Linux version 6.1\nSEV API:1.51 build:1\nLinux version 6.1\nSEV API:1.55 build:2\n"
    lay_out(tmp_path, host_files() | {"/var/log/dmesg": log})
    assert "1.55, build 2" in host(tmp_path)["host.firmware"].found
