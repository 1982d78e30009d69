"""Checks inside a guest: that SEV is active, and which secrets arrived.

Sources: AMD APM vol. 2, 15.34.10 (SEV_STATUS MSR); Linux, arch/x86/mm/mem_encrypt.c (kernel log),
Documentation/security/secrets/coco.rst, Documentation/ABI/testing/configfs-tsm.
"""

import re
from collections.abc import Callable

from sev_attest.domain_xml.versions import Version, before
from sev_attest.host.inspect.check import (
    Answer,
    Check,
    Need,
    check,
    missing,
    note,
    ok,
    unknown,
)
from sev_attest.host.inspect.cpu import AMD, encryption
from sev_attest.host.inspect.machine import LOGS, Machine
from sev_attest.host.inspect.tree import Unreadable
from sev_attest.sev.spec import SECRET_LUKS

_SEV_STATUS = 0xC001_0131
_FEATURES = re.compile(
    r"Memory Encryption Features active: (?:AMD )?([A-Z -]*)|SEV: Status: ([A-Z -]*)"
)
"""Linux 5.10 and later; the second line is of later kernels (arch/x86/coco/sev/core.c)."""
_ACTIVE = "AMD Secure Encrypted Virtualization (SEV) active"
"""Linux 4.15 to 5.9."""
_VMPL_LINE = re.compile(r"SNP running at VMPL([0-9])")
_BOUNCE = "Memory encryption is active and system is using DMA bounce buffers"
_SNP_FOLDER = "/sys/devices/system/cpu/sev"
"""Linux makes it in SEV-SNP guests only."""
_SYS = ("/sys",)
_SECURITYFS = "/sys/kernel/security"
_SECRETS = f"{_SECURITYFS}/secrets/coco"
_EFI_SECRET = "/sys/module/efi_secret"  # noqa: S105 - a path
_AREA = "CocoSecret="
"""In the line of the kernel's log that lists the tables of the UEFI firmware."""
_EFI_SECRET_SINCE: Version = (5, 19)
_TSM_SINCE: Version = (6, 7)
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NAMES = {SECRET_LUKS: "luks-key"}
"""Aliases of secrets, as `validate --inject-secret` takes them."""
_MAX_LISTED = 8
_SEV_GUEST = "/dev/sev-guest"
_TSM = "/sys/kernel/config/tsm/report"
_HOW_TO_START = (
    "the guest's owner: add <launchSecurity type='sev'> to its domain, `sev-attest domain prepare` "
    "does"
)
_LOG_FILES = ", ".join(LOGS)
_UNSAID = "neither CPUID nor a kernel log says so"


def active(machine: Machine) -> tuple[frozenset[Need], str] | None:
    """Return what is active, and how that is known; None if nothing says so.

    Raises Unreadable if there are logs, and none can be read.
    """
    for look in (_from_msr, _from_files, _from_log):
        found = look(machine)
        if found is not None:
            return found
    return None


def _from_msr(machine: Machine) -> tuple[frozenset[Need], str] | None:
    if machine.live.msr is None:
        return None
    try:
        can, cpu = encryption(machine), machine.cpu
        # On other CPUs, the register is another one or none.
        if can is None or not can.sev or cpu is None or cpu.vendor != AMD:
            return None
        status = machine.live.msr(_SEV_STATUS)
    except Unreadable:
        return None
    return frozenset(one for one in Need if status >> (one - 1) & 1), "SEV_STATUS MSR"


def _from_files(machine: Machine) -> tuple[frozenset[Need], str] | None:
    for path in (_SNP_FOLDER, _SEV_GUEST):
        if machine.tree.exists(path):
            return frozenset(Need), path
    return None


def _from_log(machine: Machine) -> tuple[frozenset[Need], str] | None:
    if machine.log is None:
        return None
    words: set[str] = set()
    for line in machine.log:
        found = _FEATURES.search(line)
        if found:
            words.update((found[1] or found[2] or "").split())
        elif _ACTIVE in line:
            words.add(Need.SEV.title)
    return frozenset(one for one in Need if one.title in words), "kernel log"


_ACTIVE_READS = (
    f"CPUID 8000001f and MSR c0010131, {_SNP_FOLDER}, {_SEV_GUEST}, /dev/kmsg, {_LOG_FILES}"
)


