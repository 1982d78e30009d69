"""``sev-attest snp certs``."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import FILE
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.outputs import check_writable, made_folder, write_all
from sev_attest.cli.snp_evidence import content_at, evidence_of
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported
from sev_attest.snp.kds import AMD, addresses
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import SigningKey

if TYPE_CHECKING:
    from sev_attest.cli.documents.snp import Address
    from sev_attest.host.kds import KeyServer

_VEK, _CHAIN = "vcek.der", "cert_chain.pem"
_FROM_PROVIDER = (
    "a VLEK comes from the cloud provider, in the certificate table beside the report: AMD serves "
    "it to providers only"
)
_NO_CHIP = "the report names no chip (the host masks the chip's id): AMD serves a VCEK by it"


class FetchOptions(Options, title="Fetching"):
    """Whether to fetch the certificates, and from where."""

    fetch: bool = option("--fetch", is_flag=True, help="Fetch them from AMD's key server.")
    out: str | None = option(
        "--out", type=FILE, metavar="DIR", help="Folder for what is fetched; it may be new."
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")
    mirror: str | None = option(
        "--kds", metavar="URL", help="Name this mirror of AMD's key server instead."
    )

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for options that play no part, or are missing."""
        if self.fetch and self.out is None:
            yield usage("--fetch needs --out, a folder for what is fetched")
        if not self.fetch and (self.out is not None or self.force):
            yield usage("--out and --force are for --fetch")

    def server(self) -> "KeyServer":
        """Return the server; raises Unsupported for an address that is none."""
        from sev_attest.host.kds import KeyServer

        return KeyServer(self.mirror or AMD)


@click.command(
    "certs",
    cls=Command,
    examples=(
        "sev-attest snp certs vm1.report",
        "sev-attest snp certs vm1.report --fetch --out certs",
    ),
)
@click.argument("report", type=FILE)
@FetchOptions.given("fetching")
@OutputOptions.given("output")
def command(*, report: str, fetching: FetchOptions, output: OutputOptions) -> None:
    """Show where AMD serves the certificates of a REPORT (as for `snp verify`).

    The VCEK of the chip at the reported TCB, the ASK and ARK above it, and the revocation list.
    A report of version 2 does not say its product: then there is an address for each that it may
    be of.

    --fetch gets VCEK, ASK and ARK over the network, and writes vcek.der and cert_chain.pem into
    DIR, for `snp verify REPORT DIR`.
    """
    refuse(fetching.errors())
    evidence = evidence_of(report, content_at(report))
    server = fetching.server()
    places = [*addresses(evidence.report)]
    notes = [*_notes(evidence.report)]
    files: list[str] = []
    if fetching.fetch:
        files = _fetch(server, evidence.report, fetching, output)
    if output.as_json:
        shown: list[Address] = [
            {"what": one.what, "product": one.product.value, "address": server.url + one.path}
            for one in places
        ]
        render.document("snp-certs", ok=True, addresses=shown, files=files, notes=notes)
        return
    if not fetching.fetch:
        for one in places:
            click.echo(f"{one.what:<9} {one.product.value:<5} {server.url}{one.path}")
    elif output.text:
        click.echo("\n".join(f"wrote {render.one_line(path)}" for path in files))
    if not output.quiet:
        render.notes(notes)


def _notes(report: AttestationReport) -> Iterator[str]:
    vlek = report.key_info.signing_key is SigningKey.VLEK
    if vlek:
        yield _FROM_PROVIDER
    elif not any(report.chip_id):
        yield _NO_CHIP
    if report.cpuid_family is None:
        yield "a report of version 2 does not say its product: one of these addresses is right"


def _fetch(
    server: "KeyServer", report: AttestationReport, fetching: FetchOptions, output: OutputOptions
) -> list[str]:
    """Fetch the certificates, and write them; return the files' names."""
    from sev_attest.host.snp_certificates import fetch_certificates

    def wait(address: str, seconds: int) -> None:
        if not output.quiet:
            render.notes([f"{address}: it asks to wait {seconds} seconds"])
        time.sleep(seconds)

    with made_folder(Path(str(fetching.out))) as folder:
        check_writable([folder / _VEK, folder / _CHAIN], force=fetching.force)
        found = fetch_certificates(server, report, wait=wait)
        contents = {_VEK: found.vcek, _CHAIN: found.chain}
        files = [(folder / name, data) for name, data in contents.items() if data]
        write_all(files, force=fetching.force)
    return [str(path) for path, _ in files]
