"""``sev-attest verify``."""

import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import click

from sev_attest.cli import render
from sev_attest.cli.hints import hint_for
from sev_attest.cli.inputs import (
    FILE,
    STDIN,
    chain_options,
    collect,
    output_options,
    trusted_roots,
)
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


@click.command("verify")
@click.argument("inputs", nargs=-1, type=FILE, metavar="[INPUT]...")
@click.option(
    "--each", is_flag=True, help="Every INPUT is a whole chain: verify all, on all cores."
)
@chain_options
@output_options
def command(
    *, inputs: tuple[str, ...], each: bool, as_json: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Verify a platform's certificates up to AMD's pinned root.

    INPUT is what `sevctl export` wrote (with or without --full), single certificates, a folder of
    them, or the text of `virsh nodesevinfo`; in any number and order, binary, base64 or hex; - is
    standard input. ASK and ARK may be left out: AMD's own are built in.

    With --each, a line says of every INPUT how it stands with it. The exit code is 1 if any chain
    is not verified, else 6 if any could not be read.
    """
    if each:
        _check_each(inputs, given)
        _tell_each(verify_each(inputs, given), as_json=as_json, quiet=quiet)
        return
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
    notes = render.platform_notes(verified)
    if text:
        _show(verified.chain, held, set(), verbose=verbose)
        click.echo(f"OK: the chain leads to a trusted root: {verified.root.name}")
        render.notes(notes)
    if as_json:
        generation, root = verified.generation, verified.root.name
        facts = _facts(verified.chain, held, set())
        render.document("verify", ok=True, generation=generation, root=root, notes=notes, **facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How it stands with one of many chains; ``root`` is None if it is not verified."""

    source: str
    root: Root | None = None
    notes: tuple[str, ...] = ()
    error: Exception | None = None

    @property
    def problems(self) -> list[Failure]:
        """What is wrong with it."""
        if isinstance(self.error, ChainInvalid):
            return list(self.error.failures)
        if isinstance(self.error, SevAttestError):
            return [Failure(self.error.check, str(self.error), self.error.hint)]
        if isinstance(self.error, OSError):
            message = f"{self.error.filename}: {self.error.strerror or self.error}"
            return [Failure("io", message)]
        if self.error is not None:
            kind = type(self.error).__name__
            return [Failure("internal", f"{self.source}: {kind}: this is a bug")]
        return []

    @property
    def line(self) -> str:
        """Say it to people, in one line."""
        if self.root is not None:
            return f"OK: {self.source}: {self.root.name}"
        first, *more = self.problems
        others = f" (and {len(more)} more)" if more else ""
        if isinstance(self.error, NotVerified):
            return f"NOT VERIFIED: {self.source}: {first.message}{others}"
        return f"NOT READ: {first.message}"

    @property
    def facts(self) -> dict[str, object]:
        """What a JSON document says of it."""
        return {
            "input": self.source,
            "ok": self.root is not None,
            "generation": self.root and self.root.generation,
            "root": self.root and self.root.name,
            "notes": list(self.notes),
            "errors": [
                {"check": p.check, "message": p.message, "hint": hint_for(p)} for p in self.problems
            ],
        }


def verify_each(inputs: Sequence[str], given: dict[str, Any]) -> Iterator[Verdict]:
    """Verify many chains, on all cores: the arithmetic leaves the interpreter to other threads."""
    from concurrent.futures import ThreadPoolExecutor

    roots = trusted_roots(given)

    def judge(source: str) -> Verdict:
        try:
            with reading(source):
                chain = collect((source,), given).chain()
            verified = verify_chain(chain, roots=roots)
        except Exception as error:  # noqa: BLE001 - one bad input costs one line, a bug too
            return Verdict(source=source, error=error)
        notes = tuple(render.platform_notes(verified))
        return Verdict(source=source, root=verified.root, notes=notes)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(judge, inputs)


def _check_each(inputs: tuple[str, ...], given: dict[str, Any]) -> None:
    beside = [f"--{name}" for name in ("sev", "oca", "cek") if given[name] is not None]
    if beside:
        raise Unsupported(f"--each excludes {', '.join(beside)}", check="usage")
    if not inputs:
        raise Unsupported("--each needs the chains as INPUT", check="usage")
    if STDIN in (*inputs, given["ca"], *given["trust_root"]):
        raise Unsupported("--each takes no standard input", check="usage")


def _tell_each(verdicts: Iterator[Verdict], *, as_json: bool, quiet: bool) -> None:
    seen = []
    for verdict in verdicts:
        seen.append(verdict)
        if not (as_json or quiet):
            click.echo(render.one_line(verdict.line))
    bad = [verdict for verdict in seen if verdict.root is None]
    facts: dict[str, object] = {"chains": [verdict.facts for verdict in seen]}
    if not bad:
        if as_json:
            render.document("verify", ok=True, **facts)
        return
    error = _failure_of(bad, len(seen))
    error.facts = facts
    for verdict in bad if quiet else ():
        error.add_note(verdict.line)
    raise error


def _failure_of(bad: list[Verdict], count: int) -> SevAttestError:
    refused = sum(isinstance(verdict.error, NotVerified) for verdict in bad)
    if refused:
        words = f"{refused} of {count} chains are not verified: do not trust these platforms"
        return NotVerified(words, check="chain.each")
    return MalformedInput("chain", "each", f"{len(bad)} of {count} could not be read")


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
