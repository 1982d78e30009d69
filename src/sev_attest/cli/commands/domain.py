"""``sev-attest domain``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sev_attest.cli import render
from sev_attest.cli.inputs import (
    FILE,
    OUTPUT,
    STDIN,
    large_file,
    ledger_option,
    one_stdin,
    open_ledger,
    options,
    output_options,
    read_small,
)
from sev_attest.cli.outputs import write_all
from sev_attest.domain_xml.capabilities import SevCapabilities
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.prepare import SessionFiles, prepare
from sev_attest.domain_xml.rule import Finding, Severity, Subject, Used
from sev_attest.domain_xml.rules import RULES, apply_rules, tally
from sev_attest.domain_xml.versions import Versions, read_version
from sev_attest.errors import NotAttestable, SevAttestError, Unsupported, reading
from sev_attest.guest.firmware import Firmware
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.unverified import unverified

_NAMED = 4
"""How many rules an error message names."""

_facts = options(
    click.option("--libvirt", metavar="V", help="The host's libvirt (9.0, 11.3.0)."),
    click.option("--qemu", metavar="V", help="The host's QEMU."),
    click.option("--guest-kernel", metavar="V", help="The kernel in the guest."),
    click.option(
        "--firmware", type=FILE, metavar="FILE", help="Your own copy of the guest's firmware."
    ),
    click.option(
        "--capabilities", type=FILE, metavar="FILE", help="What `virsh domcapabilities` prints."
    ),
)


@click.group("domain", no_args_is_help=False)
def command() -> None:
    """Check and prepare libvirt's domain XML; read what a host offers."""


