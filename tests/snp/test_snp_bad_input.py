"""What strangers may send to `snp verify` and `snp show`: exit code 6 or 1, and nothing else."""

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest.errors import MalformedInput, ReportInvalid
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.packaging import read_evidence
from sev_attest.snp.report import LAYOUT
from sev_attest.snp.verify import CHECKS, verify_report
from sev_attest.testing.snp import SnpPlatform
from snp_material import (
    AMD,
    AT,
    MILAN,
    PLATFORMS,
    VCEK_GUID,
    failures,
    pem,
    read,
    table,
)
from snp_reports import PACKAGINGS, hcl
from test_snp_verify import Fault, faults

VERIFY = ("snp", "verify", "report", "certs", "--trust-root", "root")
FIELDS = [row.name for row in LAYOUT]


@pytest.fixture(autouse=True)
def files(here: Path) -> None:
    """Lay out a report and its certificates."""
    for name, data in {
        "report": MILAN.report(), "certs": MILAN.certificates(), "root": AMD.ark,
    }.items():  # fmt: skip
        Path(name).write_bytes(data)


def refused(run: Run, code: int, words: str = "") -> None:
    """Verify: it must end with this code, in words and in JSON; what malformed input must too."""
    ran = run(*VERIFY)
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert ran.err.startswith("error: ")
    ran = run(*VERIFY, "--json")
    assert (ran.code, ran.err) == (code, "")
    document = json.loads(ran.out)
    assert (document["ok"], document["exit"]) == (False, code)
    assert document["schema"] == "sev-attest/snp-verify/1"


# reports


@pytest.mark.parametrize("pack", PACKAGINGS.values(), ids=PACKAGINGS)
def test_a_truncated_report_does_not_verify(pack: Any) -> None:
    data, certificates = pack(MILAN.report()), read(MILAN.certificates())
    step = 1 if len(data) < 1300 else 97
    for size in range(0, len(data), step):
        with suppress(MalformedInput, ReportInvalid):
            evidence = read_evidence(data[:size])
            verify_report(evidence.report, certificates, roots=[AMD.root], at=AT)
            # Only what is behind the report was cut: zeros, a new line, a closing bracket.
            assert evidence.report.raw == MILAN.report()


@pytest.mark.parametrize("size", [0, 1, 4, 0x2A0, 1183, 1185, 1216, 4000])
def test_a_report_of_another_length_is_malformed(run: Run, size: int) -> None:
    Path("report").write_bytes(MILAN.report().ljust(size, b"\1")[:size])
    refused(run, 6, "error: report: ")
    assert run("snp", "show", "report").code == 6


@pytest.mark.parametrize("version", [0, 1, 4, 6, 9, 2**32 - 1])
def test_a_signed_report_of_an_unknown_version_is_malformed(run: Run, version: int) -> None:
    Path("report").write_bytes(MILAN.report(poked={0: struct.pack("<I", version)}))
    refused(run, 6, f"version {version}: versions 2, 3 and 5 are known")
    assert run("snp", "show", "report").code == 6


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"], ids=["0", "the most"])
def test_0_and_the_most_in_every_field_are_judged(version: int, byte: bytes) -> None:
    """Signed: what no check is about verifies, as it came. Else exactly one check fails."""
    bound = {
        "key_info": "snp.vek.kind", "reported_tcb": "snp.vek.tcb", "chip_id": "snp.vek.hwid",
        "signature_algo": "snp.report.signature", "policy": "snp.report.reserved",
        "cpuid_family": "snp.vek.product", "cpuid_model": "snp.vek.product",
    }  # fmt: skip
    for row in LAYOUT:
        if row.since > version or row.name == "version":
            continue
        report = MILAN.report(version=version, poked={row.offset: byte * row.size})
        found = failures(report, MILAN.certificates())
        wanted = {bound[row.name]} if row.name in bound else set()
        if (row.name, byte) in (("key_info", b"\0"), ("cpuid_model", b"\0")):
            wanted = set()  # a VCEK's, without an author key; a model of Milan
        assert found.keys() == wanted, row.name


