"""File formats that hold a report, and what comes with it.

One file: the report itself, followed by a certificate table or not; behind the header of the
kernel's response; in Azure's HCL blob; hex or base64 of these; JSON with one of these. A folder:
as snpguest leaves it, as Linux shows it (configfs-tsm), or any other with one report.

Does not verify: anything. Certificates are returned as they came, unparsed.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sev_attest._encoding import (
    from_text,
    json_documents,
    looks_like_json,
    looks_like_text,
)
from sev_attest._snp import HCL_MAGIC, RESPONSE_HEADER, TABLE_CERTIFICATES
from sev_attest._wire import Reader, number_at
from sev_attest.errors import MalformedInput, SevAttestError, reading
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import REPORT_SIZE, STRUCTURE

if TYPE_CHECKING:
    from sev_attest.snp.hcl import RuntimeData

MAX_FILE = 1 << 20
"""Most bytes of a file; a report with its certificates takes about 10 KiB."""
_FORMATS = (
    "formats: 1184 bytes, binary, hex or base64; behind the header of the kernel's response; "
    "followed by a certificate table; Azure's HCL blob; a folder of snpguest or configfs-tsm"
)
_SEV_HINT = "`sev-attest verify` and `sev-attest validate` are for SEV and SEV-ES guests"
_RESPONSE = "response"
_PEM = b"-----BEGIN "
_DER = b"\x30\x82"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
# google/go-sev-guest proto/sevsnp.proto, Attestation: field 1 is the report, whose field 1 is its
# version; binary, or as text.
_PROTOBUF = re.compile(rb"\n[\x80-\xff]{0,4}[\x00-\x7f]\x08|\s*report\s*:?\s*\{")


class CertificateBytes(NamedTuple):
    """What came with a report as its certificates: DER, PEM, one or several; unparsed."""

    source: str
    """Where it was: a file's name, "certificate table, VCEK", "vcek" of a JSON."""
    content: bytes


class Evidence(NamedTuple):
    """A report and what came with it. Does not verify: anything."""

    report: AttestationReport
    certificates: tuple[CertificateBytes, ...] = ()
    runtime_data: "RuntimeData | None" = None
    """What Azure's HCL blob has beside the report."""
    notes: tuple[str, ...] = ()
    """What was found and is not used, or contradicts the report."""


def is_certificate(data: bytes) -> bool:
    """Return whether ``data`` begins like a certificate or CRL: DER or PEM.

    PEM in a certificate table, or in JSON, does not count: the file is a table, or JSON.
    """
    if looks_like_json(data):
        return False
    return data[:2] == _DER or (_PEM in data and b"\0" not in data)


def read_evidence(data: bytes) -> Evidence:
    """Read one file in any known format; raises MalformedInput."""
    if not data:
        raise MalformedInput(STRUCTURE, "length", "the file is empty", hint=_FORMATS)
    if is_certificate(data):
        reason = "this is a certificate or CRL; a report was expected"
        raise MalformedInput(STRUCTURE, "format", reason, hint=_FORMATS)
    if _PROTOBUF.match(data):
        # What was signed could only be guessed: reserved bytes, and fields that a version of
        # go-sev-guest does not know, are lost.
        reason = "this is go-sev-guest's protobuf, which holds a report field by field"
        hint = "write the report as it was signed: -outform bin of go-sev-guest's `attest`"
        raise MalformedInput(STRUCTURE, "format", reason, hint=hint)
    try:
        if looks_like_json(data):
            return _json(data)
        return _binary(from_text(data, STRUCTURE) if looks_like_text(data) else data)
    except MalformedInput as error:
        what = _of_sev(data)
        if what:
            reason = f"{what}; a report of SEV-SNP was expected"
            raise MalformedInput(STRUCTURE, "format", reason, hint=_SEV_HINT) from None
        error.hint = error.hint or _FORMATS
        raise


def sev_roles(data: bytes) -> list[str]:
    """Return the roles of the certificates of SEV that this is; none for anything else."""
    from sev_attest.sev.chain.packaging import read_contents

    with suppress(SevAttestError):
        return [*dict.fromkeys(one.role for one in read_contents(data).certificates)]
    return []


