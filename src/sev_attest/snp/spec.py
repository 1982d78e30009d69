"""Sizes, bits and codes of an SEV-SNP attestation report.

Source: AMD 56860 (SEV-SNP firmware ABI) as read by google/go-sev-guest abi/abi.go and virtee/sev
src/firmware/guest/types/snp.rs, held against real reports of versions 2, 3 and 5.
"""

from enum import Enum, IntFlag

from sev_attest._snp import REPORT_SIZE as REPORT_SIZE  # noqa: PLC0414 - others take it from here

STRUCTURE = "SEV-SNP report"
"""What errors call the report."""
SIGNED_SIZE = 0x2A0
VERSIONS = (2, 3, 5)
"""Versions that real firmware writes. Version 4 was never seen, and what it adds is not public."""
SIGNATURE_ALGO = 1
"""ECDSA P-384 with SHA-384; there is no other."""
NO_MIGRATION_AGENT = b"\xff" * 32
"""``report_id_ma`` of a guest without migration agent."""
HOST_VMPL = 0xFFFF_FFFF
"""``vmpl`` of a report that the host asked for [from memory; not seen in a real report]."""


class PolicyBit(IntFlag):
    """Bits 16-25 of the guest policy; bits 0-15 are a version, the others are reserved."""

    SMT = 1 << 16
    RESERVED_ONE = 1 << 17
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20
    CXL_ALLOW = 1 << 21
    MEM_AES_256_XTS = 1 << 22
    RAPL_DIS = 1 << 23
    CIPHERTEXT_HIDING_DRAM = 1 << 24
    PAGE_SWAP_DISABLE = 1 << 25


class PlatformBit(IntFlag):
    """Bits of platform_info; the others are reserved, and AMD defines new ones."""

    SMT_EN = 1 << 0
    TSME_EN = 1 << 1
    ECC_EN = 1 << 2
    RAPL_DIS = 1 << 3
    CIPHERTEXT_HIDING_DRAM_EN = 1 << 4
    ALIAS_CHECK_COMPLETE = 1 << 5
    IOMMU_WRITE_SAFE = 1 << 6  # the name is tinfoil-go's; set in all real Turin reports
    TIO_EN = 1 << 7


class SigningKey(Enum):
    """The kind of key that signs a report: bits 2-4 of key_info."""

    VCEK = 0
    VLEK = 1
    NONE = 7
    UNKNOWN = -1
    """A reserved code."""
