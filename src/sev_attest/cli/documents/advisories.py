"""Documents of `advisories`."""

from typing import Annotated, TypedDict

from sev_attest.cli.documents.parts import (
    Affects,
    AnyGeneration,
    AnyWeakness,
    Api,
    Byte,
    Done,
    Exposed,
    Policy32,
    SnpName,
    Weakness,
    rules,
)
from sev_attest.cli.documents.snp import ComponentVersions, Report


class KnownFacts(TypedDict):
    """What is known of a launch; null is unknown."""

    generation: AnyGeneration | None
    """The generation of AMD's chips."""
    api: Api | None
    """The SEV API."""
    build: Byte | None
    """The build of the SEV firmware."""
    policy: Policy32 | None
    """The guest policy."""


class AsOf(Done):
    """What is known on a day."""

    as_of: Annotated[str, rules({"format": "date"})]
    """The day on which the list was last checked."""


class Advisories(AsOf):
    """Known weaknesses, and whether they affect a launch."""

    facts: KnownFacts
    """What is known of the launch."""
    advisories: list[Exposed] | list[Weakness]
    """The weaknesses; with a verdict each if anything is known of the launch."""


class SnpFacts(TypedDict):
    """What is known of a guest of SEV-SNP; null is unknown."""

    product: SnpName | None
    """The product."""
    report: Report | None
    """The report, which was not verified."""
    standing: list[str]
    """What the report says of the platform's firmware, for people."""


class SnpWeakness(AnyWeakness):
    """A known weakness of SEV-SNP."""

    generations: list[SnpName]
    """The products that are affected."""
    fixed: dict[SnpName, list[Byte]]
    """The first fixed firmware of each product: major, minor, build."""
    unfixed: list[SnpName]
    """Products that get no fix."""
    tcb: dict[SnpName, ComponentVersions]
    """The first fixed version of components, by product."""
    platform: list[str]
    """Bits of platform_info that the fix sets."""
    forges: bool
    """Whether whoever uses it can make a report say anything."""


class SnpExposed(SnpWeakness):
    """A known weakness of SEV-SNP, and whether it affects a guest."""

    verdict: Affects
    """Whether it affects the guest."""
    reason: str
    """Why."""


class SnpAdvisories(AsOf):
    """Known weaknesses of SEV-SNP, and whether they affect a guest."""

    facts: SnpFacts
    """What is known of the guest."""
    advisories: list[SnpExposed] | list[SnpWeakness]
    """The weaknesses; with a verdict each if anything is known of the guest."""
