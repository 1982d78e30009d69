"""The options that name certificates of SEV-SNP, and the reading of them."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import click

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE, ParamType, read_small, stdin_errors, value_hint
from sev_attest.cli.snp_evidence import certificates_of, content_at
from sev_attest.errors import MalformedInput, Unsupported, reading
from sev_attest.snp.certificate_files import MAX_FILE, X509Value, read_certificates
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.packaging import CertificateBytes
from sev_attest.snp.roots import Root, amd_roots


class Time(ParamType[datetime]):
    """A date, or a date and time; UTC unless a zone is stated."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read ISO 8601: "2026-05-04", "2026-05-04T12:00:00Z"."""
        try:
            found = datetime.fromisoformat(str(value).strip())
        except ValueError:
            words = f"{value!s} is no time: 2026-05-04 or 2026-05-04T12:00:00Z, UTC unless stated"
            self.fail(words, param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


class HexBytes(ParamType[bytes]):
    """Bytes in hex, exactly so many."""

    name = "hex"

    def __init__(self, size: int) -> None:
        """Accept ``size`` bytes."""
        self.size: int = size

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Read hex digits; blanks between them are ignored."""
        try:
            found = bytes.fromhex(str(value))
        except ValueError:
            hint = value_hint(str(value))
            self.fail(f"{value!s} is not hex{hint and '; '}{hint}", param, ctx)
        if len(found) != self.size:
            words = f"{len(found)} bytes, expected {self.size} ({2 * self.size} hex digits)"
            self.fail(words, param, ctx)
        return found


class SnpTrustOptions(Options, title="Certificates"):
    """What a report is verified with, beside the CERT arguments."""

    trust_root: tuple[str, ...] = option(
        "--trust-root",
        type=FILE,
        metavar="FILE",
        multiple=True,
        help="Also trust this ARK, which is not AMD's (a test platform).",
    )
    crl: tuple[str, ...] = option(
        "--crl",
        type=FILE,
        metavar="FILE",
        multiple=True,
        help="Check that this revocation list of the ARK does not name the ASK or ASVK.",
    )

    def errors(
        self, report: str, certificates: tuple[str, ...], others: Iterable[str | None] = ()
    ) -> Iterator[Unsupported]:
        """Yield an error if two inputs, ``others`` among them, would be standard input."""
        yield from stdin_errors(report, *certificates, *self.trust_root, *self.crl, *others)

    def read(
        self, brought: Iterable[CertificateBytes], inputs: tuple[str, ...]
    ) -> tuple[list[X509Value], list[Root]]:
        """Return the certificates and revocation lists at hand, and the trusted roots.

        ``brought`` came with the report, ``inputs`` are files and folders. Verifies nothing.
        Raises MalformedInput, naming the file.
        """
        found: list[X509Value] = []
        roots = list(amd_roots())
        for one in brought:
            found += _read(one.source, one.content)
        for path in inputs:
            for one in certificates_of(path, content_at(path, "certificates")):
                found += _read(one.source, one.content)
        for path in self.trust_root:
            values = _read(path, read_small(path, "root", MAX_FILE))
            roots += _roots(path, values)
            found += values
        for path in self.crl:
            found += _lists(path, _read(path, read_small(path, "revocation list", MAX_FILE)))
        return found, roots


class SnpCertificateOptions(SnpTrustOptions, title="Certificates"):
    """The same, and when the certificates must be valid."""

    at: datetime | None = option(
        "--at",
        type=Time(),
        metavar="TIME",
        help="When the certificates must be valid, as 2026-05-04T12:00:00Z (default: now).",
    )


def _read(source: str, data: bytes) -> list[X509Value]:
    with reading(source):
        return read_certificates(data)


def _roots(path: str, values: list[X509Value]) -> list[Root]:
    arks = [one for one in values if isinstance(one, Certificate) and one.kind is Kind.ARK]
    if not arks:
        with reading(path):
            raise MalformedInput("root", "ARK", "there is no ARK certificate in this file")
    return [Root.of(one) for one in arks]


def _lists(path: str, values: list[X509Value]) -> list[X509Value]:
    from sev_attest.snp.revocation import RevocationList

    found: list[X509Value] = [one for one in values if isinstance(one, RevocationList)]
    if not found:
        with reading(path):
            raise MalformedInput("revocation list", "format", "there is none in this file")
    return found
