"""docs/launch.md: its options, steps and codes are those of the command."""

import re
from pathlib import Path

from sev_attest.cli.commands.launch import command
from test_cli_launch import STEPS

PAGE = (Path(__file__).parents[2] / "docs" / "launch.md").read_text()
OF_OTHERS = {"--paused", "--session"}
"""virsh's, and that of `validate`."""


def test_every_option_that_the_page_names_is_there() -> None:
    own = {name for parameter in command.params for name in parameter.opts}
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert len(named) > 15
    assert named - own == OF_OTHERS


def test_the_example_shows_every_step_in_its_order() -> None:
    _, _, rest = PAGE.partition("```console")
    shown = re.findall(r"^(\w+): ", rest.partition("```")[0], re.MULTILINE)
    assert [step for step in shown if step != "OK"] == STEPS
