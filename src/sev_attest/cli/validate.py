"""``sev-attest validate``: what virt-qemu-sev-validate does offline, option for option."""

import base64
import hmac
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from sev_attest.cli import render
from sev_attest.cli.guest import (
    FILES,
    VCPUS,
    Measured,
    check_guest,
    guest_options,
    measure_guest,
)
from sev_attest.cli.inputs import (
    BYTE,
    FILE,
    FOLDER,
    OUTPUT,
    POLICY,
    STDIN,
    option_name,
    options,
    output_options,
    read_small,
)
from sev_attest.cli.keys import KEYS, check_keys, key_options, read_keys, read_secrets
from sev_attest.cli.outputs import write_all
from sev_attest.errors import (
    Insecure,
    LaunchRefused,
    MeasurementMismatch,
    NotVerified,
    Unsupported,
    reading,
)
from sev_attest.keys import TransportKeys
from sev_attest.launch import CHECKS, VerifiedLaunch, require_policy, verify_launch
from sev_attest.launch_info import (
    REPORTED,
    Claims,
    LaunchInfo,
    from_claims,
    read_measurement,
    read_report,
)
from sev_attest.owner.record import LaunchRecord
from sev_attest.policy import GuestPolicy

_reported_options = options(
    click.option("-m", "--measurement", metavar="B64", help="Measurement that the host reports."),
    click.option("--api-major", type=BYTE, help="SEV API major version."),
    click.option("--api-minor", type=BYTE, help="SEV API minor version."),
    click.option("--build-id", type=BYTE, help="SEV firmware build."),
    click.option("--policy", type=POLICY, help="Guest policy."),
    click.option(
        "--launch-info",
        type=FILE,
        metavar="FILE",
        help="Take these from what `virsh domlaunchsecinfo` printed; options beside it win.",
    ),
    click.option(
        "--record",
        type=FILE,
        metavar="FILE",
        help="Hold the launch to the policy of NAME.launch.json.",
    ),
)
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
_LATER = ("connect", "domain")
_later_options = options(
    click.option("-c", "--connect", metavar="URI", help="Not supported yet."),
    click.option("-o", "--domain", metavar="ID|NAME|UUID", help="Not supported yet."),
    click.option("-i", "--insecure", is_flag=True, help="Go on with an unverified platform."),
    click.option("-g", "--ignore-config", is_flag=True, help="Has no effect without --domain."),
)
_secret_options = options(
    click.option(
        "-s",
        "--inject-secret",
        metavar="ALIAS-OR-GUID:PATH",
        multiple=True,
        help="Build the packet that carries this secret (alias: luks-key); can be repeated.",
    ),
    click.option(
        "--secret-header",
        type=OUTPUT,
        metavar="FILE",
        help="Write the packet's header here, base64.",
    ),
    click.option(
        "--secret-payload", type=OUTPUT, metavar="FILE", help="Write its payload here, base64."
    ),
    click.option("--force", is_flag=True, help="Write over files that exist."),
)
_PACKET = ("secret_header", "secret_payload")


