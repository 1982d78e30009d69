"""Versions of packages from RPM's database in SQLite (RPM 4.16 and later).

The table Packages has one header for each package, a blob: big-endian u32 number of entries, u32
bytes of data, the entries (u32 tag, type, offset, count), the data. The table Name finds it.

Source: rpm, lib/backend/sqlite.c and docs/manual/format_header.md. Other formats (Berkeley DB, ndb)
are not read, nor what is only in the journal of a database in WAL mode.
"""

import re
import sqlite3
import struct
from contextlib import closing
from time import thread_time

from sev_attest.host.inspect.tree import Tree, Unreadable

_PLACES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
_OTHERS = ("Packages", "Packages.db")
"""Berkeley DB, ndb."""
_MAX_HEADER = 4 << 20
"""Bytes of a header: it names every file of its package, so that the largest have some 2 MB."""
_MAX_SCHEMA = 256
"""Tables and indexes: rpm makes some 20 of each."""
_PLAIN = re.compile(r"CREATE (?:TABLE|(?:UNIQUE )?INDEX) ")
"""How SQLite writes statements in its schema; views, triggers, virtual tables begin otherwise."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: _MAX_HEADER,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4096,
    sqlite3.SQLITE_LIMIT_COLUMN: 32,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 32,
}
_MAX_ENTRIES = 0xFFFF
"""As in rpm, lib/header.c."""
_VERSION, _RELEASE = 1001, 1002
_STRING = 6
_MAX_STRING = 256
_STEPS = 100
"""Instructions of SQLite between two looks at the clock: each may read a header."""
_SECONDS = 2
"""Processor time until the queries are ended. Those of a real database take milliseconds."""
_SCHEMA = "SELECT sql FROM sqlite_master LIMIT ?"
_COLUMNS = "PRAGMA table_xinfo({})"
_GENERATED = (2, 3)
"""What table_xinfo has as "hidden" of a column that is an expression, virtual or stored."""
_FIND = "SELECT hnum FROM Name WHERE key = ? ORDER BY hnum DESC LIMIT 1"
_HEADER = "SELECT blob FROM Packages WHERE hnum = ?"


def installed(tree: Tree, names: frozenset[str]) -> dict[str, str] | None:
    """Return the versions (VERSION-RELEASE) of those packages that are installed.

    None if there is no RPM database. Raises Unreadable for one that cannot be read.
    """
    for place in _PLACES:
        path = f"{place}/rpmdb.sqlite"
        with tree.opened(path) as file:
            if file is not None:
                return _query(path, file, names)
        for name in _OTHERS:
            if tree.exists(f"{place}/{name}"):
                raise Unreadable(f"{place}/{name}", "an RPM database in another format than SQLite")
    return None


def _query(path: str, file: int, names: frozenset[str]) -> dict[str, str]:
    """Read the packages from an open database."""
    # "immutable": no lock, no journal, nothing is written beside it.
    uri = f"file:/proc/self/fd/{file}?mode=ro&immutable=1"
    found = {}
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            for limit, most in _LIMITS.items():
                database.setlimit(limit, most)
            end = thread_time() + _SECONDS
            database.set_progress_handler(lambda: thread_time() > end, _STEPS)
            database.execute("PRAGMA trusted_schema = OFF")
            _require_plain(database)
            for name in sorted(names):
                header = _header(database, name)
                if header is not None:
                    found[name] = version(header)
    except (sqlite3.Error, ValueError, struct.error, OverflowError) as error:
        raise Unreadable(path, f"no RPM database ({type(error).__name__})") from None
    return found


def _require_plain(database: sqlite3.Connection) -> None:
    """Raise ValueError if the schema has expressions that a query would have SQLite compute.

    One instruction may then take hours: LIKE, or a function that makes a long string.
    """
    schema = database.execute(_SCHEMA, (_MAX_SCHEMA + 1,)).fetchall()
    # sql is None for the index of a primary key.
    if len(schema) > _MAX_SCHEMA or not all(
        sql is None or _PLAIN.match(str(sql)) for (sql,) in schema
    ):
        raise ValueError
    for table in ("Name", "Packages"):
        if any(row[-1] in _GENERATED for row in database.execute(_COLUMNS.format(table))):
            raise ValueError


def _header(database: sqlite3.Connection, name: str) -> bytes | None:
    row = database.execute(_FIND, (name,)).fetchone()
    if row is None:
        return None
    found = database.execute(_HEADER, row).fetchone()
    if found is None or not isinstance(found[0], bytes):
        raise ValueError
    return found[0]


def version(header: bytes) -> str:
    """Return VERSION-RELEASE of a header. Raises ValueError or struct.error if it is malformed."""
    entries, size = struct.unpack_from(">II", header)
    if entries > _MAX_ENTRIES:
        raise ValueError
    start = 8 + 16 * entries
    data = header[start : start + size]
    strings = {}
    for number in range(entries):
        tag, kind, offset, _ = struct.unpack_from(">IIII", header, 8 + 16 * number)
        if tag in (_VERSION, _RELEASE) and kind == _STRING:
            strings[tag] = data[offset : data.index(b"\0", offset, offset + _MAX_STRING)]
    if _VERSION not in strings:
        raise ValueError
    return "-".join(strings[tag].decode("ascii", "replace") for tag in sorted(strings))
