"""docs/key-release.md: its service, over HTTP, against hosts that are honest and hosts that lie."""

import base64
import http.client
import importlib.util
import json
import logging
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from ledger_worker import locked
from sev_attest import sev
from sev_attest.guest import CpuModel
from sev_attest.owner import Ledger
from sev_attest.owner.advisories import load
from sev_attest.testing import Authority, Fault, FirmwareError, Guest, Host, Platform, ovmf_image

PAGE = (Path(__file__).parents[2] / "docs" / "key-release.md").read_text()
COMMANDS = re.findall(r"^\$ sev-attest (.*)$", PAGE, re.MULTILINE)
OVMF = ovmf_image(1 << 13)
KEY = b"canary 51c0ffee"
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
Reply = tuple[int, dict[str, str]]


@pytest.fixture(scope="module")
def page() -> Any:
    """Import the service of the page."""
    source = PAGE.partition("```python\n")[2].partition("```")[0]
    spec = importlib.util.spec_from_loader("key_release_service", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(source, "docs/key-release.md", "exec"), vars(module))
    yield module
    del sys.modules[spec.name]


@dataclass
class Setup:
    """The folder of the page, its service, and the host that asks."""

    page: Any
    server: Any
    host: Host
    run: Run

    def post(self, body: bytes, *, method: str = "POST", **headers: str) -> Reply:
        """Send a request; give the status and the document of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        connection.request(method, "/", body, headers)
        answer = connection.getresponse()
        assert "server" not in {name.lower() for name in answer.headers}
        document = json.loads(answer.read())
        connection.close()
        return answer.status, document

    def ask(self, guest: Guest, name: str = "web-17") -> Reply:
        """Ask for the key of a guest, as its host does."""
        return self.post(json.dumps({"name": name, "report": guest.domlaunchsecinfo()}).encode())

    def start(self, name: str = "web-17", **changes: Any) -> Guest:
        """Start the guest of a session."""
        godh, session = (
            base64.b64decode(Path(f"web/{name}_{kind}.b64").read_bytes())
            for kind in ("godh", "session")
        )
        inputs: dict[str, Any] = {
            "policy": 0x3701000F, "godh": godh, "session": session, "firmware": OVMF, "vcpus": 2,
        }  # fmt: skip
        return self.host.launch(**(inputs | changes))

    def session(self, name: str = "web-17", *options: str) -> None:
        """Make a session, with the page's command."""
        command = next(shlex.split(line) for line in COMMANDS if line.startswith("session"))
        command[command.index("web-17")] = name
        assert self.run(*command, "--trust-root", "root", *options).code == 0

    def state(self, name: str = "web-17") -> str:
        (entry,) = (e for e in self.server.service.ledger.entries() if e.name == name)
        return str(entry.state)


@pytest.fixture
def setup(page: Any, here: Path, run: Run, _loopback: None) -> Iterator[Setup]:
    """Do what the page says, on a simulated platform; its service listens on loopback."""
    host = Host(Platform(b"key release", authority=Authority(2048)))
    authority = host.platform.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("host.chain").write_bytes(host.chain().to_bytes())
    Path("OVMF.amdsev.fd").write_bytes(OVMF)
    Path("web").mkdir(mode=0o700)
    Path("web/disk.key").write_bytes(KEY)
    measure, init, check, session, *_ = (shlex.split(c, comments=True) for c in COMMANDS)
    assert [measure[0], init[1], check[1], session[0]] == ["measure", "init", "check", "session"]
    for command in (measure, init, check):
        assert run(*command).code == 0
    fill_in(Path("web/owner.toml"), host)
    checked = run(*check)
    assert (checked.code, "note: " in checked.out) == (0, False)
    first = page.Service.open(Path("web"))
    with page.Server(("127.0.0.1", 0), first) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        made = Setup(page, server, host, run)
        made.session()
        yield made
        server.shutdown()
        thread.join()
    server.service.ledger.verify()
    for service in (first, server.service):  # a test may have put another in its place
        service.ledger.disconnect()


def fill_in(path: Path, host: Host) -> None:
    """Allow this one simulated platform and the guest of the manifest."""
    known = ", ".join(f'"{advisory.id}"' for advisory in load())
    text = path.read_text()
    for old, new in (
        ("generations = []", 'generations = ["test"]'),
        ("ceks = []", f'ceks = ["{host.chain().cek.fingerprint}"]'),
        ("[minimum.naples]", '[minimum.test]\napi = "1.55"\nbuild = 24\n[minimum.naples]'),
        ("acknowledged = []", f"acknowledged = [{known}]"),
    ):
        assert f"\n{old}" in text
        text = text.replace(f"\n{old}", f"\n{new}", 1)  # [snp] has such a list too
    path.write_text(text + '[[launch]]\nname = "web"\nmanifest = "web.json"\n')


