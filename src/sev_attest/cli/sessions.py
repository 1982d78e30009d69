"""Make a session for a host's platform: for ``session`` and ``launch``."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sev_attest.cli import render
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.store import StoreOptions
from sev_attest.errors import Insecure
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.chain.verify import complete, verify_chain
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from sev_attest.cli.evidence.keep import Kept
    from sev_attest.host import HostConnection
    from sev_attest.owner.ledger import Ledger
    from sev_attest.owner.requirements import Requirements


def creation(
    session: Session,
    record: LaunchRecord,
    ledger: StoreOptions,
    *,
    hours: int | None = None,
    requirements: "Requirements | None" = None,
) -> "Callable[[Ledger], object]":
    """Return what creates the session in a ledger, with its keys if it is a store.

    It expires after ``hours``. A store binds it to ``requirements``.
    """

    def expires(opened: "Ledger") -> datetime | None:
        """Return when it expires, by the ledger's clock."""
        now = datetime.fromisoformat(opened.now)
        return None if hours is None else now + timedelta(hours=hours)

    if ledger.store is None:
        name, root = record.name, record.root
        return lambda opened: opened.create(
            record.session_id, name=name, expires=expires(opened), root=root
        )
    return lambda opened: ledger.sessions(opened).add(
        session, record, expires=expires(opened), requirements=requirements
    )


def chain_of(host: "HostConnection", uri: str) -> dict[str, bytes]:
    """Ask a host for its chain; return it by the host's address."""
    from sev_attest.host.place import shown

    return {shown(uri): host.chain()}


def make_session(
    inputs: tuple[str, ...],
    fetched: dict[str, bytes],
    certificates: ChainOptions,
    policy: GuestPolicy,
    *,
    insecure: bool,
    kept: "Kept | None" = None,
) -> Session:
    """Verify the chain and make its session; ``kept`` gets the chain for its evidence.

    Raises ChainInvalid; for a bare PDH, Insecure unless ``insecure``.
    """
    collected = certificates.collect(inputs, fetched)
    if collected.by_role.keys() == {"PDH"}:
        if not insecure:
            raise Insecure(
                "this is a bare PDH: nothing shows that it is an AMD platform's",
                check="session.bare-pdh",
                hint="give the whole chain (`sevctl export` writes it); --insecure goes on without",
            )
        return Session.create_unverified(collected.pdh(), policy=policy)
    chain, roots = collected.chain(), certificates.roots()
    if kept is not None:
        kept.chain = complete(chain, roots)
    verified = verify_chain(chain, roots=roots)
    return Session.create(verified, policy=policy)


def platform_notes(session: Session) -> list[str]:
    """Return notes on the platform of a session."""
    if session.platform is None:
        return ["INSECURE: nothing shows that this PDH is an AMD platform's"]
    return render.platform_notes(session.platform)
