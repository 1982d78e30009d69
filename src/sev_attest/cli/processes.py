"""One piece of work for many items, on all cores."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from sev_attest.cli.interrupts import running

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16
"""Items that go through a process together: fewer than that are not worth a process."""


def in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in order; up to 16 are worked on in this process.

    Processes and not threads: what Python does between two calls of OpenSSL is not shared. Each
    takes every n-th chunk, and waits when what it found is not read, so memory is bounded. ``work``
    raises nothing, and what it returns can be pickled. Raises EOFError if a process is killed.
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
        with running.held():  # a child has the parent's handlers until it lets go of them
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
        for number in range(len(chunks)):
            yield from pipes[number % count].recv()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def serve(
    work: Callable[[Item], Result],
    chunks: Sequence[Sequence[Item]],
    sender: "Connection",
    receiver: "Connection",
) -> None:
    """Work on chunks in a child, and send what was found in each."""
    running.let_go()
    receiver.close()  # once the parent is gone, sending must fail
    try:
        for chunk in chunks:
            sender.send([work(item) for item in chunk])
    except BrokenPipeError:
        return
