"""Documents of `evidence`; ``cli/evidence/document.py`` has the file that it reads."""

from typing import TypedDict

from sev_attest.cli.documents.parts import Done, Refused


class EvidenceShow(Done):
    """The page of saved evidence; nothing was verified."""

    file: str | None
    """The file that was written; null if the page is in `html`."""
    html: str | None
    """The page; null if it was written to a file."""


class RecomputedClaim(TypedDict):
    """A claim of evidence, and what was found when it was recomputed."""

    check: str
    """The id of the check or part."""
    claimed: bool | None
    """What the evidence says; null if it says nothing."""
    found: bool | None
    """What was found; null if it could not be recomputed."""
    why: str
    """Why it could not, or what was found."""
    needed: bool
    """Whether the verdict itself rests on it."""
    agrees: bool
    """Whether what was found is what the evidence says, or nothing was found."""


class EvidenceFacts(TypedDict):
    """Saved evidence, and what was found when it was recomputed."""

    of: str
    """The command whose verdict it is."""
    summary: str
    """What the evidence calls the verdict."""
    refusal: bool
    """Whether it is the evidence of a refusal."""
    claims: list[RecomputedClaim]
    """Every claim."""
    notes: list[str]
    """Remarks for people: what was not recomputed, what is insecure."""


class EvidenceVerify(Done, EvidenceFacts):
    """Evidence that was recomputed, and holds."""


class EvidenceVerifyRefused(Refused):
    """Evidence that does not hold, or is that of a refusal, or was not recomputed."""
