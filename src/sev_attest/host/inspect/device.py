"""Checks of /dev/sev, the SEV firmware behind it, and how many guests it allows."""

import re
import stat
from collections.abc import Iterable

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
from sev_attest.host.inspect.cpu import encryption, generation
from sev_attest.host.inspect.machine import Machine, version_of
from sev_attest.host.inspect.tree import Unreadable
from sev_attest.host.inspect.virt import LIBVIRT

_DEVICE = "/dev/sev"
_LABEL = "sev_device_t"
"""The type that selinux-policy gives the device, since 3.14.2.40 (libvirt's guide)."""
_POLICY: Version = (3, 14, 2, 40)
_OPENS_ITSELF: Version = (5, 1, 1)
"""The first libvirt that opens /dev/sev whatever its permissions are (libvirt's guide)."""
_API = re.compile(r"SEV(?:-SNP)? API:([0-9]{1,3})\.([0-9]{1,3}) build:([0-9]{1,3})")
_CAPACITY = "/sys/fs/cgroup/misc.capacity"
_CURRENT = "/sys/fs/cgroup/misc.current"
_ASIDS = re.compile(
    r"\b(SEV|SEV-ES) "
    r"(?:supported: ([0-9]{1,9}) ASIDs|enabled \(ASIDs ([0-9]{1,9}) - ([0-9]{1,9})\))"
)
"""What kvm_amd logs: the count, or, in later kernels, the first and the last."""
_KINDS = {"SEV": "sev", "SEV-ES": "sev_es"}
"""Names in the misc cgroup."""
_LINE = 1000
"""Characters of a log line that are looked at."""
_ASID_SETTING = (
    "in the BIOS setup, set the minimum SEV ASID (SEV-ES ASID space limit): guests of SEV-ES and "
    "SEV-SNP get the numbers below it, plain SEV guests the rest"
)
_ABSENT = missing(
    f"no {_DEVICE}",
    "enable SEV in the BIOS setup, then `modprobe ccp`; `dmesg | grep -iE 'ccp|sev'` says why not",
    absent=True,
)

_LIST = f"`ls -l {_DEVICE}` on the host"
# kvm_amd uses ccp, so they are removed together.
_REMAKE = (
    f"reboot, or, with no guest running, `modprobe -r kvm_amd ccp && rm {_DEVICE} && "
    "modprobe -a ccp kvm_amd`"
)


@check(
    "host.dev-sev", "the device of the SEV firmware is there", _DEVICE,
    "guide: /dev/sev; virt-host-validate", essential=Need.SEV,
    within=("/dev",),
)  # fmt: skip
def device(machine: Machine, _need: Need) -> Answer:
    """Look for a character device."""
    info = machine.tree.stat(_DEVICE)
    if info is None:
        return _ABSENT
    if stat.S_ISREG(info.st_mode) and not machine.tree.live:
        return ok(f"{_DEVICE} is there: in this tree, a file stands for the device")
    if not stat.S_ISCHR(info.st_mode):
        fix = _REMAKE if machine.tree.live else "copy it as a regular file"
        return missing(f"{_DEVICE} is no character device", fix)
    return ok(f"{_DEVICE} is a character device")


