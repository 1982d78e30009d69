"""Versions of installed packages, from the package database of a tree. Nothing in it is run.

Sources: deb-status(5), apk's and pacman's local databases; for RPM see
:mod:`sev_attest.host.inspect.rpm`.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from sev_attest.host.inspect.tree import Tree, Unreadable

_MAX_STATUS = 64 << 20
"""Bytes of dpkg's status: some 1 KB for each package."""
_DPKG = "/var/lib/dpkg/status"
_APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
_PACMAN = "/var/lib/pacman/local"
_PACMAN_NAME = re.compile(r"(.+)-([^-]+)-[^-]+")
Found = dict[str, str]
"""The versions of packages, as the distribution writes them, by name."""


class Packages:
    """The installed packages of a tree."""

    def __init__(self, tree: Tree) -> None:
        """Take the tree; a database is read when it is asked."""
        self._tree = tree

    def first(self, names: Sequence[str]) -> tuple[str, str, str] | None:
        """Return the first of these packages that is installed: its name, version and database.

        The version is upstream's, without epoch and release. Raises Unreadable if there is no
        package database, or none that can be read.
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
                    return name, upstream(found[name]), database
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
    text = tree.text(_DPKG, _MAX_STATUS)
    return None if text is None else dict(_dpkg_installed(text, names))


def _dpkg_installed(text: str, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    for paragraph in text.split("\n\n"):
        rows = _fields(paragraph, ": ")
        # "deinstall ok config-files" is a package that was removed.
        if rows.get("Package") in names and rows.get("Status", "").endswith(" installed"):
            yield rows["Package"], rows.get("Version", "")


def _apk(tree: Tree, names: frozenset[str]) -> Found | None:
    texts = [text for path in _APK if (text := tree.text(path, _MAX_STATUS)) is not None]
    if not texts:
        return None
    paragraphs = [_fields(each, ":") for text in texts for each in text.split("\n\n")]
    return {rows["P"]: rows.get("V", "") for rows in paragraphs if rows.get("P") in names}


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


def _fields(paragraph: str, colon: str) -> Found:
    """Return the one-line fields of a paragraph; the first of a name counts."""
    rows: Found = {}
    for line in paragraph.splitlines():
        name, found, value = line.partition(colon)
        if found and not line[:1].isspace():
            rows.setdefault(name, value.strip())
    return rows


_DATABASES: dict[str, Callable[[Tree, frozenset[str]], Found | None]] = {
    "dpkg": _dpkg,
    "rpm": _rpm,
    "apk": _apk,
    "pacman": _pacman,
}
