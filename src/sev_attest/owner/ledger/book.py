"""The ledger itself: one transaction for every step."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from sev_attest.errors import Insecure, Unsupported, WrongState
from sev_attest.owner.ledger.arguments import check_id, clean, measurement_text, utc
from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.floor import Floor
from sev_attest.owner.ledger.reading import Reader
from sev_attest.owner.ledger.schema import VERSION, upgrade, version_of
from sev_attest.owner.ledger.step import Step
from sev_attest.owner.ledger.store import Store, StoreConnection
from sev_attest.owner.ledger.stores import store_at
from sev_attest.owner.ledger.story import (
    ACCEPTED,
    REQUIREMENTS,
    UNKNOWN_ROOT,
    Event,
    Head,
    LedgerEntry,
    State,
    Technology,
)
from sev_attest.owner.ledger.transactions import Transactions

if TYPE_CHECKING:
    from sev_attest.owner.ledger.checkpoint import Checkpoint
    from sev_attest.owner.ledger.kept import KeptChallenge, SealedKeys
    from sev_attest.owner.ledger.upkeep import Going

CONNECTIONS = 8
"""How many connections one process has to a ledger, at most."""

_PREFIX = "[0-9a-f]{8,64}"
_TOO_SHORT = "[0-9a-f]{1,7}"
_T = TypeVar("_T")


class Ledger:
    """The attempts of an owner, and the state of each.

    An attempt is one launch that its owner prepared. For SEV it is a session, and its id is
    ``TransportKeys.session_id`` (64 hex digits), which entries and events keep as ``session_id``.
    For SEV-SNP it is a challenge: see :mod:`sev_attest.owner.snp_challenges`.

    One object serves all threads of a process, and any number of processes share one ledger: of
    those that take the same step concurrently, exactly one succeeds. After a fork, the child opens
    connections of its own.

    Every method raises LedgerError (exit code 6) if the database fails or is damaged. The step was
    not taken then; only if the connection to a server breaks during a commit is that unknown.
    Texts have at most 16384 characters: Unsupported is raised for longer ones. ValueError is raised
    for an id that is not 64 hex digits, and for a measurement that is not 48 bytes.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime] | None,
        floor: Floor,
        *,
        connections: int = CONNECTIONS,
    ) -> None:
        """Use :meth:`open`."""
        self._store = store
        self._clock = clock
        self._size = connections
        self._floor = floor
        self._here = Transactions(store, connections, floor.raise_to)
        self._inherited: list[Transactions] = []

    @classmethod
    def open(
        cls,
        place: str | os.PathLike[str],
        *,
        create: bool = True,
        timeout: float = 5.0,
        connections: int = CONNECTIONS,
        floor: str | os.PathLike[str] | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> "Ledger":
        """Open the ledger at a path (SQLite) or a ``postgresql://`` URL.

        ``create`` makes it if it is missing. ``timeout`` is how long a step waits for other
        processes, in seconds. ``connections`` is how many a process opens at most, however many
        threads it has. ``clock`` returns the time, with a time zone; without one, the database's
        clock is used, which is the same for all who use the ledger.

        No step is taken with a database that lacks an event which it had: this object remembers the
        last one that was safe from a crash. ``floor`` is a file in which that is kept for the next
        process too.

        A ledger of an older version is upgraded in place. On PostgreSQL only the owner of its
        tables can do that.

        Raises LedgerError if it cannot be used, is missing and ``create`` is False, or other users
        (except root) could replace the file; Unsupported for a URL that is malformed or has a
        password, or if psycopg is missing.
        """
        store = store_at(place, timeout)
        store.prepare(create=create)
        ledger = cls(store, clock, Floor(floor), connections=connections)
        try:
            ledger._check_version()
        except BaseException:
            ledger.disconnect()
            raise
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return f"Ledger({self._store.place!r})"

    @property
    def place(self) -> str:
        """Its name in messages: the path, or the server and database."""
        return self._store.place

    @property
    def now(self) -> str:
        """Current time of the ledger's clock: UTC, ISO 8601, to the second."""
        if self._clock is not None:
            return utc(self._clock())
        return self._reader.now()

    def disconnect(self) -> None:
        """Close the connections that no step is using. The next step opens a new one."""
        self._transactions().close()

    # The steps. Each raises WrongState if the attempt is unknown or its state does not allow it.

    def create(
        self,
        attempt: str,
        *,
        name: str = "",
        expires: datetime | None = None,
        root: str | None = UNKNOWN_ROOT,
        sealed: "SealedKeys | None" = None,
        challenge: "KeptChallenge | None" = None,
    ) -> LedgerEntry:
        """Create an attempt (-> created); raises Insecure if it exists.

        ``root`` is the name of the root that its platform was verified up to. None means that
        nobody verified it, and :meth:`release` refuses it; empty means that this is unknown.
        ``sealed`` are its keys, which are stored in the same transaction, and removed in the one
        that ends the attempt: see :class:`PendingSessions`. ``challenge`` makes it an attempt of
        SEV-SNP, whose platform is verified with each report: it has neither root nor keys.
        WrongState is raised with either of them if an attempt of this name is open and not over;
        ValueError if ``attempt`` is not the id of the challenge.
        """
        if challenge is not None and (root != UNKNOWN_ROOT or sealed is not None):
            raise ValueError("a challenge has neither a root nor keys")
        limit = None if expires is None else utc(expires)
        detail: dict[str, object] = {"name": clean(name), "expires": limit, "note": ""}
        if root != UNKNOWN_ROOT:
            detail["root"] = root
        if challenge is not None:
            detail["challenge"] = challenge.to_detail()

        def create(step: Step) -> LedgerEntry:
            if step.entry is not None:
                step.refuse_again(step.entry)
            if sealed is not None or challenge is not None:
                step.require_free(clean(name))
            if sealed is not None:
                step.seal(sealed)
            return step.note(State.CREATED, detail)

        return self._step(attempt, create)

    def bind(
        self,
        attempt: str,
        measurement: bytes,
        *,
        technology: Technology = Technology.SEV,
        adopt: bool = False,
        unmet: str = "",
    ) -> LedgerEntry:
        """Bind an attempt to the measurement that its owner accepted (-> measured).

        ``measurement`` is 48 bytes; for SEV-SNP it is the SHA-384 of the report. ``technology`` is
        that of the caller: WrongState is raised for an attempt of the other one. ``adopt`` creates
        a session that is unknown, for one that another tool made (ValueError for SEV-SNP).
        ``unmet`` names the requirements that this launch did not meet, for the
        log: no key or secret may be in it.

        Binding the same measurement again changes nothing, also after the release. Another one
        raises Insecure and is logged: the attempt was used for two launches. The log has the first
        refusal of each reason; after 16 refusals, an attempt that is open fails.
        """
        reason = clean(unmet)

        def bind(step: Step) -> LedgerEntry:
            entry = self._bind(step, measurement, technology, adopt=adopt)
            if reason:
                step.refuse(REQUIREMENTS, {"text": reason})
            return step.entry or entry

        return self._step(attempt, bind)

    @staticmethod
    def _bind(
        step: Step, measurement: bytes, technology: Technology, *, adopt: bool
    ) -> LedgerEntry:
        text = measurement_text(measurement)
        if adopt:
            if technology is Technology.SNP:
                raise ValueError("a challenge of another ledger is not adopted")
            step.adopt()
        entry = step.usable(measurement, technology)
        if entry.measurement is None:
            entry = step.enter(State.MEASURED, {"measurement": text})
        return entry

    def release(
        self,
        attempt: str,
        measurement: bytes,
        *,
        technology: Technology = Technology.SEV,
        adopt: bool = False,
        insecure: bool = False,
    ) -> LedgerEntry:
        """Commit the release of the secret to this measurement, 48 bytes (measured -> released).

        An attempt that is not bound yet is bound in the same transaction, as by :meth:`bind`. The
        secret may leave only after this returns: every later call raises WrongState. Raises
        Insecure if nobody verified the platform of a session, unless ``insecure``.
        """

        def release(step: Step) -> LedgerEntry:
            self._bind(step, measurement, technology, adopt=adopt)
            if technology is Technology.SEV and not insecure:
                step.require_root()
            return step.enter(State.RELEASED, {"measurement": measurement_text(measurement)})

        return self._step(attempt, release)

    def fail(self, attempt: str, reason: str) -> LedgerEntry:
        """Mark an attempt as failed, also after a release whose packet did not get out."""
        note = clean(reason)
        return self._step(attempt, lambda step: step.enter(State.FAILED, {"note": note}))

    def close(self, attempt: str, reason: str = "") -> LedgerEntry:
        """End an attempt that released nothing (-> closed)."""
        note = clean(reason)
        return self._step(attempt, lambda step: step.enter(State.CLOSED, {"note": note}))

    # Upkeep.

    def expire(self) -> int:
        """End every open attempt whose time is over (-> expired); return how many there were."""
        return self._end_all(State.EXPIRED, {}, overdue=True)

    def accept_head(self, reason: str, *, floor: str | os.PathLike[str] | None = None) -> Head:
        """Go on with a database that lost events: close every open attempt, and return its head.

        Any of them may have been released. ``reason`` is kept in the log. This object must have
        been opened without a floor; the file ``floor`` gets the new one. Other processes keep
        theirs until they are started again.

        Raises Unsupported if there is no reason.
        """
        from sev_attest.owner.ledger.upkeep import log

        note = clean(reason).strip()
        if not note:
            raise Unsupported("a reason is needed, which the ledger keeps", check="ledger.reason")

        closed = self._end_all(State.CLOSED, {"note": note}, overdue=False)
        at, detail = self.now, {"reason": note, "closed": closed}
        head = self._transactions().write(
            lambda connection: log(self._store, connection, at, ACCEPTED, detail)
        )
        if floor is not None:
            Floor(floor).accept(head)
        return head

    def _end_all(self, state: State, detail: Mapping[str, object], *, overdue: bool) -> int:
        from sev_attest.owner.ledger.upkeep import end_some

        def end(connection: StoreConnection) -> int:
            begin = partial(self._begin, connection)
            return end_some(connection, begin, state, detail, now if overdue else None)

        now, count = self.now, 0
        while ended := self._transactions().write(end):
            count += ended
        return count

    def prune(self, before: datetime, export: "Callable[[Head, Going], object]") -> "Checkpoint":
        """Remove the attempts that ended before a time, and their events; return the checkpoint.

        ``export`` gets the head of the log and these attempts, each with its events, and must have
        stored them when it returns.
        The checkpoint that is logged lets :meth:`verify` check the rest. Only the owner of the
        tables can do this.

        Raises LedgerDamaged if the ledger is damaged, LedgerError also if this role does not own
        the tables, or one of these attempts changes meanwhile. Nothing is removed then, or if there
        is no such attempt.
        """
        from sev_attest.owner.ledger.upkeep import plan, remove

        limit = utc(before)
        if limit > self.now:
            raise Unsupported(
                f"{limit} is in the future: only what has ended can be removed",
                check="ledger.before",
            )
        owned = self._store.owned
        if not self._transactions().read(lambda connection: connection.execute(owned).fetchone())[
            0
        ]:
            raise self._store.fault("owner")
        self.verify()
        planned = self.snapshot(lambda reader: plan(reader, limit, export))
        if planned.sessions:
            at = self.now
            self._transactions().write(
                lambda connection: remove(self._store, connection, planned, at)
            )
        return planned

    # Reading.

    def get(self, attempt: str) -> LedgerEntry | None:
        """Return the entry of an attempt, or None if it is unknown."""
        check_id(attempt)
        return self._reader.entry(attempt)

    def root(self, attempt: str) -> str | None:
        """Return the root that :meth:`create` was given.

        None if nobody verified the platform; empty if that is unknown, or the attempt is.
        """
        check_id(attempt)
        return self._reader.root(attempt)

    def find(self, text: str, *, most: int = 9) -> tuple[LedgerEntry, ...]:
        """Return the entries of this name, or those whose id begins with ``text``.

        A name wins over an id. An id needs at least 8 of its hex digits. ``most`` are returned at
        most.
        """
        text = clean(text)
        found = self._reader.named(text, most)
        if not found and re.fullmatch(_PREFIX, text):
            found = self._reader.beginning(text, most)
        return tuple(found)

    def waiting(self, name: str) -> tuple[LedgerEntry, ...]:
        """Return the entries of this name that are open and not over, two at most."""
        return tuple(self._reader.waiting(clean(name), self.now))

    def unknown(self, text: str) -> WrongState:
        """Return the error for a name or an id that :meth:`find` does not find."""
        short = " (an id needs at least 8 digits)" if re.fullmatch(_TOO_SHORT, text) else ""
        return WrongState(
            f"no session {text[:80]!r} is in the ledger {self.place}{short}",
            check="ledger.unknown",
            hint="open the ledger in which it was created",
        )

    def entries(self) -> Iterator[LedgerEntry]:
        """Read all entries in pages, oldest first. Others may take steps meanwhile."""
        return self._reader.entries()

    def events(self, attempt: str | None = None) -> Iterator[Event]:
        """Read the log of one attempt, or of all, in pages, oldest first."""
        if attempt is not None:
            check_id(attempt)
        return self._reader.events(attempt)

    def snapshot(self, act: Callable[[Reader], _T]) -> _T:
        """Return ``act(reader)``; the reader reads what the ledger has at one moment."""
        return self._transactions().read(lambda connection: act(self._reader_of(connection)))

    def verify(self, head: Head | None = None) -> Head:
        """Check the log from its first event, compare the rows with it, and return its head.

        ``head`` was noted elsewhere. It must be part of the log, and so must the floor: nothing
        else shows that the whole database was replaced. Raises LedgerDamaged with every finding,
        LedgerError if the floor alone is missing.
        """
        from sev_attest.owner.ledger.audit import LedgerDamaged, findings

        floor = self._floor.head
        noted = [floor] if head is None else [floor, head]

        def audit(reader: Reader) -> tuple[Head, list[str], LedgerError | None]:
            end, found = findings(reader, noted)
            checkpoint = reader.checkpoint()
            # A checkpoint vouches for its own head, so that is no finding.
            named = checkpoint is not None and checkpoint.head == floor
            return end, found, reader.lost(floor) if len(found) == 1 and not named else None

        end, found, lost = self.snapshot(audit)
        if lost is not None:
            raise lost
        if found:
            raise LedgerDamaged(tuple(found))
        return end

    @property
    def floor(self) -> Head:
        """The last event that the log must have; its count is 0 if none is known."""
        return self._floor.head

    def require_floor(self) -> None:
        """Raise LedgerError if the log lacks the event of the floor, as every step does."""
        error = self.snapshot(lambda reader: reader.lost(self._floor.head))
        if error is not None:
            raise error

    # Transactions.

    def _check_version(self) -> None:
        store = self._store
        transactions = self._transactions()
        if transactions.read(lambda connection: version_of(store, connection)) < VERSION:
            transactions.write(lambda connection: upgrade(store, connection))

    def _step(self, attempt: str, act: Callable[[Step], _T]) -> _T:
        check_id(attempt)

        def take(connection: StoreConnection) -> _T:
            step = self._begin(connection, attempt)
            try:
                found = act(step)
            except (Insecure, WrongState):
                step.write()
                raise
            step.write()
            return found

        return self._transactions().write(take)

    def _begin(self, connection: StoreConnection, attempt: str) -> Step:
        clock = None if self._clock is None else lambda: self.now
        return Step(self._store, connection, attempt, floor=self._floor.head, clock=clock)

    @property
    def _reader(self) -> Reader:
        """Reads each page in a transaction of its own."""
        return Reader(
            self._store,
            lambda sql, values: self._transactions().read(
                lambda connection: connection.execute(sql, values).fetchall()
            ),
        )

    def _reader_of(self, connection: StoreConnection) -> Reader:
        return Reader(self._store, lambda sql, values: connection.execute(sql, values).fetchall())

    def _transactions(self) -> Transactions:
        here = self._here
        if here.process != os.getpid():
            # After a fork these are the parent's: using or closing them here would break them.
            if here.lost:
                raise self._store.fault("forked")
            self._inherited.append(here)
            self._floor.forked()
            self._here = here = Transactions(self._store, self._size, self._floor.raise_to)
        return here
