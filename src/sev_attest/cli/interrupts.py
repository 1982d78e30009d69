"""Signals that end a command: SIGINT, SIGTERM, SIGHUP.

While a command runs they raise KeyboardInterrupt, so that half-written files are removed. Before
and after it there is nothing to remove: then they end the process at once. A signal never shows a
traceback.
"""

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130


class Running:
    """Inside ``with running:`` a signal raises KeyboardInterrupt; elsewhere it exits (``code``)."""

    def __init__(self) -> None:
        """Start outside of a command."""
        self.inside: bool = False
        self.code: int = INTERRUPTED

    def __enter__(self) -> None:
        self.inside = True

    def __exit__(self, *_error: object) -> None:
        self.inside = False


running: Running = Running()


def handle() -> None:
    """Install the handlers, except for signals that the process was started to ignore (nohup)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has each
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: "FrameType | None") -> None:
    if running.inside:
        raise KeyboardInterrupt
    os._exit(running.code)
