"""Limits on what a host may send, and on how long it may take."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from sev_attest.errors import MalformedInput
from sev_attest.host.connection import HostError

Value = TypeVar("Value")

UNREADABLE = "an answer that cannot be read"
"""The reason if a library fails on an answer, which is not quoted: nobody knows its size."""
MAX_ANSWER = 1 << 16
"""Characters of an answer about a launch or a platform."""
_MAX_EXCERPT = 500


def within_limit(answer: str, what: str) -> str:
    """Return an answer unchanged. Raises MalformedInput if it exceeds :data:`MAX_ANSWER`."""
    if len(answer) > MAX_ANSWER:
        raise MalformedInput(what, "length", f"more than {MAX_ANSWER} characters")
    return answer


def excerpt(message: str) -> str:
    """Return the first 500 characters of a host's error message, which may be of any length."""
    return message[:_MAX_EXCERPT]


def no_answer(what: str, seconds: float) -> HostError:
    """Return the error for a call that took too long."""
    return HostError(f"{what}: no answer in {seconds:g} seconds", check="host.timeout")


def call_within(seconds: float, what: str, call: Callable[[], Value]) -> Value:
    """Return what ``call`` returns, and raise what it raises.

    Raises HostError if it takes longer than ``seconds``. The call then goes on in its thread: a
    library's blocking call cannot be ended from outside.
    """
    done: queue.SimpleQueue[tuple[Value | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            done.put((None, error))

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as failure:
        # A signal while start() waits for its thread: its lock then hides the KeyboardInterrupt.
        hidden = failure.__context__
        if isinstance(hidden, KeyboardInterrupt):
            raise hidden from None
        raise
    try:
        value, error = done.get(timeout=seconds)
    except queue.Empty:
        raise no_answer(what, seconds) from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # without an error it is the call's
