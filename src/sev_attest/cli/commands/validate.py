"""``sev-attest validate``: what virt-qemu-sev-validate does, option for option, and more."""

import binascii
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command, option, option_name
from sev_attest.cli.inputs import STDIN
from sev_attest.cli.options.common import ExplainOptions
from sev_attest.cli.options.guest import FILES, VCPU_STATE, GuestOptions, Measured, measure_guest
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.options.live import HostOptions, attach
from sev_attest.cli.options.owner import PACKET, OwnerOptions, Summary, finish_launch
from sev_attest.cli.options.reported import Reported, ReportedOptions, read_reported
from sev_attest.cli.options.search import SearchOptions, Stated
from sev_attest.cli.options.store import WaitingOptions
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import MeasurementMismatch, NotVerified, SevAttestError, Unsupported
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import CHECKS, VerifiedLaunch, verify_launch
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Requirements


class VerdictOptions(ExplainOptions, title="Output"):
    """What the command prints of its verdict."""

    debug: bool = option("-d", "--debug", is_flag=True, help="As --verbose. Keys are never shown.")

    @property
    def steps(self) -> bool:
        """Whether to print each check."""
        return self.verbose or self.debug


@click.command("validate", cls=Command)
@ReportedOptions.given("reported")
@HostOptions.given("host")
@GuestOptions.given("guest")
@KeyOptions.given("keys")
@OwnerOptions.given("owner")
@WaitingOptions.given("ledger")
@SearchOptions.given("search")
@VerdictOptions.given("output")
def command(
    *,
    reported: ReportedOptions,
    host: HostOptions,
    guest: GuestOptions,
    keys: KeyOptions,
    owner: OwnerOptions,
    ledger: WaitingOptions,
    search: SearchOptions,
    output: VerdictOptions,
) -> None:
    """Check the measurement of a launch against the guest that its owner meant to start.

    Needed are what the host reports (--measurement, --api-major, --api-minor, --build-id, --policy,
    or --launch-info with all of them) or a connection to the host (--connect, --domain); the guest
    (--firmware ...); and the session's keys, or a session that waits in --store. With a connection,
    the guest is sent its secrets and then runs.
    """
    _check_usage(reported, host, guest, keys, owner, ledger=ledger)
    pending = ledger.take()
    session = keys.read() if pending is None else pending.keys
    record = reported.read_record() if pending is None else pending.record
    secrets = owner.secrets()
    whole = owner.read_requirements()
    requirements = owner.narrowed(whole, described=guest.described)
    # Only the owner's options describe the guest: what a host adds to them comes later.
    allowed = None if guest.described else requirements
    kernel = bool(guest.stated("kernel", "kernel_hashes"))
    live = attach(host, kernel=kernel)
    claims = live.claims if live else None
    launch = read_reported(
        reported, session, claims, record=record, kernel=kernel, insecure=host.insecure
    )
    if reported.policy is None and launch.record is None:
        # The host must not choose that the vCPU state which its owner means is left out.
        refuse(guest.unmeasured(launch.policy, VCPU_STATE))
    if live is not None:
        guest = guest if allowed else live.complete(guest, launch.policy)
        launch.notes.extend(live.notes)
    if allowed is not None:
        measured = _find_allowed(launch, session, allowed)
    else:
        measured = measure_guest(guest, guest.num_cpus, launch.policy, progress=output.text)
    case = Case(reported=launch, measured=measured, output=output)
    verified = case.verify(session, Stated(reported, guest, keys, search))
    try:
        summary = finish_launch(
            verified,
            owner,
            record=launch.record,
            requirements=requirements,
            whole=whole,
            pending=pending,
            secrets=secrets,
            measured=measured,
            guest=live,
            ledger=ledger,
            insecure=host.insecure,
            verbose=output.steps,
        )
    except SevAttestError as error:
        case.unfinished(error)
        raise
    case.accepted(summary)


def _check_usage(
    reported: ReportedOptions,
    host: HostOptions,
    guest: GuestOptions,
    keys: KeyOptions,
    owner: OwnerOptions,
    *,
    ledger: WaitingOptions,
) -> None:
    """Raise the usage errors of virt-qemu-sev-validate, and those of our own options."""
    waiting = ledger.session is not None
    recorded = waiting or reported.record is not None
    excluded = [*reported.stated("launch_info"), *owner.stated(*PACKET)]
    refuse(
        host.errors(excluded),
        reported.errors(hosted=host.live, recorded=recorded),
        guest.errors(hosted=host.live) if guest.described or owner.requirements is None else (),
        () if waiting else keys.errors(),
        ledger.errors([*keys.stated("tik", "tek", "tk"), *reported.stated("record")]),
        owner.errors(record=recorded, waiting=waiting, hosted=host.live),
        _stdin_errors(reported, guest, keys, owner),
    )


def _stdin_errors(
    reported: ReportedOptions, guest: GuestOptions, keys: KeyOptions, owner: OwnerOptions
) -> Iterator[Unsupported]:
    """Yield an error if more than one option would read standard input."""
    found = [
        option_name(name)
        for bundle, names in (
            (reported, ("launch_info", "record")),
            (owner, ("requirements",)),
            (guest, FILES),
            (keys, ("tik", "tek", "tk")),
        )
        for name in names
        if getattr(bundle, name) == STDIN
    ]
    found += ["--inject-secret" for secret in owner.inject_secret if secret.endswith(":-")]
    if len(found) > 1:
        yield usage(f"only one of {', '.join(found)} can be standard input")


def _find_allowed(
    reported: Reported, keys: TransportKeys, requirements: "Requirements"
) -> Measured:
    """Return the allowed launch digest that the measurement fits; raises NotVerified for none."""
    from sev_attest.owner.key_release import verify_any

    info, digests = reported.info, requirements.digests
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

    def unfinished(self, error: SevAttestError) -> None:
        """Add to an error that the measurement was right, with facts and notes of the launch."""
        held = CHECKS.keys() - _unchecked(self.info, self.policy)
        self.notes.insert(0, "the measurement itself is right")
        error.facts = {**self._facts, "checks": render.checks(CHECKS, held), **error.facts}
        self._explain(held)
        for note in self.notes:
            error.add_note(note)

    def accepted(self, summary: Summary) -> None:
        """Print that the launch is verified, and how many secrets were released."""
        secrets = summary.secrets
        held = CHECKS.keys() - _unchecked(self.info, self.policy)
        self.notes.extend(summary.notes)
        met = summary.met
        if self.output.as_json:
            allowed = met and {"launch": met.name, "guest": met.guest}
            facts = self._facts | summary.facts | {"requirements": allowed}
            checks = render.checks(CHECKS, held)
            render.document("validate", ok=True, **facts, checks=checks, secrets=secrets)
        if self.output.text:
            click.echo("OK: Looks good to me")
            if secrets:
                click.echo(f"OK: Injected {secrets} secrets")
            if met is not None:
                name = f"{met.name} ({met.guest})" if met.guest else met.name
                click.echo(f"OK: the requirements allow it as launch {render.one_line(name)}")
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
        "measurement": binascii.b2a_base64(info.measurement, newline=False).decode(),
        "api": [info.api_major, info.api_minor],
        "build_id": info.build_id,
        "policy": reported.policy.value,
        "notes": notes,
    }


def _unchecked(info: LaunchInfo, policy: GuestPolicy) -> set[str]:
    """Return the checks that were not made: the host reported nothing, or nothing was demanded.

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
    return set(order[: order.index(error.check)]) - _unchecked(info, policy), {error.check}
