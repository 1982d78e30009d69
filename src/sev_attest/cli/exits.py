"""The exit code and the messages of every exception: the one place where they are decided."""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.interrupts import INTERRUPTED, running
from sev_attest.cli.usage import UsageErrors
from sev_attest.errors import (
    ChecksFailed,
    Failure,
    MalformedInput,
    RequirementsNotMet,
    SevAttestError,
)

USAGE = 2
INPUT_ERROR = 6
INTERNAL = 70

_GROUPS = ("certs", "domain", "evidence", "guest", "host", "ledger", "report", "requirements",
           "secret", "simulate", "snp", "vmsa")  # fmt: skip
_SUBGROUP = ["snp", "id-block"]
_SHORT = {"--measurement": "-m"}


def run(group: click.Group, arguments: list[str]) -> int:
    """Run a command line, print its errors, and return the exit code."""
    code = 0
    try:
        with terminal.restored():
            code = running.code = _run(group, arguments)
        sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        if not code and not isinstance(error, BrokenPipeError):
            _complain(f"error: standard output: {error.strerror}")
        return code or INPUT_ERROR
    return code


def _run(group: click.Group, arguments: list[str]) -> int:
    try:
        # Not group.main(): it exits with 1 for a broken pipe, which here is "not verified".
        with running, group.make_context("sev-attest", list(arguments)) as context:
            group.invoke(context)
    except BrokenPipeError:
        return INPUT_ERROR  # the reader of our output has gone
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        for note in getattr(error, "__notes__", ()):
            _complain(f"interrupted: {render.one_line(note)}")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - no traceback ever reaches a user
        code, failures = explain(error, arguments)
        running.code = code
        facts = error.facts if isinstance(error, SevAttestError) else {}
        _report(arguments, code, failures, facts)
        if "--json" not in arguments:
            for note in getattr(error, "__notes__", ()):
                _complain(f"note: {render.one_line(note)}")
        return code
    return 0


def explain(error: Exception, arguments: Sequence[str] = ()) -> tuple[int, list[Failure]]:
    """Return the exit code for an error, and what failed; ``arguments`` are the command line."""
    from sev_attest.cli.hints import hint_for

    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "sev-attest"
        hint = f"`{command} --help` shows the options"
        return USAGE, [Failure("usage", error.format_message(), hint)]
    if isinstance(error, ChecksFailed | RequirementsNotMet | UsageErrors):
        return error.exit_code, [
            Failure(f.check, f.message, hint_for(f, arguments)) for f in error.failures
        ]
    if isinstance(error, SevAttestError):
        hint = hint_for(error, arguments) or _value_hint(error, arguments)
        return error.exit_code, [Failure(error.check, str(error), hint)]
    if isinstance(error, OSError):
        # errors.reading names every file that is read: an error without a name is of writing.
        where = error.filename or "standard output"
        words = error.strerror or error
        if isinstance(error, IsADirectoryError):
            words = "this is a folder, not a file"
        return INPUT_ERROR, [Failure("io", f"{where}: {words}")]
    # Only the type and the place: a message may quote input, and input may be a key.
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else "?"
    message = f"internal error ({type(error).__name__} in {place}): this is a bug"
    return INTERNAL, [Failure("internal", message, "please report it")]


def _value_hint(error: SevAttestError, arguments: Sequence[str]) -> str:
    """Return what to do if an option's value, which could not be read, is the name of a file."""
    option = error.source if isinstance(error, MalformedInput) else ""
    if not option.startswith("--"):
        return ""
    from sev_attest.cli.inputs import value_hint

    for at, argument in enumerate(arguments[1:], 1):
        before = arguments[at - 1]
        if argument.startswith(f"{option}="):
            return value_hint(argument.partition("=")[2])
        if before in (option, _SHORT.get(option)):
            return value_hint(argument)
    return ""


def _report(
    arguments: list[str], code: int, failures: list[Failure], facts: dict[str, object]
) -> None:
    if "--json" in arguments:
        render.any_document(
            _document(arguments), ok=False, exit=code, errors=render.errors(failures), **facts
        )
        return
    for number, failure in enumerate(failures, 1):
        _complain(f"error: {render.one_line(failure.message)}")
        if failure.hint and failure.hint not in (later.hint for later in failures[number:]):
            _complain(f"hint: {render.one_line(failure.hint)}")


def _document(arguments: list[str]) -> str:
    """Return the name of a command's document; "error" for a command line that names none."""
    from sev_attest.cli import schemas

    words = list(_command(arguments))
    name = ("-" if words[:1] == ["snp"] else " ").join(words)  # sev-attest/snp-show/1
    name = render.OTHER_NAMES.get(name, name)
    return name if name.replace(" ", "-") in schemas.names() else "error"


def _command(arguments: list[str]) -> Iterator[str]:
    """Yield the command of a command line and its subcommands ("vmsa", "show")."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words[:2] == _SUBGROUP:
        yield from words[:3]
    else:
        yield from words[: 2 if words[:1] and words[0] in _GROUPS else 1]


def _complain(line: str) -> None:
    try:
        terminal.say(line, err=True)
    except OSError:
        _discard(sys.stderr)  # nobody reads it; the exit code remains


def _discard(stream: TextIO) -> None:
    """Discard what a stream could not write; otherwise Python exits with 120 when it flushes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
