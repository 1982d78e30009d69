"""What the search for a mismatch tries: the hypotheses, and what one is made of.

A :class:`Launch` is everything that goes into one measurement; a :class:`Change` replaces a part of
it. To add a hypothesis: its id in :data:`RULED_OUT`, and a function in ``guest_changes.py`` or
``number_changes.py`` that yields its changes.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sev_attest.guest.cpu import CpuModel
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import NO_CMDLINE, NO_INITRD
from sev_attest.guest.vmsa import VmsaPages
from sev_attest.sev.keys import TransportKeys

MOST_VCPUS = 512

RULED_OUT = {
    "keys.swapped": "TIK and TEK swapped",
    "kernel.hashes-off": "a launch without kernelHashes='yes'",
    "vcpus": f"another number of vCPUs (1 to {MOST_VCPUS})",
    "vmsa.profile": "another VMSA profile",
    "cpu.model": "another CPU model of QEMU's",
    "cmdline": "a command line with other blanks, quotes, newline or NUL, or none",
    "kernel.no-initrd": "a launch without the initrd",
    "kernel.swapped": "kernel and initrd swapped",
    "firmware.other": "another firmware image that was at hand",
    "firmware.joined": "firmware code and variables in one image, either way",
    "firmware.code-alone": "the firmware's code without its variables",
    "keys.other": "other keys that were at hand",
    "numbers.swapped": "API and build swapped",
    "numbers.base": "API, build or policy read as hex instead of decimal, or the reverse",
    "policy.session": "the policy of the session's record",
    "policy.bit": "a policy with one other bit",
    "es.off": "a launch as plain SEV",
    "es.on": "a launch as SEV-ES, with any vCPU state that is known here",
    "vmsa.swapped": "the vCPUs' pages swapped",
    "vmsa.boot-for-all": "the boot vCPU's page for all vCPUs",
    "vmsa.none": "a launch whose vCPU state was not measured",
    "numbers.one": "another API major, API minor or build",
    "cpu.stepping": "another CPU stepping",
    "policy.bits": "a policy with two other bits",
    "launch.other": "API 0.x and 1.x with any build, as of another launch",
}
"""What is ruled out if no change of a hypothesis fits, likeliest first."""
RANK = {hypothesis: rank for rank, hypothesis in enumerate(RULED_OUT)}


class Launch(NamedTuple):
    """Everything that goes into one measurement.

    ``given`` holds the vCPUs' pages, unless ``layout`` or ``cpu`` says how to build them.
    """

    keys: TransportKeys
    api_major: int
    api_minor: int
    build_id: int
    policy: int
    firmware: Firmware | None = None
    hashes: bool = False
    kernel: bytes = b""
    initrd: bytes = NO_INITRD
    cmdline: bytes = NO_CMDLINE
    es: bool = False
    vcpus: int = 1
    given: VmsaPages | None = None
    layout: str | None = None
    cpu: CpuModel | None = None
    order: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One way in which the launch may differ.

    ``detail`` ends the sentence "it fits if ...". ``parts`` replaces fields of :class:`Launch`,
    ``options`` says the same by option name. ``meaning`` says what the difference means for
    security, where the owner decided otherwise. A ``likely`` change is also tried in pairs.
    """

    hypothesis: str
    detail: str
    parts: Mapping[str, object] = field(repr=False)
    options: Mapping[str, object]
    meaning: str = ""
    likely: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """Further inputs of a search: other keys and firmware images, and what the owner stated.

    ``verified`` names those keys whose session's record has a verified platform and this policy.
    ``image`` is the stated firmware, ``cmdline`` the stated command line, and ``recorded`` the
    policy in a record of this session. ``typed`` names what the owner typed of "api_major",
    "api_minor" and "build_id"; the rest is the host's claim. ``left_out`` names the
    hypotheses that were not looked at completely; it may grow while ``images`` are read.
    """

    keys: Mapping[str, TransportKeys] = field(default_factory=dict)
    verified: Collection[str] = ()
    images: Iterable[tuple[str, bytes]] = ()
    image: bytes | None = None
    cmdline: bytes | None = None
    recorded: int | None = None
    typed: Collection[str] = ()
    left_out: Collection[str] = ()
