"""``sev_attest.testing.lab``: QEMU's command line, QMP in between, the processes of the lab."""

import base64
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sev_attest import MalformedInput, sev
from sev_attest.guest import CpuModel
from sev_attest.sev.chain.packaging import read_contents
from sev_attest.testing import Fault, Platform, QemuError, launch_guest, ovmf_image
from sev_attest.testing.host import fault_name
from sev_attest.testing.lab import (
    AnyFault,
    Lab,
    LabError,
    MonitorFault,
    firmware,
    libvirtd,
    standin,
)
from sev_attest.testing.lab.command_line import SevGuest, properties, read_command_line
from sev_attest.testing.lab.fault import FAULTS, read_fault, write_fault
from sev_attest.testing.lab.monitor import SevMonitor
from sev_attest.testing.lab.relay import relay, serve, split
from sev_attest.testing.qemu import CPUS
from test_cli_launch import STEPS

OVMF = ovmf_image(8192)
TESTS = Path(__file__).parents[1]

# the command line

FLASH = (
    '{"driver":"file","filename":"/fw/OVMF.fd","node-name":"libvirt-pflash0-storage"}',
    '{"node-name":"libvirt-pflash0-format","driver":"raw","file":"libvirt-pflash0-storage"}',
)
OBJECT = (
    '{"qom-type":"sev-guest","id":"lsec0","cbitpos":51,"reduced-phys-bits":1,"policy":5,'
    '"dh-cert-file":"/lib/dh.b64","session-file":"/lib/session.b64","kernel-hashes":true}'
)
MACHINE = "pc-q35-7.2,usb=off,{}pflash0=libvirt-pflash0-format"
LIBVIRT = [
    *("-name", "guest=vm1,debug-threads=on", "-S"),
    *("-machine", MACHINE.format("confidential-guest-support=lsec0,")),
    *("-blockdev", FLASH[0], "-blockdev", FLASH[1]),
    *("-accel", "tcg", "-cpu", "EPYC-Milan-v2,x2apic=on", "-m", "256"),
    *("-smp", "2,maxcpus=4,sockets=4,cores=1,threads=1"),
    *("-chardev", "socket,id=charmonitor,fd=22,server=on,wait=off"),
    *("-mon", "chardev=charmonitor,id=monitor,mode=control", "-no-shutdown"),
    *("-kernel", "/k", "-initrd", "/i", "-append", "-kernel  is quiet, "),
    *("-object", OBJECT, "-object", "rng-random,id=rng0,filename=/dev/urandom"),
]  # fmt: skip


def test_libvirt_s_command_line_is_read_and_rewritten() -> None:
    line = read_command_line(LIBVIRT)
    assert line.monitor == 22
    assert line.guest == SevGuest(
        policy=5,
        godh="/lib/dh.b64",
        session="/lib/session.b64",
        kernel_hashes=True,
        firmware="/fw/OVMF.fd",
        kernel="/k",
        initrd="/i",
        cmdline="-kernel  is quiet, ",
        vcpus=2,
        cpu="EPYC-Milan-v2",
    )
    assert SevGuest(**json.loads(line.guest.to_json())) == line.guest
    real = line.real(7)
    assert real[:2] == ["-chardev", "socket,id=charmonitor,fd=7,server=on,wait=off"]
    assert [word for word in LIBVIRT if word not in real] == [LIBVIRT[4], LIBVIRT[18], OBJECT]
    assert MACHINE.format("") in real
    assert len(real) == len(LIBVIRT) - 2


