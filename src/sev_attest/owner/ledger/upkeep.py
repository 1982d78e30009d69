"""End sessions whose time is over, and remove those that ended long ago."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter

from sev_attest.owner.ledger.checkpoint import Checkpoint, Kept
from sev_attest.owner.ledger.reading import Reader
from sev_attest.owner.ledger.step import INSERT_EVENT, UPDATE_HEAD, Step
from sev_attest.owner.ledger.store import Store, StoreConnection
from sev_attest.owner.ledger.story import (
    CHECKPOINT,
    COMES_FROM,
    LEDGER,
    Event,
    Head,
    LedgerEntry,
    State,
)

BATCH = 200
"""Sessions that are ended in one transaction."""

_OPEN = "state IN ('created', 'measured')"
_OVERDUE = f"SELECT session_id FROM sev_attest_session WHERE {_OPEN} AND expires <= ? LIMIT {BATCH}"  # noqa: S608 - constants
_ANY_OPEN = f"SELECT session_id FROM sev_attest_session WHERE {_OPEN} LIMIT {BATCH}"  # noqa: S608 - likewise
_OVER = f"NOT {_OPEN} AND changed < ?"
_COUNT_OVER = f"SELECT count(*) FROM sev_attest_session WHERE {_OVER}"  # noqa: S608 - likewise
_MOVED = f"""SELECT count(*) FROM sev_attest_event e
    JOIN sev_attest_session s ON s.session_id = e.session_id WHERE e.seq > ? AND {_OVER}"""  # noqa: S608 - likewise
_REMOVE_EVENTS = f"""DELETE FROM sev_attest_event WHERE session_id IN
    (SELECT session_id FROM sev_attest_session WHERE {_OVER})"""  # noqa: S608 - likewise
_REMOVE_SEALED = f"""DELETE FROM sev_attest_pending WHERE session_id IN
    (SELECT session_id FROM sev_attest_session WHERE {_OVER})"""  # noqa: S608 - likewise
_REMOVE = f"DELETE FROM sev_attest_session WHERE {_OVER}"  # noqa: S608 - likewise

Going = Iterator[tuple[LedgerEntry, list[Event]]]
"""The sessions that go, each with its events."""


def end_some(
    connection: StoreConnection,
    begin: Callable[[str], Step],
    state: State,
    detail: Mapping[str, object],
    overdue_at: str | None = None,
) -> int:
    """End up to BATCH open sessions, or only those that are overdue; return how many there were.

    ``begin`` begins the step of a session.
    """
    select, values = (_ANY_OPEN, ()) if overdue_at is None else (_OVERDUE, (overdue_at,))
    rows = connection.execute(select, values).fetchall()
    for (attempt,) in rows:
        step = begin(attempt)
        step.enter(state, detail)
        step.write()
    return len(rows)


def plan(reader: Reader, before: str, export: Callable[[Head, Going], object]) -> Checkpoint:
    """Pass what is over since before ``before`` to ``export``; return what a checkpoint says then.

    ``export`` gets the head of the log, and each session with its events. The caller has checked
    the ledger.
    """
    kept = Kept()
    sessions = removed = 0

    def going() -> Going:
        nonlocal sessions, removed
        for rows, events in reader.attempts():
            for attempt, story in groupby(events, key=itemgetter(2)):
                row = rows.get(attempt)
                entry = None if row is None else reader.store.read(LedgerEntry.from_row, row)
                if entry and entry.state not in COMES_FROM[State.CLOSED] and entry.changed < before:
                    told = [reader.store.read(Event.from_row, event) for event in story]
                    sessions, removed = sessions + 1, removed + len(told)
                    yield entry, told
                else:
                    for seq, *_, own_hash in story:
                        kept.add(seq, own_hash)

    head, every = reader.head(), going()
    export(head, every)
    _exhaust(every)
    return Checkpoint(
        head=head, before=before, sessions=sessions, removed=removed, digest=kept.digest
    )


def _exhaust(every: Iterable[object]) -> None:
    for _ in every:
        pass


def remove(store: Store, connection: StoreConnection, planned: Checkpoint, time: str) -> None:
    """Remove what was exported, and log the checkpoint; the caller commits.

    Raises LedgerError if a session of those changed meanwhile.
    """
    over = (planned.before,)
    (sessions,) = connection.execute(_COUNT_OVER, over).fetchone()
    (moved,) = connection.execute(_MOVED, (planned.head.count, *over)).fetchone()
    if moved or sessions != planned.sessions:
        raise store.fault("moved")
    for statement in store.unguard:
        connection.execute(statement)
    connection.execute(_REMOVE_SEALED, over)
    removed = connection.execute(_REMOVE_EVENTS, over).rowcount
    if (removed, connection.execute(_REMOVE, over).rowcount) != (planned.removed, sessions):
        raise store.fault("moved")
    for statement in store.guard:
        connection.execute(statement)
    log(store, connection, time, CHECKPOINT, planned.to_detail())


def log(
    store: Store, connection: StoreConnection, time: str, kind: str, detail: Mapping[str, object]
) -> Head:
    """Append an event of the ledger itself to the log, and return its head; the caller commits."""
    head = Reader(store, lambda sql, values: connection.execute(sql, values).fetchall()).head()
    event = Event.after(head, time=time, session_id=LEDGER, kind=kind, detail=detail)
    connection.execute(INSERT_EVENT, event.to_row())
    connection.execute(UPDATE_HEAD, (event.seq, event.hash, head.count))
    connection.head = event.head
    return event.head
