"""What a host reports of a launch, as ``validate`` is told, and the record it is held to."""

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from sev_attest.cli.inputs import BYTE, FILE, POLICY, option_name, options, read_small
from sev_attest.cli.options import live
from sev_attest.errors import Unsupported, reading
from sev_attest.owner.unverified import unverified
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import require_policy
from sev_attest.sev.launch_info import (
    REPORTED,
    Claims,
    LaunchInfo,
    from_claims,
    read_measurement,
    read_report,
)
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.owner.record import LaunchRecord

reported_options = options(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What the host reports, the policy that the launch is held to, and its record if given."""

    info: LaunchInfo
    policy: GuestPolicy
    record: "LaunchRecord | None"
    notes: list[str]


def read_reported(given: dict[str, Any], keys: TransportKeys, claims: Claims) -> Reported:
    """Put together what the host reports, and the policy that the launch is held to.

    ``claims`` are what a host that is connected to says.
    """
    claims = _claims(given, claims)
    if given["record"] is None:
        policy, notes = _policy(given, claims)
        if given["policy"] not in (None, claims.policy):
            claims = replace(claims, policy=None)  # the option wins
        return Reported(info=from_claims(claims), policy=policy, record=None, notes=notes)
    from sev_attest.owner.record import LaunchRecord

    with reading(given["record"]):
        record = LaunchRecord.from_bytes(read_small(given["record"], "launch record"))
    policy = GuestPolicy(record.policy)
    _check_record(given, record, keys)
    notes = []
    if record.root is None:
        notes.append(f"INSECURE: {unverified('record')}")
    elif record.generation is None:
        notes.append(f"this session's platform has a root that is {record.root}")
    kernel = given["kernel"] or given["kernel_hashes"]
    if kernel and not record.kernel_hashes:
        notes.append("the record knows of no kernelHashes='yes': without it no kernel is measured")
    info = from_claims(claims)
    # Before the digest: a host that claims another policy may call for other options.
    require_policy(info, policy)
    return Reported(info=info, policy=policy, record=record, notes=notes)


def _policy(given: dict[str, Any], claims: Claims) -> tuple[GuestPolicy, list[str]]:
    """Choose the policy without a record: the option's, or as a last resort the host's."""
    claimed = GuestPolicy(claims.policy or 0)
    if given["policy"] is None:
        held = "--record or --policy holds it to yours"
        return claimed, [f"policy {claimed} is what the host reports; {held}"]
    notes = []
    if claims.policy not in (None, given["policy"]):
        notes.append(f"the host reports policy {claimed}, not yours")
    return GuestPolicy(given["policy"]), notes


def _claims(given: dict[str, Any], claims: Claims) -> Claims:
    """Read what the host reports; options win over it (the policy's: see read_reported)."""
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
    source = "the host" if live.is_live(given) else given["launch_info"]
    if missing and source is not None:
        raise Unsupported(
            f"{source} does not say all: {', '.join(missing)} needed beside it",
            check="usage",
            hint="libvirt before 8.0 reports the measurement alone",
        )
    if missing:
        raise Unsupported(f"{missing[0]} (or --launch-info) is needed", check="usage")
    return claims


def _check_record(given: dict[str, Any], record: "LaunchRecord", keys: TransportKeys) -> None:
    """Hold keys and options to the record of the launch."""
    if given["policy"] is not None and given["policy"] != record.policy:
        raise Unsupported(
            f"--policy contradicts --record, which says {GuestPolicy(record.policy)}",
            check="usage",
        )
    record.require(keys)
    if record.root is None and not given["insecure"]:
        raise unverified("record")
