"""The files and folders that hold a report of an SEV-SNP guest."""

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sev_attest.errors import MalformedInput
from sev_attest.snp.certificate_table import read_table
from sev_attest.snp.hcl import read_hcl
from sev_attest.snp.packaging import is_certificate, read_evidence, read_folder
from sev_attest.testing import Platform
from snp_reports import (
    EXTRA,
    JSON,
    PACKAGINGS,
    SIZE,
    VCEK,
    VLEK,
    bound,
    hcl,
    header,
    report,
    table,
    url_safe,
)

Pack = Callable[[bytes], bytes]
DER = b"\x30\x82a certificate"
PEM = b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("pack", PACKAGINGS.values(), ids=PACKAGINGS)
def test_a_report_is_found_in_every_packaging(pack: Pack, version: int) -> None:
    assert read_evidence(pack(report(version))).report.raw == report(version)


@pytest.mark.parametrize("pack", PACKAGINGS.values(), ids=PACKAGINGS)
def test_every_truncation_is_the_report_or_malformed(pack: Pack) -> None:
    data = pack(report())
    for size in range(0, len(data), 1 if len(data) < 3000 else 7):
        with suppress(MalformedInput):
            assert read_evidence(data[:size]).report.raw == report()


def test_a_plain_report_has_nothing_beside_it() -> None:
    found = read_evidence(report())
    assert (found.certificates, found.runtime_data, found.notes) == ((), None, ())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b" \n", "0 bytes, expected 1184"),
        (report()[:-1], "1183 bytes, expected 1184"),
        (report()[:-1].hex().encode(), "1183 bytes, expected 1184"),
        (b"nothing of the kind!", "not base64"),
        (DER, "this is a certificate or CRL; a report was expected"),
        (PEM, "this is a certificate or CRL; a report was expected"),
        (bytes(SIZE), "version 0: versions 2, 3 and 5 are known"),
        (header(report(), status=0x16), "firmware refused to report: status 0x16"),
        (header(report(), size=1183), "version 0: versions 2, 3 and 5 are known"),
        (header(report())[:-1], "report at byte 0x20: 1183 bytes left, 1184 needed"),
        (b"\1" + bytes(4095), "version 1: versions 2, 3 and 5 are known"),
        (header(report()) + b"\1", "bytes after the report are not zero"),
        (b"{}", "the JSON has 0 reports, one was expected"),
        (b'{"hcl_report":"","report":""}', "the JSON has 2 reports, one was expected"),
        (b'{"report": 5}', "field by field"),
        (b'{"report": [256]}', "the list has other values than bytes"),
        (b'{"report": [true]}', "the list has other values than bytes"),
        (b'{"report": "?"}', "SEV-SNP report (report) at byte"),
        (b'{"report": "\xed\xa0\x80"}', "not base64"),
        (b'{"report"', "this is no JSON"),
    ],
)
def test_what_is_no_report_is_called_what_it_is(data: bytes, words: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        read_evidence(data)
    assert words in str(caught.value)
    assert "formats: " in caught.value.hint


def of_sev() -> dict[str, bytes]:
    chain = Platform(b"sev").export()
    info = b"sev-measurement: " + base64.b64encode(bytes(48)) + b"\nsev-api-major: 1\n"
    return {
        "these are certificates of SEV (PDH, PEK, OCA, CEK)": chain.to_bytes(),
        "these are certificates of SEV (PDH)": base64.b64encode(chain.pdh.to_bytes()),
        "this is the measurement of an SEV or SEV-ES launch": info,
    }


OF_SEV = of_sev()


@pytest.mark.parametrize("words", OF_SEV)
def test_what_is_of_sev_is_called_that(words: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        read_evidence(OF_SEV[words])
    assert caught.value.reason == f"{words}; a report of SEV-SNP was expected"
    assert "`sev-attest validate`" in caught.value.hint


@pytest.mark.parametrize("data", [b"sev-api-major: 1\n", b'{"policy": 5}'])
def test_what_only_resembles_a_report_of_sev_is_not_called_one(data: bytes) -> None:
    with pytest.raises(MalformedInput) as caught:
        read_evidence(data)
    assert "SEV-ES" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x90\x0a\x08\x02\x18\x80\x80\x0c" + bytes(1290),
        b"\x0a\x05\x08\x03\x18\x80\x0c",
        b"report:  {\n  version:  2\n  policy:  196608\n}\n",
        b"\nreport { version: 3 }",
    ],
)
def test_a_report_that_protobuf_has_field_by_field_is_called_what_it_is(data: bytes) -> None:
    with pytest.raises(MalformedInput, match="this is go-sev-guest's protobuf") as caught:
        read_evidence(data)
    assert "-outform bin" in caught.value.hint


