"""owner/pending.py: keys wait sealed beside the ledger, and go in the step that ends a session."""

import base64
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pending_worker
from release_worker import SECRETS, demands
from sev_attest import Insecure, LaunchRefused, SevAttestError, WrongState, sev
from sev_attest.owner import (
    KeyAccessError,
    LaunchRecord,
    Ledger,
    LedgerError,
    PendingSessions,
    SealError,
    key_encryption,
    release,
)
from sev_attest.owner.key_release import KeyRelease
from sev_attest.owner.key_wrapping import KeyFile
from sev_attest.owner.ledger import SealedKeys, State
from sev_attest.owner.ledger.story import MAX_REFUSED
from sev_attest.owner.pending import sealed_under
from sev_attest.owner.requirements import ReferenceValue
from sev_attest.testing import Guest, Platform, launch_guest, ovmf_image
from test_ledger import LARGE_VALUES, ODD_VALUES, Server
from workers import racers

NOON = datetime(2026, 6, 30, 12, tzinfo=UTC)
OVMF = ovmf_image(1 << 13)
OTHER = ovmf_image(1 << 13, seed=b"another firmware")
DIGEST = sev.launch_digest(OVMF)
MEASUREMENT = bytes(range(48))
WEB = demands(DIGEST)


@dataclass
class Desk:
    """An owner with a store, and a clock that moves when told."""

    platform: Platform
    verified: sev.VerifiedChain
    ledger: Ledger
    store: PendingSessions
    database: Path
    kek: Path
    now: datetime = NOON

    def session(self, name: str = "vm", **more: Any) -> sev.Session:
        """Make a session, and store it."""
        made = sev.Session.create(self.verified, policy=sev.GuestPolicy(1))
        self.store.add(made, LaunchRecord.of(made, name, NOON), **more)
        return made

    def start(self, session: sev.Session, firmware: bytes = OVMF) -> Guest:
        return launch_guest(
            self.platform,
            policy=1,
            godh=session.godh.to_bytes(),
            session=session.blob,
            firmware=firmware,
        )

    def report(self, session: sev.Session, firmware: bytes = OVMF) -> sev.LaunchInfo:
        """Start a guest, and report it."""
        return sev.LaunchInfo.from_text(self.start(session, firmware).domlaunchsecinfo())

    def release(self, info: sev.LaunchInfo, **changes: Any) -> sev.SecretPacket:
        given: dict[str, Any] = {
            "session": "vm",
            "store": self.store,
            "requirements": WEB,
            "secrets": SECRETS,
        }
        return release(info, **(given | changes))

    def row(self, session: sev.Session) -> SealedKeys | None:
        return self.ledger.snapshot(lambda reader: reader.sealed(session.keys.session_id))

    def box(self, session: sev.Session) -> bytes | None:
        row = self.row(session)
        assert row is not None
        return row.box

    def kinds(self, session: sev.Session) -> list[str]:
        return [event.kind for event in self.ledger.events(session.keys.session_id)]

    def tell(self, sql: str, *values: object) -> None:
        """Change the database behind the ledger's back."""
        connection = sqlite3.connect(self.database)
        connection.execute(sql, values)
        connection.commit()
        connection.close()

    def refusal(self, call: Callable[[], object]) -> SevAttestError:
        with pytest.raises(SevAttestError) as refused:
            call()
        return refused.value


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.touch(mode=0o600)
    path.write_bytes(bytes(range(100, 132)))
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kek: Path,
    milan: Platform,
    verified: sev.VerifiedChain,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:
    database = tmp_path / "ledger"
    place = str(database)
    if request.param == "postgresql":
        monkeypatch.setattr(psycopg, "connect", Server(database).connect)
        place = "postgresql://owner@db.example/keys?sslmode=require"
    made: list[Desk] = []
    with Ledger.open(place, timeout=0, clock=lambda: made[0].now if made else NOON) as ledger:
        store = PendingSessions(ledger, key_encryption(str(kek)))
        made.append(Desk(milan, verified, ledger, store, database, kek))
        yield made[0]
        ledger.verify()


