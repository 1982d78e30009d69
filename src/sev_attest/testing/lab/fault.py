"""What the lab's host can do wrong, and the file that says which of it. See docs/lab.md."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from sev_attest.testing.host import Fault, fault_name

FILE: str = "fault"
"""File in the lab's folder with a fault's name. It is read at each start of a QEMU."""


class MonitorFault(Enum):
    """What a host can do wrong when it starts QEMU or answers libvirt. The value says what."""

    CLAIMED_API = "it reports another API version than the measured one"
    CLAIMED_BUILD = "it reports another build than the measured one"
    CLAIMED_POLICY = "it reports another policy than the measured one"
    FAILED_LAUNCH = "the firmware has no room for another guest"
    FAILED_MEASUREMENT = "it reports an error in place of the measurement"
    FAILED_RESUME = "QEMU does not resume the guest"
    GARBLED_MEASUREMENT = "it reports a measurement of 3 bytes, not 48"
    LOST_GUEST = "the guest ends when it has its secret"
    RUNNING_GUEST = "it lets the guest run at once, and says that it is paused"
    SILENT_LAUNCH = "QEMU starts, and never answers"
    SILENT_MEASUREMENT = "no answer comes to the question for the measurement"
    SILENT_SECRET = "the guest gets its secret, and no answer comes"  # noqa: S105 - no password
    SILENT_RESUME = "no answer comes when the guest is resumed"


AnyFault = Fault | MonitorFault

FAULTS: Mapping[str, AnyFault] = {fault_name(each): each for each in (*Fault, *MonitorFault)}
"""Every fault, by the name that options and the file have."""


def write_fault(folder: Path, fault: AnyFault | None) -> None:
    """Set the fault of the lab in a folder; None makes it honest. Raises OSError."""
    place = folder / FILE
    if fault is None:
        place.unlink(missing_ok=True)
    else:
        place.write_text(f"{fault_name(fault)}\n")


def read_fault(folder: Path) -> AnyFault | None:
    """Return the fault of the lab in a folder, None if it is honest.

    Raises ValueError for an unknown name, OSError.
    """
    try:
        name = (folder / FILE).read_text().strip()
    except FileNotFoundError:
        return None
    if name not in FAULTS:
        raise ValueError(f"{folder / FILE} has no fault of the lab: {name!r}")
    return FAULTS[name]
