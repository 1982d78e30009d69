"""Release secrets to a guest of SEV-SNP, after every check that must hold before they leave.

1. The challenge is one of the owner's own: the ledger has it, as it is.
2. The report answers the challenge with this transport key (``report_data``), and the challenge
   accepts keys of its kind. The certificates that the report was verified with are in date, by the
   ledger's clock. Until then, nothing depends on the requirements, and nothing is written.
3. The challenge is unused and not over, the requirements are those that it was made under, if it is
   bound to some, and every requirement is met.
   Whether or not they are, the challenge is bound to this report from here on.
4. A source of secrets is asked, and the secrets are sealed to the key, in memory.
5. The ledger commits the release, in one transaction. Exactly one concurrent caller succeeds.

:func:`release_snp` takes all steps, for a service. Steps 3 to 5 are those of :class:`SnpRelease`,
for a program that has to do something between them. They have a function of their own, apart from
SEV's :func:`release`: of the arguments, only ledger, requirements and secrets are the same.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from sev_attest import _crypto
from sev_attest.errors import ReportInvalid, Unsupported
from sev_attest.owner.attempts import ended, require_same
from sev_attest.owner.ledger.book import Ledger
from sev_attest.owner.ledger.story import OPEN, Technology
from sev_attest.owner.release_steps import ReleaseSteps
from sev_attest.owner.snp_challenges import OwnChallenge, find_challenge
from sev_attest.snp.chain import in_date
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.explain import out_of_date
from sev_attest.snp.sealed import SealedSecrets, require_answer, seal
from sev_attest.snp.transport import TransportKey
from sev_attest.snp.verify import VerifiedReport

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.owner.secret_sources import SecretSource


def release_snp(
    report: VerifiedReport,
    *,
    key: TransportKey,
    challenge: Challenge | str,
    ledger: Ledger,
    requirements: "Requirements",
    requirements_now: bool = False,
    secrets: "Mapping[str, bytes] | SecretSource",
    launch: str | None = None,
) -> SealedSecrets:
    """Return ``secrets``, sealed to the guest of a verified report, once for each challenge.

    ``report`` and ``key`` are what the guest answered; everything else is the owner's.
    ``challenge`` is the name or the id of a challenge in ``ledger``, or the challenge itself: it
    must be as the ledger has it.
    ``requirements_now`` accepts other requirements than the challenge was made under.
    ``secrets`` are the secrets by name, at least one (see :func:`sev_attest.snp.seal`); or a source
    of them, which is asked for the launch that the requirements allow, once they are met.
    ``launch`` is the name in ``requirements`` of the launch that the secrets are for. It is needed
    if they allow several launches, unless a source has the secrets.

    Threads and processes may call it concurrently. By the steps of this module, it raises

    - Unsupported if there is no secret, it is not clear which launch they are for, or the installed
      ``cryptography`` cannot seal;
    - WrongState for a challenge that is unknown, LaunchRefused for one that differs from the
      ledger's (1);
    - ReportInvalid for a report that does not bind the key to the challenge, or whose certificates
      are out of date; NotVerified for a kind of key that the challenge does not accept (2);
    - WrongState if the challenge was released or has ended, LaunchRefused for other requirements,
      RequirementsNotMet with every failure (3); what the source raises, and :func:`seal` (4);
    - Insecure for a challenge that was answered with another report, LedgerError if the ledger
      fails (3 to 5).
    """
    if isinstance(secrets, Mapping) and not secrets:
        raise Unsupported("there is no secret to release", check="secret.none")
    narrowed = requirements.for_snp_secrets(launch, sourced=not isinstance(secrets, Mapping))
    # 1. and 2. the challenge, and the report that answers it
    with SnpRelease(
        report, key=key, challenge=challenge, ledger=ledger, requirements=narrowed, secrets=secrets
    ) as steps:
        # 3. to 5.
        steps.check(None if requirements_now else requirements)
        steps.build()
        return steps.commit()


class SnpRelease(ReleaseSteps):
    """Steps 3 to 5 of :func:`release_snp`, for a report that answers a challenge.

    They are taken in this order::

        with SnpRelease(report, key=key, challenge="vm1", ledger=ledger, ...) as steps:
            steps.check(requirements)  # the challenge and the requirements
            steps.build()  # the sealed secrets, in memory; a source is asked now
            ...  # try where they go
            sealed = steps.commit()  # the ledger; then they may leave

    If a step refuses, or the block ends before the last step, the challenge is bound to this report
    in the ledger all the same.
    """

    def __init__(
        self,
        report: VerifiedReport,
        *,
        key: TransportKey,
        challenge: Challenge | str,
        ledger: Ledger,
        requirements: "Requirements",
        secrets: "Mapping[str, bytes] | SecretSource",
    ) -> None:
        """Take steps 1 and 2, and raise what they raise; nothing is written for that.

        ``requirements`` are narrowed to the launch that the secrets are for.
        """
        super().__init__(secrets)
        _crypto.require_hpke(key.kem)  # before anything is written or asked
        # 1. the owner's own challenge
        self.own: OwnChallenge = find_challenge(ledger, challenge)
        # 2. the report answers it with this key, and its certificates are in date
        require_answer(report, key, self.own.challenge)
        _require_in_date(report, datetime.fromisoformat(ledger.now))
        self._report = report
        self._key = key
        self._ledger = ledger
        self._requirements = requirements
        self._sealed: SealedSecrets | None = None

    @property
    def attempt(self) -> str:
        """The id of the challenge's attempt in the ledger."""
        return self.own.entry.session_id

    @property
    def report_digest(self) -> bytes:
        """What the challenge is bound to: SHA-384 of the report as received, 48 bytes."""
        return hashlib.sha384(self._report.report.raw).digest()

    def check(self, made_under: "Requirements | None") -> "Met":
        """Check the challenge's state, then the requirements (step 3); return how they are met.

        ``made_under`` are the whole requirements, which must be those that the challenge was made
        under; None accepts others.

        Raises WrongState if it was released or has ended, LaunchRefused for other requirements,
        RequirementsNotMet with every failure.
        """
        self._checked = False
        with self._binding():
            now, entry = self._ledger.now, self.own.entry
            if entry.state_at(now) not in OPEN:
                raise ended(entry, now)
            if made_under is not None:
                require_same(f"challenge {entry.label}", self.own.requirements, made_under)
            at = datetime.fromisoformat(now)
            met = self._requirements.require_snp(self._report, at=at)
            self.met: Met | None = met
        self._checked = True
        return met

    def build(self) -> None:
        """Seal the secrets, in memory (step 4).

        Raises what :func:`seal` and the source of secrets raise; RuntimeError if :meth:`check` did
        not pass before.
        """
        self._sealed = None
        if not self._checked:
            raise RuntimeError("build() comes after check()")
        with self._binding():
            secrets = self._asked()
            self.secret_count: int = len(secrets)
            self._sealed = seal(
                secrets, key=self._key, report=self._report, challenge=self.own.challenge
            )

    def commit(self) -> SealedSecrets:
        """Commit the release in the ledger (step 5), and return the sealed secrets.

        Raises Insecure, WrongState or LedgerError as :meth:`Ledger.release` does; then nothing may
        leave. Raises RuntimeError if :meth:`check` and :meth:`build` did not pass before.
        """
        if not self._checked or self._sealed is None:
            raise RuntimeError("commit() comes after check() and build()")
        self._bound = True
        self._ledger.release(self.attempt, self.report_digest, technology=Technology.SNP)
        return self._sealed

    def _bind_in_ledger(self, unmet: str) -> None:
        self._ledger.bind(self.attempt, self.report_digest, technology=Technology.SNP, unmet=unmet)


def _require_in_date(report: VerifiedReport, now: datetime) -> None:
    """Raise ReportInvalid if a certificate of the report is out of date at a time.

    The report may have been verified at another time, or long ago.
    """
    outside = [one for one in report.chain.certificates if not in_date(one, now)]
    if outside:
        failure = out_of_date(outside, now)
        failure.hint = "get new certificates: a secret is released on those that are valid now"
        raise ReportInvalid((failure,), report.held - {failure.check})
