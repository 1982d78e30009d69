"""``session --store`` and ``validate --session``: no file has a key, and the step that ends it."""

import base64
import json
from functools import partial
from pathlib import Path

import pytest

from conftest import Ran, Run
from sev_attest import sev
from sev_attest.cli.hints import hint_for
from sev_attest.errors import Failure
from sev_attest.owner import Ledger, PendingSessions, key_encryption
from sev_attest.owner.ledger.sqlite import Sqlite
from sev_attest.testing import Guest, Platform, launch_guest
from test_cli_owner import DB, OVMF, OWNER

PACKET = ("--secret-header", "h", "--secret-payload", "p")
STORE = ("--store", "store", "--kek", "kek")
TOML = ("--requirements", "owner.toml")


class Desk:
    """An owner's folder: a platform's chain, firmware, requirements, a secret and a KEK."""

    def __init__(self, run: Run, platform: Platform) -> None:
        self.run = run
        self.platform = platform

    def session(self, *options: str, name: str = "vm", store: tuple[str, ...] = STORE) -> Ran:
        given = ("chain", "1", "--trust-root", "root")
        return self.run("session", "--name", name, *given, *store, *options)

    def start(self, firmware: bytes = OVMF, *, name: str = "vm") -> Guest:
        godh, blob = (
            base64.b64decode(Path(f"{name}_{kind}.b64").read_bytes())
            for kind in ("godh", "session")
        )
        started = launch_guest(self.platform, policy=1, godh=godh, session=blob, firmware=firmware)
        Path("info").write_text(started.domlaunchsecinfo())
        return started

    def validate(self, *options: str, name: str = "vm", store: tuple[str, ...] = STORE) -> Ran:
        usual = ("--launch-info", "info", "--diagnose-budget", "0")
        return self.run("validate", *usual, "--session", name, *store, *options)

    def show(self, name: str = "vm") -> dict[str, str | None]:
        document = json.loads(self.run("ledger", "show", name, "--ledger", "store", "--json").out)
        return {key: document["session"][key] for key in ("state", "keys", "kek")}


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform(b"desk")


