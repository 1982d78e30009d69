"""The document of `snp show`."""

from typing import Annotated, Literal, TypedDict

from sev_attest.cli.documents.parts import Byte, Count, Hex32, Noted, SnpProduct, Time, one_of
from sev_attest.cli.documents.snp import ComponentVersions, PolicyMeaning, Report, Serial, Tcb

WhichTcb = Annotated[str, one_of("current", "reported", "committed", "launch")]


class PublicKey(TypedDict):
    """The public key of a certificate."""

    algorithm: str
    """Its kind and size."""
    sha256: Hex32
    """SHA-256 of the key, as X.509 has it."""
    pinned: str | None
    """Which of AMD's built-in keys it is; null for none."""


class Extensions(TypedDict):
    """AMD's extensions of a VCEK or VLEK."""

    struct_version: Count
    """The version of the extensions."""
    product_name: str
    """The product, with its stepping."""
    spls: dict[str, Byte]
    """The versions of the TCB, by AMD's names."""
    tcb: Tcb
    """The TCB, to compare with reported_tcb."""
    hwid: str | None
    """The id of the chip in hex; null for a VLEK."""
    csp_id: str | None
    """The cloud provider; null for a VCEK."""


class ShownCertificate(TypedDict):
    """A certificate."""

    kind: Annotated[str, one_of("ARK", "ASK", "ASVK", "VCEK", "VLEK")]
    """What its key is for."""
    subject: str
    """Its common name."""
    issuer: str
    """Its issuer's common name."""
    product: str
    """The product that it is for."""
    serial: Serial
    """Its serial number."""
    not_before: Time
    """When it becomes valid."""
    not_after: Time
    """When it expires."""
    fingerprint: Hex32
    """SHA-256 of the certificate."""
    public_key: PublicKey
    """Its key."""
    extensions: Extensions | None
    """AMD's extensions; null for a CA."""


class ShownList(TypedDict):
    """A revocation list."""

    kind: Literal["CRL"]
    """It is a revocation list."""
    issuer: str
    """Its issuer's common name."""
    this_update: Time
    """When it was issued."""
    next_update: Time | None
    """When the next one is due; null if it is not stated."""
    serials: list[Serial]
    """The serial numbers that it revokes."""


class ShownContent(TypedDict):
    """What one file, or one part of it, holds."""

    source: str
    """Where it was."""
    size: Count
    """Its size in bytes."""
    found: list[ShownCertificate | ShownList]
    """Its certificates and lists; empty if it cannot be read."""


class PlatformMeaning(TypedDict):
    """What platform_info says."""

    names: list[str]
    """The bits that are set."""
    unknown: list[str]
    """Set bits without a name."""


class KeyMeaning(TypedDict):
    """What key_info says."""

    author_key_en: bool
    """Whether there is an author key."""
    mask_chip_key: bool
    """Whether the host masks the chip's key."""
    signing_key: Annotated[str, one_of("VCEK", "VLEK", "NONE", "UNKNOWN")]
    """The kind of key that signs."""
    unknown: list[str]
    """Set bits without a name."""


class ReportMeaning(TypedDict):
    """What the bits of a report stand for."""

    product: SnpProduct | None
    """The family of chips; null if it is unknown."""
    tcb: dict[WhichTcb, ComponentVersions] | None
    """Each TCB by component; null if the product is unknown."""
    policy: PolicyMeaning
    """The guest policy."""
    platform_info: PlatformMeaning
    """The settings of the platform."""
    key_info: KeyMeaning
    """What signs the report."""
    reserved: list[str]
    """What is in use, though reserved."""


class RuntimeData(TypedDict):
    """The runtime data of an Azure HCL blob."""

    text: str
    """The data."""
    hash: str
    """The hash that binds it."""
    bound: bool
    """Whether report_data is its hash."""


class ShownReport(TypedDict):
    """A report, and what came with it."""

    source: str
    """Where it was."""
    kind: Literal["report"]
    """It is a report."""
    report: Report
    """Every field of the report."""
    meaning: ReportMeaning
    """What its bits stand for."""
    runtime_data: RuntimeData | None
    """The runtime data of an HCL blob; null for any other."""
    certificates: list[ShownContent]
    """What came with it."""
    notes: list[str]
    """Remarks for people."""


class ShownCertificates(TypedDict):
    """Certificates and lists."""

    source: str
    """Where they were."""
    kind: Literal["certificates"]
    """They are certificates or lists."""
    certificates: list[ShownContent]
    """What is in each file."""
    notes: list[str]
    """Remarks for people."""


class SnpShow(Noted):
    """Reports and certificates; nothing was verified."""

    inputs: list[ShownReport | ShownCertificates]
    """What each input holds, in order."""
