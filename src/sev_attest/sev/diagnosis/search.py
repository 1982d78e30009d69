"""Search for the reason why a measurement does not match.

Most mismatches are honest mistakes, and an HMAC costs a microsecond. A finding is words for people:
it never turns a refusal into a success, and no secret can be built with it. What is tried is listed
in :mod:`sev_attest.sev.diagnosis.hypotheses`.
"""

import hmac
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product

from sev_attest.errors import SevAttestError
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import KernelHashes
from sev_attest.guest.spec import VMSA_PROFILES
from sev_attest.guest.vmsa import VmsaPages, VmsaProfile
from sev_attest.sev.diagnosis.guest_changes import (
    firmware_changes,
    kernel_changes,
    machines,
    plain_sev,
    vcpu_changes,
)
from sev_attest.sev.diagnosis.hypotheses import (
    RANK,
    RULED_OUT,
    Change,
    Clues,
    Launch,
)
from sev_attest.sev.diagnosis.number_changes import (
    key_changes,
    number_changes,
    other_launches,
    policy_changes,
)
from sev_attest.sev.digest import MeasuredGuest, pages_for
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import expected_measure
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

__all__ = ["BUDGET", "Clues", "Diagnosis", "Explanation", "explain_mismatch"]

BUDGET = 5.0
"""Time limit of a search by default, in seconds."""
_TELL_EVERY = 4096
_MOST_KEPT = 1024
_Combination = tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A difference from what was stated that makes the measurement match.

    ``hypothesis`` joins the ids of its changes with ``+`` ("vcpus+cmdline"), ``detail`` ends the
    sentence "it fits if ...", ``changes`` says the same by option. ``meaning`` is what it means for
    security; empty for a slip of the owner's.
    """

    hypothesis: str
    detail: str
    changes: Mapping[str, object]
    meaning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of a search: ``findings``, likeliest first, or else what was ruled out.

    ``tried`` counts combinations; ``complete`` is False if time ran out before all were tried, or
    the clues left something out.
    """

    findings: tuple[Explanation, ...]
    tried: int
    ruled_out: tuple[str, ...]
    complete: bool


def explain_mismatch(
    info: LaunchInfo,
    *,
    keys: TransportKeys,
    policy: GuestPolicy,
    guest: MeasuredGuest | bytes,
    vcpus: int | None = None,
    profile: VmsaProfile | None = None,
    clues: Clues | None = None,
    budget: float = BUDGET,
    progress: Callable[[int], object] | None = None,
) -> Diagnosis:
    """Return a small difference from what was stated that makes the measurement match.

    ``guest`` is what the owner measured, or a launch digest (32 bytes). ``vcpus`` is the number of
    vCPUs, for SEV-ES. ``profile`` is what the vCPUs' pages were built from; None if the owner gave
    pages. ``clues`` holds further inputs. The search ends at the first match, or after ``budget``
    seconds; ``progress`` is called at times with the number of combinations tried.

    Does not verify: anything. A finding is no verdict; the launch stays untrusted.
    """
    end = time.monotonic() + budget
    stated = Launch(
        keys=keys,
        api_major=info.api_major,
        api_minor=info.api_minor,
        build_id=info.build_id,
        policy=policy.value,
    )
    if isinstance(guest, MeasuredGuest):
        stated = _with_guest(stated, guest, vcpus, profile)
    trial = _Trial(info, guest if isinstance(guest, bytes) else None)
    clues = clues or Clues()
    tried = 0
    done: set[str] = set()
    for stage in _stages(stated, clues):
        seen: set[str] = set()
        for combination in stage:
            if time.monotonic() >= end:
                return _ruled_out(tried, done, clues, complete=False)
            tried += 1
            if progress is not None and tried % _TELL_EVERY == 0:
                progress(tried)
            if trial.fits(_changed(stated, combination)):
                found = _finding(combination)
                return Diagnosis(findings=(found,), tried=tried, ruled_out=(), complete=True)
            seen.update(change.hypothesis for change in combination)
        done |= seen
    return _ruled_out(tried, done, clues, complete=True)


def _with_guest(
    launch: Launch, guest: MeasuredGuest, vcpus: int | None, profile: VmsaProfile | None
) -> Launch:
    launch = launch._replace(firmware=guest.firmware, es=guest.vmsa is not None, vcpus=vcpus or 1)
    if guest.kernel is not None:
        kernel = guest.kernel
        launch = launch._replace(
            hashes=True, kernel=kernel.kernel, initrd=kernel.initrd, cmdline=kernel.cmdline
        )
    if profile is None:
        return launch._replace(given=guest.vmsa)
    return launch._replace(layout=profile.name, cpu=profile.cpu)


