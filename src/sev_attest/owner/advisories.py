"""Known weaknesses of the platform, and which of them affect a launch.

The weaknesses are data (``advisories.toml``). They are compared with the facts of a launch: the
generation, which the chain proves, and API, build and policy, which the measurement covers.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import cache, lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar, cast

from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.sev.chain.roots import Generation
from sev_attest.sev.policy import BITS, GuestPolicy

GENERATIONS: tuple[str, ...] = tuple(generation.value for generation in Generation)
MIN_API = "min-api"
"""A name like those of the policy's bits: the policy has a minimum API."""
POLICY_NAMES: tuple[str, ...] = (*(name for name, _, _ in BITS.values()), MIN_API)
SURE: Mapping[str, str] = {
    "cve": "a CVE record",
    "doc": "a paper or document",
    "src": "source code",
    "thr": "a public discussion",
    "inf": "a conclusion of our own",
}
"""What an advisory is based on."""

Kind = TypeVar("Kind", bound="Advisory")
_STRUCTURE = "advisories"
_ID = re.compile(r"CVE-[0-9]{4}-[0-9]{4,7}|[a-z0-9]+(-[a-z0-9]+)*")
_BYTE = range(256)
_NUMBERS = 3


class AdvisoryVerdict(StrEnum):
    """Whether a weakness affects a launch."""

    AFFECTED = "affected"
    UNSEEN = "attestation cannot see this"
    NOT_AFFECTED = "not affected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unaffected:
    """Generations that a source rules out, with the reason."""

    generations: tuple[str, ...]
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """One known weakness.

    ``action`` is what the owner can do.
    ``sure`` is a key of :data:`SURE`.
    ``generations`` are those that the sources name; empty if they name all. Nothing is known of a
    generation that is neither there nor in ``not_affected``.
    ``fixed`` is the first fixed firmware by generation, as (API major, API minor, build), where it
    is public.
    ``unfixed`` are the generations that get no fix, and are affected whatever ``unseen`` says.
    ``if_policy`` and ``unless_policy`` are names of :data:`POLICY_NAMES`: only policies with one of
    the former and none of the latter are affected. Empty means any policy.
    ``unseen`` says why attestation cannot show that a launch is free of it; empty if it can.
    """

    id: str
    title: str
    action: str
    sure: str
    sources: tuple[str, ...]
    generations: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[int, int, int]] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )
    unfixed: tuple[str, ...] = ()
    not_affected: Unaffected | None = None
    if_policy: tuple[str, ...] = ()
    unless_policy: tuple[str, ...] = ()
    unseen: str = ""

    @property
    def every(self) -> tuple[str, ...]:
        """Names of all generations that there are."""
        return GENERATIONS

    @property
    def more(self) -> dict[str, object]:
        """Fields that advisories of SEV and SEV-ES do not have, for JSON."""
        return {}

    def fixed_texts(self) -> Iterator[str]:
        """Yield what shows the fix, for each generation."""
        for generation, firmware in self.fixed.items():
            yield f"{generation} {firmware_text(firmware)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisories:
    """The weaknesses that were known on the day ``as_of``."""

    as_of: date
    advisories: tuple[Advisory, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """The verdict on one weakness for one launch, with the reason."""

    advisory: Advisory
    verdict: AdvisoryVerdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    generation: str | None
    api: tuple[int, int] | None
    build: int | None
    policy: frozenset[str] | None


@cache
def _shipped() -> Advisories:
    return parse(resources.files(__package__).joinpath("advisories.toml").read_text("utf-8"))


def load() -> tuple[Advisory, ...]:
    """Return the advisories that are part of this package."""
    return _shipped().advisories


def as_of() -> date:
    """Return the day on which the advisories of :func:`load` were last checked."""
    return _shipped().as_of


@lru_cache(maxsize=64)  # a service asks for the same platform repeatedly
def evaluate(
    *,
    generation: str | None,
    api: tuple[int, int] | None,
    build: int | None,
    policy: GuestPolicy | None,
) -> tuple[Exposure, ...]:
    """Return the verdict on every advisory for a launch, in the order of :func:`load`.

    ``generation`` is one of GENERATIONS, ``api`` (major, minor) and ``build`` are 0 to 255. A fact
    that is unknown is None, as is the generation if the root is not AMD's. An unknown fact never
    counts in the launch's favour.

    Raises Unsupported for an unknown generation, and for numbers outside 0..255.

    Does not verify: the facts. Take them from a verified chain and a verified launch.
    """
    if generation is not None and generation not in GENERATIONS:
        raise Unsupported(
            f"no generation {generation!r}: {', '.join(GENERATIONS)}", check="advisories.generation"
        )
    numbers = (*(api or ()), *(() if build is None else (build,)))
    if not all(number in _BYTE for number in numbers):
        raise Unsupported("API and build are in 0..255", check="advisories.firmware")
    facts = _Facts(
        generation=generation,
        api=api,
        build=build,
        policy=None if policy is None else _names(policy),
    )
    return tuple(_judge(advisory, facts) for advisory in load())


def _names(policy: GuestPolicy) -> frozenset[str]:
    names = {name for bit, (name, _, _) in BITS.items() if bit in policy.bits}
    return frozenset(names | {MIN_API} if any(policy.min_api) else names)


def _judge(advisory: Advisory, facts: _Facts) -> Exposure:
    excluded = _excluded(advisory, facts)
    missing = _missing(advisory, facts)
    if excluded:
        verdict, reason = AdvisoryVerdict.NOT_AFFECTED, excluded
    elif missing:
        verdict, reason = AdvisoryVerdict.UNSEEN, missing
    elif advisory.fixed:
        verdict, reason = _by_firmware(advisory, facts)
    elif advisory.unseen and facts.generation not in advisory.unfixed:
        verdict, reason = AdvisoryVerdict.UNSEEN, advisory.unseen
    else:
        verdict, reason = AdvisoryVerdict.AFFECTED, _touched(advisory, facts)
    return Exposure(advisory=advisory, verdict=verdict, reason=reason)


def _excluded(advisory: Advisory, facts: _Facts) -> str:
    """Return which fact rules the weakness out, or an empty text."""
    if advisory.not_affected and facts.generation in advisory.not_affected.generations:
        return advisory.not_affected.reason
    if facts.policy is None:
        return ""
    against = facts.policy.intersection(advisory.unless_policy)
    if against:
        return f"the policy has {' and '.join(sorted(against))}"
    if advisory.if_policy and facts.policy.isdisjoint(advisory.if_policy):
        return f"the policy lacks {' and '.join(advisory.if_policy)}"
    return ""


def _missing(advisory: Advisory, facts: _Facts) -> str:
    """Return which fact is needed and unknown, or an empty text."""
    if facts.generation is None and (advisory.generations or advisory.fixed):
        return "the generation is not known"
    if advisory.generations and facts.generation not in advisory.generations:
        return f"the sources do not say whether it affects {facts.generation}"
    if facts.policy is None and (advisory.if_policy or advisory.unless_policy):
        return "the policy is not known"
    return ""


def _by_firmware(advisory: Advisory, facts: _Facts) -> tuple[AdvisoryVerdict, str]:
    good = advisory.fixed.get(facts.generation or "")
    if good is None:
        return AdvisoryVerdict.UNSEEN, f"no fixed build is public for {facts.generation}"
    if facts.api is None:
        return AdvisoryVerdict.UNSEEN, "the API version is not known"
    # An unknown build may be the newest: only its API shows that firmware is too old.
    if (*facts.api, _BYTE[-1] if facts.build is None else facts.build) < good:
        return AdvisoryVerdict.AFFECTED, f"firmware before {firmware_text(good)}"
    if facts.build is None:
        return AdvisoryVerdict.UNSEEN, "the build is not known"
    if advisory.unseen:
        return AdvisoryVerdict.UNSEEN, advisory.unseen
    return AdvisoryVerdict.NOT_AFFECTED, f"fixed in {firmware_text(good)}"


def _touched(advisory: Advisory, facts: _Facts) -> str:
    if advisory.unless_policy:
        return f"the policy lacks {' and '.join(advisory.unless_policy)}"
    if advisory.unfixed:
        return f"no fix is known for {facts.generation}"
    if advisory.generations:
        return f"known of {facts.generation}"
    return "known of every generation"


def firmware_text(firmware: tuple[int, int, int]) -> str:
    """Return (API major, API minor, build) as text: "1.55 build 22"."""
    major, minor, build = firmware
    return f"{major}.{minor} build {build}"


def parse(text: str) -> Advisories:
    """Return the advisories in TOML: ``as_of``, and tables ``[[advisory]]`` like :class:`Advisory`.

    Raises MalformedInput for any other format, field or value.
    """
    day, found = parse_as(_SEV, text)
    return Advisories(as_of=day, advisories=found)


def parse_as(form: "Format[Kind]", text: str) -> tuple[date, tuple[Kind, ...]]:
    """Return ``as_of`` and the advisories in TOML, which are of one kind; raises as parse()."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MalformedInput(_STRUCTURE, "format", f"this is not TOML: {error}") from None
    if tables.keys() != {"as_of", "advisory"} or not _is_list(tables["advisory"], dict):
        reason = "there are as_of and tables [[advisory]], nothing else"
        raise MalformedInput(_STRUCTURE, "format", reason)
    if type(tables["as_of"]) is not date:
        raise MalformedInput(_STRUCTURE, "as_of", "is not a date")
    found = tuple(_advisory(form, row) for row in tables["advisory"])
    ids = [advisory.id for advisory in found]
    for twice in {one for one in ids if ids.count(one) > 1}:
        raise MalformedInput(_STRUCTURE, "id", f"{twice!r} is there twice")
    return tables["as_of"], found


def _advisory(form: "Format[Kind]", row: Mapping[str, Any]) -> Kind:
    def refuse(name: str, reason: str) -> MalformedInput:
        return MalformedInput(_STRUCTURE, name, f"in {row.get('id')!r}: {reason}")

    for name in sorted(row.keys() - form.fields.keys()):
        raise refuse(name, "there is no such field")
    for name in sorted(_REQUIRED - row.keys()):
        raise refuse(name, "is missing")
    for name, value in row.items():
        if not form.fields[name](value):
            raise refuse(name, f"{value!r} is not a valid value")
    for name, reason in form.contradictions(row):
        raise refuse(name, reason)
    return form.kind(**{name: _frozen(name, value) for name, value in row.items()})


def contradictions(
    row: Mapping[str, Any], every: tuple[str, ...] = GENERATIONS
) -> Iterator[tuple[str, str]]:
    """Yield the name of each field that contradicts another, with the reason.

    ``every`` are the generations of a row that names none.
    """
    touched = set(row.get("generations", every))
    for name in ("fixed", "unfixed", "tcb"):
        if not touched.issuperset(row.get(name, ())):
            yield name, "names a generation that it does not affect"
    if "unfixed" in row and ("fixed" in row or "unseen" not in row):
        yield "unfixed", "needs unseen, and has no meaning beside fixed"
    if "not_affected" in row:
        if not touched.isdisjoint(row["not_affected"]["generations"]):
            yield "not_affected", "names a generation that it affects"
        if row["not_affected"]["source"] not in row["sources"]:
            yield "not_affected", "its source is not among the sources"
    if not set(row.get("if_policy", ())).isdisjoint(row.get("unless_policy", ())):
        yield "if_policy", "no policy both has and lacks a name"


def _frozen(name: str, value: Any) -> Any:
    if name == "fixed":
        return MappingProxyType({key: tuple(entry) for key, entry in value.items()})
    if name == "tcb":
        return MappingProxyType({key: MappingProxyType(entry) for key, entry in value.items()})
    if name == "not_affected":
        return Unaffected(**value | {"generations": tuple(value["generations"])})
    return tuple(value) if isinstance(value, list) else value


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(entry) is kind for entry in value)


def _is_line(value: object) -> bool:
    """Return whether it is one line of text, fit for a terminal and a Markdown table."""
    return isinstance(value, str) and value.isprintable() and "|" not in value and bool(value)


def _are_lines(value: object) -> bool:
    return _is_list(value, str) and all(map(_is_line, cast("list[str]", value)))


def are_of(names: tuple[str, ...]) -> Callable[[object], bool]:
    """Return a check for a list of some of these names, in their order."""

    def check(value: object) -> bool:
        return isinstance(value, list) and bool(value) and value == [n for n in names if n in value]

    return check


def _is_fixed(value: object, generations: tuple[str, ...]) -> bool:
    return (
        isinstance(value, dict) and value.keys() <= set(generations) and bool(value)
        and all(map(_is_firmware, value.values()))
    )  # fmt: skip


def _is_unaffected(value: object) -> bool:
    return (
        isinstance(value, dict) and value.keys() == {"generations", "reason", "source"}
        and are_of(GENERATIONS)(value["generations"])
        and _is_line(value["reason"]) and _is_line(value["source"])
    )  # fmt: skip


def _is_firmware(value: object) -> bool:
    """Return whether it is API major, API minor and build."""
    numbers = cast("list[int]", value) if _is_list(value, int) else []
    return len(numbers) == _NUMBERS and all(number in _BYTE for number in numbers)


class Format(NamedTuple, Generic[Kind]):
    """What a table ``[[advisory]]`` may have."""

    kind: type[Kind]
    fields: Mapping[str, Callable[[object], bool]]
    """A check for the value of each field."""
    contradictions: Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]


def fields_of(
    generations: tuple[str, ...], policy: tuple[str, ...]
) -> dict[str, Callable[[object], bool]]:
    """Return the checks of what every kind has, for these names of generations and policy bits."""
    return {
        "id": lambda value: isinstance(value, str) and bool(_ID.fullmatch(value)),
        "title": _is_line,
        "action": _is_line,
        "sure": lambda value: isinstance(value, str) and value in SURE,
        "sources": _are_lines,
        "generations": are_of(generations),
        "fixed": lambda value: _is_fixed(value, generations),
        "if_policy": are_of(policy),
        "unless_policy": are_of(policy),
        "unseen": _is_line,
    }


_SEV = Format(
    Advisory,
    fields_of(GENERATIONS, POLICY_NAMES)
    | {"unfixed": are_of(GENERATIONS), "not_affected": _is_unaffected},
    contradictions,
)
_REQUIRED = {"id", "title", "action", "sure", "sources"}
