"""owner/advisories.py and ``sev-attest advisories``: known weaknesses, and whom they touch."""

import itertools
import json
import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path

import pytest

from conftest import Run
from sev_attest import MalformedInput, Unsupported, sev
from sev_attest.cli.commands.advisories import affected_lines, documents
from sev_attest.owner import advisories
from sev_attest.owner.advisories import (
    GENERATIONS,
    Advisory,
    AdvisoryVerdict,
    Exposure,
    Unaffected,
    evaluate,
    load,
)

PAGE = Path(__file__).parents[2] / "docs" / "advisories.md"
AFFECTED, UNSEEN, NOT_AFFECTED = AdvisoryVerdict
STRICT = 0x3301003F
POLICIES = [0, 1, 3, 4, 5, 7, 8, 0xD, 0x10, 0x20, 0x3F, 0x00010001, 0x33000005, STRICT]
FIRMWARE = [
    ((major, minor + step), build)
    for major, minor, good in [(0, 17, 22), (1, 55, 22), (1, 55, 36), (1, 55, 38)]
    for step in (-1, 0, 1)
    for build in (0, good - 1, good, good + 1, 255)
]


@cache
def judge(
    generation: str | None = None,
    api: tuple[int, int] | None = None,
    build: int | None = None,
    policy: int | None = None,
) -> Mapping[str, Exposure]:
    given = None if policy is None else sev.GuestPolicy(policy)
    found = evaluate(generation=generation, api=api, build=build, policy=given)
    return {exposure.advisory.id: exposure for exposure in found}


def verdict(name: str, *facts: object, **named: object) -> AdvisoryVerdict:
    return judge(*facts, **named)[name].verdict


# the data


@pytest.mark.parametrize(
    "name",
    [
        *("CVE-2019-9836", "CVE-2020-12967", "CVE-2021-26311", "CVE-2021-26403", "CVE-2021-26408"),
        *("CVE-2021-26320", "CVE-2021-26321", "CVE-2021-26322", "CVE-2021-26404"),
        *("CVE-2021-26407", "CVE-2021-26398", "CVE-2021-26402", "CVE-2021-46768"),
        *("insecure-until-proven-updated", "one-glitch", "badfuse", "rollback"),
        *("CVE-2021-26340", "CVE-2021-26342", "CVE-2021-46744", "CVE-2023-20592"),
        *("CVE-2024-21944", "CVE-2023-31352", "CVE-2023-31346", "CVE-2023-31356"),
        *("CVE-2024-21978", "CVE-2024-56161", "CVE-2025-48514", "edk2-blob-verifier"),
        *("CVE-2025-61971", "CVE-2025-61972", "CVE-2025-52533", "CVE-2025-52536"),
        *("CVE-2024-25742", "CVE-2024-25743", "CVE-2024-25744", "CVE-2025-29943"),
        *("CVE-2024-36347", "CVE-2025-0032", "CVE-2025-48517"),
        *("policy-debug", "policy-key-sharing", "policy-es", "policy-migration"),
        *("policy-domain", "policy-sev", "policy-min-api", "unmeasured-inputs"),
    ],
)
def test_every_known_weakness_is_there(name: str) -> None:
    assert name in judge()


def test_every_cve_names_its_record() -> None:
    for advisory in load():
        if advisory.id.startswith("CVE-"):
            assert f"https://www.cve.org/CVERecord?id={advisory.id}" in advisory.sources
        for source in advisory.sources:
            assert re.fullmatch(r"https://[^ ]+|AMD-SB-[0-9]{4}|AMD 55766", source)


def test_the_names_that_weaknesses_are_known_by_are_in_their_titles() -> None:
    titles = " ".join(advisory.title for advisory in load())
    names = (
        *("SEVerity", "undeSErVed trust", "CacheWarp", "BadRAM", "EntrySign", "BadFuse", "BadAML"),
        *("MilanLaunchy", "BreakFAST", "StackWarp", "WeSee", "Heckler", "One Glitch"),
    )
    assert [name for name in names if name not in titles] == []


