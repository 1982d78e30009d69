"""The vCPU state that is measured for SEV-SNP guests: a page of each vCPU, as for SEV-ES.

The pages are those of :mod:`sev_attest.guest.vmsa` with sev_features set, under names of their own.
"Hardware" marks those that a genuine report has confirmed.

==============  =============================================================================
SNP layout      who makes such pages
==============  =============================================================================
``qemu``        QEMU on Linux 6.11 and later: the page of ``qemu-init2`` (no hardware witness)
``qemu-old``    QEMU on AMD's SNP trees up to 6.8: no FPU state (hardware, 2023)
``ec2``         Amazon's since 2026 at the latest, DX = 0x600 (its author says hardware)
``ec2-old``     Amazon's of 2023, DX = 0 (hardware)
``gce``         Google's, as sev-snp-measure has it (no hardware witness)
``krun``        libkrun's, as the sev crate has it (no hardware witness)
``svsm``        QEMU with a COCONUT-SVSM module, without FPU state (hardware, January 2024)
``svsm-init2``  the same with the FPU state that newer kernels write (no hardware witness)
==============  =============================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sev_attest.errors import Unsupported
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.guest.vmsa import DEBUG_SWAP, VmsaProfile

SNP_ACTIVE = 0x1
"""Bit 0 of sev_features: KVM sets it for every SEV-SNP guest."""
FEATURES = {
    0x1: "SNP active", 0x2: "vTOM", 0x4: "reflect #VC", 0x8: "restricted injection",
    0x10: "alternate injection", DEBUG_SWAP: "debug swap", 0x40: "prevent host IBS",
    0x80: "BTB isolation", 0x100: "VMPL SSS", 0x200: "secure TSC", 0x400: "VMGEXIT parameter",
    0x1000: "IBS virtualization", 0x4000: "VMSA register protection", 0x8000: "SMT protection",
    0x1_0000: "secure AVIC",
}  # fmt: skip
"""Names of the bits of sev_features. Source: QEMU's patches for sev_features, 2025 and 2026."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpProfile(VmsaProfile):
    """How a VMM sets up the vCPUs of an SEV-SNP guest: one of :data:`SNP_LAYOUTS`.

    ``features`` is the SEV_FEATURES field of each page, 64 bits: 0x1 SNP active (KVM always sets
    it), 0x20 debug swap, 0x200 secure TSC.
    """

    name: str = "qemu"
    features: int = SNP_ACTIVE
    layouts: ClassVar[Mapping[str, str]] = SNP_LAYOUTS

    def __post_init__(self) -> None:
        """Raise Unsupported as :class:`VmsaProfile` does, and for features beyond 64 bits."""
        VmsaProfile.__post_init__(self)  # super() does not work in a class with slots
        if not 0 <= self.features < 1 << 64:
            raise Unsupported(
                f"guest features {self.features:#x} are not in 0..2^64-1", check="vmsa.features"
            )

    @property
    def sev_features(self) -> int:
        """Value of SEV_FEATURES in every page."""
        return self.features
