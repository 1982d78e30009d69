"""Work for many items: in order, on all cores, and nothing of it outlives the command."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from sev_attest.cli import processes
from sev_attest.cli.interrupts import Running, running
from sev_attest.cli.processes import in_order, serve
from sev_attest.testing import Authority, Platform

# Python 3.12 and later warn of a fork beside threads; those here are the test runner's.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def double(number: int) -> int:
    return 2 * number


def who(_number: int) -> int:
    return os.getpid()


def die(number: int) -> int:
    if number == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("count", [0, 1, 16, 17, 33, 200])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert list(in_order(double, range(count))) == [2 * number for number in range(count)]


def test_few_items_need_no_process_and_more_are_shared_by_all_cores() -> None:
    assert set(in_order(who, range(16))) == {os.getpid()}
    several = set(in_order(who, range(64)))
    assert len(several) == 2
    assert os.getpid() not in several


def test_whoever_stops_reading_ends_the_processes() -> None:
    found = in_order(double, range(10_000))
    assert list(islice(found, 3)) == [0, 2, 4]
    found.close()  # type: ignore[attr-defined] # a generator; the fixture looks for its children


def test_a_process_that_is_killed_is_an_error_and_no_missing_result() -> None:
    with pytest.raises(EOFError):
        list(in_order(die, range(64)))


def test_a_child_sends_each_chunk_and_lets_signals_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[bool] = []
    monkeypatch.setattr(running, "let_go", lambda: gone.append(True))
    receiver, sender = multiprocessing.Pipe(duplex=False)
    other, _ = multiprocessing.Pipe(duplex=False)
    serve(double, [[1, 2], [3]], sender, other)
    assert (receiver.recv(), receiver.recv(), gone, other.closed) == ([2, 4], [6], [True], True)


def test_a_child_whose_parent_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "let_go", lambda: None)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    serve(double, [[1], [2]], sender, receiver)


def test_whoever_lets_go_is_inside_no_command_any_more() -> None:
    child = Running()
    with child:
        child.let_go()
        assert not child.inside


def listen() -> None:
    """Take SIGINT, which a shell in the background has its commands ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_after_letting_go_a_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal\n"
        "from sev_attest.cli import interrupts\n"
        "interrupts.handle()\n"
        "with interrupts.running:\n"
        "    interrupts.running.let_go()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, preexec_fn=listen
    )
    assert (ran.returncode, ran.stderr) == (130, b"")


@pytest.fixture
def many(tmp_path: Path) -> list[str]:
    """Write 40 chains, the 21st broken, and the root."""
    authority = Authority(2048)
    (tmp_path / "root").write_bytes(authority.ark.to_bytes())
    chain = Platform(b"many", authority=authority).export().to_bytes()
    names = [str(tmp_path / f"{number}.chain") for number in range(40)]
    for name in names:
        Path(name).write_bytes(chain)
    Path(names[20]).write_bytes(b"hello?")
    (tmp_path / "ca").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    return ["--trust-root", str(tmp_path / "root"), "--ca", str(tmp_path / "ca"), *names]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sev_attest", "verify", "--each", *arguments]


def test_one_bad_input_of_many_costs_one_line_in_its_place(many: list[str]) -> None:
    ran = subprocess.run(command(*many), capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    assert (ran.returncode, len(lines)) == (6, 40)
    for number, line in enumerate(lines):
        assert line.startswith("NOT READ: " if number == 20 else "OK: ")
        assert f"{number}.chain: " in line
    assert ran.stderr == "error: chain: 1 of 40 could not be read\n"


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")
def test_an_interrupted_command_ends_without_a_word_and_leaves_no_process(many: list[str]) -> None:
    with subprocess.Popen(
        command(*many[:4], *many[4:5] * 5000),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=listen,  # noqa: PLW1509 - no threads here
    ) as ran:  # fmt: skip
        assert ran.stdout is not None
        ran.stdout.readline()  # it is at work
        os.killpg(ran.pid, signal.SIGINT)
        _, said = ran.communicate(timeout=60)
        assert ran.returncode == 130
        assert b"Traceback" not in said
    for _ in range(600):
        try:
            os.killpg(ran.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process of the command is left")


def test_the_chunk_is_no_larger_than_said() -> None:
    assert f"up to {processes._CHUNK} are" in str(in_order.__doc__)