@command.command("check")
@click.argument("xml", type=FILE)
@click.option(
    "--session",
    type=FILE,
    metavar="NAME",
    help="Hold it to the session of this name (NAME.launch.json; may begin with a folder).",
)
@_facts
@ledger_option
@output_options
def check(
    *, xml: str, session: str | None, as_json: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Tell what stands against attestation in XML (what `virsh dumpxml DOMAIN` prints).

    A finding is an error (E: it will not start, or cannot be attested), a warning (W) or a note
    (I); errors end with exit code 4. Versions that are not given are taken to be current. Nothing
    that the XML names is read.
    """
    one_stdin((xml, given["firmware"], given["capabilities"]))
    record = _record(session) if session is not None else None
    subject = _subject(xml, given, record=record, progress=not (as_json or quiet))
    findings = apply_rules(subject)
    failed = _errors(findings)
    if not quiet and not as_json:
        if not failed:
            counted = f" ({tally(findings)})" if findings else ""
            click.echo(f"OK: nothing in this domain stands against attestation{counted}")
        _list(findings)
        if verbose:
            _steps(findings)
    facts: dict[str, object] = {"findings": [_document(finding) for finding in findings]}
    if failed:
        can = any(finding.mendable for finding in failed)
        hint = "`sev-attest domain prepare` mends what it can" if can else failed[0].fix
        raise _refusal(xml, failed, facts, hint)
    if as_json:
        render.document("domain check", ok=True, **facts)


@command.command("prepare")
@click.argument("xml", type=FILE)
@click.option(
    "--session",
    type=FILE,
    metavar="NAME",
    required=True,
    help="The session to put in, by the NAME that `session` was given (a folder may precede it).",
)
@click.option("-o", "--output", type=OUTPUT, metavar="FILE", help="Write to a file instead.")
@click.option(
    "--also", multiple=True, metavar="RULE", help="Also mend what this rule finds (repeatable)."
)
@click.option("--all", "everything", is_flag=True, help="Mend all that can be mended.")
@click.option("--insecure", is_flag=True, help="Take a session that was used already.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@_facts
@ledger_option
@output_options
def prepare_command(
    *,
    xml: str,
    session: str,
    output: str | None,
    also: tuple[str, ...],
    everything: bool,
    insecure: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Put a session into XML and mend what attestation needs; print the XML that results.

    Only what is mended changes: comments and layout stay. The diff goes to standard error, and
    what could not be mended after it (errors among that end with exit code 4; the XML is written
    nevertheless).
    """
    one_stdin((xml, given["firmware"], given["capabilities"]))
    unknown = [rule for rule in also if rule not in RULES or not RULES[rule].mends]
    if unknown:
        mendable = ", ".join(rule.id for rule in RULES.values() if rule.mends)
        raise Unsupported(
            f"--also {unknown[0]}: no rule of that name mends anything",
            check="usage",
            hint=f"these do: {mendable}",
        )
    files = _session_files(session)
    subject = _subject(xml, given, record=files.record, progress=not (as_json or quiet))
    if not insecure:
        files.require_unused(subject.used)
    prepared = prepare(subject, files, also=also, everything=everything)
    names = render.one_line(xml), render.one_line(output or "prepared")
    diff = [*prepared.diff(*names)]
    if output is not None:
        write_all([(Path(output), prepared.xml)], force=force)
    elif not as_json:
        render.raw(prepared.xml)
    if not (quiet or as_json):
        render.raw("".join(f"{line}\n" for line in diff).encode(), err=True)
        if verbose:
            _list(prepared.mended, "mended: ", err=True)
        _list(prepared.remaining, err=True)
        render.notes(_notes(files, subject), err=True)
    facts: dict[str, object] = {
        "output": output,
        "xml": prepared.xml.decode() if output is None else None,
        "diff": diff,
        "mended": [_document(finding) for finding in prepared.mended],
        "findings": [_document(finding) for finding in prepared.remaining],
        "notes": _notes(files, subject),
    }
    if prepared.errors:
        raise _refusal(xml, prepared.errors, facts, f"what is left: {prepared.errors[0].fix}")
    if as_json:
        render.document("domain prepare", ok=True, **facts)


@command.command("capabilities")
@click.argument("file", type=FILE)
@output_options
def capabilities(*, file: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Tell whether a host offers SEV, or why it may not.

    FILE is what `virsh domcapabilities` prints there.
    """
    with reading(file):
        host = SevCapabilities.from_bytes(read_small(file, "domcapabilities XML"))
    obstacles = host.obstacles()
    facts: dict[str, object] = {
        "sev": host.sev,
        "sev_es": host.es,
        "arch": host.arch,
        "cbitpos": host.cbitpos,
        "reduced_phys_bits": host.reduced_phys_bits,
        "max_guests": host.max_guests,
        "max_es_guests": host.max_es_guests,
        "types": list(host.types),
        "firmware": list(host.firmware),
        "loaders": list(host.loaders),
        "obstacles": obstacles,
        "notes": host.limits(),
    }
    if obstacles:
        error = NotAttestable(
            host.foreign or "this host does not offer SEV",
            check="domain.host",
            hint="" if host.foreign else "try these in turn",
        )
        error.source = file
        error.facts = facts
        for obstacle in () if host.foreign else obstacles:
            error.add_note(obstacle)
        raise error
    if as_json:
        render.document("domain capabilities", ok=True, **facts)
    elif not quiet:
        offered = [name for name, there in (("SEV", host.sev), ("SEV-ES", host.es)) if there]
        click.echo(f"OK: this host offers {' and '.join(offered)}")
        _show(host, verbose=verbose)
        render.notes(host.limits())


def _used(record: LaunchRecord | None, ledger: str | None) -> Used | None:
    """Tell of the session of a record whether the ledger knows that it was used already."""
    if record is None:
        return None
    try:
        opened = open_ledger(ledger, create=False)
    except SevAttestError as error:
        if error.check != "ledger.missing":
            raise
        return None
    if opened is None:
        return None
    with opened:
        entry, now = opened.get(record.session_id), opened.now
    if entry is None or entry.fresh(now):
        return None
    said = entry.explain(now)
    return lambda digest: said if digest == record.session_sha256 else None


def _subject(
    xml: str, given: dict[str, Any], *, record: LaunchRecord | None, progress: bool
) -> Subject:
    """Read the domain, and what is to be known beside it."""
    versions = Versions(
        **{
            name: None if given[name] is None else read_version(given[name])
            for name in ("libvirt", "qemu", "guest_kernel")
        }
    )
    firmware = host = None
    if given["firmware"] is not None:
        with reading(given["firmware"]), large_file(given["firmware"], progress=progress) as file:
            firmware = Firmware.read(file)
            firmware.tables()  # a footer that lies is the file's fault, not the domain's
    if given["capabilities"] is not None:
        with reading(given["capabilities"]):
            host = SevCapabilities.from_bytes(
                read_small(given["capabilities"], "domcapabilities XML")
            )
    with reading("standard input" if xml == STDIN else xml):
        domain = parse_domain(read_small(xml, "domain XML"))
    return Subject(
        domain=domain,
        versions=versions,
        record=record,
        firmware=firmware,
        capabilities=host,
        used=_used(record, given["ledger"]),
    )


def _record(name: str) -> LaunchRecord:
    path = f"{name}.launch.json"
    with reading(path):
        return LaunchRecord.from_bytes(read_small(path, "launch record"))


def _session_files(name: str) -> SessionFiles:
    paths = [f"{name}{end}" for end in (".launch.json", "_godh.b64", "_session.b64")]
    record, godh, blob = (read_small(path, "file of the session") for path in paths)
    with reading(name):
        return SessionFiles.from_files(record, godh, blob)


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def _refusal(
    xml: str, errors: Sequence[Finding], facts: dict[str, object], hint: str
) -> NotAttestable:
    """Make the error that names what stands against attestation."""
    every = [*dict.fromkeys(f"{finding.id} (line {finding.line})" for finding in errors)]
    named = every[:_NAMED]
    more = [f"{len(every) - _NAMED} more"] if every[_NAMED:] else []
    error = NotAttestable(
        f"this domain cannot be attested: {', '.join([*named, *more])}",
        check=errors[0].id,
        hint=hint,
    )
    error.source = "standard input" if xml == STDIN else xml
    error.facts = facts
    return error


def _document(finding: Finding) -> dict[str, object]:
    return {
        "id": finding.id,
        "severity": finding.severity.value,
        "line": finding.line,
        "path": finding.path,
        "message": finding.message,
        "fix": finding.fix,
        "source": finding.source,
        "mendable": finding.mendable,
    }


def _list(findings: Sequence[Finding], head: str = "", *, err: bool = False) -> None:
    for one in findings:
        line = f"{head}{one.severity} {one.id}, line {one.line}, {one.path}: {one.message}"
        click.echo(render.one_line(line), err=err)
        if not head:
            click.echo(f"    fix: {render.one_line(one.fix)}", err=err)


def _steps(findings: Sequence[Finding]) -> None:
    """Print each rule, with the worst that it found (--verbose)."""
    worst: dict[str, str] = {}
    for finding in sorted(findings, key=lambda finding: [*Severity].index(finding.severity)):
        worst.setdefault(finding.id, finding.severity.value)
    for rule in RULES.values():
        click.echo(f"{worst.get(rule.id, 'ok'):<4}{rule.id:<42}{rule.says}")


def _notes(files: SessionFiles, subject: Subject) -> list[str]:
    """Say what speaks against the session itself."""
    used = subject.used and subject.used(files.record.session_sha256)
    notes = [f"INSECURE: the session was used already: {used}"] if used else []
    if files.record.root is None:
        notes.append(f"INSECURE: {unverified('record')}")
    return notes


def _show(host: SevCapabilities, *, verbose: bool) -> None:
    def told(value: object) -> str:
        return "not told" if value in (None, "", ()) else render.one_line(str(value))

    rows = {
        "guests": f"up to {told(host.max_guests)}, {told(host.max_es_guests)} of SEV-ES",
        "cbitpos": told(host.cbitpos),
        "reducedPhysBits": told(host.reduced_phys_bits),
    }
    if verbose:
        rows |= {
            "domain type": told(host.domain_type),
            "machine": told(host.machine),
            "launchSecurity types": told(", ".join(host.types)),
            "firmware": told(", ".join(host.firmware)),
            "loader types": told(", ".join(host.loaders)),
        }
    for name, value in rows.items():
        click.echo(f"  {name:<22}{value}")
