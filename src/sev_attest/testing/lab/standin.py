"""The program that libvirt runs in place of QEMU.

It starts another process (:mod:`~sev_attest.testing.lab.firmware`), which launches the guest in the
simulated firmware. If that refuses the session, the program ends with QEMU's message. Otherwise it
executes the real QEMU, under TCG and without SEV, and so keeps the process id that libvirt knows.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sev_attest.testing.lab.command_line import SevGuest, read_command_line
from sev_attest.testing.lab.fault import MonitorFault, read_fault

SEED: str = "seed"
"""Names of files and folders in the lab's folder."""
MONITORS: str = "monitors"
LOG: str = "standin.log"
READY: str = "ready\n"
"""What the firmware's process prints when the guest is launched; anything else is an error."""
_FIRMWARE = "import sys; from sev_attest.testing.lab import firmware as f; f.main(sys.argv[1:])"
_NAME = "qemu-system-x86_64"
_PAUSED = "-S"
"""QEMU's option to start a guest without running it."""

Execute = Callable[[str, list[str]], object]


def run(folder: Path, real: str, arguments: list[str], *, execute: Execute = os.execv) -> int:
    """Run the guest of QEMU's command line. ``real`` is the real QEMU's path.

    Returns the exit code if the guest cannot start; otherwise ``execute`` does not return.
    """
    try:
        line = read_command_line(arguments)
        if line.guest is not None and read_fault(folder) is MonitorFault.RUNNING_GUEST:
            line.arguments = [word for word in line.arguments if word != _PAUSED]
    except (ValueError, KeyError) as error:
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
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - it has no keyword
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
    """Return the socket for libvirt's connection to the monitor."""
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
    """Start the firmware's process and wait for it. Returns its error, empty if there is none."""
    command = [sys.executable, "-P", "-c", _FIRMWARE]
    command += [str(folder), str(client.fileno()), str(life)]
    command += [str(monitor), guest.to_json() if guest else "null"]
    says, said = os.pipe()
    with os.fdopen(says) as answer:
        with os.fdopen(said, "wb") as speaker, (folder / LOG).open("ab") as log:
            subprocess.Popen(  # noqa: S603 - this package's own code
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
