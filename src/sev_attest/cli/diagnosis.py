"""Say why a measurement does not match: gather what else is at hand, search, put it into words."""

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sev_attest.cli.guest import cpu_model, profile
from sev_attest.cli.inputs import STDIN
from sev_attest.diagnose import Clues, Diagnosis, Finding, explain_mismatch
from sev_attest.errors import MeasurementMismatch, SevAttestError
from sev_attest.keys import TransportKeys
from sev_attest.owner.record import LaunchRecord

if TYPE_CHECKING:
    from sev_attest.cli.validate import Case

_KEY_SIZE = 16
_MOST_FILES = 64
_MOST_IMAGE = 16 << 20
_IMAGES = (".fd", ".bin", ".rom")
_RECORD = ".launch.json"


def diagnose(error: MeasurementMismatch, case: "Case", keys: TransportKeys) -> None:
    """Add to the error what would fit, or what was ruled out. It stays a mismatch."""
    given, measured = case.given, case.measured
    found = _key_files(given, keys)
    clues = Clues(
        keys={name: other for name, (other, _) in found.items()},
        images=_images(given),
        image=_image(given["firmware"]),
        cmdline=None if given["cmdline"] is None else os.fsencode(given["cmdline"]),
        recorded=_recorded(given, keys),
    )
    shown = case.text and sys.stderr.isatty()
    diagnosis = explain_mismatch(
        case.info,
        keys=keys,
        policy=case.policy,
        guest=measured.guest or measured.digest,
        vcpus=given["num_cpus"],
        profile=profile(given, cpu_model(given)),
        clues=clues,
        budget=given["diagnose_budget"],
        progress=_show_progress if shown else None,
    )
    if shown:
        click.echo("\r\033[K", nl=False, err=True)
    files = {name: paths for name, (_, paths) in found.items()}
    commands = [_command(finding, given, files) for finding in diagnosis.findings]
    error.facts |= {
        "diagnosis": [
            asdict(finding) | {"command": command}
            for finding, command in zip(diagnosis.findings, commands, strict=True)
        ],
        "search": {
            "tried": diagnosis.tried,
            "complete": diagnosis.complete,
            "ruled_out": diagnosis.ruled_out,
        },
    }
    for finding, command in zip(diagnosis.findings, commands, strict=True):
        error.hint = f"the measurement fits if {finding.detail}"
        error.add_note(finding.meaning if command is None else f"if you meant that: {command}")
    if not diagnosis.findings:
        _say_nothing_fits(error, diagnosis)
        if measured.guest and measured.guest.kernel is None:
            error.add_note("a guest with kernelHashes='yes' needs --kernel, --initrd and --cmdline")


def _say_nothing_fits(error: MeasurementMismatch, diagnosis: Diagnosis) -> None:
    error.hint = (
        f"none of {diagnosis.tried} likely differences explains it; "
        "--explain shows what went into it, to compare with what the host started"
    )
    if not diagnosis.complete:
        error.add_note("the time for the search is up: --diagnose-budget SECONDS gives it more")
    if diagnosis.ruled_out:
        error.add_note(f"ruled out: {'; '.join(diagnosis.ruled_out)}")


def _show_progress(tried: int) -> None:
    click.echo(f"\rlooking for what fits: {tried} combinations", nl=False, err=True)


# what is at hand


def _folders(*places: str | None, folder: str | None) -> list[Path]:
    """Give the folders of files that were named, and one that was named itself."""
    found = [Path(place).parent for place in places if place not in (None, STDIN)]
    return list(dict.fromkeys([*found, *([Path(folder)] if folder else [])]))


def _files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        try:
            paths = sorted(path for path in folder.iterdir() if path.is_file())
        except OSError:
            continue  # what cannot be looked into is no clue
        yield from paths


def _key_files(
    given: dict[str, Any], keys: TransportKeys
) -> dict[str, tuple[TransportKeys, dict[str, str | None]]]:
    """Find other keys, by the file's name: NAME_tik.bin with NAME_tek.bin, or TEK and TIK in one.

    Beside the keys: the options that name their files.
    """
    found: dict[str, tuple[TransportKeys, dict[str, str | None]]] = {}
    for path in _files(_folders(given["tik"], given["tk"], folder=given["keys"])):
        if len(found) == _MOST_FILES:
            break
        partner = path.with_name(path.name.replace("tik", "tek"))
        try:
            if partner != path:
                pair = TransportKeys(tik=_bytes(path, _KEY_SIZE), tek=_bytes(partner, _KEY_SIZE))
                files: dict[str, str | None] = {"tik": str(path), "tek": str(partner), "tk": None}
            elif "tk" in path.name:
                pair = TransportKeys.from_tk(_bytes(path, 2 * _KEY_SIZE))
                files = {"tk": str(path), "tik": None, "tek": None}
            else:
                continue
        except (OSError, SevAttestError):
            continue  # no keys, whatever its name says
        if pair != keys:
            found[str(path)] = pair, files
    return found


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)


def _image(path: str | None) -> bytes | None:
    """Read a firmware image again; None if it is gone, a pipe or too large."""
    try:
        if path is None or path == STDIN or not Path(path).is_file():
            return None
        data = _bytes(Path(path), _MOST_IMAGE)
    except OSError:
        return None
    return data if len(data) <= _MOST_IMAGE else None


def _images(given: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Read other firmware images, one at a time."""
    folders = _folders(given["firmware"], folder=given["firmware_dir"])
    paths = [path for path in _files(folders) if path.suffix in _IMAGES]
    for path in paths[:_MOST_FILES]:
        data = _image(str(path))
        if data:
            yield str(path), data


def _recorded(given: dict[str, Any], keys: TransportKeys) -> int | None:
    """Find the record of this session beside its keys, and give its policy."""
    for path in _files(_folders(given["tik"], given["tk"], folder=given["keys"])):
        if path.name.endswith(_RECORD):
            try:
                record = LaunchRecord.from_bytes(_bytes(path, _MOST_IMAGE))
            except (OSError, SevAttestError):
                continue
            if record.session_id == keys.session_id:
                return record.policy
    return None


# the command that would be right


def _command(
    finding: Finding, given: dict[str, Any], files: dict[str, dict[str, str | None]]
) -> str | None:
    """Write the corrected command; None where the owner decided, or no option says it."""
    if finding.meaning:
        return None
    changes = dict(finding.changes)
    keys, pages = changes.pop("keys", None), changes.pop("vmsa", None)
    if keys == "swapped":
        if given["tk"] is not None:
            return None
        changes |= {"tik": given["tek"], "tek": given["tik"]}
    elif keys is not None:
        changes |= files[str(keys)]
    if pages is not None:
        changes |= {"vmsa_cpu0": given["vmsa_cpu1"], "vmsa_cpu1": given["vmsa_cpu0"]}
    if "cpu_family" in changes:
        changes["cpu_model_name"] = None
    if "cpu_family" in changes or "vmsa_profile" in changes:
        changes |= {"vmsa_cpu0": None, "vmsa_cpu1": None}
    context = click.get_current_context()
    return shlex.join(["sev-attest", *_words(context, context.params | changes)])


def _words(context: click.Context, values: dict[str, Any]) -> Iterator[str]:
    """Write a command and its options as they would be typed."""
    yield str(context.info_name)
    for parameter in context.command.params:
        value = values[str(parameter.name)]
        if value == parameter.get_default(context) or value is None:
            continue
        option = max(parameter.opts, key=len)
        if value is True:
            yield option
        else:
            for one in value if isinstance(value, tuple) else (value,):
                yield from (option, str(one))
