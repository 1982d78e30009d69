"""Change the core in small ways, one at a time, and see whether a test notices.

Each change (a mutant) is made in a copy of the project. The tests of its module run first; if they
all pass, the whole offline suite runs. A mutant that passes both has survived: it is printed with
its place, and stands for something that no test holds, or for a change that means nothing.

Not changed: words for people (a text with a space in it), docstrings, annotations, and how a
dataclass is laid out (``slots``, ``kw_only``).
"""

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "src/sev_attest"
TESTS = {
    "_crypto.py": "session report cli_certs chain sealing snp_verify",
    "_der.py": "der certificates snp_vectors",
    "_encoding.py": "launch cli_certs snp_packaging certificate_files",
    "_https.py": "vault host_kds",
    "_keys.py": "chain",
    "_lazy.py": "imports cli",
    "_seal.py": "snp_verify chain launch",
    "_snp.py": "cli_certs snp_packaging certificate_files",
    "_wire.py": "session report measure chain snp_report snp_packaging",
    "cli/evidence/document.py": "evidence_document",
    "cli/evidence/page.py": "evidence_page",
    "cli/evidence/picture.py": "evidence_page",
    "cli/evidence/reader.py": "evidence_document cli_evidence",
    "cli/evidence/recompute_report.py": "evidence_sweep cli_evidence",
    "cli/evidence/": "cli_evidence cli_snp_release_evidence",
    "cli/options/owner.py": "cli_owner cli_validate",
    "domain_xml/compare.py": "host_launch",
    "domain_xml/prepare.py": "cli_domain domain_xml",
    "domain_xml/rules_snp.py": "domain_snp domain_xml",
    "domain_xml/snp_launch.py": "domain_snp",
    "domain_xml/": "domain_xml domain_diff cli_domain",
    "errors.py": "cli",
    "guest/diagnosis/": "diagnosis snp_digest_explain",
    "guest/vmsa.py": "measure cli_measure snp_digest",
    "guest/": "measure cli_measure",
    "host/certificates.py": "host_certificates",
    "host/config.py": "host_libvirt",
    "host/connection.py": "host_qmp host_libvirt",
    "host/device.py": "host_device",
    "host/device_errors.py": "host_device",
    "host/guest_errors.py": "guest_report",
    "host/guest_report.py": "guest_report",
    "host/inspect/": "inspect_host inspect_guest inspect_live inspect_packages inspect_tree",
    "host/kds.py": "host_kds",
    "host/launch.py": "host_launch cli_launch",
    "host/libvirt.py": "host_libvirt host_launch",
    "host/libvirt_domain.py": "host_libvirt host_launch",
    "host/limits.py": "host_qmp host_libvirt",
    "host/place.py": "host_place",
    "host/qmp.py": "host_qmp",
    "host/snp_certificates.py": "host_snp_certificates",
    "host/sev_guest.py": "guest_report",
    "host/tsm.py": "guest_report",
    "owner/_answers.py": "vault secret_sources",
    "owner/_command.py": "key_wrapping secret_sources",
    "owner/_private_file.py": "key_wrapping secret_sources",
    "owner/_safe_path.py": "safe_path ledger key_wrapping",
    "owner/_vault.py": "vault key_wrapping",
    "owner/advisories.py": "advisories",
    "owner/attempts.py": "pending snp_release",
    "owner/key_errors.py": "sealing key_wrapping",
    "owner/key_release.py": "release key_release pending",
    "owner/key_wrapping.py": "key_wrapping",
    "owner/ledger/kept.py": "ledger_challenges pending",
    "owner/ledger/": "ledger ledger_pages ledger_transactions ledger_upkeep pending",
    "owner/pending.py": "pending",
    "owner/record.py": "session",
    "owner/_toml.py": "requirements snp_requirements_file",
    "owner/manifest_file.py": "requirements snp_requirements_file",
    "owner/release_steps.py": "release snp_release release_machine",
    "owner/requirements.py": "requirements",
    "owner/requirements_file.py": "requirements",
    "owner/snp_advisories.py": "snp_advisories",
    "owner/snp_minimum.py": "snp_requirements snp_requirements_file",
    "owner/snp_reference.py": "snp_requirements snp_requirements_file",
    "owner/snp_requirements.py": "snp_requirements snp_requirements_file",
    "owner/snp_requirements_file.py": "snp_requirements_file",
    "owner/sealing.py": "sealing",
    "owner/secret_sources.py": "secret_sources",
    "owner/snp_challenges.py": "snp_release ledger_challenges",
    "owner/snp_release.py": "snp_release release_machine",
    "owner/unverified.py": "release cli_owner",
    "sev/chain/": "chain cli_certs",
    "sev/diagnosis/": "diagnosis cli_diagnosis",
    "sev/digest.py": "measure cli_measure",
    "sev/keys.py": "session",
    "sev/launch.py": "launch",
    "sev/launch_info.py": "launch cli_certs",
    "sev/policy.py": "cli_measure",
    "sev/report.py": "report",
    "sev/secret.py": "launch",
    "sev/session.py": "session",
    "sev/spec.py": "session measure",
    "sev/states.py": "host_device session",
    "snp/certificate_files.py": "certificate_files",
    "snp/certificate_table.py": "snp_vectors snp_packaging certificate_files",
    "snp/certificates.py": "snp_vectors certificates snp_verify",
    "snp/chain.py": "snp_vectors snp_verify",
    "snp/challenge.py": "snp_transport",
    "snp/content.py": "snp_sealed",
    "snp/diagnosis.py": "snp_digest_explain",
    "snp/digest.py": "snp_vectors snp_digest snp_digest_metadata",
    "snp/document.py": "snp_transport",
    "snp/expected.py": "expected",
    "snp/explain.py": "snp_verify",
    "snp/extensions.py": "snp_vectors certificates",
    "snp/firmware.py": "snp_vectors snp_digest snp_digest_metadata",
    "snp/hcl.py": "snp_vectors snp_packaging",
    "snp/id_block.py": "id_block",
    "snp/id_block_verify.py": "id_block",
    "snp/id_key.py": "id_block",
    "snp/kds.py": "snp_verify host_snp_certificates",
    "snp/packaging.py": "snp_vectors snp_packaging",
    "snp/pages.py": "snp_digest",
    "snp/policy.py": "snp_vectors snp_report expected",
    "snp/report.py": "snp_vectors snp_report",
    "snp/revocation.py": "snp_vectors certificates snp_verify",
    "snp/roots.py": "snp_vectors certificates snp_verify",
    "snp/sealed.py": "snp_sealed",
    "snp/spec.py": "snp_report snp_packaging",
    "snp/steps.py": "snp_vectors snp_verify",
    "snp/tcb.py": "snp_vectors snp_report snp_verify",
    "snp/transport.py": "snp_transport",
    "snp/verify.py": "snp_vectors snp_verify",
    "snp/vmsa.py": "snp_digest cli_snp_measure",
    "snp/x509.py": "snp_vectors certificates snp_verify",
}
"""The tests of each core module, or of all modules in a folder, beside test_foundations.py."""
DATA = ("sev/chain/_amd_keys.py", "snp/_asvk_keys.py")
"""Modules that hold data alone."""
LEAST_SECONDS = 60
WHOLE_SECONDS = 1800


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change: bytes ``start`` to ``end`` of a module become ``new``."""

    module: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        old, new = (" ".join(text.split())[:100] for text in (self.old, self.new))
        return f"{PACKAGE}/{self.module}:{self.line}: {old}  ->  {new}"


# What is changed

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.Div: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """List the changes of one node: what is replaced (it or a part of it), and by what."""
    match node:
        case ast.Compare():
            yield from ((node, other) for other in _compared(node))
        case ast.BoolOp(op=op, values=values):
            yield node, ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, operand
        case ast.BinOp(left=left, op=op, right=right):
            yield node, ast.BinOp(left, COMPUTED[type(op)](), right)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, ast.UnaryOp(ast.Not(), test)
        case ast.comprehension(ifs=ifs):
            yield from ((test, ast.UnaryOp(ast.Not(), test)) for test in ifs)
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield node, ast.Pass()
        case ast.Return(value=ast.expr() as result) if ast.unparse(result) != "None":
            yield result, ast.Constant(value=None)
        case ast.Constant(value=value):
            yield from ((node, ast.Constant(value=other)) for other in _others(value))


def _compared(node: ast.Compare) -> Iterator[ast.Compare]:
    for at, op in enumerate(node.ops):
        ops = [*node.ops[:at], COMPARED[type(op)](), *node.ops[at + 1 :]]
        yield ast.Compare(node.left, ops, node.comparators)


def _others(value: object) -> Iterator[str | bytes | int]:
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
        case str() if " " not in value:
            yield f"XX{value}"
        case bytes():
            yield b"XX" + value


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk through what may be changed."""
    for name, child in ast.iter_fields(node):
        for one in child if isinstance(child, list) else [child]:
            skipped = name in ("annotation", "returns") or not isinstance(one, ast.AST)
            if not (skipped or _means_nothing(one)):
                yield one
                yield from nodes(one)


