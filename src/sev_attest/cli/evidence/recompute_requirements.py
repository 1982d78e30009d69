"""Judge the owner's requirements of evidence again, on what was verified again.

The owner gives them: the file has their fingerprint alone. They are judged at the time when the
file says that it was made, and by the advisories of this version.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sev_attest.cli.evidence.claims import AtHand, Claim, same
from sev_attest.cli.evidence.document import Evidence, RequirementsPart
from sev_attest.cli.evidence.reader import moment
from sev_attest.errors import NotVerified, RequirementsNotMet, Unsupported

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.sev.launch import VerifiedLaunch
    from sev_attest.snp.verify import VerifiedReport

_CHECK = "requirements"


def judge_again(
    evidence: Evidence,
    at_hand: AtHand,
    launch: "VerifiedLaunch | None",
    report: "VerifiedReport | None",
) -> Iterator[Claim]:
    """Yield whether the requirements are those of the file, and whether they are met.

    ``launch`` and ``report`` are what was verified again from the file; None if nothing was.
    """
    part, given = evidence["requirements"], at_hand.requirements
    if part is None:
        if evidence["command"] == "snp-release" and evidence["ok"]:  # which always asks them
            why = "nothing in the file shows them"
            yield Claim(check=_CHECK, claimed=True, found=False, why=why, needed=True)
        return
    # A success whose requirements were not met, or not asked, contradicts itself.
    claimed = True if evidence["ok"] else part["met"]
    found: bool | None = None
    if given is None:
        why = "they stay with their owner; the file has their fingerprint (--requirements)"
        yield Claim(check=_CHECK, claimed=claimed, found=None, why=why)
        return
    alike = given.fingerprint == part["fingerprint"]
    other = f"other requirements were given: their fingerprint is {given.fingerprint}"
    right = "the requirements that were given are those of the verdict"
    yield same("requirements.fingerprint", alike, right, other)
    why = "they were not judged: something else failed first" if alike else other
    if alike and claimed is not None:
        try:
            met = _asked(evidence, given, at_hand, launch, report)
        except RequirementsNotMet as error:
            first, *more = error.failures
            found, why = False, first.message + (f"; and {len(more)} more" if more else "")
        except (NotVerified, Unsupported) as error:
            found, why = False, str(error)
        else:
            found, why = _compared(evidence, part, met)
    needed = found is not None or (alike and evidence["ok"])
    yield Claim(check=_CHECK, claimed=claimed, found=found, why=why, needed=needed)


def _asked(
    evidence: Evidence,
    given: "Requirements",
    at_hand: AtHand,
    launch: "VerifiedLaunch | None",
    report: "VerifiedReport | None",
) -> "Met | None":
    """Return how they are met; None without anything that they could be asked of.

    They are narrowed to the launch that the file names, which never allows more.
    """
    at = moment(evidence["software"]["made"], "software.made")
    part = evidence["requirements"]
    name = part and part["launch"]
    if report is not None:
        return given.for_snp_secrets(name, sourced=True).require_snp(report, at=at)
    if launch is not None and at_hand.record is not None:
        narrowed = given.for_secrets(name, digest_given=True)
        return narrowed.require(launch, at_hand.record, at=at)
    return None


def _compared(
    evidence: Evidence, part: RequirementsPart, met: "Met | None"
) -> tuple[bool | None, str]:
    """Return whether the file says of them what was found, None if that is not known; and why."""
    if met is None:
        return None, "they were not judged: the launch or report did not verify again"
    words = f"they allow it as launch {met.name}{f' ({met.guest})' if met.guest else ''}"
    if evidence["ok"] or part["met"]:
        alike = (part["launch"], part["guest"]) == (met.name, met.guest)
        said = f"judged at {evidence['software']['made']}, the time that the file states"
        return alike, f"{words}, {said if alike else 'which is not what the file says'}"
    if evidence["command"] == "snp-verify":
        return True, words
    # Secrets are for one launch alone, and a refusal does not say for which.
    return None, f"{words}; the file does not say whether another was asked for (--launch)"
