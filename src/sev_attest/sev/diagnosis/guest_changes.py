"""Differences in what was booted, for SEV and SEV-ES alone: vCPU state, SEV or SEV-ES."""

from collections.abc import Iterator

from sev_attest.guest.diagnosis.changes import (
    MOST_VCPUS,
    count_change,
    counts,
    cpus,
    page_changes,
    steppings,
)
from sev_attest.guest.diagnosis.search import Change, Combination, Tried
from sev_attest.guest.spec import VMSA_PROFILES
from sev_attest.guest.vmsa import VmsaProfile
from sev_attest.sev.diagnosis.hypotheses import Launch, changed
from sev_attest.sev.diagnosis.trial import Trial
from sev_attest.sev.policy import BITS, GuestPolicy
from sev_attest.sev.spec import PolicyBit

_VMM = (
    "that is another VMM's or another kernel's vCPU state: state it only if you know that the host "
    "runs it"
)
_PAGES = (
    "then its vCPUs did not start as your pages say, but as the host set them up: state it so only "
    "if you know why"
)
_QEMU = tuple(name for name in VMSA_PROFILES if VmsaProfile.needs_cpu(name))


def vcpu_changes(stated: Launch) -> Iterator[Change]:
    """Yield other vCPUs: their number, profile, CPU model and stepping, and their pages."""
    yield from counts(stated.vcpus)
    if stated.given is None:
        yield from layouts(stated)
        yield from cpus(stated.cpu)
        yield from steppings(stated.cpu)
    yield from page_changes(stated.given)
    yield Change(
        hypothesis="vmsa.none",
        detail="no vCPU's state was measured",
        parts={"es": False},
        options={"num_cpus": 0},
        meaning="then the host chose it: it can start each vCPU where it likes",
    )


def layouts(stated: Launch) -> Iterator[Change]:
    """Yield every other VMSA profile."""
    assumed = stated.layout or VMSA_PROFILES[0]
    for name in VMSA_PROFILES:
        if name != stated.layout:
            yield Change(
                hypothesis="vmsa.profile",
                detail=f"its vCPUs were set up as in VMSA profile {name}",
                parts={"layout": name},
                options={"vmsa_profile": name},
                meaning=_PAGES if stated.given else _set_up(assumed, name),
            )


def _set_up(stated: str, name: str) -> str:
    """Return what another profile means for security; empty between QEMU's two."""
    dropped = "+" in stated and "+" not in name  # without debug-swap, the host controls more
    if stated in _QEMU and name in _QEMU and not dropped:
        return ""
    krun = "; krun's other vCPUs start outside the measured firmware" if name == "krun" else ""
    return _VMM + krun


def plain_sev(stated: Launch) -> Iterator[Change]:
    """Yield the same guest as plain SEV."""
    policy = GuestPolicy(stated.policy & ~PolicyBit.ES)
    yield Change(
        hypothesis="es.off",
        detail=f"it was launched as plain SEV, with policy {policy}",
        parts={"es": False, "policy": policy.value},
        options={"policy": policy.value},
        meaning=f"then {BITS[PolicyBit.ES][2]}",
    )


def encrypted_state(stated: Launch) -> Change:
    """Return the same guest as SEV-ES; which vCPU state it then has is another change."""
    policy = GuestPolicy(stated.policy | PolicyBit.ES)
    return Change(
        hypothesis="es.on",
        detail=f"it was launched as SEV-ES, with policy {policy}",
        parts={"es": True, "policy": policy.value},
        options={"policy": policy.value},
        meaning=f"then {BITS[PolicyBit.ES][1]}: make a session with that policy if you want it",
    )


def machines(stated: Launch, trial: Trial) -> Iterator[Combination | Tried]:
    """Try every known vCPU state: profile, CPU model and number of vCPUs; yield the one that fits.

    One chain of pages answers for every number of vCPUs.
    """
    if stated.firmware is None:
        return
    none: tuple[Change | None, ...] = (None,)
    head = () if stated.es else (encrypted_state(stated),)
    numbers = dict.fromkeys((stated.vcpus, *range(1, MOST_VCPUS + 1)))
    pages = _PAGES if stated.given else ""
    for layout in (*none, *layouts(stated)):
        name = layout.options["vmsa_profile"] if layout else stated.layout
        shows_cpu = name is None or VmsaProfile.shows_cpu(str(name))
        for cpu in (*none, *(cpus(stated.cpu, pages) if shows_cpu else ())):
            state = tuple(change for change in (cpu, layout) if change)
            count = trial.vcpus(changed(stated, (*head, *state)), numbers)
            if count is None:
                names = {change.hypothesis for change in (*head, *state)}
                yield Tried(len(numbers), {"vcpus", *names})
                continue
            number = () if count == stated.vcpus else (count_change(stated.vcpus, count),)
            yield (*head, *number, *state)
