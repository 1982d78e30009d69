"""One attempt to launch a guest: the steps as they are taken, and what a refusal undoes."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.interrupts import running
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.store import StoreOptions
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.errors import SevAttestError
from sev_attest.host.launch import UNDO_SECONDS, OneLaunch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sev_attest.cli.documents.sev import Step
    from sev_attest.cli.options.live import Live
    from sev_attest.host import RunningGuest
    from sev_attest.owner.ledger import Ledger
    from sev_attest.owner.record import LaunchRecord

_AGAIN = "launch it again: each launch has a session of its own"

_LEFT = ("host.gone", "host.libvirt", "host.state", "host.timeout")
"""Checks whose hints say what to do with a guest that is there."""


class Steps:
    """The steps that were taken: a line of standard error for each, and a list for JSON."""

    def __init__(self, output: OutputOptions) -> None:
        """Start without steps."""
        self._output = output
        self.taken: list[Step] = []

    def took(self, step: str, words: str) -> None:
        """Note a step, in words; what nobody reads ends no launch."""
        self.taken.append({"step": step, "detail": words})
        self.say(step, words)

    def say(self, step: str, words: str) -> None:
        """Print what is done, if anything is printed."""
        if self._output.text:
            with suppress(OSError):
                click.echo(render.one_line(f"{step}: {words}"), err=True)


class Attempt:
    """A launch from its session in the ledger to the guest that runs.

    Inside ``with attempt:``, any exception is a refusal: the guest is destroyed, or left paused if
    that was asked for, and the session has ended in the ledger. What is told of that is added to
    the exception. A signal that comes while the host is asked to change something waits until it
    has answered. Once the guest runs, an exception is no refusal: it is only told that it runs.

    One signal raises, later ones are ignored. ``with attempt, attempt:`` undoes a launch even if
    that signal comes between an error and the first line that handles it.
    """

    def __init__(
        self,
        launch: OneLaunch,
        record: "LaunchRecord",
        ledger: StoreOptions,
        steps: Steps,
        *,
        leave: bool,
    ) -> None:
        """Take the domain to launch and the session; ``leave`` leaves a guest that is refused."""
        self._launch = launch
        self._record = record
        self._ledger = ledger
        self.steps: Steps = steps
        self._leave = leave
        self._created = False
        self._ended = False
        self.live: Live | None = None
        """The guest, once it was started and is fit to be attested."""

    def __enter__(self) -> Self:
        running.once()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or self._ended:
            return
        with running.held(drop=True):
            running.spend()
            if self.live is not None and self.live.runs:
                self._tell(error, "running", f"the guest runs, and {self._secret()}")
            else:
                self._refuse(error)
            self._ended = True

    def _refuse(self, error: BaseException) -> None:
        """Undo the launch because of an exception, and add to it what is left."""
        self.steps.say("undo", f"the host has {UNDO_SECONDS} seconds to remove what was started")
        remains = self._launch.undo(leave=self._leave)
        session = self._end_session(error)
        if isinstance(error, SevAttestError) and error.check in _LEFT and remains.over:
            error.hint = _AGAIN
        self._tell(error, remains.guest, f"{remains.words}; {self._secret()}; {session}")

    def create(self, create: "Callable[[Ledger], object]", out: str | None, *, force: bool) -> None:
        """Create the session in the ledger; then write its record, if a file takes it."""
        files = [] if out is None else [(Path(out), self._record.to_bytes())]
        check_writable([path for path, _ in files], force=force)
        opened = self._ledger.open()
        if opened is not None:
            with opened:
                self._created = True
                create(opened)
        write_all(files, force=force)

    def start(self) -> "RunningGuest":
        """Define the domain and start its guest, paused."""
        with running.held():
            self._launch.define()
        self.steps.took("define", "the host has the domain, with the session in it")
        with running.held():
            guest = self._launch.start()
        self.steps.took("start", "the guest is on the host, no vCPU runs")
        return guest

    def close(self, reason: str) -> None:
        """End a session in which nothing was released, and nothing will be."""
        opened = self._ledger.open(create=False)
        if opened is not None:
            with opened:
                opened.close(self._record.session_id, reason)

    def _end_session(self, error: BaseException) -> str:
        """Mark a session that released nothing as failed; return what the ledger has, in words."""
        from sev_attest.owner.ledger.story import OPEN

        try:
            opened = self._ledger.open(create=False) if self._created else None
            if opened is None:
                return "no ledger has this session"
            with opened:
                entry = opened.get(self._record.session_id)
                if entry is not None and entry.state in OPEN:
                    entry = opened.fail(self._record.session_id, _reason(error))
        except SevAttestError as failure:
            return f"the ledger does not know that this launch was refused: {failure}"
        return "no ledger has this session" if entry is None else f"its session is {entry.state}"

    def _tell(self, error: BaseException, guest: str, words: str) -> None:
        """Add to an exception what is left of the launch; print it for one that may not show it."""
        if isinstance(error, SevAttestError):
            facts = {"guest": guest, "remains": words, "steps": self.steps.taken}
            error.facts = facts | error.facts
            error.add_note(words)
            return
        with suppress(OSError):
            terminal.say(f"note: {render.one_line(words)}", err=True)

    def _secret(self) -> str:
        """Return whether the guest has its secret, in words."""
        live = self.live
        if live is None or not live.sending:
            return "no secret was sent"
        if live.refused:
            return "the host says that the guest took no secret"
        if live.injected:
            return "has its secret" if live.runs else "it had its secret"
        return "it may have its secret"


def _reason(error: BaseException) -> str:
    """Return why a launch failed, for the ledger: an id, never a text that others chose."""
    if isinstance(error, SevAttestError) and error.check:
        return f"refused: {error.check}"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "an error ended the launch"
