"""Search for the cause of a mismatch: read nearby files, search, and return hint and notes."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from sev_attest._encoding import blob
from sev_attest.cli import at_hand as files
from sev_attest.cli.advice import Told, corrected, told, with_progress
from sev_attest.cli.at_hand import AtHand
from sev_attest.cli.options.common import NUMBERS
from sev_attest.cli.options.guest import GuestOptions, Measured
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.options.owner import PACKET
from sev_attest.cli.options.search import Stated
from sev_attest.errors import LaunchRefused, SevAttestError
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.diagnosis.search import Clues, Explanation, explain_mismatch
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

_RECORD = ".launch.json"
_NO_SECRET = dict.fromkeys(("inject_secret", "secret_source", *PACKET))


def diagnose(
    info: LaunchInfo,
    policy: GuestPolicy,
    *,
    keys: TransportKeys,
    measured: Measured,
    stated: Stated,
    progress: bool,
) -> Told:
    """Search for what would fit, and return that or what was ruled out.

    ``info``, ``policy``, ``keys`` and ``measured`` are what did not match; ``stated`` says where
    to look. ``progress`` shows the search on a terminal.
    """
    guest = stated.guest
    end = time.monotonic() + stated.search.diagnose_budget
    at_hand = AtHand(guest.firmware, stated.search.firmware_dir, end)
    sessions, records = _sessions(at_hand, stated)
    clues = _clues(policy, keys, stated=stated, at_hand=at_hand, sessions=sessions, records=records)
    diagnosis = with_progress(
        lambda tell: explain_mismatch(
            info,
            keys=keys,
            policy=policy,
            guest=measured.guest or measured.digest,
            vcpus=guest.num_cpus,
            profile=guest.profile(),
            clues=clues,
            budget=end - time.monotonic(),
            progress=tell,
        ),
        progress=progress,
    )
    return told(
        diagnosis,
        lambda finding: _advice(finding, guest, stated.keys, sessions),
        what="measurement",
        late=time.monotonic() >= end,
        guest=guest if measured.guest else None,
    )


def _vouches(record: LaunchRecord, keys: TransportKeys, policy: GuestPolicy) -> bool:
    """Return whether `validate` would take this record of a verified platform with these keys."""
    try:
        record.require(keys)
    except LaunchRefused:
        return False
    return record.root is not None and record.policy == policy.value


def _clues(
    policy: GuestPolicy,
    keys: TransportKeys,
    *,
    stated: Stated,
    at_hand: AtHand,
    sessions: "dict[str, _Session]",
    records: "dict[str, tuple[Path, LaunchRecord]]",
) -> Clues:
    """Return what the search may use; keys with a good record get the option that names it."""
    verified = set()
    for name, session in sessions.items():
        path, record = records.get(session.keys.session_id, (None, None))
        if record and _vouches(record, session.keys, policy):
            session.options["record"] = str(path)
            verified.add(name)
    own = records.get(keys.session_id)
    guest, reported = stated.guest, stated.reported
    return Clues(
        keys={name: session.keys for name, session in sessions.items() if session.keys != keys},
        verified=verified,
        images=at_hand.images(),
        image=at_hand.image(),
        cmdline=None if guest.cmdline is None else os.fsencode(guest.cmdline),
        recorded=own and own[1].policy,
        typed={name for name in NUMBERS if getattr(reported, name) is not None},
        left_out=at_hand.left_out,
    )


# what is at hand


@dataclass(frozen=True, slots=True)
class _Session:
    """Keys that were found, and the options that name them."""

    keys: TransportKeys
    options: dict[str, str | None]


def _sessions(
    at_hand: AtHand, stated: Stated
) -> tuple[dict[str, _Session], dict[str, tuple[Path, LaunchRecord]]]:
    """Return keys, by the name of their file, and records, by the id of their session."""
    sessions: dict[str, _Session] = {}
    records: dict[str, tuple[Path, LaunchRecord]] = {}
    beside, folder = stated.keys, stated.search.keys
    for path in at_hand.files(beside.tik, beside.tk, folder=folder, hypotheses=("keys.other",)):
        with suppress(OSError, SevAttestError):  # no keys or record, whatever its name says
            if path.name.endswith(_RECORD):
                record = LaunchRecord.from_bytes(files.read(path, files.MOST_SMALL))
                records.setdefault(record.session_id, (path, record))
            elif session := _session(path):
                sessions[str(path)] = session
        if len(sessions) > files.MOST_FILES:
            sessions.popitem()
            at_hand.left_out.add("keys.other")
    return sessions, records


def _session(path: Path) -> _Session | None:
    """Read NAME_tik.bin with NAME_tek.bin, or TEK and TIK in one file; None for another name."""
    head, tik, tail = path.name.rpartition("tik")
    if tik:
        tek = path.with_name(f"{head}tek{tail}")
        keys = TransportKeys(tik=_key(path, "TIK"), tek=_key(tek, "TEK"))
        return _Session(keys, {"tik": str(path), "tek": str(tek), "tk": None})
    if "tk" in path.name:
        keys = TransportKeys.from_tk(files.read(path, files.MOST_SMALL))
        return _Session(keys, {"tk": str(path), "tik": None, "tek": None})
    return None


def _key(path: Path, name: str) -> bytes:
    return blob(files.read(path, files.MOST_SMALL), (16,), name)


# the command that would be right


def _advice(
    finding: Explanation, guest: GuestOptions, stated: KeyOptions, sessions: dict[str, _Session]
) -> tuple[str | None, str]:
    """Return the corrected command, None where there is none, and what to tell people.

    It only checks again: it makes no packet for a secret.
    """
    if finding.meaning:
        return None, finding.meaning
    changes = dict(finding.changes)
    keys, pages = changes.pop("keys", None), changes.pop("vmsa", None)
    if keys == "swapped":
        if stated.tk is not None:
            return None, "the file for --tk holds TEK, then TIK: --tik and --tek take one each"
        changes |= {"tik": stated.tek, "tek": stated.tik}
    elif keys is not None:
        changes |= sessions[str(keys)].options
    if pages is not None:
        changes |= {"vmsa_cpu0": guest.vmsa_cpu1, "vmsa_cpu1": guest.vmsa_cpu0}
    context = click.get_current_context()
    if keys is not None and context.params.get("session") is not None:
        changes |= {"session": None, "store": None, "kek": None, "requirements_now": False}
        changes["ledger"] = context.params["store"]
    return corrected(changes, _NO_SECRET | _dry(context))


def _dry(context: click.Context) -> dict[str, object]:
    """Return what makes `launch` launch nothing."""
    return {"dry_run": True} if "dry_run" in context.params else {}