def _of_sev(data: bytes) -> str:
    """Return which material of SEV or SEV-ES this is, in words; "" for anything else."""
    from sev_attest.sev.launch_info import read_report

    roles = sev_roles(data)
    if roles:
        return f"these are certificates of SEV ({', '.join(roles)})"
    with suppress(SevAttestError):
        if read_report(data).measurement is not None:
            return "this is the measurement of an SEV or SEV-ES launch"
    return ""


def _binary(data: bytes) -> Evidence:
    if data.startswith(HCL_MAGIC):
        return _hcl(data)
    if _has_header(data):
        return Evidence(report=_response(data))
    report = AttestationReport.from_bytes(data[:REPORT_SIZE])
    return _with_table(Evidence(report=report), data[REPORT_SIZE:])


def _has_header(data: bytes) -> bool:
    """Return whether the header of a response comes first: zeros where a report has its policy."""
    return number_at(data, 4) == REPORT_SIZE and not any(data[8:RESPONSE_HEADER])


def _response(data: bytes) -> AttestationReport:
    """Read the response to SNP_GET_REPORT: files of 1216 bytes, or of 4000 with zeros at the end.

    Source: google/go-sev-guest client; 32 bytes of status, size and zeros come first.
    """
    reader = Reader(data, _RESPONSE)
    status = reader.number(4, "status")
    if status:
        raise reader.error("status", f"firmware refused to report: status {status:#x}", back=4)
    reader.raw(RESPONSE_HEADER - 4, "size")  # and zeros: _has_header()
    report = AttestationReport.from_bytes(reader.raw(REPORT_SIZE, "report"))
    left = len(data) - RESPONSE_HEADER - REPORT_SIZE
    reader.zeros(left, "padding", what="bytes after the report")
    return report


def _hcl(data: bytes) -> Evidence:
    from sev_attest.snp.hcl import read_hcl

    report, runtime = read_hcl(data)
    notes = ["Azure makes this report once, when the VM boots: it does not show that it is fresh"]
    if not runtime.bound_to(report):
        notes.append("the runtime data beside the report is not bound to it: do not trust that")
    return Evidence(report=report, runtime_data=runtime, notes=tuple(notes))


def _with_table(evidence: Evidence, table: bytes) -> Evidence:
    """Add the contents of a certificate table, which may be missing: no bytes."""
    if not table:
        return evidence
    from sev_attest.snp.certificate_table import read_table

    certificates, notes = [], []
    for entry in read_table(table):
        if entry.guid in TABLE_CERTIFICATES:
            source = f"certificate table, {entry.name}"
            certificates.append(CertificateBytes(source, entry.content))
        else:
            notes.append(f"not used of the certificate table: {entry.name}")
    return evidence._replace(
        certificates=(*evidence.certificates, *certificates),
        notes=(*evidence.notes, *notes),
    )


# Trustee's evidence of Azure VMs has "hcl_report" (before: "report", a list of numbers) and "vcek";
# Azure's metadata service answers with "vcekCert" and "certificateChain".
_REPORTS = ("hcl_report", "report", "attestation_report")
_CERTIFICATES = ("vcek", "vcekCert", "certificateChain")


def _json(data: bytes) -> Evidence:
    documents = json_documents(data, STRUCTURE)
    found = [(document, name) for document in documents for name in _REPORTS if name in document]
    if len(found) != 1:
        names = ", ".join(_REPORTS)
        reason = f"the JSON has {len(found)} reports, one was expected (under {names})"
        raise MalformedInput(STRUCTURE, "format", reason)
    document, name = found[0]
    try:
        evidence = _binary(_json_bytes(document[name], name))
    except MalformedInput as error:
        error.part = name
        raise
    certificates = tuple(json_certificates(document))
    notes = evidence.notes
    if "tpm_quote" in document or "quote" in document:
        notes += ("the TPM quote of the JSON is not checked",)
    return evidence._replace(certificates=evidence.certificates + certificates, notes=notes)


