"""docs/migrating.md: every command of ours that it names exists, with every option it names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
OURS = sorted(set(re.findall(r"`(sev-attest [^`]+)`", PAGE)))
DIGEST = "5a" * 48
GROUPS = ("certs", "host", "report", "secret", "snp", "vmsa")


@pytest.mark.parametrize("line", OURS)
def test_a_command_and_its_options_exist(run: Run, line: str) -> None:
    words = line.split()[1:]
    command = words[: 2 if words[0] in GROUPS else 1]
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
