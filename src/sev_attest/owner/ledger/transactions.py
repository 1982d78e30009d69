"""The transactions of one process: few connections, and the steps of many threads in each commit.

A commit waits for the disk. So the steps that threads want at the same time are taken in one
transaction: one thread leads, and takes the steps of all that wait. Once its transaction is
committed the next thread leads, even while the first waits for ``Store.flush``.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from copy import copy
from typing import Any, Generic, TypeVar, cast

from sev_attest.errors import Insecure, WrongState
from sev_attest.owner.ledger.errors import UNKNOWN_OUTCOME, LedgerError
from sev_attest.owner.ledger.store import Store, StoreConnection
from sev_attest.owner.ledger.story import Head

MAX_STEPS = 64
"""The most steps in one transaction: they hold the lock of the log together."""
LIFETIME = 600.0
"""Seconds after which a connection is not used again: the server's address may have changed."""

_LEAST_WAIT = 1.0
"""Seconds that a step waits for those of other threads, if the ledger's timeout is less."""
_T = TypeVar("_T")


class _Undone(Exception):
    """A step could not be taken; its job has the error."""


class _Job(Generic[_T]):
    """A step that a thread waits for."""

    __slots__ = ("_act", "_result", "done", "error", "taken")

    def __init__(self, act: Callable[[StoreConnection], _T]) -> None:
        self._act = act
        self._result: _T | None = None
        self.error: Exception | None = None
        self.taken = False
        self.done = False

    def run(self, connection: StoreConnection) -> None:
        """Take the step. A refusal is a result: what it wrote to the log is committed too."""
        self._result = self.error = None
        try:
            self._result = self._act(connection)
        except (Insecure, WrongState) as refusal:
            self.error = refusal
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            self.error = error
            raise _Undone from None

    def outcome(self) -> _T:
        if self.error is not None:
            raise self.error
        return cast("_T", self._result)


