"""host/inspect/inside.py: what a guest's own files say: OK, missing, and cannot tell."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sev_attest.host.inspect import GUEST, Live, Machine, Status, Tree, inside, inspect_guest
from sev_attest.host.inspect.tree import Unreadable
from sev_attest.sev.secret import ALIASES
from simulated_trees import Content, cpuinfo, guest, guest_files, host_files, lay_out
from test_inspect_host import ARM, leaf

OK, MISSING, UNKNOWN, NOTE = Status
LOG = "/var/log/dmesg"
COCO = "/sys/kernel/security/secrets/coco"
LUKS = "736869e5-84f0-4973-92ec-06879ce3da0b"
OTHER = "e6f5a162-d67f-4750-a67c-5d065f2a9910"
BOOT = "[    0.0] Linux version 6.12.38 (x@y)\n"
NO_SECRETS: dict[str, Content] = {
    f"{COCO}/{LUKS}": None,
    f"{COCO}/{OTHER}": None,
    "/sys/module/efi_secret/refcnt": None,
}
PLAIN = {LOG: f"{BOOT}[    0.1] quiet\n"}


@dataclass
class Case:
    """What one check finds in a tree that differs from a plain SEV guest's."""

    name: str
    id: str
    status: Status
    found: str
    files: Mapping[str, Content] = field(default_factory=dict)
    fix: str = ""


