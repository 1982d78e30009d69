"""owner/ledger/: every session is used once, whoever races, dies or meddles."""

import base64
import errno
import fcntl
import json
import os
import random
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger_worker import (
    MEASUREMENT,
    POINTS,
    Attempt,
    die_and_restart,
    everything,
    run_races,
    session_id,
)
from ledger_worker import command as worker_command
from sev_attest import sev
from sev_attest.errors import Insecure, SevAttestError, Unsupported, WrongState
from sev_attest.owner import _safe_path
from sev_attest.owner.ledger import (
    Head,
    Ledger,
    LedgerDamaged,
    LedgerEntry,
    LedgerError,
    State,
    default_place,
    postgres,
    sqlite,
)
from sev_attest.owner.ledger import place as place_module
from sev_attest.owner.ledger.audit import findings
from sev_attest.owner.ledger.reading import Reader
from sev_attest.owner.ledger.story import MAX_REFUSED, event_hash
from sev_attest.owner.ledger.transactions import Transactions

ONE, TWO = session_id(1), session_id(2)
OTHER = bytes(48)
NOON = datetime(2026, 1, 2, 12, 0, 0, 999999, tzinfo=UTC)
STEPS: dict[str, Callable[[Ledger], object]] = {
    "create": lambda ledger: ledger.create(ONE),
    "bind": lambda ledger: ledger.bind(ONE, MEASUREMENT),
    "adopt": lambda ledger: ledger.bind(ONE, MEASUREMENT, adopt=True),
    "release": lambda ledger: ledger.release(ONE, MEASUREMENT),
    "fail": lambda ledger: ledger.fail(ONE, "why"),
    "close": lambda ledger: ledger.close(ONE, "why"),
}


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time

    def ahead(self, seconds: int) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(place: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(place, clock=clock) as opened:
        yield opened


def kinds(ledger: Ledger, session: str = ONE) -> list[str]:
    return [event.kind for event in ledger.events(session)]


def log(ledger: Ledger, session: str, kind: str, text: str = "") -> None:
    """Log an event that changes no state, as older versions did."""
    ledger._step(session, lambda step: step.note(kind, {"text": text}))


def released(ledger: Ledger, session: str = ONE) -> None:
    ledger.create(session)
    ledger.bind(session, MEASUREMENT)
    ledger.release(session, MEASUREMENT)


# The states.


def test_a_launch_from_its_creation_to_its_release(ledger: Ledger, clock: Clock) -> None:
    made = ledger.create(ONE, name="vm1", expires=NOON + timedelta(hours=1))
    assert made == LedgerEntry(
        session_id=ONE,
        name="vm1",
        state=State.CREATED,
        created="2026-01-02T12:00:00+00:00",
        changed="2026-01-02T12:00:00+00:00",
        expires="2026-01-02T13:00:00+00:00",
        measurement=None,
        note="",
    )
    clock.ahead(60)
    bound = ledger.bind(ONE, MEASUREMENT)
    measured_at = "2026-01-02T12:01:00+00:00"
    assert bound == made._replace(
        state=State.MEASURED, changed=measured_at, measurement=MEASUREMENT
    )
    clock.ahead(60)
    assert ledger.bind(ONE, MEASUREMENT) == bound
    left = ledger.release(ONE, MEASUREMENT)
    assert left == bound._replace(state=State.RELEASED, changed="2026-01-02T12:02:00+00:00")
    assert ledger.bind(ONE, MEASUREMENT) == left
    assert ledger.get(ONE) == left
    assert ledger.get(TWO) is None
    assert tuple(ledger.entries()) == (left,)
    assert kinds(ledger) == ["created", "measured", "released"]
    assert ledger.verify() == tuple(ledger.events())[-1].head
    assert ledger.snapshot(Reader.head) == ledger.verify(next(ledger.events()).head)


ALLOWED = {
    # state: what may happen in it, and the state that it leads to
    None: {"create": "created", "adopt": "measured"},
    "created": {
        "bind": "measured",
        "adopt": "measured",
        "release": "released",
        "fail": "failed",
        "close": "closed",
    },
    "measured": {
        "bind": "measured",
        "adopt": "measured",
        "release": "released",
        "fail": "failed",
        "close": "closed",
    },
    "released": {"bind": "released", "adopt": "released", "fail": "failed"},
    "failed": {},
    "closed": {},
    "expired": {},
}
WAYS = {
    None: [],
    "created": ["create"],
    "measured": ["create", "bind"],
    "released": ["create", "bind", "release"],
    "failed": ["create", "fail"],
    "closed": ["adopt", "close"],
    "expired": ["create", "bind"],
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", ALLOWED)
def test_only_the_steps_of_the_table_are_allowed(
    ledger: Ledger, clock: Clock, state: str | None, step: str
) -> None:
    for way in WAYS[state]:
        STEPS[way](ledger)
    if state == "expired":
        ledger.disconnect()
        with sqlite3.connect(ledger.place) as connection:
            connection.execute(
                "UPDATE sev_attest_session SET expires = '2026-01-01T00:00:00+00:00'"
            )
        connection.close()
        with pytest.raises(WrongState):
            ledger.bind(ONE, MEASUREMENT)
    if step in ALLOWED[state]:
        STEPS[step](ledger)
        entry = ledger.get(ONE)
        assert entry is not None
        assert entry.state == ALLOWED[state][step]
        return
    before = ledger.get(ONE)
    with pytest.raises(Insecure if step == "create" else WrongState) as refused:
        STEPS[step](ledger)
    known = "reused" if step == "create" else state or "unknown"
    assert refused.value.check == f"ledger.{known}"
    assert ledger.get(ONE) == before


def test_another_measurement_is_refused_shown_and_noted(ledger: Ledger, clock: Clock) -> None:
    ledger.create(ONE, name="vm1")
    ledger.bind(ONE, MEASUREMENT)
    clock.ahead(10)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: ledger.bind(ONE, OTHER),
        lambda: ledger.bind(ONE, OTHER, adopt=True),
        lambda: ledger.release(ONE, OTHER),
    )
    for attempt in attempts:
        with pytest.raises(Insecure) as refused:
            attempt()
        bound = base64.b64encode(MEASUREMENT).decode()
        assert refused.value.check == "ledger.reused"
        assert str(refused.value) == (
            "session vm1 was used for another launch: since 2026-01-02T12:00:00+00:00 it is bound "
            f"to the measurement {bound}"
        )
        assert refused.value.facts["bound"] == {
            "measurement": bound,
            "at": "2026-01-02T12:00:00+00:00",
        }
    assert kinds(ledger) == ["created", "measured", "refused"]  # the first of a measurement
    assert (
        json.loads(tuple(ledger.events(ONE))[2].detail)["measurement"]
        == base64.b64encode(OTHER).decode()
    )
    ledger.release(ONE, MEASUREMENT)
    ledger.fail(ONE, "the packet did not get out")
    with pytest.raises(Insecure):
        ledger.bind(ONE, OTHER)
    ledger.verify()


def test_a_session_past_its_time_expires_at_the_next_step(ledger: Ledger, clock: Clock) -> None:
    for session in (ONE, TWO):
        ledger.create(session, name="vm", expires=NOON + timedelta(seconds=30))
    ledger.bind(TWO, MEASUREMENT)
    clock.ahead(29)
    ledger.bind(ONE, MEASUREMENT)
    clock.ahead(1)
    entry = ledger.get(ONE)
    assert entry is not None
    told = "expired: its time was over on 2026-01-02T12:00:30+00:00"
    assert entry.explain(ledger.now).startswith(told)
    with pytest.raises(WrongState, match="its time was over") as refused:
        ledger.release(ONE, MEASUREMENT)
    assert refused.value.check == "ledger.expired"
    with pytest.raises(WrongState):
        ledger.bind(TWO, MEASUREMENT)
    assert [entry.state for entry in ledger.entries()] == ["expired", "expired"]
    assert kinds(ledger) == ["created", "measured", "expired"]
    ledger.verify()


def test_a_release_is_not_undone_by_the_time(ledger: Ledger, clock: Clock) -> None:
    ledger.create(ONE, expires=NOON + timedelta(seconds=30))
    ledger.bind(ONE, MEASUREMENT)
    ledger.release(ONE, MEASUREMENT)
    clock.ahead(60)
    assert ledger.bind(ONE, MEASUREMENT).state is State.RELEASED


def test_every_state_explains_itself(ledger: Ledger) -> None:
    assert (
        ledger.create(ONE, name="vm1").explain(ledger.now) == "created: no launch was verified yet"
    )
    for step, words in {
        "bind": "measured: on 2026-01-02T12:00:00+00:00, no secret has left",
        "release": "released: its secret left on 2026-01-02T12:00:00+00:00; if the guest never",
        "fail": "failed: on 2026-01-02T12:00:00+00:00: why; make a new session",
    }.items():
        STEPS[step](ledger)
        (entry,) = ledger.entries()
        assert entry.explain(ledger.now).startswith(words)


def test_what_another_tool_made_is_adopted_in_one_step(ledger: Ledger) -> None:
    entry = ledger.bind(ONE, MEASUREMENT, adopt=True)
    assert (entry.name, entry.label, entry.note) == ("", ONE[:12], "made by another tool")
    assert kinds(ledger) == ["created", "measured"]
    ledger.verify()


def test_requirements_that_were_not_met_are_noted_once_for_each_reason(ledger: Ledger) -> None:
    ledger.create(ONE)
    for number in range(3):
        bound = ledger.bind(ONE, MEASUREMENT, unmet="half a pair \ud800 and a NUL \0")
        assert (bound.state, bound.refused) == ("measured", number + 1)
    ledger.bind(ONE, MEASUREMENT, unmet="another")
    ledger.bind(ONE, MEASUREMENT)
    assert kinds(ledger) == ["created", "measured", "requirements", "requirements"]
    assert [json.loads(event.detail) for event in tuple(ledger.events())[2:]] == [
        {"text": "half a pair \\ud800 and a NUL \\x00"},
        {"text": "another"},
    ]
    assert ledger.release(ONE, MEASUREMENT).refused == 4
    with pytest.raises(WrongState):
        ledger.bind(TWO, MEASUREMENT, unmet="unknown")
    ledger.verify()


def test_after_16_refusals_an_open_attempt_fails(ledger: Ledger) -> None:
    ledger.create(ONE)
    for number in range(MAX_REFUSED):
        entry = ledger.bind(ONE, MEASUREMENT, unmet=f"reason {number}")
    assert (entry.state, entry.refused) == ("failed", 16)
    with pytest.raises(WrongState, match=r"failed: on .*: it was refused 16 times") as refused:
        ledger.release(ONE, MEASUREMENT)
    assert refused.value.check == "ledger.failed"
    before = [*ledger.events()]
    assert [event.kind for event in before[-2:]] == ["requirements", "failed"]
    for _ in range(3):  # whatever is asked now, nothing is written
        with pytest.raises(WrongState):
            ledger.bind(ONE, MEASUREMENT, unmet="again")
        with pytest.raises(Insecure):
            ledger.bind(ONE, OTHER)
    assert [*ledger.events()] == before
    ledger.verify()


def test_a_host_makes_a_bounded_number_of_events(ledger: Ledger) -> None:
    """The measurements of other launches count too, also after the release."""
    released(ledger)
    for number in range(300):
        with pytest.raises(Insecure):
            ledger.bind(ONE, number.to_bytes(48, "big"))
    entry = ledger.get(ONE)
    assert entry is not None
    assert (entry.state, entry.refused) == ("released", 16)
    assert kinds(ledger) == ["created", "measured", "released", *["refused"] * 16]
    ledger.verify()


def test_arguments_are_checked_and_never_quoted(ledger: Ledger) -> None:
    key = "a key given by mistake"
    for wrong in (
        lambda: ledger.create(key),
        lambda: ledger.get(key),
        lambda: ledger.events(key),
        lambda: ledger.bind(ONE, key.encode()),
        lambda: ledger.create(ONE, expires=datetime(2026, 1, 1)),  # noqa: DTZ001 - that is the point
    ):
        with pytest.raises(ValueError, match=r"64 hex digits|48 bytes|time zone") as refused:
            wrong()
        assert key not in str(refused.value)
    assert tuple(ledger.entries()) == ()


class Model(RuleBasedStateMachine):
    """The ledger does what ten lines say."""

    sessions = st.sampled_from([ONE, TWO])
    measurements = st.sampled_from([MEASUREMENT, OTHER])

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ["XDG_STATE_HOME"], os.urandom(8).hex())
        self.clock = Clock()
        self.ledger = Ledger.open(self.folder / "ledger", clock=self.clock)
        self.state: dict[str, str] = {}
        self.bound: dict[str, bytes] = {}
        self.ends: dict[str, datetime] = {}

    def teardown(self) -> None:
        self.ledger.disconnect()

    def expect(self, step: str, session: str, measurement: bytes = b"") -> str:
        """Give the check id of the refusal, or nothing."""
        state = self.state.get(session)
        if step == "create" and state:
            return "reused"
        if step == "adopt" and not state:
            self.state[session] = state = "created"
        if step in ("bind", "adopt", "release") and state:
            if self.bound.get(session, measurement) != measurement:
                return "reused"
            overdue = session in self.ends and self.ends[session] <= self.clock.time
            if state in ("created", "measured") and overdue:
                self.state[session] = "expired"
                return "expired"
        if step not in ALLOWED[state]:
            return state or "unknown"
        self.state[session] = ALLOWED[state][step]
        if step in ("bind", "adopt", "release"):
            self.bound[session] = measurement
        return ""

    def do(self, expected: str, step: Callable[[], object]) -> None:
        found = ""
        try:
            step()
        except SevAttestError as error:
            found = error.check
        assert found == (f"ledger.{expected}" if expected else "")

    @rule(session=sessions, seconds=st.none() | st.integers(1, 5))
    def create(self, session: str, seconds: int | None) -> None:
        expected = self.expect("create", session)
        ends = None if seconds is None else self.clock.time + timedelta(seconds=seconds)
        if not expected and ends is not None:
            self.ends[session] = ends.replace(microsecond=0)
        self.do(expected, lambda: self.ledger.create(session, expires=ends))

    @rule(session=sessions, measurement=measurements, adopt=st.booleans())
    def bind(self, session: str, measurement: bytes, *, adopt: bool) -> None:
        expected = self.expect("adopt" if adopt else "bind", session, measurement)
        self.do(expected, lambda: self.ledger.bind(session, measurement, adopt=adopt))

    @rule(session=sessions, measurement=measurements)
    def release(self, session: str, measurement: bytes) -> None:
        expected = self.expect("release", session, measurement)
        self.do(expected, lambda: self.ledger.release(session, measurement))

    @rule(session=sessions)
    def fail(self, session: str) -> None:
        self.do(self.expect("fail", session), lambda: self.ledger.fail(session, "r"))

    @rule(session=sessions)
    def close(self, session: str) -> None:
        self.do(self.expect("close", session), lambda: self.ledger.close(session))

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.clock.ahead(seconds)

    @invariant()
    def rows_and_log_agree(self) -> None:
        self.ledger.verify()
        assert {e.session_id: e.state for e in self.ledger.entries()} == self.state
        told = [(e.session_id, e.kind) for e in self.ledger.events() if e.kind in set(State)]
        assert len(told) == len(set(told))


