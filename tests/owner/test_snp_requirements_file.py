"""``[snp]`` of owner.toml, its manifests, and what ``requirements check`` says of it."""

import json
import re
import tomllib
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conftest import Run
from sev_attest import MalformedInput
from sev_attest.cli.hints import hint_for
from sev_attest.owner.manifest_file import read_manifest, read_snp_manifest
from sev_attest.owner.requirements import Requirements
from sev_attest.owner.snp_advisories import load
from sev_attest.owner.snp_minimum import SnpMinimum
from sev_attest.owner.snp_reference import SnpReferenceValue
from sev_attest.owner.snp_requirements import SnpRequirements

SCHEMA = json.loads((files("sev_attest") / "schemas" / "requirements.schema.json").read_text())
PAGE = (Path(__file__).parents[2] / "docs" / "requirements.md").read_text()
ALL = [advisory.id for advisory in load()]
TCB = {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}
FILE = f"""
schema = "sev-attest/requirements/1"
[snp]
products = ["milan", "test"]
chip_ids = ["{"0f" * 64}", "{"1e" * 8}"]
denied_chip_ids = ["{"ab" * 64}"]
csp_ids = ["CN=cc-eu-west-1.amazonaws.com"]
cpuids = ["19-01-01"]
vmpls = [0, 2]
provisional = true
[snp.minimum.milan]
firmware = "1.55.29"
committed_firmware = "1.55.28"
reported = {{ bootloader = 4, tee = 0, snp = 24, microcode = 219 }}
committed = {{ bootloader = 4, tee = 0, snp = 24, microcode = 219 }}
launch = {{ bootloader = 4, tee = 0, snp = 24, microcode = 219 }}
current_mitigations = 0x3f
launch_mitigations = 0x1
[snp.policy]
permits = ["smt"]
demands = ["single-socket"]
min_abi = "1.55"
[snp.platform]
set = ["alias-check-complete"]
clear = ["tsme-en"]
[[snp.launch]]
name = "web"
digest = "{"cd" * 48}"
id_keys = ["{"56" * 48}"]
author_keys = ["{"78" * 48}"]
family_id = "{"01" * 16}"
image_id = "{"02" * 16}"
guest_svn = 3
host_data = "{"03" * 32}"
expires = 2027-06-30
note = "a note"
[[snp.launch]]
name = "db"
manifest = "db.json"
host_data = "*"
[[snp.launch]]
name = "signed"
author_keys = ["{"78" * 48}"]
[snp.advisories]
acknowledged = ["badfuse", "CVE-2024-56161"]
refused = ["CVE-2024-21944"]
"""
MANIFEST = json.dumps(
    {
        "schema": "sev-attest/snp-manifest/1",
        "firmware": {"file": "OVMF.fd", "size": 1, "pages_digest": "00"},
        "kernel_hashes": None,
        "launches": [
            {"vcpus": 4, "cpu": "EPYC-Milan", "vmsa_profile": "qemu", "guest_features": "0x21",
             "digest": "ef" * 48},
            {"vcpus": 8, "digest": "12" * 48, "guest_features": None},
        ],
    }
).encode()  # fmt: skip


def read(text: str, manifest: bytes = MANIFEST) -> SnpRequirements:
    found = Requirements.from_toml(text.encode(), manifest=lambda _name: manifest).snp
    assert found is not None
    return found


def test_a_file_says_all_of_it() -> None:
    assert read(FILE) == SnpRequirements(
        products=frozenset({"milan", "test"}),
        chip_ids=frozenset({"0f" * 64, "1e" * 8 + "0" * 112}),
        denied_chip_ids=frozenset({"ab" * 64}),
        csp_ids=frozenset({"CN=cc-eu-west-1.amazonaws.com"}),
        cpuids=frozenset({"19-01-01"}),
        vmpls=frozenset({0, 2}),
        provisional=True,
        minimum={
            "milan": SnpMinimum(
                firmware=(1, 55, 29),
                committed_firmware=(1, 55, 28),
                reported=TCB,
                committed=TCB,
                launch=TCB,
                current_mitigations=0x3F,
                launch_mitigations=1,
            )
        },
        permits=frozenset({"smt"}),
        demands=frozenset({"single-socket"}),
        min_abi=(1, 55),
        platform_set=frozenset({"alias-check-complete"}),
        platform_clear=frozenset({"tsme-en"}),
        launches=(
            SnpReferenceValue(
                name="web",
                digests={b"\xcd" * 48: ""},
                id_keys=frozenset({b"\x56" * 48}),
                author_keys=frozenset({b"\x78" * 48}),
                family_id=b"\x01" * 16,
                image_id=b"\x02" * 16,
                guest_svn=3,
                host_data=b"\x03" * 32,
                expires=datetime(2027, 6, 30, tzinfo=UTC),
                note="a note",
            ),
            SnpReferenceValue(
                name="db",
                digests={
                    b"\xef" * 48: "4 vCPUs, EPYC-Milan, qemu, guest features 0x21",
                    b"\x12" * 48: "8 vCPUs",
                },
                host_data=None,
            ),
            SnpReferenceValue(name="signed", author_keys=frozenset({b"\x78" * 48})),
        ),
        acknowledged=frozenset({"badfuse", "CVE-2024-56161"}),
        refused=frozenset({"CVE-2024-21944"}),
    )


