"""What a launch is to be: all that is known before anything changes, on the host or elsewhere."""

import base64
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.attempt import Steps
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.findings import document, listed, refusal
from sev_attest.cli.inputs import read_small
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.guest import GuestOptions, Measured, measure_guest
from sev_attest.cli.options.keys import find_secrets
from sev_attest.cli.options.launch import LaunchOptions, TargetOptions
from sev_attest.cli.options.owner import NO_AREA, DemandOptions
from sev_attest.cli.sessions import chain_of, make_session
from sev_attest.cli.usage import refuse
from sev_attest.cli.verdict import VerdictOptions
from sev_attest.domain_xml.domain import Domain, parse_domain
from sev_attest.domain_xml.prepare import Prepared, SessionFiles, prepare
from sev_attest.domain_xml.rule import Subject
from sev_attest.domain_xml.versions import Versions, dotted, read_version
from sev_attest.errors import ChainInvalid, MalformedInput, Unsupported, reading
from sev_attest.guest.firmware import Firmware
from sev_attest.host.connection import HostError
from sev_attest.host.launch import OneLaunch
from sev_attest.owner.record import LaunchRecord
from sev_attest.sev.chain.verify import CHECKS
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.session import Session

if TYPE_CHECKING:
    from sev_attest.host import HostConnection
    from sev_attest.owner.requirements import Requirements

_PASSWORD = re.compile(b"""(?<=\\bpasswd)(\\s*=\\s*)("[^"<]*"|'[^'<]*')""")
"""A password of <graphics>: the definition of a domain on the host has it. No value has a "<"."""
_MASK = "\0"
"""What stands for a byte of a password: no XML has it."""
_SHOWN = 120
"""Characters of a line in a diff; the session's blobs are longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the owner wants, read before the host is asked anything.

    ``whole`` are the requirements, ``requirements`` those of the launch that --launch names.
    ``measured`` is None if the requirements alone say which guests are allowed, ``xml`` if the
    host has the domain.
    """

    policy: GuestPolicy
    whole: "Requirements | None"
    requirements: "Requirements | None"
    measured: Measured | None
    xml: Domain | None

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The launch digests that are accepted."""
        if self.measured is not None:
            return (self.measured.digest,)
        return () if self.requirements is None else tuple(self.requirements.digests)

    @property
    def firmware(self) -> Firmware | None:
        """The owner's firmware, if it is known."""
        return self.measured.guest.firmware if self.measured and self.measured.guest else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be launched: all that is known before anything changes."""

    session: Session
    record: LaunchRecord
    prepared: Prepared
    launch: OneLaunch
    name: str
    """The domain's name."""
    notes: list[str]

    @property
    def diff(self) -> list[str]:
        """The lines of the diff from the domain's XML to what is defined, without passwords."""
        whole = self.prepared
        # Before there are lines: a value may go over several. The offsets of the diff must stay.
        masked = replace(whole, source=_masked(whole.source), xml=_masked(whole.xml))
        return [re.sub(f"{_MASK}+", "...", line) for line in masked.diff(self.name, "prepared")]


def _masked(xml: bytes) -> bytes:
    """Return XML of the same length whose passwords are masked."""

    def mask(found: re.Match[bytes]) -> bytes:
        value = found[2]
        return found[1] + value[:1] + _MASK.encode() * (len(value) - 2) + value[-1:]

    return _PASSWORD.sub(mask, xml)


def read_wanted(
    target: TargetOptions,
    options: LaunchOptions,
    guest: GuestOptions,
    owner: DemandOptions,
    *,
    progress: bool,
) -> Wanted:
    """Read the owner's XML and requirements, and measure his files; no secret is read yet."""
    policy = GuestPolicy(options.policy)
    policy.require_unreserved()
    whole = owner.read_requirements()
    requirements = owner.narrowed(whole, described=guest.described)
    measured = None
    if guest.described:
        if guest.launch_digest is None:
            refuse(guest.vcpu_errors(policy))
        measured = measure_guest(guest, guest.num_cpus, policy, progress=progress)
        if owner.sends and measured.lacks_secret_area:
            raise Unsupported(NO_AREA, check="secret.area")
    find_secrets(owner.inject_secret)
    xml = None
    if target.xml is not None:
        with reading(target.xml):
            xml = parse_domain(read_small(target.xml, "domain XML"))
            xml.refuse_snp()
    return Wanted(policy=policy, whole=whole, requirements=requirements, measured=measured, xml=xml)


def session_for(
    host: "HostConnection",
    certificates: ChainOptions,
    policy: GuestPolicy,
    *,
    target: TargetOptions,
    steps: Steps,
    output: VerdictOptions,
    kept: Kept,
) -> Session:
    """Verify the host's chain, and make a session for its platform."""
    fetched = chain_of(host, str(target.connect)) if certificates.sev is None else {}
    try:
        session = make_session(
            (), fetched, certificates, policy, insecure=target.insecure, kept=kept
        )
    except ChainInvalid as error:
        if output.steps and output.text:
            render.steps(CHECKS, error.held, {f.check for f in error.failures}, err=True)
        raise
    platform = session.platform
    words = "the platform is not verified"
    if platform is not None:
        kept.chain, kept.root = platform.chain, platform.root
        words = f"the chain leads to a trusted root: {platform.root.name}"
    steps.took("verify", words)
    return session


