"""docs/snp.md: its walk on the simulated platform prints what it shows."""

from pathlib import Path

from console import commands, show_what_they_print

PAGE = (Path(__file__).parents[2] / "docs" / "snp.md").read_text()


def test_from_nothing_to_a_verified_report(here: Path) -> None:
    walk = PAGE.partition("## On the simulated platform\n")[2].partition("\n## ")[0]
    page = commands(walk)
    assert len(page) > 5
    show_what_they_print(page, here)
