"""Azure's HCL blob: a report, and the runtime data that its guest bound to it.

A confidential VM finds it in its vTPM, at NV index 0x01400001. Source: kinvolk/azure-cvm-tooling
az-cvm-vtpm and OpenHCL's igvm_attest; held against real blobs of versions 1 and 2. Every number is
little-endian:

======  ====  ======================================================
offset  size  field
======  ====  ======================================================
0x000   4     "HCLA"
0x004   4     version, 1 or 2
0x008   4     size of the blob up to the end of the runtime data
0x00c   4     request type, 2
0x010   16    zero
0x020   1184  the report
0x4c0   4     size of all that follows
0x4c4   4     version of the runtime data, 1
0x4c8   4     type of the report: 2 is SEV-SNP, 4 is Intel TDX
0x4cc   4     hash: 1 SHA-256, 2 SHA-384, 3 SHA-512
0x4d0   4     length of the JSON
0x4d4         the JSON, then zeros up to the end of the file
======  ====  ======================================================

The first bytes of the report's report_data are the hash of the JSON, the others are zero.
"""

from typing import NamedTuple

from sev_attest._snp import HCL_MAGIC
from sev_attest._wire import Reader
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import REPORT_SIZE

STRUCTURE = "HCL blob"
_VERSIONS = (1, 2)
_SNP = 2
_TDX = 4
_HASHES = {1: "sha256", 2: "sha384", 3: "sha512"}
_DATA_AT = 0x4C0
_DATA_HEADER = 20


class RuntimeData(NamedTuple):
    """The JSON beside a report: the vTPM's keys, the VM's configuration, user data."""

    content: bytes
    """The JSON, as received. Only if it is bound is it the report's."""
    hash_name: str
    """The hash that binds it, as ``hashlib`` names it."""

    def bound_to(self, report: AttestationReport) -> bool:
        """Return whether the report's guest chose the hash of this as its report_data."""
        import hashlib

        digest = hashlib.new(self.hash_name, self.content).digest()
        return report.report_data == digest.ljust(len(report.report_data), b"\0")


def read_hcl(data: bytes) -> tuple[AttestationReport, RuntimeData]:
    """Return the report and the runtime data of a blob; raises MalformedInput.

    Does not verify: that they belong together (:meth:`RuntimeData.bound_to`).
    """
    reader = Reader(data, STRUCTURE)
    if reader.raw(4, "signature") != HCL_MAGIC:  # 0x000
        raise reader.error("signature", "this does not begin with HCLA", back=4)
    version = reader.number(4, "version")  # 0x004
    if version not in _VERSIONS:
        raise reader.error("version", f"version {version}: 1 and 2 are known", back=4)
    size = reader.number(4, "size")  # 0x008
    reader.number(4, "request type")  # 0x00c
    reader.zeros(16, "reserved")  # 0x010
    report = AttestationReport.from_bytes(reader.raw(REPORT_SIZE, "report"))  # 0x020
    runtime = _runtime_data(reader, size - _DATA_AT)
    reader.zeros(len(data) - size, "padding", what="bytes after the runtime data")
    return report, runtime


def _runtime_data(reader: Reader, left: int) -> RuntimeData:
    """Read the runtime data, which takes ``left`` bytes by the blob's own size."""
    size = reader.number(4, "data size")  # 0x4c0
    if size != left:
        raise reader.error("data size", f"{size} bytes; the blob's size leaves {left}", back=4)
    reader.number(4, "data version")  # 0x4c4
    kind = reader.number(4, "report type")  # 0x4c8
    if kind != _SNP:
        name = "a report of Intel TDX" if kind == _TDX else f"of the unknown type {kind}"
        raise reader.error("report type", f"this is {name}, not of SEV-SNP", back=4)
    code = reader.number(4, "hash type")  # 0x4cc
    if code not in _HASHES:
        raise reader.error("hash type", f"unknown code {code:#x}", back=4)
    length = reader.number(4, "JSON length")  # 0x4d0
    if length != size - _DATA_HEADER:
        reason = f"{length} bytes; the data size leaves {size - _DATA_HEADER}"
        raise reader.error("JSON length", reason, back=4)
    return RuntimeData(content=reader.raw(length, "runtime data"), hash_name=_HASHES[code])
