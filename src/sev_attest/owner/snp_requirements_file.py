"""Read ``[snp]`` of owner.toml, what an owner requires of guests of SEV-SNP.

::

    [snp]                           # each list is what is allowed; "*" allows all
    products = ["milan"]            # "test" allows roots that are not AMD's, of these products
    chip_ids = ["3ac3..."]          # of reports that a VCEK signed (128 hex digits; Turin: 16)
    denied_chip_ids = []            # optional
    csp_ids = []                    # of reports that a VLEK signed: the cloud provider's
    cpuids = ["*"]                  # family-model-stepping in hex ("19-01-01"); from version 3 on
    vmpls = [0]
    provisional = false             # whether firmware may run that is not committed; optional

    [snp.minimum.milan]             # for each allowed product
    firmware = "1.55.29"            # that runs
    reported = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
    committed_firmware = "1.55.29"  # from here on optional
    committed = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
    launch = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
    current_mitigations = 0x1       # bits that must be set, from version 5 on
    launch_mitigations = 0x1

    [snp.policy]
    permits = ["smt"]               # bits that permit the host something, and may be set
    demands = []                    # bits that demand something of the host, and must be set
    min_abi = "0.0"                 # lowest ABI that the policy itself must demand; optional

    [snp.platform]                  # bits of platform_info
    set = ["alias-check-complete"]
    clear = []

    [[snp.launch]]                  # each guest that may get its secret
    name = "web"
    digest = "f43a..."              # or manifest = "web.json", a file of digests
    id_keys = ["0356..."]           # digests of keys that signed it; beside a digest, or instead
    author_keys = ["4068..."]
    family_id = "00112233..."       # 32 hex digits, of the ID block; optional, as the next
    image_id = "00112233..."
    guest_svn = 3                   # the lowest
    host_data = "cadd..."           # 64 hex digits, or "*" for any; all zeros without it
    expires = 2027-06-30            # not allowed from this day on (UTC); optional
    note = ""

    [snp.advisories]
    acknowledged = ["badfuse"]      # may affect the guest
    refused = []                    # must be shown not to affect it
"""

import re
from collections.abc import Mapping

from sev_attest._encoding import sha384_digest
from sev_attest.owner._toml import Table, Values, hexes, one_of, wrong
from sev_attest.owner.manifest_file import Manifest, named_manifest, read_snp_manifest
from sev_attest.owner.requirements import ANY, TEST
from sev_attest.owner.snp_advisories import (
    COMPONENTS,
    DEMAND_NAMES,
    PERMIT_NAMES,
    PLATFORM_NAMES,
    PRODUCTS,
    load,
)
from sev_attest.owner.snp_minimum import SnpMinimum
from sev_attest.owner.snp_reference import NO_HOST_DATA, SnpReferenceValue
from sev_attest.owner.snp_requirements import SnpRequirements

_BYTE, _SVN, _VECTOR, _VMPL = 0xFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF, 3
_CHIP_ID = 128
_CPUID = re.compile(r"[*]|[0-9a-f]{2}(-[0-9a-f]{2}){2}")
_CPUIDS = Values(
    lambda text: _CPUID.fullmatch(text) is not None,
    "family, model and stepping in hex (19-01-01), or *",
)
_CSP_IDS = Values(bool, "the CSP id of a VLEK (CN=cc-eu-west-1.amazonaws.com), or *")
_KEYS = hexes(96, anything=False)


def parse_snp(table: Table, manifest: Manifest | None) -> SnpRequirements:
    """Return the requirements in ``[snp]``; raises MalformedInput, and what ``manifest`` raises."""
    minimum, policy = table.table("minimum"), table.table("policy")
    platform, advisories = table.table("platform"), table.table("advisories")
    known = one_of((advisory.id for advisory in load()), "the id of a known advisory of SEV-SNP")
    bits = one_of(PLATFORM_NAMES)
    found = SnpRequirements(
        products=table.strings("products", one_of((*PRODUCTS, TEST), anything=True)),
        chip_ids=_whole(table.strings("chip_ids", hexes(_CHIP_ID, 16))),
        denied_chip_ids=_whole(
            table.strings("denied_chip_ids", hexes(_CHIP_ID, 16, anything=False))
        ),
        csp_ids=table.strings("csp_ids", _CSP_IDS),
        cpuids=table.strings("cpuids", _CPUIDS),
        vmpls=table.numbers("vmpls", _VMPL),
        provisional=table.take("provisional", bool, default=False),
        minimum={name: _minimum(name, minimum.table(name)) for name in list(minimum.rest)},
        permits=policy.strings("permits", one_of(PERMIT_NAMES)),
        demands=policy.strings("demands", one_of(DEMAND_NAMES)),
        min_abi=_pair(policy),
        platform_set=platform.strings("set", bits),
        platform_clear=platform.strings("clear", bits),
        launches=tuple(_launch(one, manifest) for one in table.tables("launch", "snp.launch")),
        acknowledged=advisories.strings("acknowledged", known),
        refused=advisories.strings("refused", known),
    )
    for one in (minimum, policy, platform, advisories, table):
        one.end()
    return found


