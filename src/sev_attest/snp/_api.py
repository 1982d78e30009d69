"""The public names of :mod:`sev_attest.snp`."""

from sev_attest.snp.packaging import Evidence, read_evidence
from sev_attest.snp.policy import GuestPolicy
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.tcb import Product, Tcb

__all__ = [
    "AttestationReport", "Evidence", "GuestPolicy", "Product", "Tcb", "read_evidence",
]  # fmt: skip
