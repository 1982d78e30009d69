"""``sev-attest domain``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.findings import document, errors_of, listed, refusal
from sev_attest.cli.inputs import FILE, STDIN, large_file, read_small, stdin_errors
from sev_attest.cli.options.common import LedgerOptions, OutputOptions
from sev_attest.cli.options.connect import connect
from sev_attest.cli.options.domain import PrepareOptions, SnpOptions, SurroundingsOptions
from sev_attest.cli.usage import refuse, usage
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.rule import Finding, Severity, Subject, Used
from sev_attest.domain_xml.rules import RULES, apply_rules, tally
from sev_attest.domain_xml.versions import Versions, read_version
from sev_attest.errors import NotAttestable, SevAttestError, reading

if TYPE_CHECKING:
    from sev_attest.cli.documents.domains import CapabilitiesFacts, PreparedFacts
    from sev_attest.domain_xml.capabilities import SevCapabilities
    from sev_attest.domain_xml.prepare import SessionFiles
    from sev_attest.owner.record import LaunchRecord

_VERSIONS = ("libvirt", "qemu", "host_kernel", "guest_kernel")


@click.group("domain", cls=Group, examples=("sev-attest domain check vm1.xml",))
def command() -> None:
    """Check and prepare libvirt's domain XML; read what a host offers."""


@command.command(
    "check",
    examples=(
        "sev-attest domain check vm1.xml",
        "sev-attest domain check vm1.xml --libvirt 10.0 --qemu 8.2 --guest-kernel 6.8",
    ),
)
@click.argument("xml", type=FILE)
@bare_option(
    "--session",
    type=FILE,
    metavar="NAME",
    help="Check that it fits the session of this name (NAME.launch.json; a folder may precede it).",
)
@SurroundingsOptions.given("known")
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def check(
    *,
    xml: str,
    session: str | None,
    known: SurroundingsOptions,
    ledger: LedgerOptions,
    output: OutputOptions,
) -> None:
    """List the problems that prevent attestation of XML (what `virsh dumpxml DOMAIN` prints).

    A finding is an error (E: it will not start, or cannot be attested), a warning (W) or a note
    (I); errors end with exit code 4. Versions that are not given are taken to be current. Nothing
    that the XML names is read.
    """
    refuse(stdin_errors(xml, known.firmware, known.capabilities))
    record = _record(session) if session is not None else None
    subject = _subject(xml, known, ledger, record=record, progress=output.text)
    findings = apply_rules(subject)
    failed = errors_of(findings)
    if output.text:
        if not failed:
            counted = f" ({tally(findings)})" if findings else ""
            terminal.say(f"OK: nothing in this domain prevents attestation{counted}")
        listed(findings)
        if output.verbose:
            _steps(findings)
    told = [document(finding) for finding in findings]
    if failed:
        can = any(finding.mendable for finding in failed)
        hint = "`sev-attest domain prepare` fixes what it can" if can else failed[0].fix
        raise refusal(xml, failed, {"findings": told}, hint)
    if output.as_json:
        render.document("domain check", ok=True, findings=told)


@command.command(
    "prepare", examples=("sev-attest domain prepare vm1.xml --session vm1 --output vm1-sev.xml",)
)
@click.argument("xml", type=FILE)
@PrepareOptions.given("options")
@SnpOptions.given("snp")
@SurroundingsOptions.given("known")
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def prepare_command(
    *,
    xml: str,
    options: PrepareOptions,
    snp: SnpOptions,
    known: SurroundingsOptions,
    ledger: LedgerOptions,
    output: OutputOptions,
) -> None:
    """Put a session into XML, fix what prevents attestation, and print the XML that results.

    An SEV-SNP guest has no session: policy, ID block and host data go into its XML, each if given.
    Nothing else changes: comments and layout stay. The diff goes to standard error, followed by
    what could not be fixed. If there are errors among that, the exit code is 4; the XML is written
    in that case too.
    """
    inputs = (xml, known.firmware, known.capabilities, snp.id_block, snp.id_auth, snp.host_data)
    refuse(stdin_errors(*inputs), options.errors(), snp.errors(session=options.session is not None))
    files = None if options.session is None else _session_files(options.session)
    launch = files or snp.read()
    record = None if files is None else files.record
    subject = _subject(xml, known, ledger, record=record, progress=output.text)
    if files is None:
        _require_snp(subject, snp)
    elif not options.insecure:
        files.require_unused(subject.used)
    from sev_attest.domain_xml.prepare import prepare

    prepared = prepare(subject, launch, also=options.also, everything=options.everything)
    place = options.output
    diff = [*prepared.diff(render.one_line(xml), render.one_line(place or "prepared"))]
    if place is not None:
        from sev_attest.cli.outputs import write_all

        write_all([(place, prepared.xml)], force=options.force)
    elif not output.as_json:
        render.raw(prepared.xml)
    notes = [] if files is None else _notes(files, subject)
    if output.text:
        render.diff(diff)
        if output.verbose:
            listed(prepared.mended, "fixed: ", err=True)
        listed(prepared.remaining, err=True)
        render.notes(notes)
    facts: PreparedFacts = {
        "output": place,
        "xml": prepared.xml.decode() if place is None else None,
        "diff": diff,
        "mended": [document(finding) for finding in prepared.mended],
        "findings": [document(finding) for finding in prepared.remaining],
        "notes": notes,
    }
    if prepared.errors:
        raise refusal(xml, prepared.errors, {**facts}, f"what is left: {prepared.errors[0].fix}")
    if output.as_json:
        render.document("domain prepare", ok=True, **facts)