@pytest.fixture
def desk(platform: Platform, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(Ledger, "open", partial(Ledger.open, timeout=0))
    authority = platform.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("chain").write_bytes(platform.export().to_bytes())
    Path("fw").write_bytes(OVMF)
    Path("owner.toml").write_text(OWNER)
    for name, data in (("key", b"hunter2"), ("kek", bytes(range(32))), ("kek2", bytes(32))):
        Path(name).touch(mode=0o600)
        Path(name).write_bytes(data)
    Path("secrets").mkdir(mode=0o700)
    Path("secrets/luks-key").touch(mode=0o600)
    Path("secrets/luks-key").write_bytes(b"hunter2")
    return Desk(run, platform)


def sealed_keys() -> sev.TransportKeys:
    with Ledger.open("store", create=False) as ledger:
        return PendingSessions(ledger, key_encryption("kek")).open("vm").keys


def test_the_files_of_a_stored_session_are_those_for_the_host(desk: Desk) -> None:
    before = {*Path().iterdir()}
    made = desk.session("--valid-for", "2", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["files"] == ["vm_godh.b64", "vm_session.b64"]
    new = {path.name for path in {*Path().iterdir()} - before}
    assert new == {"store", "vm_godh.b64", "vm_session.b64"}
    keys = sealed_keys()
    shown = made.out.encode() + b"".join(
        path.read_bytes() for path in Path().iterdir() if path.is_file()
    )
    for key in (keys.tik, keys.tek):
        assert key not in shown
        assert key.hex().encode() not in shown
        assert base64.b64encode(key)[:-3] not in shown
    assert desk.show() == {
        "state": "created",
        "keys": "sealed here",
        "kek": key_encryption("kek").id,
    }


def test_a_whole_run_without_a_file_of_keys(desk: Desk) -> None:
    assert desk.session().code == 0
    guest = desk.start()
    ran = desk.validate("-f", "fw", "-s", "luks-key:key", *PACKET)
    assert ran.code == 0, ran.err
    assert "OK: Injected 1 secrets" in ran.out
    header, payload = (base64.b64decode(Path(name).read_bytes()) for name in "hp")
    assert [*guest.inject(header, payload).values()] == [b"hunter2"]
    assert desk.show() == {"state": "released", "keys": "gone", "kek": None}
    again = desk.validate("-f", "fw", "-s", "luks-key:key", *PACKET, "--force")
    assert (again.code, "is released" in again.err) == (5, True)


def test_a_stored_session_with_kernel_hashes_is_held_to_a_kernel(desk: Desk) -> None:
    desk.session("--kernel-hashes")
    desk.start()
    given = ("-f", "fw", "-s", "luks-key:key", *PACKET)
    ran = desk.validate(*given)
    assert (ran.code, Path("h").exists()) == (3, False)
    assert "made with --kernel-hashes, but no kernel was given" in ran.err
    assert desk.show()["state"] == "created"  # to be tried again, with the kernel
    ran = desk.validate(*given, "--insecure")
    assert (ran.code, "note: INSECURE: this session was made with" in ran.err) == (0, True)


def test_a_session_in_the_store_may_be_looked_at_first(desk: Desk) -> None:
    desk.session()
    desk.start()
    assert desk.validate("-f", "fw").code == 0
    shown = desk.run("ledger", "show", "vm", "--ledger", "store").out
    assert "keys: sealed here\n" in shown
    assert f"kek: {key_encryption('kek').id}\n" in shown
    desk.session(name="other", store=("--ledger", "store"))
    assert desk.show("other") == {"state": "created", "keys": None, "kek": None}


def test_a_name_that_waits_is_not_given_again(desk: Desk) -> None:
    assert desk.session().code == 0
    Path("elsewhere").mkdir()
    ran = desk.session("--out", "elsewhere")
    assert (ran.code, [*Path("elsewhere").iterdir()]) == (5, [])
    assert ran.err == (
        "error: vm waits already in store\n"
        "hint: choose another name, or close it (`sev-attest ledger close --ledger store`)\n"
    )
    assert desk.run("ledger", "close", "vm", "--ledger", "store").code == 0
    assert desk.session("--out", "elsewhere").code == 0


def test_who_interrupts_a_release_learns_that_it_may_be_taken(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    desk.session()
    desk.start()
    for given, told in (((), False), (("-s", "luks-key:key", *PACKET), True)):
        with monkeypatch.context() as patched:
            patched.setattr(Sqlite, "flush", interrupt)
            ran = desk.validate("-f", "fw", *given)
        assert ran.code == 130
        assert ran.err.startswith("interrupted: the session may be released") is told
        assert told or not ran.err
        assert ("`sev-attest ledger show " in ran.err) is told


def test_a_source_has_the_secrets_of_the_launch_that_is_allowed(desk: Desk) -> None:
    Path("owner.toml").write_text(OWNER + DB)
    assert desk.session(*TOML).code == 0
    guest = desk.start()
    given = (*TOML, "--secret-source", "secrets", *PACKET)
    Path("secrets/luks-key").rename("aside")
    ran = desk.validate(*given)
    assert (ran.code, "there is no secret" in ran.err) == (6, True)
    assert "hint: --secret-source names the source" in ran.err
    assert "the measurement itself is right" in ran.err
    assert desk.show()["state"] == "measured"
    Path("aside").rename("secrets/luks-key")
    ran = desk.validate(*given, "--json")
    assert json.loads(ran.out)["secrets"] == 1
    header, payload = (base64.b64decode(Path(name).read_bytes()) for name in "hp")
    assert [*guest.inject(header, payload).values()] == [b"hunter2"]


@pytest.mark.parametrize("now", [(), TOML])
def test_a_session_is_bound_to_the_requirements_of_its_creation(
    desk: Desk, now: tuple[str, ...]
) -> None:
    assert desk.session(*TOML).code == 0
    desk.start()
    Path("owner.toml").write_text(OWNER.replace("build = 24", "build = 23"))
    given = ("-f", "fw", *now, "-s", "luks-key:key", *PACKET)
    ran = desk.validate(*given)
    assert (ran.code, "was made under other requirements" in ran.err) == (1, True)
    assert "(--requirements-now)" in ran.err
    assert desk.show() | {"kek": ""} == {"state": "measured", "keys": "sealed here", "kek": ""}
    assert desk.validate(*given, "--requirements-now").code == 0


def test_words_in_the_requirements_may_change(desk: Desk) -> None:
    assert desk.session(*TOML).code == 0
    desk.start()
    Path("owner.toml").write_text(f"# reviewed\n{OWNER}")
    assert desk.validate(*TOML, "-s", "luks-key:key", *PACKET).code == 0


def test_another_guest_is_a_mismatch_and_keys_elsewhere_are_named(desk: Desk) -> None:
    desk.session()
    desk.session(name="other", store=("--ledger", "store"))
    desk.start(name="other")
    secret = ("-s", "luks-key:key", *PACKET)
    ran = desk.validate("-f", "fw", "--keys", ".", "--diagnose-budget", "600", *secret)
    assert ran.code == 1
    assert "--tik other_tik.bin" in ran.err
    assert "--ledger store" in ran.err
    for word in ("--session", "--store", "--kek", "--inject-secret", "--secret"):
        assert word not in ran.err.partition("sev-attest validate")[2]
    desk.start()
    search = ("--build-id", "7", "--diagnose-budget", "600")
    ran = desk.validate("-f", "fw", "--kek", "kek2", *search, *secret)
    assert ran.code == 1
    assert "--session vm" in ran.err
    assert "--store store --kek kek --kek kek2" in ran.err


# What cannot be opened.


def test_what_cannot_be_opened_is_one_line_with_a_hint(desk: Desk) -> None:
    desk.session()
    desk.start()
    ran = desk.validate("-f", "fw", name="nobody")
    assert (ran.code, len(ran.err.splitlines())) == (5, 2)
    assert "no session 'nobody' is in the ledger" in ran.err
    assert "`sev-attest ledger list --ledger store` lists sessions" in ran.err
    ran = desk.validate("-f", "fw", store=("--store", "store", "--kek", "kek2"))
    assert (ran.code, len(ran.err.splitlines())) == (6, 2)
    assert key_encryption("kek").id in ran.err
    assert "--kek can be repeated" in ran.err
    two = ("--store", "store", "--kek", "kek2", "--kek", "kek")
    assert desk.validate("-f", "fw", store=two).code == 0
    ran = desk.validate("-f", "fw", store=("--store", "store", "--kek", "nowhere"))
    assert (ran.code, "--kek names the key" in ran.err) == (6, True)
    ran = desk.validate("-f", "fw", store=("--store", "elsewhere", "--kek", "kek"))
    assert (ran.code, "there is no ledger" in ran.err) == (6, True)
    assert not Path("elsewhere").exists()
    desk.run("ledger", "close", "vm", "--ledger", "store")
    ran = desk.validate("-f", "fw")
    assert (ran.code, "vm is closed" in ran.err) == (5, True)


def test_a_damaged_box_is_shown_as_such(desk: Desk) -> None:
    import sqlite3

    desk.session()
    connection = sqlite3.connect("store")
    connection.execute("UPDATE sev_attest_pending SET box = 'AAAA'")
    connection.commit()
    connection.close()
    assert desk.show() == {"state": "created", "keys": "sealed here, damaged", "kek": None}


@pytest.mark.parametrize(
    "check",
    ["damaged", "gone", "kek", "key", "none", "several"],
)
def test_every_error_of_the_store_has_a_hint_that_names_what_to_use(check: str) -> None:
    hint = hint_for(Failure(f"pending.{check}", "", "do this"), ["validate", "--store=a b"])
    assert hint.startswith("do this")
    assert "-" in hint
    assert ("--ledger 'a b'" in hint) == (check == "several")


def test_a_session_whose_files_cannot_be_written_is_not_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "vm_godh.b64")

    monkeypatch.setattr("sev_attest.cli.commands.session.write_all", fail)
    assert desk.session().code == 6
    assert desk.show() == {"state": "failed", "keys": "gone", "kek": None}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--store", "store"), "--store needs --kek"),
        (("--kek", "kek"), "--kek needs --store"),
        ((*STORE, "--ledger", "another"), "--store is the ledger too"),
        ((*STORE, "--ledger", "none"), "--store is the ledger too"),
        (("--store", "none", "--kek", "kek"), "--store needs a file"),
        (("--ledger", "store", *TOML), "--requirements needs --store"),
    ],
)
def test_options_of_a_session_that_do_not_fit(
    desk: Desk, options: tuple[str, ...], said: str
) -> None:
    ran = desk.session(store=options)
    assert (ran.code, said in ran.err) == (2, True)
    assert not Path("store").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (STORE, "--session and --store go together"),
        (("--session", "vm"), "--session and --store go together"),
        (("--session", "vm", *STORE, "--tik", "key"), "--session excludes --tik:"),
        (("--session", "vm", *STORE, "--tk", "key", "--record", "key"), "excludes --tk, --record:"),
        (("--session", "vm", *STORE, "--policy", "3"), "--policy contradicts --session"),
        (("--tk", "key", "--requirements-now"), "--requirements-now needs --session"),
        (("--session", "vm", *STORE, "--secret-source", "s"), "needs --requirements: they name"),
        (
            ("--session", "vm", *STORE, *TOML, "--secret-source", "s"),
            "--secret-source needs --secret-header and --secret-payload",
        ),
        (
            ("--session", "vm", *STORE, *TOML, *PACKET, "--secret-source", "s", "-s", "a:b"),
            "--secret-source excludes --inject-secret",
        ),
    ],
)  # fmt: skip
def test_options_of_a_validation_that_do_not_fit(
    desk: Desk, options: tuple[str, ...], said: str
) -> None:
    desk.session()
    desk.start()
    ran = desk.run("validate", "--launch-info", "info", "-f", "fw", *options)
    assert (ran.code, said in ran.err) == (2, True), ran.err
    assert desk.show()["state"] == "created"


def test_store_and_ledger_may_be_named_alike(desk: Desk) -> None:
    assert desk.session("--ledger", "store").code == 0
    desk.start()
    assert desk.validate("-f", "fw", "--ledger", "store").code == 0
