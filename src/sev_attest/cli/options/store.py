"""The options of a store: a ledger that has the sealed keys of its sessions beside their rows."""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Self

from sev_attest.cli.bundle import option
from sev_attest.cli.completion import sessions
from sev_attest.cli.environment import STORE, origin
from sev_attest.cli.inputs import OUTPUT
from sev_attest.cli.options.common import LedgerOptions
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported

if TYPE_CHECKING:
    from sev_attest.owner.ledger import Ledger
    from sev_attest.owner.pending import PendingSession, PendingSessions

_MAKE_ONE = "`(umask 077; set -C; head -c 32 /dev/urandom > kek)` makes one: --kek kek"


class StoreOptions(LedgerOptions, title="Ledger"):
    """The ledger, and the key-encryption keys if it has the keys of its sessions too."""

    store: str | None = option(
        "--store",
        type=OUTPUT,
        metavar="PATH|URL",
        envvar=STORE,
        help="Ledger that keeps the session's keys and record too, sealed; no files have them.",
    )
    kek: tuple[str, ...] = option(
        "--kek",
        metavar="KEK",
        multiple=True,
        help="Key-encryption key of --store: PATH, credential:NAME, vault:URL or command:PATH. "
        "Can be repeated: the first seals, all open.",
    )

    def settled(self, environment: AbstractSet[str]) -> Self:
        """Return the bundle without a ledger of the environment where a store is named."""
        if self.store is not None and "ledger" in environment:
            return self.replace(ledger=None)
        return self

    def store_errors(self) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another."""
        if self.store is None:
            if self.kek:
                yield usage("--kek needs --store")
            return
        if self.store == "none":
            yield usage("--store needs a file or a postgresql:// database")
        if self.ledger not in (None, self.store):
            yield usage(f"{origin('store')} is the ledger too: --ledger cannot name another")
        if not self.kek:
            yield usage(f"{origin('store')} needs --kek: the key that seals", hint=_MAKE_ONE)

    def open(self, *, create: bool = True) -> "Ledger | None":
        """Open the ledger, which --store names too; None for "none"."""
        if self.store is not None and self.ledger is None:
            return self.replace(ledger=self.store).open(create=create)
        return super().open(create=create)

    def sessions(self, ledger: "Ledger") -> "PendingSessions":
        """Return the store in an opened ledger; raises KeyAccessError for a KEK."""
        from sev_attest.owner.key_wrapping import key_encryption
        from sev_attest.owner.pending import PendingSessions

        return PendingSessions(ledger, *map(key_encryption, self.kek))


class WaitingOptions(StoreOptions, title="Ledger"):
    """A session that waits in the store, in place of files with its keys and its record."""

    session: str | None = option(
        "--session",
        metavar="NAME-OR-ID",
        shell_complete=sessions,
        help="Take the session's keys and its record from --store.",
    )

    def settled(self, environment: AbstractSet[str]) -> Self:
        """Return the bundle without a store of the environment where no session is named."""
        unused = self.session is None and "store" in environment
        return StoreOptions.settled(self.replace(store=None) if unused else self, environment)

    def errors(self, files: Iterable[str]) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another.

        ``files`` are the options given that name files of keys or a record.
        """
        yield from self.store_errors()
        if (self.session is None) != (self.store is None):
            yield usage("--session and --store go together")
        if self.session is not None and (given := ", ".join(files)):
            yield usage(f"--session excludes {given}: --store has the keys and the record")

    def take(self) -> "PendingSession | None":
        """Return the session that waits; None if no option names one."""
        opened = None if self.session is None else self.open(create=False)
        if self.session is None or opened is None:
            return None
        with opened as ledger:
            return self.sessions(ledger).open(self.session)
