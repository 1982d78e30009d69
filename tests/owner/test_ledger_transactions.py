"""The steps of many threads in one transaction, on a store that waits, fails or is interrupted."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger_worker import MEASUREMENT, locked, session_id
from sev_attest.errors import SevAttestError, WrongState
from sev_attest.owner.ledger import Ledger, LedgerError, transactions
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.owner.ledger.store import StoreConnection
from sev_attest.owner.ledger.transactions import MAX_STEPS, Transactions

ONE = session_id(1)
WAIT = 30


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger", timeout=WAIT) as opened:
        yield opened


class Gate:
    """Holds the first transaction until others wait, and counts the commits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits = 0
        self.open = threading.Event()
        self.reached = threading.Event()
        execute = StoreConnection.execute

        def gated(connection: StoreConnection, sql: str, values: tuple[Any, ...] = ()) -> Any:
            if sql == "COMMIT":
                self.commits += 1
                self.reached.set()
                assert self.open.wait(WAIT)
            return execute(connection, sql, values)

        monkeypatch.setattr(StoreConnection, "execute", gated)


def in_threads(*acts: Callable[[], object]) -> tuple[list[threading.Thread], list[object]]:
    """Run each in a thread of its own; give what they return or raise, in the same order."""
    found: list[object] = [None] * len(acts)

    def run(number: int) -> None:
        try:
            found[number] = acts[number]()
        except BaseException as error:  # noqa: BLE001 - that is what is looked at
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    return threads, found


