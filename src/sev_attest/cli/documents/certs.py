"""Documents of `certs` and `secret`."""

from typing import NotRequired, TypedDict

from sev_attest.cli.documents.parts import Count, Done, Fingerprint, Hex, Noted


class SecretBuild(Noted):
    """Secrets that were wrapped for a launch."""

    files: list[str]
    """The header and the payload."""
    size: Count
    """Bytes of the payload."""


class ShownCertificate(TypedDict):
    """A certificate; nothing of it was verified."""

    role: str
    """What it is: PDH, PEK, OCA, CEK, ASK or ARK."""
    key: str
    """The kind of its key."""
    fingerprint: Fingerprint
    """The hash of the signed bytes, as sevctl prints it."""
    reserved: NotRequired[list[str]]
    """Reserved fields that are in use."""
    key_id: NotRequired[Hex]
    """The id of AMD's key."""
    certifying_id: NotRequired[Hex]
    """The id of the key of AMD's that signs it."""
    api: NotRequired[str]
    """The SEV API that it was made with."""
    signed_by: list[str]
    """The roles that it has signatures of; they were not verified."""


class CertsShow(Done):
    """Certificates; nothing was verified."""

    certificates: list[ShownCertificate]
    """Every certificate."""


class CertsSplit(Done):
    """Certificates that were written to files of their own."""

    files: list[str]
    """The files that were written."""


class CertsJoin(Done):
    """Certificates that were written to one file."""

    files: list[str]
    """The file that was written."""


class CertsGenerateOca(Done):
    """An OCA that was made."""

    files: list[str]
    """The certificate, and its key."""


class CertsSignPek(Done):
    """A PEK that was signed by an OCA."""

    files: list[str]
    """The file that was written."""
