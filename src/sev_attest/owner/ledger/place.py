"""Where a ledger's file is, and whether others could replace it.

A user who can delete a ledger, or put another file in its place, can release a session again. So
the file, the files that SQLite keeps beside it, and every folder and link on its path must follow
the rules of sshd's StrictModes. Windows has no such owners and modes: nothing is checked there.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sev_attest.errors import Unsupported

_MAX_LINKS = 40
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_HAS_OWNERS = hasattr(os, "geteuid")
_BESIDE = ("-journal", "-wal", "-shm")
_ELSEWHERE = "keep it in a folder of your own"


class UnsafePlace(Exception):
    """Others could change or replace the ledger here; ``reason`` says why, ``hint`` what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        """Keep the reason and the hint apart."""
        super().__init__(reason)
        self.reason: str = reason
        self.hint: str = hint


def default_place() -> Path:
    """Return the path of this user's ledger, below XDG_STATE_HOME or ``~/.local/state``.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification says. Raises
    Unsupported if the user has no home folder.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = _home() / ".local" / "state"
    return state / "sev-attest" / "ledger.sqlite3"


def check_home() -> None:
    """Raise Unsupported if the default place is in a home folder, and that does not exist."""
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


def _homeless(reason: str) -> Unsupported:
    return Unsupported(reason, check="ledger.place", hint="set XDG_STATE_HOME")


def check_file(path: Path) -> None:
    """Raise UnsafePlace if others can write to the file, or to what SQLite keeps beside it.

    Raises OSError if the file is missing.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise UnsafePlace("it is a symbolic link", "name the file itself")
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
            f"{name} belongs to another user", "run this as its owner, or choose another file"
        )
    if found.st_mode & _OTHERS:
        raise UnsafePlace(f"others can write to {name}", f"chmod go-w {_quoted(path)}")
    # SQLite names its logs after the file: two names have two logs, and release twice.
    if found.st_nlink > 1:
        raise UnsafePlace(
            f"{name} has {found.st_nlink} names (hard links)",
            f"`find DIR -samefile {_quoted(path)}` lists them: remove all but one",
        )


def check_folders(folder: Path, *, make: bool) -> None:
    """Raise UnsafePlace if others could make the path of an absolute folder lead elsewhere.

    Every folder and link on the path must belong to this user or root. Others may write only to
    sticky folders above the last one (/tmp): nobody can rename another user's files there.
    ``make`` creates missing folders with mode 0700; else a missing folder raises OSError.
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
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = there.readlink()
        if target.is_absolute():
            here = Path(target.anchor)
        way += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _check_folder(path: Path, found: os.stat_result, *, last: bool) -> None:
    if not _HAS_OWNERS:
        return
    if found.st_uid not in (0, os.geteuid()):
        where = "its folder" if last else f"{path}, on the way to it,"
        raise UnsafePlace(f"{where} belongs to another user", _ELSEWHERE)
    mode = found.st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return
    if last:
        # In a sticky folder, another user can create SQLite's log before the ledger exists.
        who = "anybody" if mode & stat.S_IWOTH else "its group"
        hint = _ELSEWHERE if mode & stat.S_ISVTX else f"chmod go-w {_quoted(path)}"
        raise UnsafePlace(f"{who} can write in its folder", hint)
    if not mode & stat.S_ISVTX:
        raise UnsafePlace(
            f"others can write in {path}, on the way to it", f"chmod go-w {_quoted(path)}"
        )


def with_logs(path: Path) -> Iterator[Path]:
    """Yield the path of a database, and those of the files that SQLite may keep beside it."""
    for end in ("", *_BESIDE):
        yield path.with_name(path.name + end)


def _quoted(path: Path) -> str:
    from shlex import quote

    return quote(str(path))
