"""``sev-attest requirements``."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from sev_attest.cli import render, snp_requirements, terminal
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.inputs import FILE, OUTPUT, STDIN, read_small
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.outputs import write_all
from sev_attest.cli.usage import usage
from sev_attest.errors import MalformedInput, reading
from sev_attest.owner.advisories import GENERATIONS, MIN_API, AdvisoryVerdict, evaluate, load
from sev_attest.owner.requirements import ANY, Requirements
from sev_attest.sev.policy import BITS, GuestPolicy

if TYPE_CHECKING:
    from sev_attest.cli.documents.requirements import Allows


@click.group("requirements", cls=Group, examples=("sev-attest requirements check owner.toml",))
def command() -> None:
    """Write and check owner.toml: what you demand of a launch beyond a correct measurement."""


@command.command("init", examples=("sev-attest requirements init",))
@click.argument("path", type=OUTPUT, default="owner.toml", metavar="[FILE]")
@bare_option("--force", is_flag=True, help="Write over a file that exists.")
@OutputOptions.given("output")
def init(*, path: str, force: bool, output: OutputOptions) -> None:
    """Write an owner.toml that allows nothing yet, and explains each line."""
    text = (files("sev_attest.owner") / "template.toml").read_bytes()
    write_all([(Path(path), text)], force=force)
    if output.as_json:
        render.document("requirements init", ok=True, file=path)
    elif output.text:
        click.echo(f"wrote {render.one_line(path)}: it allows nothing until you fill it in")


@command.command("check", examples=("sev-attest requirements check owner.toml",))
@click.argument("path", type=FILE, metavar="FILE")
@OutputOptions.given("output")
def check(*, path: str, output: OutputOptions) -> None:
    """Read owner.toml as `validate --requirements` does, and show what it allows."""
    found = read_requirements(path)
    now = datetime.now(UTC)
    notes, possible = _notes(found, now)
    if output.as_json:
        facts = _facts(found, now)
        render.document(
            "requirements check",
            ok=True,
            possible=possible,
            allows=cast("Allows", facts),
            notes=notes,
        )
    elif output.text:
        told = "can be used" if possible else "is valid, but no launch can meet it yet"
        terminal.say(f"OK: {render.one_line(path)} {told}")
        for line in _every_line(found, now, verbose=output.verbose):
            click.echo(render.one_line(line))
        render.notes(notes)


def read_requirements(path: str) -> Requirements:
    """Read owner.toml; the manifests that it names are relative to its folder."""

    def manifest(name: str) -> bytes:
        if path == STDIN:
            raise usage("requirements from standard input can name no manifest")
        place = Path(path).parent / name
        if place.exists() and not place.is_file():
            raise MalformedInput("manifest", "format", f"{place} is no file")
        return read_small(str(place), "manifest")

    with reading(path):
        return Requirements.from_toml(read_small(path, "requirements"), manifest=manifest)


_LISTS = ("generations", "ceks", "platform_ids", "pdhs")
_DENIED = ("denied_ceks", "denied_platform_ids", "denied_pdhs")


def _facts(found: Requirements, now: datetime) -> dict[str, Any]:
    """Return what is allowed, for a JSON document."""
    lists = (*_LISTS, *_DENIED, "acknowledged", "refused")
    return {
        **{name: sorted(getattr(found, name)) for name in lists},
        "minimum": {
            name: {"api": "{}.{}".format(*least.api), "build": least.build}
            for name, least in found.minimum.items()
        },
        "policy": {
            "set": [name for bit, (name, _, _) in BITS.items() if bit in found.policy_set],
            "clear": [name for bit, (name, _, _) in BITS.items() if bit in found.policy_clear],
            "minimum_api": _needs_min_api(found),
        },
        "launches": [
            {
                "name": one.name,
                "digests": {digest.hex(): words for digest, words in one.digests.items()},
                "expires": one.expires and one.expires.isoformat(),
                "expired": one.expired(now),
                "note": one.note,
            }
            for one in found.launches
        ],
        "snp": found.snp and snp_requirements.facts(found.snp, now),
    }


def _filled_in(found: Requirements) -> tuple[bool, bool]:
    """Return whether to speak of SEV (with SEV-ES), and of SEV-SNP.

    The one that nobody filled in is no mistake, unless neither was.
    """
    if found.snp is None:
        return True, False
    sev, snp = bool(found.generations or found.launches), snp_requirements.used(found.snp)
    return sev or not snp, snp or not sev


def _every_line(found: Requirements, now: datetime, *, verbose: bool) -> Iterator[str]:
    """Yield what is allowed of either technology, as lines of text."""
    sev, snp = _filled_in(found)
    if sev:
        yield from _lines(found, now, verbose=verbose)
    else:
        yield "SEV and SEV-ES: no launch is allowed"
    if found.snp is not None and snp:
        yield from snp_requirements.lines(found.snp, now, verbose=verbose)
    else:
        yield "SEV-SNP: no guest is allowed"


def _lines(found: Requirements, now: datetime, *, verbose: bool) -> Iterator[str]:
    """Yield what is allowed, as lines of text."""
    facts = _facts(found, now)
    for name in (*_LISTS, *_DENIED, "acknowledged", "refused"):
        words = "any" if ANY in facts[name] else ", ".join(facts[name])
        if words or name in _LISTS:
            yield f"{name.replace('_', ' ')}: {words or 'none'}"
    for name, least in facts["minimum"].items():
        yield f"{name}: SEV API {least['api']} build {least['build']} or later"
    for words in ("set", "clear"):
        if names := facts["policy"][words]:
            yield f"policy bits {words}: {', '.join(names)}"
    if facts["policy"]["minimum_api"]:
        yield (
            "policy without a minimum API, such as 0xf: refused (0x3701000f has 1.55), unless "
            "policy-min-api is acknowledged"
        )
    for launch in facts["launches"]:
        end = f"expires {launch['expires']}" if launch["expires"] else "no end"
        end = "EXPIRED" if launch["expired"] else end
        digests = render.count(len(launch["digests"]), "digest")
        line = f"launch {launch['name']}: {digests}, {end} {launch['note']}"
        yield line.rstrip()
        if verbose:
            for digest, words in launch["digests"].items():
                yield f"  {digest} {words}"


def _notes(found: Requirements, now: datetime) -> tuple[list[str], bool]:
    """Return notes on what cannot be met, and whether some launch or report can meet the rest."""
    notes, possible = _sev_notes(found, now)
    if found.snp is None:
        return notes, possible
    more, snp_possible = snp_requirements.notes(found.snp, now)
    sev, snp = _filled_in(found)
    return [*(notes if sev else ()), *(more if snp else ())], possible or snp_possible


def _sev_notes(found: Requirements, now: datetime) -> tuple[list[str], bool]:
    """Return the same of SEV and SEV-ES alone."""
    notes = [
        f"{name.replace('_', ' ')}: the list is empty, so no launch is allowed"
        for name in _LISTS
        if not getattr(found, name)
    ]
    if not any(not launch.expired(now) for launch in found.launches):
        notes.append("there is no launch that has not expired, so none is allowed")
    generations = GENERATIONS if ANY in found.generations else sorted(found.generations)
    blocked = {generation: _blocking(found, generation) for generation in generations}
    possible = not notes and not all(blocked.values())
    notes += [
        f"{generation}: weaknesses of the newest firmware and the strictest policy are "
        f"not acknowledged, so no launch is allowed: {', '.join(ids)}"
        for generation, ids in blocked.items()
        if ids
    ]
    return notes, possible


def _blocking(found: Requirements, generation: str) -> list[str]:
    """Return the weaknesses that nothing but an acknowledgement lets pass."""
    newest = evaluate(
        generation=generation if generation in GENERATIONS else None,
        api=(0xFF, 0xFF),
        build=0xFF,
        policy=GuestPolicy(0xFFFF_003F & ~int(found.policy_clear)),
    )
    return [
        exposure.advisory.id
        for exposure in newest
        if exposure.verdict is AdvisoryVerdict.AFFECTED
        and exposure.advisory.id not in found.acknowledged
    ]


def _needs_min_api(found: Requirements) -> bool:
    """Return whether a policy without a minimum API is refused, however new the firmware is."""
    return any(
        MIN_API in advisory.unless_policy and advisory.id not in found.acknowledged
        for advisory in load()
    )
