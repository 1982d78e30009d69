"""docs/host-check.md: its tables are the checks, and its options are the commands'."""

import re
import subprocess
from pathlib import Path

from conftest import Run
from sev_attest.host.inspect import GUEST, HOST, Status

PAGE = (Path(__file__).parents[2] / "docs" / "host-check.md").read_text()


def test_the_tables_have_every_check_and_no_other() -> None:
    checks = [each for table in (HOST, GUEST) for group in table.values() for each in group]
    rows = re.findall(r"^\| `((?:host|guest)\..*?)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (
            each.id,
            " | ".join(
                (each.says, each.reads, each.source, each.essential.title if each.essential else "")
            ),
        )
        for each in checks
    ]


def test_it_explains_every_status() -> None:
    assert re.findall(r"^\| `([a-zA-Z ]+)` \|", PAGE, re.MULTILINE) == [*Status]


def test_every_step_of_sevctl_and_virt_host_validate_has_a_row() -> None:
    table = PAGE.partition("## The host's checks")[2].partition("## The guest's checks")[0]
    for step in (
        "AMD CPU", "Microcode support", "SME", "SEV", "SEV-ES", "Physical address bit reduction",
        "C-bit location", "Number of encrypted guests", "Minimum ASID", "SEV enabled in KVM",
        "/dev/sev readable", "writable", "Page flush MSR", "KVM Support", "memlock limit",
    ):  # fmt: skip
        assert re.search(rf"sevctl ok(?: es)?: [^|;]*{re.escape(step)}", table), step
    assert table.count("virt-host-validate |") == 3  # the CPU's flag, kvm_amd, /dev/sev


def test_its_copy_has_what_the_files_in_proc_hold(tmp_path: Path) -> None:
    block = PAGE.partition("## A copy of a host")[2].partition("```console\n")[2]
    lines = block.partition("$ sev-attest")[0].replace("\\\n", " ").splitlines()
    script = "\n".join(line.removeprefix("# ") for line in lines if "dmesg" not in line)
    # What this machine does not have is named, and does not end the copy.
    subprocess.run(
        ["sh", "-c", script.replace("/tmp/copy", str(tmp_path))], check=False, capture_output=True
    )
    copied = (tmp_path / "proc/cpuinfo").read_bytes()
    assert copied.count(b"processor") == Path("/proc/cpuinfo").read_bytes().count(b"processor") > 0


def test_its_options_exist(run: Run) -> None:
    shown = {command: run(command, "check", "--help").out for command in ("host", "guest")}
    for line in re.findall(r"^[#$] sev-attest (.*)$", PAGE, re.MULTILINE):
        command, _, options = line.partition("#")[0].partition(" ")
        for name in re.findall(r"--[a-z]+", options):
            assert name in shown[command], line
