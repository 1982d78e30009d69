"""owner.toml: what an owner requires of a launch. ``owner/requirements_file.py`` reads it."""

from typing import Annotated, Literal, NotRequired, TypedDict

from sev_attest.cli.documents.advisory_files import PlatformName
from sev_attest.cli.documents.files import Text
from sev_attest.cli.documents.parts import Byte, Hex16, Hex32, Hex48, Hex64, one_of, rules

_DIGESTS = ("digest", "manifest")
Generation = Annotated[str, one_of("naples", "rome", "milan", "genoa", "turin", "test", "*")]
Any32 = Annotated[str, rules({"pattern": "^([0-9a-f]{64}|[*])$"})]
Any64 = Annotated[str, rules({"pattern": "^([0-9a-f]{128}|[*])$"})]
ChipId = Annotated[str, rules({"pattern": "^([0-9a-f]{128}|[0-9a-f]{16})$"})]
AnyChipId = Annotated[str, rules({"pattern": "^([0-9a-f]{128}|[0-9a-f]{16}|[*])$"})]
FileName = Annotated[str, rules({"minLength": 1, "pattern": "^[^\\u0000]+$"})]
Expiry = Annotated[object, rules({})]
"""TOML has dates; JSON has none."""
Cpuid = Annotated[str, rules({"pattern": "^([0-9a-f]{2}(-[0-9a-f]{2}){2}|[*])$"})]
Version2 = Annotated[str, rules({"pattern": "^[0-9]{1,3}[.][0-9]{1,3}$"})]
Version3 = Annotated[str, rules({"pattern": "^[0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}$"})]
Vmpl = Annotated[int, rules({"minimum": 0, "maximum": 3})]
Svn = Annotated[int, rules({"minimum": 0, "maximum": 0xFFFF_FFFF})]
Vector = Annotated[int, rules({"minimum": 0, "maximum": 0xFFFF_FFFF_FFFF_FFFF})]
PolicyBit = Annotated[str, one_of("no-debug", "no-key-sharing", "es", "no-send", "domain", "sev")]
Permit = Annotated[str, one_of("smt", "migrate-ma", "debug", "cxl-allow")]
Demand = Annotated[
    str,
    one_of(
        "single-socket",
        "mem-aes-256-xts",
        "rapl-dis",
        "ciphertext-hiding-dram",
        "page-swap-disable",
    ),
]


class Platforms(TypedDict, total=False):
    """Which platforms are allowed. "*" in a list allows all."""

    generations: list[Generation]
    """Generations of AMD's chips; "test" is a root that is not AMD's."""
    ceks: list[Any32]
    """Allowed chips, by CEK fingerprint."""
    platform_ids: list[Any64]
    """Allowed platform ids, as hosts claim them."""
    pdhs: list[Any32]
    """Allowed PDHs, by fingerprint."""
    denied_ceks: list[Hex32]
    """Denied chips, by CEK fingerprint."""
    denied_platform_ids: list[Hex64]
    """Denied platform ids."""
    denied_pdhs: list[Hex32]
    """Denied PDHs, by fingerprint."""


class Least(TypedDict):
    """The oldest SEV firmware of a generation."""

    api: Version2
    """SEV API, "major.minor"."""
    build: Byte
    """Build of the firmware."""


class Minimum(TypedDict, total=False):
    """The oldest SEV firmware of each generation; needed for each that is allowed."""

    naples: Least
    """Of Naples."""
    rome: Least
    """Of Rome."""
    milan: Least
    """Of Milan."""
    genoa: Least
    """Of Genoa."""
    turin: Least
    """Of Turin."""
    test: Least
    """Of a platform whose root is not AMD's."""


class Policy(TypedDict, total=False):
    """Bits that must be set, and bits that must be clear, in a session's policy."""

    set: list[PolicyBit]
    """Bits that must be set."""
    clear: list[PolicyBit]
    """Bits that must be clear."""


class Launch(TypedDict):
    """A guest that may get its secret."""

    name: str
    """What the owner calls it."""
    digest: NotRequired[Text]
    """Launch digest, hex or base64."""
    manifest: NotRequired[FileName]
    """File that `measure --manifest` wrote, relative to this one."""
    expires: NotRequired[Expiry]
    """Not allowed from then on: a TOML date (UTC), or a date and time with time zone."""
    note: NotRequired[str]
    """A remark for people."""


class Accepted(TypedDict, total=False):
    """Known weaknesses, by id."""

    acknowledged: list[Text]
    """Accepted although they affect the platform."""
    refused: list[Text]
    """The platform must be shown not to have them."""


class TcbVersions(TypedDict):
    """Versions of the components of a TCB."""

    bootloader: Byte
    """The secure processor's boot loader."""
    tee: Byte
    """The secure processor's operating system."""
    snp: Byte
    """The SNP firmware."""
    microcode: Byte
    """The CPU's microcode."""


class TurinTcbVersions(TcbVersions):
    """Versions of the components of a TCB of Turin."""

    fmc: Byte
    """The FMC."""


