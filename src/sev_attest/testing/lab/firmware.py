"""The process beside one QEMU of the lab: its platform's firmware, between the two monitors.

It opens GODH and session as the firmware would, says that it is ready or what is wrong, and ends
when QEMU does.
"""

import json
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TextIO

from sev_attest.testing.lab.command_line import SevGuest
from sev_attest.testing.lab.monitor import SevMonitor, firmware_words, serve
from sev_attest.testing.lab.standin import READY, SEED
from sev_attest.testing.platform import FirmwareError, Platform
from sev_attest.testing.qemu import QemuError, launch_guest


def main(arguments: list[str], said: TextIO = sys.stdout) -> int:
    """Be the firmware beside one QEMU: the arguments are the stand-in's, which reads ``said``."""
    folder, client, life, monitor, described = arguments
    # Another nonce for each launch: this process is all the memory that the model has.
    platform = Platform((Path(folder) / SEED).read_bytes(), boot=os.urandom(16))
    fields = json.loads(described)
    guest = None
    try:
        if fields is not None:
            guest = launch_guest(platform, **SevGuest(**fields).inputs())
    except FirmwareError as error:
        what = f"ret=1 fw_error={error.status.value} '{firmware_words(error)}'"
        said.write(f"sev_launch_start: LAUNCH_START {what}\n")
        return 1
    except (QemuError, OSError, ValueError) as error:
        said.write(f"{error}\n")
        return 1
    said.write(READY)
    said.close()
    answer = SevMonitor(platform, guest, _note)
    try:
        with socket.socket(fileno=int(client)) as listener:
            serve(listener, int(life), partial(_connect, monitor), answer)
    finally:
        Path(monitor).unlink(missing_ok=True)
    return 0


def _note(line: str) -> None:
    sys.stderr.write(line)  # the lab's log
    sys.stderr.flush()


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection
