"""`sev-attest snp show`: what a report says, in words and in JSON; and the folders it reads."""

import base64
import io
import json
import os
import sys
from pathlib import Path

import pytest

from conftest import Run
from sev_attest.cli import snp_evidence
from sev_attest.cli.inputs import read_small
from sev_attest.errors import Unsupported
from sev_attest.sev.launch_info import read_report
from snp_reports import EXTRA, FIELDS, PACKAGINGS, RESERVED, VCEK, bound, hcl, report, table

DER = b"\x30\x82a certificate"
CAUTION = "nothing was verified: `sev-attest snp verify` does that"


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
    assert (ran.code, ran.err) == (0, "")
    title = f"report.bin: an SEV-SNP report, version {version} (not verified)"
    assert (ran.lines[0], ran.lines[-1]) == (title, f"note: {CAUTION}")
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
    assert one["certificates"] == [{"source": "certificate table, VCEK", "size": len(DER)}]
    assert one["notes"] == ["not used of the certificate table: go-sev-guest's extra platform info"]


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
    assert ran.out.count("note: Azure makes this report once") == 2
    assert ran.out.count("note: the runtime data beside the report is not bound to it") == 1
    ran = run("snp", "show", "good", "bad", "--json")
    bounds = [one["runtime_data"]["bound"] for one in json.loads(ran.out)["inputs"]]
    assert bounds == [True, False]


def test_runtime_data_does_not_steer_the_terminal(run: Run, here: Path) -> None:
    (here / "r").write_bytes(hcl(report(), b"\x1b[2J\n\xff"))
    assert "\x1b" not in run("snp", "show", "r").out


def test_quiet_leaves_out_notes(run: Run, here: Path) -> None:
    (here / "r").write_bytes(hcl(report()))
    ran = run("snp", "show", "r", "-q")
    assert "note:" not in ran.out
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
    assert [one for one in ran.lines if "not read" in one] == ["note: not read: other"]


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
        (DER, "this is a certificate or CRL; a report was expected"),
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


# real ones


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
