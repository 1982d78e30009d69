"""Whether others could change or replace what is at a path: the rules of sshd's StrictModes.

Windows has no such owners and modes: nothing is checked there.
"""

import errno
import os
import stat
from pathlib import Path

_MAX_LINKS = 40
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_HAS_OWNERS = hasattr(os, "geteuid")
_ELSEWHERE = "keep it in a folder of your own"


class UnsafePlace(Exception):
    """Others could change or replace what is here; ``reason`` says why, ``hint`` what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        """Keep the reason and the hint apart."""
        super().__init__(reason)
        self.reason: str = reason
        self.hint: str = hint


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
    if stat.S_ISLNK(mode) or not mode & OTHERS_WRITE:
        return
    if last:
        # In a sticky folder, another user can create SQLite's log before the ledger exists.
        who = "anybody" if mode & stat.S_IWOTH else "its group"
        hint = _ELSEWHERE if mode & stat.S_ISVTX else f"chmod go-w {quoted_path(path)}"
        raise UnsafePlace(f"{who} can write in its folder", hint)
    if not mode & stat.S_ISVTX:
        raise UnsafePlace(
            f"others can write in {path}, on the way to it", f"chmod go-w {quoted_path(path)}"
        )


def check_program(path: Path) -> None:
    """Raise UnsafePlace if others could change or replace the file that an absolute path names.

    Links are followed. Each of them, every folder on the way and the file must belong to this user
    or root, and nobody else may write to the file or the folders, as :func:`check_folders` says.
    Raises OSError if the file is missing.
    """
    for _ in range(_MAX_LINKS):
        check_folders(path.parent, make=False)
        found = path.lstat()
        if _HAS_OWNERS and found.st_uid not in (0, os.geteuid()):
            raise UnsafePlace(f"{path} belongs to another user", "make this user its owner")
        if not stat.S_ISLNK(found.st_mode):
            break
        path = path.parent / path.readlink()
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePlace(f"{path} is not a regular file", "")
    if _HAS_OWNERS and found.st_mode & OTHERS_WRITE:
        raise UnsafePlace(f"others can write to {path}", f"chmod go-w {quoted_path(path)}")


def quoted_path(path: Path | str) -> str:
    """Return a path as a shell takes it."""
    from shlex import quote

    return quote(str(path))