@check(
    "guest.sev", "SEV is active", _ACTIVE_READS, "guide: Checking SEV from within the guest",
    essential=Need.SEV,
)  # fmt: skip
def sev(machine: Machine, _need: Need) -> Answer:
    """Look for any of the three."""
    found = active(machine)
    if found is None:
        return unknown(
            "neither the CPU nor a kernel log since the boot says so",
            "`dmesg | grep -i sev` as root",
        )
    kinds, source = found
    if kinds:
        return ok(f"{', '.join(one.title for one in sorted(kinds))} active ({source})")
    if machine.flags and "hypervisor" not in machine.flags:
        return missing(f"this is no guest: no hypervisor below it ({source})", _HOW_TO_START)
    return missing(f"this guest runs without SEV ({source})", _HOW_TO_START)


def _kind(kind: Need) -> Callable[[Machine, Need], Answer]:
    def look(machine: Machine, _need: Need) -> Answer:
        found = active(machine)
        if found is None:
            return unknown("as guest.sev")
        if kind in found[0]:
            return ok(f"{kind.title} active ({found[1]})")
        return note(f"{kind.title} is not active ({found[1]})")

    return look


es: Check = check(
    "guest.sev-es", "SEV-ES is active", "as guest.sev", "Linux, arch/x86/mm/mem_encrypt.c",
)(_kind(Need.ES))  # fmt: skip
snp: Check = check(
    "guest.sev-snp", "SEV-SNP is active", "as guest.sev", "Linux, arch/x86/mm/mem_encrypt.c",
)(_kind(Need.SNP))  # fmt: skip


@check(
    "guest.virtual", "there is a hypervisor", "/proc/cpuinfo", "Linux, CPU flag hypervisor",
)  # fmt: skip
def virtual(machine: Machine, _need: Need) -> Answer:
    """Look for the flag that hypervisors set."""
    if machine.cpu is None:
        return unknown("/proc/cpuinfo is missing or empty", "copy /proc/cpuinfo from the guest")
    if "hypervisor" in machine.flags:
        return ok("a hypervisor runs this machine")
    return note("no CPU flag hypervisor: this is a physical machine, or no x86 guest")


@check(
    "guest.encryption", "encryption is in use", "CPUID 8000001f, kernel log",
    "Linux, arch/x86/mm/mem_encrypt.c",
)  # fmt: skip
def in_use(machine: Machine, _need: Need) -> Answer:
    """Look for the C-bit, and for the bounce buffers that devices need with it."""
    try:
        can = encryption(machine)
    except Unreadable:
        can = None
    if can is not None and can.sev:
        return ok(f"the CPU encrypts pages whose bit {can.cbit} is set (C-bit)")
    if any(_BOUNCE in line for line in machine.log or ()):
        return ok("the kernel uses bounce buffers, because memory is encrypted")
    logged = machine.log is not None
    found = "the kernel log does not mention it" if logged else _UNSAID
    return unknown(found, "`dmesg | grep -i encrypt` as root")


@check(
    "guest.vmpl", "the privilege level of the kernel", f"{_SNP_FOLDER}/vmpl, kernel log",
    "Linux, Documentation/ABI/testing/sysfs-devices-system-cpu",
)  # fmt: skip
def vmpl(machine: Machine, _need: Need) -> Answer:
    """Name it; only SEV-SNP has it."""
    level = machine.tree.text(f"{_SNP_FOLDER}/vmpl")
    if level is not None and level.strip() in ("0", "1", "2", "3"):
        return ok(f"VMPL {level.strip()}")
    for line in machine.log or ():
        found = _VMPL_LINE.search(line)
        if found:
            return ok(f"VMPL {found[1]} (kernel log)")
    return note("not told: only SEV-SNP guests have one")


@check(
    "guest.securityfs", "securityfs is mounted, which shows the secrets", _SECURITYFS,
    "Linux, Documentation/security/secrets/coco.rst", within=_SYS,
)  # fmt: skip
def securityfs(machine: Machine, _need: Need) -> Answer:
    """Look for anything in it."""
    if machine.tree.names(_SECURITYFS):
        return ok(f"{_SECURITYFS} is mounted")
    return note(
        f"{_SECURITYFS} is empty or missing", f"`mount -t securityfs securityfs {_SECURITYFS}`"
    )


