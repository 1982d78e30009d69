"""One call for a key-release service: everything that has to hold before a secret leaves."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sev_attest.errors import (
    Insecure,
    LaunchRefused,
    MeasurementMismatch,
    RequirementsNotMet,
    SevAttestError,
    Unsupported,
)
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import MISMATCH, VerifiedLaunch, verify_launch
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.owner.ledger import Ledger
    from sev_attest.owner.record import LaunchRecord
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.sev.secret import SecretPacket


def release(
    info: LaunchInfo,
    *,
    keys: TransportKeys,
    record: "LaunchRecord",
    requirements: "Requirements",
    ledger: "Ledger",
    secrets: Mapping[str, bytes],
    digest: bytes | None = None,
    launch: str | None = None,
    secret_area_size: int | None = None,
) -> "SecretPacket":
    """Release ``secrets`` to the one launch of a session, or raise the reason why not.

    ``info`` is what the host reports; everything else is the owner's. ``digest`` (32 bytes) is the
    guest's (:func:`launch_digest`), ``launch`` the name in ``requirements`` of the launch that the
    secrets are for; one of both is needed where the requirements allow several.
    ``secret_area_size`` is that of the guest firmware, in bytes. The steps:

    1. ``keys`` are those of the session of ``record``, whose platform was verified.
    2. The policy that the host reports, if it reports one, is the session's; and the measurement
       is right (:func:`verify_launch`). Nothing of the requirements shows before it is.
    3. The ledger knows of no other root than the record, and the requirements are met: all that
       are not are named. The session is bound to this launch either way.
    4. The packet is made, in memory.
    5. The ledger notes the release, in one transaction; of any number of callers, one gets on.

    Threads and processes may call it at once. Raises Unsupported for no secret, or if it is not
    said which launch they are for; LaunchRefused or Insecure (1), LaunchRefused
    or MeasurementMismatch (2), Insecure or LaunchRefused if the record contradicts the ledger, and
    RequirementsNotMet (3), what :func:`build_secret` raises (4);
    Insecure for a session that was used for another launch, WrongState for one that is unknown, was
    released or has ended, LedgerError if the ledger fails (3 and 5).
    """
    if not secrets:
        raise Unsupported("there is no secret to release", check="secret.none")
    requirements = requirements.for_secrets(launch, digest is not None)
    # 1. the session
    record.require(keys)
    if record.root is None:
        raise Insecure(
            "nobody verified the platform that this session was made for",
            check="record.unverified",
            hint="make a session for a verified chain",
        )
    # 2. the measurement
    digests = requirements.digests if digest is None else (digest,)
    verified = verify_any(info, keys=keys, policy=GuestPolicy(record.policy), digests=digests)
    # 3. to 5.
    settled = settle(
        verified,
        demands=(requirements, record),
        ledger=ledger,
        secrets=secrets,
        secret_area_size=secret_area_size,
    )
    return cast("SecretPacket", settled.packet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of a verified launch: the packet of its secrets, and what it was allowed as."""

    packet: "SecretPacket | None"
    met: "Met | None"


def settle(
    launch: VerifiedLaunch,
    *,
    demands: "tuple[Requirements, LaunchRecord] | None",
    ledger: "Ledger | None",
    secrets: Mapping[str, bytes],
    secret_area_size: int | None = None,
    record: "LaunchRecord | None" = None,
    adopt: bool = False,
    insecure: bool = False,
    ready: Callable[[], object] = lambda: None,
) -> Settled:
    """Take the steps 3 to 5 of :func:`release`.

    ``demands`` are the requirements and the record to hold them against; ``record`` is the record
    without requirements. ``adopt`` takes sessions that the ledger does not know; ``insecure`` goes
    on with a platform that nobody verified, and is :func:`build_secret`'s. ``ready`` raises an
    OSError or SevAttestError if the packet could not get out.
    """
    session, measurement = launch.keys.session_id, launch.info.measurement
    try:
        # 3. the platform and the requirements
        if ledger is not None:
            record = demands[1] if demands else record
            _check_root(ledger, session, record, secret=bool(secrets), insecure=insecure)
        met = None
        if demands is not None:
            from datetime import UTC, datetime

            requirements, record = demands
            at = datetime.fromisoformat(ledger.now) if ledger else datetime.now(UTC)
            met = requirements.require(launch, record, at=at)
        # 4. the packet
        packet = None
        if secrets:
            from sev_attest.sev.secret import build_secret

            packet = build_secret(
                launch, secrets, secret_area_size=secret_area_size, insecure=insecure
            )
        ready()
    except (SevAttestError, OSError) as error:
        if ledger is not None:
            ledger.bind(session, measurement, adopt=adopt)
            if isinstance(error, RequirementsNotMet):
                ledger.log(session, "requirements", " ".join(f.check for f in error.failures))
        raise
    # 5. the ledger
    if ledger is not None and packet is not None:
        ledger.release(session, measurement, adopt=adopt, insecure=insecure)
    elif ledger is not None:
        ledger.bind(session, measurement, adopt=adopt)
    return Settled(packet=packet, met=met)


def _check_root(
    ledger: "Ledger", session: str, record: "LaunchRecord | None", *, secret: bool, insecure: bool
) -> None:
    """Hold a session to what the ledger knows of its platform, whatever the record says."""
    from sev_attest.owner.ledger import UNKNOWN_ROOT, unverified

    root = ledger.root(session)
    if root is None and not insecure:
        raise unverified()
    if secret and record is not None and root not in (UNKNOWN_ROOT, record.root):
        raise LaunchRefused(
            f"the record says that its platform's root is {record.root}, the ledger says {root}",
            check="record.root",
            hint="make a new session; find out who changed the record",
        )


def verify_any(
    info: LaunchInfo, *, keys: TransportKeys, policy: GuestPolicy, digests: Iterable[bytes]
) -> VerifiedLaunch:
    """Verify a launch against whichever digest fits; raises as :func:`verify_launch`.

    No digest at all fits nothing.
    """
    found: VerifiedLaunch | None = None
    mismatch = MeasurementMismatch(MISMATCH, check="launch.measurement")
    for digest in digests:  # all of them: the time tells nothing of which
        try:
            found = verify_launch(info, keys=keys, policy=policy, digest=digest)
        except MeasurementMismatch as error:
            mismatch = error
    if found is None:
        raise mismatch
    return found
