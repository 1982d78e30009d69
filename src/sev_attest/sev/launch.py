"""Did it start what I meant? The measurement, and the steps that lead to a verdict.

Source: AMD 55766, "LAUNCH_MEASURE"; QEMU's docs/system/i386/amd-memory-encryption.rst::

    MEASURE = HMAC-SHA256(TIK, 0x04 || API_MAJOR || API_MINOR || BUILD || POLICY (LE32)
                               || launch digest (32) || MNONCE (16))
"""

import hmac
from dataclasses import InitVar, dataclass, field

from sev_attest._wire import le
from sev_attest.errors import LaunchRefused, MalformedInput, MeasurementMismatch
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy, require_policy_type
from sev_attest.sev.spec import Context

DIGEST_SIZE = 32
CHECKS = {
    "launch.policy": "the policy that the host reports is the session's",
    "launch.api": "the API version is at least what the policy and the owner demand",
    "launch.build": "the build is at least what the owner demands",
    "launch.measurement": "the measurement is the HMAC of what the owner means, under this TIK",
}
"""Every check id of a launch, in the order of the steps, and what it holds."""
MISMATCH = "Measurement does not match, VM is not trustworthy"

_SEAL = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLaunch:
    """A launch that measured as its owner meant it. Only :func:`verify_launch` makes one.

    Does not verify: that the session was used for this launch alone, what attestation cannot see
    (LIMITATIONS.md), or that the platform was AMD's: the session's chain does that.
    """

    info: LaunchInfo
    policy: GuestPolicy
    digest: bytes
    keys: TransportKeys = field(repr=False)
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Refuse to be made by hand (TypeError): the type is the proof."""
        if _seal is not _SEAL:
            raise TypeError("only verify_launch() makes a VerifiedLaunch")


def expected_measure(
    tik: bytes,
    *,
    api: tuple[int, int],
    build_id: int,
    policy: GuestPolicy,
    digest: bytes,
    nonce: bytes,
) -> bytes:
    """Compute MEASURE (32 bytes).

    Keep it from the host: a host that has it can report it as its own.
    """
    message = (
        bytes((Context.LAUNCH_MEASURE, *api, build_id))  # a byte each
        + le(policy.value, 4)
        + digest
        + nonce
    )
    return hmac.digest(tik, message, "sha256")


def require_policy(info: LaunchInfo, policy: GuestPolicy) -> None:
    """Hold the policy that a host reports to the session's; raises LaunchRefused."""
    if info.policy is not None and info.policy != policy.value:
        raise LaunchRefused(
            f"the host reports policy {info.policy:#06x}, the session was made for {policy}",
            check="launch.policy",
        )


def verify_launch(
    info: LaunchInfo,
    *,
    keys: TransportKeys,
    policy: GuestPolicy,
    digest: bytes,
    min_api: tuple[int, int] = (0, 0),
    min_build: int = 0,
) -> VerifiedLaunch:
    """Verify what a host reports of a launch against what its owner meant.

    ``keys`` and ``policy`` are the session's, ``digest`` (32 bytes) is the owner's own
    (:func:`launch_digest`); ``min_api`` (major, minor) and ``min_build`` the least firmware the
    owner accepts. The steps:

    1. The policy that the host reports, if it reports one, is the session's.
    2. The API version is at least what the policy and the owner demand.
    3. The build is at least what the owner demands.
    4. MEASURE is the HMAC of all these, the digest and the nonce under this session's TIK.

    Raises LaunchRefused (steps 1-3), MeasurementMismatch (4), MalformedInput for a digest that is
    not 32 bytes, TypeError for a policy that is no GuestPolicy.
    """
    require_policy_type(policy)
    if len(digest) != DIGEST_SIZE:
        raise MalformedInput("launch digest", "length", f"{len(digest)} bytes, expected 32")
    # 1. the policy is the session's
    require_policy(info, policy)
    # 2. the API version
    api = info.api_major, info.api_minor
    for demand, whose in ((policy.min_api, "the policy"), (min_api, "the owner")):
        if api < demand:
            raise LaunchRefused(
                f"the host reports SEV API {_version(api)}, {whose} demands {_version(demand)}",
                check="launch.api",
            )
    # 3. the build
    if info.build_id < min_build:
        raise LaunchRefused(
            f"the host reports build {info.build_id}, the owner demands {min_build}",
            check="launch.build",
        )
    # 4. the measurement
    if not hmac.compare_digest(
        # In no variable: a traceback that shows locals must not show it.
        expected_measure(
            keys.tik,
            api=api,
            build_id=info.build_id,
            policy=policy,
            digest=digest,
            nonce=info.nonce,
        ),
        info.measure,
    ):
        raise MeasurementMismatch(MISMATCH, check="launch.measurement")
    return VerifiedLaunch(info=info, policy=policy, digest=digest, keys=keys, _seal=_SEAL)


def _version(api: tuple[int, int]) -> str:
    return f"{api[0]}.{api[1]}"
