"""Files below a root folder, read in bounded time and size, whatever is there.

Each file is bounded, and so is all that is read from one tree: what comes after is unreadable.

A path is resolved as after ``chroot``: an absolute link starts at the root again, and ``..`` at the
root stays there. So no link leads out of the tree. Only regular files are opened; a device, a pipe
or a socket is never touched.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Self, TypeVar, cast

from sev_attest.errors import SevAttestError

MAX_FILE = 1 << 20
"""Bytes of most files."""
MAX_NAMES = 4096
"""Names in a folder."""
MAX_SETTINGS = 256
"""Names in a folder of settings."""
_MAX_COLLECTED = 4 << 20
"""Bytes of all files of settings of one kind."""
_MAX_BYTES = 256 << 20
"""Bytes that are read from a tree in all: the largest package databases and logs fit."""
_MAX_STEPS = 1 << 17
"""Names that are looked up in a tree in all."""
_MAX_WAY = 512
"""Names that are looked up on the way to one file: each of them may be an open descriptor."""
_MAX_LINKS = 40
"""Symbolic links on the way to one file, as in Linux (include/linux/namei.h, MAXSYMLINKS)."""
_MAX_DEPTH = 64
"""Folders on the way to one file."""
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PASSING = getattr(os, "O_PATH", os.O_RDONLY)
"""How folders on the way are opened: on Linux that does not need the right to list them."""
_CHUNK = 1 << 16
_Fact = TypeVar("_Fact")


class Unreadable(SevAttestError):
    """Something is there, but it cannot be read; the message says what and why."""

    def __init__(self, path: str, reason: str, *, hint: str = "") -> None:
        """Name the path in the tree and the reason."""
        super().__init__(f"{path}: {reason}", check="host.unreadable", hint=hint)

    @classmethod
    def because(cls, path: str, error: OSError) -> Self:
        """Return the error for what the system refused."""
        hint = "run this as root" if isinstance(error, PermissionError) else ""
        return cls(path, error.strerror or type(error).__name__, hint=hint)


class Once:
    """Facts that are looked for once: what was found is kept, and so is why it is unreadable."""

    def __init__(self) -> None:
        """Begin with none."""
        self._kept: dict[object, object] = {}

    def get(self, name: object, look: Callable[[], _Fact]) -> _Fact:
        """Return what ``look`` found when it was called for this name. Raises Unreadable."""
        if name not in self._kept:
            try:
                self._kept[name] = look()
            except Unreadable as error:
                self._kept[name] = error
        found = self._kept[name]
        if isinstance(found, Unreadable):
            raise found.with_traceback(None)
        return cast("_Fact", found)


class Tree:
    """The files below ``root``, which is a folder. One object is for one inspection.

    A missing file is None. Everything else that prevents reading is :class:`Unreadable`, also that
    :data:`_MAX_BYTES` were read, or :data:`_MAX_STEPS` names looked up.
    """

    def __init__(self, root: str = "/") -> None:
        """Take the root folder; it is opened for each file that is read."""
        self.root = root
        self._bytes = _MAX_BYTES
        self._steps = _MAX_STEPS

    @property
    def live(self) -> bool:
        """Whether this is the running machine's own tree."""
        return os.path.realpath(self.root) == "/"

    def read(self, path: str, most: int = MAX_FILE) -> bytes | None:
        """Return a regular file of at most ``most`` bytes, None if it is missing.

        Raises Unreadable if it is larger, is no regular file, or must not be read.
        """
        with self.opened(path) as file:
            if file is None:
                return None
            data = bytearray()
            with _named(path):
                # Files in /proc and /sys say that they have no bytes: those are read to know.
                while max(os.fstat(file).st_size, len(data)) <= most:
                    if self._bytes < 0:
                        raise Unreadable(path, f"after {_MAX_BYTES} bytes, nothing more is read")
                    chunk = os.read(file, _CHUNK)
                    if not chunk:
                        return bytes(data)
                    self._bytes -= len(chunk)
                    data += chunk
            raise Unreadable(path, f"more than {most} bytes")

    def text(self, path: str, most: int = MAX_FILE) -> str | None:
        """Return a text file; bytes that are not UTF-8 are replaced. As :meth:`read` otherwise."""
        data = self.read(path, most)
        return None if data is None else data.decode("utf-8", "replace")

    def names(self, path: str, most: int = MAX_NAMES) -> list[str] | None:
        """Return the names in a folder, sorted, None if it is missing.

        Raises Unreadable for more than ``most``, and for what is no folder.
        """
        names = self._names(path, most + 1)
        if names is not None and len(names) > most:
            raise Unreadable(path, f"more than {most} names")
        return names

    def collected(
        self, folders: Sequence[str], ending: str, most: int = MAX_FILE, whole: int = _MAX_COLLECTED
    ) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of the files with this ending, by name; the first folder wins.

        What is missing, or a link to /dev/null, is left out: so a file of another folder is masked.

        Raises Unreadable for a file of more than ``most`` bytes, for more than ``whole`` of all of
        them, and for more than :data:`MAX_SETTINGS` names in a folder.
        """
        places: dict[str, str] = {}
        for folder in folders:
            for name in self.names(folder, MAX_SETTINGS) or ():
                if name.endswith(ending):
                    places.setdefault(name, f"{folder}/{name}")
        for _, path in sorted(places.items()):
            info = self.stat(path)
            if info is None or stat.S_ISCHR(info.st_mode):
                continue
            data = self.read(path, most) or b""
            whole -= len(data)
            if whole < 0:
                raise Unreadable(path, "with those before it, too many bytes of settings")
            yield path, data

    def filled(self, path: str) -> bool:
        """Return whether there is a folder with something in it. Raises Unreadable."""
        return bool(self._names(path, 1))

    def _names(self, path: str, most: int) -> list[str] | None:
        with ExitStack() as stack, _named(path):
            found = self._find(path, stack)
            if found is None:
                return None
            above, name, _ = found
            folder = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=above)
            stack.callback(os.close, folder)
            entries = stack.enter_context(os.scandir(folder))
            return sorted(entry.name for entry in islice(entries, most))

    def stat(self, path: str) -> os.stat_result | None:
        """Return what ``stat`` says, links followed inside the tree; None if it is missing."""
        with ExitStack() as stack, _named(path):
            found = self._find(path, stack)
            return None if found is None else found[2]

    def exists(self, path: str) -> bool:
        """Return whether something is at a path."""
        return self.stat(path) is not None

    def label(self, path: str) -> str | None:
        """Return the SELinux label, None if there is none, or the system cannot tell."""
        with ExitStack() as stack, _named(path):
            found = self._find(path, stack)
            if found is None:
                return None
            above, name, _ = found
            # Opened with O_PATH: a device must not be opened to read its label.
            file = os.open(name, _PASSING | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            stack.callback(os.close, file)
            with suppress(OSError):
                value = os.getxattr(f"/proc/self/fd/{file}", "security.selinux")
                return value.rstrip(b"\0").decode("utf-8", "replace")
            return None

    @contextmanager
    def opened(self, path: str) -> Iterator[int | None]:
        """Open a regular file, and yield its descriptor; None if it is missing."""
        with ExitStack() as stack:
            with _named(path):
                found = self._find(path, stack)
                if found is None:
                    file = None
                else:
                    above, name, info = found
                    _require_regular(path, info)
                    file = os.open(name, _FILE, dir_fd=above)
                    stack.callback(os.close, file)
                    _require_regular(path, os.fstat(file))  # it may have changed meanwhile
            yield file

    def _find(self, path: str, stack: ExitStack) -> tuple[int, str, os.stat_result] | None:
        """Return the open folder of a path, its name there, and its stat; None if it is missing.

        The stack closes what is opened. The root itself is "." in itself.
        """
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        way = [(root, ".")]  # every folder from the root on, and what is found in it
        parts, links, steps = deque(path.split("/")), 0, 0
        while parts:
            part = parts.popleft()
            steps += 1
            self._steps -= 1
            if steps > _MAX_WAY or self._steps < 0:
                raise Unreadable(path, "too many folders and links on the way, or already before")
            if part in ("", "."):
                continue
            if part == "..":
                del way[max(len(way) - 1, 1) :]
                continue
            try:
                above = self._enter(way, stack)
                info = os.stat(part, dir_fd=above, follow_symlinks=False)
                if not stat.S_ISLNK(info.st_mode):
                    way.append((above, part))
                    if len(way) > _MAX_DEPTH:
                        raise Unreadable(path, f"more than {_MAX_DEPTH} folders deep")
                    continue
                target = os.readlink(part, dir_fd=above)
            except FileNotFoundError:
                return None
            links += 1
            if links > _MAX_LINKS:
                raise Unreadable(path, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                del way[1:]
            parts.extendleft(reversed(target.split("/")))
        above, name = way[-1]
        return above, name, os.stat(name, dir_fd=above, follow_symlinks=False)

    @staticmethod
    def _enter(way: list[tuple[int, str]], stack: ExitStack) -> int:
        """Open the last folder of a way, and return its descriptor."""
        above, name = way[-1]
        folder = os.open(name, _PASSING | _FOLDER, dir_fd=above)
        stack.callback(os.close, folder)
        return folder


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn an OSError into Unreadable with the path in the tree."""
    try:
        yield
    except OSError as error:
        raise Unreadable.because(path, error) from None


def _require_regular(path: str, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        kind = "a folder" if stat.S_ISDIR(info.st_mode) else "no regular file"
        raise Unreadable(path, f"is {kind}")
