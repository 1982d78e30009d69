"""``docs/evidence.md``: its commands print what it shows, and its table has every field."""

import re
from pathlib import Path

import pytest

from console import commands, show_what_they_print
from sev_attest.cli.evidence.document import Evidence

PAGE = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")

pytest.importorskip("jinja2", reason="Jinja2 is not installed")


def test_its_commands_print_what_it_shows(here: Path) -> None:
    show_what_they_print(commands(PAGE), here)


def test_its_table_has_every_field_in_its_order() -> None:
    _, _, rest = PAGE.partition("## JSON")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", rest, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == [
        *Evidence.__annotations__
    ]
