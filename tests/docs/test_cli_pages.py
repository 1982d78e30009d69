"""tools/make_cli_pages.py: the site's page of a command says what its help says."""

import re
from pathlib import Path

import click
import pytest

import make_cli_pages
from cli_tree import described, program
from make_cli_pages import escaped
from sev_attest.cli.bundle import Command, Options, option

PROGRAM = program()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    make_cli_pages.write(folder)
    return folder


def test_every_command_has_a_page_which_the_page_above_lists(folder: Path) -> None:
    assert {file.stem for file in folder.iterdir()} == {page.name for page in PROGRAM.walk()}
    for page in PROGRAM.walk():
        text = (folder / f"{page.name}.md").read_text()
        listed = re.findall(r"^- \[`(.*)`\]\((.*)\.md\): \S", text, re.MULTILINE)
        assert listed == [(command.words[-1], command.name) for command in page.commands]
        for name, file in listed:
            assert f"\n{name} <{file}>\n" in text


def test_every_option_of_a_command_is_in_its_page_under_its_title(folder: Path) -> None:
    for page in PROGRAM.walk():
        text = (folder / f"{page.name}.md").read_text()
        for section in page.options:
            part = text.partition(f"\n## {section.title}\n")[2].partition("\n## ")[0]
            for names, help_text in section.rows:
                assert f"````{{option}} {names}\n{escaped(help_text)}\n````" in part


def test_a_page_says_how_the_command_is_typed(folder: Path) -> None:
    text = (folder / "sev-attest-snp-verify.md").read_text()
    assert text.startswith("# sev-attest snp verify\n")
    assert "\n```text\nsev-attest snp verify [OPTIONS] REPORT [CERT]...\n```\n" in text
    assert "\n```{program} sev-attest snp verify\n```\n" in text


class _Toy(Options, title="What *toys* have"):
    key: str = option("--key", help="[a](b) <c> `d*` --e-f", envvar="TOY_KEY", metavar="K")


def test_titles_examples_variables_and_characters_of_markdown_come_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command("toy", cls=Command, epilog="\b\n$ toy --key '*'\n*done*")
    @_Toy.given("toy")
    def command() -> None:
        """Play."""

    monkeypatch.setattr(make_cli_pages, "program", lambda: described(command, "toy"))
    text = make_cli_pages.write(tmp_path)[0].read_text()
    assert "\n## What \\*toys\\* have\n" in text
    assert "\n````{option} --key K\n\\[a\\](b) \\<c\\> `d*` `--e-f`" in text
    assert "\n## Notes\n\n```console\n$ toy --key '*'\n*done*\n```\n" in text
    assert "\n- `TOY_KEY` stands for `--key`.\n" in text


def test_a_backtick_alone_is_text() -> None:
    assert escaped("a ` b") == "a \\` b"
