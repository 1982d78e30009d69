"""``tools/mutate.py``: it knows the tests of every module that decides something."""

from pathlib import Path

import mutate

SRC = Path(__file__).parent.parent / "src" / "sev_attest"
NOT_CORE = ("cli/", "testing/", "__main__.py")
"""The command line has whole-command tests, and what simulates a platform decides nothing."""
EXPORTS = ("__init__.py", "_api.py")


def test_every_module_of_the_core_is_changed() -> None:
    names = (str(path.relative_to(SRC)) for path in SRC.rglob("*.py"))
    core = {
        name
        for name in names
        if not name.startswith(NOT_CORE) and not name.endswith(EXPORTS) and name not in mutate.DATA
    }
    assert core - {*mutate.core()} == set()


def test_every_module_has_tests_of_its_own() -> None:
    for module in mutate.core():
        assert len(mutate.tests_of(module)) > 1, module
