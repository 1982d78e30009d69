"""The process of the simulated firmware, one for each QEMU of the lab.

It launches the guest, prints that it is ready or an error, relays between libvirt and QEMU's
monitor, and ends when QEMU ends.
"""

import json
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TextIO

from sev_attest.sev.states import Status
from sev_attest.testing.host import Fault, Host
from sev_attest.testing.lab.command_line import SevGuest
from sev_attest.testing.lab.fault import AnyFault, MonitorFault, read_fault
from sev_attest.testing.lab.monitor import SevMonitor, firmware_words
from sev_attest.testing.lab.relay import serve
from sev_attest.testing.lab.standin import READY, SEED
from sev_attest.testing.platform import FirmwareError, Platform
from sev_attest.testing.qemu import Guest, GuestInputs, QemuError


def main(arguments: list[str], said: TextIO = sys.stdout) -> int:
    """Run the firmware of one QEMU. Returns the exit code.

    ``arguments`` are the lab's folder, the descriptors of libvirt's socket and of a pipe that QEMU
    holds open, the path of QEMU's monitor, and the guest as JSON. ``said`` gets
    :data:`~sev_attest.testing.lab.standin.READY`, or an error in one line.
    """
    folder, client, life, monitor, described = arguments
    # Each process has a fresh platform; without ``boot``, every launch would draw the same nonce.
    platform = Platform((Path(folder) / SEED).read_bytes(), boot=os.urandom(16))
    fields = json.loads(described)
    guest = None
    try:
        fault = read_fault(Path(folder))
        if fields is not None:
            guest = _launch(platform, SevGuest(**fields).inputs(), fault)
    except FirmwareError as error:
        what = f"ret=1 fw_error={error.status.value} '{firmware_words(error)}'"
        said.write(f"sev_launch_start: LAUNCH_START {what}\n")
        return 1
    except (QemuError, OSError, ValueError) as error:
        said.write(f"{error}\n")
        return 1
    said.write(READY)
    said.close()
    answer = SevMonitor(platform, guest, _note, fault=fault)
    try:
        with socket.socket(fileno=int(client)) as listener:
            serve(listener, int(life), partial(_connect, monitor), answer)
    finally:
        Path(monitor).unlink(missing_ok=True)
    return 0


def _launch(platform: Platform, inputs: GuestInputs, fault: AnyFault | None) -> Guest:
    """Return the guest that was asked for, or what the fault makes of it, launched."""
    if fault is MonitorFault.FAILED_LAUNCH:
        raise FirmwareError(Status.RESOURCE_LIMIT, "LAUNCH_START")
    guest = Host(platform, fault if isinstance(fault, Fault) else None).launch(**inputs)
    if fault is MonitorFault.RUNNING_GUEST:
        guest.resume()
    return guest


def _note(line: str) -> None:
    sys.stderr.write(line)  # this is the lab's log
    sys.stderr.flush()


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection
