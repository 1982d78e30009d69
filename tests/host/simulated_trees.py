"""Trees of files as hosts and guests have them, in miniature."""

import json
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from sev_attest.host.inspect import (
    Finding,
    Live,
    Machine,
    Need,
    Report,
    Tree,
    inspect_guest,
    inspect_host,
)
from sev_attest.host.inspect.tree import MAX_FILE, Unreadable

Content = str | bytes | None
"""The text of a file, or None for one that is not there."""
GENERATIONS = {
    "naples": ("AMD EPYC 7351P 16-Core Processor", 23, 1, "sev"),
    "rome": ("AMD EPYC 7402P 24-Core Processor", 23, 49, "sev sev_es"),
    "milan": ("AMD EPYC 7313 16-Core Processor", 25, 1, "sev sev_es sev_snp"),
    "genoa": ("AMD EPYC 9354P 32-Core Processor", 25, 17, "sev sev_es sev_snp"),
    "siena": ("AMD EPYC 8324P 32-Core Processor", 25, 160, "sev sev_es sev_snp"),
    "turin": ("AMD EPYC 9755 128-Core Processor", 26, 2, "sev sev_es sev_snp"),
}
CACHE = "/var/cache/libvirt/qemu/capabilities"
DESCRIPTORS = "/usr/share/qemu/firmware"
AMDSEV = "/usr/share/edk2/ovmf/OVMF.amdsev.fd"
_DPKG = """Package: {}
Status: install ok installed
Maintainer: Somebody <somebody@example.org>
Version: {}
Description: it is
 described: here

"""


def cpuinfo(name: str, family: int, model: int, flags: str, *, vendor: str = "AuthenticAMD") -> str:
    """Return /proc/cpuinfo of two CPUs."""
    one = (
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
        f"model name\t: {name}\nstepping\t: 1\nflags\t\t: fpu svm {flags}\npower management:\n"
    )
    return f"{one}\n{one}\n"


def dpkg(packages: Mapping[str, str]) -> str:
    """Return dpkg's status file."""
    return "".join(_DPKG.format(name, version) for name, version in packages.items())


def descriptor(
    features: Iterable[str] = ("amd-sev", "amd-sev-es"),
    *,
    mapping: Mapping[str, object] | None = None,
    arch: str = "x86_64",
) -> str:
    """Return a firmware descriptor, of a stateless image if ``mapping`` says nothing else."""
    targets = [{"architecture": arch, "machines": ["pc-q35-*"]}]
    where = mapping or {"device": "memory", "filename": AMDSEV}
    return json.dumps({"mapping": where, "targets": targets, "features": list(features)})


def qemu_caps(*, sev: bool, arch: str = "x86_64") -> str:
    """Return a file of libvirt's cache."""
    found = "<sev><cbitpos>51</cbitpos><reducedPhysBits>1</reducedPhysBits></sev>" if sev else ""
    return (
        "<qemuCaps><emulator>/usr/bin/qemu-system-x86_64</emulator><version>7002018</version>"
        f"<arch>{arch}</arch>{found}</qemuCaps>\n"
    )


def host_files(generation: str = "milan") -> dict[str, Content]:
    """Return the files of a host that is ready for all that its CPU can do."""
    name, family, model, flags = GENERATIONS[generation]
    kinds = flags.split()
    return {
        "/proc/cpuinfo": cpuinfo(name, family, model, f"sme {flags}"),
        "/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/vda1 mem_encrypt=on kvm_amd.sev=1\n",
        "/proc/sys/kernel/osrelease": "6.12.38-amd64\n",
        "/proc/meminfo": "MemTotal:       131072000 kB\nMemFree: 1 kB\n",
        "/proc/stat": "cpu 1 2 3\nbtime 1700000000\n",
        "/proc/self/limits": "Limit Soft Hard Units\nMax locked memory  65536  131072  bytes\n",
        "/sys/module/kvm/parameters/x": "1",
        **{f"/sys/module/kvm_amd/parameters/{kind}": "Y\n" for kind in kinds},
        "/sys/fs/cgroup/misc.capacity": "sev 410\nsev_es 99\n",
        "/sys/fs/cgroup/misc.current": "sev 2\nsev_es 0\n",
        "/sys/fs/cgroup/machine.slice/memory.high": "120000000000\n",
        "/dev/sev": "",
        "/dev/kvm": "",
        "/etc/default/grub": '# mem\nGRUB_CMDLINE_LINUX="mem_encrypt=on kvm_amd.sev=1"\n',
        "/etc/modprobe.d/kvm.conf": "options kvm_amd nested=1\n",
        "/etc/group": "root:x:0:\nkvm:x:108:\n",
        "/var/log/dmesg": (
            "[    0.0] Linux version 6.12.38-amd64 (x@y)\n"
            "[    5.0] ccp 0000:22:00.1: SEV API:1.55 build:24\n"
        ),
        "/var/lib/dpkg/status": dpkg(
            {"libvirt-daemon-driver-qemu": "11.3.0-3", "qemu-system-x86": "1:10.0.2+ds-2+deb13u1"}
        ),
        f"{CACHE}/3c76.xml": qemu_caps(sev=True),
        f"{DESCRIPTORS}/60-edk2-x86_64-amdsev.json": descriptor(
            ("amd-sev", "amd-sev-es", "amd-sev-snp")
        ),
        AMDSEV: "firmware",
    }


