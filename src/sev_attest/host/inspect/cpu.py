"""Checks of the CPU: its vendor and generation, and what it offers.

Sources: AMD APM vol. 3, CPUID Fn8000_001F; Linux, arch/x86/kernel/cpu/amd.c.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from sev_attest.host.inspect.check import (
    Answer,
    Check,
    Need,
    check,
    missing,
    needed,
    note,
    ok,
    unknown,
)
from sev_attest.host.inspect.machine import Cpu, Machine
from sev_attest.sev.chain.roots import Generation

CPUINFO = "/proc/cpuinfo"
_GENERATIONS = {
    (23, range(0x10)): Generation.NAPLES,
    (23, range(0x30, 0x40)): Generation.ROME,
    (25, range(0x10)): Generation.MILAN,
    (25, range(0x10, 0x20)): Generation.GENOA,
    (25, range(0xA0, 0xB0)): Generation.GENOA,  # Bergamo and Siena
    (26, range(0x20)): Generation.TURIN,
}
"""EPYC generations by CPU family and model.

Source: Linux, drivers/crypto/ccp/sev-dev.c, names of SEV firmware.
"""
_OTHERS = {
    "GenuineIntel": "an Intel CPU: SEV is AMD's (Intel's technology is TDX)",
    "HygonGenuine": "a Hygon CPU: its CSV resembles SEV, but has other roots than AMD's",
    "CentaurHauls": "a Centaur CPU: SEV is AMD's",
}
AMD = "AuthenticAMD"
_NEEDS_EPYC = "SEV needs a host with an AMD EPYC CPU"
_BIOS = "in the BIOS setup, enable SVM, SMEE (secure memory encryption)"
_FLAG_FIXES = {
    Need.SEV: f"{_BIOS} and SEV; then `grep -w sev /proc/cpuinfo` prints the flag",
    Need.ES: f"{_BIOS} and SEV-ES (minimum SEV ASID above 1); Rome and later have it",
    Need.SNP: f"{_BIOS}, SEV-SNP and its RMP table; the IOMMU must be on. Milan and later have it",
}
_NO_CPUINFO = unknown(f"{CPUINFO} is missing or empty", f"copy {CPUINFO} from the host")
_LEAF = 0x8000_001F


def generation(cpu: Cpu) -> Generation | None:
    """Return the EPYC generation of an AMD CPU by family and model, None if there is none."""
    for (family, models), found in _GENERATIONS.items():
        if cpu.family == family and cpu.model in models:
            return found
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """CPUID Fn8000_001F: bits as booleans, numbers as they are."""

    sme: bool
    sev: bool
    page_flush: bool
    es: bool
    snp: bool
    cbit: int
    reduced_bits: int
    guests: int
    min_sev_asid: int


def encryption(machine: Machine) -> Encryption | None:
    """Return what the CPU says of memory encryption, None if it cannot be asked.

    Raises Unreadable if only root may ask.
    """
    if machine.live.cpuid is None:
        return None
    eax, ebx, ecx, edx = struct.unpack("<4I", machine.live.cpuid(_LEAF))
    return Encryption(
        sme=bool(eax & 1),
        sev=bool(eax >> 1 & 1),
        page_flush=bool(eax >> 2 & 1),
        es=bool(eax >> 3 & 1),
        snp=bool(eax >> 4 & 1),
        cbit=ebx & 0x3F,
        reduced_bits=ebx >> 6 & 0x3F,
        guests=ecx,
        min_sev_asid=edx,
    )


@check(
    "host.cpu.vendor", "the CPU is AMD's", CPUINFO, "sevctl ok: AMD CPU", essential=Need.SEV,
)  # fmt: skip
def vendor(machine: Machine, _need: Need) -> Answer:
    """Look for AMD's name."""
    cpu = machine.cpu
    if cpu is None:
        return _NO_CPUINFO
    if cpu.vendor == AMD:
        return ok(f"{cpu.name or 'an AMD CPU'}, family {cpu.family}, model {cpu.model}")
    other = f"CPU of {cpu.vendor}" if cpu.vendor else "no x86 CPU (ARM or another): SEV is AMD's"
    return missing(_OTHERS.get(cpu.vendor, other), _NEEDS_EPYC)


@check(
    "host.cpu.generation", "the CPU is an EPYC of a known generation", CPUINFO,
    "sevctl ok: Microcode support",
)  # fmt: skip
def epyc(machine: Machine, _need: Need) -> Answer:
    """Name the generation, whose root signs the platform's CEK."""
    cpu = machine.cpu
    if cpu is None:
        return _NO_CPUINFO
    found = generation(cpu) if cpu.vendor == AMD else None
    if found is None:
        return note("no EPYC generation with a known root", _NEEDS_EPYC)
    if "EPYC" not in cpu.name.upper():
        what = f"{found.value.title()} by family and model, but not named EPYC ({cpu.name})"
        return note(what, _NEEDS_EPYC)
    return ok(found.value.title())


def _flag(least: Need) -> Callable[[Machine, Need], Answer]:
    """Return the function of the check for the CPU flag of ``least``."""

    def look(machine: Machine, need: Need) -> Answer:
        cpu = machine.cpu
        if cpu is None:
            return _NO_CPUINFO
        if cpu.vendor != AMD:
            return needed(least, need, f"no flag {least.parameter}", _NEEDS_EPYC)
        if least.parameter in cpu.flags:
            return ok(f"the CPU has the flag {least.parameter}")
        found = f"the CPU has no flag {least.parameter}"
        if "hypervisor" in cpu.flags:
            found += ": this machine is itself a virtual machine"
            return needed(least, need, found, "run guests on the physical host")
        return needed(least, need, found, _FLAG_FIXES[least])

    return look


sev: Check = check(
    "host.cpu.sev", "the CPU flag sev", CPUINFO,
    "guide: Enabling SEV on the host; sevctl ok: SEV; virt-host-validate", essential=Need.SEV,
)(_flag(Need.SEV))  # fmt: skip
es: Check = check(
    "host.cpu.sev-es", "the CPU flag sev_es", CPUINFO, "sevctl ok es: SEV-ES", essential=Need.ES,
)(_flag(Need.ES))  # fmt: skip
snp: Check = check(
    "host.cpu.sev-snp", "the CPU flag sev_snp", CPUINFO, "sevctl ok snp", essential=Need.SNP,
)(_flag(Need.SNP))  # fmt: skip


@check(
    "host.cpu.encryption", "the C-bit, the reduction of physical addresses, the page flush MSR",
    "/dev/cpu/0/cpuid (CPUID 8000001f)",
    "sevctl ok: C-bit location, Physical address bit reduction, Page flush MSR",
)  # fmt: skip
def cbit(machine: Machine, _need: Need) -> Answer:
    """Ask the CPU itself."""
    found = encryption(machine)
    if found is None:
        return unknown("only the running host can be asked", "`virsh domcapabilities` prints it")
    if not found.sev:
        return note("the CPU itself reports no SEV")
    flush = "with" if found.page_flush else "without"
    return ok(
        f"C-bit {found.cbit}, {found.reduced_bits} address bits fewer, {flush} page flush MSR"
    )


CHECKS: tuple[Check, ...] = (vendor, epyc, sev, es, snp, cbit)