# What waits, and what opens it.


def test_what_was_stored_is_opened_by_name_and_by_id(desk: Desk) -> None:
    session = desk.session(expires=NOON + timedelta(hours=1))
    attempt = session.keys.session_id
    entry = desk.ledger.get(attempt)
    assert entry is not None
    assert (entry.name, entry.state, entry.expires) == (
        "vm",
        "created",
        "2026-06-30T13:00:00+00:00",
    )
    record = LaunchRecord.of(session, "vm", NOON)
    assert desk.ledger.root(attempt) == record.root
    for text in ("vm", attempt, attempt[:8]):
        opened = desk.store.open(text)
        assert (opened.keys, opened.record) == (session.keys, record)
        assert opened.requirements is None
    row = desk.row(session)
    assert row is not None
    assert sealed_under(row) == key_encryption(str(desk.kek)).id


def test_a_session_that_the_ledger_has_is_not_stored_again(desk: Desk) -> None:
    session = desk.session(requirements=WEB)
    before = desk.row(session)
    again = LaunchRecord.of(session, "another", NOON)
    assert isinstance(desk.refusal(lambda: desk.store.add(session, again)), Insecure)
    assert desk.row(session) == before
    assert [entry.name for entry in desk.ledger.entries()] == ["vm"]


def test_session_and_keys_are_stored_together_or_not_at_all(desk: Desk) -> None:
    desk.tell("DROP TABLE sev_attest_pending")
    error = desk.refusal(desk.session)
    assert (type(error), error.check) == (LedgerError, "ledger.damaged")
    assert [*desk.ledger.entries()] == []


def test_a_record_of_another_session_is_not_stored(desk: Desk, verified: sev.VerifiedChain) -> None:
    one, two = (sev.Session.create(verified, policy=sev.GuestPolicy(1)) for _ in range(2))
    error = desk.refusal(lambda: desk.store.add(one, LaunchRecord.of(two, "vm", NOON)))
    assert error.check == "record.session"
    assert [*desk.ledger.entries()] == []


def test_an_older_key_opens_what_it_sealed(desk: Desk, tmp_path: Path) -> None:
    session = desk.session()
    new = tmp_path / "new"
    new.touch(mode=0o600)
    new.write_bytes(bytes(32))
    keks = key_encryption(str(new)), key_encryption(str(desk.kek))
    rotated = PendingSessions(desk.ledger, *keks)
    assert rotated.open("vm").keys == session.keys
    error = desk.refusal(lambda: PendingSessions(desk.ledger, keks[0]).open("vm"))
    assert (type(error), error.check) == (SealError, "pending.key")
    assert all(kek.id in str(error) for kek in keks)


def test_a_session_that_cannot_be_opened_is_named(desk: Desk) -> None:
    for text in ("nobody", "0" * 64):
        error = desk.refusal(lambda text=text: desk.store.open(text))  # type: ignore[misc]
        assert (type(error), error.check) == (WrongState, "ledger.unknown")
    error = desk.refusal(lambda: desk.store.open("0" * 7))
    assert "(an id needs at least 8 digits)" in str(error)
    desk.session("twice"), desk.ledger.create("2" * 64, name="twice")
    error = desk.refusal(lambda: desk.store.open("twice"))
    assert (error.check, error.hint) == (
        "pending.several",
        "give the id: at least 8 of its digits",
    )
    desk.ledger.create("1" * 64, name="elsewhere")
    assert desk.refusal(lambda: desk.store.open("elsewhere")).check == "pending.none"
    desk.session("gone")
    desk.tell("UPDATE sev_attest_pending SET box = NULL")
    assert desk.refusal(lambda: desk.store.open("gone")).check == "pending.gone"