@check(
    "guest.efi-secret", "the kernel module for secrets is loaded",
    f"{_EFI_SECRET}, {_SECRETS}, kernel log", "Linux, Documentation/security/secrets/coco.rst",
    within=_SYS,
)  # fmt: skip
def efi_secret(machine: Machine, _need: Need) -> Answer:
    """Look for the module, and whether the firmware has handed over an area for secrets."""
    if machine.tree.exists(_EFI_SECRET) or machine.tree.exists(_SECRETS):
        return ok("efi_secret is there")
    if before(machine.kernel, _EFI_SECRET_SINCE):
        return note("this kernel has no efi_secret", "boot a kernel of 5.19 or later")
    if any(_AREA in line for line in machine.log or ()):
        what = "the firmware has an area for secrets, and efi_secret is not loaded"
        return note(what, "`modprobe efi_secret` (CONFIG_EFI_SECRET)")
    return note(
        "efi_secret is not loaded",
        "`modprobe efi_secret`; it does not load if the firmware has no area for secrets",
    )


@check(
    "guest.secrets", "the injected secrets, by GUID; their bytes are never read", _SECRETS,
    "Linux, Documentation/security/secrets/coco.rst", within=_SYS,
)  # fmt: skip
def secrets(machine: Machine, _need: Need) -> Answer:
    """List the names of the files."""
    names = machine.tree.names(_SECRETS)
    if names is None:
        return note(f"no {_SECRETS}", "see guest.securityfs and guest.efi-secret")
    found = [name for name in names if _GUID.fullmatch(name)]
    if not found:
        return note("no secret is there: none was injected, or they were removed already")
    listed = [f"{name} ({NAMES[name]})" if name in NAMES else name for name in found]
    more = f" and {len(found) - _MAX_LISTED} more" if found[_MAX_LISTED:] else ""
    return ok(f"{', '.join(listed[:_MAX_LISTED])}{more}")


@check(
    "guest.sev-guest", "the device for attestation reports of SEV-SNP", _SEV_GUEST,
    "Linux, Documentation/virt/coco/sev-guest.rst", within=("/dev",),
)  # fmt: skip
def sev_guest(machine: Machine, _need: Need) -> Answer:
    """Look for it."""
    if machine.tree.exists(_SEV_GUEST):
        return ok(f"{_SEV_GUEST} is there")
    return note(f"no {_SEV_GUEST}: only SEV-SNP guests have it", "in one, `modprobe sev-guest`")


@check(
    "guest.tsm", "the kernel's common interface for reports (configfs-tsm)", _TSM,
    "Linux, Documentation/ABI/testing/configfs-tsm", within=_SYS,
)  # fmt: skip
def tsm(machine: Machine, _need: Need) -> Answer:
    """Look for its folder."""
    if machine.tree.exists(_TSM):
        return ok(f"{_TSM} is there")
    if before(machine.kernel, _TSM_SINCE):
        return note("this kernel has no configfs-tsm", "boot a kernel of 6.7 or later")
    return note(
        f"no {_TSM}: only SEV-SNP guests have it",
        "in one, `mount -t configfs configfs /sys/kernel/config && modprobe sev-guest`",
    )


@check(
    "guest.container", "this is the guest itself, not a container in it",
    "/run/.containerenv, /.dockerenv, /run/systemd/container, /proc/1/environ",
    "what the other checks can see", within=("/proc", "/run"),
)  # fmt: skip
def container(machine: Machine, _need: Need) -> Answer:
    """Look for the marks of containers."""
    if machine.container:
        found = f"inside a container ({machine.container}), which may hide devices and secrets"
        return note(found, "run this in the guest itself")
    return ok("no sign of a container")


ACTIVE: tuple[Check, ...] = (sev, es, snp, virtual, in_use, vmpl)
SECRETS: tuple[Check, ...] = (securityfs, efi_secret, secrets)
REPORTS: tuple[Check, ...] = (sev_guest, tsm)
PLACE: tuple[Check, ...] = (container,)
