"""The guest policy of SEV-SNP, and the bits that tell of the platform and of the signing key.

Source: AMD 56860, "Guest policy", PLATFORM_INFO and the key bits of ATTESTATION_REPORT; see
:mod:`sev_attest.snp.spec`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sev_attest.errors import MalformedInput
from sev_attest.snp.spec import PlatformBit, PolicyBit, SigningKey


class Meaning(NamedTuple):
    """The name of a bit, and what it says when set and when clear."""

    name: str
    when_set: str
    when_clear: str


PERMITS: dict[int, Meaning] = {
    PolicyBit.SMT: Meaning(
        "smt", "the host may have SMT on", "the guest does not start on a host with SMT on"
    ),
    PolicyBit.MIGRATE_MA: Meaning(
        "migrate-ma",
        "the host may give the guest a migration agent, which can move it",
        "the guest has no migration agent, and stays on this platform",
    ),
    PolicyBit.DEBUG: Meaning(
        "debug",
        "the host can read and write the guest's memory with the debug commands",
        "the host cannot use the debug commands on the guest",
    ),
    PolicyBit.CXL_ALLOW: Meaning(
        "cxl-allow",
        "the host may have CXL devices and memory",
        "the guest does not start on a host with CXL",
    ),
}
"""Bits that permit the host something: clear is the stronger value."""

DEMANDS: dict[int, Meaning] = {
    PolicyBit.SINGLE_SOCKET: Meaning(
        "single-socket",
        "the guest runs on a single socket only",
        "the guest may run on several sockets",
    ),
    PolicyBit.MEM_AES_256_XTS: Meaning(
        "mem-aes-256-xts",
        "memory must be encrypted with AES-256-XTS",
        "memory may be encrypted with AES-128",
    ),
    PolicyBit.RAPL_DIS: Meaning(
        "rapl-dis",
        "the host must have RAPL (power readings) disabled",
        "the host may read the CPU's power use (RAPL)",
    ),
    PolicyBit.CIPHERTEXT_HIDING_DRAM: Meaning(
        "ciphertext-hiding-dram",
        "the host must not see the guest's encrypted memory",
        "the host may see the guest's encrypted memory",
    ),
    PolicyBit.PAGE_SWAP_DISABLE: Meaning(
        "page-swap-disable",
        "the host cannot move or swap the guest's pages",
        "the host may move and swap the guest's pages",
    ),
}
"""Bits that demand something of the host: set is the stronger value."""

PLATFORM: dict[int, Meaning] = {
    PlatformBit.SMT_EN: Meaning("smt-en", "SMT is on", "SMT is off"),
    PlatformBit.TSME_EN: Meaning(
        "tsme-en",
        "all memory is encrypted transparently (TSME)",
        "memory is not encrypted transparently (no TSME)",
    ),
    PlatformBit.ECC_EN: Meaning("ecc-en", "memory has ECC", "memory is not said to have ECC"),
    PlatformBit.RAPL_DIS: Meaning(
        "rapl-dis", "RAPL (power readings) is disabled", "RAPL (power readings) may be on"
    ),
    PlatformBit.CIPHERTEXT_HIDING_DRAM_EN: Meaning(
        "ciphertext-hiding-dram-en",
        "the host does not see encrypted memory",
        "the host may see encrypted memory",
    ),
    PlatformBit.ALIAS_CHECK_COMPLETE: Meaning(
        "alias-check-complete",
        "memory was checked for aliased addresses (BadRAM, AMD-SB-3015)",
        "memory is not said to be checked for aliased addresses (BadRAM, AMD-SB-3015)",
    ),
    PlatformBit.IOMMU_WRITE_SAFE: Meaning(
        "iommu-write-safe",
        "the IOMMU is said to be safe against writes",
        "the IOMMU is not said to be safe against writes",
    ),
    PlatformBit.TIO_EN: Meaning(
        "tio-en", "trusted I/O (SEV-TIO) is on", "trusted I/O (SEV-TIO) is off"
    ),
}
"""What each bit of platform_info says of the host."""

_MOST = 0xFFFF_FFFF_FFFF_FFFF
# As plain numbers: ~ of an IntFlag has no other bits than its members.
_ONE = int(PolicyBit.RESERVED_ONE)
_RESERVED = _MOST & ~(0xFFFF | sum(PERMITS) | sum(DEMANDS))


def unknown_bits(value: int, known: int) -> list[str]:
    """Return "bit-N (unknown)" for each set bit of ``value`` that is not in ``known``."""
    rest = value & ~known
    return [f"bit-{at} (unknown)" for at in range(rest.bit_length()) if rest >> at & 1]


def _named(value: int, meanings: Mapping[int, Meaning]) -> list[str]:
    return [meaning.name for bit, meaning in meanings.items() if value & bit]


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """A guest policy, 64 bits.

    Any value is accepted here: a report's policy is signed, and the verifier judges
    :attr:`reserved`.

    >>> policy = GuestPolicy(0x3001f)
    >>> policy.permits, policy.demands, policy.min_abi
    (['smt'], [], (0, 31))
    """

    value: int

    def __post_init__(self) -> None:
        """Raise MalformedInput for anything but a 64-bit number."""
        if not isinstance(self.value, int) or not 0 <= self.value <= _MOST:
            raise MalformedInput("policy", "range", f"{self.value!r} is not in 0..{_MOST:#x}")

    def __int__(self) -> int:
        """Return the number."""
        return self.value

    def __str__(self) -> str:
        """Return the number in hex, as in libvirt's <policy>."""
        return f"{self.value:#x}"

    @property
    def min_abi(self) -> tuple[int, int]:
        """Lowest SEV-SNP ABI version (major, minor) that the firmware may have."""
        return self.value >> 8 & 0xFF, self.value & 0xFF

    @property
    def permits(self) -> list[str]:
        """Names of the set bits that permit the host something."""
        return _named(self.value, PERMITS)

    @property
    def demands(self) -> list[str]:
        """Names of the set bits that demand something of the host."""
        return _named(self.value, DEMANDS)

    @property
    def debug(self) -> bool:
        """Whether the host may read and write the guest's memory through the debug commands."""
        return bool(self.value & PolicyBit.DEBUG)

    @property
    def migration_agent(self) -> bool:
        """Whether the host may give the guest a migration agent."""
        return bool(self.value & PolicyBit.MIGRATE_MA)

    @property
    def reserved(self) -> int:
        """Bits with another value than the ABI's: bit 17 if clear, bits 26-63 if set; else 0."""
        return (self.value ^ _ONE) & _RESERVED


