"""owner/_safe_path.py: paths as text, and which of them others could change."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sev_attest.owner._safe_path import UnsafePlace, absolute, check_folders, check_program, plain

PIECES = ("/", "//", ".", "..", "./", "~", "a", "b c", ".h", "\udcff", "é", "?#%41")


@given(st.lists(st.sampled_from(PIECES)).map("".join))
@example("")
@example("//a/b")
@example("///a//./b/.")
def test_a_path_is_written_as_pathlib_writes_it(text: str) -> None:
    assert plain(text) == plain(Path(text)) == str(Path(text))
    assert absolute(text) == absolute(Path(text)) == str(Path(text).absolute())


def test_in_the_root_folder_a_path_has_one_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert absolute("a") == "/a"
    assert absolute("") == "/"


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """Make a folder that others can write to."""
    made = tmp_path / "loose"
    made.mkdir()
    made.chmod(0o777)
    return made


@pytest.mark.parametrize(
    "target", ["loose", "loose/", "./loose/.", "{}/loose", "/{}/loose/", "loose/inner/.."]
)
def test_a_link_is_followed_however_it_is_spelt(loose: Path, target: str) -> None:
    (loose / "inner").mkdir(mode=0o700)
    link = loose.parent / "link"
    link.symlink_to(target.format(loose.parent))
    with pytest.raises(UnsafePlace, match="can write in"):
        check_folders(str(link), make=False)


@pytest.mark.parametrize("target", [".", "./", "{}/."])
def test_a_link_to_the_folder_that_it_is_in_leads_into_that(loose: Path, target: str) -> None:
    loose.chmod(0o1777)  # like /tmp, which may be on the way
    link = loose / "link"
    link.symlink_to(target.format(loose))
    with pytest.raises(UnsafePlace, match="can write in its folder"):
        check_folders(str(link), make=False)


def test_a_folder_is_never_made_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_folders(str(tmp_path / "file" / "new"), make=True)


def test_a_folder_that_cannot_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(PermissionError):
        check_folders(str(tmp_path / "new"), make=True)


def test_nothing_is_made_for_a_program_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_program(str(tmp_path / "new" / "program"))
    assert not (tmp_path / "new").exists()


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        check_folders(str(tmp_path / "one" / "two"), make=True)
    finally:
        os.umask(mask)
    for made in ("one", "one/two"):
        assert (tmp_path / made).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("end", ["", "/", "/.", "//"])
def test_a_link_to_a_program_is_read_also_if_its_target_ends_with_a_slash(
    loose: Path, end: str
) -> None:
    (loose / "program").touch(mode=0o700)
    (loose.parent / "way").symlink_to(loose / "program")
    (loose.parent / "link").symlink_to(f"way{end}")
    with pytest.raises(UnsafePlace, match="anybody can write in its folder"):
        check_program(str(loose.parent / "link"))
    loose.chmod(0o700)
    check_program(str(loose.parent / "link"))