@check(
    "host.dev-sev.access", "QEMU can open /dev/sev, or libvirt opens it", _DEVICE,
    "guide: libvirt up to 5.1.0 and the permissions; sevctl ok: /dev/sev readable, writable",
    within=("/dev",),
)  # fmt: skip
def access(machine: Machine, _need: Need) -> Answer:
    """Compare the permissions with what the installed libvirt needs."""
    info = machine.tree.stat(_DEVICE)
    if info is not None and stat.S_ISREG(info.st_mode) and not machine.tree.live:
        found = f"in this tree, a file stands for {_DEVICE}: it has no permissions to judge"
        return unknown(found, _LIST)
    if info is None or not stat.S_ISCHR(info.st_mode):
        return unknown(f"no device {_DEVICE}", _LIST)
    group = _group(machine, info.st_gid)
    found = f"mode {stat.S_IMODE(info.st_mode):04o}, user {info.st_uid}, group {group}"
    everyone = info.st_mode & (stat.S_IROTH | stat.S_IWOTH)
    package = machine.packages.first(LIBVIRT)
    libvirt = version_of(package.version) if package else None
    if everyone:
        return note(f"{found}: every user can use the SEV firmware", f"`chmod 0660 {_DEVICE}`")
    if not before(libvirt, _OPENS_ITSELF):
        return ok(f"{found}; libvirt since 5.1.1 opens it for QEMU")
    shared = info.st_gid and info.st_mode & (stat.S_IRGRP | stat.S_IWGRP)
    if shared:
        return ok(f"{found}; libvirt up to 5.1.0 needs QEMU's user in that group")
    fix = f"upgrade libvirt to 5.1.1 or later, or `chgrp kvm {_DEVICE} && chmod 0660 {_DEVICE}`"
    return missing(f"{found}: libvirt up to 5.1.0 cannot probe for SEV", fix)


def _group(machine: Machine, number: int) -> str:
    """Return the name of a group in the tree's /etc/group, or its number."""
    for line in (machine.tree.text("/etc/group") or "").splitlines():
        name, *rest = line.split(":")
        if rest[1:2] == [str(number)]:
            return name
    return str(number)


@check(
    "host.selinux", "SELinux lets QEMU use /dev/sev",
    "label of /dev/sev, /sys/fs/selinux/enforce, /etc/selinux/config, selinux-policy",
    "guide: Limitations", within=("/etc", "/sys/fs"),
)  # fmt: skip
def selinux(machine: Machine, _need: Need) -> Answer:
    """Compare the label of the device with the one that selinux-policy gives it."""
    if not _enforcing(machine):
        return ok("SELinux does not enforce anything here")
    label = machine.tree.label(_DEVICE)
    if label and f":{_LABEL}" in label:
        return ok(f"{_DEVICE} has the label {label}")
    package = machine.packages.first(["selinux-policy"])
    old = package is not None and before(_with_release(package.whole), _POLICY)
    fix = "upgrade selinux-policy to 3.14.2.40 or later, then " if old else ""
    fix += f"`restorecon -v {_DEVICE}`; `ausearch -m avc -c qemu-kvm | audit2allow` shows refusals"
    if label:
        return missing(f"{_DEVICE} has the label {label}, not {_LABEL}", fix)
    if old:
        return missing("selinux-policy is older than 3.14.2.40, which labels /dev/sev", fix)
    return unknown(
        f"SELinux is enforcing, and the label of {_DEVICE} is not known", f"`ls -Z {_DEVICE}`"
    )


def _with_release(whole: str) -> Version | None:
    """Return a version with its release, as the guide counts: 3.14.2-40.fc28 is 3.14.2.40."""
    return version_of(re.split(r"[^0-9.]", whole.replace("-", "."), maxsplit=1)[0].strip("."))


def _enforcing(machine: Machine) -> bool:
    now = machine.tree.text("/sys/fs/selinux/enforce")
    if now is not None:
        return now.strip() == "1"
    lines = (machine.tree.text("/etc/selinux/config") or "").splitlines()
    return any(line.replace(" ", "") == "SELINUX=enforcing" for line in lines)


@check(
    "host.firmware", "the version of the SEV firmware",
    "/dev/sev (PLATFORM_STATUS), or `SEV API:` in the kernel's log", "`virsh domlaunchsecinfo`",
)  # fmt: skip
def firmware(machine: Machine, _need: Need) -> Answer:
    """Ask the firmware, or look at what the kernel said when it started it."""
    refused: Unreadable | None = None
    if machine.live.platform_status is not None and machine.tree.exists(_DEVICE):
        try:
            status = machine.live.platform_status()
        except Unreadable as error:
            refused = error
        else:
            said = f"{status.guest_count} SEV guests now"
            return _firmware(machine, (status.api_major, status.api_minor, status.build), said)
    for line in reversed(machine.log or ()):
        found = _API.search(line)
        if found:
            numbers = (int(found[1]), int(found[2]), int(found[3]))
            return _firmware(machine, numbers, "as the kernel logged it")
    if refused is not None:
        raise refused
    return unknown(
        "neither /dev/sev nor a kernel log says which",
        "`sev-attest host status` as root, or `dmesg | grep 'SEV.* API:'`",
    )


