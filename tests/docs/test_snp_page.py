"""docs/snp-report.md: tables as in the code, and examples that run; docs/snp.md: its options."""

import re
from pathlib import Path

from conftest import Run
from sev_attest.cli import snp_certificate_fields
from sev_attest.cli.snp_fields import facts, meanings
from sev_attest.snp.certificates import Certificate
from sev_attest.snp.policy import DEMANDS, PERMITS, PLATFORM
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.revocation import RevocationList
from snp_material import AMD, MILAN
from snp_reports import report

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "snp-report.md").read_text()


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


def test_the_fields_of_certificates_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| (certificates|AMD's extensions|revocation lists) \| (.*) \|$",
                           PAGE, re.MULTILINE))  # fmt: skip
    vek = snp_certificate_fields.facts(Certificate(raw=MILAN.vek()))
    key, amd = vek["public_key"], vek["extensions"]
    assert isinstance(key, dict)
    assert isinstance(amd, dict)
    crl = snp_certificate_fields.facts(RevocationList(raw=AMD.crl()))
    named = {of: re.findall(r"`([a-z_0-9]+)`", row) for of, row in rows.items()}
    named["AMD's extensions"].remove("reported_tcb")
    assert named["AMD's extensions"] == [*amd]
    assert named["revocation lists"] == [*crl]
    assert named["certificates"] == [*[*vek][:-1], *key, "extensions"]


def test_its_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {"data": report()}
    exec(example, names)
    assert isinstance(names["report"], AttestationReport)


def test_its_example_of_a_certificate_is_what_is_shown(run: Run, here: Path) -> None:
    (example,) = re.findall(r"\$ sev-attest snp show vcek\.der\n(.*?)```", PAGE, re.DOTALL)
    (here / "vcek.der").write_bytes(MILAN.vek())
    ran = run("snp", "show", "vcek.der")
    shown = [*ran.lines, *ran.notes]
    parts = [line.partition("...")[0] for line in example.splitlines()]
    for part in parts:
        assert any(one.startswith(part) for one in shown), part
    assert len(parts) == len(shown) - 3  # one line of dots stands for spl4 to spl7


def test_the_commands_for_real_hosts_have_the_options_that_they_name(run: Run) -> None:
    page = (DOCS / "snp.md").read_text()
    hosts = page.partition("\n## On real hosts\n")[2].partition("\n## ")[0].replace("\\\n", " ")
    lines = re.findall(r"^(?:owner\$|guest#) sev-attest ([^#|\n]*)", hosts, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        command = line.split()[:2]
        shown = run(*command, "--help")
        assert shown.code == 0, line
        for option in re.findall(r"(?<!\S)--[a-z-]+", line):
            assert re.search(rf"{option}\b", shown.out), (line, option)
