"""Make the evidence of what a command has at hand. What is not named here cannot be in it."""

import hashlib
import platform
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, cast

import click

from sev_attest.cli.evidence.document import (
    SCHEMA,
    AdvisoryPart,
    CheckResult,
    EventPart,
    Evidence,
    InputFile,
    Problem,
    RequirementsPart,
    Software,
    StepPart,
)
from sev_attest.cli.evidence.keep import Kept, Outcome
from sev_attest.cli.evidence.texts import base_name, repeat_command, scrubber
from sev_attest.cli.evidence.values import (
    chain_part,
    launch_part,
    measured_part,
    record_part,
    report_part,
)
from sev_attest.cli.options.boot import KERNEL
from sev_attest.errors import ChainInvalid, Failure, RequirementsNotMet, SevAttestError
from sev_attest.sev.chain.verify import CHECKS as CHAIN_CHECKS
from sev_attest.sev.digest import MeasuredGuest
from sev_attest.sev.launch import CHECKS as LAUNCH_CHECKS

Scrub = Callable[[str], str]
_MOST_EVENTS = 200
"""Events of one session in the evidence; an honest one has fewer than ten."""


def evidence_of(kept: Kept, outcome: Outcome) -> Evidence:
    """Return the evidence of a verdict, for the command that is running."""
    context = click.get_current_context()
    scrub = scrubber(context.params)
    events, lacking = _events(kept)
    notes = [*outcome.notes, *lacking]
    reported, measured = kept.reported, kept.measured
    record = reported and reported.record
    launch, report = None if reported is None else launch_part(reported), report_part(kept)
    judged = launch is not None or report is not None
    required = _requirements(kept, outcome)
    return {
        "schema": SCHEMA,
        "command": kept.command,
        "ok": outcome.error is None,
        "exit": outcome.exit_code,
        "summary": scrub(_summary(kept, outcome)),
        "errors": [_problem(one, scrub) for one in outcome.failures],
        "checks": list(_checks(kept, outcome, scrub)),
        "notes": [scrub(note) for note in notes],
        "chain": chain_part(kept),
        "record": None if record is None else record_part(record),
        "launch": launch,
        "report": report,
        "measured": None if measured is None else measured_part(measured),
        "requirements": required,
        "advisories": list(_advisories(kept, outcome)),
        "ledger": events,
        "steps": [
            StepPart(step=one["step"], detail=scrub(one["detail"]))
            for one in cast("list[dict[str, str]]", outcome.facts.get("steps", []))
        ],
        "inputs": list(_inputs(kept, context.params)),
        "repeat": repeat_command(
            context,
            kept.places,
            launch=launch is not None,
            guest=judged and measured is not None,
            requirements=required is not None,
        ),
        "software": _software(),
    }


