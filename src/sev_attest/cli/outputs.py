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
    ``force`` a file that exists is an error (FileExists), also one that appears in between.
    Raises OSError if writing fails.
    """
    if not force:
        for path in files:
            if os.path.lexists(path):
                raise _exists(path)
    staged: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, data in files.items():
            staged[path] = _stage(path, data)
        for path, temporary in staged.items():
            _place(temporary, path, force=force)
            placed.append(path)
    except BaseException:
        if not force:
            for path in placed:
                path.unlink(missing_ok=True)
        raise
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


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


def _place(temporary: Path, path: Path, *, force: bool) -> None:
    if not force:
        try:
            os.link(temporary, path)  # unlike a rename, this fails if somebody was faster
        except FileExistsError:
            raise _exists(path) from None
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise _exists(path) from None
        else:
            return
    temporary.replace(path)


def _exists(path: Path) -> FileExists:
    return FileExists(
        f"{path}: exists already", check="output.exists", hint="choose another name, or --force"
    )
