"""File formats that hold certificates of SEV-SNP and revocation lists.

DER or PEM, one or several; hex or base64 of DER; a certificate table; the JSON of Azure's metadata
service. Everything in a file has to be one of AMD's certificates or lists.

Does not verify: anything.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from sev_attest._der import INTEGER, SEQUENCE, Der
from sev_attest._encoding import (
    from_base64,
    from_text,
    json_documents,
    looks_like_json,
    looks_like_text,
)
from sev_attest._snp import TABLE_CERTIFICATES
from sev_attest.errors import MalformedInput, reading
from sev_attest.snp.certificates import STRUCTURE as X509
from sev_attest.snp.certificates import Certificate
from sev_attest.snp.packaging import json_certificates, sev_roles
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import REPORT_SIZE

if TYPE_CHECKING:
    from sev_attest.snp.certificate_table import Entry
    from sev_attest.snp.revocation import RevocationList

MAX_FILE = 1 << 20
"""Most bytes of a file; a whole chain takes about 6 KiB."""
STRUCTURE = "certificates"
"""What errors call a file in which nothing was recognised."""
_FORMATS = (
    "formats: VCEK, VLEK, ASK, ASVK, ARK and revocation lists, one or several, DER or PEM, hex or "
    "base64; a certificate table"
)
_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_LABELS = (b"CERTIFICATE", b"X509 CRL")
_MOST_SHOWN = 40
_SEQUENCE = bytes([SEQUENCE])

X509Value: TypeAlias = "Certificate | RevocationList"
"""What a file may hold."""


def read_certificates(data: bytes) -> list[X509Value]:
    """Read the certificates and revocation lists of one file, in order, in any known format.

    Raises MalformedInput for anything else, and if there are none.
    """
    if not data:
        raise MalformedInput(STRUCTURE, "length", "the file is empty", hint=_FORMATS)
    if len(data) > MAX_FILE:
        raise MalformedInput(STRUCTURE, "length", f"more than {MAX_FILE} bytes", hint=_FORMATS)
    try:
        found = list(_any(data))
    except MalformedInput as error:
        if error.structure != X509:  # the format was recognised
            error.hint = error.hint or _FORMATS
        raise
    if not found:
        raise MalformedInput(STRUCTURE, "format", "there are none", hint=_FORMATS)
    return found


def _any(data: bytes) -> Iterator[X509Value]:
    # Text comes before DER: hex and base64 may begin with "0", which is the tag of a SEQUENCE.
    if looks_like_json(data):
        return _json(data)
    if not data.strip() or not looks_like_text(data):
        return _binary(data)
    return _pem(data) if _BEGIN in data else _binary(_decoded(data))


def _decoded(text: bytes) -> bytes:
    """Decode hex or base64; what is SEV's is named as such."""
    try:
        return from_text(text, STRUCTURE)
    except MalformedInput as error:
        raise _other(text) or error from None


def _binary(data: bytes) -> Iterator[X509Value]:
    if data[:1] == _SEQUENCE:
        return _der(data)
    from sev_attest.snp.certificate_table import read_table

    try:
        entries = read_table(data)
    except MalformedInput:
        if _BEGIN in data:  # PEM, with text around it that is not ASCII
            return _pem(data)
        words = "this is neither a certificate nor a file format that holds one"
        raise _other(data) or MalformedInput(STRUCTURE, "format", words) from None
    chosen = [entry for entry in entries if entry.guid in TABLE_CERTIFICATES]
    if not chosen:
        raise _other(data) or MalformedInput(STRUCTURE, "format", "there are none")
    return _table(chosen)


def _table(entries: "list[Entry]") -> Iterator[X509Value]:
    """Yield the contents of a certificate table: DER, or PEM as some hosts have it."""
    for entry in entries:
        with reading(f"certificate table, {entry.name}"):
            yield from _pem(entry.content) if _BEGIN in entry.content else _der(entry.content)


def _der(data: bytes) -> Iterator[X509Value]:
    """Yield the certificates and lists of DER in a row."""
    values = Der(data, X509)
    while values.more:
        one = values.whole(SEQUENCE, "format")
        # The first value of a certificate's body is its version as [0], that of a list an INTEGER.
        inside = Der(one, X509).inside(SEQUENCE, "format").inside(SEQUENCE, "format")
        if inside.tag == INTEGER:
            from sev_attest.snp.revocation import RevocationList

            yield RevocationList(raw=one)
        else:
            yield Certificate(raw=one)


def _pem(data: bytes) -> Iterator[X509Value]:
    """Yield what the blocks of PEM hold; text around them is ignored (RFC 7468, 2)."""
    for block in data.split(_BEGIN)[1:]:
        label, dashes, rest = block.partition(_DASHES)
        if label not in _LABELS:
            shown = label[:_MOST_SHOWN].decode("latin-1")
            raise MalformedInput("PEM", "label", f"{shown!r} is neither CERTIFICATE nor X509 CRL")
        text, end, _ = rest.partition(_END + label + _DASHES)
        if not dashes or not end:
            raise MalformedInput("PEM", "format", "a block does not end")
        yield from _der(from_base64(text, "PEM"))


def _json(data: bytes) -> Iterator[X509Value]:
    for document in json_documents(data, STRUCTURE):
        for one in json_certificates(document):
            with reading(one.source):
                yield from _any(one.content)


def _other(data: bytes) -> MalformedInput | None:
    """Return the error for what people take for certificates of SEV-SNP; None if it is not that."""
    try:
        AttestationReport.from_bytes(data[:REPORT_SIZE])
    except MalformedInput:
        return _sev(data)
    reason = "this is a report; certificates were expected"
    return MalformedInput(STRUCTURE, "format", reason)


def _sev(data: bytes) -> MalformedInput | None:
    """Return the error for certificates of SEV: the CEK of a chip is not its VCEK."""
    roles = sev_roles(data)
    if not roles:
        return None
    hint = "SEV-SNP needs the VCEK, or a VLEK, from AMD or the cloud provider"
    if {*roles} <= {"ASK", "ARK"}:
        hint = "AMD's ASK and ARK have the same keys for SEV-SNP, and are built in: leave it out"
    reason = f"these are certificates of SEV ({', '.join(roles)}), not of SEV-SNP"
    return MalformedInput(STRUCTURE, "format", reason, hint=hint)