def json_certificates(document: Mapping[str, object]) -> Iterator[CertificateBytes]:
    """Yield the certificates of a JSON object: Azure's, or trustee's; raises MalformedInput."""
    for name in _CERTIFICATES:
        if name in document:
            value = document[name]
            if isinstance(value, str) and _PEM.decode() in value:
                yield CertificateBytes(name, value.encode("utf-8", "surrogatepass"))
            else:
                yield CertificateBytes(name, _json_bytes(value, name))


def _json_bytes(value: object, name: str) -> bytes:
    """Decode bytes in JSON: hex, base64 (that of URLs too), or a list of numbers."""
    if isinstance(value, list):
        if all(type(one) is int and one in range(256) for one in value):
            return bytes(value)
        raise MalformedInput(STRUCTURE, "format", "the list has other values than bytes", part=name)
    if not isinstance(value, str):
        reason = "is no text; a report given field by field has lost what was signed"
        raise MalformedInput(STRUCTURE, "format", reason, part=name)
    text = value.encode("utf-8", "surrogatepass").translate(_URL_SAFE)
    try:
        return from_text(text, STRUCTURE)
    except MalformedInput:  # base64 of URLs has no padding
        return from_text(text + b"=" * (-len(text) % 4), STRUCTURE)


_SNPGUEST = "attestation-report.bin"
_NAMED = 3
_OUTBLOB, _AUXBLOB, _INBLOB = "outblob", "auxblob", "inblob"


def read_folder(files: Mapping[str, bytes]) -> Evidence:
    """Read the files of a folder, by their names in it ("certs/vcek.pem").

    Raises MalformedInput if none of them is a report, or several are: beside a file with a name
    that is known there may be copies of the same report, and no other report.
    """
    found = dict(_reports(files))
    name = next((known for known in (_OUTBLOB, _SNPGUEST) if known in files), None)
    if name is None or len({report.raw for report in found.values()}) > 1:
        name = _only(list(found))
    with reading(name):
        evidence = read_evidence(files[name])
    if name == _OUTBLOB:
        with reading(_AUXBLOB):
            evidence = _with_table(evidence, files.get(_AUXBLOB, b""))
        evidence = evidence._replace(notes=(*evidence.notes, *_request_notes(files, evidence)))
    certificates = [one for path, data in files.items() for one in _certificates(path, data)]
    return evidence._replace(certificates=(*evidence.certificates, *certificates))


def has_report(files: Mapping[str, bytes]) -> bool:
    """Return whether a folder is one of a report: by a file's name, or by what is in one."""
    return bool({_OUTBLOB, _SNPGUEST} & files.keys()) or any(_reports(files))


def _only(found: list[str]) -> str:
    """Return the name of the only report; raises MalformedInput for none, or several."""
    if len(found) == 1:
        return found[0]
    reason = f"no file of this folder is a report ({_SNPGUEST}, {_OUTBLOB}, or any other name)"
    if found:
        more = ", ..." if found[_NAMED:] else ""
        reason = f"these are {len(found)} reports, name one: {', '.join(found[:_NAMED])}{more}"
    raise MalformedInput(STRUCTURE, "format", reason, hint=_FORMATS)


def _reports(files: Mapping[str, bytes]) -> Iterator[tuple[str, AttestationReport]]:
    """Yield the names of the files that are reports, and the reports."""
    for name, data in files.items():
        with suppress(MalformedInput):
            yield name, read_evidence(data).report


def _request_notes(files: Mapping[str, bytes], evidence: Evidence) -> Iterator[str]:
    """Yield a note if configfs-tsm's request is not the one that the report answers.

    With an SVSM the report binds a hash of the request and of the manifest, not the request.
    """
    asked = files.get(_INBLOB)
    if asked and "manifestblob" not in files and asked != evidence.report.report_data:
        yield "inblob is not the report_data of this report: it answers another request"


def _certificates(path: str, data: bytes) -> Iterator[CertificateBytes]:
    """Yield the certificates of another file in a folder; files of other kinds are ignored."""
    if is_certificate(data):
        yield CertificateBytes(path, data)
    elif looks_like_json(data):
        try:
            found = [one for each in json_documents(data, path) for one in json_certificates(each)]
        except MalformedInput:
            return
        yield from (CertificateBytes(f"{path}, {one.source}", one.content) for one in found)