TestModel = Model.TestCase
TestModel.settings = settings(settings.default, max_examples=25, stateful_step_count=20)


# Races and deaths. The long ones are in tests/live.


def test_of_racing_processes_exactly_one_wins(ledger: Ledger, place: Path) -> None:
    run_races(ledger, place, workers=4, rounds=10)


def test_of_racing_threads_exactly_one_wins(ledger: Ledger) -> None:
    ledger.create(ONE)
    ledger.bind(ONE, MEASUREMENT)
    won: list[LedgerEntry] = []
    ready = threading.Barrier(6)

    def race() -> None:
        ready.wait()
        with suppress(WrongState):
            won.append(ledger.release(ONE, MEASUREMENT))

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert kinds(ledger).count("released") == 1


def test_of_those_who_make_the_ledger_one_wins(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = sqlite.Sqlite._try_lock

    def beaten(store: sqlite.Sqlite) -> int | None:
        monkeypatch.setattr(sqlite.Sqlite, "_try_lock", lock)
        with Ledger.open(place) as first:
            first.create(ONE)
        return lock(store)

    monkeypatch.setattr(sqlite.Sqlite, "_try_lock", beaten)
    with Ledger.open(place) as second:
        assert second.get(ONE) is not None
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_who_is_killed_while_making_a_ledger_leaves_one_that_is_accepted(tmp_path: Path) -> None:
    ran = subprocess.run(
        worker_command("make", tmp_path), capture_output=True, check=True, text=True
    )
    assert int(ran.stdout) > 20


def test_of_threads_that_make_the_ledger_one_wins(place: Path) -> None:
    ready = threading.Barrier(8)

    def make(number: int) -> None:
        ready.wait()
        with Ledger.open(place, timeout=60) as ledger:
            ledger.create(session_id(number))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Ledger.open(place) as ledger:
        assert ledger.verify().count == 8
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_whoever_makes_the_ledger_too_long_is_not_waited_for(place: Path) -> None:
    other = sqlite.Sqlite(place, 0)
    with other._locked(), pytest.raises(LedgerError) as refused:
        Ledger.open(place, timeout=0.05)
    assert refused.value.check == "ledger.locked"
    Ledger.open(place).disconnect()


@pytest.mark.parametrize("another", [False, True])
def test_a_lock_that_was_removed_meanwhile_locks_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, another: bool
) -> None:
    store = sqlite.Sqlite(place, 0)
    flock = fcntl.flock

    def late(descriptor: int, flags: int) -> None:
        flock(descriptor, flags)
        Path(store._lock).unlink()
        if another:
            Path(store._lock).touch()

    monkeypatch.setattr(fcntl, "flock", late)
    assert store._try_lock() is None


