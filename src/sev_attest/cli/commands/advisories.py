"""``sev-attest advisories``, and the lines of ``validate`` about known weaknesses."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import click

from sev_attest.cli import render
from sev_attest.cli.inputs import BYTE, POLICY, output_options
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


class _Api(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """An API version, "1.55"."""

    name = "api"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read MAJOR.MINOR."""
        major, _, minor = str(value).partition(".")
        return BYTE.convert(major, param, ctx), BYTE.convert(minor, param, ctx)


@click.command("advisories")
@click.option(
    "--generation",
    type=click.Choice(GENERATIONS, case_sensitive=False),
    help="The platform's generation, as `verify` names it.",
)
@click.option("--api", type=_Api(), metavar="MAJOR.MINOR", help="SEV API version.")
@click.option("--build", type=BYTE, help="SEV firmware build.")
@click.option("--policy", type=POLICY, help="Guest policy.")
@output_options
def command(
    *,
    generation: str | None,
    api: tuple[int, int] | None,
    build: int | None,
    policy: int | None,
    as_json: bool,
    quiet: bool,  # noqa: ARG001 - all of it was asked for
    verbose: bool,
) -> None:
    """List known weaknesses of SEV platforms, and which of them touch a launch.

    The first line says when the list was last checked: it knows nothing of what came later.

    Without options, all of them. With what is known of a launch (its verdict does not come from
    here: see `verify` and `validate`), those that touch it, those that attestation cannot show, and
    those that do not. What is not given counts as not known.
    """
    facts = {"generation": generation, "api": api, "build": build, "policy": policy}
    given = any(value is not None for value in facts.values())
    exposures = evaluate(
        generation=generation,
        api=api,
        build=build,
        policy=None if policy is None else GuestPolicy(policy),
    )
    if as_json:
        entries = documents(exposures) if given else [_document(each) for each in load()]
        day = as_of().isoformat()
        render.document("advisories", ok=True, as_of=day, facts=facts, advisories=entries)
        return
    click.echo(f"known weaknesses as of {as_of()}")
    for line in _grouped(exposures, verbose=verbose) if given else _listed(verbose=verbose):
        click.echo(line)


def affected_lines(exposures: Iterable[Exposure]) -> list[str]:
    """Say in one line each which weaknesses touch a launch (for after its verdict)."""
    return [
        f"advisory {exposure.advisory.id}: {exposure.advisory.title}: {exposure.advisory.action}"
        for exposure in exposures
        if exposure.verdict is AdvisoryVerdict.AFFECTED
    ]


def documents(exposures: Iterable[Exposure]) -> list[dict[str, object]]:
    """Describe what was said of each weakness, for a JSON document."""
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