def plan_launch(
    host: "HostConnection",
    session: Session,
    *,
    target: TargetOptions,
    options: LaunchOptions,
    wanted: Wanted,
    steps: Steps,
) -> Plan:
    """Put the session into the domain's XML, and compare it with what the host has.

    Raises NotAttestable for XML that cannot be attested, WrongState for a domain that runs or
    differs.
    """
    versions = _versions(host, options, steps)
    source = target.xml or f"domain {target.domain}"
    domain = wanted.xml or _domain_of(host, str(target.domain), source)
    name = _name_of(domain, source)
    _require_same_boot(domain, wanted.measured)
    record = LaunchRecord.of(
        session, options.name or name, datetime.now(UTC), kernel_hashes=domain.kernel is not None
    )
    files = SessionFiles(record=record, godh=session.godh.to_bytes(), blob=session.blob)
    subject = Subject(domain=domain, versions=versions, record=record, firmware=wanted.firmware)
    prepared = prepare(subject, files, fix=not options.no_prepare)
    notes = []
    if prepared.errors and not options.ignore_config:
        facts: dict[str, object] = {"findings": [document(each) for each in prepared.remaining]}
        raise refusal(source, prepared.errors, facts, prepared.errors[0].fix)
    if prepared.errors:
        ids = ", ".join(dict.fromkeys(each.id for each in prepared.errors))
        notes.append(f"errors in the XML are ignored: {ids}")
    blob = base64.b64encode(session.blob).decode()
    launch = OneLaunch(host, name=name, xml=prepared.xml, session=blob)
    launch.check()
    there = "the host has it already" if launch.exists else "the host has none of this name"
    steps.took("prepare", f"domain {name}, changes: {len(prepared.mended)}; {there}")
    return Plan(
        session=session, record=record, prepared=prepared, launch=launch, name=name, notes=notes
    )


def _versions(host: "HostConnection", options: LaunchOptions, steps: Steps) -> Versions:
    """Return the versions of the host, as it says, and of the guest's kernel, as its owner does."""
    asked = host.versions()
    told = {"libvirt": asked.libvirt, "QEMU": asked.qemu}
    steps.took("host", ", ".join(f"{name} {dotted(v)}" for name, v in told.items() if v))
    kernel = None if options.guest_kernel is None else read_version(options.guest_kernel)
    return Versions(libvirt=asked.libvirt, qemu=asked.qemu, guest_kernel=kernel)


def _domain_of(host: "HostConnection", name: str, source: str) -> Domain:
    """Return a domain that the host has defined; ``source`` names it in errors."""
    found = host.find(name)
    if found is None:
        raise HostError(
            f"there is no domain {name} on the host",
            check="host.domain",
            hint="`virsh list --all` lists the domains; --xml has one defined",
        )
    with reading(source):
        domain = parse_domain(found.xml().encode("utf-8", "surrogatepass"))
        domain.refuse_snp()
        if _name_of(domain, source) != name:  # it would be looked for, and defined, by this name
            raise MalformedInput("domain XML", "name", "is that of another domain")
    return domain


def _name_of(domain: Domain, source: str) -> str:
    """Return the domain's name; raises MalformedInput if there is none."""
    element = domain.root.find("name")
    name = "" if element is None else element.text
    if not name.strip():
        with reading(source):
            raise MalformedInput("domain XML", "name", "there is no <name>")
    return name


def _require_same_boot(domain: Domain, measured: Measured | None) -> None:
    """Raise Unsupported if the owner's files have a kernel and the XML has none, or reversed."""
    if measured is None or measured.guest is None:
        return
    stated, booted = measured.guest.kernel is not None, domain.kernel is not None
    if stated != booted:
        raise Unsupported(
            "the domain boots a kernel, and none is given: --kernel"
            if booted
            else "a kernel is given, and the domain boots none",
            check="domain.kernel",
        )


def show_plan(plan: Plan, *, err: bool) -> None:
    """Print the diff of the domain's XML, its long lines cut, and what is left to say of it."""
    lines = (line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..." for line in plan.diff)
    render.raw("".join(f"{line}\n" for line in lines).encode(), err=err)
    listed(plan.prepared.remaining, err=err)


def tell_dry(
    plan: Plan, wanted: Wanted, steps: Steps, output: OutputOptions, *, sends: bool
) -> None:
    """Print what a launch would do; ``sends`` is whether it would release secrets."""
    digests = [digest.hex() for digest in wanted.digests]
    notes = [*plan.notes, *render.policy_notes(wanted.policy)]
    would = [
        f"create session {plan.record.name} in the ledger",
        f"put the session into domain {plan.name}" if plan.launch.exists else f"define {plan.name}",
        "start it, paused",
        f"expect the launch digest {' or '.join(digests)}",
        "release the secrets" if sends else "release no secret",
        "let it run",
    ]
    if output.as_json:
        render.document(
            "launch",
            ok=True,
            dry_run=True,
            domain=plan.name,
            would=would,
            digests=digests,
            diff=plan.diff,
            findings=[document(finding) for finding in plan.prepared.remaining],
            notes=notes,
            steps=steps.taken,
        )
    elif output.text:
        name = render.one_line(plan.name)
        terminal.say(f"OK: {name} can be launched: nothing was changed")
        for step in would:
            click.echo(f"would {render.one_line(step)}")
        show_plan(plan, err=False)
        render.notes(notes)
