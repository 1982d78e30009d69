"""The CPU models that guests see: family, model and stepping.

Source: QEMU's target/i386/cpu.c; AMD APM vol. 3, CPUID Fn0000_0001_EAX.
"""

import re
from dataclasses import dataclass

from sev_attest.errors import Unsupported

_FAMILY_LIMIT = 0xF
QEMU_MODELS = {
    "EPYC": (23, 1, 2),
    "EPYC-Rome": (23, 49, 0),
    "EPYC-Milan": (25, 1, 1),
    "EPYC-Genoa": (25, 17, 0),
    "EPYC-Turin": (26, 0, 0),
    "Dhyana": (24, 0, 1),
    "Opteron_G1": (15, 6, 1),
    "Opteron_G2": (15, 6, 1),
    "Opteron_G3": (16, 2, 3),
    "Opteron_G4": (21, 1, 2),
    "Opteron_G5": (21, 2, 0),
    "phenom": (16, 2, 3),
    "qemu64": (15, 107, 1),
    "kvm64": (15, 6, 1),
}
"""Family, model and stepping of QEMU's CPU models; all versions (-v1, -IBPB ...) have the same."""
_VERSION = re.compile(r"(-IBPB)?(-v\d{1,2})?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuModel:
    """An x86 CPU by display family, model and stepping (EPYC-Milan: 25, 1, 1)."""

    family: int
    model: int
    stepping: int

    def __post_init__(self) -> None:
        """Raise Unsupported for a number that CPUID cannot express."""
        limits = {"family": 0xF + 0xFF, "model": 0xFF, "stepping": 0xF}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise Unsupported(f"CPU {name} {value} is not in 0..{most}", check=f"cpu.{name}")

    @classmethod
    def named(cls, name: str) -> "CpuModel":
        """Return one of QEMU's CPU models; raises Unsupported for an unknown name.

        >>> CpuModel.named("EPYC-Milan-v2")
        CpuModel(family=25, model=1, stepping=1)
        """
        found = QEMU_MODELS.get(_VERSION.sub("", name))
        if found is None:
            known = ", ".join(QEMU_MODELS)
            raise Unsupported(
                f"{name!r} is not one of QEMU's CPU models: {known}", check="cpu.name"
            )
        family, model, stepping = found
        return cls(family=family, model=model, stepping=stepping)

    @property
    def signature(self) -> int:
        """Value of EAX after CPUID function 1.

        >>> hex(CpuModel(family=25, model=1, stepping=1).signature)
        '0xa00f11'
        """
        base = min(self.family, _FAMILY_LIMIT)
        extended = self.family - base
        low, high = self.model & 0xF, self.model >> 4
        return extended << 20 | high << 16 | base << 8 | low << 4 | self.stepping