def test_an_advisory_is_an_immutable_value() -> None:
    first = load()[0]
    assert load() is load()
    assert hash(first) == hash(load()[0])
    with pytest.raises(TypeError):
        first.fixed["naples"] = (0, 0, 0)  # type: ignore[index]
    with pytest.raises(AttributeError):
        first.title = ""  # type: ignore[misc]


# the verdict


def test_a_fact_that_is_added_changes_no_verdict_that_was_reached() -> None:
    """What is not known never counts: whatever it turns out to be, the verdict stands."""
    for generation, (api, build), policy in itertools.product(GENERATIONS, FIRMWARE, POLICIES):
        whole = judge(generation, api, build, policy)
        for known in itertools.product((True, False), repeat=4):
            facts = zip(known, (generation, api, build, policy), strict=True)
            part = judge(*(fact if is_known else None for is_known, fact in facts))
            for name, exposure in part.items():
                assert exposure.verdict in (UNSEEN, whole[name].verdict), (name, generation, known)


def test_without_any_fact_nothing_is_ruled_out() -> None:
    for exposure in judge().values():
        assert exposure.verdict is not NOT_AFFECTED


def test_what_attestation_cannot_see_is_never_called_fixed() -> None:
    for generation, (api, build) in itertools.product(GENERATIONS, FIRMWARE):
        for exposure in judge(generation, api, build, STRICT).values():
            one = exposure.advisory
            policy = one.unless_policy or one.if_policy
            touched = not one.generations or generation in one.generations
            if one.unseen and touched and not policy:
                assert exposure.verdict is not NOT_AFFECTED


def test_every_not_affected_has_a_fixed_version_a_policy_or_a_reason_with_its_source() -> None:
    """Silence of the sources rules nothing out."""
    for generation, (api, build), policy in itertools.product(GENERATIONS, FIRMWARE, POLICIES):
        for exposure in judge(generation, api, build, policy).values():
            one, spared = exposure.advisory, exposure.advisory.not_affected
            if exposure.verdict is not NOT_AFFECTED:
                continue
            fixed = one.fixed.get(generation, (256,)) <= (*api, build)
            by_policy = exposure.reason.startswith("the policy ")
            assert by_policy or fixed or (spared and generation in spared.generations)
            assert not by_policy or one.if_policy or one.unless_policy
            assert not spared or (spared.reason and spared.source in one.sources)


def test_a_generation_that_the_sources_do_not_name_may_be_affected() -> None:
    for generation in GENERATIONS:
        for exposure in judge(generation, (255, 255), 255, 5).values():
            one = exposure.advisory
            spared = one.not_affected.generations if one.not_affected else ()
            if one.generations and generation not in (*one.generations, *spared):
                assert exposure.verdict is UNSEEN
                assert exposure.reason == f"the sources do not say whether it affects {generation}"
    for name in ("one-glitch", "badfuse"):
        assert verdict(name, "genoa") is verdict(name, "turin") is UNSEEN


def test_no_build_of_milan_rules_a_weakness_out() -> None:
    """A Milan runs unsigned firmware (badfuse), which can report any build."""
    oldest, newest = judge("milan", (0, 0), 0, 5), judge("milan", (255, 255), 255, 5)
    assert [name for name, found in oldest.items() if found.verdict is NOT_AFFECTED] == [
        name for name, found in newest.items() if found.verdict is NOT_AFFECTED
    ]


