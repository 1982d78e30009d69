"""One piece of work for many items, on all cores."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from sev_attest.cli.interrupts import running
from sev_attest.errors import reading

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16
"""Items that go through a process together: fewer than that are not worth a process."""


def in_order(
    work: Callable[[Item], Result], items: Sequence[Item], lost: Callable[[Item, str], Result]
) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in order; up to 16 are worked on in this process.

    Processes and not threads: what Python does between two calls of OpenSSL is not shared. Each
    takes every n-th chunk, and waits when what it found is not read, so memory is bounded. ``work``
    raises nothing, and what it returns can be pickled.

    A process may be killed. For each item of a chunk that it has not sent, ``lost(item, what)`` is
    yielded instead; ``what`` says what happened. Raises OSError if a process cannot be started.
    """
    chunks = [items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK)]
    count = min(os.cpu_count() or 1, len(chunks))
    if count <= 1:
        yield from map(work, items)
        return
    from multiprocessing import get_context

    # Forking is not safe beside the system's own threads on macOS.
    context = get_context("fork") if sys.platform == "linux" else get_context("spawn")
    processes = []
    try:
        pipes = []
        # A child has the parent's handlers until it lets go of them.
        with running.held(), reading("a worker process"):
            for first in range(count):
                receiver, sender = context.Pipe(duplex=False)
                part = chunks[first::count]
                process = context.Process(
                    target=serve, args=(work, part, sender, receiver), daemon=True
                )
                process.start()
                sender.close()  # or a process that was killed would be waited for
                processes.append(process)
                pipes.append(receiver)
        for number, chunk in enumerate(chunks):
            try:
                found = pipes[number % count].recv()
            except (EOFError, OSError):  # OSError: in the middle of a chunk
                what = _end_of(processes[number % count])
                found = [lost(item, what) for item in chunk]
            yield from found
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _end_of(process: "BaseProcess") -> str:
    process.join()
    code = process.exitcode or 0
    how = f"was killed (signal {-code})" if code < 0 else f"ended early (exit code {code})"
    return f"a worker process {how}"


def serve(
    work: Callable[[Item], Result],
    chunks: Sequence[Sequence[Item]],
    sender: "Connection",
    receiver: "Connection",
) -> None:
    """Work on chunks in a child, and send what was found in each.

    Raises SystemExit if it cannot send: the parent is gone, or it reports that the child ended.
    """
    running.let_go()
    receiver.close()  # once the parent is gone, sending must fail
    with suppress(Exception):  # multiprocessing would print a traceback
        for chunk in chunks:
            sender.send([work(item) for item in chunk])
        return
    sys.exit(1)
