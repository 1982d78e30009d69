"""Processes for the tests: they race for a ledger, or fork a child for each task and are killed.

A script that is run as such a process takes its role as first argument: ``race PLACE`` or ``fork``.
"""

import atexit
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from subprocess import CompletedProcess

from sev_attest.errors import SevAttestError
from sev_attest.owner.ledger import Ledger


@contextmanager
def racers(script: str, place: object, count: int) -> Iterator[Callable[[str], list[str]]]:
    """Start processes that race for the ledger at a place.

    The function that it yields sends a line to all of them, and returns how each attempt went:
    "won", or a check id.
    """
    command = [sys.executable, script, "race", str(place)]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        for _ in range(count)
    ]

    def answer(worker: subprocess.Popen[str]) -> str:
        assert worker.stdout is not None
        return worker.stdout.readline().strip()

    def race(line: str) -> list[str]:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{line}\n")
            worker.stdin.flush()
        return [answer(worker) for worker in workers]

    try:
        assert [answer(worker) for worker in workers] == ["ready"] * count
        yield race
    finally:
        for worker in workers:
            worker.communicate()


def _environment() -> dict[str, str]:
    """Return the environment for a process that imports what the tests do."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def race_for_each(attempt: Callable[[Ledger, str], object], place: str) -> None:
    """Be such a process: try each line of standard input, and print how it went."""
    with Ledger.open(place, create=False, timeout=60) as ledger:
        say("ready")
        for line in sys.stdin:
            try:
                attempt(ledger, line.strip())
            except SevAttestError as error:
                say(error.check)
            else:
                say("won")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@cache
def _parent(script: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, script, "fork"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    atexit.register(process.communicate)
    return process


def run_forked(script: str, *arguments: object) -> CompletedProcess[str]:
    """Have the parent of a script, which is started once, run a task in a child of its own."""
    parent = _parent(script)
    assert parent.stdin is not None
    assert parent.stdout is not None
    task = [os.getcwd(), *map(str, arguments)]  # noqa: PTH109
    parent.stdin.write(json.dumps(task) + "\n")
    parent.stdin.flush()
    code, out = json.loads(parent.stdout.readline())
    return CompletedProcess(task, code, out, "")


def fork_for_each(work: Callable[..., None]) -> None:
    """Be that parent: for each line of standard input, tell a child's exit code and output."""
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _work(work, writing, *json.loads(line))
        os.close(writing)
        with os.fdopen(reading) as file:
            out = file.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), out]), flush=True)  # noqa: T201


def _work(work: Callable[..., None], writing: int, folder: str, *arguments: str) -> None:
    code = 1
    try:
        os.dup2(writing, sys.stdout.fileno())
        os.chdir(folder)
        work(*arguments)
        sys.stdout.flush()
        code = 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run here
        traceback.print_exc()
    finally:
        os._exit(code)