def test_what_gets_no_fix_affects() -> None:
    for name in ("CVE-2025-52533", "CVE-2023-20592"):
        for generation in ("naples", "rome"):
            found = judge(generation, (255, 255), 255, STRICT)[name]
            assert found.verdict is AFFECTED
            assert found.reason == f"no fix is known for {generation}"
        assert verdict(name) is verdict(name, "milan") is verdict(name, "turin") is UNSEEN


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("CVE-2019-9836", {"rome", "milan", "genoa", "turin"}),
        ("CVE-2021-26403", {"milan"}),
        ("CVE-2021-26408", {"milan"}),
        ("CVE-2021-26402", {"naples"}),
        ("CVE-2021-46768", {"naples"}),
        ("CVE-2021-26404", {"naples", "rome"}),
        ("CVE-2021-26407", {"naples", "milan"}),
        *((name, set()) for name in ("CVE-2021-26340", "CVE-2023-20592", "CVE-2024-56161")),
        *((name, set()) for name in ("CVE-2023-31356", "CVE-2024-21978", "CVE-2024-21944")),
    ],
)
def test_the_generations_that_a_source_rules_out(name: str, spared: set[str]) -> None:
    found = {one for one in GENERATIONS if verdict(name, one, (255, 255), 255) is NOT_AFFECTED}
    assert found == spared


def test_naples_is_never_safe_from_leaked_pdh_keys() -> None:
    name = "CVE-2019-9836"
    for (api, build), policy in itertools.product(FIRMWARE, [None, *POLICIES]):
        found = verdict(name, "naples", api, build, policy)
        assert found is (AFFECTED if (*api, build) < (0, 17, 22) else UNSEEN)
    assert "stays good" in judge("naples", (0, 17), 22)[name].reason
    assert verdict(name, "naples") is UNSEEN
    assert verdict(name, "naples", (0, 17)) is UNSEEN
    assert verdict(name, "naples", (0, 16)) is AFFECTED
    assert verdict(name, "naples", None, 11) is UNSEEN
    assert verdict(name, None, (0, 17), 11) is UNSEEN
    assert verdict(name, "rome", (0, 17), 11) is NOT_AFFECTED


@pytest.mark.parametrize(
    ("name", "generation", "first"),
    [
        ("CVE-2019-9836", "naples", (0, 17, 22)),
        ("CVE-2024-21944", "milan", (1, 55, 22)),
        ("CVE-2024-21944", "genoa", (1, 55, 38)),
        ("CVE-2023-31352", "genoa", (1, 55, 36)),
    ],
)
def test_firmware_is_compared_as_a_whole(
    name: str, generation: str, first: tuple[int, int, int]
) -> None:
    major, minor, build = first
    fixed = UNSEEN if judge()[name].advisory.unseen else NOT_AFFECTED
    assert verdict(name, generation, (major, minor), build - 1) is AFFECTED
    assert verdict(name, generation, (major, minor), build) is fixed
    assert verdict(name, generation, (major, minor - 1), 255) is AFFECTED
    assert verdict(name, generation, (major, minor + 1), 0) is fixed
    assert major == 0 or verdict(name, generation, (major - 1, 255), 255) is AFFECTED
    assert verdict(name, generation, (major + 1, 0), 0) is fixed
    assert verdict(name, generation, (major, minor)) is UNSEEN
    assert verdict(name, generation, (major + 1, 0)) is UNSEEN


def test_a_generation_without_a_public_build_is_not_called_fixed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = table(fixed="{ naples = [0, 17, 22] }", if_policy=None, unless_policy=None)
    one = advisories.parse(text)
    monkeypatch.setattr(advisories, "_shipped", lambda: one)
    (found,) = evaluate.__wrapped__(
        generation="milan", api=(255, 255), build=255, policy=None
    )  # fmt: skip
    assert (found.verdict, found.reason) == (UNSEEN, "no fixed build is public for milan")


@pytest.mark.parametrize(
    ("name", "open_", "closed"),
    [
        ("policy-debug", 0x3E, [0x01]),
        ("policy-key-sharing", 0x3D, [0x02]),
        ("policy-es", 0x3B, [0x04]),
        ("policy-migration", 0x37, [0x08]),
        ("policy-domain", 0x27, [0x08, 0x10]),
        ("policy-sev", 0x17, [0x08, 0x20]),
        ("policy-min-api", 0x3F, [0x00010000, 0x01000000]),
    ],
)
def test_a_policy_s_mistakes_are_told_by_its_bits(name: str, open_: int, closed: list[int]) -> None:
    assert verdict(name, policy=open_) is AFFECTED
    assert verdict(name) is UNSEEN
    for policy in closed:
        assert verdict(name, policy=policy) is NOT_AFFECTED