def guest_files(kinds: str = "SEV") -> dict[str, Content]:
    """Return the files of a guest in which these are active ("SEV SEV-ES SEV-SNP")."""
    return {
        "/proc/cpuinfo": cpuinfo("AMD EPYC-Milan Processor", 25, 1, "hypervisor"),
        "/proc/sys/kernel/osrelease": "6.12.38-amd64\n",
        "/var/log/dmesg": (
            "[    0.0] Linux version 6.12.38-amd64 (x@y)\n"
            f"[    0.5] Memory Encryption Features active: AMD {kinds}\n"
            "[    0.6] software IO TLB: Memory encryption is active and system is using DMA "
            "bounce buffers\n"
        ),
        "/dev/console": "",
        "/sys/module/virtio/refcnt": "1",
        "/sys/module/efi_secret/refcnt": "0",
        "/sys/kernel/security/secrets/coco/736869e5-84f0-4973-92ec-06879ce3da0b": "secret bytes",
        "/sys/kernel/security/secrets/coco/e6f5a162-d67f-4750-a67c-5d065f2a9910": "secret bytes",
    }


def lay_out(root: Path, files: Mapping[str, Content]) -> Path:
    """Write files below a root, and return it."""
    for path, content in files.items():
        if content is not None:
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def host(root: Path, need: Need = Need.SEV, live: Live | None = None) -> dict[str, Finding]:
    """Check a tree as a host, and return the findings by id."""
    report = inspect_host(Machine(tree=Tree(str(root)), live=live or Live()), need)
    return {one.id: one for one in report.findings}


def guest(root: Path, live: Live | None = None) -> dict[str, Finding]:
    """Check a tree as a guest, and return the findings by id."""
    report = inspect_guest(Machine(tree=Tree(str(root)), live=live or Live()))
    return {one.id: one for one in report.findings}


class Everywhere(Tree):
    """A tree in which every file has the same content, and every folder the same names."""

    def __init__(self, content: bytes) -> None:
        super().__init__("/nowhere")
        self.content = content

    def read(self, path: str, most: int = MAX_FILE) -> bytes | None:
        if len(self.content) > most:
            raise Unreadable(path, f"more than {most} bytes")
        return self.content

    def names(self, path: str) -> list[str] | None:
        return ["a.conf", "a.json", "a.xml", "libvirt-1-1"]

    def filled(self, path: str) -> bool:
        return True

    def stat(self, path: str) -> os.stat_result | None:
        return Path(__file__).stat()

    @contextmanager
    def opened(self, path: str) -> Iterator[int | None]:
        yield None  # no database of RPM


def both_of(content: bytes) -> tuple[Report, Report]:
    """Check a host and a guest with this content in every file."""
    machine = Machine(tree=Everywhere(content))
    return inspect_host(machine, Need.SNP), inspect_guest(machine)


def rpm_header(version: str = "10.0.0", release: str = "6.el10", *, name: str = "libvirt") -> bytes:
    """Return a header of RPM's database."""
    entries, data = b"", b""
    for tag, text in ((1000, name), (1001, version), (1002, release)):
        entries += struct.pack(">IIII", tag, 6, len(data), 1)
        data += text.encode() + b"\0"
    entries += struct.pack(">IIII", 1003, 4, len(data), 1)
    data += bytes(4)
    return struct.pack(">II", 4, len(data)) + entries + data


def rpm_database(path: Path, packages: Mapping[str, object], *, wal: bool = False) -> None:
    """Write a database of RPM with these headers by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        if wal:
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        database.execute("CREATE TABLE Name (key TEXT, hnum INTEGER, idx INTEGER)")
        for number, (name, header) in enumerate(packages.items(), 1):
            database.execute("INSERT INTO Packages VALUES (?, ?)", (number, header))
            database.execute("INSERT INTO Name VALUES (?, ?, 0)", (name, number))
        database.commit()
