"""``sev_attest.snp.certificate_files``: certificates as people hold them."""

import base64
import json
from collections.abc import Callable

import pytest

from sev_attest.errors import MalformedInput
from sev_attest.snp.certificate_files import MAX_FILE, read_certificates
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.testing import Platform
from snp_material import (
    AMD,
    ARK_GUID,
    ASK_GUID,
    CRL_GUID,
    EXTRA_GUID,
    MILAN,
    VCEK_GUID,
    VLEK_GUID,
    pem,
    table,
)

VEK, CRL = MILAN.vek(), AMD.crl(1)
CHAIN = pem(AMD.ask) + pem(AMD.ark)


def kinds(data: bytes) -> list[str]:
    return [
        one.kind.name if isinstance(one, Certificate) else "CRL" for one in read_certificates(data)
    ]


def refused(data: bytes) -> MalformedInput:
    with pytest.raises(MalformedInput) as caught:
        read_certificates(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (VEK, "VCEK"),
        (CRL, "CRL"),
        (VEK + AMD.ask + AMD.ark + CRL, "VCEK ASK ARK CRL"),
        (pem(VEK), "VCEK"),
        (pem(CRL, "X509 CRL"), "CRL"),
        (b"subject=/CN=SEV-Milan\n" + CHAIN + b"the end", "ASK ARK"),
        (CHAIN.replace(b"\n", b"\r\n"), "ASK ARK"),
        (b"\xef\xbb\xbf" + CHAIN, "ASK ARK"),
        ("Zürich\n".encode() + CHAIN, "ASK ARK"),
        (VEK.hex().encode(), "VCEK"),
        (base64.encodebytes(VEK), "VCEK"),
        (base64.b64encode(VEK + AMD.ask), "VCEK ASK"),
        (table((VCEK_GUID, VEK), (ASK_GUID, AMD.ask), (ARK_GUID, AMD.ark)), "VCEK ASK ARK"),
        (table((VLEK_GUID, MILAN.vek(Kind.VLEK))), "VLEK"),
        (table((ASK_GUID, pem(AMD.asvk)), (CRL_GUID, CRL), (EXTRA_GUID, bytes(8))), "ASVK CRL"),
        (base64.b64encode(table((VCEK_GUID, VEK))), "VCEK"),
        (json.dumps({"vcekCert": pem(VEK).decode(), "certificateChain": CHAIN.decode()}).encode(),
         "VCEK ASK ARK"),
    ],
)  # fmt: skip
def test_certificates_are_read_in_every_form(data: bytes, expected: str) -> None:
    assert kinds(data) == expected.split()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (bytes(48), "there are none"),
        (b"{}", "there are none"),
        (table((EXTRA_GUID, bytes(8))), "there are none"),
        (b"some text!", "not base64"),
        (pem(b"\0", "PRIVATE KEY"), "'PRIVATE KEY' is neither"),
        (pem(VEK)[:-10], "a block does not end"),
        (b"-----BEGIN CERTIFICATE", "a block does not end"),
        (pem(VEK).replace(b"MII", b"M*I", 1), "not base64"),
        (pem(b""), "there are none"),
        (pem(b"\0"), "tag 0x00 where tag 0x30"),
        (VEK + b"\0", "tag 0x00 where tag 0x30"),
        (VEK[:-1], "bytes left"),
        (b"\x30\x00", "nothing where tag 0x30"),
        (bytes(range(256)), "neither a certificate nor a file format"),
        (table((VCEK_GUID, VEK[:-1])), "certificate table, VCEK: X.509 certificate"),
        (table((VCEK_GUID, VEK))[:-1], "neither a certificate nor a file format"),
        (MILAN.report(), "this is a report; certificates were expected"),
        (MILAN.report().hex().encode(), "this is a report; certificates were expected"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes, words: str) -> None:
    error = refused(data)
    assert words in str(error)
    assert error.exit_code == 6


def test_the_size_of_a_file_is_limited() -> None:
    assert "more than 1048576 bytes" in str(refused(pem(VEK) * 6000))
    assert len(pem(VEK) * 6000) > 10 * MAX_FILE


def test_as_many_as_a_file_holds_are_read() -> None:
    assert len(read_certificates(VEK * 100)) == 100


@pytest.mark.parametrize("form", [bytes, base64.b64encode, lambda data: data.hex().encode()])
def test_sev_s_cek_is_named_as_such(milan: Platform, form: Callable[[bytes], bytes]) -> None:
    error = refused(form(milan.export().cek.to_bytes()))
    assert "these are certificates of SEV (CEK), not of SEV-SNP" in str(error)
    assert "needs the VCEK" in error.hint


def test_sev_s_ask_and_ark_can_be_left_out(milan: Platform) -> None:
    ca = milan.authority.ask.to_bytes() + milan.authority.ark.to_bytes()
    error = refused(ca)
    assert "(ASK, ARK), not of SEV-SNP" in str(error)
    assert "are built in: leave it out" in error.hint
