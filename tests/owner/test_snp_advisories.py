"""owner/snp_advisories.py and ``sev-attest advisories`` for SEV-SNP."""

import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest import MalformedInput
from sev_attest.owner import snp_advisories as advisories
from sev_attest.owner.advisories import SURE, AdvisoryVerdict, Exposure
from sev_attest.owner.snp_advisories import (
    COMPONENTS,
    DEMAND_NAMES,
    PERMIT_NAMES,
    PLATFORM_NAMES,
    PRODUCTS,
    SnpAdvisory,
    evaluate,
    load,
    standing,
)
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.tcb import Product
from snp_material import PLATFORMS

PAGE = Path(__file__).parents[2] / "docs" / "advisories.md"
AFFECTED, UNSEEN, NOT_AFFECTED = AdvisoryVerdict
GOOD: dict[str, Any] = {
    "platform_info": 0x25,
    **dict.fromkeys(("current_major", "committed_major"), 1),
    **dict.fromkeys(("current_minor", "committed_minor"), 55),
    **dict.fromkeys(("current_build", "committed_build"), 38),
}


def raw(product: str = "genoa", **fields: Any) -> bytes:
    return PLATFORMS[PRODUCTS[product]].report(**GOOD | fields)


def judge(product: str | None = "genoa", **fields: Any) -> Mapping[str, Exposure]:
    """Judge a report of a product in which every figure is good, with changes."""
    report = AttestationReport.from_bytes(raw(product or "genoa", **fields))
    return {one.advisory.id: one for one in evaluate(product, report)}


def genoa(snp: int, microcode: int = 0x54) -> bytes:
    return bytes((10, 0, 0, 0, 0, 0, snp, microcode))


def test_every_known_weakness_is_there() -> None:
    for name in (
        *("badfuse", "one-glitch", "CVE-2024-56161", "CVE-2024-21944", "CVE-2023-20592"),
        *("CVE-2023-31346", "CVE-2023-31347", "CVE-2025-0033", "heracles", "CVE-2025-29943"),
        *("CVE-2025-61971", "CVE-2025-61972", "memory-bus", "CVE-2026-31591", "policy-debug"),
    ):
        assert name in judge()


def test_every_cve_names_its_record() -> None:
    for advisory in load():
        if advisory.id.startswith("CVE-"):
            assert f"https://www.cve.org/CVERecord?id={advisory.id}" in advisory.sources
        for source in advisory.sources:
            assert re.fullmatch(r"https://[^ ]+|AMD-SB-[0-9]{4}|AMD 56860", source)


def test_figures_are_those_of_their_sources_and_no_others_are_there() -> None:
    assert {one.id: dict(one.fixed) for one in load() if one.fixed} == {
        "CVE-2024-21944": {"milan": (1, 55, 22), "genoa": (1, 55, 38)},
        "CVE-2023-31352": {"genoa": (1, 55, 36)},
    }
    assert {one.id: {k: dict(v) for k, v in one.tcb.items()} for one in load() if one.tcb} == {
        "CVE-2024-56161": {"milan": {"snp": 0x18}, "genoa": {"snp": 0x17}},
    }
    assert [one.id for one in load() if one.platform] == ["CVE-2024-21944"]


def test_an_advisory_is_an_immutable_value() -> None:
    first = load()[0]
    assert load() is load()
    assert hash(first) == hash(load()[0])
    entrysign = judge()["CVE-2024-56161"].advisory
    assert isinstance(entrysign, SnpAdvisory)
    with pytest.raises(TypeError):
        entrysign.tcb["milan"]["snp"] = 0  # type: ignore[index]


