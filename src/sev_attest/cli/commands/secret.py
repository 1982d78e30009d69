"""``sev-attest secret build``."""

import base64
import os
from pathlib import Path

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.inputs import OUTPUT, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.keys import KeyOptions, read_secrets, secret_errors
from sev_attest.cli.outputs import write_all
from sev_attest.cli.usage import refuse
from sev_attest.errors import Insecure, reading
from sev_attest.sev.launch_info import read_measurement
from sev_attest.sev.secret import build_secret_unverified


@click.group(
    "secret",
    cls=Group,
    examples=(
        (
            "sev-attest secret build header.b64 payload.b64 --tk vm1_tk.bin "
            '--measurement "$(cat vm1.measurement)" --secret luks-key:disk.key --insecure'
        ),
    ),
)
def command() -> None:
    """Wrap secrets for a launch. `validate --inject-secret` verifies the launch first."""


@command.command(
    "build",
    examples=(
        (
            "sev-attest secret build header.b64 payload.b64 --tik vm1_tik.bin --tek "
            'vm1_tek.bin --measurement "$(cat vm1.measurement)" --secret luks-key:disk.key '
            "--insecure"
        ),
    ),
)
@click.argument("header", type=OUTPUT)
@click.argument("payload", type=OUTPUT)
@KeyOptions.given("keys")
@bare_option("-m", "--measurement", metavar="B64", required=True, help="The launch's measurement.")
@bare_option("-s", "--secret", "secrets", metavar="ALIAS-OR-GUID:PATH", multiple=True,
              required=True, help="A secret (alias: luks-key); can be repeated.")  # fmt: skip
@bare_option(
    "--format", "form", type=click.Choice(["base64", "binary"]), default="base64",
    help="How to write both (default: base64).",
)  # fmt: skip
@bare_option("--insecure", is_flag=True, help="Needed: nothing verifies the launch here.")
@bare_option("--force", is_flag=True, help="Write over files that exist.")
@OutputOptions.given("output")
def build(
    *,
    header: str,
    payload: str,
    keys: KeyOptions,
    measurement: str,
    secrets: tuple[str, ...],
    form: str,
    insecure: bool,
    force: bool,
    output: OutputOptions,
) -> None:
    """Write the packet for a measurement that you verified elsewhere to HEADER and PAYLOAD."""
    files = (text.partition(":")[2] for text in secrets)
    refuse(keys.errors(), secret_errors(secrets), stdin_errors(keys.tik, keys.tek, keys.tk, *files))
    if not insecure:
        raise Insecure(
            "nothing verifies here that this measurement is of the guest you meant",
            check="secret.unverified",
            hint="use `sev-attest validate --inject-secret`; --insecure goes on",
        )
    session = keys.read()
    with reading("--measurement"):
        measure = read_measurement(os.fsencode(measurement))[:32]
    packet = build_secret_unverified(session, measure, read_secrets(secrets))
    encode = base64.b64encode if form == "base64" else bytes
    made = [(Path(header), encode(packet.header)), (Path(payload), encode(packet.payload))]
    write_all(made, force=force)
    note = "INSECURE: this measurement was not verified here"
    if output.as_json:
        paths = [str(path) for path, _ in made]
        render.document(
            "secret build", ok=True, files=paths, size=len(packet.payload), notes=[note]
        )
    elif output.text:
        click.echo(f"wrote {render.count(len(secrets), 'secret')}, {len(packet.payload)} bytes")
        if output.verbose:
            for path, _ in made:
                click.echo(f"wrote {render.one_line(str(path))}")
        render.notes([note])