def test_the_probe_s_command_line_has_a_monitor_and_no_guest() -> None:
    words = ["-S", "-nographic", "-machine", "none,accel=kvm:tcg", "-daemonize"]
    line = read_command_line([*words, "-qmp", "unix:/lib/qmp.monitor,server=on,wait=off"])
    assert (line.monitor, line.guest) == ("/lib/qmp.monitor", None)
    mine = ["-chardev", "socket,id=standin,fd=9,server=on,wait=off"]
    assert line.real(9) == [*mine, "-mon", "chardev=standin,mode=control", *words]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-bios", "/b.fd"], {"firmware": "/b.fd"}),
        (["-drive", "if=pflash,format=raw,file=/p.fd,readonly=on"], {"firmware": "/p.fd"}),
        (["--drive", "file=/d", "-drive", "if=pflash,unit=1,file=/vars"], {"firmware": None}),
        (["-smp", "cpus=3,maxcpus=8"], {"vcpus": 3}),
        (["-smp", "maxcpus=8"], {"vcpus": 1}),
        (["-cpu", "EPYC"], {"cpu": "EPYC"}),
        (["-append"], {"cmdline": ""}),
    ],
)
def test_people_s_own_command_lines_are_read_too(
    words: list[str], expected: dict[str, object]
) -> None:
    machine = ["-M", "q35,confidential-guest-support=s", "-object", "sev-guest,id=s,policy=0x1"]
    guest = read_command_line([*machine, *words]).guest
    assert guest is not None
    assert guest.policy == 1
    assert {name: getattr(guest, name) for name in expected} == expected


def test_without_the_machine_s_support_there_is_no_guest() -> None:
    line = read_command_line(["-object", "sev-guest,id=s", "-machine", "q35", "disk.img"])
    assert line.guest is None
    assert line.arguments == ["-machine", "q35", "disk.img"]
    line = read_command_line(["-chardev", "socket,id=serial0,fd=3", "-qmp", "tcp:localhost:4444"])
    assert line.monitor is None
    assert len(line.arguments) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q35,a=b,c", {"type": "q35", "a": "b", "c": "on"}),
        ("a=b,,c,d=", {"a": "b,c", "d": ""}),
        ('{"a": true, "b": false, "c": 1}', {"a": "on", "b": "off", "c": "1"}),
    ],
)
def test_properties(text: str, expected: dict[str, str]) -> None:
    assert properties(text, "type") == expected


def test_a_flash_that_names_itself_is_none() -> None:
    words = ["-machine", "q35,confidential-guest-support=s,pflash0=n", "-object", "sev-guest,id=s"]
    words += ["-blockdev", "node-name=n,file=n"]
    guest = read_command_line(words).guest
    assert guest is not None
    assert guest.firmware == "n"


def test_the_files_of_a_guest_are_read(here: Path) -> None:
    Path("fw").write_bytes(OVMF)
    Path("k").write_bytes(b"kernel")
    Path("i").write_bytes(b"initrd")
    Path("godh").write_bytes(base64.encodebytes(b"owner's"))
    guest = SevGuest(policy=5, firmware="fw", kernel="k", initrd="i", godh="godh", cpu="EPYC-Rome")
    inputs = guest.inputs()
    assert (inputs["kernel"], inputs["initrd"], inputs["godh"]) == (None, b"", b"owner's")
    assert inputs["cpu"] == CPUS["EPYC-Rome"]
    guest.kernel_hashes = True
    inputs = guest.inputs()
    assert (inputs["kernel"], inputs["initrd"], inputs["session"]) == (b"kernel", b"initrd", None)
    with pytest.raises(QemuError, match="not one of the CPU models"):
        SevGuest(policy=5, firmware="fw", cpu="qemu64").inputs()
    assert SevGuest(policy=1, firmware="fw", cpu="qemu64").inputs()["cpu"] == 0
    with pytest.raises(QemuError, match="no firmware"):
        SevGuest(policy=5).inputs()


# the monitor


@pytest.fixture
def monitor() -> SevMonitor:
    """Return the monitor of a guest without a session."""
    platform = Platform(b"lab")
    return SevMonitor(platform, launch_guest(platform, policy=5, firmware=OVMF))


def ask(monitor: SevMonitor, command: str, **arguments: str) -> Any:
    reply = monitor(json.dumps({"execute": command, "arguments": arguments, "id": 7}).encode())
    assert reply is not None
    assert reply.endswith(b"\r\n")
    document = json.loads(reply)
    assert document.pop("id") == 7
    return document