@command.command("capabilities", examples=("sev-attest domain capabilities domcapabilities.xml",))
@click.argument("file", type=FILE)
@OutputOptions.given("output")
def capabilities(*, file: str, output: OutputOptions) -> None:
    """Show whether a host offers SEV, or why it may not.

    FILE is what `virsh domcapabilities` prints there.
    """
    from sev_attest.domain_xml.capabilities import SevCapabilities

    with reading(file):
        host = SevCapabilities.from_bytes(read_small(file, "domcapabilities XML"))
    obstacles = host.obstacles()
    facts: CapabilitiesFacts = {
        "sev": host.sev,
        "sev_es": host.es,
        "sev_snp": host.snp,
        "arch": host.arch,
        "cbitpos": host.cbitpos,
        "reduced_phys_bits": host.reduced_phys_bits,
        "max_guests": host.max_guests,
        "max_es_guests": host.max_es_guests,
        "types": list(host.types),
        "firmware": list(host.firmware),
        "loaders": list(host.loaders),
        "obstacles": obstacles,
        "notes": host.notes(),
    }
    if obstacles:
        error = NotAttestable(
            host.foreign or "this host does not offer SEV",
            check="domain.host",
            hint="" if host.foreign else "try these in turn",
        )
        error.source = file
        error.facts = {**facts}
        for obstacle in () if host.foreign else obstacles:
            error.add_note(obstacle)
        raise error
    if output.as_json:
        render.document("domain capabilities", ok=True, **facts)
    elif output.text:
        kinds = (("SEV", host.sev), ("SEV-ES", host.es), ("SEV-SNP", host.snp))
        *others, last = (name for name, there in kinds if there)
        offered = f"{', '.join(others)} and {last}" if others else last
        terminal.say(f"OK: this host offers {offered}")
        _show(host, verbose=output.verbose)
        render.notes(host.notes())


def _used(record: "LaunchRecord | None", ledger: LedgerOptions) -> Used | None:
    """Return a function that says whether the session of a record was used, as the ledger knows."""
    if record is None:
        return None
    try:
        opened = ledger.open(create=False)
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
    xml: str,
    known: SurroundingsOptions,
    ledger: LedgerOptions,
    *,
    record: "LaunchRecord | None",
    progress: bool,
) -> Subject:
    """Read the domain, and what is known of its host and guest."""
    firmware = host = None
    if known.firmware is not None:
        from sev_attest.guest.firmware import Firmware

        with reading(known.firmware), large_file(known.firmware, progress=progress) as file:
            firmware = Firmware.read(file)
            firmware.tables()  # a footer that lies is the file's fault, not the domain's
    if known.capabilities is not None:
        from sev_attest.domain_xml.capabilities import SevCapabilities

        with reading(known.capabilities):
            data = read_small(known.capabilities, "domcapabilities XML")
            host = SevCapabilities.from_bytes(data)
    with reading("standard input" if xml == STDIN else xml):
        domain = parse_domain(read_small(xml, "domain XML"))
        if record is not None:
            domain.refuse_snp()
    return Subject(
        domain=domain,
        versions=_versions(known),
        record=record,
        firmware=firmware,
        capabilities=host,
        used=_used(record, ledger),
    )


def _require_snp(subject: Subject, snp: SnpOptions) -> None:
    """Raise Unsupported unless XML without a session is an SEV-SNP guest's, or becomes it."""
    domain = subject.domain
    if domain.launch_security is not None and not snp.named:
        raise usage("--session is missing: this is a guest of SEV or SEV-ES")
    domain.refuse_sev()
    if domain.protection is None and not snp.named:
        raise usage("--session is missing; for SEV-SNP, --policy or --id-block")


def _versions(known: SurroundingsOptions) -> Versions:
    """Return the versions that are given, and those of the host if one is connected to."""
    given = {name: getattr(known, name) for name in _VERSIONS}
    read = {name: read_version(v) for name, v in given.items() if v is not None}
    if known.connect is None:
        return Versions(**read)
    # The rules prove nothing: it does not matter whether the host is this machine.
    host, _ = connect(known.connect, known.timeout, insecure=True)
    return host.versions()._replace(**read)


def _record(name: str) -> "LaunchRecord":
    from sev_attest.owner.record import LaunchRecord

    path = f"{name}.launch.json"
    with reading(path):
        return LaunchRecord.from_bytes(read_small(path, "launch record"))


def _session_files(name: str) -> "SessionFiles":
    from sev_attest.domain_xml.prepare import SessionFiles

    paths = [f"{name}{end}" for end in (".launch.json", "_godh.b64", "_session.b64")]
    record, godh, blob = (read_small(path, "file of the session") for path in paths)
    with reading(name):
        return SessionFiles.from_files(record, godh, blob)


def _steps(findings: Sequence[Finding]) -> None:
    """Print each rule, with the worst that it found (--verbose)."""
    worst: dict[str, str] = {}
    for finding in sorted(findings, key=lambda finding: [*Severity].index(finding.severity)):
        worst.setdefault(finding.id, finding.severity.value)
    for rule in RULES.values():
        click.echo(f"{worst.get(rule.id, 'ok'):<4}{rule.id:<42}{rule.says}")


def _notes(files: "SessionFiles", subject: Subject) -> list[str]:
    """Return notes on a session that was used, or whose platform nobody verified."""
    used = subject.used and subject.used(files.record.session_sha256)
    notes = [f"INSECURE: the session was used already: {used}"] if used else []
    if files.record.root is None:
        from sev_attest.owner.unverified import unverified

        notes.append(f"INSECURE: {unverified('record')}")
    return notes


def _show(host: "SevCapabilities", *, verbose: bool) -> None:
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
