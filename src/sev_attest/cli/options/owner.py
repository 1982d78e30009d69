"""The owner's side of ``validate``: requirements, ledger, secrets, advisories."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.environment import REQUIREMENTS, origin
from sev_attest.cli.inputs import FILE, OUTPUT
from sev_attest.cli.options.common import LedgerOptions, committing, give_up
from sev_attest.cli.options.guest import Measured
from sev_attest.cli.options.keys import read_secrets, secret_errors
from sev_attest.cli.usage import usage
from sev_attest.errors import SevAttestError, Unsupported
from sev_attest.owner.unverified import unverified
from sev_attest.sev.launch import VerifiedLaunch

if TYPE_CHECKING:
    from pathlib import Path

    from sev_attest.cli.options.live import Live
    from sev_attest.owner.key_release import KeyRelease
    from sev_attest.owner.ledger import Ledger
    from sev_attest.owner.pending import PendingSession
    from sev_attest.owner.record import LaunchRecord
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.owner.secret_sources import SecretSource
    from sev_attest.sev.secret import SecretPacket

PACKET = ("secret_header", "secret_payload")


class DemandOptions(Options, title="Requirements and secrets"):
    """What the owner demands of a launch, and the secrets that it gets."""

    requirements: str | None = option(
        "--requirements",
        type=FILE,
        metavar="FILE",
        envvar=REQUIREMENTS,
        help="Also check the launch against this owner.toml.",
    )
    launch: str | None = option(
        "--launch",
        metavar="NAME",
        help="Which launch of --requirements the secrets are for, if it allows several.",
    )
    inject_secret: tuple[str, ...] = option(
        "-s",
        "--inject-secret",
        metavar="ALIAS-OR-GUID:PATH",
        multiple=True,
        help="Build the packet that carries this secret (alias: luks-key); can be repeated.",
    )
    secret_source: str | None = option(
        "--secret-source",
        metavar="SOURCE",
        help="Take the secrets from folder:PATH, vault:URL or command:PATH, for the launch that "
        "--requirements allow.",
    )

    @property
    def sends(self) -> bool:
        """Whether the launch gets secrets."""
        return bool(self.inject_secret) or self.secret_source is not None

    def demand_errors(self) -> Iterator[Unsupported]:
        """Yield an error for each of these options that needs or excludes another."""
        if self.requirements is None and self.launch is not None:
            yield usage("--launch needs --requirements")
        if self.secret_source is not None and self.requirements is None:
            yield usage("--secret-source needs --requirements: they name the launch")
        if self.secret_source is not None and self.inject_secret:
            yield usage("--secret-source excludes --inject-secret")
        if self.inject_secret:
            yield from secret_errors(self.inject_secret)

    def read_requirements(self) -> "Requirements | None":
        """Read --requirements; None without it."""
        if self.requirements is None:
            return None
        from sev_attest.cli.commands.requirements import read_requirements

        return read_requirements(self.requirements)

    def narrowed(
        self, requirements: "Requirements | None", *, described: bool
    ) -> "Requirements | None":
        """Return the requirements with only the launch that --launch names.

        ``described``: whether options describe the guest, which then decides between launches.
        """
        if requirements is None:
            return None
        return requirements.for_secrets(self.launch, described or not self.inject_secret)

    def secrets(self) -> "dict[str, bytes] | SecretSource":
        """Read the secrets of --inject-secret, or return the --secret-source, not asked yet."""
        if self.secret_source is None:
            return read_secrets(self.inject_secret)
        from sev_attest.owner.secret_sources import secret_source

        return secret_source(self.secret_source)


class OwnerOptions(DemandOptions, title="Requirements and secrets"):
    """The same, and where the packet of the secrets goes."""

    requirements_now: bool = option(
        "--requirements-now",
        is_flag=True,
        help="Accept other --requirements than --session was made under.",
    )
    secret_header: str | None = option(
        "--secret-header",
        type=OUTPUT,
        metavar="FILE",
        help="Write the packet's header here, base64.",
    )
    secret_payload: str | None = option(
        "--secret-payload", type=OUTPUT, metavar="FILE", help="Write its payload here, base64."
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")

    def errors(self, *, record: bool, waiting: bool, hosted: bool) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another.

        ``record``: whether the launch has one; ``waiting``: whether its session is in a store;
        ``hosted``: whether a host takes the packet.
        """
        if self.requirements_now and not waiting:
            yield usage("--requirements-now needs --session")
        yield from self.demand_errors()
        if self.requirements is not None and not record:
            demand = origin("requirements")
            yield usage(f"{demand} needs --record: it knows the platform of the session")
        files = self.stated(*PACKET)
        secret = "--inject-secret" if self.secret_source is None else "--secret-source"
        if self.sends and not hosted and len(files) < len(PACKET):
            yield usage(f"{secret} needs --secret-header and --secret-payload")
        elif len(files) == 1:
            yield usage("--secret-header and --secret-payload go together")
        elif files and not self.sends:
            yield usage(f"{files[0]} needs --inject-secret")

    def _places(self) -> "list[Path]":
        """Return where the packet's header and payload go."""
        from pathlib import Path

        return [Path(place) for place in (self.secret_header, self.secret_payload) if place]

    def check_packet(self) -> None:
        """Raise what :meth:`write` would; do nothing if no file takes the packet."""
        if self.stated(*PACKET):
            from sev_attest.cli.outputs import check_writable

            check_writable(self._places(), force=self.force)

    def write(self, packet: "SecretPacket") -> None:
        """Write the packet's two files, base64."""
        from base64 import b64encode

        from sev_attest.cli.outputs import write_all

        encoded = map(b64encode, (packet.header, packet.payload))
        write_all(zip(self._places(), encoded, strict=True), force=self.force)


