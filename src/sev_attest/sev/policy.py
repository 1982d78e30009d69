"""The guest policy: what the firmware enforces for one guest.

Source: AMD 55766, "Guest policy"; the bits and their numbers are in :class:`spec.PolicyBit`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.sev.spec import RESERVED_POLICY, PolicyBit

_MAX = 0xFFFF_FFFF
_MIN_API = r"api>=([0-9]{1,3})\.([0-9]{1,3})"

BITS = {
    PolicyBit.NODBG: (
        "no-debug",
        "the host cannot use the debug commands on the guest",
        "the host can read and write the guest's memory with the debug commands",
    ),
    PolicyBit.NOKS: (
        "no-key-sharing",
        "no other guest gets this guest's memory key",
        "the host can start another guest with the same memory key",
    ),
    PolicyBit.ES: (
        "es",
        "vCPU registers are encrypted and measured (SEV-ES)",
        "the host sees and can change the guest's registers",
    ),
    PolicyBit.NOSEND: (
        "no-send",
        "the guest stays on this platform",
        "the host can migrate the guest to another platform that the firmware accepts",
    ),
    PolicyBit.DOMAIN: (
        "domain",
        "the guest goes only to platforms of the same owner",
        "where the guest may be sent to is not bound to this platform's owner",
    ),
    PolicyBit.SEV: (
        "sev",
        "the guest goes only to platforms with SEV",
        "where the guest may be sent to need not have SEV",
    ),
}
"""Each bit's name, what it does when set, and the risk when it is clear."""


def require_policy_type(policy: object) -> None:
    """Raise TypeError if ``policy`` is a number or another value."""
    if not isinstance(policy, GuestPolicy):
        kind = type(policy).__name__
        raise TypeError(f"policy must be a GuestPolicy, such as GuestPolicy(0x5), not {kind}")


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """A guest policy, 32 bits.

    Any value is accepted here, since a measurement may have been made with it; a new session
    refuses :attr:`reserved` bits.

    >>> policy = GuestPolicy(0x33010005)
    >>> policy.es, policy.min_api
    (True, (1, 51))
    """

    value: int

    def __post_init__(self) -> None:
        """Raise MalformedInput for anything but a 32-bit number."""
        if not isinstance(self.value, int) or not 0 <= self.value <= _MAX:
            raise MalformedInput("policy", "range", f"{self.value!r} is not in 0..{_MAX:#x}")

    def __int__(self) -> int:
        """Return the number."""
        return self.value

    def __str__(self) -> str:
        """Return the number in hex, as in libvirt's <policy>."""
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
        return self.value & RESERVED_POLICY

    def require_unreserved(self) -> None:
        """Raise Unsupported for reserved bits, which no firmware defines."""
        if self.reserved:
            raise Unsupported(
                f"policy {self}: bits {self.reserved:#x} are reserved", check="policy.reserved"
            )

    def names(self) -> list[str]:
        """Return the names of the set bits, and the minimum API, as :func:`compose` takes them."""
        found = [name for bit, (name, _, _) in BITS.items() if bit in self.bits]
        major, minor = self.min_api
        return [*found, f"api>={major}.{minor}"] if major or minor else found

    def risks(self) -> list[str]:
        """Return what each clear bit, and a missing minimum API, allows the host to do."""
        found = [risk for bit, (_, _, risk) in BITS.items() if bit not in self.bits]
        if self.min_api == (0, 0):
            found.append("the guest starts on SEV firmware of any API version")
        return found


def compose(names: Iterable[str]) -> GuestPolicy:
    """Return the policy with these names; raises Unsupported for an unknown name.

    >>> str(compose(["no-debug", "es", "api>=1.51"]))
    '0x33010005'
    """
    by_name = {name: bit for bit, (name, _, _) in BITS.items()}
    value = 0
    for given in names:
        name = given.strip().lower()
        api = re.fullmatch(_MIN_API, name)
        if name in by_name:
            value |= by_name[name]
        elif api and all(int(part) <= 0xFF for part in api.groups()):  # noqa: PLR2004 - a byte
            if value >> 16:
                raise Unsupported("a policy has one api>=", check="policy.name")
            value |= int(api[1]) << 16 | int(api[2]) << 24
        else:
            known = ", ".join([*by_name, "api>=MAJOR.MINOR"])
            raise Unsupported(f"no policy bit {given!r}: {known}", check="policy.name")
    return GuestPolicy(value)
