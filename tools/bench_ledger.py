"""The lines of the benchmark for the ledger: one release, and how it grows."""

import itertools
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench_core import POLICY, TOOL, Line, Run, Scale, child, launch, timed, verified
from sev_attest import sev
from sev_attest.owner import LaunchRecord, Ledger, release
from sev_attest.owner.advisories import load
from sev_attest.owner.ledger import step
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.owner.ledger.stores import store_at
from sev_attest.owner.requirements import Minimum, ReferenceValue, Requirements

ANY = frozenset({"*"})
TIMEOUT = 60.0
MEASUREMENT = bytes(48)
_NUMBERS = itertools.count()


def ledger_lines(scale: Scale) -> Iterator[Line]:
    """A release, and the same in larger ledgers."""
    yield from _release_lines(scale)
    yield from _growth_lines(scale)


def _release_lines(scale: Scale) -> Iterator[Line]:
    """The release of a secret, with its transaction."""
    rounds, times = scale.of(15, 3), scale.of(100, 10)
    ledger = Ledger.open(scale.folder / "released.sqlite3")
    record = LaunchRecord.of(
        sev.Session.create(verified(), policy=sev.GuestPolicy(POLICY)),
        "bench",
        datetime.now(UTC),
    )
    record = replace(record, root="AMD Milan", generation="milan")
    _, _, digest = launch()
    demands = Requirements(
        generations=ANY, ceks=ANY, platform_ids=ANY, pdhs=ANY,
        minimum={"milan": Minimum(api=(1, 55), build=24)},
        acknowledged=frozenset(advisory.id for advisory in load()),
        launches=(ReferenceValue(name="bench", digests={digest: ""}),),
    )  # fmt: skip
    ready: list[Callable[[], object]] = []

    def prepare() -> None:
        for _ in range(times + 1):
            keys, info, _ = launch()
            session = keys.session_id
            ledger.create(session)
            ready.append(partial(
                release, info, keys=keys, requirements=demands, ledger=ledger, digest=digest,
                record=replace(record, session_id=session).signed(keys),
                secrets={"luks-key": bytes(32)},
            ))  # fmt: skip

    def ours() -> float:
        prepare()
        ready.pop()()
        return timed(lambda: ready.pop()(), times)()  # noqa: PLW0108 - another one each time

    alone = Bare(str(scale.folder / "bare.sqlite3"))

    def reference() -> float:
        sessions = alone.prepare(times + 1)
        alone.release(sessions.pop())
        return timed(lambda: alone.release(sessions.pop()), times)()

    yield Line(
        name="release",
        what="release() with a SQLite ledger",
        against="a bare transaction, synced: one row moved, one event written",
        reach=">= 0.5",
        ratio="rate",
        ours=ours,
        reference=reference,
        rounds=rounds,
    )


def _growth_lines(scale: Scale) -> Iterator[Line]:
    """Ledgers of 10^3 to 10^6 sessions, each with three events, beside the smallest."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "owner"))
    from ledger_bulk import fill, name_of

    sizes = [10**3, 10**4] if scale.short else [10**3, 10**4, 10**5]
    sizes += [10**6] if scale.long else []

    @cache
    def filled(size: int) -> str:
        place = str(scale.folder / f"grown-{size}.sqlite3")
        fill(place, size)
        return place

    def show(size: int) -> Run:
        command = [*TOOL, "ledger", "show", name_of(size // 2), "--ledger"]

        def run() -> float:  # the ledger is filled in its first round, which does not count
            return child([*command, filled(size)])()

        return run

    def releases(size: int) -> Run:
        return lambda: _releases(filled(size), scale.of(50, 5))

    for what, slug, run in (
        ("`Ledger.release`", "release", releases), ("`ledger show NAME`", "show", show)
    ):  # fmt: skip
        for size in sizes[1:]:
            yield Line(
                name=f"grows-ledger-{slug}-{size}",
                what=f"{what}, {size} sessions in the ledger",
                against=f"{sizes[0]} sessions in it",
                reach="<= 1.2",
                ratio="share",
                ours=run(size),
                reference=run(sizes[0]),
                rounds=scale.of(9, 2),
            )


def _releases(place: str, times: int) -> float:
    """Time a release in a ledger, of sessions that are created before."""
    with Ledger.open(place, timeout=TIMEOUT) as ledger:
        sessions = new_sessions(ledger, times + 1)
        ledger.release(sessions.pop(), MEASUREMENT)
        return timed(lambda: ledger.release(sessions.pop(), MEASUREMENT), times)()


class Bare:
    """The least that a release writes, in a synced transaction of its own; nothing is checked.

    Each thread has a connection.
    """

    def __init__(self, place: str) -> None:
        """Use the tables of a ledger of its own."""
        self._ledger = Ledger.open(place)
        self._store = store_at(place, TIMEOUT)
        self._place = place
        self._threads = threading.local()

    def prepare(self, count: int) -> list[str]:
        """Open as many sessions."""
        return new_sessions(self._ledger, count)

    def release(self, session: str) -> None:
        """Move the session's row and write one event: less than any ledger does."""
        run, text, at = self._runner(), "x" * 64, "2026-01-01T00:00:00+00:00"
        run("")
        number = os.getpid() << 40 | next(_NUMBERS)  # unlike those of other processes
        run(step.INSERT_EVENT, (number, at, session, "released", text, text, text))
        run(step.UPDATE_SESSION, ("released", at, text, "", 0, session, "created"))
        run("COMMIT")

    def _runner(self) -> Callable[..., Any]:
        """Return what runs a statement on this thread's connection; an empty one begins."""
        if not hasattr(self._threads, "run"):
            server = not isinstance(self._store, Sqlite)
            # Each event follows another, so whoever writes one locks the log.
            begin = "BEGIN; LOCK TABLE sev_attest_ledger IN EXCLUSIVE MODE"
            statements = {"": begin if server else "BEGIN IMMEDIATE", "COMMIT": "COMMIT"}
            for sql in (step.INSERT_EVENT, step.UPDATE_SESSION):
                named = sql.format_map(self._store.names)
                statements[sql] = named.replace("?", "%s") if server else named
            connection = self._connect()

            def run(sql: str, values: tuple[object, ...] = ()) -> Any:
                return connection.execute(statements[sql], values)

            self._threads.run = run
        found: Callable[..., Any] = self._threads.run
        return found

    def _connect(self) -> Any:
        if isinstance(self._store, Sqlite):
            connection = sqlite3.connect(self._place, timeout=TIMEOUT, isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        import psycopg

        return psycopg.connect(self._place, autocommit=True)


def new_sessions(ledger: Ledger, count: int) -> list[str]:
    """Create as many sessions in a ledger."""
    made = [secrets.token_hex(32) for _ in range(count)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ledger.create, made))
    return made
