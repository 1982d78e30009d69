"""The wheel and the source distribution: the same wherever they are made; what they say."""

import io
import os
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import sev_attest
from index_readme import NOTE, for_index
from release_check import Refused, problems, version_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
with (ROOT / "pyproject.toml").open("rb") as file:
    PROJECT: dict[str, Any] = tomllib.load(file)["project"]
STRAY = ("vm1_tik.bin", "disk.key", "build/lib/old.py", ".venv/bin/python", "dist/old.whl")
"""What a working folder may have beside the project."""

Packages = dict[str, bytes]


def build(source: Path, out: Path) -> Packages:
    """Make the wheel and the source distribution of a folder."""
    made = [
        Path(path)
        for builder in (WheelBuilder, SdistBuilder)
        for path in builder(str(source)).build(directory=str(out), versions=["standard"])
    ]
    return {path.name: path.read_bytes() for path in made}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packages]:
    """Make the packages of this folder, with no date given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture
def wheel(packages: Packages) -> dict[str, bytes]:
    """Return the wheel's files."""
    (data,) = (data for name, data in packages.items() if name.endswith(".whl"))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture
def sdist(packages: Packages) -> Iterator[tarfile.TarFile]:
    """Open the source distribution."""
    (data,) = (data for name, data in packages.items() if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        yield opened


def description(metadata: Message) -> str:
    """Return what an index shows of a package."""
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    return text.decode()


@pytest.fixture
def metadata(wheel: dict[str, bytes]) -> Message:
    """Return what the wheel says of itself."""
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel[name])


