"""SEV-SNP: attestation reports, their certificates, and launch digests.

==========================  =====================================================================
question                    names
==========================  =====================================================================
What does a report say?     :func:`read_evidence` -> :class:`Evidence`, or
                            :class:`AttestationReport` with its :class:`GuestPolicy`,
                            :class:`Product` and :class:`Tcb`; no trust yet
Is it AMD's?                :func:`read_certificates`, :func:`verify_report`
                            -> :class:`VerifiedReport`
Is it what I asked for?     :class:`Expected`
What should it measure?     :func:`launch_digest`, :class:`SnpFirmware`, :class:`SnpGuest`
Why does it differ?         :func:`explain_digest` with :class:`SnpClues`
Who approved the launch?    :class:`IdBlock`, :func:`sign_id_block` -> :class:`IdAuth`;
                            :func:`verify_id_block` -> :class:`VerifiedIdBlock`
Is it fresh, and whose key  :class:`Challenge`, :func:`report_data`
does it bind?
How do secrets get there?   :class:`TransportKey`, :func:`seal` -> :class:`SealedSecrets`; in the
                            guest :class:`TransportPrivateKey`, :func:`open_sealed`
==========================  =====================================================================
"""

from sev_attest._lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sev_attest.snp._api import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy(__name__)
