"""``sev-attest verify``."""

from collections.abc import Set as AbstractSet
from typing import Any

import click

from sev_attest.chain.files import Chain
from sev_attest.chain.verify import CHECKS, complete, verify_chain
from sev_attest.cli import render
from sev_attest.cli.inputs import FILE, chain_options, collect, output_options, trusted_roots
from sev_attest.errors import ChainInvalid


@click.command("verify")
@click.argument("inputs", nargs=-1, type=FILE, metavar="[INPUT]...")
@chain_options
@output_options
def command(
    *, inputs: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Verify a platform's certificates up to AMD's pinned root.

    INPUT is what `sevctl export` wrote (with or without --full), single certificates, a folder of
    them, or the text of `virsh nodesevinfo`; in any number and order, binary, base64 or hex; - is
    standard input. ASK and ARK may be left out: AMD's own are built in.
    """
    chain = collect(inputs, given).chain()
    roots = trusted_roots(given)
    text = not (as_json or quiet)
    try:
        verified = verify_chain(chain, roots=roots)
    except ChainInvalid as error:
        chain = complete(chain, roots)
        failed = {failure.check for failure in error.failures}
        error.facts = _facts(chain, error.held, failed)
        if text:
            _show(chain, error.held, failed, verbose=verbose)
            click.echo("NOT VERIFIED: do not trust this platform")
        raise
    held = CHECKS.keys()
    notes = render.root_notes(verified.root)
    if text:
        _show(verified.chain, held, set(), verbose=verbose)
        click.echo(f"OK: the chain leads to a trusted root: {verified.root.name}")
        render.notes(notes)
    if as_json:
        generation, root = verified.generation, verified.root.name
        facts = _facts(verified.chain, held, set())
        render.document("verify", ok=True, generation=generation, root=root, notes=notes, **facts)


def _facts(chain: Chain, held: AbstractSet[str], failed: AbstractSet[str]) -> dict[str, object]:
    return {
        "fingerprints": render.fingerprints(chain),
        "checks": render.checks(CHECKS, held, failed),
    }


def _show(chain: Chain, held: AbstractSet[str], failed: AbstractSet[str], *, verbose: bool) -> None:
    for line in render.chain_tree(chain, held):
        click.echo(line)
    if failed:
        click.echo(render.LEGEND)
    if verbose:
        render.steps(CHECKS, held, failed)
