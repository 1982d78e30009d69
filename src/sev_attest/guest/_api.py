"""The public names of :mod:`sev_attest.guest`."""

from sev_attest.guest.cpu import CpuModel
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import KernelHashes
from sev_attest.guest.vmsa import VmsaPages, VmsaProfile
from sev_attest.snp.vmsa import SnpProfile

__all__ = [
    "CpuModel", "Firmware", "KernelHashes", "SnpProfile", "VmsaPages", "VmsaProfile",
]  # fmt: skip
