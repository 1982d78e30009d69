"""``sev-attest evidence verify``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Command
from sev_attest.cli.evidence.claims import Claim
from sev_attest.cli.evidence.document import STRUCTURE, Evidence
from sev_attest.cli.evidence.reader import MAX_FILE, from_bytes
from sev_attest.cli.evidence.recompute import recompute
from sev_attest.cli.inputs import FILE, read_small
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.evidence_verify import RecomputeOptions
from sev_attest.cli.options.snp_guest import SnpGuestOptions
from sev_attest.cli.usage import refuse
from sev_attest.errors import Insecure, NotVerified, SevAttestError, reading

if TYPE_CHECKING:
    from sev_attest.cli.documents.evidence import EvidenceFacts, RecomputedClaim

_SHOWN = 3
_WIDTH = 15


@click.command(
    "verify",
    cls=Command,
    examples=("sev-attest evidence verify vm1.json --tik vm1_tik.bin --firmware OVMF.fd",),
)
@click.argument("file", type=FILE)
@RecomputeOptions.given("options")
@SnpGuestOptions.given("guest")
@OutputOptions.given("output")
def command(
    *, file: str, options: RecomputeOptions, guest: SnpGuestOptions, output: OutputOptions
) -> None:
    """Recompute what saved evidence claims, from its own bytes and the inputs given here.

    Chains and SEV-SNP reports are verified up to AMD's pinned roots, or those of --trust-root. A
    measurement needs the TIK (--tik). A launch digest is what FILE says, unless the guest is
    described (--firmware ...); for SEV and SEV-ES, --vmsa-profile takes the names that `validate`
    takes. Requirements are judged again with --requirements; those of a launch need its record too
    (--record). Every claim is listed with what was found.

    The exit code is 0 if everything that the verdict rests on was recomputed and holds; 1 if
    something does not hold, and for the evidence of a refusal; 3 if something of it could not be
    recomputed.
    """
    refuse(options.errors(file, guest))
    with reading(file):
        evidence = from_bytes(read_small(file, STRUCTURE, MAX_FILE))
        refuse(options.guest_errors(evidence, guest))
        at_hand = options.read(evidence, guest, progress=output.text)
        claims = recompute(evidence, at_hand)
    error = _verdict(evidence, claims, insecure=options.insecure)
    notes = list(_notes(evidence, claims))
    facts: EvidenceFacts = {
        "of": evidence["command"],
        "summary": evidence["summary"],
        "refusal": not evidence["ok"],
        "claims": [_facts_of(one) for one in claims],
        "notes": notes,
    }
    if output.text:
        whole = all(one.known for one in claims)
        words = f"NOT VERIFIED: {_REFUSED[error.check]}" if error else f"OK: {_WORDS[whole]}"
        terminal.say(words)
        for one in (one for one in claims if one.claimed is not None or one.found is not None):
            line = f"{one.words:<{_WIDTH}}{one.check:<26} {one.why}"
            click.echo(render.one_line(line.rstrip()))
    if error is not None:
        error.facts = {**facts}
        for note in notes:
            error.add_note(note)
        raise error
    if output.as_json:
        render.document("evidence verify", ok=True, **facts)
    elif output.text:
        render.notes(notes)


_REFUSED = {
    "evidence.claims": "the evidence is wrong: do not rely on it",
    "evidence.refusal": "this is the evidence of a refusal",
    "evidence.partial": "not everything that the verdict rests on was recomputed",
}
_WORDS = {
    True: "everything that the evidence claims was recomputed, and holds",
    False: "what could be recomputed of the evidence holds",
}


def _facts_of(claim: Claim) -> "RecomputedClaim":
    return {
        "check": claim.check,
        "claimed": claim.claimed,
        "found": claim.found,
        "why": claim.why,
        "needed": claim.needed,
        "agrees": claim.agrees,
    }


def _verdict(evidence: Evidence, claims: list[Claim], *, insecure: bool) -> SevAttestError | None:
    """Return why the evidence is not accepted; None if it is."""
    wrong = [one for one in claims if not one.agrees]
    if wrong:
        words = "; ".join(f"{one.check}: {one.why}" for one in wrong[:_SHOWN])
        message = f"{_counted(wrong)} not hold: {words}"
        hint = "do not rely on this file, unless you gave something of another verdict; "
        hint += "a root that is not AMD's is named with --trust-root"
        return NotVerified(message, check="evidence.claims", hint=hint)
    if not evidence["ok"]:
        message = f"this is the evidence of a refusal: {evidence['summary']}"
        return NotVerified(message, check="evidence.refusal")
    lacking = [one for one in claims if one.needed and one.found is None]
    if lacking and not insecure:
        words = "; ".join(f"{one.check}: {one.why}" for one in lacking[:_SHOWN])
        return Insecure(
            f"the verdict rests on what was not recomputed: {words}",
            check="evidence.partial",
            hint="give what it needs; --insecure accepts that the file says it",
        )
    return None


def _counted(wrong: list[Claim]) -> str:
    return "1 claim does" if len(wrong) == 1 else f"{len(wrong)} claims do"


def _notes(evidence: Evidence, claims: list[Claim]) -> Iterator[str]:
    """Yield what the verdict leaves open."""
    for one in claims:
        if one.found is None and one.needed:
            yield f"INSECURE: {one.check} was not recomputed: {one.why}"
        elif not one.known:
            yield f"{one.check} was not recomputed: {one.why}"
    if evidence["advisories"]:
        yield "the advisories are those of its time (`sev-attest advisories` has today's)"