def test_a_file_system_without_locks_makes_no_ledger(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(LedgerError, match="No locks available"):
        Ledger.open(place)
    assert not place.exists()


@pytest.mark.parametrize("point", POINTS[-13:])
def test_who_is_killed_leaves_no_second_release(ledger: Ledger, place: Path, point: str) -> None:
    die_and_restart(ledger, place, Attempt(1), point)


def test_a_child_leaves_its_parent_s_connections_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.create(ONE)
    ((parents, _),) = ledger._here._idle
    monkeypatch.setattr(os, "getpid", lambda: -1)
    ledger.bind(ONE, MEASUREMENT)
    ledger.disconnect()
    assert parents not in [connection for connection, _ in ledger._here._idle]
    assert parents.execute("SELECT 1").fetchone() == (1,)
    parents.close()


def test_a_child_of_a_process_that_used_the_ledger_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger._here.lost = True
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(LedgerError, match="forked while its parent used") as refused:
            ledger.create(ONE)
    assert refused.value.check == "ledger.forked"


def test_an_interrupted_step_is_undone(ledger: Ledger, clock: Clock) -> None:
    def interrupt() -> datetime:
        raise KeyboardInterrupt

    ledger._clock = interrupt
    with pytest.raises(KeyboardInterrupt):
        ledger.create(ONE)
    ledger._clock = clock
    assert ledger.get(ONE) is None


# Errors: exit 6, and no release.


def test_the_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    place = tmp_path / "new" / "folder" / "ledger ?#%é.sqlite3"
    before = os.umask(0)
    try:
        with Ledger.open(place) as ledger:
            ledger.create(ONE)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in place.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {f"{place.name}{end}": 0o600 for end in ("", "-wal", "-shm")}
    for folder in (place.parent, place.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_every_commit_is_synced(ledger: Ledger) -> None:
    ((connection, _),) = ledger._here._idle
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_ledger_that_is_missing_is_not_made_unasked(place: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger") as refused:
        Ledger.open(place, create=False)
    assert (refused.value.check, refused.value.exit_code) == ("ledger.missing", 6)
    assert not place.exists()


def _link(place: Path) -> None:
    Ledger.open(place.with_name("real")).disconnect()
    place.symlink_to("real")


def _writable(place: Path) -> None:
    Ledger.open(place).disconnect()
    place.chmod(0o620)


def _open_folder(place: Path) -> None:
    Ledger.open(place).disconnect()
    place.parent.chmod(0o777)


def _garbage(place: Path) -> None:
    place.write_bytes(b"no database at all" * 100)
    place.chmod(0o600)


def _empty(place: Path) -> None:
    place.touch(mode=0o600)


def _meddled(*statements: str) -> Callable[[Path], None]:
    def meddle(place: Path) -> None:
        with Ledger.open(place) as ledger:
            ledger.create(ONE)
            ledger.bind(ONE, MEASUREMENT)
        connection = sqlite3.connect(place)
        with connection:
            for statement in ("PRAGMA ignore_check_constraints = 1", *statements):
                connection.execute(statement)
        connection.close()

    return meddle


UNGUARDED = tuple(f"DROP TRIGGER sev_attest_keeps_{number}" for number in range(3))
SPOILT: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "symbolic link": (_link, "ledger.place", "it is a symbolic link"),
    "folder": (Path.mkdir, "ledger.place", "it is not a file"),
    "writable by others": (_writable, "ledger.place", "others can write to it"),
    "folder for anybody": (_open_folder, "ledger.place", "anybody can write in its folder"),
    "garbage": (_garbage, "ledger.damaged", "file is not a database"),
    "empty": (_empty, "ledger.damaged", "its tables are missing"),
    "foreign": (
        _meddled("DROP TABLE sev_attest_event"),
        "ledger.damaged",
        "its tables are missing",
    ),
    "newer": (
        _meddled("UPDATE sev_attest_ledger SET version = 3"),
        "ledger.schema",
        "version 3, this one knows 2",
    ),
    "older": (
        _meddled("UPDATE sev_attest_ledger SET version = 0"),
        "ledger.damaged",
        "its version is missing",
    ),
    **{
        f"odd version {value}": (
            _meddled(f"UPDATE sev_attest_ledger SET version = {value}"),
            "ledger.damaged",
            "its version is missing",
        )
        for value in ("'one'", "x'01'", "1.5", "''")
    },
    "no head": (_meddled("DELETE FROM sev_attest_ledger"), "ledger.damaged", "version"),
    "odd head": (
        _meddled("UPDATE sev_attest_ledger SET events = 'x'"),
        "ledger.damaged",
        "the head of its log is missing",
    ),
    "head set back": (
        _meddled(f"UPDATE sev_attest_ledger SET events = 0, hash = '{'0' * 64}'"),
        "ledger.damaged",
        "or it is damaged",
    ),
    "odd head hash": (
        _meddled("UPDATE sev_attest_ledger SET hash = x'00'"),
        "ledger.damaged",
        "the head of its log is missing",
    ),
    "odd state": (
        _meddled("UPDATE sev_attest_session SET state = 'fine'"),
        "ledger.damaged",
        "it has a row that the ledger does not write",
    ),
    "odd type": (
        _meddled("UPDATE sev_attest_session SET changed = x'00'"),
        "ledger.damaged",
        "it has a row that the ledger does not write",
    ),
    "odd expires": (
        _meddled("UPDATE sev_attest_session SET expires = x'00'"),
        "ledger.damaged",
        "it has a row that the ledger does not write",
    ),
    "odd measurement": (
        _meddled("UPDATE sev_attest_session SET measurement = '%'"),
        "ledger.damaged",
        "it has a row that the ledger does not write",
    ),
    "odd column": (
        _meddled("ALTER TABLE sev_attest_session RENAME COLUMN note TO notes"),
        "ledger.damaged",
        "no such column",
    ),
    "no text": (
        _meddled("UPDATE sev_attest_session SET note = CAST(x'ff' AS TEXT)"),
        "ledger.damaged",
        "UTF-8",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_that_is_no_sound_ledger_releases_nothing(place: Path, name: str) -> None:
    spoil, check, words = SPOILT[name]
    spoil(place)
    with pytest.raises(LedgerError) as refused, Ledger.open(place) as ledger:
        ledger.release(ONE, MEASUREMENT)
    assert (refused.value.check, refused.value.exit_code) == (check, 6)
    assert words in str(refused.value)
    assert refused.value.hint


def test_a_ledger_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: place.parent.stat().st_uid + 1)
    with pytest.raises(LedgerError, match="belongs to another user"):
        Ledger.open(place)


# Its place: whoever can replace the file can have a session released again.


def _twice(place: Path) -> Path:
    Ledger.open(place).disconnect()
    os.link(place, place.with_name("another"))
    return place


def _group_folder(place: Path) -> Path:
    Ledger.open(place).disconnect()
    place.parent.chmod(0o770)
    return place


def _sticky_folder(place: Path) -> Path:
    place.parent.chmod(0o1777)
    return place


def _loose_above(place: Path) -> Path:
    inner = place.parent / "inner"
    inner.mkdir(mode=0o700)
    place.parent.chmod(0o777)
    return inner / "ledger"


def _loose_link(place: Path) -> Path:
    for name in ("own", "loose"):
        (place.parent / name).mkdir(mode=0o700)
    Ledger.open(place.parent / "own" / "ledger").disconnect()
    (place.parent / "loose" / "link").symlink_to(place.parent / "own")
    (place.parent / "loose").chmod(0o777)
    return place.parent / "loose" / "link" / "ledger"


def _back_through(place: Path) -> Path:
    loose = place.parent / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    return loose / ".." / "ledger"


def _linked_folder(place: Path) -> Path:
    loose = place.parent / "loose"
    loose.mkdir()
    loose.chmod(0o770)
    place.with_name("link").symlink_to("loose")
    return place.parent / "link" / "ledger"


def _log_of_others(place: Path) -> Path:
    Ledger.open(place).disconnect()
    place.with_name(place.name + "-wal").touch()
    place.with_name(place.name + "-wal").chmod(0o666)
    return place


def _log_elsewhere(place: Path) -> Path:
    Ledger.open(place).disconnect()
    place.with_name(place.name + "-journal").symlink_to("/dev/null")
    return place


UNSAFE: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "two names": (_twice, "it has 2 names (hard links)", "-samefile"),
    "folder of a group": (_group_folder, "its group can write in its folder", "chmod go-w "),
    "sticky folder": (_sticky_folder, "anybody can write in its folder", "in a folder of your own"),
    "loose folder above": (_loose_above, ", on the way to it", "chmod go-w "),
    "link in a loose folder": (_loose_link, ", on the way to it", "chmod go-w "),
    "back through one": (_back_through, ", on the way to it", "chmod go-w "),
    "link to a loose folder": (_linked_folder, "its group can write in its folder", "chmod go-w "),
    "log that others write": (_log_of_others, "others can write to ledger.sqlite3-wal", "chmod"),
    "log that is a link": (_log_elsewhere, "ledger.sqlite3-journal is not a file", "find out"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_a_ledger_that_others_could_replace_is_refused(place: Path, name: str) -> None:
    spoil, words, do = UNSAFE[name]
    there = spoil(place)
    before = sorted(place.parent.rglob("*"))
    for create in (True, False):
        with pytest.raises(LedgerError) as refused:
            Ledger.open(there, create=create)
        assert (refused.value.check, refused.value.exit_code) == ("ledger.place", 6)
        assert words in str(refused.value)
        assert do in refused.value.hint
    assert sorted(place.parent.rglob("*")) == before


@pytest.mark.parametrize("whose", ["file", "log", "folder", "folder above", "root", "link"])
def test_what_another_user_owns_on_the_way_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    inner = place.parent / "inner"
    Ledger.open(inner / "ledger").disconnect()
    (inner / "ledger-wal").touch(mode=0o600)
    link = place.parent / "link"
    link.symlink_to("inner")
    owned = {
        "file": inner / "ledger",
        "log": inner / "ledger-wal",
        "folder": inner,
        "folder above": place.parent,
        "root": Path("/"),
        "link": link,
    }[whose]
    true_lstat = os.lstat

    def lstat(path: str) -> os.stat_result:
        found = true_lstat(path)
        return os.stat_result((*found[:4], 12345, *found[5:])) if path == str(owned) else found

    monkeypatch.setattr(os, "lstat", lstat)
    place = (link if whose == "link" else inner) / "ledger"
    with pytest.raises(LedgerError, match="belongs to another user") as refused:
        Ledger.open(place)
    assert refused.value.check == "ledger.place"
    for module in (place_module, _safe_path):  # Windows
        monkeypatch.setattr(module, "_HAS_OWNERS", False)
    Ledger.open(place).disconnect()


@pytest.mark.parametrize(
    ("typed", "shown", "made"),
    [
        ("mine", "mine", "mine"),
        ("./mine//", "mine", "mine"),
        ("new/../mine/.", "new/../mine", "mine"),
        ("~/mine", "~/mine", "~/mine"),
        ("{}/new//mine", "{}/new/mine", "new/mine"),
        ("//{}/mine", "{}/mine", "mine"),
        ("a?mode=ro&b#c%41", "a?mode=ro&b#c%41", "a?mode=ro&b#c%41"),
        ("\udcff\udcfe", "\udcff\udcfe", "\udcff\udcfe"),
        ("-x", "-x", "-x"),
    ],
    ids=["name", "slashes", "back", "tilde", "absolute", "root", "query", "bytes", "dash"],
)
def test_a_ledger_is_where_its_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, shown: str, made: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (typed.format(tmp_path), Path(typed.format(tmp_path))):
        with Ledger.open(given, floor="floor/.//") as ledger:
            assert ledger.place == shown.format(tmp_path)
            monkeypatch.chdir("/")  # it stays where it was opened
            ledger.bind(ONE, MEASUREMENT, adopt=True)
            monkeypatch.chdir(tmp_path)
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {Path(made), Path("floor")}


@pytest.mark.parametrize("typed", ["/", "//", ".", "..", ""])
def test_a_folder_is_no_ledger_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerError, match="it is not a file") as refused:
        Ledger.open(typed)
    assert refused.value.check == "ledger.place"


def test_root_s_folders_and_links_between_one_s_own_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "absolute").symlink_to(tmp_path / "own")
    (tmp_path / "relative").symlink_to("../" + tmp_path.name + "/absolute")
    with Ledger.open(tmp_path / "relative" / "new" / "ledger") as ledger:
        ledger.create(ONE)
    with Ledger.open(tmp_path / "own" / ".." / "own" / "new" / "ledger", create=False) as ledger:
        assert ledger.get(ONE) is not None
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(LedgerError, match="symbolic links"):
        Ledger.open(tmp_path / "round" / "ledger")


def test_a_place_that_others_got_hold_of_meanwhile_is_refused(ledger: Ledger, place: Path) -> None:
    ledger.bind(ONE, MEASUREMENT, adopt=True)
    ledger.disconnect()
    place.parent.chmod(0o770)
    with pytest.raises(LedgerError) as refused:
        ledger.release(ONE, MEASUREMENT)
    assert refused.value.check == "ledger.place"
    place.parent.chmod(0o700)
    ledger.release(ONE, MEASUREMENT)


# Damage: it has a name, and bounded memory.

TABLE_COLUMNS = {
    "sev_attest_ledger": ("version", "events", "hash"),
    "sev_attest_session": (
        "session_id", "name", "state", "created", "changed", "expires", "measurement", "note",
        "technology", "refused",
    ),
    "sev_attest_event": (
        "seq", "time", "session_id", "kind", "detail", "previous", "hash",
    ),
}  # fmt: skip
ODD_VALUES = (
    "NULL",
    "0",
    "-1",
    "9223372036854775807",
    "1e999",
    "x''",
    "x'00ff'",
    "''",
    "CAST(x'ff' AS TEXT)",
    "char(0)",
    "'{}'",
    "'[]'",
    """'{"root":7,"name":[],"expires":{},"note":1}'""",
    "printf('%.*c', 5000, '9')",
    "printf('%.*c', 99999, '[')",
)
LARGE_VALUES = ("CAST(zeroblob(3000000) AS TEXT)", "zeroblob(3000000)")


def _all_steps(place: Path) -> list[str]:
    """Take every step there is on a ledger; only our errors may come out."""
    found: list[str] = []
    readers: tuple[Callable[[Ledger], object], ...] = (
        lambda ledger: ledger.get(ONE),
        lambda ledger: ledger.root(ONE),
        lambda ledger: [*ledger.entries()],
        lambda ledger: [*ledger.events()],
        lambda ledger: [*ledger.events(ONE)],
        lambda ledger: ledger.find("vm1"),
        lambda ledger: ledger.find(ONE[:60]),
        lambda ledger: ledger.snapshot(Reader.head),
        Ledger.verify,
        lambda ledger: ledger.verify(Head(1, "0" * 64)),
        lambda ledger: [entry.explain(ledger.now) for entry in ledger.entries()],
        lambda ledger: ledger.bind(ONE, OTHER),
        lambda ledger: ledger.release(TWO, MEASUREMENT),
    )
    try:
        with Ledger.open(place, timeout=0) as ledger:
            for step in (*readers, *STEPS.values()):
                try:
                    step(ledger)
                except SevAttestError as error:
                    found.append(error.check)
    except SevAttestError as error:
        found.append(error.check)
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give the file of a sound ledger."""
    path = tmp_path_factory.mktemp("sound") / "ledger"
    with Ledger.open(path, clock=Clock()) as ledger:
        ledger.create(ONE, name="vm1", expires=NOON + timedelta(days=99999), root=None)
        ledger.bind(ONE, MEASUREMENT)
        ledger.create(TWO, root="AMD Milan")
        for number in range(3, 12):
            released(ledger, session_id(number))
    return path.read_bytes()


def _spoilt(place: Path, data: bytes, *statements: str) -> None:
    for left in place.parent.glob(f"{place.name}*"):
        left.unlink()
    place.touch(mode=0o600)
    place.write_bytes(data)
    connection = sqlite3.connect(place)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        for statement in ("PRAGMA ignore_check_constraints = 1", *UNGUARDED, *statements):
            with suppress(sqlite3.IntegrityError):
                connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("table", "column"), [(table, one) for table, all_ in TABLE_COLUMNS.items() for one in all_]
)
def test_odd_values_in_a_column_are_damage(
    place: Path, sound: bytes, table: str, column: str
) -> None:
    values = [f"{column} = {value}" for value in ODD_VALUES]
    # In the first session's row and event: in every row they are 100 MB to write.
    values += [f"{column} = {value} WHERE rowid = 1" for value in LARGE_VALUES]
    for value in values:
        # NOT NULL, and the index that lets no state be entered twice, are on the way of some.
        _spoilt(place, sound, "DROP INDEX sev_attest_once", f"UPDATE {table} SET {value}")
        _all_steps(place)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_has_a_name(place: Path, sound: bytes, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(sound)
    for _ in range(chance.choice((1, 4, 40))):
        at = chance.randrange(100, len(data)) if chance.random() < 0.9 else chance.randrange(100)
        data[at] = chance.randrange(256)
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    place.touch(mode=0o600)
    place.write_bytes(data)
    _all_steps(place)


@pytest.mark.parametrize("table", TABLE_COLUMNS)
def test_a_row_of_any_size_is_refused_in_bounded_memory(
    place: Path, sound: bytes, table: str
) -> None:
    column = TABLE_COLUMNS[table][-1]
    _spoilt(
        place,
        sound,
        f"UPDATE {table} SET {column} = CAST(zeroblob(24 << 20) AS TEXT) WHERE rowid = 1",
    )
    tracemalloc.start()
    try:
        found = _all_steps(place)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "ledger.damaged" in found
    assert peak < 12 << 20


@pytest.mark.parametrize("value", ["x''", "0", "''", "'soon'"])
def test_an_end_that_is_no_time_is_damage_also_for_a_release(
    place: Path, sound: bytes, value: str
) -> None:
    _spoilt(place, sound, f"UPDATE sev_attest_session SET expires = {value}")
    with Ledger.open(place) as ledger, pytest.raises(LedgerError) as refused:
        ledger.release(ONE, MEASUREMENT)
    assert refused.value.check == "ledger.damaged"


@pytest.mark.parametrize("fails", [UnicodeDecodeError("utf-8", b"", 0, 1, "x"), MemoryError()])
def test_whatever_a_driver_raises_is_damage(
    place: Path, monkeypatch: pytest.MonkeyPatch, fails: Exception
) -> None:
    Ledger.open(place).disconnect()

    def fail(*_: object, **__: object) -> None:
        raise fails

    monkeypatch.setattr(sqlite3, "connect", fail)
    with pytest.raises(LedgerError) as refused:
        Ledger.open(place)
    assert refused.value.check == "ledger.damaged"


def test_a_text_that_is_too_long_is_refused_before_it_is_written(ledger: Ledger) -> None:
    longest = "\U0001f40d" * (1 << 14)
    ledger.create(ONE, name=longest)
    log(ledger, ONE, "seen", longest)
    ledger.fail(ONE, longest)
    ledger.verify()
    steps: tuple[Callable[[], object], ...] = (
        lambda: ledger.create(TWO, name=longest + "x"),
        lambda: ledger.bind(ONE, MEASUREMENT, unmet=longest + "x"),
        lambda: ledger.close(ONE, longest + "x"),
    )
    for step in steps:
        with pytest.raises(Unsupported) as refused:
            step()
        assert refused.value.check == "ledger.text"


# Of a session that it opened, it knows whether the platform was verified.


def test_the_root_of_a_session_is_kept(ledger: Ledger) -> None:
    roots = {session_id(n): root for n, root in enumerate(("AMD Milan", None, ""))}
    for session, root in roots.items():
        ledger.create(session, root=root)
    ledger.create(session_id(3))
    ledger.bind(session_id(4), MEASUREMENT, adopt=True)
    for session, root in (roots | dict.fromkeys(map(session_id, (3, 4, 5)), "")).items():
        assert ledger.root(session) == root
    ledger.verify()
    told = [json.loads(event.detail) for event in ledger.events() if event.kind == "created"]
    assert ["root" in detail for detail in told] == [True, True, False, False, False]


def test_a_session_of_a_platform_that_nobody_verified_gets_no_secret(ledger: Ledger) -> None:
    ledger.create(ONE, root=None)
    for adopt in (False, True):
        with pytest.raises(Insecure, match="nobody verified the platform") as refused:
            ledger.release(ONE, MEASUREMENT, adopt=adopt)
        assert (refused.value.check, refused.value.exit_code) == ("ledger.unverified", 3)
    assert kinds(ledger) == ["created", "measured"]  # another launch is refused from now on
    ledger.release(ONE, MEASUREMENT, insecure=True)
    ledger.verify()


def test_a_row_that_was_set_back_is_not_released_again(ledger: Ledger) -> None:
    released(ledger)
    with sqlite3.connect(ledger.place) as connection:
        connection.execute("UPDATE sev_attest_session SET state = 'measured'")
    connection.close()
    with pytest.raises(LedgerError) as refused:
        ledger.release(ONE, MEASUREMENT)
    assert refused.value.check == "ledger.damaged"
    with pytest.raises(LedgerDamaged):
        ledger.verify()


def test_a_head_that_is_gone_after_opening_is_noticed(ledger: Ledger) -> None:
    ledger.create(ONE)
    ledger.bind(ONE, MEASUREMENT)
    meddle(ledger, "DELETE FROM sev_attest_ledger")
    steps: tuple[Callable[[Ledger], object], ...] = (
        *STEPS.values(),
        lambda ledger: ledger.snapshot(Reader.head),
    )
    for step in steps:
        with pytest.raises(LedgerError) as refused:
            step(ledger)
        assert refused.value.check == "ledger.damaged"
    assert kinds(ledger) == ["created", "measured"]
    assert found(ledger) == ("the head of the log is missing",)


def test_a_row_that_moves_although_it_is_locked_is_noticed(ledger: Ledger) -> None:
    ledger.create(ONE)
    with sqlite3.connect(ledger.place) as connection:
        connection.execute(
            "CREATE TRIGGER meddle AFTER INSERT ON sev_attest_event"
            " BEGIN UPDATE sev_attest_session SET state = 'closed'; END"
        )
    connection.close()
    with pytest.raises(LedgerError, match="a row changed while it was locked"):
        ledger.bind(ONE, MEASUREMENT)
    assert kinds(ledger) == ["created"]


def test_a_locked_ledger_is_an_error_and_then_goes_on(place: Path) -> None:
    with Ledger.open(place, timeout=0) as ledger:
        ledger.create(ONE)
        ledger.bind(ONE, MEASUREMENT)
        other = sqlite3.connect(place, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process holds it locked") as refused:
            ledger.release(ONE, MEASUREMENT)
        assert refused.value.check == "ledger.locked"
        assert kinds(ledger) == ["created", "measured"]
        other.close()
        ledger.release(ONE, MEASUREMENT)


@pytest.mark.parametrize(
    ("limit", "check"),
    [
        ("PRAGMA query_only = 1", "ledger.read-only"),
        ("PRAGMA max_page_count = 1", "ledger.full"),
    ],
)
def test_a_full_or_read_only_database_releases_nothing(
    ledger: Ledger, limit: str, check: str
) -> None:
    ledger.create(ONE)
    ledger.bind(ONE, MEASUREMENT)
    ((connection, _),) = ledger._here._idle
    connection.execute(limit)
    with pytest.raises(LedgerError) as refused:
        log(ledger, ONE, "filler", "x" * 10000)
    assert refused.value.check == check
    ledger.release(ONE, MEASUREMENT)
    ledger.verify()


@pytest.mark.parametrize(
    ("number", "check"),
    [(13, "permission"), (30, "read-only"), (28, "full"), (5, "trouble")],
)
def test_a_ledger_that_cannot_be_made_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int, check: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(LedgerError) as refused:
        Ledger.open(place)
    assert refused.value.check == f"ledger.{check}"
    assert refused.value.hint.endswith("or keep the ledger elsewhere")
    assert os.strerror(number) in str(refused.value)
    assert list(place.parent.iterdir()) == []


def test_an_error_of_sqlite_while_it_is_made_is_a_ledger_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite.Sqlite, "schema", ("CREATE nonsense",))
    with pytest.raises(LedgerError):
        Ledger.open(place)
    assert list(place.parent.iterdir()) == []


def test_a_folder_that_another_process_makes_meanwhile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir
    met: list[Path] = []

    def beaten(path: Path, mode: int = 0o777) -> None:
        if tmp_path in Path(path).parents and not Path(path).name.startswith("."):
            met.append(Path(path))
            make(path, 0o700)
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", beaten)
    place = tmp_path / "new" / "folder" / "ledger"
    with Ledger.open(place) as ledger:
        ledger.create(ONE)
    assert met == [tmp_path / "new", tmp_path / "new" / "folder"]


def test_a_file_that_vanished_is_an_error(place: Path) -> None:
    with Ledger.open(place) as ledger:
        ledger.disconnect()
        place.rename(place.with_name("elsewhere"))
        place.mkdir()
        with pytest.raises(LedgerError, match="unable to open") as refused:
            ledger.create(ONE)
    assert refused.value.check == "ledger.permission"


@pytest.mark.parametrize(
    ("code", "check"),
    [
        (sqlite3.SQLITE_BUSY, "locked"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "locked"),
        (sqlite3.SQLITE_LOCKED, "locked"),
        (sqlite3.SQLITE_READONLY, "read-only"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "read-only"),
        (sqlite3.SQLITE_FULL, "full"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, "full"),
        (sqlite3.SQLITE_IOERR_READ, "trouble"),
        (sqlite3.SQLITE_NOTADB, "damaged"),
        (sqlite3.SQLITE_CORRUPT_VTAB, "damaged"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, "damaged"),
        (sqlite3.SQLITE_ERROR, "damaged"),
        (sqlite3.SQLITE_CANTOPEN, "permission"),
        (sqlite3.SQLITE_PERM, "permission"),
    ],
)
def test_sqlite_s_errors_are_named(code: int, check: str) -> None:
    error = sqlite3.OperationalError("words")
    error.sqlite_errorcode = code
    assert sqlite.Sqlite(Path("x"), 1).translated(error).check == f"ledger.{check}"


def test_an_unknown_error_has_a_name_too() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    assert sqlite.Sqlite(Path("x"), 1).translated(error).check == "ledger.trouble"


# The log.


def test_the_log_only_grows(ledger: Ledger) -> None:
    released(ledger)
    connection = sqlite3.connect(ledger.place)
    for statement in (
        "UPDATE sev_attest_event SET time = 'never'",
        "DELETE FROM sev_attest_event",
        "DELETE FROM sev_attest_session",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="the ledger only grows"):
            connection.execute(statement)
    connection.close()
    ledger.verify()


def test_the_hash_of_an_event_can_be_made_by_others(ledger: Ledger) -> None:
    released(ledger)
    (*_, event) = ledger.events()
    *fields, own = event.to_row()
    dumped = json.dumps(fields, separators=(",", ":"))
    hashed = subprocess.run(
        ["sha256sum"], input=dumped.encode(), stdout=subprocess.PIPE, check=True
    )
    assert hashed.stdout.decode().split()[0] == own


@pytest.fixture
def grown(ledger: Ledger) -> Ledger:
    """Give a ledger in which two sessions were released and one was not."""
    for number in (1, 2):
        released(ledger, session_id(number))
    ledger.create(session_id(3), name="vm3")
    ledger.disconnect()
    return ledger


EVENT_COLUMNS = ("seq", "time", "session_id", "kind", "detail", "previous", "hash")
ROW_COLUMNS = ("name", "state", "created", "changed", "expires", "measurement", "note")
ADDED = "INSERT INTO sev_attest_session VALUES ('9', '', 'created', '', '', '', '', '', 'sev', 0)"
EDITS = {
    **{
        f"event {column}": (f"UPDATE sev_attest_event SET {column} = '77' WHERE seq = 4",)
        for column in EVENT_COLUMNS
    },
    **{
        f"row {column}": (
            f"UPDATE sev_attest_session SET {column} = 'failed' WHERE session_id = '{ONE}'",
        )
        for column in ROW_COLUMNS
    },
    "event type": ("UPDATE sev_attest_event SET detail = x'00' WHERE seq = 4",),
    "first deleted": ("DELETE FROM sev_attest_event WHERE seq = 1",),
    "middle deleted": ("DELETE FROM sev_attest_event WHERE seq = 4",),
    "last deleted": ("DELETE FROM sev_attest_event WHERE seq = 7",),
    "all deleted": ("DELETE FROM sev_attest_event",),
    "renumbered": (
        "DELETE FROM sev_attest_event WHERE seq = 4",
        "UPDATE sev_attest_event SET seq = 4 WHERE seq = 5",
        "UPDATE sev_attest_event SET seq = 5 WHERE seq = 6",
        "UPDATE sev_attest_event SET seq = 6 WHERE seq = 7",
    ),
    "reordered": (
        "UPDATE sev_attest_event SET seq = 99 WHERE seq = 3",
        "UPDATE sev_attest_event SET seq = 3 WHERE seq = 4",
        "UPDATE sev_attest_event SET seq = 4 WHERE seq = 99",
    ),
    "cut off with its head": (
        "DELETE FROM sev_attest_event WHERE seq = 7",
        "UPDATE sev_attest_ledger SET events = 6",
        "UPDATE sev_attest_ledger SET hash = (SELECT hash FROM sev_attest_event WHERE seq = 6)",
    ),
    "head hash": ("UPDATE sev_attest_ledger SET hash = 'x'",),
    "head gone": ("DELETE FROM sev_attest_ledger",),
    "row deleted": (f"DELETE FROM sev_attest_session WHERE session_id = '{ONE}'",),
    "row added": (ADDED,),
}


@pytest.mark.parametrize("name", EDITS)
def test_verify_detects(grown: Ledger, name: str) -> None:
    connection = sqlite3.connect(grown.place)
    with connection:
        for statement in ("PRAGMA ignore_check_constraints = 1", *UNGUARDED, *EDITS[name]):
            connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerDamaged) as refused:
        grown.verify()
    assert (refused.value.check, refused.value.exit_code) == ("ledger.verify", 1)
    assert refused.value.findings
    assert refused.value.findings[0] in str(refused.value)


def test_events_of_odd_types_are_damage(grown: Ledger) -> None:
    connection = sqlite3.connect(grown.place)
    with connection:
        for statement in (*UNGUARDED, *EDITS["event type"]):
            connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerError, match="a row that the ledger does not write"):
        list(grown.events())


def test_only_a_noted_head_detects_an_older_copy(ledger: Ledger, place: Path) -> None:
    ledger.create(ONE)
    ledger.bind(ONE, MEASUREMENT)
    early = ledger.verify()
    ledger.disconnect()
    copy = place.read_bytes()
    ledger.release(ONE, MEASUREMENT)
    noted = ledger.verify(early)
    assert str(noted) == f"3:{noted.hash}"
    ledger.disconnect()
    place.write_bytes(copy)
    ledger._floor.head = early  # as another process
    assert ledger.verify() == early
    with pytest.raises(LedgerDamaged, match="an older copy of the ledger, or another ledger"):
        ledger.verify(noted)
    with pytest.raises(LedgerDamaged):
        ledger.verify(Head(1, noted.hash))


@pytest.fixture
def seen(ledger: Ledger) -> Ledger:
    """Give a ledger whose events 3 and 5 change no session: only their hashes hold them."""
    ledger.create(ONE, name="vm1")
    ledger.create(TWO)
    log(ledger, ONE, "mismatch", "seen")
    ledger.bind(ONE, MEASUREMENT)
    log(ledger, TWO, "mismatch")
    return ledger


def meddle(ledger: Ledger, *statements: str) -> None:
    """Change the database behind the ledger's back, which keeps no floor."""
    ledger.disconnect()
    ledger._floor.head = Head(0, "0" * 64)
    connection = sqlite3.connect(ledger.place)
    with connection:
        for number in range(3):
            connection.execute(f"DROP TRIGGER IF EXISTS sev_attest_keeps_{number}")
        connection.execute("PRAGMA ignore_check_constraints = 1")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def rehash(ledger: Ledger, first: int, last: int, **changes: str) -> str:
    """Change the event ``first``, and make the hashes fit again up to the event ``last``."""
    own = ""
    for event in tuple(ledger.events())[first - 1 : last]:
        changed = changes if event.seq == first else {"previous": own}
        fields = dict(zip(EVENT_COLUMNS, event.to_row(), strict=True)) | changed
        told = json.dumps([fields[column] for column in EVENT_COLUMNS[:-1]], separators=(",", ":"))
        own = sha256(told.encode()).hexdigest()
        sets = ", ".join(
            f"{column} = '{value}'" for column, value in {**changed, "hash": own}.items()
        )
        meddle(ledger, f"UPDATE sev_attest_event SET {sets} WHERE seq = {event.seq}")
    return own


def found(ledger: Ledger, noted: Head | None = None) -> tuple[str, ...]:
    """Give everything that the audit finds."""
    with pytest.raises(LedgerDamaged) as refused:
        ledger.verify(noted)
    return refused.value.findings


LOGGED_EDITS = {
    "time": "2026-01-01T00:00:00+00:00",
    "session_id": TWO,
    "kind": "looked",
    "detail": '{"text":"nothing"}',
}
"""Changes of an event that moves no session."""


@pytest.mark.parametrize("column", LOGGED_EDITS)
def test_an_event_that_was_edited_under_its_hash_is_found_by_that_alone(
    seen: Ledger, column: str
) -> None:
    noted = seen.verify()
    value = LOGGED_EDITS[column]
    meddle(seen, f"UPDATE sev_attest_event SET {column} = '{value}' WHERE seq = 3")
    alone = ("event 3 was changed: its hash is another",)
    assert found(seen) == found(seen, noted) == alone


@pytest.mark.parametrize("column", LOGGED_EDITS)
def test_an_event_that_was_edited_with_its_hash_is_found_by_what_follows_it(
    seen: Ledger, column: str
) -> None:
    noted, early = seen.verify(), tuple(seen.events())[1].head
    rehash(seen, 3, 3, **{column: LOGGED_EDITS[column]})
    alone = ("event 4 does not follow the one before it",)
    assert found(seen) == found(seen, noted) == found(seen, early) == alone


@pytest.mark.parametrize("column", ["time", "kind", "detail"])
def test_the_last_event_is_held_by_the_head(seen: Ledger, column: str) -> None:
    noted = seen.verify()
    rehash(seen, 5, 5, **{column: LOGGED_EDITS[column]})
    ends = "the log ends with event 5, its head says 5 (or another hash)"
    assert found(seen) == (ends,)
    assert found(seen, noted)[0] == ends
    assert "the event 5 that was noted" in found(seen, noted)[1]


def test_a_log_that_was_written_anew_is_found_by_a_noted_head_alone(seen: Ledger) -> None:
    noted, early, middle = seen.verify(), tuple(seen.events())[1].head, tuple(seen.events())[2].head
    own = rehash(seen, 3, 5, detail='{"text":"nothing"}')
    meddle(seen, f"UPDATE sev_attest_ledger SET hash = '{own}'")
    assert seen.verify() == seen.verify(early) == Head(5, own)
    for head in (noted, middle):
        (alone,) = found(seen, head)
        assert alone.startswith(f"the log does not have the event {head.count} that was noted: ")


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM sev_attest_event WHERE seq = 3", "event 3 is missing: 4 comes after 2"),
        ("DELETE FROM sev_attest_ledger", "the head of the log is missing"),
        (
            "UPDATE sev_attest_ledger SET events = 4",
            "the log ends with event 5, its head says 4 (or another hash)",
        ),
        (
            f"DELETE FROM sev_attest_session WHERE session_id = '{ONE}'",
            "the row of session 000000000000 is missing",
        ),
        (
            ADDED,
            "the session 9 has a row, but no event",
        ),
        *(
            (
                f"UPDATE sev_attest_session SET {column} = {value} WHERE session_id = '{ONE}'",
                "the row of session 000000000000 contradicts its events",
            )
            for column in ("name", "state", "created", "changed", "expires", "measurement", "note")
            for value in ("'created'", "x''", "7")
        ),
        *(
            (
                f"UPDATE sev_attest_session SET {column} = {value} WHERE session_id = '{TWO}'",
                "the row of session 000000000000 contradicts its events",
            )
            for column in ("expires", "measurement")
            for value in ("''", "x''", "0")
        ),
    ],
)
def test_whatever_else_is_edited_has_its_own_finding_too(
    seen: Ledger, statement: str, finding: str
) -> None:
    meddle(seen, statement)
    assert found(seen) == (finding,)


