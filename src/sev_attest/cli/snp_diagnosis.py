"""Search for the cause of an SEV-SNP launch digest that differs: nearby files, hint and notes."""

import os
import time
from functools import partial

from sev_attest.cli.advice import Told, corrected, told, with_progress
from sev_attest.cli.at_hand import AtHand
from sev_attest.cli.options.firmware_search import FirmwareSearchOptions
from sev_attest.cli.options.snp_guest import SnpGuestOptions, SnpMeasured
from sev_attest.guest.diagnosis.search import Explanation
from sev_attest.snp.diagnosis import SnpClues, explain_digest
from sev_attest.snp.firmware import SnpFirmware


def diagnose(
    expected: bytes,
    measured: SnpMeasured,
    *,
    options: SnpGuestOptions,
    search: FirmwareSearchOptions,
    progress: bool,
) -> Told:
    """Search for what would give the ``expected`` digest; return that or what was ruled out.

    ``measured`` is what differs, ``options`` what it was computed from. ``progress`` shows the
    search on a terminal.
    """
    end = time.monotonic() + search.diagnose_budget
    at_hand = AtHand(options.firmware, search.firmware_dir, end)
    clues = SnpClues(
        images=at_hand.images(),
        image=at_hand.image(),
        cmdline=None if options.cmdline is None else os.fsencode(options.cmdline),
        left_out=at_hand.left_out,
        read=partial(_firmware, options, measured),
    )
    diagnosis = with_progress(
        lambda tell: explain_digest(
            expected,
            guest=measured.guest,
            vcpus=measured.vcpus,
            profile=options.profile(),
            clues=clues,
            budget=end - time.monotonic(),
            progress=tell,
        ),
        progress=progress,
    )
    return told(
        diagnosis,
        partial(_advice, options),
        what="launch digest",
        late=time.monotonic() >= end,
        guest=options if options.svsm is None else None,
    )


def _firmware(options: SnpGuestOptions, measured: SnpMeasured, image: bytes) -> SnpFirmware:
    """Make an image the guest's firmware, with its SVSM if it has one."""
    svsm = measured.inputs.svsm
    if svsm is None:
        return SnpFirmware.read(image)
    return SnpFirmware.with_svsm(image, svsm, options.vars_size or 0)


def _advice(options: SnpGuestOptions, finding: Explanation) -> tuple[str | None, str]:
    """Return the corrected command, None where there is none, and what to tell people."""
    if finding.meaning:
        return None, finding.meaning
    changes = dict(finding.changes)
    if changes.pop("vmsa", None) is not None:  # swapped
        changes |= {"vmsa_cpu0": options.vmsa_cpu1, "vmsa_cpu1": options.vmsa_cpu0}
    return corrected(changes)
