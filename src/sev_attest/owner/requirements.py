"""What an owner requires of a launch beyond a correct measurement.

:mod:`sev_attest.owner.requirements_file` describes the file (owner.toml) and reads it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from sev_attest.errors import (
    Failure,
    LaunchRefused,
    MalformedInput,
    RequirementsNotMet,
    Unsupported,
)
from sev_attest.owner.advisories import GENERATIONS, AdvisoryVerdict, Exposure, evaluate
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.launch import VerifiedLaunch
from sev_attest.sev.policy import BITS
from sev_attest.sev.spec import PolicyBit

if TYPE_CHECKING:
    from sev_attest.owner.snp_reference import SnpReferenceValue
    from sev_attest.owner.snp_requirements import SnpRequirements
    from sev_attest.snp.verify import VerifiedReport

ANY = "*"
"""In a list of what is allowed: everything (of generations: every one of AMD's)."""
TEST = "test"
"""The generation of a platform whose root is not AMD's."""
POLICY_BITS: Mapping[str, PolicyBit] = {name: bit for bit, (name, _, _) in BITS.items()}
NO_BITS: PolicyBit = PolicyBit(0)

Allowed = frozenset[str]
"""The contents of a list; ``{"*"}`` allows everything, an empty list nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReferenceValue:
    """A guest that may get its secret: its launch digests (32 bytes), each with a description."""

    name: str
    digests: Mapping[bytes, str]
    expires: datetime | None = None
    note: str = ""

    def __repr__(self) -> str:
        """Return its name and the number of its digests."""
        return f"ReferenceValue({self.name!r}, {len(self.digests)} digests)"

    def required(self) -> list[object]:
        """Return what counts of it, for JSON: name, digests and time."""
        expires = self.expires and self.expires.astimezone(UTC).isoformat()
        return [self.name, sorted(digest.hex() for digest in self.digests), expires]

    def expired(self, at: datetime) -> bool:
        """Return whether its time is over; ``at`` has a time zone."""
        return self.expires is not None and at >= self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """The oldest SEV firmware that is accepted: API (major, minor) and build, each 0 to 255."""

    api: tuple[int, int]
    build: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """How a launch meets the requirements.

    ``name`` is the allowed launch, ``guest`` the description of its digest, ``exposures`` every
    advisory with its verdict.
    """

    name: str
    guest: str
    exposures: tuple[Exposure, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Requirements:
    """What an owner requires of a launch. Every field allows nothing by default.

    ``ceks`` and ``pdhs`` are fingerprints (SHA-256 in hex), ``platform_ids`` 128 hex digits that
    the host claims. ``minimum`` has an entry for each allowed generation. ``policy_set`` are bits
    that must be set, ``policy_clear`` bits that must not. ``acknowledged`` are the ids of
    advisories that may affect the platform, ``refused`` of those it must be shown to be free of.
    ``snp`` is what is required of a report of SEV-SNP; None allows none. Every other field is of
    SEV and SEV-ES alone.
    """

    generations: Allowed = frozenset()
    ceks: Allowed = frozenset()
    platform_ids: Allowed = frozenset()
    pdhs: Allowed = frozenset()
    denied_ceks: Allowed = frozenset()
    denied_platform_ids: Allowed = frozenset()
    denied_pdhs: Allowed = frozenset()
    minimum: Mapping[str, Minimum] = field(default_factory=dict)
    policy_set: PolicyBit = NO_BITS
    policy_clear: PolicyBit = NO_BITS
    launches: tuple[ReferenceValue, ...] = ()
    acknowledged: Allowed = frozenset()
    refused: Allowed = frozenset()
    snp: "SnpRequirements | None" = None

    def __repr__(self) -> str:
        """Return the allowed generations and the number of launches."""
        generations = ", ".join(sorted(self.generations)[:8])
        return f"Requirements(generations={{{generations}}}, {len(self.launches)} launches)"

    @classmethod
    def from_toml(
        cls, data: bytes, *, manifest: Callable[[str], bytes] | None = None
    ) -> "Requirements":
        """Return the requirements in owner.toml; ``manifest`` returns the manifest of a name in it.

        Raises MalformedInput for a value or name that the format does not have, and for
        requirements that contradict each other; and what ``manifest`` raises.
        """
        from sev_attest.owner.requirements_file import parse

        return parse(data, manifest)

    def check(self) -> None:
        """Raise MalformedInput for requirements that no launch can meet or that contradict."""
        for name in sorted(self.minimum.keys() - {*GENERATIONS, TEST}):
            raise _malformed(f"minimum.{name}", "is not a generation")
        allowed = {*self.generations} - {ANY} | (
            {*GENERATIONS} if ANY in self.generations else set()
        )
        for name in sorted(allowed - self.minimum.keys()):
            raise _malformed(f"minimum.{name}", f"is missing, though {name} is allowed")
        if self.policy_set & self.policy_clear:
            raise _malformed("policy", "requires a bit both set and clear")
        if self.acknowledged & self.refused:
            both = ", ".join(sorted(self.acknowledged & self.refused))
            raise _malformed("advisories", f"both acknowledged and refused: {both}")
        names = set()
        for launch in self.launches:
            if launch.name in names:
                raise _malformed("launch", f"there are two with the name {launch.name!r}")
            names.add(launch.name)
        if self.snp is not None:
            self.snp.check()

    @property
    def digests(self) -> frozenset[bytes]:
        """All allowed launch digests, 32 bytes each, expired or not."""
        return frozenset(digest for launch in self.launches for digest in launch.digests)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is required, 64 hex digits: the same for what differs in words only.

        It covers every field, and of a launch its name, its digests and its time. Notes, comments
        and descriptions of digests are not covered. Without ``snp`` it is the same as before that
        field existed: sessions that wait are bound to it.
        """
        document: dict[str, object] = {}
        for name in (one.name for one in fields(self) if one.name != "snp"):
            value = getattr(self, name)
            document[name] = sorted(value) if isinstance(value, frozenset) else value
        document |= {
            "minimum": {name: [*one.api, one.build] for name, one in self.minimum.items()},
            "policy_set": self.policy_set.value,
            "policy_clear": self.policy_clear.value,
            "launches": [one.required() for one in self.launches],
        }
        if self.snp is not None:
            document["snp"] = self.snp.required()
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"sev-attest requirements\0" + text.encode()).hexdigest()

    def for_secrets(self, name: str | None, digest_given: bool) -> "Requirements":  # noqa: FBT001
        """Return the requirements with only the launch called ``name``, which the secret is for.

        Without a name, they stay as they are if ``digest_given`` says that the guest is known, or
        if they allow only one launch; else Unsupported is raised, as for an unknown name.
        """
        if name is None and digest_given:
            return self
        hint = "name the launch, or give the digest of the guest"
        return replace(self, launches=_for_secrets(self.launches, name, hint))

    def for_snp_secrets(self, name: str | None, *, sourced: bool) -> "Requirements":
        """Return the same for a release to a guest of SEV-SNP.

        ``sourced`` says that a source has the secrets, which knows those of each launch.
        """
        if self.snp is None or (name is None and sourced):
            return self
        launches = _for_secrets(self.snp.launches, name, "name the launch")
        return replace(self, snp=replace(self.snp, launches=launches))

    def require(self, launch: VerifiedLaunch, record: LaunchRecord, *, at: datetime) -> Met:
        """Return how a verified launch meets the requirements at a time (with time zone).

        Raises RequirementsNotMet with every failure, LaunchRefused if ``record`` is that of another
        session.
        """
        if record.session_id != launch.keys.session_id or record.policy != launch.policy.value:
            raise LaunchRefused(
                "the record is not that of this launch's session", check="record.session"
            )
        exposures = evaluate(
            generation=record.generation,
            api=(launch.info.api_major, launch.info.api_minor),
            build=launch.info.build_id,
            policy=launch.policy,
        )
        failures = (
            *self._platform(record),
            *self._minimum(launch, record),
            *self._policy(launch),
            *self._launch(launch, at),
            *weaknesses(exposures, self.acknowledged, self.refused),
        )
        if failures:
            raise RequirementsNotMet(failures)
        allowed = next(one for one in self._allowing(launch) if not one.expired(at))
        return Met(name=allowed.name, guest=allowed.digests[launch.digest], exposures=exposures)

    def require_snp(self, verified: "VerifiedReport", *, at: datetime) -> Met:
        """Return how a verified report of SEV-SNP meets the requirements at a time (with zone).

        Raises RequirementsNotMet with every failure.

        Does not verify: that the report is fresh; see ``snp.Expected``.
        """
        if self.snp is None:
            words = "the requirements have no [snp]: they allow no guest of SEV-SNP"
            raise RequirementsNotMet((_failure("snp", words),))
        return self.snp.require(verified, at=at)

    def _platform(self, record: LaunchRecord) -> Iterator[Failure]:
        generation = record.generation or (TEST if record.root is not None else None)
        if generation is None:
            yield _failure("platform.generation", "nobody verified the platform of this session")
        elif not (
            generation in self.generations or (ANY in self.generations and generation != TEST)
        ):
            what = "its root is not AMD's" if generation == TEST else f"it is of AMD {generation}"
            yield _failure("platform.generation", f"{what}, which is not among those allowed")
        for name, value, allowed, denied in (
            ("cek", record.cek, self.ceks, self.denied_ceks),
            (
                "platform-id",
                record.claimed_platform_id,
                self.platform_ids,
                self.denied_platform_ids,
            ),
            ("pdh", record.pdh, self.pdhs, self.denied_pdhs),
        ):
            words = name.replace("-", " ").replace("cek", "CEK").replace("pdh", "PDH")
            if value is None and (denied or ANY not in allowed):
                yield _failure(f"platform.{name}", f"the platform's {words} is not known")
            elif not allowed & {value, ANY}:
                yield _failure(f"platform.{name}", f"{words} {value} is not among those allowed")
            if denied & {value, ANY}:
                yield _failure(f"platform.denied-{name}", f"{words} {value} is denied")

    def _minimum(self, launch: VerifiedLaunch, record: LaunchRecord) -> Iterator[Failure]:
        minimum = self.minimum.get(record.generation or TEST)
        if minimum is None:
            yield _failure("minimum", "no minimum API and build are set for this generation")
            return
        info = launch.info
        if (info.api_major, info.api_minor) < minimum.api:
            found, least = f"{info.api_major}.{info.api_minor}", "{}.{}".format(*minimum.api)
            yield _failure("minimum.api", f"SEV API {found} is below {least}")
        if info.build_id < minimum.build:
            yield _failure("minimum.build", f"build {info.build_id} is below {minimum.build}")

    def _policy(self, launch: VerifiedLaunch) -> Iterator[Failure]:
        for name, bit in POLICY_BITS.items():
            if bit in self.policy_set and bit not in launch.policy.bits:
                yield _failure(f"policy.{name}", f"policy {launch.policy} lacks {name}")
            if bit in self.policy_clear and bit in launch.policy.bits:
                yield _failure(f"policy.{name}", f"policy {launch.policy} has {name} set")

    def _launch(self, launch: VerifiedLaunch, at: datetime) -> Iterator[Failure]:
        allowed = self._allowing(launch)
        if not allowed:
            yield _failure("launch.digest", "its launch digest is not among those allowed")
        elif all(one.expired(at) for one in allowed):
            for one in allowed:
                yield _failure("launch.expired", f"launch {one.name!r} expired: {one.expires}")

    def _allowing(self, launch: VerifiedLaunch) -> list[ReferenceValue]:
        return [one for one in self.launches if launch.digest in one.digests]