class AnySnpLeast(TypedDict):
    """The oldest versions of a product, beside its TCBs."""

    firmware: Version3
    """Oldest firmware that may run, "major.minor.build"."""
    committed_firmware: NotRequired[Version3]
    """Oldest firmware that the host may go back to."""
    current_mitigations: NotRequired[Vector]
    """Bits that must be set now."""
    launch_mitigations: NotRequired[Vector]
    """Bits that must have been set when the guest started."""


class SnpLeast(AnySnpLeast):
    """The oldest versions of a product."""

    reported: TcbVersions
    """Oldest versions that the signing key must prove."""
    committed: NotRequired[TcbVersions]
    """Oldest versions that the host may go back to."""
    launch: NotRequired[TcbVersions]
    """Oldest versions that the guest may have started with."""


class TurinLeast(AnySnpLeast):
    """The oldest versions of Turin."""

    reported: TurinTcbVersions
    """Oldest versions that the signing key must prove."""
    committed: NotRequired[TurinTcbVersions]
    """Oldest versions that the host may go back to."""
    launch: NotRequired[TurinTcbVersions]
    """Oldest versions that the guest may have started with."""


class SnpMinimum(TypedDict, total=False):
    """The oldest versions of each product; needed for each that is allowed."""

    milan: SnpLeast
    """Of Milan."""
    genoa: SnpLeast
    """Of Genoa."""
    turin: TurinLeast
    """Of Turin."""


class SnpPolicy(TypedDict, total=False):
    """Bits of the guest's policy: those that may be set, and those that must be."""

    permits: list[Permit]
    """Bits that may permit the host something."""
    demands: list[Demand]
    """Bits that must demand something of the host."""
    min_abi: Version2
    """Lowest ABI version that the policy must demand, "major.minor"."""


class SnpPlatform(TypedDict, total=False):
    """Bits of platform_info that must be set, and that must be clear."""

    set: list[PlatformName]
    """Bits that must be set."""
    clear: list[PlatformName]
    """Bits that must be clear."""


class SnpLaunch(TypedDict):
    """A guest of SEV-SNP that may get its secret."""

    name: str
    """What the owner calls it."""
    digest: NotRequired[Text]
    """Launch digest, hex or base64."""
    manifest: NotRequired[FileName]
    """File that `snp measure --manifest` wrote, relative to this one."""
    id_keys: NotRequired[Annotated[list[Hex48], rules({"minItems": 1})]]
    """Digests of the ID keys of which one must have signed the guest's ID block."""
    author_keys: NotRequired[Annotated[list[Hex48], rules({"minItems": 1})]]
    """Digests of the author keys of which one must have signed the ID key."""
    family_id: NotRequired[Hex16]
    """Its family."""
    image_id: NotRequired[Hex16]
    """Its image."""
    guest_svn: NotRequired[Svn]
    """Its oldest security version."""
    host_data: NotRequired[Any32]
    """What the host must have put there; all zeros without it."""
    expires: NotRequired[Expiry]
    """Not allowed from then on: a TOML date (UTC), or a date and time with time zone."""
    note: NotRequired[str]
    """A remark for people."""


class Snp(TypedDict, total=False):
    """What is required of guests of SEV-SNP; without it none is allowed. "*" allows all."""

    products: list[Annotated[str, one_of("milan", "genoa", "turin", "test", "*")]]
    """Products; "test" allows roots that are not AMD's, of these products."""
    chip_ids: list[AnyChipId]
    """Allowed chips, of reports that a VCEK signed."""
    denied_chip_ids: list[ChipId]
    """Denied chips."""
    csp_ids: list[Text]
    """Allowed cloud providers, of reports that a VLEK signed."""
    cpuids: list[Cpuid]
    """Family, model and stepping in hex."""
    vmpls: list[Vmpl]
    """Privilege levels that may ask for a report."""
    provisional: bool
    """Whether firmware may run that is not committed."""
    minimum: SnpMinimum
    """The oldest versions of each product; needed for each that is allowed."""
    policy: SnpPolicy
    """Bits of the guest's policy: those that may be set, and those that must be."""
    platform: SnpPlatform
    """Bits of platform_info that must be set, and that must be clear."""
    launch: list[
        Annotated[
            SnpLaunch,
            rules(
                {
                    "anyOf": [
                        {"required": [name]} for name in (*_DIGESTS, "id_keys", "author_keys")
                    ],
                    "not": {"required": [*_DIGESTS]},
                }
            ),
        ]
    ]
    """Guests that may get their secret."""
    advisories: Accepted
    """Known weaknesses, by id."""


class Requirements(TypedDict):
    """owner.toml: what an owner requires of a launch. An empty or missing list allows nothing."""

    schema: Literal["sev-attest/requirements/1"]
    platform: NotRequired[Platforms]
    """Which platforms are allowed. "*" in a list allows all."""
    minimum: NotRequired[Minimum]
    """The oldest SEV firmware of each generation; needed for each that is allowed."""
    policy: NotRequired[Policy]
    """Bits that must be set, and bits that must be clear, in a session's policy."""
    launch: NotRequired[
        list[Annotated[Launch, rules({"oneOf": [{"required": [name]} for name in _DIGESTS]})]]
    ]
    """Guests that may get their secret."""
    advisories: NotRequired[Accepted]
    """Known weaknesses, by id."""
    snp: NotRequired[Snp]
    """What is required of guests of SEV-SNP; without it none is allowed."""