def test_a_report_after_an_empty_line_is_read() -> None:
    for text in (report().hex().encode(), base64.b64encode(report())):
        assert read_evidence(b"\n" + text).report.raw == report()


# Azure


@pytest.mark.parametrize(("code", "name"), [(1, "sha256"), (2, "sha384"), (3, "sha512")])
def test_runtime_data_is_bound_by_its_hash(code: int, name: str) -> None:
    found = read_evidence(hcl(report(report_data=bound(name=name)), hash=code))
    assert found.runtime_data is not None
    assert (found.runtime_data.content, found.runtime_data.hash_name) == (JSON, name)
    assert found.runtime_data.bound_to(found.report)
    assert len(found.notes) == 1
    for other in (bound(JSON + b" ", name), bound(name=name)[:-1] + b"\1"):
        found = read_evidence(hcl(report(report_data=other), hash=code))
        assert found.runtime_data is not None
        assert not found.runtime_data.bound_to(found.report)
        assert "not bound" in found.notes[1]


LIES: list[tuple[dict[str, int], str]] = [
    ({"version": 0}, "version at byte 0x4: version 0"),
    ({"version": 3}, "version at byte 0x4: version 3"),
    ({"size": 0}, "the blob's size leaves -1216"),
    ({"size": 0x4C0}, "the blob's size leaves 0"),
    ({"size": 2**32 - 1}, "the blob's size leaves 4294966079"),
    ({"data": 0}, "data size at byte 0x4c0"),
    ({"data": 2**32 - 1}, "data size at byte 0x4c0"),
    ({"type": 4}, "report type at byte 0x4c8: this is a report of Intel TDX"),
    ({"type": 1}, "report type at byte 0x4c8: this is of the unknown type 1"),
    ({"hash": 0}, "hash type at byte 0x4cc: unknown code 0x0"),
    ({"hash": 4}, "hash type at byte 0x4cc: unknown code 0x4"),
    ({"length": 0}, "JSON length at byte 0x4d0: 0 bytes"),
    ({"length": 2**32 - 1}, "JSON length at byte 0x4d0"),
    ({"length": 5000, "data": 5020, "size": 0x4C0 + 5020}, "runtime data at byte 0x4d4"),
    ({"length": 1, "data": 21, "size": 0x4C0 + 21}, "bytes after the runtime data are not zero"),
    ({"data": 4, "size": 0x4C4, "length": 2**32 - 16}, "the data size leaves -16"),
]


@pytest.mark.parametrize(("changes", "words"), LIES)
def test_lengths_and_codes_of_an_hcl_blob_that_lie_are_malformed(
    changes: dict[str, int], words: str
) -> None:
    with pytest.raises(MalformedInput) as caught:
        read_evidence(hcl(report(), **changes))
    assert words in str(caught.value)


def test_other_blobs_are_no_hcl_blob() -> None:
    with pytest.raises(MalformedInput, match="this does not begin with HCLA"):
        read_hcl(report())
    blob = bytearray(hcl(report()))
    blob[0x10] = 1
    with pytest.raises(MalformedInput, match="reserved at byte 0x10"):
        read_hcl(bytes(blob))


# certificate tables


def test_certificates_of_a_table_come_as_they_are() -> None:
    entries = table((VCEK, DER), (VLEK, b""), (EXTRA, b"extra"), (VCEK[::-1], b"?"))
    found = read_evidence(report() + entries)
    assert found.certificates == (("certificate table, VCEK", DER),)
    assert found.notes == (
        "not used of the certificate table: go-sev-guest's extra platform info",
        "not used of the certificate table: dcca8eb3-9b4f-5cda-4654-466ed857ad36",
    )


