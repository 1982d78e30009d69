"""Recognise SEV-SNP reports and certificates where SEV's are expected.

Source: AMD 56860 (SEV-SNP ABI), "ATTESTATION_REPORT"; the subjects of AMD's certificates; AMD 56421
(GHCB), the certificate table; Azure's HCL blob begins with "HCLA". Does not verify: anything.
"""

from sev_attest._wire import number_at
from sev_attest.errors import MalformedInput

REPORT_SIZE = 1184
RESPONSE_HEADER = 32
"""Header of a SNP_GET_REPORT response: status, size, reserved bytes; the report follows."""
HCL_MAGIC = b"HCLA"
_VERSIONS = range(1, 16)
SNP_HINT = "`sev-attest snp show` and `sev-attest snp verify` are for SEV-SNP guests"
_SUBJECTS = {"SEV-VCEK": "VCEK", "SEV-VLEK": "VLEK"}
_DER = b"\x30\x82"
TABLE_CERTIFICATES = {
    "63da758d-e664-4564-adc5-f4b93be8accd": "VCEK",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "VLEK",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ASK",  # the ASVK too
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ARK",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea": "CRL",
}
"""The names of the certificates and CRLs in a certificate table, by GUID."""
_GUIDS = tuple(bytes.fromhex(guid.replace("-", "")) for guid in TABLE_CERTIFICATES)


def refuse_snp(data: bytes, structure: str) -> None:
    """Raise MalformedInput if ``data`` is an SEV-SNP report or certificate; else do nothing."""
    kind = _report(data) or _certificate(data)
    if kind:
        reason = f"this is {kind}; SEV's or SEV-ES's was expected"
        raise MalformedInput(structure, "snp", reason, hint=SNP_HINT)


def _report(data: bytes) -> str:
    if data[:4] == HCL_MAGIC:
        return "an Azure HCL blob with an SEV-SNP attestation report"
    for at in (0, RESPONSE_HEADER):
        if len(data) >= at + REPORT_SIZE and number_at(data, at) in _VERSIONS:
            # The version is followed by the guest SVN and the policy, whose bit 17 is always one.
            whole = at == 0 or number_at(data, 4) == REPORT_SIZE
            if whole and number_at(data, at + 8, 8) >> 17 & 1:
                return "an SEV-SNP attestation report"
    return ""


def _certificate(data: bytes) -> str:
    if data.startswith(_GUIDS):
        return "a certificate table of SEV-SNP"
    if not (data[:2] == _DER or b"-----BEGIN CERTIFICATE-----" in data):
        return ""
    from sev_attest import _crypto

    for name in _crypto.common_names(data):
        if name in _SUBJECTS:
            return f"a {_SUBJECTS[name]}, a certificate of SEV-SNP"
        if name.startswith("SEV-VLEK-"):
            return "an ASVK, a certificate of SEV-SNP"
        if data[:2] == _DER and name.startswith(("ARK-", "SEV-")):
            return f"{name} as X.509 in DER, the form that SEV-SNP uses"
    return ""
