"""The vCPU state (VMSA page, 4096 bytes) that is measured for SEV-ES and SEV-SNP guests.

Source: offsets from Linux arch/x86/include/asm/svm.h (struct sev_es_save_area), AMD APM vol. 2
appendix B; values from QEMU's target/i386/cpu.c (x86_cpu_reset_hold) and KVM's changes to them
(arch/x86/kvm/svm/svm.c, sev.c); libkrun's from the sev crate; EC2's and GCE's from sev-snp-measure.
All assume a host CPU with CR4.MCE, as every EPYC has.

=================  ==========================================================================
profile            who makes such pages
=================  ==========================================================================
``qemu-legacy``    QEMU with KVM_SEV_ES_INIT: every QEMU up to 11.1.3 (the newest looked at), unless
                   legacy-vm-type=off
``qemu-init2``     QEMU with KVM_SEV_INIT2 (Linux 6.10 and later): KVM also writes the FPU state
``krun``           libkrun up to 1.10
``ec2``, ``gce``   Amazon's and Google's, as sev-snp-measure has them (no public statement)
=================  ==========================================================================

``+debug-swap`` behind a QEMU profile sets that bit in sev_features: early kernels of 6.6.y and of
6.7.y do on Genoa and later, unless kvm_amd.debug_swap is off. Linux 6.8 turned that off by default
(5abf6dceb066, also sent to stable kernels). From 6.10 on, KVM_SEV_ES_INIT never sets the bit.

SEV-SNP has the same pages with sev_features set: :mod:`sev_attest.snp.vmsa`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from sev_attest._wire import le
from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.guest.cpu import CpuModel
from sev_attest.guest.spec import MAX_VCPUS, SNP_LAYOUTS, VMSA_PROFILES

PAGE_SIZE = 4096

# the page

SEGMENTS = {
    "es": 0x000, "cs": 0x010, "ss": 0x020, "ds": 0x030, "fs": 0x040, "gs": 0x050,
    "gdtr": 0x060, "ldtr": 0x070, "idtr": 0x080, "tr": 0x090,
}  # fmt: skip
"""Offset of each segment register: selector (2 bytes), attrib (2), limit (4), base (8)."""
_SEGMENT = {"selector": (0, 2), "attrib": (2, 2), "limit": (4, 4), "base": (8, 8)}
REGISTERS = {
    "pl0_ssp": (0x0A0, 8), "pl1_ssp": (0x0A8, 8), "pl2_ssp": (0x0B0, 8), "pl3_ssp": (0x0B8, 8),
    "u_cet": (0x0C0, 8), "vmpl": (0x0CA, 1), "cpl": (0x0CB, 1), "efer": (0x0D0, 8),
    "xss": (0x140, 8), "cr4": (0x148, 8), "cr3": (0x150, 8), "cr0": (0x158, 8), "dr7": (0x160, 8),
    "dr6": (0x168, 8), "rflags": (0x170, 8), "rip": (0x178, 8),
    **{f"dr{n}": (0x180 + 8 * n, 8) for n in range(4)},
    **{f"dr{n}_addr_mask": (0x1A0 + 8 * n, 8) for n in range(4)},
    "rsp": (0x1D8, 8), "s_cet": (0x1E0, 8), "ssp": (0x1E8, 8), "isst_addr": (0x1F0, 8),
    "rax": (0x1F8, 8), "star": (0x200, 8), "lstar": (0x208, 8), "cstar": (0x210, 8),
    "sfmask": (0x218, 8), "kernel_gs_base": (0x220, 8), "sysenter_cs": (0x228, 8),
    "sysenter_esp": (0x230, 8), "sysenter_eip": (0x238, 8), "cr2": (0x240, 8),
    "g_pat": (0x268, 8), "dbgctl": (0x270, 8), "br_from": (0x278, 8), "br_to": (0x280, 8),
    "last_excp_from": (0x288, 8), "last_excp_to": (0x290, 8), "pkru": (0x2E8, 4),
    "tsc_aux": (0x2EC, 4), "rcx": (0x308, 8), "rdx": (0x310, 8), "rbx": (0x318, 8),
    "rbp": (0x328, 8), "rsi": (0x330, 8), "rdi": (0x338, 8),
    **{f"r{n}": (0x340 + 8 * (n - 8), 8) for n in range(8, 16)},
    "exit_info_1": (0x390, 8), "exit_info_2": (0x398, 8), "exit_int_info": (0x3A0, 8),
    "nrip": (0x3A8, 8), "sev_features": (0x3B0, 8), "vintr_ctrl": (0x3B8, 8),
    "exit_code": (0x3C0, 8), "virtual_tom": (0x3C8, 8), "tlb_id": (0x3D0, 8),
    "pcpu_id": (0x3D8, 8), "event_inj": (0x3E0, 8), "xcr0": (0x3E8, 8), "x87_dp": (0x400, 8),
    "mxcsr": (0x408, 4), "x87_ftw": (0x40C, 2), "x87_fsw": (0x40E, 2), "x87_fcw": (0x410, 2),
    "x87_fop": (0x412, 2), "x87_ds": (0x414, 2), "x87_cs": (0x416, 2), "x87_rip": (0x418, 8),
    "fpreg_x87": (0x420, 80), "fpreg_xmm": (0x470, 256), "fpreg_ymm": (0x570, 256),
}  # fmt: skip
"""Offset and size of every other field that has a name."""
FIELDS: dict[str, tuple[int, int]] = {
    **{
        f"{segment}.{part}": (base + offset, size)
        for segment, base in SEGMENTS.items()
        for part, (offset, size) in _SEGMENT.items()
    },
    **REGISTERS,
}
"""Offset and size of every named field, segment registers by part ("cs.base"); in their order."""


def page_of(values: Mapping[str, int]) -> bytes:
    """Return a page with these fields; everything else is zero."""
    page = bytearray(PAGE_SIZE)
    for name, value in values.items():
        offset, size = FIELDS[name]
        page[offset : offset + size] = le(value, size)
    return bytes(page)


def values_of(page: bytes) -> dict[str, int]:
    """Return the value of every named field; raises MalformedInput for another page size."""
    _check_page(page)
    return {
        name: int.from_bytes(page[offset : offset + size], "little")
        for name, (offset, size) in FIELDS.items()
    }


def unnamed(page: bytes) -> list[int]:
    """Return the offsets of nonzero bytes outside all named fields."""
    named = {at for offset, size in FIELDS.values() for at in range(offset, offset + size)}
    return [at for at, byte in enumerate(page) if byte and at not in named]


def _check_page(page: bytes) -> None:
    if len(page) != PAGE_SIZE:
        reason = f"{len(page)} bytes, expected {PAGE_SIZE}"
        raise MalformedInput("VMSA page", "length", reason)


# the profiles

_KVM = {
    **{f"{segment}.limit": 0xFFFF for segment in SEGMENTS},
    **{f"{segment}.attrib": 0x93 for segment in ("es", "ss", "ds", "fs", "gs")},
    "cs.selector": 0xF000,
    "cs.attrib": 0x9B,
    "cs.base": 0xFFFF_0000,
    "ldtr.attrib": 0x82,
    "tr.attrib": 0x8B,
    "efer": 0x1000,  # SVME, set by KVM
    "cr4": 0x40,  # MCE, the host's
    "cr0": 0x10,  # ET
    "dr7": 0x400,
    "dr6": 0xFFFF_0FF0,
    "rflags": 0x2,
    "rip": 0xFFF0,
    "g_pat": 0x0007_0406_0007_0406,
    "xcr0": 0x1,
}
"""State of the boot vCPU with QEMU and KVM_SEV_ES_INIT; the other profiles differ from it."""
_FPU = {"mxcsr": 0x1F80, "x87_fcw": 0x037F}
_SVSM = {
    **{f"{segment}.selector": 0x10 for segment in ("es", "ss", "ds", "fs")},
    **{f"{segment}.attrib": 0xC93 for segment in ("es", "ss", "ds", "fs")},
    **{f"{segment}.limit": 0xFFFF_FFFF for segment in ("es", "cs", "ss", "ds", "fs")},
    "cs.selector": 0x8,
    "cs.attrib": 0xC9B,
    "cs.base": 0,
    "cr0": 0x11,  # ET, PE: the SVSM starts in flat 32-bit mode
}
_DIFFERENCES: dict[str, dict[str, int]] = {
    "qemu-legacy": {},
    "qemu-init2": _FPU,
    "krun": {
        "cs.attrib": 0x9A, "ss.attrib": 0x92, "tr.attrib": 0x83,
        "rsp": 0x8FF0, "rbp": 0x8FF0, "rsi": 0x7000,
    },
    "ec2": {"cs.attrib": 0x9A, "ss.attrib": 0x92, "tr.attrib": 0x83, "rdx": 0x600},
    "ec2-old": {"cs.attrib": 0x9A, "ss.attrib": 0x92, "tr.attrib": 0x83, "rdx": 0},
    "gce": {"g_pat": 0x0007_0106, "rdx": 0x600},
    "svsm": _SVSM,
    "svsm-init2": _SVSM | _FPU,
}  # fmt: skip
_AP_CHANGES = {"ec2": {"cs.attrib": 0x9B}, "ec2-old": {"cs.attrib": 0x9B}}
_KRUN_AP = {"cs.selector": 0x9100, "cs.base": 0x91000, "rip": 0, "rsp": 0, "rbp": 0, "rsi": 0}
_DEBUG_SWAP = "+debug-swap"
DEBUG_SWAP = 0x20
"""Bit 5 of sev_features."""
_WITH_CPU = ("qemu-legacy", "qemu-init2", "svsm", "svsm-init2")
_LAYOUTS = {name: name.removesuffix(_DEBUG_SWAP) for name in VMSA_PROFILES}


def unknown_profile(name: str, known: Iterable[str]) -> Unsupported:
    """Return the error for a profile that is not among the known ones."""
    hint = ""
    if name in SNP_LAYOUTS:
        hint = f"{name} is for SEV-SNP guests (`sev-attest snp measure`)"
    elif name in VMSA_PROFILES:
        hint = f"{name} is for SEV-ES guests (`sev-attest measure`)"
    words = f"no VMSA profile {name!r}: {', '.join(known)}"
    return Unsupported(words, check="vmsa.profile", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmsaProfile:
    """How a VMM sets up its vCPUs: one of :data:`VMSA_PROFILES`, and the CPU model they show.

    QEMU's profiles need a CPU model, krun's may have one, EC2's and GCE's have a fixed one.
    """

    name: str = "qemu-legacy"
    cpu: CpuModel | None = None
    layouts: ClassVar[Mapping[str, str]] = _LAYOUTS
    """Every name, and the vCPU state that it stands for."""

    def __post_init__(self) -> None:
        """Raise Unsupported for an unknown profile, or one of QEMU's without a CPU model."""
        if self.name not in self.layouts:
            raise unknown_profile(self.name, self.layouts)
        if self.cpu is None and self.needs_cpu(self.name):
            raise Unsupported(f"VMSA profile {self.name} needs a CPU model", check="vmsa.cpu")

    @classmethod
    def needs_cpu(cls, name: str) -> bool:
        """Return whether a profile is incomplete without a CPU model."""
        return cls.layouts[name] in _WITH_CPU

    @classmethod
    def shows_cpu(cls, name: str) -> bool:
        """Return whether a profile depends on the CPU model."""
        return "rdx" not in _DIFFERENCES[cls.layouts[name]]

    @property
    def layout(self) -> str:
        """Name without ``+debug-swap``."""
        return self.layouts[self.name]

    @property
    def sev_features(self) -> int:
        """Value of SEV_FEATURES in every page."""
        return DEBUG_SWAP if self.layout != self.name else 0

    def pages(self, reset_address: int) -> "VmsaPages":
        """Return the pages; the APs start at ``reset_address`` (:meth:`Firmware.reset_address`).

        With an SVSM, every vCPU starts there.
        """
        boot = _KVM | _DIFFERENCES[self.layout] | {"sev_features": self.sev_features}
        if self.cpu is not None and self.shows_cpu(self.name):
            boot["rdx"] = self.cpu.signature
        if "cr0" in _DIFFERENCES[self.layout]:  # flat: an SVSM
            page = page_of(boot | {"rip": reset_address})
            return VmsaPages(boot=page, ap=page)
        start = {"cs.base": reset_address & 0xFFFF_0000, "rip": reset_address & 0xFFFF}
        if self.layout == "krun":
            start = _KRUN_AP
        other = boot | start | _AP_CHANGES.get(self.layout, {})
        return VmsaPages(boot=page_of(boot), ap=page_of(other))


@dataclass(frozen=True, slots=True, kw_only=True)
class VmsaPages:
    """The page of the boot vCPU, and the page that all other vCPUs (APs) share; 4096 bytes each."""

    boot: bytes = field(repr=False)
    ap: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise MalformedInput for a page that is not 4096 bytes long."""
        for page in (self.boot, self.ap):
            if page is not None:
                _check_page(page)

    def for_vcpus(self, count: int) -> Iterator[bytes]:
        """Yield each vCPU's page, in the order of measurement.

        Raises Unsupported for a count outside 1..4096, or for APs without a page.
        """
        if not 1 <= count <= MAX_VCPUS:
            raise Unsupported(f"{count} vCPUs: expected 1 to {MAX_VCPUS}", check="vcpus.range")
        if count > 1 and self.ap is None:
            raise Unsupported(
                f"{count} vCPUs need the page of the additional ones too",
                check="vmsa.ap",
            )
        return self._pages(count)

    def _pages(self, count: int) -> Iterator[bytes]:
        yield self.boot
        for _ in range(count - 1):
            yield self.ap or b""
