"""The public names of :mod:`sev_attest.snp`."""

from sev_attest._keys import Kem
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.challenge import Challenge
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
from sev_attest.snp.sealed import SealedSecrets, open_sealed, seal
from sev_attest.snp.tcb import Product, Tcb
from sev_attest.snp.transport import TransportKey, TransportPrivateKey, report_data
from sev_attest.snp.verify import VerifiedReport, verify_report

__all__ = [
    "AttestationReport", "Certificate", "Challenge", "Evidence", "Expected", "GuestPolicy",
    "IdAuth", "IdBlock", "IdKey", "IdPrivateKey", "Kem", "Kind", "MeasuredPages", "Product",
    "RevocationList", "Root", "RuntimeData", "SealedSecrets", "Section", "SnpClues", "SnpFirmware",
    "SnpGuest", "Svsm", "Tcb", "TransportKey", "TransportPrivateKey", "VerifiedIdBlock",
    "VerifiedReport", "amd_roots", "explain_digest", "launch_digest", "open_sealed",
    "read_certificates", "read_evidence", "report_data", "seal", "sign_id_block", "verify_id_block",
    "verify_report",
]  # fmt: skip