def entry(offset: int, size: int, guid: bytes = b"\1" * 16) -> bytes:
    return guid + struct.pack("<II", offset, size)


END = bytes(24)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (entry(48, 8), "GUID at byte 0x18: 0 bytes left, 16 needed"),
        (entry(48, 8)[:-1], "content length at byte 0x14"),
        (entry(24, 0)[:20], "content length at byte 0x14"),
        (entry(48, 9) + END + bytes(8), "9 bytes at 0x30 are outside of the table's 56 bytes"),
        (entry(2**32 - 1, 1) + END, "outside of the table"),
        (entry(48, 2**32 - 1) + END, "outside of the table"),
        (entry(2**32 - 1, 2**32 - 1) + END, "outside of the table"),
        (entry(0, 8) + END, "contents overlap at byte 0x0"),
        (entry(47, 8) + END + bytes(8), "contents overlap at byte 0x2f"),
        (entry(72, 8) * 2 + END + bytes(8), "contents overlap at byte 0x48"),
        (entry(79, 9) + entry(72, 8) + END + bytes(16), "contents overlap at byte 0x4f"),
        (entry(72, 16) + entry(76, 1) + END + bytes(16), "contents overlap at byte 0x4c"),
        (entry(2000, 0) * 65 + END, "more than 64 entries"),
        (entry(2000, 0) * 10**6 + END, "more than 64 entries"),
        (b"\1" * 24 * 10**6, "more than 64 entries"),
        (entry(48, 8) + bytes(16) + b"\1" + bytes(7) + bytes(8), "end at byte 0x28: reserved"),
    ],
)
def test_tables_that_lie_are_malformed(data: bytes, words: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        read_table(data)
    assert words in str(caught.value)


def test_a_table_may_be_missing_empty_or_full_and_in_any_order() -> None:
    assert read_table(b"") == read_table(END) == read_table(bytes(4096)) == ()
    full = entry(2**32 - 1, 0) * 64
    assert read_table(full + END) == ()
    one, other = read_table(entry(80, 8) + entry(72, 8) + END + b"A" * 8 + b"B" * 8)
    assert (one.content, other.content, one.guid) == (b"B" * 8, b"A" * 8, one.name)


# JSON


@pytest.mark.parametrize(
    ("name", "value", "content"),
    [
        ("vcek", PEM.decode(), PEM),
        ("vcek", url_safe(DER), DER),
        ("vcekCert", PEM.decode(), PEM),
        ("certificateChain", PEM.decode() * 2, PEM * 2),
    ],
)
def test_certificates_of_a_json_come_with_its_report(name: str, value: str, content: bytes) -> None:
    document = {"hcl_report": url_safe(hcl(report())), name: value, "tpm_quote": {}}
    found = read_evidence(json.dumps(document).encode())
    assert found.certificates == ((name, content),)
    assert found.notes[-1] == "the TPM quote of the JSON is not checked"


@pytest.mark.parametrize("name", ["vcek", "vcekCert"])
def test_a_certificate_that_is_no_text_is_malformed(name: str) -> None:
    document: dict[str, Any] = {"report": report().hex(), name: {}}
    with pytest.raises(MalformedInput, match="is no text"):
        read_evidence(json.dumps(document).encode())


# folders

THIM = json.dumps({"vcekCert": PEM.decode(), "tcbm": "0", "certificateChain": "MII="}).encode()


@pytest.mark.parametrize(
    "name", ["attestation-report.bin", "outblob", "report.hex", "sub/anything"]
)
def test_a_report_is_found_in_a_folder(name: str) -> None:
    data = report().hex().encode() if name == "report.hex" else report()
    files = {
        name: data, "certs/vcek.der": DER, "certs/ask.pem": PEM, "request-data.txt": b"random",
        "provider": b"sev_guest\n", "generation": b"1\n", "thim.json": THIM, "broken.json": b"{",
    }  # fmt: skip
    found = read_folder(files)
    assert found.report.raw == report()
    assert found.certificates == (
        ("certs/vcek.der", DER), ("certs/ask.pem", PEM), ("thim.json, vcekCert", PEM),
        ("thim.json, certificateChain", base64.b64decode("MII=")),
    )  # fmt: skip


def test_the_folder_of_configfs_tsm_has_its_certificates_in_auxblob() -> None:
    files = {"outblob": report(), "auxblob": table((VLEK, DER), (EXTRA, b"e"))}
    found = read_folder(files)
    assert found.certificates == (("certificate table, VLEK", DER),)
    assert len(found.notes) == 1
    with pytest.raises(MalformedInput, match="auxblob: certificate table"):
        read_folder(files | {"auxblob": b"\1"})
    with pytest.raises(MalformedInput, match="outblob: SEV-SNP report: 1 bytes"):
        read_folder(files | {"outblob": b"\1"})


@pytest.mark.parametrize(
    ("more", "notes"),
    [
        ({}, ()),
        ({"inblob": b""}, ()),
        ({"inblob": bytes(64)}, ()),
        (
            {"inblob": b"\1" * 64},
            ("inblob is not the report_data of this report: it answers another request",),
        ),
        ({"inblob": b"\1" * 64, "manifestblob": b"of an SVSM"}, ()),
    ],
)
def test_a_request_that_the_report_does_not_answer_is_noted(
    more: dict[str, bytes], notes: tuple[str, ...]
) -> None:
    assert read_folder({"outblob": report(report_data=bytes(64)), **more}).notes == notes


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no file of this folder is a report"),
        ({"a": b"", "b": PEM, "c": bytes(SIZE)}, "no file of this folder is a report"),
        ({"a": report(), "b": report()}, "these are 2 reports, name one: a, b"),
        (dict.fromkeys("abcde", report()), "these are 5 reports, name one: a, b, c, ..."),
    ],
)
def test_a_folder_without_one_report_is_refused(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        read_folder(files)
    assert str(caught.value) == f"SEV-SNP report: {words}" or words in str(caught.value)


@pytest.mark.parametrize("name", ["outblob", "attestation-report.bin"])
def test_a_folder_with_another_report_is_refused(name: str) -> None:
    """Else the verdict would be on the one, and the reader might mean the other."""
    other = report(guest_svn=7)
    with pytest.raises(MalformedInput, match=f"these are 2 reports, name one: z.bin, {name}"):
        read_folder({"z.bin": hcl(other), name: report()})
    assert read_folder({"z.bin": hcl(report()), name: report()}).report.raw == report()


def test_certificates_are_told_by_their_beginning() -> None:
    assert is_certificate(DER)
    assert is_certificate(PEM)
    assert is_certificate(b"text before\n" + PEM)
    assert not any(map(is_certificate, (report(), THIM, b"", hcl(report()))))


# real ones


@pytest.mark.parametrize("pack", PACKAGINGS.values(), ids=PACKAGINGS)
def test_real_reports_are_found_in_every_packaging(real: Path, pack: Pack) -> None:
    found = sorted((real / "snp" / "reports").iterdir())
    assert len(found) >= 22
    for path in found:
        data = path.read_bytes()
        assert read_evidence(pack(data)).report.raw == data


def test_the_runtime_data_of_real_azure_vms_is_bound(real: Path) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["hcl"]
    assert len(known) >= 6
    for case in known.values():
        found = read_evidence((folder / case["blob"]).read_bytes())
        is_bound, name, digest = case["expect"]
        assert found.runtime_data is not None
        assert found.runtime_data.bound_to(found.report) is is_bound
        assert found.runtime_data.hash_name == name
        assert hashlib.sha256(found.report.raw).hexdigest() == digest
        assert b"HCLAkPub" in found.runtime_data.content


def test_real_evidence_of_trustee_has_report_and_vcek(real: Path) -> None:
    folder = real / "snp" / "hcl"
    for version in ("v0", "v1", "v2", "genoa"):
        found = read_evidence((folder / f"evidence-{version}.json").read_bytes())
        same = read_evidence((folder / f"trustee-evidence-{version}.bin").read_bytes())
        assert (found.report, found.runtime_data) == (same.report, same.runtime_data)
        ((source, content),) = found.certificates
        assert (source, is_certificate(content)) == ("vcek", True)
