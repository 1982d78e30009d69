"""The ledger on real PostgreSQL servers: crashes, standbys, a pooler, bounded connections."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger_worker import MEASUREMENT, run_races, session_id
from postgres_server import Pooler, Server
from sev_attest.errors import SevAttestError, WrongState
from sev_attest.owner.ledger import Ledger, LedgerError, State
from sev_attest.owner.ledger.postgres import Postgres, _PostgresDriver

ONE, TWO = session_id(1), session_id(2)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ledger") as name:
        yield Path(name)


@pytest.fixture
def pooler(server: Server) -> Iterator[Pooler]:
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no pooler is installed (apt-get install pgbouncer)")
    with folder() as home:
        made = Pooler(program, home, server, connections=4)
        try:
            yield made
        finally:
            made.stop()


def name_in(url: str) -> str:
    """Give the name of the database in a URL."""
    return url.split("/")[3].partition("?")[0]


def released(ledger: Ledger) -> set[str]:
    return {entry.session_id for entry in ledger.entries() if entry.state is State.RELEASED}


def release(ledger: Ledger, session: str) -> str:
    """Try to release a session; give the check id of what hinders that, or nothing."""
    try:
        ledger.bind(session, MEASUREMENT, adopt=True)
        ledger.release(session, MEASUREMENT)
    except SevAttestError as error:
        return error.check
    return ""


# What has left is on the disk.


def load(
    ledger: Ledger, first: int, threads: int, *, count: int = 5000, crash: Server | None = None
) -> tuple[set[str], set[str]]:
    """Release sessions from many threads, until all are or the server fails.

    ``crash`` crashes when 40 were released. Give those that were released, and all check ids.
    """
    left: set[str] = set()
    seen: set[str] = set()

    def run(number: int) -> None:
        if not seen:
            check = release(ledger, session_id(number))
            (seen if check else left).add(check or session_id(number))

    def wait() -> None:
        assert crash is not None
        while len(left) < 40:
            time.sleep(0.01)
        crash.stop(signal.SIGQUIT)

    with ThreadPoolExecutor(threads + 1) as pool:
        if crash:
            pool.submit(wait)
        list(pool.map(run, range(first, first + count)))
    return left, seen


def test_a_server_that_crashes_has_every_release_that_left(server: Server, url: str) -> None:
    left: set[str] = set()
    for number in range(5):
        with Ledger.open(url, timeout=60) as ledger:
            more, seen = load(ledger, 10000 * number, threads=16, crash=server)
        server.start()
        assert seen == {"ledger.connection"}
        left |= more
        with Ledger.open(url) as ledger:
            assert left <= released(ledger)
            ledger.verify()
    print(f"\n{len(left)} releases over 5 crashes, none lost")


STATEMENTS = {
    "begin": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "look": "SELECT events",
    "event": "INSERT INTO sev_attest_event",
    "row": "UPDATE sev_attest_session",
    "head": "UPDATE sev_attest_ledger",
    "commit": "COMMIT",
    "flush": "SELECT hash, set_config",
}
"""What a step says to the server."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", STATEMENTS)
def test_a_server_that_crashes_at_a_statement_releases_once_or_not_at_all(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch, what: str, when: str
) -> None:
    execute = _PostgresDriver.execute
    armed = True

    def crash(driver: _PostgresDriver, sql: str, values: tuple[Any, ...] = ()) -> Any:
        nonlocal armed
        now = armed and sql.startswith(STATEMENTS[what])
        if now and when == "before":
            server.stop(signal.SIGQUIT)
            armed = False
        result = execute(driver, sql, values)
        if now and when == "after":
            server.stop(signal.SIGQUIT)
            armed = False
        return result

    with Ledger.open(url) as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
        with monkeypatch.context() as patch:
            patch.setattr(_PostgresDriver, "execute", crash)
            # An idle connection is replaced, as nothing was begun on it, but there is no server.
            outcome = attempt_release(ledger)
        assert not armed
        server.start()
        ledger.verify()
        done = ONE in released(ledger)
        if outcome is None:
            assert done
            assert (what, when) == ("flush", "after")
        else:
            assert outcome.check == "ledger.connection"
            unknown = outcome.hint.startswith("the last step may have been taken")
            # After the last statement, the first that fails is the commit.
            assert unknown == (what in ("commit", "flush") or (what, when) == ("head", "after"))
        assert release(ledger, ONE) == ("ledger.released" if done else "")
        ledger.verify()


