"""Find changes that were made to a ledger without its own steps.

1. The log has every number from 1 on, once and in order.
2. Each event has the hash of the one before it, and its own hash is right.
3. The head that is stored beside the log is the last event.
4. Replayed from the first event, the log results in exactly the rows of the sessions.
5. A head that was noted elsewhere is part of the log.

Does not verify: that the database is not an older copy, and was not made up as a whole. Only a head
that was noted elsewhere (5) shows that.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sev_attest.errors import NotVerified
from sev_attest.owner.ledger.story import (
    EMPTY,
    Head,
    ImpossibleError,
    LedgerEntry,
    applied,
    event_hash,
)

Row = tuple[Any, ...]


class LedgerDamaged(NotVerified):
    """The ledger contradicts its own log; ``findings`` are messages, one for each finding."""

    def __init__(self, findings: tuple[str, ...]) -> None:
        """Collect the findings, at least one."""
        more = f" (and {len(findings) - 1} more)" if findings[1:] else ""
        super().__init__(
            f"the ledger was changed behind its back: {findings[0]}{more}",
            check="ledger.verify",
            hint="trust no session in it: keep it as evidence, and begin a new one",
        )
        self.findings: tuple[str, ...] = findings


def findings(
    sessions: Sequence[Row], events: Sequence[Row], head: Row | None, noted: Head | None
) -> list[str]:
    """Return a message for everything that is wrong with the rows of a ledger.

    The rows are as read from the database, with values of any type. ``noted`` is a head that was
    noted elsewhere.
    """
    found = [*_chain(events), *_head(events, head)]
    if noted is not None:
        found += _noted(events, noted)
    return [*found, *_sessions(sessions, events)]


def _chain(events: Sequence[Row]) -> Iterator[str]:
    count, previous = EMPTY.count, EMPTY.hash
    for row in events:
        seq, *texts = row
        # bool is an int, and SQLite takes any type in any column.
        if type(seq) is not int or not all(isinstance(text, str) for text in texts):
            yield f"event {repr(seq)[:40]} is not one that the ledger writes"
            return
        if seq != count + 1:
            yield f"event {count + 1} is missing: {seq} comes after {count}"
        elif row[5] != previous:
            yield f"event {seq} does not follow the one before it"
        if event_hash(row[:6]) != row[6]:
            yield f"event {seq} was changed: its hash is another"
        count, previous = seq, row[6]


def _head(events: Sequence[Row], head: Row | None) -> Iterator[str]:
    last = (events[-1][0], events[-1][6]) if events else (EMPTY.count, EMPTY.hash)
    if head is None:
        yield "the head of the log is missing"
    elif tuple(head) != last:
        shown = repr(head[0])[:40]
        yield f"the log ends with event {last[0]}, its head says {shown} (or another hash)"


def _noted(events: Sequence[Row], noted: Head) -> Iterator[str]:
    known = {(row[0], row[6]) for row in events} | {(EMPTY.count, EMPTY.hash)}
    if (noted.count, noted.hash) not in known:
        yield (
            f"the log does not have the event {noted.count} that was noted: "
            "this is an older copy of the ledger, or another ledger"
        )


def _sessions(sessions: Sequence[Row], events: Sequence[Row]) -> Iterator[str]:
    replayed: dict[str, LedgerEntry] = {}
    for seq, time, session_id, kind, detail, *_ in events:
        try:
            replayed[session_id] = applied(
                replayed.get(session_id),
                time=time,
                session_id=session_id,
                kind=kind,
                detail=json.loads(detail),
            )
        except ImpossibleError as error:
            yield f"event {seq}: the session {error}"
        except Exception:  # noqa: BLE001 - its message could quote what somebody put there
            yield f"event {seq}: the session has a detail of no known form"
    rows = {row[0]: tuple(row) for row in sessions}
    expected = {session_id: entry.to_row() for session_id, entry in replayed.items()}
    for session_id in sorted(rows.keys() | expected.keys(), key=str):
        label = str(session_id)[:12]
        if session_id not in rows:
            yield f"the row of session {label} is missing"
        elif session_id not in expected:
            yield f"the session {label} has a row, but no event"
        elif rows[session_id] != expected[session_id]:
            yield f"the row of session {label} contradicts its events"
