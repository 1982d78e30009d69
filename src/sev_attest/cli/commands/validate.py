"""``sev-attest validate``: what virt-qemu-sev-validate does, option for option, and more."""

import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from sev_attest.cli import render
from sev_attest.cli.inputs import FOLDER, STDIN, option_name, options, output_options
from sev_attest.cli.options import live
from sev_attest.cli.options.guest import (
    FILES,
    VCPU_STATE,
    VCPUS,
    Measured,
    check_guest,
    describes_guest,
    guest_options,
    measure_guest,
    refuse_unmeasured,
)
from sev_attest.cli.options.keys import KEYS, check_keys, key_options, read_keys, read_secrets
from sev_attest.cli.options.owner import (
    PACKET,
    Settled,
    owner_options,
    read_requirements,
    settle_launch,
)
from sev_attest.cli.options.reported import Reported, read_reported, reported_options
from sev_attest.errors import MeasurementMismatch, NotVerified, SevAttestError, Unsupported
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import CHECKS, verify_launch
from sev_attest.sev.launch_info import Claims, LaunchInfo
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Requirements

_diagnosis_options = options(
    click.option(
        "--no-diagnose", is_flag=True, help="After a mismatch, do not look for what would fit."
    ),
    click.option(
        "--diagnose-budget",
        type=click.FloatRange(min=0, max=86400),
        default=5,
        metavar="SECONDS",
        help="Look no longer than this (default: 5).",
    ),
    click.option("--keys", type=FOLDER, metavar="DIR", help="Look for the right keys in here too."),
    click.option(
        "--firmware-dir",
        type=FOLDER,
        metavar="DIR",
        help="Look for the right firmware in here too.",
    ),
)


@click.command("validate")
@reported_options
@guest_options(VCPUS)
@key_options
@owner_options
@live.domain_options
@_diagnosis_options
@click.option("--explain", is_flag=True, help="List every measured range and HMAC field.")
@click.option("-d", "--debug", is_flag=True, help="As --verbose. Keys are never shown.")
@output_options
def command(**given: Any) -> None:
    """Check the measurement of a launch against what its owner meant to start.

    Give what the host reports (--measurement, --api-major, --api-minor, --build-id, --policy, or
    all of them as --launch-info), or where to ask for it (--connect, --domain); the guest
    (--firmware ...); and the session's keys. A guest that is connected to gets its secrets, and
    then runs.
    """
    _check_usage(given)
    keys = read_keys(given)
    secrets = read_secrets(given["inject_secret"])
    requirements = read_requirements(given)
    # Only what the owner says describes the guest: what a host adds to it comes later.
    alone = requirements is not None and not describes_guest(given)
    guest = live.attach(given)
    reported = read_reported(given, keys, guest.claims if guest else Claims())
    if given["policy"] is None and reported.record is None:
        # The host must not choose that the vCPU state which its owner means is left out.
        refuse_unmeasured(given, reported.policy, VCPU_STATE)
    if guest is not None:
        told = guest.notes if alone else guest.complete(given, reported.policy)
        reported.notes.extend(told)
    text = not (given["as_json"] or given["quiet"])
    if requirements is not None and alone:
        measured = _allowed(reported, keys, requirements)
    else:
        measured = measure_guest(given, reported.policy, progress=text)
    notes = reported.notes + measured.notes + render.policy_notes(reported.policy)
    case = Case(given=given, text=text, reported=reported, measured=measured, notes=notes)
    try:
        launch = verify_launch(
            reported.info, keys=keys, policy=reported.policy, digest=measured.digest
        )
    except NotVerified as error:
        case.refused(error, keys)
        raise
    try:
        settled = settle_launch(
            launch,
            record=reported.record,
            requirements=requirements,
            secrets=secrets,
            measured=measured,
            given=given,
            guest=guest,
        )
    except SevAttestError as error:
        case.unsettled(error)
        raise
    case.accepted(len(secrets), settled)