def attempt_release(ledger: Ledger) -> SevAttestError | None:
    try:
        ledger.release(ONE, MEASUREMENT)
    except SevAttestError as error:
        return error
    return None


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_of_the_server_releases_nothing(server: Server, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    with folder() as disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
        try:
            if server.user:
                shutil.chown(disk, server.user)
            server.tell(f"CREATE TABLESPACE small LOCATION '{disk}'")
            server.tell("CREATE DATABASE small TABLESPACE small")
            with Ledger.open(server.url("small")) as ledger:
                assert release(ledger, ONE) == ""
                with pytest.raises(OSError, match="No space left"):
                    fill(disk / "filler")
                left = {ONE}
                full = ""
                for number in range(2, 2000):
                    full = release(ledger, session_id(number))
                    if full:
                        break
                    left.add(session_id(number))
                assert full == "ledger.full"
                assert released(ledger) == left
                ledger.verify()
                (disk / "filler").unlink()
                assert release(ledger, session_id(number)) == ""
                ledger.verify()
            print(f"\nledger.full after {len(left)} releases; then it goes on")
            server.tell("DROP DATABASE small WITH (FORCE)", "DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "-l", disk], check=True)


def test_without_the_flush_releases_are_lost(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test before this one has teeth."""
    monkeypatch.setattr(Postgres, "flush", lambda *_: None)
    lost: set[str] = set()
    left = 0
    for number in range(10):  # whether the log was written meanwhile is chance
        server.stop()
        server.start("wal_writer_delay=10s", "wal_writer_flush_after=1GB")
        with Ledger.open(url, timeout=60) as ledger:
            more, _ = load(ledger, 10000 * number, threads=4, crash=server)
        server.start()
        with Ledger.open(url) as ledger:
            lost = more - released(ledger)
        left += len(more)
        if lost:
            break
    print(f"\n{len(lost)} of {left} releases lost without the flush")
    assert lost


# Standbys.


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """Give a primary server and a standby of it, which is asynchronous."""
    from postgres_server import binaries

    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    with ExitStack() as stack:
        primary = Server(programs, stack.enter_context(folder()))
        primary.start()
        standby = Server(programs, stack.enter_context(folder()), follows=primary)
        standby.start()
        try:
            yield primary, standby
        finally:
            for each in (primary, standby):
                if each.process:
                    each.stop()


def both(pair: tuple[Server, Server], database: str) -> str:
    """Give a URL of both servers, in which the one that can be written to is used."""
    hosts = ",".join(str(server.folder) for server in pair)
    return f"postgresql://owner@/{database}?host={hosts}&target_session_attrs=read-write"


def caught_up(primary: Server, standby: Server, database: str) -> None:
    primary.tell("CREATE TABLE IF NOT EXISTS mark (x int)", database=database)
    for _ in range(600):
        try:
            standby.tell("SELECT * FROM mark", database=database)
        except psycopg.Error:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the standby does not follow")


def synchronous(primary: Server, *names: str) -> None:
    wanted = f"ANY 1 ({','.join(names)})" if names else ""
    primary.tell(
        f"ALTER SYSTEM SET synchronous_standby_names = '{wanted}'", "SELECT pg_reload_conf()"
    )
    time.sleep(0.5)


def test_a_synchronous_standby_that_is_promoted_has_every_release_that_left(
    pair: tuple[Server, Server],
) -> None:
    primary, standby = pair
    primary.new_database()
    url = both(pair, "keys1")
    Ledger.open(url).disconnect()
    caught_up(primary, standby, "keys1")
    synchronous(primary, f'"{standby.folder.name}"')
    with Ledger.open(url, timeout=60) as ledger:
        left, seen = load(ledger, 0, threads=8, crash=primary)
        standby.promote()
        assert seen <= {"ledger.connection", "ledger.read-only"}
        for session in left:  # the same process, which goes over to the new server
            assert release(ledger, session) == "ledger.released"
        ledger.verify()
    print(f"\n{len(left)} releases before the promotion, none of them a second time after it")


def test_an_asynchronous_standby_that_lost_events_releases_nothing(
    pair: tuple[Server, Server],
) -> None:
    primary, standby = pair
    primary.new_database()
    url = both(pair, "keys1")
    with Ledger.open(url) as ledger:
        assert release(ledger, ONE) == ""
        caught_up(primary, standby, "keys1")
        standby.stop()  # it lacks what comes now
        assert release(ledger, TWO) == ""
        primary.stop(signal.SIGQUIT)
        (standby.folder / "data" / "standby.signal").unlink()
        standby.start()
        seen = {release(ledger, session_id(number)) for number in range(1, 9)}
        assert seen <= {"ledger.lost", "ledger.connection"}
        assert release(ledger, TWO) == "ledger.lost"
        with pytest.raises(LedgerError) as refused:
            ledger.release(TWO, MEASUREMENT)
        print(f"\n{refused.value}; {refused.value.hint}")
    # Who has no memory of them cannot know.
    with Ledger.open(url) as other:
        assert release(other, TWO) == ""


def test_a_standby_is_named_as_what_cannot_be_written(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    with Ledger.open(primary.new_database()) as ledger:
        ledger.create(ONE)
    caught_up(primary, standby, "keys1")
    with Ledger.open(standby.url("keys1"), create=False) as copy:
        assert copy.get(ONE) is not None
        copy.verify()
        with pytest.raises(LedgerError) as refused:
            copy.bind(ONE, MEASUREMENT)
    print(f"\n{refused.value}; {refused.value.hint}")
    assert refused.value.check == "ledger.read-only"


def test_a_wait_for_the_standby_that_is_canceled_is_no_release(server: Server, url: str) -> None:
    with Ledger.open(url) as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
        server.tell(f"ALTER DATABASE {name_in(url)} SET synchronous_commit = off")
        synchronous(server, "nobody")
        outcome: list[SevAttestError | None] = []

        def attempt() -> None:
            try:
                ledger.release(ONE, MEASUREMENT)
            except SevAttestError as error:
                outcome.append(error)
            else:
                outcome.append(None)

        thread = threading.Thread(target=attempt)
        thread.start()
        waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        try:
            with psycopg.connect(server.url("postgres"), autocommit=True) as other:
                while not other.execute(f"SELECT 1 {waiting}".encode()).fetchall():
                    assert thread.is_alive()  # it waits, whatever the database's own setting is
                    time.sleep(0.05)
                other.execute(f"SELECT pg_cancel_backend(pid) {waiting}".encode())
            thread.join()
        finally:
            synchronous(server)
        (error,) = outcome
        assert isinstance(error, LedgerError)
        assert error.check == "ledger.connection"
        assert error.hint.startswith("the last step may have been taken")
        print(f"\n{error}")
        with pytest.raises(WrongState):  # it was taken, and nothing left
            ledger.release(ONE, MEASUREMENT)


# Connections.


def test_a_process_opens_few_connections_however_many_ask(url: str) -> None:
    with Ledger.open(url, timeout=60, connections=3) as ledger:
        most = 0
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            with psycopg.connect(url, autocommit=True) as other:
                count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                while not done.is_set():
                    row = other.execute(count).fetchone()
                    assert row is not None
                    most = max(most, row[0] - 1)
                    time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()
        left, seen = load(ledger, 0, threads=128, count=600)
        done.set()
        watcher.join()
    assert (len(left), seen) == (600, set())
    assert 1 <= most <= 3
    print(f"\n600 releases by 128 threads, with {most} connections")


def test_a_connection_that_the_server_ended_while_it_was_idle_costs_nothing(url: str) -> None:
    with Ledger.open(url) as ledger:
        ledger.create(ONE)
        with psycopg.connect(url, autocommit=True) as other:
            ended = other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        assert ended == [(True,)]
        assert ledger.bind(ONE, MEASUREMENT).state is State.MEASURED
        server_timeout = "SET idle_session_timeout = '100ms'"
        ((connection, _),) = ledger._here._idle
        connection.execute(server_timeout)
        time.sleep(1)
        assert ledger.release(ONE, MEASUREMENT).state is State.RELEASED


def test_behind_a_pooler_the_same_holds(pooler: Pooler, url: str, *, long: bool) -> None:
    rounds = 1000 if long else 200
    place = pooler.url(name_in(url))
    with Ledger.open(place, timeout=60) as ledger:
        winners = run_races(ledger, place, workers=8, rounds=rounds)
        assert len(winners) > 1
        left, seen = load(ledger, 1000, threads=32, count=400)
        assert (len(left), seen) == (400, set())
        ledger.verify()
    print(f"\n{rounds} races and 400 releases through pgbouncer: {dict(winners)}")


def test_a_server_that_crashes_behind_a_pooler_loses_nothing(
    server: Server, pooler: Pooler, url: str
) -> None:
    """The pooler keeps its clients: only the flush notices that the event is gone."""
    place = pooler.url(name_in(url))
    left: set[str] = set()
    for number in range(3):
        with Ledger.open(place, timeout=60) as ledger:
            more, _ = load(ledger, 10000 * number, threads=16, crash=server)
        server.start()
        left |= more
        server.wait_for(place)
        with Ledger.open(url) as ledger:
            assert left <= released(ledger)
            ledger.verify()
    print(f"\n{len(left)} releases over 3 crashes behind pgbouncer, none lost")


# Rights.


RIGHTS = (
    "GRANT SELECT, UPDATE ON sev_attest_ledger TO service",
    "GRANT SELECT, INSERT, UPDATE ON sev_attest_session TO service",
    "GRANT SELECT, INSERT ON sev_attest_event TO service",
    "GRANT SELECT, INSERT, UPDATE ON sev_attest_pending TO service",
)
"""What docs/ledger.md says that a service needs."""


def test_a_service_needs_few_rights(server: Server, url: str) -> None:
    server.tell("CREATE ROLE service LOGIN")
    as_service = url.replace("owner@", "service@")
    with pytest.raises(LedgerError) as refused:
        Ledger.open(as_service)
    assert refused.value.check == "ledger.permission"
    Ledger.open(url).disconnect()
    with pytest.raises(LedgerError) as refused:
        Ledger.open(as_service)
    assert refused.value.check == "ledger.permission"
    server.tell(*RIGHTS, database=name_in(url))
    with Ledger.open(as_service) as ledger:
        ledger.create(ONE, name="vm1", expires=datetime.now(UTC) + timedelta(hours=1))
        assert release(ledger, ONE) == ""
        ledger.create(TWO)
        ledger.fail(TWO, "a test")
        ledger.create(session_id(3), expires=datetime.now(UTC))
        assert ledger.expire() == 1
        assert len([*ledger.entries()]) == 3
        assert ledger.find("vm1")
        head = ledger.verify()
        assert ledger.verify(head) == head
    with psycopg.connect(as_service, autocommit=True) as connection:
        for forbidden in (
            "DELETE FROM sev_attest_session",
            "UPDATE sev_attest_event SET kind = 'x'",
            "TRUNCATE sev_attest_event",
            "ALTER TABLE sev_attest_event DISABLE TRIGGER ALL",
            "DROP TABLE sev_attest_event",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden.encode())


def test_only_the_owner_prunes(server: Server, url: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=9)
    with Ledger.open(url, clock=lambda: long_ago) as ledger:
        for number in range(20):
            assert release(ledger, session_id(number)) == ""
        ledger.create(session_id(99))
    rights = (right.replace("service", "other") for right in RIGHTS)
    server.tell("CREATE ROLE other LOGIN", *rights, database=name_in(url))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    gone: list[object] = []
    with Ledger.open(url.replace("owner@", "other@")) as ledger:
        with pytest.raises(LedgerError) as refused:
            ledger.prune(yesterday, lambda *_: gone.append("exported"))
        assert refused.value.check == "ledger.owner"
        assert gone == []
    with Ledger.open(url) as ledger:
        done = ledger.prune(yesterday, lambda _head, going: gone.extend(going))
        assert (done.sessions, done.removed, len(gone)) == (20, 60, 20)
        assert ledger.verify().count == 62
        with pytest.raises(psycopg.Error, match="only grows"):
            server.tell("DELETE FROM sev_attest_event", database=name_in(url))
        assert release(ledger, session_id(99)) == ""
        ledger.verify()
