"""Debian's package: what tools/deb makes of a wheel."""

import gzip
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import deb
import sev_attest

ROOT = Path(__file__).parents[1]
needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="dpkg-deb is on Debian and what comes of it"
)


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the wheel of this folder."""
    out = str(tmp_path_factory.mktemp("dist"))
    (made,) = WheelBuilder(str(ROOT)).build(directory=out, versions=["standard"])
    return Path(made)


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> deb.Wheel:
    """Read it."""
    return deb.Wheel.read(wheel_file)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out a folder with what the tool reads beside the wheel."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, home)
    monkeypatch.setattr(deb, "HOME", home)
    return home


def stating(**fields: str | list[str]) -> deb.Wheel:
    """Make a wheel with other metadata."""
    metadata = Message()
    given = {"Name": "sev-attest", "Version": "1.2.3", "Requires-Python": ">=3.11", **fields}
    for name, values in given.items():
        for value in [values] if isinstance(values, str) else values:
            metadata[name.replace("_", "-")] = value
    return deb.Wheel(files={}, metadata=metadata)


def test_it_depends_on_debian_s_own_packages_and_suggests_the_extras(wheel: deb.Wheel) -> None:
    control = message_from_bytes(deb.package(wheel, deb.NOBODY, 0)["DEBIAN/control"])
    assert re.fullmatch(
        r"python3:any \(>= 3\.11\), python3-click \(>= [\d.]+\), "
        r"python3-cryptography \(>= [\d.]+\), python3-pyasn1 \(>= [\d.]+\)",
        control["Depends"],
    )
    suggested = {text.partition(" (>= ")[0] for text in control["Suggests"].split(", ")}
    assert suggested == set(deb.SUGGESTED.values())
    assert control["Version"] == f"{wheel.version}-1"


def test_every_extra_for_users_that_debian_has_is_suggested() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"].keys()
    assert extras - {"docs", "lint", "test"} - {"qmp"} == deb.SUGGESTED.keys()


def test_its_command_runs_the_modules_that_it_brings(wheel: deb.Wheel, tmp_path: Path) -> None:
    for name, data in deb.package(wheel, deb.NOBODY, 0).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    command = tmp_path / "usr/bin/sev-attest"
    assert command.read_text().startswith("#!/usr/bin/python3\n")
    asked = "import sev_attest, runpy, sys; print(sev_attest.__file__, flush=True); "
    ran = subprocess.run(
        [sys.executable, "-c", f"{asked}runpy.run_path('{command}')", "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / deb.PYTHON)},
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    where, said = ran.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert said == f"sev-attest {sev_attest.__version__}"


def test_it_has_the_licence_the_changelogs_and_the_pages(wheel: deb.Wheel) -> None:
    tree = deb.package(wheel, "A Packager <a@example.org>", 0)
    docs = deb.DOCS
    assert gzip.decompress(tree[f"{docs}/changelog.gz"]) == (ROOT / "CHANGELOG.md").read_bytes()
    entry = gzip.decompress(tree[f"{docs}/changelog.Debian.gz"]).decode()
    assert entry.startswith(f"sev-attest ({wheel.version}-1) unstable; urgency=medium\n\n  * ")
    assert entry.endswith("\n -- A Packager <a@example.org>  Thu, 01 Jan 1970 00:00:00 +0000\n")
    words = re.sub(r"\s+", " ", tree[f"{docs}/copyright"].decode().replace("\n .\n", "\n"))
    _, owners, *terms = (ROOT / "LICENSE").read_text().strip().split("\n\n")
    assert owners.removeprefix("Copyright (c) ") in words
    assert all(" ".join(part.split()) in words for part in terms)
    assert {f"{docs}/README.md", f"{docs}/docs/guide.md"} <= tree.keys()


def test_the_manual_pages_of_the_wheel_are_where_man_looks(wheel: deb.Wheel) -> None:
    page = f"sev_attest-{wheel.metadata['Version']}.data/data/share/man/man1/sev-attest.1"
    changed = deb.Wheel(files={**wheel.files, page: b"a page"}, metadata=wheel.metadata)
    pages = {name: data for name, data in deb.code(changed).items() if "/man/" in name}
    assert gzip.decompress(pages["usr/share/man/man1/sev-attest.1.gz"]) == b"a page"
    assert all(name.endswith(".1.gz") for name in pages)


def test_a_file_without_a_known_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        deb.place("sev_attest-1.data/headers/x.h")


@pytest.mark.parametrize("requirement", ["click~=8.1", "click", "click>=8.1; python_version<'4'"])
def test_a_requirement_that_it_cannot_write_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="does not understand"):
        [*deb.dependencies(stating(Requires_Dist=[requirement]).metadata)]


@pytest.mark.parametrize(
    ("version", "written"),
    [("1.2.3", "1.2.3"), ("1.2.3rc1", "1.2.3~rc1"), ("1.2.3.dev4", "1.2.3~dev4")],
)
def test_a_candidate_is_older_than_its_release(version: str, written: str) -> None:
    assert stating(Version=version).version == written


def test_the_wheel_of_another_project_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as made:
        made.writestr("other-1.dist-info/METADATA", "Name: other\nVersion: 1\n")
    with pytest.raises(ValueError, match="is a wheel of other"):
        deb.Wheel.read(other)


def test_files_have_the_date_of_the_newest_release(home: Path) -> None:
    changelog = home / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n")
    assert deb.released() == deb.BEFORE_RELEASES
    changelog.write_text("## [Unreleased]\n\n## [0.2.0] - 2026-11-30\n\n## [0.1.0] - 2026-01-01\n")
    assert datetime.fromtimestamp(deb.released(), UTC) == datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def members(wheel_file: Path, tmp_path: Path) -> Iterator[tarfile.TarFile]:
    """Make the package and open its files."""
    made = deb.build(wheel_file, tmp_path)
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", made], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as opened:
        yield opened


@needs_dpkg
def test_made_twice_it_has_the_same_bytes(wheel_file: Path, tmp_path: Path) -> None:
    one = deb.build(wheel_file, tmp_path / "one")
    before = os.umask(0o077)
    try:
        other = deb.build(wheel_file, tmp_path / "other")
    finally:
        os.umask(before)
    assert one.read_bytes() == other.read_bytes()


@needs_dpkg
def test_its_files_are_root_s_and_only_the_command_is_executable(members: tarfile.TarFile) -> None:
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "root")}
    assert {member.mtime for member in members} == {deb.released()}
    files = {member.name: member.mode for member in members if member.isfile()}
    assert {name for name, mode in files.items() if mode != 0o644} == {"./usr/bin/sev-attest"}
    assert {member.mode for member in members if member.isdir()} == {0o755}
