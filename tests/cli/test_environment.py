"""The environment variables that are defaults of options, and those that must never be."""

import re
from pathlib import Path

import click
import pytest

from conftest import Run
from sev_attest.cli import exits
from sev_attest.cli.environment import from_environment, origin
from sev_attest.cli.main import cli
from sev_attest.testing import Platform
from test_help import COMMANDS

ALLOWED = {
    "--ledger": "SEV_ATTEST_LEDGER",
    "--store": "SEV_ATTEST_STORE",
    "--requirements": "SEV_ATTEST_REQUIREMENTS",
    "--color": "SEV_ATTEST_COLOR",
}
NEVER = {
    "--insecure", "--force", "--yes", "--trust-root", "--ignore-config", "--tik", "--tek", "--tk",
    "--kek", "--inject-secret", "--secret", "--secret-source", "--requirements-now", "--key",
    "--id-key", "--author-key", "--no-diagnose",
}  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_option_has_a_variable_if_it_is_allowed_one(path: tuple[str, ...]) -> None:
    with click.Context(COMMANDS[path]) as context:
        assert context.auto_envvar_prefix is None
        for parameter in COMMANDS[path].params:
            name = max(parameter.opts, key=len)
            assert parameter.envvar == ALLOWED.get(name), name
    assert "auto_envvar_prefix" not in COMMANDS[path].context_settings


def test_none_that_lowers_a_check_is_allowed() -> None:
    names = {name for one in COMMANDS.values() for p in one.params for name in p.opts}
    assert names >= NEVER
    assert not NEVER & ALLOWED.keys()


def test_the_help_shows_each_variable(run: Run) -> None:
    shown = " ".join(run("validate", "--help").out.split())
    assert set(re.findall(r"\[env var: (\S+)\]", shown)) == {*ALLOWED.values()}


@pytest.fixture
def host(milan: Platform, here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lay out a platform's chain; return the arguments of a session with it."""
    Path("host.chain").write_bytes(milan.export().to_bytes())
    ca = milan.authority
    Path("root").write_bytes(ca.ask.to_bytes() + ca.ark.to_bytes())
    Path("kek").write_bytes(bytes(range(32)))
    Path("kek").chmod(0o600)
    here.chmod(0o700)
    return ["session", "host.chain", "5", "--trust-root", "root", "--name"]


def test_the_variables_of_ledgers_are_defaults(
    run: Run, host: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEV_ATTEST_LEDGER", "a.sqlite3")
    assert run(*host, "vm1").code == 0
    assert run(*host, "vm2", "--ledger", "b.sqlite3").code == 0
    assert "vm1" in run("ledger", "list").out
    assert "vm2" in run("ledger", "list", "--ledger", "b.sqlite3").out
    assert "vm1" not in run("ledger", "list", "--ledger", "b.sqlite3").out


def test_a_store_that_is_named_is_the_ledger_whatever_the_variable_says(
    run: Run, host: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEV_ATTEST_LEDGER", "a.sqlite3")
    ran = run(*host, "vm1", "--store", "b.sqlite3", "--kek", "kek")
    assert (ran.code, Path("a.sqlite3").exists()) == (0, False)
    monkeypatch.setenv("SEV_ATTEST_STORE", "c.sqlite3")
    assert run(*host, "vm2", "--kek", "kek").code == 0
    assert (Path("c.sqlite3").exists(), Path("a.sqlite3").exists()) == (True, False)


def test_a_session_writes_no_key_files_beside_a_store_of_the_environment(
    run: Run, host: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEV_ATTEST_STORE", "b.sqlite3")
    ran = run(*host, "vm1")
    assert (ran.code, Path("vm1_tik.bin").exists()) == (2, False)
    assert ran.err.startswith("error: SEV_ATTEST_STORE needs --kek: the key that seals\n")
    ran = run(*host, "vm1", "--kek", "kek", "--ledger", "a.sqlite3")
    assert (ran.code, Path("vm1_tik.bin").exists()) == (2, False)
    assert "error: SEV_ATTEST_STORE is the ledger too: --ledger cannot name another" in ran.err


VALIDATE = [
    "validate",
    "--measurement",
    "AAAA",
    "--api-major",
    "1",
    "--api-minor",
    "55",
    "--build-id",
    "24",
    "--policy",
    "1",
    "--firmware",
    "OVMF.fd",
    "--tik",
    "t",
    "--tek",
    "t",
]


def test_a_store_of_the_environment_plays_no_part_without_a_session(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(*VALIDATE)
    monkeypatch.setenv("SEV_ATTEST_STORE", "b.sqlite3")
    assert run(*VALIDATE) == plain
    assert plain.code == 6
    ran = run("validate", "--session", "vm1", "--firmware", "OVMF.fd", "--launch-info", "i")
    assert "error: SEV_ATTEST_STORE needs --kek: the key that seals" in ran.err


def test_requirements_of_the_environment_are_never_dropped_where_a_launch_is_verified(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEV_ATTEST_REQUIREMENTS", "owner.toml")
    ran = run(*VALIDATE)
    assert ran.code == 2
    assert ran.err.startswith("error: SEV_ATTEST_REQUIREMENTS needs --record: ")
    for line in ("snp verify report", "snp challenge --name vm1"):
        ran = run(*line.split())
        assert (ran.code, "owner.toml: No such file" in ran.err) == (6, True), line


def test_a_session_without_a_store_leaves_them_to_validate(
    run: Run, host: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEV_ATTEST_REQUIREMENTS", "owner.toml")
    assert run(*host, "vm1").code == 0
    ran = run(*host, "vm2", "--store", "b.sqlite3", "--kek", "kek")
    assert (ran.code, "owner.toml: No such file" in ran.err) == (6, True)
    ran = run(*host, "vm3", "--requirements", "owner.toml")
    assert "error: --requirements needs --store" in ran.err


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("SEV_ATTEST_REQUIREMENTS", VALIDATE),
        ("SEV_ATTEST_LEDGER", ["ledger", "list"]),
        ("SEV_ATTEST_STORE", VALIDATE),
    ],
)
def test_a_variable_switches_nothing_off(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: list[str]
) -> None:
    monkeypatch.setenv(name, "")
    ran = run(*command)
    assert (ran.code, f"{name} is empty: unset it" in ran.err) == (2, True)
    monkeypatch.setenv(name, "none")
    ran = run(*command)
    assert (ran.code, f"{name}" in ran.err) == (2, True)
    assert f"{name} cannot be none" in ran.err


def test_the_demo_has_a_ledger_of_its_own(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEDGER", "STORE", "REQUIREMENTS"):
        monkeypatch.setenv(f"SEV_ATTEST_{name}", "/nowhere/else")
    assert run("demo").code == 0


def test_without_a_command_line_nothing_is_from_the_environment() -> None:
    assert not from_environment("ledger")
    assert origin("store") == "--store"
    assert exits.run(cli, ["--version"]) == 0
