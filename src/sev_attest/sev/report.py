"""The ATTESTATION report: what a guest was launched as, signed by its platform's PEK.

Source: AMD 55766, "ATTESTATION"; 208 bytes, every number little-endian:

======  ====  =================================================
offset  size  field
======  ====  =================================================
0x00    16    MNONCE, the verifier's
0x10    32    launch digest
0x30    4     policy
0x34    4     usage of the signing key (PEK)
0x38    4     algorithm of the signature (ECDSA with SHA-256)
0x3c    4     reserved, zero
0x40    144   signature over the first 0x34 bytes: R (72), S (72)
======  ====  =================================================
"""

import hmac
from dataclasses import InitVar, dataclass

from sev_attest import _crypto
from sev_attest._keys import Algorithm
from sev_attest._seal import Seal
from sev_attest._wire import Reader
from sev_attest.errors import LaunchRefused, MalformedInput
from sev_attest.sev.chain.verify import VerifiedChain
from sev_attest.sev.policy import GuestPolicy, require_policy_type
from sev_attest.sev.spec import Usage

REPORT_SIZE = 208
_BODY_SIZE = 0x34
_NONCE_SIZE = 16
_DIGEST_SIZE = 32
_SEAL = Seal("verify_report()")

CHECKS = {
    "report.signature": "the platform's PEK signs the report",
    "report.nonce": "the nonce is the verifier's",
    "report.policy": "the policy is the expected one",
    "report.digest": "the launch digest is the expected one",
}
"""Every check id of a report, in the order of the steps, and what it guarantees."""


@dataclass(frozen=True, slots=True, repr=False)
class AttestationReport:
    """An attestation report, parsed. Does not verify: anything (see :func:`verify_report`)."""

    body: bytes
    """The signed bytes: every field is read from them."""
    usage: Usage
    algorithm: Algorithm
    signature: tuple[int, int]

    def __repr__(self) -> str:
        """Show the launch digest and the policy."""
        return f"AttestationReport(digest={self.digest.hex()}, policy={self.policy})"

    @classmethod
    def from_bytes(cls, data: bytes) -> "AttestationReport":
        """Parse 208 bytes; raises MalformedInput."""
        reader = Reader(data, "attestation report", REPORT_SIZE)
        body = reader.raw(_BODY_SIZE, "body")  # 0x00
        usage = reader.code(Usage, "sig_usage")  # 0x34
        algorithm = reader.code(Algorithm, "sig_algo")  # 0x38
        reader.zeros(4, "reserved")  # 0x3c
        signature = reader.number(72, "R"), reader.number(72, "S")  # 0x40
        return cls(body, usage, algorithm, signature)

    @property
    def nonce(self) -> bytes:
        """MNONCE, 16 bytes."""
        return self.body[:_NONCE_SIZE]

    @property
    def digest(self) -> bytes:
        """Launch digest, 32 bytes."""
        return self.body[_NONCE_SIZE : _NONCE_SIZE + _DIGEST_SIZE]

    @property
    def policy(self) -> GuestPolicy:
        """Guest policy."""
        return GuestPolicy(int.from_bytes(self.body[_NONCE_SIZE + _DIGEST_SIZE :], "little"))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReport:
    """A report that its platform signed. Only :func:`verify_report` makes one.

    Does not verify: that the guest's session was the owner's; a secret needs a VerifiedLaunch.
    """

    report: AttestationReport
    platform: VerifiedChain
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Raise TypeError for a value made by hand: the type is the proof."""
        _SEAL.require(_seal, self)


def verify_report(
    report: AttestationReport,
    platform: VerifiedChain,
    *,
    nonce: bytes,
    digest: bytes | None = None,
    policy: GuestPolicy | None = None,
) -> VerifiedReport:
    """Verify a report against a verified platform and the owner's values.

    ``nonce`` (16 bytes) is the one that the owner sent. ``digest`` (32 bytes) and ``policy`` are
    compared if given; otherwise the report's own are signed, but compared with nothing. The
    steps:

    1. The platform's PEK signs the report.
    2. The nonce is the owner's.
    3. The policy is the expected one.
    4. The launch digest is the expected one.

    Raises LaunchRefused for the first step that fails, MalformedInput for a nonce or digest of
    another size, TypeError for an unverified chain or a policy that is not a GuestPolicy.
    """
    if not isinstance(platform, VerifiedChain):
        raise TypeError("a report is verified against a VerifiedChain: call verify_chain() first")
    if policy is not None:
        require_policy_type(policy)
    if len(nonce) != _NONCE_SIZE:
        raise MalformedInput("nonce", "length", f"{len(nonce)} bytes, expected {_NONCE_SIZE}")
    if digest is not None and len(digest) != _DIGEST_SIZE:
        raise MalformedInput("launch digest", "length", f"{len(digest)} bytes, expected 32")
    # 1. the signature
    pek = _crypto.p384_point(platform.chain.pek.public_key)
    codes = report.usage, report.algorithm
    signed = (
        codes == (Usage.PEK, Algorithm.ECDSA_SHA256)
        and pek is not None
        and _crypto.ecdsa_sha256_holds(pek, report.signature, report.body)
    )
    if not signed:
        raise LaunchRefused("the PEK's signature over the report does not hold",
                            check="report.signature")  # fmt: skip
    # 2. the nonce
    if not hmac.compare_digest(report.nonce, nonce):
        raise LaunchRefused("the report answers another nonce", check="report.nonce")
    # 3. the policy
    if policy is not None and report.policy != policy:
        raise LaunchRefused(
            f"the guest runs under policy {report.policy}, not {policy}", check="report.policy"
        )
    # 4. the digest
    if digest is not None and not hmac.compare_digest(report.digest, digest):
        raise LaunchRefused(
            "the report has another launch digest than expected", check="report.digest"
        )
    return VerifiedReport(report=report, platform=platform, _seal=_SEAL)
