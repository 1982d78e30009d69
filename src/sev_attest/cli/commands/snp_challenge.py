"""``sev-attest snp challenge``."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sev_attest._keys import Kem
from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import FILE
from sev_attest.cli.options.common import LedgerOptions, OutputOptions, give_up
from sev_attest.cli.options.snp_owner import SnpDemandOptions
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported
from sev_attest.owner.snp_challenges import attempt_of, create_challenge
from sev_attest.snp.document import is_name

if TYPE_CHECKING:
    from sev_attest.cli.documents.snp_release import ChallengeFacts
    from sev_attest.owner.ledger import Ledger
    from sev_attest.snp.challenge import Challenge

_KEMS = {kem.label: kem for kem in Kem}


class ChallengeOptions(Options, title="Challenge"):
    """The challenge, and where its file goes."""

    name: str = option(
        "--name", required=True, help="What to call this launch; the file's name begins so."
    )
    valid_for: int = option(
        "--valid-for",
        type=click.IntRange(1, 87600),
        metavar="HOURS",
        default=24,
        help="The ledger lets the challenge expire then (default: 24).",
    )
    kem: tuple[str, ...] = option(
        "--kem",
        type=click.Choice([*_KEMS]),
        multiple=True,
        help="Kind of transport key that is accepted, the preferred one first; can be repeated "
        "(default: every kind).",
    )
    out: str = option(
        "--out",
        type=FILE,
        default=".",
        metavar="DIR",
        help="Folder for the file (default: here).",
    )
    force: bool = option("--force", is_flag=True, help="Write over a file that exists.")

    @property
    def path(self) -> Path:
        """Where the challenge is written."""
        return Path(self.out) / f"{self.name}.challenge.json"

    @property
    def kems(self) -> tuple[Kem, ...]:
        """The kinds of keys that are accepted."""
        return tuple(_KEMS[label] for label in self.kem) or tuple(Kem)

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for a name that files cannot have, or a kind of key that is repeated."""
        if not is_name(self.name):
            yield Unsupported(
                f"--name {self.name!r} cannot begin a file's name: 1 to 128 letters, digits and "
                "_ . + - can",
                check="name",
            )
        if len(set(self.kem)) < len(self.kem):
            yield usage("--kem names a kind of key twice")


@click.command(
    "challenge",
    cls=Command,
    examples=("sev-attest snp challenge --name vm1 --requirements owner.toml",),
)
@ChallengeOptions.given("options")
@SnpDemandOptions.given("demands")
@LedgerOptions.given("ledger")
@OutputOptions.given("output")
def command(
    *,
    options: ChallengeOptions,
    demands: SnpDemandOptions,
    ledger: LedgerOptions,
    output: OutputOptions,
) -> None:
    """Make a challenge for one report of an SEV-SNP guest, and one release of secrets.

    Notes it in the ledger, and writes NAME.challenge.json, which goes to the guest: `guest request`
    answers it there, and `snp release` takes the answer. Nothing in it is secret. With
    --requirements, a release must be under the same.
    """
    refuse(options.errors())
    requirements = demands.read()
    with ledger.require("a challenge needs a ledger, which keeps the owner's own copy") as opened:
        check_writable([options.path], force=options.force)
        made = create_challenge(
            opened,
            options.name,
            valid_for=timedelta(hours=options.valid_for),
            kems=options.kems,
            requirements=requirements,
        )
        _write(options, made, opened)
    facts: ChallengeFacts = {
        "name": made.name,
        "attempt": attempt_of(made),
        "created": made.created.isoformat(),
        "expires": made.expires.isoformat() if made.expires else None,
        "kems": [kem.label for kem in made.kems],
        "requirements": requirements.fingerprint if requirements else None,
        "files": [str(options.path)],
    }
    if output.as_json:
        render.document("snp-challenge-made", ok=True, **facts)
    elif output.text:
        hours = "1 hour" if options.valid_for == 1 else f"{options.valid_for} hours"
        click.echo(f"wrote {render.one_line(str(options.path))}, valid for {hours}")
        if output.verbose:
            click.echo(f"expires: {facts['expires']}")
            click.echo(f"attempt: {facts['attempt']}")


def _write(options: ChallengeOptions, made: "Challenge", ledger: "Ledger") -> None:
    """Write the file; the ledger notes if that fails, so that the name is free again."""
    try:
        write_all([(options.path, made.to_json())], force=options.force)
    except BaseException:
        give_up(ledger, attempt_of(made), "its file was not written")
        raise
