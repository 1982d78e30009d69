"""docs/snp.md: its walk on the simulated platform prints what it shows."""

from pathlib import Path

from console import commands, show_what_they_print
from sev_attest._keys import Kem
from snp_material import needs

PAGE = (Path(__file__).parents[2] / "docs" / "snp.md").read_text()
WALK = PAGE.partition("## On the simulated platform\n")[2].partition("\n## ")[0]
WAITS = "sev-attest snp challenge --name vm1 --quiet"
"""Leaves a challenge of the walk's name in the reader's own ledger, as an earlier try does."""
VERIFIED = WALK.partition("\n### Release a secret\n")[0]


def test_from_nothing_to_a_verified_report(here: Path) -> None:
    page = commands(VERIFIED)
    assert len(page) > 5
    show_what_they_print(page, here)


@needs(Kem.X25519)
def test_from_nothing_to_a_secret_that_left_once(here: Path) -> None:
    page = commands(WALK)
    assert len(page) > len(commands(VERIFIED)) + 10
    show_what_they_print([(WAITS, ""), *page], here)
