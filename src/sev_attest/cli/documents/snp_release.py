"""Documents of `snp challenge`, `snp release`, `guest request` and `guest open`."""

from typing import Annotated, TypedDict

from sev_attest.cli.documents.parts import (
    Count,
    Done,
    Hex32,
    Hex48,
    Hex64,
    Refused,
    Reused,
    Time,
    one_of,
)
from sev_attest.cli.documents.snp import Verdict

Kem = Annotated[str, one_of("x25519", "mlkem768-x25519")]


class ChallengeFacts(TypedDict):
    """A challenge that was made for one report and one release."""

    name: str
    """What the owner calls it."""
    attempt: Hex32
    """Its id in the ledger."""
    created: Time
    """When it was made."""
    expires: Time | None
    """When its time is over; null if it does not expire."""
    kems: list[Kem]
    """The kinds of transport keys that it accepts, the preferred one first."""
    requirements: Hex32 | None
    """The fingerprint of the requirements that a release must be under; null for none."""
    files: list[str]
    """The file that was written."""


class SnpChallengeMade(Done, ChallengeFacts):
    """A challenge that was made for one report and one release."""


class ReleasedTo(TypedDict):
    """The transport key that secrets were sealed to."""

    kem: Kem
    """Its kind."""
    sha384: Hex48
    """Its fingerprint."""


class SnpRelease(Verdict):
    """Secrets that were released to a guest of SEV-SNP."""

    challenge: str
    """The name of the challenge."""
    attempt: Hex32
    """Its id in the ledger."""
    report_sha384: Hex48
    """SHA-384 of the report."""
    transport_key: ReleasedTo
    """The key that they were sealed to."""
    secrets: Count
    """How many were released."""
    files: list[str]
    """The file that was written."""


class SnpReleaseRefused(Refused, Reused):
    """A report that gets no secrets."""


class RequestFacts(TypedDict):
    """A report that answers a challenge."""

    challenge: str
    """The name of the challenge."""
    kem: Kem
    """The kind of the transport key."""
    report_data: Hex64
    """What the report carries: it binds the transport key to the challenge."""
    source: str | None
    """Where the report was asked for; null with --report-data-only."""


class GuestRequest(Done, RequestFacts):
    """A report that answers a challenge."""

    files: list[str]
    """The files for the owner."""
    kept: str
    """The folder that stays in the guest."""


class GuestOpen(Done):
    """Secrets that were opened in a guest."""

    challenge: str
    """The name of the challenge."""
    files: dict[str, Count]
    """The file of each secret, and its size in bytes."""
