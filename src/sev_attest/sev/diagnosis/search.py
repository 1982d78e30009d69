"""Search for the reason why a measurement does not match.

An HMAC costs a microsecond. No secret can be built with a finding. What is tried is listed in
:mod:`sev_attest.sev.diagnosis.hypotheses`.
"""

import hmac
import time
from collections.abc import Callable, Iterator

from sev_attest.errors import SevAttestError
from sev_attest.guest.diagnosis.changes import firmware_changes, kernel_changes, ordered
from sev_attest.guest.diagnosis.search import (
    BUDGET,
    Change,
    Diagnosis,
    Digests,
    Explanation,
    parts_of,
    search,
    stages,
)
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import KernelHashes
from sev_attest.guest.spec import VMSA_PROFILES
from sev_attest.guest.vmsa import VmsaPages, VmsaProfile
from sev_attest.sev.diagnosis.guest_changes import machines, plain_sev, vcpu_changes
from sev_attest.sev.diagnosis.hypotheses import RANK, RULED_OUT, Clues, Launch
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
    others = ((change,) for change in other_launches(stated))
    return search(
        stages(_changes(stated, clues), RANK, machines(stated), others),
        lambda combination: trial.fits(stated._replace(**parts_of(combination))),  # type: ignore[arg-type] # each change has parts of a Launch
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


class _Trial:
    """Compares launches with the measurement; nothing is hashed twice."""

    def __init__(self, info: LaunchInfo, digest: bytes | None) -> None:
        self._info = info
        self._given = digest
        self._digests = Digests()

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
        firmware = launch.firmware
        if firmware is None:
            return self._given
        booted = launch.hashes and (launch.kernel, launch.initrd, launch.cmdline)
        state = launch.es and (launch.layout, launch.cpu, launch.order)
        count = launch.vcpus if launch.es else 1
        found = self._digests.up_to(
            count, firmware, (booted, state), lambda: _each(launch, firmware)
        )
        return found[count - 1] if len(found) >= count else None


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
    return ordered(pages, launch.order)
