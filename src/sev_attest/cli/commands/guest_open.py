"""``sev-attest guest open``."""

import errno
from collections.abc import Iterator
from pathlib import Path

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import FILE, OUTPUT, stdin_errors
from sev_attest.cli.kept import (
    BASE,
    CHALLENGE,
    KEY,
    REPORT,
    kept_folder,
    read_challenge,
    read_document,
)
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.outputs import check_writable, private_folder, write_all
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported, reading
from sev_attest.snp.sealed import SealedSecrets, open_sealed
from sev_attest.snp.transport import TransportPrivateKey


class KeptOptions(Options, title="What it was sealed for"):
    """The guest's side of the request."""

    kept: str | None = option(
        "--kept",
        type=OUTPUT,
        metavar="DIR",
        help=f"Folder that `guest request` kept (default: {BASE}/NAME).",
    )
    key: str | None = option(
        "--key", type=FILE, metavar="FILE", help=f"Another private key than {KEY} in it."
    )
    report: str | None = option(
        "--report", type=FILE, metavar="FILE", help=f"Another report than {REPORT} in it."
    )
    challenge: str | None = option(
        "--challenge", type=FILE, metavar="FILE", help=f"Another challenge than {CHALLENGE} in it."
    )

    def open(self, sealed: SealedSecrets) -> dict[str, bytes]:
        """Open the secrets; raises OSError, MalformedInput, NotVerified."""
        folder = kept_folder(self.kept, sealed.challenge)
        if None in (self.key, self.report, self.challenge) and not folder.is_dir():
            words = "what `guest request` keeps is not here; --kept names its folder"
            raise FileNotFoundError(errno.ENOENT, words, str(folder))
        key, report = self.key or str(folder / KEY), self.report or str(folder / REPORT)
        with reading(key):
            private = TransportPrivateKey.from_json(read_document(key, "transport private key"))
        evidence = evidence_of(report, content_at(report))
        challenge = read_challenge(self.challenge or str(folder / CHALLENGE))
        return open_sealed(sealed, private, evidence.report, challenge)


class SecretOptions(Options, title="Secrets"):
    """Where the secrets go."""

    out: str | None = option(
        "--out", type=OUTPUT, metavar="DIR",
        help="Write each secret to a file of its name in this folder, which may be new.",
    )  # fmt: skip
    secret: str | None = option(
        "--secret", metavar="NAME", help="Print this secret, byte for byte."
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")

    def errors(self, output: OutputOptions) -> Iterator[Unsupported]:
        """Yield an error if there is no place for the secrets, or two."""
        if (self.out is None) == (self.secret is None):
            yield usage("say where the secrets go: --out or --secret")
        if self.secret is not None and output.as_json:
            yield usage("--secret prints the secret alone, and cannot be combined with --json")
        if self.force and self.out is None:
            yield usage("--force is for --out")


@click.command(
    "open",
    cls=Command,
    examples=(
        "sev-attest guest open secrets.json --out /run/secrets",
        "sev-attest guest open secrets.json --secret disk > disk.key",
    ),
)
@click.argument("file", type=FILE)
@KeptOptions.given("kept")
@SecretOptions.given("secrets")
@OutputOptions.given("output")
def command(*, file: str, kept: KeptOptions, secrets: SecretOptions, output: OutputOptions) -> None:
    """Open the secrets in FILE, which the owner sealed for this guest's report.

    All of them are written, mode 0600, or none is. Nothing proves who sealed them: whoever has the
    public transport key can, also the host.
    """
    refuse(secrets.errors(output), stdin_errors(file, kept.key, kept.report, kept.challenge))
    with reading(file):
        sealed = SealedSecrets.from_json(read_document(file, "sealed secrets"))
    opened = kept.open(sealed)
    if secrets.secret is not None:
        if secrets.secret not in opened:
            names = ", ".join(opened)
            words = f"there is no secret {secrets.secret!r} in it; it has {names}"
            raise Unsupported(words, check="snp.secrets")
        render.raw(opened[secrets.secret])
        return
    folder = Path(str(secrets.out))
    files = {folder / name: data for name, data in opened.items()}
    with private_folder(folder):
        check_writable([*files], force=secrets.force)
        write_all(files.items(), force=secrets.force)
    if output.as_json:
        sizes = {str(path): len(data) for path, data in files.items()}
        render.document("guest open", ok=True, challenge=sealed.challenge, files=sizes)
    elif output.text:
        for path, data in files.items():
            click.echo(f"wrote {render.one_line(str(path))}, {len(data)} bytes")
        if output.verbose:
            click.echo(f"challenge: {sealed.challenge}, nonce {sealed.nonce.hex()}")
            click.echo(f"sealed to: a key of kind {sealed.kem.label}")
            click.echo(f"report, SHA-384: {sealed.report_digest.hex()}")
