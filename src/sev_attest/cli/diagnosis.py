"""Search for the cause of a mismatch: read nearby files, search, and return hint and notes."""

import errno
import os
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import click

from sev_attest._encoding import blob
from sev_attest.cli.bundle import option_name
from sev_attest.cli.inputs import STDIN
from sev_attest.cli.options.boot import KERNEL
from sev_attest.cli.options.guest import GuestOptions, Measured
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.options.owner import PACKET
from sev_attest.cli.options.reported import NUMBERS
from sev_attest.cli.options.search import Stated
from sev_attest.errors import LaunchRefused, SevAttestError
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.diagnosis.search import Clues, Diagnosis, Explanation, explain_mismatch
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

_MOST_FILES = 64
_MOST_NAMES = 1000
_MOST_SMALL = 64 << 10
_MOST_IMAGE = 16 << 20
_IMAGE_UNIT = 4096  # QEMU takes no other sizes
_IMAGES = (".fd", ".bin", ".rom")
_RECORD = ".launch.json"
_ONCE = ("/dev/fd/", "/dev/stdin", "/proc/")
_NO_SECRET = dict.fromkeys(("inject_secret", "secret_source", *PACKET))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is added to a mismatch: its hint, notes, and the fields of a JSON document."""

    hint: str
    notes: list[str]
    facts: dict[str, object]


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
    at_hand = _AtHand(stated, end)
    sessions, records = at_hand.sessions()
    shown = progress and sys.stderr.isatty()
    try:
        diagnosis = explain_mismatch(
            info,
            keys=keys,
            policy=policy,
            guest=measured.guest or measured.digest,
            vcpus=guest.num_cpus,
            profile=guest.profile(),
            clues=_clues(
                policy,
                keys,
                at_hand=at_hand,
                sessions=sessions,
                records=records,
            ),
            budget=end - time.monotonic(),
            progress=_show_progress if shown else None,
        )
    finally:
        if shown:
            click.echo("\r\033[K", nl=False, err=True)
    hint, notes, findings = "", [], []
    for finding in diagnosis.findings:
        command, note = _advice(finding, guest, stated.keys, sessions)
        findings.append(asdict(finding) | {"command": command})
        hint = f"the measurement fits if {finding.detail}"
        notes.append(note)
    if not findings:
        hint, notes = _nothing_fits(diagnosis, late=time.monotonic() >= end)
        if measured.guest and guest.kernel_hashes is None:
            notes += _kernel_note(guest)
    tried = {
        "tried": diagnosis.tried,
        "complete": diagnosis.complete,
        "ruled_out": diagnosis.ruled_out,
    }
    return Told(hint=hint, notes=notes, facts={"diagnosis": findings, "search": tried})


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
    at_hand: "_AtHand",
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
    guest, reported = at_hand.stated.guest, at_hand.stated.reported
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


def _nothing_fits(diagnosis: Diagnosis, *, late: bool) -> tuple[str, list[str]]:
    """Return the hint and the notes of a search without result."""
    notes = []
    if not diagnosis.complete and late:
        notes.append("the time for the search is up: --diagnose-budget SECONDS gives it more")
    elif not diagnosis.complete:
        notes.append("not every file at hand was tried: there are too many, or they are too large")
    if diagnosis.ruled_out:
        notes.append(f"ruled out: {'; '.join(diagnosis.ruled_out)}")
    hint = (
        f"none of {diagnosis.tried} likely differences explains it; "
        "--explain shows what went into it, to compare with what the host started"
    )
    return hint, notes


def _kernel_note(guest: GuestOptions) -> list[str]:
    """Return a note on what may be missing of a kernel that is booted directly."""
    missing = [option_name(name) for name in KERNEL if getattr(guest, name) is None]
    if not missing:
        return []
    names = ", ".join(missing)
    return [f"with kernelHashes='yes', name everything that is booted: {names} missing"]


def _show_progress(tried: int) -> None:
    click.echo(f"\rlooking for what fits: {tried} combinations", nl=False, err=True)


# what is at hand


@dataclass(frozen=True, slots=True)
class _Session:
    """Keys that were found, and the options that name them."""

    keys: TransportKeys
    options: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class _AtHand:
    """Looks through the folders of files that were named, until ``end``.

    ``left_out`` names the hypotheses that are not fully tried: the time was up, or there were too
    many files, or too large ones.
    """

    stated: Stated
    end: float
    left_out: set[str] = field(default_factory=set)

    def sessions(self) -> tuple[dict[str, _Session], dict[str, tuple[Path, LaunchRecord]]]:
        """Return keys, by the name of their file, and records, by the id of their session."""
        sessions: dict[str, _Session] = {}
        records: dict[str, tuple[Path, LaunchRecord]] = {}
        beside, folder = self.stated.keys, self.stated.search.keys
        for path in self._files(beside.tik, beside.tk, folder=folder, hypotheses=("keys.other",)):
            with suppress(OSError, SevAttestError):  # no keys or record, whatever its name says
                if path.name.endswith(_RECORD):
                    record = LaunchRecord.from_bytes(_read(path, _MOST_SMALL))
                    records.setdefault(record.session_id, (path, record))
                elif session := _session(path):
                    sessions[str(path)] = session
            if len(sessions) > _MOST_FILES:
                sessions.popitem()
                self.left_out.add("keys.other")
        return sessions, records

    def image(self) -> bytes | None:
        """Return the firmware that was measured; None if it is gone, a pipe or too large."""
        path = self.stated.guest.firmware
        if path is None or path == STDIN or time.monotonic() >= self.end:
            return None
        with suppress(OSError):
            return _read(Path(path), _MOST_IMAGE)
        return None

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Yield other firmware images with their names, one at a time."""
        hypotheses = ("firmware.other", "firmware.joined")
        count = 0
        beside, folder = self.stated.guest.firmware, self.stated.search.firmware_dir
        for path in self._files(beside, folder=folder, hypotheses=hypotheses):
            if path.suffix not in _IMAGES:
                continue
            try:
                data = _read(path, _MOST_IMAGE)
            except OSError as error:
                if error.errno == errno.EFBIG:
                    self.left_out.update(hypotheses)
                continue
            if not data or len(data) % _IMAGE_UNIT:
                continue
            if count == _MOST_FILES:
                self.left_out.update(hypotheses)
                return
            count += 1
            yield str(path), data

    def _files(
        self, *named: str | None, folder: str | None, hypotheses: tuple[str, ...]
    ) -> Iterator[Path]:
        """Yield what lies beside the files that options name, and in the folder that one names."""
        folders = [Path(file).parent for file in named if file is not None and file != STDIN]
        folders += [Path(folder)] if folder else []
        for found in dict.fromkeys(folders):
            try:
                with os.scandir(found) as entries:
                    names = sorted(entry.name for entry in islice(entries, _MOST_NAMES + 1))
            except OSError:
                continue  # a folder that cannot be read has nothing to try
            if len(names) > _MOST_NAMES:
                self.left_out.update(hypotheses)
            for name in names[:_MOST_NAMES]:
                if time.monotonic() >= self.end:
                    self.left_out.update(hypotheses)
                    return
                yield found / name


