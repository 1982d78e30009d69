"""The verdict on a launch: its verification, and the output of ``validate`` and ``launch``."""

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

import click

from sev_attest._encoding import to_base64
from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import option
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.options.common import ExplainOptions
from sev_attest.cli.options.guest import Measured
from sev_attest.cli.options.owner import Summary
from sev_attest.cli.options.reported import Reported
from sev_attest.cli.options.search import Stated
from sev_attest.errors import MeasurementMismatch, NotVerified, SevAttestError
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import CHECKS, VerifiedLaunch, verify_launch
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy


class VerdictOptions(ExplainOptions, title="Output"):
    """What the command prints of its verdict."""

    debug: bool = option("-d", "--debug", is_flag=True, help="As --verbose. Keys are never shown.")

    @property
    def steps(self) -> bool:
        """Whether to print each check."""
        return self.verbose or self.debug


def find_allowed(reported: Reported, keys: TransportKeys, digests: Collection[bytes]) -> Measured:
    """Return the allowed launch digest that the measurement fits; raises NotVerified for none."""
    from sev_attest.owner.key_release import verify_any

    info = reported.info
    try:
        found = verify_any(info, keys=keys, policy=reported.policy, digests=digests)
    except NotVerified as error:
        if isinstance(error, MeasurementMismatch):
            error.hint = (
                f"it is none of the {len(digests)} launch digests that the requirements allow: "
                "name the guest (--firmware ...) to learn what differs"
            )
        held, failed = _outcome(error, info, reported.policy)
        checks = render.checks(CHECKS, held, failed)
        error.facts = {**_facts(reported, reported.notes), "digest": None, "checks": checks}
        for note in reported.notes:
            error.add_note(note)
        raise
    return Measured(found.digest)


class Case:
    """A launch to be verified, and the output of its verdict."""

    def __init__(self, reported: Reported, measured: Measured, output: VerdictOptions) -> None:
        """Take the launch, and what the command may print of it."""
        self.reported: Reported = reported
        self.info: LaunchInfo = reported.info
        self.policy: GuestPolicy = reported.policy
        self.measured: Measured = measured
        self.output: VerdictOptions = output
        self.notes: list[str] = [
            *reported.notes,
            *measured.notes,
            *render.policy_notes(reported.policy),
        ]

    def verify(self, keys: TransportKeys, stated: Stated) -> VerifiedLaunch:
        """Verify the launch; raises NotVerified, after a mismatch with its likely cause."""
        try:
            return verify_launch(
                self.info, keys=keys, policy=self.policy, digest=self.measured.digest
            )
        except NotVerified as error:
            held, failed = _outcome(error, self.info, self.policy)
            error.facts = {**self._facts, "checks": render.checks(CHECKS, held, failed)}
            if self.output.text:
                error.hint = (
                    "--explain shows what went into it, to compare with what the host started"
                )
            self._explain(held, failed)
            search = stated.search
            mismatch = isinstance(error, MeasurementMismatch)
            if mismatch and not (search.no_diagnose or self.output.quiet):
                self._diagnose(error, keys, stated)
            for note in self.notes:
                error.add_note(note)
            raise

    def _diagnose(self, error: NotVerified, keys: TransportKeys, stated: Stated) -> None:
        """Add to a mismatch what would fit."""
        from sev_attest.cli.advice import Told, add_cause

        def search() -> Told:
            from sev_attest.cli.diagnosis import diagnose

            return diagnose(
                self.info,
                self.policy,
                keys=keys,
                measured=self.measured,
                stated=stated,
                progress=self.output.text,
            )

        add_cause(error, self.notes, search)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Add to an error that the measurement was right, with facts and notes of the launch."""
        try:
            yield
        except SevAttestError as error:
            self._unfinished(error)
            raise

    def _unfinished(self, error: SevAttestError) -> None:
        held = CHECKS.keys() - unchecked(self.info, self.policy)
        self.notes.insert(0, "the measurement itself is right")
        error.facts = {**self._facts, "checks": render.checks(CHECKS, held), **error.facts}
        self._explain(held)
        for note in self.notes:
            error.add_note(note)

    def accepted(self, summary: Summary, kept: Kept, **more: object) -> None:
        """Print that the launch is verified, and how many secrets were released.

        ``more`` are fields of the JSON document of the command. Its evidence is written before.
        """
        secrets = summary.secrets
        held = CHECKS.keys() - unchecked(self.info, self.policy)
        self.notes.extend(summary.notes)
        met = summary.met
        allowed = met and {"launch": met.name, "guest": met.guest}
        facts = self._facts | summary.facts | {"requirements": allowed}
        facts |= {"checks": render.checks(CHECKS, held), "secrets": secrets}
        kept.accepted(more | facts, self.notes)
        if self.output.as_json:
            render.any_document(kept.command, ok=True, **more, **facts)
        if self.output.text:
            terminal.say("OK: Looks good to me")
            if secrets:
                terminal.say(f"OK: Injected {secrets} secrets")
            if met is not None:
                name = f"{met.name} ({met.guest})" if met.guest else met.name
                terminal.say(f"OK: the requirements allow it as launch {render.one_line(name)}")
            render.notes(self.notes)
        self._explain(held)

    @property
    def _facts(self) -> dict[str, object]:
        return _facts(self.reported, self.notes) | self.measured.facts

    def _explain(self, held: set[str], failed: AbstractSet[str] = frozenset()) -> None:
        """Print what went into the measurement, but never the one that was expected."""
        if not self.output.text:
            return
        if self.output.steps or self.output.explain:
            lines = (*self.measured.lines(), *render.hmac_lines(self.info, self.policy))
            for line in lines:
                click.echo(line)
        if self.output.steps:
            render.steps(CHECKS, held, failed)


def _facts(reported: Reported, notes: list[str]) -> dict[str, object]:
    """Return what the host reports, for a JSON document."""
    info = reported.info
    return {
        "measurement": to_base64(info.measurement),
        "api": [info.api_major, info.api_minor],
        "build_id": info.build_id,
        "policy": reported.policy.value,
        "notes": notes,
    }


def unchecked(info: LaunchInfo, policy: GuestPolicy) -> set[str]:
    """Return the checks that nobody made: the host reported nothing, or nothing was demanded.

    A minimum that --requirements demands is another check; the document has it in "requirements".
    """
    found = {"launch.build"}
    if info.policy is None:
        found.add("launch.policy")
    if policy.min_api == (0, 0):
        found.add("launch.api")
    return found


def _outcome(
    error: NotVerified, info: LaunchInfo, policy: GuestPolicy
) -> tuple[set[str], set[str]]:
    """Return the checks that held, and the one that failed and ended them."""
    order = list(CHECKS)
    return set(order[: order.index(error.check)]) - unchecked(info, policy), {error.check}
