"""The tables of a ledger, and how those of an older version become those of this one.

A new ledger begins with the tables of version 1 and is upgraded at once, so there is one way only
to each table.
"""

from collections.abc import Iterable

from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.store import Store, StoreConnection
from sev_attest.owner.ledger.story import EMPTY, State

VERSION = 2

_STATES = ", ".join(f"'{state}'" for state in State)
TABLES: tuple[str, ...] = (
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
    # No state is entered twice: a row that was set back by hand is not released again.
    f"""CREATE UNIQUE INDEX sev_attest_once ON sev_attest_event (session_id, kind)
        WHERE kind IN ({_STATES})""",
)
TABLE_NAMES: frozenset[str] = frozenset(
    {"sev_attest_ledger", "sev_attest_session", "sev_attest_event"}
)
NAME_INDEXED = "substr(name, 1, 64)"
"""What the index of names has of each: PostgreSQL's takes at most 2704 bytes."""
_UPGRADES: tuple[str, ...] = (
    # "snp" is for attempts whose id is that of a challenge.
    "ALTER TABLE sev_attest_session ADD COLUMN technology TEXT NOT NULL DEFAULT 'sev'",
    "ALTER TABLE sev_attest_session ADD COLUMN refused INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX sev_attest_event_of ON sev_attest_event (session_id, seq)",
    "CREATE INDEX sev_attest_oldest ON sev_attest_session (created, session_id)",
    f"CREATE INDEX sev_attest_named ON sev_attest_session ({NAME_INDEXED}, created)",
    """CREATE INDEX sev_attest_open ON sev_attest_session (expires)
        WHERE state IN ('created', 'measured')""",
    # The keys of a session that waits, sealed: see owner/pending.py. The box is base64.
    """CREATE TABLE sev_attest_pending (
        session_id TEXT PRIMARY KEY,
        box TEXT,
        requirements TEXT
    )""",
    f"UPDATE sev_attest_ledger SET version = {VERSION}",  # noqa: S608 - a number of ours
)


def create_tables(connection: StoreConnection, schema: Iterable[str]) -> None:
    """Create the tables of an empty ledger; the caller commits."""
    for statement in schema:
        connection.execute(statement)
    begin = "INSERT INTO sev_attest_ledger (one, version, events, hash) VALUES (1, 1, ?, ?)"
    connection.execute(begin, (EMPTY.count, EMPTY.hash))
    _upgrade(connection)


def version_of(store: Store, connection: StoreConnection) -> int:
    """Return the version of the tables; raises LedgerError if they are not those of a ledger."""
    found = {name for (name,) in connection.execute(store.tables).fetchall()}
    if not found >= TABLE_NAMES:
        raise store.fault("damaged", "its tables are missing")
    row = connection.execute("SELECT version FROM sev_attest_ledger").fetchone()
    if row is None or type(row[0]) is not int or row[0] < 1:
        raise store.fault("damaged", "its version is missing")
    version: int = row[0]
    if version > VERSION:
        raise store.fault("schema", f"version {version}, this one knows {VERSION}")
    return version


def upgrade(store: Store, connection: StoreConnection) -> None:
    """Upgrade the tables of an older version; the caller has begun to write, and commits."""
    if version_of(store, connection) < VERSION:
        try:
            _upgrade(connection)
        except LedgerError as error:
            if error.check != "ledger.permission":
                raise
            raise store.fault("old") from None


def _upgrade(connection: StoreConnection) -> None:
    for statement in _UPGRADES:
        connection.execute(statement)
