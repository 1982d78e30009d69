"""Colour, and lines that end between words: on terminals alone."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run
from sev_attest.cli import exits, render, terminal
from sev_attest.cli.main import cli
from sev_attest.testing import Platform
from terminals import shown_on

COLOR = re.compile(r"\x1b\[[0-9;]*m")
TOOL = [sys.executable, "-m", "sev_attest"]


@pytest.fixture
def chain(milan: Platform, here: Path) -> str:
    """Lay out the chain of a platform that is not AMD's."""
    (here / "host.chain").write_bytes(milan.export().to_bytes())
    return "host.chain"


def on_terminal(*arguments: str, columns: int = 80, **variables: str) -> tuple[int, str]:
    """Run a command line on a terminal, as a process of its own; return its code and output."""
    leader, follower = pty.openpty()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")
    } | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": str(columns)}
    with subprocess.Popen(
        [*TOOL, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment | {"PYTHONIOENCODING": "utf-8"} | variables,
    ) as process:
        os.close(follower)
        shown = shown_on(leader).decode()
    return process.returncode, shown.replace("\r\n", "\n")


def test_a_terminal_shows_verdicts_and_marks_in_colour(chain: str) -> None:
    code, shown = on_terminal("verify", chain, "--verbose")
    assert code == 1
    assert "\x1b[31m\x1b[1mNOT VERIFIED:\x1b[0m do not trust" in shown
    assert "\x1b[31m\x1b[1merror:\x1b[0m " in shown
    assert "\x1b[32m⬑\x1b[0m" in shown
    assert "\x1b[31m•̷\x1b[0m" in shown or "\x1b[31m⬑̸\x1b[0m" in shown
    assert "\x1b[32mok   \x1b[0m" in shown
    assert "\x1b[31mFAIL \x1b[0m" in shown


@pytest.mark.parametrize(
    "variables",
    [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"SEV_ATTEST_COLOR": "never"}, {}],
    ids=str,
)
def test_colour_is_never_the_only_carrier(chain: str, variables: dict[str, str]) -> None:
    code, colored = on_terminal("verify", chain, columns=1000)
    options = () if variables else ("--color", "never")
    plain_code, plain = on_terminal("verify", chain, *options, columns=1000, **variables)
    assert code == plain_code == 1
    assert COLOR.search(colored)
    assert "\x1b" not in plain
    assert COLOR.sub("", colored) == plain


def test_a_pipe_gets_what_it_always_got(run: Run, chain: str) -> None:
    ran = run("verify", chain)
    assert "\x1b" not in ran.out + ran.err
    asked = run("verify", chain, "--color", "always")
    assert COLOR.sub("", asked.out) == ran.out
    assert COLOR.sub("", asked.err) == ran.err
    assert COLOR.search(asked.out)
    assert COLOR.search(asked.err)


def test_the_option_wins_over_the_variable_wherever_it_stands(
    run: Run, chain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEV_ATTEST_COLOR", "always")
    monkeypatch.setenv("NO_COLOR", "1")
    assert COLOR.search(run("verify", chain).out)
    for arguments in (["--color=never", "verify", chain], ["verify", chain, "--color=never"]):
        assert not COLOR.search(run(*arguments).out)
    assert COLOR.search(run("verify", chain).out)  # the choice of the line before is over


def test_a_mode_that_there_is_not_is_named(
    run: Run, chain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEV_ATTEST_COLOR", "blue")
    ran = run("policy", "5")
    assert ran.code == 2
    assert "'blue' is not one of" in ran.err


def test_json_has_no_colour(run: Run, chain: str) -> None:
    assert "\x1b" not in run("verify", chain, "--json", "--color", "always").out


class Terminal(io.StringIO):
    """A stream that calls itself a terminal, and knows no size."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


def test_a_note_breaks_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    note = "ruled out: another number of vCPUs; " + "another version of the firmware; " * 8
    render.notes([note])
    lines = stream.getvalue().splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80
    assert " ".join(stream.getvalue().split()) == f"note: {note}".strip()
    assert all(line.startswith("  ") for line in lines[1:])


def test_a_command_to_be_copied_stays_in_one_piece() -> None:
    command = "sev-attest validate --launch-info vm1.info --tik vm1_tik.bin"
    shown = terminal.wrapped(f"note: if you meant that: {command}", 40)
    assert shown == f"note: if you meant that:\n  {command}"
    shown = terminal.wrapped("hint: `sev-attest ledger list --verbose` shows ids", 30)
    assert shown == "hint:\n  `sev-attest ledger list --verbose`\n  shows ids"


def test_the_width_is_the_terminal_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "123")
    assert terminal.width_of(Terminal()) == 123
    monkeypatch.setenv("COLUMNS", "7")
    assert terminal.width_of(Terminal()) == 80
    monkeypatch.delenv("COLUMNS")
    assert terminal.width_of(Terminal()) == 80
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((99, 30)))
    monkeypatch.setattr(Terminal, "fileno", lambda _: 2)
    assert terminal.width_of(Terminal()) == 99


def test_an_error_on_a_narrow_terminal_breaks_no_word(chain: str) -> None:
    shown = on_terminal("verify", "--trust-root", "nothing-there", chain, columns=40)[1]
    wide = on_terminal("verify", "--trust-root", "nothing-there", chain, columns=500)[1]
    assert shown.split() == wide.split()
    assert exits.run(cli, ["--version"]) == 0
