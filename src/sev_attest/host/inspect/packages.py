"""Versions of installed packages, from the package database of a tree. Nothing in it is run.

Sources: deb-status(5), apk's and pacman's local databases; for RPM see
:mod:`sev_attest.host.inspect.rpm`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from sev_attest.host.inspect.tree import Once, Tree, Unreadable

LIBVIRT = ("libvirt-daemon-driver-qemu", "libvirt-daemon", "libvirt", "libvirt0", "libvirt-libs")
"""Packages with libvirt's version; the first has the driver that starts guests."""
QEMU = ("qemu-system-x86", "qemu-system-x86-core", "qemu-kvm-core", "qemu-kvm", "qemu-x86",
        "qemu-system-x86_64")  # fmt: skip
SELINUX = ("selinux-policy",)
KNOWN = frozenset((*LIBVIRT, *QEMU, *SELINUX))
"""The packages that are looked for: a database is read once for all of them."""
_MAX_DATABASE = 64 << 20
"""Bytes of dpkg's or apk's database: 1 KB and more for each package."""
_MAX_PACKAGES = 100_000
_MAX_PARAGRAPH = 1 << 20
"""Bytes of one package in it."""
_MAX_VALUE = 256
"""Bytes of a package's name, version or state."""
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
        """Take the tree; a database is read when it is asked, and once."""
        self._tree = tree
        self._read = Once()

    def first(self, names: Sequence[str]) -> Package | None:
        """Return the first of these packages that is installed, None if none is.

        Only those in :data:`KNOWN` are found. Raises Unreadable if there is no package database, or
        none that can be read.
        """
        seen, failed = False, None
        for database, read in _DATABASES.items():
            try:
                found = self._read.get(database, partial(read, self._tree))
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


def _dpkg(tree: Tree) -> Found | None:
    data = tree.read(_DPKG, _MAX_DATABASE)
    if data is None:
        return None
    rows = _paragraphs(data, (b"Package: ", b"Version: ", b"Status: "))
    # "deinstall ok config-files" is a package that was removed.
    return {name: version for name, version, state in rows if state.split()[-1:] in _INSTALLED}


def _apk(tree: Tree) -> Found | None:
    found: Found | None = None
    for path in _APK:
        data = tree.read(path, _MAX_DATABASE)
        if data is not None:
            found = (found or {}) | {row[0]: row[1] for row in _paragraphs(data, (b"P:", b"V:"))}
    return found


def _pacman(tree: Tree) -> Found | None:
    folders = tree.names(_PACMAN)
    if folders is None:
        return None
    found = {}
    for folder in folders:
        # The folder's name is that of the package with its version: glibc-2.40-1.
        parts = _PACMAN_NAME.fullmatch(folder)
        if parts and parts[1] in KNOWN and tree.exists(f"{_PACMAN}/{folder}/desc"):
            found[parts[1]] = parts[2]
    return found


def _rpm(tree: Tree) -> Found | None:
    from sev_attest.host.inspect.rpm import installed

    return installed(tree, KNOWN)


def _paragraphs(data: bytes, labels: Sequence[bytes]) -> Iterator[list[str]]:
    """Yield the values of these labels, for each paragraph whose first one is in :data:`KNOWN`.

    The first line with a label counts; its value is "" if there is none.
    """
    start = 0
    for _ in range(_MAX_PACKAGES):
        end = data.find(b"\n\n", start)
        paragraph = b"\n" + data[start : end if end >= 0 else len(data)]
        if len(paragraph) <= _MAX_PARAGRAPH and _value(paragraph, labels[0]) in KNOWN:
            yield [_value(paragraph, label) for label in labels]
        if end < 0:
            return
        start = end + 2


def _value(paragraph: bytes, label: bytes) -> str:
    start = paragraph.find(b"\n" + label)
    if start < 0:
        return ""
    start += 1 + len(label)
    line = paragraph[start : start + _MAX_VALUE].partition(b"\n")[0]
    return line.decode("utf-8", "replace").strip()


_DATABASES: dict[str, Callable[[Tree], Found | None]] = {
    "dpkg": _dpkg,
    "rpm": _rpm,
    "apk": _apk,
    "pacman": _pacman,
}
