"""Write files: all of them or none, private, and never over others unless --force is given.

Each file is first written under a hidden name in its folder, and is locked while its writer lives.
A run that is killed leaves such files, and they may hold keys: the next run that writes into the
folder removes those that are not locked. A file that ``--force`` replaces is kept beside the new
one until all are written. If the run is killed, that may be the only copy: it is named, never
removed.

pathlib and tempfile are not used: they take 4 ms to import, which is a tenth of `session`.
"""

import errno
import os
import re
import signal
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from sev_attest.cli import render, terminal
from sev_attest.errors import Insecure, SevAttestError, Unsupported

try:
    import fcntl
except ImportError:  # not POSIX: without locks, no file is known to be abandoned
    _LOCKS = False
else:
    _LOCKS = True
if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = ".sev-attest."
_OLD = ".old"
_RANDOM = 4
"""Random bytes of a hidden name."""
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR)
_REPLACE = "choose another name, or --force (which replaces files, but no folder)"
_OURS = re.compile(rf"{re.escape(_PREFIX)}[a-z0-9_]{{8}}(?P<old>{re.escape(_OLD)})?")


class FileExists(SevAttestError):
    """A file of this name exists already."""


Place = str | os.PathLike[str]
"""Where a file goes."""
Content = bytes | Iterable[bytes]
"""What a file has: all of it, or the parts of something too large for memory."""


def write_all(files: Iterable[tuple[Place, Content]], *, force: bool) -> None:
    """Write every file, with mode 0600, or leave everything as it was.

    Each is written under a temporary name and synced before any of them gets its own name. Without
    ``force``, a file that exists is an error, even one that appears in between. With it, the old
    files come back if a later one fails. A signal that arrives when all files have their names is
    ignored. Raises FileExists, OSError if writing fails, Unsupported if two names mean one file.
    """
    pairs = [(os.fspath(path), data) for path, data in files]
    _check_places([path for path, _ in pairs], force=force)
    folders = dict.fromkeys(os.path.dirname(path) for path, _ in pairs)
    for folder in folders:
        _sweep(folder)
    staged: dict[str, str] = {}
    kept: dict[str, str] = {}
    placed: list[str] = []
    with ExitStack() as locks:
        try:
            for path, data in pairs:
                _stage(path, data, staged, locks)
            for path, temporary in staged.items():
                if force and os.path.lexists(path):
                    kept[path] = temporary + _OLD
                    _keep(path, kept[path])
                    os.replace(temporary, path)
                else:
                    _place(temporary, path)
                placed.append(path)
            _hold_signals(hold=True)
        except BaseException:
            _hold_signals(hold=True)
            _undo(staged, placed, kept)
            raise
        else:
            for folder in folders:
                _sync(folder)
            for old in kept.values():
                _remove(old)
        finally:
            for temporary in staged.values():
                _remove(temporary)
            with suppress(KeyboardInterrupt):  # too late, or another error is raised already
                _hold_signals(hold=False)


