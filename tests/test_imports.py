"""Which command imports what: a command pays for what it uses, and for nothing else."""

import ast
import base64
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sev_attest
from sev_attest.cli.main import _COMMANDS
from sev_attest.guest.spec import SNP_LAYOUTS, VMSA_PROFILES
from sev_attest.guest.vmsa import _DIFFERENCES
from sev_attest.sev.launch import expected_measure
from sev_attest.sev.policy import GuestPolicy
from sev_attest.testing import ovmf_image

WATCHED = (
    "asyncio", "concurrent.futures", "cryptography", "difflib", "http", "json", "logging",
    "pathlib", "sqlite3", "tempfile", "tomllib", "xml", "zipfile",
    "sev_attest.domain_xml", "sev_attest.guest.kernel_hashes", "sev_attest.guest.vmsa",
    "sev_attest.host", "sev_attest.owner.advisories",
    "sev_attest.owner.key_wrapping", "sev_attest.owner.ledger", "sev_attest.owner.record",
    "sev_attest.owner.requirements", "sev_attest.owner.sealing", "sev_attest.owner.secret_sources",
    "sev_attest.sev.chain.packaging", "sev_attest.sev.chain.verify",
    "sev_attest.sev.diagnosis.search", "sev_attest.sev.digest", "sev_attest.sev.secret",
    "sev_attest.testing",
)  # fmt: skip
"""What takes long to import, or is a package of its own."""


def imported(code: str, *arguments: object) -> set[str]:
    """Run code in an interpreter of its own, and tell what it imported of :data:`WATCHED`."""
    tell = f"\nprint('IMPORTED', *({set(WATCHED)!r} & sys.modules.keys()))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{tell}", *map(str, arguments)],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return set(ran.stdout.split("IMPORTED")[1].split())


_CHAINS = {"cryptography", "sev_attest.sev.chain.packaging"}
_FILES = {"pathlib", "tempfile"}
_DIGEST = {"sev_attest.sev.digest"}
_ADVISORIES = {"tomllib", "sev_attest.owner.advisories"}
_RECORD = {"json", "sev_attest.owner.record"}
_VERIFY = _CHAINS | {"sev_attest.sev.chain.verify"}
EXPECTED = {
    "advisories": _FILES | _ADVISORIES,
    "certs": _CHAINS | _FILES,
    "completion": set(),
    "demo": _FILES,
    "domain": _FILES | _RECORD | {"xml", "sev_attest.domain_xml"},
    "evidence": set(),
    "firmware": set(),
    "guest": set(),
    "host": _FILES,
    "launch": _VERIFY
    | _FILES
    | _RECORD
    | _DIGEST
    | {"xml", "sev_attest.domain_xml", "sev_attest.host"},
    "ledger": {"json", "pathlib", "sqlite3", "tempfile", "sev_attest.owner.ledger"},
    "measure": _DIGEST,
    "policy": set(),
    "report": _VERIFY | _DIGEST,
    "requirements": _FILES | _ADVISORIES | _RECORD | {"sev_attest.owner.requirements"},
    "schema": _FILES | {"json"},
    "secret": _FILES | {"cryptography", "sev_attest.sev.secret"},
    "session": _VERIFY | _FILES | _RECORD,
    "snp": set(),
    "simulate": _CHAINS
    | _FILES
    | {"json", "logging", "xml", "sev_attest.sev.secret", "sev_attest.testing"},
    "validate": _DIGEST,
    "verify": _VERIFY,
    "vmsa": _FILES | {"sev_attest.guest.vmsa"},
}
"""What each command's own file brings in."""


def test_every_command_is_in_the_table() -> None:
    assert EXPECTED.keys() == _COMMANDS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_command_s_file_imports_no_more_than_it_needs(name: str) -> None:
    code = f"import sev_attest.cli.main, sev_attest.cli.commands.{name}"
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
    kernel = {"sev_attest.guest.kernel_hashes"}
    assert imported(RUN, *guest) == _DIGEST
    assert imported(RUN, *guest, "--kernel", tmp_path / "vmlinuz") == _DIGEST | kernel
    vcpus = ["--policy", "5", "--num-cpus", "2", "--cpu-model-name", "EPYC-Milan"]
    assert imported(RUN, *guest, *vcpus) == _DIGEST | {"sev_attest.guest.vmsa"}


def test_the_names_of_the_profiles_are_those_of_the_layouts() -> None:
    names = {name.removesuffix("+debug-swap") for name in VMSA_PROFILES}
    assert names | set(SNP_LAYOUTS.values()) == _DIFFERENCES.keys()