@click.command("validate")
@_reported_options
@guest_options(VCPUS)
@key_options
@_secret_options
@_later_options
@_diagnosis_options
@click.option("--explain", is_flag=True, help="List every measured range and HMAC field.")
@click.option("-d", "--debug", is_flag=True, help="As --verbose. Keys are never shown.")
@output_options
def command(**given: Any) -> None:
    """Check the measurement of a launch against what its owner meant to start.

    Give what the host reports (--measurement, --api-major, --api-minor, --build-id, --policy, or
    all of them as --launch-info), the guest (--firmware ...), and the session's keys.
    """
    _check_usage(given)
    keys = read_keys(given)
    secrets = read_secrets(given["inject_secret"])
    info, policy, notes = _reported(given, keys)
    text = not (given["as_json"] or given["quiet"])
    measured = measure_guest(given, policy, progress=text)
    notes += measured.notes + render.policy_notes(policy)
    case = Case(given=given, text=text, info=info, policy=policy, measured=measured, notes=notes)
    try:
        launch = verify_launch(info, keys=keys, policy=policy, digest=measured.digest)
    except NotVerified as error:
        case.refused(error, keys)
        raise
    if secrets:
        notes += _write_secrets(launch, secrets, measured, given)
    case.accepted(len(secrets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A launch that is judged, and the telling of the verdict."""

    given: dict[str, Any]
    text: bool
    info: LaunchInfo
    policy: GuestPolicy
    measured: Measured
    notes: list[str]

    def accepted(self, secrets: int) -> None:
        """Print that all is well."""
        held = CHECKS.keys() - self._unchecked
        if self.given["as_json"]:
            checks = render.checks(CHECKS, held, set())
            render.document("validate", ok=True, **self._facts, checks=checks, secrets=secrets)
        if self.text:
            click.echo("OK: Looks good to me")
            if secrets:
                click.echo(f"OK: Injected {secrets} secrets")
            render.notes(self.notes)
        self._explain(held, set())

    def refused(self, error: NotVerified, keys: TransportKeys) -> None:
        """Put into the error what there is to tell of it."""
        held, failed = _outcome(error)
        held -= self._unchecked
        error.facts = {**self._facts, "checks": render.checks(CHECKS, held, failed)}
        if self.text:
            error.hint = "--explain shows what went into it, to compare with what the host started"
        self._explain(held, failed)
        if isinstance(error, MeasurementMismatch):
            self._diagnose(error, keys)
        for note in self.notes:
            error.add_note(note)

    def _diagnose(self, error: MeasurementMismatch, keys: TransportKeys) -> None:
        if self.given["no_diagnose"] or self.given["quiet"]:
            return
        from sev_attest.cli.diagnosis import diagnose

        try:
            diagnose(error, self, keys)
        except Exception as trouble:  # noqa: BLE001 - the verdict stands, whatever comes of this
            error.add_note(f"the search for what fits failed ({type(trouble).__name__}): a bug")

    @property
    def _unchecked(self) -> set[str]:
        return set() if self.info.policy is not None else {"launch.policy"}

    @property
    def _facts(self) -> dict[str, object]:
        return {
            "measurement": base64.b64encode(self.info.measurement).decode(),
            "api": [self.info.api_major, self.info.api_minor],
            "build_id": self.info.build_id,
            "policy": self.policy.value,
            "notes": self.notes,
            **self.measured.facts,
        }

    def _explain(self, held: set[str], failed: set[str]) -> None:
        """Show what went into the measurement, but never the one that was expected."""
        steps = self.given["verbose"] or self.given["debug"]
        if self.text and (steps or self.given["explain"]):
            lines = (*self.measured.lines(), *render.hmac_lines(self.info, self.policy))
            for line in lines:
                click.echo(line)
        if self.text and steps:
            render.steps(CHECKS, held, failed)


def _outcome(error: NotVerified) -> tuple[set[str], set[str]]:
    """Tell which checks held and which failed: the steps end at the first that fails."""
    order = list(CHECKS)
    return set(order[: order.index(error.check)]), {error.check}


def _check_usage(given: dict[str, Any]) -> None:
    """Refuse what virt-qemu-sev-validate refuses, and contradictions among what it lacks."""
    for name in _LATER:
        if given[name]:
            raise Unsupported(f"{option_name(name)} is not supported yet", check="usage.later")
    check_keys(given)
    files = [option_name(name) for name in _PACKET if given[name] is not None]
    if given["inject_secret"] and len(files) < len(_PACKET):
        raise Unsupported(
            "--inject-secret needs --secret-header and --secret-payload", check="usage"
        )
    if len(files) == 1:
        raise Unsupported("--secret-header and --secret-payload go together", check="usage")
    check_guest(given)
    stdin = [n for n in ("launch_info", "record", *FILES, *KEYS) if given[n] == STDIN]
    stdin += ["inject_secret" for secret in given["inject_secret"] if secret.endswith(":-")]
    if len(stdin) > 1:
        names = ", ".join(map(option_name, stdin))
        raise Unsupported(f"only one of {names} can be standard input", check="usage")


def _reported(
    given: dict[str, Any], keys: TransportKeys
) -> tuple[LaunchInfo, GuestPolicy, list[str]]:
    """Put together what the host reports, and the policy that the launch is held to."""
    claims = _claims(given)
    if given["record"] is None:
        policy, notes = _policy(given, claims)
        if given["policy"] not in (None, claims.policy):
            claims = replace(claims, policy=None)  # the option wins
        return from_claims(claims), policy, notes
    with reading(given["record"]):
        record = LaunchRecord.from_bytes(read_small(given["record"], "launch record"))
    policy = GuestPolicy(record.policy)
    _check_record(given, record, keys)
    notes = []
    if record.root is None:
        notes.append("INSECURE: nobody verified the platform that this session was made for")
    elif record.generation is None:
        notes.append(f"this session's platform has a root that is {record.root}")
    kernel = given["kernel"] or given["kernel_hashes"]
    if kernel and not record.kernel_hashes:
        notes.append("the record knows of no kernelHashes='yes': without it no kernel is measured")
    info = from_claims(claims)
    # Before the digest: a host that claims another policy may call for other options.
    require_policy(info, policy)
    return info, policy, notes


def _policy(given: dict[str, Any], claims: Claims) -> tuple[GuestPolicy, list[str]]:
    """Choose the policy without a record: the option's, or as a last resort the host's."""
    claimed = GuestPolicy(claims.policy or 0)
    notes = []
    if given["inject_secret"]:
        notes.append("without --record, nothing tells whether the platform was verified")
    if given["policy"] is None:
        held = "--record or --policy holds it to yours"
        return claimed, [f"policy {claimed} is what the host reports; {held}", *notes]
    if claims.policy not in (None, given["policy"]):
        notes.append(f"the host reports policy {claimed}, not yours")
    return GuestPolicy(given["policy"]), notes


def _claims(given: dict[str, Any]) -> Claims:
    """Read what the host reports; options win over the file (the policy's: see _reported)."""
    claims = Claims()
    if given["launch_info"] is not None:
        with reading(given["launch_info"]):
            claims = read_report(read_small(given["launch_info"], "launch info"))
    if given["measurement"] is not None:
        with reading("--measurement"):
            measurement = read_measurement(os.fsencode(given["measurement"]))
            claims = replace(claims, measurement=measurement)
    numbers = ("api_major", "api_minor", "build_id")
    claims = replace(claims, **{n: given[n] for n in numbers if given[n] is not None})
    missing = [option_name(n) for n in REPORTED if getattr(claims, n) is None]
    if claims.policy is None and given["policy"] is None and given["record"] is None:
        missing.append("--policy")
    if missing and given["launch_info"] is not None:
        raise Unsupported(
            f"{given['launch_info']} does not say all: {', '.join(missing)} needed beside it",
            check="usage",
            hint="libvirt before 8.0 reports the measurement alone",
        )
    if missing:
        raise Unsupported(f"{missing[0]} (or --launch-info) is needed", check="usage")
    return claims


def _check_record(given: dict[str, Any], record: LaunchRecord, keys: TransportKeys) -> None:
    """Hold keys and options to the record of the launch."""
    if given["policy"] is not None and given["policy"] != record.policy:
        raise Unsupported(
            f"--policy contradicts --record, which says {GuestPolicy(record.policy)}",
            check="usage",
        )
    if not hmac.compare_digest(record.session_id, keys.session_id):
        raise LaunchRefused(
            "the keys are not those of the session in --record", check="record.session"
        )
    if record.root is None and not given["insecure"]:
        raise Insecure(
            "nobody verified the platform that this session was made for",
            check="record.unverified",
            hint="make a session for a verified chain; for tests, --insecure goes on",
        )


def _write_secrets(
    launch: VerifiedLaunch, secrets: dict[str, bytes], measured: Measured, given: dict[str, Any]
) -> list[str]:
    """Wrap the secrets for this launch, and write what the host passes on; give notes."""
    from sev_attest.secret import binds, build_secret

    area = measured.guest and measured.guest.firmware.secret_area()
    room = area[1] if area and all(area) else None
    packet = build_secret(launch, secrets, room=room, insecure=given["insecure"])
    notes = []
    if not binds(launch):
        notes.append("INSECURE: this firmware binds the secret to no launch; another could get it")
    if measured.guest and room is None:
        notes.append("the firmware image declares no area for secrets: give the host an address")
    files = [
        (Path(given["secret_header"]), base64.b64encode(packet.header)),
        (Path(given["secret_payload"]), base64.b64encode(packet.payload)),
    ]
    write_all(files, force=given["force"])
    return notes