def _means_nothing(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Expr(value=ast.Constant()):  # words, docstrings
            return True
        case ast.keyword(arg="slots" | "kw_only"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
    return False


def mutants_of(module: str) -> Iterator[Mutant]:
    """Make every mutant of a module, in order."""
    source = (ROOT / PACKAGE / module).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in nodes(ast.parse(source)):
        for replaced, by in changes(node):
            start = starts[replaced.lineno - 1] + replaced.col_offset  # type: ignore[attr-defined]
            end = starts[replaced.end_lineno - 1] + replaced.end_col_offset  # type: ignore[attr-defined]
            text = ast.unparse(by)
            # In brackets it may stand wherever the other stood.
            plain = isinstance(by, ast.Constant | ast.stmt)
            yield Mutant(
                module=module,
                line=replaced.lineno,  # type: ignore[attr-defined]
                start=start,
                end=end,
                old=source[start:end].decode(),
                new=text if plain else f"({text})",
            )


# What notices them


def tests_of(module: str) -> list[str]:
    """Name the files of tests that mirror a module; raises LookupError if one is not there."""
    found = [tests for prefix, tests in TESTS.items() if module.startswith(prefix)]
    paths = []
    for name in ("foundations", *found[0].split()):
        files = [*(ROOT / "tests").rglob(f"test_{name}.py")]
        if not files:
            raise LookupError(f"{module}: there is no test_{name}.py")
        paths += [str(path.relative_to(ROOT)) for path in files]
    return paths


def core() -> list[str]:
    """Name every module that is changed."""
    return sorted({path for prefix in TESTS for path in _modules(prefix)} - {*DATA})


class Copy:
    """A copy of the project, in which one module at a time is another."""

    def __init__(self, folder: Path) -> None:
        """Copy everything that the tests read."""
        self.folder = folder
        left_out = (".*", "__pycache__", "build", "dist")
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))

    def passes(self, tests: list[str], seconds: float) -> bool:
        """Run tests on the copy; taking longer than ``seconds`` is not passing."""
        options = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:randomly")
        process = subprocess.Popen(  # noqa: S603 - our own tests
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "src"), "CI": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with suppress(ProcessLookupError):  # its own workers, if it left any
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextmanager
    def mutated(self, mutant: Mutant, number: int) -> Iterator[None]:
        """Put a mutant in place, and take it back."""
        path = self.folder / PACKAGE / mutant.module
        source = path.read_bytes()
        path.write_bytes(source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
        os.utime(path, (number, number))  # compiled code is kept by time and size
        try:
            yield
        finally:
            path.write_bytes(source)


def measured(copy: Copy, modules: list[str]) -> dict[str, float]:
    """Run each module's tests unchanged: they must pass. Gives the seconds they may take."""
    limits: dict[str, float] = {}
    taken: dict[tuple[str, ...], float] = {}
    for module in modules:
        tests = tests_of(module)
        if tuple(tests) not in taken:
            begin = time.monotonic()
            if not copy.passes(tests, 3600):
                sys.exit(f"error: {' '.join(tests)} fails without any change")
            taken[tuple(tests)] = time.monotonic() - begin
        limits[module] = LEAST_SECONDS + 5 * taken[tuple(tests)]
    return limits


def survives(mutant: Mutant, number: int, copy: Copy, limit: float, *, whole: bool) -> bool:
    """Return whether no test notices a mutant."""
    with copy.mutated(mutant, number):
        passed = copy.passes(tests_of(mutant.module), limit)
        return passed and not (whole and not copy.passes([], WHOLE_SECONDS))


def main() -> None:
    """Choose mutants, try them, and print the survivors and the score."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="how many mutants (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="chooses which")
    parser.add_argument("--module", default="", help="only modules with this in their path")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (default: 2)")
    parser.add_argument(
        "--own-tests-only", action="store_true", help="do not run the whole suite on survivors"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants; run nothing")
    given = parser.parse_args()
    modules = [path for path in core() if given.module in path]
    every = [mutant for module in modules for mutant in mutants_of(module)]
    chosen = random.Random(given.seed).sample(every, min(given.count, len(every)))  # noqa: S311 - a sample
    print(f"{len(chosen)} of {len(every)} mutants of {len(modules)} modules, seed {given.seed}")
    if given.list:
        print(*chosen, sep="\n")
        return
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(given.jobs):
            copies.put(Copy(Path(folder, str(number))))
        copy = copies.get()
        limits = measured(copy, sorted({mutant.module for mutant in chosen}))
        copies.put(copy)

        def attempt(number: int) -> Mutant | None:
            mutant, copy = chosen[number], copies.get()
            whole = not given.own_tests_only
            survived = survives(mutant, number, copy, limits[mutant.module], whole=whole)
            copies.put(copy)
            return mutant if survived else None

        survivors = 0
        with ThreadPoolExecutor(given.jobs) as pool:
            for mutant in pool.map(attempt, range(len(chosen))):
                if mutant is not None:
                    survivors += 1
                    print(mutant, flush=True)
    killed = len(chosen) - survivors
    print(f"{killed} of {len(chosen)} mutants were noticed: {killed / len(chosen):.1%}")


def _modules(prefix: str) -> list[str]:
    base = ROOT / PACKAGE
    paths = [base / prefix] if prefix.endswith(".py") else (base / prefix).glob("*.py")
    return [str(path.relative_to(base)) for path in paths]


if __name__ == "__main__":
    main()
