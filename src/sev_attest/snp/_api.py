"""The public names of :mod:`sev_attest.snp`."""

from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.diagnosis import SnpClues, explain_digest
from sev_attest.snp.digest import MeasuredPages, SnpGuest, launch_digest
from sev_attest.snp.expected import Expected
from sev_attest.snp.firmware import Section, SnpFirmware, Svsm
from sev_attest.snp.hcl import RuntimeData
from sev_attest.snp.id_block import IdAuth, IdBlock, sign_id_block
from sev_attest.snp.id_block_verify import VerifiedIdBlock, verify_id_block
from sev_attest.snp.id_key import IdKey, IdPrivateKey
from sev_attest.snp.packaging import Evidence, read_evidence
from sev_attest.snp.policy import GuestPolicy
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.revocation import RevocationList
from sev_attest.snp.roots import Root, amd_roots
from sev_attest.snp.tcb import Product, Tcb
from sev_attest.snp.verify import VerifiedReport, verify_report

__all__ = [
    "AttestationReport", "Certificate", "Evidence", "Expected", "GuestPolicy", "IdAuth", "IdBlock",
    "IdKey", "IdPrivateKey", "Kind", "MeasuredPages", "Product", "RevocationList", "Root",
    "RuntimeData", "Section", "SnpClues", "SnpFirmware", "SnpGuest", "Svsm", "Tcb",
    "VerifiedIdBlock", "VerifiedReport", "amd_roots", "explain_digest", "launch_digest",
    "read_certificates", "read_evidence", "sign_id_block", "verify_id_block", "verify_report",
]  # fmt: skip
