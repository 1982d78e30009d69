"""What an owner demands of a launch: owner.toml, and the verdict over a verified launch."""

import json
import re
import sys
import tomllib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conftest import Run
from sev_attest import LaunchRefused, MalformedInput, RequirementsNotMet, Unsupported, sev
from sev_attest.cli.hints import hint_for
from sev_attest.owner import LaunchRecord
from sev_attest.owner.advisories import AdvisoryVerdict, evaluate, load
from sev_attest.owner.manifest_file import read_manifest
from sev_attest.owner.requirements import Met, Minimum, ReferenceValue, Requirements
from sev_attest.owner.snp_requirements import SnpRequirements
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.spec import PolicyBit
from sev_attest.testing import Platform, launch_guest, ovmf_image

OVMF = ovmf_image(1 << 14)
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
SCHEMA = json.loads((files("sev_attest") / "schemas" / "requirements.schema.json").read_text())
PAGE = (Path(__file__).parents[2] / "docs" / "requirements.md").read_text()
ALL = frozenset(advisory.id for advisory in load())
ANY = frozenset({"*"})


@pytest.fixture(scope="session")
def launched(
    milan: Platform, verified: sev.VerifiedChain
) -> tuple[sev.VerifiedLaunch, LaunchRecord]:
    """Give a verified launch, and the record of its session, as if the chip were AMD's."""
    session = sev.Session.create(verified, policy=GuestPolicy(0xB))
    guest = launch_guest(milan, policy=0xB, godh=session.godh.to_bytes(), session=session.blob,
                         firmware=OVMF)  # fmt: skip
    launch = sev.verify_launch(
        sev.LaunchInfo.from_text(guest.domlaunchsecinfo()),
        keys=session.keys,
        policy=session.policy,
        digest=sev.launch_digest(OVMF),
    )
    record = LaunchRecord.of(session, "vm", NOW)
    return launch, replace(
        record, root="AMD Milan", generation="milan", claimed_platform_id="ab" * 64
    )


@pytest.fixture
def met(launched: tuple[sev.VerifiedLaunch, LaunchRecord]) -> Requirements:
    """Give demands that the launch meets, each as narrow as can be."""
    launch, record = launched
    return Requirements(
        generations=frozenset({"milan"}),
        ceks=frozenset({record.cek or ""}),
        platform_ids=frozenset({"ab" * 64}),
        pdhs=frozenset({record.pdh}),
        minimum={"milan": Minimum(api=(1, 55), build=24)},
        policy_set=PolicyBit.NODBG | PolicyBit.NOKS | PolicyBit.NOSEND,
        policy_clear=PolicyBit.SEV,
        launches=(ReferenceValue(name="web", digests={launch.digest: "2 vCPUs"}),),
        acknowledged=ALL,
    )


Launched = tuple[sev.VerifiedLaunch, LaunchRecord]


def failed(requirements: Requirements, launched: Launched, **record: Any) -> list[str]:
    """List what is not met."""
    launch, kept = launched
    try:
        requirements.require(launch, replace(kept, **record), at=NOW)
    except RequirementsNotMet as error:
        return [failure.check.removeprefix("requirements.") for failure in error.failures]
    return []


def test_the_error_carries_every_failure(launched: Launched) -> None:
    launch, record = launched
    with pytest.raises(RequirementsNotMet) as refused:
        Requirements().require(launch, record, at=NOW)
    error = refused.value
    assert (error.exit_code, error.check) == (1, error.failures[0].check)
    assert all(failure.message in str(error) for failure in error.failures)


def test_a_launch_that_meets_everything_is_allowed_by_name(
    met: Requirements, launched: Launched
) -> None:
    launch, record = launched
    found = met.require(launch, record, at=NOW)
    assert isinstance(found, Met)
    assert (found.name, found.guest) == ("web", "2 vCPUs")
    assert {exposure.advisory.id for exposure in found.exposures} == ALL


def test_by_default_nothing_is_allowed(launched: Launched) -> None:
    found = failed(Requirements(), launched)
    assert found[:6] == [
        "platform.generation",
        "platform.cek",
        "platform.platform-id",
        "platform.pdh",
        "minimum",
        "launch.digest",
    ]
    assert any(check.startswith("advisory.") for check in found)