def test_it_says_what_qemu_says_of_a_guest(monitor: SevMonitor) -> None:
    sev_state = ask(monitor, "query-sev")["return"]
    assert sev_state == {
        "enabled": True,
        "api-major": 1,
        "api-minor": 55,
        "build-id": 24,
        "policy": 5,
        "state": "launch-secret",
        "handle": 1,
    }
    info = [sev_state, ask(monitor, "query-sev-launch-measure")]
    assert monitor.guest is not None
    read = sev.LaunchInfo.from_text(json.dumps(info))
    assert read.measurement == monitor.guest.measurement
    chain = monitor(b'{"execute": "query-sev-capabilities"}')
    assert chain is not None
    assert json.loads(chain)["return"]["reduced-phys-bits"] == 1
    nonce = base64.b64encode(bytes(16)).decode()
    report = ask(monitor, "query-sev-attestation-report", mnonce=nonce)["return"]["data"]
    assert len(base64.b64decode(report)) == 208


def test_it_takes_secrets_until_the_guest_runs(monitor: SevMonitor) -> None:
    platform, guest = monitor.platform, monitor.guest
    assert guest is not None
    context = platform._guests[guest.handle]
    keys = sev.TransportKeys(tek=context.tek, tik=context.tik)
    launch = sev.verify_launch(
        sev.LaunchInfo.from_text(guest.domlaunchsecinfo()),
        keys=keys,
        policy=sev.GuestPolicy(5),
        digest=sev.launch_digest(OVMF, vcpus=1, vmsa=CpuModel.named("EPYC-Milan")),
    )
    packet = sev.build_secret(launch, {"luks-key": b"key"})
    parts = {
        "packet-header": base64.b64encode(packet.header).decode(),
        "secret": base64.b64encode(packet.payload).decode(),
    }
    wrong = base64.b64encode(bytes(52)).decode()
    refused = ask(monitor, "sev-inject-launch-secret", **(parts | {"packet-header": wrong}))
    said = refused["error"]["desc"]
    assert said == "SEV: failed to inject secret ret=-5 fw_error=11 'Bad measurement'"
    assert guest.secrets == {}
    notes: list[str] = []
    monitor._note = notes.append
    assert ask(monitor, "sev-inject-launch-secret", **parts) == {"return": {}}
    assert notes == ["secret 736869e5-84f0-4973-92ec-06879ce3da0b: 3 bytes\n"]
    assert guest.secrets == {"736869e5-84f0-4973-92ec-06879ce3da0b": b"key"}
    assert monitor(b'{"execute": "cont"}') is None
    assert monitor(b'{"execute": "cont"}') is None
    assert ask(monitor, "query-sev")["return"]["state"] == "running"
    late = ask(monitor, "sev-inject-launch-secret", **parts)["error"]["desc"]
    assert late == "SEV: Not in correct state. (LSECRET) 3"


def test_without_a_guest_there_is_only_the_platform() -> None:
    monitor = SevMonitor(Platform(b"lab"))
    assert ask(monitor, "query-sev")["return"]["enabled"] is False
    assert len(ask(monitor, "query-sev-capabilities")["return"]["pdh"]) == 2780
    for command in (
        "query-sev-launch-measure",
        "query-sev-attestation-report",
        "sev-inject-launch-secret",
    ):
        assert "SEV" in ask(monitor, command)["error"]["desc"]
    assert monitor(b'{"execute": "cont"}') is None


# faults


def faulty(monitor: SevMonitor, fault: AnyFault) -> SevMonitor:
    """Return a monitor of the same guest, on a host with a fault."""
    return SevMonitor(monitor.platform, monitor.guest, fault=fault)


@pytest.mark.parametrize(
    ("fault", "field", "claimed"),
    [
        (MonitorFault.CLAIMED_API, "api-minor", 54),
        (MonitorFault.CLAIMED_BUILD, "build-id", 25),
        (MonitorFault.CLAIMED_POLICY, "policy", 7),
    ],
)
def test_a_host_claims_one_value_that_was_not_measured(
    monitor: SevMonitor, fault: AnyFault, field: str, claimed: int
) -> None:
    true, told = ask(monitor, "query-sev")["return"], ask(faulty(monitor, fault), "query-sev")
    assert told["return"] == {**true, field: claimed}
    assert true[field] != claimed