def test_a_name_that_waits_is_not_given_again(desk: Desk) -> None:
    first = desk.session("web-53", expires=NOON + timedelta(hours=1))
    before = [*desk.ledger.events()]
    error = desk.refusal(lambda: desk.session("web-53"))
    assert (type(error), error.check, error.exit_code) == (WrongState, "pending.name", 5)
    assert str(error) == f"web-53 waits already in {desk.ledger.place}"
    assert error.hint == "choose another name, or close it"
    assert [*desk.ledger.events()] == before
    assert desk.store.open("web-53").keys == first.keys
    desk.ledger.bind(first.keys.session_id, MEASUREMENT)
    assert desk.refusal(lambda: desk.session("web-53")).check == "pending.name"
    desk.session("web-5"), desk.session("web-53 ")


@pytest.mark.parametrize("end", ["closed", "over"])
def test_a_name_is_free_again_when_its_session_has_ended(desk: Desk, end: str) -> None:
    first = desk.session("web-53", expires=NOON + timedelta(hours=1))
    if end == "closed":
        desk.ledger.close(first.keys.session_id)
    else:
        desk.now += timedelta(hours=1)
    second = desk.session("web-53")
    assert desk.store.open("web-53").keys == second.keys
    desk.ledger.close(second.keys.session_id)
    assert desk.refusal(lambda: desk.store.open("web-53")).check == "pending.several"


def test_sessions_without_a_name_wait_side_by_side(desk: Desk) -> None:
    for number in "12":
        desk.ledger.create(number * 64, sealed=SealedKeys(box=b"x"))


def test_a_box_opens_in_its_own_row_and_with_its_own_requirements_only(desk: Desk) -> None:
    one, two = desk.session("one", requirements=WEB), desk.session("two", requirements=WEB)
    move = "UPDATE sev_attest_pending SET box = ? WHERE session_id = ?"
    box = desk.box(one)
    assert box is not None
    desk.tell(move, base64.b64encode(box).decode(), two.keys.session_id)
    assert desk.refusal(lambda: desk.store.open("two")).check == "pending.damaged"
    for other in (None, demands(bytes(32)).fingerprint):
        desk.tell("UPDATE sev_attest_pending SET requirements = ?", other)
        assert desk.refusal(lambda: desk.store.open("one")).check == "pending.damaged"


@pytest.mark.parametrize("box", ["", "AAAA", "no base64", b"\0", 7])
def test_a_row_of_no_known_form_is_damage(desk: Desk, box: object) -> None:
    desk.session()
    desk.tell("UPDATE sev_attest_pending SET box = ?", box)
    assert desk.refusal(lambda: desk.store.open("vm")).check in (
        "pending.damaged",
        "ledger.damaged",
    )
    desk.tell("UPDATE sev_attest_pending SET box = NULL, requirements = x'00'")
    assert desk.refusal(lambda: desk.store.open("vm")).check == "ledger.damaged"


@pytest.mark.parametrize("desk", ["sqlite"], indirect=True)  # it takes any type in any column
@pytest.mark.parametrize("column", ["session_id", "box", "requirements"])
def test_whatever_is_in_a_row_only_our_errors_come_out(desk: Desk, column: str) -> None:
    desk.session()
    for value in (*ODD_VALUES, *LARGE_VALUES):
        if (column, value) != ("requirements", "NULL"):  # as it is
            desk.tell(f"UPDATE sev_attest_pending SET {column} = {value}")
            assert desk.refusal(lambda: desk.store.open("vm"))


def test_what_a_box_holds_must_be_the_session_s(desk: Desk) -> None:
    session = desk.session()
    record = LaunchRecord.of(session, "vm", NOON)
    keys = session.keys.tik + session.keys.tek
    bound = f"sev-attest pending session\0{session.keys.session_id}".encode()
    for plaintext, check in (
        (keys[:31], "pending.damaged"),
        (bytes(32) + record.to_bytes(), "pending.damaged"),
        (session.keys.tik + bytes(16) + record.to_bytes(), "record.mac"),
    ):
        box = desk.store._keys.seal(plaintext, bound)
        text = base64.b64encode(box.to_bytes()).decode()
        desk.tell("UPDATE sev_attest_pending SET box = ?", text)
        assert desk.refusal(lambda: desk.store.open("vm")).check == check


