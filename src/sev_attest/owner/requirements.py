"""What an owner demands of a launch beyond a right measurement: owner.toml.

::

    schema = "sev-attest/requirements/1"

    [platform]                      # each list: what is allowed; "*" allows all
    generations = ["milan"]         # "test": a root that is not AMD's, trusted on purpose
    ceks = ["0f65..."]              # CEK fingerprints (64 hex digits)
    platform_ids = ["*"]            # what the host says (128 hex digits): nothing vouches for it
    pdhs = ["*"]                    # PDH fingerprints (64 hex digits)
    denied_ceks = []                # these three may be left out
    denied_platform_ids = []
    denied_pdhs = []

    [minimum.milan]                 # for each generation that is allowed
    api = "1.55"
    build = 24

    [policy]
    set = ["no-debug", "es"]        # bits that must be set, by the names of `sev-attest policy`
    clear = []                      # bits that must not be

    [[launch]]                      # each guest that may get its secret
    name = "web"
    digest = "f43a..."              # or manifest = "web.json", as `measure --manifest` writes
    expires = 2027-06-30            # from this day on (UTC) it may not; may be left out
    note = ""

    [advisories]
    acknowledged = ["CVE-2020-12967"]   # those that affect the platform and are accepted
    refused = []                        # those it must be shown not to be affected by

An empty or missing list allows nothing, an unknown name is an error, and what cannot be evaluated
fails. ``requirements.schema.json`` says the same for editors.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from typing import TypeVar

from sev_attest._encoding import blob
from sev_attest.errors import (
    Failure,
    LaunchRefused,
    MalformedInput,
    RequirementsNotMet,
    Unsupported,
)
from sev_attest.owner.advisories import GENERATIONS, Exposure, Verdict, evaluate, load
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.launch import VerifiedLaunch
from sev_attest.sev.policy import BITS
from sev_attest.sev.spec import PolicyBit

SCHEMA = "sev-attest/requirements/1"
MANIFEST_SCHEMA = "sev-attest/manifest/1"
ANY = "*"
TEST = "test"
_STRUCTURE = "requirements"
_API = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
_NAMES = {name: bit for bit, (name, _, _) in BITS.items()}
_BYTE = 0xFF
_MOST = 1 << 17
_MOST_DOTS = 100
_NO_BITS = PolicyBit(0)

Allowed = frozenset[str]
"""What a list allows; ``{"*"}`` is everything, an empty one nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReferenceValue:
    """A guest that may get its secret: launch digests (32 bytes), each with words for people."""

    name: str
    digests: Mapping[bytes, str]
    expires: datetime | None = None
    note: str = ""

    def __repr__(self) -> str:
        """Show its name and how many digests it allows."""
        return f"ReferenceValue({self.name!r}, {len(self.digests)} digests)"

    def expired(self, at: datetime) -> bool:
        """Tell whether its time is over."""
        return self.expires is not None and at >= self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """The oldest SEV firmware that is accepted of a generation."""

    api: tuple[int, int]
    build: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """What a launch was allowed as, and the advisories that go with it."""

    name: str
    guest: str
    exposures: tuple[Exposure, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Requirements:
    """An owner's demands, as owner.toml states them (see the module).

    Made by hand, each field's default allows nothing.
    """

    generations: Allowed = frozenset()
    ceks: Allowed = frozenset()
    platform_ids: Allowed = frozenset()
    pdhs: Allowed = frozenset()
    denied_ceks: Allowed = frozenset()
    denied_platform_ids: Allowed = frozenset()
    denied_pdhs: Allowed = frozenset()
    minimum: Mapping[str, Minimum] = field(default_factory=dict)
    policy_set: PolicyBit = _NO_BITS
    policy_clear: PolicyBit = _NO_BITS
    launches: tuple[ReferenceValue, ...] = ()
    acknowledged: Allowed = frozenset()
    refused: Allowed = frozenset()

    def __repr__(self) -> str:
        """Show which generations and how many launches it allows."""
        generations = ", ".join(sorted(self.generations)[:8])
        return f"Requirements(generations={{{generations}}}, {len(self.launches)} launches)"

    @classmethod
    def from_toml(
        cls, data: bytes, *, manifest: Callable[[str], bytes] | None = None
    ) -> "Requirements":
        """Read owner.toml; ``manifest`` reads a manifest that it names.

        Raises MalformedInput for anything that the format above does not have, or that contradicts
        itself; and what ``manifest`` raises.
        """
        if len(data) > _MOST:
            raise MalformedInput(_STRUCTURE, "length", f"more than {_MOST} bytes")
        whole = _Table("", _parsed(data))
        if whole.take("schema", str, "") != SCHEMA:
            raise MalformedInput(
                _STRUCTURE, "schema", f'it does not begin with schema = "{SCHEMA}"'
            )
        platform, policy = whole.table("platform"), whole.table("policy")
        advisories, minimum = whole.table("advisories"), whole.table("minimum")
        known = frozenset(advisory.id for advisory in load())
        generations = platform.strings("generations", {*GENERATIONS, TEST, ANY}.__contains__)
        launches = whole.take("launch", list, [])
        found = cls(
            generations=generations,
            ceks=platform.strings("ceks", _hex(64)),
            platform_ids=platform.strings("platform_ids", _hex(128)),
            pdhs=platform.strings("pdhs", _hex(64)),
            denied_ceks=platform.strings("denied_ceks", _hex(64, anything=False)),
            denied_platform_ids=platform.strings("denied_platform_ids", _hex(128, anything=False)),
            denied_pdhs=platform.strings("denied_pdhs", _hex(64, anything=False)),
            minimum={name: _minimum(minimum.table(name)) for name in list(minimum.rest)},
            policy_set=_bits(policy.strings("set", _NAMES.__contains__)),
            policy_clear=_bits(policy.strings("clear", _NAMES.__contains__)),
            launches=tuple(
                _launch(number, one, manifest) for number, one in enumerate(launches, 1)
            ),
            acknowledged=advisories.strings("acknowledged", known.__contains__),
            refused=advisories.strings("refused", known.__contains__),
        )
        for table in (platform, policy, advisories, minimum, whole):
            table.end()
        found._check()
        return found

    def _check(self) -> None:
        """Refuse demands that nobody can meet, or that say nothing."""
        for name in sorted(self.minimum.keys() - {*GENERATIONS, TEST}):
            raise _wrong(f"minimum.{name}", "is no generation")
        allowed = {*self.generations} - {ANY} | (
            {*GENERATIONS} if ANY in self.generations else set()
        )
        for name in sorted(allowed - self.minimum.keys()):
            raise _wrong(f"minimum.{name}", f"is missing, though {name} is allowed")
        if self.policy_set & self.policy_clear:
            raise _wrong("policy", "demands a bit both set and clear")
        if self.acknowledged & self.refused:
            both = ", ".join(sorted(self.acknowledged & self.refused))
            raise _wrong("advisories", f"both acknowledged and refused: {both}")
        names = set()
        for launch in self.launches:
            if launch.name in names:
                raise _wrong("launch", f"there are two with the name {launch.name!r}")
            names.add(launch.name)

    @property
    def digests(self) -> frozenset[bytes]:
        """Every launch digest that is allowed, expired or not."""
        return frozenset(digest for launch in self.launches for digest in launch.digests)

    def for_secrets(self, name: str | None, digest_given: bool) -> "Requirements":  # noqa: FBT001
        """Narrow them to the launch of that name, for a secret that is meant for it.

        Raises Unsupported for a name that there is not, or if nothing tells which of several
        launches the secret is for.
        """
        if name is None and (digest_given or len(self.launches) <= 1):
            return self
        names = ", ".join(one.name for one in self.launches)
        if name is None:
            raise Unsupported(
                f"nothing tells which launch the secret is for: {names}",
                check="launch.name",
                hint="name one (--launch), or the guest itself",
            )
        found = tuple(one for one in self.launches if one.name == name)
        if not found:
            raise Unsupported(
                f"the requirements have no launch {name!r}: {names or 'none'}", check="launch.name"
            )
        return replace(self, launches=found)

    def require(self, launch: VerifiedLaunch, record: LaunchRecord, *, at: datetime) -> Met:
        """Hold a verified launch to every demand; ``at`` (with time zone) is when this is asked.

        Raises RequirementsNotMet with all that failed, LaunchRefused if ``record`` is of another
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
            *self._advisories(exposures),
        )
        if failures:
            raise RequirementsNotMet(failures)
        allowed = next(one for one in self._allowing(launch) if not one.expired(at))
        return Met(name=allowed.name, guest=allowed.digests[launch.digest], exposures=exposures)

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
        for name, bit in _NAMES.items():
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

    def _advisories(self, exposures: tuple[Exposure, ...]) -> Iterator[Failure]:
        for exposure in exposures:
            advisory = exposure.advisory
            check = f"advisory.{advisory.id}"
            if exposure.verdict is Verdict.AFFECTED and advisory.id not in self.acknowledged:
                words = f"{advisory.id} ({advisory.title}) affects this platform"
                yield _failure(check, words, f"acknowledge it in owner.toml, or: {advisory.action}")
            elif exposure.verdict is not Verdict.NOT_AFFECTED and advisory.id in self.refused:
                yield _failure(check, f"nothing shows that {advisory.id} does not affect it")


def _failure(check: str, message: str, hint: str = "") -> Failure:
    return Failure(f"requirements.{check}", message, hint)


# reading


def _wrong(name: str, reason: str, hint: str = "") -> MalformedInput:
    return MalformedInput(_STRUCTURE, name, reason, hint=hint)


def _parsed(data: bytes) -> dict[str, object]:
    """Parse TOML of a bounded size and depth; raises MalformedInput."""
    # tomllib takes a time and memory quadratic in the parts of a dotted key; a key is on one line.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > _MOST_DOTS and not line.lstrip(b" \t").startswith(b"#"):
            reason = f"line {number} has more than {_MOST_DOTS} dots"
            raise MalformedInput(_STRUCTURE, "format", reason)
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise MalformedInput(_STRUCTURE, "format", "this is no UTF-8 text") from None
    except Exception as error:  # noqa: BLE001 - it raises more than it documents
        reason = f"this is no TOML: {str(error)[:200]}"
        raise MalformedInput(_STRUCTURE, "format", reason) from None


_Kind = TypeVar("_Kind")


class _Table:
    """A table of the file; what is left in ``rest`` at its end is unknown."""

    def __init__(self, name: str, value: object) -> None:
        if not isinstance(value, dict):
            raise _wrong(name, "is no table")
        self.name = name
        self.rest = dict(value)

    def place(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def take(self, key: str, kind: type[_Kind], default: _Kind | None = None) -> _Kind:
        """Take a value of that kind; without ``default`` it must be there."""
        value = self.rest.pop(key, default)
        if value is None:
            raise _wrong(self.place(key), "is missing")
        if type(value) is not kind:
            raise _wrong(self.place(key), f"is no {_KINDS[kind]}")
        return value

    def strings(self, key: str, fits: Callable[[str], bool]) -> frozenset[str]:
        """Take a list of strings; none if it is missing."""
        values = self.take(key, list, [])
        for value in values:
            if not isinstance(value, str) or not fits(value):
                shown = repr(value)[:80] if isinstance(value, str) else f"a {type(value).__name__}"
                raise _wrong(
                    self.place(key), f"{shown} does not belong there", _BELONGS.get(key, "")
                )
        return frozenset(values)

    def table(self, key: str) -> "_Table":
        """Take a table; an empty one if it is missing."""
        return _Table(self.place(key), self.rest.pop(key, {}))

    def end(self) -> None:
        """Refuse what nobody took."""
        if self.rest:
            raise _wrong(self.place(next(iter(self.rest))), "is not known here")


_FINGERPRINT = "64 hex digits in small letters, as `sev-attest verify` prints them"
_BELONGS = {
    "generations": f"one of {', '.join((*GENERATIONS, TEST))}, or {ANY}",
    "ceks": f"{_FINGERPRINT}, or {ANY}",
    "pdhs": f"{_FINGERPRINT}, or {ANY}",
    "platform_ids": f"128 hex digits in small letters, or {ANY}",
    "denied_ceks": _FINGERPRINT,
    "denied_pdhs": _FINGERPRINT,
    "denied_platform_ids": "128 hex digits in small letters",
    "set": f"one of {', '.join(_NAMES)}",
    "clear": f"one of {', '.join(_NAMES)}",
    "acknowledged": "an id that `sev-attest advisories` lists",
    "refused": "an id that `sev-attest advisories` lists",
}
_KINDS: Mapping[type, str] = {str: "text", list: "list", int: "number"}


def _hex(digits: int, *, anything: bool = True) -> Callable[[str], bool]:
    shape = re.compile(f"[0-9a-f]{{{digits}}}{'|[*]' if anything else ''}")
    return lambda text: shape.fullmatch(text) is not None


def _bits(names: frozenset[str]) -> PolicyBit:
    found = _NO_BITS
    for name in names:
        found |= _NAMES[name]
    return found


def _minimum(table: _Table) -> Minimum:
    api, build = table.take("api", str), table.take("build", int)
    match = _API.fullmatch(api)
    if match is None or max(map(int, match.groups())) > _BYTE:
        raise _wrong(table.place("api"), f'{api!r} is no API version ("1.55")')
    if not 0 <= build <= _BYTE:
        # Not its value: Python refuses to write a number of more than 4300 digits in decimal.
        raise _wrong(table.place("build"), f"is not in 0..{_BYTE}")
    table.end()
    return Minimum(api=(int(match[1]), int(match[2])), build=build)


def _launch(number: int, value: object, manifest: Callable[[str], bytes] | None) -> ReferenceValue:
    table = _Table(f"launch {number}", value)
    name = table.take("name", str)
    digest, path = table.take("digest", str, ""), table.take("manifest", str, "")
    if bool(digest) is bool(path):
        raise _wrong(table.place("digest"), "either that or a manifest is needed")
    if path and manifest is None:
        raise _wrong(table.place("manifest"), "manifests cannot be read here: give the digest")
    if "\0" in path:
        raise _wrong(table.place("manifest"), "is no file's name")
    digests = {}
    if path and manifest is not None:
        digests = read_manifest(manifest(path))
    if digest:
        digests = {blob(digest.encode(), (32,), "launch digest", only_text=True): ""}
    expires = _moment(table)
    note = table.take("note", str, "")
    table.end()
    return ReferenceValue(name=name, digests=digests, expires=expires, note=note)


def _moment(table: _Table) -> datetime | None:
    """Take a day (its first moment, UTC) or a moment with time zone."""
    value = table.rest.pop("expires", None)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise _wrong(table.place("expires"), "has no time zone (a day alone will do)")
        return value
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    if value is not None:
        raise _wrong(table.place("expires"), "is no date")
    return None


def read_manifest(data: bytes) -> dict[bytes, str]:
    """Read what ``measure --manifest`` writes: words by launch digest; raises MalformedInput."""
    try:
        document = json.loads(data)
    except Exception:  # noqa: BLE001 - deep nesting and long numbers raise their own errors
        raise MalformedInput("manifest", "format", "this is no JSON") from None
    if not isinstance(document, dict) or document.get("schema") != MANIFEST_SCHEMA:
        raise MalformedInput("manifest", "schema", f"this is no {MANIFEST_SCHEMA} document")
    unknown = document.keys() - {"schema", "firmware", "kernel_hashes", "launches"}
    if unknown:
        raise MalformedInput("manifest", "fields", f"unknown: {', '.join(sorted(unknown))[:80]}")
    launches = document.get("launches")
    if not isinstance(launches, list) or not launches:
        raise MalformedInput("manifest", "launches", "there are none")
    found: dict[bytes, str] = {}
    for one in launches:
        if not isinstance(one, dict) or not isinstance(one.get("digest"), str):
            raise MalformedInput("manifest", "launches", "one has no digest")
        if one.keys() - {"digest", "vcpus", "cpu", "vmsa_profile"}:
            raise MalformedInput("manifest", "launches", "one has a field that is not known here")
        text = one["digest"].encode("ascii", "backslashreplace")
        digest = blob(text, (32,), "launch digest", only_text=True)
        words = (one.get("vcpus"), one.get("cpu"), one.get("vmsa_profile"))
        if not all(isinstance(word, int | str | None) for word in words):
            raise MalformedInput("manifest", "launches", "one has a field of another type")
        found[digest] = ", ".join(
            f"{word} vCPUs" if isinstance(word, int) else str(word) for word in words if word
        )
    return found