@pytest.mark.parametrize(
    ("demand", "failure"),
    [
        ({"generations": frozenset()}, "platform.generation"),
        ({"generations": frozenset({"genoa"})}, "platform.generation"),
        ({"ceks": frozenset()}, "platform.cek"),
        ({"ceks": frozenset({"0" * 64})}, "platform.cek"),
        ({"platform_ids": frozenset({"0" * 128})}, "platform.platform-id"),
        ({"pdhs": frozenset({"0" * 64})}, "platform.pdh"),
        ({"denied_platform_ids": frozenset({"ab" * 64})}, "platform.denied-platform-id"),
        ({"minimum": {}}, "minimum"),
        ({"minimum": {"rome": Minimum(api=(0, 0), build=0)}}, "minimum"),
        ({"minimum": {"milan": Minimum(api=(1, 56), build=0)}}, "minimum.api"),
        ({"minimum": {"milan": Minimum(api=(2, 0), build=0)}}, "minimum.api"),
        ({"minimum": {"milan": Minimum(api=(1, 55), build=25)}}, "minimum.build"),
        ({"policy_set": PolicyBit.ES}, "policy.es"),
        ({"policy_set": PolicyBit.NODBG | PolicyBit.DOMAIN}, "policy.domain"),
        ({"policy_clear": PolicyBit.NOKS}, "policy.no-key-sharing"),
        ({"launches": ()}, "launch.digest"),
        ({"launches": (ReferenceValue(name="x", digests={bytes(32): ""}),)}, "launch.digest"),
    ],
)
def test_each_demand_is_held(
    met: Requirements, launched: Launched, demand: dict[str, Any], failure: str
) -> None:
    assert failed(replace(met, **demand), launched) == [failure]


def test_a_denied_key_is_refused_although_it_is_allowed(
    met: Requirements, launched: Launched
) -> None:
    _, record = launched
    denied = replace(
        met,
        ceks=ANY,
        denied_ceks=frozenset({record.cek or ""}),
        denied_pdhs=frozenset({record.pdh}),
    )
    assert failed(denied, launched) == ["platform.denied-cek", "platform.denied-pdh"]


def test_everything_that_is_not_met_is_named_at_once(met: Requirements, launched: Launched) -> None:
    demands = replace(
        met,
        generations=frozenset(),
        minimum={"milan": Minimum(api=(9, 0), build=200)},
        policy_set=PolicyBit.ES,
        launches=(),
    )
    assert failed(demands, launched) == [
        "platform.generation",
        "minimum.api",
        "minimum.build",
        "policy.es",
        "launch.digest",
    ]


def test_what_is_not_known_fails_unless_anything_is_allowed(
    met: Requirements, launched: Launched
) -> None:
    assert failed(met, launched, cek=None) == ["platform.cek"]
    assert failed(met, launched, claimed_platform_id=None) == ["platform.platform-id"]
    wide = replace(met, ceks=ANY, platform_ids=ANY)
    assert failed(wide, launched, cek=None, claimed_platform_id=None) == []
    denying = replace(wide, denied_platform_ids=frozenset({"0" * 128}))
    assert failed(denying, launched, claimed_platform_id=None) == ["platform.platform-id"]


def test_a_root_that_is_not_amds_is_allowed_by_its_own_name_alone(
    met: Requirements, launched: Launched
) -> None:
    record = {"root": "not AMD's: ARK 0123", "generation": None}
    everyone = replace(met, generations=ANY, acknowledged=ALL)
    assert "platform.generation" in failed(everyone, launched, **record)
    test = replace(
        met, generations=frozenset({"test"}), minimum={"test": Minimum(api=(0, 0), build=0)}
    )
    assert failed(test, launched, **record) == []
    assert "platform.generation" in failed(test, launched, root=None, generation=None)


def test_an_expired_launch_is_refused_from_that_moment_on(
    met: Requirements, launched: Launched
) -> None:
    def until(end: datetime, *more: ReferenceValue) -> Requirements:
        return replace(met, launches=(replace(met.launches[0], expires=end), *more))

    assert failed(until(NOW), launched) == ["launch.expired"]
    assert failed(until(NOW + timedelta(seconds=1)), launched) == []
    still = replace(met.launches[0], name="newer")
    assert failed(until(NOW, still), launched) == []
    launch, record = launched
    assert until(NOW, still).require(launch, record, at=NOW).name == "newer"