# The step that ends a session removes its keys.


def overdue(desk: Desk, attempt: str) -> None:
    desk.now += timedelta(hours=2)
    with pytest.raises(WrongState):
        desk.ledger.bind(attempt, MEASUREMENT)


def expire_all(desk: Desk, _attempt: str) -> None:
    desk.now += timedelta(hours=2)
    assert desk.ledger.expire() == 1


def refused_often(desk: Desk, attempt: str) -> None:
    for number in range(MAX_REFUSED):
        desk.ledger.bind(attempt, MEASUREMENT, unmet=f"{number}")


def released_and_failed(desk: Desk, attempt: str) -> None:
    desk.ledger.release(attempt, MEASUREMENT)
    desk.ledger.fail(attempt, "it did not get out")


ENDS: dict[str, tuple[Callable[[Desk, str], object], State]] = {
    "release": (lambda d, one: d.ledger.release(one, MEASUREMENT), State.RELEASED),
    "fail": (lambda d, one: d.ledger.fail(one, "why"), State.FAILED),
    "fail after the release": (released_and_failed, State.FAILED),
    "too many refusals": (refused_often, State.FAILED),
    "close": (lambda d, one: d.ledger.close(one), State.CLOSED),
    "expire": (overdue, State.EXPIRED),
    "expire all": (expire_all, State.EXPIRED),
    "accept a head": (lambda d, _: d.ledger.accept_head("why"), State.CLOSED),
}


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_every_step_that_ends_a_session_removes_its_keys(
    desk: Desk, end: str, *, bound: bool
) -> None:
    session = desk.session(expires=NOON + timedelta(hours=1))
    other = desk.session("other", expires=NOON + timedelta(hours=9))
    if bound:
        desk.ledger.bind(session.keys.session_id, MEASUREMENT)
    assert desk.box(session)
    step, state = ENDS[end]
    step(desk, session.keys.session_id)
    assert desk.box(session) is None
    assert bool(desk.box(other)) == (end != "accept a head")  # which ends all
    error = desk.refusal(lambda: desk.store.open("vm"))
    assert (type(error), error.check) == (WrongState, f"ledger.{state}")


def test_an_ended_session_is_not_opened_by_a_box_that_was_brought_back(desk: Desk) -> None:
    session = desk.session()
    box = desk.box(session)
    assert box is not None
    desk.ledger.close(session.keys.session_id)
    desk.tell("UPDATE sev_attest_pending SET box = ?", base64.b64encode(box).decode())
    assert desk.refusal(lambda: desk.store.open("vm")).check == "ledger.closed"


@pytest.mark.parametrize("desk", ["sqlite"], indirect=True)  # the real server: tests/live
def test_what_is_pruned_leaves_no_row_of_keys(desk: Desk) -> None:
    session, other = desk.session(), desk.session("other")
    desk.ledger.close(session.keys.session_id)
    desk.now += timedelta(days=9)
    desk.ledger.prune(desk.now - timedelta(days=1), lambda _head, going: [*going])
    assert desk.ledger.get(session.keys.session_id) is None
    assert desk.row(session) is None
    assert desk.box(other)


# The release of what waits.


class Source:
    """A source of secrets that notes when it is asked, and may fail."""

    def __init__(self, desk: Desk, fails: Exception | None = None) -> None:
        self.desk = desk
        self.fails = fails
        self.found: Mapping[str, bytes] = SECRETS
        self.asked: list[tuple[str, list[str]]] = []

    def secrets(self, launch: str) -> Mapping[str, bytes]:
        states = [entry.state.value for entry in self.desk.ledger.entries()]
        self.asked.append((launch, states))
        if self.fails is not None:
            raise self.fails
        return self.found


