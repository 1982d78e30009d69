"""The options that most commands share."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from sev_attest._encoding import to_base64
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.environment import LEDGER
from sev_attest.cli.inputs import OUTPUT
from sev_attest.cli.usage import usage
from sev_attest.errors import SevAttestError

if TYPE_CHECKING:
    from sev_attest.owner.ledger import Ledger


NUMBERS = ("api_major", "api_minor", "build_id")
"""The fields for the API version and build of the firmware, which a measurement covers."""


class OutputOptions(Options, title="Output"):
    """What a command prints."""

    as_json: bool = option("--json", is_flag=True, help="Print one JSON document instead.")
    quiet: bool = option(
        "-q", "--quiet", is_flag=True, help="Print nothing but errors and what was asked for."
    )
    verbose: bool = option("-v", "--verbose", is_flag=True, help="Explain every step.")

    @property
    def text(self) -> bool:
        """Whether to print text for people."""
        return not (self.as_json or self.quiet)


class ExplainOptions(OutputOptions, title="Output"):
    """What a command prints of a measurement."""

    explain: bool = option(
        "--explain", is_flag=True, help="List every measured range and HMAC field."
    )


class DigestOptions(ExplainOptions, title="Output"):
    """How a digest is printed."""

    form: str | None = option(
        "--format",
        type=click.Choice(["hex", "base64"]),
        help="How to print the digest (default: hex).",
    )

    def shown(self, digest: bytes) -> str:
        """Return a digest as it is printed."""
        return to_base64(digest) if self.form == "base64" else digest.hex()


class ManifestOptions(Options, title="Manifest"):
    """Where every digest is written."""

    manifest: str | None = option(
        "--manifest",
        type=OUTPUT,
        metavar="FILE",
        help="Write every digest to this file, for `requirements`; then --cpu-model-name and "
        "--vmsa-profile take several names, with commas.",
    )
    force: bool = option("--force", is_flag=True, help="Write over a file that exists.")


class LedgerOptions(Options, title="Ledger"):
    """The ledger of launches; "none" for none, None for the default one."""

    ledger: str | None = option(
        "--ledger",
        type=OUTPUT,
        metavar="PATH|URL|none",
        envvar=LEDGER,
        help="Ledger of launches: a file, or postgresql://HOST/DATABASE (default: one per user).",
    )
    floor: str | None = option(
        "--ledger-floor",
        type=OUTPUT,
        metavar="FILE",
        help="Keep the ledger's last event here, and refuse a ledger that lacks it: an older copy.",
    )

    def open(self, *, create: bool = True) -> "Ledger | None":
        """Open the ledger; None for "none".

        Raises LedgerError if it cannot be used, or is missing and ``create`` is False; Unsupported
        if the default one is in a home folder that does not exist.
        """
        if self.ledger == "none":
            return None
        from sev_attest.owner.ledger.book import Ledger
        from sev_attest.owner.ledger.place import check_home, default_path

        if self.ledger is None and create:
            check_home()
        return Ledger.open(self.ledger or default_path(), create=create, floor=self.floor)

    def require(self, why: str, *, create: bool = True) -> "Ledger":
        """Open the ledger as :meth:`open` does; raises a usage error for "none", with ``why``."""
        opened = self.open(create=create)
        if opened is None:
            raise usage(why)
        return opened


@contextmanager
def committing(attempt: str, words: str, *, told: bool = True) -> Iterator[None]:
    """Tell who interrupts a commit that it may have been taken: it can wait for a standby."""
    try:
        yield
    except KeyboardInterrupt as error:
        if told:
            error.add_note(f"{words}: look with `sev-attest ledger show {attempt[:12]}`")
        raise


def give_up(ledger: "Ledger", session_id: str, reason: str) -> None:
    """Mark a session as failed in the ledger; an error here must not hide the first one."""
    with suppress(SevAttestError):
        ledger.fail(session_id, reason)