def _whole(chip_ids: frozenset[str]) -> frozenset[str]:
    """Return chip ids as reports have them: Turin's have 8 bytes, and 56 that are zero."""
    return frozenset(one if one == ANY else one.ljust(_CHIP_ID, "0") for one in chip_ids)


def _pair(policy: Table) -> tuple[int, int]:
    if "min_abi" not in policy.rest:
        return 0, 0
    major, minor = policy.version("min_abi", 2, "1.55")
    return major, minor


def _minimum(product: str, table: Table) -> SnpMinimum:
    found = SnpMinimum(
        firmware=_firmware(table, "firmware"),
        reported=_tcb(product, table.table("reported")),
        committed_firmware=(
            _firmware(table, "committed_firmware") if "committed_firmware" in table.rest else None
        ),
        committed=_tcb(product, table.table("committed")) if "committed" in table.rest else None,
        launch=_tcb(product, table.table("launch")) if "launch" in table.rest else None,
        current_mitigations=table.number("current_mitigations", _VECTOR, 0),
        launch_mitigations=table.number("launch_mitigations", _VECTOR, 0),
    )
    table.end()
    return found


def _firmware(table: Table, key: str) -> tuple[int, int, int]:
    major, minor, build = table.version(key, 3, "1.55.29")
    return major, minor, build


def _tcb(product: str, table: Table) -> Mapping[str, int]:
    """Return a version for every component; for an unknown product, of those that are there."""
    components = COMPONENTS.get(product, tuple(table.rest))
    found = {name: table.number(name, _BYTE) for name in components}
    table.end()
    return found


def _launch(table: Table, manifest: Manifest | None) -> SnpReferenceValue:
    name = table.take("name", str)
    digest, path = table.take("digest", str, ""), table.take("manifest", str, "")
    id_keys, author_keys = _trusted(table, "id_keys"), _trusted(table, "author_keys")
    if digest and path:
        raise wrong(table.place("digest"), "either that or a manifest")
    if not (digest or path or id_keys or author_keys):
        raise wrong(table.place("digest"), "that, a manifest, id_keys or author_keys is needed")
    digests = None
    if digest:
        digests = {sha384_digest(digest.encode(), "launch digest"): ""}
    if path:
        digests = read_snp_manifest(named_manifest(table, path, manifest))
    host_data = table.take("host_data", str, NO_HOST_DATA.hex())
    found = SnpReferenceValue(
        name=name,
        digests=digests,
        id_keys=id_keys,
        author_keys=author_keys,
        family_id=_id(table, "family_id"),
        image_id=_id(table, "image_id"),
        guest_svn=table.number("guest_svn", _SVN, 0),
        host_data=None if host_data == ANY else _bytes(table, "host_data", host_data, 32),
        expires=table.moment("expires"),
        note=table.take("note", str, ""),
    )
    table.end()
    return found


def _trusted(table: Table, key: str) -> frozenset[bytes] | None:
    """Return digests of keys; None if the list is missing. An empty one would allow no guest."""
    if key not in table.rest:
        return None
    found = frozenset(map(bytes.fromhex, table.strings(key, _KEYS)))
    if not found:
        raise wrong(table.place(key), "is empty: it would allow no guest")
    if bytes(48) in found:
        raise wrong(table.place(key), "zeros are no key's digest: a guest without a key has them")
    return found


def _id(table: Table, key: str) -> bytes | None:
    return _bytes(table, key, table.take(key, str), 16) if key in table.rest else None


def _bytes(table: Table, key: str, text: str, size: int) -> bytes:
    if not hexes(2 * size, anything=False).fits(text):
        raise wrong(table.place(key), f"is not {2 * size} hex digits in lower case")
    return bytes.fromhex(text)