# the verdict


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        (dict.fromkeys(("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb"), genoa(22)),
         "snp 22 (current) is below 23: it runs without the fix"),
        ({"reported_tcb": genoa(22), "committed_tcb": genoa(22)},
         "snp 22 (committed) is below 23: the host can go back to it, though a fixed one runs"),
        ({"reported_tcb": genoa(22)},
         ("snp 22 (reported) is below 23: the signature proves no more, though a fixed one is "
          "committed")),
        ({"launch_tcb": genoa(22)},
         "snp 22 (launch) is below 23: the guest started without the fix"),
    ],
)  # fmt: skip
def test_a_fix_counts_only_if_every_tcb_has_it(fields: dict[str, Any], reason: str) -> None:
    found = judge(**fields)["CVE-2024-56161"]
    assert found.verdict is (AFFECTED if reason else NOT_AFFECTED)
    assert found.reason == (reason or "the report shows the fix")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"current_build": 37, "committed_build": 37}, "firmware 1.55.37 is before 1.55.38"),
        ({"committed_build": 37},
         "firmware 1.55.38 runs, but the host can go back to 1.55.37, before 1.55.38"),
        ({"platform_info": 0x05}, "platform_info lacks alias-check-complete"),
        ({"current_minor": 54, "platform_info": 0},
         "firmware 1.54.38 is before 1.55.38; platform_info lacks alias-check-complete"),
        ({"current_minor": 56, "committed_minor": 56, "current_build": 0, "committed_build": 0},
         ""),
    ],
)  # fmt: skip
def test_badram_needs_firmware_and_the_bit_that_it_sets(
    fields: dict[str, Any], reason: str
) -> None:
    found = judge(**fields)["CVE-2024-21944"]
    assert found.verdict is (AFFECTED if reason else NOT_AFFECTED)
    assert found.reason == (reason or "the report shows the fix")


def test_no_figure_of_a_milan_rules_a_weakness_out() -> None:
    """A report of a Milan can be forged for any TCB (badfuse)."""
    good = bytes.fromhex("ff000000000000ff").replace(b"\0\xff", b"\xff\xff")
    newest = judge("milan", **dict.fromkeys(
        ("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb"), good))  # fmt: skip
    for name in ("CVE-2024-56161", "CVE-2024-21944"):
        assert newest[name].verdict is UNSEEN
        assert newest[name].reason == (
            "the report shows the fix, but one of milan can be forged (badfuse)"
        )
    assert newest["badfuse"].verdict is AFFECTED
    assert judge("milan", platform_info=0)["CVE-2024-21944"].verdict is AFFECTED


def test_a_product_that_the_sources_do_not_name_may_be_affected() -> None:
    for name in ("badfuse", "CVE-2024-56161", "CVE-2024-21944"):
        found = judge("turin")[name]
        assert found.verdict is UNSEEN
        assert found.reason == "the sources do not say whether it affects turin"


def test_the_policy_s_mistakes_are_told_by_its_bits() -> None:
    for name, bit, word in (("policy-debug", 19, "debug"), ("policy-migration", 18, "migrate-ma")):
        open_, closed = judge(policy=0x30000 | 1 << bit)[name], judge()[name]
        assert (open_.verdict, open_.reason) == (AFFECTED, f"the policy has {word}")
        assert (closed.verdict, closed.reason) == (NOT_AFFECTED, f"the policy lacks {word}")
        assert judge(None)[name].verdict is NOT_AFFECTED


def test_what_is_not_known_never_counts() -> None:
    whole = judge(policy=0xF0000, platform_info=0)
    for one in evaluate(None, None):
        assert one.verdict in (UNSEEN, AFFECTED)
    for product in PRODUCTS:
        for one in evaluate(product, None):
            assert one.verdict is not NOT_AFFECTED
    for one in evaluate("genoa", None):
        assert one.verdict in (UNSEEN, whole[one.advisory.id].verdict)
    reasons = {one.advisory.id: one.reason for one in evaluate(None, None)}
    assert reasons["CVE-2024-56161"] == "the product is not known"
    assert reasons["policy-debug"] == "there is no report"


def table(**changes: str | None) -> str:
    rows = {
        "id": '"slug"', "title": '"t"', "action": '"a"', "sure": '"cve"', "sources": '["s"]',
        "generations": '["milan", "genoa"]', "tcb": "{ genoa = { snp = 23 } }",
        "platform": '["alias-check-complete"]',
    } | changes  # fmt: skip
    return "as_of = 2026-11-25\n[[advisory]]\n" + "\n".join(
        f"{name} = {value}" for name, value in rows.items() if value is not None
    )


def only(
    monkeypatch: pytest.MonkeyPatch, product: str = "genoa", **changes: str | None
) -> Exposure:
    """Judge a good report by one advisory."""
    found = advisories.parse(table(**changes))
    monkeypatch.setattr(advisories, "_shipped", lambda: found)
    (one,) = judge(product).values()
    return one