@pytest.mark.parametrize(
    ("fault", "command"),
    [
        (MonitorFault.SILENT_LAUNCH, "qmp_capabilities"),
        (MonitorFault.SILENT_MEASUREMENT, "query-sev-launch-measure"),
        (MonitorFault.SILENT_RESUME, "cont"),
        (MonitorFault.SILENT_SECRET, "sev-inject-launch-secret"),
    ],
)
def test_a_silent_host_answers_all_but_one_command(
    monitor: SevMonitor, fault: AnyFault, command: str
) -> None:
    message = json.dumps({"execute": command}).encode()
    assert faulty(monitor, fault)(message) == b""
    assert monitor(message) != b""
    assert "return" in ask(faulty(monitor, fault), "query-sev")
    # As libvirt asks before it knows of any guest.
    assert SevMonitor(monitor.platform, fault=fault)(message) != b""


def test_a_host_that_fails_to_resume_leaves_the_guest_as_it_was(monitor: SevMonitor) -> None:
    failed = ask(faulty(monitor, MonitorFault.FAILED_RESUME), "cont")
    assert failed["error"]["desc"] == "cont failed"
    assert ask(monitor, "query-sev")["return"]["state"] == "launch-secret"
    assert faulty(monitor, MonitorFault.SILENT_RESUME)(b'{"execute": "cont"}') == b""
    assert ask(monitor, "query-sev")["return"]["state"] == "running"


def test_a_measurement_is_kept_back_or_garbled(monitor: SevMonitor) -> None:
    failing = faulty(monitor, MonitorFault.FAILED_MEASUREMENT)
    assert "failed" in ask(failing, "query-sev-launch-measure")["error"]["desc"]
    garbled = ask(faulty(monitor, MonitorFault.GARBLED_MEASUREMENT), "query-sev-launch-measure")[
        "return"
    ]["data"]
    with pytest.raises(MalformedInput):
        sev.LaunchInfo.from_text(f"sev-measurement: {garbled}\n")


def test_a_guest_is_lost_once_it_has_its_secret(
    monitor: SevMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, notes = monitor.guest, list[str]()
    assert guest is not None
    monkeypatch.setattr(type(guest), "inject", lambda *_: {"a-guid": b"key"})
    losing = SevMonitor(monitor.platform, guest, notes.append, fault=MonitorFault.LOST_GUEST)
    with pytest.raises(ConnectionError):
        ask(losing, "sev-inject-launch-secret", **{"packet-header": "", "secret": ""})
    assert notes == ["secret a-guid: 3 bytes\n"]


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.in_chain])
def test_a_chain_s_fault_is_in_the_chain_that_libvirt_gets(fault: Fault) -> None:
    platform = Platform(b"lab")
    told = ask(SevMonitor(platform, fault=fault), "query-sev-capabilities")["return"]
    true = ask(SevMonitor(platform), "query-sev-capabilities")["return"]
    assert told != true
    assert (told["pdh"] != true["pdh"]) is (fault is Fault.OFF_CURVE_PDH)
    assert (
        ask(SevMonitor(platform, fault=Fault.OTHER_POLICY), "query-sev-capabilities")["return"]
        == true
    )


def test_the_file_of_a_fault_has_its_name(here: Path) -> None:
    assert read_fault(here) is None
    for name, fault in FAULTS.items():
        write_fault(here, fault)
        assert ((here / "fault").read_text(), read_fault(here)) == (f"{name}\n", fault)
    write_fault(here, None)
    write_fault(here, None)
    assert read_fault(here) is None
    (here / "fault").write_text("other\n")
    with pytest.raises(ValueError, match="has no fault of the lab: 'other'"):
        read_fault(here)


