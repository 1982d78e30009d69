"""The lists of known weaknesses that are part of the package."""

from typing import Annotated, Literal, NotRequired, TypedDict

from sev_attest.cli.documents.files import Text
from sev_attest.cli.documents.parts import (
    AnyGeneration,
    Byte,
    SnpName,
    SpecificGenerations,
    Sureness,
    one_of,
    rules,
)

Id = Annotated[str, rules({"pattern": "^(CVE-[0-9]{4}-[0-9]{4,7}|[a-z0-9]+(-[a-z0-9]+)*)$"})]
Bytes3 = Annotated[list[Byte], rules({"minItems": 3, "maxItems": 3})]
PolicyName = Annotated[
    str, one_of("no-debug", "no-key-sharing", "es", "no-send", "domain", "sev", "min-api")
]


class AnyEntry(TypedDict):
    """A known weakness, of whatever platforms."""

    id: Id
    """Its CVE, or a name."""
    title: Text
    """What it is."""
    action: Text
    """What the owner can do."""
    sure: Sureness
    """What this is based on: a CVE record, a document, source code, a thread, a conclusion."""
    sources: Annotated[list[Text], rules({"minItems": 1})]
    """Where that is said."""
    not_affected: NotRequired[SpecificGenerations]
    """Generations that a source rules out."""
    unseen: NotRequired[Text]
    """Why attestation cannot show that a launch is free of it."""


class AdvisoryEntry(AnyEntry):
    """A known weakness of SEV and SEV-ES."""

    generations: NotRequired[Annotated[list[AnyGeneration], rules({"minItems": 1})]]
    """The generations that are affected; without it all."""
    fixed: NotRequired[Annotated[dict[AnyGeneration, Bytes3], rules({"minProperties": 1})]]
    """The first fixed firmware of each generation: API major, API minor, build."""
    unfixed: NotRequired[Annotated[list[AnyGeneration], rules({"minItems": 1})]]
    """Generations that get no fix."""
    if_policy: NotRequired[Annotated[list[PolicyName], rules({"minItems": 1})]]
    """Only policies with one of these names are affected."""
    unless_policy: NotRequired[Annotated[list[PolicyName], rules({"minItems": 1})]]
    """Policies with one of these names are not affected."""


class AdvisoriesFile(TypedDict):
    """advisories.toml: the known weaknesses of SEV and SEV-ES that are part of this package."""

    as_of: Annotated[object, rules({})]
    """The day on which all were last checked: a TOML date."""
    advisory: Annotated[list[AdvisoryEntry], rules({"minItems": 1})]
    """Every weakness."""


Components = Annotated[dict[str, Byte], rules({"minProperties": 1})]
SnpPolicyName = Annotated[
    str,
    one_of(
        "smt",
        "migrate-ma",
        "debug",
        "cxl-allow",
        "single-socket",
        "mem-aes-256-xts",
        "rapl-dis",
        "ciphertext-hiding-dram",
        "page-swap-disable",
    ),
]
PlatformName = Annotated[
    str,
    one_of(
        "smt-en",
        "tsme-en",
        "ecc-en",
        "rapl-dis",
        "ciphertext-hiding-dram-en",
        "alias-check-complete",
        "iommu-write-safe",
        "tio-en",
    ),
]


class SnpAdvisoryEntry(AnyEntry):
    """A known weakness of SEV-SNP."""

    generations: NotRequired[Annotated[list[SnpName], rules({"minItems": 1})]]
    """The products that are affected; without it all."""
    fixed: NotRequired[Annotated[dict[SnpName, Bytes3], rules({"minProperties": 1})]]
    """The first fixed firmware of each product: major, minor, build."""
    tcb: NotRequired[Annotated[dict[SnpName, Components], rules({"minProperties": 1})]]
    """The first fixed version of components, by product."""
    platform: NotRequired[Annotated[list[PlatformName], rules({"minItems": 1})]]
    """Bits of platform_info that the fix sets."""
    forges: NotRequired[Literal[True]]
    """Whoever uses it can make a report say anything."""
    unfixed: NotRequired[Annotated[list[SnpName], rules({"minItems": 1})]]
    """Products that get no fix."""
    if_policy: NotRequired[Annotated[list[SnpPolicyName], rules({"minItems": 1})]]
    """Only policies with one of these names are affected."""
    unless_policy: NotRequired[Annotated[list[SnpPolicyName], rules({"minItems": 1})]]
    """Policies with one of these names are not affected."""


class SnpAdvisoriesFile(TypedDict):
    """snp_advisories.toml: the known weaknesses of SEV-SNP that are part of this package."""

    as_of: Annotated[object, rules({})]
    """The day on which all were last checked: a TOML date."""
    advisory: Annotated[list[SnpAdvisoryEntry], rules({"minItems": 1})]
    """Every weakness."""


UNVERSIONED = (AdvisoriesFile, SnpAdvisoriesFile)
"""Files of the package itself, which name no version."""
