"""The ledger on SQLite and on a real PostgreSQL server: races, deaths, full disks.

The server is started here, on a socket in a folder of its own; its binaries are looked for where
distributions keep them.
"""

import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ledger_worker import (
    MEASUREMENT,
    POINTS,
    die_and_restart,
    run_races,
    session_id,
)
from sev_attest.errors import WrongState
from sev_attest.owner.ledger import Ledger, LedgerDamaged, LedgerError

ONE = session_id(1)


class Server:
    """A PostgreSQL server of our own."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries = binaries
        self.folder = folder
        self.user = None
        if os.geteuid() == 0:  # which the server refuses
            self.user = "nobody"
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, -1)
        self.process: subprocess.Popen[bytes] | None = None
        self.databases = 0

    def run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self.binaries / name), "-D", str(self.folder / "data"), *arguments],
                user=self.user,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        socket = f"unix_socket_directories={self.folder}"
        self.process = self.run("postgres", "-c", "listen_addresses=", "-c", socket)
        for _ in range(300):
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(2)  # a fast shutdown: clients are cut off
        self.process.wait()

    def url(self, database: str) -> str:
        return f"postgresql://owner@/{database}?host={self.folder}"

    def new_database(self) -> str:
        self.databases += 1
        name = f"keys{self.databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian: not on the PATH
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve())
    return found[0].parent if found else None


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    # Not pytest's folder: its name is too long for a socket, and closed to other users.
    with tempfile.TemporaryDirectory(prefix="ledger") as folder:
        made = Server(binaries, Path(folder))
        made.run("initdb", "-U", "owner", "-A", "trust", "-E", "UTF8").wait()
        made.start()
        print(f"\nPostgreSQL from {binaries}")
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def url(server: Server) -> str:
    return server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite3")
    found: str = request.getfixturevalue("url")
    return found


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    with Ledger.open(place, timeout=60) as opened:
        yield opened


def test_of_8_processes_exactly_one_releases_in_each_of_200_rounds(
    ledger: Ledger, place: str
) -> None:
    winners = run_races(ledger, place, workers=8, rounds=200)
    print(f"\n{ledger.place}: 200 rounds, each won once, by worker: {dict(winners)}")
    assert len(winners) > 1  # they did race


def test_of_222_that_are_killed_none_leads_to_a_second_release(ledger: Ledger, place: str) -> None:
    deaths = [point for point in POINTS for _ in range(6)]
    for number, point in enumerate(deaths):
        die_and_restart(ledger, place, session_id(number), point)
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
        with ledger._transaction(ledger._store.writing):
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
        ledger._idle.append(ledger._store.connect())
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


def test_the_server_syncs_and_ends_who_holds_the_lock_and_sleeps(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as server:
        name = server.info.dbname
        server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
        server.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode()
        )
    with Ledger.open(url) as ledger:
        ledger.create(ONE)
        (connection,) = ledger._idle
        shown = [
            connection.execute(f"SHOW {setting}").fetchone()[0]
            for setting in ("synchronous_commit", "idle_in_transaction_session_timeout")
        ]
    assert shown == ["on", "10s"]


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
