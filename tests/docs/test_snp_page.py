"""docs/snp.md: its tables are the code's, and its example runs."""

import re
from pathlib import Path

from sev_attest.cli.snp_fields import facts, meanings
from sev_attest.snp.policy import DEMANDS, PERMITS, PLATFORM
from sev_attest.snp.report import AttestationReport
from snp_reports import report

PAGE = (Path(__file__).parents[2] / "docs" / "snp.md").read_text()


def test_the_tables_have_every_bit_and_no_other() -> None:
    policy = sorted(
        (bit.bit_length() - 1, f"`{words[0]}`", kind, *words[1:])
        for kind, table in (("permits", PERMITS), ("demands", DEMANDS))
        for bit, words in table.items()
    )
    platform = [
        (bit.bit_length() - 1, f"`{words[0]}`", *words[1:]) for bit, words in PLATFORM.items()
    ]
    rows = re.findall(r"^\| (\d+ \| `.*) \|$", PAGE, re.MULTILINE)
    assert rows == [" | ".join(map(str, row)) for row in (*policy, *platform)]


def test_the_parts_of_the_json_are_those_of_the_code() -> None:
    parsed = AttestationReport.from_bytes(report())
    (row,) = re.findall(r"^\| `meaning` \| (.*) \|$", PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == list(meanings(parsed))
    assert "measurement" in facts(parsed)


def test_its_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {"data": report()}
    exec(example, names)
    assert isinstance(names["report"], AttestationReport)