def test_a_session_that_waits_releases_its_secret_once(desk: Desk) -> None:
    session = desk.session(requirements=WEB)
    guest = desk.start(session)
    info = sev.LaunchInfo.from_text(guest.domlaunchsecinfo())
    packet = desk.release(info, session=session.keys.session_id)
    assert [*guest.inject(packet.header, packet.payload).values()] == [*SECRETS.values()]
    assert desk.kinds(session) == ["created", "measured", "released"]
    assert desk.box(session) is None
    assert desk.refusal(lambda: desk.release(info)).check == "ledger.released"


def test_a_wrong_measurement_changes_nothing_and_asks_no_source(desk: Desk) -> None:
    session = desk.session(requirements=demands(bytes(32)))
    source = Source(desk)
    info = desk.report(session, OTHER)
    assert desk.refusal(lambda: desk.release(info, secrets=source)).check == "launch.measurement"
    assert (desk.kinds(session), source.asked) == (["created"], [])


def test_other_requirements_than_at_its_creation_need_a_word(desk: Desk) -> None:
    stricter = replace(WEB, refused=frozenset({"CVE-0000-0000"}))
    session = desk.session(requirements=stricter)
    source = Source(desk)
    info = desk.report(session)
    error = desk.refusal(lambda: desk.release(info, secrets=source))
    assert (type(error), error.check) == (LaunchRefused, "requirements.changed")
    assert stricter.fingerprint[:12] in str(error)
    assert WEB.fingerprint[:12] in str(error)
    assert (desk.kinds(session), source.asked) == (["created", "measured"], [])
    assert desk.box(session)
    assert desk.release(info, secrets=source, requirements_now=True)


def test_a_session_that_is_bound_to_requirements_is_not_for_none(desk: Desk) -> None:
    desk.session(requirements=WEB)
    desk.session("free")
    desk.store.open("free").require(None)
    with pytest.raises(LaunchRefused, match="these are none"):
        desk.store.open("vm").require(None)


def test_a_source_is_asked_when_the_requirements_are_met_and_before_the_ledger(desk: Desk) -> None:
    session, source = desk.session(), Source(desk)
    both = replace(
        WEB,
        launches=(ReferenceValue(name="db", digests={bytes(32): ""}), *WEB.launches),
    )
    info = desk.report(session)
    strict = replace(both, denied_pdhs=frozenset({"*"}))
    unmet = desk.refusal(lambda: desk.release(info, secrets=source, requirements=strict))
    assert (unmet.check, source.asked) == ("requirements.platform.denied-pdh", [])
    # Nothing else tells which of the launches the secrets are for.
    assert desk.release(info, secrets=source, requirements=both)
    assert source.asked == [("web", ["measured"])]


@pytest.mark.parametrize(
    "fails", [KeyAccessError("no answer", check="secrets.source"), RuntimeError("a bug")]
)
def test_a_source_that_fails_leaves_the_session_measured(desk: Desk, fails: Exception) -> None:
    session, source = desk.session(), Source(desk, fails)
    info = desk.report(session)
    with pytest.raises(type(fails)):
        desk.release(info, secrets=source)
    assert desk.kinds(session) == ["created", "measured"]
    assert source.asked == [("web", ["created"])]
    source.fails, source.found = None, {}
    assert desk.refusal(lambda: desk.release(info, secrets=source)).check == "secret.none"
    source.found = SECRETS
    assert desk.release(info, secrets=source)
    assert desk.box(session) is None


