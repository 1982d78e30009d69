"""``sev-attest ledger``: the sessions of this owner, and the state of each."""

import re
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.completion import sessions
from sev_attest.cli.inputs import OUTPUT, ParamType
from sev_attest.cli.options.common import LedgerOptions, OutputOptions
from sev_attest.cli.usage import usage
from sev_attest.owner.ledger.book import Ledger
from sev_attest.owner.ledger.errors import LedgerError
from sev_attest.owner.ledger.place import default_path
from sev_attest.owner.ledger.reading import Reader
from sev_attest.owner.ledger.stores import store_at
from sev_attest.owner.ledger.story import (
    UNKNOWN_ROOT,
    Event,
    Head,
    LedgerEntry,
    State,
    Technology,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sev_attest.cli.documents.ledgers import KeptKeys, LedgerEvent, LedgerSession, ShownSession
    from sev_attest.owner.ledger.checkpoint import Checkpoint
    from sev_attest.owner.ledger.kept import SealedKeys
    from sev_attest.owner.ledger.upkeep import Going

_PAGE = 500
_CANDIDATES = 8
_ID_SHOWN = 12
_MARKS = {Technology.SEV: "", Technology.SNP: " (SEV-SNP)"}
_NOTHING_REMOVED = frozenset(
    f"ledger.{problem}" for problem in ("moved", "owner", "permission", "locked", "busy", "lost")
)
"""Errors after which a prune has certainly removed nothing."""
_session = click.argument("session", metavar="NAME-OR-ID", shell_complete=sessions)


class _HeadType(ParamType[Head]):
    """The head of a log: COUNT:HASH."""

    name = "head"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Head:
        """Read what `ledger verify` prints."""
        found = re.fullmatch(r"([0-9]{1,15}):([0-9a-f]{64})", str(value).strip())
        if found is None:
            self.fail("this is no COUNT:HASH as `ledger verify` prints it", param, ctx)
        return Head(int(found[1]), found[2])


class _Day(ParamType[datetime]):
    """A day, "2026-01-01"; its first second, UTC."""

    name = "date"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read YYYY-MM-DD."""
        try:
            return datetime.strptime(str(value), "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"{str(value)!r} is no date: YYYY-MM-DD, such as 2026-01-01", param, ctx)


@click.group("ledger", cls=Group, examples=("sev-attest ledger list",))
def command() -> None:
    """List and check the sessions and challenges that you made; each is used once."""


@command.command(
    "init", examples=("sev-attest ledger init --ledger postgresql://db.example.org/launches",)
)
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def init(*, ledger: LedgerOptions, output: OutputOptions) -> None:
    """Create a ledger, or upgrade one of an older version.

    On PostgreSQL this takes the owner of the tables; a service then needs fewer rights.
    """
    with _open(ledger, create=True) as opened:
        head, place = opened.snapshot(Reader.head), opened.place
    if output.as_json:
        render.document("ledger init", ok=True, ledger=place, head=str(head))
    elif output.text:
        terminal.say(
            f"OK: the ledger {render.one_line(place)} has {render.count(head.count, 'event')}"
        )


@command.command(
    "list",
    examples=(
        "sev-attest ledger list",
        "sev-attest ledger list --state created --state measured",
    ),
)
@bare_option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only sessions in this state; can be repeated.",
)
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def list_(*, states: tuple[str, ...], ledger: LedgerOptions, output: OutputOptions) -> None:
    """List all sessions, one per line, the oldest first."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(_open(ledger))
        except LedgerError as error:
            from pathlib import Path

            # A floor says that there was one.
            known = ledger.floor is not None and Path(ledger.floor).exists()
            if error.check != "ledger.missing" or known:
                raise
            found: Iterator[LedgerEntry] = iter(())
            now, none = "", f"there is no ledger at {_place(ledger)} yet"
        else:
            found, now, none = opened.entries(), opened.now, "no launches yet"
        wanted = {State(state) for state in states} or {*State}
        first = next(found, None)
        every = chain(() if first is None else (first,), found)
        shown = (entry for entry in every if entry.state_at(now) in wanted)
        if output.as_json:
            sessions = (_entry_facts(entry, now) for entry in shown)
            render.document("ledger list", ok=True, sessions=sessions)
            return
        listed = False
        while page := [*islice(shown, _PAGE)]:
            listed = True
            width = max(len(render.one_line(entry.name)) for entry in page)
            for entry in page:
                name = render.one_line(entry.name) or "-"
                shortened = entry.session_id[: None if output.verbose else _ID_SHOWN]
                told = render.one_line(entry.explain(now)) + _MARKS[entry.technology]
                click.echo(f"{shortened}  {name:<{width}}  {told}")
        if not (listed or output.quiet):
            click.echo(none if first is None else "no launches in that state")


@command.command("show", examples=("sev-attest ledger show vm1",))
@_session
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def show(*, session: str, ledger: LedgerOptions, output: OutputOptions) -> None:
    """Show a session and everything that happened in it."""
    with _open(ledger) as opened:
        entry = _find(opened, session)
        events, now = opened.events(entry.session_id), opened.now
        root = opened.root(entry.session_id)
        sealed = opened.snapshot(lambda reader: reader.sealed(entry.session_id))
        if output.as_json:
            shown: ShownSession = {
                **_entry_facts(entry, now),
                **_keys(sealed),
                "verified": None if root == UNKNOWN_ROOT else root is not None,
                "root": root or None,
            }
            told = map(_event_facts, events)
            render.document("ledger show", ok=True, session=shown, events=told)
            return
        facts: dict[str, object] = {**_entry_facts(entry, now), **_keys(sealed)}
        facts |= {"platform": _platform(entry, root)}
        for name, value in facts.items():
            if value:
                click.echo(f"{name.replace('_', ' ')}: {render.one_line(str(value))}")
        for event in events:
            click.echo(render.one_line(f"{event.time}  {event.kind}  {event.detail}"))
            if output.verbose:
                click.echo(f"    event {event.head}")


@command.command(
    "close", examples=("sev-attest ledger close vm1 --reason 'the host was replaced'",)
)
@_session
@bare_option("--reason", default="", metavar="TEXT", help="A reason to keep in the ledger.")
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def close(*, session: str, reason: str, ledger: LedgerOptions, output: OutputOptions) -> None:
    """End a session that released nothing: no measurement is accepted in it any more."""
    with _open(ledger) as opened:
        entry = opened.close(_find(opened, session).session_id, reason)
        now = opened.now
    if output.as_json:
        render.document("ledger close", ok=True, session=_entry_facts(entry, now))
    elif output.text:
        terminal.say(f"OK: {render.one_line(entry.label)} is closed")
        if output.verbose:
            click.echo(f"session id: {entry.session_id}")


@command.command("expire", examples=("sev-attest ledger expire",))
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def expire(*, ledger: LedgerOptions, output: OutputOptions) -> None:
    """Record every session whose time is over as expired: its keys are no longer kept."""
    with _open(ledger) as opened:
        count = opened.expire()
    if output.as_json:
        render.document("ledger expire", ok=True, expired=count)
    elif output.text:
        terminal.say(f"OK: {render.count(count, 'session')} expired")


@command.command(
    "accept-head", examples=("sev-attest ledger accept-head --reason 'restored from a backup'",)
)
@bare_option("--reason", required=True, metavar="TEXT", help="A reason to keep in the ledger.")
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def accept_head(*, reason: str, ledger: LedgerOptions, output: OutputOptions) -> None:
    """Go on with a ledger that lost events: an older copy, or a standby that lacked some.

    Any open session may have been released by what is lost, so this closes them all. --ledger-floor
    is set to the head that it prints. Run it once, while no service uses the ledger; on other
    machines, remove the floor file then.
    """
    with _open(ledger.replace(floor=None)) as opened:
        head = opened.accept_head(reason, floor=ledger.floor)
    if output.as_json:
        render.document("ledger accept-head", ok=True, head=str(head))
    elif output.text:
        terminal.say(f"OK: every open session is closed; head {head}")


@command.command(
    "prune", examples=("sev-attest ledger prune --before 2026-01-01 --output ended-2025.json",)
)
@bare_option(
    "--before",
    type=_Day(),
    required=True,
    metavar="DATE",
    help="Remove the sessions that ended before this day (UTC).",
)
@bare_option(
    "-o", "--output", "place", type=OUTPUT, required=True, metavar="FILE", help="Export them here."
)
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def prune(*, before: datetime, place: str, ledger: LedgerOptions, output: OutputOptions) -> None:
    """Remove sessions that ended long ago, after they are exported to a new file.

    `ledger verify` checks what is left from then on. Note the head that this prints, and keep the
    file: what a head that was noted earlier holds is in it. This takes the owner of the tables.
    """
    from pathlib import Path

    with _open(ledger) as opened:
        done = _prune(opened, before, Path(place))
        head = opened.snapshot(Reader.head)
    files = [place] if done.sessions else []
    if output.as_json:
        render.document(
            "ledger prune",
            ok=True,
            files=files,
            sessions=done.sessions,
            events=done.removed,
            head=str(head),
        )
    elif output.text:
        sessions = render.count(done.sessions, "session")
        told = f"removed {sessions} ({render.count(done.removed, 'event')})"
        terminal.say(f"OK: {told}; head {head}" if files else "OK: there was nothing to remove")


def _prune(ledger: Ledger, before: datetime, path: "Path") -> "Checkpoint":
    """Prune a ledger; the file stays only if its sessions were removed, or may have been."""
    from sev_attest.cli.outputs import FileExists

    written: list[Path] = []
    now = ledger.now

    def export(head: Head, going: "Going") -> None:
        if _write_segment(path, now, head, going):
            written.append(path)

    try:
        return ledger.prune(before, export)
    except BaseException as error:
        if isinstance(error, FileExists):
            error.hint = "choose another name: it may be all that is left of what was pruned then"
        for file in written:
            if getattr(error, "check", "") in _NOTHING_REMOVED:
                file.unlink(missing_ok=True)
            else:
                error.add_note(
                    f"{file} is kept: it is unknown whether its sessions were removed; `ledger "
                    "verify` says so"
                )
        raise


def _write_segment(path: "Path", now: str, head: Head, going: "Going") -> bool:
    """Write the sessions that go to a new file; return whether there are any."""
    from sev_attest.cli.outputs import write_all

    first = next(going, None)
    if first is None:
        return False
    attempts = (
        {**_entry_facts(entry, now), "events": [_event_facts(event) for event in events]}
        for entry, events in chain((first,), going)
    )
    parts = render.document_parts("ledger segment", ok=True, head=str(head), sessions=attempts)
    write_all([(path, map(str.encode, parts))], force=False)
    return True


@command.command("export", examples=("sev-attest ledger export --output ledger.json",))
@bare_option("-o", "--output", "place", type=OUTPUT, metavar="FILE", help="Write it here.")
@bare_option("--force", is_flag=True, help="Write over a file that exists.")
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def export(*, place: str | None, force: bool, ledger: LedgerOptions, output: OutputOptions) -> None:
    """Print all sessions and events as one JSON document."""
    with _open(ledger) as opened:
        now = opened.now
        if place is None:
            opened.snapshot(
                lambda reader: render.document("ledger export", ok=True, **_everything(reader, now))
            )
            return
        head = opened.snapshot(partial(_write, place, now, force=force))
    if output.as_json:
        render.document("ledger export", ok=True, files=[place], head=str(head))
    elif output.text:
        told = f": {render.count(head.count, 'event')}" if output.verbose else ""
        click.echo(f"wrote {render.one_line(place)}{told}")


def _write(place: str, now: str, reader: Reader, *, force: bool) -> Head:
    from sev_attest.cli.outputs import write_all

    parts = render.document_parts("ledger export", ok=True, **_everything(reader, now))
    write_all([(place, map(str.encode, parts))], force=force)
    return reader.head()


def _everything(reader: Reader, now: str) -> dict[str, Any]:
    return {
        "head": str(reader.head()),
        "sessions": (_entry_facts(entry, now) for entry in reader.entries()),
        "events": map(_event_facts, reader.events()),
    }


@command.command(
    "verify",
    examples=(
        "sev-attest ledger verify",
        "sev-attest ledger verify --quiet > head",
    ),
)
@bare_option(
    "--head",
    type=_HeadType(),
    metavar="COUNT:HASH",
    help="What an earlier `ledger verify` printed: it must be part of this ledger.",
)
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def verify(*, head: Head | None, ledger: LedgerOptions, output: OutputOptions) -> None:
    """Check that nobody tampered with the ledger.

    Its log must be complete, and the sessions must match it. Keep the head that this prints on
    another machine: only --head detects that the whole ledger was replaced by an older copy.
    """
    from sev_attest.owner.ledger.audit import LedgerDamaged

    with _open(ledger, require_floor=False) as opened:
        place, floor = opened.place, opened.floor
        try:
            found = opened.verify(head)
            checkpoint = opened.snapshot(Reader.checkpoint)
        except LedgerDamaged as error:
            error.facts = {"findings": list(error.findings)}
            for finding in error.findings[1:]:
                error.add_note(finding)
            raise
    notes = []
    if head is None and not floor.count:
        notes.append("without --head, an older copy of the ledger would pass too")
    if checkpoint is not None:
        notes.append(
            f"up to event {checkpoint.head.count}, {checkpoint.removed} events were removed, of "
            f"sessions that ended before {checkpoint.before}: keep what was exported then"
        )
        if head and head.count <= checkpoint.head.count:
            notes.append(
                "the head was noted before that, and whoever owns the database can write such a "
                "checkpoint: it must be yours"
            )
    if output.as_json:
        render.document("ledger verify", ok=True, head=str(found), notes=notes)
    elif output.quiet:
        click.echo(found)  # the result: to be kept elsewhere
    else:
        terminal.say(f"OK: the ledger matches its {found.count} events; head {found}")
        if output.verbose:
            click.echo(f"ledger: {render.one_line(place)}")
        render.notes(notes)


def _open(options: LedgerOptions, *, create: bool = False, require_floor: bool = True) -> Ledger:
    """Open a ledger; raises LedgerError if there is none, unless ``create``, or if events are lost.

    ``require_floor`` looks for the event of --ledger-floor.
    """
    opened = options.require("--ledger none leaves nothing to show", create=create)
    if require_floor:
        try:
            opened.require_floor()
        except BaseException:
            opened.disconnect()
            raise
    return opened


def _place(options: LedgerOptions) -> str:
    """Return the name of a ledger in messages, whether or not there is one."""
    return render.one_line(store_at(options.ledger or default_path(), 0).place)


def _find(ledger: Ledger, text: str) -> LedgerEntry:
    """Return the session of this name, or with an id that begins so (8 digits or more).

    Raises WrongState if there is none, Unsupported if there are several.
    """
    found = ledger.find(text, most=_CANDIDATES + 1)
    if not found:
        raise ledger.unknown(text)
    if len(found) > 1:
        candidates = ", ".join(
            f"{e.session_id[:_ID_SHOWN]} ({e.state})" for e in found[:_CANDIDATES]
        )
        count = len(found) if len(found) <= _CANDIDATES else f"more than {_CANDIDATES}"
        raise usage(
            f"{count} sessions are called {text!r}: {candidates}",
            hint="give the id: at least 8 of its digits",
        )
    return found[0]


def _entry_facts(entry: LedgerEntry, now: str) -> "LedgerSession":
    row: tuple[Any, ...] = entry.to_row()
    _, name, _, created, changed, expires, measurement, note, _, refused = row
    report = entry.measurement if entry.technology is Technology.SNP else None
    return {
        "session_id": entry.session_id,
        "name": name,
        "state": entry.state_at(now).value,
        "explained": entry.explain(now),
        "created": created,
        "changed": changed,
        "expires": expires,
        "measurement": measurement,
        "note": note,
        "refused": refused,
        "technology": entry.technology.value,
        "report_sha384": report.hex() if report else None,
    }


def _keys(sealed: "SealedKeys | None") -> "KeptKeys":
    """Return where the keys of a session are, and the id of the KEK that they are sealed under."""
    from sev_attest.owner.key_errors import SealError
    from sev_attest.owner.pending import sealed_under

    if sealed is None:
        return {"keys": None, "kek": None}
    try:
        kek = sealed_under(sealed)
    except SealError:
        return {"keys": "sealed here, damaged", "kek": None}
    return {"keys": "gone" if kek is None else "sealed here", "kek": kek}


def _platform(entry: LedgerEntry, root: str | None) -> str:
    if entry.technology is Technology.SNP:
        return "verified with each report"
    if root == UNKNOWN_ROOT:
        return "nothing says whether it was verified"
    return "NOT VERIFIED" if root is None else f"verified, root {root}"


def _event_facts(event: Event) -> "LedgerEvent":
    seq, time, session_id, kind, detail, previous, digest = event.to_row()
    return {
        "seq": seq,
        "time": time,
        "session_id": session_id,
        "kind": kind,
        "detail": detail,
        "previous": previous,
        "hash": digest,
    }
