"""Search for the reason why a measurement does not match.

No secret can be built with a finding. What is tried is listed in
:mod:`sev_attest.sev.diagnosis.hypotheses`.
"""

import time
from collections.abc import Callable, Iterator

from sev_attest.guest.diagnosis.changes import firmware_changes, kernel_changes
from sev_attest.guest.diagnosis.search import (
    BUDGET,
    Change,
    Diagnosis,
    Explanation,
    search,
    stages,
)
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.vmsa import VmsaProfile
from sev_attest.sev.diagnosis.guest_changes import machines, plain_sev, vcpu_changes
from sev_attest.sev.diagnosis.hypotheses import RANK, RULED_OUT, Clues, Launch, changed
from sev_attest.sev.diagnosis.number_changes import (
    key_changes,
    number_changes,
    other_launches,
    policy_changes,
)
from sev_attest.sev.diagnosis.trial import Trial
from sev_attest.sev.digest import MeasuredGuest
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

__all__ = ["BUDGET", "Clues", "Diagnosis", "Explanation", "explain_mismatch"]


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
    trial = Trial(info, guest if isinstance(guest, bytes) else None)
    clues = clues or Clues()
    wide = machines(stated, trial), other_launches(stated, trial)
    return search(
        stages(_changes(stated, clues), RANK, *wide),
        lambda combination: trial.fits(changed(stated, combination)),
        words=RULED_OUT,
        left_out=clues.left_out,
        end=end,
        progress=progress,
    )


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
        yield from firmware_changes(clues, Firmware.read)
