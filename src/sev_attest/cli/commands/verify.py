"""``sev-attest verify``."""

import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command
from sev_attest.cli.exits import explain
from sev_attest.cli.inputs import FILE, STDIN
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import (
    ChainInvalid,
    Failure,
    MalformedInput,
    NotVerified,
    SevAttestError,
    Unsupported,
    reading,
)
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.roots import Root
from sev_attest.sev.chain.verify import CHECKS, complete, verify_chain

if TYPE_CHECKING:
    from sev_attest.cli.documents.sev import ChainVerdict, Judged


@click.command("verify", cls=Command)
@click.argument("inputs", nargs=-1, type=FILE, metavar="[INPUT]...")
@click.option(
    "--each", is_flag=True, help="Every INPUT is a whole chain: verify all, on all cores."
)
@ChainOptions.given("certificates")
@OutputOptions.given("output")
def command(
    *, inputs: tuple[str, ...], each: bool, certificates: ChainOptions, output: OutputOptions
) -> None:
    """Verify a platform's certificates up to AMD's pinned root.

    INPUT is what `sevctl export` wrote (with or without --full), single certificates, a folder of
    them, or the text of `virsh nodesevinfo`, in any number and order; binary, base64 or hex; - is
    standard input. ASK and ARK may be left out: AMD's are built in.

    --each prints one line per INPUT. Then the exit code is 1 if any chain is not verified, else 6
    if any could not be read.
    """
    if each:
        refuse(_each_errors(inputs, certificates))
        _print_each(verify_each(inputs, certificates), output)
        return
    refuse(certificates.errors(inputs))
    chain = certificates.collect(inputs).chain()
    roots = certificates.roots()
    try:
        verified = verify_chain(chain, roots=roots)
    except ChainInvalid as error:
        chain = complete(chain, roots)
        failed = {failure.check for failure in error.failures}
        error.facts = {**_facts(chain, error.held, failed)}
        if output.text:
            _show(chain, error.held, failed, verbose=output.verbose)
            click.echo("NOT VERIFIED: do not trust this platform")
        raise
    held = CHECKS.keys()
    notes = render.platform_notes(verified)
    if output.text:
        _show(verified.chain, held, set(), verbose=output.verbose)
        click.echo(f"OK: the chain leads to a trusted root: {verified.root.name}")
        render.notes(notes)
    if output.as_json:
        generation, root = verified.generation, verified.root.name
        facts = _facts(verified.chain, held, set())
        render.document("verify", ok=True, generation=generation, root=root, notes=notes, **facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainResult:
    """The result for one of many chains; ``root`` is None if it is not verified."""

    source: str
    root: Root | None = None
    notes: tuple[str, ...] = ()
    error: Exception | None = None

    @property
    def failures(self) -> list[Failure]:
        """Every failure; none for a verified chain."""
        return [] if self.error is None else explain(self.error)[1]

    @property
    def line(self) -> str:
        """The result in one line of text."""
        if self.root is not None:
            return f"OK: {self.source}: {self.root.name}"
        first, *more = self.failures
        others = f" (and {len(more)} more)" if more else ""
        if isinstance(self.error, NotVerified):
            return f"NOT VERIFIED: {self.source}: {first.message}{others}"
        bug = first.check == "internal"  # the other errors name their source
        return f"NOT READ: {self.source}: {first.message}" if bug else f"NOT READ: {first.message}"

    @property
    def facts(self) -> "ChainVerdict":
        """The fields of a JSON document."""
        return {
            "input": self.source,
            "ok": self.root is not None,
            "generation": self.root.generation if self.root else None,
            "root": self.root.name if self.root else None,
            "notes": list(self.notes),
            "errors": render.errors(self.failures),
        }


def verify_each(inputs: Sequence[str], certificates: ChainOptions) -> Iterator[ChainResult]:
    """Verify many chains on all cores; yield the results in the order of the inputs.

    Threads are enough: OpenSSL releases the interpreter's lock.
    """
    from concurrent.futures import ThreadPoolExecutor

    roots = certificates.roots()

    def judge(source: str) -> ChainResult:
        try:
            with reading(source):
                chain = certificates.collect((source,)).chain()
            verified = verify_chain(chain, roots=roots)
        except Exception as error:  # noqa: BLE001 - one bad input costs one line, and so does a bug
            return ChainResult(source=source, error=error)
        notes = tuple(render.platform_notes(verified))
        return ChainResult(source=source, root=verified.root, notes=notes)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(judge, inputs)


def _each_errors(inputs: tuple[str, ...], certificates: ChainOptions) -> Iterator[Unsupported]:
    """Yield an error for what cannot be combined with --each."""
    beside = certificates.stated("sev", "oca", "cek")
    if beside:
        yield usage(f"--each excludes {', '.join(beside)}")
    if not inputs:
        yield usage("--each needs the chains as INPUT")
    if STDIN in (*inputs, certificates.ca, *certificates.trust_root):
        yield usage("--each takes no standard input")


def _print_each(results: Iterator[ChainResult], output: OutputOptions) -> None:
    """Print each result as it comes; raise NotVerified or MalformedInput if any is bad."""
    seen = []
    for result in results:
        seen.append(result)
        if output.text:
            click.echo(render.one_line(result.line))
    bad = [result for result in seen if result.root is None]
    chains = [result.facts for result in seen]
    if not bad:
        if output.as_json:
            render.document("verify", ok=True, chains=chains)
        return
    error = _failure_of(bad, len(seen))
    error.facts = {"chains": chains}
    for result in bad if output.quiet else ():
        error.add_note(result.line)
    raise error


def _failure_of(bad: list[ChainResult], count: int) -> SevAttestError:
    refused = sum(isinstance(result.error, NotVerified) for result in bad)
    if refused:
        words = f"{refused} of {count} chains are not verified: do not trust these platforms"
        return NotVerified(words, check="chain.each")
    return MalformedInput("chain", "each", f"{len(bad)} of {count} could not be read")


def _facts(chain: Chain, held: AbstractSet[str], failed: AbstractSet[str]) -> "Judged":
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
