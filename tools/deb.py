"""Make Debian's package of a wheel, with Debian's own dependencies.

The wheel's files are those of the package; the texts in it are those of this folder. The same
inputs give the same bytes: files have the date of the changelog's newest release.
"""

import argparse
import gzip
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from email.utils import format_datetime
from pathlib import Path

from deb_trial import SUITE, check

HOME = Path(__file__).resolve().parent.parent
PYTHON = "usr/lib/python3/dist-packages"
DOCS = "usr/share/doc/sev-attest"
NOBODY = "the sev-attest authors <sev-attest@localhost>"
"""The maintainer, unless whoever publishes the package is named: Debian wants an address."""
SUGGESTED = {
    "evidence": "python3-jinja2",
    "libvirt": "python3-libvirt",
    "postgres": "python3-psycopg",
}
"""Debian's packages for the extras that it has."""
BEFORE_RELEASES = 1580601600
"""The date of files where there is no release yet: that of hatchling's wheels."""

# As dh_python3 writes them: Debian compiles modules when they are installed.
COMPILE = """#!/bin/sh
set -e
if command -v py3compile >/dev/null 2>&1; then
	py3compile -p sev-attest
fi
"""
CLEAN = """#!/bin/sh
set -e
if command -v py3clean >/dev/null 2>&1; then
	py3clean -p sev-attest
fi
"""
DESCRIPTION = """\
Description: attest AMD SEV, SEV-ES and SEV-SNP guests, as their owner
 sev-attest is for the owners of confidential virtual machines on AMD EPYC
 hosts. It verifies the certificates of a platform and the measurement or the
 attestation report of a guest, and encrypts a secret, such as a disk key, for
 a guest that is the right one.
 .
 It is a command and a Python library. Verification needs no network and no
 SEV hardware; a simulated host to try it on is included.
"""

Tree = dict[str, bytes]
"""Files by their path in the package."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """An unpacked wheel of this project."""

    files: Tree
    metadata: Message

    @classmethod
    def read(cls, path: Path) -> "Wheel":
        """Read a wheel; raises ValueError if it is another project's."""
        with zipfile.ZipFile(path) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist()}
        (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
        found = cls(files=files, metadata=message_from_bytes(files[metadata]))
        if found.metadata["Name"] != "sev-attest":
            raise ValueError(f"{path} is a wheel of {found.metadata['Name']}")
        return found

    @property
    def version(self) -> str:
        """Debian's form of the version: a release comes after its candidates."""
        return re.sub(r"\.?(a|b|rc|dev)(\d+)$", r"~\1\2", self.metadata["Version"])


# What is in the package


def compressed(data: bytes) -> bytes:
    """Compress as ``gzip -9n`` does: without a name or a date."""
    return gzip.compress(data, 9, mtime=0)


def place(name: str) -> str | None:
    """Return where a file of the wheel belongs; None for what only pip needs.

    Manual pages are compressed there.
    """
    first, _, rest = name.partition("/")
    if first.endswith(".dist-info"):
        return f"{PYTHON}/{name}" if rest in {"METADATA", "WHEEL", "entry_points.txt"} else None
    if first.endswith(".data"):
        scheme, _, rest = rest.partition("/")
        if scheme != "data":
            raise ValueError(f"{name}: this tool knows no place for it")
        return f"usr/{rest}.gz" if rest.startswith("share/man/") else f"usr/{rest}"
    return f"{PYTHON}/{name}"


def code(wheel: Wheel) -> Tree:
    """Return the modules, their metadata, the manual pages and the command."""
    tree = {
        path: compressed(data) if path.startswith("usr/share/man/") else data
        for name, data in wheel.files.items()
        if (path := place(name))
    }
    (information,) = {path.rpartition("/")[0] for path in tree if path.endswith("/METADATA")}
    tree[f"{information}/INSTALLER"] = b"debian\n"
    points = tree[f"{information}/entry_points.txt"].decode()
    for command, module, function in re.findall(
        r"^([\w-]+) = ([\w.]+):(\w+)$", points, re.MULTILINE
    ):
        tree[f"usr/bin/{command}"] = (
            f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import {function}\n\n"
            f"sys.exit({function}())\n"
        ).encode()
    return tree


def texts(wheel: Wheel, maintainer: str, date: int) -> Tree:
    """Return the documentation, the licence and the changelogs."""
    pages = [*HOME.glob("*.md"), *(HOME / "docs").rglob("*.md")]
    tree = {f"{DOCS}/{page.relative_to(HOME)}": page.read_bytes() for page in pages}
    tree[f"{DOCS}/changelog.gz"] = compressed(tree.pop(f"{DOCS}/CHANGELOG.md"))
    when = format_datetime(datetime.fromtimestamp(date, UTC))
    entry = (
        f"sev-attest ({wheel.version}-1) unstable; urgency=medium\n\n"
        f"  * {wheel.metadata['Version']}: changelog.gz has what is new.\n\n"
        f" -- {maintainer}  {when}\n"
    )
    tree[f"{DOCS}/changelog.Debian.gz"] = compressed(entry.encode())
    tree[f"{DOCS}/copyright"] = copyright_file().encode()
    return tree


def copyright_file() -> str:
    """Write LICENSE in Debian's form."""
    _, owners, terms = (HOME / "LICENSE").read_text(encoding="utf-8").split("\n\n", 2)
    words = "".join(f" {line or '.'}\n" for line in terms.strip().split("\n"))
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: sev-attest\n\n"
        f"Files: *\nCopyright: {owners.removeprefix('Copyright (c) ')}\nLicense: Expat\n{words}"
    )


