"""tools/make_man.py: a man page says what its command's help says, and can be set."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

import make_man
from cli_tree import Page, described, exit_codes, program
from sev_attest.cli.bundle import Command, Options, option

PROGRAM = program()
PAGES = make_man.pages(PROGRAM)
ORDER = (
    "NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXIT STATUS", "FILES", "ENVIRONMENT",
    "SEE ALSO",
)  # fmt: skip


def read(text: str) -> str:
    """Return what a reader sees of a page's text, on one line."""
    text = re.sub(r"^\.(?:[A-Z]{2}|nh|ad l) ?|\\f.|\\&|\\:", "", text, flags=re.MULTILINE)
    for shown, typed in {
        "'": r"\(aq",
        '"': r"\(dq",
        "`": r"\(ga",
        "~": r"\(ti",
        "^": r"\(ha",
    }.items():
        text = text.replace(typed, shown)
    return " ".join(text.replace(r"\-", "-").replace(r"\e", "\\").split())


def commands(command: click.Command, context: click.Context) -> dict[str, click.Command]:
    """Return every command below one, by the name of its page: as click itself finds it."""
    found = {context.command_path.replace(" ", "-"): command}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= commands(below, click.Context(below, info_name=name, parent=context))
    return found


def real() -> dict[str, click.Command]:
    from sev_attest.cli.main import cli

    return commands(cli, click.Context(cli, info_name="sev-attest"))


def test_every_command_has_a_page_and_no_page_is_without_one() -> None:
    assert PAGES.keys() == real().keys()
    assert len(PAGES) > 60


@pytest.mark.parametrize("name", PAGES)
def test_every_option_of_a_command_is_in_its_page_with_its_help(name: str) -> None:
    shown = read(PAGES[name])
    for parameter in real()[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for one in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", shown), one
            assert read(make_man._marked(parameter.help or "")) in shown, parameter.name
    assert "-h, --help" in shown


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_its_parts_in_order(name: str) -> None:
    headings = re.findall(r"^\.SH (.*)$", PAGES[name], re.MULTILINE)
    assert [one for one in headings if one in ORDER] == [one for one in ORDER if one in headings]
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"} <= {*headings}
    for code, meaning in exit_codes():
        assert f"{code} {meaning}" in read(PAGES[name].partition(".SH EXIT STATUS")[2])


def test_a_page_names_the_one_above_and_those_below() -> None:
    see = {name: read(text.partition(".SH SEE ALSO")[2]) for name, text in PAGES.items()}
    assert see["sev-attest-snp-verify"] == "sev-attest-snp(1)"
    assert "sev-attest-snp-verify(1)" in see["sev-attest-snp"]
    assert see["sev-attest-snp"].startswith("sev-attest(1), ")


class _Toy(Options, title="Keys of .\\ 'toys'"):
    key: str = option("--key", help="`-` is ~ or ^.\\fBnot bold", envvar="TOY_KEY", metavar="A|B")


class _Drawn(Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            formatter.write("toy --key 1 \\\n")
            formatter.write("    2\n")
        super().format_epilog(ctx, formatter)


def toy() -> Page:
    @click.command(
        "toy", cls=_Drawn, epilog=".SH of an epilog\n\n\b\n$ toy --key 'a b'\n  .sh in an example"
    )
    @_Toy.given("toy")
    @click.option("--hidden", hidden=True)
    def command() -> None:
        """Play. Not \u201cseriously\u201d."""

    return described(command, "toy")


def test_titles_examples_variables_and_characters_of_roff_come_through() -> None:
    text = make_man.pages(toy())["toy"].replace("\n.ad l\n.nh", "")
    assert ".SS Keys of .\\e \\(aqtoys\\(aq\n" in text
    assert "\\fB\\-\\fP is \\(ti or \\(ha.\\efBnot bold" in text
    assert ".SH NOTES\n\\&.SH of an epilog\n.PP\n.EX\n$ toy \\-\\-key \\(aqa b\\(aq\n" in text
    assert "\n  .sh in an example\n.EE\n" in text
    assert ".SH EXAMPLES\n.EX\ntoy \\-\\-key 1 \\e\n    2\n.EE\n.SH NOTES\n" in text
    assert "\n.TP\n\\fBTOY_KEY\\fP\nStands for \\fB\\-\\-key\\fP.\n" in text
    assert "\\[u201C]seriously\\[u201D]" in text
    assert "hidden" not in text


def test_the_first_page_has_the_variables_of_all_commands() -> None:
    _, _, rest = PAGES["sev-attest"].partition(".SH ENVIRONMENT\n")
    found = re.findall(r"^\.TP\n\\fB(SEV_ATTEST_\w+)", rest, re.MULTILINE)
    assert found == [f"SEV_ATTEST_{name}" for name in ("COLOR", "LEDGER", "REQUIREMENTS", "STORE")]


def test_the_date_is_given_or_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert make_man.pages(toy())["toy"].startswith('.TH TOY 1 "" ')
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert make_man.pages(toy())["toy"].startswith('.TH TOY 1 "1970-01-02" ')


def test_the_folder_has_the_pages_of_this_run_alone(tmp_path: Path) -> None:
    (tmp_path / "sev-attest-gone.1").touch()
    (tmp_path / "other.1").touch()
    made = make_man.write(tmp_path / "man")
    assert {path.name for path in made} == {f"{name}.1" for name in PAGES}
    (tmp_path / "man" / "sev-attest-gone.1").touch()
    make_man.write(tmp_path / "man")
    assert {*(tmp_path / "man").iterdir()} == {*made}


@pytest.mark.parametrize(
    "reader",
    [
        pytest.param(["man", "--warnings", "--local-file"], id="man"),
        pytest.param(["mandoc", "-T", "lint", "-W", "style"], id="mandoc"),
    ],
)
def test_whoever_sets_a_page_has_nothing_to_warn_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: list[str]
) -> None:
    if shutil.which(reader[0]) is None:
        pytest.skip(f"{reader[0]} is not installed")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "toy.1").write_text(make_man.pages(toy())["toy"])
    for page in (*make_man.write(tmp_path), tmp_path / "toy.1"):
        ran = subprocess.run(
            [*reader, page.name],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            text=True,
            env=os.environ | {"MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
        )
        said = ran.stderr + (ran.stdout if reader[0] == "mandoc" else "")
        assert (ran.returncode, said) == (0, ""), page.name
        assert "\u2010\n" not in ran.stdout, "a word is broken"
