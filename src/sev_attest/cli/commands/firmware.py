"""``sev-attest firmware``."""

from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command
from sev_attest.cli.inputs import FILE, large_file
from sev_attest.cli.options.common import OutputOptions
from sev_attest.errors import MalformedInput, NotAttestable, reading
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.footer import ENTRIES, SECTIONS
from sev_attest.guest.spec import OVMF_SEV_INFO

if TYPE_CHECKING:
    from sev_attest.cli.documents.guests import FirmwareEntry, FirmwareSection


@click.command("firmware", cls=Command, examples=("sev-attest firmware OVMF.amdsev.fd",))
@click.argument("file", type=FILE)
@OutputOptions.given("output")
def command(*, file: str, output: OutputOptions) -> None:
    """Show what an OVMF image declares, and what it can therefore attest."""
    with reading(file):
        with large_file(file, progress=output.text) as opened:
            firmware = Firmware.read(opened)
        entries = _entries(firmware)
        attests = _attests(firmware)
        sections: list[FirmwareSection] = [
            {"address": address, "size": size, "type": SECTIONS.get(kind, f"{kind:#x}")}
            for address, size, kind in firmware.sections()
        ]
    notes = _notes(firmware)
    if output.as_json:
        render.document(
            "firmware",
            ok=True,
            size=firmware.size,
            sha256=firmware.sha256.hex(),
            kind=firmware.kind,
            entries=entries,
            sections=sections,
            attests=attests,
            notes=notes,
        )
        return
    click.echo(f"{firmware.kind}, {firmware.size} bytes, sha256 {firmware.sha256.hex()}")
    for entry in entries:
        guid = f"  {entry['guid']}" if output.verbose else ""
        click.echo(f"  {entry['name']:<22}{entry['value']}{guid}")
    for section in sections if output.verbose else ():
        click.echo(f"    {section['type']:<20}{section['address']:#x}, {section['size']:#x} bytes")
    for what, can in attests.items():
        click.echo(f"{what:<24}{can if isinstance(can, str) else 'yes' if can else 'no'}")
    if not output.quiet:
        render.notes(notes)


def _entries(firmware: Firmware) -> "list[FirmwareEntry]":
    """Return each entry of the footer table: its GUID, name, and numbers in hex."""
    return [
        {
            "guid": guid,
            "name": ENTRIES.get(guid, "unknown"),
            "value": ", ".join(
                f"{int.from_bytes(data[at : at + 4], 'little'):#x}" for at in range(0, len(data), 4)
            ),
        }
        for guid, data in firmware.tables().items()
    ]


def _attests(firmware: Firmware) -> dict[str, bool | str]:
    """Return what a guest with this firmware can be attested for."""
    try:
        firmware.require_hash_table()
        hashes = True
    except NotAttestable:
        hashes = False
    area = firmware.secret_area()
    secrets = f"up to {area[1]} bytes" if area and all(area) else False
    if firmware.kind not in ("CODE", "whole"):
        return dict.fromkeys(("SEV", "SEV-ES", "kernel hashes", "secrets"), False)
    return {"SEV": True, "SEV-ES": _es(firmware), "kernel hashes": hashes, "secrets": secrets}


def _es(firmware: Firmware) -> bool:
    try:
        firmware.reset_address()
    except (MalformedInput, NotAttestable):
        return False
    return True


def _notes(firmware: Firmware) -> list[str]:
    """Return notes on what is not measured, cannot start a guest, or is not firmware at all."""
    if firmware.unfit:
        return [f"this is {firmware.unfit}"]
    if firmware.kind == "VARS":
        return ["this is a store for UEFI variables: it is never measured, and no firmware"]
    if firmware.kind == "unknown":
        return ["this has no OVMF footer table: nothing says what it can do"]
    notes = []
    if not any(firmware.tables().get(OVMF_SEV_INFO, b"\1")):
        notes.append(
            "the SEV-ES reset address is 0: QEMU starts no SEV-ES guest from this firmware"
        )
    if firmware.kind == "CODE":
        what = "a CODE image: start it stateless (<loader stateless='yes'/>)"
        notes.append(f"{what}; the variables of an <nvram> beside it are not measured")
    return notes
