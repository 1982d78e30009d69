"""Signals that end a command: SIGINT, SIGTERM, SIGHUP.

While a command runs they raise KeyboardInterrupt, so that half-written files are removed. Before
and after it there is nothing to remove: then they end the process at once. A signal never shows a
traceback. While a command waits for an answer that decides what is true on a host, a signal is held
back until the answer is there. A command that has something to undo lets one signal raise only.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130


class Running:
    """Inside ``with running:`` a signal raises KeyboardInterrupt; elsewhere it exits (``code``).

    Blocks may be nested: ``demo`` runs other commands.
    """

    def __init__(self) -> None:
        """Start outside of a command."""
        self._depth: int = 0
        self.code: int = INTERRUPTED
        self.signals: int = 0
        """How many signals came inside of commands."""
        self._holding: int = 0
        self._came: bool = False
        self._once: bool = False
        self._spent: bool = False

    @property
    def inside(self) -> bool:
        """Whether a command runs."""
        return self._depth > 0

    def __enter__(self) -> None:
        if not self.inside:
            self._holding, self._came, self._once, self._spent = 0, False, False, False
        self._depth += 1

    def __exit__(self, *_error: object) -> None:
        self._depth -= 1

    def let_go(self) -> None:
        """Let a signal end this process at once: a child has nothing to undo."""
        self._depth = 0

    def once(self) -> None:
        """Let only one more signal raise, in this command.

        A second one could end the handler of the first before its first line. So two handlers, one
        around the other, are enough for the inner or the outer one to run to its end.
        """
        self._once = True

    def spend(self) -> None:
        """Let no more signal raise, in this command: what was begun runs to its end."""
        self._spent = True

    @contextmanager
    def held(self, *, drop: bool = False) -> Iterator[None]:
        """Hold signals back: one that came raises KeyboardInterrupt when the block has succeeded.

        ``drop`` ignores it instead. An error of the block comes before it.
        """
        self._holding += 1
        try:
            yield
        except BaseException:
            drop = True
            raise
        finally:
            self._holding -= 1
            came, self._came = self._came and not self._holding, self._came and self._holding > 0
            if came and not drop:
                self._spent = self._once
                raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt, now or when signals are no longer held back."""
        self.signals += 1
        if self._holding or self._spent:
            self._came = True
            return
        self._spent = self._once
        raise KeyboardInterrupt


running: Running = Running()


def handle() -> None:
    """Install the handlers, except for signals that the process was started to ignore (nohup)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has each
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: "FrameType | None") -> None:
    if running.inside:
        running.interrupt()
        return
    os._exit(running.code)
