"""Which command imports what: a command pays for what it uses, and for nothing else."""

import ast
import base64
import hashlib
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import sev_attest
from sev_attest._lazy import import_when_used
from sev_attest.cli.main import _COMMANDS
from sev_attest.guest.spec import SNP_LAYOUTS, VMSA_PROFILES
from sev_attest.guest.vmsa import _DIFFERENCES
from sev_attest.owner.ledger import Ledger
from sev_attest.sev.launch import expected_measure
from sev_attest.sev.policy import GuestPolicy
from sev_attest.testing import Platform, ovmf_image

WATCHED = (
    "asyncio", "concurrent.futures", "cryptography", "difflib", "http", "json", "locale", "logging",
    "pathlib", "sqlite3", "tempfile", "tomllib", "xml", "zipfile",
    "sev_attest.domain_xml", "sev_attest.guest.kernel_hashes", "sev_attest.guest.vmsa",
    "sev_attest.host", "sev_attest.owner.advisories",
    "sev_attest.owner.key_wrapping", "sev_attest.owner.ledger", "sev_attest.owner.record",
    "sev_attest.owner.requirements", "sev_attest.owner.sealing", "sev_attest.owner.secret_sources",
    "sev_attest.sev.chain.packaging", "sev_attest.sev.chain.verify",
    "sev_attest.sev.diagnosis.search", "sev_attest.sev.digest", "sev_attest.sev.launch",
    "sev_attest.sev.secret", "sev_attest.testing",
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
_FILES = {"pathlib"}
_FOLDERS = {"pathlib", "tempfile"}  # importlib.resources needs both
_DIGEST = {"sev_attest.sev.digest"}
_LAUNCH = {"sev_attest.sev.launch"}
_ADVISORIES = {"tomllib", "sev_attest.owner.advisories"}
_RECORD = {"json", "sev_attest.owner.record"}
_VERIFY = _CHAINS | {"sev_attest.sev.chain.verify"}
EXPECTED = {
    "advisories": _FOLDERS | _ADVISORIES,
    "certs": _CHAINS | _FILES,
    "completion": set(),
    "demo": _FOLDERS,
    "domain": {"xml", "sev_attest.domain_xml"},
    "evidence": set(),
    "firmware": set(),
    "guest": set(),
    "host": _FILES,
    "launch": _VERIFY
    | _FILES
    | _RECORD
    | _DIGEST
    | _LAUNCH
    | {"xml", "sev_attest.domain_xml", "sev_attest.host"},
    "ledger": {"json", "sqlite3", "sev_attest.owner.ledger"},
    "measure": _DIGEST,
    "policy": set(),
    "report": _VERIFY | _DIGEST,
    "requirements": _FOLDERS | _ADVISORIES | _RECORD | _LAUNCH | {"sev_attest.owner.requirements"},
    "schema": _FOLDERS | {"json"},
    "secret": _FILES | _LAUNCH | {"cryptography", "sev_attest.sev.secret"},
    "session": _VERIFY | _RECORD,
    "snp": set(),
    "simulate": _CHAINS
    | _FOLDERS
    | _LAUNCH
    | {"json", "logging", "xml", "sev_attest.sev.secret", "sev_attest.testing"},
    "validate": _DIGEST | _LAUNCH,
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


def test_a_report_is_verified_without_what_a_challenge_is_read_with() -> None:
    code = "import sev_attest.cli.main, sev_attest.cli.commands.snp_verify"
    assert imported(code) == {"cryptography", "logging"}  # pyasn1 imports logging


def test_the_rules_for_domains_need_no_dataclass_and_no_hash() -> None:
    imported(
        "import sev_attest.cli.main\nbefore = {*sys.modules}\n"
        "import sev_attest.cli.commands.domain\n"
        "assert not {'dataclasses', 'hashlib'} & (sys.modules.keys() - before)"
    )


def test_the_list_of_commands_imports_none_of_them() -> None:
    assert imported("import sev_attest, sev_attest.cli.main") == set()


MODULE = "quopri"
"""A module that nothing else here imports."""


def test_a_module_that_is_imported_when_used_is_imported_by_its_first_attribute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    import_when_used(MODULE)
    before = import_module(MODULE)
    assert "decodestring" not in vars(before)
    assert not hasattr(before, "missing")
    after = import_module(MODULE)
    assert after is not before
    assert after.__file__
    assert before.decodestring is vars(after)["decodestring"]
    import_when_used(MODULE)
    assert sys.modules[MODULE] is after


def test_click_s_import_of_inspect_waits_until_help_is_shown() -> None:
    code = """
import sev_attest.__main__
from sev_attest.cli import exits, main
assert "cleandoc" not in vars(sys.modules["inspect"])
sys.stdout = sys.stderr
assert exits.run(main.cli, ["policy", "--help"]) == 0
assert "cleandoc" in vars(sys.modules["inspect"])
sys.stdout = sys.__stdout__
"""
    assert imported(code) == {"locale"}  # the titles of click's sections can be translated


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="its dataclasses needs inspect")
def test_a_launch_is_validated_without_inspect(tmp_path: Path) -> None:
    code = f"import sev_attest.__main__{RUN}if 'ast' in sys.modules: sys.exit(9)"
    imported(code, "validate", *launch_options(tmp_path), "--ledger", "none")


def test_logging_s_import_of_traceback_waits_too() -> None:
    # pyasn1 imports logging. traceback alone imports textwrap.
    code = "import sev_attest.__main__, sev_attest.cli.main, sev_attest.cli.commands.snp_verify"
    lacks = "if 'textwrap' in sys.modules: sys.exit(9)"
    assert imported(f"{code}\n{lacks}") == {"cryptography", "logging"}


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
        (["--ledger", "LEDGER"], EXPECTED["ledger"]),
        ([], EXPECTED["ledger"]),
    ],
    ids=["plain", "json", "ledger", "default ledger"],
)
def test_a_launch_that_is_right_needs_little(
    tmp_path: Path, options: list[str], more: set[str]
) -> None:
    options = [str(tmp_path / "ledger") if option == "LEDGER" else option for option in options]
    arguments = ["validate", *launch_options(tmp_path), *options]
    assert imported(RUN, *arguments) == _DIGEST | _LAUNCH | more


