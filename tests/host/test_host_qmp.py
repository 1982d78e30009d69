"""``sev_attest.host.qmp``, and the commands that use it, on a simulated QMP."""

import asyncio
import json
import logging
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from conftest import Ran, Run
from sev_attest import MalformedInput, Unsupported, sev
from sev_attest.cli.hints import hint_for
from sev_attest.host import HostError
from sev_attest.host.qmp import QmpConnection, address
from sev_attest.owner import LaunchRecord
from sev_attest.owner.ledger import Ledger, default_place
from sev_attest.testing import Platform, launch_guest, ovmf_image
from sev_attest.testing.lab.monitor import SevMonitor

OVMF = ovmf_image(8192)
URI = "qmp+tcp://host.example.org:4444"
SKU = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
INJECT = ("--inject-secret", "luks-key:key")
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"


class QMPError(Exception):
    """The class of the same name in qemu.qmp."""


class ExecuteError(QMPError):
    """The class of the same name in qemu.qmp."""


@dataclass
class Client:
    """The client of qemu.qmp, connected to a simulated monitor."""

    monitor: SevMonitor
    status: object = field(default_factory=lambda: {"status": "prelaunch", "running": False})
    cpus: object = field(default_factory=lambda: [{}, {}])
    broken: dict[str, Callable[[], Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    logger: Any = None
    sev: dict[str, Any] = field(default_factory=dict)
    """Fields of query-sev that differ; ... leaves one out."""
    events: Any = field(default_factory=lambda: SimpleNamespace(event_filter=None))
    readbuflen: int = 0
    own: dict[str, object] = field(default_factory=dict)

    def __call__(self, name: str) -> "Client":
        assert name == "sev-attest"
        return self

    async def _do(self, call: str) -> None:
        self.calls.append(call)
        if call in self.broken:
            await self.broken[call]()

    async def connect(self, where: object) -> None:
        assert isinstance(where, str | Connected)
        await self._do("connect")

    async def disconnect(self) -> None:
        await self._do("disconnect")

    async def execute(self, command: str, arguments: dict[str, object] | None) -> object:
        await self._do(command)
        own = {"query-status": self.status, "query-cpus-fast": self.cpus} | self.own
        if command in own:
            return own[command]
        request = {"execute": command, "arguments": arguments or {}}
        said = self.monitor(json.dumps(request).encode())
        if said is None:
            return {}
        reply = json.loads(said)
        if "error" in reply:
            raise ExecuteError(reply["error"]["desc"])
        if command == "query-sev":
            told = reply["return"] | self.sev
            return {name: value for name, value in told.items() if value is not ...}
        return reply["return"]


@dataclass
class Connected:
    """The socket of a connection, made without one."""

    there: str = "192.0.2.1"
    here: str = "192.0.2.7"

    def getpeername(self) -> tuple[str, int]:
        return self.there, 4444

    def getsockname(self) -> tuple[str, int]:
        return self.here, 1


@dataclass
class Lab:
    """A launched guest behind QMP, and its owner's files."""

    run: Run
    client: Client
    session: sev.Session

    def validate(self, *options: object, uri: str = URI) -> Ran:
        known = ("--firmware", "fw", "--num-cpus", 2, *SKU)
        return self.run("validate", "--tk", "tk", "--connect", uri, *known, *options)

    @property
    def secret(self) -> dict[str, bytes]:
        assert self.client.monitor.guest is not None
        return self.client.monitor.guest.secrets


@pytest.fixture
def lab(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab with a paused guest."""
    platform = Platform(b"lab")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(5))
    files = {"fw": OVMF, "tk": session.keys.tek + session.keys.tik, "key": b"the disk key"}
    for name, data in files.items():
        Path(name).write_bytes(data)
    guest = launch_guest(
        platform,
        policy=5,
        godh=session.godh.to_bytes(),
        session=session.blob,
        firmware=OVMF,
        vcpus=2,
    )
    client = Client(SevMonitor(platform, guest))
    library: Any = ModuleType("qemu.qmp")
    library.QMPClient, library.QMPError, library.ExecuteError = client, QMPError, ExecuteError
    monkeypatch.setitem(sys.modules, "qemu", ModuleType("qemu"))
    monkeypatch.setitem(sys.modules, "qemu.qmp", library)
    monkeypatch.setattr(socket, "create_connection", lambda where: PLACES[where[0]]())
    return Lab(run, client, session)


def fails(error: Exception) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


def nowhere() -> Connected:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def no_name() -> Connected:
    raise UnicodeError("label empty or too long")


PLACES: dict[str, Callable[[], Connected]] = {
    "host.example.org": Connected,
    "host": Connected,
    "own": lambda: Connected("192.0.2.7", "192.0.2.7"),
    "0.0.0.0": lambda: Connected("127.0.0.1", "127.0.0.1"),
    "127.1": lambda: Connected("127.0.0.1", "127.0.0.1"),
    "2130706433": lambda: Connected("127.0.0.1", "127.0.0.1"),
    "::ffff:127.0.0.1": lambda: Connected("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    "nowhere": nowhere,
    "no..name": no_name,
}


async def hangs() -> None:
    await asyncio.Event().wait()


def test_a_guest_behind_a_socket_is_attested_gets_its_secret_and_runs(lab: Lab) -> None:
    ran = lab.validate(*INJECT)
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[:2] == ["OK: Looks good to me", "OK: Injected 1 secrets"]
    assert lab.secret == {GUID: b"the disk key"}
    assert lab.client.calls[-3:] == ["sev-inject-launch-secret", "cont", "disconnect"]
    lab.client.status = {"status": "running"}
    ran = lab.validate(*INJECT)
    assert (ran.code, "not paused, but running" in ran.err) == (5, True)


def test_a_session_with_kernel_hashes_is_held_to_a_kernel(lab: Lab) -> None:
    # QEMU does not say whether it measures kernel hashes: only the owner's options can.
    record = LaunchRecord.of(lab.session, "vm", datetime(2026, 6, 30, tzinfo=UTC))
    for hashes, code in ((False, 0), (True, 3)):
        made = replace(record, root="AMD Milan", generation="milan", kernel_hashes=hashes)
        Path("record").write_bytes(made.signed(lab.session.keys).to_bytes())
        ran = lab.validate("--record", "record", "--ledger", "none")
        assert (ran.code, "but no kernel was given" in ran.err) == (code, hashes)


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qmp+unix:///run/vm%201.sock", True),
        ("qmp+tcp://127.1:1", True),
        ("qmp+tcp://0.0.0.0:1", True),
        ("QMP+TCP://2130706433:1", True),
        ("qmp+tcp://[::ffff:127.0.0.1]:1", True),
        ("qmp+tcp://own:1", True),
        ("qmp+tcp://host:1", False),
    ],
)
def test_what_may_be_this_machine_is_refused(lab: Lab, uri: str, *, local: bool) -> None:
    ran = lab.validate(*INJECT, uri=uri)
    assert (ran.code, "host itself" in ran.err) == ((3, True) if local else (0, False))
    assert (lab.secret == {}) == local


def test_an_address_is_a_path_or_a_host_and_port() -> None:
    assert address("qmp+unix:///run/vm%201.sock") == "/run/vm 1.sock"
    assert address("qmp+tcp://[::1]:4444") == ("::1", 4444)
    for uri in (
        *("qmp+unix://run/vm", "qmp+unix:", "qmp+tcp://host", "qmp+tcp://:1", "qmp+x:///a"),
        *("qmp+tcp://host:x", "qmp+tcp://[:1", "qmp+tcp://host:99999"),
    ):
        with pytest.raises(Unsupported, match="neither qmp"):
            address(uri)


@pytest.mark.parametrize("name", ["nowhere", "no..name"])
def test_a_host_that_cannot_be_found(lab: Lab, name: str) -> None:
    ran = lab.validate(uri=f"qmp+tcp://me:secret@{name}:1?x")
    assert ran.code == 6
    assert ran.err.startswith(f"error: connecting to qmp+tcp://{name}:1: ")
    assert "secret" not in ran.err


def test_a_password_in_a_uri_is_not_shown(lab: Lab) -> None:
    ran = lab.validate(uri="qmp+tcp://me:secret@host")
    assert (ran.code, "error: qmp+tcp://host is neither" in ran.err) == (2, True)
    assert "secret" not in ran.err


@pytest.mark.parametrize(
    ("changes", "code", "shown"),
    [
        ({"enabled": False}, 5, "the guest was started without SEV"),
        ({"enabled": 1}, 6, "QMP reply enabled: is missing"),
        ({"state": "running"}, 5, "not paused, but in the state running of SEV"),
        ({"state": "launch-update"}, 5, "not paused, but in the state launch-update of SEV"),
        ({"state": "\ud800" * 100}, 5, "state \\xd800"),
        ({"state": None}, 6, "QMP reply state: is missing"),
        ({"api-major": None}, 6, "is no number"),
        ({"api-major": ...}, 6, "api_major missing"),
        ({"policy": ..., "build-id": ...}, 6, "build_id, policy missing"),
    ],
)
def test_a_guest_must_be_where_the_firmware_takes_a_secret(
    lab: Lab, changes: dict[str, Any], code: int, shown: str
) -> None:
    lab.client.sev |= changes
    ran = lab.validate(*INJECT)
    assert (ran.code, lab.secret) == (code, {})
    assert shown in ran.err
    assert "virsh" not in ran.err
    assert "libvirt" not in ran.err
    assert "sev-inject-launch-secret" not in lab.client.calls


@pytest.mark.parametrize("status", ["prelaunch", "paused"])
@pytest.mark.parametrize("state", ["running", "uninit", "launch-update", "sending", "receiving"])
def test_a_guest_that_ran_is_not_attested_although_it_is_paused(
    lab: Lab, status: str, state: str
) -> None:
    lab.client.status = {"status": status}
    assert lab.validate().code == 0
    lab.client.sev["state"] = state
    ran = lab.validate(*INJECT)
    assert (ran.code, lab.secret) == (5, {})
    assert f"the guest is not paused, but in the state {state} of SEV" in ran.err


def kept(lab: Lab) -> tuple[str, list[str]]:
    """Return the state of the lab's session in its owner's ledger, and its events."""
    with Ledger.open(default_place(), create=False) as ledger:
        entry = ledger.get(lab.session.keys.session_id)
        ledger.verify()
        assert entry is not None
        return entry.state, [event.kind for event in ledger.events(entry.session_id)]


@pytest.mark.parametrize(
    ("call", "error", "state"),
    [
        ("sev-inject-launch-secret", ConnectionResetError("gone"), "released"),
        ("sev-inject-launch-secret", QMPError("gone"), "released"),
        ("sev-inject-launch-secret", RecursionError(), "released"),
        ("sev-inject-launch-secret", KeyboardInterrupt(), "released"),
        ("sev-inject-launch-secret", TimeoutError(), "released"),
        ("sev-inject-launch-secret", ExecuteError("SEV: no"), "failed"),
        ("cont", QMPError("gone"), "released"),
        ("cont", ExecuteError("no"), "released"),
        ("cont", KeyboardInterrupt(), "released"),
    ],
)
def test_a_secret_that_may_have_arrived_counts_as_released(
    lab: Lab, call: str, error: Exception, state: str
) -> None:
    lab.client.broken[call] = fails(error)
    assert lab.validate(*INJECT).code != 0
    told = ["created", "measured", "released", "failed"]
    assert kept(lab) == (state, told[: told.index(state) + 1])
    del lab.client.broken[call]
    again = lab.validate(*INJECT)
    assert (again.code, lab.client.calls.count("sev-inject-launch-secret")) == (5, 1)


def test_what_the_library_logs_is_not_shown(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    connection = QmpConnection(URI, 1)
    logger = lab.client.logger
    assert isinstance(logger, logging.Logger)
    logger.critical("the disk key")
    connection.close()
    assert caplog.records == []
    assert not logger.isEnabledFor(logging.CRITICAL)


def test_the_insecure_go_on_in_another_state_and_are_told(lab: Lab) -> None:
    lab.client.sev["state"] = "launch-update"
    ran = lab.validate("--insecure")
    assert ran.code == 0
    assert "note: INSECURE: the guest is not paused, but in the state launch-update" in ran.err


@pytest.mark.parametrize("command", ["query-sev-capabilities", "query-sev-launch-measure"])
def test_a_reply_that_is_no_json_or_too_long_is_not_read(lab: Lab, command: str) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for reply, shown in ((deep, "an answer that cannot be read"), ("A" * (1 << 17), "more than")):
        lab.client.own[command] = {"data": reply}
        if command == "query-sev-capabilities":
            ran = lab.run("session", "--name", "vm1", "--connect", URI, "5")
        else:
            ran = lab.validate()
        assert (ran.code, shown in ran.err) == (6, True)
        assert len(ran.err) < 1000
    while deep:
        deep = deep.pop()  # type: ignore[assignment] # one by one: all at once goes too deep


FLOOD = 300


def test_events_without_end_are_not_kept(tmp_path: Path) -> None:
    """The memory in use does not grow with the number of events that a host sends."""
    pytest.importorskip("qemu.qmp", reason="qemu.qmp is not installed")
    event = (
        json.dumps({"event": "FLOOD", "data": {"x": "x" * (1 << 18)}, "timestamp": {}}).encode()
        + b"\n"
    )
    served = socket.socket(socket.AF_UNIX)
    served.bind(str(tmp_path / "qmp"))
    served.listen(1)

    def serve() -> None:
        connected, _ = served.accept()
        with connected:
            version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
            greeting = {"QMP": {"version": version, "capabilities": []}}
            connected.sendall(json.dumps(greeting).encode() + b"\n")
            while request := connected.recv(4096):  # short, and one at a time
                asked = json.loads(request)
                if asked["execute"] == "query-status":
                    for _ in range(FLOOD):
                        connected.sendall(event)
                own = {name: value for name, value in asked.items() if name == "id"}
                reply = {"return": {"status": "shutdown"}} | own
                connected.sendall(json.dumps(reply).encode() + b"\n")

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with closing(served), closing(QmpConnection(f"qmp+unix://{tmp_path}/qmp", 60)) as connection:
        tracemalloc.start()
        try:
            assert connection.state() == "shutdown"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    server.join(60)
    assert peak < FLOOD * len(event) / 4


def test_a_mismatch_releases_nothing(lab: Lab) -> None:
    ran = lab.validate("--num-cpus", "3", *INJECT)
    assert (ran.code, lab.secret) == (1, {})


def test_what_qmp_tells_is_taken_by_the_insecure_alone(lab: Lab) -> None:
    options = ("--tk", "tk", "--connect", URI, "--firmware", "fw")
    refused = lab.run("validate", *options, *SKU)
    assert (refused.code, "number of vCPUs" in refused.err) == (3, True)
    assert lab.run("validate", *options, *SKU, "--insecure").code == 0
    ran = lab.run("validate", *options, "--insecure")
    assert (ran.code, "does not say which CPU" in ran.err) == (2, True)
    ran = lab.run("validate", *options[:4], "--insecure", "-n", "2", *SKU)
    assert (ran.code, "--firmware (or --launch-digest) is needed" in ran.err) == (2, True)
    lab.client.cpus = {}
    ran = lab.run("validate", *options, *SKU, "--insecure")
    assert (ran.code, "is not a list" in ran.err) == (6, True)
    connection = QmpConnection(URI, 1)
    assert connection.cpu() is None
    connection.close()


@pytest.mark.parametrize("status", [{}, [], {"status": 1}])
def test_a_reply_of_another_shape_is_malformed(lab: Lab, status: object) -> None:
    lab.client.status = status
    ran = lab.validate()
    assert (ran.code, "QMP reply status" in ran.err) == (6, True)


@pytest.mark.parametrize(
    ("call", "error", "code", "shown"),
    [
        ("connect", QMPError("Failed to establish connection"), 6, "Failed to establish"),
        ("query-status", EOFError(), 6, "the connection is lost"),
        ("query-sev", ExecuteError("no such command"), 6, "no such command"),
        ("sev-inject-launch-secret", ConnectionResetError("gone"), 6, "do not send it again"),
        ("sev-inject-launch-secret", ExecuteError("SEV: no"), 5, "SEV: no"),
        ("cont", QMPError("gone"), 6, "the guest has its secret"),
        ("cont", RecursionError(), 6, "QMP's `cont` lets it run"),
        ("connect", ValueError("secret"), 6, "an answer that cannot be read"),
        ("query-status", RecursionError(), 6, "query-status: an answer that cannot be read"),
        ("query-sev", ExecuteError("no " * 10_000), 6, "query-sev: no no no"),
        ("sev-inject-launch-secret", UnicodeError("secret"), 6, "do not send it again"),
        ("disconnect", QMPError("gone"), 0, ""),
    ],
)
def test_a_call_that_fails_ends_it_in_words(
    lab: Lab, call: str, error: Exception, code: int, shown: str
) -> None:
    lab.client.broken[call] = fails(error)
    ran = lab.validate(*INJECT)
    assert ran.code == code
    assert shown in ran.err
    assert lab.client.calls.count("sev-inject-launch-secret") <= 1
    assert lab.client.calls[-1] == "disconnect"


def test_a_qemu_that_does_not_answer_is_not_waited_for(lab: Lab) -> None:
    connection = QmpConnection(URI, 0.01)
    lab.client.broken["query-status"] = hangs
    with pytest.raises(HostError, match=r"no answer in 0.01 seconds") as caught:
        connection.state()
    assert caught.value.check == "host.timeout"
    assert hint_for(caught.value) == "--timeout waits for longer"
    connection.close()


def test_without_the_extra_it_says_what_to_install(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qemu.qmp", None)
    ran = lab.validate()
    assert (ran.code, "`pip install '.[qmp]'` in sev-attest's folder" in ran.err) == (2, True)


def test_a_socket_is_one_guest_s(lab: Lab) -> None:
    assert "do not name a domain" in lab.validate("--domain", "vm1").err


def test_a_session_is_made_for_the_host_s_own_chain(lab: Lab) -> None:
    platform = lab.client.monitor.platform
    authority = platform.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("cek").write_bytes(platform.export().cek.to_bytes())
    trust = ("--trust-root", "root", "--cek", "cek")
    ran = lab.run("session", "--name", "vm1", "--connect", URI, "5", *trust)
    assert (ran.code, ran.out.splitlines()[0]) == (0, "<launchSecurity type='sev'>")


def test_a_qemu_tells_its_version_and_defines_no_domain(lab: Lab) -> None:
    version: dict[str, object] = {"major": 9, "minor": 2, "micro": 0}
    lab.client.own["query-version"] = {"qemu": version, "package": "Debian"}
    with closing(QmpConnection(URI, 1)) as connection:
        assert connection.versions().qemu == (9, 2, 0)
        assert connection.versions().libvirt is None
        for call in (connection.find, connection.define):
            with pytest.raises(Unsupported, match="no domain can be defined there"):
                call("vm1")
        for wrong in (-1, "9", 10**5000, None):
            lab.client.own["query-version"] = {"qemu": version | {"major": wrong}}
            with pytest.raises(MalformedInput):
                connection.versions()
        lab.client.own["query-version"] = []
        with pytest.raises(MalformedInput):
            connection.versions()


def test_a_qemu_that_has_to_hurry_has_less_time(lab: Lab) -> None:
    with closing(QmpConnection(URI, 86400)) as connection:
        connection.hurry(0.01)
        lab.client.broken["query-status"] = hangs
        with pytest.raises(HostError, match=r"no answer in 0.01 seconds"):
            connection.state()
