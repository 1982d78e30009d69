"""What a guest keeps between its request and the owner's answer, and where."""

import os
from pathlib import Path

from sev_attest.cli.inputs import read_small
from sev_attest.errors import reading
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.document import MAX_DOCUMENT
from sev_attest.snp.transport import TransportKey

BASE = "/run/sev-attest"
"""In memory, on systems with systemd and on most others: it ends with the guest, as its reports."""
KEY, CHALLENGE, REPORT = "private-key.json", "challenge.json", "outblob"
"""The files. None of them leaves the guest; only the key is secret."""


def kept_folder(given: str | None, name: str) -> Path:
    """Return the folder for the challenge of this name; ``given`` is the --kept option."""
    return Path(given) if given is not None else Path(BASE) / name


def with_base(folder: Path) -> list[Path]:
    """Return the folders to make for such a folder: the default ones have a folder of their own."""
    return [folder.parent, folder] if folder.parent == Path(BASE) else [folder]


def is_within(folder: Path, other: Path) -> bool:
    """Return whether a folder is another one, or in it, or would be."""
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(other))


def read_document(path: str, what: str) -> bytes:
    """Read the file of a document; raises OSError, MalformedInput. ``what`` is what it holds."""
    return read_small(path, what, MAX_DOCUMENT)


def read_challenge(path: str) -> Challenge:
    """Read a challenge; raises OSError, MalformedInput, naming the file."""
    with reading(path):
        return Challenge.from_json(read_document(path, "challenge"))


def read_transport_key(path: str) -> TransportKey:
    """Read a public transport key; raises OSError, MalformedInput, naming the file."""
    with reading(path):
        return TransportKey.from_json(read_document(path, "transport key"))
