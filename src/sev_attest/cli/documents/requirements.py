"""Documents of `requirements`."""

from typing import TypedDict

from sev_attest.cli.documents.parts import (
    Byte,
    Count,
    Done,
    Hex,
    Hex16,
    Hex48,
    Noted,
)
from sev_attest.cli.documents.snp import ComponentVersions


class RequirementsInit(Done):
    """An owner.toml that was written."""

    file: str
    """The file."""


class AcceptedFirmware(TypedDict):
    """The oldest SEV firmware that is accepted."""

    api: str
    """Its API, MAJOR.MINOR."""
    build: Byte
    """Its build."""


class RequiredPolicy(TypedDict):
    """What is required of the guest policy."""

    set: list[str]
    """Bits that must be set."""
    clear: list[str]
    """Bits that must be clear."""
    minimum_api: bool
    """Whether a policy must have a minimum API."""


class AllowedGuest(TypedDict):
    """A guest that may get its secret."""

    name: str
    """Its name."""
    digests: dict[Hex, str]
    """Its launch digests, each with a description."""
    expires: str | None
    """When it is not allowed any more; null for never."""
    expired: bool
    """Whether that is over."""
    note: str
    """What was noted of it."""


class AcceptedTcb(TypedDict):
    """The oldest versions of a product that are accepted; null for any."""

    firmware: str
    """The firmware that runs, MAJOR.MINOR.BUILD."""
    committed_firmware: str | None
    """The firmware that the host can go back to."""
    reported: ComponentVersions
    """What the signing key must prove."""
    committed: ComponentVersions | None
    """What the host can go back to."""
    launch: ComponentVersions | None
    """What the guest started with."""
    current_mitigations: Count | None
    """Mitigations that must be on."""
    launch_mitigations: Count | None
    """Mitigations that must have been on when the guest started."""


class AllowedSnpGuest(TypedDict):
    """A guest of SEV-SNP that may get its secret; null and empty lists allow any."""

    name: str
    """Its name."""
    digests: dict[Hex48, str]
    """Its launch digests, each with a description."""
    id_keys: list[Hex48]
    """Digests of the ID keys, of which one must have signed the ID block."""
    author_keys: list[Hex48]
    """Digests of the author keys, of which one must have signed the ID key."""
    family_id: Hex16 | None
    """Its family."""
    image_id: Hex16 | None
    """Its image."""
    guest_svn: Count | None
    """Its oldest security version."""
    host_data: str
    """What the host must have put there; "*" for anything."""
    expires: str | None
    """When it is not allowed any more; null for never."""
    expired: bool
    """Whether that is over."""
    note: str
    """What was noted of it."""


class AllowsSnp(TypedDict):
    """What owner.toml allows of SEV-SNP; "*" in a list allows all."""

    products: list[str]
    """The products; "test" is a root that is not AMD's."""
    chip_ids: list[str]
    """The chips, of reports that a VCEK signed."""
    denied_chip_ids: list[str]
    """The chips that are denied."""
    csp_ids: list[str]
    """The cloud providers, of reports that a VLEK signed."""
    cpuids: list[str]
    """Family, model and stepping in hex."""
    vmpls: list[Count]
    """The privilege levels that may ask for a report."""
    permits: list[str]
    """Bits of the policy that may permit the host something."""
    demands: list[str]
    """Bits of the policy that must demand something of the host."""
    platform_set: list[str]
    """Bits of platform_info that must be set."""
    platform_clear: list[str]
    """Bits of platform_info that must be clear."""
    acknowledged: list[str]
    """Advisories that may affect the platform."""
    refused: list[str]
    """Advisories that must not affect the platform."""
    min_abi: str
    """The lowest ABI that the policy must demand."""
    provisional: bool
    """Whether firmware may run that is not committed."""
    minimum: dict[str, AcceptedTcb]
    """The oldest versions of each product."""
    launches: list[AllowedSnpGuest]
    """The guests that may get their secret."""


class Allows(TypedDict):
    """What owner.toml allows; "*" in a list allows all."""

    generations: list[str]
    """The generations of AMD's chips; "test" is a root that is not AMD's."""
    ceks: list[str]
    """The chips, by CEK."""
    platform_ids: list[str]
    """The platform ids, as hosts claim them."""
    pdhs: list[str]
    """The PDHs."""
    denied_ceks: list[str]
    """The chips that are denied."""
    denied_platform_ids: list[str]
    """The platform ids that are denied."""
    denied_pdhs: list[str]
    """The PDHs that are denied."""
    acknowledged: list[str]
    """Advisories that may affect the platform."""
    refused: list[str]
    """Advisories that must not affect the platform."""
    minimum: dict[str, AcceptedFirmware]
    """The oldest firmware of each generation."""
    policy: RequiredPolicy
    """What is required of the guest policy."""
    launches: list[AllowedGuest]
    """The guests that may get their secret."""
    snp: AllowsSnp | None
    """What it allows of SEV-SNP; null without [snp]."""


class RequirementsCheck(Noted):
    """What an owner.toml allows."""

    possible: bool
    """Whether any launch can meet it."""
    allows: Allows
    """What it allows."""
