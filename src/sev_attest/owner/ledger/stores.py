"""Which database a ledger is in."""

import os
import re

from sev_attest.errors import Unsupported
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.owner.ledger.store import Store


def store_at(place: str | os.PathLike[str], timeout: float) -> Store:
    """Return the store: a path is a SQLite file, ``postgresql://...`` a database on a server.

    Raises Unsupported for any other URL, and for a path on a system that is not POSIX.
    """
    text = os.fspath(place)
    if re.match("postgres(ql)?:", text):
        from sev_attest.owner.ledger.postgres import Postgres

        return Postgres(text, timeout)
    if "://" in text or "\0" in text:
        raise Unsupported(
            "a ledger is a file or a postgresql:// database, and this is neither",
            check="ledger.place",
            hint="name a file or a database",
        )
    if not hasattr(os, "geteuid"):
        raise Unsupported(
            "a ledger file needs a POSIX system, to check that nobody else can write to it",
            check="ledger.platform",
            hint="use a postgresql:// ledger",
        )
    return Sqlite(text, timeout)
