"""`sev-attest snp show`: what a report says, in words and in JSON; and the folders it reads."""

import base64
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from conftest import Run
from sev_attest.cli import snp_evidence
from sev_attest.cli.inputs import read_small
from sev_attest.errors import Unsupported
from sev_attest.sev.launch_info import read_report
from sev_attest.snp.certificates import Kind
from sev_attest.snp.roots import amd_roots, fingerprint
from sev_attest.snp.tcb import Product
from sev_attest.testing.snp import SnpAuthority, SnpPlatform
from snp_material import AMD, MILAN, PLATFORMS, pem
from snp_reports import EXTRA, FIELDS, PACKAGINGS, RESERVED, VCEK, bound, hcl, report, table

DER = b"\x30\x82a certificate"
CAUTION = "nothing was verified: `sev-attest snp verify` does that"

MILAN_GENOA = ("blSPL", "teeSPL", "spl4", "spl5", "spl6", "spl7", "snpSPL", "ucodeSPL")
TURIN = ("fmcSPL", "blSPL", "teeSPL", "snpSPL", "spl5", "spl6", "spl7", "ucodeSPL")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(text: str, start: str) -> str:
    """Return the only line that begins like this, without blanks that only align."""
    (found,) = (" ".join(one.split()) for one in text.splitlines() if one.split()[:1] == [start])
    return found


@pytest.mark.parametrize("version", [2, 3, 5])
def test_every_field_is_shown(run: Run, here: Path, version: int) -> None:
    data = report(version)
    (here / "report.bin").write_bytes(data)
    ran = run("snp", "show", "report.bin")
    assert (ran.code, ran.errors) == (0, [])
    title = f"report.bin: an SEV-SNP report, version {version} (not verified)"
    assert (ran.lines[0], ran.notes[-1]) == (title, f"note: {CAUTION}")
    for name, (offset, size) in FIELDS.items():
        if name in ("signature_r", "signature_s"):
            assert f"{data[offset : offset + size][::-1].hex()}" in ran.out
        elif ("mit_vector" in name and version < 5) or ("cpuid" in name and version < 3):
            assert line(ran.out, name) == f"{name} not in version {version}"
        else:
            shown = line(ran.out, name).split()[1]
            raw = data[offset : offset + size]
            number = int(shown, 0) if size <= 8 and not name.endswith("_tcb") else None
            expected = raw.hex() if number is None else int.from_bytes(raw, "little")
            assert (shown if number is None else number) == expected


def test_what_bits_mean_is_said(run: Run, here: Path) -> None:
    (here / "r").write_bytes(report(
        5, policy=1 << 62 | 0x109_0137, platform_info=0x121, key_info=4 | 3 | 1 << 9, vmpl=0,
        signature_algo=2, report_id_ma=b"\xff" * 32, id_key_digest=bytes(48), chip_id=bytes(64),
        launch_mit_vector=0b1011, current_mit_vector=0,
    ))  # fmt: skip
    ran = run("snp", "show", "r")
    for words in (
        "ABI at least 1.55",
        "set   permits smt                       the host may have SMT on",
        "set   permits debug                     the host can read and write the guest's memory",
        "clear permits migrate-ma                the guest has no migration agent",
        "set   demands ciphertext-hiding-dram    the host must not see",
        "clear demands single-socket             the guest may run on several sockets",
        "reserved, with a wrong value: bit-17",
        "reserved, with a wrong value: bit-62",
        "set   smt-en                    SMT is on",
        "set   alias-check-complete      memory was checked",
        "set   bit-8 (unknown)",
        "signing key   VLEK",
        "MASK_CHIP_KEY",
        "author key    yes",
        "set   bit-9 (unknown)",
        "vmpl                 0  (the most privileged level)",
        "signature_algo       2  (unknown)",
        "(no migration agent)",
        "(no ID block)",
        "(masked, or the key is a VLEK)",
        "0xb  (mitigations 0, 1, 3 of AMD's list, which is not public)",
        "in use, though reserved: reserved policy bits at byte 0x8",
    ):
        assert words in ran.out, words
    assert line(ran.out, "current_mit_vector") == "current_mit_vector 0x0"