def released() -> int:
    """Return the date of the changelog's newest release, in seconds since 1970."""
    changelog = (HOME / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[\d.*\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    if not newest:
        return BEFORE_RELEASES
    return int(datetime.fromisoformat(f"{newest[1]}T00:00:00+00:00").timestamp())


# What describes it


def dependencies(metadata: Message) -> Iterator[tuple[str | None, str]]:
    """Yield each requirement as Debian writes it, with the extra that it is for."""
    yield None, f"python3:any (>= {metadata['Requires-Python'].removeprefix('>=')})"
    for line in metadata.get_all("Requires-Dist", []):
        wanted, _, extra = line.rstrip("'").partition("; extra == '")
        if extra and extra not in SUGGESTED:
            continue
        found = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", wanted)
        if not found:
            raise ValueError(f"this tool does not understand the requirement {line}")
        name = SUGGESTED[extra] if extra else f"python3-{found[1].lower()}"
        yield extra or None, f"{name} (>= {found[2]})"


def control(wheel: Wheel, tree: Tree, maintainer: str) -> str:
    """Write the package's control file."""
    stated = [*dependencies(wheel.metadata)]
    size = sum(-(-len(data) // 1024) for data in tree.values())
    return (
        f"Package: sev-attest\nVersion: {wheel.version}-1\nArchitecture: all\n"
        f"Maintainer: {maintainer}\nInstalled-Size: {size}\n"
        f"Depends: {', '.join(text for extra, text in stated if not extra)}\n"
        f"Suggests: {', '.join(text for extra, text in stated if extra)}\n"
        f"Provides: python3-sev-attest (= {wheel.version}-1)\nSection: admin\nPriority: optional\n"
        f"{DESCRIPTION}"
    )


def package(wheel: Wheel, maintainer: str, date: int) -> Tree:
    """Return every file of the package, those of its description among them."""
    tree = code(wheel) | texts(wheel, maintainer, date)
    sums = "".join(
        f"{hashlib.md5(tree[path], usedforsecurity=False).hexdigest()}  {path}\n"
        for path in sorted(tree)
    )
    return tree | {
        "DEBIAN/control": control(wheel, tree, maintainer).encode(),
        "DEBIAN/md5sums": sums.encode(),
        "DEBIAN/postinst": COMPILE.encode(),
        "DEBIAN/prerm": CLEAN.encode(),
    }


EXECUTABLE = re.compile("usr/bin/.*|DEBIAN/p.*")


def build(path: Path, out: Path, maintainer: str = NOBODY) -> Path:
    """Write the package of a wheel into a folder; return its path."""
    wheel, date = Wheel.read(path), released()
    out.mkdir(parents=True, exist_ok=True)
    made = out / f"sev-attest_{wheel.version}-1_all.deb"
    with tempfile.TemporaryDirectory(prefix="deb-") as folder:
        root = Path(folder, "root")
        for name, data in package(wheel, maintainer, date).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        for item in (root, *root.rglob("*")):
            name = str(item.relative_to(root))
            item.chmod(0o755 if item.is_dir() or EXECUTABLE.fullmatch(name) else 0o644)
            os.utime(item, (date, date))
        # One thread: xz's blocks depend on their number.
        words = ("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, made)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(date), "DPKG_DEB_THREADS_MAX": "1"}
        subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    return made


def main() -> int:
    """Make the package, and try it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, help="the wheel")
    parser.add_argument("--out", type=Path, default=HOME / "dist", help="folder for it (dist)")
    parser.add_argument("--maintainer", default=NOBODY, help="NAME <ADDRESS> of who publishes it")
    parser.add_argument("--check", action="store_true", help=f"try it in a chroot of {SUITE}")
    given = parser.parse_args()
    made = build(given.wheel, given.out, given.maintainer)
    print(f"{hashlib.sha256(made.read_bytes()).hexdigest()}  {made}")
    return check(made) if given.check else 0


if __name__ == "__main__":
    sys.exit(main())
