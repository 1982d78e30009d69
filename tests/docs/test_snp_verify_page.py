"""``docs/snp-verify.md``: its table of checks is complete."""

import re
from pathlib import Path

from sev_attest.snp import expected, verify

PAGE = Path(__file__).parents[2] / "docs" / "snp-verify.md"


def test_the_page_lists_every_check() -> None:
    listed = re.findall(r"^\| `(snp\.[a-z.-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [*verify.CHECKS, *expected.CHECKS]
