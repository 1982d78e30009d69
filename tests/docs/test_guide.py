"""docs/guide.md: each row of its table names a command, checks and a test that exist."""

import re
from pathlib import Path

import pytest

from conftest import Run

ROOT = Path(__file__).parents[2]
DOCS, TESTS = ROOT / "docs", ROOT / "tests"
PAGE = (DOCS / "guide.md").read_text()
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "`sev-attest " in line
]
TYPED = sorted(set(re.findall(r"sev-attest (?:[^`|\n\\]|\\\n)+", PAGE)))
GROUPS = ("domain", "guest", "host")


def test_every_step_has_a_row() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize("line", TYPED)
def test_a_command_and_its_options_exist(run: Run, line: str) -> None:
    words = line.split()[1:]
    shown = run(*words[: 2 if words[0] in GROUPS else 1], "--help")
    assert shown.code == 0
    for option in re.findall(r"--[a-z0-9-]+", line):
        assert re.search(rf"{option}\b", shown.out), option


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_checks_of_a_row_exist(row: list[str]) -> None:
    lists = [(DOCS / name).read_text() for name in ("domain.md", "host-check.md")]
    for check in re.findall(r"`((?:domain|guest|host)\.[a-z0-9.-]+)`", row[3]):
        assert any(f"\n| `{check}` |" in text for text in lists), check


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_test_of_a_row_exists(row: list[str]) -> None:
    found = re.fullmatch(r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`", row[4])
    assert found is not None
    assert f"def {found[2]}(" in (TESTS / found[1]).read_text()