def test_the_page_of_the_lab_has_every_fault_and_a_test_of_each_refusal() -> None:
    page = (TESTS.parent / "docs" / "lab.md").read_text()
    described = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert [*described] == [*FAULTS]
    for fault in MonitorFault:
        assert described[fault_name(fault)] == fault.value
    tests = (TESTS / "live" / "test_lab.py").read_text()
    _, _, table = page.partition("### What a launch refuses")
    rows = [row.split("|")[1:-1] for row in table.splitlines() if row.startswith("| ")]
    assert {step.strip() for step, _, _ in rows} - {"step", "undo"} == {*STEPS}
    for _, _, how in rows[1:]:
        named = re.findall(r"`::(test_\w+)`", how)
        assert named or how.strip().startswith("not in the lab: ")
        for name in named:
            assert f"def {name}(" in tests, name


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"execute": "query-status"}'])
def test_the_rest_is_qemu_s(monitor: SevMonitor, line: bytes) -> None:
    assert monitor(line) is None


def test_a_command_without_its_arguments_is_an_error(monitor: SevMonitor) -> None:
    reply = monitor(b'{"execute": "sev-inject-launch-secret"}')
    assert reply is not None
    assert "packet-header" in json.loads(reply)["error"]["desc"]
    assert "error" in ask(monitor, "query-sev-attestation-report", mnonce="AA==")


@pytest.mark.parametrize(
    ("data", "messages", "rest"),
    [
        (b"", [], b""),
        (b"  \r\n", [], b""),
        (b'{"a": 1}\r\n{"b": "}\xc3\xa9"}', [b'{"a": 1}', b'{"b": "}\xc3\xa9"}'], b""),
        (b'{"a": 1}{"b"', [b'{"a": 1}'], b'{"b"'),
        (b'nonsense\n{"a": 1}', [b"nonsense", b'{"a": 1}'], b""),
        (b"nonsense", [], b"nonsense"),
    ],
)
def test_messages_need_no_newline(data: bytes, messages: list[bytes], rest: bytes) -> None:
    assert split(data) == (messages, rest)


class Wire:
    """A running relay, with the ends that a client and QEMU hold."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.client, there = socket.socketpair()
        self.qemu, here = socket.socketpair()
        self.ends = (there, here)
        self.thread = threading.Thread(target=relay, args=(there, here, answer))
        self.thread.start()

    def close(self) -> None:
        self.client.close()
        self.thread.join()
        for end in (self.qemu, *self.ends):
            end.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Relay between two socket pairs; "mine" is answered."""
    made = Wire(lambda message: b"yours\n" if message == b'"mine"' else None)
    yield made
    made.close()


def test_messages_pass_both_ways_and_some_are_answered(wire: Wire) -> None:
    wire.qemu.sendall(b'{"QMP": {}}\r\n{"rest": ')
    assert wire.client.recv(100) == b'{"QMP": {}}\r\n'
    wire.client.sendall(b'"mine"\n"for QEMU"')
    assert wire.client.recv(100) == b"yours\n"
    assert wire.qemu.recv(100) == b'"for QEMU"\r\n'
    wire.qemu.sendall(b"1}")
    assert wire.client.recv(100) == b'{"rest": 1}\r\n'


def test_descriptors_pass_with_their_message(wire: Wire) -> None:
    here, there = os.pipe()
    socket.send_fds(wire.client, [b'"take this"\n'], [there])
    os.close(there)
    data, (passed,), _, _ = socket.recv_fds(wire.qemu, 100, 4)
    assert data == b'"take this"\r\n'
    os.write(passed, b"through")
    os.close(passed)
    assert os.read(here, 100) == b"through"
    assert os.read(here, 100) == b""  # the relay kept none
    os.close(here)


def test_a_qemu_that_hangs_up_ends_it(wire: Wire) -> None:
    wire.qemu.close()
    wire.thread.join()


def test_a_client_that_hangs_up_with_messages_unread_ends_it(wire: Wire) -> None:
    wire.qemu.sendall(b'{"event": "unread"}\n')
    wire.client.recv(1, socket.MSG_PEEK)
    wire.client.close()
    wire.thread.join()


