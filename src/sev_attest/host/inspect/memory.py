"""Checks of the host's memory: SEV guests lock theirs, so something else must limit them."""

import re
from collections.abc import Iterator

from sev_attest.host.inspect.check import Answer, Check, Need, check, note, ok, unknown
from sev_attest.host.inspect.machine import Machine

_CGROUP = "/sys/fs/cgroup/machine.slice"
_LIMITS = {"MemoryHigh": f"{_CGROUP}/memory.high", "MemoryMax": f"{_CGROUP}/memory.max"}
_DROP_INS = tuple(
    f"{folder}/machine.slice.d"
    for folder in (
        "/etc/systemd/system.control", "/run/systemd/system.control", "/etc/systemd/system",
        "/run/systemd/system", "/usr/lib/systemd/system",
    )
)  # fmt: skip
# Others write these files: the quantifiers are possessive, so no pattern backtracks.
_SETTING = re.compile(r"\s*+(MemoryHigh|MemoryMax)\s*+=\s*+(\S*+)\s*+")
_NO_LIMIT = ("max", "infinity", "")
_TOTAL = re.compile(r"^MemTotal:\s++([0-9]{1,15}) kB", re.MULTILINE)
_LOCKED = re.compile(r"^Max locked memory\s++(\S++)\s++(\S++)", re.MULTILINE)
_GIB = 1 << 30
_SET = (
    "`systemctl set-property machine.slice MemoryHigh={0}`; with MemoryMax={0}, guests above it "
    "are killed"
)


def total(machine: Machine) -> int | None:
    """Return the host's memory in bytes, None if it is not known."""
    found = _TOTAL.search(machine.tree.text("/proc/meminfo") or "")
    return int(found[1]) * 1024 if found else None


def _suggested(machine: Machine) -> str:
    """Return a limit that leaves a tenth of the memory to the host itself."""
    found = total(machine)
    return f"{found * 9 // 10 // _GIB}G" if found and found >= 2 * _GIB else "<value>"


@check("host.memory", "how much memory the host has", "/proc/meminfo", "guide: Memory")
def memory(machine: Machine, _need: Need) -> Answer:
    """Name it: guests pin all of theirs."""
    found = total(machine)
    if found is None:
        return unknown("/proc/meminfo does not say", "`free -h`")
    return ok(f"{found / _GIB:.1f} GiB; SEV guests pin all of their memory")


@check(
    "host.memory.limit", "machine.slice limits the memory of all guests together",
    "/sys/fs/cgroup/machine.slice/memory.{high,max}, drop-ins of systemd for machine.slice",
    "guide: Memory, MemoryHigh and MemoryMax", within=("/sys/fs/cgroup", "/etc"),
)  # fmt: skip
def limit(machine: Machine, _need: Need) -> Answer:
    """Look for a limit in force, then for one that systemd will set."""
    for name, path in _LIMITS.items():
        value = (machine.tree.text(path) or "").strip()
        if value not in _NO_LIMIT:
            return ok(f"{name} of machine.slice is {value} bytes")
    for name, value, path in _drop_ins(machine):
        if value not in _NO_LIMIT:
            return ok(f"{name}={value} in {path}")
    return note(
        "machine.slice has no limit: a malicious QEMU with <locked/> memory can lock all of it",
        _SET.format(_suggested(machine)),
    )


def _drop_ins(machine: Machine) -> Iterator[tuple[str, str, str]]:
    for folder in _DROP_INS:
        for file in machine.tree.names(folder) or ():
            if file.endswith(".conf"):
                path = f"{folder}/{file}"
                for line in (machine.tree.text(path) or "").splitlines():
                    found = _SETTING.fullmatch(line)
                    if found:
                        yield found[1], found[2], path


@check(
    "host.memory.locked", "the limit on locked memory", "/proc/self/limits",
    "guide: Memory, <locked/> and hard_limit; sevctl ok: memlock limit",
)  # fmt: skip
def locked(machine: Machine, _need: Need) -> Answer:
    """Name it; libvirt sets each guest's own, from its XML."""
    found = _LOCKED.search(machine.tree.text("/proc/self/limits") or "")
    here = f"soft {found[1]}, hard {found[2]} bytes for this process; " if found else ""
    return note(
        f"{here}libvirt sets it for each guest, from <locked/> or <hard_limit> in its XML",
        "`sev-attest domain check` looks for them",
    )


CHECKS: tuple[Check, ...] = (memory, limit, locked)