def _allowed(reported: Reported, keys: TransportKeys, requirements: "Requirements") -> Measured:
    """Find the one that fits among the launch digests that are allowed; raises NotVerified."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A launch that is judged, and the telling of the verdict."""

    given: dict[str, Any]
    text: bool
    reported: Reported
    measured: Measured
    notes: list[str]

    @property
    def info(self) -> LaunchInfo:
        """What the host reports."""
        return self.reported.info

    @property
    def policy(self) -> GuestPolicy:
        """What the launch is held to."""
        return self.reported.policy

    def accepted(self, secrets: int, settled: Settled) -> None:
        """Print that all is well."""
        held = CHECKS.keys() - _unchecked(self.info, self.policy)
        self.notes.extend(settled.notes)
        if self.given["as_json"]:
            met = settled.met and {"launch": settled.met.name, "guest": settled.met.guest}
            facts = self._facts | settled.facts | {"requirements": met}
            checks = render.checks(CHECKS, held, set())
            render.document("validate", ok=True, **facts, checks=checks, secrets=secrets)
        if self.text:
            click.echo("OK: Looks good to me")
            if secrets:
                click.echo(f"OK: Injected {secrets} secrets")
            if settled.met is not None:
                guest = f" ({settled.met.guest})" if settled.met.guest else ""
                allowed = render.one_line(f"{settled.met.name}{guest}")
                click.echo(f"OK: the requirements allow it as launch {allowed}")
            render.notes(self.notes)
        self._explain(held, set())

    def refused(self, error: NotVerified, keys: TransportKeys) -> None:
        """Put into the error what there is to tell of it."""
        held, failed = _outcome(error, self.info, self.policy)
        error.facts = {**self._facts, "checks": render.checks(CHECKS, held, failed)}
        if self.text:
            error.hint = "--explain shows what went into it, to compare with what the host started"
        self._explain(held, failed)
        if isinstance(error, MeasurementMismatch):
            self._diagnose(error, keys)
        for note in self.notes:
            error.add_note(note)

    def unsettled(self, error: SevAttestError) -> None:
        """Add to the error that the measurement was right, and what goes with it."""
        held = CHECKS.keys() - _unchecked(self.info, self.policy)
        self.notes.insert(0, "the measurement itself is right")
        error.facts = {**self._facts, "checks": render.checks(CHECKS, held, set()), **error.facts}
        self._explain(held, set())
        for note in self.notes:
            error.add_note(note)

    def _diagnose(self, error: MeasurementMismatch, keys: TransportKeys) -> None:
        if self.given["no_diagnose"] or self.given["quiet"]:
            return
        try:
            from sev_attest.cli.diagnosis import diagnose

            diagnose(error, self, keys)
        except KeyboardInterrupt:
            self.notes.append("the search was interrupted")
        except Exception as trouble:  # noqa: BLE001 - the verdict stands, whatever comes of this
            error.add_note(f"the search for what fits failed ({type(trouble).__name__}): a bug")

    @property
    def _facts(self) -> dict[str, object]:
        return _facts(self.reported, self.notes) | self.measured.facts

    def _explain(self, held: set[str], failed: set[str]) -> None:
        """Show what went into the measurement, but never the one that was expected."""
        steps = self.given["verbose"] or self.given["debug"]
        if self.text and (steps or self.given["explain"]):
            lines = (*self.measured.lines(), *render.hmac_lines(self.info, self.policy))
            for line in lines:
                click.echo(line)
        if self.text and steps:
            render.steps(CHECKS, held, failed)


def _facts(reported: Reported, notes: list[str]) -> dict[str, object]:
    """Say what the host reports, for a JSON document."""
    info = reported.info
    return {
        "measurement": binascii.b2a_base64(info.measurement, newline=False).decode(),
        "api": [info.api_major, info.api_minor],
        "build_id": info.build_id,
        "policy": reported.policy.value,
        "notes": notes,
    }


def _unchecked(info: LaunchInfo, policy: GuestPolicy) -> set[str]:
    """Return the checks that were not made: nothing was reported, or nothing demanded.

    A minimum of the owner's (--requirements) is a check of its own; see its "requirements".
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
    """Return which checks held and which failed: the steps end at the first that fails."""
    order = list(CHECKS)
    return set(order[: order.index(error.check)]) - _unchecked(info, policy), {error.check}


def _check_usage(given: dict[str, Any]) -> None:
    """Refuse what virt-qemu-sev-validate refuses, and contradictions among what it lacks."""
    check_keys(given)
    live.check_usage(given)
    connected = live.is_live(given)
    files = [option_name(name) for name in PACKET if given[name] is not None]
    if given["inject_secret"] and not connected and len(files) < len(PACKET):
        raise Unsupported(
            "--inject-secret needs --secret-header and --secret-payload", check="usage"
        )
    if len(files) == 1:
        raise Unsupported("--secret-header and --secret-payload go together", check="usage")
    if files and not given["inject_secret"]:
        raise Unsupported(f"{files[0]} needs --inject-secret", check="usage")
    if describes_guest(given) or given["requirements"] is None:
        check_guest(given, hosted=connected)
    stdin = [
        n for n in ("launch_info", "record", "requirements", *FILES, *KEYS) if given[n] == STDIN
    ]
    stdin += ["inject_secret" for secret in given["inject_secret"] if secret.endswith(":-")]
    if len(stdin) > 1:
        names = ", ".join(map(option_name, stdin))
        raise Unsupported(f"only one of {names} can be standard input", check="usage")
