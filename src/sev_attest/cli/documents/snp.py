"""Documents of `snp verify`, `snp show`, `snp measure` and `snp certs`."""

from typing import Annotated, TypedDict

from sev_attest.cli.documents.parts import (
    Api,
    Byte,
    Change,
    Count,
    DetailedCheck,
    Done,
    Hex16,
    Hex32,
    Hex48,
    Hex64,
    KernelHashes,
    Noted,
    Refused,
    Search,
    SnpProduct,
    Time,
    one_of,
    rules,
)

Tcb = Annotated[str, rules({"pattern": "^[0-9a-f]{16}$"})]
"""A TCB version, 8 bytes as the report has it."""
Component = Annotated[str, one_of("fmc", "bootloader", "tee", "snp", "microcode")]
ComponentVersions = dict[Component, Byte]
"""A TCB by component; only Turin has the FMC."""
Serial = Annotated[str, rules({"pattern": "^-?0x[0-9a-f]+$"})]


class Signature(TypedDict):
    """An ECDSA signature."""

    r: Hex48
    """R, big-endian."""
    s: Hex48
    """S, big-endian."""


class Report(TypedDict):
    """Every field of an attestation report, by AMD's names; null if its version lacks it."""

    version: Count
    """The version of the report."""
    guest_svn: Count
    """The guest's security version, from its ID block."""
    policy: Count
    """The guest policy."""
    family_id: Hex16
    """The family, from the ID block."""
    image_id: Hex16
    """The image, from the ID block."""
    vmpl: Count
    """The privilege level that asked; 0xFFFFFFFF is the host."""
    signature_algo: Count
    """The algorithm of the signature; 1 is ECDSA P-384 with SHA-384."""
    current_tcb: Tcb
    """The TCB that runs."""
    platform_info: Count
    """Settings of the platform."""
    key_info: Count
    """What signs the report."""
    report_data: Hex64
    """What the guest chose."""
    measurement: Hex48
    """The launch digest."""
    host_data: Hex32
    """What the host chose at launch."""
    id_key_digest: Hex48
    """SHA-384 of the ID key."""
    author_key_digest: Hex48
    """SHA-384 of the author key."""
    report_id: Hex32
    """The id of this guest."""
    report_id_ma: Hex32
    """The id of its migration agent."""
    reported_tcb: Tcb
    """The TCB that the signing key proves."""
    cpuid_family: Byte | None
    """The CPU's family."""
    cpuid_model: Byte | None
    """The CPU's model."""
    cpuid_stepping: Byte | None
    """The CPU's stepping."""
    chip_id: Hex64
    """The id of the chip; zeros if it is masked."""
    committed_tcb: Tcb
    """The TCB that the host can go back to."""
    current_build: Byte
    """The build of the firmware that runs."""
    current_minor: Byte
    """The minor version of the firmware that runs."""
    current_major: Byte
    """The major version of the firmware that runs."""
    committed_build: Byte
    """The build of the firmware that the host can go back to."""
    committed_minor: Byte
    """The minor version of the firmware that the host can go back to."""
    committed_major: Byte
    """The major version of the firmware that the host can go back to."""
    launch_tcb: Tcb
    """The TCB when the guest was launched."""
    launch_mit_vector: Count | None
    """Mitigations that were on when the guest was launched."""
    current_mit_vector: Count | None
    """Mitigations that are on."""
    signature: Signature
    """The signature."""


class ChainLink(TypedDict):
    """A certificate that was verified."""

    kind: Annotated[str, one_of("ARK", "ASK", "ASVK", "VCEK", "VLEK")]
    """What its key is for."""
    subject: str
    """Its common name."""
    fingerprint: Hex32
    """SHA-256 of the certificate."""
    not_before: Time
    """When it becomes valid."""
    not_after: Time
    """When it expires."""


class MeasuredPages(TypedDict):
    """Consecutive pages that were measured."""

    what: str
    """What they are."""
    address: Count
    """The guest address of the first."""
    pages: Count
    """How many."""
    type: str
    """The type of the pages, by AMD's names."""
    digest: Hex48
    """The launch digest after the last of them."""


class MeasuredGuest(TypedDict):
    """A guest and its launch digest."""

    digest: Hex48
    """The launch digest."""
    vmsa_profile: str
    """The layout of the VMM."""
    vcpus: Count
    """How many vCPUs."""
    measured: list[MeasuredPages]
    """What was measured, in order."""
    kernel_hashes: KernelHashes | None
    """The hashes of a kernel that is booted directly."""


class AllowedGuest(TypedDict):
    """The launch of owner.toml that allows this guest."""

    launch: str
    """Its name."""
    guest: str
    """The description of the digest in its manifest; may be empty."""


class Verdict(Noted):
    """The verdict on an attestation report."""

    product: SnpProduct | None
    """The family of chips; null if the report is not verified."""
    key: Annotated[str, one_of("VCEK", "VLEK", "NONE", "UNKNOWN")]
    """The kind of key that signs, as the report says."""
    root: str | None
    """The trusted root; null if the report is not verified."""
    at: Time | None
    """The time for which it was verified; null if the report is not verified."""
    report: Report
    """Every field of the report."""
    checks: list[DetailedCheck]
    """Every check that was made, in order."""
    failed: list[str]
    """The ids of the checks that failed."""
    requirements: AllowedGuest | None
    """How the owner's requirements allow it; null without --requirements."""
    certificates: list[ChainLink]
    """The chain, from the signing key up; empty if the report is not verified."""
    guest: MeasuredGuest | None
    """The guest that was described; null for none."""


class SnpVerify(Verdict):
    """The verdict on an attestation report."""


class SnpVerifyRefused(Refused, total=False):
    """A report that is not verified, or not allowed."""

    diagnosis: list[Change]
    """What would make the launch digest match, likeliest first."""
    search: Search
    """How far the search for the cause went."""


class PolicyMeaning(TypedDict):
    """What a guest policy says."""

    min_abi: Api
    """The oldest ABI of the firmware that it accepts."""
    permits: list[str]
    """What it permits the host."""
    demands: list[str]
    """What it demands of the host."""
    reserved: Count
    """Reserved bits with a wrong value; 0 for none."""


class SnpMeasureFacts(MeasuredGuest):
    """A launch digest."""

    notes: list[str]
    """Remarks for people."""
    expected: Hex48 | None
    """The digest of --expect; null without it."""


class SnpMeasure(Done, SnpMeasureFacts):
    """A launch digest."""


class SnpMeasureTable(Noted):
    """The launch digests of a guest with each number of vCPUs."""

    digests: dict[str, Hex48]
    """The launch digest for each number of vCPUs."""


class SnpMeasureManifest(Done):
    """Launch digests that were written to a file."""

    manifest: str
    """The file."""
    digests: Count
    """How many digests it has."""


class SnpMeasureRefused(Refused, total=False):
    """A launch digest that differs from the one that was expected."""

    diagnosis: list[Change]
    """What would make it match, likeliest first."""
    search: Search
    """How far the search for the cause went."""


class Address(TypedDict):
    """Where AMD serves certificates."""

    what: str
    """What is there."""
    product: SnpProduct
    """The product that it is for."""
    address: str
    """The URL."""


class SnpCerts(Noted):
    """Where AMD serves the certificates of a report."""

    addresses: list[Address]
    """Every address."""
    files: list[str]
    """The files that --fetch wrote."""