def _session(path: Path) -> _Session | None:
    """Read NAME_tik.bin with NAME_tek.bin, or TEK and TIK in one file; None for another name."""
    head, tik, tail = path.name.rpartition("tik")
    if tik:
        tek = path.with_name(f"{head}tek{tail}")
        keys = TransportKeys(tik=_key(path, "TIK"), tek=_key(tek, "TEK"))
        return _Session(keys, {"tik": str(path), "tek": str(tek), "tk": None})
    if "tk" in path.name:
        keys = TransportKeys.from_tk(_read(path, _MOST_SMALL))
        return _Session(keys, {"tk": str(path), "tik": None, "tek": None})
    return None


def _key(path: Path, name: str) -> bytes:
    return blob(_read(path, _MOST_SMALL), (16,), name)


def _read(path: Path, most: int) -> bytes:
    """Return the content of a file; raises OSError for a large one, a pipe or a device."""
    with open(path, "rb", opener=_open) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(most)


def _open(path: str, flags: int) -> int:
    # Opening a pipe must not wait for its writer. Windows has neither the flag nor such pipes.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# the command that would be right


def _advice(
    finding: Explanation, guest: GuestOptions, files: KeyOptions, sessions: dict[str, _Session]
) -> tuple[str | None, str]:
    """Return the corrected command, None where there is none, and what to tell people.

    It only checks again: it makes no packet for a secret.
    """
    if finding.meaning:
        return None, finding.meaning
    changes = dict(finding.changes)
    keys, pages = changes.pop("keys", None), changes.pop("vmsa", None)
    if keys == "swapped":
        if files.tk is not None:
            return None, "the file for --tk holds TEK, then TIK: --tik and --tek take one each"
        changes |= {"tik": files.tek, "tek": files.tik}
    elif keys is not None:
        changes |= sessions[str(keys)].options
    if pages is not None:
        changes |= {"vmsa_cpu0": guest.vmsa_cpu1, "vmsa_cpu1": guest.vmsa_cpu0}
    if "cpu_family" in changes:
        changes["cpu_model_name"] = None
    elif "cpu_model_name" in changes:
        changes |= {"cpu_family": None, "cpu_model": None, "cpu_stepping": None}
    context = click.get_current_context()
    if keys is not None and context.params["session"] is not None:
        changes |= {"session": None, "store": None, "kek": None, "requirements_now": False}
        changes["ledger"] = context.params["store"]
    values = context.params | changes | _NO_SECRET
    if any(value == STDIN or str(value).startswith(_ONCE) for value in values.values()):
        without = [
            f"without {option_name(n)}" for n in changes if changes[n] is None and context.params[n]
        ]
        words = _words(context, dict.fromkeys(context.params) | changes)
        options = ", ".join([" ".join(words), *without])
        return None, f"if you meant that: the same with {options}"
    command = " ".join(["sev-attest", str(context.info_name), *_words(context, values)])
    return command, f"if you meant that: {command}"


def _words(context: click.Context, values: dict[str, object]) -> Iterator[str]:
    """Yield options as they would be typed."""
    for parameter in context.command.params:
        value = values[str(parameter.name)]
        if value == parameter.get_default(context) or value in (None, ()):
            continue
        for each in value if isinstance(value, tuple) else (value,):
            yield max(parameter.opts, key=len)
            if each is not True:
                yield _quoted(str(each))


def _quoted(word: str) -> str:
    """Return a word quoted for a shell, without unprintable characters."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (
        c if c.isprintable() and c not in "'\\" else "".join(f"\\x{b:02x}" for b in os.fsencode(c))
        for c in word
    )
    return f"$'{''.join(plain)}'"
