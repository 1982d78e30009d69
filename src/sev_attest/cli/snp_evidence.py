"""Reading a report of SEV-SNP, and what comes with it, from files and folders."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from sev_attest.cli.inputs import STDIN, read_small
from sev_attest.errors import MalformedInput, reading
from sev_attest.snp.packaging import MAX_FILE, Evidence, read_evidence, read_folder
from sev_attest.snp.spec import STRUCTURE

_MOST_FILES = 64
_DEPTH = 1
"""How many folders deep: snpguest leaves the certificates in a folder beside the report."""


class Folder(NamedTuple):
    """The files of a folder, by their names in it, and the names of those that are not read."""

    files: dict[str, bytes]
    skipped: list[str]


def content_at(path: str, what: str = STRUCTURE) -> bytes | Folder:
    """Read a file (``-``: standard input) or a folder; raises OSError, MalformedInput.

    ``what`` is what errors call it.
    """
    if path != STDIN and os.path.isdir(path):  # noqa: PTH112 - pathlib is slow to import
        with reading(path):
            return _folder(path)
    return read_small(path, what, MAX_FILE)


def evidence_of(path: str, content: bytes | Folder) -> Evidence:
    """Parse what was read at a path; raises MalformedInput, naming the file. Verifies nothing."""
    if isinstance(content, bytes):
        with reading(path):
            return read_evidence(content)
    try:
        evidence = read_folder(content.files)
    except MalformedInput as error:
        error.source = f"{path}/{error.source}" if error.source else path
        raise
    notes = [f"not read: {name}" for name in content.skipped if name not in _WRITE_ONLY]
    return replace(evidence, notes=(*evidence.notes, *notes))


_WRITE_ONLY = (
    "inblob", "privlevel", "service_provider", "service_guid", "service_manifest_version",
)  # fmt: skip
"""Linux, Documentation/ABI/testing/configfs-tsm: these can be written, and not read."""


def _folder(path: str) -> Folder:
    files: dict[str, bytes] = {}
    skipped: list[str] = []
    for name, place in _members(path, _DEPTH):
        if len(files) + len(skipped) == _MOST_FILES:
            reason = f"more than {_MOST_FILES} files"
            raise MalformedInput(STRUCTURE, "length", reason, hint="name the report's file")
        try:
            files[name] = read_small(place, STRUCTURE, MAX_FILE)
        except (OSError, MalformedInput):  # configfs-tsm has files that can only be written
            skipped.append(name)
    return Folder(files, skipped)


def _members(folder: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the name in the folder, and the path, of every file; hidden ones are ignored."""
    with os.scandir(folder) as found:
        members = sorted(found, key=lambda one: one.name)
    for member in members:
        if member.name.startswith("."):
            continue
        if member.is_dir() and depth:
            for name, place in _members(member.path, depth - 1):
                yield f"{member.name}/{name}", place
        elif member.is_file():
            yield member.name, member.path
