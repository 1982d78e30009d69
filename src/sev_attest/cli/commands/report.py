"""``sev-attest report verify``."""

import os
from typing import Any

import click

from sev_attest._encoding import blob, json_documents, looks_like_json
from sev_attest._snp import refuse_snp
from sev_attest.cli import render
from sev_attest.cli.inputs import (
    FILE,
    POLICY,
    chain_options,
    collect,
    one_stdin,
    output_options,
    read_small,
    trusted_roots,
)
from sev_attest.cli.options.guest import (
    VCPUS,
    check_guest,
    describes_guest,
    guest_options,
    measure_guest,
)
from sev_attest.errors import LaunchRefused, MalformedInput, Unsupported, reading
from sev_attest.sev.chain.verify import verify_chain
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.report import CHECKS, SIZE, AttestationReport, verify_report


@click.group("report", no_args_is_help=False)
def command() -> None:
    """Attestation reports: what a running guest was launched as, signed by its platform."""


@command.command("verify")
@click.argument("report", type=FILE)
@click.argument("chain", nargs=-1, type=FILE, metavar="CHAIN...")
@click.option("--nonce", metavar="B64", required=True, help="The nonce that was asked with.")
@click.option("--policy", type=POLICY, help="Guest policy that was meant.")
@guest_options(VCPUS)
@chain_options
@output_options
def verify(
    *, report: str, chain: tuple[str, ...], nonce: str, as_json: bool, quiet: bool, verbose: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Verify REPORT (binary, base64, or QMP's JSON) against the platform of CHAIN.

    The guest is described as for `validate`, or by --launch-digest; without either, the digest is
    shown, and nothing compares it.
    """
    one_stdin((report, *chain))
    if describes_guest(given):
        check_guest(given)
        if given["policy"] is None and given["launch_digest"] is None:
            raise Unsupported(
                "--policy is needed beside the guest: the host must not choose what is measured",
                check="usage",
            )
    text = not (as_json or quiet)
    with reading(report):
        parsed = AttestationReport.from_bytes(_read(report))
    with reading("--nonce"):
        asked = blob(os.fsencode(nonce), (16,), "nonce", only_text=True)
    platform = verify_chain(collect(chain, given).chain(), roots=trusted_roots(given))
    policy = None if given["policy"] is None else GuestPolicy(given["policy"])
    digest, notes = None, render.platform_notes(platform)
    if describes_guest(given):
        measured = measure_guest(given, policy or parsed.policy, progress=text)
        digest = measured.digest
        notes += measured.notes
    else:
        notes.append("the launch digest was compared with none: give the guest, or --launch-digest")
    if policy is None:
        notes.append("the policy was compared with none: give --policy")
    unchecked = {c for c, v in (("report.digest", digest), ("report.policy", policy)) if v is None}
    facts = {"digest": parsed.digest.hex(), "policy": parsed.policy.value, "notes": notes}
    order = list(CHECKS)
    try:
        verify_report(parsed, platform, nonce=asked, digest=digest, policy=policy)
    except LaunchRefused as error:
        held = set(order[: order.index(error.check)]) - unchecked
        error.facts = {**facts, "checks": render.checks(CHECKS, held, {error.check})}
        if text and verbose:
            render.steps(CHECKS, held, {error.check})
        raise
    held = CHECKS.keys() - unchecked
    if as_json:
        checks = render.checks(CHECKS, held, set())
        render.document("report verify", ok=True, checks=checks, **facts)
    elif text:
        click.echo("OK: the platform signed this report")
        click.echo(f"launch digest: {parsed.digest.hex()}")
        click.echo(f"policy: {parsed.policy}")
        if verbose:
            render.steps(CHECKS, held, set())
        render.notes(notes + render.policy_notes(parsed.policy))


def _read(path: str) -> bytes:
    data = read_small(path, "attestation report")
    refuse_snp(data, "attestation report")
    if len(data) != SIZE and looks_like_json(data):
        for document in json_documents(data, "attestation report"):
            value = document.get("data")
            if isinstance(value, str):
                return blob(value.encode("utf-8", "surrogatepass"), (SIZE,), "attestation report")
        raise MalformedInput("attestation report", "format", 'the JSON has no "data" text')
    return blob(data, (SIZE,), "attestation report")