@pytest.mark.parametrize(
    ("key", "words"), [(0, "VCEK: a key"), (28, "none: nothing signs"), (8, "an unknown kind")]
)
def test_every_kind_of_key_has_words(run: Run, here: Path, key: int, words: str) -> None:
    (here / "r").write_bytes(report(3, key_info=key, policy=0x30000, vmpl=0xFFFF_FFFF))
    ran = run("snp", "show", "r")
    assert words in ran.out
    assert "author key    no" in ran.out
    assert "(no author key)" in ran.out
    assert "ABI any" in ran.out
    assert "the host asked for this report, not the guest" in ran.out


def test_tcbs_are_shown_by_product(run: Run, here: Path) -> None:
    tcb = bytes((1, 2, 3, 4, 0, 0, 5, 6))
    for name, cpu, words in (
        ("turin", {"cpuid_family": 0x1A, "cpuid_model": 2},
         "fmc 1, bootloader 2, tee 3, snp 4, microcode 6, reserved 000005"),
        ("genoa", {}, "bootloader 1, tee 2, snp 5, microcode 6, reserved 03040000"),
    ):  # fmt: skip
        (here / name).write_bytes(report(3, launch_tcb=tcb, **cpu))
        ran = run("snp", "show", name)
        assert f"      {words}\n" in ran.out
        assert f"({name.title()})" in ran.out
    (here / "old").write_bytes(report(2, reported_tcb=tcb))
    (here / "unknown").write_bytes(report(3, reported_tcb=tcb, cpuid_family=0x1B))
    for name in ("old", "unknown"):
        ran = run("snp", "show", name)
        assert "on Milan or Genoa: bootloader 1, tee 2, snp 5, microcode 6" in ran.out
        assert "on Turin: fmc 1, bootloader 2, tee 3, snp 4, microcode 6" in ran.out
    assert "(an unknown product)" in ran.out


def test_firmware_that_can_go_back_is_named(run: Run, here: Path) -> None:
    same = {f"{kind}_{part}": 1 for kind in ("current", "committed")
            for part in ("build", "minor", "major")}  # fmt: skip
    for number, said in ((1, False), (0, True)):
        (here / "r").write_bytes(report(3, **same | {"committed_build": number}))
        assert ("the host can go back to it" in run("snp", "show", "r").out) is said


def test_json_has_every_field_by_name(run: Run, here: Path) -> None:
    data = report(3)
    (here / "r").write_bytes(data + table((VCEK, DER), (EXTRA, b"extra")))
    ran = run("snp", "show", "r", "--json")
    document = json.loads(ran.out)
    assert (document["schema"], document["ok"]) == ("sev-attest/snp-show/1", True)
    assert document["notes"] == [CAUTION]
    (one,) = document["inputs"]
    fields = one["report"]
    assert fields.keys() == FIELDS.keys() - {"signature_r", "signature_s"} | {"signature"}
    for name, (offset, size) in FIELDS.items():
        raw = data[offset : offset + size]
        if name in ("signature_r", "signature_s"):
            assert fields["signature"][name[-1]] == raw[::-1].hex()
        elif "mit_vector" in name:
            assert fields[name] is None
        else:
            as_text = size > 8 or name.endswith("_tcb")
            assert fields[name] == (raw.hex() if as_text else int.from_bytes(raw, "little"))
    assert one["meaning"]["product"] == "Genoa"
    assert one["meaning"]["tcb"]["reported"].keys() == {"bootloader", "tee", "snp", "microcode"}
    assert one["meaning"]["policy"] == {
        "min_abi": [0, 0], "permits": ["smt"], "demands": [], "reserved": 0,
    }  # fmt: skip
    assert one["meaning"]["key_info"]["signing_key"] == "VCEK"
    assert (one["source"], one["kind"], one["runtime_data"]) == ("r", "report", None)
    assert one["certificates"] == [
        {"source": "certificate table, VCEK", "size": len(DER), "found": []}
    ]
    used, read = one["notes"]
    assert used == "not used of the certificate table: go-sev-guest's extra platform info"
    assert read.startswith("cannot be read: r, certificate table, VCEK: X.509 certificate")


def test_json_says_what_is_not_in_version_2_and_what_is_in_use(run: Run, here: Path) -> None:
    data = bytearray(report(2, key_info=0))
    data[0x4C] = 1
    (here / "r").write_bytes(data)
    (one,) = json.loads(run("snp", "show", "r", "--json").out)["inputs"]
    assert (one["meaning"]["product"], one["meaning"]["tcb"]) == (None, None)
    assert one["report"]["cpuid_family"] is None
    assert (one["report"]["key_info"], len(RESERVED[2])) == (0, 5)
    assert one["meaning"]["reserved"] == ["reserved bytes at byte 0x4c"]


