"""Checks of the virtualization stack: libvirt, QEMU, and what libvirt caches of it.

Versions are those of the package database; no program of the tree is run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sev_attest.domain_xml.versions import Version, before, dotted
from sev_attest.domain_xml.xml import Document, short
from sev_attest.errors import MalformedInput
from sev_attest.host.inspect.check import (
    Answer,
    Check,
    Need,
    Status,
    check,
    missing,
    note,
    ok,
    unknown,
)
from sev_attest.host.inspect.machine import Machine, version_of
from sev_attest.host.inspect.tree import MAX_FILE, Unreadable

LIBVIRT = ("libvirt-daemon-driver-qemu", "libvirt-daemon", "libvirt", "libvirt0", "libvirt-libs")
"""Packages with libvirt's version; the first has the driver that starts guests."""
_LIBVIRTD = ("/usr/sbin/libvirtd", "/usr/sbin/virtqemud", "/usr/bin/libvirtd", "/usr/bin/virtqemud",
             "/usr/local/sbin/libvirtd", "/usr/local/sbin/virtqemud")  # fmt: skip
QEMU = ("qemu-system-x86", "qemu-system-x86-core", "qemu-kvm-core", "qemu-kvm", "qemu-x86",
        "qemu-system-x86_64")  # fmt: skip
_QEMU_PROGRAMS = ("/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm",
                  "/usr/local/bin/qemu-system-x86_64")  # fmt: skip
_LIBVIRT_LEAST: dict[Need, Version] = {Need.SEV: (4, 5), Need.ES: (4, 5), Need.SNP: (10, 5)}
_QEMU_LEAST: dict[Need, Version] = {Need.SEV: (2, 12), Need.ES: (6, 0), Need.SNP: (9, 1)}
"""Sources: libvirt's guide and NEWS, QEMU's change logs."""
_RECOMMENDED: Version = (5, 1, 1)
_REPROBES: Version = (6, 5)
"""The first libvirt that notices that SEV was turned on (libvirt's guide)."""
CACHE = "/var/cache/libvirt/qemu/capabilities"
_MAX_CACHED = 64
"""Files of the cache that are looked at: one for each QEMU binary."""
_BOOTED = re.compile(r"^btime ([0-9]{1,12})$", re.MULTILINE)
_PARAMETER = "sev"
_CLEAN = (
    f"`systemctl stop libvirtd.service && rm -f {CACHE}/* && systemctl start libvirtd.service` "
    "(or virtqemud.service)"
)
_ASK = "`virsh domcapabilities | sev-attest domain capabilities -`"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """A program of the stack: its packages, its files, and the least versions."""

    name: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    least: dict[Need, Version]
    asked: str
    """The command that prints its version."""


_PROGRAMS = {
    "libvirt": _Program(
        name="libvirt",
        packages=LIBVIRT,
        files=_LIBVIRTD,
        least=_LIBVIRT_LEAST,
        asked="virsh version",
    ),
    "QEMU": _Program(
        name="QEMU",
        packages=QEMU,
        files=_QEMU_PROGRAMS,
        least=_QEMU_LEAST,
        asked="qemu-system-x86_64 --version",
    ),
}


def _installed(machine: Machine, program: _Program, need: Need) -> tuple[Version | None, Answer]:
    """Return the version of a program, None if it is not known, and the answer."""
    least = program.least[need]
    wanted = f"{program.name} {dotted(least)} or later"
    package = machine.packages.first(program.packages)
    if package is None:
        there = [path for path in program.files if machine.tree.exists(path)]
        if there:
            fix = f"`{there[0]} --version` must print {dotted(least)} or later"
            return None, unknown(f"{there[0]} is of no known package", fix)
        return None, missing(f"{program.name} is not installed", f"install {wanted}", absent=True)
    version = version_of(package.version)
    found = f"{program.name} {package.version} ({package.name}, {package.database})"
    if version is None:
        return None, unknown(f"{found}: no version that can be compared", f"install {wanted}")
    if before(version, least):
        return version, missing(f"{found}: {need.title} needs {dotted(least)}", f"install {wanted}")
    return version, ok(found)


def _new_enough(machine: Machine, name: str, need: Need) -> tuple[Version | None, Answer]:
    """Return the same; without a package database that can be read, say whom to ask."""
    program = _PROGRAMS[name]
    try:
        return _installed(machine, program, need)
    except Unreadable as error:
        fix = f"`{program.asked}` must print {dotted(program.least[need])} or later"
        return None, unknown(str(error), f"{error.hint}; or {fix}" if error.hint else fix)


