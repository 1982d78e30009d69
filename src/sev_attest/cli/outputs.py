"""Files that commands write: all of them or none, private, never over others unasked."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sev_attest.errors import SevAttestError


class FileExists(SevAttestError):
    """A file stands in the way."""


def write_all(files: Mapping[Path, bytes], *, force: bool) -> None:
    """Write every file, readable by their owner alone (0600), or leave everything as it was.

    Each is written whole beside its place and synced before any of them takes its name. Without
    ``force`` a file that exists is an error (FileExists), also one that appears in between; with
    it, what stood there comes back if a later one fails. Raises OSError if writing fails.
    """
    for path in files:
        if os.path.lexists(path) and (not force or not path.is_file()):
            raise _exists(path)
    staged: dict[Path, Path] = {}
    kept: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, data in files.items():
            staged[path] = _stage(path, data)
        for path, temporary in staged.items():
            if os.path.lexists(path) and force:
                kept[path] = temporary.with_name(f"{temporary.name}.old")
                path.rename(kept[path])
            _place(temporary, path)
            placed.append(path)
    except BaseException:
        # A signal may come between taking a name and noting it: one file, two names.
        for path in [p for p, temporary in staged.items() if p in placed or _same(p, temporary)]:
            path.unlink(missing_ok=True)
        while kept:
            path, old = kept.popitem()
            old.rename(path)
        raise
    finally:
        for leftover in (*staged.values(), *kept.values()):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)


def _stage(path: Path, data: bytes) -> Path:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        # Name the file that was asked for, not the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
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
