"""``sev-attest ledger``."""

import base64
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from conftest import Run
from ledger_worker import MEASUREMENT, session_id
from sev_attest.cli import render
from sev_attest.cli.hints import hint_for
from sev_attest.cli.options.common import LedgerOptions
from sev_attest.errors import Unsupported
from sev_attest.owner.ledger import Ledger, LedgerError, default_place, upkeep
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.owner.ledger.store import Store

ONE, TWO, THREE = "aa" + "1" * 62, "ab" + "2" * 62, session_id(3)
COMMANDS = (
    *("list", "show vm1", "close vm1", "export", "verify", "expire", "accept-head --reason x"),
    "prune --before 2026-01-01 -o gone.json",
)


@pytest.fixture
def ledger(here: Path) -> Iterator[Ledger]:
    """Make the user's own ledger, with three launches in it."""
    ledger = Ledger.open(default_place())
    ledger.create(ONE, name="vm1")
    ledger.create(TWO, name="vm2")
    ledger.bind(TWO, MEASUREMENT)
    ledger.release(TWO, MEASUREMENT)
    ledger.create(THREE, name="vm1")
    ledger.close(THREE, "a test\x1b[2J")
    ledger.disconnect()
    yield ledger
    ledger.disconnect()


def test_list_explains_every_session_in_a_line(run: Run, ledger: Ledger) -> None:
    ran = run("ledger", "list")
    assert ran.code == 0
    assert sorted(line.split()[:3] for line in ran.lines) == [
        ["000000000000", "vm1", "closed:"],
        [ONE[:12], "vm1", "created:"],
        [TWO[:12], "vm2", "released:"],
    ]
    assert "created: no launch was verified yet" in ran.out
    assert "if the guest never got it, make a new session" in ran.out
    assert "a test\\x1b[2J" in ran.out
    assert TWO in run("ledger", "list", "-v").out
    assert run("ledger", "list", "-q").out == ran.out
    none = run("ledger", "list", "-q", "--state", "expired")
    assert (none.code, none.out, none.err) == (0, "", "")


def test_list_by_state_and_as_json(run: Run, ledger: Ledger) -> None:
    ran = run("ledger", "list", "--state", "released", "--state", "failed", "--json")
    document = json.loads(ran.out)
    assert (document["schema"], document["ok"]) == ("sev-attest/ledger list/1", True)
    (session,) = document["sessions"]
    assert (session["session_id"], session["state"]) == (TWO, "released")
    assert session["measurement"] == base64.b64encode(MEASUREMENT).decode()
    assert session["explained"].startswith("released: its secret left on ")
    assert run("ledger", "list", "--state", "failed").out == "no launches in that state\n"
    assert run("ledger", "list", "--state", "odd").code == 2


def test_a_session_without_a_name_shows_too(run: Run, here: Path) -> None:
    with Ledger.open("other") as ledger:
        ledger.bind(ONE, MEASUREMENT, adopt=True)
    assert run("ledger", "list", "--ledger", "other").lines[0].startswith(f"{ONE[:12]}  -")


@pytest.mark.parametrize("name", ["vm2", TWO[:8], TWO])
def test_show_tells_all_that_happened(run: Run, ledger: Ledger, name: str) -> None:
    ran = run("ledger", "show", name)
    assert ran.code == 0
    assert f"session id: {TWO}\nname: vm2\nstate: released\n" in ran.out
    assert [line.split()[1] for line in ran.lines[-3:]] == ["created", "measured", "released"]
    assert f"    event {[*ledger.events(TWO)][-1].head}" in run("ledger", "show", name, "-v").lines
    document = json.loads(run("ledger", "show", name, "--json").out)
    assert document["session"]["session_id"] == TWO
    assert [event["kind"] for event in document["events"]] == ["created", "measured", "released"]
    assert run("ledger", "show", name, "-q").out == run("ledger", "show", name).out != ""


def test_a_name_or_prefix_of_several_is_ambiguous(run: Run, ledger: Ledger) -> None:
    ran = run("ledger", "show", "vm1")
    assert ran.code == 2
    assert "error: 2 sessions are called 'vm1': " in ran.err
    assert f"{ONE[:12]} (created)" in ran.err
    assert run("ledger", "show", ONE[:8]).code == 0


def test_an_exact_name_goes_before_the_beginning_of_an_id(run: Run, ledger: Ledger) -> None:
    ledger.create(session_id(4), name=ONE[:8])
    ran = run("ledger", "close", ONE[:8])
    assert ran.code == 0
    closed = ledger.get(session_id(4))
    assert closed is not None
    assert closed.state == "closed"
    assert run("ledger", "show", ONE[:9]).lines[2] == "state: created"
    ledger.disconnect()