class Transactions:
    """The connections of one process to a ledger, ``size`` at most, and the queue of its steps."""

    def __init__(self, store: Store, size: int, flushed: Callable[[Head], None]) -> None:
        """Take the store and the number of connections.

        ``flushed`` is called with the head of the log once no crash can undo a transaction.
        """
        self.process: int = os.getpid()
        self.lost: bool = False
        """Whether a child process was forked while a connection was in use: it may use none."""
        self._store = store
        self._flushed = flushed
        self._slots = threading.BoundedSemaphore(size)
        self._idle: list[tuple[StoreConnection, float]] = []
        self._turn = threading.Condition(threading.Lock())
        self._waiting: list[_Job[Any]] = []
        self._size = size
        self._paused = 0
        with _FORKING:
            _ALL.add(self)
        self._leader: _Job[Any] | None = None

    def close(self) -> None:
        """Close the connections that nothing uses. The next transaction opens a new one."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop()[0].close()

    def pause(self) -> None:
        """Before a fork: wait until no connection is in use, and close all.

        A child that inherits SQLite's locks, which are the process's, would have locks that do not
        hold. And it would wait for ever for what a thread of its parent held.
        """
        end = time.monotonic() + max(self._store.timeout, _LEAST_WAIT)
        while self._paused < self._size:
            if not self._slots.acquire(timeout=max(0, end - time.monotonic())):
                self.lost = True
                break
            self._paused += 1
        self.close()

    def go_on(self) -> None:
        """Go on after a fork, in the parent."""
        self.lost = False
        for _ in range(self._paused):
            self._slots.release()
        self._paused = 0

    def read(self, act: Callable[[StoreConnection], _T]) -> _T:
        """Run ``act`` in a transaction that reads one snapshot, and return its result."""
        return self._run(self._store.reading, act, lambda _: None)

    def write(self, act: Callable[[StoreConnection], _T]) -> _T:
        """Run ``act`` in a transaction that excludes all other writers, and return its result.

        Once this returns, no crash undoes it. If ``act`` raises Insecure or WrongState, what it
        wrote is committed; any other exception undoes it. ``act`` may be run twice, and the
        transaction may have steps of other threads too.
        """
        job = _Job(act)
        try:
            with self._turn:
                self._waiting.append(job)
            while jobs := self._next(job):
                self._lead(jobs)
        finally:
            # After an interrupt, wherever it came: nobody may wait for this thread.
            if not job.done or self._leader is job:
                self._give_up(job)
        return job.outcome()

    def _next(self, job: _Job[Any]) -> list[_Job[Any]]:
        """Wait until the step was taken, or this thread has to lead; return the steps to take."""
        end = time.monotonic() + max(self._store.timeout, _LEAST_WAIT)
        with self._turn:
            while not job.done and (job.taken or self._leader):
                if not self._turn.wait(None if job.taken else end - time.monotonic()):
                    raise self._store.fault("busy")
            if job.done:
                return []
            self._leader = job
            jobs, self._waiting = self._waiting[:MAX_STEPS], self._waiting[MAX_STEPS:]
            for each in jobs:
                each.taken = True
            return jobs

    def _give_up(self, job: _Job[Any]) -> None:
        with self._turn:
            if job in self._waiting:
                self._waiting.remove(job)
            if self._leader is job:
                self._leader = None
            self._turn.notify_all()

    def _lead(self, jobs: Sequence[_Job[Any]]) -> None:
        """Take steps in one transaction; each in its own if one of them cannot be taken."""
        turn = ExitStack()
        turn.callback(self._pass_on)
        try:
            with turn:
                try:
                    self._take(jobs, turn.close)
                except _Undone:
                    for job in jobs if len(jobs) > 1 else ():
                        with suppress(_Undone):
                            self._take([job], turn.close)
        except BaseException:
            for job in jobs:
                job.error = self._store.fault("interrupted")
            raise
        finally:
            with self._turn:
                for job in jobs:
                    job.done = True
                self._turn.notify_all()

    def _pass_on(self) -> None:
        with self._turn:
            self._leader = None
            self._turn.notify_all()

    def _take(self, jobs: Sequence[_Job[Any]], committed: Callable[[], None]) -> None:
        """Take steps in one transaction; raises _Undone if one of them cannot be taken."""

        def act(connection: StoreConnection) -> None:
            for job in jobs:
                job.run(connection)

        def flush(connection: StoreConnection) -> None:
            committed()
            # Nothing waits for the disk if all were refused, and that was logged before.
            if connection.head and (connection.wrote or any(job.error is None for job in jobs)):
                self._store.flush(connection, connection.head)
                try:
                    self._flushed(connection.head)
                except LedgerError as error:
                    error.hint = UNKNOWN_OUTCOME
                    raise

        try:
            self._run(self._store.writing, act, flush)
        except LedgerError as error:
            for job in jobs:  # each thread raises its own
                job.error = copy(error)

    def _run(
        self,
        begin: str,
        act: Callable[[StoreConnection], _T],
        after: Callable[[StoreConnection], None],
    ) -> _T:
        if not self._slots.acquire(timeout=self._store.timeout):
            raise self._store.fault("busy")
        connection = None
        try:
            connection, opened = self._begin(begin)
            found = act(connection)
            connection.execute("COMMIT")
            after(connection)
            if time.monotonic() - opened < LIFETIME:
                self._idle.append((connection, opened))
            else:
                connection.close()
        except BaseException:
            if connection is not None:
                connection.close()  # rolls back
            self.close()  # the others may be broken too
            raise
        finally:
            self._slots.release()
        return found

    def _begin(self, begin: str) -> tuple[StoreConnection, float]:
        """Begin a transaction, and return its connection and when that was opened."""
        with suppress(IndexError):
            connection, opened = self._idle.pop()
            try:
                connection.head, connection.wrote = None, False
                connection.execute(begin)
            except LedgerError as error:
                # Nothing was begun: the server may have ended a connection that was idle.
                connection.close()
                if error.check != "ledger.connection":
                    raise
                self.close()
            else:
                return connection, opened
        connection = self._store.connect()
        try:
            connection.execute(begin)
        except BaseException:
            connection.close()
            raise
        return connection, time.monotonic()


_ALL: weakref.WeakSet[Transactions] = weakref.WeakSet()
_FORKING = threading.Lock()
"""Held while a process forks, and while another ledger is opened."""


def _own() -> list[Transactions]:
    return [each for each in _ALL if each.process == os.getpid()]


def _before_fork() -> None:
    _FORKING.acquire()
    for each in _own():
        each.pause()


def _after_in_parent() -> None:
    for each in _own():
        each.go_on()
    _FORKING.release()


# Not POSIX: there is no fork.
getattr(os, "register_at_fork", dict)(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_FORKING.release
)
