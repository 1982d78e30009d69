"""The public names of :mod:`sev_attest.sev`."""

from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.oca import OwnerKey
from sev_attest.sev.chain.roots import Generation, Root, amd_roots
from sev_attest.sev.chain.verify import VerifiedChain, verify_chain
from sev_attest.sev.diagnosis.search import Clues, Diagnosis, Explanation, explain_mismatch
from sev_attest.sev.digest import MeasuredGuest, MeasuredRange, launch_digest
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import VerifiedLaunch, verify_launch
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.report import AttestationReport, VerifiedReport, verify_report
from sev_attest.sev.secret import SecretPacket, build_secret, build_secret_unverified
from sev_attest.sev.session import Session

__all__ = [
    "AmdCaCertificate", "AttestationReport", "Certificate", "Chain", "Clues", "Diagnosis",
    "Explanation", "Generation", "GuestPolicy", "LaunchInfo", "MeasuredGuest", "MeasuredRange",
    "OwnerKey", "Root", "SecretPacket", "Session", "TransportKeys", "VerifiedChain",
    "VerifiedLaunch", "VerifiedReport", "amd_roots", "build_secret", "build_secret_unverified",
    "explain_mismatch", "launch_digest", "verify_chain", "verify_launch", "verify_report",
]  # fmt: skip
