"""``sev-attest policy``."""

from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command
from sev_attest.cli.completion import policies
from sev_attest.cli.inputs import POLICY
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.usage import usage
from sev_attest.sev.policy import BITS, GuestPolicy, compose

if TYPE_CHECKING:
    from sev_attest.cli.documents.guests import PolicyMeaning


@click.command(
    "policy",
    cls=Command,
    examples=(
        "sev-attest policy 0x5",
        "sev-attest policy 'no-debug,es,api>=1.51'",
    ),
)
@click.argument("values", nargs=-1, required=True, metavar="VALUE|NAME...", shell_complete=policies)
@OutputOptions.given("output")
def command(*, values: tuple[str, ...], output: OutputOptions) -> None:
    """Explain policies, or compose one from names.

    A VALUE is a number (0x5). NAMES are no-debug, no-key-sharing, es, no-send, domain, sev and
    api>=MAJOR.MINOR, one by one or joined by commas: `sev-attest policy no-debug,es,api>=1.51`.
    """
    numeric = [value for value in values if value[:1].isdigit() or value[:1] == "-"]
    if numeric and len(numeric) < len(values):
        raise usage("give numbers to explain, or names to compose, not both")
    if numeric:
        policies = [GuestPolicy(POLICY.convert(value, None, None)) for value in values]
    else:
        policies = [compose(name for value in values for name in value.split(","))]
    for policy in policies:
        policy.require_unreserved()
    if output.as_json:
        render.document("policy", ok=True, policies=[_facts(policy) for policy in policies])
        return
    if not output.quiet:
        render.notes(note for policy in policies for note in render.snp_policy_notes(policy))
    for policy in policies:
        _show(policy, verbose=output.verbose or bool(numeric and not output.quiet))


def _facts(policy: GuestPolicy) -> "PolicyMeaning":
    return {
        "policy": policy.value,
        "hex": str(policy),
        "names": policy.names(),
        "bits": {str(bit.name): bit in policy.bits for bit in BITS},
        "min_api": list(policy.min_api),
        "risks": policy.risks(),
    }


def _show(policy: GuestPolicy, *, verbose: bool) -> None:
    click.echo(f"{policy} {','.join(policy.names())}".rstrip())
    if verbose:
        for bit, (name, meaning, risk) in BITS.items():
            words = meaning if bit in policy.bits else risk
            click.echo(f"  {'set  ' if bit in policy.bits else 'clear'} {name:<15} {words}")
        major, minor = policy.min_api
        click.echo(f"  API   at least {major}.{minor}" if any(policy.min_api) else "  API   any")
