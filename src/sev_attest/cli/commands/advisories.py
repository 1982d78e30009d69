"""``sev-attest advisories``, and the lines of ``validate`` about known weaknesses."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import API, BYTE, FILE, POLICY
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported
from sev_attest.owner.advisories import (
    GENERATIONS,
    SURE,
    Advisory,
    AdvisoryVerdict,
    Exposure,
    as_of,
    evaluate,
    load,
)
from sev_attest.sev.policy import GuestPolicy
from sev_attest.snp.tcb import Product

if TYPE_CHECKING:
    from sev_attest.cli.documents.advisories import KnownFacts
    from sev_attest.cli.documents.parts import Exposed, SpecificGenerations, Weakness


class LaunchOptions(Options, title="What is known of the launch"):
    """The facts that decide whether a weakness affects a launch; None is unknown."""

    generation: str | None = option(
        "--generation",
        type=click.Choice(GENERATIONS, case_sensitive=False),
        help="The platform's generation, as `verify` names it.",
    )
    api: tuple[int, int] | None = option(
        "--api", type=API, metavar="MAJOR.MINOR", help="SEV API version."
    )
    build: int | None = option("--build", type=BYTE, help="SEV firmware build.")
    policy: int | None = option("--policy", type=POLICY, help="Guest policy.")


class SnpReportOptions(Options, title="What is known of an SEV-SNP guest"):
    """The facts that decide whether a weakness of SEV-SNP affects a guest; None is unknown."""

    snp: bool | None = option(
        "--snp", is_flag=True, default=None, help="List the weaknesses of SEV-SNP."
    )
    product: str | None = option(
        "--product",
        type=click.Choice([product.value.lower() for product in Product], case_sensitive=False),
        help="The chip's product, as `snp verify` names it.",
    )
    report: str | None = option(
        "--report",
        type=FILE,
        metavar="REPORT",
        help="Its report, in any form that `snp verify` takes. Not verified here.",
    )

    def errors(self, launch: LaunchOptions) -> Iterator[Unsupported]:
        """Yield an error for options that describe a launch of SEV beside these."""
        beside = launch.stated(*vars(launch))
        if beside:
            mine = self.stated(*vars(self))[0]
            yield usage(f"{mine} excludes {', '.join(beside)} (for SEV and SEV-ES)")


@click.command(
    "advisories",
    cls=Command,
    examples=(
        "sev-attest advisories",
        "sev-attest advisories --generation Milan --api 1.51 --build 3 --policy 0x5",
        "sev-attest advisories --report vm1.report",
    ),
)
@LaunchOptions.given("launch")
@SnpReportOptions.given("guest")
@OutputOptions.given("output")
def command(*, launch: LaunchOptions, guest: SnpReportOptions, output: OutputOptions) -> None:
    """List known weaknesses of SEV platforms, and which of them affect a launch.

    The first line says when the list was last checked; what was published later is not in it.

    Without options, all are listed. With what is known of a launch: those that affect it, those
    that attestation cannot show, and those that do not. An option that is left out is unknown. No
    verdict on the launch comes from here: see `verify` and `validate`.

    --snp, --product or --report REPORT list those of SEV-SNP instead. A report of version 2 does
    not name its product: --product does. See `snp verify` for a verdict.
    """
    if guest.stated(*vars(guest)):
        refuse(guest.errors(launch))
        from sev_attest.cli.snp_advisories import show

        show(guest.product, guest.report, output)
        return
    exposures = evaluate(
        generation=launch.generation,
        api=launch.api,
        build=launch.build,
        policy=None if launch.policy is None else GuestPolicy(launch.policy),
    )
    known = bool(launch.stated(*vars(launch)))
    if output.as_json:
        entries = documents(exposures) if known else [document_of(each) for each in load()]
        facts: KnownFacts = {
            "generation": launch.generation,
            "api": None if launch.api is None else [*launch.api],
            "build": launch.build,
            "policy": launch.policy,
        }
        day = as_of().isoformat()
        render.document("advisories", ok=True, as_of=day, facts=facts, advisories=entries)
        return
    click.echo(f"known weaknesses as of {as_of()}")
    verbose = output.verbose
    for line in grouped(exposures, verbose=verbose) if known else listed(load(), verbose=verbose):
        click.echo(line)


def affected_lines(exposures: Iterable[Exposure]) -> list[str]:
    """Return one line for each weakness that affects a launch."""
    return [
        f"advisory {exposure.advisory.id}: {exposure.advisory.title}: {exposure.advisory.action}"
        for exposure in exposures
        if exposure.verdict is AdvisoryVerdict.AFFECTED
    ]


def documents(exposures: Iterable[Exposure]) -> "list[Exposed]":
    """Return every weakness with its verdict, for a JSON document."""
    return [
        {
            "verdict": exposure.verdict.value,
            "reason": exposure.reason,
            **document_of(exposure.advisory),
        }
        for exposure in exposures
    ]


def _spared(advisory: Advisory) -> "SpecificGenerations | None":
    spared = advisory.not_affected
    if spared is None:
        return None
    return {
        "generations": [*spared.generations],
        "reason": spared.reason,
        "source": spared.source,
    }


def document_of(advisory: Advisory) -> "Weakness":
    """Return a weakness for a JSON document."""
    found: Weakness = {
        "id": advisory.id,
        "title": advisory.title,
        "generations": list(advisory.generations or advisory.every),
        "fixed": {name: list(firmware) for name, firmware in advisory.fixed.items()},
        "unfixed": list(advisory.unfixed),
        "not_affected": _spared(advisory),
        "if_policy": list(advisory.if_policy),
        "unless_policy": list(advisory.unless_policy),
        "unseen": advisory.unseen or None,
        "action": advisory.action,
        "sure": advisory.sure,
        "sources": list(advisory.sources),
    }
    return cast("Weakness", {**found, **advisory.more})


def listed(advisories: Iterable[Advisory], *, verbose: bool) -> Iterable[str]:
    """Yield each weakness as a line of text, or several (``verbose``)."""
    for advisory in advisories:
        yield f"{advisory.id}: {advisory.title} ({', '.join(advisory.generations) or 'all'})"
        if verbose:
            yield from _details(advisory)


def grouped(exposures: Sequence[Exposure], *, verbose: bool) -> Iterable[str]:
    """Yield the weaknesses by their verdict, as lines of text."""
    for verdict in AdvisoryVerdict:
        group = [exposure for exposure in exposures if exposure.verdict is verdict]
        yield f"{verdict} ({len(group)}):"
        for exposure in group:
            yield f"  {exposure.advisory.id}: {exposure.advisory.title}"
            yield f"    why: {exposure.reason}"
            if verbose:
                yield from _details(exposure.advisory)
            elif verdict is not AdvisoryVerdict.NOT_AFFECTED:
                yield f"    do: {exposure.advisory.action}"


def _details(advisory: Advisory) -> Iterable[str]:
    yield f"    do: {advisory.action}"
    yield from (f"    fixed: {words}" for words in advisory.fixed_texts())
    if spared := advisory.not_affected:
        yield f"    not affected: {', '.join(spared.generations)}: {spared.reason}"
    yield f"    source: {SURE[advisory.sure]}: {', '.join(advisory.sources)}"
