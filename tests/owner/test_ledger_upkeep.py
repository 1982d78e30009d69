"""What a ledger's owner does now and then: expire, prune, and go on after a loss."""

import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger_worker import MEASUREMENT, session_id
from sev_attest.errors import SevAttestError, Unsupported, WrongState
from sev_attest.owner.ledger import Ledger, LedgerDamaged, LedgerError, reading, upkeep
from sev_attest.owner.ledger import floor as floor_module
from sev_attest.owner.ledger.audit import MAX_FINDINGS
from sev_attest.owner.ledger.checkpoint import Checkpoint, Kept
from sev_attest.owner.ledger.floor import Floor
from sev_attest.owner.ledger.reading import Reader
from sev_attest.owner.ledger.story import Event, Head, LedgerEntry

ONE, TWO = session_id(1), session_id(2)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SEGMENT = list[tuple[LedgerEntry, list[Event]]]


class Clock:
    time = NOON

    def __call__(self) -> datetime:
        return self.time

    def ahead(self, **days: float) -> None:
        self.time += timedelta(**days)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(place: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(place, clock=clock) as opened:
        yield opened


@pytest.fixture(params=[2, 500])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Read with pages of a few rows too."""
    monkeypatch.setattr(reading, "PAGE", request.param)
    size: int = request.param
    return size


def states(ledger: Ledger) -> list[str]:
    return [entry.state for entry in ledger.entries()]


def meddle(ledger: Ledger, *statements: str) -> None:
    """Change the database behind the ledger's back."""
    ledger.disconnect()
    with sqlite3.connect(ledger.place) as connection:
        for number in range(3):
            connection.execute(f"DROP TRIGGER IF EXISTS sev_attest_keeps_{number}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


# expire


def test_what_is_overdue_expires(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_OVERDUE", upkeep._OVERDUE.replace("200", "2"))
    for number in range(5):
        ledger.create(session_id(number), expires=NOON + timedelta(days=1))
    ledger.bind(session_id(4), MEASUREMENT)
    ledger.create(session_id(5), expires=NOON + timedelta(days=3))
    ledger.create(session_id(6))
    ledger.create(session_id(7), expires=NOON + timedelta(days=1))
    ledger.release(session_id(7), MEASUREMENT)
    assert ledger.expire() == 0
    clock.ahead(days=1)
    assert [entry.state_at(ledger.now) for entry in ledger.entries()][:5] == ["expired"] * 5
    assert ledger.expire() == 5
    assert states(ledger) == [*["expired"] * 5, "created", "created", "released"]
    assert ledger.expire() == 0
    ledger.verify()


# prune


def grown(ledger: Ledger, clock: Clock) -> None:
    """Make sessions that end on different days, in between one another."""
    ledger.create(session_id(0), name="open since long")
    for number in range(1, 6):
        ledger.create(session_id(number), name=f"vm{number}", root="AMD Milan")
        ledger.bind(session_id(number), MEASUREMENT, unmet="a.b")
        clock.ahead(days=1)
        ledger.release(session_id(number), MEASUREMENT)
    ledger.bind(session_id(0), MEASUREMENT)
    clock.ahead(days=1)


def prune(ledger: Ledger, before: datetime) -> tuple[Checkpoint, Head, SEGMENT]:
    told: list[Any] = []
    done = ledger.prune(before, lambda head, going: told.extend((head, list(going))))
    return done, told[0], told[1]


@pytest.mark.usefixtures("page")
def test_what_ended_goes_and_the_rest_can_be_checked(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    noted = ledger.verify()
    every = [*ledger.events()]
    done, head, segment = prune(ledger, NOON + timedelta(days=4))
    assert head == noted == done.head
    assert [entry.name for entry, _ in segment] == ["vm1", "vm2", "vm3"]
    gone = {event.seq for _, events in segment for event in events}
    assert (done.sessions, done.removed, len(gone)) == (3, 12, 12)
    *left, checkpoint = ledger.events()
    assert left == [event for event in every if event.seq not in gone]
    assert (checkpoint.kind, checkpoint.session_id, checkpoint.seq) == (
        "checkpoint",
        "",
        noted.count + 1,
    )
    assert ledger.snapshot(Reader.checkpoint) == done
    assert ledger.verify(noted) == ledger.verify() == checkpoint.head
    assert ledger.verify(left[0].head) == checkpoint.head
    assert ledger.get(session_id(1)) is None
    assert ledger.root(session_id(4)) == "AMD Milan"
    # It goes on, and goes once more.
    ledger.release(session_id(0), MEASUREMENT)
    assert ledger.verify(checkpoint.head).count == noted.count + 2
    done, _, segment = prune(ledger, NOON + timedelta(days=6))
    assert [entry.name for entry, _ in segment] == ["vm4", "vm5"]
    assert [event.kind for event in ledger.events()] == [
        *("created", "measured", "checkpoint", "released", "checkpoint")
    ]
    ledger.verify(checkpoint.head)
    with pytest.raises(LedgerDamaged, match="look for it in what was exported"):
        ledger.verify(every[3].head)


def test_the_log_still_only_grows_after_it(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    prune(ledger, NOON + timedelta(days=4))
    with sqlite3.connect(ledger.place) as connection:
        for statement in (
            "DELETE FROM sev_attest_event",
            "UPDATE sev_attest_event SET kind = 'x'",
            "DELETE FROM sev_attest_session",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                connection.execute(statement)
    connection.close()


def test_without_anything_to_remove_nothing_is_written(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    noted = ledger.verify()
    done, _, segment = prune(ledger, NOON)
    assert (done.sessions, done.removed, segment) == (0, 0, [])
    assert ledger.verify() == noted
    with pytest.raises(Unsupported, match="in the future") as refused:
        prune(ledger, clock.time + timedelta(days=1))
    assert refused.value.check == "ledger.before"


def test_an_export_that_fails_removes_nothing(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    noted = ledger.verify()

    def fail(_head: object, going: Iterator[object]) -> None:
        next(going)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        ledger.prune(NOON + timedelta(days=4), fail)
    assert ledger.verify() == noted


def test_what_an_export_does_not_read_goes_all_the_same(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    done = ledger.prune(NOON + timedelta(days=4), lambda _head, _going: None)
    assert done.sessions == 3
    ledger.verify()


@pytest.mark.parametrize(
    "change",
    [
        lambda ledger: ledger.bind(session_id(1), bytes(48)),  # logs a refusal
        lambda ledger: ledger.fail(session_id(1), "late"),
    ],
)
def test_a_session_that_changes_meanwhile_stops_it(
    ledger: Ledger, clock: Clock, change: Any
) -> None:
    grown(ledger, clock)

    def meanwhile(_head: object, going: Iterator[object]) -> None:
        list(going)
        with suppress(SevAttestError):
            change(ledger)

    with pytest.raises(LedgerError, match="changed meanwhile") as refused:
        ledger.prune(NOON + timedelta(days=4), meanwhile)
    assert refused.value.check == "ledger.moved"
    assert ledger.get(session_id(1)) is not None
    ledger.verify()


def test_rows_that_do_not_go_stop_it(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    meddle(
        ledger,
        "CREATE TRIGGER other BEFORE DELETE ON sev_attest_session BEGIN SELECT RAISE(IGNORE); END",
    )
    with pytest.raises(LedgerError, match="changed meanwhile"):
        prune(ledger, NOON + timedelta(days=4))
    ledger.verify()


def test_a_damaged_ledger_is_not_pruned(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    meddle(ledger, "UPDATE sev_attest_event SET time = '' WHERE seq = 2")
    with pytest.raises(LedgerDamaged):
        prune(ledger, NOON + timedelta(days=4))


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM sev_attest_event WHERE seq = 1", "others are left"),
        ("DELETE FROM sev_attest_event WHERE seq = 15", "others are left"),
        ("UPDATE sev_attest_event SET hash = 'x' WHERE seq = 15", "others are left"),
        ("UPDATE sev_attest_event SET time = 'x' WHERE seq = 15", "its hash is another"),
        ("DELETE FROM sev_attest_event WHERE seq = 23", "an event|event 23 is missing|log ends"),
        ("DELETE FROM sev_attest_session WHERE name = 'vm4'", "the row of session"),
    ],
)
def test_what_is_changed_before_a_checkpoint_is_found(
    ledger: Ledger, clock: Clock, statement: str, finding: str
) -> None:
    grown(ledger, clock)
    prune(ledger, NOON + timedelta(days=4))
    ledger.create(session_id(9))
    meddle(ledger, statement)
    with pytest.raises(LedgerDamaged) as refused:
        ledger.verify()
    assert any(re.search(finding, each) for each in refused.value.findings), refused.value.findings


def test_a_removed_event_that_comes_back_is_found(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    _, _, segment = prune(ledger, NOON + timedelta(days=4))
    entry, events = segment[0]
    ledger.disconnect()
    with sqlite3.connect(ledger.place) as connection:
        for event in events:
            connection.execute(
                "INSERT INTO sev_attest_event VALUES (?, ?, ?, ?, ?, ?, ?)", event.to_row()
            )
        connection.execute(
            "INSERT INTO sev_attest_session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            entry.to_row(),
        )
    connection.close()
    with pytest.raises(LedgerDamaged, match="more is missing than was removed") as refused:
        ledger.verify()
    assert any("others are left" in finding for finding in refused.value.findings)


@pytest.mark.parametrize(
    "detail", ["{}", "[]", "no json", '{"head":1}', '{"head":"x","digest":""}',
               f'{{"head":"1:{"0" * 64}","digest":1}}',
               f'{{"head":"1:{"0" * 64}","digest":"","before":"","sessions":"1","removed":1}}',
               f'{{"head":"1:{"0" * 64}","digest":""}}']
)  # fmt: skip
def test_a_checkpoint_of_no_known_form_is_damage(ledger: Ledger, clock: Clock, detail: str) -> None:
    grown(ledger, clock)
    prune(ledger, NOON + timedelta(days=4))
    meddle(ledger, f"UPDATE sev_attest_event SET detail = '{detail}' WHERE kind = 'checkpoint'")
    with pytest.raises(LedgerError) as refused:
        ledger.verify()
    assert refused.value.check == "ledger.damaged"


def test_findings_are_limited(ledger: Ledger) -> None:
    for number in range(MAX_FINDINGS // 2 + 5):
        ledger.create(session_id(number))
    meddle(ledger, "UPDATE sev_attest_event SET time = 'x'")
    with pytest.raises(LedgerDamaged) as refused:
        ledger.verify()
    assert len(refused.value.findings) == MAX_FINDINGS


# the floor


def test_a_ledger_that_lost_events_takes_no_step(place: Path, tmp_path: Path) -> None:
    floor = tmp_path / "floor"
    with Ledger.open(place, floor=floor) as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
        ledger.disconnect()
        backup = place.read_bytes()
        ledger.release(ONE, MEASUREMENT)
        head = ledger.verify()
        ledger.disconnect()
        place.write_bytes(backup)
        for _ in range(2):  # the object remembers
            with pytest.raises(LedgerError, match="event 3; its last one is 2") as refused:
                ledger.release(ONE, MEASUREMENT)
            assert refused.value.check == "ledger.lost"
    assert floor.read_text() == f"{3:015}:{head.hash}\n"
    assert floor.stat().st_mode & 0o777 == 0o600
    with Ledger.open(place, floor=floor) as ledger:  # so does the file
        for attempt in (ONE, TWO):
            with pytest.raises(LedgerError) as refused:
                ledger.bind(attempt, MEASUREMENT, adopt=True)
            assert refused.value.check == "ledger.lost"
    # Another log of the same length is no better.
    with Ledger.open(place) as ledger:
        ledger.create(TWO)
    with Ledger.open(place, floor=floor) as ledger, pytest.raises(LedgerError):
        ledger.release(ONE, MEASUREMENT)
    with Ledger.open(place) as ledger:
        accepted = ledger.accept_head("restored from a backup", floor=floor)
        assert states(ledger) == ["closed", "closed"]
    with Ledger.open(place, floor=floor) as ledger:
        assert ledger.verify() == accepted
        with pytest.raises(WrongState, match="restored from a backup"):
            ledger.release(ONE, MEASUREMENT)
        ledger.create(session_id(3))
    assert floor.read_text().startswith(f"{accepted.count + 1:015}:")


def test_a_floor_that_is_a_link_is_named(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("floor")
    with pytest.raises(LedgerError, match="it is a symbolic link") as refused:
        Ledger.open(place, floor=tmp_path / "link")
    assert (refused.value.check, refused.value.hint) == ("ledger.floor", "name the file itself")


def test_processes_share_a_floor_and_it_never_falls(place: Path, tmp_path: Path) -> None:
    floor = tmp_path / "floor"
    with Ledger.open(place, floor=floor) as one, Ledger.open(place, floor=floor) as other:
        one.create(ONE)
        other.create(TWO)
        one.create(session_id(3))
        highest = floor.read_text()
        other._floor.head = Head(1, "0" * 64)
        other._floor.raise_to(Head(2, "0" * 64))
        other._floor.raise_to(Head(2, "0" * 64))
        assert floor.read_text() == highest
        assert other._floor.head == one.verify()
    with Ledger.open(place) as ledger:  # without it, nothing is asked
        ledger.create(session_id(4))
    assert floor.read_text() == highest


def test_a_floor_that_was_removed_is_refused(ledger: Ledger, clock: Clock) -> None:
    """A checkpoint says nothing of the hash of an event that it removed."""
    grown(ledger, clock)
    with Ledger.open(ledger.place, clock=clock) as idle:
        clock.ahead(days=1)
        idle.create(session_id(8))
        idle.close(session_id(8))
        assert idle._floor.head == ledger.verify()
        clock.ahead(days=2)
        prune(ledger, clock.time)
        with pytest.raises(LedgerError, match="its owner pruned it, or changed it") as refused:
            idle.create(session_id(9))
        assert refused.value.check == "ledger.lost"


def test_a_session_that_may_have_been_removed_is_not_adopted(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    assert ledger.bind(session_id(50), MEASUREMENT, adopt=True)
    prune(ledger, NOON + timedelta(days=4))
    for attempt in (session_id(1), session_id(51)):
        for step in (ledger.bind, ledger.release):
            with pytest.raises(WrongState, match="it may be one of them") as refused:
                step(attempt, MEASUREMENT, adopt=True)
            assert refused.value.check == "ledger.pruned"
    assert ledger.release(session_id(50), MEASUREMENT, adopt=True)
    ledger.verify()


def forge(ledger: Ledger, head: Head, **changes: Any) -> None:
    """Append a checkpoint that nobody's prune wrote."""
    kept = Kept()
    every = [*ledger.events()]
    for event in sorted(every, key=lambda event: (event.session_id, event.seq)):
        if event.seq <= head.count:
            kept.add(event.seq, event.hash)
    told = Checkpoint(head=head, before="", sessions=0, removed=0, digest=kept.digest)
    checkpoint = Event.after(
        every[-1].head,
        time="2026-01-02T12:00:00+00:00",
        session_id="",
        kind="checkpoint",
        detail=told._replace(**changes).to_detail(),
    )
    ledger.disconnect()
    with sqlite3.connect(ledger.place) as connection:
        connection.execute(
            "INSERT INTO sev_attest_event VALUES (?, ?, ?, ?, ?, ?, ?)", checkpoint.to_row()
        )
        connection.execute(
            "UPDATE sev_attest_ledger SET events = ?, hash = ?", (checkpoint.seq, checkpoint.hash)
        )
    connection.close()


def test_a_checkpoint_that_nobody_s_prune_wrote_is_found(ledger: Ledger, clock: Clock) -> None:
    grown(ledger, clock)
    noted = ledger.verify()
    ledger.disconnect()
    copy = Path(ledger.place).read_bytes()
    # What it removes must be as much as what is missing.
    forge(ledger, noted, removed=3)
    with pytest.raises(LedgerDamaged, match="more is missing than was removed"):
        ledger.verify(noted)
    # The head that it names must be the event that is there.
    ledger.disconnect()
    Path(ledger.place).write_bytes(copy)
    forge(ledger, Head(noted.count, "0" * 64))
    with pytest.raises(LedgerDamaged, match="is not the one that the checkpoint names"):
        ledger.verify()


def test_verify_holds_a_ledger_to_its_floor(place: Path, tmp_path: Path) -> None:
    with Ledger.open(place, floor=tmp_path / "floor") as ledger:
        ledger.create(ONE)
        ledger.disconnect()
        copy = place.read_bytes()
        ledger.create(TWO)
        ledger.verify()
        ledger.disconnect()
        place.write_bytes(copy)
        with pytest.raises(LedgerError, match="event 2; its last one is 1") as refused:
            ledger.verify()
        assert (refused.value.check, refused.value.exit_code) == ("ledger.lost", 6)
        with pytest.raises(LedgerError) as refused:
            ledger.require_floor()
        assert refused.value.check == "ledger.lost"
        meddle(ledger, "UPDATE sev_attest_session SET state = 'measured'")
        with pytest.raises(LedgerDamaged) as damaged:
            ledger.verify()
        assert "does not have the event 2 that was noted" in damaged.value.findings[0]
        assert len(damaged.value.findings) == 2


def test_a_ledger_that_was_restored_and_went_on_says_so(place: Path) -> None:
    with Ledger.open(place) as ledger:
        ledger.create(ONE)
        ledger.disconnect()
        copy = place.read_bytes()
        ledger.create(TWO)
        ledger.disconnect()
        place.write_bytes(copy)
        with Ledger.open(place) as other:
            other.create(session_id(3))
            other.require_floor()
        words = "event 2 is not the one that was noted: it was restored, and went on"
        looks = (ledger.verify, ledger.require_floor, lambda: ledger.create(session_id(4)))
        for look in looks:
            with pytest.raises(LedgerError, match=words) as refused:
                look()
            assert refused.value.check == "ledger.lost"


def test_a_loss_that_was_accepted_is_an_event_of_the_ledger(ledger: Ledger, place: Path) -> None:
    for reason in ("", "  "):
        with pytest.raises(Unsupported) as refused:
            ledger.accept_head(reason)
        assert refused.value.check == "ledger.reason"
    ledger.create(ONE)
    ledger.close(ONE)
    ledger.create(TWO)
    for closed in (1, 0):
        head = ledger.accept_head(" restored ")
        last = [*ledger.events()][-1]
        assert (last.head, last.session_id, last.kind) == (head, "", "accepted")
        assert json.loads(last.detail) == {"reason": "restored", "closed": closed}
        assert ledger.verify(head) == head
    assert states(ledger) == ["closed", "closed"]
    adopted = ledger.bind(session_id(9), MEASUREMENT, adopt=True)
    assert adopted.note == "made by another tool"


def test_who_does_not_own_the_tables_exports_nothing(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(ledger, clock)
    monkeypatch.setattr(ledger._store, "owned", "SELECT 1 = 0")
    told: list[object] = []
    with pytest.raises(LedgerError, match="its tables belong to another role") as refused:
        ledger.prune(NOON + timedelta(days=4), lambda *given: told.append(given))
    assert refused.value.check == "ledger.owner"
    assert "run this as the owner of the tables" in refused.value.hint
    assert told == []


def test_a_floor_that_cannot_be_written_after_a_commit_is_an_unknown_outcome(
    place: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    with Ledger.open(place, floor=folder / "floor") as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
        folder.chmod(0o777)
        with pytest.raises(LedgerError) as refused:
            ledger.release(ONE, MEASUREMENT)
        folder.chmod(0o700)
        assert refused.value.check == "ledger.floor"
        assert refused.value.hint.startswith("the last step may have been taken")


def test_a_floor_that_another_process_holds_is_waited_for(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor_module, "_SECONDS", 0.05)
    path = tmp_path / "floor"
    with Ledger.open(place, floor=path) as ledger:
        with path.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(LedgerError, match="Resource temporarily unavailable"):
                ledger.create(ONE)
        ledger.create(TWO)


def test_processes_that_create_a_floor_at_once_create_one_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "floor", os.link
    higher = Head(7, "7" * 64)

    def overtaken(source: str, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        Floor(path).raise_to(higher)
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    assert Floor(path).head == higher
    assert [*tmp_path.iterdir()] == [path]


def _loose(floor: Path) -> None:
    floor.touch(mode=0o666)
    floor.chmod(0o666)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda floor: floor.write_text("1:2\n"), "not a line COUNT:HASH"),
        (lambda floor: floor.write_text("x" * 81), "not a line COUNT:HASH"),
        (lambda floor: floor.touch(), "not a line COUNT:HASH"),
        (Path.mkdir, "Is a directory"),
        (lambda floor: floor.symlink_to("elsewhere"), "symbolic link|Too many levels"),
        (_loose, "others can write to it"),
        (lambda floor: floor.parent.chmod(0o777), "anybody can write in its folder"),
        (os.mkfifo, "it is not a file"),
    ],
)
def test_a_floor_that_cannot_be_used_is_an_error(
    place: Path, tmp_path: Path, spoil: Any, words: str
) -> None:
    floor = tmp_path / "own" / "floor"
    floor.parent.mkdir(mode=0o700)
    floor.touch(mode=0o600)
    floor.unlink()
    spoil(floor)
    with pytest.raises(LedgerError, match=words) as refused:
        Ledger.open(place, floor=floor)
    assert (refused.value.check, refused.value.exit_code) == ("ledger.floor", 6)
    floor.parent.chmod(0o700)


def test_a_floor_in_a_folder_that_is_missing_is_an_error(place: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        Ledger.open(place, floor=tmp_path / "missing" / "floor")


# reading in pages


@pytest.mark.usefixtures("page")
def test_pages_have_everything_once_and_in_order(ledger: Ledger, clock: Clock) -> None:
    for number in (5, 3, 9, 1, 7, 2):
        ledger.create(session_id(number), name="twin" if number > 5 else f"vm{number}")
        clock.ahead(days=1 if number == 9 else 0)
    for _ in range(3):
        ledger.bind(session_id(3), MEASUREMENT, unmet=f"{clock.time} {_}")
    ids = [entry.session_id for entry in ledger.entries()]
    assert ids == [session_id(number) for number in (3, 5, 9, 1, 2, 7)]
    assert [event.seq for event in ledger.events()] == [*range(1, 11)]
    kinds = [event.kind for event in ledger.events(session_id(3))]
    assert kinds == ["created", "measured", *["requirements"] * 3]
    assert [*ledger.events(session_id(4))] == []
    assert [entry.session_id for entry in ledger.find("twin")] == [session_id(9), session_id(7)]
    assert len(ledger.find("twin", most=1)) == 1
    assert [entry.name for entry in ledger.find(session_id(3))] == ["vm3"]
    assert len(ledger.find("0" * 63)) == 6
    assert ledger.find("0" * 7) == ledger.find("nobody") == ledger.find("twin\0") == ()
    ledger.verify()


def test_a_segment_is_as_long_as_what_was_exported(ledger: Ledger, clock: Clock) -> None:
    """The digest of a checkpoint can be made by others."""
    import hashlib

    grown(ledger, clock)
    done, _, _ = prune(ledger, NOON + timedelta(days=4))
    *left, checkpoint = ledger.events()
    left.sort(key=lambda event: (event.session_id, event.seq))
    lines = "".join(f"{event.seq}:{event.hash}\n" for event in left)
    assert hashlib.sha256(lines.encode()).hexdigest() == done.digest
    assert json.loads(checkpoint.detail) == {
        "head": str(done.head),
        "before": "2026-01-06T12:00:00+00:00",
        "sessions": 3,
        "removed": 12,
        "digest": done.digest,
    }