_Launch = TypeVar("_Launch", "ReferenceValue", "SnpReferenceValue")


def _for_secrets(launches: tuple[_Launch, ...], name: str | None, hint: str) -> tuple[_Launch, ...]:
    """Return the launch called ``name``; without a name, the only one."""
    names = ", ".join(one.name for one in launches)
    if name is None and len(launches) > 1:
        raise Unsupported(
            f"nothing says which launch the secret is for: {names}", check="launch.name", hint=hint
        )
    found = tuple(one for one in launches if name in (None, one.name))
    if name is not None and not found:
        raise Unsupported(
            f"the requirements have no launch {name!r}: {names or 'none'}", check="launch.name"
        )
    return found


def weaknesses(
    exposures: tuple[Exposure, ...], acknowledged: Allowed, refused: Allowed, prefix: str = ""
) -> Iterator[Failure]:
    """Yield a failure for each weakness that ``acknowledged`` and ``refused`` do not let pass."""
    for exposure in exposures:
        advisory, verdict = exposure.advisory, exposure.verdict
        check = f"{prefix}advisory.{advisory.id}"
        if verdict is AdvisoryVerdict.AFFECTED and advisory.id not in acknowledged:
            words = f"{advisory.id} ({advisory.title}) affects this platform"
            yield _failure(check, words, f"acknowledge it in owner.toml, or: {advisory.action}")
        elif verdict is not AdvisoryVerdict.NOT_AFFECTED and advisory.id in refused:
            yield _failure(check, f"nothing shows that {advisory.id} does not affect it")


def _failure(check: str, message: str, hint: str = "") -> Failure:
    return Failure(f"requirements.{check}", message, hint)


def _malformed(name: str, reason: str) -> MalformedInput:
    return MalformedInput("requirements", name, reason)