def test_an_honest_host_gets_the_key_into_the_guest_and_only_once(setup: Setup) -> None:
    guest = setup.start()
    status, answer = setup.ask(guest)
    assert status == 200
    assert set(answer) == {"header", "payload"}
    packet = [base64.b64decode(answer[name]) for name in ("header", "payload")]
    assert guest.inject(*packet) == {GUID: KEY}
    assert setup.state() == "released"
    assert setup.ask(guest) == (409, {"error": "used"})
    assert setup.ask(setup.start()) == (403, {"error": "refused"})


def test_every_number_of_vcpus_of_the_manifest_is_allowed(setup: Setup) -> None:
    assert setup.ask(setup.start(vcpus=8))[0] == 200
    setup.session("web-18")
    assert setup.ask(setup.start("web-18", vcpus=9), "web-18") == (403, {"error": "refused"})


def test_a_session_is_for_the_launch_that_its_name_begins_with(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = ovmf_image(1 << 13, seed=b"newer")
    digest = sev.launch_digest(newer, vcpus=2, vmsa=CpuModel.named("EPYC-Milan"))
    path = Path("web/owner.toml")
    web = path.read_text()
    path.write_text(
        f'{web}expires = 2026-01-01\n[[launch]]\nname = "web2"\ndigest = "{digest.hex()}"\n'
    )
    service = setup.page.Service.open(Path("web"))
    monkeypatch.setattr(setup.server, "service", service)
    for name in ("web2-1", "web2-2", "mail-1", "web"):
        setup.session(name)
    assert setup.ask(setup.start("web2-1", firmware=newer), "web2-1")[0] == 200
    assert setup.ask(setup.start("web2-2"), "web2-2") == (403, {"error": "refused"})
    assert setup.state("web2-2") == "created"
    assert setup.ask(setup.start()) == (403, {"error": "refused"})
    assert setup.state() == "measured"  # its time is over
    for name in ("mail-1", "web"):
        assert setup.ask(setup.start(name), name) == (503, {"error": "unavailable"})
        assert setup.state(name) == "created"


def test_a_record_that_somebody_changed_is_refused(setup: Setup) -> None:
    place = Path("web/web-17.launch.json")
    kept = place.read_bytes()
    place.write_text(json.dumps(json.loads(kept) | {"cek": "0f" * 32}))
    guest = setup.start()
    assert setup.ask(guest) == (403, {"error": "refused"})
    assert setup.state() == "created"
    place.write_bytes(kept)
    assert setup.ask(guest)[0] == 200


@pytest.mark.parametrize(
    "fault",
    [
        Fault.OTHER_POLICY,
        Fault.DOWNGRADED_BUILD,
        Fault.WRONG_FIRMWARE_BYTE,
        Fault.OTHER_VCPU_COUNT,
        Fault.REPLAYED_MEASUREMENT,
        Fault.SWAPPED_KEYS,
    ],
)
def test_a_host_that_lies_is_refused_without_a_word_why(setup: Setup, fault: Fault) -> None:
    setup.host.fault = fault
    guest = setup.start(vcpus=8)
    assert setup.ask(guest) == (403, {"error": "refused"})
    setup.host.fault = None
    bound = fault is Fault.DOWNGRADED_BUILD  # measured rightly, on a platform that is not wanted
    assert setup.state() == ("measured" if bound else "created")
    assert setup.ask(setup.start())[0] == (403 if bound else 200)


@pytest.mark.parametrize("fault", [Fault.FORGED_ROOT, Fault.OFF_CURVE_PDH])
def test_a_platform_that_is_not_amd_s_gets_no_session(setup: Setup, fault: Fault) -> None:
    setup.host.fault = fault
    Path("host.chain").write_bytes(setup.host.chain().to_bytes())
    command = next(shlex.split(line) for line in COMMANDS if line.startswith("session"))
    assert setup.run(*command, "--trust-root", "root", "--force").code == 1
    assert len([*setup.server.service.ledger.entries()]) == 1


def test_a_packet_is_of_no_use_to_a_second_guest(setup: Setup) -> None:
    setup.host.fault = Fault.REUSED_SESSION
    guest = setup.start()
    status, answer = setup.ask(guest)
    assert status == 200
    with pytest.raises(FirmwareError):
        guest.inject(*(base64.b64decode(answer[name]) for name in ("header", "payload")))


def test_every_fault_is_tried_here() -> None:
    assert len(Fault) == 6 + 2 + 1


def test_of_two_at_once_one_gets_it(setup: Setup) -> None:
    guest = setup.start()
    ready = threading.Barrier(2)
    replies: list[Reply] = []

    def go() -> None:
        ready.wait()
        replies.append(setup.ask(guest))

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in replies) == [200, 409]


