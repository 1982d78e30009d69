"""What people see of commands: help, examples, and what is near to a mistyped word."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from conftest import Run
from sev_attest.cli import exits
from sev_attest.cli.help import Helpful, HelpfulGroup, Option
from sev_attest.cli.main import cli

Walk = Iterator[tuple[tuple[str, ...], click.Command]]


def every_command(group: click.Group = cli, path: tuple[str, ...] = ()) -> Walk:
    """Yield every command and group, with the words that name it."""
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from every_command(found, (*path, name))
        elif found is not None:
            yield (*path, name), found


CONTEXT = click.Context(cli)
COMMANDS = dict(every_command())
EXAMPLES = [(path, line) for path, one in COMMANDS.items() for line in getattr(one, "examples", ())]


def test_every_command_takes_part() -> None:
    assert len(COMMANDS) > 60
    assert all(isinstance(one, Helpful) for one in COMMANDS.values())
    options = (one for command in COMMANDS.values() for one in command.get_params(CONTEXT))
    assert all(isinstance(one, Option | click.Argument) for one in options)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_one_to_four_examples_of_its_own(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert isinstance(command, Helpful)
    assert 1 <= len(command.examples) <= 4
    named = " ".join(("sev-attest", *path))
    assert any(f"{named} " in f"{line} " for line in command.examples)


def words_of(line: str) -> list[str]:
    """Return the arguments of our command in a line for a shell."""
    line = line.replace("source <(", "").replace(" bash)", " bash")
    line = line.partition("sev-attest ")[2].partition(" > ")[0]
    line = line.replace("$(cat nonce.hex)", "00" * 64).replace("$(cat digest.hex)", "00" * 48)
    return shlex.split(line.replace("$(cat vm1.measurement)", "A" * 64))


def lay_out(run: Run, line: str) -> None:
    """Lay out the folders that an example names."""
    Path("certs").mkdir()
    if " simulate " in line and "simulate host" not in line:
        assert run("simulate", "host", "host").code == 0


@pytest.mark.parametrize(("path", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_has_only_options_that_there_are(
    run: Run, here: Path, path: tuple[str, ...], line: str
) -> None:
    lay_out(run, line)
    assert "sev-attest " in line, path
    with contextlib.ExitStack() as stack:
        command: click.Command = cli
        parent: click.Context | None = None
        words = words_of(line)
        while True:
            context = command.make_context(command.name, words, parent=parent)
            parent = stack.enter_context(context)
            if not isinstance(command, click.Group):
                break
            own = vars(context)  # another name before click 8.2
            left = [*(own.get("_protected_args") or own["protected_args"]), *context.args]
            _, found, words = command.resolve_command(context, left)
            assert found is not None
            command = found


# These reach for a device, a host, a server or the network.
ELSEWHERE = ("host ", "launch ", "demo", "verify --each")
RUN = [
    line
    for _, line in EXAMPLES
    if not any(f"sev-attest {word}" in line for word in ELSEWHERE)
    and not any(word in line for word in ("qemu+ssh:", "postgresql:", "--fetch"))
]


@pytest.mark.parametrize("line", RUN)
def test_no_example_is_a_usage_error(run: Run, here: Path, line: str) -> None:
    """Most find none of their files here, and that is all that is wrong with them."""
    lay_out(run, line)
    ran = run(*words_of(line))
    assert ran.code in (0, 1, 4, 5, 6), ran.err


def test_the_examples_of_the_first_help_lead_from_a_chain_to_a_verdict(
    run: Run, here: Path
) -> None:
    _, verify, session, validate = (words_of(line) for line in cli.examples)
    for line in ("simulate host host", "simulate export host host.chain"):
        assert run(*line.split()).code == 0
    for words in (verify, session):
        assert run(*words, "--trust-root", "host/test-root.cert").code == 0
    Path("OVMF.fd").write_bytes(Path("host/OVMF.fd").read_bytes())
    started = run(
        *("simulate", "start", "host", "--name", "vm1", "--policy", session[-1]),
        *("--godh", "vm1_godh.b64", "--session", "vm1_session.b64"),
        *(validate[validate.index("--firmware") : validate.index("--tik")]),
    )
    assert started.code == 0
    Path("vm1.info").write_text(run("simulate", "domlaunchsecinfo", "host", "vm1").out)
    ran = run(*validate)
    assert (ran.code, ran.lines) == (0, ["OK: Looks good to me"])


@pytest.mark.parametrize("columns", [40, 50, 60, 80, 120])
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_keeps_within_the_terminal_and_breaks_no_word(
    run: Run, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = run(*path, "--help").out
    body, _, examples = shown.partition("\nExamples:\n")
    assert examples
    for line in body.splitlines():
        assert len(line) <= columns or len(line.split()) == 1, line
    monkeypatch.setenv("COLUMNS", "2000")
    wide = run(*path, "--help").out
    assert shown.replace("\\\n", "").split() == wide.replace("\\\n", "").split()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    for one in command.params:
        assert not isinstance(one, click.Option) or one.help, one.opts


def test_examples_break_before_an_option_and_not_before_its_value(run: Run) -> None:
    shown = run("snp", "release", "--help").out.partition("\nExamples:\n")[2]
    assert shown == (
        "  sev-attest snp release answer --challenge vm1.challenge.json \\\n"
        "      --transport-key answer/transport-key.json --requirements owner.toml \\\n"
        "      --secret disk:disk.key --out secrets.json\n"
    )


def test_the_columns_of_all_tables_of_a_command_are_the_same(run: Run) -> None:
    shown = run("validate", "--help").out.partition("\nExamples:")[0]
    rows = re.findall(r"^(  -\S.*?  +)(?=\S)", shown, re.MULTILINE)
    assert len({len(row) for row in rows}) == 1
    assert len(rows) > 30


def test_the_options_of_validate_are_in_sections(run: Run) -> None:
    shown = run("validate", "--help").out
    titles = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert titles == [
        "The host's report", "The host", "The guest", "The guest's vCPUs", "Keys",
        "Requirements and secrets", "Ledger", "Diagnosis", "Evidence", "Output", "Options",
        "Examples",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", [p for p, one in COMMANDS.items() if isinstance(one, click.Group)], ids=" ".join
)
def test_a_group_alone_shows_its_help_and_has_verified_nothing(
    run: Run, path: tuple[str, ...]
) -> None:
    ran = run(*path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == run(*path, "--help").out


def test_summaries_are_whole_lines(run: Run) -> None:
    for path, one in COMMANDS.items():
        if isinstance(one, HelpfulGroup):
            for name, line in one.summaries(click.Context(one)):
                assert line[-1].isalnum() or line[-1] in ")`", (path, name, line)
            table = run(*path, "--help").out.partition("\nCommands:\n")[2].partition("\n\n")[0]
            assert "..." not in table
            assert table.count("\n  ") >= len(one.list_commands(click.Context(one))) - 1


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["valdate"], "No such command: valdate", "did you mean validate?"),
        (["val"], "No such command: val", "write it whole: validate"),
        (["ledger", "shw"], "No such command: shw", "did you mean show?"),
        (["snp", "id-block", "chek"], "No such command: chek", "did you mean check?"),
        (["validate", "--frimware", "x"], "No such option: --frimware", "did you mean --firmware"),
        (["validate", "--meas=x"], "No such option: --meas", "write it whole: --measurement"),
        (["validate", "--inj", "x"], "No such option: --inj", "write it whole: --inject-secret"),
        (["validate", "--cpu-m", "x"], "No such option: --cpu-m",
         "write it whole: --cpu-model or --cpu-model-name"),
        (["--vers"], "No such option: --vers", "write it whole: --version"),
    ],
)  # fmt: skip
def test_a_mistyped_word_is_told_what_is_near(
    run: Run, arguments: list[str], error: str, hint: str
) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert lines[0] == f"error: {error}"
    assert lines[1].startswith(f"hint: {hint}")
    assert re.search(r"\(`sev-attest.* --help` shows the (option|command)s\)$", lines[1])


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--verbose", "verify", "x"], "put it after the command: `sev-attest verify --verbose`"),
        (["-q", "snp", "verify", "x"], "put it after the command: `sev-attest snp verify -q`"),
        (["snp", "--policy=5", "id-block", "build"],
         "put it after the command: `sev-attest snp id-block build --policy`"),
        (["--verbose"], "did you mean --version?"),
        (["--verbose", "demo"], "did you mean --version?"),
        (["version"], "did you mean --version?"),
        (["ledger", "help"], "did you mean --help?"),
    ],
)  # fmt: skip
def test_what_stands_in_the_wrong_place_is_told_where_it_belongs(
    run: Run, arguments: list[str], hint: str
) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[1].startswith(f"hint: {hint} (`sev-attest")


def test_an_empty_word_is_no_command_and_is_seen(run: Run) -> None:
    assert run("").err.startswith("error: No such command: '' (an empty word)\n")
    assert run("ledger", "").err.startswith("error: No such command: '' (an empty word)\n")


@pytest.mark.parametrize("path", [p for p in COMMANDS if len(p) > 1], ids=" ".join)
def test_an_option_without_its_value_leads_to_the_help_of_its_own_command(
    run: Run, path: tuple[str, ...]
) -> None:
    ran = run(*path, "--color")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: Option '--color' requires an argument.\n"
        f"hint: `sev-attest {' '.join(path)} --help` shows the options\n"
    )


def test_a_missing_choice_is_one_line(run: Run) -> None:
    error = run("completion").err.splitlines()[0]
    assert error == "error: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"


@pytest.mark.parametrize("word", ["qqqqqq", "-x", "v" * 100_000, "--"])
def test_a_word_that_is_near_to_nothing_is_told_where_to_look(run: Run, word: str) -> None:
    for arguments in ([word], ["validate", word]):
        ran = run(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "did you mean" not in ran.err


def test_a_long_list_of_choices_is_text_and_no_column(run: Run) -> None:
    shown = run("simulate", "snp-report", "--help").out
    assert "  --fault NAME " in shown
    assert "One of: forged-root, " in " ".join(shown.split())


def test_names_that_are_not_parameters_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable fills an option by its name alone."""
    monkeypatch.setenv("SEV_ATTEST_VALIDATE_INSECURE", "1")
    with cli.make_context("sev-attest", ["policy", "5"]) as context:
        assert context.auto_envvar_prefix is None
    assert exits.run(cli, ["policy", "5"]) == 0
    assert "SEV_ATTEST_VALIDATE_INSECURE" in os.environ


def test_a_command_without_examples_has_no_section_for_them() -> None:
    bare = Helpful("bare", help="Do nothing.")
    assert "Examples" not in bare.get_help(click.Context(bare))
    assert (bare.examples, bare.titles()) == ((), {})