def _firmware(machine: Machine, numbers: tuple[int, int, int], said: str) -> Answer:
    major, minor, build = numbers
    made = generation(machine.cpu) if machine.cpu else None
    options = f"--generation {made} " if made else ""
    return note(
        f"SEV API {major}.{minor}, build {build} ({said})",
        f"`sev-attest advisories {options}--api {major}.{minor} --build {build}` lists its known "
        "weaknesses",
    )


@check(
    "host.guests", "there are ASIDs for the guests",
    "/sys/fs/cgroup/misc.capacity, misc.current, CPUID 8000001f, kernel log",
    "sevctl ok: Number of encrypted guests, Minimum ASID; `virsh nodesevinfo`",
)  # fmt: skip
def guests(machine: Machine, need: Need) -> Answer:
    """Count them: SEV-SNP guests use those of SEV-ES."""
    counts, source = _capacity(machine)
    if not counts:
        what = "neither a misc cgroup, CPUID nor a kernel log says how many"
        return unknown(what, "`virsh nodesevinfo`")
    used = _counts((machine.tree.text(_CURRENT) or "").splitlines())
    parts = [
        f"{counts.get(name, 0)} of {title}" + (f" ({used[name]} in use)" if name in used else "")
        for name, title in (("sev", "SEV"), ("sev_es", "SEV-ES and SEV-SNP"))
    ]
    found = f"{', '.join(parts)} ({source})"
    wanted = "sev" if need is Need.SEV else "sev_es"
    if not counts.get(wanted):
        return missing(found, _ASID_SETTING)
    return ok(found) if all(map(counts.get, _KINDS.values())) else note(found, _ASID_SETTING)


def _capacity(machine: Machine) -> tuple[dict[str, int], str]:
    """Return how many guests of each kind there can be, and where that is from."""
    counts = _counts((machine.tree.text(_CAPACITY) or "").splitlines())
    if counts:
        return counts, _CAPACITY
    for line in machine.log or ():
        found = _ASIDS.search(line[:_LINE])
        if found:
            several = int(found[2] or 0) or int(found[4] or 0) - int(found[3] or 0) + 1
            counts[_KINDS[found[1]]] = max(several, 0)
    if counts:
        return counts, "kernel log"
    asked = encryption(machine)
    if asked is not None and asked.sev:
        es = max(asked.min_sev_asid - 1, 0)
        return {"sev": max(asked.guests - es, 0), "sev_es": es}, "CPUID 8000001f"
    return {}, ""


def _counts(lines: Iterable[str]) -> dict[str, int]:
    """Return the numbers of a misc cgroup file: "sev 410", "sev_es 99"."""
    rows = [line.split() for line in lines]
    return {
        row[0]: int(row[1])
        for row in rows
        if len(row) == 2 and row[0] in _KINDS.values() and re.fullmatch(r"[0-9]{1,9}", row[1])  # noqa: PLR2004 - name, number
    }


@check(
    "host.container", "this is the host itself, not a container or a virtual machine",
    "/run/.containerenv, /.dockerenv, /run/systemd/container, /proc/1/environ, /proc/cpuinfo",
    "what the other checks can see", within=("/proc", "/run"),
)  # fmt: skip
def container(machine: Machine, _need: Need) -> Answer:
    """Look for the marks of containers, and the hypervisor's CPU flag."""
    if machine.container:
        return note(
            f"inside a container ({machine.container}): what it hides counts as unknown",
            "run this on the host itself",
        )
    if "hypervisor" in machine.flags:
        return note("this is a virtual machine", "SEV guests need the physical host")
    return ok("no sign of a container or a hypervisor")


CHECKS: tuple[Check, ...] = (device, access, selinux, firmware, guests)
PLACE: tuple[Check, ...] = (container,)
