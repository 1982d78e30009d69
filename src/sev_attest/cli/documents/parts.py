"""What documents have in common."""

import json
from collections.abc import Mapping
from typing import Annotated, Literal, TypedDict


def rules(keywords: Mapping[str, object]) -> str:
    """Return what JSON Schema demands of a value beyond its type, for ``Annotated``."""
    return json.dumps(keywords)  # metadata must be hashable


def one_of(*values: str) -> str:
    """Return what a text is held to that is one of these."""
    return rules({"enum": values})


Hex = Annotated[str, rules({"pattern": "^([0-9a-f]{2})*$"})]
"""Bytes as lower-case hex digits."""
Hex16 = Annotated[str, rules({"pattern": "^[0-9a-f]{32}$"})]
Hex32 = Annotated[str, rules({"pattern": "^[0-9a-f]{64}$"})]
Hex48 = Annotated[str, rules({"pattern": "^[0-9a-f]{96}$"})]
Fingerprint = Annotated[str, rules({"pattern": "^([0-9a-f]{64}|[0-9a-f]{96})$"})]
"""SHA-256, or for AMD's keys from Milan on SHA-384, of a certificate's signed bytes."""
Hex64 = Annotated[str, rules({"pattern": "^[0-9a-f]{128}$"})]
Base64 = Annotated[str, rules({"pattern": "^[A-Za-z0-9+/]*={0,2}$"})]
"""Bytes as base64, on one line."""
Count = Annotated[int, rules({"minimum": 0})]
Byte = Annotated[int, rules({"minimum": 0, "maximum": 0xFF})]
Policy32 = Annotated[int, rules({"minimum": 0, "maximum": 0xFFFF_FFFF})]
Api = Annotated[list[Byte], rules({"minItems": 2, "maxItems": 2})]
"""Major and minor version."""
Time = Annotated[str, rules({"format": "date-time"})]
"""ISO 8601 with a time zone."""
Head = Annotated[str, rules({"pattern": "^[0-9]+:[0-9a-f]{64}$"})]
"""COUNT:HASH, the last event of a ledger."""
AnyGeneration = Annotated[str, one_of("naples", "rome", "milan", "genoa", "turin")]
SnpName = Annotated[str, one_of("milan", "genoa", "turin")]
Affects = Annotated[str, one_of("affected", "attestation cannot see this", "not affected")]
Sureness = Annotated[str, one_of("cve", "doc", "src", "thr", "inf")]
SnpProduct = Annotated[str, one_of("Milan", "Genoa", "Turin")]


class Done(TypedDict):
    """What every command says on success."""

    ok: Literal[True]
    """The command succeeded; for a verdict: verified."""


class Noted(Done):
    """What commands say that have something to add."""

    notes: list[str]
    """Remarks for people: what a verdict leaves open, what is insecure."""


class Failure(TypedDict):
    """One reason why a command failed."""

    check: str
    """The id of the check; it is stable."""
    message: str
    """What is wrong, for people."""
    hint: str
    """What to do about it; may be empty."""


class Failed(TypedDict):
    """What a command says on failure."""

    ok: Literal[False]
    """The command failed; for a verdict: not verified."""
    exit: Literal[1, 2, 3, 4, 5, 6, 70]
    """The exit code."""
    errors: list[Failure]
    """Every failure, at least one."""


class Refused(Failed):
    """A failure with what was known by then: any field of the success may be there."""


class Bound(TypedDict):
    """The launch that used a session or challenge before."""

    measurement: Base64
    """Its measurement; of SEV-SNP: SHA-384 of its report."""
    at: str
    """When it was accepted."""


class Reused(TypedDict, total=False):
    """What a failure says of a session or challenge that was used before."""

    session_id: Hex32
    """Its id in the ledger."""
    bound: Bound
    """The launch that used it."""


class Check(TypedDict):
    """The result of one check."""

    id: str
    """The id of the check; it is stable."""
    ok: bool | None
    """Whether it held; null if it was not made."""


class DetailedCheck(Check):
    """The result of one check, in words."""

    detail: str
    """What it guarantees, or why it failed."""


Fingerprints = dict[Annotated[str, one_of("PDH", "PEK", "OCA", "CEK", "ASK", "ARK")], Fingerprint]
"""The fingerprint of each certificate of a chain, as sevctl prints it."""


class KernelHashes(TypedDict):
    """What is measured of a kernel that is booted directly."""

    kernel: Hex32
    """SHA-256 of the kernel."""
    initrd: Hex32
    """SHA-256 of the initrd."""
    cmdline: Hex32
    """SHA-256 of the command line, with its zero byte."""


class Finding(TypedDict):
    """One place in domain XML that breaks one rule."""

    id: str
    """The id of the rule; it is stable."""
    severity: Annotated[str, one_of("E", "W", "I")]
    """E: it will not start, or cannot be attested; W: a risk; I: good to know."""
    line: Count
    """The line in the XML, from 1."""
    path: str
    """The element, like XPath."""
    message: str
    """What is wrong."""
    fix: str
    """What to do about it."""
    source: str
    """The document that demands it."""
    mendable: bool
    """Whether `domain prepare` can fix it."""


class SpecificGenerations(TypedDict):
    """Generations that a source rules out."""

    generations: list[AnyGeneration]
    """The generations that are not affected."""
    reason: str
    """Why they are not."""
    source: str
    """Where that is said."""


class AnyWeakness(TypedDict):
    """A known weakness, of whatever platforms."""

    id: str
    """Its CVE, or a name."""
    title: str
    """What it is."""
    not_affected: SpecificGenerations | None
    """Generations that a source rules out."""
    if_policy: list[str]
    """Only policies with one of these names are affected; empty: any."""
    unless_policy: list[str]
    """Policies with one of these names are not affected."""
    unseen: str | None
    """Why attestation cannot show that a launch is free of it."""
    action: str
    """What the owner can do."""
    sure: Sureness
    """What this is based on: a CVE record, a document, source code, a thread, a conclusion."""
    sources: list[str]
    """Where that is said."""


class Weakness(AnyWeakness):
    """A known weakness of SEV platforms."""

    generations: list[AnyGeneration]
    """The generations that are affected."""
    fixed: dict[AnyGeneration, list[Byte]]
    """The first fixed firmware of each generation: API major, API minor, build."""
    unfixed: list[AnyGeneration]
    """Generations that get no fix."""


class Exposed(Weakness):
    """A known weakness, and whether it affects a launch."""

    verdict: Affects
    """Whether it affects the launch."""
    reason: str
    """Why."""


class Change(TypedDict):
    """A difference from what was stated that makes a measurement match."""

    hypothesis: str
    """The ids of what differs, joined by +."""
    detail: str
    """What differs, in words."""
    changes: dict[str, object]
    """The options to change, each with its value."""
    meaning: str
    """What it means for security; empty for a slip of the owner's."""
    command: str | None
    """The corrected command; null if it would read an input that can be read only once."""


class Search(TypedDict):
    """How far a search for the cause went."""

    tried: Count
    """The number of combinations that were tried."""
    complete: bool
    """Whether everything at hand was tried."""
    ruled_out: list[str]
    """What is not the cause."""
