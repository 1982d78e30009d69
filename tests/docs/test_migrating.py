"""docs/migrating.md: every command of ours that it names exists, with every option it names."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run
from id_material import ID_KEY, pem
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
OURS = sorted(set(re.findall(r"`(sev-attest [^`]+)`", PAGE)))
DIGEST = "5a" * 48
GROUPS = ("certs", "guest", "host", "report", "secret", "snp", "snp id-block", "vmsa")


@pytest.mark.parametrize("line", OURS)
def test_a_command_and_its_options_exist(run: Run, line: str) -> None:
    words = line.split()[1:]
    depth = 1 + (words[0] in GROUPS) + (" ".join(words[:2]) in GROUPS)
    command = words[:depth]
    shown = run(*command, "--help")
    assert shown.code == 0
    for option in re.findall(r"--[a-z0-9-]+", line):
        assert re.search(rf"{option}\b", shown.out), option


def test_every_command_of_ours_is_tried() -> None:
    assert len(OURS) > 20


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("--mode sev", ""),
        ("--mode sev --kernel fw --initrd fw --append a", "--kernel fw --initrd fw --cmdline a"),
        (
            "--mode seves --vcpus 2 --vcpu-type EPYC-v4",
            "--policy 4 --num-cpus 2 --cpu-model-name EPYC-v4 --vmsa-profile qemu-init2",
        ),
        (
            "--mode seves --vcpus 3 --vcpu-type EPYC-Milan --vmm-type ec2",
            "--policy 4 --num-cpus 3 --vmsa-profile ec2",
        ),
        (
            "--mode seves --vcpus 3 --vcpu-type EPYC-Milan --vmm-type gce",
            "--policy 4 --num-cpus 3 --vmsa-profile gce",
        ),
        ("--mode sev --output-format base64", "--format base64"),
        (
            "--mode snp --vcpus 2 --vcpu-type EPYC-v4",
            "--num-cpus 2 --cpu-model-name EPYC-v4",
        ),
        (
            "--mode snp --vcpus 2 --vcpu-type EPYC-v4 --kernel fw --initrd fw --append a",
            "--num-cpus 2 --cpu-model-name EPYC-v4 --kernel fw --initrd fw --cmdline a",
        ),
        (
            "--mode snp --vcpus 3 --vcpu-type EPYC-Milan --vmm-type ec2",
            "--num-cpus 3 --cpu-model-name EPYC-Milan --vmsa-profile ec2",
        ),
        (
            "--mode snp --vcpus 3 --vcpu-type EPYC-Milan --vmm-type gce",
            "--num-cpus 3 --cpu-model-name EPYC-Milan --vmsa-profile gce",
        ),
        (
            "--mode snp --vcpus 2 --vcpu-type EPYC-v4 --guest-features 0x21",
            "--num-cpus 2 --cpu-model-name EPYC-v4 --guest-features 0x21",
        ),
        (
            f"--mode snp --vcpus 2 --vcpu-type EPYC-v4 --snp-ovmf-hash {DIGEST}",
            f"--num-cpus 2 --cpu-model-name EPYC-v4 --firmware-digest {DIGEST}",
        ),
        (
            "--mode snp --vcpus 2 --vcpu-type EPYC-v4 --output-format base64",
            "--num-cpus 2 --cpu-model-name EPYC-v4 --format base64",
        ),
    ],
)
def test_sev_snp_measure_itself_prints_the_same(
    run: Run, here: Path, theirs: str, ours: str
) -> None:
    area = (0x81_0C00, 0x400)
    Path("fw").write_bytes(ovmf_image(8192, sections=SNP_SECTIONS, hash_table=area))
    tool = Path(sys.executable).with_name("sev-snp-measure")
    command = [str(tool), "--ovmf", "fw", *theirs.split()]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    group = ["snp"] if "snp" in theirs else []
    assert run(*group, "measure", "--firmware", "fw", *ours.split()).out == ran.stdout


def theirs(tool: str, *options: str) -> str:
    """Return what a tool of sev-snp-measure prints."""
    command = [str(Path(sys.executable).with_name(tool)), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_snp_create_id_block_itself_makes_the_same_block(run: Run, here: Path) -> None:
    Path("key").write_bytes(pem(ID_KEY))
    text = base64.b64encode(bytes.fromhex(DIGEST)).decode()
    printed = theirs(
        "snp-create-id-block", "--measurement", text, "--idkey", "key", "--authorkey", "key"
    )
    keys = ("--id-key", "key", "--author-key", "key")
    made = run("snp", "id-block", "build", "--launch-digest", text, *keys, "--name", "vm1")
    assert made.code == 0
    assert f"id-block={Path('vm1_idblock.b64').read_text()}," in printed


OURS_OF_TWO = ("snp", "measure", "--num-cpus", "2", "--cpu-model-name", "EPYC-v4")
THEIRS_OF_TWO = ("--mode", "snp", "--vcpus", "2", "--vcpu-type", "EPYC-v4")


def test_firmware_without_sev_metadata_gets_a_digest_there_and_none_here(
    run: Run, here: Path
) -> None:
    Path("fw").write_bytes(ovmf_image())
    printed = theirs("sev-snp-measure", *THEIRS_OF_TWO, "--ovmf", "fw")
    assert re.fullmatch("[0-9a-f]{96}\n", printed)
    assert run(*OURS_OF_TWO, "--firmware", "fw").code == 4


def test_sev_snp_measure_s_hash_of_firmware_is_in_the_manifest(run: Run, here: Path) -> None:
    Path("fw").write_bytes(ovmf_image(8192, sections=SNP_SECTIONS))
    printed = theirs("sev-snp-measure", "--mode", "snp:ovmf-hash", "--ovmf", "fw")
    assert run(*OURS_OF_TWO, "--firmware", "fw", "--manifest", "m.json").code == 0
    assert json.loads(Path("m.json").read_text())["firmware"]["pages_digest"] == printed.strip()