def _software() -> Software:
    from importlib.metadata import version

    from sev_attest import __version__

    return {
        "sev_attest": __version__,
        "python": platform.python_version(),
        "cryptography": version("cryptography"),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


_SUMMARY = {
    "validate": "the measurement is that of the guest that its owner meant to start",
    "launch": "the measurement is that of the guest that its owner meant to start, and it runs",
}


def _summary(kept: Kept, outcome: Outcome) -> str:
    """Return the verdict in one sentence."""
    if outcome.failures:
        return outcome.failures[0].message
    if kept.verified is not None:
        from sev_attest.cli.snp_verdict import first_line

        released = outcome.facts.get("secrets")
        return first_line(kept.verified) + (f"; {_told(outcome)}" if released else "")
    if kept.command in _SUMMARY:
        return _SUMMARY[kept.command]
    return f"the chain leads to a trusted root: {kept.root and kept.root.name}"


def _told(outcome: Outcome) -> str:
    """Return what was released, and to whom."""
    count, key = outcome.facts["secrets"], cast("dict[str, str]", outcome.facts["transport_key"])
    secrets = "1 secret was" if count == 1 else f"{count} secrets were"
    whose = f"{key['kem']} key of {outcome.facts['challenge']} (SHA-384 {key['sha384']})"
    return f"{secrets} sealed to the {whose}"


def _problem(failure: Failure, scrub: Scrub) -> Problem:
    return {
        "check": failure.check,
        "message": scrub(failure.message),
        "hint": scrub(failure.hint),
    }


def _checks(kept: Kept, outcome: Outcome, scrub: Scrub) -> Iterator[CheckResult]:
    """Yield every check of the chain, then those of the command, and whether each held."""
    error = outcome.error
    failed = {f.check for f in error.failures} if isinstance(error, ChainInvalid) else set()
    held = error.held if isinstance(error, ChainInvalid) else CHAIN_CHECKS.keys()
    if kept.chain is not None and (failed or kept.root is not None):
        for check, words in CHAIN_CHECKS.items():
            ok = True if check in held else False if check in failed else None
            yield {"id": check, "ok": ok, "meaning": words}
    meanings = {**LAUNCH_CHECKS, **(kept.case.checks if kept.case else {})}
    seen = set(CHAIN_CHECKS)
    for one in cast("list[dict[str, Any]]", outcome.facts.get("checks", [])):
        if one["id"] not in seen:  # a requirement may fail for several reasons: see the errors
            seen.add(one["id"])
            meaning = meanings.get(one["id"], scrub(one.get("detail", "")))
            yield {"id": one["id"], "ok": one["ok"], "meaning": meaning}


def _requirements(kept: Kept, outcome: Outcome) -> RequirementsPart | None:
    if kept.requirements is None:
        return None
    met = cast("dict[str, str] | None", outcome.facts.get("requirements")) or {}
    unmet = isinstance(outcome.error, RequirementsNotMet)
    return {
        "fingerprint": kept.requirements.fingerprint,
        "met": True if met else False if unmet else None,
        "launch": met.get("launch"),
        "guest": met.get("guest"),
    }


def _advisories(kept: Kept, outcome: Outcome) -> Iterator[AdvisoryPart]:
    """Yield each known weakness with its verdict: those of the release, or of the report."""
    if kept.verified is not None:
        from sev_attest.owner.snp_advisories import evaluate

        for each in evaluate(kept.verified.product.value.lower(), kept.verified.report):
            one = each.advisory
            yield {"id": one.id, "title": one.title, "verdict": each.verdict.value,
                   "reason": each.reason}  # fmt: skip
    for fields in cast("list[dict[str, str]]", outcome.facts.get("advisories", [])):
        yield {"id": fields["id"], "title": fields["title"], "verdict": fields["verdict"],
               "reason": fields["reason"]}  # fmt: skip


def _events(kept: Kept) -> tuple[list[EventPart], list[str]]:
    """Return what the ledger has of the session, and a note if it cannot be read."""
    if kept.ledger is None or kept.session_id is None:
        return [], []
    try:
        opened = kept.ledger.open(create=False)
        if opened is None:
            return [], []
        with opened:
            found = [*islice(opened.events(kept.session_id), _MOST_EVENTS)]
    except SevAttestError as error:
        return [], [f"the ledger's history is not in this evidence: {error}"]
    names = ("seq", "time", "session_id", "kind", "detail", "previous", "hash")
    rows = (dict(zip(names, one.to_row(), strict=True)) for one in found)
    return cast("list[EventPart]", list(rows)), []


def _inputs(kept: Kept, values: Mapping[str, object]) -> Iterator[InputFile]:
    """Yield the inputs whose bytes are not in the evidence, and the report's."""
    guest = kept.measured.guest if kept.measured else None
    if isinstance(guest, MeasuredGuest):  # of SEV-SNP's firmware, only the pages are hashed
        place = values.get("firmware") or "as the host names it"
        yield _input("firmware", str(place), guest.firmware.sha256, guest.firmware.size)
    kernel = guest.kernel if guest else None
    for name in KERNEL:
        if kernel is not None and values.get(name) is not None:
            place = "command line" if name == "cmdline" else str(values[name])
            yield _input(name, place, getattr(kernel, name))
    if kept.case is not None:
        raw = kept.case.evidence.report.raw
        yield _input("report", str(values["report"]), hashlib.sha256(raw).digest(), len(raw))


def _input(what: str, place: str, digest: bytes, size: int | None = None) -> InputFile:
    return {"what": what, "name": base_name(place), "size": size, "sha256": digest.hex()}