def test_azure_s_runtime_data_is_shown_with_its_binding(run: Run, here: Path) -> None:
    (here / "good").write_bytes(hcl(report(report_data=bound())))
    (here / "bad").write_bytes(hcl(report()))
    ran = run("snp", "show", "good", "bad")
    assert "HCLAkPub" in ran.out
    assert "(sha256: report_data is its hash)" in ran.out
    assert "(sha256: NOT bound to the report)" in ran.out
    assert ran.err.count("note: Azure makes this report once") == 2
    assert ran.err.count("note: the runtime data beside the report is not bound to it") == 1
    ran = run("snp", "show", "good", "bad", "--json")
    bounds = [one["runtime_data"]["bound"] for one in json.loads(ran.out)["inputs"]]
    assert bounds == [True, False]


def test_runtime_data_does_not_steer_the_terminal(run: Run, here: Path) -> None:
    (here / "r").write_bytes(hcl(report(), b"\x1b[2J\n\xff"))
    assert "\x1b" not in run("snp", "show", "r").out


def test_quiet_leaves_out_notes(run: Run, here: Path) -> None:
    (here / "r").write_bytes(hcl(report()))
    ran = run("snp", "show", "r", "-q")
    assert "note:" not in ran.out + ran.err
    assert "(not verified)" in ran.lines[0]
    assert "measurement" in ran.out


def test_standard_input_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.TextIOWrapper(io.BytesIO(base64.encodebytes(report())))
    monkeypatch.setattr(sys, "stdin", text)
    ran = run("snp", "show", "-")
    assert (ran.code, ran.lines[0].partition(":")[0]) == (0, "standard input")


def test_one_standard_input_is_enough(run: Run) -> None:
    ran = run("snp", "show", "-", "-")
    assert (ran.code, ran.out) == (2, "")


# folders


def test_the_folder_of_snpguest_is_read(run: Run, here: Path) -> None:
    (here / "out" / "certs" / "deeper").mkdir(parents=True)
    (here / "out" / "attestation-report.bin").write_bytes(report())
    (here / "out" / "certs" / "vcek.pem").write_bytes(b"-----BEGIN CERTIFICATE-----")
    (here / "out" / "certs" / "deeper" / "ignored.der").write_bytes(DER)
    (here / "out" / ".hidden").write_bytes(DER)
    ran = run("snp", "show", "out")
    assert ran.code == 0
    assert [one for one in ran.lines if "beside it" in one] == [
        "  beside it: certs/vcek.pem, 27 bytes"
    ]


