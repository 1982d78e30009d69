"""The guest owner's side: records of sessions, requirements, the ledger, the release of a secret.

========================  ======================================================================
subject                   names
========================  ======================================================================
the record of a session   :class:`LaunchRecord`
what an owner requires    :class:`Requirements`, :class:`ReferenceValue`, :class:`Minimum`,
                          :class:`Met`; for SEV-SNP :class:`SnpRequirements`,
                          :class:`SnpReferenceValue`, :class:`SnpMinimum`
each attempt once         :class:`Ledger`, :class:`LedgerEntry`, :class:`State`, :class:`Event`,
                          :class:`Head`, :class:`LedgerError`,
                          :class:`LedgerDamaged`, :func:`default_place`
a secret, once            :func:`release`; for SEV-SNP :func:`create_challenge`,
                          :func:`release_snp`
keys that wait            :class:`PendingSessions`, :class:`PendingSession`, :class:`SealError`
where keys come from      :class:`KeyEncryption`, :func:`key_encryption`, :class:`SecretSource`,
                          :func:`secret_source`, :class:`KeyAccessError`
========================  ======================================================================
"""

from sev_attest._lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sev_attest.owner._api import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy(__name__)