def _report(setup: Setup) -> str:
    return setup.start().domlaunchsecinfo()


def test_an_unknown_name_is_refused_as_a_wrong_measurement_is(setup: Setup) -> None:
    guest = setup.start()
    for name in ("web-18", "web-1", "owner.toml", "disk", "x" * 64):
        assert setup.ask(guest, name) == (403, {"error": "refused"})


def test_a_name_that_is_none_is_malformed(setup: Setup) -> None:
    guest = setup.start()
    odd = ("", ".", "..", "../web-17", "/web-17", "web-17\0", "web-17\n", "x" * 65, "\ud800", "é")
    for name in odd:
        assert setup.ask(guest, name) == (400, {"error": "malformed"})


def test_garbage_is_malformed(setup: Setup) -> None:
    report = _report(setup)
    good = {"name": "web-17", "report": report}
    bodies = [b"", b"\0", b"\xff" * 9, b"null", b"[]", b"{}", b'"a"', b'{"name":']
    bodies += [b"[" * 9000, b"1" * 9000]
    documents: list[dict[str, Any]] = [
        {"name": "web-17"},
        good | {"more": 1},
        good | {"name": 17},
        good | {"report": [report]},
        good | {"report": ""},
        good | {"report": report.replace("build-id   : 2", "build-id : 999")},
        good | {"report": report + "sev-policy: 0\n"},
        good | {"report": "sev-snp-policy: 1\n" + report},
        good | {"report": "{" * 99},
        good | {"report": "\ud800"},
    ]
    for body in (*bodies, *(json.dumps(document).encode() for document in documents)):
        assert setup.post(body) == (400, {"error": "malformed"})
    assert setup.post(b"", method="GET") == (400, {"error": "malformed"})
    assert setup.post(b"", method="DELETE") == (400, {"error": "malformed"})
    assert setup.state() == "created"


def test_what_is_too_large_is_not_read(setup: Setup, page: Any) -> None:
    good = json.dumps({"name": "web-17", "report": _report(setup)}).encode()
    for length in ("16385", "-1", "1e3", "", "+9", "9" * 4000, " ", "0x10", "१"):
        headers = {"Content-Length": length.encode().decode("latin-1")}
        assert setup.post(b"", **headers) == (400, {"error": "malformed"})
    padded = good.ljust(page.MAX_REQUEST)
    assert setup.post(padded + b" ") == (400, {"error": "malformed"})
    assert setup.post(padded)[0] == 200


def test_a_request_that_ends_early_is_malformed(setup: Setup) -> None:
    good = json.dumps({"name": "web-17", "report": _report(setup)}).encode()
    with socket.create_connection(setup.server.server_address) as line:
        line.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(good) + good[:-1])
        line.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: line.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert reply.endswith(b'{"error": "malformed"}')
    assert setup.state() == "created"