def test_a_strict_policy_makes_none_of_the_mistakes() -> None:
    for name, exposure in judge(policy=STRICT).items():
        assert (exposure.verdict is NOT_AFFECTED) == (name.startswith("policy-") or
                                                      name == "CVE-2021-26342")  # fmt: skip


def test_sev_es_decides_where_the_source_says_so() -> None:
    assert verdict("CVE-2021-26342", "milan", policy=5) is NOT_AFFECTED
    assert verdict("CVE-2021-26342", "milan", policy=1) is UNSEEN
    assert verdict("CVE-2025-48514", "milan", policy=1) is NOT_AFFECTED
    assert verdict("CVE-2025-48514", "milan", policy=5) is UNSEEN
    assert verdict("CVE-2025-48514", "rome", policy=5) is UNSEEN
    assert verdict("CVE-2025-48514", "rome", policy=1) is NOT_AFFECTED


def test_no_send_does_not_vouch_for_the_platform_s_key() -> None:
    for name in ("CVE-2021-26408", "insecure-until-proven-updated"):
        assert verdict(name, "naples", (0, 17), 48, STRICT) is not NOT_AFFECTED


def test_nothing_mends_what_sev_does_not_protect() -> None:
    everywhere = ("CVE-2020-12967", "CVE-2021-26311", "CVE-2021-46744", "unmeasured-inputs")
    for generation, name in itertools.product((None, *GENERATIONS), (*everywhere, "rollback")):
        assert verdict(name, generation, (255, 255), 255, 0xFFFF003F) is AFFECTED


@pytest.mark.parametrize(
    "facts",
    [
        {"generation": "Milan"},
        {"generation": "bergamo"},
        {"generation": ""},
        {"build": 256},
        {"build": -1},
        {"api": (256, 0)},
        {"api": (1, -1)},
    ],
)
def test_facts_that_cannot_be_are_refused(facts: dict[str, object]) -> None:
    with pytest.raises(Unsupported):
        judge(**facts)


# reading

GOOD = {
    "id": '"slug"',
    "title": '"t"',
    "action": '"a"',
    "sure": '"cve"',
    "sources": '["s"]',
    "generations": '["naples", "milan"]',
    "fixed": "{ milan = [1, 2, 3] }",
    "not_affected": '{ generations = ["rome"], reason = "r", source = "s" }',
    "if_policy": '["es"]',
    "unless_policy": '["no-debug", "min-api"]',
    "unseen": '"u"',
}


def table(**changes: str | None) -> str:
    rows = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return "as_of = 2026-11-25\n[[advisory]]\n" + "\n".join(
        f"{name} = {value}" for name, value in rows.items()
    )


TABLE_ALONE = table().partition("\n")[2]


def test_a_table_with_every_field_is_read() -> None:
    found = advisories.parse(table())
    assert found.as_of == date(2026, 11, 25)
    assert found.advisories == (
        Advisory(
            id="slug",
            title="t",
            action="a",
            sure="cve",
            sources=("s",),
            generations=("naples", "milan"),
            fixed={"milan": (1, 2, 3)},
            not_affected=Unaffected(generations=("rome",), reason="r", source="s"),
            if_policy=("es",),
            unless_policy=("no-debug", "min-api"),
            unseen="u",
        ),
    )


@pytest.mark.parametrize(
    "name", ["fixed", "not_affected", "if_policy", "unless_policy", "unseen", "unfixed"]
)
def test_a_condition_may_be_left_out(name: str) -> None:
    assert not getattr(advisories.parse(table(**{name: None})).advisories[0], name)


def test_without_generations_all_are_touched() -> None:
    (one,) = advisories.parse(table(generations=None, not_affected=None)).advisories
    assert not one.generations
    with pytest.raises(MalformedInput, match="that it affects") as refused:
        advisories.parse(table(generations=None))
    assert refused.value.check == "advisories.not_affected"


