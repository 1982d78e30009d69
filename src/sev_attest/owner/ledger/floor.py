"""The floor of a ledger: the highest head that its database has confirmed as safe from a crash.

A database that lacks this event is an older copy: a restored backup, or a standby that had not
received everything. Releasing with it could release a second time.
"""

import errno
import os
import re
import stat
import threading
import time
from contextlib import suppress

from sev_attest.owner._safe_path import UnsafePlace, absolute, check_folders
from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.place import check_file
from sev_attest.owner.ledger.story import EMPTY, Head

_SECONDS = 5.0
"""How long to wait for another process that holds the file."""
_LINE = rb"([0-9]{15}):([0-9a-f]{64})\n"


class Floor:
    """Keeps the highest confirmed head in memory, and in a file if there is one.

    The file is one line, COUNT:HASH, which only this user may access (0600). Processes may share
    it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Read the file, or create it; raises LedgerError if others could change it."""
        self.head: Head = EMPTY
        self._lock = threading.Lock()
        self._path = None if path is None else absolute(path)
        self._keep(EMPTY)

    def forked(self) -> None:
        """Go on in a child process: a thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def raise_to(self, head: Head) -> None:
        """Raise the floor to a head that was confirmed. It never falls."""
        with self._lock:
            self.head = max(head, self.head, key=lambda each: each.count)
            self._keep(self.head)

    def accept(self, head: Head) -> None:
        """Set the floor to a head, also to a lower one."""
        with self._lock:
            self.head = head
            self._keep(head, replace=True)

    def _keep(self, head: Head, *, replace: bool = False) -> None:
        """Keep the higher one of ``head`` and what is in the file, in both places."""
        path = self._path
        if path is None:
            return
        try:
            check_folders(os.path.dirname(path), make=False)
            descriptor = _opened(path)
            try:
                check_file(path)
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise UnsafePlace("it is not a file", "name another one")
                _lock(descriptor)
                found = self._parsed(os.pread(descriptor, 4096, 0))
                if replace or head.count > found.count:
                    # One line of one length, in one write: nobody reads half of it.
                    os.pwrite(descriptor, _line(head), 0)
                elif found.count > self.head.count:
                    self.head = found
            finally:
                os.close(descriptor)
        except UnsafePlace as error:
            raise self._error(error.reason, error.hint) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._error("it is a symbolic link", "name the file itself") from None
            raise self._error(error.strerror or type(error).__name__) from None

    def _parsed(self, line: bytes) -> Head:
        found = re.fullmatch(_LINE, line)
        if found is None:  # one that was emptied would let any ledger pass
            raise self._error("it is not a line COUNT:HASH", "name another file")
        return Head(int(found[1]), found[2].decode())

    def _error(self, reason: str, hint: str = "") -> LedgerError:
        return LedgerError(f"floor {self._path}: {reason}", check="ledger.floor", hint=hint)


def _line(head: Head) -> bytes:
    return b"%015d:%s\n" % (head.count, head.hash.encode())


def _opened(path: str) -> int:
    """Open a floor, after creating it if there is none."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    from tempfile import NamedTemporaryFile

    folder, name = os.path.split(path)
    with NamedTemporaryFile(dir=folder, prefix=f".{name}.") as file:
        file.write(_line(EMPTY))
        file.flush()
        os.fsync(file.fileno())
        # Several processes may create it: the first one does, and none sees it half written.
        with suppress(FileExistsError):
            os.link(file.name, path)
    return os.open(path, flags)


def _lock(descriptor: int) -> None:
    import fcntl

    end = time.monotonic() + _SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)
        else:
            return
