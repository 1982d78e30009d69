"""``sev-attest host``: for the administrator of an SEV host."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.commands.host_check import command as check
from sev_attest.cli.commands.host_export import command as export
from sev_attest.cli.inputs import FILE, OUTPUT, read_small, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.device import ConfirmOptions, DeviceOptions
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.usage import refuse
from sev_attest.errors import MalformedInput, SevAttestError, reading

if TYPE_CHECKING:
    from sev_attest.cli.documents.hosts import Status
    from sev_attest.host.device import Device, PlatformStatus
    from sev_attest.sev.chain.certificate import Certificate
    from sev_attest.sev.spec import Usage

_SESSIONS = "sessions that guest owners made for this platform cannot start a guest any more"
_OWNER = "an external owner's OCA, if there is one, is forgotten"
_STATES = {"UNINIT": "not initialised", "INIT": "initialised, no guest", "WORKING": "with guests"}


@click.group("host", cls=Group, examples=("sev-attest host check",))
def command() -> None:
    """Check that a host is ready for SEV, and manage its platform's certificates."""


command.add_command(check)
command.add_command(export)


@command.command("status", examples=("sev-attest host status",))
@DeviceOptions.given("device")
@OutputOptions.given("output")
def status(*, device: DeviceOptions, output: OutputOptions) -> None:
    """Show the platform's firmware, state and owner.

    Also the number of guests, and with --verbose the chip's id. It is the host's own word.
    """
    with device.open() as firmware:
        found = firmware.platform_status()
        chip = _chip(firmware) if output.as_json or output.verbose else None
    if output.as_json:
        render.document(
            "host status", ok=True, **_facts(found), platform_id=chip.hex() if chip else None
        )
        return
    click.echo(f"API: {found.api_major}.{found.api_minor}")
    click.echo(f"build: {found.build}")
    click.echo(f"state: {found.state.name} ({_STATES[found.state.name]})")
    click.echo(f"owner: {'external (an OCA was imported)' if found.externally_owned else 'itself'}")
    click.echo(f"SEV-ES: {'yes' if found.es else 'no'}")
    click.echo(f"guests: {found.guest_count}")
    if output.verbose:
        click.echo(f"id: {chip.hex() if chip else 'not reported'}")


@command.command("csr", examples=("sev-attest host csr pek.csr",))
@click.argument("out", type=OUTPUT)
@bare_option("--force", is_flag=True, help="Write over a file that exists.")
@DeviceOptions.given("device")
@OutputOptions.given("output")
def csr(*, out: str, force: bool, device: DeviceOptions, output: OutputOptions) -> None:
    """Write this platform's PEK, for an OCA to sign.

    OUT is the PEK without signatures, for `certs sign-pek`.
    """
    path = Path(out)
    check_writable([path], force=force)
    with device.open() as firmware:
        pek = firmware.pek_csr()
    write_all([(path, pek)], force=force)
    if output.as_json:
        render.document("host csr", ok=True, files=[out])
    elif output.text:
        click.echo(f"wrote {render.one_line(out)}")
        render.notes(["next: `sev-attest certs sign-pek`, then `sev-attest host provision`"])


@command.command("provision", examples=("sev-attest host provision pek.cert oca.cert",))
@click.argument("pek", type=FILE)
@click.argument("oca", type=FILE)
@ConfirmOptions.given("confirm")
@DeviceOptions.given("device")
@OutputOptions.given("output")
def provision(
    *, pek: str, oca: str, confirm: ConfirmOptions, device: DeviceOptions, output: OutputOptions
) -> None:
    """Make an OCA the owner of this platform.

    PEK is what `host csr` wrote, signed with the OCA's key (`certs sign-pek`); OCA is its
    certificate. No SEV guest may run.
    """
    from sev_attest.host.certificates import verify_import
    from sev_attest.sev.spec import Usage

    refuse(stdin_errors(pek, oca))
    certificates = [
        _certificate(path, usage) for path, usage in ((pek, Usage.PEK), (oca, Usage.OCA))
    ]
    owner = certificates[1].fingerprint
    losses = ["this makes a new PDH", _SESSIONS, f"the OCA {owner} will own the platform"]
    refuse(confirm.errors(losses))
    with device.open() as firmware:
        before = firmware.platform_status()
        verify_import(firmware, before, pek=certificates[0], oca=certificates[1])
        confirm.ask(losses, "Import this OCA?")
        firmware.pek_cert_import(*(certificate.to_bytes() for certificate in certificates))
    _done("host provision", f"the platform is owned by the OCA {owner}", before, output, oca=owner)


