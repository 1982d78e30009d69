"""What a ledger needs of a database: guarded connections, transactions and named errors.

A store opens connections, begins transactions that exclude all other processes, and translates its
driver's errors. The statements inside a transaction are the same for every database.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import lru_cache
from typing import Any, ClassVar, Protocol, TypeVar

from sev_attest.owner.ledger.errors import PROBLEMS, LedgerError, first_line
from sev_attest.owner.ledger.story import Head

MAX_VALUE = 1 << 20
"""The longest value that is read, in bytes. The ledger writes values far below that."""
_PLAIN = frozenset({int, float, bool, type(None)})
_Read = TypeVar("_Read")


class Driver(Protocol):
    """A connection that begins no transaction by itself; ``?`` stands for a value."""

    def execute(self, sql: str, values: tuple[Any, ...] = ..., /) -> Any:
        """Run one statement, and return a cursor."""

    def close(self) -> None:
        """Close it, and roll back what was not committed."""


class Rows:
    """The result of a statement: the rows found, or ``rowcount``, how many were changed."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rowcount: int, rows: list[Any]) -> None:
        """Take the contents of a cursor."""
        self.rowcount: int = rowcount
        self._rows = rows

    def fetchone(self) -> Any:
        """Return the first row, or None."""
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        return self._rows


class StoreConnection:
    """A connection that raises LedgerError for every failure of its driver.

    Drivers raise undocumented exceptions for a damaged database, so every Exception is translated.
    """

    __slots__ = ("_driver", "_store", "head", "wrote")

    def __init__(self, driver: Driver, store: "Store") -> None:
        """Guard a connection of ``store``."""
        self._driver = driver
        self._store = store
        self.head: Head | None = None
        """The head of the log after the last step of this transaction."""
        self.wrote: bool = False
        """Whether this transaction has written to the log."""

    def execute(self, sql: str, values: tuple[Any, ...] = (), /) -> Rows:
        """Run one statement and fetch its rows; names in braces are those of ``Store.names``."""
        store = self._store
        try:
            # Closed at once: what a cursor has begun to read keeps a connection from closing.
            with closing(self._driver.execute(_with_names(type(store), sql), values)) as cursor:
                rows = cursor.fetchall() if cursor.description else []
                found = Rows(cursor.rowcount, rows)
        except Exception as error:  # noqa: BLE001 - see the class
            raise store.translated(error, committing=sql == "COMMIT") from None
        if not _plain(rows):
            raise store.fault("damaged", "a value in it is of another type, or too long")
        return found

    def close(self) -> None:
        """Close it, and roll back what was not committed."""
        with suppress(Exception):  # it is given up either way
            self._driver.close()


@lru_cache(maxsize=256)
def _with_names(store: "type[Store]", sql: str) -> str:
    return sql.format_map(store.names)


def _plain(rows: list[tuple[Any, ...]]) -> bool:
    """Return whether all values have a plain type and length; loops, as every value comes here."""
    for row in rows:
        for value in row:
            kind = type(value)
            if kind is str or kind is bytes:
                if len(value) > MAX_VALUE:
                    return False
            elif kind not in _PLAIN:
                return False
    return True


class Store(ABC):
    """One database; ``place`` is its name in messages."""

    writing: str
    """Begins a transaction that excludes all other writers."""
    reading: str
    """Begins a transaction that reads one snapshot."""
    tables: str
    """Lists the tables that exist."""
    unguard: tuple[str, ...]
    """Let rows be deleted; only the owner of the tables can do that."""
    owned: str
    """Selects whether this role owns the tables."""
    guard: tuple[str, ...]
    """Forbid again what ``unguard`` allowed."""
    names: ClassVar[Mapping[str, str]]
    """The values of the names in braces, in statements: see :func:`names_for`."""
    hints: ClassVar[Mapping[str, str]] = {}
    """Hints that differ from those of PROBLEMS for this database."""

    def __init__(self, place: str, timeout: float) -> None:
        """Take the name for messages, and how long to wait for other processes, in seconds."""
        self.place: str = place
        self.timeout: float = timeout

    @abstractmethod
    def prepare(self, *, create: bool) -> None:
        """Check that the database exists, and create it if ``create``; raises LedgerError."""

    @abstractmethod
    def connect(self) -> StoreConnection:
        """Open a connection; raises LedgerError."""

    @abstractmethod
    def flush(self, connection: StoreConnection, head: Head) -> None:
        """Return once no crash can undo what was committed up to ``head``; raises LedgerError."""

    @abstractmethod
    def translated(self, error: Exception, *, committing: bool = False) -> LedgerError:
        """Return the LedgerError for a driver's; ``committing`` if a COMMIT raised it."""

    def fault(self, problem: str, detail: str = "", hint: str = "") -> LedgerError:
        """Return the error for a key of PROBLEMS, with the system's own message if it has one."""
        message, usual_hint = PROBLEMS[problem]
        detail = first_line(detail)
        return LedgerError(
            f"ledger {self.place}: {message}" + (f" ({detail})" if detail else ""),
            check=f"ledger.{problem}",
            hint=hint or self.hints.get(problem, usual_hint),
        )

    def read(self, parse: Callable[[tuple[Any, ...]], _Read], row: tuple[Any, ...]) -> _Read:
        """Return ``parse(row)``; raises LedgerError for a row that the ledger does not write."""
        try:
            return parse(row)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise self.fault("damaged", "it has a row that the ledger does not write") from None


def names_for(text: str, now: str) -> Mapping[str, str]:
    """Return the names that statements use in braces.

    ``text`` is how a column of text is read, with the column for ``{}``. ``now`` is the time of the
    database, in UTC, ISO 8601, to the second.
    """
    session = ("name", "state", "created", "changed", "expires", "measurement", "note",
               "technology")  # fmt: skip
    event = ("time", "kind", "detail", "previous", "hash")
    sealed = ("box", "requirements")
    read = {column: text.format(column) for column in (*session, *event, *sealed)}
    lists = {
        "session": "session_id, {name}, {state}, {created}, {changed}, {expires}, {measurement}, "
        "{note}, {technology}, refused",
        "event": "seq, {time}, session_id, {kind}, {detail}, {previous}, {hash}",
        "sealed": "{box}, {requirements}",
        "head": "events, {hash}",
    }
    return read | {name: columns.format_map(read) for name, columns in lists.items()} | {"now": now}