@pytest.mark.parametrize("unfixed", ['["naples"]', '["naples", "milan"]'])
def test_what_gets_no_fix_is_of_a_weakness_that_attestation_cannot_see(unfixed: str) -> None:
    (one,) = advisories.parse(table(unfixed=unfixed, fixed=None)).advisories
    assert one.unfixed == tuple(json.loads(unfixed))
    for changes in ({}, {"fixed": None, "unseen": None}):
        with pytest.raises(MalformedInput, match="unfixed"):
            advisories.parse(table(**{"unfixed": unfixed} | changes))


@pytest.mark.parametrize("name", ["id", "title", "action", "sure", "sources"])
def test_a_field_that_everyone_needs_may_not_be_left_out(name: str) -> None:
    with pytest.raises(MalformedInput, match="is missing") as refused:
        advisories.parse(table(**{name: None}))
    assert refused.value.check == f"advisories.{name}"


LINES = ['""', '"a\\nb"', '"a|b"', '"\\u001b"', "1", "true", "[]", "{}"]
VALUES = {
    "id": ['""', '"CVE-1"', '"Slug"', '"a b"', '"a-"', '"-a"', '"a\\n"', "1", '["a"]'],
    "title": LINES,
    "action": LINES,
    "unseen": LINES,
    "sure": ['"CVE"', '""', '"maybe"', "1", '["cve"]', "{}"],
    "sources": ["[]", '"s"', "[1]", '["s", ""]', '[["s"]]', "{}"],
    "generations": [
        *("[]", '["Milan"]', '["bergamo"]', '["milan", "milan"]', '["milan", "naples"]'),
        *('"milan"', "[1]", "[[]]", "{}", "[{}]"),
    ],
    "fixed": [
        *("{}", "[1, 2, 3]", "1", '"1.2"', "{ bergamo = [1, 2, 3] }", "{ milan = [1, 2] }"),
        *("{ milan = [1, 2, 3, 4] }", "{ milan = [1, 2, 256] }", "{ milan = [1, 2, -1] }"),
        *("{ milan = [1, 2, true] }", "{ milan = [1, 2, 3.0] }", '{ milan = [1, 2, "3"] }'),
        *("{ milan = [] }", "{ milan = {} }", '{ milan = "1.2.3" }', "{ rome = [1, 2, 3] }"),
    ],
    "unfixed": ["[]", '["rome"]', '["bergamo"]', '"milan"', "{}"],
    "not_affected": [
        *("{}", '"rome"', '["rome"]', "true", '{ generations = ["rome"], reason = "r" }'),
        *(
            f"{{ generations = {generations}, reason = {reason}, source = {source} }}"
            for generations, reason, source in [
                *(("[]", '"r"', '"s"'), ('["milan"]', '"r"', '"s"'), ('["bergamo"]', '"r"', '"s"')),
                *(('"rome"', '"r"', '"s"'), ('["rome"]', '""', '"s"'), ('["rome"]', "1", '"s"')),
                *(('["rome"]', '"r"', '""'), ('["rome"]', '"r"', '"t"'), ('["rome"]', '"r"', "1")),
            ]
        ),
        '{ generations = ["rome"], reason = "r", source = "s", more = 1 }',
    ],
    "if_policy": ["[]", '["nodbg"]', '"es"', "[4]", '["es", "es"]', '["no-debug"]', "{}"],
    "unless_policy": ["[]", '["api>=1.0"]', '["min-api", "es"]', '["es"]', "true", "[[]]"],
    "colour": ['"red"', "1"],
    "Title": ['"t"'],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in VALUES.items() for value in values]
)
def test_a_field_or_value_that_is_not_known_is_refused(name: str, value: str) -> None:
    with pytest.raises(MalformedInput):
        advisories.parse(table(**{name: value}))


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "advisory = 1", "advisory = []", "advisory = [1]", "[advisory]\nid = 'a'"),
        f"more = 1\n{table()}",
        f"{table()}\n{TABLE_ALONE}",
        TABLE_ALONE,
        *(
            table().replace("2026-11-25", value)
            for value in (
                '"2026-11-25"',
                "1",
                "2026-11-25T00:00:00",
                "00:00:00",
                "[]",
                "2026-13-01",
            )
        ),
        *(f"{table()}\n[[other]]\n", f"{table()}\n[[advisory]]\n"),
    ],
)
def test_anything_but_advisories_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput) as refused:
        advisories.parse(text)
    assert "\n" not in str(refused.value)


