"""``sev-attest guest request``."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sev_attest._keys import Kem
from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import FILE, OUTPUT, Number
from sev_attest.cli.kept import (
    BASE,
    CHALLENGE,
    KEY,
    REPORT,
    is_within,
    kept_folder,
    read_challenge,
    with_base,
)
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.outputs import check_writable, made_folder, private_folder, write_all
from sev_attest.cli.usage import usage
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.transport import TransportPrivateKey

if TYPE_CHECKING:
    from sev_attest.cli.documents.snp_release import RequestFacts
    from sev_attest.host.guest_report import Answer

_TABLE, _PUBLIC = "auxblob", "transport-key.json"
_KEMS = {kem.label: kem for kem in Kem}


class RequestOptions(Options, title="Request"):
    """What is asked for."""

    challenge: str = option(
        "--challenge", type=FILE, metavar="FILE", required=True, help="The owner's challenge."
    )
    kem: str | None = option(
        "--kem",
        type=click.Choice([*_KEMS]),
        help="Kind of the transport key (default: the first one that the challenge accepts).",
    )
    vmpl: int | None = option(
        "--vmpl",
        type=Number(3),
        metavar="0..3",
        help="VMPL that the report is for (default: that of this kernel).",
    )
    report_data_only: bool = option(
        "--report-data-only",
        is_flag=True,
        help="Ask for no report; print the report_data for one that another program gets.",
    )

    def kind(self, challenge: Challenge) -> Kem:
        """Return the kind of key; raises Unsupported if the challenge does not accept it."""
        kem = challenge.kems[0] if self.kem is None else _KEMS[self.kem]
        if kem not in challenge.kems:
            accepted = ", ".join(one.label for one in challenge.kems)
            raise usage(f"the challenge does not accept {kem.label} keys, but {accepted}")
        return kem


class FolderOptions(Options, title="Files"):
    """Where it is written."""

    out: str = option(
        "--out", type=OUTPUT, metavar="DIR", required=True,
        help="Folder for what goes to the owner; it may be new.",
    )  # fmt: skip
    kept: str | None = option(
        "--kept",
        type=OUTPUT,
        metavar="DIR",
        help=f"Folder for what stays here, with the private key (default: {BASE}/NAME).",
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")


@click.command(
    "request",
    cls=Command,
    examples=("sev-attest guest request --challenge vm1.challenge.json --out answer",),
)
@RequestOptions.given("request")
@FolderOptions.given("folders")
@OutputOptions.given("output")
def command(*, request: RequestOptions, folders: FolderOptions, output: OutputOptions) -> None:
    """Ask this SEV-SNP guest's firmware for a report that answers an owner's challenge.

    Makes a transport key, and asks for a report that binds it to the challenge, through
    configfs-tsm or /dev/sev-guest. DIR gets the report (outblob), the host's certificates (auxblob)
    and the public key (transport-key.json), for `snp release`. Nothing in DIR is secret.

    The private key, the challenge and the report stay in the guest, for `guest open`: by default
    under /run, in memory.
    """
    challenge = read_challenge(request.challenge)
    out, kept = Path(folders.out), kept_folder(folders.kept, challenge.name)
    if is_within(kept, out):
        raise usage("--out goes to the owner, and --kept stays here: it cannot be in that folder")
    # Before a report is asked for: an older cryptography could not open what comes back.
    key = TransportPrivateKey.generate(request.kind(challenge))
    report_data = challenge.report_data(key.public)
    with ExitStack() as made:
        made.enter_context(made_folder(out))
        for folder in with_base(kept):
            made.enter_context(private_folder(folder))
        own = {
            kept / KEY: key.to_json(),
            kept / CHALLENGE: challenge.to_json(),
            out / _PUBLIC: key.public.to_json(),
        }
        places = [*own, kept / REPORT, out / REPORT, out / _TABLE]
        check_writable(places, force=folders.force)
        answer = None if request.report_data_only else _asked(report_data, request.vmpl)
        files = own | ({} if answer is None else _answered(out, kept, answer))
        write_all(files.items(), force=folders.force)
    shown: RequestFacts = {
        "challenge": challenge.name,
        "kem": key.kem.label,
        "report_data": report_data.hex(),
        "source": None if answer is None else answer.source,
    }
    written = [str(path) for path in files if path.parent == out]
    if output.as_json:
        render.document("guest request", ok=True, **shown, files=written, kept=str(kept))
        return
    if request.report_data_only:
        click.echo(report_data.hex())
    elif output.text:
        for path in written:
            click.echo(f"wrote {render.one_line(path)}")
        for name, value in shown.items() if output.verbose else ():
            click.echo(f"{name}: {value}")
    if not output.quiet:
        render.notes(_notes(kept, answer))


def _asked(report_data: bytes, vmpl: int | None) -> "Answer":
    from sev_attest.host.guest_report import request_report

    return request_report(report_data, vmpl=vmpl)


def _answered(out: Path, kept: Path, answer: "Answer") -> dict[Path, bytes]:
    """Return the files of an answer, named as configfs-tsm has them."""
    report = dict.fromkeys((kept / REPORT, out / REPORT), answer.report)
    return report | {out / _TABLE: answer.certificates}


def _notes(kept: Path, answer: "Answer | None") -> Iterator[str]:
    yield f"the private key stays in this guest, in {kept}: `sev-attest guest open` needs it"
    if answer is None:
        yield "put these 64 bytes into the report, and give the report to `guest open` (--report)"
    elif not answer.certificates:
        yield "the host sent no certificates: the owner has to get the VCEK (`snp certs`)"
