"""docs/snp-digest.md: its commands print what it shows, its tables are complete."""

import re
from pathlib import Path

from conftest import Run
from console import commands, show_what_they_print
from sev_attest.guest import CpuModel
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.snp.diagnosis import RULED_OUT
from sev_attest.snp.digest import launch_digest
from sev_attest.snp.vmsa import SnpProfile
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "snp-digest.md").read_text()
OVMF = ovmf_image(sections=SNP_SECTIONS)


def test_its_commands_print_what_it_shows(here: Path) -> None:
    for name, data in (("OVMF.fd", OVMF), ("vmlinuz", b"kernel"), ("initrd.img", b"initrd")):
        (here / name).write_bytes(data)
    show_what_they_print(commands(PAGE), here)


def test_its_tables_are_complete() -> None:
    assert re.findall(r"^\| `([a-z]+\.[a-z-]+|vcpus|cmdline)` \|", PAGE, re.MULTILINE) == [
        *RULED_OUT
    ]
    profiles = PAGE.partition("## Profiles")[2].partition("##")[0]
    rows = re.findall(r"^\| `(.*?)` \| .* \| (.*) \| .* \|$", profiles, re.MULTILINE)
    assert [name for name, _ in rows] == [*SNP_LAYOUTS]
    for name, model in rows:
        needed = SnpProfile.needs_cpu(name)
        shown = SnpProfile.shows_cpu(name)
        words = "needed" if needed else "may be given" if shown else "plays no part"
        assert model == words, name


def test_its_options_exist(run: Run) -> None:
    shown = run("snp", "measure", "--help").out
    for name in re.findall(r"(?<![a-z-])--[a-z][a-z0-9-]+", PAGE):
        assert name in shown, name


def test_its_example_in_python_works(here: Path) -> None:
    (here / "OVMF.fd").write_bytes(OVMF)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    values: dict[str, object] = {}
    exec(example, values)
    digest = launch_digest(OVMF, vcpus=4, vmsa=CpuModel.named("EPYC-Milan"))
    assert values["digest"] == digest