SNP_LOG = {LOG: f"{BOOT}SEV: Status: SEV SEV-ES SEV-SNP \nSEV: SNP running at VMPL2.\n"}
RELEASE = "/proc/sys/kernel/osrelease"
CASES = [
    Case("new", "guest.sev", OK, "SEV active (kernel log)"),
    Case("es", "guest.sev", OK, "SEV, SEV-ES active",
         {LOG: f"{BOOT}AMD Memory Encryption Features active: SEV SEV-ES\n"}),
    Case("old", "guest.sev", OK, "SEV active",
         {LOG: f"{BOOT}AMD Secure Encrypted Virtualization (SEV) active\n"}),
    Case("status", "guest.sev", OK, "SEV, SEV-ES, SEV-SNP active (kernel log)", SNP_LOG),
    Case("sysfs", "guest.sev", OK, "SEV-SNP active (/sys/devices/system/cpu/sev)",
         {LOG: None, "/sys/devices/system/cpu/sev/vmpl": "0\n"}),
    Case("device", "guest.sev", OK, "SEV-SNP active (/dev/sev-guest)",
         {LOG: None, "/dev/sev-guest": ""}),
    Case("messages", "guest.sev", OK, "SEV active",
         {LOG: None, "/var/log/messages": f"{BOOT}Memory Encryption Features active: AMD SEV\n"}),
    Case("plain", "guest.sev", MISSING, "this guest runs without SEV (kernel log)", PLAIN,
         "<launchSecurity type='sev'>"),
    Case("sme", "guest.sev", MISSING, "this is no guest: no hypervisor below it",
         {LOG: f"{BOOT}Memory Encryption Features active: AMD SME\n",
          "/proc/cpuinfo": host_files()["/proc/cpuinfo"]}),
    Case("tdx", "guest.sev", MISSING, "runs without SEV",
         {LOG: f"{BOOT}Memory Encryption Features active: Intel TDX\n"}),
    Case("no-cpu", "guest.sev", MISSING, "runs without SEV", PLAIN | {"/proc/cpuinfo": None}),
    Case("no-log", "guest.sev", UNKNOWN, "neither the CPU nor a kernel log", {LOG: None}, "dmesg"),
    Case("rotated", "guest.sev", UNKNOWN, "neither", {LOG: "[ 9.9] late\n"}),
    Case("earlier", "guest.sev", MISSING, "runs without SEV",
         {LOG: f"Memory Encryption Features active: AMD SEV\n{BOOT}"}),
    Case("rubbish", "guest.sev", UNKNOWN, "neither", {LOG: b"\xff\0" * 999}),
    Case("folder", "guest.sev", UNKNOWN, "/var/log/dmesg: is a folder",
         {LOG: None, f"{LOG}/x": ""}),
    Case("es", "guest.sev-es", OK, "SEV-ES active", SNP_LOG),
    Case("es", "guest.sev-es", NOTE, "SEV-ES is not active (kernel log)"),
    Case("es", "guest.sev-es", UNKNOWN, "as guest.sev", {LOG: None}),
    Case("snp", "guest.sev-snp", OK, "SEV-SNP active", SNP_LOG),
    Case("snp", "guest.sev-snp", NOTE, "SEV-SNP is not active"),
    Case("vm", "guest.virtual", OK, "a hypervisor runs this machine"),
    Case("metal", "guest.virtual", NOTE, "physical machine",
         {"/proc/cpuinfo": host_files()["/proc/cpuinfo"]}),
    Case("arm", "guest.virtual", NOTE, "no x86 guest", {"/proc/cpuinfo": ARM}),
    Case("none", "guest.virtual", UNKNOWN, "missing", {"/proc/cpuinfo": None}, "copy"),
    Case("bounce", "guest.encryption", OK, "bounce buffers"),
    Case("none", "guest.encryption", UNKNOWN, "the kernel log does not mention it", PLAIN, "dmesg"),
    Case("no-log", "guest.encryption", UNKNOWN, "neither CPUID nor a kernel log says so",
         {"/var/log/dmesg": None}, "dmesg"),
    Case("sysfs", "guest.vmpl", OK, "VMPL 1", {"/sys/devices/system/cpu/sev/vmpl": "1\n"}),
    Case("log", "guest.vmpl", OK, "VMPL 2 (kernel log)", SNP_LOG),
    Case("none", "guest.vmpl", NOTE, "only SEV-SNP", {"/sys/devices/system/cpu/sev/vmpl": "x"}),
    Case("mounted", "guest.securityfs", OK, "is mounted"),
    Case("none", "guest.securityfs", NOTE, "is empty or missing", NO_SECRETS, "mount -t security"),
    Case("module", "guest.efi-secret", OK, "efi_secret is there"),
    Case("built-in", "guest.efi-secret", OK, "is there", {"/sys/module/efi_secret/refcnt": None}),
    Case("old", "guest.efi-secret", NOTE, "this kernel has no efi_secret",
         NO_SECRETS | {RELEASE: "5.10.0-30-amd64"}, "5.19"),
    Case("area", "guest.efi-secret", NOTE, "the firmware has an area for secrets",
         NO_SECRETS | {LOG: f"{BOOT}efi: ACPI=0x1 CocoSecret=0x7e9f SMBIOS=0x2\n"},
         "`modprobe efi_secret` (CONFIG_EFI_SECRET)"),
    Case("none", "guest.efi-secret", NOTE, "is not loaded", NO_SECRETS, "modprobe efi_secret"),
    Case("names", "guest.secrets", OK, f"{LUKS} (luks-key), {OTHER}"),
    Case("many", "guest.secrets", OK, " and 4 more",
         {f"{COCO}/{number:08x}-1111-2222-3333-444444444444": "" for number in range(10)}),
    Case("none", "guest.secrets", NOTE, "no secret is there", NO_SECRETS | {f"{COCO}/README": ""}),
    Case("nowhere", "guest.secrets", NOTE, f"no {COCO}", NO_SECRETS, "guest.efi-secret"),
    Case("file", "guest.secrets", UNKNOWN, "Not a directory", NO_SECRETS | {COCO: "x"}),
    Case("there", "guest.sev-guest", OK, "/dev/sev-guest is there", {"/dev/sev-guest": ""}),
    Case("none", "guest.sev-guest", NOTE, "only SEV-SNP guests", fix="modprobe sev-guest"),
    Case("there", "guest.tsm", OK, "is there", {"/sys/kernel/config/tsm/report/x": ""}),
    Case("none", "guest.tsm", NOTE, "only SEV-SNP guests", fix="mount -t configfs"),
    Case("old", "guest.tsm", NOTE, "this kernel has no", {RELEASE: "6.1.0"}, "6.7"),
    Case("none", "guest.container", OK, "no sign"),
    Case("podman", "guest.container", NOTE, "container (podman)", {"/run/.containerenv": ""}),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.id}-{case.name}-{case.status.name}"
)
def test_a_check_finds(tmp_path: Path, case: Case) -> None:
    lay_out(tmp_path, guest_files() | dict(case.files))
    found = guest(tmp_path)[case.id]
    assert (found.status, found.found) == (case.status, found.found)
    assert case.found in found.found
    assert case.fix in found.fix