def test_for_a_secret_the_launch_is_named_where_there_are_several(met: Requirements) -> None:
    (web,) = met.launches
    db = ReferenceValue(name="db", digests={bytes(32): ""})
    several = replace(met, launches=(web, db))
    assert several.for_secrets("db", digest_given=False) == replace(met, launches=(db,))
    assert several.for_secrets("web", digest_given=True).digests == met.digests
    assert several.for_secrets(None, digest_given=True) is several
    assert met.for_secrets(None, digest_given=False) == met
    assert Requirements().for_secrets(None, digest_given=False) == Requirements()
    with pytest.raises(Unsupported, match=r"the secret is for: web, db") as refused:
        several.for_secrets(None, digest_given=False)
    assert "--launch" in hint_for(refused.value)
    for demands, words in (
        (several, "no launch 'mail': web, db"),
        (Requirements(), "'mail': none"),
    ):
        with pytest.raises(Unsupported, match=words) as refused:
            demands.for_secrets("mail", digest_given=True)
        assert refused.value.check == "launch.name"


def test_everything_may_be_denied(met: Requirements, launched: Launched) -> None:
    assert failed(replace(met, denied_pdhs=ANY), launched) == ["platform.denied-pdh"]


def test_each_advisory_that_affects_has_to_be_acknowledged(
    met: Requirements, launched: Launched
) -> None:
    launch, _ = launched
    exposures = evaluate(
        generation="milan",
        api=(launch.info.api_major, launch.info.api_minor),
        build=launch.info.build_id,
        policy=launch.policy,
    )
    affected = [e.advisory.id for e in exposures if e.verdict is AdvisoryVerdict.AFFECTED]
    assert affected
    for name in affected:
        known = replace(met, acknowledged=ALL - {name})
        assert failed(known, launched) == [f"advisory.{name}"]
    for exposure in exposures:
        name = exposure.advisory.id
        refusing = replace(met, acknowledged=ALL - {name}, refused=frozenset({name}))
        refused = exposure.verdict is not AdvisoryVerdict.NOT_AFFECTED
        assert (failed(refusing, launched) == [f"advisory.{name}"]) is refused


def test_a_record_of_another_session_is_refused(met: Requirements, launched: Launched) -> None:
    launch, record = launched
    for other in (replace(record, session_id="0" * 64), replace(record, policy=3)):
        with pytest.raises(LaunchRefused) as refused:
            met.require(launch, other, at=NOW)
        assert refused.value.check == "record.session"


# the file

FILE = f"""
schema = "sev-attest/requirements/1"
[platform]
generations = ["milan", "test"]
ceks = ["{"0f" * 32}"]
platform_ids = ["*"]
pdhs = ["*"]
denied_ceks = []
denied_platform_ids = ["{"ab" * 64}"]
denied_pdhs = []
[minimum.milan]
api = "1.55"
build = 24
[minimum.test]
api = "0.0"
build = 0
[policy]
set = ["no-debug", "es"]
clear = ["sev"]
[[launch]]
name = "web"
digest = "{"cd" * 32}"
expires = 2027-06-30
note = "a note"
[[launch]]
name = "db"
manifest = "db.json"
expires = 2027-06-30T12:00:00+02:00
[advisories]
acknowledged = ["CVE-2020-12967"]
refused = ["CVE-2019-9836"]
"""
MANIFEST = json.dumps(
    {
        "schema": "sev-attest/manifest/1",
        "launches": [{"digest": "ef" * 32, "vcpus": 4, "cpu": "EPYC-Milan", "vmsa_profile": None}],
    }
).encode()


def read(text: str, manifest: bytes = MANIFEST) -> Requirements:
    return Requirements.from_toml(text.encode(), manifest=lambda _name: manifest)


