"""Where a ledger lives: a SQLite file, or a PostgreSQL database. All in which the two differ.

A store opens connections, says how a transaction begins that is alone among all processes, and
turns its driver's errors into words. What is in the transactions is the same for both.
"""

import errno
import os
import re
import sqlite3
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote_from_bytes  # Path.as_uri() imports an HTTP client (Python 3.14)

from sev_attest.errors import SevAttestError, Unsupported
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


class LedgerTrouble(SevAttestError):
    """The ledger cannot be used: missing, locked, full, read-only, damaged, not reached."""

    exit_code = 6


_PROBLEMS: Mapping[str, tuple[str, str]] = {
    "missing": ("there is no ledger", "`sev-attest session` begins one"),
    "locked": ("another process holds it locked", "try again; nothing was released"),
    "read-only": ("it can only be read", "make the file and its folder writable for its owner"),
    "full": ("the disk is full", "make room and try again; nothing was released"),
    "permission": ("it cannot be opened", "run this as the ledger's owner"),
    "place": ("this cannot be the ledger", ""),
    "damaged": (
        "this is no ledger, or it is damaged",
        "keep it as evidence; restore a copy, and compare it with a head noted elsewhere",
    ),
    "schema": ("this is a ledger of a newer sev-attest", "use that one"),
    "connection": (
        "the connection failed",
        "what was under way may have been done: look with `sev-attest ledger show`",
    ),
    "trouble": ("reading or writing it failed", ""),
}


def trouble(place: str, problem: str, words: str = "", hint: str = "") -> LedgerTrouble:
    """Make the error for one of the known problems, with the system's own words if it has any."""
    says, do = _PROBLEMS[problem]
    message = f"ledger {place}: {says}" + (f" ({words})" if words else "")
    return LedgerTrouble(message, check=f"ledger.{problem}", hint=hint or do)


class Cursor(Protocol):
    """What comes of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def fetchone(self) -> Any:
        """Give the next row."""

    def fetchall(self) -> list[Any]:
        """Give all rows."""


class Connection(Protocol):
    """A connection that begins no transaction by itself; ``?`` stands for a value."""

    def execute(self, sql: str, values: tuple[Any, ...] = ..., /) -> Cursor:
        """Run one statement."""

    def close(self) -> None:
        """Close it; what was not committed is undone."""


class Store(Protocol):
    """One database."""

    place: str
    """What messages call it."""
    writing: str
    """Begins a transaction that no other runs beside."""
    reading: str
    """Begins a transaction that sees one moment."""
    errors: type[Exception]
    """What the driver raises."""
    tables: str
    """Lists the tables that are there."""

    def prepare(self, *, create: bool) -> None:
        """See that the database is there, and make it if asked to; raises LedgerTrouble."""

    def connect(self) -> Connection:
        """Open a connection."""

    def trouble(self, error: Any) -> LedgerTrouble:
        """Translate an error of the driver."""


def store_at(place: str | os.PathLike[str], timeout: float) -> Store:
    """Choose the store: a path is a SQLite file, ``postgresql://...`` a database there."""
    text = os.fspath(place)
    if re.match("postgres(ql)?:", text):
        return Postgres(text, timeout)
    if "://" in text:
        raise Unsupported(
            "a ledger is a file or a postgresql:// database, and this is another URL",
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
_KEPT = ("UPDATE ON sev_attest_event", "DELETE ON sev_attest_event", "DELETE ON sev_attest_session")


class Sqlite:
    """A file of its owner alone (0600). Write-ahead log, and synced at every commit."""

    errors: type[Exception] = sqlite3.Error
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
        self.path = path.absolute()
        self.place = str(path)
        self.timeout = timeout

    def prepare(self, *, create: bool) -> None:
        """Make the file if need be. It must be its owner's, and no symbolic link."""
        try:
            if create and not os.path.lexists(self.path):
                self._make()
            found, folder = self.path.lstat(), self.path.parent.stat()
        except FileNotFoundError:
            raise trouble(self.place, "missing") from None
        except OSError as error:
            problem = _ERRNO_PROBLEMS.get(error.errno or 0, "trouble")
            raise trouble(self.place, problem, error.strerror or "") from None
        # Whoever can write here could bring a ledger in which nothing was ever released.
        for wrong, words, do in (
            (stat.S_ISLNK(found.st_mode), "it is a symbolic link", "name the file itself"),
            (not stat.S_ISREG(found.st_mode), "it is no file", ""),
            (found.st_uid != os.geteuid(), "it belongs to another user", ""),
            (found.st_mode & 0o022, "others can write to it", f"chmod 600 {self.place}"),
            (folder.st_mode & 0o002, "anybody can write in its folder", "keep it elsewhere"),
        ):
            if wrong:
                raise trouble(self.place, "place", words, do)

    def _make(self) -> None:
        """Lay it out beside its place, so that it appears whole, or somebody else's stays."""
        folder = self.path.parent
        for parent in (*reversed(folder.parents), folder):
            if not parent.exists():
                parent.mkdir(mode=0o700, exist_ok=True)
        import shutil
        import tempfile

        workshop = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=folder))
        try:
            made = workshop / "ledger"
            made.touch(mode=0o600)
            self._fill(made)
            os.link(made, self.path)
            _sync(folder)
        except FileExistsError:
            pass  # another process was faster
        finally:
            shutil.rmtree(workshop)

    def _fill(self, path: Path) -> None:
        try:
            connection = self._open(path)
            try:
                connection.execute("PRAGMA page_size = 1024")  # a step writes few bytes to each
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN")
                _lay_out(connection, self.schema)
                connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self.trouble(error) from None

    def connect(self) -> sqlite3.Connection:
        """Open the file, which must be there."""
        return self._open(self.path)

    def _open(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote_from_bytes(os.fsencode(path))}?mode=rw",
            uri=True,
            timeout=self.timeout,
            isolation_level=None,
            check_same_thread=False,  # one thread at a time has it
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def trouble(self, error: sqlite3.Error) -> LedgerTrouble:
        """Translate SQLite's error by its code."""
        # Without a code, it is Python that could not read what is there.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        words = "" if code & 0xFF == sqlite3.SQLITE_CONSTRAINT else str(error)
        general = _SQLITE_PROBLEMS.get(code & 0xFF, "trouble")
        return trouble(self.place, _SQLITE_PROBLEMS.get(code, general), words)


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
    "25P03": "connection",  # idle_in_transaction_session_timeout
    "57P01": "connection",  # admin_shutdown
    "57P02": "connection",  # crash_shutdown
    "57P03": "connection",  # cannot_connect_now
    "XX001": "damaged",  # data_corrupted
    "XX002": "damaged",  # index_corrupted
}


