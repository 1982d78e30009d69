"""The entry point, and the commands; each is in a file of its own."""

import os
import sys
from typing import TextIO

import click

from sev_attest.cli import completion, exits, interrupts
from sev_attest.cli.help import MAX_WIDTH, Option
from sev_attest.cli.lazy import LazyGroup

_COMMANDS = {
    "advisories": "list known weaknesses of the platform, and which of them affect a launch",
    "certs": "show, split and join certificates; make an OCA, sign a PEK with it",
    "completion": "print the script for completion in bash, zsh or fish",
    "demo": "run a whole attestation on a simulated platform, from its chain to the verdict",
    "domain": "check and prepare libvirt's domain XML; read what a host offers",
    "evidence": "show and verify the evidence of a verdict, as --evidence saved it",
    "firmware": "show what an OVMF image declares, and what it can attest",
    "guest": "inside a guest: check that SEV is active; ask for an SNP report, open secrets",
    "host": "check that a host is ready for SEV; export and manage its platform's certificates",
    "launch": "launch a libvirt guest, attest it and hand over its secrets, in one command",
    "ledger": "list and check the sessions that you made, and the state of each",
    "measure": "compute a launch digest, or the measurement to expect",
    "policy": "explain a guest policy, or compose one from names",
    "report": "verify the attestation report of a running guest of SEV or SEV-ES",
    "requirements": "write and check owner.toml: what you demand of a launch",
    "schema": "print the JSON Schema of what a command prints, or of a file",
    "secret": "wrap secrets for a launch that another tool verified",
    "session": "make the keys, the GODH and the session blob for one launch on one platform",
    "snp": "SEV-SNP: show and verify reports, compute launch digests",
    "simulate": "a simulated SEV host in a folder, to try everything on",
    "validate": "check the measurement that a host reports of a launch",
    "verify": "check a platform's certificates up to AMD's pinned root",
    "vmsa": "build, show and compare the measured state of SEV-ES vCPUs",
}


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value and not ctx.resilient_parsing:
        from sev_attest import __version__

        click.echo(f"sev-attest {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    examples=(
        "sev-attest demo",
        "sev-attest verify host.chain",
        "sev-attest session --name vm1 host.chain 0x5",
        (
            "sev-attest validate --launch-info vm1.info --record vm1.launch.json --firmware "
            "OVMF.fd --num-cpus 4 --cpu-model-name EPYC-Milan --tik vm1_tik.bin --tek vm1_tek.bin"
        ),
    ),
    commands_by_name=_COMMANDS,
    context_settings={"max_content_width": MAX_WIDTH},
    epilog="Exit codes: 0 verified, 1 not verified, 2 usage, 3 refused as insecure, 4 guest cannot "
    "be attested, 5 wrong state, 6 unreadable or malformed input, 70 internal error, "
    "130 interrupted by a signal.",
)
@click.option(
    "--version",
    cls=Option,
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def cli() -> None:
    """Attest AMD SEV, SEV-ES and SEV-SNP guests, as their owner, from a machine you trust."""


def main(arguments: list[str] | None = None) -> None:
    """Run ``sev-attest`` and exit."""
    # A stream that was closed is None: write to nowhere.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    interrupts.handle()
    arguments = sys.argv[1:] if arguments is None else arguments
    shell = completion.wanted(arguments)
    sys.exit(completion.complete(cli, shell) if shell else exits.run(cli, arguments))


def _nowhere() -> TextIO:
    from pathlib import Path

    return Path(os.devnull).open("w", encoding="utf-8")
