"""``sev-attest advisories``, and the lines of ``validate`` about known weaknesses."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import API, BYTE, POLICY
from sev_attest.cli.options.common import OutputOptions
from sev_attest.owner.advisories import (
    GENERATIONS,
    SURE,
    Advisory,
    AdvisoryVerdict,
    Exposure,
    as_of,
    evaluate,
    firmware_text,
    load,
)
from sev_attest.sev.policy import GuestPolicy


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


@click.command("advisories", cls=Command)
@LaunchOptions.given("launch")
@OutputOptions.given("output")
def command(*, launch: LaunchOptions, output: OutputOptions) -> None:
    """List known weaknesses of SEV platforms, and which of them affect a launch.

    The first line says when the list was last checked; later ones are not in it.

    Without options, all are listed. With what is known of a launch: those that affect it, those
    that attestation cannot show, and those that do not. An option that is left out is unknown. No
    verdict on the launch comes from here: see `verify` and `validate`.
    """
    exposures = evaluate(
        generation=launch.generation,
        api=launch.api,
        build=launch.build,
        policy=None if launch.policy is None else GuestPolicy(launch.policy),
    )
    facts = vars(launch)
    known = bool(launch.stated(*facts))
    if output.as_json:
        entries = documents(exposures) if known else [_document(each) for each in load()]
        day = as_of().isoformat()
        render.document("advisories", ok=True, as_of=day, facts=facts, advisories=entries)
        return
    click.echo(f"known weaknesses as of {as_of()}")
    verbose = output.verbose
    for line in _grouped(exposures, verbose=verbose) if known else _listed(verbose=verbose):
        click.echo(line)


def affected_lines(exposures: Iterable[Exposure]) -> list[str]:
    """Return one line for each weakness that affects a launch."""
    return [
        f"advisory {exposure.advisory.id}: {exposure.advisory.title}: {exposure.advisory.action}"
        for exposure in exposures
        if exposure.verdict is AdvisoryVerdict.AFFECTED
    ]


def documents(exposures: Iterable[Exposure]) -> list[dict[str, object]]:
    """Return every weakness with its verdict, for a JSON document."""
    return [
        {"verdict": exposure.verdict.value, "reason": exposure.reason}
        | _document(exposure.advisory)
        for exposure in exposures
    ]


def _document(advisory: Advisory) -> dict[str, object]:
    return {
        "id": advisory.id,
        "title": advisory.title,
        "generations": list(advisory.generations or GENERATIONS),
        "fixed": {name: list(firmware) for name, firmware in advisory.fixed.items()},
        "unfixed": list(advisory.unfixed),
        "not_affected": advisory.not_affected and asdict(advisory.not_affected),
        "if_policy": list(advisory.if_policy),
        "unless_policy": list(advisory.unless_policy),
        "unseen": advisory.unseen or None,
        "action": advisory.action,
        "sure": advisory.sure,
        "sources": list(advisory.sources),
    }


def _listed(*, verbose: bool) -> Iterable[str]:
    for advisory in load():
        yield f"{advisory.id}: {advisory.title} ({', '.join(advisory.generations) or 'all'})"
        if verbose:
            yield from _details(advisory)


def _grouped(exposures: Sequence[Exposure], *, verbose: bool) -> Iterable[str]:
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
    for generation, firmware in advisory.fixed.items():
        yield f"    fixed: {generation} {firmware_text(firmware)}"
    if spared := advisory.not_affected:
        yield f"    not affected: {', '.join(spared.generations)}: {spared.reason}"
    yield f"    source: {SURE[advisory.sure]}: {', '.join(advisory.sources)}"
