"""A process that takes steps on a ledger for the tests: in a race, or until it is killed.

``race PLACE``: for each attempt that comes on standard input, tries to release it, and says how it
went.
``fork``: for each PLACE, attempt and POINT that come, has a child make a launch from its creation
to its release, which is killed at POINT.
``make FOLDER``: makes one ledger after another there, killed after each call into the system.
"""

import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg  # noqa: F401 - for the children, which have a short life
import pytest

from sev_attest._keys import Kem
from sev_attest.errors import WrongState
from sev_attest.owner.ledger import KeptChallenge, Ledger, LedgerEntry, Technology, postgres
from sev_attest.owner.ledger.store import StoreConnection
from workers import fork_for_each, race_for_each, racers, run_forked, say

MEASUREMENT = bytes(range(48))
CREATED = "2026-01-01T00:00:00+00:00"
STEPS = ("create", "bind", "release")
_STATEMENTS = {
    "BEGIN": "begin",
    "SELECT events": "look",
    "INSERT INTO sev_attest_event": "event",
    "INSERT INTO sev_attest_session": "row",
    "UPDATE sev_attest_session": "row",
    "UPDATE sev_attest_ledger": "head",
    "COMMIT": "commit",
}
POINTS = [
    *(
        f"{step} {when} {what}"
        for step in STEPS
        for what in ("begin", "look", "event", "row", "head", "commit")
        for when in ("before", "after")
    ),
    "release before output",
]
"""Where a worker can be killed."""


def session_id(number: int) -> str:
    return f"{number:064x}"


class Attempt(NamedTuple):
    """An attempt of either kind; as a line of text, it is passed to another process."""

    number: int
    technology: Technology = Technology.SEV

    def __str__(self) -> str:
        return f"{self.number} {self.technology}"

    @classmethod
    def read(cls, line: str) -> "Attempt":
        number, technology = line.split()
        return cls(int(number), Technology(technology))

    @property
    def challenge(self) -> KeptChallenge | None:
        if self.technology is Technology.SEV:
            return None
        nonce = self.number.to_bytes(32, "big")
        return KeptChallenge(nonce=nonce, created=CREATED, kems=(Kem.X25519,))

    @property
    def id(self) -> str:
        return self.challenge.attempt if self.challenge else session_id(self.number)

    def create(self, ledger: Ledger) -> LedgerEntry:
        return ledger.create(self.id, challenge=self.challenge)

    def bind(self, ledger: Ledger) -> None:
        ledger.bind(self.id, MEASUREMENT, technology=self.technology)

    def release(self, ledger: Ledger) -> None:
        ledger.release(self.id, MEASUREMENT, technology=self.technology)


def everything(ledger: Ledger) -> tuple[object, ...]:
    """Give all that is in a ledger."""
    return (*ledger.entries(), *ledger.events())


@contextmanager
def locked(ledger: Ledger) -> Iterator[StoreConnection]:
    """Hold the lock that a step takes, as another process."""
    connection = ledger._store.connect()
    connection.execute(ledger._store.writing)
    try:
        yield connection
    finally:
        connection.close()


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(Path(__file__)), *map(str, arguments)]


def run_races(
    ledger: Ledger,
    place: object,
    *,
    workers: int,
    rounds: int,
    technology: Technology = Technology.SEV,
) -> Counter[str]:
    """Race for one attempt after another; exactly one process wins each."""
    seen: Counter[str] = Counter()
    with racers(__file__, place, workers) as race:
        for number in range(rounds):
            attempt = Attempt(number, technology)
            attempt.create(ledger)
            attempt.bind(ledger)
            answers = race(str(attempt))
            assert sorted(answers) == ["ledger.released"] * (workers - 1) + ["won"]
            seen[str(answers.index("won"))] += 1
            kinds = [event.kind for event in ledger.events(attempt.id)]
            assert kinds == ["created", "measured", "released"]
    assert ledger.verify().count == 3 * rounds
    return seen


def die_and_restart(ledger: Ledger, place: object, attempt: Attempt, point: str) -> None:
    """Have a worker killed at a point; then what it left is sound, and at most one release."""
    died = run_forked(__file__, place, attempt, point)
    assert died.returncode == -signal.SIGKILL, (point, died)
    assert died.stdout == ""
    ledger.verify()
    kinds = [event.kind for event in ledger.events(attempt.id)]
    entry = ledger.get(attempt.id)
    if entry is None:
        assert kinds == []
        assert point.startswith("create ")
        entry = attempt.create(ledger)
    else:
        assert kinds == ["created", "measured", "released"][: len(kinds)]
        assert kinds[-1] == entry.state
        assert entry.explain(ledger.now)
    # A release that is in the ledger is never made again, whether or not its output was seen.
    left_already = entry.state == "released"
    assert left_already == (point in ("release after commit", "release before output"))
    if left_already:
        with pytest.raises(WrongState) as refused:
            attempt.release(ledger)
        assert refused.value.check == "ledger.released"
    else:
        attempt.bind(ledger)
        attempt.release(ledger)
    kinds = [event.kind for event in ledger.events(attempt.id)]
    assert kinds == ["created", "measured", "released"]


def _race(ledger: Ledger, line: str) -> None:
    Attempt.read(line).release(ledger)


def _die(place: str, line: str, point: str) -> None:
    attempt = Attempt.read(line)
    now = ""

    def reach(reached: str) -> None:
        if f"{now} {reached}" == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(execute: Callable[..., Any]) -> Callable[..., Any]:
        def run(connection: object, sql: str, *values: Any) -> Any:
            what = next((_STATEMENTS[begin] for begin in _STATEMENTS if sql.startswith(begin)), "")
            reach(f"before {what}")
            result = execute(connection, sql, *values)
            reach(f"after {what}")
            return result

        return run

    class Deadly(sqlite3.Connection):
        execute = deadly(sqlite3.Connection.execute)

    def launch() -> None:
        nonlocal now
        with Ledger.open(place, create=False) as ledger:
            now = "create"
            attempt.create(ledger)
            now = "bind"
            attempt.bind(ledger)
            now = "release"
            attempt.release(ledger)
            reach("before output")
            say("released")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Deadly))
        patched = deadly(postgres._PostgresDriver.execute)
        patch.setattr(postgres._PostgresDriver, "execute", patched)
        launch()


_CALLS = frozenset({"mkdir", "open", "flock", "connect", "execute", "rename", "link", "unlink"})


def _make(folder: str) -> None:
    """Kill a child after each call into the system; the next one must find all in order."""
    killed = 0
    while True:
        place = Path(folder, str(killed), "ledger")
        child = os.fork()
        if child == 0:
            left = killed

            def count(_frame: object, event: str, called: object) -> None:
                nonlocal left
                if event == "c_return" and getattr(called, "__name__", "") in _CALLS:
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.setprofile(count)
            Ledger.open(place).disconnect()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if place.exists():
            assert place.stat().st_nlink == 1, killed
        with Ledger.open(place) as ledger:
            ledger.create(session_id(killed))
            ledger.verify()
        assert [path.name for path in place.parent.iterdir()] == ["ledger"], killed
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
    say(f"{killed}")


if __name__ == "__main__":
    ROLES: dict[str, Callable[..., None]] = {
        "race": partial(race_for_each, _race),
        "fork": partial(fork_for_each, _die),
        "make": _make,
    }
    ROLES[sys.argv[1]](*sys.argv[2:])
