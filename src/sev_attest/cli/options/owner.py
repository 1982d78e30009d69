"""The owner's side of ``validate``: requirements, ledger, secrets, advisories."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from sev_attest.cli.inputs import FILE, OUTPUT, give_up, ledger_option, open_ledger, options
from sev_attest.cli.options.guest import Measured, describes_guest
from sev_attest.errors import SevAttestError, Unsupported
from sev_attest.owner.unverified import unverified
from sev_attest.sev.launch import VerifiedLaunch

if TYPE_CHECKING:
    from sev_attest.cli.options.live import Live
    from sev_attest.owner.ledger import Ledger
    from sev_attest.owner.record import LaunchRecord
    from sev_attest.owner.requirements import Met, Requirements
    from sev_attest.sev.secret import SecretPacket

owner_options = options(
    click.option(
        "--requirements",
        type=FILE,
        metavar="FILE",
        help="Hold the launch to this owner.toml too; needs --record.",
    ),
    click.option(
        "--launch",
        metavar="NAME",
        help="Which launch of --requirements the secrets are for, if it allows several.",
    ),
    ledger_option,
    click.option(
        "-s",
        "--inject-secret",
        metavar="ALIAS-OR-GUID:PATH",
        multiple=True,
        help="Build the packet that carries this secret (alias: luks-key); can be repeated.",
    ),
    click.option(
        "--secret-header",
        type=OUTPUT,
        metavar="FILE",
        help="Write the packet's header here, base64.",
    ),
    click.option(
        "--secret-payload", type=OUTPUT, metavar="FILE", help="Write its payload here, base64."
    ),
    click.option("--force", is_flag=True, help="Write over files that exist."),
)
PACKET = ("secret_header", "secret_payload")


@dataclass(slots=True)
class Settled:
    """What came of a verified launch: for the reader, and for a JSON document."""

    notes: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    met: "Met | None" = None


def read_requirements(given: dict[str, Any]) -> "Requirements | None":
    """Read ``--requirements``, narrowed to the launch of ``--launch``; they need ``--record``."""
    if given["requirements"] is None:
        if given["launch"] is not None:
            raise Unsupported("--launch needs --requirements", check="usage")
        return None
    if given["record"] is None:
        raise Unsupported(
            "--requirements needs --record: it knows the platform of the session", check="usage"
        )
    from sev_attest.cli.commands.requirements import read_requirements as read

    named = describes_guest(given) or not given["inject_secret"]
    return read(given["requirements"]).for_secrets(given["launch"], named)


def settle_launch(
    launch: VerifiedLaunch,
    *,
    record: "LaunchRecord | None",
    requirements: "Requirements | None",
    secrets: dict[str, bytes],
    measured: Measured,
    given: dict[str, Any],
    guest: "Live | None",
) -> Settled:
    """Hold a verified launch to requirements and ledger, and write the packet of its secrets.

    A guest that is connected to is given the packet instead, and runs then.
    """
    from sev_attest.owner.key_release import KeyRelease

    settled, weaknesses = Settled(), []
    if record is not None and record.root is not None:
        weaknesses = _tell_advisories(launch, record, requirements, settled, given)
    area = measured.guest and measured.guest.firmware.secret_area()
    area_size = area[1] if area and all(area) else None
    ledger = open_ledger(given["ledger"])
    steps = KeyRelease(
        launch,
        secrets=secrets,
        secret_area_size=area_size,
        record=record,
        requirements=requirements,
        ledger=ledger,
        insecure=given["insecure"],
    )
    try:
        with nullcontext() if ledger is None else ledger:
            if record is None:
                settled.notes += _platform_notes(launch.keys.session_id, ledger, given)
            with steps:
                steps.check()
                steps.build()
                if guest and secrets and measured.guest and area_size is None:
                    raise Unsupported(
                        "the firmware image declares no area for secrets", check="secret.area"
                    )
                _check_places(given)
                packet = steps.commit()
            if packet is not None:
                _pass_on(packet, ledger, launch.keys.session_id, given, guest)
    except SevAttestError as error:
        error.facts |= settled.facts
        raise
    settled.met = steps.met
    if steps.reused is not None:
        settled.notes.append(f"INSECURE: {steps.reused}")
    if packet is not None:
        settled.notes += _secret_notes(launch, measured, area_size)
        if ledger is None:
            settled.notes.append("INSECURE: no ledger keeps that this secret leaves only once")
    settled.notes += weaknesses
    return settled


def _platform_notes(session: str, ledger: "Ledger | None", given: dict[str, Any]) -> list[str]:
    """Say what the ledger knows of a session's platform, where no record tells."""
    from sev_attest.sev.chain._amd_keys import AMD_ROOTS

    notes: list[str] = []
    root: str | None = ""
    if ledger is not None:
        root = ledger.root(session)
        if ledger.get(session) is None:
            notes.append(f"this session is new to the ledger {ledger.place}")
        if root is None:
            notes.append(f"INSECURE: {unverified('ledger')}")
    if root == "" and given["inject_secret"]:
        notes.append("INSECURE: without --record, nothing tells whether the platform was verified")
    if root and root not in AMD_ROOTS:
        notes.append(f"this session's platform has a root that is {root}")
    return notes


