"""Whether others could change or replace what is at a path: the rules of sshd's StrictModes.

Windows has no such owners and modes: nothing is checked there. Paths are text here: pathlib takes
longer to import than all of this.
"""

import errno
import os
import stat

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


def plain(path: str | os.PathLike[str]) -> str:
    """Return a path as pathlib writes it: without empty parts and "."; links and ".." stay."""
    root, names = _split(os.fspath(path))
    return root + "/".join(names) or "."


def absolute(path: str | os.PathLike[str]) -> str:
    """Return an absolute path, as :func:`plain` does."""
    text = os.fspath(path)
    return plain(text if os.path.isabs(text) else os.path.join(os.getcwd(), text))


def _split(path: str) -> tuple[str, list[str]]:
    """Return the root of a path, "" if it is relative, and its names."""
    names = path.lstrip("/")
    root = path.removesuffix(names)
    # POSIX lets a system decide what exactly two slashes mean.
    root = root if root == "//" else root[:1]
    return root, [name for name in names.split("/") if name not in ("", ".")]


def check_folders(folder: str, *, make: bool) -> None:
    """Raise UnsafePlace if others could make the path of an absolute folder lead elsewhere.

    Every folder and link on the path must belong to this user or root. Others may write only to
    sticky folders above the last one (/tmp): nobody can rename another user's files there.
    ``make`` creates missing folders with mode 0700; else a missing folder raises OSError.
    """
    if not _HAS_OWNERS:
        return
    here, names = _split(folder)
    way, links = names[::-1], 0
    _check_folder(here, os.lstat(here), last=not way)
    while way:
        name = way.pop()
        there = os.path.dirname(here) if name == ".." else os.path.join(here, name)
        if make and not os.path.lexists(there):
            _make(there)
        found = os.lstat(there)
        is_link = stat.S_ISLNK(found.st_mode)
        _check_folder(there, found, last=not (way or is_link))
        if not is_link:
            here = there
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        root, names = _split(os.readlink(there))
        here = root or here
        way += names[::-1]
        if not way:  # a link to "." or "/", which was checked as one on the way alone
            _check_folder(here, os.lstat(here), last=True)


def _make(folder: str) -> None:
    try:
        os.mkdir(folder, 0o700)
    except OSError:
        if not os.path.isdir(folder):  # another process made it
            raise


def _check_folder(path: str, found: os.stat_result, *, last: bool) -> None:
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


def check_program(program: str) -> None:
    """Raise UnsafePlace if others could change or replace the file that an absolute path names.

    Links are followed. Each of them, every folder on the way and the file must belong to this user
    or root, and nobody else may write to the file or the folders, as :func:`check_folders` says.
    Raises OSError if the file is missing.
    """
    path = plain(program)
    for _ in range(_MAX_LINKS):
        check_folders(os.path.dirname(path), make=False)
        found = os.lstat(path)
        if _HAS_OWNERS and found.st_uid not in (0, os.geteuid()):
            raise UnsafePlace(f"{path} belongs to another user", "make this user its owner")
        if not stat.S_ISLNK(found.st_mode):
            break
        path = plain(os.path.join(os.path.dirname(path), os.readlink(path)))
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePlace(f"{path} is not a regular file", "")
    if _HAS_OWNERS and found.st_mode & OTHERS_WRITE:
        raise UnsafePlace(f"others can write to {path}", f"chmod go-w {quoted_path(path)}")


def quoted_path(path: str) -> str:
    """Return a path as a shell takes it."""
    from shlex import quote

    return quote(path)
