"""Where a ledger's file is, and whether others could replace it.

A user who can delete a ledger, or put another file in its place, can release a session again. So
the file, the files that SQLite keeps beside it, and every folder and link on its path must follow
the rules of ``owner/_safe_path.py``. On Windows nothing is checked.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from sev_attest.errors import Unsupported
from sev_attest.owner._safe_path import OTHERS_WRITE, UnsafePlace, plain, quoted_path

if TYPE_CHECKING:
    import pathlib

_HAS_OWNERS = hasattr(os, "geteuid")
_BESIDE = ("-journal", "-wal", "-shm")


def default_place() -> "pathlib.Path":
    """Return the path of this user's ledger, below XDG_STATE_HOME or ``~/.local/state``.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification says. Raises
    Unsupported if the user has no home folder.
    """
    from pathlib import Path

    return Path(default_path())


def default_path() -> str:
    """Return what :func:`default_place` does, as text."""
    state = _state() or os.path.join(_home(), ".local", "state")
    return plain(os.path.join(state, "sev-attest", "ledger.sqlite3"))


def check_home() -> None:
    """Raise Unsupported if the default place is in a home folder, and that does not exist."""
    if not _state() and not os.path.isdir(_home()):
        raise _homeless(f"the home folder of this user, {_home()}, does not exist")


def _state() -> str:
    state = os.environ.get("XDG_STATE_HOME", "")
    return state if os.path.isabs(state) else ""


def _home() -> str:
    home = os.path.expanduser("~")
    if not os.path.isabs(home) or os.environ.get("HOME") == "":
        raise _homeless("this user has no home folder to keep a ledger in")
    return home


def _homeless(reason: str) -> Unsupported:
    return Unsupported(reason, check="ledger.place", hint="set XDG_STATE_HOME")


def check_file(path: str) -> None:
    """Raise UnsafePlace if others can write to the file, or to what SQLite keeps beside it.

    Raises OSError if the file is missing.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise UnsafePlace("it is a symbolic link", "name the file itself")
    if not _HAS_OWNERS or not stat.S_ISREG(found.st_mode):
        return
    _check_owned("it", path, found)
    for end in _BESIDE:
        beside = path + end
        with suppress(FileNotFoundError):
            _check_owned(os.path.basename(beside), beside, os.lstat(beside))


def _check_owned(name: str, path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePlace(f"{name} is not a file", "find out who put it there")
    if found.st_uid != os.geteuid():
        raise UnsafePlace(
            f"{name} belongs to another user", "run this as its owner, or choose another file"
        )
    if found.st_mode & OTHERS_WRITE:
        raise UnsafePlace(f"others can write to {name}", f"chmod go-w {quoted_path(path)}")
    # SQLite names its logs after the file: two names have two logs, and release twice.
    if found.st_nlink > 1:
        raise UnsafePlace(
            f"{name} has {found.st_nlink} names (hard links)",
            f"`find DIR -samefile {quoted_path(path)}` lists them: remove all but one",
        )


def with_logs(path: str) -> Iterator[str]:
    """Yield the path of a database, and those of the files that SQLite may keep beside it."""
    for end in ("", *_BESIDE):
        yield path + end
