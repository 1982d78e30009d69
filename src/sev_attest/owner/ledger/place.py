"""Where a ledger's file is, and whether others could replace it.

Whoever can delete a ledger, or bring another under its name, can have a session released again. So
the file, what SQLite keeps beside it, and every folder and link on the way to it are held to the
rules of sshd's StrictModes. Windows has no such owners and modes: there, nothing is checked.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sev_attest.errors import Unsupported

_MOST_LINKS = 40
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_HAS_OWNERS = hasattr(os, "geteuid")
_BESIDE = ("-journal", "-wal", "-shm")
_ELSEWHERE = "keep it in a folder of your own (--ledger)"


class UnsafePlace(Exception):
    """Others could change or replace the ledger here. The arguments are words, and what to do."""

    def __init__(self, words: str, do: str = "") -> None:
        """Take what is wrong, and the hint."""
        super().__init__(words)
        self.words = words
        self.do = do


def default_place() -> Path:
    """Name the ledger of this user, by the XDG base directories: a relative one counts as unset.

    Raises Unsupported for a user without a home.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = _home() / ".local" / "state"
    return state / "sev-attest" / "ledger.sqlite3"


def check_home() -> None:
    """Raise Unsupported if the default place is in a home folder that does not exist."""
    if not Path(os.environ.get("XDG_STATE_HOME", "")).is_absolute() and not _home().is_dir():
        raise _homeless(f"the home folder of this user, {_home()}, does not exist")


def _home() -> Path:
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute() or os.environ.get("HOME") == "":
        raise _homeless("this user has no home folder to keep a ledger in")
    return home


def _homeless(words: str) -> Unsupported:
    hint = "name the ledger (--ledger), or set XDG_STATE_HOME"
    return Unsupported(words, check="ledger.place", hint=hint)


def check_file(path: Path) -> None:
    """Raise UnsafePlace unless the file, and what SQLite keeps beside it, is this user's alone.

    Raises OSError if it is missing.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise UnsafePlace("it is a symbolic link", "name the file itself (--ledger)")
    if not _HAS_OWNERS or not stat.S_ISREG(found.st_mode):
        return
    _check_owned("it", path, found)
    for end in _BESIDE:
        beside = path.with_name(path.name + end)
        with suppress(FileNotFoundError):
            _check_owned(beside.name, beside, beside.lstat())


def _check_owned(name: str, path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePlace(f"{name} is no file", "find out who put it there")
    if found.st_uid != os.geteuid():
        raise UnsafePlace(
            f"{name} belongs to another user", "run this as its owner, or name another (--ledger)"
        )
    if found.st_mode & _OTHERS:
        raise UnsafePlace(f"others can write to {name}", f"chmod go-w {_quoted(path)}")
    # SQLite names its logs after the file: under two names, two logs, and two releases.
    if found.st_nlink > 1:
        raise UnsafePlace(
            f"{name} has {found.st_nlink} names (hard links)",
            f"`find DIR -samefile {_quoted(path)}` lists them: remove all but one",
        )


def check_folders(folder: Path, *, make: bool) -> None:
    """Follow the way to an absolute folder; raise UnsafePlace if others could turn it elsewhere.

    Every folder on it, and every link, must be this user's or root's. Others may write to none but
    sticky ones above the last (/tmp): there, nobody can rename what is another user's. ``make``
    makes the folders that are missing, for their owner alone; else they raise OSError.
    """
    here, way, links = Path(folder.anchor), [*reversed(folder.parts[1:])], 0
    _check_folder(here, here.lstat(), last=not way)
    while way:
        name = way.pop()
        there = here.parent if name == ".." else here / name
        if make and not os.path.lexists(there):
            there.mkdir(mode=0o700, exist_ok=True)
        found = there.lstat()
        is_link = stat.S_ISLNK(found.st_mode)
        _check_folder(there, found, last=not (way or is_link))
        if not is_link:
            here = there
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = there.readlink()
        if target.is_absolute():
            here = Path(target.anchor)
        way += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _check_folder(path: Path, found: os.stat_result, *, last: bool) -> None:
    if not _HAS_OWNERS:
        return
    if found.st_uid not in (0, os.geteuid()):
        words = "its folder" if last else f"{path}, on the way to it,"
        raise UnsafePlace(f"{words} belongs to another user", _ELSEWHERE)
    mode = found.st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return
    if last:
        # In a sticky folder, another user can put a log of SQLite's there before the ledger is.
        who = "anybody" if mode & stat.S_IWOTH else "its group"
        do = _ELSEWHERE if mode & stat.S_ISVTX else f"chmod go-w {_quoted(path)}"
        raise UnsafePlace(f"{who} can write in its folder", do)
    if not mode & stat.S_ISVTX:
        raise UnsafePlace(
            f"others can write in {path}, on the way to it", f"chmod go-w {_quoted(path)}"
        )


def with_logs(path: Path) -> Iterator[Path]:
    """Yield a database's file, and those that SQLite may keep beside it."""
    for end in ("", *_BESIDE):
        yield path.with_name(path.name + end)


def _quoted(path: Path) -> str:
    from shlex import quote

    return quote(str(path))
