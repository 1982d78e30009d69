"""Every public name, from the room it lives in. See :mod:`sev_attest` for the map."""

from sev_attest.errors import (
    ChainFailure,
    ChainInvalid,
    Failure,
    Insecure,
    LaunchRefused,
    MalformedInput,
    MeasurementMismatch,
    NotAttestable,
    NotVerified,
    RequirementsNotMet,
    SevAttestError,
    Unsupported,
    WrongState,
)
from sev_attest.guest.cpu import CpuModel
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import KernelHashes
from sev_attest.guest.vmsa import VmsaPages, VmsaProfile
from sev_attest.owner.key_release import release
from sev_attest.owner.ledger import Ledger
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.requirements import Requirements
from sev_attest.sev.chain.ca import CaCertificate
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.oca import OwnerKey
from sev_attest.sev.chain.roots import Generation, Root, amd_roots
from sev_attest.sev.chain.verify import VerifiedChain, verify_chain
from sev_attest.sev.diagnosis.search import Clues, Diagnosis, Finding, explain_mismatch
from sev_attest.sev.digest import MeasuredGuest, MeasuredRange, launch_digest
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import VerifiedLaunch, verify_launch
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.report import AttestationReport, VerifiedReport, verify_report
from sev_attest.sev.secret import SecretPacket, build_secret, build_secret_unverified
from sev_attest.sev.session import Session

__all__ = [
    "AttestationReport",
    "CaCertificate",
    "Certificate",
    "Chain",
    "ChainFailure",
    "ChainInvalid",
    "Clues",
    "CpuModel",
    "Diagnosis",
    "Failure",
    "Finding",
    "Firmware",
    "Generation",
    "GuestPolicy",
    "Insecure",
    "KernelHashes",
    "LaunchInfo",
    "LaunchRecord",
    "LaunchRefused",
    "Ledger",
    "MalformedInput",
    "MeasuredGuest",
    "MeasuredRange",
    "MeasurementMismatch",
    "NotAttestable",
    "NotVerified",
    "OwnerKey",
    "Requirements",
    "RequirementsNotMet",
    "Root",
    "SecretPacket",
    "Session",
    "SevAttestError",
    "TransportKeys",
    "Unsupported",
    "VerifiedChain",
    "VerifiedLaunch",
    "VerifiedReport",
    "VmsaPages",
    "VmsaProfile",
    "WrongState",
    "amd_roots",
    "build_secret",
    "build_secret_unverified",
    "explain_mismatch",
    "launch_digest",
    "release",
    "verify_chain",
    "verify_launch",
    "verify_report",
]