class PlatformInfo(NamedTuple):
    """What firmware says of the platform, 64 bits. Unknown bits are named, not refused."""

    value: int

    def __int__(self) -> int:
        """Return the number."""
        return self.value

    @property
    def bits(self) -> PlatformBit:
        """Bits that have a name."""
        return PlatformBit(self.value & sum(PlatformBit))

    @property
    def names(self) -> list[str]:
        """Names of the set bits."""
        return _named(self.value, PLATFORM)

    @property
    def unknown(self) -> list[str]:
        """Set bits without a name: newer firmware has them."""
        return unknown_bits(self.value, sum(PLATFORM))


class KeyInfo(NamedTuple):
    """The key that signs a report, 32 bits. Unknown bits are named, not refused."""

    value: int

    def __int__(self) -> int:
        """Return the number."""
        return self.value

    @property
    def author_key_en(self) -> bool:
        """Whether ``author_key_digest`` has a meaning: an author key signed the ID key."""
        return bool(self.value & 1)

    @property
    def mask_chip_key(self) -> bool:
        """Whether the host masks the chip's key: the signature is zero then."""
        return bool(self.value & 2)

    @property
    def signing_key(self) -> SigningKey:
        """Kind of the key that signs the report; UNKNOWN for a reserved code."""
        try:
            return SigningKey(self.value >> 2 & 0b111)
        except ValueError:
            return SigningKey.UNKNOWN

    @property
    def unknown(self) -> list[str]:
        """Set bits without a name."""
        return unknown_bits(self.value, 0b11111)