def test_a_source_serves_a_session_with_keys_of_its_own_too(desk: Desk) -> None:
    session, source = desk.session(), Source(desk)
    own = {
        "keys": session.keys,
        "record": LaunchRecord.of(session, "vm", NOON),
        "ledger": desk.ledger,
    }
    info = desk.report(session)
    for wrong in (
        {},
        {"session": "vm"},
        {"store": desk.store},
        own | {"session": "vm"},
        own | {"session": "vm", "store": desk.store},
        own | {"ledger": None},
    ):
        given: dict[str, Any] = {"requirements": WEB, "secrets": source, **wrong}
        with pytest.raises(TypeError, match="session and store; or keys, record and ledger"):
            release(info, **given)
    given = {"requirements": WEB, "secrets": source, **own}
    assert release(info, **given)
    assert source.asked == [("web", ["created"])]


def test_a_source_needs_requirements_and_its_turn(desk: Desk) -> None:
    session, source = desk.session(), Source(desk)
    launch = sev.verify_launch(
        desk.report(session), keys=session.keys, policy=session.policy, digest=DIGEST
    )
    record = LaunchRecord.of(session, "vm", NOON)
    given: dict[str, Any] = {"secrets": source, "record": record, "ledger": desk.ledger}
    with pytest.raises(TypeError):
        KeyRelease(launch, **given)
    with KeyRelease(launch, **given, requirements=WEB) as steps:
        with pytest.raises(RuntimeError):
            steps.build()
        assert source.asked == []
        steps.check()
        steps.build()
        assert steps.commit()
    assert steps.secret_count == 1


# Who holds the database alone.


def told(secret: bytes) -> tuple[bytes, ...]:
    """Give a secret as it could show."""
    plain = base64.b64encode(secret).rstrip(b"=")[:-1]
    return (
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        plain,
        repr(secret).encode(),
    )


def test_nothing_but_the_packet_shows_a_key(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    keys: list[bytes] = []
    wrap = KeyFile.wrap

    def spy(one: KeyFile, data_key: bytes) -> bytes:
        keys.append(data_key)
        return wrap(one, data_key)

    monkeypatch.setattr(KeyFile, "wrap", spy)
    one, two = desk.session("one", requirements=WEB), desk.session("two")
    said = [repr(desk.store), repr(desk.store.open("one")), repr(desk.row(one))]
    said.append(repr(desk.refusal(lambda: desk.release(desk.report(two), session="one"))))
    desk.tell("UPDATE sev_attest_pending SET requirements = NULL")
    error = desk.refusal(lambda: desk.store.open("one"))
    said.append(f"{error!r} {error} {error.hint} {error.facts} {error.__context__!r}")
    desk.release(desk.report(two), session="two")
    files = [path for path in desk.database.parent.iterdir() if path != desk.kek]
    assert desk.database in files
    shown = b"".join(path.read_bytes() for path in files)
    shown += "".join([*said, caplog.text]).encode()
    secrets = [desk.kek.read_bytes(), *keys, *SECRETS.values()]
    secrets += [key for each in (one, two) for key in (each.keys.tik, each.keys.tek)]
    assert len(secrets) == 7
    for secret in secrets:
        assert not [form for form in told(secret) if form in shown]
    assert one.keys.session_id.encode() in shown


def test_of_processes_that_release_at_once_exactly_one_gets_the_packet(
    tmp_path: Path, kek: Path, milan: Platform, verified: sev.VerifiedChain
) -> None:
    place = tmp_path / "ledger"
    with (
        Ledger.open(place, timeout=60) as ledger,
        racers(pending_worker.__file__, place, 2) as race,
    ):
        store = PendingSessions(ledger, key_encryption(str(kek)))
        desk = Desk(milan, verified, ledger, store, place, kek)
        for number in range(10):
            session = desk.session(f"vm{number}", requirements=WEB)
            case = {
                "report": desk.start(session).domlaunchsecinfo(),
                "session": session.keys.session_id,
                "kek": str(kek),
                "digest": DIGEST.hex(),
            }
            assert sorted(race(json.dumps(case))) == ["ledger.released", "won"]
            assert desk.kinds(session) == ["created", "measured", "released"]
            assert desk.box(session) is None