SOURCE = Path(sev_attest.__file__).parent
ORDER = (
    ("_lazy", "_seal"), ("errors",), ("_wire", "_encoding", "_keys"), ("_crypto", "_der"),
    ("_snp",),
    ("guest.spec",), ("guest",),
    ("snp.pages",), ("snp.firmware",), ("snp.digest",), ("snp.diagnosis",),
    ("snp.spec",), ("snp.policy", "snp.tcb"), ("snp.report",),
    ("sev.spec", "sev.states"), ("sev.policy", "sev.keys"), ("sev.chain",), ("sev.session",),
    ("sev.digest",),
    ("sev.launch_info", "sev.launch"), ("sev.diagnosis",), ("sev.secret",), ("sev.report",),
    ("snp.certificate_table", "snp.hcl"), ("snp.packaging",),
    ("snp.x509", "snp.extensions"), ("snp.certificates", "snp.revocation"), ("snp._asvk_keys",),
    ("snp.roots",), ("snp.certificate_files", "snp.kds"), ("snp.chain",), ("snp.explain",),
    ("snp.steps",), ("snp.verify",), ("snp.expected",),
    ("snp.id_key",), ("snp.id_block",), ("snp.id_block_verify",),
    ("snp.document",), ("snp.transport", "snp.content"), ("snp.challenge",), ("snp.sealed",),
    ("owner.unverified",), ("owner.record",), ("owner.advisories",),
    ("_https",), ("owner.key_errors",), ("owner._safe_path",),
    ("owner._answers", "owner._private_file"),
    ("owner._command", "owner._vault"), ("owner.key_wrapping", "owner.secret_sources"),
    ("owner.sealing",),
    ("owner._toml",), ("owner.manifest_file",),
    ("owner.snp_advisories",), ("owner.snp_minimum", "owner.snp_reference"),
    ("owner.requirements", "owner.requirements_file", "owner.snp_requirements",
     "owner.snp_requirements_file"),
    ("owner.ledger",), ("owner.attempts",), ("owner.pending", "owner.snp_challenges"),
    ("owner.release_steps",), ("owner.key_release", "owner.snp_release"),
    ("domain_xml",), ("host",), ("testing",), ("cli",),
)  # fmt: skip
"""From the ground up, as in docs/development.md; within one line they may know each other."""


FACES = (
    "__init__", "__main__", "_api", "owner", "owner._api", "sev", "sev._api", "snp", "snp._api",
)  # fmt: skip
"""The public names, and `python -m`."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
        yield name.removesuffix(".__init__"), ast.parse(path.read_bytes())


def names_imported(tree: ast.AST) -> Iterator[str]:
    """Name every module that a file imports, and what it takes from it, wherever that stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module: str) -> int | None:
    """Find the line of :data:`ORDER` that a module lives in."""
    for number, modules in enumerate(ORDER):
        if any(f"{module}.".startswith(f"{one}.") for one in modules):
            return number
    return None


def test_nothing_imports_upwards() -> None:
    seen = set()
    for module, tree in sources():
        here = floor(module)
        if here is None:  # the packages themselves, and `python -m`
            assert module in FACES
            continue
        seen.add(here)
        for name in names_imported(tree):
            there = floor(name.removeprefix("sev_attest."))
            if name.startswith("sev_attest.") and there is not None:
                assert there <= here, f"{module} knows {name}"
    assert seen == set(range(len(ORDER)))


def test_only_the_simulation_s_commands_import_it() -> None:
    users = {
        module
        for module, tree in sources()
        if any(name.startswith("sev_attest.testing") for name in names_imported(tree))
    }
    outside = {user for user in users if not user.startswith("testing")}
    assert outside == {
        "cli.commands.simulate", "cli.options.simulated", "cli.options.simulated_snp",
    }  # fmt: skip


def users_of(*roots: str) -> set[str]:
    return {
        module
        for module, tree in sources()
        if {name.partition(".")[0] for name in names_imported(tree)} & set(roots)
    }


def test_one_module_imports_cryptography_and_the_simulated_platform_does() -> None:
    users = users_of("cryptography")
    assert "_crypto" in users
    assert {user.partition(".")[0] for user in users} == {"_crypto", "testing"}


def test_below_owner_nothing_reads_a_clock_connects_or_logs() -> None:
    above = floor("owner.record")
    assert above is not None
    users = users_of("time", "datetime", "socket", "ssl", "http", "logging")
    low = {user for user in users if (floor(user) or 0) < above}
    dates = {
        "certificates", "chain", "challenge", "document", "explain", "revocation", "steps",
        "verify", "x509",
    }  # fmt: skip
    assert low == {
        # A search has a time budget.
        *("guest.diagnosis.search", "sev.diagnosis.search", "snp.diagnosis"),
        *(f"snp.{name}" for name in dates),  # certificates and challenges have dates
    }
    clocks = {module for module, tree in sources() if "datetime.now" in ast.unparse(tree)}
    assert {user for user in clocks if (floor(user) or 0) < above} == {"snp.verify"}


def test_one_module_imports_pyasn1() -> None:
    assert users_of("pyasn1") == {"_der"}


def test_no_type_of_click_is_subscripted_where_it_runs() -> None:
    # Its types are generic since 8.4 only: before, this ends every command.
    for module, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript):
                assert not ast.unparse(node.value).startswith("click."), (module, node.lineno)
