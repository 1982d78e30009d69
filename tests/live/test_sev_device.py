"""/dev/sev: the layouts of the kernel's header, and the real system calls with a shim behind them.

Needs gcc and the header linux/psp-sev.h (Debian: linux-libc-dev).
"""

import errno
import json
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from c_header import c_values, compiled, offsets
from sev_attest import sev
from sev_attest.host import device, device_errors
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.states import PlatformState
from sev_attest.testing import Platform
from sev_driver import CSR, EXPORT, IMPORT, PDH_GEN, SIZES, Driver
from vault_stand_in import serving

HEADER = Path("/usr/include/linux/psp-sev.h")
SHIM = Path(__file__).with_name("sev_shim.c")

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or not HEADER.exists(),
    reason="needs gcc and linux/psp-sev.h (apt-get install gcc libc6-dev linux-libc-dev)",
)


# layouts


def of_the_header(folder: Path, *expressions: str) -> dict[str, int]:
    """Return the values of C expressions."""
    return c_values("linux/psp-sev.h", folder, *expressions)


STRUCTURES = {
    "sev_issue_cmd": (device.ISSUE.format, "cmd", "data", "error"),
    "sev_user_data_status": (
        device.STATUS.format, "api_major", "api_minor", "state", "flags", "build", "guest_count",
    ),
    "sev_user_data_pek_csr": (device.BUFFER.format, "address", "length"),
    "sev_user_data_get_id2": (device.BUFFER.format, "address", "length"),
    "sev_user_data_pdh_cert_export": (
        device.BUFFER.format + device.BUFFER.format[1:],
        "pdh_cert_address", "pdh_cert_len", "cert_chain_address", "cert_chain_len",
    ),
    "sev_user_data_pek_cert_import": (
        device.IMPORT.format, "pek_cert_address", "pek_cert_len", "oca_cert_address",
        "oca_cert_len",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_is_laid_out_as_in_the_kernel(tmp_path: Path, name: str) -> None:
    layout, *fields = STRUCTURES[name]
    asked = [f"offsetof(struct {name}, {one})" for one in fields]
    found = of_the_header(tmp_path, *asked, f"sizeof(struct {name})")
    assert list(found.values()) == offsets(layout)


def test_the_numbers_are_the_kernel_s(tmp_path: Path) -> None:
    ours = {f"SEV_{one.name}": int(one) for one in device.Command}
    ours |= {"SEV_ISSUE_CMD": device.SEV_ISSUE_CMD, "SEV_STATUS_FLAGS_CONFIG_ES": device._ES}
    assert of_the_header(tmp_path, *ours) == ours


def test_the_status_codes_are_the_kernel_s(tmp_path: Path) -> None:
    names = sorted(set(re.findall(r"\bSEV_RET_\w+", HEADER.read_text())))
    found = of_the_header(tmp_path, *names)
    # Linux 6.11 to 6.13 have wrong numbers from 0x19 on.
    whole = found.get("SEV_RET_INVALID_PAGE_SIZE") == 0x19
    others = {"SEV_RET_NO_FW_CALL", "SEV_RET_SUCCESS", "SEV_RET_MAX", "SEV_RET_INAVLID_CONFIG"}
    compared = {n: c for n, c in found.items() if n not in others and (whole or c < 0x19)}
    print(f"\n{len(compared)} status codes compared")
    assert len(compared) >= 23
    assert {n: device_errors.STATUS[c][0] for n, c in compared.items()} == {
        name: name.removeprefix("SEV_RET_") for name in compared
    }


# the real system calls


@dataclass
class Host:
    """A machine with a simulated /dev/sev, for programs that are started on it."""

    driver: Driver
    folder: Path
    shim: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command line in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "sev_attest", *arguments],
            cwd=self.folder,
            env=os.environ
            | {"LD_PRELOAD": str(self.shim), "SEV_SHIM_SOCKET": "sev"}
            | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **{"stdin": subprocess.DEVNULL, **more},
        )

    def done(self, *arguments: str) -> str:
        ran = self.run(*arguments)
        assert ran.returncode == 0, ran.stderr
        assert all(line.startswith("note: ") for line in ran.stderr.splitlines()), ran.stderr
        return ran.stdout

    def serve(self, listening: socket.socket) -> None:
        """Answer every program until the socket is closed."""
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            with connected, connected.makefile("rb") as incoming:
                while head := incoming.read(12):
                    connected.sendall(self.answer(head, incoming))

    def answer(self, head: bytes, incoming: Any) -> bytes:
        flags, command, size = struct.unpack("<III", head)
        assert size == SIZES.get(command, 0)
        self.driver.writable = flags & os.O_ACCMODE == os.O_RDWR
        data = incoming.read(size)
        imported = range(2 if command == IMPORT else 0)
        blobs = [incoming.read(int.from_bytes(incoming.read(4), "little")) for _ in imported]
        reply = self.driver.issue(command, data, blobs)
        buffers = [] if command == IMPORT else reply.buffers
        return (
            struct.pack("<iI", reply.error, reply.status)
            + reply.data
            + struct.pack("<I", len(buffers))
            + b"".join(struct.pack("<I", len(one)) + one for one in buffers)
        )


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(SHIM, tmp_path_factory.mktemp("shim") / "shim.so", "-shared", "-fPIC")