def _stages(stated: Launch, clues: Clues) -> Iterator[Iterable[_Combination]]:
    """Yield what is tried, stage by stage: single changes, likely pairs, the wide searches."""
    likely: list[Change] = []

    def singles() -> Iterator[_Combination]:
        for change in _changes(stated, clues):
            if change.likely:
                likely.append(change)
            yield (change,)

    yield singles()
    yield _pairs(likely)
    yield machines(stated)
    yield ((change,) for change in other_launches(stated))


def _changes(stated: Launch, clues: Clues) -> Iterator[Change]:
    """Yield every single change, likely and cheap ones first."""
    yield from key_changes(stated, clues)
    if stated.hashes:
        yield from kernel_changes(stated, clues)
    if stated.es:
        yield from vcpu_changes(stated)
        yield from plain_sev(stated)
    yield from number_changes(stated, clues)
    yield from policy_changes(stated, clues)
    if stated.firmware is not None:
        yield from firmware_changes(clues)


def _pairs(likely: Iterable[Change]) -> Iterator[_Combination]:
    """Yield pairs of changes, likeliest first, in constant memory."""
    groups: dict[int, list[Change]] = defaultdict(list)
    for change in likely:
        groups[RANK[change.hypothesis]].append(change)
    for one, two in sorted(combinations_with_replacement(sorted(groups), 2), key=sum):
        pairs = combinations(groups[one], 2) if one == two else product(groups[one], groups[two])
        for pair in pairs:
            if pair[0].parts.keys().isdisjoint(pair[1].parts):
                yield pair


def _changed(stated: Launch, combination: _Combination) -> Launch:
    parts = {name: part for change in combination for name, part in change.parts.items()}
    return stated._replace(**parts)  # type: ignore[arg-type] # each change has parts of a Launch


def _finding(combination: _Combination) -> Explanation:
    return Explanation(
        hypothesis="+".join(change.hypothesis for change in combination),
        detail=", and ".join(change.detail for change in combination),
        changes={name: value for change in combination for name, value in change.options.items()},
        meaning="; ".join(dict.fromkeys(c.meaning for c in combination if c.meaning)),
    )


def _ruled_out(tried: int, done: set[str], clues: Clues, *, complete: bool) -> Diagnosis:
    done = done.difference(clues.left_out)
    words = tuple(words for hypothesis, words in RULED_OUT.items() if hypothesis in done)
    complete = complete and not clues.left_out
    return Diagnosis(findings=(), tried=tried, ruled_out=words, complete=complete)


class _Trial:
    """Compares launches with the measurement; nothing is hashed twice."""

    def __init__(self, info: LaunchInfo, digest: bytes | None) -> None:
        self._info = info
        self._given = digest
        self._digests: dict[object, tuple[Iterator[bytes], list[bytes]]] = {}

    def fits(self, launch: Launch) -> bool:
        """Return whether this launch would have that measurement."""
        digest = self._digest(launch)
        return digest is not None and hmac.compare_digest(
            expected_measure(
                launch.keys.tik,
                api=(launch.api_major, launch.api_minor),
                build_id=launch.build_id,
                policy=GuestPolicy(launch.policy),
                digest=digest,
                nonce=self._info.nonce,
            ),
            self._info.measure,
        )

    def _digest(self, launch: Launch) -> bytes | None:
        """Return a launch digest; None for a guest that cannot exist."""
        if launch.firmware is None:
            return self._given
        booted = launch.hashes and (launch.kernel, launch.initrd, launch.cmdline)
        state = launch.es and (launch.layout, launch.cpu, launch.order)
        key = id(launch.firmware), booted, state
        if key not in self._digests:
            if len(self._digests) == _MOST_KEPT:
                self._digests.clear()
            self._digests[key] = _each(launch, launch.firmware), []
        rest, found = self._digests[key]
        count = launch.vcpus if launch.es else 1
        while len(found) < count:
            digest = next(rest, None)
            if digest is None:
                return None
            found.append(digest)
        return found[count - 1]


def _each(launch: Launch, firmware: Firmware) -> Iterator[bytes]:
    """Yield the digests for 1, 2, ... vCPUs; none for a guest that cannot exist."""
    kernel = None
    if launch.hashes:
        kernel = KernelHashes(kernel=launch.kernel, initrd=launch.initrd, cmdline=launch.cmdline)
    try:
        guest = MeasuredGuest(
            firmware=firmware,
            kernel=kernel,
            vmsa=_pages(launch, firmware) if launch.es else None,
        )
    except SevAttestError:  # this firmware starts no such guest
        return
    yield from guest.each()


def _pages(launch: Launch, firmware: Firmware) -> VmsaPages:
    pages = launch.given
    if pages is None or launch.layout or launch.cpu:
        profile = VmsaProfile(name=launch.layout or VMSA_PROFILES[0], cpu=launch.cpu)
        pages = pages_for(profile, firmware)
    if launch.order == "boot":
        return VmsaPages(boot=pages.boot, ap=pages.boot)
    if launch.order == "swapped":
        return VmsaPages(boot=pages.ap or pages.boot, ap=pages.boot)
    return pages
