"""The ledger on SQLite and on a real PostgreSQL server: races, deaths, full disks.

What is particular to PostgreSQL is in test_postgresql.py.
"""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ledger_worker import (
    MEASUREMENT,
    POINTS,
    Attempt,
    die_and_restart,
    locked,
    run_races,
    session_id,
)
from postgres_server import Server
from sev_attest.errors import WrongState
from sev_attest.owner.ledger import Ledger, LedgerDamaged, LedgerError, Technology

ONE = session_id(1)


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    with Ledger.open(place, timeout=60) as opened:
        yield opened


@pytest.mark.parametrize("technology", Technology)
def test_of_8_processes_exactly_one_releases_in_each_of_many_rounds(
    ledger: Ledger, place: str, technology: Technology, *, long: bool
) -> None:
    rounds = 1000 if long else 200
    winners = run_races(ledger, place, workers=8, rounds=rounds, technology=technology)
    told = f"{rounds} rounds of {technology}, each won once, by worker"
    print(f"\n{ledger.place}: {told}: {dict(winners)}")
    assert len(winners) > 1  # they did race


@pytest.mark.parametrize("technology", Technology)
def test_of_222_that_are_killed_none_leads_to_a_second_release(
    ledger: Ledger, place: str, technology: Technology
) -> None:
    deaths = [point for point in POINTS for _ in range(6)]
    for number, point in enumerate(deaths):
        die_and_restart(ledger, place, Attempt(number, technology), point)
    ledger.verify()
    assert {entry.state for entry in ledger.entries()} == {"released"}
    print(f"\n{ledger.place}: {len(deaths)} kills at {len(POINTS)} points, no second release")


def test_8_processes_make_one_ledger(place: str) -> None:
    code = (
        "import sys; from sev_attest.owner.ledger import Ledger\n"
        "with Ledger.open(sys.argv[1], timeout=60) as ledger: ledger.create(sys.argv[2])"
    )
    for round_ in range(5):
        makers = [
            subprocess.Popen([sys.executable, "-c", code, place, session_id(8 * round_ + number)])
            for number in range(8)
        ]
        assert [maker.wait() for maker in makers] == [0] * 8
        with Ledger.open(place) as ledger:
            assert ledger.verify().count == 8 * (round_ + 1)


def test_a_ledger_that_is_locked_releases_nothing(ledger: Ledger, place: str) -> None:
    ledger.bind(ONE, MEASUREMENT, adopt=True)
    with Ledger.open(place, timeout=0.2) as waiting:
        with locked(ledger):
            assert waiting.get(ONE) is not None  # reading goes on
            with pytest.raises(LedgerError) as refused:
                waiting.release(ONE, MEASUREMENT)
        assert refused.value.check == "ledger.locked"
        print(f"\n{refused.value}")
        waiting.release(ONE, MEASUREMENT)


def test_verify_detects_what_the_database_s_own_owner_did(ledger: Ledger, place: str) -> None:
    ledger.bind(ONE, MEASUREMENT, adopt=True)
    ledger.release(ONE, MEASUREMENT)
    noted = ledger.verify()
    statement = "UPDATE sev_attest_event SET kind = 'seen' WHERE seq = 3"
    if place.startswith("postgresql:"):
        with psycopg.connect(place, autocommit=True) as server:
            for forbidden in (
                statement,
                "DELETE FROM sev_attest_event",
                "TRUNCATE sev_attest_event",
                "DELETE FROM sev_attest_session",
                "TRUNCATE sev_attest_session",
            ):
                with pytest.raises(psycopg.Error, match="the ledger only grows"):
                    server.execute(forbidden.encode())
            assert ledger.verify() == noted
            server.execute("SET session_replication_role = replica")  # no triggers
            server.execute(statement.encode())
    else:
        with sqlite3.connect(place) as file:
            file.execute("DROP TRIGGER sev_attest_keeps_0")
            file.execute(statement)
        file.close()
    with pytest.raises(LedgerDamaged) as found:
        ledger.verify(noted)
    print(f"\n{found.value.findings}")


def test_a_restarted_server_costs_one_step(server: Server, url: str) -> None:
    with Ledger.open(url) as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
        ledger._here._idle.append((ledger._store.connect(), time.monotonic()))
        server.stop()
        with pytest.raises(LedgerError) as refused:
            ledger.release(ONE, MEASUREMENT)
        print(f"\n{refused.value}")
        with pytest.raises(LedgerError) as refused:
            ledger.release(ONE, MEASUREMENT)
        assert refused.value.check == "ledger.connection"
        print(refused.value)
        server.start()
        ledger.release(ONE, MEASUREMENT)
        with pytest.raises(WrongState):
            ledger.release(ONE, MEASUREMENT)


def test_the_server_ends_who_holds_the_lock_and_sleeps(url: str) -> None:
    with Ledger.open(url) as ledger:
        ledger.create(ONE)
        with locked(ledger) as connection:
            shown = [
                connection.execute(f"SHOW {setting}").fetchone()[0]
                for setting in ("lock_timeout", "idle_in_transaction_session_timeout")
            ]
    assert shown == ["5s", "10s"]


def test_a_user_who_may_not_write_is_told(server: Server, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
    as_guest = url.replace("owner@", "guest@")
    with pytest.raises(LedgerError) as refused:
        Ledger.open(as_guest)
    assert refused.value.check == "ledger.permission"
    print(f"\n{refused.value}")
    with pytest.raises(LedgerError) as refused:
        Ledger.open(server.url("nowhere"))
    print(refused.value)
    assert refused.value.check == "ledger.connection"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    options = "size=2m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", mounted], check=True)
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_releases_nothing(disk: Path) -> None:
    with Ledger.open(disk / "ledger") as ledger:
        sessions = [session_id(number) for number in range(100)]
        for session in sessions:
            ledger.bind(session, MEASUREMENT, adopt=True)
        with pytest.raises(OSError, match="No space left"):
            _fill(disk / "filler")
        left = set()
        full = None
        for session in sessions:
            try:
                ledger.release(session, MEASUREMENT)
            except LedgerError as error:
                full = error
            else:
                left.add(session)  # there was room in the files
        assert full is not None
        assert full.check == "ledger.full"
        print(f"\nafter {len(left)} releases: {full}")
        (disk / "filler").unlink()
        assert {e.session_id for e in ledger.entries() if e.state == "released"} == left
        assert {e.session_id for e in ledger.events() if e.kind == "released"} == left
        ledger.verify()
        for session in set(sessions) - left:
            ledger.release(session, MEASUREMENT)
        ledger.verify()


def test_a_disk_without_room_takes_no_ledger(disk: Path) -> None:
    (disk / "filler").write_bytes(bytes(2032 << 10))
    with pytest.raises(LedgerError) as refused:
        Ledger.open(disk / "ledger")
    print(f"\n{refused.value}")
    assert refused.value.check == "ledger.full"
    assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_read_only_disk_is_an_error(disk: Path) -> None:
    with Ledger.open(disk / "ledger") as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for name in ("ledger", "other"):
        with pytest.raises(LedgerError) as refused, Ledger.open(disk / name) as ledger:
            ledger.release(ONE, MEASUREMENT)
        print(f"\n{refused.value}")
        assert refused.value.check in ("ledger.read-only", "ledger.permission")