def test_the_first_event_follows_a_hash_of_zeros(ledger: Ledger) -> None:
    ledger.create(ONE)
    (event,) = ledger.events()
    assert event.previous == "0" * 64
    assert ledger.verify(Head(0, "0" * 64)) == event.head
    rehash(ledger, 1, 1, previous="1" * 64)
    meddle(ledger, f"UPDATE sev_attest_ledger SET hash = '{next(ledger.events()).hash}'")
    assert found(ledger) == ("event 1 does not follow the one before it",)


def test_each_event_tells_what_it_is_about(ledger: Ledger, clock: Clock) -> None:
    text = base64.b64encode(MEASUREMENT).decode()
    other = base64.b64encode(OTHER).decode()
    ledger.create(ONE, expires=NOON + timedelta(seconds=1))
    ledger.create(TWO)
    with suppress(Insecure):
        ledger.create(TWO)
    ledger.release(TWO, MEASUREMENT)
    with suppress(Insecure):
        ledger.release(TWO, OTHER)
    log(ledger, TWO, "mismatch", "seen")
    ledger.fail(TWO, "why")
    clock.ahead(1)
    with suppress(WrongState):
        ledger.bind(ONE, MEASUREMENT)
    ledger.create(session_id(3))
    ledger.close(session_id(3), "over")
    assert [(event.kind, event.detail) for event in ledger.events() if event.kind != "created"] == [
        ("refused", '{"step":"create"}'),
        ("measured", f'{{"measurement":"{text}"}}'),
        ("released", f'{{"measurement":"{text}"}}'),
        ("refused", f'{{"step":"bind","measurement":"{other}"}}'),
        ("mismatch", '{"text":"seen"}'),
        ("failed", '{"note":"why"}'),
        ("expired", "{}"),
        ("closed", '{"note":"over"}'),
    ]


