"""Sessions that wait in a real PostgreSQL: what a dump shows, what a role needs, races."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import pending_worker
from postgres_server import Server
from release_worker import SECRETS, demands
from sev_attest import sev
from sev_attest.errors import WrongState
from sev_attest.owner import LaunchRecord, Ledger, PendingSessions, key_encryption, release
from sev_attest.owner.key_wrapping import KeyFile
from sev_attest.testing import Guest, Platform, launch_guest, ovmf_image
from sev_attest.testing.pytest import SERVER
from workers import racers

OVMF = ovmf_image(1 << 13)
DIGEST = sev.launch_digest(OVMF)
WEB = demands(DIGEST)
MEASUREMENT = bytes(range(48))
ROLES = {
    "ledger": "SELECT, UPDATE",
    "session": "SELECT, INSERT, UPDATE",
    "event": "SELECT, INSERT",
    "pending": "SELECT, INSERT, UPDATE",
}


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.touch(mode=0o600)
    path.write_bytes(bytes(range(100, 132)))
    return path


def stored(
    store: PendingSessions, verified: sev.VerifiedChain, name: str, hours: int = 1
) -> sev.Session:
    session = sev.Session.create(verified, policy=sev.GuestPolicy(1))
    now = datetime.now(UTC)
    record = LaunchRecord.of(session, name, now)
    store.add(session, record, expires=now + timedelta(hours=hours), requirements=WEB)
    return session


def start(platform: Platform, session: sev.Session) -> Guest:
    return launch_guest(
        platform, policy=1, godh=session.godh.to_bytes(), session=session.blob, firmware=OVMF
    )


def boxes(url: str) -> dict[str, str | None]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT session_id, box FROM sev_attest_pending").fetchall())


ENDS: dict[str, Callable[[Ledger, str], object]] = {
    "release": lambda ledger, one: ledger.release(one, MEASUREMENT),
    "fail": lambda ledger, one: ledger.fail(one, "why"),
    "close": lambda ledger, one: ledger.close(one),
    "expire": lambda ledger, _: ledger.expire(),
}


def test_with_the_rights_of_a_service_every_end_removes_the_keys(
    server: Server, url: str, kek: Path, verified: sev.VerifiedChain
) -> None:
    Ledger.open(url).disconnect()
    grants = [f"GRANT {what} ON sev_attest_{name} TO keeper" for name, what in ROLES.items()]
    server.tell("CREATE ROLE keeper LOGIN", *grants, database=url.split("/")[3].partition("?")[0])
    with Ledger.open(url.replace("owner@", "keeper@")) as ledger:
        store = PendingSessions(ledger, key_encryption(str(kek)))
        kept = stored(store, verified, "kept")
        for name, end in ENDS.items():
            session = stored(store, verified, name, hours=-1 if name == "expire" else 1)
            assert boxes(url)[session.keys.session_id]
            end(ledger, session.keys.session_id)
            assert boxes(url)[session.keys.session_id] is None, name
            with pytest.raises(WrongState):
                store.open(name)
        assert store.open("kept").keys == kept.keys
    later = datetime.now(UTC) + timedelta(days=9)
    with Ledger.open(url, clock=lambda: later) as ledger:
        ledger.prune(later - timedelta(days=1), lambda _head, going: [*going])
    assert boxes(url).keys() == {kept.keys.session_id}


def test_a_dump_of_the_database_has_no_key(
    server: Server,
    url: str,
    kek: Path,
    milan: Platform,
    verified: sev.VerifiedChain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Ledger.open(url) as ledger:
        store = PendingSessions(ledger, key_encryption(str(kek)))
        data_keys: list[bytes] = []
        wrap = KeyFile.wrap

        def spy(one: KeyFile, data_key: bytes) -> bytes:
            data_keys.append(data_key)
            return wrap(one, data_key)

        monkeypatch.setattr(KeyFile, "wrap", spy)
        one, two = stored(store, verified, "one"), stored(store, verified, "two")
        info = sev.LaunchInfo.from_text(start(milan, two).domlaunchsecinfo())
        release(info, session="two", store=store, requirements=WEB, secrets=SECRETS)
    dump = subprocess.run(
        [server.programs / "pg_dump", url], capture_output=True, check=True
    ).stdout
    assert one.keys.session_id.encode() in dump
    assert (boxes(url)[one.keys.session_id] or "?") in dump.decode()
    assert len(data_keys) == 1
    secrets = [kek.read_bytes(), *data_keys, *SECRETS.values()]
    secrets += [key for each in (one, two) for key in (each.keys.tik, each.keys.tek)]
    for secret in secrets:
        forms = (secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")[:-1])
        assert not [form for form in forms if form in dump]


def test_of_processes_that_release_at_once_exactly_one_gets_the_packet(
    url: str, kek: Path, milan: Platform, verified: sev.VerifiedChain
) -> None:
    with Ledger.open(url) as ledger, racers(pending_worker.__file__, url, 4) as race:
        store = PendingSessions(ledger, key_encryption(str(kek)))
        for number in range(50):
            session = stored(store, verified, f"vm{number}")
            case = {
                "report": start(milan, session).domlaunchsecinfo(),
                "session": session.keys.session_id,
                "kek": str(kek),
                "digest": DIGEST.hex(),
            }
            assert sorted(race(json.dumps(case))) == [*["ledger.released"] * 3, "won"]
        assert {*boxes(url).values()} == {None}
        ledger.verify()


def test_the_fixture_for_a_service_s_tests_leaves_nothing_on_the_server(
    server: Server, tmp_path: Path
) -> None:
    url = server.new_database()
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sev_attest.testing.pytest"]\n')
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('number', [1, 2])\n"
        "def test_it(sev_ledger, sev_store, number):\n"
        "    assert 'PostgreSQL' in sev_ledger.place\n"
        "    assert [*sev_ledger.entries()] == []\n"
        "    sev_ledger.create('0' * 64)\n"
        "    sev_ledger.close('0' * 64)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env=os.environ | {SERVER: url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in ran.stdout, ran.stdout
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'sev_attest%'"
        )
        assert found.fetchall() == []
