"""``sev-attest validate``: what virt-qemu-sev-validate does offline, option for option."""

import base64
from dataclasses import replace
from typing import Any

import click

from sev_attest._encoding import blob
from sev_attest.cli import render
from sev_attest.cli.guest import FILES, Measured, check_guest, guest_options, measure_guest
from sev_attest.cli.inputs import (
    BYTE,
    POLICY,
    STDIN,
    option_name,
    options,
    output_options,
    read_small,
)
from sev_attest.errors import NotVerified, Unsupported, reading
from sev_attest.keys import TransportKeys
from sev_attest.launch import CHECKS, verify_launch
from sev_attest.launch_info import Claims, LaunchInfo, from_claims, read_measurement, read_report
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
        metavar="FILE",
        help="Take these from what `virsh domlaunchsecinfo` printed; options beside it win.",
    ),
    click.option(
        "--record", metavar="FILE", help="Hold the launch to the policy of NAME.launch.json."
    ),
)
_key_options = options(
    click.option("--tik", metavar="FILE", help="TIK of the session."),
    click.option("--tek", metavar="FILE", help="TEK of the session."),
    click.option("--tk", metavar="FILE", help="TEK and TIK in one file, in this order."),
)
_LATER = ("connect", "domain", "inject_secret", "secret_header", "secret_payload")
_later_options = options(
    click.option("-c", "--connect", metavar="URI", help="Not supported yet."),
    click.option("-o", "--domain", metavar="ID|NAME|UUID", help="Not supported yet."),
    click.option("-i", "--insecure", is_flag=True, help="Has no effect without --domain."),
    click.option("-g", "--ignore-config", is_flag=True, help="Has no effect without --domain."),
    click.option("-s", "--inject-secret", metavar="ALIAS-OR-GUID:PATH", multiple=True,
                 default=None, help="Not supported yet."),
    click.option("--secret-header", metavar="FILE", help="Not supported yet."),
    click.option("--secret-payload", metavar="FILE", help="Not supported yet."),
)  # fmt: skip
_KEYS = ("tik", "tek", "tk")
_NUMBERS = ("api_major", "api_minor", "build_id", "policy")


@click.command("validate")
@_reported_options
@guest_options
@_key_options
@_later_options
@click.option("-d", "--debug", is_flag=True, help="As --verbose. Keys are never shown.")
@output_options
def command(*, as_json: bool, quiet: bool, verbose: bool, debug: bool, **given: Any) -> None:
    """Check the measurement of a launch against what its owner meant to start.

    Give what the host reports (--measurement, --api-major, --api-minor, --build-id, --policy, or
    all of them as --launch-info), the guest (--firmware ...), and the session's keys.
    """
    _check_usage(given)
    keys = _keys(given)
    info, policy, notes = _reported(given)
    measured = measure_guest(given, policy)
    notes += measured.notes + render.policy_notes(policy)
    facts = {
        "measurement": base64.b64encode(info.measurement).decode(),
        "digest": measured.digest.hex(),
        "policy": policy.value,
        "measured": measured.parts,
        "notes": notes,
    }
    explain = (verbose or debug) and not (as_json or quiet)
    try:
        verify_launch(info, keys=keys, policy=policy, digest=measured.digest)
    except NotVerified as error:
        # The steps end at the first that fails: of those behind it, nothing is known.
        done = list(CHECKS)[: list(CHECKS).index(error.check) + 1]
        error.facts = {**facts, "checks": render.checks(done, {error.check})}
        if explain:
            _explain(info, policy, measured)
            render.steps({check: CHECKS[check] for check in done}, {error.check})
        raise
    if as_json:
        render.document("validate", ok=True, checks=render.checks(CHECKS, set()), **facts)
    elif not quiet:
        click.echo("OK: Looks good to me")
        render.notes(notes)
        if explain:
            _explain(info, policy, measured)
            render.steps(CHECKS, set())


def _check_usage(given: dict[str, Any]) -> None:
    """Refuse what virt-qemu-sev-validate refuses, and contradictions among what it lacks."""
    for name in _LATER:
        if given[name]:
            raise Unsupported(f"{option_name(name)} is not supported yet", check="usage.later")
    if given["tk"] is not None and (given["tik"] is not None or given["tek"] is not None):
        raise Unsupported("--tk excludes --tik and --tek", check="usage")
    if given["tk"] is None and (given["tik"] is None or given["tek"] is None):
        raise Unsupported("the session's keys are needed: --tik and --tek, or --tk", check="usage")
    check_guest(given)
    stdin = [n for n in ("launch_info", "record", *FILES, *_KEYS) if given[n] == STDIN]
    if len(stdin) > 1:
        names = ", ".join(map(option_name, stdin))
        raise Unsupported(f"only one of {names} can be standard input", check="usage")


def _keys(given: dict[str, Any]) -> TransportKeys:
    if given["tk"] is not None:
        with reading(given["tk"]):
            return TransportKeys.from_tk(read_small(given["tk"], "TK"))
    return TransportKeys(tek=_key(given["tek"], "TEK"), tik=_key(given["tik"], "TIK"))


def _key(path: str, name: str) -> bytes:
    with reading(path):
        return blob(read_small(path, name), (16,), name)


def _reported(given: dict[str, Any]) -> tuple[LaunchInfo, GuestPolicy, list[str]]:
    """Put together what the host reports, and the policy that the launch is held to."""
    claims = Claims()
    if given["launch_info"] is not None:
        with reading(given["launch_info"]):
            claims = read_report(read_small(given["launch_info"], "launch info"))
    if given["measurement"] is not None:
        with reading("--measurement"):
            claims = replace(claims, measurement=read_measurement(given["measurement"].encode()))
    claims = replace(claims, **{n: given[n] for n in _NUMBERS if given[n] is not None})
    needed = ("measurement", *(n for n in _NUMBERS if n != "policy" or given["record"] is None))
    missing = [option_name(name) for name in needed if getattr(claims, name) is None]
    if missing:
        raise Unsupported(f"{missing[0]} (or --launch-info) is needed", check="usage")
    info = from_claims(claims)
    if given["record"] is not None:
        with reading(given["record"]):
            record = LaunchRecord.from_bytes(read_small(given["record"], "launch record"))
        return info, GuestPolicy(record.policy), []
    policy = GuestPolicy(claims.policy or 0)
    if given["policy"] is not None:
        return info, policy, []
    claimed = f"policy {policy} is what the host reports; --record or --policy holds it to yours"
    return info, policy, [claimed]


def _explain(info: LaunchInfo, policy: GuestPolicy, measured: Measured) -> None:
    """Show what went into the measurement, but never the one that was expected."""
    rows = {part: f"sha256 {digest}" for part, digest in measured.parts.items()}
    rows |= {
        "launch digest": measured.digest.hex(),
        "API, build": f"{info.api_major}.{info.api_minor}, {info.build_id}",
        "policy": str(policy),
        "nonce": info.nonce.hex(),
    }
    for what, value in rows.items():
        click.echo(f"{what:<24}{value}")