# What owners keep already.

FIRST_SCHEMA = Path(__file__).with_name("ledger_version_1.sql")
FIRST_HEAD = Head(15, "040a67639548a29cc927dd96b27234928ed9f57f398d48d291531fd6e236cd61")
FIRST_STATES = ("released", "measured", "failed", "closed", "expired", "created")


def first_keys(number: int) -> sev.TransportKeys:
    return sev.TransportKeys(tik=bytes([number]) * 16, tek=bytes(16))


@pytest.fixture
def kept(place: Path, clock: Clock) -> Iterator[Ledger]:
    """Open a ledger as the first release of sev-attest left it."""
    place.touch(mode=0o600)
    connection = sqlite3.connect(place)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FIRST_SCHEMA.read_text(encoding="utf-8"))
    connection.close()
    with Ledger.open(place, create=False, clock=clock) as opened:
        yield opened


def test_a_ledger_of_the_first_schema_is_read(kept: Ledger) -> None:
    assert kept.verify(FIRST_HEAD) == FIRST_HEAD
    assert [entry.state for entry in kept.entries()] == [*FIRST_STATES]
    assert [entry.session_id for entry in kept.entries()] == [
        first_keys(number).session_id for number in range(1, 7)
    ]
    first, second, third, *_ = kept.entries()
    assert (first.name, first.measurement, first.expires) == (
        "vm1",
        MEASUREMENT,
        "2026-02-01T00:00:00+00:00",
    )
    assert (first.created, first.changed) == (
        "2026-01-02T12:01:00+00:00",
        "2026-01-02T12:04:00+00:00",
    )
    assert (second.note, second.measurement) == ("made by another tool", MEASUREMENT)
    assert (third.name, third.note) == ("vm é", "the packet did not get out")
    assert [event.kind for event in kept.events()] == [
        *("created", "measured", "mismatch", "released", "refused", "created", "measured"),
        *("created", "failed", "created", "closed", "created", "expired", "created", "refused"),
    ]


