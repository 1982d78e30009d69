"""Documents of the commands that verify, launch and make sessions on SEV and SEV-ES."""

from typing import Literal, NotRequired, TypedDict

from sev_attest.cli.documents.parts import (
    AnyGeneration,
    Api,
    Base64,
    Byte,
    Change,
    Check,
    Count,
    Done,
    Exposed,
    Failure,
    Finding,
    Fingerprints,
    Hex32,
    KernelHashes,
    Noted,
    Policy32,
    Refused,
    Reused,
    Search,
)


class Judged(TypedDict):
    """A chain, and what was checked of it."""

    fingerprints: Fingerprints
    """The certificates of the chain."""
    checks: list[Check]
    """Every check, in order."""


class Verify(Noted, Judged):
    """The verdict on a platform's certificates."""

    generation: AnyGeneration | None
    """The generation of AMD's chips; null if the root is not AMD's."""
    root: str
    """The trusted root that the chain leads to."""


class ChainVerdict(TypedDict):
    """The verdict on one of many chains."""

    input: str
    """The file."""
    ok: bool
    """Whether it is verified."""
    generation: AnyGeneration | None
    """The generation of AMD's chips; null if it is not verified, or the root is not AMD's."""
    root: str | None
    """The trusted root; null if it is not verified."""
    notes: list[str]
    """Remarks for people."""
    errors: list[Failure]
    """Why it is not verified; empty if it is."""


class VerifyEach(Done):
    """The verdicts of `verify --each`."""

    chains: list[ChainVerdict]
    """One verdict for each input, in order."""


class VerifyRefused(Refused):
    """Chains that are not verified."""


class Session(Noted):
    """A session that was made for one launch."""

    name: str
    """What the owner calls it."""
    policy: Policy32
    """The guest policy."""
    root: str | None
    """The trusted root of the platform; null if it was not verified."""
    files: list[str]
    """The files that were written."""
    launch_security: str
    """libvirt's <launchSecurity> element, with GODH and session blob."""


class MeasuredPart(TypedDict):
    """One measured piece of a guest."""

    what: str
    """What it is."""
    offset: Count
    """Its offset in all that is measured, in bytes."""
    size: Count
    """Its size in bytes."""
    sha256: Hex32
    """Its SHA-256."""


class MeasuredGuest(TypedDict):
    """A launch digest, and what was measured."""

    digest: Hex32
    """The launch digest."""
    measured: list[MeasuredPart]
    """What was measured; empty for a digest that was given."""
    kernel_hashes: KernelHashes | None
    """The hashes of a kernel that is booted directly."""


class AllowedLaunch(TypedDict):
    """The launch of owner.toml that allows this one."""

    launch: str
    """Its name."""
    guest: str
    """The description of the digest in its manifest; may be empty."""


class ReportedLaunch(Noted):
    """What a host reports of a launch."""

    measurement: Base64
    """The measurement: HMAC and nonce, 48 bytes."""
    api: Api
    """The SEV API."""
    build_id: Byte
    """The build of the SEV firmware."""
    policy: Policy32
    """The guest policy."""


class Verdict(ReportedLaunch, MeasuredGuest):
    """The verdict on a launch."""

    checks: list[Check]
    """Every check, in order."""
    requirements: AllowedLaunch | None
    """How the owner's requirements allow it; null without --requirements."""
    secrets: Count
    """How many secrets were released."""
    advisories: NotRequired[list[Exposed]]
    """Known weaknesses that affect it; with --verbose all. Only if its platform was verified."""
    unseen_advisories: NotRequired[list[str]]
    """Ids of known weaknesses that attestation cannot show: they may affect it."""


class Validate(Verdict):
    """The verdict on the measurement of a launch."""


class ValidateRefused(Refused, Reused, total=False):
    """A launch that is not verified, or not allowed."""

    digest: Hex32 | None
    """The launch digest; null if it fits none that the requirements allow."""
    diagnosis: list[Change]
    """What would make the measurement match, likeliest first."""
    search: Search
    """How far the search for the cause went."""


class Step(TypedDict):
    """A step that was taken."""

    step: str
    """What was done."""
    detail: str
    """What came of it, in words."""


class Launch(Verdict):
    """A guest that was launched and attested, and runs."""

    dry_run: Literal[False]
    """Whether nothing was changed (--dry-run)."""
    domain: str
    """The domain's name."""
    guest: Literal["running"]
    """The state of the guest."""
    steps: list[Step]
    """What was done, in order."""


class LaunchPlan(Noted):
    """What `launch --dry-run` would do."""

    dry_run: Literal[True]
    """Whether nothing was changed (--dry-run)."""
    domain: str
    """The domain's name."""
    would: list[str]
    """What a launch would do, in order."""
    digests: list[Hex32]
    """The launch digests that it would accept."""
    diff: list[str]
    """The lines of the diff of the domain's XML, without passwords."""
    findings: list[Finding]
    """What is left to say of the XML."""
    steps: list[Step]
    """What was done, in order."""


class LaunchRefused(Refused, Reused, total=False):
    """A launch that was refused and undone."""

    digest: Hex32 | None
    """The launch digest; null if it fits none that the requirements allow."""
    guest: str
    """What became of the guest."""
    remains: str
    """What is left of the launch, in words."""
    diagnosis: list[Change]
    """What would make the measurement match, likeliest first."""
    search: Search
    """How far the search for the cause went."""


class ReportedFacts(TypedDict):
    """What a report says."""

    digest: Hex32
    """The launch digest in the report."""
    policy: Policy32
    """The guest policy in the report."""
    notes: list[str]
    """Remarks for people."""


class ReportVerify(Done, ReportedFacts):
    """The verdict on an attestation report of SEV."""

    checks: list[Check]
    """Every check, in order; null for what was compared with nothing."""


class ReportVerifyRefused(Refused):
    """A report that is not verified."""
