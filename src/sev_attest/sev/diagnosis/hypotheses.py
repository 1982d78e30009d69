"""What the search for a mismatch tries: the hypotheses, and what one is made of.

A :class:`Launch` is everything that goes into one measurement; a change replaces a part of it. To
add a hypothesis: its id in :data:`RULED_OUT`, and a function in ``guest_changes.py`` or
``number_changes.py`` that yields its changes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sev_attest.guest.cpu import CpuModel
from sev_attest.guest.diagnosis.changes import GuestClues, words
from sev_attest.guest.diagnosis.search import Combination, parts_of
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import NO_CMDLINE, NO_INITRD
from sev_attest.guest.vmsa import VmsaPages
from sev_attest.sev.keys import TransportKeys

RULED_OUT = {
    "keys.swapped": "TIK and TEK swapped",
    **words("kernel.hashes-off", "vcpus", "vmsa.profile", "cpu.model", "cmdline"),
    **words("kernel.no-initrd", "kernel.swapped"),
    **words("firmware.other", "firmware.joined", "firmware.code-alone"),
    "keys.other": "other keys that were at hand",
    "numbers.swapped": "API and build swapped",
    "numbers.base": "API, build or policy read as hex instead of decimal, or the reverse",
    "policy.session": "the policy of the session's record",
    "policy.bit": "a policy with one other bit",
    "es.off": "a launch as plain SEV",
    "es.on": "a launch as SEV-ES, with any vCPU state that is known here",
    **words("vmsa.swapped", "vmsa.boot-for-all"),
    "vmsa.none": "a launch whose vCPU state was not measured",
    "numbers.one": "another API major, API minor or build",
    **words("cpu.stepping"),
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


def changed(stated: Launch, combination: Combination) -> Launch:
    """Return a launch with some changes made."""
    return stated._replace(**parts_of(combination))  # type: ignore[arg-type] # parts of a Launch


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues(GuestClues):
    """Further inputs of a search: other keys and firmware images, and what the owner stated.

    ``verified`` names those keys whose session's record has a verified platform and this policy.
    ``recorded`` is the policy in a record of this session. ``typed`` names what the owner typed of
    "api_major", "api_minor" and "build_id"; the rest is the host's claim.
    """

    keys: Mapping[str, TransportKeys] = field(default_factory=dict)
    verified: Collection[str] = ()
    recorded: int | None = None
    typed: Collection[str] = ()
