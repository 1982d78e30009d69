"""Files that commands write: all of them or none, private, never over others unasked."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sev_attest.errors import SevAttestError, Unsupported


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
    staged: dict[Path, Path] = {}
    kept: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, data in pairs:
            staged[path] = _stage(path, data)
        for path, temporary in staged.items():
            if force and os.path.lexists(path):
                kept[path] = temporary.with_name(f"{temporary.name}.old")
                _rename(path, kept[path])
            _place(temporary, path)
            placed.append(path)
    except BaseException:
        _undo(staged, placed, kept)
        raise
    else:
        for old in kept.values():
            old.unlink()
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


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
        with suppress(FileNotFoundError):  # it never left its place
            old.rename(path)


def _rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except OSError as error:
        # Name the file that was asked for, not the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _stage(path: Path, data: bytes) -> Path:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
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
