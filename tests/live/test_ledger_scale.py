"""A ledger with very many sessions: memory stays constant, and no step reads all of it.

With ``--long`` it has a million sessions, else ten thousand.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ledger_bulk import MEASUREMENT, fill, name_of, session_of
from sev_attest.errors import Insecure, WrongState
from sev_attest.owner.ledger import Head, Ledger, step
from sev_attest.owner.ledger.reading import CREATED_AS, PAGE, Reader
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.owner.ledger.store import StoreConnection

if TYPE_CHECKING:
    from postgres_server import Server

TOOL = [sys.executable, "-m", "sev_attest"]
FEW = 100
MOST_MIB = 256
GROWTH_MIB = 24
WAIT = 15.0  # more than the ledger allows a writer on PostgreSQL


@dataclass(frozen=True)
class Scaled:
    """A ledger with ``count`` sessions."""

    place: str
    count: int
    head: Head


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def places(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Give a function that makes room for a new ledger."""
    if request.param == "sqlite":
        return lambda: str(tmp_path_factory.mktemp("scale") / "ledger.sqlite3")
    server: Server = request.getfixturevalue("server")
    return server.new_database


@pytest.fixture(scope="module")
def few(places: Callable[[], str]) -> Scaled:
    place = places()
    return Scaled(place, FEW, fill(place, FEW))


@pytest.fixture(scope="module")
def many(places: Callable[[], str], *, long: bool) -> Scaled:
    place, count = places(), 10**6 if long else 10**4
    begin = time.monotonic()
    made = Scaled(place, count, fill(place, count))
    print(f"\n{count} sessions made in {time.monotonic() - begin:.0f} s")
    return made


# Whole processes.