def test_the_folder_of_configfs_tsm_is_read_though_it_has_files_to_write_only(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "tsm").mkdir()
    for name, content in {
        "outblob": report(), "auxblob": table((VCEK, DER)), "provider": b"sev_guest\n",
        "inblob": b"", "other": b"",
    }.items():  # fmt: skip
        (here / "tsm" / name).write_bytes(content)
    forbid(monkeypatch, "inblob", "other")
    ran = run("snp", "show", "tsm")
    assert (ran.code, ran.lines[0].partition(":")[0]) == (0, "tsm")
    assert "  beside it: certificate table, VCEK, 15 bytes" in ran.lines
    assert [one for one in ran.notes if "not read" in one] == ["note: not read: other"]


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these files refuse to be read, for root too."""

    def refuse(path: str, what: str, most: int) -> bytes:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", path)
        return read_small(path, what, most)

    monkeypatch.setattr(snp_evidence, "read_small", refuse)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "error: d: SEV-SNP report: no file of this folder is a report"),
        ({"outblob": b"\1"}, "error: d/outblob: SEV-SNP report: 1 bytes, expected 1184"),
        ({"outblob": report(), "auxblob": b"?"}, "error: d/auxblob: certificate table"),
        ({str(n): b"" for n in range(65)}, "error: d: SEV-SNP report: more than 64 files"),
        ({"a": report(), "b": report()}, "error: d: SEV-SNP report: these are 2 reports"),
    ],
)
def test_folders_without_one_report_are_refused(
    run: Run, here: Path, files: dict[str, bytes], words: str
) -> None:
    (here / "d").mkdir()
    for name, content in files.items():
        (here / "d" / name).write_bytes(content)
    ran = run("snp", "show", "d")
    assert (ran.code, ran.out) == (6, "")
    assert words in ran.err


def test_what_is_no_file_in_a_folder_is_ignored(run: Run, here: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "r").write_bytes(report())
    os.mkfifo(here / "d" / "pipe")
    assert run("snp", "show", "d").code == 0


# what is refused


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (report()[:-1], "1183 bytes, expected 1184"),
        (report(4), "version 4: versions 2, 3 and 5 are known"),
        (DER, "r: X.509 certificate at byte 0x0"),
        (base64.b64encode(DER), "r: X.509 certificate at byte 0x0"),
        (b"nothing of the kind!", "not base64"),
        (bytes(1 << 20) + b"1", "more than 1048576 bytes"),
    ],
)
def test_what_is_no_report_is_refused(run: Run, here: Path, content: bytes, words: str) -> None:
    (here / "r").write_bytes(content)
    ran = run("snp", "show", "r")
    assert (ran.code, ran.out) == (6, "")
    assert words in ran.err
    document = json.loads(run("snp", "show", "r", "--json").out)
    assert (document["schema"], document["ok"]) == ("sev-attest/snp-show/1", False)
    assert document["exit"] == 6


def test_nothing_to_show_and_unknown_commands_are_usage_errors(run: Run) -> None:
    for arguments in (("snp",), ("snp", "show"), ("snp", "nope"), ("snp", "show", "")):
        assert run(*arguments).code == 2
    ran = run("snp", "--help")
    assert "show" in ran.out
    assert run("snp", "show", "missing").code == 6


def test_sev_s_own_commands_name_the_commands_for_snp(run: Run, here: Path) -> None:
    (here / "r").write_bytes(report())
    ran = run("verify", "r")
    assert ran.code == 6
    assert "this is an SEV-SNP attestation report" in ran.err
    assert "`sev-attest snp show`" in ran.err
    for info in ("sev-snp-policy: 0x30000", '{"sev-type": "sev-snp"}'):
        with pytest.raises(Unsupported) as caught:
            read_report(info)
        assert "`sev-attest snp verify`" in caught.value.hint


# certificates

CERTIFICATES = {
    "vcek.der": MILAN.vek(),
    "vlek.der": MILAN.vek(Kind.VLEK),
    "ask.pem": pem(AMD.ask),
    "chain": pem(AMD.ask) + pem(AMD.ark),
    "vcek.b64": base64.encodebytes(MILAN.vek()),
    "table": table((VCEK, MILAN.vek()), (EXTRA, b"e")),
    "thim.json": json.dumps({"vcekCert": pem(MILAN.vek()).decode()}).encode(),
    "crl.pem": pem(AMD.crl(*range(1, 71)), "X509 CRL"),
    "none.der": AMD.crl(next_update=None),
}


def shown(run: Run, *inputs: str) -> list[dict[str, Any]]:
    """Return what --json shows of the certificates in these inputs."""
    ran = run("snp", "show", "--json", *inputs)
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert document["notes"] == [CAUTION]
    assert {one["kind"] for one in document["inputs"]} == {"certificates"}
    files = [file for one in document["inputs"] for file in one["certificates"]]
    return [value for file in files for value in file["found"]]


@pytest.fixture
def certificates(here: Path) -> Path:
    """Lay out certificates in every packaging, and a folder of them."""
    (here / "certs").mkdir()
    for name, data in CERTIFICATES.items():
        (here / name).write_bytes(data)
    (here / "certs" / "vcek.der").write_bytes(MILAN.vek())
    (here / "certs" / "auxblob").write_bytes(CERTIFICATES["table"])
    return here


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda one: one.authority.product.name)
def test_every_field_of_a_vcek_is_shown(run: Run, here: Path, platform: SnpPlatform) -> None:
    data = platform.vek()
    (here / "v").write_bytes(data)
    (one,) = shown(run, "v")
    key = platform.key(Kind.VCEK).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    product, turin = platform.authority.product, platform.authority.product is Product.TURIN
    spls = dict(zip(TURIN if turin else MILAN_GENOA, platform.tcb, strict=True))
    assert one == {
        "kind": "VCEK", "subject": "SEV-VCEK", "issuer": f"SEV-{product.value}",
        "product": product.value, "serial": "0x0",
        "not_before": "2020-01-01T00:00:00+00:00", "not_after": "2049-12-31T23:59:59+00:00",
        "fingerprint": hashlib.sha256(data).hexdigest(),
        "public_key": {
            "algorithm": "EC P-384", "sha256": hashlib.sha256(info).hexdigest(), "pinned": None,
        },
        "extensions": {
            "struct_version": int(turin),
            "product_name": "Milan-B0" if product is Product.MILAN else product.value,
            "spls": spls, "tcb": platform.tcb.hex(), "hwid": platform.hwid.hex(), "csp_id": None,
        },
    }  # fmt: skip
    ran = run("snp", "show", "v")
    assert ran.lines[0] == f"v: a VCEK of {product.value} (not verified)"
    assert ran.notes[-1] == f"note: {CAUTION}"
    for name, spl in spls.items():
        assert line(ran.out, name).startswith(f"{name} {spl} (")
    assert line(ran.out, "hwID") == f"hwID {platform.hwid.hex()} (the chip)"
    assert line(ran.out, "TCB").startswith(f"TCB {platform.tcb.hex()} ")
    assert hashlib.sha256(info).hexdigest() in ran.out
    assert "pinned" not in ran.out


def test_a_vlek_names_its_cloud_provider(run: Run, certificates: Path) -> None:
    (one,) = shown(run, "vlek.der")
    assert (one["extensions"]["hwid"], one["kind"]) == (None, "VLEK")
    assert one["extensions"]["csp_id"] == "CN=cc-test.example.com"
    out = run("snp", "show", "vlek.der").out
    assert line(out, "cspID") == "cspID CN=cc-test.example.com (the cloud provider)"
    assert "hwID" not in out


def test_a_key_that_only_has_amd_s_names_is_not_called_amd_s(run: Run, certificates: Path) -> None:
    ask, ark = shown(run, "chain")
    assert (ask["kind"], ask["serial"], ask["extensions"]) == ("ASK", "0x10001", None)
    assert ark["public_key"] == {
        "algorithm": "RSA 4096", "sha256": fingerprint(AMD.root.ark), "pinned": None,
    }  # fmt: skip
    ran = run("snp", "show", "chain")
    assert ran.out.count("(none of AMD's pinned keys)") == 2
    assert [one for one in ran.lines if "not verified" in one] == [
        "chain: an ASK of Milan (not verified)", "chain: an ARK of Milan (not verified)",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.ARK, Kind.ASK, Kind.ASVK])
def test_amd_s_pinned_key_is_named_whoever_made_the_certificate(
    run: Run, here: Path, kind: Kind
) -> None:
    root = amd_roots()[1]
    pinned = root.pinned(kind)
    key = pinned.public_key if pinned else root.ark
    forger = SnpAuthority(Product.GENOA, forged=True)
    theirs, own = (one.modulus.to_bytes(512, "big") for one in (forger.keys[kind].public, key))
    (here / "c").write_bytes(forger.ca(kind).replace(theirs, own))
    (one,) = shown(run, "c")
    assert one["public_key"]["pinned"] == f"AMD Genoa {kind.name}"
    assert one["public_key"]["sha256"] == fingerprint(key)
    assert f"(pinned: AMD Genoa {kind.name})" in run("snp", "show", "c").out


def test_amd_s_real_certificates_have_the_pinned_keys(run: Run, here: Path, real: Path) -> None:
    files = sorted((real / "snp" / "roots").glob("*.der"))
    found = shown(run, *map(str, files))
    assert len(found) == 9
    for one, path in zip(found, files, strict=True):
        key = load_der_x509_certificate(path.read_bytes()).public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert one["public_key"]["pinned"] == f"AMD {one['product']} {one['kind']}"
        assert one["public_key"]["sha256"] == hashlib.sha256(info).hexdigest()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("ask.pem", ["ASK"]),
        ("chain", ["ASK", "ARK"]),
        ("vcek.b64", ["VCEK"]),
        ("table", ["VCEK"]),
        ("thim.json", ["VCEK"]),
        ("crl.pem", ["CRL"]),
        ("certs", ["VCEK", "VCEK"]),
    ],
)
def test_certificates_are_shown_from_every_packaging(
    run: Run, certificates: Path, name: str, kinds: list[str]
) -> None:
    assert [one["kind"] for one in shown(run, name)] == kinds
    assert len([one for one in run("snp", "show", name).lines if "(not verified)" in one]) == len(
        kinds
    )


def test_a_revocation_list_is_shown(run: Run, certificates: Path) -> None:
    (one,) = shown(run, "crl.pem")
    assert (one["issuer"], one["this_update"]) == ("ARK-Milan", "2020-01-01T00:00:00+00:00")
    assert one["next_update"] == "2049-12-31T23:59:59+00:00"
    assert one["serials"] == [f"{serial:#x}" for serial in range(1, 71)]
    out = run("snp", "show", "crl.pem").out
    assert out.startswith("crl.pem: a revocation list of ARK-Milan (not verified)\n")
    assert out.count("  revoked              serial 0x") == 64
    assert "  revoked              6 more (--json has all)\n" in out
    (one,) = shown(run, "none.der")
    assert (one["next_update"], one["serials"]) == (None, [])
    out = run("snp", "show", "none.der").out
    assert "  next update          not stated\n" in out
    assert "  revoked              none\n" in out


def test_reports_and_certificates_are_shown_in_any_order(run: Run, certificates: Path) -> None:
    (certificates / "r").write_bytes(MILAN.report() + CERTIFICATES["table"])
    ran = run("snp", "show", "chain", "r", "certs", "crl.pem")
    assert ran.code == 0
    assert [one.partition(" (not")[0] for one in ran.lines if "(not verified)" in one] == [
        "chain: an ASK of Milan", "chain: an ARK of Milan",
        "r: an SEV-SNP report, version 3", "r, certificate table, VCEK: a VCEK of Milan",
        "certs/auxblob: a VCEK of Milan", "certs/vcek.der: a VCEK of Milan",
        "crl.pem: a revocation list of ARK-Milan",
    ]  # fmt: skip
    inputs = json.loads(run("snp", "show", "--json", "r", "chain").out)["inputs"]
    assert [one["kind"] for one in inputs] == ["report", "certificates"]
    assert [one["kind"] for one in inputs[0]["certificates"][0]["found"]] == ["VCEK"]


def test_a_certificate_of_standard_input_is_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pem(AMD.ark))))
    ran = run("snp", "show", "-", "-q")
    assert (ran.code, ran.lines[0]) == (0, "standard input: an ARK of Milan (not verified)")
    assert "note" not in ran.out + ran.err


def test_a_certificate_s_text_does_not_steer_the_terminal(run: Run, here: Path) -> None:
    raw = MILAN.vek().replace(b"SEV-Milan", b"\x1b[2J-Mila")
    (here / "v").write_bytes(raw)
    ran = run("snp", "show", "v")
    assert (ran.code, "\x1b" in ran.out) == (0, False)
    assert line(ran.out, "issuer") == "issuer \\x1b[2J-Mila"


def test_a_folder_of_broken_certificates_is_refused(run: Run, here: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "vcek.pem").write_bytes(b"-----BEGIN CERTIFICATE-----")
    ran = run("snp", "show", "d")
    assert (ran.code, ran.out) == (6, "")
    assert ran.err.startswith("error: d/vcek.pem: PEM: a block does not end")


# real ones


def test_real_certificates_are_shown_as_others_read_them(run: Run, here: Path, real: Path) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["reports"]
    cases = [case for case in known.values() if "vek" in case]
    found = shown(run, *(str(folder / case["vek"]) for case in cases))
    assert len(found) == len(cases) > 15
    for one, case in zip(found, cases, strict=True):
        chain, amd = case["chain"], one["extensions"]
        assert (one["kind"].lower(), one["product"].lower()) == (chain["kind"], chain["product"])
        assert (amd["struct_version"], amd["product_name"]) == (chain["struct"], chain["name"])
        assert amd["csp_id"] == chain["csp_id"]
        assert {name: amd["spls"][f"{name}SPL"] for name in chain["tcb"]} == chain["tcb"]
        assert amd["tcb"] == case["fields"]["reported_tcb"]
        assert case["fields"]["chip_id"].startswith(amd["hwid"] or "00" * 64)


def test_real_reports_are_shown_in_three_packagings(run: Run, here: Path, real: Path) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["reports"]
    names = ("binary", "wrapped base64", "header, 4000 bytes")
    for case in known.values():
        data = (folder / case["report"]).read_bytes()
        for name in names:
            (here / name).write_bytes(PACKAGINGS[name](data))
        ran = run("snp", "show", "--json", *names)
        reports = [one["report"] for one in json.loads(ran.out)["inputs"]]
        assert reports == [reports[0]] * len(names)
        fields = {k: v for k, v in case["fields"].items() if k in reports[0]}
        assert len(fields) > 15
        assert fields.items() <= reports[0].items()
