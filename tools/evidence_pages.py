"""Pages of evidence of every kind, of a simulated host: verified and refused, long and hostile."""

import shlex
import subprocess
import sys
from pathlib import Path

HOSTILE = "\\u202e<script>" + "x" * 300
"""As JSON has it."""
_EVIDENCE = "--evidence {0}.html --evidence {0}.json"
_GUEST = "--firmware lab/OVMF.fd --kernel lab/vmlinuz --cmdline quiet --cpu-model-name EPYC-Milan"
_KEYS = "--tik vm_tik.bin --tek vm_tek.bin --record vm.launch.json --ledger ledger"
_VALIDATE = f"validate --launch-info vm.info {_KEYS} {_GUEST}"
_REPORT = "snp verify snp.report --trust-root lab/snp-root.der"
COMMANDS = {
    "simulate host lab --seed look": 0,
    "simulate export lab chain": 0,
    f"verify chain --trust-root lab/test-root.cert {_EVIDENCE.format('chain-verified')}": 0,
    f"verify chain {_EVIDENCE.format('chain-refused')}": 1,
    "session --name vm chain 5 --trust-root lab/test-root.cert --ledger ledger --kernel-hashes": 0,
    f"simulate start lab --name vm --policy 5 --godh vm_godh.b64 --session vm_session.b64 {_GUEST}"
    " --num-cpus 4": 0,
    "simulate domlaunchsecinfo lab vm": 0,
    f"{_VALIDATE} --num-cpus 3 {_EVIDENCE.format('launch-refused')}": 1,
    f"{_VALIDATE} --num-cpus 4 {_EVIDENCE.format('launch-verified')}": 0,
    f"simulate start lab --name snp --snp {_GUEST} --num-cpus 4": 0,
    f"simulate snp-report lab snp --report-data {'5a' * 64}": 0,
    f"{_REPORT} {_EVIDENCE.format('report-verified')}": 0,
    f"{_REPORT} --report-data {'00' * 64} {_EVIDENCE.format('report-refused')}": 1,
}
"""The commands, and how each ends."""


def make(folder: Path) -> list[Path]:
    """Make the pages in an empty folder; raises RuntimeError if a command ends otherwise."""
    for command, code in COMMANDS.items():
        printed = _run(folder, command, code)
        if "domlaunchsecinfo" in command:
            (folder / "vm.info").write_text(printed)
    text = (folder / "launch-verified.json").read_text().replace('"vm"', f'"{HOSTILE}"')
    (folder / "hostile.json").write_text(text.replace("firmware", HOSTILE))
    _run(folder, "evidence show hostile.json -o hostile.html", 0)
    return sorted(folder.glob("*.html"))


def _run(folder: Path, command: str, code: int) -> str:
    ran = subprocess.run(  # noqa: S603 - this program
        [sys.executable, "-m", "sev_attest", *shlex.split(command)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode != code:
        raise RuntimeError(f"sev-attest {command}: {ran.returncode}, {ran.stderr}")
    return ran.stdout
