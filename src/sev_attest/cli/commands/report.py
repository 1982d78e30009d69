"""``sev-attest report verify``."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sev_attest._encoding import blob, json_documents, looks_like_json
from sev_attest._snp import refuse_snp
from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.inputs import FILE, POLICY, read_small
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.guest import GuestOptions, measure_guest
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import LaunchRefused, MalformedInput, Unsupported, reading
from sev_attest.sev.chain.verify import verify_chain
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.report import CHECKS, REPORT_SIZE, AttestationReport, verify_report

if TYPE_CHECKING:
    from sev_attest.cli.documents.sev import ReportedFacts


@click.group(
    "report",
    cls=Group,
    examples=(("sev-attest report verify vm1.report host.chain --nonce AAAAAAAAAAAAAAAAAAAAAA=="),),
)
def command() -> None:
    """Verify reports of SEV and SEV-ES guests: digest and policy, signed by the platform.

    Reports of SEV-SNP guests are verified by `snp verify`.
    """


@command.command(
    "verify",
    examples=(
        (
            "sev-attest report verify vm1.report host.chain --nonce "
            "AAAAAAAAAAAAAAAAAAAAAA== --policy 0x5"
        ),
    ),
)
@click.argument("report", type=FILE)
@click.argument("inputs", nargs=-1, type=FILE, metavar="CHAIN...")
@bare_option("--nonce", metavar="B64", required=True, help="The nonce of the request.")
@bare_option("--policy", type=POLICY, help="The guest policy that you meant.")
@GuestOptions.given("guest")
@ChainOptions.given("certificates")
@OutputOptions.given("output")
def verify(
    *,
    report: str,
    inputs: tuple[str, ...],
    nonce: str,
    policy: int | None,
    guest: GuestOptions,
    certificates: ChainOptions,
    output: OutputOptions,
) -> None:
    """Verify REPORT (binary, base64, or QMP's JSON) against the platform of CHAIN.

    The guest is described as for `validate`, or by --launch-digest; without either, the digest is
    shown, and compared with none.
    """
    refuse(certificates.errors(inputs, report), _guest_errors(guest, policy))
    with reading(report):
        parsed = AttestationReport.from_bytes(_read(report))
    with reading("--nonce"):
        asked = blob(os.fsencode(nonce), (16,), "nonce", only_text=True)
    platform = verify_chain(certificates.collect(inputs).chain(), roots=certificates.roots())
    meant = None if policy is None else GuestPolicy(policy)
    digest, notes = None, render.platform_notes(platform)
    if guest.described:
        progress = output.text
        measured = measure_guest(guest, guest.num_cpus, meant or parsed.policy, progress=progress)
        digest = measured.digest
        notes += measured.notes
    else:
        notes.append("the launch digest was compared with none: give the guest, or --launch-digest")
    if meant is None:
        notes.append("the policy was compared with none: give --policy")
    unchecked = {c for c, v in (("report.digest", digest), ("report.policy", meant)) if v is None}
    facts: ReportedFacts = {
        "digest": parsed.digest.hex(),
        "policy": parsed.policy.value,
        "notes": notes,
    }
    order = list(CHECKS)
    try:
        verify_report(parsed, platform, nonce=asked, digest=digest, policy=meant)
    except LaunchRefused as error:
        held = set(order[: order.index(error.check)]) - unchecked
        error.facts = {**facts, "checks": render.checks(CHECKS, held, {error.check})}
        if output.text and output.verbose:
            render.steps(CHECKS, held, {error.check})
        raise
    held = CHECKS.keys() - unchecked
    if output.as_json:
        checks = render.checks(CHECKS, held)
        render.document("report verify", ok=True, checks=checks, **facts)
    elif output.text:
        terminal.say("OK: the platform signed this report")
        click.echo(f"launch digest: {parsed.digest.hex()}")
        click.echo(f"policy: {parsed.policy}")
        if output.verbose:
            render.steps(CHECKS, held)
        render.notes(notes + render.policy_notes(parsed.policy))


def _guest_errors(guest: GuestOptions, policy: int | None) -> Iterator[Unsupported]:
    """Yield an error for options of the guest that are missing or contradict each other."""
    if not guest.described:
        return
    yield from guest.errors()
    if policy is None and guest.launch_digest is None:
        yield usage(
            "--policy is needed beside the guest: the host must not choose what is measured"
        )


def _read(path: str) -> bytes:
    data = read_small(path, "attestation report")
    refuse_snp(data, "attestation report")
    if len(data) != REPORT_SIZE and looks_like_json(data):
        for document in json_documents(data, "attestation report"):
            value = document.get("data")
            if isinstance(value, str):
                data = value.encode("utf-8", "surrogatepass")
                break
        else:
            raise MalformedInput("attestation report", "format", 'the JSON has no "data" text')
    return blob(data, (REPORT_SIZE,), "attestation report")