# A process inherits the peak of the one that starts it: a small one has to.
STARTER = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss // 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(place: str, output: Path, *arguments: str) -> int:
    """Run `sev-attest ledger`, which must succeed; give its peak of memory in MiB."""
    starter = [sys.executable, "-I", "-S", "-c", STARTER]
    with output.open("wb") as out:
        ran = subprocess.run(
            [*starter, *TOOL, "ledger", *arguments, "--ledger", place],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    *told, peak = ran.stderr.decode().splitlines()
    assert ran.returncode == 0, (arguments, ran)
    assert all(line.startswith("note: ") for line in told), (arguments, ran)
    return int(peak)


def lines_with(path: Path, text: bytes) -> int:
    with path.open("rb") as file:
        return sum(text in line for line in file)


ROW = b'      "session_id": '  # of a list in a document
LEFT = b"its secret left"
COMMANDS: dict[str, tuple[bytes, Callable[[int], int]]] = {
    "list": (LEFT, lambda count: count),
    "list --json": (ROW, lambda count: count),
    "show NAME": (LEFT, lambda _: 1),
    "show PREFIX": (LEFT, lambda _: 1),
    "verify": (b"OK: ", lambda _: 1),
    "verify --head HEAD": (b"OK: ", lambda _: 1),
    "export": (ROW, lambda count: 4 * count),
    "export -o FILE": (ROW, lambda count: 4 * count),
}
"""Each command, and in how many lines of its output a text is."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_needs_no_more_memory_however_many_sessions_there_are(
    command: str, few: Scaled, many: Scaled, tmp_path: Path
) -> None:
    text, expected = COMMANDS[command]
    peaks = []
    for scaled in (few, many):
        given = {
            "NAME": name_of(scaled.count // 2),
            "PREFIX": session_of(scaled.count // 2)[:12],
            "HEAD": str(scaled.head),
            "FILE": str(tmp_path / f"{scaled.count}.json"),
        }
        output = tmp_path / "output"
        begin = time.monotonic()
        arguments = [given.get(word, word) for word in command.split()]
        peaks.append(run(scaled.place, output, *arguments))
        took = time.monotonic() - begin
        print(f"\nledger {command}, {scaled.count} sessions: {took:.1f} s, {peaks[-1]} MiB")
        result = Path(given["FILE"]) if "FILE" in command else output
        assert lines_with(result, text) == expected(scaled.count)
        result.unlink()
    assert peaks[1] <= min(MOST_MIB, peaks[0] + GROWTH_MIB)


def test_an_export_waits_for_whoever_reads_it(many: Scaled, tmp_path: Path, *, long: bool) -> None:
    if not long:
        pytest.skip("waits for a quarter of a minute (--long)")
    command = [*TOOL, "ledger", "export", "--ledger", many.place]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        (tmp_path / "output").open("wb") as output,
    ):
        assert process.stdout is not None
        output.write(process.stdout.read(4096))
        time.sleep(WAIT)
        for block in iter(lambda: process.stdout and process.stdout.read(1 << 20), b""):
            output.write(block or b"")
    assert process.returncode == 0
    assert lines_with(tmp_path / "output", ROW) == 4 * many.count


# Statements. These tests are last: they take steps in the ledgers that those above read.


def every_step(ledger: Ledger, count: int) -> None:
    """Take each step of the ledger, and read what it has in each way."""
    known, new = session_of(count // 3), [session_of(-number) for number in range(1, 5)]
    other = bytes(48)
    ledger.create(new[0], name="new")
    with suppress(Insecure):
        ledger.create(known)
    ledger.bind(new[0], MEASUREMENT, unmet="a reason")
    with suppress(Insecure):
        ledger.bind(known, other)
    ledger.release(new[0], MEASUREMENT)
    with suppress(WrongState):
        ledger.release(known, MEASUREMENT)
    for session, end in ((new[1], ledger.fail), (new[2], ledger.close)):
        ledger.create(session)
        end(session, "a reason")
    ledger.release(new[3], MEASUREMENT, adopt=True)
    ledger.get(known)
    ledger.root(known)
    assert ledger.find(name_of(count // 3))
    assert ledger.find(known[:12])
    assert list(ledger.events(known))
    list(islice(ledger.entries(), 2 * PAGE))
    list(islice(ledger.events(), 2 * PAGE))

    def attempts(reader: Reader) -> None:
        for _, events in islice(reader.attempts(), 2):
            list(events)

    ledger.snapshot(attempts)
    ledger.create(session_of(-5), expires=datetime(2026, 1, 1, tzinfo=UTC))
    assert ledger.expire() == 1
    ledger.accept_head("a reason")


Statement = tuple[str, tuple[object, ...]]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """Give a list of all statements that are run, with their values."""
    seen: list[Statement] = []
    execute = StoreConnection.execute

    def noted(connection: StoreConnection, sql: str, values: tuple[object, ...] = ()) -> object:
        seen.append((sql.format_map(connection._store.names), values))
        return execute(connection, sql, values)

    monkeypatch.setattr(StoreConnection, "execute", noted)
    return seen


def explained(ledger: Ledger, statement: Statement) -> str:
    """Give how the database runs a statement."""
    sql, values = statement
    explain = "EXPLAIN QUERY PLAN" if isinstance(ledger._store, Sqlite) else "EXPLAIN"
    with closing(ledger._store.connect()) as connection:
        rows = connection.execute(f"{explain} {sql}", values).fetchall()
    return "\n".join(row[-1] for row in rows)


SCAN = re.compile("(SCAN|Seq Scan on) sev_attest_(event|session)")
SORT = re.compile("TEMP B-TREE|Sort")


def reads_all(sql: str, plan: str) -> bool:
    """Tell whether a statement reads more rows, the more sessions there are.

    LIMIT ends the scan for a first page, and of the index of open sessions, which has no others.
    What is sorted must be one session's, or of the sessions of one page: up to the last of them.
    """
    ends = "LIMIT" in sql and ("WHERE" not in sql or "USING INDEX sev_attest_open" in plan)
    scans = SCAN.search(plan) and not ends
    sorts = SORT.search(plan) and not re.search("session_id <?= ", sql)
    return bool(scans or sorts)


def test_no_statement_reads_more_the_more_sessions_there_are(
    many: Scaled, statements: list[Statement]
) -> None:
    with Ledger.open(many.place) as ledger:
        opened = len(statements)
        every_step(ledger, many.count)
        taken = [each for each in statements[opened:] if re.match("SELECT|INSERT|UPDATE", each[0])]
        known = {sql.format_map(ledger._store.names) for sql in (step.LOOK, CREATED_AS)}
        known |= {sql.format_map(ledger._store.names) for sql in (step._TOLD, step._MEASURED_AT)}
        assert known <= {sql for sql, _ in taken}
        plans = {sql: explained(ledger, (sql, values)) for sql, values in taken}
    assert len(plans) > 20
    assert {sql: plan for sql, plan in plans.items() if reads_all(sql, plan)} == {}


def test_a_plan_that_reads_all_is_noticed(many: Scaled) -> None:
    """The test before this one has teeth."""
    with Ledger.open(many.place) as ledger:
        for sql in (
            "SELECT * FROM sev_attest_event WHERE hash = ?",
            "SELECT * FROM sev_attest_session WHERE note > ? ORDER BY created LIMIT 9",
            "SELECT * FROM sev_attest_session WHERE created > ? ORDER BY note",
        ):
            assert reads_all(sql, explained(ledger, (sql, ("x",))))


def test_show_takes_as_many_statements_however_many_sessions_there_are(
    few: Scaled, many: Scaled, statements: list[Statement]
) -> None:
    def shown(scaled: Scaled) -> list[str]:
        statements.clear()
        with Ledger.open(scaled.place) as ledger:
            (entry,) = ledger.find(name_of(scaled.count // 2))
            assert len(list(ledger.events(entry.session_id))) == 3
            assert ledger.root(entry.session_id) == "AMD Milan"
        return [sql for sql, _ in statements]

    assert shown(few) == shown(many)