def test_a_product_without_a_public_figure_is_not_called_fixed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert only(monkeypatch).verdict is NOT_AFFECTED
    found = only(monkeypatch, "milan")
    assert (found.verdict, found.reason) == (UNSEEN, "no fixed version is public for milan")
    assert only(monkeypatch, "milan", tcb=None).verdict is NOT_AFFECTED
    either = "{ milan = [1, 55, 38] }"
    assert only(monkeypatch, "milan", fixed=either).verdict is NOT_AFFECTED
    assert only(monkeypatch, "genoa", fixed=either).verdict is NOT_AFFECTED


def test_what_attestation_cannot_see_is_never_called_fixed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = only(monkeypatch, unseen='"u"')
    assert (found.verdict, found.reason) == (UNSEEN, "u")


def test_a_demand_of_the_policy_may_rule_a_weakness_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: dict[str, Any] = {"tcb": None, "platform": None}
    lacking = only(monkeypatch, unless_policy='["single-socket"]', **plain)
    assert (lacking.verdict, lacking.reason) == (AFFECTED, "the policy lacks single-socket")
    demanding = only(monkeypatch, unless_policy='["smt"]', **plain)
    assert (demanding.verdict, demanding.reason) == (NOT_AFFECTED, "the policy has smt")
    every = only(monkeypatch, generations=None, **plain)
    assert every.reason == "known of every product"


# reading


def test_a_table_with_every_field_is_read() -> None:
    text = table(
        fixed="{ milan = [1, 55, 22] }", if_policy='["smt", "debug"]', forges="true",
        unless_policy='["page-swap-disable"]', unseen='"u"',
    )  # fmt: skip
    assert advisories.parse(text) == (
        date(2026, 11, 25),
        (
            SnpAdvisory(
                id="slug", title="t", action="a", sure="cve", sources=("s",),
                generations=("milan", "genoa"), fixed={"milan": (1, 55, 22)},
                tcb={"genoa": {"snp": 23}}, platform=("alias-check-complete",), forges=True,
                if_policy=("smt", "debug"), unless_policy=("page-swap-disable",), unseen="u",
            ),
        ),
    )  # fmt: skip


VALUES = {
    "generations": ["[]", '["naples"]', '["Milan"]', '["genoa", "milan"]'],
    "fixed": ["{}", "{ turin = [1, 2, 3] }", "{ milan = [1, 2] }"],
    "tcb": [
        *("{}", "1", "{ milan = 1 }", "{ milan = {} }", "{ turin = { snp = 1 } }"),
        *("{ milan = { fmc = 1 } }", "{ milan = { snp = 256 } }", "{ milan = { snp = true } }"),
        *("{ milan = { snp = 0 } }", "{ zen = { snp = 1 } }"),
    ],
    "platform": ["[]", '["tsme"]', '"tsme-en"'],
    "forges": ["false", "1", '"yes"'],
    "if_policy": ["[]", '["es"]', '["debug", "smt"]'],
    "unfixed": ['["milan"]'],
    "not_affected": ["{}"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in VALUES.items() for value in values]
)
def test_a_field_or_value_that_is_not_known_is_refused(name: str, value: str) -> None:
    with pytest.raises(MalformedInput):
        advisories.parse(table(**{name: value}))


# what the versions say of each other


def test_versions_that_differ_are_told_in_words() -> None:
    def said(**fields: Any) -> list[str]:
        return standing("genoa", AttestationReport.from_bytes(raw(**fields)))

    assert said() == []
    assert said(
        current_build=40, reported_tcb=genoa(23, 1), committed_tcb=genoa(23, 2),
        current_tcb=genoa(23, 3), launch_tcb=genoa(23, 2),
    ) == [
        "firmware: 1.55.40 runs, the host can go back to 1.55.38",
        ("microcode: reported 1 (what the signature proves), committed 2 (what the host can go "
         "back to), current 3 (what runs), launch 2 (what the guest started with)"),
    ]  # fmt: skip
    assert list(COMPONENTS["turin"]) == ["fmc", "bootloader", "tee", "snp", "microcode"]


# the command


