"""A ledger in a PostgreSQL database."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from sev_attest.errors import Unsupported
from sev_attest.owner.ledger.errors import UNKNOWN_OUTCOME, LedgerError, first_line, message_of
from sev_attest.owner.ledger.schema import TABLES, create_tables
from sev_attest.owner.ledger.store import MAX_VALUE, Store, StoreConnection, names_for
from sev_attest.owner.ledger.story import Head

if TYPE_CHECKING:
    import psycopg

_URL = re.compile(
    r"postgres(?:ql)?://(?:[^:@/?#]+@)?(?P<hosts>[^@/?#]*)(?:/(?P<name>[^:@/?#]*))?(?:\?[^@#]*)?"
)
_HERE = re.compile(r"(localhost|127\.[0-9.]+|\[?::1\]?)?(:[0-9]*)?", re.IGNORECASE)
"""This machine, or the local socket; each may have a port."""
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
    "57P05": "connection",  # idle_session_timeout
    "08P01": "connection",  # protocol_violation: what pgbouncer says of a server out of reach
    "53300": "connection",  # too_many_connections
    "0A000": "read-only",  # feature_not_supported: to write on a standby
    "XX001": "damaged",  # data_corrupted
    "XX002": "damaged",  # index_corrupted
}


# - The lock admits readers only; statements after it see everything committed before it.
# - A machine that vanishes must not hold the lock for hours.
# - Nothing waits for the disk while the lock is held: that is what ``flush`` is for.
# - Each transaction has its own settings: a pooler gives the next one another connection.
_WRITING = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    " SET LOCAL lock_timeout = '{}ms';"
    " SET LOCAL idle_in_transaction_session_timeout = '10s';"
    " SET LOCAL synchronous_commit = off;"
    " LOCK TABLE sev_attest_ledger IN EXCLUSIVE MODE"
)
# A transaction of its own, whose commit waits until everything before it is in the write-ahead log
# on disk, here and on a synchronous standby. It finds the event only if the server has not lost it
# meanwhile. A wait that is canceled is a warning, which must reach us. Without parameters it is one
# message, and no answer comes before the commit.
_FLUSH = (
    "SELECT hash, set_config('synchronous_commit', 'on', true),"
    " set_config('client_min_messages', 'warning', true),"
    " pg_logical_emit_message(true, 'sev-attest', '') FROM sev_attest_event WHERE seq = {}"
)


_KEPT = ("sev_attest_event", "sev_attest_session")


class Postgres(Store):
    """A database on a server, for services on several machines."""

    # A reader holds no lock that others wait for, so it may take its time between two pages.
    reading = (
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
        " SET LOCAL idle_in_transaction_session_timeout = '10min'"
    )
    tables = (
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)"
        " AND relname LIKE 'sev_attest_%'"
    )
    schema: tuple[str, ...] = (
        *TABLES,
        """CREATE FUNCTION sev_attest_keeps() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''the ledger only grows''; END'""",
        """CREATE TRIGGER sev_attest_keeps BEFORE UPDATE OR DELETE OR TRUNCATE
        ON sev_attest_event EXECUTE FUNCTION sev_attest_keeps()""",
        """CREATE TRIGGER sev_attest_keeps BEFORE DELETE OR TRUNCATE
        ON sev_attest_session EXECUTE FUNCTION sev_attest_keeps()""",
    )
    owned = (
        "SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class WHERE relkind = 'r'"
        " AND pg_table_is_visible(oid) AND relname LIKE 'sev_attest_%'"
    )
    unguard: tuple[str, ...] = tuple(
        f"ALTER TABLE {table} DISABLE TRIGGER sev_attest_keeps" for table in _KEPT
    )
    guard: tuple[str, ...] = tuple(
        f"ALTER TABLE {table} ENABLE TRIGGER sev_attest_keeps" for table in _KEPT
    )
    # PostgreSQL stores values of up to 1 GiB: only what a ledger may hold is fetched.
    names: ClassVar[Mapping[str, str]] = names_for(
        f"substr({{}}, 1, {MAX_VALUE + 1})",
        "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"+00:00\"')",
    )
    hints: ClassVar[Mapping[str, str]] = {
        "read-only": "this is a standby, or its owner made it read-only: use the primary server",
        "permission": "its role needs SELECT, INSERT and UPDATE on the tables sev_attest_*, and, "
        "to make them, CREATE on the schema: ask the database's owner",
        "connection": "nothing was released; check that the server answers, and the role, database "
        "and service name in the URL",
    }

    def __init__(self, url: str, timeout: float) -> None:
        """Take the URL, and how long to wait for other processes, in seconds.

        Raises Unsupported for a URL that is malformed, has a password, or names a server elsewhere
        without sslmode, and without psycopg.
        """
        parts = _URL.fullmatch(url)
        options = _options(url) if parts else None
        if parts is None or options is None or any("password" in key for key in options):
            raise Unsupported(
                "the ledger's URL is not postgresql://[USER@]HOST[:PORT]/DATABASE, or has a "
                "password in it, which every user of this machine could read",
                check="ledger.url",
                hint="keep passwords in ~/.pgpass (PGPASSFILE), or use service=...",
            )
        _require_sslmode(parts["hosts"], options)
        host = parts["hosts"] or options.get("host") or "the local socket"
        place = f"PostgreSQL {host}/{parts['name'] or options.get('dbname', '')}"
        super().__init__(place, timeout)
        self.writing: str = _WRITING.format(int(timeout * 1000))
        self._url = url
        try:
            import psycopg
        except ImportError:
            raise Unsupported(
                "a ledger on PostgreSQL needs psycopg, which is not installed",
                check="ledger.postgres",
                hint="`pip install '.[postgres]'` in sev-attest's folder installs it; "
                "with Debian's package of sev-attest, `apt-get install python3-psycopg`",
            ) from None
        self._driver = psycopg

    def prepare(self, *, create: bool) -> None:
        """Create the tables if they are missing."""
        connection = self.connect()
        try:
            # Two processes that create tables at once would both fail.
            connection.execute("BEGIN; SELECT pg_advisory_xact_lock(7380867641)")
            if not connection.execute(self.tables).fetchall():
                if not create:
                    raise self.fault("missing")
                create_tables(connection, self.schema)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def connect(self) -> StoreConnection:
        """Connect to the server; raises LedgerError, and Unsupported for an unusable URL."""
        failures = (self._driver.OperationalError, self._driver.InterfaceError)
        try:
            # Every statement is in a transaction that is begun explicitly.
            # Nothing is prepared on the server: behind a pooler, the next one may be another.
            driver = self._driver.connect(
                self._url, autocommit=True, connect_timeout=10, prepare_threshold=None
            )
        except failures as error:
            raise self.translated(error) from None
        except Exception as error:  # noqa: BLE001 - see StoreConnection
            raise Unsupported(
                f"the ledger's URL cannot be used: {first_line(message_of(error))}",
                check="ledger.url",
            ) from None
        return StoreConnection(_PostgresDriver(driver), self)

    def flush(self, connection: StoreConnection, head: Head) -> None:
        """Return once no crash can undo what was committed up to ``head``; raises LedgerError."""
        try:
            row = connection.execute(_FLUSH.format(head.count)).fetchone()
            if row is None or row[0] != head.hash:
                raise self.fault("lost", "the last step")
        except LedgerError as error:
            error.hint = UNKNOWN_OUTCOME
            raise

    def translated(self, error: Exception, *, committing: bool = False) -> LedgerError:
        """Return the LedgerError for PostgreSQL's SQLSTATE."""
        driver = self._driver
        if not isinstance(error, driver.Error):
            return self.fault("damaged", message_of(error))
        problem = _SQLSTATE_PROBLEMS.get(error.sqlstate or "", "trouble")
        detail = error.diag.message_primary or ""
        if error.sqlstate is None:
            broken = isinstance(error, driver.OperationalError | driver.InterfaceError)
            problem, detail = "connection" if broken else "damaged", message_of(error)
        unknown = committing and problem == "connection"
        return self.fault(problem, detail, UNKNOWN_OUTCOME if unknown else "")


