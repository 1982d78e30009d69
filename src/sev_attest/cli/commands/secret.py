"""``sev-attest secret build``."""

import base64
import os
from pathlib import Path

import click

from sev_attest.cli import render
from sev_attest.cli.inputs import OUTPUT, one_stdin, output_options
from sev_attest.cli.options.keys import key_options, read_keys, read_secrets
from sev_attest.cli.outputs import write_all
from sev_attest.errors import Insecure, reading
from sev_attest.sev.launch_info import read_measurement
from sev_attest.sev.secret import build_secret_unverified


@click.group("secret", no_args_is_help=False)
def command() -> None:
    """Wrap secrets for a launch. `validate --inject-secret` verifies the launch first."""


@command.command("build")
@click.argument("header", type=OUTPUT)
@click.argument("payload", type=OUTPUT)
@key_options
@click.option("-m", "--measurement", metavar="B64", required=True, help="The launch's measurement.")
@click.option("-s", "--secret", "secrets", metavar="ALIAS-OR-GUID:PATH", multiple=True,
              required=True, help="A secret (alias: luks-key); can be repeated.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["base64", "binary"]), default="base64")
@click.option("--insecure", is_flag=True, help="Needed: nothing verifies the launch here.")
@click.option("--force", is_flag=True, help="Write over files that exist.")
@output_options
def build(
    *, header: str, payload: str, tik: str | None, tek: str | None, tk: str | None,
    measurement: str, secrets: tuple[str, ...], form: str, insecure: bool, force: bool,
    as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Write the packet for a measurement that you verified elsewhere to HEADER and PAYLOAD."""
    if not insecure:
        raise Insecure(
            "nothing verifies here that this measurement is of the guest you meant",
            check="secret.unverified",
            hint="use `sev-attest validate --inject-secret`; --insecure goes on",
        )
    one_stdin((tik, tek, tk, *(text.partition(":")[2] for text in secrets)))
    keys = read_keys({"tik": tik, "tek": tek, "tk": tk})
    with reading("--measurement"):
        measure = read_measurement(os.fsencode(measurement))[:32]
    packet = build_secret_unverified(keys, measure, read_secrets(secrets))
    encode = base64.b64encode if form == "base64" else bytes
    files = [(Path(header), encode(packet.header)), (Path(payload), encode(packet.payload))]
    write_all(files, force=force)
    note = "INSECURE: nobody verified here what this measurement is of"
    if as_json:
        paths = [str(path) for path, _ in files]
        render.document(
            "secret build", ok=True, files=paths, size=len(packet.payload), notes=[note]
        )
    elif not quiet:
        click.echo(f"wrote {len(secrets)} secrets, {len(packet.payload)} bytes")
        if verbose:
            for path, _ in files:
                click.echo(f"wrote {render.one_line(str(path))}")
        render.notes([note])
