"""The JSON of evidence, part by part; ``reader.py`` reads it.

Bytes are base64, digests and fingerprints hex, times ISO 8601 with a zone. A part that the verdict
does not have is null.
"""

from typing import Literal, TypedDict

from sev_attest.cli.documents.parts import Base64, Count, Hex, Hex16, Hex32, Hex48, Hex64, Time

SCHEMA: Literal["sev-attest/evidence/1"] = "sev-attest/evidence/1"
STRUCTURE = "evidence"
OfCommand = Literal["verify", "validate", "launch", "snp-verify", "snp-release"]
"""The commands that leave evidence."""


class Software(TypedDict):
    """What made the evidence."""

    sev_attest: str
    """The version of this program."""
    python: str
    """The version of Python."""
    cryptography: str
    """The version of cryptography."""
    made: Time
    """When the evidence was made."""


class Problem(TypedDict):
    """One reason of a refusal."""

    check: str
    """The id of the check; it is stable."""
    message: str
    """What is wrong, for people."""
    hint: str
    """What to do about it; may be empty."""


class CheckResult(TypedDict):
    """A check; ``ok`` is null for one that was not made."""

    id: str
    """The id of the check; it is stable."""
    ok: bool | None
    """Whether it held; null if it was not made."""
    meaning: str
    """What it guarantees."""


class InputFile(TypedDict):
    """An input, by the last part of its name; ``size`` is null if it was not counted."""

    what: str
    """What it is, such as firmware or kernel."""
    name: str
    """The last part of its name."""
    size: Count | None
    """Its size in bytes; null if it was not counted."""
    sha256: Hex32
    """Its SHA-256."""


class CertificatePart(TypedDict):
    """A certificate; ``subject`` and dates are null for those of SEV, which have none."""

    role: str
    """What it is in its chain, such as PEK or VCEK."""
    fingerprint: Hex
    """The fingerprint that `certs show` or `snp show` prints."""
    subject: str | None
    """The common name of its subject; null for SEV."""
    not_before: Time | None
    """When it begins to be valid; null for SEV."""
    not_after: Time | None
    """When it ends to be valid; null for SEV."""
    bytes: Base64
    """The certificate."""


class ChainPart(TypedDict):
    """A platform's chain; ``root`` is null if it leads to none that is trusted."""

    root: str | None
    """The trusted root; null if it leads to none."""
    generation: str | None
    """The generation of AMD's chips; null if the root is not AMD's."""
    platform_id: Hex | None
    """The id of the platform, as the host claims it; null if it claims none."""
    certificates: list[CertificatePart]
    """Its certificates."""


class RangePart(TypedDict):
    """A measured piece: where it is, its size in bytes, and its digest as the command lists it.

    SEV and SEV-ES: the offset in the whole, and the piece's SHA-256. SEV-SNP: the guest's address,
    and the launch digest after the piece.
    """

    what: str
    """What it is, in words."""
    at: Count
    """Where it is: an offset (SEV, SEV-ES) or the guest's address (SEV-SNP)."""
    size: Count
    """Its size in bytes."""
    digest: Hex
    """SHA-256 of the piece (SEV, SEV-ES), or the launch digest after it (SEV-SNP)."""


class KernelPart(TypedDict):
    """SHA-256 of kernel, initrd and command line (with its NUL)."""

    kernel: Hex32
    """SHA-256 of the kernel."""
    initrd: Hex32
    """SHA-256 of the initrd."""
    cmdline: Hex32
    """SHA-256 of the command line, with its zero byte."""


class MeasuredPart(TypedDict):
    """The guest that its owner meant: its launch digest, and the pieces that it is computed of."""

    digest: Hex
    """The launch digest."""
    vcpus: Count | None
    """How many vCPUs; null if they are not measured."""
    ranges: list[RangePart]
    """The measured pieces, in order; empty if the digest was given."""
    kernel_hashes: KernelPart | None
    """The hashes of a kernel that is booted directly."""


class LaunchPart(TypedDict):
    """What the host reported of a launch, and the owner's policy; nothing of the expected MAC."""

    measurement: Base64
    """The measurement that the host reported, 32 bytes."""
    nonce: Hex16
    """Its nonce."""
    api_major: Count
    """The API version of the firmware: major."""
    api_minor: Count
    """The API version of the firmware: minor."""
    build_id: Count
    """The build of the firmware."""
    policy: Count
    """The owner's policy."""
    reported_policy: Count | None
    """The policy that the host reported; null if it reported none."""


