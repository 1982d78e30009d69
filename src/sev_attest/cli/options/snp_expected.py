"""What a report of SEV-SNP must say: values, or the guest that its launch digest is computed of."""

from collections.abc import Iterator
from datetime import UTC, datetime

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE
from sev_attest.cli.options.firmware_search import FirmwareSearchOptions
from sev_attest.cli.options.snp import HexBytes
from sev_attest.cli.options.snp_guest import SnpGuestOptions
from sev_attest.cli.snp_fields import DEBUG, MIGRATION
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported
from sev_attest.snp.expected import Expected
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import HOST_VMPL, NO_MIGRATION_AGENT

FRESHNESS = "nothing shows that this report is fresh: report_data was not compared (--report-data)"
GUEST = (
    "nothing shows which guest it is: the launch digest was not compared (--launch-digest, or "
    "--firmware ...)"
)
AGENT = "the guest has a migration agent (report_id_ma), which can move it to another platform"
EXPIRED = "the challenge has expired: the report may be as old as it, and `snp release` refuses it"
HOST = "the host asked for this report, not the guest: report_data is the host's"


class ExpectedOptions(Options, title="Expected"):
    """What the report must say."""

    report_data: bytes | None = option(
        "--report-data",
        type=HexBytes(64),
        metavar="HEX",
        help="The 64 bytes that the guest was asked to put into the report.",
    )
    launch_digest: bytes | None = option(
        "--launch-digest",
        type=HexBytes(48),
        metavar="HEX",
        help="The 48 bytes that the guest you meant is measured as; or describe it, as for "
        "`snp measure`.",
    )
    challenge: str | None = option(
        "--challenge",
        type=FILE,
        metavar="FILE",
        help="The challenge that the report must answer, with the guest's --transport-key.",
    )
    transport_key: str | None = option(
        "--transport-key",
        type=FILE,
        metavar="FILE",
        help="The key that the guest made for --challenge.",
    )

    @property
    def files(self) -> tuple[str | None, ...]:
        """The files that are read, None for each that is not."""
        return (self.challenge, self.transport_key)

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for each of these options that needs or excludes another."""
        if (self.challenge is None) is not (self.transport_key is None):
            yield usage("--challenge and --transport-key go together")
        if self.challenge is not None and self.report_data is not None:
            yield usage("--challenge says what report_data must be: it excludes --report-data")

    def bound_data(self) -> tuple[bytes | None, list[str]]:
        """Return the report_data that is expected, and notes on the challenge.

        Raises OSError, MalformedInput; NotVerified for a key that the challenge does not accept.
        """
        if self.challenge is None or self.transport_key is None:
            return self.report_data, []
        from sev_attest.cli.kept import read_challenge, read_transport_key

        challenge = read_challenge(self.challenge)
        key = read_transport_key(self.transport_key)
        challenge.require_kind(key)
        notes = [EXPIRED] if challenge.expired(datetime.now(UTC)) else []
        return challenge.report_data(key), notes


def guest_errors(
    guest: SnpGuestOptions,
    expected: ExpectedOptions,
    search: FirmwareSearchOptions,
    *,
    explain: bool,
) -> Iterator[Unsupported]:
    """Yield an error for each option that is missing, contradicts another or plays no part."""
    if not guest.described:
        for name in search.stated("firmware_dir") + ["--explain"] * explain:
            yield usage(f"{name} is for a guest that is described (--firmware ...)")
        return
    if expected.launch_digest is not None:
        yield usage(f"--launch-digest excludes {', '.join(guest.described)}")
    yield from guest.errors()
    if guest.num_cpus is not None and len(guest.num_cpus) > 1:
        yield usage("a report is of one guest: --num-cpus takes one number here")


def open_notes(report: AttestationReport, expected: Expected) -> Iterator[str]:
    """Yield what a verdict leaves open, and what the report permits the host."""
    found = {
        FRESHNESS: expected.report_data is None,
        GUEST: expected.launch_digest is None,
        HOST: report.vmpl == HOST_VMPL,
        DEBUG: report.policy.debug,
        MIGRATION: report.policy.migration_agent,
        AGENT: report.report_id_ma != NO_MIGRATION_AGENT,
    }
    return (words for words, said in found.items() if said)
