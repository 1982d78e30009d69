"""Fill a new ledger with many sessions at once, as its steps would have left it."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import psycopg

from sev_attest._encoding import to_base64
from sev_attest.owner.ledger import Head, Ledger
from sev_attest.owner.ledger.step import INSERT_EVENT, UPDATE_HEAD
from sev_attest.owner.ledger.story import EMPTY, LedgerEntry, applied, event_hash, to_json

MEASUREMENT = bytes(range(48))
_SESSION = (
    "session_id, name, state, created, changed, expires, measurement, note, technology, refused"
)
_EVENT = "seq, time, session_id, kind, detail, previous, hash"
_BEGIN = datetime(2026, 1, 1)  # noqa: DTZ001 - UTC, as the text says
_PER_SECOND = 100
_CREATED: dict[str, object] = {"expires": None, "note": "", "root": "AMD Milan"}
_MEASURED: dict[str, object] = {"measurement": to_base64(MEASUREMENT)}


def name_of(number: int) -> str:
    return f"guest-{number}"


def session_of(number: int) -> str:
    """Give an id that says nothing of the order, as real ones."""
    return hashlib.sha256(name_of(number).encode()).hexdigest()


def fill(place: str, count: int) -> Head:
    """Make a ledger with ``count`` sessions, each created, bound and released; give its head."""
    with Ledger.open(place):
        pass
    filling = _Filling(count)
    (_copy if place.startswith("postgresql:") else _insert)(place, filling)
    return filling.head


# An index that is made after its table is sorted, and not filled at random.


def _insert(path: str, filling: "_Filling") -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        made = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        indexes = connection.execute(made).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        connection.executemany(INSERT_EVENT, filling.events())
        places = ", ".join("?" * len(_SESSION.split()))
        insert = f"INSERT INTO sev_attest_session ({_SESSION}) VALUES ({places})"
        connection.executemany(insert, sorted(filling.sessions()))
        for _, index in indexes:
            connection.execute(index)
        connection.execute(UPDATE_HEAD, (filling.head.count, filling.head.hash, 0))
        connection.execute("COMMIT")


def _copy(url: str, filling: "_Filling") -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        made = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'sev_attest_%'"
        indexes = cursor.execute(f"{made} AND indexname NOT LIKE '%_pkey'".encode()).fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}".encode())
        for table, columns, rows in (
            ("event", _EVENT, filling.events()),
            ("session", _SESSION, filling.sessions()),
        ):
            command = f"COPY sev_attest_{table} ({columns}) FROM STDIN".encode()
            with cursor.copy(command) as copy:
                for row in rows:
                    copy.write_row(row)
        for _, index in indexes:
            cursor.execute(index.encode())
        head = (filling.head.count, filling.head.hash, 0)
        cursor.execute(UPDATE_HEAD.replace("?", "%s").encode(), head)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")  # as the server does by itself, sooner or later


class _Filling:
    """The rows of a ledger; ``head`` is that of the log, once all its events were read."""

    def __init__(self, count: int) -> None:
        self.head = EMPTY
        self._count = count

    def events(self) -> Iterator[tuple[Any, ...]]:
        seq, previous = self.head.count, self.head.hash
        for number in range(self._count):
            session, time = session_of(number), _time_of(number)
            for kind, detail in _story(number):
                seq += 1
                fields = (seq, time, session, kind, to_json(detail), previous)
                previous = event_hash(fields)
                yield (*fields, previous)
        self.head = Head(seq, previous)

    def sessions(self) -> Iterator[tuple[Any, ...]]:
        for number in range(self._count):
            session, time = session_of(number), _time_of(number)
            entry: LedgerEntry | None = None
            for kind, detail in _story(number):
                entry = applied(entry, time=time, session_id=session, kind=kind, detail=detail)
            assert entry is not None
            yield entry.to_row()


def _story(number: int) -> Iterator[tuple[str, dict[str, object]]]:
    yield "created", {"name": name_of(number), **_CREATED}
    yield "measured", _MEASURED
    yield "released", _MEASURED


def _time_of(number: int) -> str:
    return f"{_BEGIN + timedelta(seconds=number // _PER_SECOND):%Y-%m-%dT%H:%M:%S+00:00}"
