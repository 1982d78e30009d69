"""Completion: what shells are told, and that its variable turns nothing else off."""

from pathlib import Path

import pytest
from click import shell_completion

from conftest import Run
from sev_attest.cli import completion, main
from sev_attest.cli.main import cli
from sev_attest.owner import Ledger
from sev_attest.owner.ledger import sqlite

ID = "{:064x}"


def words(
    line: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return what completes the last word of a line, as bash is told."""
    typed = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
    monkeypatch.setenv("_SEV_ATTEST_COMPLETE", "bash_complete")
    with pytest.raises(SystemExit) as ended:
        main.main([])
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert err == ""
    return out.split()


@pytest.fixture
def ledger(here: Path) -> Path:
    """Make a ledger with names of all kinds."""
    here.chmod(0o700)
    with Ledger.open("launches") as opened:
        for number, name in enumerate(["vm1", "vm2", "web", "vm*", "vm;ls", "vm3\x1b[2J", "vm1"]):
            opened.create(ID.format(number), name=name)
    return here / "launches"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sev-attest val", ["plain,validate"]),
        ("sev-attest snp id-block ch", ["plain,check"]),
        ("sev-attest snp id", ["plain,id-block"]),
        ("sev-attest ledger clo", ["plain,close"]),
        ("sev-attest validate --meas", ["plain,--measurement"]),
        ("sev-attest validate --color a", ["plain,auto", "plain,always"]),
        ("sev-attest measure --cpu-model-name EPYC-M", ["plain,EPYC-Milan"]),
        ("sev-attest snp measure --cpu-model-name EPYC,EPYC-R", ["plain,EPYC,EPYC-Rome"]),
        ("sev-attest measure --vmsa-profile kr", ["plain,krun"]),
        ("sev-attest snp measure --vmsa-profile sv", ["plain,svsm", "plain,svsm-init2"]),
        ("sev-attest policy no-debug,e", ["plain,no-debug,es"]),
        ("sev-attest completion z", ["plain,zsh"]),
        ("sev-attest schema snp-ver", ["plain,snp-verify"]),
        ("sev-attest validate --firmware OV", ["file,OV"]),
        ("sev-attest session --out ke", ["dir,ke"]),
        ("sev-attest validate --firmware-dir fi", ["dir,fi"]),
        ("sev-attest simulate list ho", ["dir,ho"]),
        ("sev-attest verify ", ["file,"]),
        ("sev-attest --version val", ["plain,validate"]),
        ("sev-attest nothing --x", []),
    ],
)
def test_words_are_completed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str,
    expected: list[str],
) -> None:  # fmt: skip
    assert words(line, capfd, monkeypatch) == expected


def test_names_of_sessions_come_from_the_ledger(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ledger: Path
) -> None:
    """Names that a shell would take for more than a word are left out; each is there once."""
    before = ledger.read_bytes()
    found = words("sev-attest ledger show --ledger launches vm", capfd, monkeypatch)
    assert sorted(found) == ["plain,vm1", "plain,vm2"]
    found = words("sev-attest validate --store launches --session w", capfd, monkeypatch)
    assert found == ["plain,web"]
    monkeypatch.setenv("SEV_ATTEST_LEDGER", "launches")
    assert words("sev-attest ledger close w", capfd, monkeypatch) == ["plain,web"]
    assert ledger.read_bytes() == before


@pytest.mark.parametrize("place", ["", "none", "postgresql://db/x", "nothing", "host.txt"])
def test_without_a_ledger_in_a_file_nothing_is_completed_and_none_is_made(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path, place: str
) -> None:
    here.chmod(0o700)
    Path("host.txt").write_text("no ledger")
    option = f"--ledger {place} " if place else ""
    assert words(f"sev-attest ledger show {option}v", capfd, monkeypatch) == []
    assert [path.name for path in here.iterdir()] == ["host.txt"]


def test_what_completes_reads_a_bounded_number_of_names(ledger: Path) -> None:
    assert len(sqlite.recent_names(str(ledger), 2, 0.1)) == 2


def test_a_command_is_run_whatever_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_WORDS", "sev-attest val")
    monkeypatch.setenv("COMP_CWORD", "1")
    for asked in ("bash_complete", "bash_source", "zsh_complete", "fish_complete", "nonsense"):
        monkeypatch.setenv("_SEV_ATTEST_COMPLETE", asked)
        with pytest.raises(SystemExit) as ended:
            main.main(["verify", "nothing-there"])
        assert ended.value.code == 6
        assert "nothing-there" in capfd.readouterr().err


@pytest.mark.parametrize("asked", ["bash_source", "tcsh_complete", "bash_", ""])
def test_what_is_no_completion_is_a_line_without_a_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], asked: str
) -> None:
    monkeypatch.setenv("_SEV_ATTEST_COMPLETE", asked)
    with pytest.raises(SystemExit) as ended:
        main.main([])
    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("Usage: ")


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_an_error_shows_nothing_in_the_middle_of_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def fail(_self: object) -> str:
        raise error

    monkeypatch.setattr(shell_completion.BashComplete, "complete", fail)
    assert completion.complete(cli, "bash") == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_is_the_shell_s_and_no_program_is_run_for_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setenv("PATH", "")
    ran = run("completion", shell)
    assert (ran.code, ran.err) == (0, "")
    assert f"_SEV_ATTEST_COMPLETE={shell}_complete" in ran.out
    assert run("completion", "tcsh").code == 2