class Listener:
    """A listener for :func:`serve`; each client is one end of a socket pair."""

    def __init__(self) -> None:
        self.ready, self.knock = os.pipe()
        self.clients: list[socket.socket] = []

    def fileno(self) -> int:
        return self.ready

    def accept(self) -> tuple[socket.socket, str]:
        os.read(self.ready, 1)
        return self.clients.pop(0), ""

    def client(self) -> socket.socket:
        mine, other = socket.socketpair()
        self.clients.append(other)
        os.write(self.knock, b"x")
        return mine


def test_clients_come_one_after_the_other_until_qemu_is_gone() -> None:
    listener: Any = Listener()
    here, there = os.pipe()
    calls: list[socket.socket] = []

    def connect() -> socket.socket:
        if calls:
            raise ConnectionRefusedError
        mine, other = socket.socketpair()
        calls.append(mine)
        mine.sendall(b'"hello"\n')
        return other

    thread = threading.Thread(target=serve, args=(listener, here, connect, lambda _: None))
    thread.start()
    with listener.client() as first:
        assert first.recv(100) == b'"hello"\r\n'
    with listener.client() as second:
        assert second.recv(100) == b""  # QEMU takes no more
    os.close(there)
    thread.join()
    calls[0].close()
    for descriptor in (here, listener.ready, listener.knock):
        os.close(descriptor)


# the stand-in and the firmware beside it


@pytest.fixture
def folder(here: Path) -> Path:
    """Make the parts of a lab's folder that a stand-in needs."""
    (here / standin.MONITORS).mkdir()
    (here / standin.SEED).write_bytes(b"lab")
    Path("fw").write_bytes(OVMF)
    return here


class Started:
    """Replaces subprocess.Popen: records the command and writes its answer."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.command: list[str] = []

    def __call__(self, command: list[str], *, stdout: io.IOBase, **_options: object) -> None:
        self.command = command
        stdout.write(self.word.encode())


GUEST = ["-machine", "q35,confidential-guest-support=s", "-object", "sev-guest,id=s,policy=5"]


def test_the_stand_in_starts_the_firmware_and_becomes_qemu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started("ready\n")
    monkeypatch.setattr(subprocess, "Popen", started)
    executed: list[list[str]] = []
    (folder / "qmp").touch()  # left over
    code = standin.run(
        folder,
        "/usr/bin/qemu",
        ["-qmp", "unix:qmp,server=on", *GUEST],
        execute=lambda _path, words: executed.append(words),
    )
    assert code == 0
    ((program, chardev, what, *_rest),) = executed
    assert (program, chardev) == ("/usr/bin/qemu", "-chardev")
    assert what.startswith("socket,id=standin,fd=")
    assert started.command[4] == str(folder)
    assert json.loads(started.command[-1])["policy"] == 5
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("libvirt")
    charmonitor = ["-chardev", f"socket,id=charmonitor,fd={listener.detach()},server=on"]
    (folder / standin.MONITORS / str(os.getpid())).unlink()
    assert standin.run(folder, "qemu", charmonitor, execute=lambda *_: None) == 0
    assert started.command[-1] == "null"


@pytest.mark.parametrize(
    ("word", "shown"),
    [("what is wrong\n", "what is wrong"), ("", "see ")],
)
def test_qemu_does_not_start_without_its_firmware(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    shown: str,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Started(word))
    assert standin.run(folder, "qemu", ["-qmp", "unix:qmp", *GUEST]) == 1
    assert capsys.readouterr().err.startswith(f"qemu-system-x86_64: {shown}")
    assert list((folder / standin.MONITORS).iterdir()) == []


def test_only_a_guest_that_is_to_run_at_once_is_not_paused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Started("ready\n"))
    executed: list[list[str]] = []

    def run(*words: str) -> bool:
        (folder / standin.MONITORS / str(os.getpid())).unlink(missing_ok=True)
        standin.run(folder, "qemu", ["-S", *words], execute=lambda _, line: executed.append(line))
        return "-S" in executed[-1]

    assert run("-qmp", "unix:qmp", *GUEST)
    write_fault(folder, MonitorFault.RUNNING_GUEST)
    assert not run("-qmp", "unix:qmp", *GUEST)
    assert run("-qmp", "unix:qmp")  # libvirt asks what it can do
    write_fault(folder, MonitorFault.SILENT_LAUNCH)
    assert run("-qmp", "unix:qmp", *GUEST)


def test_what_is_not_about_sev_is_qemu_s_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executed: list[list[str]] = []

    def run(words: list[str]) -> int:
        return standin.run(folder, "qemu", words, execute=lambda _, line: executed.append(line))

    assert run(["--version"]) == 0
    assert executed == [["qemu", "--version"]]
    assert run(GUEST) == 1
    assert "needs a monitor" in capsys.readouterr().err
    assert run([*GUEST, "-smp", "many"]) == 1
    assert "many" in capsys.readouterr().err
    assert len(executed) == 1


def be_firmware(folder: Path, guest: SevGuest | None, session: sev.Session | None = None) -> str:
    """Run the firmware's code, with a QEMU that ends at once. Return what it printed."""
    if guest and session:
        Path("godh").write_bytes(base64.b64encode(session.godh.to_bytes()))
        Path("session").write_bytes(base64.b64encode(session.blob))
        guest.godh, guest.session = "godh", "session"
    listener = socket.socket(socket.AF_UNIX)
    here, there = os.pipe()
    os.close(there)
    monitor = folder / standin.MONITORS / "1"
    monitor.touch()
    said = io.StringIO()
    words: list[str] = []
    said.close = lambda: words.append(said.getvalue())  # type: ignore[method-assign] # to read it
    arguments = [str(folder), str(listener.fileno()), str(here), str(monitor)]
    code = firmware.main([*arguments, guest.to_json() if guest else "null"], said)
    os.close(here)
    if code == 0:
        listener.detach()
        assert not monitor.exists()
    listener.close()
    assert code == (0 if words else 1)
    return said.getvalue()


