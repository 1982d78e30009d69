"""Where a ledger lives: a SQLite file, or a PostgreSQL database. All in which the two differ.

A store opens connections, says how a transaction begins that is alone among all processes, and
turns its driver's errors into words. What is in the transactions is the same for both.
"""

import errno
import os
import re
import sqlite3
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import quote_from_bytes  # Path.as_uri() imports an HTTP client (Python 3.14)

from sev_attest.errors import Unsupported
from sev_attest.owner.ledger.errors import (
    PROBLEMS,
    UNKNOWN_OUTCOME,
    LedgerError,
    first_line,
)
from sev_attest.owner.ledger.place import (
    UnsafePlace,
    check_file,
    check_folders,
    default_place,
    with_logs,
)
from sev_attest.owner.ledger.story import EMPTY, State

if TYPE_CHECKING:
    import psycopg

VERSION = 1

_STATES = ", ".join(f"'{state}'" for state in State)
_TABLES = (
    """CREATE TABLE sev_attest_ledger (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL,
        events BIGINT NOT NULL,
        hash TEXT NOT NULL
    )""",
    f"""CREATE TABLE sev_attest_session (
        session_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ({_STATES})),
        created TEXT NOT NULL,
        changed TEXT NOT NULL,
        expires TEXT,
        measurement TEXT,
        note TEXT NOT NULL
    )""",
    """CREATE TABLE sev_attest_event (
        seq BIGINT PRIMARY KEY,
        time TEXT NOT NULL,
        session_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        previous TEXT NOT NULL,
        hash TEXT NOT NULL
    )""",
    # No state is entered twice, so that a row that was set back is not released again.
    f"""CREATE UNIQUE INDEX sev_attest_once ON sev_attest_event (session_id, kind)
        WHERE kind IN ({_STATES})""",
)
TABLES = frozenset({"sev_attest_ledger", "sev_attest_session", "sev_attest_event"})


LONGEST = 1 << 20
"""Bytes of the longest value that is read; what the ledger writes is a fraction of that."""
_PLAIN = (int, str, bytes, float, bool, type(None))


class Driver(Protocol):
    """A connection that begins no transaction by itself; ``?`` stands for a value."""

    def execute(self, sql: str, values: tuple[Any, ...] = ..., /) -> Any:
        """Run one statement, and return a cursor."""

    def close(self) -> None:
        """Close it; what was not committed is undone."""


class Rows:
    """What came of a statement: ``rowcount`` rows were changed, or the rows it found."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rowcount: int, rows: list[Any]) -> None:
        """Take what a cursor gave."""
        self.rowcount = rowcount
        self._rows = rows

    def fetchone(self) -> Any:
        """Return the first row, or None."""
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        return self._rows


class Connection:
    """A driver's connection. Whatever goes wrong in the driver comes out as LedgerError.

    A damaged database makes drivers raise what they do not document: not only their own errors are
    translated.
    """

    __slots__ = ("_driver", "_store")

    def __init__(self, driver: Driver, store: "Store") -> None:
        """Guard a connection of ``store``."""
        self._driver = driver
        self._store = store

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Rows:
        """Run one statement to its end; a name in braces is one of the store's."""
        store = self._store
        try:
            cursor = self._driver.execute(sql.format_map(store.names), values)
            rows = cursor.fetchall() if cursor.description else []
            found = Rows(cursor.rowcount, rows)
        except Exception as error:  # noqa: BLE001 - see above
            raise store.trouble(error, ending=sql == "COMMIT") from None
        if not all(map(_plain, rows)):
            raise store.fault("damaged", "a value in it is of another type, or too long")
        return found

    def close(self) -> None:
        """Close it; what was not committed is undone."""
        with suppress(Exception):  # it is given up either way
            self._driver.close()


def _plain(row: tuple[object, ...]) -> bool:
    return all(
        type(value) in _PLAIN and not (isinstance(value, str | bytes) and len(value) > LONGEST)
        for value in row
    )


