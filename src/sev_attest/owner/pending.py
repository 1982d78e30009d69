"""The keys of sessions that wait for their launch, sealed beside the ledger's rows.

What is sealed is::

    size  field
    16    TIK
    16    TEK
    ..    the record, as LaunchRecord.to_bytes() writes it

The associated data are "sev-attest pending session", a zero byte, the id of the session (64 hex
digits), and the fingerprint of the requirements that it was made under (64 hex digits, or nothing):
a box opens in its own row only, and only with these requirements beside it.

Row and box are written in the transaction that creates the session. The box is removed in the one
that ends it, by whatever step: see ``Step.write``.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sev_attest.errors import WrongState
from sev_attest.owner.attempts import ended, find_attempt, require_same
from sev_attest.owner.key_errors import SealError, damaged
from sev_attest.owner.ledger.book import Ledger
from sev_attest.owner.ledger.kept import SealedKeys
from sev_attest.owner.ledger.step import other_technology
from sev_attest.owner.ledger.story import OPEN, LedgerEntry, Technology
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.sealing import Box, DataKeys
from sev_attest.sev.keys import TransportKeys

if TYPE_CHECKING:
    from sev_attest.owner.key_wrapping import KeyEncryption
    from sev_attest.owner.requirements import Requirements
    from sev_attest.sev.session import Session

_KEY = 16
_PURPOSE = b"sev-attest pending session"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSession:
    """A session that waits for its launch: its keys, and its record, which matches them.

    ``requirements`` is the fingerprint of those that it was made under; None if it is bound to
    none. No key shows in a repr.
    """

    keys: TransportKeys
    record: LaunchRecord
    requirements: str | None = None

    def require(self, requirements: "Requirements | None") -> None:
        """Raise LaunchRefused if the session was made under other requirements than these."""
        require_same(f"session {self.record.name}", self.requirements, requirements)


class PendingSessions:
    """The keys of sessions that wait, in the database of a ledger. For many threads.

    They are sealed with a key-encryption key, which is not in the database.
    """

    def __init__(self, ledger: Ledger, kek: "KeyEncryption", *older: "KeyEncryption") -> None:
        """Take the ledger, and the key-encryption keys: ``kek`` seals, all of them open."""
        self.ledger: Ledger = ledger
        self._keys = DataKeys(kek, *older)

    def __repr__(self) -> str:
        """Return the ledger, and the ids of the key-encryption keys."""
        return f"PendingSessions({self.ledger!r}, {self._keys!r})"

    def add(
        self,
        session: "Session",
        record: LaunchRecord,
        *,
        expires: datetime | None = None,
        requirements: "Requirements | None" = None,
    ) -> LedgerEntry:
        """Create the session in the ledger, and store its keys and record in the same transaction.

        ``record`` is that of the session: its name and root are the ledger's too. ``expires`` is as
        for :meth:`Ledger.create`. ``requirements`` binds the session to these requirements: a later
        release must be under the same.

        Raises Insecure if the ledger has the session already, WrongState if one of its name waits,
        KeyAccessError if the key-encryption key fails, LedgerError, and LaunchRefused if the record
        is another session's.
        """
        record.require(session.keys)
        fingerprint = None if requirements is None else requirements.fingerprint
        box = self._keys.seal(
            session.keys.tik + session.keys.tek + record.to_bytes(),
            _associated_data(record.session_id, fingerprint),
        )
        return self.ledger.create(
            record.session_id,
            name=record.name,
            expires=expires,
            root=record.root,
            sealed=SealedKeys(box=box.to_bytes(), requirements=fingerprint),
        )

    def open(self, session: str) -> PendingSession:
        """Return the keys and the record of the session of this name or id.

        As in :meth:`Ledger.find`, a name wins, and 8 digits of an id suffice. Of several sessions
        of one name, the one that waits is meant.

        Raises WrongState if the session is unknown, has ended, or has no keys here; Unsupported if
        the name is that of several; SealError if the keys do not open, KeyAccessError if the
        key-encryption key fails.
        """
        entry, sealed = self._find(session)
        if entry.technology is not Technology.SEV:
            raise other_technology(entry)
        if entry.state not in OPEN:
            raise ended(entry, self.ledger.now)
        if sealed is None:
            raise WrongState(
                f"the keys of session {entry.label} are not in {self.ledger.place}",
                check="pending.none",
                hint="use the keys and the record that were written when it was made",
            )
        if sealed.box is None:
            raise SealError(
                f"the keys of session {entry.label} are gone, though it waits",
                check="pending.gone",
                hint="make a new session; find out who removed them",
            )
        associated_data = _associated_data(entry.session_id, sealed.requirements)
        opened = self._keys.open(Box.from_bytes(sealed.box), associated_data)
        return _parsed(opened, entry.session_id, sealed.requirements)

    def _find(self, session: str) -> tuple[LedgerEntry, SealedKeys | None]:
        """Return the entry and the box of a session, as they are at one moment."""
        found = find_attempt(self.ledger, session)
        attempt = found.session_id
        entry, sealed = self.ledger.snapshot(
            lambda reader: (reader.entry(attempt), reader.sealed(attempt))
        )
        return entry or found, sealed


def sealed_under(sealed: SealedKeys) -> str | None:
    """Return the id of the key-encryption key that keys are sealed under; None if they are gone.

    Raises SealError if the box is damaged.
    """
    return None if sealed.box is None else Box.from_bytes(sealed.box).kek


def _associated_data(session_id: str, requirements: str | None) -> bytes:
    return _PURPOSE + b"\0" + f"{session_id}{requirements or ''}".encode()


def _parsed(data: bytes, session_id: str, requirements: str | None) -> PendingSession:
    """Return the session in an opened box; raises SealError if it is another's."""
    if len(data) < 2 * _KEY:
        raise damaged(f"{len(data)} bytes, which are no keys")
    keys = TransportKeys(tik=data[:_KEY], tek=data[_KEY : 2 * _KEY])
    if keys.session_id != session_id:
        raise damaged("it has the keys of another session")
    record = LaunchRecord.from_bytes(data[2 * _KEY :])
    record.require(keys)
    return PendingSession(keys=keys, record=record, requirements=requirements)