def _check_places(given: dict[str, Any]) -> None:
    names = [given[name] for name in PACKET if given[name] is not None]
    if names:
        from pathlib import Path

        from sev_attest.cli.outputs import check_folders, check_places

        places = [Path(name) for name in names]
        check_places(places, force=given["force"])
        check_folders(places)


def _pass_on(
    packet: "SecretPacket",
    ledger: "Ledger | None",
    session: str,
    given: dict[str, Any],
    guest: "Live | None",
) -> None:
    """Let the packet out; the ledger notes it if it certainly did not get out."""
    try:
        if guest is not None:
            guest.release(packet)
        else:
            from base64 import b64encode
            from pathlib import Path

            from sev_attest.cli.outputs import write_all

            encoded = map(b64encode, (packet.header, packet.payload))
            places = [Path(given[name]) for name in PACKET]
            write_all(zip(places, encoded, strict=True), force=given["force"])
    except BaseException as error:
        if ledger is not None and (guest is None or guest.refused):
            give_up(ledger, session, "the packet did not get out")
            error.add_note("the one release of this session is spent: make a new session")
        raise


def _secret_notes(launch: VerifiedLaunch, measured: Measured, area_size: int | None) -> list[str]:
    from sev_attest.sev.secret import binds

    notes = []
    if not binds(launch):
        notes.append("INSECURE: this firmware binds the secret to no launch; another could get it")
    if measured.guest and area_size is None:
        notes.append("the firmware image declares no area for secrets: give the host an address")
    return notes


def _tell_advisories(
    launch: VerifiedLaunch,
    record: "LaunchRecord",
    requirements: "Requirements | None",
    settled: Settled,
    given: dict[str, Any],
) -> list[str]:
    """Name the known weaknesses that touch this launch; those acknowledged stay out of the text."""
    from sev_attest.cli.commands.advisories import affected_lines, documents
    from sev_attest.owner.advisories import evaluate

    exposures = evaluate(
        generation=record.generation,
        api=(launch.info.api_major, launch.info.api_minor),
        build=launch.info.build_id,
        policy=launch.policy,
    )
    settled.facts["advisories"] = documents(exposures)
    known = requirements.acknowledged if requirements else frozenset()
    lines = affected_lines(e for e in exposures if e.advisory.id not in known)
    if given["verbose"] or given["debug"] or not lines:
        return lines
    known_as = f"--generation {record.generation} " if record.generation else ""
    numbers = f"--api {launch.info.api_major}.{launch.info.api_minor}"
    numbers += f" --build {launch.info.build_id} --policy {launch.policy}"
    command = f"`sev-attest advisories {known_as}{numbers}`"
    return [f"{len(lines)} known weaknesses touch this launch: {command} lists them"]