NO_AREA = "the firmware image declares no area for secrets"


class Summary:
    """What to tell of a verified launch: notes, and the fields of a JSON document."""

    def __init__(self) -> None:
        """Start without notes.

        ``met`` is the launch of owner.toml that this one matches, ``secrets`` how many were sent.
        """
        self.notes: list[str] = []
        self.facts: dict[str, object] = {}
        self.met: Met | None = None
        self.secrets: int = 0


def finish_launch(
    launch: VerifiedLaunch,
    packet_files: OwnerOptions | None,
    *,
    record: "LaunchRecord | None",
    requirements: "Requirements | None",
    whole: "Requirements | None",
    pending: "PendingSession | None",
    secrets: "dict[str, bytes] | SecretSource",
    measured: Measured,
    guest: "Live | None",
    ledger: LedgerOptions,
    insecure: bool,
    verbose: bool,
) -> Summary:
    """Check a verified launch against requirements and ledger, and write the packet of its secrets.

    ``packet_files`` are the options that name files for the packet. A ``guest`` that is connected
    to is sent the packet instead, and runs then. ``pending`` is a session that waited in a store
    and is bound to the requirements that it was made under; ``whole`` are those of now, before
    --launch narrowed them.
    """
    from sev_attest.owner.key_release import KeyRelease

    summary, weaknesses = Summary(), []
    if record is not None and record.root is not None:
        summary.facts, lines = _exposures(launch, record, requirements, every=verbose)
        weaknesses = lines if verbose or not lines else [_counted(lines, launch, record)]
    opened = ledger.open()
    steps = KeyRelease(
        launch,
        secrets=secrets,
        secret_area_size=measured.secret_area_size,
        record=record,
        requirements=requirements,
        ledger=opened,
        adopt=record is None,
        insecure=insecure,
    )
    session = launch.keys.session_id
    try:
        with nullcontext() if opened is None else opened:
            if record is None:
                summary.notes += _platform_notes(session, opened, secret=bool(secrets))
            with steps:
                if pending is not None:
                    pending.require(whole)
                steps.check()
                steps.build()
                if guest and secrets and measured.lacks_secret_area:
                    raise Unsupported(NO_AREA, check="secret.area")
                if packet_files is not None:
                    packet_files.check_packet()
                packet = _commit(steps, session, sends=bool(secrets) and opened is not None)
            if packet is not None:
                _pass_on(packet, opened, session, packet_files, guest)
    except SevAttestError as error:
        error.facts |= summary.facts
        raise
    summary.met = steps.met
    summary.secrets = steps.secret_count
    if steps.reused is not None:
        summary.notes.append(f"INSECURE: {steps.reused}")
    if packet is not None:
        summary.notes += _secret_notes(launch, measured, recorded=opened is not None)
    summary.notes += weaknesses
    return summary