def test_a_ledger_of_the_first_schema_still_says_no(kept: Ledger) -> None:
    for number, state in enumerate(FIRST_STATES, 1):
        session = first_keys(number).session_id
        with pytest.raises(Insecure):
            kept.create(session)
        if state in ("released", "measured"):
            with pytest.raises(Insecure):
                kept.bind(session, OTHER, adopt=True)
        if state not in ("measured", "created"):
            with pytest.raises(WrongState) as refused:
                kept.release(session, MEASUREMENT, adopt=True)
            assert refused.value.check == f"ledger.{state}"
        else:
            kept.release(session, MEASUREMENT)
    kept.verify(FIRST_HEAD)


EVENT_OF_THE_FIRST_SCHEMA = (
    1,
    "2026-01-02T12:01:00+00:00",
    "35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402",
    "created",
    '{"name":"vm1","expires":"2026-02-01T00:00:00+00:00","note":""}',
    "0" * 64,
)


def test_the_hash_of_an_event_stays_what_it_is() -> None:
    assert event_hash(EVENT_OF_THE_FIRST_SCHEMA) == (
        "ed15a2c4c820f98a45772d62a8602c9356447dd2e05aff01401accf9322a4ac9"
    )


def _chained(*told: tuple[str, str]) -> list[tuple[Any, ...]]:
    """Forge a log whose hashes are all right."""
    rows: list[tuple[Any, ...]] = []
    previous = "0" * 64
    for seq, (kind, detail) in enumerate(told, 1):
        fields = (seq, "2026-01-02T12:00:00+00:00", ONE, kind, detail, previous)
        previous = event_hash(fields)
        rows.append((*fields, previous))
    return rows


BEGUN = ("created", '{"name":"","expires":null,"note":""}')


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ([("released", "{}")], "event 1: the session is released before it was created"),
        ([BEGUN, BEGUN], "event 2: the session is created a second time"),
        ([BEGUN, ("released", "{}")], "event 2: the session is released although it was created"),
        ([("created", "{}")], "event 1: the session has a detail of no known form"),
        (
            [("created", '{"name":"","expires":null,"note":"","root":1}')],
            "event 1: the session has a detail of no known form",
        ),
        ([("created", "[]")], "event 1: the session has a detail of no known form"),
        ([BEGUN, ("closed", "[]")], "event 2: the session has a detail of no known form"),
        ([BEGUN, ("measured", "no json")], "event 2: the session has a detail of no known form"),
        ([BEGUN, ("closed", "[" * 99999)], "event 2: the session has a detail of no known form"),
        (
            [BEGUN, ("measured", '{"measurement":"%"}')],
            "event 2: the session has a detail of no known form",
        ),
    ],
)
def test_a_log_with_good_hashes_must_tell_a_story_that_can_be(
    told: list[tuple[str, str]], found: str
) -> None:
    events = _chained(*told)

    class Forged(Reader):
        def __init__(self) -> None:
            """Have no database."""

        def checkpoint(self) -> None:
            return None

        def head_row(self) -> tuple[Any, ...]:
            return (len(events), events[-1][6])

        def event_rows(self) -> Iterator[tuple[Any, ...]]:
            return iter(events)

        def attempts(self) -> Iterator[tuple[dict[object, Any], Iterator[tuple[Any, ...]]]]:
            return iter([({}, iter(events))])

    _, told_of = findings(Forged(), [])
    assert found in told_of


@pytest.mark.parametrize(
    "damage",
    [
        *(f"UPDATE sev_attest_session SET expires = {value}" for value in ("x''", "0", "x'00'")),
        *(
            f"UPDATE sev_attest_event SET time = {value} WHERE kind = 'measured'"
            for value in ("x''", "x'00'")
        ),
    ],
)
def test_times_that_are_no_text_release_nothing_and_can_be_printed(
    ledger: Ledger, damage: str
) -> None:
    ledger.create(ONE, expires=NOON + timedelta(days=1))
    ledger.bind(ONE, MEASUREMENT)
    meddle(ledger, damage)
    for step in (ledger.bind, ledger.release):
        with pytest.raises(SevAttestError) as refused:
            step(ONE, OTHER)
        assert json.dumps(refused.value.facts)
    if "expires" in damage:
        with pytest.raises(LedgerError):
            ledger.release(ONE, MEASUREMENT)
    with pytest.raises(LedgerDamaged):
        ledger.verify()