def test_whoever_makes_them_of_the_source_distribution_gets_the_same_bytes(
    packages: Packages,
    sdist: tarfile.TarFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In another folder, with other permissions and dates, beside files that are no part of it."""
    sdist.extraction_filter = getattr(tarfile, "data_filter", None)
    sdist.extractall(tmp_path)
    (copy,) = tmp_path.iterdir()
    for name in STRAY:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("secret")
    for path in copy.rglob("*"):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o700 if executable else 0o600)
        os.utime(path, (1, 1))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert build(copy, tmp_path / "out") == packages


def test_the_source_distribution_has_what_its_tests_and_documents_need(
    sdist: tarfile.TarFile,
) -> None:
    files = {name.partition("/")[2] for name in sdist.getnames()}
    parts = {name.partition("/")[0] for name in files}
    assert {"docs", "src", "tests", "tools", "vectors", "LICENSE", "CHANGELOG.md"} <= parts
    linked = {name.partition("#")[0] for name in re.findall(r"\]\(((?!http)[^)]+)\)", README)}
    assert len(linked) > 20
    assert linked <= files
    assert all(member.uid == member.gid == 0 for member in sdist.getmembers())


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: dict[str, bytes]) -> None:
    package = ROOT / "src" / "sev_attest"
    source = {
        str(path.relative_to(package.parent)): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    beside = re.compile(r"sev_attest-[^/]+\.(?:dist-info|data/data/share/man)/")
    assert {name: data for name, data in wheel.items() if not beside.match(name)} == source
    assert "sev_attest/py.typed" in source


# What an index shows


def test_no_link_of_the_description_needs_a_file_beside_it(metadata: Message) -> None:
    text = description(metadata)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert not re.search(r"\]\((?!https?://)|^ {0,3}\[[^]]+\]:|<(?:a|img)\b", text, re.MULTILINE)


def test_the_description_has_every_line_of_the_readme(metadata: Message) -> None:
    text = description(metadata)
    assert text.endswith(f"\n{NOTE}\n")
    assert len(text.splitlines()) == len(README.splitlines()) + 2
    for line in README.splitlines():
        assert "](" in line or line in text
    for block in re.findall(r"```.*?```", README, re.DOTALL):
        assert block in text


@pytest.mark.parametrize(
    ("readme", "shown"),
    [
        ("a [ledger](docs/ledger.md).", "a ledger (docs/ledger.md)."),
        ("[docs/snp.md](docs/snp.md), [x](y#z)", "docs/snp.md, x (y)"),
        ("[docs/testing.md](docs/testing.md#faults)", "docs/testing.md"),
        ("[SemVer](https://semver.org/)", "[SemVer](https://semver.org/)"),
    ],
)
def test_a_link_to_a_file_becomes_its_name(readme: str, shown: str) -> None:
    assert for_index(readme) == f"{shown}\n{NOTE}\n"


def test_the_metadata_names_all_that_is_verified_and_the_licence(
    metadata: Message, wheel: dict[str, bytes]
) -> None:
    assert "SEV-SNP" in metadata["Summary"]
    assert {"SEV", "SEV-ES", "SEV-SNP"} <= set(metadata["Keywords"].split(","))
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")
    (licence,) = (data for name, data in wheel.items() if name.endswith("/licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()
    core = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert {re.split("[>=]", line)[0] for line in core} == {"click", "cryptography", "pyasn1"}


def test_the_version_is_stated_once(metadata: Message) -> None:
    package = ROOT / "src" / "sev_attest"
    stated = [path for path in package.rglob("*.py") if "__version__ =" in path.read_text()]
    assert stated == [package / "__init__.py"]
    assert version_of(stated[0].read_text()) == sev_attest.__version__ == metadata["Version"]
    assert "version" not in PROJECT


# What is said of packages


def test_extras_that_are_named_exist_and_are_installed_from_a_folder() -> None:
    """No release is on an index, so no text may send anybody to one."""
    places = [*(ROOT / "src").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(path.read_text() for path in places)
    assert not re.search(r"pip install (?:-\S+ )*'?sev[-_]attest|sev-attest\[\w", text)
    named = re.findall(r"pip install (?:-e )?'?\.\[([\w,]+)\]", text)
    assert {"libvirt", "qmp", "postgres"} <= set(named)
    assert {extra for names in named for extra in names.split(",")} <= set(
        PROJECT["optional-dependencies"]
    )


# A release


def test_what_the_page_on_releases_runs_is_there() -> None:
    page = (ROOT / "docs" / "release.md").read_text()
    named = set(re.findall(r"`(tools/[\w.]+|\.ci/run)\b", page))
    assert {"tools/release_check", "tools/deb"} <= named
    assert all((ROOT / name).is_file() for name in named)


CHANGELOG = "# Changelog\n\n## [1.2.3] - 2026-11-30\n\n### Added\n\n## [1.2.2] - 2026-10-01\n"


def test_a_tagged_tree_with_its_changelog_is_a_release() -> None:
    assert problems("1.2.3", CHANGELOG, "", "v1.2.3") == []
    candidate = CHANGELOG.replace("1.2.3", "1.2.3rc1")
    assert problems("1.2.3rc1", candidate, "", "v1.2.3rc1") == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "1.2.3.dev1"}, "three numbers"),
        ({"version": "1.2.4"}, "not with [1.2.4]"),
        ({"version": "1.2.2"}, "not with [1.2.2]"),
        ({"changelog": f"## [Unreleased]\n\n{CHANGELOG}"}, "begins with [Unreleased]"),
        ({"changelog": CHANGELOG.replace(" - 2026-11-30", "")}, "begins with [1.2.3]"),
        ({"changelog": CHANGELOG.replace("1.2.3", "1x2x3")}, "begins with [1x2x3]"),
        ({"changelog": ""}, "begins with nothing"),
        ({"changes": "?? vm1_tik.bin\n"}, "vm1_tik.bin"),
        ({"tag": ""}, "`git tag -s v1.2.3`"),
        ({"tag": "v1.2.2"}, "the commit has v1.2.2"),
        ({"tag": "1.2.3"}, "the commit has 1.2.3"),
    ],
)
def test_what_is_no_release_is_refused(changed: dict[str, str], said: str) -> None:
    given = {"version": "1.2.3", "changelog": CHANGELOG, "changes": "", "tag": "v1.2.3"}
    found = problems(**{**given, **changed})
    assert said in "\n".join(found)


@pytest.mark.parametrize("package", ["", '__version__ = "1"\n__version__ = "2"\n'])
def test_a_version_that_is_not_stated_once_is_refused(package: str) -> None:
    with pytest.raises(Refused, match="__version__"):
        version_of(package)
