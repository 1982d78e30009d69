"""The public names of :mod:`sev_attest`."""

from sev_attest import guest, owner, sev, snp
from sev_attest.errors import (
    ChainInvalid,
    ChecksFailed,
    Failure,
    IdBlockInvalid,
    Insecure,
    LaunchRefused,
    MalformedInput,
    MeasurementMismatch,
    NotAttestable,
    NotVerified,
    ReportInvalid,
    RequirementsNotMet,
    SevAttestError,
    Unsupported,
    WrongState,
)

__all__ = [
    "ChainInvalid", "ChecksFailed", "Failure", "IdBlockInvalid", "Insecure", "LaunchRefused",
    "MalformedInput", "MeasurementMismatch", "NotAttestable", "NotVerified", "ReportInvalid",
    "RequirementsNotMet", "SevAttestError", "Unsupported", "WrongState", "guest", "owner", "sev",
    "snp",
]  # fmt: skip