def test_a_bound_row_without_its_event_still_refuses(ledger: Ledger) -> None:
    ledger.create(ONE)
    with sqlite3.connect(ledger.place) as connection:
        text = base64.b64encode(MEASUREMENT).decode()
        connection.execute(
            "UPDATE sev_attest_session SET state = 'measured', measurement = ?", (text,)
        )
    connection.close()
    with pytest.raises(Insecure, match="since an unknown time"):
        ledger.bind(ONE, OTHER)


# Where it is.


def test_the_default_place_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_place() == Path("/state/sev-attest/ledger.sqlite3")
    monkeypatch.setenv("HOME", "/home/owner")
    for unset in ("", "relative/state"):
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        assert default_place() == Path("/home/owner/.local/state/sev-attest/ledger.sqlite3")

    monkeypatch.setattr(os.path, "expanduser", str)  # of a user whom nothing knows
    with pytest.raises(Unsupported, match="no home"):
        default_place()


def test_a_ledger_opens_without_cryptography_and_without_psycopg() -> None:
    code = (
        "import sys, sev_attest.owner.ledger as l; l.Ledger.open(l.default_place());"
        "sys.exit(bool({'cryptography', 'click', 'psycopg'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@host/db",
        "postgres://user:hunter2@host/db",
        "postgresql://user:@host/db",
        "postgresql://user:hun/ter2@host/db",
        "postgresql://user:1/hunter2@host/db",
        "postgresql://user:1?hunter2@host/db",
        "postgresql://user:1#hunter2@host/db",
        "postgresql://host/db?password=hunter2",
        "postgresql://host/db?user=x&sslpassword=hunter2",
        "postgresql://host/db?%70assword=hunter2",
        "postgresql:hunter2",
        "postgresql://[hunter2/db",
        "mysql://user:hunter2@host/db",
        "a file\0hunter2",
    ],
)
def test_a_url_with_a_password_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Unsupported) as refused:
        Ledger.open(url)
    assert refused.value.check in ("ledger.url", "ledger.place")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://service@db.example/keys",
        "postgresql://db.example:5432/keys?target_session_attrs=read-write",
        "postgresql://localhost,db.example/keys",
        "postgresql:///keys?host=/run/pg,db.example",
        "postgresql://localhost/keys?host=db.example",
        "postgresql://localhost/keys?hostaddr=192.0.2.1",
        "postgresql://[::2]:5432/keys",
        "postgresql://127.evil.example/keys",
        "postgresql://localhost.example/keys",
    ],
)
def test_a_server_elsewhere_must_be_checked_or_not_by_a_word(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGSSLMODE", "PGSERVICE", "PGHOST", "PGHOSTADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unsupported) as refused:
        Ledger.open(url)
    assert (refused.value.check, refused.value.exit_code) == ("ledger.url", 2)
    assert "sslmode=verify-full" in refused.value.hint
    for word in ("sslmode=verify-full", "sslmode=disable", "service=keys"):
        assert postgres.Postgres(f"{url}{'&' if '?' in url else '?'}{word}", 1).place
    for name in ("PGSSLMODE", "PGSERVICE"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "x")
            assert postgres.Postgres(url, 1).place


def test_a_server_on_this_machine_is_not_asked_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSSLMODE", "PGSERVICE", "PGHOST", "PGHOSTADDR"):
        monkeypatch.delenv(name, raising=False)
    for host in (
        *("", ":6432", "localhost", "LOCALHOST:5432", "127.0.0.1", "[::1]:5432", "%2Frun%2Fpg"),
        "localhost,127.0.0.2:1",
    ):
        assert postgres.Postgres(f"postgresql://me@{host}/keys", 1).place
    for host in ("/run/pg", "%40abstract", "::1", "localhost"):
        assert postgres.Postgres(f"postgresql:///keys?host={host}", 1).place
    for name in ("PGHOST", "PGHOSTADDR"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "db.example")
            with pytest.raises(Unsupported, match=r"db\.example is checked"):
                postgres.Postgres("postgresql:///keys", 1)
            assert postgres.Postgres("postgresql:///keys?host=/run/pg", 1).place


def test_postgresql_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Unsupported) as refused:
        Ledger.open("postgresql:///db")
    assert refused.value.check == "ledger.postgres"
    assert "pip install '.[postgres]'" in refused.value.hint


FLUSHING = (
    "set_config('synchronous_commit', 'on', true),"
    " set_config('client_min_messages', 'warning', true),"
    " pg_logical_emit_message(true, 'sev-attest', '')"
)


class Server:
    """Stands in for a server: the same statements, on SQLite. The real one is in tests/live."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[sqlite3.Connection] = []
        self.fails: dict[str, Exception] = {}
        self.said: list[bytes] = []

    def connect(
        self, url: str, *, autocommit: bool, connect_timeout: int, prepare_threshold: int | None
    ) -> "Server":
        assert autocommit
        assert prepare_threshold is None
        self.connections.append(sqlite3.connect(self.path, isolation_level=None))
        return self

    def execute(self, query: bytes, values: tuple[Any, ...] | None) -> sqlite3.Cursor:
        self.said.append(query)
        sql = query.decode()
        for words, error in self.fails.items():
            if re.search(rf"\b{words}\b", sql):
                raise error
        # As psycopg: no other placeholder than %s, as many as values, in one statement.
        assert "?" not in sql
        if values is not None:
            assert (sql.count("%"), sql.count("%s")) == (len(values), len(values))
            assert ";" not in sql
        if "pg_logical_emit_message" in sql:
            sql = sql.replace(FLUSHING, "1, 1, 1")
        if "to_char" in sql:
            sql = sql.replace(postgres.Postgres.names["now"], "'2026-01-02T12:00:00+00:00'")
        if "LANGUAGE plpgsql" in sql or "CREATE TRIGGER" in sql:
            sql, values = "SELECT 1", None
        elif sql.startswith("BEGIN"):
            sql = "BEGIN IMMEDIATE"
        elif "pg_class" in sql:
            sql = sqlite.Sqlite.tables
        return self.connections[-1].execute(sql.replace("%s", "?"), values or ())

    def add_notice_handler(self, handler: Callable[[Any], None]) -> None:
        self.warn = handler

    def close(self) -> None:
        self.connections.pop().close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(tmp_path / "server")
    monkeypatch.setattr(psycopg, "connect", made.connect)
    return made


def test_postgresql_takes_the_same_steps(server: Server) -> None:
    with pytest.raises(LedgerError) as refused:
        Ledger.open("postgresql://owner@db.example:5432/keys?sslmode=require", create=False)
    assert refused.value.check == "ledger.missing"
    for _ in range(2):
        with Ledger.open("postgresql://owner@db.example:5432/keys?sslmode=require") as ledger:
            assert repr(ledger) == "Ledger('PostgreSQL db.example:5432/keys')"
            with suppress(SevAttestError):
                released(ledger)
            assert kinds(ledger)[:3] == ["created", "measured", "released"]
            ledger.verify()
    assert any(b"LOCK TABLE sev_attest_ledger IN EXCLUSIVE MODE" in said for said in server.said)
    assert server.connections == []


@pytest.mark.parametrize("words", ["pg_advisory_xact_lock", "pg_class", "CREATE TABLE", "COMMIT"])
@pytest.mark.parametrize("create", [True, False])
def test_a_server_that_fails_before_the_ledger_is_open_is_named(
    server: Server, words: str, *, create: bool
) -> None:
    if not create:
        Ledger.open("postgresql:///keys").disconnect()
    if words == "CREATE TABLE" and not create:
        words = "SELECT version"
    server.fails = {words: psycopg.OperationalError("server closed\nthe connection")}
    with pytest.raises(LedgerError) as refused:
        Ledger.open("postgresql:///keys", create=create)
    assert refused.value.check == "ledger.connection"
    assert str(refused.value).endswith("the connection failed (server closed)")
    assert server.connections == []


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql:///keys", "PostgreSQL the local socket/keys"),
        ("postgresql:///?host=/run/pg&dbname=keys", "PostgreSQL /run/pg/keys"),
        ("postgres://a,b:5433/keys?sslmode=verify-full", "PostgreSQL a,b:5433/keys"),
        ("postgresql://", "PostgreSQL the local socket/"),
    ],
)
def test_messages_name_the_server_and_the_database(url: str, place: str) -> None:
    assert postgres.Postgres(url, 1).place == place


@pytest.mark.parametrize(
    ("state", "check"),
    [
        ("55P03", "locked"),
        ("25006", "read-only"),
        ("53100", "full"),
        ("42501", "permission"),
        ("23505", "damaged"),
        ("57P01", "connection"),
        *(("57P02", "connection"), ("57P03", "connection"), ("25P03", "connection")),
        *(("57P05", "connection"), ("08P01", "connection"), ("53300", "connection")),
        ("0A000", "read-only"),
        *(("40P01", "locked"), ("23514", "damaged"), ("42P01", "damaged"), ("42703", "damaged")),
        *(("XX001", "damaged"), ("XX002", "damaged")),
        ("22000", "trouble"),
    ],
)
def test_postgresql_s_errors_are_named(server: Server, state: str, check: str) -> None:
    error = psycopg.errors.lookup(state)("words") if state != "22000" else psycopg.DataError()
    error.sqlstate = state
    server.fails = {"LOCK": error}
    with Ledger.open("postgresql:///keys") as ledger:
        with pytest.raises(LedgerError) as refused:
            ledger.create(ONE)
        assert refused.value.check == f"ledger.{check}"
        server.fails.clear()
        ledger.create(ONE)


def test_at_the_opening_nothing_was_under_way(server: Server) -> None:
    for words in ("pg_advisory_xact_lock", "SELECT relname"):
        server.fails = {words: psycopg.OperationalError("no route")}
        with pytest.raises(LedgerError) as refused:
            Ledger.open("postgresql:///keys")
        assert refused.value.check == "ledger.connection"
        assert refused.value.hint == (
            "nothing was released; check that the server answers, and the role, database and "
            "service name in the URL"
        )
    denied = psycopg.errors.lookup("42501")("no rights")
    server.fails = {"CREATE TABLE": denied}
    with pytest.raises(LedgerError) as refused:
        Ledger.open("postgresql:///keys")
    assert refused.value.check == "ledger.permission"
    assert "ask the database's owner" in refused.value.hint


@pytest.mark.parametrize(
    "fails", [psycopg.ProgrammingError("invalid port"), UnicodeEncodeError("utf-8", "x", 0, 1, "y")]
)
def test_a_url_that_the_driver_cannot_read_is_usage(
    monkeypatch: pytest.MonkeyPatch, fails: Exception
) -> None:
    def connect(*_: object, **__: object) -> None:
        raise fails

    monkeypatch.setattr(psycopg, "connect", connect)
    with pytest.raises(Unsupported, match="URL cannot be used") as refused:
        Ledger.open("postgresql://host:port/keys?sslmode=require")
    assert refused.value.check == "ledger.url"


@pytest.mark.parametrize("fails", [psycopg.DataError("bad value"), OverflowError("too large")])
def test_what_psycopg_cannot_read_is_damage(server: Server, fails: Exception) -> None:
    with Ledger.open("postgresql:///keys") as ledger:
        server.fails = {"SELECT": fails}
        with pytest.raises(LedgerError) as refused:
            list(ledger.entries())
    assert refused.value.check == "ledger.damaged"


@pytest.mark.parametrize("value", [Decimal(1), ["x"], NOON, b"x" * (1 << 20) + b"x", "x" * 1048577])
def test_values_that_no_ledger_has_are_damage(
    server: Server, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    class Odd:
        description = "a row"
        rowcount = 1

        def fetchall(self) -> list[tuple[object, ...]]:
            return [(value,) * 7]

        def close(self) -> None:
            """Do nothing."""

    with Ledger.open("postgresql:///keys") as ledger:
        execute = server.execute
        monkeypatch.setattr(
            server, "execute", lambda sql, values: Odd() if b"seq" in sql else execute(sql, values)
        )
        for read in (lambda: list(ledger.events()), ledger.verify):
            with pytest.raises(LedgerError) as refused:
                read()
            assert refused.value.check == "ledger.damaged"


def test_a_broken_connection_says_that_the_outcome_is_not_known(server: Server) -> None:
    with Ledger.open("postgresql:///keys") as ledger:
        server.fails = {"COMMIT": psycopg.OperationalError("server closed\nthe connection")}
        with pytest.raises(LedgerError, match=r"the connection failed \(server closed\)") as told:
            ledger.create(ONE)
        assert (told.value.check, told.value.exit_code) == ("ledger.connection", 6)
        assert told.value.hint.startswith("the last step may have been taken: look at the session")


# Keys.


def test_no_key_or_secret_is_in_it(session: sev.Session, place: Path, clock: Clock) -> None:
    keys = session.keys
    forms = [
        form
        for key in (keys.tik, keys.tek)
        for form in (key, key.hex().encode(), base64.b64encode(key), repr(key).encode()[2:-1])
    ]
    said: list[str] = []
    with Ledger.open(place, clock=clock) as ledger:
        released(ledger, keys.session_id)
        refusals: tuple[Callable[[], object], ...] = (
            lambda: ledger.create(keys.session_id),
            lambda: ledger.bind(keys.session_id, OTHER),
            lambda: ledger.release(keys.session_id, MEASUREMENT),
            lambda: ledger.create(keys.tik.hex()),
            lambda: ledger.bind(keys.session_id, keys.tik + keys.tek),
        )
        for step in refusals:
            with pytest.raises((SevAttestError, ValueError)) as refused:
                step()
            said += [str(refused.value), repr(refused.value), str(vars(refused.value))]
        said += [repr(ledger), repr(everything(ledger))]
        files = b"".join(path.read_bytes() for path in place.parent.iterdir())
    for form in forms:
        assert form not in files
        assert form not in "\n".join(said).encode()


class Notice:
    def __init__(self, severity: str, message: str | None) -> None:
        self.severity_nonlocalized = severity
        self.message_primary = message


@pytest.mark.parametrize("words", ["COMMIT", "pg_logical_emit_message"])
def test_a_warning_at_a_commit_is_an_unknown_outcome(
    server: Server, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    with Ledger.open("postgresql:///keys") as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
        execute = server.execute
        severity = "NOTICE"

        def warn(sql: bytes, values: Any) -> Any:
            if words.encode() in sql:
                server.warn(Notice(severity, "canceling wait for synchronous replication"))
            return execute(sql, values)

        monkeypatch.setattr(server, "execute", warn)
        ledger.bind(ONE, MEASUREMENT)
        severity = "WARNING"
        with pytest.raises(LedgerError, match="canceling wait") as refused:
            ledger.release(ONE, MEASUREMENT)
        assert refused.value.check == "ledger.connection"
        assert refused.value.hint.startswith("the last step may have been taken")


def test_an_event_that_the_flush_does_not_find_is_an_unknown_outcome(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server crashed and came back between commit and flush, or another one took its place."""
    with Ledger.open("postgresql:///keys") as ledger:
        ledger.create(ONE)
        execute = server.execute

        def lose(sql: bytes, values: Any) -> Any:
            if b"pg_logical_emit_message" in sql:
                execute(b"DELETE FROM sev_attest_event WHERE seq > 1", None)
            return execute(sql, values)

        monkeypatch.setattr(server, "execute", lose)
        with pytest.raises(LedgerError, match="events that it had are missing") as refused:
            ledger.release(ONE, MEASUREMENT)
        assert refused.value.check == "ledger.lost"
        assert refused.value.hint.startswith("the last step may have been taken")