def _hold_signals(*, hold: bool) -> None:
    """Block signals, or deliver them again: none may interrupt the clean-up."""
    if hasattr(signal, "pthread_sigmask"):
        how = signal.SIG_BLOCK if hold else signal.SIG_UNBLOCK
        signal.pthread_sigmask(how, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def _sync(folder: str) -> None:
    """Bring the names of files to the disk, where a folder can be opened at all."""
    with suppress(OSError):
        descriptor = os.open(folder or os.curdir, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _sweep(folder: str) -> None:
    """Remove what killed runs left in a folder, and name it."""
    names: list[str] = []
    with suppress(OSError):  # no folder, or no right to read it
        names = os.listdir(folder or os.curdir)
    for name in names if _LOCKS else ():
        ours, left = _OURS.fullmatch(name), os.path.join(folder, name)
        if not ours or not _abandoned(left, remove=not ours["old"]):
            continue
        shown = render.one_line(left)
        if ours["old"]:
            told = f"{shown} is an old file that a killed run with --force was replacing"
        else:
            told = f"removed {shown}, which a killed run left behind"
        terminal.say(f"note: {told}", err=True)


def _abandoned(left: str, *, remove: bool) -> bool:
    """Return whether a file is this user's and not locked; then, with ``remove``, remove it."""
    with suppress(OSError):  # locked, gone, or not ours to open
        descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                return False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if remove:
                os.unlink(left)
        finally:
            os.close(descriptor)
        return True
    return False


def check_writable(paths: Iterable[Place], *, force: bool) -> None:
    """Raise what :func:`write_all` would for these places, before there is anything to write.

    An OSError is for a folder in which no file can be made; it names the file asked for.
    """
    places = [os.fspath(path) for path in paths]
    _check_places(places, force=force)
    for path in places:
        try:
            with _new_file(os.path.dirname(path)) as file:
                pass
        except OSError as error:
            raise _named(error, path) from None
        _remove(file.name)  # another run may have: it is not locked


def _named(error: OSError, path: str) -> OSError:
    """Return the error for the file that was asked for, not for the temporary one."""
    words = error.strerror
    if error.errno in _NO_FOLDER:
        words = f"there is no folder {os.path.dirname(path) or os.curdir}"
    return OSError(error.errno, words, path)


def _check_places(paths: list[str], *, force: bool) -> None:
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise Unsupported("two of the outputs are one file", check="output.twice")
    for path in paths:
        if os.path.lexists(path) and (not force or not os.path.isfile(path)):
            raise _exists(path)


def _undo(staged: dict[str, str], placed: list[str], kept: dict[str, str]) -> None:
    for path, old in kept.items():
        with suppress(OSError):  # it was not kept yet, or it stays where it is
            os.replace(old, path)
    # A signal may arrive after a file got its name and before that was noted: compare the files.
    for path in [p for p, temporary in staged.items() if p in placed or _same(p, temporary)]:
        if path not in kept:
            _remove(path)


def _keep(path: str, old: str) -> None:
    """Link a file that will be replaced to a second name, or rename it where links fail."""
    try:
        os.link(path, old)
    except OSError:
        try:
            os.rename(path, old)
        except OSError as error:
            raise _named(error, path) from None


def _new_file(folder: str) -> BinaryIO:
    """Make a file with mode 0600 and a hidden name that no other file has; raises OSError."""
    name = f"{_PREFIX}{os.urandom(_RANDOM).hex()}"
    return open(os.path.join(folder, name), "xb", opener=_opened_private)


def _opened_private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _stage(path: str, data: Content, staged: dict[str, str], locks: ExitStack) -> None:
    """Write a file under a temporary name, noted in ``staged`` before its first byte."""
    try:
        with ExitStack() as closing:
            file = closing.enter_context(_new_file(os.path.dirname(path)))
            staged[path] = file.name
            descriptor = file.fileno()
            if _LOCKS:
                with suppress(OSError):  # a file system without locks: _sweep cannot lock it either
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.fstat(descriptor).st_nlink:  # another run removed it before it was locked
                _stage(path, data, staged, locks)
                return
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(descriptor)
            if _LOCKS:  # keep it open, thus locked; Windows cannot rename an open file
                locks.push(closing.pop_all())
    except OSError as error:
        raise _named(error, path) from None


def _place(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)  # unlike rename, it fails if the file exists by now
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _exists(path) from None
        os.rename(temporary, path)


def _same(path: str, temporary: str) -> bool:
    try:
        return os.path.samefile(path, temporary)
    except OSError:
        return False


@contextmanager
def made_folder(folder: "Path", *, mode: int = 0o777) -> "Iterator[Path]":
    """Make a folder, unless it exists; after an error, a new one is removed again."""
    new = make_folder(folder, mode=mode)
    try:
        yield folder
    except BaseException:
        if new:
            with suppress(OSError):
                folder.rmdir()
        raise


def make_folder(folder: "Path", *, mode: int = 0o777) -> bool:
    """Make a folder, unless it exists; return whether it is new."""
    try:
        folder.mkdir(mode=mode)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "this is not a folder", str(folder)) from None
        return False
    except OSError as error:
        raise _named(error, str(folder)) from None
    return True


@contextmanager
def private_folder(folder: "Path") -> "Iterator[Path]":
    """Make a folder for secrets, mode 0700, as :func:`made_folder`; one that exists must be safe.

    Files have mode 0600 in any folder. But who owns a folder, or may write to it, can put others in
    their place. Raises Insecure for a folder of another user than this one and root, or that every
    user may write to (with the sticky bit, as /tmp has it, they can replace nothing).
    """
    with made_folder(folder, mode=0o700):
        found = folder.stat()
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if _LOCKS and (open_to_all or found.st_uid not in (0, os.geteuid())):
            raise Insecure(
                f"{folder}: another user can replace what is written into this folder",
                check="output.folder",
                hint="choose a folder of your own, which no other user may write to",
            )
        yield folder


def require_new(folder: Place) -> None:
    """Raise FileExists if something is where a new folder is to be made."""
    if os.path.lexists(folder):
        raise _exists(folder, "choose another name")


def _exists(path: Place, hint: str = _REPLACE) -> FileExists:
    return FileExists(f"{path}: exists already", check="output.exists", hint=hint)