def test_a_file_says_all_of_it() -> None:
    found = read(FILE)
    assert found == Requirements(
        generations=frozenset({"milan", "test"}),
        ceks=frozenset({"0f" * 32}),
        platform_ids=ANY,
        pdhs=ANY,
        denied_platform_ids=frozenset({"ab" * 64}),
        minimum={"milan": Minimum(api=(1, 55), build=24), "test": Minimum(api=(0, 0), build=0)},
        policy_set=PolicyBit.NODBG | PolicyBit.ES,
        policy_clear=PolicyBit.SEV,
        launches=(
            ReferenceValue(
                name="web",
                digests={bytes.fromhex("cd" * 32): ""},
                expires=datetime(2027, 6, 30, tzinfo=UTC),
                note="a note",
            ),
            ReferenceValue(
                name="db",
                digests={bytes.fromhex("ef" * 32): "4 vCPUs, EPYC-Milan"},
                expires=datetime(2027, 6, 30, 10, tzinfo=UTC),
            ),
        ),
        acknowledged=frozenset({"CVE-2020-12967"}),
        refused=frozenset({"CVE-2019-9836"}),
    )


WRONG = {
    "schema": FILE.replace("requirements/1", "requirements/2"),
    "no-schema": FILE.replace('schema = "sev-attest/requirements/1"', ""),
    "unknown-table": FILE + "[more]\n",
    "unknown-key": FILE.replace("[policy]", "[policy]\nsets = []"),
    "unknown-platform-key": FILE.replace('ceks = ["', 'cek = ["'),
    "unknown-launch-key": FILE.replace("note =", "notes ="),
    "unknown-minimum-key": FILE.replace("build = 24", "build = 24\nrelease = 1"),
    "generation": FILE.replace('"test"]', '"Milan"]'),
    "minimum-generation": FILE + '[minimum.zen]\napi = "1.0"\nbuild = 0\n',
    "minimum-missing": FILE.replace('"milan", "test"', '"*"'),
    "api": FILE.replace('"1.55"', '"1"'),
    "api-range": FILE.replace('"1.55"', '"1.256"'),
    "api-kind": FILE.replace('"1.55"', "1.55"),
    "api-missing": FILE.replace('api = "1.55"', ""),
    "build-range": FILE.replace("build = 24", "build = 256"),
    "build-negative": FILE.replace("build = 24", "build = -1"),
    "build-kind": FILE.replace("build = 24", "build = true"),
    "bit": FILE.replace('"no-debug"', '"nodbg"'),
    "bit-both": FILE.replace('["sev"]', '["es"]'),
    "cek": FILE.replace("0f" * 32, "0f" * 31),
    "cek-case": FILE.replace("0f" * 32, "0F" * 32),
    "cek-kind": FILE.replace(f'"{"0f" * 32}"', "5"),
    "denied-any": FILE.replace("denied_ceks = []", 'denied_ceks = ["*"]'),
    "manifest-name": FILE.replace('"db.json"', '"db\\u0000"'),
    "digits": FILE.replace("build = 24", f"build = {'9' * 5000}"),
    "long-hex": FILE.replace("build = 24", f"build = 0x{'f' * 5000}"),
    "long-key": FILE + "a." * 60_000 + "a = 1",
    "long-key-in-quotes": FILE + '"a".' * 30_000 + "a = 1",
    "long-table": FILE + "[" + "a." * 60_000 + "a]",
    "long-keys-inline": FILE + "x = {" + "a." * 60_000 + "a = 1}",
    "large": FILE + "#" * (1 << 17),
    "ceks-kind": FILE.replace(f'["{"0f" * 32}"]', '"*"'),
    "launch-kind": FILE.partition("[[launch]]")[0] + "[launch]\n",
    "launch-table": 'launch = ["web"]' + FILE.partition("[[launch]]")[0],
    "launch-name": FILE.replace('name = "web"', ""),
    "launch-twice": FILE.replace('name = "db"', 'name = "web"'),
    "launch-both": FILE.replace("manifest =", f'digest = "{"cd" * 32}"\nmanifest ='),
    "launch-neither": FILE.replace('manifest = "db.json"', ""),
    "digest": FILE.replace("cd" * 32, "cd" * 31),
    "expires": FILE.replace("2027-06-30\n", '"2027-06-30"\n'),
    "expires-zone": FILE.replace("12:00:00+02:00", "12:00:00"),
    "advisory": FILE.replace("CVE-2020-12967", "CVE-1999-0001"),
    "advisory-both": FILE.replace("CVE-2019-9836", "CVE-2020-12967"),
    "platform-kind": FILE.replace("[platform]", "[[platform]]"),
    "no-toml": FILE + "x",
    "deep": FILE + "x = " + "[" * 5000,
}
SEEN_BY_CODE_ALONE = {"minimum-missing", "api-range", "bit-both", "launch-twice", "digest"}
SEEN_BY_CODE_ALONE |= {"expires", "expires-zone", "advisory", "advisory-both"}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_the_format_does_not_have_is_an_error(text: str) -> None:
    assert text != FILE
    with pytest.raises(MalformedInput, match=r"^(requirements|launch digest)"):
        read(text)