@pytest.mark.parametrize(("state", "check"), [("42501", "old"), ("53100", "full")])
def test_only_the_owner_upgrades_the_tables(server: Server, state: str, check: str) -> None:
    connection = sqlite3.connect(server.path)
    connection.executescript(FIRST_SCHEMA.read_text(encoding="utf-8"))
    connection.close()
    server.fails = {"ALTER TABLE": psycopg.errors.lookup(state)("no rights")}
    with pytest.raises(LedgerError) as refused:
        Ledger.open("postgresql:///keys")
    assert refused.value.check == f"ledger.{check}"
    server.fails.clear()
    with Ledger.open("postgresql:///keys") as ledger:
        assert ledger.verify(FIRST_HEAD) == FIRST_HEAD


def test_of_two_that_upgrade_a_ledger_one_does(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.touch(mode=0o600)
    connection = sqlite3.connect(place)
    connection.executescript(FIRST_SCHEMA.read_text(encoding="utf-8"))
    connection.close()
    read = Transactions.read

    def meanwhile(self: Transactions, act: Callable[[Any], Any]) -> Any:
        found = read(self, act)
        with monkeypatch.context() as patch:
            patch.setattr(Transactions, "read", read)
            Ledger.open(place).disconnect()
        return found

    monkeypatch.setattr(Transactions, "read", meanwhile)
    with Ledger.open(place) as ledger:
        monkeypatch.undo()
        assert ledger.verify(FIRST_HEAD) == FIRST_HEAD


def test_a_damaged_row_does_not_keep_the_lock(ledger: Ledger) -> None:
    ledger.create(ONE)
    meddle(ledger, "UPDATE sev_attest_session SET note = CAST(x'ff' AS TEXT)")
    with pytest.raises(LedgerError) as refused:
        ledger.bind(ONE, MEASUREMENT)
    with sqlite3.connect(ledger.place, timeout=0) as connection:
        connection.execute("UPDATE sev_attest_session SET note = ''")
    connection.close()
    assert refused.value.check == "ledger.damaged"
    ledger.bind(ONE, MEASUREMENT)


def test_a_server_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("no route")

    monkeypatch.setattr(psycopg, "connect", fail)
    with pytest.raises(LedgerError, match="the connection failed") as refused:
        Ledger.open("postgresql://localhost/keys")
    assert refused.value.check == "ledger.connection"


def test_a_measurement_with_other_characters_in_it_is_damage(ledger: Ledger) -> None:
    ledger.bind(ONE, MEASUREMENT, adopt=True)
    meddle(ledger, "UPDATE sev_attest_session SET measurement = measurement || ' '")
    with pytest.raises(LedgerError) as refused:
        ledger.get(ONE)
    assert refused.value.check == "ledger.damaged"


def test_a_ledger_that_was_made_leaves_no_file_open(place: Path) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    Ledger.open(place).disconnect()
    assert len([*Path("/proc/self/fd").iterdir()]) == before


# A fork.


def in_child(act: Callable[[], object]) -> str:
    """Do something in a child process; give what it returned, or the check id of its error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = str(act())
        except SevAttestError as error:
            told = error.check
        except BaseException as error:  # noqa: BLE001 - it must not go on as the test
            told = repr(error)
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    told = os.read(read, 4096).decode()
    os.close(read)
    os.waitpid(child, 0)
    return told


def test_what_a_child_releases_is_released_for_all(ledger: Ledger, place: Path) -> None:
    """A child with its parent's locks would write into a log that is gone."""
    for number in range(3):
        ledger.bind(session_id(number), MEASUREMENT, adopt=True)
    ready, go = os.pipe(), os.pipe()

    def release() -> object:
        ledger.get(ONE)  # its own connection is open before the parent's is closed
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        return ledger.release(ONE, MEASUREMENT).state

    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(in_child(release)))
    thread.start()
    os.read(ready[0], 1)
    ledger.disconnect()
    Ledger.open(place).disconnect()  # the last to close the file removes its log
    os.write(go[1], b"x")
    thread.join()
    assert told == ["released"]
    for descriptor in (*ready, *go):
        os.close(descriptor)
    with Ledger.open(place) as other, pytest.raises(WrongState):
        other.release(ONE, MEASUREMENT)
    assert ledger.release(session_id(2), MEASUREMENT).state is State.RELEASED
    ledger.verify()


def test_a_child_that_was_forked_while_the_ledger_was_in_use_is_refused(
    place: Path,
) -> None:
    with Ledger.open(place, timeout=0, connections=2) as ledger:
        ledger.create(ONE)

        def bind() -> object:
            in_child(lambda: None)  # a child of its own changes nothing
            return ledger.bind(ONE, MEASUREMENT)

        assert ledger.snapshot(lambda _: in_child(bind)) == "ledger.forked"
        assert in_child(lambda: ledger.bind(ONE, MEASUREMENT).state) == "measured"
        assert ledger.release(ONE, MEASUREMENT).state is State.RELEASED
        ledger.verify()