class Store(ABC):
    """One database."""

    writing: str
    """Begins a transaction that no other runs beside."""
    reading: str
    """Begins a transaction that sees one moment."""
    tables: str
    """Lists the tables that are there."""
    names: ClassVar[Mapping[str, str]] = {
        "sessions": "sev_attest_session",
        "events": "sev_attest_event",
        "head": "sev_attest_ledger",
        "detail": "detail",
        "time": "time",
    }
    """What stands for the names in braces, in statements that read."""
    hints: ClassVar[Mapping[str, str]] = {}
    """What to do about a problem, where that is another thing than elsewhere."""

    def __init__(self, place: str, given: str, timeout: float) -> None:
        """Keep what messages call it, what --ledger calls it, and how long to wait (seconds)."""
        self.place = place
        self.timeout = timeout
        self.option = _option(given)

    @abstractmethod
    def prepare(self, *, create: bool) -> None:
        """See that the database is there, and make it if asked to; raises LedgerError."""

    @abstractmethod
    def connect(self) -> Connection:
        """Open a connection; raises LedgerError."""

    @abstractmethod
    def trouble(self, error: Exception, *, ending: bool = False) -> LedgerError:
        """Translate an error; ``ending`` tells that it came of a commit."""

    def fault(self, problem: str, words: str = "", hint: str = "") -> LedgerError:
        """Make the error for a known problem, with the system's own words if it has any."""
        says, do = PROBLEMS[problem]
        words = first_line(words)
        message = f"ledger {self.place}: {says}" + (f" ({words})" if words else "")
        hint = hint or self.hints.get(problem, do)
        return LedgerError(
            message, check=f"ledger.{problem}", hint=hint.replace("{ledger}", self.option)
        )


def _option(given: str) -> str:
    """Name the ledger in a command that is to be run; the default one needs no name."""
    with suppress(Unsupported):
        if given == str(default_place()):
            return ""
    from shlex import quote

    return f" --ledger {quote(given)}"


def store_at(place: str | os.PathLike[str], timeout: float) -> Store:
    """Choose the store: a path is a SQLite file, ``postgresql://...`` a database there."""
    text = os.fspath(place)
    if re.match("postgres(ql)?:", text):
        return Postgres(text, timeout)
    if "://" in text or "\0" in text:
        raise Unsupported(
            "a ledger is a file or a postgresql:// database, and this is neither",
            check="ledger.place",
        )
    if not hasattr(os, "geteuid"):
        raise Unsupported(
            "a ledger file needs a POSIX system, to see that nobody else can write it",
            check="ledger.platform",
            hint="use a postgresql:// ledger, or --ledger none, which lets a session be used twice",
        )
    return Sqlite(Path(text), timeout)


_SQLITE_PROBLEMS = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_IOERR_SHMSIZE: "full",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_CONSTRAINT: "damaged",
    sqlite3.SQLITE_TOOBIG: "damaged",  # the texts that the ledger writes are bounded
    sqlite3.SQLITE_ERROR: "damaged",  # no such table or column: the statements are fixed
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
_MAKING = "make its folder writable, or keep it elsewhere: --ledger, or XDG_STATE_HOME"
_KEPT = ("UPDATE ON sev_attest_event", "DELETE ON sev_attest_event", "DELETE ON sev_attest_session")


