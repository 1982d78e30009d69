"""The vCPU state (VMSA page, 4096 bytes) that is measured for SEV-ES guests.

Source: offsets from Linux arch/x86/include/asm/svm.h (struct sev_es_save_area), AMD APM vol. 2
appendix B; values from QEMU's target/i386/cpu.c (x86_cpu_reset_hold) and what KVM makes of them
(arch/x86/kvm/svm/svm.c, sev.c). The page is the one of KVM_SEV_ES_INIT, which every QEMU up to 10.2
uses unless legacy-vm-type=off. It assumes a host CPU with CR4.MCE, as every EPYC has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sev_attest._wire import le
from sev_attest.errors import MalformedInput, Unsupported

PAGE_SIZE = 4096
MAX_VCPUS = 4096
"""QEMU's q35 machine takes no more."""

_FAMILY_LIMIT = 0xF
_SEGMENTS = {  # offset: (selector, attributes, limit, base)
    0x000: (0, 0x93, 0xFFFF, 0),  # es
    0x010: (0xF000, 0x9B, 0xFFFF, 0xFFFF_0000),  # cs
    0x020: (0, 0x93, 0xFFFF, 0),  # ss
    0x030: (0, 0x93, 0xFFFF, 0),  # ds
    0x040: (0, 0x93, 0xFFFF, 0),  # fs
    0x050: (0, 0x93, 0xFFFF, 0),  # gs
    0x060: (0, 0, 0xFFFF, 0),  # gdtr
    0x070: (0, 0x82, 0xFFFF, 0),  # ldtr
    0x080: (0, 0, 0xFFFF, 0),  # idtr
    0x090: (0, 0x8B, 0xFFFF, 0),  # tr
}
_REGISTERS = {  # offset: value, 64 bits each
    0x0D0: 0x1000,  # efer: SVME, set by KVM
    0x148: 0x40,  # cr4: MCE, the host's
    0x158: 0x10,  # cr0: ET
    0x160: 0x400,  # dr7
    0x168: 0xFFFF_0FF0,  # dr6
    0x170: 0x2,  # rflags
    0x178: 0xFFF0,  # rip
    0x268: 0x0007_0406_0007_0406,  # g_pat
    0x3E8: 0x1,  # xcr0
}
_CS_BASE, _RIP, _RDX = 0x018, 0x178, 0x310


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuModel:
    """An x86 CPU by display family, model and stepping (EPYC-Milan: 25, 1, 1)."""

    family: int
    model: int
    stepping: int

    def __post_init__(self) -> None:
        """Hold the numbers to what CPUID can say (Unsupported)."""
        limits = {"family": 0xF + 0xFF, "model": 0xFF, "stepping": 0xF}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise Unsupported(f"CPU {name} {value} is not in 0..{most}", check=f"cpu.{name}")

    @property
    def signature(self) -> int:
        """What CPUID function 1 returns in EAX.

        >>> hex(CpuModel(family=25, model=1, stepping=1).signature)
        '0xa00f11'
        """
        base = min(self.family, _FAMILY_LIMIT)
        extended = self.family - base
        low, high = self.model & 0xF, self.model >> 4
        return extended << 20 | high << 16 | base << 8 | low << 4 | self.stepping


@dataclass(frozen=True, slots=True, kw_only=True)
class VmsaPages:
    """The page of the boot vCPU, and the one that all the others (APs) share."""

    boot: bytes
    ap: bytes | None = None

    def __post_init__(self) -> None:
        """Hold each page to 4096 bytes (MalformedInput)."""
        for page in (self.boot, self.ap):
            if page is not None and len(page) != PAGE_SIZE:
                reason = f"{len(page)} bytes, expected {PAGE_SIZE}"
                raise MalformedInput("VMSA page", "length", reason)

    @classmethod
    def qemu_legacy(cls, cpu: CpuModel, reset_address: int) -> "VmsaPages":
        """Build the pages as QEMU and KVM_SEV_ES_INIT do.

        ``reset_address`` is where the APs start (:meth:`Firmware.reset_address`).
        """
        boot = bytearray(PAGE_SIZE)
        for offset, (selector, attributes, limit, base) in _SEGMENTS.items():
            segment = le(selector, 2) + le(attributes, 2) + le(limit, 4) + le(base, 8)
            boot[offset : offset + 16] = segment
        for offset, value in (*_REGISTERS.items(), (_RDX, cpu.signature)):
            boot[offset : offset + 8] = le(value, 8)
        ap = bytearray(boot)
        ap[_CS_BASE : _CS_BASE + 8] = le(reset_address & 0xFFFF_0000, 8)
        ap[_RIP : _RIP + 8] = le(reset_address & 0xFFFF, 8)
        return cls(boot=bytes(boot), ap=bytes(ap))

    def for_vcpus(self, count: int) -> Iterator[bytes]:
        """Give each vCPU's page, in the order of measurement.

        Raises Unsupported for a count out of 1..4096, or without a page for the APs.
        """
        if not 1 <= count <= MAX_VCPUS:
            raise Unsupported(f"{count} vCPUs: 1 to {MAX_VCPUS} can be", check="vcpus.range")
        if count > 1 and self.ap is None:
            raise Unsupported(
                f"{count} vCPUs need the page of the additional ones too (--vmsa-cpu1)",
                check="vmsa.ap",
            )
        return self._pages(count)

    def _pages(self, count: int) -> Iterator[bytes]:
        yield self.boot
        for _ in range(count - 1):
            yield self.ap or b""
