"""The guest policy: what the firmware holds the host to for one guest.

Source: AMD 55766, "Guest policy"; the bits and their numbers are in :class:`spec.PolicyBit`.
"""

from dataclasses import dataclass

from sev_attest.errors import MalformedInput
from sev_attest.spec import PolicyBit

_MAX = 0xFFFF_FFFF
_RESERVED = 0xFFC0


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """A guest policy, 32 bits.

    Any value is accepted here (a measurement may have been made with it); whoever makes a launch
    refuses :attr:`reserved` bits.

    >>> policy = GuestPolicy(0x33010005)
    >>> policy.es, policy.min_api
    (True, (1, 51))
    """

    value: int

    def __post_init__(self) -> None:
        """Refuse what is no 32-bit number (MalformedInput)."""
        if not isinstance(self.value, int) or not 0 <= self.value <= _MAX:
            raise MalformedInput("policy", "range", f"{self.value!r} is not in 0..{_MAX:#x}")

    def __int__(self) -> int:
        """Give the number."""
        return self.value

    def __str__(self) -> str:
        """Give the number in hex, as libvirt's <policy> reads it."""
        return f"{self.value:#06x}"

    @property
    def bits(self) -> PolicyBit:
        """Bits 0-5."""
        return PolicyBit(self.value & 0x3F)

    @property
    def es(self) -> bool:
        """Whether vCPU state is encrypted and measured (SEV-ES)."""
        return PolicyBit.ES in self.bits

    @property
    def debug(self) -> bool:
        """Whether the host may read and write the guest's memory through the debug commands."""
        return PolicyBit.NODBG not in self.bits

    @property
    def min_api(self) -> tuple[int, int]:
        """Lowest SEV API version (major, minor) that the firmware may have."""
        return self.value >> 16 & 0xFF, self.value >> 24

    @property
    def reserved(self) -> int:
        """Reserved bits (6-15) that are set; 0 in a policy that firmware defines."""
        return self.value & _RESERVED
