"""The ledger: every attempt of an owner to launch a guest, each of which is used once.

For SEV, an attempt is a session; its id is a digest of the TIK (``TransportKeys.session_id``). For
SEV-SNP, it is a challenge; its id is a digest of the nonce, and "measured" means bound to a report.
The ledger never holds a secret or an expected measurement, and keys only sealed, in a table that is
not part of its log: see :mod:`sev_attest.owner.pending`. The states of an attempt:

=========  ===========================================  ========  ==============================
state      meaning                                      step      from
=========  ===========================================  ========  ==============================
created    prepared, no launch was verified yet         create    (an attempt is created once)
measured   bound to one measurement, or one report      bind      created
released   its secret has left                          release   measured
failed     something went wrong                         fail      created, measured, released
expired    its time was over before it was released     any step  created, measured
closed     its owner ended it                           close     created, measured
=========  ===========================================  ========  ==============================

Every step is one transaction that excludes all other processes. It changes the row of the attempt
and appends to the log of events, which is chained by hashes. :meth:`Ledger.verify` checks the log
from its first event, and compares the rows with it.

===================  ==============================================================
module               what lives there
===================  ==============================================================
``book.py``          :class:`Ledger`
``step.py``          one step of one attempt
``story.py``         states, entries and events, and which event may follow which
``kept.py``          sealed keys and challenges: what is kept beside an entry
``arguments.py``     what a caller may pass
``transactions.py``  the connections of a process, and the queue of its steps
``reading.py``       reads a ledger of any size in pages
``audit.py``         finds what was changed in a ledger behind its back
``upkeep.py``        ends and removes what is over
``checkpoint.py``    what the log says of events that were removed
``floor.py``         the last event that was safe on disk
``store.py``         what a ledger needs of a database
``schema.py``        its tables, and their upgrade
``stores.py``        which database a ledger is in
``sqlite.py``        everything specific to SQLite
``postgres.py``      everything specific to PostgreSQL
``place.py``         where a ledger's file is, and whether others could replace it
``errors.py``        errors and their messages
===================  ==============================================================
"""

from sev_attest._lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sev_attest.owner.ledger._api import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy(__name__)