def test_the_list_of_snp_is_another_than_that_of_sev(run: Run) -> None:
    ran = run("advisories", "--snp")
    assert (ran.code, ran.err) == (0, "")
    first, *lines = ran.lines
    assert first == f"known weaknesses of SEV-SNP as of {advisories.as_of()}"
    for advisory, line in zip(load(), lines, strict=True):
        assert line.startswith(f"{advisory.id}: {advisory.title} (")
    assert "heracles" not in run("advisories").out
    document = json.loads(run("advisories", "--snp", "--json").out)
    assert document["as_of"] == advisories.as_of().isoformat()
    assert not any("verdict" in entry for entry in document["advisories"])
    entries = {entry["id"]: entry for entry in document["advisories"]}
    assert entries["CVE-2024-56161"]["tcb"] == {"milan": {"snp": 24}, "genoa": {"snp": 23}}
    assert entries["memory-bus"]["generations"] == ["milan", "genoa", "turin"]


def test_a_report_is_judged_in_three_groups(run: Run, here: Path) -> None:
    Path("report.bin").write_bytes(raw(committed_build=37))
    ran = run("advisories", "--report", "report.bin")
    assert (ran.code, ran.errors) == (0, [])
    heads = [line.partition(" (")[0] for line in ran.lines if not line.startswith(" ")]
    assert heads[1:4] == [*AdvisoryVerdict]
    at = ran.lines.index("  CVE-2024-21944: " + judge()["CVE-2024-21944"].advisory.title)
    assert ran.lines[at + 1].startswith("    why: firmware 1.55.38 runs, but the host can go back")
    assert ran.notes[-1] == "note: firmware: 1.55.38 runs, the host can go back to 1.55.37"
    assert run("advisories", "--report", "report.bin", "-q").notes == []
    document = json.loads(run("advisories", "--report", "report.bin", "--json").out)
    assert document["facts"]["product"] == "genoa"
    named = run("advisories", "--report", "report.bin", "--product", "genoa")
    assert (named.code, named.out) == (0, ran.out)
    assert document["facts"]["report"]["committed_build"] == 37
    assert document["facts"]["standing"] == [ran.notes[-1][6:]]
    assert {entry["verdict"] for entry in document["advisories"]} == {*AdvisoryVerdict}


def test_a_product_alone_is_a_fact_too(run: Run) -> None:
    ran = run("advisories", "--product", "Milan", "-v")
    assert "    why: there is no report" in ran.lines
    assert "    fixed: genoa firmware 1.55.38, platform_info alias-check-complete" in ran.lines
    assert "    fixed: milan TCB snp 24" in ran.lines


def test_a_report_of_version_2_needs_its_product(run: Run, here: Path) -> None:
    Path("report.bin").write_bytes(raw(version=2))
    ran = run("advisories", "--report", "report.bin")
    assert "    why: the product is not known" in ran.lines
    ran = run("advisories", "--report", "report.bin", "--product", "genoa")
    assert "    why: the report shows the fix" in ran.lines


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--snp", "--build", "5"), "--snp excludes --build (for SEV and SEV-ES)"),
        (("--report", "report.bin", "--product", "turin"),
         "--product turin: the report is of Genoa"),
        (("--report", "odd.bin", "--product", "milan"),
         "--product milan: the report is of an unknown product"),
        (("--product", "naples"), "Invalid value for '--product': 'naples' is not one of"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_usage_errors(
    run: Run, here: Path, options: tuple[str, ...], said: str
) -> None:
    Path("report.bin").write_bytes(raw())
    Path("odd.bin").write_bytes(raw(cpuid_family=0x55))
    ran = run("advisories", *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {said}")


# the page


def shown_by(advisory: SnpAdvisory) -> str:
    """Say what of a guest decides."""
    found = [f"before {words}" for words in [", ".join(advisory.fixed_texts())] if words]
    if advisory.if_policy:
        found.append(f"policy has {' or '.join(advisory.if_policy)}")
    if advisory.unseen:
        found.append("not shown")
    return ", ".join(found) or "always"


def test_the_page_has_the_table_of_the_data() -> None:
    rows = [
        "| id | what | products | affected | rests on |",
        "|---|---|---|---|---|",
        *(
            f"| `{one.id}` | {one.title} | {', '.join(one.generations) or 'all'} "
            f"| {shown_by(one)} | {SURE[one.sure]} |"
            for one in load()
        ),
    ]
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("### The advisories of SEV-SNP\n\n")
    assert rest.partition("\n\n")[0].splitlines() == rows, "\n".join(rows)


def test_the_page_names_every_field() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in (*advisories._SNP.fields, *PERMIT_NAMES, *DEMAND_NAMES):
        assert f"`{name}`" in page, name
    assert "alias-check-complete" in PLATFORM_NAMES
    assert Product.GENOA in PRODUCTS.values()
