"""A ledger in a PostgreSQL database."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from sev_attest.errors import Unsupported
from sev_attest.owner.ledger.errors import UNKNOWN_OUTCOME, LedgerError, first_line, message_of
from sev_attest.owner.ledger.store import (
    MAX_VALUE,
    TABLES,
    Store,
    StoreConnection,
    create_tables,
)

if TYPE_CHECKING:
    import psycopg

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
    cut = ", ".join(f"substr({text}, 1, {MAX_VALUE + 1}) AS {text}" for text in texts)
    return f"(SELECT {keys}, {cut} FROM {table})"  # noqa: S608 - of this module's constants


class Postgres(Store):
    """A database on a server, for services on several machines."""

    # The lock admits readers only; statements after it see everything committed before it.
    writing = (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
        " LOCK TABLE sev_attest_ledger IN EXCLUSIVE MODE"
    )
    reading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
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
    # PostgreSQL stores values of up to 1 GiB: only what a ledger may hold is fetched.
    names: ClassVar[Mapping[str, str]] = {
        "sessions": _bounded(
            "sev_attest_session", "session_id",
            "name", "state", "created", "changed", "expires", "measurement", "note",
        ),
        "events": _bounded(
            "sev_attest_event", "seq, session_id", "time", "kind", "detail", "previous", "hash"
        ),
        "head": _bounded("sev_attest_ledger", "events", "hash"),
        "detail": f"substr(detail, 1, {MAX_VALUE + 1})",
        "time": f"substr(time, 1, {MAX_VALUE + 1})",
    }  # fmt: skip
    hints: ClassVar[Mapping[str, str]] = {
        "read-only": "this is a standby, or its owner made it read-only: use the primary server",
        "permission": "its role needs SELECT, INSERT and UPDATE on the tables sev_attest_*, and, "
        "to make them, CREATE on the schema: ask the database's owner",
    }
    # A machine that vanishes must not hold the lock for hours; a release must survive power loss.
    _settings = """SELECT
        set_config('lock_timeout', ?, false),
        set_config('idle_in_transaction_session_timeout', '10s', false),
        set_config('synchronous_commit', 'on', false)"""

    def __init__(self, url: str, timeout: float) -> None:
        """Take the URL, and how long to wait for other processes, in seconds.

        Raises Unsupported for a URL that is malformed or has a password, and without psycopg.
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
        host = parts["hosts"] or options.get("host") or "the local socket"
        place = f"PostgreSQL {host}/{parts['name'] or options.get('dbname', '')}"
        super().__init__(place, timeout)
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
            driver = self._driver.connect(self._url, autocommit=True, connect_timeout=10)
        except failures as error:
            raise self.translated(error) from None
        except Exception as error:  # noqa: BLE001 - see StoreConnection
            raise Unsupported(
                f"the ledger's URL cannot be used: {first_line(message_of(error))}",
                check="ledger.url",
            ) from None
        connection = StoreConnection(_PostgresDriver(driver), self)
        try:
            connection.execute(self._settings, (f"{int(self.timeout * 1000)}ms",))
        except BaseException:
            connection.close()
            raise
        return connection

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


class _PostgresDriver:
    """A connection that takes ``?`` for a value, as SQLite does."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Any:
        # Without values, psycopg accepts several statements at once.
        return self._connection.execute(sql.replace("?", "%s").encode("ascii"), values or None)

    def close(self) -> None:
        self._connection.close()
