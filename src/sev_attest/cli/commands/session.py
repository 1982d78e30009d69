"""``sev-attest session``."""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import FILE, POLICY
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.common import LedgerOptions, OutputOptions, give_up
from sev_attest.cli.options.live import ConnectOptions, connect
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import ChainInvalid, Insecure, Unsupported
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.chain.verify import CHECKS, verify_chain
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.session import Session

if TYPE_CHECKING:
    from sev_attest.owner.ledger import Ledger

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class SessionOptions(Options, title="Session"):
    """The session, and where its files go."""

    name: str = option(
        "--name", required=True, help="What to call this launch; the files' names begin so."
    )
    out: str = option(
        "--out",
        type=FILE,
        default=".",
        metavar="DIR",
        help="Folder for the files (default: here).",
    )
    kernel_hashes: bool = option(
        "--kernel-hashes", is_flag=True, help="Have QEMU measure kernel, initrd and cmdline."
    )
    valid_for: int | None = option(
        "--valid-for",
        type=click.IntRange(1, 87600),
        metavar="HOURS",
        help="The ledger lets the session expire then (default: never).",
    )
    insecure: bool = option(
        "--insecure", is_flag=True, help="Accept a bare PDH, which is unauthenticated."
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")

    def errors(self, ledger: str | None) -> Iterator[Unsupported]:
        """Yield an error for a name that files cannot have, or a time limit without a ledger."""
        if not _NAME.fullmatch(self.name):
            yield Unsupported(
                f"{self.name!r} cannot begin a file's name: letters, digits and _ . + - can",
                check="name",
            )
        if self.valid_for is not None and ledger == "none":
            yield usage("--valid-for needs a ledger, which keeps the time")

    def files(self, session: Session, record: LaunchRecord) -> dict[Path, bytes]:
        """Return the files of a session, by place."""
        folder = Path(self.out)
        return {
            folder / f"{self.name}_tik.bin": session.keys.tik,
            folder / f"{self.name}_tek.bin": session.keys.tek,
            folder / f"{self.name}_godh.b64": base64.b64encode(session.godh.to_bytes()),
            folder / f"{self.name}_session.b64": base64.b64encode(session.blob),
            folder / f"{self.name}.launch.json": record.to_bytes(),
        }


@click.command("session", cls=Command)
@click.argument("inputs", nargs=-1, type=FILE, metavar="CHAIN...")
@click.argument("policy", type=POLICY)
@SessionOptions.given("options")
@LedgerOptions.given("ledger")
@ConnectOptions.given("host")
@ChainOptions.given("certificates")
@OutputOptions.given("output")
def command(
    *,
    inputs: tuple[str, ...],
    policy: int,
    options: SessionOptions,
    ledger: LedgerOptions,
    host: ConnectOptions,
    certificates: ChainOptions,
    output: OutputOptions,
) -> None:
    """Make the session for one launch on the platform of CHAIN (as INPUT of `verify`).

    With --connect, the host is asked for its chain.

    Writes NAME_tik.bin and NAME_tek.bin (keep them from the host), NAME_godh.b64 and
    NAME_session.b64 (for the host) and NAME.launch.json (the record: no secret in it), and prints
    the <launchSecurity> element. Use a session for one launch only.
    """
    refuse(
        options.errors(ledger.ledger),
        certificates.errors(inputs, fetched=host.connect is not None),
    )
    fetched, notes = _fetch(host, insecure=options.insecure)
    try:
        session = _create(inputs, fetched, certificates, GuestPolicy(policy), options)
    except ChainInvalid as error:
        if output.verbose and output.text:
            render.steps(CHECKS, error.held, {f.check for f in error.failures}, err=True)
        raise
    now = datetime.now(UTC)
    record = LaunchRecord.of(session, options.name, now, kernel_hashes=options.kernel_hashes)
    files = options.files(session, record)
    hours = options.valid_for
    expires = None if hours is None else now + timedelta(hours=hours)
    _write(files, ledger.open(), record, expires=expires, force=options.force)
    _print(session, options, [*files], [*notes, *_notes(session)], output)


def _print(
    session: Session,
    options: SessionOptions,
    files: list[Path],
    notes: list[str],
    output: OutputOptions,
) -> None:
    """Print the <launchSecurity> element, and beside it what was made."""
    from sev_attest.domain_xml.launch_security import launch_security

    element = launch_security(
        session.policy,
        base64.b64encode(session.godh.to_bytes()).decode(),
        base64.b64encode(session.blob).decode(),
        kernel_hashes=options.kernel_hashes,
    )
    if output.as_json:
        render.document(
            "session",
            ok=True,
            name=options.name,
            policy=session.policy.value,
            root=session.platform.root.name if session.platform else None,
            files=[str(path) for path in files],
            launch_security=element,
            notes=notes,
        )
        return
    # The element alone is standard output, ready to paste; the rest goes to standard error.
    click.echo(element)
    if output.verbose and output.text:
        if session.platform is not None:
            render.steps(CHECKS, CHECKS.keys(), err=True)
        for path in files:
            click.echo(f"wrote {render.one_line(str(path))}", err=True)
    if not output.quiet:
        render.notes(notes, err=True)


def _write(
    files: dict[Path, bytes],
    ledger: "Ledger | None",
    record: LaunchRecord,
    *,
    expires: datetime | None,
    force: bool,
) -> None:
    """Create the session in the ledger, then write its files: keys never exist without a row."""
    if ledger is None:
        write_all(files.items(), force=force)
        return
    with ledger:
        check_writable(list(files), force=force)
        ledger.create(record.session_id, name=record.name, expires=expires, root=record.root)
        try:
            write_all(files.items(), force=force)
        except BaseException:
            give_up(ledger, record.session_id, "its files were not written")
            raise


def _fetch(host: ConnectOptions, *, insecure: bool) -> tuple[dict[str, bytes], list[str]]:
    """Ask the host for its chain; return it by the host's address, and notes."""
    if host.connect is None:
        return {}, []
    from sev_attest.host.place import shown

    connected, notes = connect(host.connect, host.timeout, insecure=insecure)
    return {shown(host.connect): connected.chain()}, notes


def _create(
    inputs: tuple[str, ...],
    fetched: dict[str, bytes],
    certificates: ChainOptions,
    policy: GuestPolicy,
    options: SessionOptions,
) -> Session:
    """Verify the chain and make its session; raises ChainInvalid, Insecure for a bare PDH."""
    collected = certificates.collect(inputs, fetched)
    if collected.by_role.keys() == {"PDH"}:
        if not options.insecure:
            raise Insecure(
                "this is a bare PDH: nothing shows that it is an AMD platform's",
                check="session.bare-pdh",
                hint="give the whole chain (`sevctl export` writes it); --insecure goes on without",
            )
        return Session.create_unverified(collected.pdh(), policy=policy)
    verified = verify_chain(collected.chain(), roots=certificates.roots())
    return Session.create(verified, policy=policy)


def _notes(session: Session) -> list[str]:
    if session.platform is None:
        notes = ["INSECURE: nothing shows that this PDH is an AMD platform's"]
    else:
        notes = render.platform_notes(session.platform)
    return notes + render.policy_notes(session.policy)
