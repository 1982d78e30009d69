"""The guest owner's side: what was launched, what may be launched, and each secret once.

========================  ======================================================================
subject                   names
========================  ======================================================================
the record of a launch    :class:`LaunchRecord`
what an owner demands     :class:`Requirements`, :class:`ReferenceValue`, :class:`Minimum`
each session once         :class:`Ledger`, :class:`LedgerEntry`, :class:`State`,
                          :class:`LedgerError`
all of it in one call     :func:`release`
========================  ======================================================================
"""

from sev_attest._lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sev_attest.owner._api import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy(__name__)
