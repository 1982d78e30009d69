"""``sev-attest snp id-block check``."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from sev_attest.cli import id_blocks, render, terminal
from sev_attest.cli.bundle import Command, Options, option, option_name
from sev_attest.cli.inputs import FILE, read_small, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.snp_guest import read_digest
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.usage import refuse
from sev_attest.errors import Failure, IdBlockInvalid, Unsupported, reading
from sev_attest.snp.id_block import IdAuth, IdBlock
from sev_attest.snp.id_block_verify import (
    CHECKS,
    REPORT_CHECKS,
    report_failures,
    verify_id_block,
)

if TYPE_CHECKING:
    from sev_attest.cli.documents.id_blocks import IdBlockFacts

_WHOSE = "nothing shows whose key this is: its digest was not compared (--id-key-digest)"
_LAUNCH = "nothing shows that a guest was launched with it: no report was compared (--report)"
_REPORT = (
    "the report was not verified, and anybody can write one: `sev-attest snp verify` verifies it"
)
_DOMAIN = (
    "of the domain, only what the ID block needs was compared: `sev-attest domain check` looks at "
    "the rest"
)


class CompareOptions(Options, title="Comparison"):
    """What the ID block is held against."""

    id_key_digest: str | None = option(
        "--id-key-digest",
        metavar="HEX|B64",
        help="SHA-384 of the ID key that you trust, as reports carry it.",
    )
    author_key_digest: str | None = option(
        "--author-key-digest",
        metavar="HEX|B64",
        help="SHA-384 of the author key that you trust.",
    )
    report: str | None = option(
        "--report",
        type=FILE,
        metavar="REPORT",
        help="A report that must be of a launch with this block (not verified here).",
    )
    domain: str | None = option(
        "--domain",
        type=FILE,
        metavar="XML",
        help="A domain's XML that must start the guest with this block.",
    )

    def errors(self, block: str, auth: str) -> Iterator[Unsupported]:
        """Yield an error if two inputs would be standard input."""
        yield from stdin_errors(block, auth, self.report, self.domain)

    def trusted(self) -> dict[str, bytes | None]:
        """Return the digests of the keys that are trusted; raises MalformedInput."""
        given = {"id_key_digest": self.id_key_digest, "author_key_digest": self.author_key_digest}
        return {
            field: None if text is None else read_digest(option_name(field), text, "key digest")
            for field, text in given.items()
        }

    def failures(self, block: IdBlock, auth: IdAuth) -> Iterator[Failure]:
        """Yield how report and domain differ from what the block says."""
        if self.report is not None:
            evidence = evidence_of(self.report, content_at(self.report))
            yield from report_failures(block, auth, evidence.report)
        if self.domain is not None:
            from sev_attest.cli.id_block_domain import domain_failures

            with reading(self.domain):
                data = read_small(self.domain, "domain XML")
                yield from domain_failures(data, block, auth)

    def comparisons(self) -> dict[str, str]:
        """Return the checks of :meth:`failures`, and what each guarantees."""
        found: dict[str, str] = {}
        if self.report is not None:
            found |= REPORT_CHECKS
        if self.domain is not None:
            from sev_attest.cli.id_block_domain import CHECKS as DOMAIN_CHECKS

            found |= DOMAIN_CHECKS
        return found

    def notes(self) -> list[str]:
        """Return what a verdict leaves open."""
        found = [_WHOSE] if self.id_key_digest is None and self.author_key_digest is None else []
        found.append(_LAUNCH if self.report is None else _REPORT)
        return found if self.domain is None else [*found, _DOMAIN]


@click.command(
    "check",
    cls=Command,
    examples=("sev-attest snp id-block check vm1_idblock.b64 vm1_idauth.b64 --domain vm1.xml",),
)
@click.argument("block", type=FILE)
@click.argument("auth", type=FILE)
@CompareOptions.given("options")
@OutputOptions.given("output")
def command(*, block: str, auth: str, options: CompareOptions, output: OutputOptions) -> None:
    """Verify that the keys of AUTH sign BLOCK; compare both with a report and a domain's XML.

    BLOCK (96 bytes) and AUTH (4096) are files in binary, base64 or hex (- is stdin). REPORT is
    what `snp verify` takes.
    """
    refuse(options.errors(block, auth))
    read, page = id_blocks.read_block(block), id_blocks.read_auth(auth)
    compared = tuple(options.failures(read, page))
    held, failures = _judged(read, page, options, compared)
    failed = {failure.check: failure.message for failure in failures}
    checks = CHECKS | options.comparisons()
    facts = _facts(read, page, checks, held, failed)
    if failures:
        error = IdBlockInvalid(failures, held)
        error.facts = {**facts}
        if output.text:
            terminal.say(f"NOT VERIFIED: {render.one_line(failures[0].message)}")
        if output.text and output.verbose:
            render.steps(checks, held, failed.keys())
        raise error
    notes = [*options.notes(), *id_blocks.policy_notes(read)]
    if output.as_json:
        render.document("snp-id-block-check", ok=True, **facts, notes=notes)
    elif output.text:
        terminal.say(f"OK: the ID block is signed by the ID key {page.id_key.digest.hex()}")
        click.echo(f"it approves the launch digest {read.ld.hex()}, policy {read.policy}")
        if page.author_key is not None:
            click.echo(f"the ID key is signed by the author key {page.author_key.digest.hex()}")
        if options.report is not None:
            click.echo("the report says that its guest was launched with it")
        if options.domain is not None:
            click.echo("the domain has it")
        if output.verbose:
            render.steps(checks, held)
        render.notes(notes)


def _judged(
    block: IdBlock, auth: IdAuth, options: CompareOptions, compared: tuple[Failure, ...]
) -> tuple[frozenset[str], tuple[Failure, ...]]:
    """Return the checks that held, and every failure: of the signatures first."""
    failures = compared
    try:
        held = verify_id_block(block, auth, **options.trusted()).held
    except IdBlockInvalid as error:
        held, failures = error.held, (*error.failures, *compared)
    failed = {failure.check for failure in failures}
    return held | _compared(options, failed), failures


def _compared(options: CompareOptions, failed: set[str]) -> set[str]:
    """Return the comparisons that held; of a domain that is not SEV-SNP's, none was made."""
    made = options.comparisons().keys() - failed
    other = "snp.id-block.domain.type" in failed
    return {check for check in made if not (other and ".domain." in check)}


def _facts(
    block: IdBlock,
    auth: IdAuth,
    checks: Mapping[str, str],
    held: frozenset[str],
    failed: Mapping[str, str],
) -> "IdBlockFacts":
    return {
        "id_block": id_blocks.block_facts(block),
        "id_auth": id_blocks.auth_facts(auth),
        "checks": [
            {**one, "detail": failed.get(check, words)}
            for one, (check, words) in zip(
                render.checks(checks, held, failed.keys()), checks.items(), strict=True
            )
        ],
        "failed": [*failed],
    }
