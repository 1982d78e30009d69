"""Where a ledger's file is, and whether others could replace it.

A user who can delete a ledger, or put another file in its place, can release a session again. So
the file, the files that SQLite keeps beside it, and every folder and link on its path must follow
the rules of ``owner/_safe_path.py``. On Windows nothing is checked.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sev_attest.errors import Unsupported
from sev_attest.owner._safe_path import OTHERS_WRITE, UnsafePlace, quoted_path

_HAS_OWNERS = hasattr(os, "geteuid")
_BESIDE = ("-journal", "-wal", "-shm")


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


def with_logs(path: Path) -> Iterator[Path]:
    """Yield the path of a database, and those of the files that SQLite may keep beside it."""
    for end in ("", *_BESIDE):
        yield path.with_name(path.name + end)