@pytest.mark.parametrize("name", FIELDS)
def test_0_and_the_most_in_a_field_end_with_a_verdict_or_malformed(run: Run, name: str) -> None:
    (row,) = (one for one in LAYOUT if one.name == name)
    for byte in (b"\0", b"\xff"):
        Path("report").write_bytes(MILAN.report(version=5, poked={row.offset: byte * row.size}))
        ran, shown = run(*VERIFY, "--json"), run("snp", "show", "report")
        malformed = name == "version"
        assert ran.code in ((6,) if malformed else (0, 1))
        assert shown.code == (6 if malformed else 0)
        if not malformed:
            failed = json.loads(ran.out)["failed"]
            assert (failed == []) is (ran.code == 0)
            assert set(failed) <= CHECKS.keys()


# certificates


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda one: one.authority.product.name)
def test_a_truncated_certificate_is_malformed(platform: SnpPlatform) -> None:
    for data in (platform.vek(), platform.authority.ask):
        for size in range(len(data)):
            with pytest.raises(MalformedInput):
                read_certificates(data[:size])


def bombs() -> Iterator[tuple[str, bytes]]:
    """Certificates and tables that claim more than there is."""
    yield "nested", b"".join(b"\x30\x83" + n.to_bytes(3, "big") for n in range(40_000, 0, -5))
    yield "indefinite", b"\x30\x80" * 100_000
    yield "lengths", b"\x30\x84\xff\xff\xff\xff" * 10_000
    yield "PEM of 10 MB", pem(bytes(7_800_000))
    yield "many PEM of 10 MB", pem(MILAN.vek()) * 5400
    yield "PEM that does not end", b"-----BEGIN CERTIFICATE-----\n" * 30_000
    entry = bytes.fromhex(VCEK_GUID.replace("-", ""))
    yield "table of 10^6", (entry + struct.pack("<II", 1 << 31, 0)) * 10**6 + bytes(24)
    yield "table of 40000", (entry + struct.pack("<II", 1 << 31, 0)) * 40_000 + bytes(24)
    yield "table, outside", entry + struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(24)
    at = struct.pack("<II", 72, 8)
    yield "table, overlapping", (entry + at) * 2 + bytes(24) + bytes(8)


BOMBS = dict(bombs())


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_malformed_wherever_it_comes(run: Run, name: str) -> None:
    Path("certs").write_bytes(BOMBS[name])
    refused(run, 6)
    assert run("snp", "show", "certs").code == 6
    Path("report").write_bytes(MILAN.report() + BOMBS[name])
    refused(run, 6)
    Path("report").write_bytes(BOMBS[name])
    refused(run, 6)


def test_of_two_vceks_only_the_chip_s_own_counts(run: Run) -> None:
    other = SnpPlatform.of(b"another chip", AMD)
    third = SnpPlatform.of(b"a third chip", AMD)
    both = (MILAN.vek(), other.vek())
    for parts in (both, both[::-1]):
        Path("certs").write_bytes(b"".join(parts) + AMD.ask)
        assert run(*VERIFY).code == 0
        Path("report").write_bytes(MILAN.report() + table(*((VCEK_GUID, one) for one in parts)))
        Path("certs").write_bytes(AMD.ask)
        assert run(*VERIFY).code == 0
        Path("report").write_bytes(MILAN.report())
    for parts in ((other.vek(), third.vek()), (third.vek(), other.vek())):
        Path("certs").write_bytes(b"".join(parts) + AMD.ask)
        refused(run, 1, "the VCEK is another chip's")


# what else there is


@pytest.mark.parametrize("at", [4, 8, 0x4C0, 0x4C8, 0x4CC, 0x4D0])
@pytest.mark.parametrize("value", [0, 5, 0x4C0, 2**31, 2**32 - 1])
def test_lengths_of_an_hcl_blob_that_lie_are_malformed(run: Run, at: int, value: int) -> None:
    blob = bytearray(hcl(MILAN.report()))
    blob[at : at + 4] = struct.pack("<I", value)
    for data in (bytes(blob), base64.b64encode(blob), b'{"hcl_report":"%b"}' % blob.hex().encode()):
        Path("report").write_bytes(data)
        refused(run, 6, "error: report: HCL blob")
        assert run("snp", "show", "report").code == 6


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_a_forged_report_fails_for_exactly_its_check_on_the_command_line(
    run: Run, fault: Fault
) -> None:
    Path("report").write_bytes(fault.report)
    Path("certs").write_bytes(b"".join(fault.parts))
    Path("root").write_bytes(fault.platform.authority.ark)
    trusted = () if "forged" in fault.name else ("--trust-root", "root")
    ran = run("snp", "verify", "report", "certs", *trusted, "--at", AT.isoformat(), "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["failed"]) == (1, [fault.check])
    assert fault.words in document["errors"][0]["message"]
