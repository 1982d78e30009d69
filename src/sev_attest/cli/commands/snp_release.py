"""``sev-attest snp release``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.inputs import FILE
from sev_attest.cli.kept import read_challenge, read_transport_key
from sev_attest.cli.options.common import LedgerOptions, OutputOptions, committing, give_up
from sev_attest.cli.options.evidence import EvidenceOptions
from sev_attest.cli.options.snp import SnpTrustOptions
from sev_attest.cli.options.snp_expected import GUEST, open_notes
from sev_attest.cli.options.snp_owner import allowed_as, show_unmet
from sev_attest.cli.options.snp_release import AnswerOptions, SnpReleaseOptions
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.snp_verdict import SnpCase
from sev_attest.cli.usage import refuse
from sev_attest.errors import ReportInvalid, RequirementsNotMet, SevAttestError
from sev_attest.owner.snp_release import SnpRelease
from sev_attest.snp.expected import Expected

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.snp.sealed import SealedSecrets
    from sev_attest.snp.transport import TransportKey


@click.command(
    "release",
    cls=Command,
    examples=(
        (
            "sev-attest snp release answer --challenge vm1.challenge.json "
            "--transport-key answer/transport-key.json --requirements owner.toml "
            "--secret disk:disk.key --out secrets.json"
        ),
    ),
)
@click.argument("report", type=FILE)
@click.argument("certificates", nargs=-1, type=FILE, metavar="[CERT]...")
@AnswerOptions.given("answer")
@SnpTrustOptions.given("options")
@SnpReleaseOptions.given("owner")
@LedgerOptions.given("ledger")
@EvidenceOptions.given("evidence")
@OutputOptions.given("output")
def command(
    *,
    report: str,
    certificates: tuple[str, ...],
    answer: AnswerOptions,
    options: SnpTrustOptions,
    owner: SnpReleaseOptions,
    ledger: LedgerOptions,
    evidence: EvidenceOptions,
    output: OutputOptions,
) -> None:
    """Release secrets to the guest that answered a challenge, once.

    REPORT and CERT are as for `snp verify`: what `guest request` wrote in the guest, and the VCEK
    or VLEK unless it came with the report. The report must answer the challenge with the transport
    key, and meet the requirements. Then the ledger notes the release, and the secrets are written,
    sealed to that key: only this guest can open them (`guest open`).
    """
    files = (answer.challenge, answer.transport_key, *owner.files)
    refuse(options.errors(report, certificates, files), owner.errors(), evidence.errors())
    with evidence.kept("snp-release", force=owner.force) as kept:
        _release(report, certificates, answer, options, owner, ledger=ledger, output=output,
                 kept=kept)  # fmt: skip


def _release(
    report: str,
    certificates: tuple[str, ...],
    answer: AnswerOptions,
    options: SnpTrustOptions,
    owner: SnpReleaseOptions,
    *,
    ledger: LedgerOptions,
    output: OutputOptions,
    kept: Kept,
) -> None:
    """Verify a report, release the secrets to its guest, and print the verdict."""
    challenge = read_challenge(answer.challenge)
    key = read_transport_key(answer.transport_key)
    secrets = owner.secrets()
    whole = kept.requirements = owner.read_requirements()
    sourced = owner.secret_source is not None
    requirements = whole.for_snp_secrets(owner.launch, sourced=sourced)
    received = evidence_of(report, content_at(report))
    found, roots = options.read(received.certificates, certificates)
    kept.certificates, kept.ledger = found, ledger
    expected = Expected(report_data=challenge.report_data(key), runtime_data=received.runtime_data)
    case = kept.case = SnpCase(received, expected, None, output)
    try:
        verified = kept.verified = case.verify(found, roots, None)
    except ReportInvalid as error:
        case.refused(error)
        raise
    facts = case.facts(verified)
    left = [note for note in open_notes(received.report, expected) if note != GUEST]
    notes = [*verified.notes, *left, *case.notes]
    why = "a release needs the ledger in which the challenge was made"
    with _told_of(facts), ledger.require(why, create=False) as opened:
        steps = SnpRelease(
            verified,
            key=key,
            challenge=challenge,
            ledger=opened,
            requirements=requirements,
            secrets=secrets,
        )
        kept.session_id = steps.attempt
        try:
            met, sealed = _commit(steps, owner, kept, None if owner.requirements_now else whole)
        except RequirementsNotMet as error:
            show_unmet(error, facts, notes, output)
            raise
        try:
            said = (allowed_as(met, facts), _told(owner, steps, key))
            released = facts | _released(owner, steps, key)
            owner.write(sealed, kept.files(released, notes))
        except BaseException as error:
            give_up(opened, steps.attempt, "the sealed secrets did not get out")
            error.add_note("the one release of this challenge is spent: make a new one")
            raise
    case.accepted(verified, released, notes, *said, command="snp-release")


@contextmanager
def _told_of(facts: dict[str, object]) -> Iterator[None]:
    """Add to a refusal what is known of the report, which itself verifies."""
    try:
        yield
    except SevAttestError as error:
        error.facts = {**facts, **error.facts}
        raise


def _commit(
    steps: SnpRelease, owner: SnpReleaseOptions, kept: Kept, made_under: "Requirements | None"
) -> "tuple[Met, SealedSecrets]":
    """Take the steps; the place for the secrets is tried before the ledger commits."""
    with steps:
        met = steps.check(made_under)
        steps.build()
        owner.check_out(kept.places)
        with committing(steps.attempt, "the challenge may be released, without its secrets"):
            return met, steps.commit()


def _told(owner: SnpReleaseOptions, steps: SnpRelease, key: "TransportKey") -> str:
    count = render.count(steps.secret_count, "secret")
    return f"{count} sealed to the {key.kem.label} key of {steps.own.challenge.name}: {owner.out}"


def _released(
    owner: SnpReleaseOptions, steps: SnpRelease, key: "TransportKey"
) -> dict[str, object]:
    """Return the fields of the document that say what was released, and to whom."""
    return {
        "challenge": steps.own.challenge.name,
        "attempt": steps.attempt,
        "report_sha384": steps.report_digest.hex(),
        "transport_key": {"kem": key.kem.label, "sha384": key.digest.hex()},
        "secrets": steps.secret_count,
        "files": [owner.out],
    }