def test_what_may_be_left_out_asks_for_nothing_or_allows_nothing() -> None:
    head, _, _ = FILE.partition("[snp]")
    assert read(f"{head}[snp]\n") == SnpRequirements()
    assert Requirements.from_toml(head.encode()).snp is None
    assert Requirements.from_toml(head.encode()) == Requirements()
    tcb = "{ bootloader = 4, tee = 0, snp = 24, microcode = 219 }"
    short = f'{head}[snp.minimum.milan]\nfirmware = "1.55.29"\nreported = {tcb}\n'
    assert read(short).minimum == {"milan": SnpMinimum(firmware=(1, 55, 29), reported=TCB)}


WRONG = {
    "unknown-key": FILE.replace("csp_ids", "csps"),
    "unknown-table": FILE + "[snp.more]\n",
    "unknown-policy-key": FILE.replace("permits =", "permit ="),
    "unknown-launch-key": FILE.replace("image_id", "image"),
    "unknown-minimum-key": FILE.replace("launch_mitigations", "mitigations"),
    "unknown-component": FILE.replace("launch = { ", "launch = { fmc = 1, "),
    "snp-kind": 'schema = "sev-attest/requirements/1"\nsnp = 1\n',
    "product": FILE.replace('["milan", "test"]', '["Milan"]'),
    "product-minimum": FILE.replace('"test"]', '"genoa"]'),
    "every-product": FILE.replace('["milan", "test"]', '["*"]'),
    "minimum-product": FILE.replace("[snp.minimum.milan]", "[snp.minimum.zen]"),
    "chip": FILE.replace("0f" * 64, "0f" * 63),
    "chip-case": FILE.replace("0f" * 64, "0F" * 64),
    "chip-denied": FILE.replace(f'["{"ab" * 64}"]', '["*"]'),
    "csp-empty": FILE.replace("CN=cc-eu-west-1.amazonaws.com", ""),
    "csp-kind": FILE.replace('["CN=cc-eu-west-1.amazonaws.com"]', "[1]"),
    "cpuid": FILE.replace("19-01-01", "19-1-1"),
    "cpuid-short": FILE.replace("19-01-01", "19-01"),
    "vmpl": FILE.replace("[0, 2]", "[4]"),
    "vmpl-negative": FILE.replace("[0, 2]", "[-1]"),
    "vmpl-kind": FILE.replace("[0, 2]", "[true]"),
    "vmpl-text": FILE.replace("[0, 2]", '["0"]'),
    "provisional": FILE.replace("provisional = true", "provisional = 1"),
    "firmware": FILE.replace('"1.55.29"', '"1.55"'),
    "firmware-text": FILE.replace('"1.55.29"', '"1.55.x"'),
    "firmware-range": FILE.replace('"1.55.29"', '"1.55.256"'),
    "firmware-missing": FILE.replace('firmware = "1.55.29"\n', "", 1),
    "reported-missing": re.sub("\nreported = .*", "", FILE),
    "component-missing": FILE.replace("reported = { bootloader = 4, ", "reported = { "),
    "component-range": FILE.replace("microcode = 219", "microcode = 256"),
    "component-kind": FILE.replace("microcode = 219", 'microcode = "219"'),
    "mitigations-range": FILE.replace("0x3f", "0x1ffffffffffffffff"),
    "mitigations-negative": FILE.replace("0x3f", "-1"),
    "permit": FILE.replace('["smt"]', '["single-socket"]'),
    "demand": FILE.replace('["single-socket"]', '["smt"]'),
    "abi": FILE.replace('"1.55"', '"1.55.29"'),
    "platform": FILE.replace('["tsme-en"]', '["tsme"]'),
    "platform-both": FILE.replace('["tsme-en"]', '["alias-check-complete"]'),
    "digest": FILE.replace("cd" * 48, "cd" * 32),
    "digest-and-manifest": FILE.replace("manifest =", f'digest = "{"cd" * 48}"\nmanifest ='),
    "no-digest": FILE.replace('manifest = "db.json"\n', ""),
    "manifest-name": FILE.replace('"db.json"', '"db\\u0000"'),
    "no-key": FILE.replace(f'id_keys = ["{"56" * 48}"]\nauthor_keys = ["{"78" * 48}"]\n', ""),
    "key": FILE.replace("56" * 48, "56" * 32),
    "key-any": FILE.replace("56" * 48, "*"),
    "keys-empty": FILE.replace(f'id_keys = ["{"56" * 48}"]', "id_keys = []"),
    "key-zeros": FILE.replace("56" * 48, "00" * 48),
    "family": FILE.replace("01" * 16, "01" * 15),
    "image-kind": FILE.replace(f'image_id = "{"02" * 16}"', "image_id = 2"),
    "svn-range": FILE.replace("guest_svn = 3", "guest_svn = 0x100000000"),
    "host-data": FILE.replace("03" * 32, "03" * 31),
    "expires": FILE.replace("2027-06-30\n", '"2027-06-30"\n'),
    "expires-year": FILE.replace("2027-06-30\n", "9999-12-31T23:59:59-01:00\n"),
    "launch-name": FILE.replace('name = "web"\n', ""),
    "launch-twice": FILE.replace('name = "db"', 'name = "web"'),
    "launch-table": FILE.replace("[[snp.launch]]", "[[snp.launches]]"),
    "advisory": FILE.replace('"badfuse"', '"rollback"'),
    "advisory-both": FILE.replace("CVE-2024-21944", "badfuse"),
}
SEEN_BY_CODE_ALONE = {
    *("product-minimum", "every-product", "firmware-range", "platform-both", "digest", "key-zeros"),
    *("no-key", "expires", "expires-year", "launch-twice", "advisory", "advisory-both"),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_the_format_does_not_have_is_an_error(text: str) -> None:
    assert text != FILE
    with pytest.raises(MalformedInput, match=r"^(requirements:? snp|launch digest)"):
        read(text)


def test_the_schema_for_editors_says_the_same() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.validate(tomllib.loads(FILE))
    for name, text in WRONG.items():
        refused = not validator.is_valid(tomllib.loads(text))
        assert refused is (name not in SEEN_BY_CODE_ALONE), name


SHOWN = {
    "snp-kind": "snp is not a table",
    "unknown-key": "snp.csps: is not known here",
    "cpuid": "snp.cpuids: '19-1-1' does not belong there",
    "vmpl": "snp.vmpls: is not a list of numbers in 0..3",
    "provisional": "snp.provisional: is not a true or false",
    "firmware": "snp.minimum.milan.firmware: '1.55' is not a firmware version (\"1.55.29\")",
    "component-missing": "snp.minimum.milan.reported.bootloader: is missing",
    "unknown-component": "snp.minimum.milan.launch.fmc: is not known here",
    "minimum-product": "snp.minimum.zen: is not a product",
    "digest-and-manifest": "snp.launch 2.digest: either that or a manifest",
    "no-digest": "snp.launch 2.digest: that, a manifest, id_keys or author_keys is needed",
    "no-key": (
        "snp.launch: 'web' asks for family_id without id_keys or author_keys: whoever starts a "
        "guest can sign its ID block"
    ),
    "keys-empty": "snp.launch 1.id_keys: is empty: it would allow no guest",
    "key-zeros": "snp.launch 1.id_keys: zeros are no key's digest: a guest without a key has them",
    "expires-year": "snp.launch 1.expires: is not in the years 1 to 9999 (UTC)",
    "host-data": "snp.launch 1.host_data: is not 64 hex digits in lower case",
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_wrong_names_its_place(name: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        read(WRONG[name])
    assert str(caught.value).replace(":", "", name == "snp-kind") == f"requirements {SHOWN[name]}"


CHIPS = "128 or 16 hex digits in lower case"
PRINTED = "(`sev-attest snp show` prints a report's chip_id)"
LISTED = "the id of a known advisory of SEV-SNP (`sev-attest advisories --snp` lists them)"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("products", "one of milan, genoa, turin, test, or *"),
        ("chip_ids", f"{CHIPS}, or * {PRINTED}"),
        ("denied_chip_ids", f"{CHIPS} {PRINTED}"),
        ("cpuids", "family, model and stepping in hex (19-01-01), or *"),
        ("permits", "one of smt, migrate-ma, debug, cxl-allow"),
        ("acknowledged", LISTED),
        ("refused", LISTED),
        ("id_keys", "96 hex digits in lower case"),
    ],
)
def test_each_list_says_what_belongs_there(key: str, hint: str) -> None:
    with pytest.raises(MalformedInput, match=rf"{key}: 'odd' does not belong there") as caught:
        read(re.sub(rf"(?m)^{key} = .*$", f'{key} = ["odd"]', FILE, count=1))
    assert hint_for(caught.value) == hint


# manifests


@pytest.mark.parametrize(
    "data",
    [
        *(b"{", b"[]", b"{}", b'{"schema": "sev-attest/snp-manifest/1"}'),
        MANIFEST.replace(b"efef", b"ef"),
        MANIFEST.replace(b"ef" * 48, b"ef" * 32),  # good base64 of 48 bytes
        MANIFEST.replace(b'{"schema"', b'{"denied": 1, "schema"'),
        MANIFEST.replace(b'"EPYC-Milan"', b'["EPYC"]'),
        MANIFEST.replace(b'"0x21"', b"[33]"),
        MANIFEST.replace(b'"vcpus"', b'"denied"'),
        MANIFEST.replace(b'"digest"', b'"digest": "", "digest"'),
    ],
)
def test_a_damaged_manifest_is_an_error(data: bytes) -> None:
    with pytest.raises(MalformedInput, match=r"^(manifest|launch digest)"):
        read_snp_manifest(data)


def test_a_manifest_of_the_other_technology_is_named_as_such() -> None:
    other = MANIFEST.replace(b"snp-manifest", b"manifest")
    with pytest.raises(MalformedInput, match=r"of `measure --manifest`, for SEV and SEV-ES; exp"):
        read_snp_manifest(other)
    with pytest.raises(MalformedInput, match=r"of `snp measure --manifest`, for SEV-SNP; expected"):
        read_manifest(MANIFEST)


# the command


def test_check_says_what_is_allowed(run: Run, here: Path) -> None:
    Path("owner.toml").write_text(FILE)
    Path("db.json").write_bytes(MANIFEST)
    ran = run("requirements", "check", "owner.toml", "--verbose")
    assert (ran.code, ran.errors) == (0, [])
    for line in (
        "SEV and SEV-ES: no launch is allowed",
        "SNP products: milan, test",
        "SNP vmpls: 0, 2",
        "SNP policy: ABI 1.55 or later",
        "SNP provisional firmware: allowed",
        (
            "SNP milan: firmware 1.55.29 or later, committed firmware 1.55.28, "
            "reported TCB bootloader 4 tee 0 snp 24 microcode 219, "
            "committed TCB bootloader 4 tee 0 snp 24 microcode 219, "
            "launch TCB bootloader 4 tee 0 snp 24 microcode 219, "
            "current mitigations 0x3f, launch mitigations 0x1"
        ),
        (
            f"SNP launch web: 1 digest, 1 id key, 1 author key, family_id {'01' * 16}, "
            f"image_id {'02' * 16}, guest_svn 3, host_data {'03' * 32}, "
            "expires 2027-06-30T00:00:00+00:00 a note"
        ),
        "SNP launch db: 2 digests, host_data *, no end",
        "SNP launch signed: 0 digests, 1 author key, host_data zeros, no end",
        f"  {'ef' * 48} 4 vCPUs, EPYC-Milan, qemu, guest features 0x21",
        "SNP refused: CVE-2024-21944",
    ):
        assert line in ran.lines
    found = json.loads(run("requirements", "check", "owner.toml", "--json").out)
    allows = found["allows"]["snp"]
    assert allows["minimum"]["milan"] == {
        "firmware": "1.55.29", "committed_firmware": "1.55.28", "reported": TCB, "committed": TCB,
        "launch": TCB, "current_mitigations": 63, "launch_mitigations": 1,
    }  # fmt: skip
    assert allows["launches"][1]["host_data"] == "*"
    assert allows["launches"][2]["digests"] == {}


def acknowledging(text: str, ids: list[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in ids if name != "CVE-2024-21944")
    return re.sub("acknowledged = .*", f"acknowledged = [{listed}]", text)


def notes(run: Run, text: str) -> tuple[str, list[str]]:
    """Check a file; return its first line and its notes."""
    Path("owner.toml").write_text(text)
    Path("db.json").write_bytes(MANIFEST)
    ran = run("requirements", "check", "owner.toml")
    assert (ran.code, ran.errors) == (0, [])
    return ran.lines[0], [line[6:] for line in ran.notes]


USABLE = "OK: owner.toml can be used"
UNUSABLE = "OK: owner.toml is valid, but no launch can meet it yet"
FREE = FILE.replace(f'denied_chip_ids = ["{"ab" * 64}"]', "").replace("2027", "2999")


def test_check_says_when_nothing_stands_in_the_way(run: Run, here: Path) -> None:
    assert notes(run, acknowledging(FREE, ALL)) == (USABLE, [])


EMPTY = {
    'products = ["milan", "test"]': "snp products: the list is empty, ",
    'cpuids = ["19-01-01"]': "snp cpuids: the list is empty, ",
    "vmpls = [0, 2]": "snp vmpls: the list is empty, ",
}


@pytest.mark.parametrize("line", EMPTY)
def test_check_names_a_list_that_allows_nothing(run: Run, here: Path, line: str) -> None:
    text = acknowledging(FREE, ALL)
    assert text.count(line) == 1
    first, (note,) = notes(run, text.replace(line, ""))
    assert first == UNUSABLE
    assert note == f"{EMPTY[line]}so no guest of SEV-SNP is allowed"


def test_check_names_what_no_report_can_meet(run: Run, here: Path) -> None:
    text = acknowledging(FREE, ALL)
    first, (note,) = notes(run, text.replace('["milan", "test"]', '["test"]'))
    assert (first, note.startswith("snp products: test allows roots alone")) == (UNUSABLE, True)
    without = re.sub("(chip_ids|csp_ids) = .*", "", text)
    first, (note,) = notes(run, without)
    assert (first, note.startswith("snp chip ids and csp ids: both")) == (UNUSABLE, True)
    expired = re.sub(r'(name = "(db|signed)")', r"\1\nexpires = 2020-01-01", text)
    first, (note,) = notes(run, expired.replace("2999", "2020"))
    assert (first, note.startswith("snp: there is no launch")) == (UNUSABLE, True)
    first, (note,) = notes(run, acknowledging(FREE, [one for one in ALL if one != "badfuse"]))
    assert first == UNUSABLE
    assert note.startswith("snp milan: weaknesses of every report are not acknowledged")
    assert note.endswith(": badfuse")


def test_check_says_that_a_denied_chip_excludes_vleks(run: Run, here: Path) -> None:
    text = acknowledging(FILE.replace("2027", "2999"), ALL)
    first, (note,) = notes(run, text)
    assert (first, note.startswith("snp csp ids: a report that a VLEK")) == (USABLE, True)
    assert notes(run, re.sub("\nchip_ids = .*", "", text))[0] == UNUSABLE


def test_the_part_that_nobody_filled_in_is_no_mistake(run: Run, here: Path) -> None:
    snp = acknowledging(FREE, ALL)
    _, of_none = notes(run, FILE.partition("[snp]")[0] + "[snp]\n")
    assert any(note.startswith("generations: ") for note in of_none)
    assert any(note.startswith("snp products: ") for note in of_none)
    sev = '[platform]\ngenerations = ["milan"]\n[minimum.milan]\napi = "1.55"\nbuild = 24\n'
    first, of_both = notes(run, snp + sev)
    assert first == USABLE
    assert all(not note.startswith("snp") for note in of_both)
    assert any(note.startswith("ceks: ") for note in of_both)
    _, of_sev = notes(run, FILE.partition("[snp]")[0] + "[snp]\n" + sev)
    assert all(not note.startswith("snp") for note in of_sev)
    assert (
        run("requirements", "check", "owner.toml").out.count("SEV-SNP: no guest is allowed\n") == 1
    )


def test_the_page_shows_a_part_that_can_be_used(run: Run, here: Path) -> None:
    _, text = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    whole = f'schema = "sev-attest/requirements/1"\n{text}'
    jsonschema.Draft202012Validator(SCHEMA).validate(tomllib.loads(whole))
    Path("web.json").write_bytes(MANIFEST)
    assert notes(run, whole) == (USABLE, [])
    kinds: dict[str, Any] = SCHEMA["$defs"]
    for name in (*kinds["Snp"]["properties"], *kinds["SnpLaunch"]["properties"]):
        assert f"`{name}`" in PAGE or f"[snp.{name}" in PAGE, name