@pytest.fixture
def host(
    tmp_path: Path, shim: Path, sev_platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    made = Host(Driver(sev_platform), tmp_path, shim)
    authority = sev_platform.authority
    (tmp_path / "roots").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    (tmp_path / "cek").write_bytes(sev_platform.export().cek.to_bytes())
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("sev")
        listening.listen()
        thread = threading.Thread(target=made.serve, args=(listening,))
        thread.start()
        try:
            yield made
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_status(host: Host) -> None:
    host.driver.platform.launch_start(0)
    assert host.done("host", "status").splitlines() == [
        "API: 1.55", "build: 24", "state: WORKING (with guests)", "owner: itself", "SEV-ES: yes",
        "guests: 1",
    ]  # fmt: skip


def test_export_and_what_is_added_to_it(host: Host) -> None:
    host.done("host", "export", "plain")
    exported = host.driver.platform.export(signed_cek=False)
    assert (host.folder / "plain").read_bytes() == exported.to_bytes()
    host.done("host", "export", "full", "--full", "--cek", "cek", "--trust-root", "roots")
    host.done("verify", "full", "--trust-root", "roots")
    chain = sev.Chain.from_files(host.folder / "full")
    assert chain.ark == host.driver.platform.authority.ark


def test_the_signed_cek_is_fetched_over_tls(host: Host) -> None:
    with serving(host.folder) as server:
        found = host.driver.platform.export().cek.to_bytes()
        path = f"/cek/id/{host.driver.platform.get_id().hex()}"
        server.fault = lambda handler: handler.send(200 if handler.path == path else 404, found)
        url = f"https://{server.host}"
        options = ["--full", "--fetch", "--kds", url, "--trust-root", "roots"]
        refused = host.run("host", "export", "full", *options)
        assert refused.returncode == 6
        assert "its certificate is not trusted" in refused.stderr
        host.environment["SSL_CERT_FILE"] = str(server.ca)
        host.done("host", "export", "full", *options)
    host.environment.clear()
    host.done("verify", "full", "--trust-root", "roots")


def test_a_reply_longer_than_expected_is_asked_for_again(host: Host) -> None:
    host.driver.sockets = 4
    ran = host.run("host", "export", "chain")
    assert (ran.returncode, host.driver.platform.get_id().hex() in ran.stderr) == (0, True)


def test_an_owner_takes_the_platform_and_a_reset_gives_it_back(host: Host) -> None:
    host.done("certs", "generate-oca", "oca", "oca.pem")
    host.done("host", "csr", "csr")
    host.done("certs", "sign-pek", "csr", "pek", "--key", "oca.pem")
    host.done("host", "provision", "pek", "oca", "--yes")
    assert json.loads(host.done("host", "status", "--json"))["externally_owned"]
    host.done("host", "export", "owned", "--cek", "cek", "--trust-root", "roots")
    host.done("verify", "owned", "--trust-root", "roots")
    owned = sev.Chain.from_files(host.folder / "owned")
    assert owned.oca == Certificate.from_bytes((host.folder / "oca").read_bytes())
    again = host.run("host", "provision", "pek", "oca", "--yes")
    assert again.returncode == 5
    host.done("host", "reset", "--yes")
    assert host.driver.platform.state is PlatformState.UNINIT
    assert not json.loads(host.done("host", "status", "--json"))["externally_owned"]
    host.done("host", "export", "reset", "--cek", "cek", "--trust-root", "roots")
    assert sev.Chain.from_files(host.folder / "reset").oca != owned.oca


def test_new_keys(host: Host) -> None:
    host.done("host", "export", "first")
    host.done("host", "rotate", "--yes")
    host.done("host", "export", "second")
    host.done("host", "rotate", "--pek", "--yes")
    host.done("host", "export", "third")
    first, second, third = (
        sev.Chain.from_files(host.folder / name) for name in ("first", "second", "third")
    )
    assert first.pdh != second.pdh
    assert (first.oca, first.cek) == (second.oca, second.cek)
    assert second.oca != third.oca
    assert second.cek == third.cek


def test_a_guest_that_runs_prevents_a_reset(host: Host) -> None:
    host.driver.platform.launch_start(0)
    ran = host.run("host", "reset", "--yes")
    assert (ran.returncode, "SEV guests are running (1)" in ran.stderr) == (5, True)


@pytest.mark.parametrize("code", [*range(1, 0x28), 0xFFFF])
def test_every_status_code_comes_through_the_system_call(host: Host, code: int) -> None:
    host.driver.fails[PDH_GEN] = (errno.EIO, code)
    ran = host.run("host", "rotate", "--yes")
    _, words, hint = device_errors.STATUS.get(code, ("", "a code that is not known here", ""))
    assert ran.returncode == (5 if code in (1, 2, 5, 0x12, 0x20, 0x23) else 6)
    assert ran.stderr.startswith(f"error: /dev/sev: PDH_GEN: {words} (")
    assert f"\nhint: {hint}" in ran.stderr


@pytest.mark.parametrize("command", [CSR, EXPORT])
def test_every_error_of_the_call_is_told(host: Host, command: int) -> None:
    name = "csr" if command == CSR else "export"
    for number in device_errors._CALL:
        host.driver.fails[command] = (number, 0)
        ran = host.run("host", name, "out")
        assert ran.returncode == 6
        assert ran.stderr.startswith(f"error: /dev/sev: {device.Command(command).name}: ")
        assert "\nhint: " in ran.stderr


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENODEV, errno.ENXIO])
def test_a_device_that_cannot_be_opened(host: Host, number: int) -> None:
    host.environment["SEV_SHIM_ERRNO"] = str(number)
    ran = host.run("host", "status")
    assert ran.returncode == 6
    assert ran.stderr.startswith(f"error: /dev/sev: {device_errors._OPEN[number][1]}\nhint: ")


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2), (b"\4", 2)])
def test_somebody_at_a_terminal_is_asked(host: Host, answer: bytes, code: int) -> None:
    before = host.driver.platform.export().pdh
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        ran = host.run("host", "rotate", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert ran.returncode == code
    assert "Make new keys? [y/N] " in ran.stderr
    assert (host.driver.platform.export().pdh == before) == bool(code)
