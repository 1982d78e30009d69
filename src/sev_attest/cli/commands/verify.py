"""``sev-attest verify``."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Command, bare_option
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.inputs import FILE, STDIN
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.evidence import EvidenceFileOptions
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import ChainInvalid, Unsupported
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.verify import CHECKS, complete, verify_chain

if TYPE_CHECKING:
    from sev_attest.cli.documents.sev import ChainVerdict, Judged


@click.command(
    "verify",
    cls=Command,
    examples=(
        "sev-attest verify host.chain",
        "virsh --connect qemu+ssh://host/system nodesevinfo | sev-attest verify --cek cek.cert -",
        "sev-attest verify --each *.chain",
    ),
)
@click.argument("inputs", nargs=-1, type=FILE, metavar="[INPUT]...")
@bare_option("--each", is_flag=True, help="Every INPUT is a whole chain: verify all, on all cores.")
@ChainOptions.given("certificates")
@EvidenceFileOptions.given("evidence")
@OutputOptions.given("output")
def command(
    *,
    inputs: tuple[str, ...],
    each: bool,
    certificates: ChainOptions,
    evidence: EvidenceFileOptions,
    output: OutputOptions,
) -> None:
    """Verify a platform's certificates up to AMD's pinned root.

    INPUT is what `sevctl export` wrote (with or without --full), single certificates, a folder of
    them, or the text of `virsh nodesevinfo`, in any number and order; binary, base64 or hex; - is
    standard input. ASK and ARK may be left out: AMD's are built in.

    --each prints one line per INPUT. Then the exit code is 1 if any chain is not verified, else 6
    if any could not be read or judged.
    """
    if each:
        refuse(_each_errors(inputs, certificates, evidence))
        _print_each(inputs, certificates, output)
        return
    refuse(certificates.errors(inputs), evidence.errors())
    with evidence.kept("verify", force=evidence.force) as kept:
        _verify(inputs, certificates, output, kept)


def _verify(
    inputs: tuple[str, ...], certificates: ChainOptions, output: OutputOptions, kept: Kept
) -> None:
    """Verify one chain, and print the verdict."""
    chain = kept.chain = certificates.collect(inputs).chain()
    roots = certificates.roots()
    try:
        verified = verify_chain(chain, roots=roots)
    except ChainInvalid as error:
        chain = kept.chain = complete(chain, roots)
        failed = {failure.check for failure in error.failures}
        error.facts = {**_facts(chain, error.held, failed)}
        if output.text:
            _show(chain, error.held, failed, verbose=output.verbose)
            terminal.say("NOT VERIFIED: do not trust this platform")
        raise
    held = CHECKS.keys()
    kept.chain, kept.root = verified.chain, verified.root
    notes = render.platform_notes(verified)
    kept.accepted({}, notes)
    if output.text:
        _show(verified.chain, held, set(), verbose=output.verbose)
        terminal.say(f"OK: the chain leads to a trusted root: {verified.root.name}")
        render.notes(notes)
    if output.as_json:
        generation, root = verified.generation, verified.root.name
        facts = _facts(verified.chain, held, set())
        render.document("verify", ok=True, generation=generation, root=root, notes=notes, **facts)


def _each_errors(
    inputs: tuple[str, ...], certificates: ChainOptions, evidence: EvidenceFileOptions
) -> Iterator[Unsupported]:
    """Yield an error for what cannot be combined with --each."""
    beside = certificates.stated("sev", "oca", "cek") + ["--evidence"] * bool(evidence.evidence)
    if beside:
        yield usage(f"--each excludes {', '.join(beside)}")
    if not inputs:
        yield usage("--each needs the chains as INPUT")
    if STDIN in (*inputs, certificates.ca, *certificates.trust_root):
        yield usage("--each takes no standard input")


def _print_each(inputs: tuple[str, ...], certificates: ChainOptions, output: OutputOptions) -> None:
    """Print each result as it comes; raise NotVerified or MalformedInput if any is bad."""
    from sev_attest.cli.many_chains import failure_of, verify_each

    bad = []
    chains: list[ChainVerdict] = []
    for result in verify_each(inputs, certificates):
        if result.root is None:
            bad.append(result)
        if output.as_json:
            chains.append(result.facts)
        elif output.text:
            terminal.say(render.one_line(result.line))
    if not bad:
        if output.as_json:
            render.document("verify", ok=True, chains=chains)
        return
    error = failure_of(bad, len(inputs))
    error.facts = {"chains": chains}
    for result in bad if output.quiet else ():
        error.add_note(result.line)
    raise error


def _facts(chain: Chain, held: AbstractSet[str], failed: AbstractSet[str]) -> "Judged":
    return {
        "fingerprints": render.fingerprints(chain),
        "checks": render.checks(CHECKS, held, failed),
    }


def _show(chain: Chain, held: AbstractSet[str], failed: AbstractSet[str], *, verbose: bool) -> None:
    render.tree(chain, held)
    if failed:
        click.echo(render.LEGEND)
    if verbose:
        render.steps(CHECKS, held, failed)