class RecordPart(TypedDict):
    """What the record of the session says of its platform."""

    name: str
    """What the owner calls the launch."""
    session_id: Hex32
    """The id of the session's keys."""
    created: str
    """When it was made."""
    root: str | None
    """The trusted root of the platform; null if it was not verified."""
    generation: str | None
    """The generation of AMD's chips; null if it was not verified, or the root is not AMD's."""
    cek: Hex32 | None
    """The fingerprint of the CEK; null if it was not verified."""
    pdh: Hex32
    """The fingerprint of the PDH."""
    kernel_hashes: bool
    """Whether libvirt was asked to measure the kernel."""


class RuntimeDataPart(TypedDict):
    """What Azure's HCL blob has beside the report, and the hash that binds it."""

    hash_name: str
    """The hash that binds it."""
    content: Base64
    """The runtime data."""


class ReportPart(TypedDict):
    """A report of SEV-SNP, what it was verified with, and what it had to say."""

    report: Base64
    """The report."""
    at: Time
    """The time that it was verified for."""
    product: str | None
    """AMD's product; null if it was not verified."""
    root: str | None
    """The trusted root; null if it was not verified."""
    certificates: list[CertificatePart]
    """The certificates that it was verified with."""
    revocation_lists: list[Base64]
    """The revocation lists that it was verified with."""
    runtime_data: RuntimeDataPart | None
    """Azure's runtime data; null for others."""
    report_data: Hex64 | None
    """The report data that was expected; null if none was."""
    launch_digest: Hex48 | None
    """The launch digest that was expected; null if none was."""


class RequirementsPart(TypedDict):
    """The owner's requirements, by their fingerprint, and what they allow this guest as.

    ``met`` is null if they were not asked.
    """

    fingerprint: Hex32
    """Their fingerprint, as `requirements check` prints it."""
    met: bool | None
    """Whether they are met; null if they were not asked."""
    launch: str | None
    """What they call the launch that they allow."""
    guest: str | None
    """What they call the guest that they allow."""


class AdvisoryPart(TypedDict):
    """A known weakness, and whether it affects this guest."""

    id: str
    """Its CVE, or a name."""
    title: str
    """What it is."""
    verdict: str
    """Whether it affects this guest."""
    reason: str
    """Why."""


class EventPart(TypedDict):
    """An event of the ledger, as its row is."""

    seq: Count
    """Its number in the ledger, from 1."""
    time: str
    """When it happened."""
    session_id: str
    """The session that it is of."""
    kind: str
    """What happened."""
    detail: str
    """More of that."""
    previous: Hex32
    """The hash of the event before."""
    hash: Hex32
    """The hash of this event and all before it."""


class StepPart(TypedDict):
    """A step of ``launch``."""

    step: str
    """The step."""
    detail: str
    """What was done."""


class Evidence(TypedDict):
    """The evidence of one verdict."""

    schema: Literal["sev-attest/evidence/1"]
    command: OfCommand
    """The command whose verdict this is."""
    ok: bool
    """Whether it accepted."""
    exit: Count
    """Its exit code."""
    summary: str
    """The verdict, in a sentence."""
    errors: list[Problem]
    """Every reason of a refusal; empty for success."""
    checks: list[CheckResult]
    """Every check."""
    notes: list[str]
    """What the verdict leaves open."""
    chain: ChainPart | None
    """The platform's chain."""
    record: RecordPart | None
    """What the record of the session says."""
    launch: LaunchPart | None
    """What the host reported of the launch."""
    report: ReportPart | None
    """The report of SEV-SNP."""
    measured: MeasuredPart | None
    """The guest that its owner meant."""
    requirements: RequirementsPart | None
    """The owner's requirements; null if there were none."""
    advisories: list[AdvisoryPart]
    """Known weaknesses."""
    ledger: list[EventPart]
    """The events of the session."""
    steps: list[StepPart]
    """The steps of `launch`."""
    inputs: list[InputFile]
    """The inputs whose bytes are not in the file."""
    repeat: str
    """The command that recomputes the verdict."""
    software: Software
    """What made the evidence."""
