"""Release a secret to a launch, after every check that must hold before it leaves.

1. The keys belong to the session of the record, and its platform was verified. The keys of a
   session that waits in a :class:`PendingSessions` are opened before.
2. The measurement is right, and the policy that the host reports, if any, is the session's
   (:func:`verify_launch`). Until then, nothing depends on the requirements.
3. The requirements are those that the session was made under, if it is bound to some. The ledger
   knows of no other root than the record, and every requirement is met.
   Whether or not they are, the session is bound to this launch from here on.
4. A source of secrets is asked, and the packet is built, in memory.
5. The ledger commits the release, in one transaction. Exactly one concurrent caller succeeds.

:func:`release` takes all steps, for a service. Steps 3 to 5 are those of :class:`KeyRelease`, for a
program that has to do something between them.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast, overload

from sev_attest.errors import (
    Insecure,
    LaunchRefused,
    MeasurementMismatch,
    Unsupported,
)
from sev_attest.owner.release_steps import ReleaseSteps
from sev_attest.owner.unverified import unverified
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import MISMATCH, VerifiedLaunch, verify_launch
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.owner.ledger import Ledger
    from sev_attest.owner.pending import PendingSession, PendingSessions
    from sev_attest.owner.record import LaunchRecord
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.owner.secret_sources import SecretSource
    from sev_attest.sev.secret import SecretPacket


@overload
def release(
    info: LaunchInfo,
    *,
    keys: TransportKeys,
    record: "LaunchRecord",
    ledger: "Ledger",
    requirements: "Requirements",
    secrets: "Mapping[str, bytes] | SecretSource",
    digest: bytes | None = None,
    launch: str | None = None,
    secret_area_size: int | None = None,
) -> "SecretPacket": ...


@overload
def release(
    info: LaunchInfo,
    *,
    session: str,
    store: "PendingSessions",
    requirements: "Requirements",
    requirements_now: bool = False,
    secrets: "Mapping[str, bytes] | SecretSource",
    digest: bytes | None = None,
    launch: str | None = None,
    secret_area_size: int | None = None,
) -> "SecretPacket": ...


def release(
    info: LaunchInfo,
    *,
    session: str | None = None,
    store: "PendingSessions | None" = None,
    keys: TransportKeys | None = None,
    record: "LaunchRecord | None" = None,
    ledger: "Ledger | None" = None,
    requirements: "Requirements",
    requirements_now: bool = False,
    secrets: "Mapping[str, bytes] | SecretSource",
    digest: bytes | None = None,
    launch: str | None = None,
    secret_area_size: int | None = None,
) -> "SecretPacket":
    """Return the packet that carries ``secrets`` to a launch, once for each session.

    ``info`` is the host's report; everything else is the owner's.
    ``session`` is the name or the id of a session that waits in ``store``. Otherwise ``keys``,
    ``record`` and ``ledger`` are given: those of the session.
    ``digest`` is the launch digest of the guest, 32 bytes (:func:`launch_digest`). Like a digest in
    ``requirements``, it is taken as it is: that a kernel is in it where ``record`` has
    ``kernel_hashes`` is for whoever computes it to see to.
    ``launch`` is the name in ``requirements`` of the launch that the secrets are for. It or
    ``digest`` is needed if the requirements allow several launches, unless a source has the
    secrets.
    ``requirements_now`` accepts other requirements than the session was made under.
    ``secrets`` are the secrets by GUID or alias ("luks-key"), at least one; or a source of them,
    which is asked for the launch that the requirements allow, once they are met.
    ``secret_area_size`` is the size of the secret area of the guest's firmware, in bytes.

    Threads and processes may call it concurrently. By the steps of this module, it raises

    - Unsupported if there is no secret, or it is not clear which launch they are for; TypeError
      for other arguments than these;
    - what :meth:`PendingSessions.open` raises; LaunchRefused or Insecure in step 1; LaunchRefused
      or MeasurementMismatch in step 2;
    - Insecure or LaunchRefused if the record contradicts the ledger, LaunchRefused for other
      requirements, RequirementsNotMet with every failure (3); what the source raises, and
      :func:`build_secret` (4);
    - Insecure for a session that was used for another launch, WrongState for one that is unknown,
      was released or has ended, LedgerError if the ledger fails (3 to 5).
    """
    if isinstance(secrets, Mapping) and not secrets:
        raise Unsupported("there is no secret to release", check="secret.none")
    described = digest is not None or not isinstance(secrets, Mapping)
    narrowed = requirements.for_secrets(launch, described)
    # 1. the session
    pending: PendingSession | None = None
    own = [each for each in (keys, record, ledger) if each is not None]
    if store is not None and session is not None and not own:
        pending = store.open(session)
        keys, record, ledger = pending.keys, pending.record, store.ledger
    elif keys is None or record is None or ledger is None or session or store:
        raise TypeError("release() takes session and store; or keys, record and ledger")
    record.require(keys)
    if record.root is None:
        raise unverified("record")
    # 2. the measurement
    digests = narrowed.digests if digest is None else (digest,)
    verified = verify_any(info, keys=keys, policy=GuestPolicy(record.policy), digests=digests)
    # 3. to 5.
    with KeyRelease(
        verified,
        secrets=secrets,
        secret_area_size=secret_area_size,
        record=record,
        requirements=narrowed,
        ledger=ledger,
    ) as steps:
        if pending is not None and not requirements_now:
            pending.require(requirements)
        steps.check()
        steps.build()
        return cast("SecretPacket", steps.commit())  # there are secrets


class KeyRelease(ReleaseSteps):
    """Steps 3 to 5 of :func:`release` for a verified launch.

    They are taken in this order::

        with KeyRelease(launch, secrets=secrets, record=record, ...) as steps:
            steps.check()  # the platform and the requirements
            steps.build()  # the packet, in memory; a source of secrets is asked now
            ...  # try where the packet goes
            packet = steps.commit()  # the ledger; then the packet may leave

    If a step refuses, or the block ends before the last step, the session is bound to this launch
    in the ledger all the same. What the ledger says of a session comes first: an error that it
    raises replaces the other one.
    """

    def __init__(
        self,
        launch: VerifiedLaunch,
        *,
        secrets: "Mapping[str, bytes] | SecretSource",
        secret_area_size: int | None = None,
        record: "LaunchRecord | None",
        requirements: "Requirements | None" = None,
        ledger: "Ledger | None",
        adopt: bool = False,
        insecure: bool = False,
    ) -> None:
        """Take the launch and what the owner knows of it.

        ``secrets`` are the secrets by GUID or alias; without any, the launch is only looked at.
        A source of secrets needs ``requirements`` (TypeError): they name the launch.
        ``secret_area_size`` is the size of the secret area of the guest's firmware, in bytes.
        ``record`` is the record of the session.
        ``adopt`` takes a session that the ledger does not know for one that another tool made.
        ``requirements`` need a record (TypeError); without them, every launch is allowed.
        ``insecure`` accepts an unverified platform, and firmware that binds no secret to a launch.
        Without secrets it accepts a second launch of a session too: see ``reused``.
        """
        if requirements is not None and record is None:
            raise TypeError("requirements need the record of the session")
        if requirements is None and not isinstance(secrets, Mapping):
            raise TypeError("a source of secrets needs requirements")
        super().__init__(secrets)
        self._launch = launch
        self._sends = bool(secrets) or not isinstance(secrets, Mapping)
        self._secret_area_size = secret_area_size
        self._record = record
        self._requirements = requirements
        self._ledger = ledger
        self._adopt = adopt
        self._insecure = insecure
        self._packet: SecretPacket | None = None
        self.reused: Insecure | None = None
        """The ledger's refusal of a second launch that ``insecure`` looks at all the same."""

    @property
    def _session(self) -> str:
        return self._launch.keys.session_id

    def check(self) -> None:
        """Check the platform in the ledger, then the requirements (step 3).

        Raises Insecure if the ledger knows that nobody verified the platform, LaunchRefused if the
        ledger names another root than the record, RequirementsNotMet with every failure.
        """
        from datetime import UTC, datetime

        self._checked = False
        with self._binding():
            if self._ledger is not None:
                self._check_root(self._ledger)
            if self._requirements is not None and self._record is not None:  # __init__ wants both
                at = datetime.fromisoformat(self._ledger.now) if self._ledger else datetime.now(UTC)
                met = self._requirements.require(self._launch, self._record, at=at)
                self.met: Met | None = met
        self._checked = True

    def _check_root(self, ledger: "Ledger") -> None:
        from sev_attest.owner.ledger.story import UNKNOWN_ROOT

        root, record = ledger.root(self._session), self._record
        if root is None and not self._insecure:
            raise unverified("ledger")
        if self._sends and record is not None and root not in (UNKNOWN_ROOT, record.root):
            raise LaunchRefused(
                f"the record says that its platform's root is {record.root}, "
                f"the ledger says {root}",
                check="record.root",
                hint="make a new session; find out who changed the record",
            )

    def build(self) -> None:
        """Build the packet, in memory (step 4).

        Raises what :func:`build_secret` and the source of secrets raise; RuntimeError if the source
        would be asked before :meth:`check` passed.
        """
        self._packet = None
        with self._binding():
            if self._sends:
                from sev_attest.sev.secret import build_secret

                secrets = self._asked()
                self.secret_count: int = len(secrets)
                self._packet = build_secret(
                    self._launch,
                    secrets,
                    secret_area_size=self._secret_area_size,
                    insecure=self._insecure,
                )

    def commit(self) -> "SecretPacket | None":
        """Commit the release in the ledger (step 5), and return the packet; None without secrets.

        Without secrets, the session is bound to this launch. Raises Insecure, WrongState or
        LedgerError as :meth:`Ledger.release` does; then nothing may leave. Raises RuntimeError if
        :meth:`check` did not pass before, or with secrets :meth:`build`.
        """
        if not self._checked or (self._sends and self._packet is None):
            raise RuntimeError("commit() comes after check() and build()")
        if self._packet is None:
            self._bind()
        elif self._ledger is not None:
            self._bound = True
            self._ledger.release(
                self._session,
                self._launch.info.measurement,
                adopt=self._adopt,
                insecure=self._insecure,
            )
        return self._packet

    def _bind_in_ledger(self, unmet: str) -> None:
        if self._ledger is None:
            return
        try:
            self._ledger.bind(
                self._session, self._launch.info.measurement, adopt=self._adopt, unmet=unmet
            )
        except Insecure as error:
            # A second launch may be looked at, but gets no secret.
            if error.check != "ledger.reused" or self._sends or not self._insecure:
                raise
            self.reused = error


def verify_any(
    info: LaunchInfo, *, keys: TransportKeys, policy: GuestPolicy, digests: Iterable[bytes]
) -> VerifiedLaunch:
    """Return the launch, verified against the digest of ``digests`` (32 bytes each) that fits.

    Raises as :func:`verify_launch`; MeasurementMismatch if no digest fits.
    """
    found: VerifiedLaunch | None = None
    mismatch = MeasurementMismatch(MISMATCH, check="launch.measurement")
    for digest in digests:  # every one: the time must not tell which one fits
        try:
            found = verify_launch(info, keys=keys, policy=policy, digest=digest)
        except MeasurementMismatch as error:
            mismatch = error
    if found is None:
        raise mismatch
    return found
