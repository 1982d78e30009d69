"""Versions of installed packages, from the package database of a tree. Nothing in it is run.

Sources: deb-status(5), apk's and pacman's local databases; for RPM see
:mod:`sev_attest.host.inspect.rpm`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sev_attest.host.inspect.tree import Tree, Unreadable

_MAX_DATABASE = 64 << 20
"""Bytes of dpkg's or apk's database: 1 KB and more for each package."""
_MAX_PACKAGES = 100_000
_MAX_PARAGRAPH = 1 << 20
"""Characters of one package in it."""
_DPKG = "/var/lib/dpkg/status"
_INSTALLED = (["installed"], ["triggers-awaited"], ["triggers-pending"])
_APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
_PACMAN = "/var/lib/pacman/local"
_PACMAN_NAME = re.compile(r"(.+)-([^-]+)-[^-]+")
Found = dict[str, str]
"""The versions of packages, as the distribution writes them, by name."""


class Package(NamedTuple):
    """An installed package: its name, upstream's version, the whole version, the database."""

    name: str
    version: str
    whole: str
    database: str


class Packages:
    """The installed packages of a tree."""

    def __init__(self, tree: Tree) -> None:
        """Take the tree; a database is read when it is asked."""
        self._tree = tree

    def first(self, names: Sequence[str]) -> Package | None:
        """Return the first of these packages that is installed, None if none is.

        Raises Unreadable if there is no package database, or none that can be read.
        """
        seen, failed = False, None
        for database, read in _DATABASES.items():
            try:
                found = read(self._tree, frozenset(names))
            except Unreadable as error:
                failed = failed or error
                continue
            if found is None:
                continue
            seen = True
            for name in names:
                if name in found:
                    return Package(name, upstream(found[name]), found[name], database)
        if failed is not None:
            raise failed
        if not seen:
            raise Unreadable("/var/lib", "no package database (dpkg, rpm, apk, pacman)")
        return None


def upstream(version: str) -> str:
    """Return the version of the program in a package's version.

    >>> upstream("1:7.2+dfsg-7+deb12u18"), upstream("9.0.0-4+deb12u2")
    ('7.2', '9.0.0')
    """
    return re.split(r"[-+~_^]", version.rpartition(":")[2], maxsplit=1)[0]


def _dpkg(tree: Tree, names: frozenset[str]) -> Found | None:
    text = tree.text(_DPKG, _MAX_DATABASE)
    if text is None:
        return None
    rows = _paragraphs(text, ("Package: ", "Version: ", "Status: "), names)
    # "deinstall ok config-files" is a package that was removed.
    return {name: version for name, version, state in rows if state.split()[-1:] in _INSTALLED}


def _apk(tree: Tree, names: frozenset[str]) -> Found | None:
    texts = [text for path in _APK if (text := tree.text(path, _MAX_DATABASE)) is not None]
    if not texts:
        return None
    rows = [row for text in texts for row in _paragraphs(text, ("P:", "V:"), names)]
    return {row[0]: row[1] for row in rows}


def _pacman(tree: Tree, names: frozenset[str]) -> Found | None:
    folders = tree.names(_PACMAN)
    if folders is None:
        return None
    found = {}
    for folder in folders:
        # The folder's name is that of the package with its version: glibc-2.40-1.
        parts = _PACMAN_NAME.fullmatch(folder)
        if parts and parts[1] in names and tree.exists(f"{_PACMAN}/{folder}/desc"):
            found[parts[1]] = parts[2]
    return found


def _rpm(tree: Tree, names: frozenset[str]) -> Found | None:
    from sev_attest.host.inspect.rpm import installed

    return installed(tree, names)


def _paragraphs(
    text: str, labels: Sequence[str], names: frozenset[str]
) -> Iterator[tuple[str, ...]]:
    """Yield the values of these labels, for each paragraph whose first one is in ``names``.

    The first line with a label counts; its value is "" if there is none.
    """
    for paragraph in text.split("\n\n", _MAX_PACKAGES)[:_MAX_PACKAGES]:
        if labels[0] in paragraph and len(paragraph) <= _MAX_PARAGRAPH:
            lines = paragraph.split("\n")
            values = [
                next((line[len(label) :].strip() for line in lines if line.startswith(label)), "")
                for label in labels
            ]
            if values[0] in names:
                yield tuple(values)


_DATABASES: dict[str, Callable[[Tree, frozenset[str]], Found | None]] = {
    "dpkg": _dpkg,
    "rpm": _rpm,
    "apk": _apk,
    "pacman": _pacman,
}
