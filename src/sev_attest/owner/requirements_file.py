"""Read owner.toml, the file of an owner's requirements.

::

    schema = "sev-attest/requirements/1"

    [platform]                      # each list is what is allowed; "*" allows all
    generations = ["milan"]         # "test" is a root that is not AMD's
    ceks = ["0f65..."]              # CEK fingerprints (64 hex digits)
    platform_ids = ["*"]            # claimed by the host, unauthenticated (128 hex digits)
    pdhs = ["*"]                    # PDH fingerprints (64 hex digits)
    denied_ceks = []                # these three are optional
    denied_platform_ids = []
    denied_pdhs = []

    [minimum.milan]                 # for each allowed generation
    api = "1.55"
    build = 24

    [policy]
    set = ["no-debug", "es"]        # bits that must be set, by the names of sev.policy.BITS
    clear = []                      # bits that must be clear

    [[launch]]                      # each guest that may get its secret
    name = "web"
    digest = "f43a..."              # or manifest = "web.json", a file of digests
    expires = 2027-06-30            # not allowed from this day on (UTC); optional
    note = ""

    [advisories]
    acknowledged = ["CVE-2020-12967"]   # may affect the platform
    refused = []                        # must be shown not to affect it

An empty or missing list allows nothing. An unknown name is an error. A requirement that cannot be
evaluated is not met. ``requirements.schema.json`` describes the same format for editors.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import TypeVar

from sev_attest._encoding import blob
from sev_attest.errors import MalformedInput
from sev_attest.owner.advisories import GENERATIONS, load
from sev_attest.owner.requirements import (
    ANY,
    NO_BITS,
    POLICY_BITS,
    TEST,
    Minimum,
    ReferenceValue,
    Requirements,
)
from sev_attest.sev.spec import PolicyBit

_SCHEMA = "sev-attest/requirements/1"
MANIFEST_SCHEMA = "sev-attest/manifest/1"
_STRUCTURE = "requirements"
_API = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
_MAX_BYTE = 0xFF
_MAX_FILE = 1 << 17
_MAX_DOTS = 100

Manifest = Callable[[str], bytes]
"""Returns the contents of the manifest of a name."""


def parse(data: bytes, manifest: Manifest | None) -> Requirements:
    """Return the requirements in a file; see :meth:`Requirements.from_toml`."""
    if len(data) > _MAX_FILE:
        raise MalformedInput(_STRUCTURE, "length", f"more than {_MAX_FILE} bytes")
    whole = _Table("", _parsed(data))
    if whole.take("schema", str, "") != _SCHEMA:
        raise MalformedInput(_STRUCTURE, "schema", f'it does not begin with schema = "{_SCHEMA}"')
    platform, policy = whole.table("platform"), whole.table("policy")
    advisories, minimum = whole.table("advisories"), whole.table("minimum")
    known = frozenset(advisory.id for advisory in load())
    generations = platform.strings("generations", {*GENERATIONS, TEST, ANY}.__contains__)
    launches = whole.take("launch", list, [])
    found = Requirements(
        generations=generations,
        ceks=platform.strings("ceks", _hex(64)),
        platform_ids=platform.strings("platform_ids", _hex(128)),
        pdhs=platform.strings("pdhs", _hex(64)),
        denied_ceks=platform.strings("denied_ceks", _hex(64, anything=False)),
        denied_platform_ids=platform.strings("denied_platform_ids", _hex(128, anything=False)),
        denied_pdhs=platform.strings("denied_pdhs", _hex(64, anything=False)),
        minimum={name: _minimum(minimum.table(name)) for name in list(minimum.rest)},
        policy_set=_bits(policy.strings("set", POLICY_BITS.__contains__)),
        policy_clear=_bits(policy.strings("clear", POLICY_BITS.__contains__)),
        launches=tuple(_launch(number, one, manifest) for number, one in enumerate(launches, 1)),
        acknowledged=advisories.strings("acknowledged", known.__contains__),
        refused=advisories.strings("refused", known.__contains__),
    )
    for table in (platform, policy, advisories, minimum, whole):
        table.end()
    found.check()
    return found


def _wrong(name: str, reason: str, hint: str = "") -> MalformedInput:
    return MalformedInput(_STRUCTURE, name, reason, hint=hint)


def _parsed(data: bytes) -> dict[str, object]:
    """Return the tables of a TOML file; raises MalformedInput."""
    # tomllib takes time and memory quadratic in the parts of a dotted key, which is on one line.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > _MAX_DOTS and not line.lstrip(b" \t").startswith(b"#"):
            reason = f"line {number} has more than {_MAX_DOTS} dots"
            raise MalformedInput(_STRUCTURE, "format", reason)
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise MalformedInput(_STRUCTURE, "format", "this is not UTF-8 text") from None
    except Exception as error:  # noqa: BLE001 - tomllib raises more than it documents
        reason = f"this is not TOML: {str(error)[:200]}"
        raise MalformedInput(_STRUCTURE, "format", reason) from None


_Kind = TypeVar("_Kind")


class _Table:
    """A table of the file; ``rest`` is what was not taken yet."""

    def __init__(self, name: str, value: object) -> None:
        if not isinstance(value, dict):
            raise _wrong(name, "is not a table")
        self.name: str = name
        self.rest: dict[str, object] = dict(value)

    def place(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def take(self, key: str, kind: type[_Kind], default: _Kind | None = None) -> _Kind:
        """Return a value of this type; without ``default`` it must not be missing."""
        value = self.rest.pop(key, default)
        if value is None:
            raise _wrong(self.place(key), "is missing")
        if type(value) is not kind:
            raise _wrong(self.place(key), f"is not a {_KINDS[kind]}")
        return value

    def strings(self, key: str, fits: Callable[[str], bool]) -> frozenset[str]:
        """Return a list of strings that all fit; an empty one if it is missing."""
        values = self.take(key, list, [])
        for value in values:
            if not isinstance(value, str) or not fits(value):
                shown = repr(value)[:80] if isinstance(value, str) else f"a {type(value).__name__}"
                reason = f"{shown} does not belong there"
                raise _wrong(self.place(key), reason, _EXPECTED[key])
        return frozenset(values)

    def table(self, key: str) -> "_Table":
        """Return a table; an empty one if it is missing."""
        return _Table(self.place(key), self.rest.pop(key, {}))

    def end(self) -> None:
        """Raise MalformedInput for a name that was not taken."""
        if self.rest:
            raise _wrong(self.place(next(iter(self.rest))), "is not known here")


_FINGERPRINT = "64 hex digits in lower case"
_EXPECTED: Mapping[str, str] = {
    "generations": f"one of {', '.join((*GENERATIONS, TEST))}, or {ANY}",
    "ceks": f"{_FINGERPRINT}, or {ANY}",
    "pdhs": f"{_FINGERPRINT}, or {ANY}",
    "platform_ids": f"128 hex digits in lower case, or {ANY}",
    "denied_ceks": _FINGERPRINT,
    "denied_pdhs": _FINGERPRINT,
    "denied_platform_ids": "128 hex digits in lower case",
    "set": f"one of {', '.join(POLICY_BITS)}",
    "clear": f"one of {', '.join(POLICY_BITS)}",
    "acknowledged": "the id of a known advisory",
    "refused": "the id of a known advisory",
}
_KINDS: Mapping[type, str] = {str: "string", list: "list", int: "number"}


def _hex(digits: int, *, anything: bool = True) -> Callable[[str], bool]:
    shape = re.compile(f"[0-9a-f]{{{digits}}}{'|[*]' if anything else ''}")
    return lambda text: shape.fullmatch(text) is not None


def _bits(names: frozenset[str]) -> PolicyBit:
    found = NO_BITS
    for name in names:
        found |= POLICY_BITS[name]
    return found


def _minimum(table: _Table) -> Minimum:
    api, build = table.take("api", str), table.take("build", int)
    match = _API.fullmatch(api)
    if match is None or max(map(int, match.groups())) > _MAX_BYTE:
        raise _wrong(table.place("api"), f'{api!r} is not an API version ("1.55")')
    if not 0 <= build <= _MAX_BYTE:
        # Its value is not shown: Python refuses to print a number of more than 4300 digits.
        raise _wrong(table.place("build"), f"is not in 0..{_MAX_BYTE}")
    table.end()
    return Minimum(api=(int(match[1]), int(match[2])), build=build)


def _launch(number: int, value: object, manifest: Manifest | None) -> ReferenceValue:
    table = _Table(f"launch {number}", value)
    name = table.take("name", str)
    digest, path = table.take("digest", str, ""), table.take("manifest", str, "")
    if bool(digest) is bool(path):
        raise _wrong(table.place("digest"), "either that or a manifest is needed")
    if digest:
        digests = {blob(digest.encode(), (32,), "launch digest", only_text=True): ""}
    elif manifest is None:
        raise _wrong(table.place("manifest"), "manifests cannot be read here: use a digest")
    elif "\0" in path:
        raise _wrong(table.place("manifest"), "is not a file name")
    else:
        digests = read_manifest(manifest(path))
    expires = _moment(table)
    note = table.take("note", str, "")
    table.end()
    return ReferenceValue(name=name, digests=digests, expires=expires, note=note)


def _moment(table: _Table) -> datetime | None:
    """Return when a launch expires: a time with time zone, or a day at 00:00 UTC; None: never."""
    value = table.rest.pop("expires", None)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise _wrong(table.place("expires"), "has no time zone (a day needs none)")
        return value
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    if value is not None:
        raise _wrong(table.place("expires"), "is not a date")
    return None


def read_manifest(data: bytes) -> dict[bytes, str]:
    """Return the launch digests of a manifest, each with a description; raises MalformedInput."""
    try:
        document = json.loads(data)
    except Exception:  # noqa: BLE001 - json raises more than it documents
        raise MalformedInput("manifest", "format", "this is not JSON") from None
    if not isinstance(document, dict) or document.get("schema") != MANIFEST_SCHEMA:
        raise MalformedInput("manifest", "schema", f"this is not a {MANIFEST_SCHEMA} document")
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
        values = (one.get("vcpus"), one.get("cpu"), one.get("vmsa_profile"))
        if not all(isinstance(value, int | str | None) for value in values):
            raise MalformedInput("manifest", "launches", "one has a field of another type")
        found[digest] = ", ".join(
            f"{value} vCPUs" if isinstance(value, int) else str(value) for value in values if value
        )
    return found