@command.command("rotate", examples=("sev-attest host rotate",))
@bare_option("--pek", is_flag=True, help="Make a new PEK and OCA too; no SEV guest may run.")
@ConfirmOptions.given("confirm")
@DeviceOptions.given("device")
@OutputOptions.given("output")
def rotate(
    *, pek: bool, confirm: ConfirmOptions, device: DeviceOptions, output: OutputOptions
) -> None:
    """Make a new PDH, or all new keys (--pek).

    Guests that run go on with a new PDH.
    """
    from sev_attest.host.certificates import require_no_guests

    made = "new PDH, PEK and OCA" if pek else "new PDH"
    losses = [f"this makes a {made}", _SESSIONS, *([_OWNER] if pek else [])]
    refuse(confirm.errors(losses))
    with device.open() as firmware:
        before = firmware.platform_status()
        if pek:
            require_no_guests(firmware, before)
        confirm.ask([*losses, *_running(before)], "Make new keys?")
        (firmware.pek_gen if pek else firmware.pdh_gen)()
    _done("host rotate", f"the platform has a {made}", before, output)


@command.command("reset", examples=("sev-attest host reset",))
@ConfirmOptions.given("confirm")
@DeviceOptions.given("device")
@OutputOptions.given("output")
def reset(*, confirm: ConfirmOptions, device: DeviceOptions, output: OutputOptions) -> None:
    """Reset the platform's keys and owner.

    The platform is then as it left the factory. No SEV guest may run.
    """
    from sev_attest.host.certificates import require_no_guests

    losses = ["this makes a new PDH, PEK and OCA", _SESSIONS, _OWNER]
    refuse(confirm.errors(losses))
    with device.open() as firmware:
        before = firmware.platform_status()
        require_no_guests(firmware, before)
        confirm.ask(losses, "Reset the platform?")
        firmware.factory_reset()
    _done("host reset", "the platform is reset, and owns itself", before, output)


def _chip(firmware: "Device") -> bytes | None:
    """Return the id of the chip; None if the firmware or the kernel does not report it."""
    with suppress(SevAttestError):
        return firmware.get_id()
    return None


def _certificate(path: str, usage: "Usage") -> "Certificate":
    from sev_attest.sev.chain.packaging import certificate_of

    with reading(path):
        data = read_small(path, usage.name)
        if not data:
            raise MalformedInput(usage.name, "length", "the file is empty")
        found = certificate_of(usage, data)
    return cast("Certificate", found)


def _facts(found: "PlatformStatus") -> "Status":
    return {
        "api_major": found.api_major,
        "api_minor": found.api_minor,
        "build": found.build,
        "state": found.state.name,
        "externally_owned": found.externally_owned,
        "es": found.es,
        "guest_count": found.guest_count,
    }


def _running(found: "PlatformStatus") -> list[str]:
    return (
        [f"SEV guests are running ({found.guest_count}); they go on"] if found.guest_count else []
    )


def _done(
    name: str, words: str, before: "PlatformStatus", output: OutputOptions, **facts: object
) -> None:
    if output.as_json:
        render.any_document(name, ok=True, before=_facts(before), **facts)
    elif output.text:
        terminal.say(f"OK: {words}")
        render.notes(["export the chain again (`sev-attest host export`): guest owners need it"])
