"""``sev-attest snp verify --requirements``: a report is held to owner.toml."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest.cli.options import snp_expected
from sev_attest.guest import CpuModel
from sev_attest.snp.digest import launch_digest
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS
from snp_answers import owner_toml
from snp_demands import FIELDS, GENOA

OVMF = ovmf_image(8192, sections=SNP_SECTIONS)
OWNER = owner_toml('manifest = "web.json"\nhost_data = "*"')
VERIFY = ("snp", "verify", "report.bin", "certs.der", "--trust-root", "ark.der")


@pytest.fixture(autouse=True)
def files(run: Run, here: Path) -> Path:
    """Lay out a report, its certificates, and requirements with the manifest of its guest."""
    digest = launch_digest(OVMF, vcpus=2, vmsa=CpuModel.named("EPYC-Genoa"))
    fields: dict[str, Any] = FIELDS | {"measurement": digest}
    for name, data in {
        "fw": OVMF,
        "report.bin": GENOA.report(version=5, **fields),
        "certs.der": GENOA.certificates(),
        "ark.der": GENOA.authority.ark,
        "owner.toml": OWNER.encode(),
    }.items():
        Path(name).write_bytes(data)
    guest = ("-f", "fw", "-n", "1-4", "--cpu-model-name", "EPYC-Genoa", "--guest-features", "0x1")
    assert run("snp", "measure", *guest, "--manifest", "web.json").code == 0
    return here


def test_a_report_that_meets_them_is_allowed_as_a_launch_by_name(run: Run) -> None:
    ran = run(*VERIFY, "--requirements", "owner.toml")
    assert (ran.code, ran.errors) == (0, [])
    allowed = "the requirements allow it as launch web (2 vCPUs, EPYC-Genoa, qemu, guest features"
    assert ran.lines[:2] == [
        "OK: the report verifies (its root is not AMD's): Genoa, VCEK, VMPL 0",
        f"OK: {allowed} 0x1)",
    ]
    assert f"note: {snp_expected.FRESHNESS}" in ran.notes
    assert snp_expected.GUEST not in ran.err
    found = json.loads(run(*VERIFY, "--requirements", "owner.toml", "--json").out)
    assert found["ok"] is True
    assert found["requirements"] == {
        "launch": "web", "guest": "2 vCPUs, EPYC-Genoa, qemu, guest features 0x1",
    }  # fmt: skip
    assert found["checks"][-1] == {
        "id": "requirements.snp", "ok": True, "detail": f"{allowed} 0x1)",
    }  # fmt: skip
    assert snp_expected.GUEST not in found["notes"]


def test_by_a_key_alone_a_launch_has_a_name_and_no_guest(run: Run) -> None:
    key = bytes(FIELDS["id_key_digest"]).hex()
    Path("owner.toml").write_text(OWNER.replace('manifest = "web.json"', f'id_keys = ["{key}"]'))
    assert run(*VERIFY, "--requirements", "owner.toml").lines[1] == (
        "OK: the requirements allow it as launch web"
    )


def test_without_requirements_none_are_told(run: Run) -> None:
    assert json.loads(run(*VERIFY, "--json").out)["requirements"] is None


def test_all_that_is_not_met_is_told_at_once(run: Run) -> None:
    text = OWNER.replace("[0]", "[1]").replace("microcode = 84", "microcode = 85")
    Path("owner.toml").write_text(text)
    ran = run(*VERIFY, "--requirements", "owner.toml")
    assert ran.code == 1
    assert ran.lines == ["NOT ALLOWED: VMPL 0 is not among those allowed"]
    assert ran.err.splitlines()[:3] == [
        "error: VMPL 0 is not among those allowed",
        "error: reported microcode 84 is below 85",
        "note: the report itself verifies",
    ]
    assert run(*VERIFY, "--requirements", "owner.toml", "-q").out == ""
    ran = run(*VERIFY, "--requirements", "owner.toml", "--json")
    found = json.loads(ran.out)
    assert (ran.code, ran.err, found["schema"]) == (1, "", "sev-attest/snp-verify/1")
    assert (found["ok"], found["requirements"], found["product"]) == (False, None, "Genoa")
    ids = ["requirements.snp.vmpl", "requirements.snp.minimum.reported.microcode"]
    assert found["failed"] == ids
    assert [one["id"] for one in found["checks"] if one["ok"] is False] == ids
    assert [one["check"] for one in found["errors"]] == ids


def test_a_file_without_a_part_for_it_allows_no_report(run: Run) -> None:
    Path("owner.toml").write_text('schema = "sev-attest/requirements/1"\n')
    ran = run(*VERIFY, "--requirements", "owner.toml")
    assert ran.code == 1
    assert ran.err.startswith("error: the requirements have no [snp]: they allow no guest")


def test_requirements_do_not_hide_that_a_report_does_not_verify(run: Run) -> None:
    arguments = VERIFY[:-2]
    ran = run(*arguments, "--requirements", "owner.toml")
    assert ran.code == 1
    assert ran.lines[0].startswith("NOT VERIFIED: the ARK has the name of AMD")
    assert "VMPL" not in ran.err


def test_a_file_that_cannot_be_read_is_told_first(run: Run) -> None:
    Path("owner.toml").write_text(OWNER.replace("vmpls", "vmpl"))
    ran = run(*VERIFY, "--requirements", "owner.toml")
    assert (ran.code, ran.out) == (6, "")
    assert ran.err == "error: owner.toml: requirements snp.vmpl: is not known here\n"


def test_requirements_may_be_standard_input_unless_another_input_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = bytes(FIELDS["id_key_digest"]).hex()
    Path("owner.toml").write_text(OWNER.replace('manifest = "web.json"', f'id_keys = ["{key}"]'))
    with Path("owner.toml").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run(*VERIFY, "--requirements", "-").code == 0
    ran = run("snp", "verify", "-", "certs.der", "--requirements", "-")
    assert (ran.code, "only one input can be standard input" in ran.err) == (2, True)
