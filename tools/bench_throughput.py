"""The lines of the benchmark for many releases at once, on SQLite and on PostgreSQL."""

import multiprocessing
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench_core import Line, Scale, absent
from bench_ledger import MEASUREMENT, TIMEOUT, Bare, new_sessions
from sev_attest.owner import Ledger

if TYPE_CHECKING:
    from postgres_server import Server

Releases = Callable[[Callable[[str], object], list[str]], float]
"""Releases sessions with a function; gives the seconds for one, all together."""
SYNCS: dict[str, tuple[str, ...]] = {
    "PostgreSQL": (),
    # The server waits so long whenever it flushes its log, as for a disk or a standby.
    "PostgreSQL, sync of 4 ms": ("commit_delay=4000", "commit_siblings=0"),
}
"""Databases of the lines about throughput, with the settings of their server."""
REACHES = {"1": ">= 0.5", "4 x 8": ">= 2"}
"""Where it is not 2: one thread has nobody to share a transaction with."""


def throughput_lines(scale: Scale) -> Iterator[Line]:
    """Many releases at once, beside a synced transaction for each of them."""
    crowded = (("1", 1), ("8", 8), ("16", 16), ("32", 32))
    names = ("ours", "bare")
    places = [str(scale.folder / f"many-{name}.sqlite3") for name in names]
    for slug, threads in crowded:
        with ThreadPoolExecutor(threads) as pool:
            yield throughput(scale, "SQLite", slug, places, crowd(pool, threads))
    yield _together(scale)
    for database, settings in SYNCS.items():
        with ExitStack() as stack:
            server = postgresql(stack, *settings)
            if server is None:
                absent.append("a PostgreSQL server")
                return
            places = [server.new_database() for _ in names]
            for slug, threads in crowded:
                with ThreadPoolExecutor(threads) as pool:
                    yield throughput(scale, database, slug, places, crowd(pool, threads))
            yield throughput(scale, database, "4 x 8", places, crowds(4, 8))


def throughput(scale: Scale, database: str, slug: str, places: list[str], run: Releases) -> Line:
    """Compare the releases of a crowd on two ledgers of the same database."""
    ledger, bare = Ledger.open(places[0], timeout=TIMEOUT), Bare(places[1])
    count = scale.of(512, 64)
    who = f"{slug} thread{'s' * (slug != '1')}".replace(" x ", " processes of ")
    return Line(
        name=f"throughput-{re.sub('[ ,]+', '-', database.lower())}-{slug.replace(' ', '')}",
        what=f"`Ledger.release`, {database}, {who}",
        against="a bare, synced transaction for each: one row moved, one event written",
        reach=REACHES.get(slug, ">= 2"),
        ratio="rate",
        ours=lambda: run(
            lambda session: ledger.release(session, MEASUREMENT), new_sessions(ledger, count)
        ),
        reference=lambda: run(bare.release, bare.prepare(count)),
        rounds=scale.of(9, 1),
    )


def _together(scale: Scale) -> Line:
    """Compare 16 threads with one: they share the sync of the disk."""
    ledger = Ledger.open(str(scale.folder / "together.sqlite3"), timeout=TIMEOUT)
    count = scale.of(512, 64)

    def releases(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            return crowd(pool, threads)(
                lambda session: ledger.release(session, MEASUREMENT), new_sessions(ledger, count)
            )

    return Line(
        name="throughput-sqlite-together",
        what="`Ledger.release`, SQLite, 16 threads",
        against="one thread",
        reach=">= 5",
        ratio="rate",
        ours=lambda: releases(16),
        reference=lambda: releases(1),
        rounds=scale.of(9, 1),
    )


def crowd(pool: ThreadPoolExecutor, threads: int) -> Releases:
    """Release from the threads of a pool, all at once; they stay, and so do their connections."""

    def run(release: Callable[[str], object], sessions: list[str]) -> float:
        start = threading.Barrier(threads + 1)

        def each(part: list[str]) -> None:
            start.wait()
            for session in part:
                release(session)

        running = [pool.submit(each, sessions[number::threads]) for number in range(threads)]
        start.wait()
        begin = time.perf_counter()
        for one in running:
            one.result()
        return (time.perf_counter() - begin) / len(sessions)

    return run


def crowds(processes: int, threads: int) -> Releases:
    """Release from the threads of several processes, all at once, once each has a connection."""

    def run(release: Callable[[str], object], sessions: list[str]) -> float:
        context = multiprocessing.get_context("fork")
        start = context.Barrier(processes + 1)

        def each(part: list[str]) -> None:
            with ThreadPoolExecutor(threads) as pool:
                work = crowd(pool, threads)
                work(release, part[:threads])
                start.wait()
                work(release, part[threads:])

        running = [
            context.Process(target=each, args=(sessions[number::processes],))
            for number in range(processes)
        ]
        for one in running:
            one.start()
        start.wait(TIMEOUT)
        begin = time.perf_counter()
        for one in running:
            one.join()
            if one.exitcode:
                raise RuntimeError(f"a process that released ended with {one.exitcode}")
        return (time.perf_counter() - begin) / (len(sessions) - processes * threads)

    return run


def postgresql(stack: ExitStack, *settings: str) -> "Server | None":
    """Start a server as the live tests do, with settings; None if none is installed."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "owner"))
    from postgres_server import Server, binaries

    programs = binaries()
    if programs is None:
        return None
    # A socket's name is short, and the server may run as another user.
    server = Server(programs, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    server.start(*settings)
    stack.callback(server.stop)
    return server
