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

    [snp]                           # guests of SEV-SNP: see owner.snp_requirements_file

An empty or missing list allows nothing. An unknown name is an error. A requirement that cannot be
evaluated is not met. ``cli/documents/owner_toml.py`` describes the same format for editors.
"""

import tomllib

from sev_attest._encoding import blob
from sev_attest.errors import MalformedInput
from sev_attest.owner._toml import Table, hexes, one_of, wrong
from sev_attest.owner.advisories import GENERATIONS, load
from sev_attest.owner.manifest_file import Manifest, named_manifest, read_manifest
from sev_attest.owner.requirements import (
    NO_BITS,
    POLICY_BITS,
    TEST,
    Minimum,
    ReferenceValue,
    Requirements,
)
from sev_attest.owner.snp_requirements import SnpRequirements
from sev_attest.owner.snp_requirements_file import parse_snp
from sev_attest.sev.spec import PolicyBit

_SCHEMA = "sev-attest/requirements/1"
_STRUCTURE = "requirements"
_MAX_BYTE = 0xFF
_MAX_FILE = 1 << 17
_MAX_DOTS = 100


def parse(data: bytes, manifest: Manifest | None) -> Requirements:
    """Return the requirements in a file; see :meth:`Requirements.from_toml`."""
    if len(data) > _MAX_FILE:
        raise MalformedInput(_STRUCTURE, "length", f"more than {_MAX_FILE} bytes")
    whole = Table("", _parsed(data))
    if whole.take("schema", str, "") != _SCHEMA:
        raise MalformedInput(_STRUCTURE, "schema", f'it does not begin with schema = "{_SCHEMA}"')
    platform, policy = whole.table("platform"), whole.table("policy")
    advisories, minimum = whole.table("advisories"), whole.table("minimum")
    known = one_of((advisory.id for advisory in load()), "the id of a known advisory")
    found = Requirements(
        generations=platform.strings("generations", one_of((*GENERATIONS, TEST), anything=True)),
        ceks=platform.strings("ceks", hexes(64)),
        platform_ids=platform.strings("platform_ids", hexes(128)),
        pdhs=platform.strings("pdhs", hexes(64)),
        denied_ceks=platform.strings("denied_ceks", hexes(64, anything=False)),
        denied_platform_ids=platform.strings("denied_platform_ids", hexes(128, anything=False)),
        denied_pdhs=platform.strings("denied_pdhs", hexes(64, anything=False)),
        minimum={name: _minimum(minimum.table(name)) for name in list(minimum.rest)},
        policy_set=_bits(policy.strings("set", one_of(POLICY_BITS))),
        policy_clear=_bits(policy.strings("clear", one_of(POLICY_BITS))),
        launches=tuple(_launch(one, manifest) for one in whole.tables("launch", "launch")),
        acknowledged=advisories.strings("acknowledged", known),
        refused=advisories.strings("refused", known),
        snp=_snp(whole, manifest),
    )
    for table in (platform, policy, advisories, minimum, whole):
        table.end()
    found.check()
    return found


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


def _snp(whole: Table, manifest: Manifest | None) -> SnpRequirements | None:
    if "snp" not in whole.rest:
        return None
    if not isinstance(whole.rest["snp"], dict):
        raise wrong("format", "snp is not a table")
    return parse_snp(whole.table("snp"), manifest)


def _bits(names: frozenset[str]) -> PolicyBit:
    found = NO_BITS
    for name in names:
        found |= POLICY_BITS[name]
    return found


def _minimum(table: Table) -> Minimum:
    major, minor = table.version("api", 2, "1.55")
    build = table.number("build", _MAX_BYTE)
    table.end()
    return Minimum(api=(major, minor), build=build)


def _launch(table: Table, manifest: Manifest | None) -> ReferenceValue:
    name = table.take("name", str)
    digest, path = table.take("digest", str, ""), table.take("manifest", str, "")
    if bool(digest) is bool(path):
        raise wrong(table.place("digest"), "either that or a manifest is needed")
    if digest:
        digests = {blob(digest.encode(), (32,), "launch digest", only_text=True): ""}
    else:
        digests = read_manifest(named_manifest(table, path, manifest))
    expires = table.moment("expires")
    note = table.take("note", str, "")
    table.end()
    return ReferenceValue(name=name, digests=digests, expires=expires, note=note)