def _options(url: str) -> dict[str, str] | None:
    """Return the query parameters of a URL, or None if it is malformed."""
    from urllib.parse import parse_qsl, urlsplit

    try:
        return dict(parse_qsl(urlsplit(url).query))
    except ValueError:  # [ without ]
        return None


def _require_sslmode(hosts: str, options: Mapping[str, str]) -> None:
    """Raise Unsupported for a server elsewhere, if nothing says how it proves who it is.

    libpq's default, sslmode=prefer, does not check the server: an impostor could claim that nothing
    was released. A service of pg_service.conf, or the environment, may say it in place of the URL.
    """
    from urllib.parse import unquote

    # libpq takes that of the query, if both are there.
    named = [unquote(hosts), *(options.get(name, "") for name in ("host", "hostaddr"))]
    if not any(named):
        named = [os.environ.get(name, "") for name in ("PGHOST", "PGHOSTADDR")]
    elsewhere = [*filter(_elsewhere, ",".join(named).split(","))]
    told = options.keys() & {"sslmode", "service"} or os.environ.keys() & {"PGSSLMODE", "PGSERVICE"}
    if elsewhere and not told:
        raise Unsupported(
            f"the ledger's URL does not say how the server {elsewhere[0]} is checked: anybody in "
            "between could answer in its place",
            check="ledger.url",
            hint="add ?sslmode=verify-full to the URL (or another sslmode, if you are sure)",
        )


def _elsewhere(host: str) -> bool:
    """Return whether a host, with or without a port, is neither a socket nor this machine."""
    return not host.startswith(("/", "@")) and _HERE.fullmatch(host) is None


class _PostgresDriver:
    """A connection that takes ``?`` for a value, as SQLite does."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection
        self._warnings: list[str] = []
        connection.add_notice_handler(self._hear)

    def _hear(self, notice: "psycopg.errors.Diagnostic") -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warnings.append(notice.message_primary or "")

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Any:
        from psycopg import OperationalError

        self._warnings.clear()
        # Without values, psycopg accepts several statements at once.
        cursor = self._connection.execute(sql.replace("?", "%s").encode("ascii"), values or None)
        if self._warnings and (sql == "COMMIT" or "pg_logical_emit_message" in sql):
            # The wait for a standby was canceled, for one: the commit is on this server alone.
            raise OperationalError(self._warnings[0])
        return cursor

    def close(self) -> None:
        self._connection.close()