def _commit(steps: "KeyRelease", session: str, *, sends: bool) -> "SecretPacket | None":
    """Commit the release; who interrupts it learns that it may have been taken."""
    with committing(session, "the session may be released, without its packet", told=sends):
        return steps.commit()


def _platform_notes(session: str, ledger: "Ledger | None", *, secret: bool) -> list[str]:
    """Return what the ledger knows of the platform of a session without record."""
    notes: list[str] = []
    root: str | None = ""
    if ledger is not None:
        root = ledger.root(session)
        if ledger.get(session) is None:
            notes.append(f"this session is new to the ledger {ledger.place}")
        if root is None:
            notes.append(f"INSECURE: {unverified('ledger')}")
    if root == "" and secret:
        notes.append("INSECURE: without --record, nothing says whether the platform was verified")
    if root:
        from sev_attest.sev.chain._amd_keys import AMD_ROOTS

        if root not in AMD_ROOTS:
            notes.append(f"this session's platform has a root that is {root}")
    return notes


def _pass_on(
    packet: "SecretPacket",
    ledger: "Ledger | None",
    session: str,
    files: OwnerOptions | None,
    guest: "Live | None",
) -> None:
    """Write or send the packet; the ledger notes if it certainly did not leave."""
    try:
        if guest is not None:
            guest.release(packet)
        if files is not None:
            files.write(packet)
    except BaseException as error:
        if ledger is not None and (guest is None or guest.refused):
            give_up(ledger, session, _not_out(guest))
            error.add_note("the one release of this session is spent: make a new session")
        raise


def _not_out(guest: "Live | None") -> str:
    """Return why a packet did not leave, for the ledger: what a host says is its claim."""
    sent = guest is not None and guest.sending
    return "the host refused the packet" if sent else "the packet did not get out"


def _secret_notes(launch: VerifiedLaunch, measured: Measured, *, recorded: bool) -> list[str]:
    """Return what to tell of a packet; ``recorded``: whether a ledger has its release."""
    from sev_attest.sev.secret import binds

    notes = []
    if not binds(launch):
        notes.append("INSECURE: this firmware binds the secret to no launch; another could get it")
    if measured.lacks_secret_area:
        notes.append(f"{NO_AREA}: give the host an address")
    if not recorded:
        notes.append("INSECURE: no ledger keeps that this secret leaves only once")
    return notes


def _exposures(
    launch: VerifiedLaunch,
    record: "LaunchRecord",
    requirements: "Requirements | None",
    *,
    every: bool,
) -> tuple[dict[str, object], list[str]]:
    """Return the known weaknesses that affect this launch, as JSON fields and as lines.

    The fields name those that attestation cannot show too; with ``every``, they describe them and
    those that do not affect it. The lines leave out those that the requirements acknowledge.
    """
    from sev_attest.cli.commands.advisories import affected_lines, documents
    from sev_attest.owner.advisories import AdvisoryVerdict, evaluate

    exposures = evaluate(
        generation=record.generation,
        api=(launch.info.api_major, launch.info.api_minor),
        build=launch.info.build_id,
        policy=launch.policy,
    )
    known = requirements.acknowledged if requirements else frozenset()
    lines = affected_lines(e for e in exposures if e.advisory.id not in known)
    shown = [e for e in exposures if every or e.verdict is AdvisoryVerdict.AFFECTED]
    unseen = [e.advisory.id for e in exposures if e.verdict is AdvisoryVerdict.UNSEEN]
    return {"advisories": documents(shown), "unseen_advisories": unseen}, lines


def _counted(lines: list[str], launch: VerifiedLaunch, record: "LaunchRecord") -> str:
    """Return one line for all weaknesses, with the command that lists them."""
    known_as = f"--generation {record.generation} " if record.generation else ""
    numbers = f"--api {launch.info.api_major}.{launch.info.api_minor}"
    numbers += f" --build {launch.info.build_id} --policy {launch.policy}"
    command = f"`sev-attest advisories {known_as}{numbers}`"
    return f"{len(lines)} known weaknesses affect this launch: {command} lists them"
