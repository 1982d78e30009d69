"""Verify a launch measurement.

Source: AMD 55766, "LAUNCH_MEASURE"; QEMU's docs/system/i386/amd-memory-encryption.rst::

    MEASURE = HMAC-SHA256(TIK, 0x04 || API_MAJOR || API_MINOR || BUILD || POLICY (LE32)
                               || launch digest (32) || MNONCE (16))
"""

import hmac
from dataclasses import InitVar, dataclass, field

from sev_attest._seal import Seal
from sev_attest._wire import le
from sev_attest.errors import LaunchRefused, MalformedInput, MeasurementMismatch
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy, require_policy_type
from sev_attest.sev.spec import Context

DIGEST_SIZE = 32
_CONTEXT = int(Context.LAUNCH_MEASURE)
CHECKS = {
    "launch.policy": "the policy that the host reports is the session's",
    "launch.api": "the API version is at least what the policy demands, and min_api",
    "launch.build": "the build is at least min_build (that of owner.toml is checked on its own)",
    "launch.measurement": "the measurement is the HMAC of the owner's values under the TIK",
}
"""Every check id of a launch, in the order of the steps, and what it guarantees."""
MISMATCH = "Measurement does not match, VM is not trustworthy"

_SEAL = Seal("verify_launch()")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedLaunch:
    """A launch with the measurement that its owner expects. Only :func:`verify_launch` makes one.

    Does not verify: that the session was used for this launch only (the ledger does), that the
    platform is AMD's (the session's chain does), or what attestation cannot see (LIMITATIONS.md).
    """

    info: LaunchInfo
    policy: GuestPolicy
    digest: bytes
    keys: TransportKeys = field(repr=False)
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Raise TypeError for a value made by hand: the type is the proof."""
        _SEAL.require(_seal, self)


def expected_measure(
    tik: bytes,
    *,
    api: tuple[int, int],
    build_id: int,
    policy: GuestPolicy,
    digest: bytes,
    nonce: bytes,
) -> bytes:
    """Return MEASURE, 32 bytes.

    ``tik`` and ``nonce`` are 16 bytes, ``digest`` is 32; ``build_id`` and each part of ``api`` are
    one byte. Keep the result from the host: a host that knows it can report it as its own.
    """
    message = measured_fields(api, build_id, policy.value, digest, nonce)
    return hmac.digest(tik, message, "sha256")


def measured_fields(
    api: tuple[int, int], build_id: int, policy: int, digest: bytes, nonce: bytes
) -> bytes:
    """Return what MEASURE is the HMAC of, 56 bytes."""
    return bytes((_CONTEXT, *api, build_id)) + le(policy, 4) + digest + nonce


def require_policy(info: LaunchInfo, policy: GuestPolicy) -> None:
    """Raise LaunchRefused if the host reports another policy than the session's."""
    if info.policy is not None and info.policy != policy.value:
        raise LaunchRefused(
            f"the host reports policy {info.policy:#06x}, the session was made for {policy}",
            check="launch.policy",
            hint="do not trust this launch; make a new session",
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
    """Verify what a host reports about a launch.

    ``keys`` and ``policy`` are the session's. ``digest`` (32 bytes) is computed by the owner
    (:func:`launch_digest`). ``min_api`` (major, minor) and ``min_build`` are the oldest firmware
    that the owner accepts. The steps:

    1. The policy that the host reports, if it reports one, is the session's.
    2. The API version is at least what the policy and the owner require.
    3. The build is at least what the owner requires.
    4. MEASURE is the HMAC of these numbers, the digest and the nonce under the session's TIK.

    Raises LaunchRefused (steps 1-3), MeasurementMismatch (4), MalformedInput for a digest that is
    not 32 bytes, TypeError for a policy that is not a GuestPolicy.
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
        # Not in a variable: a traceback that shows locals must not show it.
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
