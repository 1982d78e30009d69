"""Search for the reason why an SEV-SNP launch digest differs from the one in a report.

A finding is words for people: the report stays as untrusted as it was. What is tried is listed in
:data:`RULED_OUT`; a digest after another vCPU costs a microsecond.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from sev_attest.errors import SevAttestError
from sev_attest.guest.cpu import CpuModel
from sev_attest.guest.diagnosis.changes import (
    MOST_VCPUS,
    GuestClues,
    count_change,
    counts,
    cpus,
    firmware_changes,
    kernel_changes,
    ordered,
    page_changes,
    steppings,
    words,
)
from sev_attest.guest.diagnosis.search import (
    BUDGET,
    Change,
    Combination,
    Diagnosis,
    Digests,
    parts_of,
    search,
    stages,
)
from sev_attest.guest.kernel_hashes import NO_CMDLINE, NO_INITRD, KernelHashes
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.guest.vmsa import VmsaPages
from sev_attest.snp.digest import KERNEL_HASHES, SnpGuest, snp_pages_for
from sev_attest.snp.firmware import SnpFirmware
from sev_attest.snp.vmsa import FEATURES, SNP_ACTIVE, SnpProfile

RULED_OUT = {
    **words("kernel.hashes-off", "vcpus", "vmsa.profile"),
    "guest.features": "other guest features (SEV_FEATURES)",
    **words("cpu.model", "cmdline", "kernel.no-initrd", "kernel.swapped"),
    "kernel.section": "the section for kernel hashes measured before or after all others",
    **words("firmware.other", "firmware.joined", "firmware.code-alone"),
    **words("vmsa.swapped", "vmsa.boot-for-all", "cpu.stepping"),
}
"""What is ruled out if no change of a hypothesis fits, likeliest first."""
RANK = {hypothesis: rank for rank, hypothesis in enumerate(RULED_OUT)}
_FEATURES = (0x1, 0x21, 0x201, 0x221)
"""SEV_FEATURES of KVM: with debug swap (Linux 6.6, 6.7, AMD's trees), with secure TSC."""
_SAME_VMM = ({"qemu", "qemu-old"}, {"ec2", "ec2-old"}, {"svsm", "svsm-init2"})
"""Layouts that one VMM has on other hosts or at other times."""
_VMM = "that is another VMM's vCPU state: state it only if you know that the host runs it"
_PAGES = (
    "then its vCPUs did not start as your pages say, but as the host set them up: state it so only "
    "if you know why"
)
_SECTION = (
    "that is not the order of your firmware's metadata: state it so only if you know which "
    "firmware the host has"
)


class Launch(NamedTuple):
    """Everything that goes into one launch digest.

    ``given`` holds the vCPUs' pages, unless ``state``, ``cpu`` or ``features`` says how to build
    them: None for all three.
    """

    firmware: SnpFirmware
    vcpus: int
    layout: str
    hashes: bool = False
    kernel: bytes = b""
    initrd: bytes = NO_INITRD
    cmdline: bytes = NO_CMDLINE
    given: VmsaPages | None = None
    state: str | None = None
    cpu: CpuModel | None = None
    features: int | None = None
    order: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpClues(GuestClues):
    """Further inputs of a search; ``read`` makes an image the guest's firmware.

    With an SVSM, ``read`` puts it beside the image (:meth:`SnpFirmware.with_svsm`).
    """

    read: Callable[[bytes], SnpFirmware] = SnpFirmware.read


def explain_digest(
    expected: bytes,
    *,
    guest: SnpGuest,
    vcpus: int,
    profile: SnpProfile | None = None,
    clues: SnpClues | None = None,
    budget: float = BUDGET,
    progress: Callable[[int], object] | None = None,
) -> Diagnosis:
    """Return a small difference from what was stated that gives the launch digest ``expected``.

    ``expected`` is the digest of a report, 48 bytes; ``guest`` is what the owner measured, with
    ``vcpus`` vCPUs. ``profile`` is what their pages were built from; None if the owner gave pages.
    ``clues`` holds further inputs. The search ends at the first match, or after ``budget`` seconds;
    ``progress`` is called at times with the number of combinations tried.

    Does not verify: anything. A finding is no verdict.
    """
    end = time.monotonic() + budget
    stated = _stated(guest, vcpus, profile)
    clues = clues or SnpClues()
    trial = _Trial(expected)
    return search(
        stages(_changes(stated, clues), RANK, _machines(stated, trial)),
        lambda combination: trial.fits(_changed(stated, combination)),
        words=RULED_OUT,
        left_out=clues.left_out,
        end=end,
        progress=progress,
    )


def _stated(guest: SnpGuest, vcpus: int, profile: SnpProfile | None) -> Launch:
    launch = Launch(firmware=guest.firmware, vcpus=vcpus, layout=guest.layout)
    kernel = guest.kernel
    if kernel is not None:
        launch = launch._replace(
            hashes=True, kernel=kernel.kernel, initrd=kernel.initrd, cmdline=kernel.cmdline
        )
    if profile is None:
        return launch._replace(given=guest.vmsa)
    return launch._replace(state=profile.name, cpu=profile.cpu, features=profile.features)


def _changed(stated: Launch, combination: Combination) -> Launch:
    return stated._replace(**parts_of(combination))  # type: ignore[arg-type] # parts of a Launch


def _changes(stated: Launch, clues: SnpClues) -> Iterator[Change]:
    """Yield every single change, likely and cheap ones first."""
    if stated.hashes:
        yield from kernel_changes(stated, clues)
    yield from counts(stated.vcpus)
    if stated.given is None:
        yield from _layouts(stated)
        yield from _features(stated)
        yield from cpus(stated.cpu)
        yield from steppings(stated.cpu)
    yield from page_changes(stated.given)
    yield from _sections(stated)
    yield from firmware_changes(clues, clues.read)


def _layouts(stated: Launch) -> Iterator[Change]:
    """Yield every other layout that starts from such firmware."""
    for name in SNP_LAYOUTS:
        if name != stated.state and name.startswith("svsm") == stated.firmware.svsm:
            yield Change(
                hypothesis="vmsa.profile",
                detail=f"its vCPUs were set up as in VMSA profile {name}",
                parts={"state": name, "layout": name},
                options={"vmsa_profile": name},
                meaning=_PAGES if stated.given else _set_up(stated.layout, name),
            )


def _set_up(stated: str, name: str) -> str:
    """Return what another layout means for security; empty between those of one VMM."""
    if {stated, name} in _SAME_VMM:
        return ""
    krun = "; krun's other vCPUs start outside the measured firmware" if name == "krun" else ""
    return _VMM + krun


def _features(stated: Launch) -> Iterator[Change]:
    """Yield other guest features: those of known kernels, and every one with another bit."""
    own = SNP_ACTIVE if stated.features is None else stated.features
    others = (*_FEATURES, *(own ^ 1 << bit for bit in range(64)))
    for features in dict.fromkeys(others):
        if features != stated.features:
            lost = [name for bit, name in FEATURES.items() if own & ~features & bit]
            yield Change(
                hypothesis="guest.features",
                detail=f"its guest features were {features:#x}",
                parts={"features": features},
                options={"guest_features": f"{features:#x}"},
                meaning=f"then the guest ran without {', '.join(lost)}" if lost else "",
                likely=features in _FEATURES,
            )


def _sections(stated: Launch) -> Iterator[Change]:
    """Yield the section for kernel hashes behind and before all others.

    It was moved in edk2 (pull request 6054), so builds differ.
    """
    firmware = stated.firmware
    for place, sign in (("after", 1), ("before", -1)):
        sections = tuple(sorted(firmware.sections, key=lambda s: sign * (s.kind == KERNEL_HASHES)))
        if sections != tuple(firmware.sections):
            yield Change(
                hypothesis="kernel.section",
                detail=f"its section for kernel hashes was measured {place} all others",
                parts={"firmware": replace(firmware, sections=sections)},
                options={"firmware": "one with its sections in another order"},
                meaning=_SECTION,
            )


def _machines(stated: Launch, trial: "_Trial") -> Iterator[Combination]:
    """Yield every known vCPU state: layout, features and CPU model together, with what fits them.

    One chain of pages answers for every number of vCPUs.
    """
    none: tuple[Change | None, ...] = (None,)
    pages = _PAGES if stated.given else ""
    features = [change for change in _features(stated) if change.likely]
    for layout in (*none, *_layouts(stated)):
        name = layout.options["vmsa_profile"] if layout else stated.state
        shows_cpu = name is None or SnpProfile.shows_cpu(str(name))
        for feature in (*none, *features):
            for cpu in (*none, *(cpus(stated.cpu, pages) if shows_cpu else ())):
                found = tuple(change for change in (layout, feature, cpu) if change)
                count = trial.count(_changed(stated, found))
                if count is not None and count != stated.vcpus:
                    found = (count_change(stated.vcpus, count), *found)
                if found:
                    yield found


class _Trial:
    """Compares launches with the expected digest; nothing is hashed twice."""

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self._digests = Digests()

    def fits(self, launch: Launch) -> bool:
        """Return whether this launch would have that digest."""
        found = self._each(launch, launch.vcpus)
        return len(found) >= launch.vcpus and found[launch.vcpus - 1] == self._expected

    def count(self, launch: Launch) -> int | None:
        """Return with how many vCPUs this launch would have that digest; None if with none."""
        found = self._each(launch, MOST_VCPUS)
        return found.index(self._expected) + 1 if self._expected in found else None

    def _each(self, launch: Launch, count: int) -> list[bytes]:
        booted = launch.hashes and (launch.kernel, launch.initrd, launch.cmdline)
        built = (launch.state, launch.cpu, launch.features, launch.order)
        state = booted, launch.layout, built
        return self._digests.up_to(count, launch.firmware, state, lambda: _digests(launch))


def _digests(launch: Launch) -> Iterator[bytes]:
    """Yield the digests for 1, 2, ... vCPUs; none for a guest that cannot exist."""
    kernel = None
    if launch.hashes:
        kernel = KernelHashes(kernel=launch.kernel, initrd=launch.initrd, cmdline=launch.cmdline)
    try:
        guest = SnpGuest(
            firmware=launch.firmware, vmsa=_pages(launch), kernel=kernel, layout=launch.layout
        )
    except SevAttestError:  # this firmware starts no such guest
        return
    yield from guest.each()


def _pages(launch: Launch) -> VmsaPages:
    pages = launch.given
    if pages is None or launch.state or launch.cpu or launch.features is not None:
        profile = SnpProfile(
            name=launch.state or launch.layout,
            cpu=launch.cpu,
            features=SNP_ACTIVE if launch.features is None else launch.features,
        )
        pages = snp_pages_for(profile, launch.firmware)
    return ordered(pages, launch.order)