def test_dots_in_comments_and_notes_are_no_keys() -> None:
    assert read(FILE + "\t#" + "." * 1000 + "\n") == read(FILE)
    dotted = FILE.replace('name = "web"', f'name = "{"." * 90}"')
    assert read(dotted).launches[0].name == "." * 90


def test_the_schema_for_editors_says_the_same() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    template = (files("sev_attest.owner") / "template.toml").read_text()
    for text in (FILE, template):
        validator.validate(tomllib.loads(text))
    for name, text in WRONG.items():
        if name not in {"no-toml", "deep", "digits", "large"} and not name.startswith("long-"):
            refused = not validator.is_valid(tomllib.loads(text))
            assert refused is (name not in SEEN_BY_CODE_ALONE), name


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", b'{"schema": "sev-attest/manifest/1"}', MANIFEST[:-3] + b'"x"]}',
     MANIFEST.replace(b"efef", b"ef"), MANIFEST.replace(b"efef", b"\\ud800"),
     MANIFEST.replace(b'{"schema"', b'{"denied": 1, "schema"'),
     MANIFEST.replace(b'"EPYC-Milan"', b'["EPYC"]'),
     MANIFEST.replace(b'"vcpus"', b'"denied"'), MANIFEST.replace(b'"digest"', b'"d"'),
     b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_manifest_is_an_error(data: bytes) -> None:
    with pytest.raises(MalformedInput, match=r"^(manifest|launch digest)"):
        read_manifest(data)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\xff", "requirements: this is not UTF-8 text"),
        (b"=", "requirements: this is not TOML: "),
        (FILE.replace(f'"{"0f" * 32}"', "5").encode(), "ceks: a int does not belong there"),
        (FILE.replace("0f" * 32, "0g" * 99).encode(), f"ceks: '{'0g' * 39}0 does not belong"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_named(data: bytes, shown: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        Requirements.from_toml(data)
    assert shown in str(caught.value)
    assert caught.value.check in ("requirements.format", "requirements.platform.ceks")


PRINTED = "(`sev-attest verify` prints fingerprints)"
LISTED = "(`sev-attest advisories` lists them)"


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ("platform", "generations", "one of naples, rome, milan, genoa, turin, test, or *"),
        ("platform", "ceks", f"64 hex digits in lower case, or * {PRINTED}"),
        ("platform", "pdhs", f"64 hex digits in lower case, or * {PRINTED}"),
        ("platform", "platform_ids", "128 hex digits in lower case, or *"),
        ("platform", "denied_ceks", f"64 hex digits in lower case {PRINTED}"),
        ("platform", "denied_pdhs", f"64 hex digits in lower case {PRINTED}"),
        ("platform", "denied_platform_ids", "128 hex digits in lower case"),
        ("policy", "set", "one of no-debug, no-key-sharing, es, no-send, domain, sev"),
        ("policy", "clear", "one of no-debug, no-key-sharing, es, no-send, domain, sev"),
        ("advisories", "acknowledged", f"the id of a known advisory {LISTED}"),
        ("advisories", "refused", f"the id of a known advisory {LISTED}"),
    ],
)
def test_each_list_says_what_belongs_there(table: str, key: str, hint: str) -> None:
    text = re.sub(rf"(?m)^{key} = .*$", f'{key} = ["odd"]', FILE)
    if text == FILE:
        text = FILE.replace(f"[{table}]\n", f'[{table}]\n{key} = ["odd"]\n')
    with pytest.raises(MalformedInput) as caught:
        read(text)
    assert str(caught.value) == f"requirements {table}.{key}: 'odd' does not belong there"
    assert hint_for(caught.value) == hint


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('set = ["no-debug", "es"]', "set = 5", "policy.set: is not a list"),
        ('"1.55"', "1.55", "minimum.milan.api: is not a string"),
        ("build = 24", "build = true", "minimum.milan.build: is not a number"),
        ('name = "db"', 'name = "web"', "launch: there are two with the name 'web'"),
        ('["sev"]', '["es"]', "policy: requires a bit both set and clear"),
    ],
)
def test_what_is_wrong_names_its_place(old: str, new: str, said: str) -> None:
    assert FILE.count(old) == 1
    with pytest.raises(MalformedInput) as caught:
        read(FILE.replace(old, new))
    assert str(caught.value) == f"requirements {said}"