@check(
    "host.libvirt", "libvirt is new enough: 4.5.0, better 5.1.1; 10.5.0 for SEV-SNP",
    "package database (dpkg, rpm, apk, pacman)", "guide: Checking SEV support in the virt stack",
)  # fmt: skip
def libvirt(machine: Machine, need: Need) -> Answer:
    """Compare its version."""
    version, answer = _new_enough(machine, "libvirt", need)
    if before(version, _RECOMMENDED) and answer == ok(answer.found):
        return note(f"{answer.found}: later than 5.1.0 is recommended", "upgrade libvirt")
    return answer


@check(
    "host.qemu", "QEMU is new enough: 2.12.0; 6.0 for SEV-ES, 9.1 for SEV-SNP",
    "package database (dpkg, rpm, apk, pacman)", "guide: Checking SEV support in the virt stack",
)  # fmt: skip
def qemu(machine: Machine, need: Need) -> Answer:
    """Compare its version."""
    return _new_enough(machine, "QEMU", need)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cached:
    """What libvirt remembers of one QEMU: ``cbitpos`` is "" if it saw no SEV."""

    emulator: str
    cbitpos: str
    written: float


def _cached(machine: Machine) -> Iterator[_Cached]:
    """Yield what libvirt's cache has of each QEMU for x86_64.

    Raises Unreadable if it cannot be read, as only root may.
    """
    names = [name for name in machine.tree.names(CACHE) or () if name.endswith(".xml")]
    for name in names[:_MAX_CACHED]:
        path = f"{CACHE}/{name}"
        data, info = machine.tree.read(path, MAX_FILE), machine.tree.stat(path)
        if data is None or info is None:
            continue
        try:
            root = Document.parse(data, "capabilities cache").root
        except MalformedInput:
            continue  # libvirt ignores it too, and probes again
        rows = {each.name: each.text.strip() for each in root.children}
        if root.name != "qemuCaps" or rows.get("arch", "x86_64") != "x86_64":
            continue
        cbit = root.find("sev/cbitpos")
        yield _Cached(
            emulator=short(rows.get("emulator", "QEMU")),
            cbitpos=short(cbit.text.strip()) if cbit is not None else "",
            written=info.st_mtime,
        )


def _booted(machine: Machine) -> int | None:
    """Return when the machine booted, in seconds since 1970, None if that is not known."""
    found = _BOOTED.search(machine.tree.text("/proc/stat", 8 * MAX_FILE) or "")
    return int(found[1]) if found else None


@check(
    "host.libvirt.cache", "libvirt's cache is not older than SEV", f"{CACHE}/*.xml, /proc/stat",
    "guide: clean the capabilities cache", within=("/var",),
)  # fmt: skip
def cache(machine: Machine, need: Need) -> Answer:
    """Look for QEMUs that libvirt probed when there was no SEV."""
    found = [*_cached(machine)]
    stale = [one for one in found if not one.cbitpos]
    if not found:
        return Answer(Status.OK, "nothing is cached: libvirt probes when it starts", absent=True)
    if not stale:
        return ok(f"libvirt's cache knows SEV of {', '.join(one.emulator for one in found)}")
    what = f"libvirt's cache has no SEV for {', '.join(one.emulator for one in stale)}"
    booted = _booted(machine)
    if booted is not None and any(one.written < booted for one in stale):
        what += ", and is older than this boot"
    if not machine.parameter(_PARAMETER):
        return note(f"{what}: KVM has SEV off, too", "turn SEV on first (host.kvm.sev)")
    version, _ = _installed(machine, _PROGRAMS["libvirt"], need)
    if version is None or before(version, _REPROBES):
        return missing(f"{what}; libvirt before 6.5.0 does not probe again", _CLEAN)
    return note(f"{what}; libvirt probes again by itself", f"restart libvirtd, then {_ASK}")


@check(
    "host.domcapabilities", "libvirt offers SEV", f"{CACHE}/*.xml", "guide: virsh domcapabilities",
)  # fmt: skip
def domcapabilities(machine: Machine, _need: Need) -> Answer:
    """Read it from the cache; libvirt itself is not asked."""
    for one in _cached(machine):
        if one.cbitpos:
            return ok(f"libvirt saw SEV in {one.emulator}: cbitpos {one.cbitpos}")
    return unknown("libvirt itself is not asked", f"{_ASK} shows what it offers")


CHECKS: tuple[Check, ...] = (libvirt, qemu, cache, domcapabilities)
