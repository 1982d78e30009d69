"""A process that has imported everything, and forks a child for each task: children are killed."""

import atexit
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import cache
from subprocess import CompletedProcess


@cache
def _parent(script: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, script, "fork"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
