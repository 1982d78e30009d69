"""Files that commands write: all of them or none, private, never over others unasked.

Each is written beside its place first, under a hidden name that ends in :data:`_SUFFIX`, and holds
a lock while its writer lives. A run that is killed leaves such files, and they may hold keys: the
next run that writes into the folder removes those that nobody holds.
"""

import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from sev_attest.cli import render
from sev_attest.errors import SevAttestError, Unsupported

try:
    import fcntl
except ImportError:  # not POSIX: nothing tells who writes a file, so that none is removed
    _LOCKS = False
else:
    _LOCKS = True

_SUFFIX = ".sev-attest"


class FileExists(SevAttestError):
    """A file stands in the way."""


def write_all(files: Iterable[tuple[Path, bytes]], *, force: bool) -> None:
    """Write every file, readable by their owner alone (0600), or leave everything as it was.

    Each is written whole beside its place and synced before any of them takes its name. Without
    ``force`` a file that exists is an error (FileExists), also one that appears in between; with
    it, what stood there comes back if a later one fails. Raises OSError if writing fails,
    Unsupported if two names mean one file.
    """
    pairs = list(files)
    check_places([path for path, _ in pairs], force=force)
    for folder in dict.fromkeys(path.parent for path, _ in pairs):
        _sweep(folder)
    staged: dict[Path, Path] = {}
    kept: dict[Path, Path] = {}
    placed: list[Path] = []
    with ExitStack() as locks:
        try:
            for path, data in pairs:
                staged[path] = _stage(path, data, locks)
            for path, temporary in staged.items():
                if force and os.path.lexists(path):
                    kept[path] = temporary.with_name(f"{temporary.stem}.old{_SUFFIX}")
                    _keep(path, kept[path], locks)
                    temporary.replace(path)
                else:
                    _place(temporary, path)
                placed.append(path)
        except BaseException:
            _undo(staged, placed, kept)
            raise
        finally:
            for temporary in (*staged.values(), *kept.values()):
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what killed runs left in a folder, and name it."""
    if not _LOCKS:
        return
    for left in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError):  # it is held, or not ours
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(descriptor)
            shown = render.one_line(str(left))
            click.echo(f"note: removed {shown}, which a killed run left behind", err=True)


def check_places(paths: list[Path], *, force: bool) -> None:
    """Refuse places that :func:`write_all` would; raises FileExists or Unsupported."""
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise Unsupported("two of the outputs are one file", check="output.twice")
    for path in paths:
        if os.path.lexists(path) and (not force or not path.is_file()):
            raise _exists(path)


def check_folders(paths: list[Path]) -> None:
    """Refuse folders that take no new file; raises OSError, with the place that was asked for."""
    for path in paths:
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


def _undo(staged: dict[Path, Path], placed: list[Path], kept: dict[Path, Path]) -> None:
    # A signal may come between taking a name and noting it: one file, two names.
    for path in [p for p, temporary in staged.items() if p in placed or _same(p, temporary)]:
        path.unlink(missing_ok=True)
    for path, old in kept.items():
        with suppress(FileNotFoundError):  # it was not kept yet
            old.rename(path)


def _hold(descriptor: int) -> bool:
    """Lock a file against :func:`_sweep`, as long as it is open; return whether that can be."""
    if not _LOCKS:
        return False
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def _keep(path: Path, old: Path, locks: ExitStack) -> None:
    """Give a file that will be replaced a second name; where that cannot be, move it aside."""
    try:
        os.link(path, old)
    except OSError:
        try:
            path.rename(old)
        except OSError as error:
            # Name the file that was asked for, not the temporary one.
            raise OSError(error.errno, error.strerror, str(path)) from None
    with suppress(OSError):  # it cannot be read: then no sweep can open it either
        _hold(locks.enter_context(old.open("rb")).fileno())


def _stage(path: Path, data: bytes, locks: ExitStack) -> Path:
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent
        )
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with ExitStack() as closing:
            file = closing.enter_context(os.fdopen(descriptor, "wb"))
            held = _hold(descriptor)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            if held:
                locks.push(closing.pop_all())
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    return Path(name)


def _place(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike a rename, this fails if somebody was faster
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _exists(path) from None
        temporary.rename(path)


def _same(path: Path, temporary: Path) -> bool:
    try:
        return path.samefile(temporary)
    except OSError:
        return False


def _exists(path: Path) -> FileExists:
    return FileExists(
        f"{path}: exists already",
        check="output.exists",
        hint="choose another name, or --force (which replaces files, but no folder)",
    )