class Sqlite(Store):
    """A file of its owner alone (0600). Write-ahead log, and synced at every commit."""

    writing = "BEGIN IMMEDIATE"
    reading = "BEGIN"
    tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    # There, an INTEGER that is the key is the row's own number: one tree less to write.
    schema = (
        *(table.replace("BIGINT", "INTEGER") for table in _TABLES),
        *(
            f"""CREATE TRIGGER sev_attest_keeps_{number} BEFORE {what}
            BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END"""
            for number, what in enumerate(_KEPT)
        ),
    )

    def __init__(self, path: Path, timeout: float) -> None:
        """Name the file; ``timeout`` is how long to wait for other processes, in seconds."""
        super().__init__(str(path), str(path), timeout)
        self.path = path.absolute()
        self._lock = self.path.with_name(f".{self.path.name}.lock")

    def prepare(self, *, create: bool) -> None:
        """Make the file if need be. Nobody but its owner may be able to change or replace it."""
        with self._own_errors(_MAKING if create else ""):
            missing = not os.path.lexists(self.path)
            if missing:
                check_folders(self.path.parent, make=create)
            if create and (missing or os.path.lexists(self._lock)):
                self._make()
            self._check()
            if not stat.S_ISREG(self.path.lstat().st_mode):
                raise self.fault("place", "it is no file")

    def _check(self) -> None:
        check_file(self.path)
        check_folders(self.path.parent, make=False)

    @contextmanager
    def _own_errors(self, hint: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self.fault("missing") from None
        except OSError as error:
            problem = _ERRNO_PROBLEMS.get(error.errno or 0, "trouble")
            raise self.fault(problem, error.strerror or "", hint) from None
        except UnsafePlace as error:
            raise self.fault("place", error.words, error.do) from None

    def _make(self) -> None:
        """Lay it out beside its place, so that it appears whole, or somebody else's stays.

        It never has two names, not even for a moment: a death then would leave a file that is
        refused. A rename replaces what is there, so it takes a lock.
        """
        made = self.path.with_name(f".{self.path.name}.new")
        with self._locked():
            try:
                _remove(made)  # of one who was killed
                if not os.path.lexists(self.path):
                    made.touch(mode=0o600, exist_ok=False)
                    self._fill(made)
                    made.rename(self.path)
                    _sync(self.path.parent)
            finally:
                _remove(made)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one, of all threads and processes, that makes this ledger."""
        end = time.monotonic() + self.timeout
        while (descriptor := self._try_lock()) is None:
            if time.monotonic() >= end:
                raise self.fault("locked")
            time.sleep(0.01)
        try:
            yield
        finally:
            self._lock.unlink()
            os.close(descriptor)

    def _try_lock(self) -> int | None:
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self._lock, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had the lock before has removed this file, or another one stands there by now.
            if os.path.samestat(os.fstat(descriptor), self._lock.lstat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _fill(self, path: Path) -> None:
        connection = self._open(path)
        try:
            connection.execute("PRAGMA page_size = 1024")  # a step writes few bytes to each
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN")
            _lay_out(connection, self.schema)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def connect(self) -> Connection:
        """Open the file, which must be there, and still be nobody else's."""
        with self._own_errors():
            self._check()
        return self._open(self.path)

    def _open(self, path: Path) -> Connection:
        try:
            driver = sqlite3.connect(
                f"file:{quote_from_bytes(os.fsencode(path))}?mode=rw",
                uri=True,
                timeout=self.timeout,
                isolation_level=None,
                check_same_thread=False,  # one thread at a time has it
            )
        except Exception as error:  # noqa: BLE001 - see Connection
            raise self.trouble(error) from None
        connection = Connection(driver, self)
        try:
            # A damaged row may claim to be of any size: SQLite refuses it before it makes room.
            driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def trouble(self, error: Exception, *, ending: bool = False) -> LedgerError:  # noqa: ARG002
        """Translate SQLite's error by its code."""
        # Without a code, it is Python that could not read what is there.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        words = "" if code & 0xFF == sqlite3.SQLITE_CONSTRAINT else _words(error)
        general = _SQLITE_PROBLEMS.get(code & 0xFF, "trouble")
        return self.fault(_SQLITE_PROBLEMS.get(code, general), words)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _remove(database: Path) -> None:
    for path in with_logs(database):
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lay_out(connection: Connection, schema: Iterable[str]) -> None:
    for statement in schema:
        connection.execute(statement)
    begin = "INSERT INTO sev_attest_ledger (one, version, events, hash) VALUES (1, ?, ?, ?)"
    connection.execute(begin, (VERSION, EMPTY.count, EMPTY.hash))


_URL = re.compile(
    r"postgres(?:ql)?://(?:[^:@/?#]+@)?(?P<hosts>[^@/?#]*)(?:/(?P<name>[^:@/?#]*))?(?:\?[^@#]*)?"
)
_SQLSTATE_PROBLEMS = {
    "55P03": "locked",  # lock_not_available
    "40P01": "locked",  # deadlock_detected
    "25006": "read-only",  # read_only_sql_transaction
    "53100": "full",  # disk_full
    "42501": "permission",  # insufficient_privilege
    "23505": "damaged",  # unique_violation
    "23514": "damaged",  # check_violation
    "42P01": "damaged",  # undefined_table
    "42703": "damaged",  # undefined_column
    "42883": "damaged",  # undefined_function: a column is of another type
    "42804": "damaged",  # datatype_mismatch
    "28000": "permission",  # invalid_authorization_specification
    "28P01": "permission",  # invalid_password
    "25P03": "connection",  # idle_in_transaction_session_timeout
    "57P01": "connection",  # admin_shutdown
    "57P02": "connection",  # crash_shutdown
    "57P03": "connection",  # cannot_connect_now
    "XX001": "damaged",  # data_corrupted
    "XX002": "damaged",  # index_corrupted
}


def _bounded(table: str, keys: str, *texts: str) -> str:
    cut = ", ".join(f"substr({text}, 1, {LONGEST + 1}) AS {text}" for text in texts)
    return f"(SELECT {keys}, {cut} FROM {table})"  # noqa: S608 - all of it stands in this module


class Postgres(Store):
    """A database on a server, for services on several machines."""

    # Nothing but readers goes beside this lock; what follows it sees all that was committed before.
    writing = (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
        " LOCK TABLE sev_attest_ledger IN EXCLUSIVE MODE"
    )
    reading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    tables = (
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)"
        " AND relname LIKE 'sev_attest_%'"
    )
    schema = (
        *_TABLES,
        """CREATE FUNCTION sev_attest_keeps() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''the ledger only grows''; END'""",
        """CREATE TRIGGER sev_attest_keeps BEFORE UPDATE OR DELETE OR TRUNCATE
        ON sev_attest_event EXECUTE FUNCTION sev_attest_keeps()""",
        """CREATE TRIGGER sev_attest_keeps BEFORE DELETE OR TRUNCATE
        ON sev_attest_session EXECUTE FUNCTION sev_attest_keeps()""",
    )
    # A value may be of up to 1 GiB there: what is too long for a ledger is not fetched.
    names: ClassVar[Mapping[str, str]] = {
        "sessions": _bounded(
            "sev_attest_session", "session_id",
            "name", "state", "created", "changed", "expires", "measurement", "note",
        ),
        "events": _bounded(
            "sev_attest_event", "seq, session_id", "time", "kind", "detail", "previous", "hash"
        ),
        "head": _bounded("sev_attest_ledger", "events", "hash"),
        "detail": f"substr(detail, 1, {LONGEST + 1})",
        "time": f"substr(time, 1, {LONGEST + 1})",
    }  # fmt: skip
    hints: ClassVar[Mapping[str, str]] = {
        "read-only": "this is a standby, or its owner made it read-only: name the primary server",
        "permission": "its role needs SELECT, INSERT and UPDATE on the tables sev_attest_*, and, "
        "to make them, CREATE on the schema: ask the database's owner",
    }
    _settings = """SELECT
        set_config('lock_timeout', ?, false),
        set_config('idle_in_transaction_session_timeout', '10s', false),
        set_config('synchronous_commit', 'on', false)"""
    # A machine that vanishes must not hold the lock for hours; a release must survive power loss.

    def __init__(self, url: str, timeout: float) -> None:
        """Take a URL without a password; raises Unsupported for one with it, or without psycopg."""
        parts = _URL.fullmatch(url)
        options = _options(url) if parts else None
        if parts is None or options is None or any("password" in key for key in options):
            raise Unsupported(
                "the ledger's URL is not postgresql://[USER@]HOST[:PORT]/DATABASE, or has a "
                "password in it, which every user of this machine could read",
                check="ledger.url",
                hint="keep passwords in ~/.pgpass (PGPASSFILE), or name a service=...",
            )
        host = parts["hosts"] or options.get("host") or "the local socket"
        place = f"PostgreSQL {host}/{parts['name'] or options.get('dbname', '')}"
        super().__init__(place, url, timeout)
        self._url = url
        try:
            import psycopg
        except ImportError:
            raise Unsupported(
                "a ledger on PostgreSQL needs psycopg, which is not installed",
                check="ledger.postgres",
                hint="pip install 'sev-attest[postgres]'",
            ) from None
        self._driver = psycopg

    def prepare(self, *, create: bool) -> None:
        """Make the tables if need be."""
        connection = self.connect()
        try:
            # Two that make tables at once would both fail.
            connection.execute("BEGIN; SELECT pg_advisory_xact_lock(7380867641)")
            if not connection.execute(self.tables).fetchall():
                if not create:
                    raise self.fault("missing")
                _lay_out(connection, self.schema)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def connect(self) -> Connection:
        """Connect to the server; raises Unsupported for a URL that it cannot be reached by."""
        failures = (self._driver.OperationalError, self._driver.InterfaceError)
        try:
            # It commits by itself what stands in no transaction, that is, nothing.
            driver = self._driver.connect(self._url, autocommit=True, connect_timeout=10)
        except failures as error:
            raise self.trouble(error) from None
        except Exception as error:  # noqa: BLE001 - see Connection
            raise Unsupported(
                f"the ledger's URL cannot be used: {first_line(_words(error))}", check="ledger.url"
            ) from None
        connection = Connection(_PostgresConnection(driver), self)
        try:
            connection.execute(self._settings, (f"{int(self.timeout * 1000)}ms",))
        except BaseException:
            connection.close()
            raise
        return connection

    def trouble(self, error: Exception, *, ending: bool = False) -> LedgerError:
        """Translate PostgreSQL's error by its SQLSTATE."""
        driver = self._driver
        if not isinstance(error, driver.Error):
            return self.fault("damaged", _words(error))
        problem = _SQLSTATE_PROBLEMS.get(error.sqlstate or "", "trouble")
        words = error.diag.message_primary or ""
        if error.sqlstate is None:
            broken = isinstance(error, driver.OperationalError | driver.InterfaceError)
            problem, words = "connection" if broken else "damaged", _words(error)
        unknown = ending and problem == "connection"
        return self.fault(problem, words, UNKNOWN_OUTCOME if unknown else "")


def _options(url: str) -> dict[str, str] | None:
    """Read what stands behind the ``?`` of a URL; None if it is none."""
    from urllib.parse import parse_qsl, urlsplit

    try:
        return dict(parse_qsl(urlsplit(url).query))
    except ValueError:  # [ without ]
        return None


class _PostgresConnection:
    """Takes ``?`` for a value, as SQLite does."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Any:
        # Without values, several statements may stand together.
        return self._connection.execute(sql.replace("?", "%s").encode("ascii"), values or None)

    def close(self) -> None:
        self._connection.close()