def test_every_cut_of_the_data_is_refused_or_is_shorter() -> None:
    text = (Path(advisories.__file__).parent / "advisories.toml").read_text(encoding="utf-8")
    for end in range(0, len(text), 97):
        try:
            found = advisories.parse(text[:end])
        except MalformedInput:
            continue
        assert len(found.advisories) < len(load())


# the command


def test_without_facts_all_are_listed(run: Run) -> None:
    ran = run("advisories")
    assert (ran.code, ran.err) == (0, "")
    first, *lines = ran.lines
    assert re.fullmatch(r"known weaknesses as of 20\d\d-\d\d-\d\d", first)
    assert first.endswith(str(advisories.as_of()))
    for advisory, line in zip(load(), lines, strict=True):
        assert line.startswith(f"{advisory.id}: {advisory.title} (")
    assert lines[0].endswith(" (naples)")
    assert "(all)" in ran.out


def test_with_facts_there_are_three_groups_affected_first(run: Run) -> None:
    ran = run("advisories", "--generation", "MILAN", "--api", "1.55", "--build", 21, "--policy", 5)
    found = judge("milan", (1, 55), 21, 5)
    day, *heads = [line for line in ran.lines if not line.startswith(" ")]
    counts = [sum(each.verdict is one for each in found.values()) for one in AdvisoryVerdict]
    assert ran.code == 0
    assert heads == [
        f"{one} ({count}):" for one, count in zip(AdvisoryVerdict, counts, strict=True)
    ]
    assert day == f"known weaknesses as of {advisories.as_of()}"
    assert heads[0].startswith("affected")
    badram = found["CVE-2024-21944"].advisory
    at = ran.lines.index(f"  CVE-2024-21944: {badram.title}")
    assert ran.lines[at + 1 : at + 3] == [
        "    why: firmware before 1.55 build 22",
        f"    do: {badram.action}",
    ]
    assert "source:" not in ran.out


@pytest.mark.parametrize("facts", [[], ["--build", "0x15"]])
def test_verbose_adds_the_sources(run: Run, facts: list[str]) -> None:
    ran = run("advisories", "-v", *facts)
    assert ran.code == 0
    for advisory in load():
        assert ran.out.count(f": {', '.join(advisory.sources)}\n") >= 1
    assert ran.out.count("    do: ") == len(load())
    assert ran.out.count("    source: a CVE record: https://www.cve.org/CVERecord?id=CVE-") >= 24
    assert "    fixed: genoa 1.55 build 36\n" in ran.out
    assert "    not affected: naples, rome: the bulletin covers Naples" in ran.out


def test_quiet_prints_what_was_asked_for(run: Run) -> None:
    for given in ((), ("--policy", 0)):
        assert run("advisories", "-q", *given).out == run("advisories", *given).out != ""


def test_the_json_document_has_facts_and_verdicts(run: Run) -> None:
    document = json.loads(run("advisories", "--json", "--generation", "genoa", "--api", "1.55").out)
    assert document["schema"] == "sev-attest/advisories/1"
    assert document["ok"] is True
    assert document["as_of"] == advisories.as_of().isoformat()
    assert document["facts"] == {
        "generation": "genoa", "api": [1, 55], "build": None, "policy": None,
    }  # fmt: skip
    entries = {entry["id"]: entry for entry in document["advisories"]}
    assert list(entries) == [advisory.id for advisory in load()]
    assert entries["CVE-2023-31352"] | {"title": "", "action": "", "sources": []} == {
        "verdict": "attestation cannot see this",
        "reason": "the build is not known",
        "id": "CVE-2023-31352",
        "title": "",
        "generations": ["genoa"],
        "fixed": {"genoa": [1, 55, 36]},
        "unfixed": [],
        "not_affected": None,
        "if_policy": [],
        "unless_policy": [],
        "unseen": None,
        "action": "",
        "sure": "cve",
        "sources": [],
    }


