"""Find changes that were made to a ledger without its own steps.

1. The log has every number from 1 on, once and in order. If events were removed (``upkeep.py``),
   that holds from the last checkpoint on, and those before it are the ones that it left.
2. Each event has the hash of the one before it, and its own hash is right.
3. The head that is stored beside the log is the last event.
4. Replayed from the first event, the log results in exactly the rows of the sessions.
5. A head that was noted elsewhere is part of the log.

Does not verify: that the database is not an older copy, and was not made up as a whole. Only a head
that was noted elsewhere (5) shows that.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter

from sev_attest.errors import NotVerified
from sev_attest.owner.ledger.checkpoint import Checkpoint, Kept
from sev_attest.owner.ledger.reading import Reader, Row
from sev_attest.owner.ledger.story import (
    EMPTY,
    LEDGER,
    Head,
    ImpossibleError,
    LedgerEntry,
    applied,
    event_hash,
)

MAX_FINDINGS = 1000
"""How many findings are told at most."""


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


def findings(reader: Reader, noted: Sequence[Head]) -> tuple[Head, list[str]]:
    """Return the end of the log, and a message for everything that is wrong with a ledger.

    ``noted`` are heads that were noted elsewhere. There are at most MAX_FINDINGS messages.
    """
    log = _Log(noted, reader.checkpoint())
    found = chain(log.check(reader.event_rows()), log.check_head(reader.head_row()))
    told = list(islice(chain(found, _attempts(reader, log)), MAX_FINDINGS))
    return log.end, told


class _Log:
    """Steps 1, 2, 3 and 5: what is kept of the log while it is read."""

    def __init__(self, noted: Sequence[Head], checkpoint: Checkpoint | None) -> None:
        self.end: Head = EMPTY
        self.events = 0
        self.checkpoint = checkpoint
        self.begins: Head = EMPTY if checkpoint is None else checkpoint.head
        self._kept = 0
        self._missing = {*noted} - {EMPTY, self.begins}

    def check(self, events: Iterable[Row]) -> Iterator[str]:
        for row in events:
            seq, *texts = row
            # bool is an int, and SQLite takes any type in any column.
            if type(seq) is not int or {*map(type, texts)} != {str}:
                yield f"event {repr(seq)[:40]} is not one that the ledger writes"
                return
            if self.end.count < self.begins.count < seq:
                self.end = self.begins
            if seq == self.begins.count and row[6] != self.begins.hash:
                yield f"event {seq} is not the one that the checkpoint names"
            gap = seq != self.end.count + 1
            if gap and seq > self.begins.count:
                yield f"event {self.end.count + 1} is missing: {seq} comes after {self.end.count}"
            elif not gap and row[5] != self.end.hash:
                yield f"event {seq} does not follow the one before it"
            if event_hash(row[:6]) != row[6]:
                yield f"event {seq} was changed: its hash is another"
            self.end = Head(seq, row[6])
            self.events += 1
            self._kept += seq <= self.begins.count
            self._missing.discard(self.end)

    def check_head(self, head: Row | None) -> Iterator[str]:
        if head is None:
            yield "the head of the log is missing"
        elif Head(*head) != self.end:
            shown = repr(head[0])[:40]
            end = self.end.count
            yield f"the log ends with event {end}, its head says {shown} (or another hash)"
        if self.checkpoint and self._kept + self.checkpoint.removed != self.begins.count:
            yield f"up to event {self.begins.count}, more is missing than was removed"
        for noted in sorted(self._missing, key=str):
            missing = f"the log does not have the event {noted.count} that was noted: "
            if noted.count < self.begins.count:
                yield f"{missing}look for it in what was exported before event {self.begins.count}"
            else:
                yield f"{missing}an older copy of the ledger, or another ledger, or it was mistyped"


def _attempts(reader: Reader, log: _Log) -> Iterator[str]:
    """Step 4."""
    seen, kept = 0, Kept()
    for rows, events in reader.attempts():
        for attempt, story in groupby(events, key=itemgetter(2)):
            told = list(story)
            seen += len(told)
            for seq, *_, own_hash in told:
                if seq <= log.begins.count:
                    kept.add(seq, own_hash)
            if attempt == LEDGER:
                continue
            row = rows.pop(attempt, None)
            yield from _attempt(str(attempt)[:12], row, told)
        for attempt in rows:
            yield f"the session {str(attempt)[:12]} has a row, but no event"
    if log.checkpoint and kept.digest != log.checkpoint.digest:
        yield f"of the events up to {log.begins.count}, others are left than the checkpoint says"
    if seen != log.events:
        yield f"the log has {log.events} events, and {seen} of sessions: its index is damaged"


def _attempt(label: str, row: Row | None, events: Iterable[Row]) -> Iterator[str]:
    entry: LedgerEntry | None = None
    for seq, time, session_id, kind, detail, *_ in events:
        try:
            entry = applied(
                entry, time=time, session_id=session_id, kind=kind, detail=json.loads(detail)
            )
        except ImpossibleError as error:
            yield f"event {seq}: the session {error}"
        except Exception:  # noqa: BLE001 - its message could quote what somebody put there
            yield f"event {seq}: the session has a detail of no known form"
    if row is None:
        yield f"the row of session {label} is missing"
    # How often a launch was refused is not in the log: only the first of each reason is.
    elif entry is None or tuple(row[:-1]) != entry.to_row()[:-1]:
        yield f"the row of session {label} contradicts its events"
