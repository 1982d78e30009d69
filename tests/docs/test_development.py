"""docs/development.md: what it names is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "development.md").read_text()


def test_every_test_that_the_page_names_is_there() -> None:
    _, _, table = PAGE.partition("## Classes of fault")
    file, named = "", 0
    for given, name in re.findall(r"`((?:\w+/)?test_\w+\.py)?::(test_\w+)", table):
        file = given or file
        assert f"def {name}(" in (TESTS / file).read_text(), f"{file}::{name}"
        named += 1
    assert named > 20


def test_every_file_that_the_page_names_is_there() -> None:
    root = TESTS.parent
    names = set(re.findall(r"`([\w/.*-]+(?:/|\.(?:py|toml|md|json)))`", PAGE)) - {"owner.toml"}
    assert len(names) > 60
    for name in names:
        folders = (root / "src" / "sev_attest", root, TESTS)
        assert any([*folder.glob(name.rstrip("/"))] for folder in folders), name
