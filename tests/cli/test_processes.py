"""Work for many items: in order, on all cores, and nothing of it outlives the command."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from schemas import misfits
from sev_attest.cli import many_chains, processes
from sev_attest.cli.interrupts import Running, running
from sev_attest.cli.many_chains import ChainResult
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.processes import in_order, serve
from sev_attest.sev.chain.roots import Root
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


def leave(number: int) -> int:
    if number == 40:
        sys.exit(3)
    return number


def broken(number: int) -> int:
    if number == 40:
        raise ValueError
    return number


def large(_number: int) -> str:
    """Return more than a pipe holds."""
    return "x" * (1 << 20)


def lost(number: object, what: str) -> Any:
    return f"{number}: {what}"


def killed(*numbers: int) -> list[object]:
    return [f"{number}: a worker process was killed (signal 9)" for number in numbers]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("count", [0, 1, 16, 17, 33, 200])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert list(in_order(double, range(count), lost)) == [2 * number for number in range(count)]


def test_few_items_need_no_process_and_more_are_shared_by_all_cores() -> None:
    assert set(in_order(who, range(16), lost)) == {os.getpid()}
    several = set(in_order(who, range(64), lost))
    assert len(several) == 2
    assert os.getpid() not in several


def test_whoever_stops_reading_ends_the_processes() -> None:
    found = in_order(double, range(10_000), lost)
    assert list(islice(found, 3)) == [0, 2, 4]
    found.close()  # type: ignore[attr-defined] # a generator; the fixture looks for its children


def test_what_a_killed_process_has_not_sent_is_lost_and_nothing_else() -> None:
    found = list(in_order(die, range(100), lost))
    # The first process has every second chunk of 16; of the one that it dies in, nothing is taken.
    gone = [*range(32, 48), *range(64, 80), *range(96, 100)]
    assert [one for one in found if isinstance(one, str)] == killed(*gone)
    assert [one for one in found if isinstance(one, int)] == [*{*range(100)} - {*gone}]
    assert found[32:48] == killed(*range(32, 48))


def test_a_chunk_that_was_sent_in_part_is_lost() -> None:
    found = in_order(large, range(32), lost)
    assert next(found) == large(0)
    inside = found.gi_frame.f_locals  # type: ignore[attr-defined] # a generator
    assert inside["pipes"][1].poll(60)  # the second process waits for a reader of the rest
    inside["processes"][1].kill()
    assert list(found)[15:] == killed(*range(16, 32))


@pytest.mark.parametrize("work", [leave, broken], ids=["exit", "error"])
def test_a_process_that_ends_early_says_nothing_and_loses_its_chunk(
    work: Callable[[int], object], capfd: pytest.CaptureFixture[str]
) -> None:
    found = list(in_order(work, range(48), lost))
    code = 3 if work is leave else 1
    assert found[:32] == [*range(32)]
    assert found[32] == f"32: a worker process ended early (exit code {code})"
    assert len(found) == 48
    assert capfd.readouterr() == ("", "")


def test_a_process_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_process: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", start)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(OSError, match="no more processes") as raised:
        list(in_order(double, range(64), lost))
    assert raised.value.filename == "a worker process"


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
    with pytest.raises(SystemExit) as ended:
        serve(double, [[1], [2]], sender, receiver)
    assert ended.value.code == 1


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


judge = many_chains._judge


def fatal(certificates: ChainOptions, roots: list[Root], source: str) -> ChainResult:
    """Judge a chain; die with the 21st, of which the second process has the chunk."""
    if source.endswith("/20.chain"):
        os.kill(os.getpid(), signal.SIGKILL)
    return judge(certificates, roots, source)


@pytest.fixture
def _fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_chains, "_judge", fatal)


WHAT = "a worker process was killed (signal 9)"
AGAIN = "hint: verify those again; if memory ran out, fewer at a time\n"


@pytest.mark.usefixtures("_fatal")
def test_a_chain_whose_process_is_killed_is_not_judged(run: Run, many: list[str]) -> None:
    ran = run("verify", "--each", *many)
    assert ran.code == 6
    assert ran.err == f"error: 16 of 40 chains were not judged: {WHAT}\n{AGAIN}"
    assert len(ran.lines) == 40
    for number, line in enumerate(ran.lines):
        if 16 <= number < 32:
            assert line == f"NOT JUDGED: {many[4 + number]}: {WHAT}"
        else:
            assert line.startswith(f"OK: {many[4 + number]}: ")


@pytest.mark.usefixtures("_fatal")
def test_a_refused_chain_decides_before_one_that_is_not_judged(run: Run, many: list[str]) -> None:
    other = Platform(b"other").export()  # of another authority
    Path(many[7]).write_bytes(other.to_bytes())
    ran = run("verify", "--each", "--quiet", *many)
    assert (ran.code, ran.out) == (1, "")
    told = "1 of 40 chains are not verified: do not trust these platforms"
    said = f"error: {told}; 16 of 40 chains were not judged: {WHAT}\n{AGAIN}"
    assert ran.err.startswith(said)
    notes = [line.split(": ")[1] for line in ran.err.removeprefix(said).splitlines()]
    assert notes == ["NOT VERIFIED", *["NOT JUDGED"] * 16]


@pytest.mark.usefixtures("_fatal")
def test_the_json_says_what_is_not_judged(run: Run, many: list[str]) -> None:
    ran = run("verify", "--each", "--json", *many)
    document = json.loads(ran.out)
    assert (ran.code, ran.err, document["exit"], misfits(document)) == (6, "", 6, [])
    assert [error["check"] for error in document["errors"]] == ["process.ended"]
    not_ok = [(chain["input"], chain["errors"]) for chain in document["chains"] if not chain["ok"]]
    error = {"check": "process.ended", "message": WHAT, "hint": "verify it again"}
    assert not_ok == [(name, [error]) for name in many[20:36]]
    assert len(document["chains"]) == 40


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
