"""The JSON of evidence, part by part; ``reader.py`` reads it.

Bytes are base64, digests and fingerprints hex, times ISO 8601 with a zone. A part that the verdict
does not have is null.
"""

from typing import TypedDict

SCHEMA = "sev-attest/evidence/1"
STRUCTURE = "evidence"


class Software(TypedDict):
    """What made the evidence."""

    sev_attest: str
    python: str
    cryptography: str
    made: str


class Problem(TypedDict):
    """One reason of a refusal."""

    check: str
    message: str
    hint: str


class CheckResult(TypedDict):
    """A check; ``ok`` is null for one that was not made."""

    id: str
    ok: bool | None
    meaning: str


class InputFile(TypedDict):
    """An input, by the last part of its name; ``size`` is null if it was not counted."""

    what: str
    name: str
    size: int | None
    sha256: str


class CertificatePart(TypedDict):
    """A certificate; ``subject`` and dates are null for those of SEV, which have none."""

    role: str
    fingerprint: str
    subject: str | None
    not_before: str | None
    not_after: str | None
    bytes: str


class ChainPart(TypedDict):
    """A platform's chain; ``root`` is null if it leads to none that is trusted."""

    root: str | None
    generation: str | None
    platform_id: str | None
    certificates: list[CertificatePart]


class RangePart(TypedDict):
    """A measured piece: where it is, its size in bytes, and its digest as the command lists it.

    SEV and SEV-ES: the offset in the whole, and the piece's SHA-256. SEV-SNP: the guest's address,
    and the launch digest after the piece.
    """

    what: str
    at: int
    size: int
    digest: str


class KernelPart(TypedDict):
    """SHA-256 of kernel, initrd and command line (with its NUL)."""

    kernel: str
    initrd: str
    cmdline: str


class MeasuredPart(TypedDict):
    """The guest that its owner meant: its launch digest, and the pieces that it is computed of."""

    digest: str
    vcpus: int | None
    ranges: list[RangePart]
    kernel_hashes: KernelPart | None


class LaunchPart(TypedDict):
    """What the host reported of a launch, and the owner's policy; nothing of the expected MAC."""

    measurement: str
    nonce: str
    api_major: int
    api_minor: int
    build_id: int
    policy: int
    reported_policy: int | None


class RecordPart(TypedDict):
    """What the record of the session says of its platform."""

    name: str
    session_id: str
    created: str
    root: str | None
    generation: str | None
    cek: str | None
    pdh: str
    kernel_hashes: bool


class RuntimeDataPart(TypedDict):
    """What Azure's HCL blob has beside the report, and the hash that binds it."""

    hash_name: str
    content: str


class ReportPart(TypedDict):
    """A report of SEV-SNP, what it was verified with, and what it had to say."""

    report: str
    at: str
    product: str | None
    root: str | None
    certificates: list[CertificatePart]
    revocation_lists: list[str]
    runtime_data: RuntimeDataPart | None
    report_data: str | None
    launch_digest: str | None


class RequirementsPart(TypedDict):
    """The owner's requirements, by their fingerprint, and what they allow this guest as.

    ``met`` is null if they were not asked.
    """

    fingerprint: str
    met: bool | None
    launch: str | None
    guest: str | None


class AdvisoryPart(TypedDict):
    """A known weakness, and whether it affects this guest."""

    id: str
    title: str
    verdict: str
    reason: str


class EventPart(TypedDict):
    """An event of the ledger, as its row is."""

    seq: int
    time: str
    session_id: str
    kind: str
    detail: str
    previous: str
    hash: str


class StepPart(TypedDict):
    """A step of ``launch``."""

    step: str
    detail: str


class Evidence(TypedDict):
    """The evidence of one verdict."""

    schema: str
    command: str
    ok: bool
    exit: int
    summary: str
    errors: list[Problem]
    checks: list[CheckResult]
    notes: list[str]
    chain: ChainPart | None
    record: RecordPart | None
    launch: LaunchPart | None
    report: ReportPart | None
    measured: MeasuredPart | None
    requirements: RequirementsPart | None
    advisories: list[AdvisoryPart]
    ledger: list[EventPart]
    steps: list[StepPart]
    inputs: list[InputFile]
    repeat: str
    software: Software