def test_when_it_is_ended_an_answer_under_way_is_sent(setup: Setup, here: Path) -> None:
    source = PAGE.partition("```python\n")[2].partition("```")[0]
    ready = "        server.serve_forever()\n"
    told = "        print(server.server_port, flush=True)\n"
    assert ready in source
    Path("service.py").write_text(source.replace("8017", "0").replace(ready, told + ready))
    service = subprocess.Popen(
        [sys.executable, "service.py", "web"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert service.stdout is not None
    body = json.dumps({"name": "web-17", "report": _report(setup)}).encode()
    with socket.create_connection(("127.0.0.1", int(service.stdout.readline()))) as line:
        line.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:9])
        time.sleep(0.5)
        service.terminate()
        time.sleep(0.5)
        assert service.poll() is None  # it waits for the rest
        line.sendall(body[9:])
        reply = b"".join(iter(lambda: line.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.0 200 OK\r\n")
    _, log = service.communicate(timeout=30)
    assert (service.returncode, log.count(b"web-17: released")) == (0, 1)
    assert setup.state() == "released"


def test_an_error_on_the_owner_s_side_is_reported_as_such_and_spends_nothing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, service = setup.start(), setup.server.service
    unavailable = (503, {"error": "unavailable"})
    for broken in (b"", bytes(20_000)):  # none, too large
        Path("web/disk.key").write_bytes(broken)
        assert setup.ask(guest) == unavailable
    Path("web/disk.key").unlink()
    assert setup.ask(guest) == unavailable
    Path("web/disk.key").write_bytes(KEY)
    with Ledger.open("web/ledger.sqlite3", timeout=0) as impatient:
        monkeypatch.setattr(setup.server, "service", replace(service, ledger=impatient))
        with locked(service.ledger):
            assert setup.ask(guest) == unavailable
        assert setup.ask(guest)[0] == 200


def test_a_session_that_is_over_is_told_as_used(setup: Setup) -> None:
    guest = setup.start()
    run = setup.run("ledger", "close", "web-17", "--ledger", "web/ledger.sqlite3")
    assert run.code == 0
    assert setup.ask(guest) == (409, {"error": "used"})


def test_a_session_of_a_platform_that_nobody_verified_gets_nothing(setup: Setup) -> None:
    Path("host.chain").write_bytes(setup.host.chain().pdh.to_bytes())
    setup.session("web-bare", "--insecure")
    assert setup.ask(setup.start("web-bare"), "web-bare") == (403, {"error": "refused"})


def test_an_answer_that_is_lost_is_released_all_the_same(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    guest = setup.start()
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(setup.page.Handler, "reply", broken)
        with pytest.raises(http.client.RemoteDisconnected):
            setup.ask(guest)
        with pytest.raises(http.client.RemoteDisconnected):
            setup.post(b"", method="GET")
    assert setup.ask(guest) == (409, {"error": "used"})
    said = [record.getMessage() for record in caplog.records]
    assert "web-17: released" in said
    assert "the answer (200) was not sent: Broken pipe" in said
    assert "a connection broke: BrokenPipeError" in said


def test_a_folder_that_others_can_look_into_is_refused(setup: Setup) -> None:
    Path("web").chmod(0o750)
    with pytest.raises(SystemExit, match="chmod 700"):
        setup.page.Service.open(Path("web"))


def test_it_listens_on_loopback_unless_told_otherwise(page: Any) -> None:
    assert page.ADDRESS[0] == "127.0.0.1"


def test_answers_and_log_hold_no_key_and_the_log_says_why(
    setup: Setup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        guest = setup.start()
        for faulty in (Fault.WRONG_FIRMWARE_BYTE, Fault.OTHER_POLICY):
            setup.host.fault = faulty
            said.append(repr(setup.ask(setup.start())))
        setup.host.fault = None
        said.append(repr(setup.ask(guest, "web-18")))
        said.append(repr(setup.post(b'{"name": "a\\nb", "report": "x"}')))
        said.append(repr(setup.ask(guest)))
        said.append(repr(setup.ask(guest)))
        said.append(repr(setup.ask(setup.start())))
        setup.session("web-18")
        setup.host.fault = Fault.DOWNGRADED_BUILD
        said.append(repr(setup.ask(setup.start("web-18"), "web-18")))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda _path: 1 / 0)
            said.append(repr(setup.ask(guest)))
    lines = [record.getMessage() for record in caplog.records if record.name == "key-release"]
    reasons = "\n".join(lines)
    for reason in (
        "launch.measurement",
        "launch.policy",
        "session.unknown",
        "the name or the report is invalid",
        "web-17: released",
        "ledger.released",
        "ledger.reused",
        "requirements.minimum.build",
        "ZeroDivisionError ''",
    ):
        assert reason in reasons
    assert not any("\n" in line for line in lines)
    said.append(reasons)
    for path in Path("web").glob("*_t?k.bin"):
        secret = path.read_bytes()
        forms = (secret.hex(), base64.b64encode(secret).decode()[:-2], repr(secret))
        assert not any(form in text for form in forms for text in said)
    forms = (KEY.decode(), KEY.hex(), base64.b64encode(KEY).decode()[:-4])
    assert not any(form in text for form in forms for text in said)
    words = {"refused", "malformed", "used", "unavailable"}
    errors = re.findall(r"'error': '(.*?)'", "\n".join(said[:-1]))
    assert set(errors) == words
    table = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert set(table.values()) == words
