"""``sev-attest domain`` for SEV-SNP guests."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from conftest import Run
from test_cli_domain import SESSION, findings, lay_out
from test_domain_snp import (
    AUTHORED,
    BLOCK,
    ELEMENT,
    HOST_DATA,
    NO_ID,
    POLICY_ELEMENT,
    SNP_CLEAN,
    SNP_LOADER,
    base64_of,
    id_block,
)
from test_domain_xml import CLEAN, HOLE, KERNEL, domcapabilities

HOST = ("--libvirt", "11.3", "--qemu", "10.0", "--host-kernel", "6.12", "--guest-kernel", "6.12")
ID = ("--id-block", "block", "--id-auth", "auth")
BARE = SNP_CLEAN.replace(ELEMENT, "  <launchSecurity type='sev-snp'/>\n")


@pytest.fixture
def files(here: Path) -> Path:
    """Lay out domains, a session, and what goes into the element."""
    lay_out(here)
    domains = {"snp": SNP_CLEAN, "bare": BARE, "none": SNP_CLEAN.replace(ELEMENT, ""), "sev": CLEAN}
    for name, text in domains.items():
        Path(f"{name}.xml").write_text(text)
    Path("block").write_bytes(BLOCK)
    Path("auth").write_text(base64_of(AUTHORED) + "\n")
    Path("data").write_text(HOST_DATA.hex())
    return here


def test_a_clean_domain_is_ok(run: Run, files: Path) -> None:
    ran = run("domain", "check", "snp.xml", *HOST)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "OK: nothing in this domain prevents attestation\n"
    unknown = run("domain", "check", "snp.xml")
    assert unknown.code == 0
    assert findings(unknown.out) == {
        "domain.guest-kernel", "domain.host-kernel", "domain.libvirt", "domain.qemu",
    }  # fmt: skip


def test_an_old_host_is_named(run: Run, files: Path) -> None:
    old = ("--libvirt", "9.0", "--qemu", "7.2", "--host-kernel", "6.1.0-13-amd64")
    ran = run("domain", "check", "snp.xml", *old, "--guest-kernel", "6.1")
    assert ran.code == 4
    for program in ("libvirt 10.5", "QEMU 9.1", "Linux 6.11"):
        assert f": SEV-SNP needs {program} or later, not " in ran.out


@pytest.mark.parametrize("name", ["bare", "none"])
def test_what_is_given_goes_in(run: Run, files: Path, name: str) -> None:
    ran = run("domain", "prepare", f"{name}.xml", *ID, "--host-data", "data", *HOST)
    assert ran.code == 0, ran.err
    assert f"--- {name}.xml\n+++ prepared\n" in ran.err
    assert f"+    <idBlock>{base64_of(BLOCK)}</idBlock>\n" in ran.err
    Path("out.xml").write_text(ran.out)
    checked = run("domain", "check", "out.xml", *HOST)
    assert checked.out == "OK: nothing in this domain prevents attestation\n"
    again = run("domain", "prepare", "out.xml", *ID, "--host-data", HOST_DATA.hex().upper(), *HOST)
    assert (again.out, "---" in again.err) == (ran.out, False)
    if name == "none":
        assert ran.out == SNP_CLEAN


def test_the_firmware_becomes_a_rom_and_the_kernel_is_measured(run: Run, files: Path) -> None:
    text = BARE.replace(SNP_LOADER, "<loader type='pflash'>/srv/OVMF.fd</loader><nvram>/v</nvram>")
    Path("x.xml").write_text(text.replace(HOLE, KERNEL))
    ran = run("domain", "prepare", "x.xml", "--policy", "0x30000", "--kernel-hashes", "-o", "y.xml")
    assert ran.code == 0, ran.err
    mended = Path("y.xml").read_text()
    assert "<loader type='rom' stateless='yes'>/srv/OVMF.fd</loader>\n" in mended
    assert "<launchSecurity type='sev-snp' kernelHashes='yes'>" in mended
    assert "<policy>0x30000</policy>" in mended
    assert "<nvram>" not in mended


def test_without_anything_to_put_in_it_is_mended(run: Run, files: Path) -> None:
    assert run("domain", "prepare", "snp.xml").out == SNP_CLEAN
    ran = run("domain", "prepare", "bare.xml", "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["errors"][0]["check"]) == (4, "domain.policy.missing")
    good = json.loads(run("domain", "prepare", "snp.xml", "--json").out)
    assert (good["ok"], good["notes"]) == (True, [])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("snp.xml --session keys/vm1", 2, "error: this is an SEV-SNP guest (type='sev-snp'): it"),
        ("sev.xml --policy 0x30000", 2, "error: this is a guest of SEV or SEV-ES (type='sev')"),
        ("sev.xml", 2, "--session is missing: this is a guest of SEV or SEV-ES"),
        ("none.xml", 2, "--session is missing; for SEV-SNP, --policy or --id-block"),
        ("snp.xml --session keys/vm1 --policy 1", 2, "is for SEV and SEV-ES, --policy for"),
        ("snp.xml --session keys/vm1 --kernel-hashes", 2, "SEV-ES, --kernel-hashes for SEV-SNP"),
        ("snp.xml --id-block block", 2, "--id-block and --id-auth are given together"),
        ("snp.xml --id-auth auth", 2, "--id-block and --id-auth are given together"),
        ("snp.xml --id-block auth --id-auth block", 6, "auth: ID block: 4096 bytes (decoded from"),
        ("snp.xml --id-block none --id-auth auth", 6, "none: No such file"),
        ("snp.xml --host-data block", 6, "block: host data: 96 bytes, expected 32"),
        ("snp.xml --host-data 00", 2, "--host-data 00: 2 hex digits, expected 64"),
        ("snp.xml --policy 0x10000", 2, "policy 0x10000: bits 0x20000 are reserved"),
        ("snp.xml --policy 0x10000000000000000", 2, "is no number"),
        ("snp.xml --policy 0x30000 --id-block block --id-auth auth", 6,
         "ID block policy: it approves policy 0x20000, not 0x30000"),
        ("- --id-block - --id-auth auth", 2, "only one input can be standard input"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_in_gets_one_clear_line(
    run: Run, files: Path, arguments: str, code: int, words: str
) -> None:
    ran = run("domain", "prepare", *arguments.split(), "-o", "out.xml")
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert ran.err.count("error: ") == 1
    assert not Path("out.xml").exists()


def test_an_id_block_for_another_policy_is_put_in_with_its_policy(run: Run, files: Path) -> None:
    Path("block").write_bytes(id_block(0x30000))
    ran = run("domain", "prepare", "snp.xml", *ID, *HOST)
    assert ran.code == 0, ran.err
    assert "<policy>0x30000</policy>" in ran.out
    for line in ("-    <policy>0x20000</policy>\n", "+    <policy>0x30000</policy>\n"):
        assert line in ran.err


def test_a_policy_that_the_id_block_in_the_xml_does_not_approve_is_an_error(
    run: Run, files: Path
) -> None:
    ran = run("domain", "prepare", "snp.xml", "--policy", "0x120000", *HOST)
    assert ran.code == 4
    assert "the ID block approves policy 0x20000: the firmware refuses to launch" in ran.err
    text = SNP_CLEAN
    for old, new in NO_ID:
        text = text.replace(old, new)
    Path("x.xml").write_text(text)
    ran = run("domain", "prepare", "x.xml", "--policy", "0x120000", *HOST)
    assert (ran.code, "<policy>0x120000</policy>" in ran.out) == (0, True)
    assert POLICY_ELEMENT not in ran.out


def test_a_session_is_not_compared_with_an_sev_snp_guest(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("domain", "check", "snp.xml", *SESSION)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: this is an SEV-SNP guest (type='sev-snp')")
    assert "hint: start it as it is: it asks for a report from inside" in ran.err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CLEAN.encode())))
    ran = run("domain", "prepare", "-", *ID)
    assert ran.err.startswith("error: this is a guest of SEV or SEV-ES")


def test_capabilities_with_and_without_sev_snp(run: Run, files: Path) -> None:
    Path("host.xml").write_bytes(domcapabilities())
    ran = run("domain", "capabilities", "host.xml")
    assert ran.lines[0] == "OK: this host offers SEV, SEV-ES and SEV-SNP"
    assert "note: libvirt lists sev-snp if QEMU knows it: whether the CPU" in ran.err
    assert json.loads(run("domain", "capabilities", "host.xml", "--json").out)["sev_snp"] is True
    listed = b"<value>sev-snp</value>"
    Path("host.xml").write_bytes(domcapabilities().replace(listed, b""))
    ran = run("domain", "capabilities", "host.xml")
    assert ran.lines[0] == "OK: this host offers SEV and SEV-ES"
    assert "note: no SEV-SNP guests: libvirt does not list sev-snp" in ran.err
    checked = run("domain", "check", "snp.xml", *HOST, "--capabilities", "host.xml")
    assert findings(checked.out) == {"domain.host"}
    assert "this host does not offer SEV-SNP" in checked.out
    # SEV-SNP guests take the ASIDs of SEV-ES.
    Path("host.xml").write_bytes(domcapabilities(maxESGuests=0))
    assert run("domain", "capabilities", "host.xml").lines[0] == "OK: this host offers SEV"


def test_the_page_s_options_exist(run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "domain.md").read_text()
    shown = run("domain", "prepare", "--help").out + run("domain", "check", "--help").out
    for option in ("--id-block", "--id-auth", "--host-data", "--policy", "--host-kernel"):
        assert re.search(rf"{option}\b", page)
        assert option in shown
