"""The service of docs/key-service.md, as it stands there."""

import base64
import http.client
import importlib.util
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest import sev
from sev_attest.owner import Ledger, PendingSessions
from sev_attest.testing import Authority, Fault, Guest, Host, Platform, ovmf_image
from sev_attest.testing.pytest import MakeRequirements

PAGE = (Path(__file__).parents[2] / "docs" / "key-service.md").read_text()
SOURCE = PAGE.partition("```python\n")[2].partition("```")[0]
OVMF = ovmf_image(1 << 13)
DIGEST = sev.launch_digest(OVMF)
KEY = b"canary 51c0ffee"
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
Reply = tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """Import the service of the page."""
    spec = importlib.util.spec_from_loader("key_service", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(SOURCE, "docs/key-service.md", "exec"), vars(module))
    yield module
    del sys.modules[spec.name]


@dataclass
class Desk:
    """A service that listens, and the host that asks."""

    service: Any
    port: int
    host: Host

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    def post(self, path: str, body: bytes) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path, body)
        answer = connection.getresponse()
        assert "server" not in {name.lower() for name in answer.headers}
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found

    def session(self, launch: str = "web", chain: sev.Chain | None = None) -> Reply:
        told = base64.b64encode((chain or self.host.chain()).to_bytes()).decode()
        return self.post("/session", json.dumps({"launch": launch, "chain": told}).encode())

    def start(self, made: dict[str, Any], **changes: Any) -> Guest:
        inputs: dict[str, Any] = {
            "policy": made["policy"],
            "godh": base64.b64decode(made["dh_cert"]),
            "session": base64.b64decode(made["session"]),
            "firmware": OVMF,
        }
        return self.host.launch(**(inputs | changes))

    def ask(self, name: str, guest: Guest) -> Reply:
        body = {"name": name, "report": guest.domlaunchsecinfo()}
        return self.post("/release", json.dumps(body).encode())