def test_every_check_has_cases_and_an_id_of_its_own() -> None:
    checks = [each for group in GUEST.values() for each in group]
    assert len({each.id for each in checks}) == len(checks)
    for each in checks:
        assert re.fullmatch(r"guest(\.[a-z0-9-]+)+", each.id)
        assert len({case.status for case in CASES if case.id == each.id}) > 1, each.id


@pytest.mark.parametrize("kinds", ["SEV", "SEV SEV-ES", "SEV SEV-ES SEV-SNP"])
def test_a_guest_with_sev_is_fine(tmp_path: Path, kinds: str) -> None:
    lay_out(tmp_path, guest_files(kinds))
    report = inspect_guest(Machine(tree=Tree(str(tmp_path))))
    assert report.ready
    assert report.findings[0].found == f"{', '.join(kinds.split())} active (kernel log)"


def test_a_host_is_no_guest(tmp_path: Path) -> None:
    lay_out(tmp_path, host_files())
    report = inspect_guest(Machine(tree=Tree(str(tmp_path))))
    assert [one.id for one in report.missing] == ["guest.sev"]
    assert "this is no guest" in report.missing[0].found


def test_an_empty_tree_is_not_shown_to_be_a_guest(tmp_path: Path) -> None:
    report = inspect_guest(Machine(tree=Tree(str(tmp_path))))
    assert not report.ready
    assert [one.id for one in report.untold] == ["guest.sev"]
    told = {one.id for one in report.findings if one.status is not UNKNOWN}
    assert told == {"guest.vmpl"}


def test_the_bytes_of_secrets_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    opened = Tree.opened

    def note(tree: Tree, path: str) -> object:
        read.append(path)
        return opened(tree, path)

    monkeypatch.setattr(Tree, "opened", note)
    lay_out(tmp_path, guest_files())
    assert guest(tmp_path)["guest.secrets"].status is OK
    assert "/proc/cpuinfo" in read
    assert not [path for path in read if "coco" in path]


def test_the_aliases_are_those_of_the_secrets() -> None:
    assert {name: guid for guid, name in inside.NAMES.items()} == ALIASES


# what the running guest adds


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0b111, "SEV, SEV-ES, SEV-SNP active (SEV_STATUS MSR)"),
        (0b011, "SEV, SEV-ES active"),
        (0b001, "SEV active (SEV_STATUS MSR)"),
        (0b000, "runs without SEV (SEV_STATUS MSR)"),
    ],
)
def test_the_msr_tells_what_is_active(tmp_path: Path, status: int, words: str) -> None:
    lay_out(tmp_path, guest_files())
    asked: list[int] = []

    def msr(number: int) -> int:
        asked.append(number)
        return status

    found = guest(tmp_path, Live(cpuid=lambda _: leaf(), msr=msr))
    assert words in found["guest.sev"].found
    assert set(asked) == {0xC0010131}
    assert found["guest.encryption"].found == "the CPU encrypts pages whose bit 51 is set (C-bit)"


def test_the_msr_of_another_cpu_is_not_read(tmp_path: Path) -> None:
    def msr(_number: int) -> int:
        raise AssertionError

    intel = cpuinfo("Intel(R) Xeon(R)", 6, 106, "hypervisor", vendor="GenuineIntel")
    for files, data in (({"/proc/cpuinfo": intel}, leaf()), ({}, leaf(0))):
        lay_out(tmp_path, guest_files() | files)
        found = guest(tmp_path, Live(cpuid=lambda _, data=data: data, msr=msr))  # type: ignore[misc]
        assert found["guest.sev"].found == "SEV active (kernel log)"
    (tmp_path / "proc/cpuinfo").unlink()
    found = guest(tmp_path, Live(cpuid=lambda _: leaf(), msr=msr))
    assert found["guest.sev"].status is OK
    assert guest(tmp_path, Live(msr=msr))["guest.sev"].status is OK


def test_who_may_not_ask_the_cpu_has_the_log(tmp_path: Path) -> None:
    def fail(_number: int) -> bytes:
        raise Unreadable("/dev/cpu/0/cpuid", "Permission denied")

    lay_out(tmp_path, guest_files())
    found = guest(tmp_path, Live(cpuid=fail, msr=lambda _: 0))
    assert found["guest.sev"].found == "SEV active (kernel log)"
    assert "bounce buffers" in found["guest.encryption"].found