def test_the_firmware_opens_the_session_it_is_given(folder: Path) -> None:
    platform = Platform(b"lab")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(1))
    assert be_firmware(folder, None) == "ready\n"
    assert be_firmware(folder, SevGuest(policy=1, firmware="fw"), session) == "ready\n"
    refused = be_firmware(folder, SevGuest(policy=3, firmware="fw"), session)
    assert refused == "sev_launch_start: LAUNCH_START ret=1 fw_error=11 'Bad measurement'\n"
    for guest in (SevGuest(policy=1), SevGuest(policy=1, firmware="none")):
        assert be_firmware(folder, guest) not in ("", "ready\n")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (MonitorFault.FAILED_LAUNCH, "LAUNCH_START ret=1 fw_error=23 'Resource limit'"),
        (MonitorFault.RUNNING_GUEST, "ready"),
        (Fault.WRONG_FIRMWARE_BYTE, "ready"),
    ],
)
def test_the_firmware_launches_what_the_fault_makes_of_a_guest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: AnyFault, said: str
) -> None:
    seen: list[SevMonitor] = []
    monkeypatch.setattr(firmware, "serve", lambda *words: seen.append(words[-1]))
    write_fault(folder, fault)
    assert said in be_firmware(folder, SevGuest(policy=1, firmware="fw"))
    for monitor in seen:
        assert monitor.guest is not None
        running = ask(monitor, "query-sev")["return"]["state"] == "running"
        digest = monitor.platform.guest_context(monitor.guest.handle).digest
        assert running is (fault is MonitorFault.RUNNING_GUEST)
        assert (digest == sev.launch_digest(OVMF)) is (fault is not Fault.WRONG_FIRMWARE_BYTE)
    (folder / "fault").write_text("other")
    assert "has no fault of the lab" in be_firmware(folder, None)


def test_the_firmware_s_notes_go_to_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    firmware._note("a line\n")
    assert capsys.readouterr().err == "a line\n"


def test_the_firmware_connects_to_qemu_s_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _socket, path: seen.append(path))
    firmware._connect("monitors/1").close()
    assert seen == ["monitors/1"]


def test_every_launch_has_a_nonce_of_its_own() -> None:
    first, second = (Platform(b"lab", boot=boot) for boot in (b"1", b"2"))
    assert first.export() == second.export()
    assert first._random(16) != second._random(16)


