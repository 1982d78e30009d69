"""The claims of evidence, and what is at hand to recompute them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sev_attest.cli.evidence.document import MeasuredPart

if TYPE_CHECKING:
    from sev_attest.owner.record import LaunchRecord
    from sev_attest.owner.requirements import Requirements
    from sev_attest.sev.chain.roots import Root
    from sev_attest.snp.roots import Root as SnpRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim of evidence: what the file says of it, and what was found.

    ``found`` is None if it could not be recomputed; ``why`` says why, or what it rests on.
    ``needed`` marks a claim that the verdict itself rests on.
    """

    check: str
    claimed: bool | None
    found: bool | None
    why: str = ""
    needed: bool = False

    @property
    def agrees(self) -> bool:
        """Whether what was found is what the file says, or nothing was found."""
        return self.found is None or self.found == self.claimed

    @property
    def known(self) -> bool:
        """Whether it was recomputed, or nobody claims it."""
        return self.found is not None or self.claimed is None

    @property
    def words(self) -> str:
        """What was found, in a word or two."""
        if not self.agrees:
            return "DIFFERS"
        return {True: "holds", False: "fails", None: "not recomputed"}[self.found]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtHand:
    """What is at hand beside the file.

    ``measured`` is the guest that was described. ``record`` is that of the session, under its keys.
    """

    roots: "list[Root]" = field(default_factory=list)
    snp_roots: "list[SnpRoot]" = field(default_factory=list)
    tik: bytes | None = field(default=None, repr=False)
    record: "LaunchRecord | None" = None
    requirements: "Requirements | None" = None
    measured: MeasuredPart | None = None


def same(check: str, holds: bool, why: str, why_not: str) -> Claim:  # noqa: FBT001
    """Return a claim that every such evidence makes, and whether it holds."""
    return Claim(check=check, claimed=True, found=holds, why=why if holds else why_not, needed=True)


def checks_again(
    every: Mapping[str, str],
    held: frozenset[str],
    failed: Mapping[str, str],
    claimed: Mapping[str, bool | None],
) -> Iterator[Claim]:
    """Yield a claim for every check of a verification that was made again."""
    for check, words in every.items():
        found = True if check in held else False if check in failed else None
        claim, why = claimed.get(check), failed.get(check, words)
        if found is None and claim is not None:
            found = False  # the file says more than its bytes can show
            why = f"the file does not show that {words}"
        yield Claim(
            check=check, claimed=claim, found=found, why=why,
            needed=found is not None,
        )  # fmt: skip
