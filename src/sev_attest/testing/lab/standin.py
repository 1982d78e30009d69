"""What runs in QEMU's place: the firmware model in a process beside it, then QEMU itself.

libvirt starts ``qemu-system-x86_64`` of the lab's folder. That has another process launch the guest
in the model (:mod:`~sev_attest.testing.lab.firmware`); a bad session ends here, with QEMU's words.
Then the process becomes the real QEMU, under TCG, without SEV, and keeps the process id that
libvirt knows.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sev_attest.testing.lab.command_line import SevGuest, read_command_line
from sev_attest.testing.qemu import QemuError

SEED = "seed"
MONITORS = "monitors"
LOG = "standin.log"
READY = "ready\n"
_FIRMWARE = "import sys; from sev_attest.testing.lab import firmware as f; f.main(sys.argv[1:])"
_NAME = "qemu-system-x86_64"

Execute = Callable[[str, list[str]], object]


def run(folder: Path, real: str, arguments: list[str], *, execute: Execute = os.execv) -> int:
    """Be QEMU. Returns the exit code if it cannot start; otherwise ``execute`` does not return."""
    try:
        line = read_command_line(arguments)
    except (QemuError, ValueError, KeyError) as error:
        return _fail(str(error))
    if line.monitor is None:
        if line.guest is not None:
            return _fail("an SEV guest of the lab needs a monitor: -qmp unix:PATH,server=on")
        execute(real, [real, *arguments])
        return 0
    monitor = folder / MONITORS / str(os.getpid())
    with _listener(line.monitor) as client, _listen(str(monitor)) as qemu, _pipe() as (here, there):
        problem = _firmware(folder, client, here, monitor, line.guest)
        if problem:
            monitor.unlink()
            return _fail(problem)
        for descriptor in (qemu.fileno(), there):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - its only form
        execute(real, [real, *line.real(qemu.fileno())])
    return 0


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _listener(monitor: int | str) -> socket.socket:
    if isinstance(monitor, int):
        return socket.socket(fileno=monitor)
    Path(monitor).unlink(missing_ok=True)
    return _listen(monitor)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    return listener


def _firmware(
    folder: Path, client: socket.socket, life: int, monitor: Path, guest: SevGuest | None
) -> str:
    """Start the other process; gives what is wrong, if it does not get ready."""
    command = [sys.executable, "-P", "-c", _FIRMWARE]
    command += [str(folder), str(client.fileno()), str(life)]
    command += [str(monitor), guest.to_json() if guest else "null"]
    says, said = os.pipe()
    with os.fdopen(says) as answer:
        with os.fdopen(said, "wb") as speaker, (folder / LOG).open("ab") as log:
            subprocess.Popen(  # noqa: S603 - this program
                command,
                stdin=subprocess.DEVNULL,
                stdout=speaker,
                stderr=log,
                pass_fds=(client.fileno(), life),
                start_new_session=True,
            )
        word = answer.readline()
    return "" if word == READY else word.strip() or f"see {folder / LOG}"


def _fail(problem: str) -> int:
    sys.stderr.write(f"{_NAME}: {problem}\n")
    return 1