# the lab


@pytest.fixture
def programs(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs of the right names on the path; they do nothing else."""
    scripts = {
        "qemu-system-x86_64": "exit 0",
        "libvirtd": 'touch "$XDG_RUNTIME_DIR/up"; exec sleep 100',
        # The first time, nothing answers yet.
        "virsh": f'[ -e asked ] && [ -e "{here}/lab/run/up" ] && echo "$3"; r=$?; >asked; exit $r',
    }
    (here / "path").mkdir()
    for name, script in scripts.items():
        program = here / "path" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}/path:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(libvirtd, "_PAUSE", 0)
    return here / "path"


def test_a_lab_starts_and_ends_its_own(programs: Path, here: Path) -> None:
    shown: list[str] = []
    sleeper = subprocess.Popen(["sleep", "100"], env={"HOME": f"{here}/lab/home"})
    stranger = subprocess.Popen(["sleep", "100"], env={})
    with Lab(here / "lab", show=shown.append) as lab:
        assert lab.virsh("domstate").out == "domstate\n"
        os.kill(lab.pid, 0)
        pids = here / "lab" / "run" / "libvirt" / "qemu" / "run"
        pids.mkdir(parents=True)
        for name, text in (("a", sleeper.pid), ("b", stranger.pid), ("c", "none")):
            (pids / f"{name}.pid").write_text(str(text))
    assert sleeper.wait() != 0
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert shown[-1] == f"$ virsh -c '{lab.uri}' domstate\ndomstate\n"
    root = read_contents((here / "lab" / "test-root.cert").read_bytes()).certificates
    assert {c.role for c in root} == {"ASK", "ARK"}
    wrapper = (here / "lab" / "bin" / "qemu-system-x86_64").read_text()
    assert str(programs / "qemu-system-x86_64") in wrapper
    lab.stop()  # once more does no harm
    with pytest.raises(LabError, match="does not run"):
        _ = lab.pid


def test_a_lab_that_cannot_be_had_says_why(
    programs: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "libvirtd").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(LabError, match="libvirtd ended"), Lab(here / "lab"):
        pass
    (programs / "libvirtd").write_text("#!/bin/sh\nexec sleep 100\n")
    monkeypatch.setattr(libvirtd, "_WAIT", -1)
    with pytest.raises(LabError, match="does not answer"), Lab(here / "lab"):
        pass
    (programs / "qemu-system-x86_64").unlink()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(libvirtd, "_SBIN", "")
    with pytest.raises(LabError, match="qemu-system-x86_64 is not installed"):
        Lab(here / "lab")
    monkeypatch.setattr(libvirtd, "_CPUS", here / "sys")
    with pytest.raises(LabError, match="is missing, where libvirt reads"):
        Lab(here / "lab")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(LabError, match="does not work for root"):
        Lab(here / "lab")


def test_the_lab_as_a_program(
    programs: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    handled: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, _handler: handled.append(number))
    assert libvirtd.main(["lab"], pause=interrupt) == 0
    assert handled == [signal.SIGTERM, signal.SIGHUP]
    assert read_fault(here / "lab") is None
    socket_path = here / "lab" / "run" / "libvirt" / "libvirt-sock"
    uri = f"qemu+unix:///session?socket={socket_path}"
    assert capsys.readouterr().out == f"export LIBVIRT_DEFAULT_URI='{uri}'\n"
    assert libvirtd.main(["lab", "--fault", "lost-guest"], pause=interrupt) == 0
    assert read_fault(here / "lab") is MonitorFault.LOST_GUEST
    for arguments, code in ((["--help"], 0), (["a", "b"], 2), (["lab", "--fault", "none"], 2)):
        with pytest.raises(SystemExit) as ended:
            libvirtd.main(arguments)
        assert ended.value.code == code
    assert fault_name(MonitorFault.LOST_GUEST) in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["lab"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("sev_attest.testing.lab", run_name="__main__")
    (here / "file").touch()
    assert libvirtd.main(["file"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