class Postgres:
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
    _settings = """SELECT
        set_config('lock_timeout', ?, false),
        set_config('idle_in_transaction_session_timeout', '10s', false),
        set_config('synchronous_commit', 'on', false)"""
    # A machine that vanishes must not hold the lock for hours; a release must survive power loss.

    def __init__(self, url: str, timeout: float) -> None:
        """Take a URL without a password; raises Unsupported for one with it, or without psycopg."""
        from urllib.parse import parse_qsl, urlsplit

        parts = _URL.fullmatch(url)
        options = dict(parse_qsl(urlsplit(url).query)) if parts else {}
        if parts is None or any("password" in key for key in options):
            raise Unsupported(
                "the ledger's URL is not postgresql://[USER@]HOST[:PORT]/DATABASE, or has a "
                "password in it, which every user of this machine could read",
                check="ledger.url",
                hint="keep passwords in ~/.pgpass (PGPASSFILE), or name a service=...",
            )
        host = parts["hosts"] or options.get("host") or "the local socket"
        self.place = f"PostgreSQL {host}/{parts['name'] or options.get('dbname', '')}"
        self.timeout = timeout
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
        self.errors: type[Exception] = psycopg.Error

    def prepare(self, *, create: bool) -> None:
        """Make the tables if need be."""
        try:
            connection = self.connect()
            try:
                # Two that make tables at once would both fail.
                connection.execute("BEGIN; SELECT pg_advisory_xact_lock(7380867641)")
                if not connection.execute(self.tables).fetchall():
                    if not create:
                        raise trouble(self.place, "missing")
                    _lay_out(connection, self.schema)
                connection.execute("COMMIT")
            finally:
                connection.close()
        except self._driver.Error as error:
            raise self.trouble(error) from None

    def connect(self) -> Connection:
        """Connect to the server."""
        # It commits by itself what stands in no transaction, that is, nothing.
        connection = _PostgresConnection(
            self._driver.connect(self._url, autocommit=True, connect_timeout=10)
        )
        try:
            connection.execute(self._settings, (f"{int(self.timeout * 1000)}ms",))
        except BaseException:
            connection.close()
            raise
        return connection

    def trouble(self, error: "psycopg.Error") -> LedgerTrouble:
        """Translate PostgreSQL's error by its SQLSTATE."""
        if error.sqlstate is None:
            return trouble(self.place, "connection", str(error).partition("\n")[0])
        problem = _SQLSTATE_PROBLEMS.get(error.sqlstate, "trouble")
        return trouble(self.place, problem, error.diag.message_primary or "")


class _PostgresConnection:
    """Takes ``?`` for a value, as SQLite does."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Cursor:
        # Without values, several statements may stand together.
        return self._connection.execute(sql.replace("?", "%s").encode("ascii"), values or None)

    def close(self) -> None:
        self._connection.close()
