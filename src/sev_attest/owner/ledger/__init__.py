"""The ledger: every launch session that this owner made, and that each is used once.

A session is known by a digest of its TIK (``TransportKeys.session_id``); no key, no secret and no
expected measurement is ever in it. Its states, and the steps from one to the next:

=========  =============================  ========  ====================================
state      meaning                        comes by  from
=========  =============================  ========  ====================================
created    made, nothing measured yet     create    (nothing: a session is opened once)
measured   bound to one measurement       bind      created
released   its secret has left            release   measured
failed     something went wrong           fail      created, measured, released
expired    its time was over before that  (itself)  created, measured, at the next step
closed     its owner ended it             close     created, measured
=========  =============================  ========  ====================================

Every step is one transaction, alone among all processes, that changes the row of the session and
adds to the log of events. The log is chained by hashes; :meth:`Ledger.verify` follows it from the
first event on, and the rows must be what it tells.

===============  ==================================================================
room             what lives there
===============  ==================================================================
``story.py``     states, entries and events: what follows from what
``audit.py``     what is wrong with a ledger that somebody may have changed
``place.py``     where a ledger's file is, and whether others could replace it
``errors.py``    what can go wrong with a ledger, in words
``stores.py``    SQLite and PostgreSQL: all in which they differ
``book.py``      :class:`Ledger`: the steps
===============  ==================================================================
"""

from sev_attest.owner.ledger.audit import LedgerDamaged
from sev_attest.owner.ledger.book import Contents, Ledger
from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.place import check_home, default_place
from sev_attest.owner.ledger.story import UNKNOWN_ROOT, Event, Head, LedgerEntry, State

__all__ = [
    "UNKNOWN_ROOT",
    "Contents",
    "Event",
    "Head",
    "Ledger",
    "LedgerDamaged",
    "LedgerEntry",
    "LedgerError",
    "State",
    "check_home",
    "default_place",
]
