"""docs/tutorial.md: its commands print what it shows."""

from pathlib import Path

from console import commands, show_what_they_print

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()


def test_every_command_prints_what_the_page_shows(tmp_path: Path) -> None:
    found = commands(PAGE)
    assert len(found) > 15
    show_what_they_print(found, tmp_path)
    assert (tmp_path / "web1_payload.b64").exists()
    assert not (tmp_path / "again_payload.b64").exists()
    assert not (tmp_path / "web2_payload.b64").exists()
