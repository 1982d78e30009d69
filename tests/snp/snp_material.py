"""Simulated reports and certificates that the tests of SEV-SNP share."""

import base64
from datetime import UTC, datetime

import pytest

from sev_attest import _crypto
from sev_attest._keys import Kem
from sev_attest.errors import ReportInvalid, Unsupported
from sev_attest.snp.certificate_files import X509Value, read_certificates
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.roots import Root
from sev_attest.snp.tcb import Product
from sev_attest.snp.verify import VerifiedReport, verify_report
from sev_attest.testing.snp import SnpAuthority, SnpPlatform

AT = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITIES = {product: SnpAuthority(product) for product in Product}
PLATFORMS = {p: SnpPlatform.of(b"a test chip", a) for p, a in AUTHORITIES.items()}
MILAN = PLATFORMS[Product.MILAN]
AMD = MILAN.authority


def read(*parts: bytes) -> list[X509Value]:
    """Read certificates from several files."""
    return [one for part in parts for one in read_certificates(part)]


def verify(
    report: bytes, *parts: bytes, roots: list[Root] | None = None, at: datetime | None = AT
) -> VerifiedReport:
    """Verify a report with the certificates in these files."""
    trusted = [AMD.root] if roots is None else roots
    return verify_report(AttestationReport.from_bytes(report), read(*parts), roots=trusted, at=at)


def failures(
    report: bytes, *parts: bytes, roots: list[Root] | None = None, at: datetime | None = AT
) -> dict[str, str]:
    """Return the messages of the checks that fail, by id; nothing if all hold."""
    try:
        verify(report, *parts, roots=roots, at=at)
    except ReportInvalid as error:
        failed, held = error.failures, error.held
    else:
        return {}
    found = {failure.check: failure.message for failure in failed}
    assert not found.keys() & held
    return found


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """Return a block of PEM."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def table(*entries: tuple[str, bytes]) -> bytes:
    """Return a certificate table, as the kernel hands it out."""
    header, contents = b"", b""
    start = 24 * (len(entries) + 1)
    for guid, data in entries:
        place = (start + len(contents)).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        header += bytes.fromhex(guid.replace("-", "")) + place
        contents += data
    return header + bytes(24) + contents


VCEK_GUID = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK_GUID = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
ASK_GUID = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
ARK_GUID = "c0b406a4-a803-4952-9743-3fb6014cd0ae"
CRL_GUID = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"
EXTRA_GUID = "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6"


def _lacking(kem: Kem) -> str:
    """Return why keys of a kind cannot be used here; "" if they can."""
    try:
        _crypto.require_hpke(kem)
    except Unsupported as error:
        return str(error)
    return ""


def needs(kem: Kem) -> pytest.MarkDecorator:
    """Return a mark: skip where the installed ``cryptography`` cannot seal to this kind of key."""
    return pytest.mark.skipif(bool(_lacking(kem)), reason=_lacking(kem))


KEMS = [pytest.param(kem, marks=needs(kem), id=kem.label) for kem in Kem]
"""Both kinds of transport keys; one that cannot be used here is skipped."""
