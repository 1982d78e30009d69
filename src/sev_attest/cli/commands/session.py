"""``sev-attest session``."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sev_attest._encoding import to_base64
from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.environment import REQUIREMENTS, from_environment
from sev_attest.cli.inputs import FILE, POLICY
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.common import OutputOptions, give_up
from sev_attest.cli.options.connect import ConnectOptions, connect
from sev_attest.cli.options.store import StoreOptions
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.sessions import chain_of, creation, make_session, platform_notes
from sev_attest.cli.usage import name_errors, refuse, usage
from sev_attest.errors import ChainInvalid, Unsupported
from sev_attest.owner._safe_path import plain
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.chain.verify import CHECKS
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.session import Session

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Requirements


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
    requirements: str | None = option(
        "--requirements",
        type=FILE,
        metavar="FILE",
        envvar=REQUIREMENTS,
        help="Bind the session to this owner.toml: `validate` then needs the same.",
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

    def errors(self, ledger: StoreOptions) -> Iterator[Unsupported]:
        """Yield an error for a name that files cannot have, or what needs a ledger or a store."""
        yield from name_errors(self.name)
        if self.valid_for is not None and ledger.ledger == "none":
            yield usage("--valid-for needs a ledger, which keeps the time")
        # Those of the environment are for `validate` too, which holds the launch to them.
        stated = self.requirements is not None and not from_environment("requirements")
        if stated and ledger.store is None:
            yield usage("--requirements needs --store, which keeps what they were")

    def files(self, session: Session, record: LaunchRecord, *, stored: bool) -> dict[str, bytes]:
        """Return the files of a session, by place; only those for the host if it is ``stored``."""
        for_host = {
            "_godh.b64": to_base64(session.godh.to_bytes()).encode(),
            "_session.b64": to_base64(session.blob).encode(),
        }
        for_owner = {
            "_tik.bin": session.keys.tik,
            "_tek.bin": session.keys.tek,
            ".launch.json": record.to_bytes(),
        }
        files = for_host if stored else for_owner | for_host
        # Not pathlib: it is slow to import.
        place = plain(os.path.join(self.out, self.name))  # noqa: PTH118
        return {f"{place}{end}": data for end, data in files.items()}


@click.command(
    "session",
    cls=Command,
    examples=(
        "sev-attest session --name vm1 host.chain 0x5",
        (
            "sev-attest session --name vm1 host.chain 0x5 --store launches.sqlite3 --kek "
            "kek --valid-for 24"
        ),
    ),
)
@click.argument("inputs", nargs=-1, type=FILE, metavar="CHAIN...")
@click.argument("policy", type=POLICY)
@SessionOptions.given("options")
@StoreOptions.given("ledger")
@ConnectOptions.given("host")
@ChainOptions.given("certificates")
@OutputOptions.given("output")
def command(
    *,
    inputs: tuple[str, ...],
    policy: int,
    options: SessionOptions,
    ledger: StoreOptions,
    host: ConnectOptions,
    certificates: ChainOptions,
    output: OutputOptions,
) -> None:
    """Make the session for one launch on the platform of CHAIN (as INPUT of `verify`).

    For SEV and SEV-ES; SEV-SNP has no sessions, see `snp challenge`. With --connect, the host is
    asked for its chain.

    Writes NAME_tik.bin and NAME_tek.bin (keep them from the host), NAME_godh.b64 and
    NAME_session.b64 (for the host) and NAME.launch.json (the record: no secret in it), and prints
    the <launchSecurity> element. With --store, keys and record are sealed there, and only the files
    for the host are written. Use a session for one launch only.
    """
    refuse(
        options.errors(ledger),
        ledger.store_errors(),
        certificates.errors(inputs, fetched=host.connect is not None),
    )
    fetched, notes = _fetch(host, insecure=options.insecure)
    try:
        session = make_session(
            inputs, fetched, certificates, GuestPolicy(policy), insecure=options.insecure
        )
    except ChainInvalid as error:
        if output.verbose and output.text:
            render.steps(CHECKS, error.held, {f.check for f in error.failures}, err=True)
        raise
    now = datetime.now(UTC)
    record = LaunchRecord.of(session, options.name, now, kernel_hashes=options.kernel_hashes)
    files = options.files(session, record, stored=ledger.store is not None)
    _write(files, session, record, options, ledger)
    _print(
        session,
        options,
        [*files],
        [*notes, *platform_notes(session), *render.policy_notes(session.policy)],
        output,
    )


def _print(
    session: Session,
    options: SessionOptions,
    files: list[str],
    notes: list[str],
    output: OutputOptions,
) -> None:
    """Print the <launchSecurity> element, and beside it what was made."""
    from sev_attest.domain_xml.launch_security import launch_security

    element = launch_security(
        session.policy,
        to_base64(session.godh.to_bytes()),
        to_base64(session.blob),
        kernel_hashes=options.kernel_hashes,
    )
    if output.as_json:
        render.document(
            "session",
            ok=True,
            name=options.name,
            policy=session.policy.value,
            root=session.platform.root.name if session.platform else None,
            files=files,
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
            click.echo(f"wrote {render.one_line(path)}", err=True)
    if not output.quiet:
        render.notes(notes)


def _write(
    files: dict[str, bytes],
    session: Session,
    record: LaunchRecord,
    options: SessionOptions,
    ledger: StoreOptions,
) -> None:
    """Create the session in the ledger, then write its files: keys never exist without a row."""
    create = creation(
        session,
        record,
        ledger,
        hours=options.valid_for,
        requirements=_requirements(options, ledger),
    )
    opened = ledger.open()
    if opened is None:
        write_all(files.items(), force=options.force)
        return
    with opened:
        check_writable([*files], force=options.force)
        create(opened)
        try:
            write_all(files.items(), force=options.force)
        except BaseException:
            give_up(opened, record.session_id, "its files were not written")
            raise


def _fetch(host: ConnectOptions, *, insecure: bool) -> tuple[dict[str, bytes], list[str]]:
    """Ask the host, if one is named, for its chain; return it by the host's address, and notes."""
    if host.connect is None:
        return {}, []
    connected, notes = connect(host.connect, host.timeout, insecure=insecure)
    return chain_of(connected, host.connect), notes


def _requirements(options: SessionOptions, ledger: StoreOptions) -> "Requirements | None":
    """Read --requirements; None without it, or without a store that binds the session to it."""
    if options.requirements is None or ledger.store is None:
        return None
    from sev_attest.cli.commands.requirements import read_requirements

    return read_requirements(options.requirements)
