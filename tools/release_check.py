"""Check a release: what is tagged, what is stated, and what the packages do elsewhere.

The packages are made twice: from a copy of what git tracks, and from the source distribution that
this gives, in another folder, with other permissions and another time zone. Both must have the same
bytes. When all holds, they are put into dist.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
STORY = "# That was the whole story."
"""The last line of the demo."""


class Refused(Exception):
    """What was found wrong, one line each."""


def run(*words: object, cwd: Path = HOME) -> str:
    """Run a command and return what it prints; raises Refused with its last lines if it fails."""
    ran = subprocess.run(  # noqa: S603 - commands of our own
        [str(word) for word in words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        last = "\n".join(ran.stdout.splitlines()[-15:])
        raise Refused(f"`{' '.join(map(str, words))}` ended with {ran.returncode}:\n{last}")
    return ran.stdout


def git(*words: str) -> str:
    """Ask git about this folder, whoever owns it."""
    return run("git", "-c", f"safe.directory={HOME}", *words)


# What is stated and tagged


def version_of(package: str) -> str:
    """Return the version that ``__init__.py`` states: the only place that does."""
    stated = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)
    if len(stated) != 1:
        raise Refused('src/sev_attest/__init__.py: not one line `__version__ = "..."`')
    return str(stated[0])


def problems(version: str, changelog: str, changes: str, tag: str) -> list[str]:
    """Return what is wrong with a release, before its packages are made.

    ``changes`` is what ``git status --porcelain`` prints, ``tag`` the annotated tag of the commit,
    or empty.
    """
    found = []
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        found.append(
            f"__version__ is {version}: a release has three numbers, as in 1.2.3 or 1.2.3rc1"
        )
    top = re.search(r"^## (.*)$", changelog, re.MULTILINE)
    if not (top and re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", top[1])):
        heading = top[1] if top else "nothing"
        found.append(f"CHANGELOG.md begins with {heading}, not with [{version}] and a date")
    if changes:
        found.append(
            f"what git tracks was changed, or it does not know a file:\n{changes.rstrip()}"
        )
    if tag != f"v{version}":
        found.append(
            f"the commit has {tag or 'no annotated tag'}: `git tag -s v{version}` makes one"
        )
    return found


def check_release(version: str) -> None:
    """Hold the commit to its version, changelog and tag; raises Refused."""
    tags = git(
        "for-each-ref", "--points-at=HEAD", "--format=%(objecttype) %(refname:short)", "refs/tags"
    )
    annotated = [line.split()[1] for line in tags.splitlines() if line.startswith("tag ")]
    tag = f"v{version}" if f"v{version}" in annotated else " ".join(annotated)
    changelog = (HOME / "CHANGELOG.md").read_text(encoding="utf-8")
    found = problems(version, changelog, git("status", "--porcelain"), tag)
    if found:
        raise Refused("\n".join(found))


# The packages


def build(source: Path, out: Path) -> tuple[Path, Path]:
    """Make the wheel and the source distribution of a folder; return their paths."""
    words = ("-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", out, source)
    run(sys.executable, *words)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def tracked() -> set[str]:
    """Return the files that git tracks."""
    return set(git("ls-files", "-z").rstrip("\0").split("\0"))


def copy(files: set[str], folder: Path) -> None:
    """Copy files of this project."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(HOME / name, folder / name)


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack a source distribution for its owner's eyes only; return its top folder."""
    with tarfile.open(sdist) as archive:
        # Python before 3.11.4 has no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)  # noqa: S202 - made here
    (top,) = folder.iterdir()
    for path in top.rglob("*"):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o700 if executable else 0o600)
    return top


def build_twice(files: set[str], folder: Path) -> tuple[Path, Path]:
    """Make the packages in two ways; return them, or raise Refused if they differ."""
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # whose absence is hatchling's fixed date
    copy(files, folder / "first")
    made = build(folder / "first", folder / "made")
    top = unpack(made[1], folder / "second")
    os.environ["TZ"] = "Asia/Kathmandu"
    again = build(top, folder / "again")
    differing = [one.name for one, other in zip(made, again, strict=True) if not same(one, other)]
    if differing:
        raise Refused(f"made twice, with other bytes: {', '.join(differing)}")
    return made


def same(one: Path, other: Path) -> bool:
    """Return whether two files have the same name and bytes."""
    return one.name == other.name and one.read_bytes() == other.read_bytes()


def check_contents(wheel: Path, sdist: Path, files: set[str], version: str) -> None:
    """Hold the packages to what git tracks, and to the version; raises Refused."""
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archived:
        names = set(archived.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        stated = message_from_bytes(archived.read(metadata))["Version"]
    modules = {name.removeprefix("src/") for name in files if name.startswith("src/")}
    installed = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    found = [
        f"{what}: {', '.join(sorted(these))}"
        for what, these in (
            ("tracked, and not in the source distribution", files - packed),
            ("in the source distribution, and not tracked", packed - files - {"PKG-INFO"}),
            ("tracked, and not in the wheel", modules - installed),
            ("in the wheel, and not tracked", installed - modules),
        )
        if these
    ]
    if stated != version:
        found.append(f"the packages are of {stated}, not {version}")
    if found:
        raise Refused("\n".join(found))


def check_installed(wheel: Path, alone: Path, version: str) -> None:
    """Install the wheel in a fresh environment and run it there; raises Refused."""
    run(sys.executable, "-m", "venv", "--clear", alone)
    run(alone / "bin/pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    run(alone / "bin/pip", "check")
    command, elsewhere = alone / "bin/sev-attest", Path("/")
    if (said := run(command, "--version", cwd=elsewhere)) != f"sev-attest {version}\n":
        raise Refused(f"the installed command says {said.strip()}")
    if run(command, "demo", cwd=elsewhere).splitlines()[-1] != STORY:
        raise Refused("the demo of the installed command did not come to its end")


def checked(folder: Path, *, draft: bool) -> tuple[Path, Path]:
    """Check everything, and tell of each step; return the packages, or raise Refused."""
    version = version_of((HOME / "src/sev_attest/__init__.py").read_text(encoding="utf-8"))
    if not draft:
        check_release(version)
        print(f"ok: {version} is what CHANGELOG.md and the tag say, and git knows every file")
    files = tracked()
    wheel, sdist = build_twice(files, folder)
    print("ok: made twice, in other places, with the same bytes")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    print("ok: an index would take their metadata")
    check_contents(wheel, sdist, files, version)
    print("ok: they have what git tracks, and nothing else")
    check_installed(wheel, HOME / ".venv/alone", version)
    print("ok: the wheel runs in an environment of its own (.venv/alone)")
    return wheel, sdist


def keep(packages: tuple[Path, Path], out: Path) -> None:
    """Put the packages into a folder, in place of earlier ones, and print their digests."""
    out.mkdir(parents=True, exist_ok=True)
    for earlier in (*out.glob("sev_attest-*.whl"), *out.glob("sev_attest-*.tar.gz")):
        earlier.unlink()
    for package in packages:
        shutil.copy(package, out)
        print(f"{hashlib.sha256(package.read_bytes()).hexdigest()}  {out / package.name}")


def main() -> int:
    """Check, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draft", action="store_true", help="not tagged yet: the packages only")
    parser.add_argument("--out", type=Path, default=HOME / "dist", help="folder for them (dist)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        try:
            keep(checked(Path(folder), draft=given.draft), given.out)
        except Refused as refused:
            print(f"error: {refused}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