@pytest.mark.parametrize("key", ["denied_ceks", "denied_platform_ids", "denied_pdhs"])
def test_nothing_denies_everything(key: str) -> None:
    text = re.sub(rf"(?m)^{key} = .*$", "", FILE)
    with pytest.raises(MalformedInput, match=rf"platform.{key}: '\*' does not belong there"):
        read(text.replace("[platform]\n", f'[platform]\n{key} = ["*"]\n'))


@pytest.mark.parametrize("launch", [{}, {"vcpus": 4}, {"digest": None}, {"digest": 5}, 5, None, []])
def test_a_launch_of_a_manifest_has_a_digest(launch: object) -> None:
    whole = {"schema": "sev-attest/manifest/1", "launches": [{"digest": "ef" * 32}, launch]}
    with pytest.raises(MalformedInput) as caught:
        read_manifest(json.dumps(whole).encode())
    assert str(caught.value) == "manifest launches: one has no digest"


def test_numbers_of_the_minimum_go_up_to_255() -> None:
    text = FILE.replace('"1.55"', '"255.255"').replace("build = 24", "build = 255")
    assert read(text).minimum["milan"] == Minimum(api=(255, 255), build=255)


def test_a_manifest_that_is_no_json_says_so() -> None:
    with pytest.raises(MalformedInput) as refused:
        read_manifest(b"{")
    assert refused.value.check == "manifest.format"


@pytest.mark.parametrize("launches", [None, [], {}, "x", {"digest": "ef" * 32}])
def test_a_manifest_has_a_list_of_launches(launches: object) -> None:
    whole = {"schema": "sev-attest/manifest/1", "launches": launches}
    with pytest.raises(MalformedInput, match="manifest launches: there are none"):
        read_manifest(json.dumps(whole).encode())


def test_a_line_with_too_many_dots_is_named() -> None:
    lines = FILE.count("\n")
    with pytest.raises(MalformedInput, match=f"line {lines + 1} has more than"):
        read(f"{FILE}{'a.' * 9999}a = 1\n")


def test_text_that_is_none_and_manifests_out_of_reach_are_errors() -> None:
    with pytest.raises(MalformedInput, match="UTF-8"):
        Requirements.from_toml(b"\xff")
    with pytest.raises(MalformedInput, match="use a digest"):
        Requirements.from_toml(FILE.encode())


# the command


def test_init_writes_a_file_that_check_takes_and_that_allows_nothing(run: Run, here: Path) -> None:
    made = run("requirements", "init")
    assert (made.code, made.err) == (0, "")
    ran = run("requirements", "check", "owner.toml")
    told = "OK: owner.toml is valid, but no launch can meet it yet"
    assert (ran.code, ran.lines[0]) == (0, told)
    for name in ("generations", "ceks"):
        assert f"note: {name}: the list is empty, so no launch is allowed" in ran.notes
    assert "note: there is no launch that has not expired, so none is allowed" in ran.notes
    again = run("requirements", "init")
    assert again.code == 6
    assert "exists already" in again.err
    assert run("requirements", "init", "--force", "--quiet").out == ""
    assert json.loads(run("requirements", "init", "two.toml", "--json").out)["file"] == "two.toml"


def test_check_says_what_is_allowed(run: Run, here: Path) -> None:
    Path("owner.toml").write_text(FILE)
    Path("db.json").write_bytes(MANIFEST)
    ran = run("requirements", "check", "owner.toml", "--verbose")
    assert ran.code == 0
    for line in (
        "generations: milan, test",
        "platform ids: any",
        "milan: SEV API 1.55 build 24 or later",
        "policy bits set: no-debug, es",
        "launch web: 1 digest, expires 2027-06-30T00:00:00+00:00 a note",
        f"  {'ef' * 32} 4 vCPUs, EPYC-Milan",
        "refused: CVE-2019-9836",
    ):
        assert line in ran.lines
    (blocked,) = [
        line for line in ran.notes if line.startswith("note: milan: weaknesses of the newest")
    ]
    assert "CVE-2020-12967" not in blocked
    found = json.loads(run("requirements", "check", "owner.toml", "--json").out)
    assert found["allows"]["minimum"]["milan"] == {"api": "1.55", "build": 24}
    assert run("requirements", "check", "owner.toml", "--quiet").out == ""


