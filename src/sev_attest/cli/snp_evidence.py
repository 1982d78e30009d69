"""Reading a report of SEV-SNP, its certificates, and what comes with it: files and folders."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from sev_attest.cli.inputs import STDIN, read_small
from sev_attest.errors import MalformedInput, reading
from sev_attest.snp.certificate_files import STRUCTURE as CERTIFICATES
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.packaging import (
    MAX_FILE,
    CertificateBytes,
    Evidence,
    has_report,
    is_certificate,
    read_evidence,
    read_folder,
)
from sev_attest.snp.spec import STRUCTURE

_AUXBLOB = "auxblob"
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
    return evidence._replace(notes=(*evidence.notes, *notes))


def certificates_of(path: str, content: bytes | Folder) -> Iterator[CertificateBytes]:
    """Yield a file, or the files of a folder that are certificates; unparsed.

    Raises MalformedInput, naming the folder, if it has none.
    """
    if isinstance(content, bytes):
        yield CertificateBytes(path, content)
        return
    chosen = _chosen(content)
    if not chosen:
        with reading(path):
            reason = "no file of this folder is a certificate that can be read"
            raise MalformedInput(CERTIFICATES, "format", reason)
    for name, data in chosen.items():
        yield CertificateBytes(f"{path}/{name}", data)


def holds_certificates(content: bytes | Folder) -> bool:
    """Return whether what was read is certificates or lists, even broken ones, and no report."""
    if not isinstance(content, bytes):
        return bool(_chosen(content)) and not has_report(content.files)
    if is_certificate(content):
        return True
    try:
        read_evidence(content)
    except MalformedInput:
        return _are_certificates(content)
    return False


def _are_certificates(data: bytes) -> bool:
    try:
        read_certificates(data)
    except MalformedInput as error:
        return error.structure != CERTIFICATES  # else nothing in it was recognised
    return True


def _chosen(folder: Folder) -> dict[str, bytes]:
    files = folder.files
    return {name: data for name, data in files.items() if is_certificate(data) or name == _AUXBLOB}


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