def test_a_chain_is_verified_with_cryptography_s_openssl_alone(
    tmp_path: Path, milan: Platform
) -> None:
    authority = milan.authority
    (tmp_path / "root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    (tmp_path / "chain").write_bytes(milan.export().to_bytes())
    code = f"{RUN}if '_hashlib' in sys.modules: sys.exit(9)"
    imported(code, "verify", tmp_path / "chain", "--trust-root", tmp_path / "root")


def test_what_only_reads_a_ledger_hashes_nothing(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger").disconnect()
    code = f"{RUN}\nassert 'hashlib' not in sys.modules"
    arguments = ["ledger", "list", "--ledger", tmp_path / "ledger"]
    assert imported(code, *arguments) == EXPECTED["ledger"]


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
    ("snp.pages", "snp.vmsa"), ("snp.firmware",), ("snp.digest",), ("snp.diagnosis",),
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
    "__init__", "__main__", "_api", "guest._api", "owner", "owner._api", "sev", "sev._api", "snp",
    "snp._api",
)  # fmt: skip
"""The public names, and `python -m`."""


@dataclass
class Source:
    """What is looked for in a module, wherever it stands."""

    imports: set[str] = field(default_factory=set)
    """Every module that it imports, and what it takes from it."""
    reads_a_clock: bool = False
    subscripted: list[str] = field(default_factory=list)
    """Expressions with a subscript."""

    def look_at(self, node: ast.AST) -> None:
        match node:
            case ast.Import():
                self.imports.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                self.imports.update(f"{node.module}.{alias.name}" for alias in node.names)
            case ast.Attribute(attr="now"):
                self.reads_a_clock |= ast.unparse(node).endswith("datetime.now")
            case ast.Subscript(value=ast.Attribute() as subscripted):
                self.subscripted.append(ast.unparse(subscripted))


@cache
def sources() -> dict[str, Source]:
    """Read every module once: all tests here ask the same files."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
        source = found[name.removesuffix(".__init__")] = Source()
        for node in ast.walk(ast.parse(path.read_bytes())):
            source.look_at(node)
    return found


def floor(module: str) -> int | None:
    """Find the line of :data:`ORDER` that a module lives in."""
    for number, modules in enumerate(ORDER):
        if any(f"{module}.".startswith(f"{one}.") for one in modules):
            return number
    return None


def test_nothing_imports_upwards() -> None:
    seen = set()
    for module, source in sources().items():
        if module in FACES:
            continue
        here = floor(module)
        assert here is not None, module
        seen.add(here)
        for name in source.imports:
            there = floor(name.removeprefix("sev_attest."))
            if name.startswith("sev_attest.") and there is not None:
                assert there <= here, f"{module} knows {name}"
    assert seen == set(range(len(ORDER)))


def test_only_the_simulation_s_commands_import_it() -> None:
    users = {
        module
        for module, source in sources().items()
        if any(name.startswith("sev_attest.testing") for name in source.imports)
    }
    outside = {user for user in users if not user.startswith("testing")}
    assert outside == {
        "cli.commands.simulate", "cli.options.simulated", "cli.options.simulated_snp",
    }  # fmt: skip


def users_of(*roots: str) -> set[str]:
    return {
        module
        for module, source in sources().items()
        if {name.partition(".")[0] for name in source.imports} & set(roots)
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
    clocks = {module for module, source in sources().items() if source.reads_a_clock}
    assert {user for user in clocks if (floor(user) or 0) < above} == {"snp.verify"}


def test_one_module_imports_pyasn1() -> None:
    assert users_of("pyasn1") == {"_der"}


def test_no_type_of_click_is_subscripted_where_it_runs() -> None:
    # Its types are generic since 8.4 only: before, this ends every command.
    for module, source in sources().items():
        assert not [one for one in source.subscripted if one.startswith("click.")], module
