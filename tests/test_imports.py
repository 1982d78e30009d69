"""Which command imports what: a command pays for what it uses, and for nothing else."""

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from sev_attest.cli.main import _COMMANDS
from sev_attest.launch import expected_measure
from sev_attest.measure.vmsa import _DIFFERENCES, PROFILES
from sev_attest.policy import GuestPolicy
from sev_attest.testing import ovmf_image

WATCHED = (
    "asyncio", "concurrent.futures", "cryptography", "difflib", "http", "json", "logging",
    "pathlib", "sqlite3", "tempfile", "tomllib", "xml", "zipfile",
    "sev_attest.chain.files", "sev_attest.chain.verify", "sev_attest.diagnose", "sev_attest.host",
    "sev_attest.measure.digest", "sev_attest.measure.kernel_hashes", "sev_attest.measure.vmsa",
    "sev_attest.owner.advisories", "sev_attest.owner.ledger", "sev_attest.owner.record",
    "sev_attest.owner.requirements", "sev_attest.secret", "sev_attest.testing",
)  # fmt: skip
"""What takes long to import, or is a room of its own."""


def imported(code: str, *arguments: object) -> set[str]:
    """Run code in an interpreter of its own, and tell what it imported of :data:`WATCHED`."""
    tell = f"\nprint('IMPORTED', *({set(WATCHED)!r} & sys.modules.keys()))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{tell}", *map(str, arguments)],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return set(ran.stdout.split("IMPORTED")[1].split())


_CHAINS = {"cryptography", "pathlib", "zipfile", "sev_attest.chain.files"}
_FILES = {"pathlib", "tempfile"}
_DIGEST = {"sev_attest.measure.digest"}
_ADVISORIES = {"tomllib", "sev_attest.owner.advisories"}
_RECORD = {"json", "sev_attest.owner.record"}
_VERIFY = _CHAINS | {"sev_attest.chain.verify"}
EXPECTED = {
    "advisories": _FILES | _ADVISORIES,
    "certs": _CHAINS | _FILES,
    "demo": _CHAINS | _FILES | {"xml", "sev_attest.secret", "sev_attest.testing"},
    "domain": _FILES | _RECORD | {"xml", "sev_attest.host", "sev_attest.measure.vmsa"},
    "firmware": set(),
    "ledger": {"json", "pathlib", "sqlite3", "tempfile", "sev_attest.owner.ledger"},
    "measure": _DIGEST,
    "policy": set(),
    "report": _VERIFY | _DIGEST,
    "requirements": _FILES | _ADVISORIES | _RECORD | {"sev_attest.owner.requirements"},
    "secret": _FILES | {"cryptography", "sev_attest.secret"},
    "session": _VERIFY | _FILES | _RECORD | _DIGEST,
    "validate": _DIGEST,
    "verify": _VERIFY,
    "vmsa": _FILES | _DIGEST | {"sev_attest.measure.vmsa"},
}
"""What each command's own file brings in."""


def test_every_command_is_in_the_table() -> None:
    assert EXPECTED.keys() == _COMMANDS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_command_s_file_imports_no_more_than_it_needs(name: str) -> None:
    code = f"import sev_attest.cli.main, sev_attest.cli.{name}"
    assert imported(code) == EXPECTED[name]


def test_the_list_of_commands_imports_none_of_them() -> None:
    assert imported("import sev_attest, sev_attest.cli.main") == set()


RUN = """
from sev_attest.cli import exits, main
code = exits.run(main.cli, sys.argv[1:])
if code: sys.exit(code)
"""


def launch_options(folder: Path) -> list[str]:
    """Lay out a launch of plain SEV whose measurement is right."""
    image = ovmf_image()
    (folder / "OVMF.fd").write_bytes(image)
    (folder / "tk").write_bytes(bytes(32))
    policy, nonce = GuestPolicy(1), bytes(16)
    measure = expected_measure(
        bytes(16),
        api=(1, 55),
        build_id=24,
        policy=policy,
        digest=hashlib.sha256(image).digest(),
        nonce=nonce,
    )
    return [
        "--measurement", base64.b64encode(measure + nonce).decode(), "--api-major", "1",
        "--api-minor", "55", "--build-id", "24", "--policy", "1",
        "--firmware", str(folder / "OVMF.fd"), "--tk", str(folder / "tk"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "more"),
    [
        (["--ledger", "none"], set()),
        (["--ledger", "none", "--json"], {"json"}),
        (["--ledger", "LEDGER"], EXPECTED["ledger"] - {"tempfile"}),
    ],
    ids=["plain", "json", "ledger"],
)
def test_a_launch_that_is_right_needs_little(
    tmp_path: Path, options: list[str], more: set[str]
) -> None:
    options = [str(tmp_path / "ledger") if option == "LEDGER" else option for option in options]
    arguments = ["validate", *launch_options(tmp_path), *options]
    assert imported(RUN, *arguments) == _DIGEST | more


def test_a_kernel_and_vcpus_bring_in_what_measures_them(tmp_path: Path) -> None:
    launch_options(tmp_path)
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    guest = ["measure", "--firmware", tmp_path / "OVMF.fd"]
    kernel = {"sev_attest.measure.kernel_hashes"}
    assert imported(RUN, *guest) == _DIGEST
    assert imported(RUN, *guest, "--kernel", tmp_path / "vmlinuz") == _DIGEST | kernel
    vcpus = ["--policy", "5", "--num-cpus", "2", "--cpu-model-name", "EPYC-Milan"]
    assert imported(RUN, *guest, *vcpus) == _DIGEST | {"sev_attest.measure.vmsa"}


def test_the_names_of_the_profiles_are_those_of_the_layouts() -> None:
    assert {name.removesuffix("+debug-swap") for name in PROFILES} == _DIFFERENCES.keys()