def listening(app: Any) -> tuple[Any, int, threading.Thread]:
    """Run uvicorn in a thread, on a port of its choice."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, server_header=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    return server, server.servers[0].sockets[0].getsockname()[1], thread


@pytest.fixture
def desk(
    page: Any, sev_store: PendingSessions, sev_requirements: MakeRequirements, _loopback: None
) -> Iterator[Desk]:
    host = Host(Platform(b"key service", authority=Authority(2048)))

    class Source:
        def secrets(self, launch: str) -> dict[str, bytes]:
            assert launch == "web"
            return {"luks-key": KEY}

    page.POLICY = sev.GuestPolicy(1)
    service = page.Service(
        store=sev_store,
        requirements=sev_requirements(web=DIGEST),
        secrets=Source(),
        roots=[host.platform.authority.root],
    )
    server, port, thread = listening(service.app())
    yield Desk(service, port, host)
    server.should_exit = True
    thread.join()
    sev_store.ledger.verify()


def test_an_honest_host_gets_the_key_into_the_guest_and_only_once(desk: Desk) -> None:
    status, made = desk.session()
    assert (status, made["name"][:4], made["policy"]) == (200, "web-", 1)
    guest = desk.start(made)
    status, packet = desk.ask(made["name"], guest)
    assert status == 200
    header, payload = (base64.b64decode(packet[part]) for part in ("header", "payload"))
    assert guest.inject(header, payload) == {GUID: KEY}
    assert desk.ask(made["name"], guest) == (409, {"error": "used"})
    assert {entry.state for entry in desk.service.store.ledger.entries()} == {"released"}


def test_a_host_that_lies_gets_nothing_and_learns_nothing(desk: Desk) -> None:
    for fault in (Fault.WRONG_FIRMWARE_BYTE, Fault.REPLAYED_MEASUREMENT, Fault.OTHER_POLICY):
        _, made = desk.session()
        desk.host.fault = fault
        assert desk.ask(made["name"], desk.start(made)) == (403, {"error": "refused"})
        desk.host.fault = None
    desk.host.fault = Fault.FORGED_ROOT
    assert desk.session() == (403, {"error": "refused"})
    desk.host.fault = None
    _, made = desk.session()
    first, second = desk.start(made), desk.start(made)
    assert desk.ask("web-0123456789abcdef", first) == (409, {"error": "used"})
    assert desk.ask(made["name"], first)[0] == 200
    assert desk.ask(made["name"], second) == (409, {"error": "used"})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b"[" * 99999, b'{"launch":1,"chain":""}',
     b'{"launch":"db","chain":""}',
     b'{"launch":"web","chain":"x"}', b'{"launch":"web","chain":"","more":""}',
     b'{"name":"-","report":""}', b'{"name":"web-1","report":""}', b" " * 70000],
)  # fmt: skip
def test_garbage_is_malformed(desk: Desk, body: bytes) -> None:
    for path in ("/session", "/release"):
        assert desk.post(path, body) == (400, {"error": "malformed"})


def test_what_fails_on_the_owner_s_side_is_unavailable_and_the_log_quotes_nothing(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, made = desk.session()
    guest = desk.start(made)

    class Broken:
        def secrets(self, launch: str) -> dict[str, bytes]:
            raise KeyError(KEY, launch)

    working, desk.service.secrets = desk.service.secrets, Broken()
    assert desk.ask(made["name"], guest) == (503, {"error": "unavailable"})
    desk.service.secrets = working
    assert desk.ask(made["name"], guest)[0] == 200
    assert f"release {made['name']}: done" in caplog.text
    assert "canary" not in caplog.text


def test_it_says_how_it_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.session()
    desk.post("/release", b"")
    assert desk.get("/livez") == desk.get("/readyz") == (200, "ok\n")
    status, told = desk.get("/metrics")
    assert status == 200
    assert 'key_service_answers_total{answer="done",call="session"} 1.0' in told
    assert 'key_service_answers_total{answer="malformed",call="release"} 1.0' in told

    def fail(_ledger: Ledger) -> str:
        raise desk.service.store.ledger._store.fault("connection")

    monkeypatch.setattr(Ledger, "now", property(fail))
    assert desk.get("/readyz") == (503, "no\n")
    assert desk.get("/livez")[0] == 200


def test_a_request_that_does_not_arrive_is_given_up(
    desk: Desk, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", desk.port)) as line:
        line.sendall(b"POST /release HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert line.recv(4096).startswith(b"HTTP/1.1 400 ")


@pytest.mark.usefixtures("_loopback")
def test_a_folder_is_all_it_needs_and_it_sends_what_is_under_way_when_it_is_ended(
    here: Path, run: Run
) -> None:
    commands = re.findall(r"^\$ sev-attest (.*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        *("measure", "requirements", "requirements", "ledger")
    ]
    folder = Path("keys")
    (folder / "secrets" / "web").mkdir(mode=0o700, parents=True)
    for private in (folder, folder / "secrets"):
        private.chmod(0o700)
    Path("OVMF.amdsev.fd").write_bytes(OVMF)
    for command in commands[:2]:
        assert run(*command.partition("#")[0].split()).code == 0
    for name, data in {"kek": bytes(range(32)), "secrets/web/luks-key": KEY}.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(data)
    (folder / "store").write_text(f"{here / 'ledger.sqlite3'}\n")
    assert run("ledger", "init", "--ledger", "ledger.sqlite3").code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("service.py").write_text(SOURCE)
    service = subprocess.Popen(
        [sys.executable, "service.py", "keys", str(port)], stderr=subprocess.PIPE
    )
    body = b'{"name":"web-1","report":""}'
    for _ in range(300):
        try:
            line = socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.1)
        else:
            break
    with line:
        line.sendall(b"POST /release HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body[:9])  # fmt: skip
        time.sleep(0.5)
        service.terminate()
        time.sleep(0.5)
        assert service.poll() is None
        line.sendall(body[9:])
        reply = b"".join(iter(lambda: line.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.1 400 ")
    _, log = service.communicate(timeout=60)
    assert b"Traceback" not in log, log
