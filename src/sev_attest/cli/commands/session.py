"""``sev-attest session``."""

import base64
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sev_attest.cli import render
from sev_attest.cli.inputs import (
    FILE,
    POLICY,
    chain_options,
    collect,
    give_up,
    ledger_option,
    open_ledger,
    output_options,
    trusted_roots,
)
from sev_attest.cli.options.live import connect, connect_option
from sev_attest.cli.outputs import check_folders, check_places, write_all
from sev_attest.errors import ChainInvalid, Insecure, Unsupported
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.chain.verify import CHECKS, verify_chain
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.session import Session

if TYPE_CHECKING:
    from sev_attest.owner.ledger import Ledger

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@click.command("session")
@click.argument("chain", nargs=-1, type=FILE, metavar="CHAIN...")
@click.argument("policy", type=POLICY)
@click.option("--name", required=True, help="What to call this launch; the files' names begin so.")
@click.option(
    "--out", type=FILE, default=".", metavar="DIR", help="Folder for the files (default: here)."
)
@click.option("--kernel-hashes", is_flag=True, help="Have QEMU measure kernel, initrd and cmdline.")
@click.option(
    "--valid-for", type=click.IntRange(1, 87600), metavar="HOURS",
    help="The ledger lets the session expire then (default: never).",
)  # fmt: skip
@ledger_option
@click.option("--insecure", is_flag=True, help="Accept a bare PDH, which nothing vouches for.")
@click.option("--force", is_flag=True, help="Write over files that exist.")
@connect_option
@chain_options
@output_options
def command(
    *,
    chain: tuple[str, ...],
    policy: int,
    name: str,
    out: str,
    kernel_hashes: bool,
    valid_for: int | None,
    ledger: str | None,
    insecure: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Make the session for one launch on the platform of CHAIN (as INPUT of `verify`).

    With --connect, the host is asked for its chain.

    Writes NAME_tik.bin and NAME_tek.bin (keep them from the host), NAME_godh.b64 and
    NAME_session.b64 (for the host) and NAME.launch.json (the record: no secret in it), and prints
    the <launchSecurity> element. Use a session for one launch only.
    """
    if not _NAME.fullmatch(name):
        raise Unsupported(
            f"{name!r} cannot begin a file's name: letters, digits and _ . + - can", check="name"
        )
    if valid_for is not None and ledger == "none":
        raise Unsupported("--valid-for needs a ledger, which keeps the time", check="usage")
    explain = verbose and not (as_json or quiet)
    fetched, notes = _fetch(given, insecure=insecure)
    try:
        session = _create(chain, fetched, GuestPolicy(policy), insecure=insecure, given=given)
    except ChainInvalid as error:
        if explain:
            render.steps(CHECKS, error.held, {f.check for f in error.failures}, err=True)
        raise
    godh = base64.b64encode(session.godh.to_bytes())
    blob = base64.b64encode(session.blob)
    folder = Path(out)
    now = datetime.now(UTC)
    record = LaunchRecord.of(session, name, now, kernel_hashes=kernel_hashes)
    files = {
        folder / f"{name}_tik.bin": session.keys.tik,
        folder / f"{name}_tek.bin": session.keys.tek,
        folder / f"{name}_godh.b64": godh,
        folder / f"{name}_session.b64": blob,
        folder / f"{name}.launch.json": record.to_bytes(),
    }
    expires = None if valid_for is None else now + timedelta(hours=valid_for)
    _write(files, open_ledger(ledger), record, expires=expires, force=force)
    from sev_attest.domain_xml.launch_security import launch_security

    element = launch_security(
        session.policy, godh.decode(), blob.decode(), kernel_hashes=kernel_hashes
    )
    notes += _notes(session)
    if as_json:
        render.document(
            "session",
            ok=True,
            name=name,
            policy=policy,
            root=session.platform.root.name if session.platform else None,
            files=[str(path) for path in files],
            launch_security=element,
            notes=notes,
        )
        return
    # The element alone is standard output, ready to paste; the rest goes beside it.
    click.echo(element)
    if explain:
        if session.platform is not None:
            render.steps(CHECKS, CHECKS.keys(), set(), err=True)
        for path in files:
            click.echo(f"wrote {render.one_line(str(path))}", err=True)
    if not quiet:
        render.notes(notes, err=True)


def _write(
    files: dict[Path, bytes],
    ledger: "Ledger | None",
    record: LaunchRecord,
    *,
    expires: datetime | None,
    force: bool,
) -> None:
    """Open the session in the ledger, then write its files: no keys without a row."""
    if ledger is None:
        write_all(files.items(), force=force)
        return
    with ledger:
        check_places(list(files), force=force)
        check_folders(list(files))
        ledger.create(record.session_id, name=record.name, expires=expires, root=record.root)
        try:
            write_all(files.items(), force=force)
        except BaseException:
            give_up(ledger, record.session_id, "its files were not written")
            raise


def _fetch(given: dict[str, Any], *, insecure: bool) -> tuple[dict[str, bytes], list[str]]:
    """Ask a host for its chain; gives it by the host's URI, and notes."""
    uri = given["connect"]
    if uri is None:
        return {}, []
    from sev_attest.host.place import shown

    host, notes = connect(uri, given["timeout"], insecure=insecure)
    return {shown(uri): host.chain()}, notes


def _create(
    inputs: tuple[str, ...],
    fetched: dict[str, bytes],
    policy: GuestPolicy,
    *,
    insecure: bool,
    given: dict[str, Any],
) -> Session:
    collected = collect(inputs, given, fetched)
    if collected.by_role.keys() == {"PDH"}:
        if not insecure:
            raise Insecure(
                "this is a bare PDH: nothing shows that it is an AMD platform's",
                check="session.bare-pdh",
                hint="give the whole chain (`sevctl export` writes it); --insecure goes on without",
            )
        return Session.create_unverified(collected.pdh(), policy=policy)
    verified = verify_chain(collected.chain(), roots=trusted_roots(given))
    return Session.create(verified, policy=policy)


def _notes(session: Session) -> list[str]:
    if session.platform is None:
        notes = ["INSECURE: nothing shows that this PDH is an AMD platform's"]
    else:
        notes = render.platform_notes(session.platform)
    return notes + render.policy_notes(session.policy)
