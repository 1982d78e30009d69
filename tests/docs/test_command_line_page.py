"""docs/command-line.md: its variables and shells are those that there are."""

import re
from pathlib import Path

from sev_attest.cli.completion import SHELLS
from test_environment import ALLOWED

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()


def test_its_variables_are_those_of_the_options() -> None:
    rows = re.findall(r"^\| `(SEV_ATTEST_\w+)` \| `(--\w+)` \|$", PAGE, re.MULTILINE)
    assert {option: name for name, option in rows} == ALLOWED


def test_it_names_every_shell() -> None:
    scripts = set(re.findall(r"`[^`]*sev-attest completion (\w+)[^`]*`", PAGE))
    assert scripts == {*SHELLS}
