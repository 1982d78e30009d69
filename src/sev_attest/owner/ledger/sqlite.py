"""A ledger in a SQLite file."""

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import ClassVar

from sev_attest.owner._safe_path import UnsafePlace, absolute, check_folders, plain
from sev_attest.owner.ledger.errors import LedgerError, message_of
from sev_attest.owner.ledger.place import check_file, with_logs
from sev_attest.owner.ledger.schema import TABLES, create_tables
from sev_attest.owner.ledger.store import MAX_VALUE, Store, StoreConnection, names_for
from sev_attest.owner.ledger.story import Head

_SQLITE_PROBLEMS = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_IOERR_SHMSIZE: "full",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_CONSTRAINT: "damaged",
    sqlite3.SQLITE_TOOBIG: "damaged",  # the ledger bounds the texts that it writes
    sqlite3.SQLITE_ERROR: "damaged",  # no such table or column
    sqlite3.SQLITE_CANTOPEN: "permission",
    sqlite3.SQLITE_PERM: "permission",
}
_ERRNO_PROBLEMS = {
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EROFS: "read-only",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
}
_CREATING = "make its folder writable, or keep the ledger elsewhere"
_GUARDS = {
    f"sev_attest_keeps_{number}": f"""CREATE TRIGGER sev_attest_keeps_{number} BEFORE {what}
    BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END"""
    for number, what in enumerate(
        (
            "UPDATE ON sev_attest_event",
            "DELETE ON sev_attest_event",
            "DELETE ON sev_attest_session",
        )
    )
}


class Sqlite(Store):
    """A file that only its owner may access (0600): write-ahead log, synced at every commit."""

    writing = "BEGIN IMMEDIATE"
    reading = "BEGIN"
    tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    names: ClassVar[Mapping[str, str]] = names_for(
        "{}", "strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')"
    )
    # An INTEGER PRIMARY KEY is SQLite's own row number: one B-tree less to write.
    schema: tuple[str, ...] = (
        *(table.replace("BIGINT", "INTEGER") for table in TABLES),
        *_GUARDS.values(),
    )
    owned = "SELECT 1"  # a file of another user is not opened
    unguard: tuple[str, ...] = tuple(f"DROP TRIGGER IF EXISTS {name}" for name in _GUARDS)
    guard: tuple[str, ...] = (*_GUARDS.values(),)

    def __init__(self, path: str | os.PathLike[str], timeout: float) -> None:
        """Take the file, and how long to wait for other processes, in seconds."""
        super().__init__(plain(path), timeout)
        self._path = absolute(path)
        self._folder, name = os.path.split(self._path)
        self._new = os.path.join(self._folder, f".{name}.new")
        self._lock = os.path.join(self._folder, f".{name}.lock")

    def prepare(self, *, create: bool) -> None:
        """Create the file if it is missing; raises LedgerError if others could replace it."""
        with self._os_errors(_CREATING if create else ""):
            missing = not os.path.lexists(self._path)
            if missing:
                check_folders(self._folder, make=create)
            if create and (missing or os.path.lexists(self._lock)):
                self._create()
            self._check()
            if not stat.S_ISREG(os.lstat(self._path).st_mode):
                raise self.fault("place", "it is not a file")

    def _check(self) -> None:
        check_file(self._path)
        check_folders(self._folder, make=False)

    @contextmanager
    def _os_errors(self, hint: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self.fault("missing") from None
        except OSError as error:
            problem = _ERRNO_PROBLEMS.get(error.errno or 0, "trouble")
            raise self.fault(problem, error.strerror or "", hint) from None
        except UnsafePlace as error:
            raise self.fault("place", error.reason, error.hint) from None

    def _create(self) -> None:
        """Create the file under another name, and rename it once it is complete.

        It must never have two names, as it would with a hard link: a process killed in between
        would leave a file that is refused. A rename replaces an existing file, so it needs a lock.
        """
        new = self._new
        with self._locked():
            try:
                _remove(new)  # left by a process that was killed
                if not os.path.lexists(self._path):
                    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                    self._fill(new)
                    os.rename(new, self._path)
                    _sync(self._folder)
            finally:
                _remove(new)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock for creating this ledger, against all threads and processes."""
        end = time.monotonic() + self.timeout
        while (descriptor := self._try_lock()) is None:
            if time.monotonic() >= end:
                raise self.fault("locked")
            time.sleep(0.01)
        try:
            yield
        finally:
            os.unlink(self._lock)
            os.close(descriptor)

    def _try_lock(self) -> int | None:
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self._lock, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed this file, and another may be in its place.
            if os.path.samestat(os.fstat(descriptor), os.lstat(self._lock)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _fill(self, path: str) -> None:
        connection = self._open(path)
        try:
            connection.execute("PRAGMA page_size = 1024")  # a step changes few bytes of each page
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN")
            create_tables(connection, self.schema)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def connect(self) -> StoreConnection:
        """Open the file; raises LedgerError if it is missing or others could replace it."""
        with self._os_errors():
            self._check()
        return self._open(self._path)

    def _open(self, path: str) -> StoreConnection:
        try:
            driver = sqlite3.connect(
                # Every byte as %XX: a "?" or "#" in the path ends nothing.
                f"file:%{os.fsencode(path).hex('%')}?mode=rw",
                uri=True,
                timeout=self.timeout,
                isolation_level=None,
                check_same_thread=False,  # Ledger gives it to one thread at a time
            )
        except Exception as error:  # noqa: BLE001 - see StoreConnection
            raise self.translated(error) from None
        connection = StoreConnection(driver, self)
        try:
            # A damaged row may claim any size: SQLite then refuses it before it allocates memory.
            driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def flush(self, connection: StoreConnection, head: Head) -> None:
        """Return at once: COMMIT has synced the file."""

    def translated(self, error: Exception, *, committing: bool = False) -> LedgerError:  # noqa: ARG002
        """Return the LedgerError for SQLite's error code."""
        # Without a code, Python could not read a value.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        # The message of a failed constraint may quote what is stored.
        detail = "" if code & 0xFF == sqlite3.SQLITE_CONSTRAINT else message_of(error)
        general = _SQLITE_PROBLEMS.get(code & 0xFF, "trouble")
        return self.fault(_SQLITE_PROBLEMS.get(code, general), detail)


def recent_names(path: str, most: int, timeout: float) -> list[str]:
    """Return the names of the newest sessions in a file, ``most`` at most.

    No statement writes, and a file of an older version is not upgraded. Raises LedgerError if it
    cannot be used, waiting for other processes no longer than ``timeout`` seconds.
    """
    connection = Sqlite(path, timeout).connect()
    try:
        connection.execute("PRAGMA query_only = ON")
        select = (
            "SELECT name FROM sev_attest_session ORDER BY created DESC, session_id DESC LIMIT ?"
        )
        return [str(name) for (name,) in connection.execute(select, (most,)).fetchall()]
    finally:
        connection.close()


def _remove(database: str) -> None:
    for path in with_logs(database):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
