"""Runs a command that holds keys or secrets: ``COMMAND [ARG...] VERB NAME``.

The data goes to its standard input, the answer comes from its standard output. There is no shell.
"""

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from sev_attest.errors import Unsupported
from sev_attest.owner._answers import quoted
from sev_attest.owner._safe_path import UnsafePlace, check_program
from sev_attest.owner.key_errors import KeyAccessError

SECONDS = 30.0
"""Time that a command may take."""
MAX_INPUT = 4096
"""Bytes of standard input: what a pipe takes at once, so that writing never waits."""
_CHUNK = 1 << 16
_MAX_STDERR = 1000


def parse_command(text: str) -> tuple[str, ...]:
    """Return a command and its arguments, as a shell would split them. Raises Unsupported."""
    try:
        argv = shlex.split(text)
    except ValueError as error:  # a quote that is not closed
        raise Unsupported(f"command:PATH [ARG...]: {error}", check="usage") from None
    # Not searched for in PATH: it gets keys.
    if not argv or not argv[0].startswith("/") or "\0" in text:
        raise Unsupported("command:PATH [ARG...] needs an absolute path", check="usage")
    return tuple(argv)


def ask_command(argv: Sequence[str], given: bytes, *, most: int, check: str) -> bytes:
    """Return what a command writes to standard output, at most ``most`` bytes.

    ``given``, at most 4096 bytes, is its standard input. It may take 30 seconds.

    Raises KeyAccessError, with the check id ``check``, if others could change or replace it, or if
    it cannot be run, takes longer, writes more or fails. The message quotes the first line of its
    standard error.
    """
    hint = "run the command by hand"
    try:
        check_program(argv[0])
        answer, reason = _run(argv, given, most)
    except UnsafePlace as error:
        reason, hint = error.reason, error.hint
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise KeyAccessError(f"{argv[0]} {argv[-2]}: {reason}", check=check, hint=hint)
    return answer


def _run(argv: Sequence[str], given: bytes, most: int) -> tuple[bytes, str]:
    """Return the answer, and what went wrong."""
    end = time.monotonic() + SECONDS
    pipe = subprocess.PIPE
    # A session of its own, so that what it starts is killed with it.
    process = subprocess.Popen(  # noqa: S603 - the owner's own command
        argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    with process.stdin, process.stdout, process.stderr:  # type: ignore[union-attr] # pipes
        try:
            with suppress(BrokenPipeError):  # it needs no input, or has ended
                process.stdin.write(given)  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
            answer, complaint = _read(process, most, end)
            if len(answer) > most:
                return b"", f"it answered with more than {most} bytes"
            code = process.wait(max(end - time.monotonic(), 0))
        except (TimeoutError, subprocess.TimeoutExpired):
            return b"", f"no answer in {SECONDS:g} seconds"
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # not waited for: its id is still its own
                process.wait()
    said = quoted(complaint.decode(errors="replace"))
    return answer, f"exit status {code}{said and ': ' + said}" if code else ""


def _read(process: "subprocess.Popen[bytes]", most: int, end: float) -> tuple[bytes, bytes]:
    """Return standard output, up to the chunk that exceeds ``most``, and the start of the error.

    Raises TimeoutError at ``end``, a time of the monotonic clock.
    """
    answer, complaint = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, kept in ((process.stdout, answer), (process.stderr, complaint)):
            selector.register(stream, selectors.EVENT_READ, kept)  # type: ignore[arg-type] # pipes
        while selector.get_map() and len(answer) <= most:
            left = end - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
                del complaint[_MAX_STDERR:]
    return bytes(answer), bytes(complaint)
