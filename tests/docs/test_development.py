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


def test_every_module_that_the_page_names_is_there() -> None:
    places, _, _ = PAGE.partition("## To change")
    source = TESTS.parent / "src" / "sev_attest"
    for cell in re.findall(r"^\| (`.*?) \|", places, re.MULTILINE):
        for name in re.findall(r"`([\w/.]+)`", cell):
            assert (source / name).exists(), name