def test_check_says_when_nothing_stands_in_the_way(run: Run, here: Path) -> None:
    ids = ", ".join(f'"{name}"' for name in sorted(ALL - {"CVE-2019-9836"}))
    text = re.sub("acknowledged = .*", f"acknowledged = [{ids}]", FILE).replace("2027", "2020")
    Path("owner.toml").write_text(
        text.replace('generations = ["milan", "test"]', 'generations = ["milan"]')
    )
    Path("db.json").write_bytes(MANIFEST)
    ran = run("requirements", "check", "owner.toml")
    assert "launch web: 1 digest, EXPIRED a note" in ran.lines
    assert ran.notes == ["note: there is no launch that has not expired, so none is allowed"]
    assert ran.lines[0] == "OK: owner.toml is valid, but no launch can meet it yet"
    Path("owner.toml").write_text(Path("owner.toml").read_text().replace("2020-0", "2999-0"))
    assert run("requirements", "check", "owner.toml").lines[0] == "OK: owner.toml can be used"
    every = text.replace('generations = ["milan", "test"]', 'generations = ["*"]')
    for name in ("naples", "rome", "genoa", "turin"):
        every += f'[minimum.{name}]\napi = "0.0"\nbuild = 0\n'
    Path("owner.toml").write_text(every)
    assert run("requirements", "check", "owner.toml").code == 0


def test_check_says_whether_a_policy_needs_a_minimum_api(run: Run, here: Path) -> None:
    ids = ALL - {"CVE-2019-9836"}
    Path("db.json").write_bytes(MANIFEST)
    needed = "policy without a minimum API, such as 0xf: refused"
    for acknowledged, needs in ((ids, False), (ids - {"policy-min-api"}, True)):
        listed = ", ".join(f'"{name}"' for name in sorted(acknowledged))
        text = re.sub("acknowledged = .*", f"acknowledged = [{listed}]", FILE)
        text = text.replace("2027", "2999").replace('"milan", "test"', '"milan"')
        Path("owner.toml").write_text(text)
        ran = run("requirements", "check", "owner.toml")
        assert any(line.startswith(needed) for line in ran.lines) is needs
        assert not [line for line in ran.lines if line.startswith("note: ")]
        assert ran.lines[0] == "OK: owner.toml can be used"
        document = json.loads(run("requirements", "check", "owner.toml", "--json").out)
        assert document["possible"] is True
        assert document["allows"]["policy"]["minimum_api"] is needs


def test_one_generation_that_is_blocked_does_not_block_the_others(run: Run, here: Path) -> None:
    Path("db.json").write_bytes(MANIFEST)
    every = ", ".join(f'"{name}"' for name in sorted(ALL - {"CVE-2019-9836", "badfuse"}))
    text = re.sub("acknowledged = .*", f"acknowledged = [{every}]", FILE)
    Path("owner.toml").write_text(text.replace("2027", "2999"))
    ran = run("requirements", "check", "owner.toml")
    assert ran.lines[0] == "OK: owner.toml can be used"
    (note,) = ran.notes
    assert note.startswith("note: milan: ")
    assert note.endswith(": badfuse")


def test_the_page_shows_a_file_that_can_be_used(run: Run, here: Path) -> None:
    text, _ = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    jsonschema.Draft202012Validator(SCHEMA).validate(tomllib.loads(text))
    Path("owner.toml").write_text(text)
    Path("OVMF.amdsev.fd").write_bytes(OVMF)
    lines = PAGE.replace("\\\n", " ").splitlines()
    commands = [line[2:] for line in lines if line.startswith("$ sev-attest ")]
    assert [command.split()[1] for command in commands] == [
        "requirements", "measure", "requirements", "validate", "snp", "snp",
    ]  # fmt: skip
    for command in commands[1:3]:
        ran = run(*command.split()[1:])
        assert (ran.code, ran.err) == (0, "")
    assert not ran.notes
    assert "launch web: 8 digests, no end" in ran.lines
    offered = run("validate", "--help").out
    assert all(word in offered for word in commands[3].split() if word.startswith("--"))
    assert "requirements.schema.json" in PAGE
    for name in SCHEMA["$defs"]["Platforms"]["properties"]:
        assert f"`{name}`" in PAGE