def waiting(ledger: Ledger, count: int) -> None:
    end = time.monotonic() + WAIT
    while len(ledger._here._waiting) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_steps_that_wait_are_taken_in_one_transaction(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first, _ = in_threads(lambda: ledger.create(session_id(0)))
    assert gate.reached.wait(WAIT)
    count = MAX_STEPS + 5
    creating = (
        lambda number=number: ledger.create(session_id(number)) for number in range(1, count + 1)
    )
    others, found = in_threads(*creating)
    waiting(ledger, count)
    gate.open.set()
    joined([*first, *others])
    assert {type(each).__name__ for each in found} == {"LedgerEntry"}
    assert gate.commits == 3
    assert ledger.verify().count == count + 1


def test_each_step_of_a_transaction_has_its_own_outcome(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.release(ONE, MEASUREMENT, adopt=True)
    gate = Gate(monkeypatch)
    first, _ = in_threads(lambda: ledger.create(session_id(0)))
    assert gate.reached.wait(WAIT)
    others, found = in_threads(
        lambda: ledger.release(ONE, MEASUREMENT),
        lambda: ledger.release(session_id(2), MEASUREMENT, adopt=True),
        lambda: ledger.bind(ONE, bytes(48)),
    )
    waiting(ledger, 3)
    gate.open.set()
    joined([*first, *others])
    assert [getattr(each, "check", "") for each in found] == [
        "ledger.released",
        "",
        "ledger.reused",
    ]
    assert gate.commits == 2
    assert [event.kind for event in ledger.events(ONE)][-1] == "refused"
    ledger.verify()


def test_a_step_that_cannot_be_taken_leaves_the_others_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.create(session_id(2))
    with sqlite3.connect(ledger.place) as connection:
        connection.execute("UPDATE sev_attest_session SET created = 'damaged'")
    connection.close()
    gate = Gate(monkeypatch)
    first, _ = in_threads(lambda: ledger.create(session_id(0)))
    assert gate.reached.wait(WAIT)

    def bug(_step: object) -> None:
        raise ZeroDivisionError

    others, found = in_threads(
        lambda: ledger.create(ONE),
        lambda: ledger.bind(session_id(2), MEASUREMENT),
        lambda: ledger._step(session_id(3), bug),
        lambda: ledger.create(session_id(4)),
    )
    waiting(ledger, 4)
    gate.open.set()
    joined([*first, *others])
    assert [getattr(each, "check", type(each).__name__) for each in found] == [
        "LedgerEntry",
        "ledger.damaged",
        "ZeroDivisionError",
        "LedgerEntry",
    ]
    assert [event.seq for event in ledger.events()] == [1, 2, 3, 4]


def test_a_transaction_that_cannot_begin_or_commit_fails_all_its_steps(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first, _ = in_threads(lambda: ledger.create(session_id(0)))
    assert gate.reached.wait(WAIT)
    others, found = in_threads(lambda: ledger.create(ONE), lambda: ledger.create(session_id(2)))
    waiting(ledger, 2)
    flushed = ledger._store.flush

    def fail(connection: StoreConnection, head: Any) -> None:
        if head.count > 1:
            raise ledger._store.fault("connection")
        flushed(connection, head)

    monkeypatch.setattr(ledger._store, "flush", fail)
    gate.open.set()
    joined([*first, *others])
    assert [getattr(each, "check", "") for each in found] == ["ledger.connection"] * 2
    assert found[0] is not found[1]
    assert ledger._floor.head.count == 1


def test_an_interrupted_leader_fails_those_that_wait_with_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first, _ = in_threads(lambda: ledger.create(session_id(0)))
    assert gate.reached.wait(WAIT)

    def interrupt(_step: object) -> None:
        raise KeyboardInterrupt

    others, found = in_threads(
        lambda: ledger._step(session_id(2), interrupt), lambda: ledger.create(ONE)
    )
    waiting(ledger, 2)
    gate.open.set()
    joined([*first, *others])
    kinds = {type(each).__name__ for each in found}
    assert "KeyboardInterrupt" in kinds
    for each in found:
        if isinstance(each, LedgerError):
            assert each.check == "ledger.interrupted"
    assert ledger.create(session_id(5)).state == "created"
    assert ledger.get(session_id(2)) is None


def test_an_interrupted_thread_that_waits_takes_its_step_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first, _ = in_threads(lambda: ledger.create(session_id(0)))
    assert gate.reached.wait(WAIT)

    def interrupt(_timeout: object = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger._here._turn, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ledger.create(ONE)
    gate.open.set()
    joined(first)
    assert ledger.get(ONE) is None


@pytest.mark.parametrize("where", ["_next", "_lead", "_take", "_run", "_pass_on"])
def test_wherever_an_interrupt_comes_the_next_step_is_taken(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    function = getattr(Transactions, where)

    def interrupted(self: Transactions, *given: Any) -> Any:
        function(self, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Transactions, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.create(ONE)
    assert ledger.create(session_id(2)).state == "created"
    assert ledger._here._leader is None
    assert ledger._here._waiting == []
    ledger.verify()


def test_a_step_waits_for_others_no_longer_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "_LEAST_WAIT", 0.05)
    with Ledger.open(tmp_path / "ledger", timeout=0) as ledger:
        gate = Gate(monkeypatch)
        first, _ = in_threads(lambda: ledger.create(session_id(0)))
        assert gate.reached.wait(WAIT)
        with pytest.raises(LedgerError) as refused:
            ledger.create(ONE)
        assert refused.value.check == "ledger.busy"
        gate.open.set()
        joined(first)
        assert ledger.create(ONE)


def test_more_readers_than_connections_wait_and_then_are_told(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger", timeout=0.01, connections=1) as ledger:
        assert isinstance(ledger.snapshot(lambda _: ledger.entries()), Iterator)
        with pytest.raises(LedgerError) as refused:
            ledger.snapshot(lambda _: ledger.get(ONE))
        assert refused.value.check == "ledger.busy"
        assert ledger.get(ONE) is None


def test_a_connection_is_not_used_for_ever(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.create(ONE)
    ((connection, _),) = ledger._here._idle
    ledger.get(ONE)
    assert ledger._here._idle[0][0] is connection
    monkeypatch.setattr(transactions, "LIFETIME", 0)
    ledger.get(ONE)
    assert ledger._here._idle == []
    assert ledger.get(ONE) is not None


def test_a_connection_that_died_while_idle_is_replaced_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.create(ONE)
    ledger._here._idle *= 3
    monkeypatch.setattr(Sqlite, "translated", lambda self, *_, **__: self.fault("connection"))
    ledger._here._idle[0][0].close()
    assert ledger.bind(ONE, MEASUREMENT).state == "measured"
    assert len(ledger._here._idle) == 1
    ledger._here._idle[0][0].close()
    monkeypatch.setattr(Sqlite, "translated", lambda self, *_, **__: self.fault("locked"))
    with pytest.raises(LedgerError) as refused:
        ledger.get(ONE)
    assert refused.value.check == "ledger.locked"


def test_a_connection_on_which_nothing_can_begin_is_closed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.disconnect()
    with locked(ledger):
        monkeypatch.setattr(ledger._store, "timeout", 0)
        with pytest.raises(LedgerError) as refused:
            ledger.create(ONE)
        assert refused.value.check == "ledger.locked"
    assert ledger.create(ONE)


def test_refusals_are_not_flushed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what lets something leave has to wait for the disk."""
    flushed: list[int] = []
    monkeypatch.setattr(
        ledger._store, "flush", lambda _connection, head: flushed.append(head.count)
    )
    ledger.create(ONE)
    with pytest.raises(WrongState):
        ledger.close(session_id(2))
    with pytest.raises(SevAttestError):
        ledger.create(ONE)
    ledger.bind(ONE, MEASUREMENT)
    ledger.bind(ONE, MEASUREMENT)  # another process may have bound it just now
    with pytest.raises(SevAttestError):
        ledger.create(ONE)
    # The first refusal of a kind is logged.
    assert flushed == [1, 2, 3, 3]