def test_an_unknown_name_is_a_wrong_state(run: Run, ledger: Ledger) -> None:
    for name in ("vm9", "", ONE[:7]):
        ran = run("ledger", "close", name)
        assert ran.code == 5
        assert ran.err.startswith(f"error: no session '{name}' is in the ledger ")


def test_close_ends_a_session_once(run: Run, ledger: Ledger) -> None:
    ran = run("ledger", "close", ONE[:8], "--reason", "never started", "-v")
    assert (ran.code, ran.lines) == (0, ["OK: vm1 is closed", f"session id: {ONE}"])
    assert "closed: on " in run("ledger", "show", ONE[:8]).out
    again = run("ledger", "close", ONE[:8], "--json")
    document = json.loads(again.out)
    assert (again.code, document["schema"]) == (5, "sev-attest/ledger close/1")
    assert document["errors"][0]["check"] == "ledger.closed"
    assert ": never started; " in document["errors"][0]["message"]
    assert run("ledger", "close", TWO[:8]).code == 5  # its secret left


def test_close_as_json_and_quietly(run: Run, ledger: Ledger) -> None:
    document = json.loads(run("ledger", "close", ONE[:8], "--json").out)
    assert document["session"]["state"] == "closed"
    ledger.create(session_id(4), name="vm4")
    quiet = run("ledger", "close", "vm4", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    ledger.create(session_id(5), name="vm5")
    assert run("ledger", "close", "vm5").lines == ["OK: vm5 is closed"]


def test_export_gives_everything(run: Run, ledger: Ledger) -> None:
    for options in ((), ("-q",), ("--json",), ("-q", "--json")):
        document = json.loads(run("ledger", "export", *options).out)
        assert document["schema"] == "sev-attest/ledger export/1"
        assert len(document["sessions"]) == 3
        assert document["head"] == str(ledger.verify())
        assert [event["seq"] for event in document["events"]] == [1, 2, 3, 4, 5, 6]


def test_export_to_a_file_of_the_owner_alone(run: Run, ledger: Ledger) -> None:
    assert run("ledger", "export", "-o", "all.json").out == "wrote all.json\n"
    path = Path("all.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_bytes()) == json.loads(run("ledger", "export").out)
    assert run("ledger", "export", "-o", "all.json").code == 6
    forced = ("ledger", "export", "--output", "all.json", "--force")
    assert run(*forced, "-v").out == "wrote all.json: 6 events\n"
    assert json.loads(run(*forced, "--json").out)["files"] == ["all.json"]
    assert run(*forced, "-q").out == ""


def test_verify_prints_the_head_to_note(run: Run, ledger: Ledger) -> None:
    ran = run("ledger", "verify")
    head = str(ledger.verify())
    assert ran.lines == [f"OK: the ledger matches its 6 events; head {head}"]
    assert ran.err.splitlines() == [
        "note: without --head, an older copy of the ledger would pass too",
    ]
    held = run("ledger", "verify", "--head", head, "-v")
    assert held.lines[1:] == [f"ledger: {default_place()}"]
    document = json.loads(run("ledger", "verify", "--head", head, "--json").out)
    assert (document["ok"], document["head"], document["notes"]) == (True, head, [])
    assert run("ledger", "verify", "-q").out == f"{head}\n"


def test_verify_tells_each_thing_that_is_wrong(run: Run, ledger: Ledger) -> None:
    with sqlite3.connect(ledger.place) as connection:
        connection.execute("UPDATE sev_attest_session SET state = 'measured'")
    connection.close()
    ran = run("ledger", "verify")
    assert ran.code == 1
    assert ran.err.startswith(
        "error: the ledger was changed behind its back: the row of session 000000000000 "
        "contradicts its events (and 2 more)\nhint: "
    )
    assert ran.err.count("note: the row of session") == 2
    document = json.loads(run("ledger", "verify", "--json").out)
    assert (document["exit"], len(document["findings"])) == (1, 3)


def test_verify_with_another_head_fails(run: Run, ledger: Ledger) -> None:
    assert run("ledger", "verify", "--head", f"9:{'0' * 64}").code == 1
    for head in ("9", f"x:{'0' * 64}", f"9:{'0' * 63}"):
        assert run("ledger", "verify", "--head", head).code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_ledger_that_is_missing_is_not_made(run: Run, here: Path, command: str) -> None:
    ran = run("ledger", *command.split(), "--ledger", "folder/none.sqlite3")
    if command == "list":
        told = "there is no ledger at folder/none.sqlite3 yet\n"
        assert (ran.code, ran.out, ran.err) == (0, told, "")
        assert run("ledger", "list").out == f"there is no ledger at {default_place()} yet\n"
        document = json.loads(run("ledger", "list", "--json").out)
        assert (document["ok"], document["sessions"]) == (True, [])
    else:
        assert ran.code == 6
        assert ran.err == (
            "error: ledger folder/none.sqlite3: there is no ledger\n"
            "hint: `sev-attest session --ledger folder/none.sqlite3` begins one\n"
        )
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_no_ledger_is_an_error(run: Run, here: Path, command: str) -> None:
    Path("spoilt").write_bytes(b"not a ledger" * 100)
    Path("spoilt").chmod(0o600)
    ran = run("ledger", *command.split(), "--ledger", "spoilt")
    assert ran.code == 6
    assert ran.err.startswith("error: ledger spoilt: this is not a ledger, or it is damaged")


def test_without_a_ledger_there_is_nothing_to_show(run: Run) -> None:
    ran = run("ledger", "list", "--ledger", "none")
    assert (ran.code, ran.err) == (2, "error: --ledger none leaves nothing to show\n")
    assert run("ledger", "list", "--ledger", "").code == 2


def test_commands_open_the_ledger_that_is_named(here: Path) -> None:
    assert LedgerOptions(ledger="none", floor=None).open() is None
    for given, place in ((None, default_place()), ("mine", here / "mine")):
        ledger = LedgerOptions(ledger=given, floor=None).open()
        assert ledger is not None
        ledger.disconnect()
        assert place.exists()


def test_a_server_is_named_without_its_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("no route to host")

    monkeypatch.setattr(psycopg, "connect", fail)
    ran = run("ledger", "list", "--ledger", "postgresql://owner@db.example/keys?sslmode=require")
    assert ran.code == 6
    assert ran.err.startswith(
        "error: ledger PostgreSQL db.example/keys: the connection failed (no route to host)\n"
    )
    assert "sslmode" not in ran.err
    assert (
        "hint: nothing was released; check that the server answers, and the role, database "
        in ran.err
    )
    refused = run("ledger", "list", "--ledger", "postgresql://owner:hunter2@db.example/keys")
    assert refused.code == 2
    assert "hunter2" not in refused.err
    assert "PGPASSFILE" in refused.err


def test_hints_name_the_ledger_that_was_given(run: Run, here: Path) -> None:
    with Ledger.open("my ledger") as ledger:
        ledger.create(ONE, name="vm1")
    missing = run("ledger", "list", "--ledger", "none.sqlite3", "-v")
    assert missing.code == 0
    Ledger.open(default_place()).disconnect()
    shows = "lists sessions (--ledger names another)\n"
    assert run("ledger", "show", "vm9").err.endswith(f"hint: `sev-attest ledger list` {shows}")
    for given in (("--ledger", "my ledger"), ("--ledger=my ledger",)):
        unknown = run("ledger", "show", "vm9", *given)
        hint = f"hint: `sev-attest ledger list --ledger 'my ledger'` {shows}"
        assert unknown.err.endswith(hint)


@pytest.mark.parametrize("home", [None, "", "/nonexistent/home", "relative"])
def test_a_user_without_a_home_learns_what_to_name(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    if home is None:
        monkeypatch.setattr(os.path, "expanduser", str)  # of a user whom nothing knows
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(Unsupported, match="home folder") as refused:
        LedgerOptions(ledger=None, floor=None).open()
    assert refused.value.check == "ledger.place"
    assert hint_for(refused.value) == "set XDG_STATE_HOME (--ledger names another place)"
    opened = LedgerOptions(ledger="mine", floor=None).open()
    assert opened is not None
    opened.disconnect()


def test_a_home_that_cannot_be_written_to_says_what_to_name(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(LedgerError, match="Permission denied") as refused:
        LedgerOptions(ledger=None, floor=None).open()
    assert refused.value.check == "ledger.permission"
    elsewhere = "keep the ledger elsewhere (--ledger names another place)"
    assert hint_for(refused.value).endswith(elsewhere)


@pytest.mark.parametrize("column", ["ledger.hash", "session.note", "event.detail"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_ledger_is_an_error_of_every_command(
    run: Run, ledger: Ledger, command: str, column: str
) -> None:
    table, _, name = column.partition(".")
    connection = sqlite3.connect(ledger.place, isolation_level=None)
    connection.execute("DROP TRIGGER sev_attest_keeps_0")
    for value in ("x''", "CAST(x'ff' AS TEXT)", "zeroblob(2000000)"):
        connection.execute(f"UPDATE sev_attest_{table} SET {name} = {value}")
        ran = run("ledger", *command.split())
        assert ran.code in (0, 1, 2, 6), (value, ran)
        assert len(ran.err) < 5000
    connection.close()


# init, expire, prune, accept-head, and the floor


def old(place: Path, days: int = 9) -> None:
    """Make a ledger whose sessions, vm0 to vm3, ended long ago, but for the last."""
    time = datetime.now(UTC) - timedelta(days=days)
    with Ledger.open(place, clock=lambda: time) as ledger:
        for number in range(4):
            ends = time + timedelta(days=1 if number else 1000)
            ledger.create(session_id(number), name=f"vm{number}", expires=ends)
        ledger.release(session_id(1), MEASUREMENT)
        ledger.fail(session_id(2), "a test")


def test_init_makes_a_ledger_or_leaves_it_as_it_is(run: Run, here: Path) -> None:
    for _ in range(2):
        ran = run("ledger", "init", "--ledger", "new")
        assert (ran.code, ran.out) == (0, "OK: the ledger new has 0 events\n")
    document = json.loads(run("ledger", "init", "--ledger", "new", "--json").out)
    assert (document["schema"], document["ledger"]) == ("sev-attest/ledger init/1", "new")
    assert document["head"] == f"0:{'0' * 64}"
    assert run("ledger", "init", "--ledger", "new", "-q").out == ""


def test_expire_records_what_is_over(run: Run, here: Path) -> None:
    old(here / "l")
    listed = run("ledger", "list", "--ledger", "l", "--state", "expired")
    assert [line.split()[1] for line in listed.lines] == ["vm3"]
    assert run("ledger", "expire", "--ledger", "l").out == "OK: 1 session expired\n"
    assert json.loads(run("ledger", "expire", "--ledger", "l", "--json").out)["expired"] == 0
    assert run("ledger", "expire", "--ledger", "l", "-q").out == ""
    with Ledger.open(here / "l") as ledger:
        assert [entry.state for entry in ledger.entries()] == [
            *("created", "released", "failed", "expired")
        ]


def test_prune_exports_what_it_removes(run: Run, here: Path) -> None:
    old(here / "l")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    ran = run("ledger", "prune", "--ledger", "l", "--before", today, "-o", "gone.json")
    assert ran.code == 0
    assert ran.out.startswith("OK: removed 2 sessions (5 events); head 8:")
    segment = json.loads((here / "gone.json").read_text())
    assert (segment["schema"], segment["head"][:2]) == ("sev-attest/ledger segment/1", "7:")
    assert [session["name"] for session in segment["sessions"]] == ["vm1", "vm2"]
    kinds = [event["kind"] for event in segment["sessions"][0]["events"]]
    assert kinds == ["created", "measured", "released"]
    verified = run("ledger", "verify", "--ledger", "l", "--head", segment["head"])
    assert "note: the head was noted before that" in verified.err
    told = "note: up to event 7, 5 events were removed, of sessions that ended before"
    assert told in verified.err
    assert told in run("ledger", "verify", "--ledger", "l").err
    ran = run("ledger", "prune", "--ledger", "l", "--before", today, "-o", "none.json")
    assert (ran.code, ran.out) == (0, "OK: there was nothing to remove\n")
    assert not (here / "none.json").exists()
    given = ("ledger", "prune", "--ledger", "l", "--before")
    document = json.loads(run(*given, today, "-o", "none.json", "--json").out)
    assert (document["sessions"], document["events"], document["files"]) == (0, 0, [])
    assert run(*given, today, "-o", "none.json", "-q").out == ""
    ran = run(*given, "2999-01-01", "-o", "none.json")
    assert (ran.code, "is in the future" in ran.err) == (2, True)


def test_prune_never_writes_over_an_export(run: Run, here: Path) -> None:
    old(here / "l")
    (here / "gone.json").write_text("kept")
    with Ledger.open(here / "l") as ledger:
        before = ledger.verify()
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    ran = run("ledger", "prune", "--ledger", "l", "--before", today, "-o", "gone.json")
    assert (ran.code, (here / "gone.json").read_text()) == (6, "kept")
    with Ledger.open(here / "l") as ledger:
        assert ledger.verify() == before


def test_a_ledger_below_its_floor_is_refused_until_that_is_accepted(run: Run, here: Path) -> None:
    given = ("--ledger", "l", "--ledger-floor", "floor")
    old(here / "l")
    copy = (here / "l").read_bytes()
    assert run("ledger", "close", "vm3", *given).code == 0
    (here / "l").write_bytes(copy)
    ran = run("ledger", "close", "vm0", *given)
    assert ran.code == 6
    assert "events that it had are missing (event 8; its last one is 7)" in ran.err
    assert "`sev-attest ledger accept-head`, run once, closes what is open" in ran.err
    assert "on other machines, remove the floor file" in ran.err
    for command in (
        *("list", "show vm0", "export", "expire", "verify", "init", "close vm0"),
        "prune --before 2026-01-01 -o gone.json",
    ):
        ran = run("ledger", *command.split(), *given)
        assert ran.code == 6, command
        assert "(event 8; its last one is 7)" in ran.err, command
        assert "vm0" not in ran.out
    ran = run("ledger", "accept-head", "--reason", " ", *given)
    assert (ran.code, "a reason is needed" in ran.err) == (2, True)
    ran = run("ledger", "accept-head", "--reason", "restored", *given)
    assert (ran.code, ran.out[:35]) == (0, "OK: every open session is closed; h")
    assert run("ledger", "list", *given).out.count("closed: on") == 2
    assert json.loads(run("ledger", "accept-head", "--reason", "x", *given, "--json").out)["ok"]
    assert run("ledger", "accept-head", "--reason", "x", *given, "-q").out == ""


def test_a_floor_knows_that_there_was_a_ledger(run: Run, here: Path) -> None:
    given = ("--ledger", "l", "--ledger-floor", "floor")
    assert "there is no ledger at l yet" in run("ledger", "list", *given).out
    assert not (here / "floor").exists()
    old(here / "l")
    assert run("ledger", "close", "vm3", *given).code == 0
    (here / "l").unlink()
    assert run("ledger", "list", *given).code == 6


def test_verify_with_a_floor_needs_no_head(run: Run, here: Path) -> None:
    given = ("--ledger", "l", "--ledger-floor", "floor")
    old(here / "l")
    assert "note: without --head" in run("ledger", "verify", *given).err  # it is new
    assert run("ledger", "close", "vm3", *given).code == 0
    assert "note: without --head" not in run("ledger", "verify", *given).err


def test_a_prune_that_fails_leaves_no_export(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(here / "l")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    given = ("ledger", "prune", "--ledger", "l", "--before", today, "-o", "gone.json")
    with monkeypatch.context() as patched:
        patched.setattr(Sqlite, "owned", "SELECT 0")
        ran = run(*given)
        assert (ran.code, "hint: run this as the owner of the tables" in ran.err) == (6, True)
        assert not (here / "gone.json").exists()
    for problem, kept in (("moved", False), ("connection", True)):

        def fail(store: Store, *_: object, problem: str = problem) -> None:
            raise store.fault(problem)

        with monkeypatch.context() as patched:
            patched.setattr(upkeep, "remove", fail)
            ran = run(*given)
        assert (ran.code, (here / "gone.json").exists()) == (6, kept)
        assert ("note: gone.json is kept: it is unknown whether" in ran.err) is kept
    ran = run(*given)
    assert (ran.code, "--force" in ran.err) == (6, False)
    assert "hint: choose another name: it may be all that is left" in ran.err
    (here / "gone.json").unlink()
    assert run(*given).code == 0


def test_hints_say_how_much_of_an_id_is_needed(run: Run, ledger: Ledger) -> None:
    assert "'0400' is in the ledger" in run("ledger", "show", "0400").err
    assert "(an id needs at least 8 digits)" in run("ledger", "show", "0400").err
    assert "8 digits" not in run("ledger", "show", "vm9").err
    assert "hint: give the id: at least 8 of its digits" in run("ledger", "show", "vm1").err


def test_a_place_that_is_no_ledger_says_once_what_to_name(run: Run, here: Path) -> None:
    for place in ("mysql://x", str(here)):
        err = run("ledger", "init", "--ledger", place).err
        assert err.count("place") + err.count("another") <= 3, err
        assert "choose another place" not in err
        assert err.endswith("(--ledger names another place)\n")


def test_a_long_list_is_printed_in_parts(
    run: Run, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("ledger", "export").out
    monkeypatch.setattr(render, "_PARTS", 3)
    assert run("ledger", "export").out == whole
    assert json.loads(run("ledger", "list", "--state", "failed", "--json").out)["sessions"] == []
    for number in range(10):
        ledger.create(session_id(100 + number), name="many")
    ran = run("ledger", "show", "many")
    assert "more than 8 sessions are called 'many'" in ran.err