def test_the_json_list_of_all_has_no_verdicts(run: Run) -> None:
    document = json.loads(run("advisories", "--json").out)
    assert len(document["advisories"]) == len(load())
    assert not any("verdict" in entry for entry in document["advisories"])
    assert document["as_of"] == advisories.as_of().isoformat()
    assert document["advisories"][0]["not_affected"] == {
        "generations": ["rome", "milan", "genoa", "turin"],
        "reason": "the record ends at firmware 0.17 build 11, "
        "which is older than this generation's",
        "source": "https://www.cve.org/CVERecord?id=CVE-2019-9836",
    }


@pytest.mark.parametrize(
    "options",
    [
        *(["--api", "1"], ["--api", "1."], ["--api", ".1"], ["--api", "1.2.3"], ["--api", "1.256"]),
        *(["--api", ""], ["--build", "256"], ["--generation", "bergamo"], ["--policy", "-1"]),
        ["milan"],
    ],
)
def test_options_that_make_no_sense_are_usage_errors(run: Run, options: list[str]) -> None:
    ran = run("advisories", *options)
    assert (ran.code, ran.out) == (2, "")


def test_after_a_verdict_each_affected_advisory_has_one_line() -> None:
    exposures = evaluate(generation="naples", api=(0, 17), build=11, policy=sev.GuestPolicy(1))
    lines = affected_lines(exposures)
    assert len(lines) == sum(exposure.verdict is AFFECTED for exposure in exposures)
    first = load()[0]
    assert lines[0] == f"advisory CVE-2019-9836: {first.title}: {first.action}"
    assert all(line.isprintable() for line in lines)
    assert json.loads(json.dumps(documents(exposures)))[0]["verdict"] == "affected"


# the page


def shown_by(advisory: Advisory) -> str:
    """Say what of a launch decides."""
    if advisory.fixed:
        found = [f"{name} {advisories.firmware_text(at)}" for name, at in advisory.fixed.items()]
        return f"before {', '.join(found)}{', then not shown' if advisory.unseen else ''}"
    by = [f"policy has {' or '.join(advisory.if_policy)}"] if advisory.if_policy else []
    if advisory.unless_policy:
        by.append(f"policy lacks {' and '.join(advisory.unless_policy)}")
    if advisory.unseen:
        by.append("not shown")
    if advisory.unfixed:
        by.append(f"always on {', '.join(advisory.unfixed)}")
    return ", ".join(by) or "always"


def touched_by(advisory: Advisory) -> str:
    """Say which generations are named as affected, and which as not."""
    spared = f" (not {', '.join(one.generations)})" if (one := advisory.not_affected) else ""
    return f"{', '.join(advisory.generations) or 'all'}{spared}"


def test_the_page_has_the_table_of_the_data() -> None:
    rows = [
        "| id | what | generations | affected | rests on |",
        "|---|---|---|---|---|",
        *(
            f"| `{one.id}` | {one.title} | {touched_by(one)} "
            f"| {shown_by(one)} | {advisories.SURE[one.sure]} |"
            for one in load()
        ),
    ]
    _, _, table = PAGE.read_text(encoding="utf-8").partition("## The advisories\n\n")
    assert table.splitlines() == rows, "\n".join(rows)


def test_the_page_names_every_field_and_verdict() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in (
        *advisories._SEV.fields,
        *advisories.SURE,
        *advisories.POLICY_NAMES,
        advisories.MIN_API,
    ):
        assert f"`{name}`" in page, name
    for one in AdvisoryVerdict:
        assert f"| {one} |" in page