def test_check_names_what_is_wrong_and_where(run: Run, here: Path) -> None:
    Path("owner.toml").write_text(WRONG["unknown-key"])
    Path("db.json").write_bytes(MANIFEST)
    ran = run("requirements", "check", "owner.toml")
    assert (ran.code, ran.err) == (
        6,
        "error: owner.toml: requirements policy.sets: is not known here\n",
    )
    Path("db.json").unlink()
    Path("owner.toml").write_text(FILE)
    ran = run("requirements", "check", "owner.toml")
    assert (ran.code, ran.err) == (6, "error: db.json: No such file or directory\n")


def test_a_manifest_is_a_file(run: Run, here: Path) -> None:
    Path("owner.toml").write_text(FILE)
    Path("db.json").mkdir()
    ran = run("requirements", "check", "owner.toml")
    assert (ran.code, ran.err) == (6, "error: owner.toml: manifest: db.json is no file\n")


def test_standard_input_names_no_manifests(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    Path("owner.toml").write_text(FILE)
    with Path("owner.toml").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        ran = run("requirements", "check", "-")
    assert (ran.code, "can name no manifest" in ran.err) == (2, True)


def test_a_manifest_for_a_folder_that_is_not_there_is_not_written(run: Run, here: Path) -> None:
    Path("fw").write_bytes(OVMF)
    ran = run("measure", "--firmware", "fw", "--manifest", "nowhere/web.json")
    assert (ran.code, ran.err) == (6, "error: nowhere/web.json: there is no folder nowhere\n")


def test_the_fingerprint_covers_what_is_required_and_no_words() -> None:
    june = datetime(2026, 6, 30, 12, tzinfo=UTC)
    web = ReferenceValue(name="web", digests={b"1" * 32: "", b"2" * 32: ""}, expires=june)
    base = Requirements(ceks=frozenset("cab"), launches=(web,))
    same = replace(
        web,
        digests={b"2" * 32: "four vCPUs", b"1" * 32: "one"},
        note="on the rack",
        expires=june.astimezone(timezone(timedelta(hours=2))),
    )
    assert replace(base, ceks=frozenset("bca"), launches=(same,)).fingerprint == base.fingerprint
    odd: dict[str, Any] = {
        "minimum": {"test": Minimum(api=(1, 55), build=24)},
        "policy_set": PolicyBit.ES,
        "policy_clear": PolicyBit.ES,
        "launches": (),
        "snp": SnpRequirements(),
    }
    names = [one.name for one in fields(Requirements)]
    changed = [
        *(replace(base, **{name: odd.get(name, frozenset("x"))}) for name in names),
        *(
            replace(base, launches=(replace(web, **more),))
            for more in ({"name": "db"}, {"digests": {b"1" * 32: ""}}, {"expires": None})
        ),
        replace(base, minimum={"test": Minimum(api=(1, 55), build=25)}),
        replace(base, launches=(web, replace(web, name="db"))),
    ]
    assert len({base.fingerprint, *(one.fingerprint for one in changed)}) == len(changed) + 1


def test_the_fingerprint_of_what_sessions_already_wait_under_stays() -> None:
    """It was written into ledgers before there was a part for SEV-SNP."""
    web = ReferenceValue(
        name="web", digests={b"1" * 32: "x"}, expires=datetime(2027, 6, 30, tzinfo=UTC)
    )
    found = Requirements(
        generations=frozenset({"milan"}),
        ceks=frozenset({"0f" * 32}),
        platform_ids=ANY,
        pdhs=ANY,
        minimum={"milan": Minimum(api=(1, 55), build=24)},
        policy_set=PolicyBit.ES,
        launches=(web,),
        acknowledged=frozenset({"rollback"}),
    )
    assert [one.fingerprint for one in (Requirements(), found)] == [
        "2c2d4dd6bccd8dddfffbb79c6d67593b9ab95f0e867f5cd225f6a78b4de8ac80",
        "3d757b512024ba6d55b099b93d8624d3a3d18cd108be26dc852190ca638977cd",
    ]
