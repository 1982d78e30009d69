"""``sev-attest schema``, the schemas of the package, and the tool that writes them."""

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import jsonschema
import pytest

import make_schemas
from conftest import Run
from console import commands, show_what_they_print
from schemas import OF_FILES, misfits, misfits_of, schema_of
from sev_attest import sev
from sev_attest.cli import exits, render, schemas
from sev_attest.cli.documents import advisory_files, parts, snp
from sev_attest.cli.documents import files as file_types
from sev_attest.cli.main import cli
from sev_attest.owner.advisories import GENERATIONS, POLICY_NAMES, SURE, AdvisoryVerdict
from sev_attest.owner.record import LaunchRecord
from sev_attest.owner.snp_advisories import DEMAND_NAMES, PERMIT_NAMES, PLATFORM_NAMES, PRODUCTS
from sev_attest.snp.report import LAYOUT
from sev_attest.testing import Platform, ovmf_image

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
NAMES = schemas.names()


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a schema that has properties."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


def test_the_files_are_what_the_tool_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert (make_schemas.main(["--check"]), capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid_closed_versioned_and_described(name: str) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert re.fullmatch(rf"urn:sev-attest:schema:{name}:[0-9]+", schema["$id"])
    assert schema["description"]
    for part in objects(schema):
        assert part["additionalProperties"] is False
        assert all(field["description"] for field in part["properties"].values())


def leaves(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that takes --json."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*words, name))
        elif command and any("--json" in option.opts for option in command.params):
            yield (*words, name)


@pytest.mark.parametrize("words", [*leaves(cli)], ids=" ".join)
def test_every_command_has_a_schema_of_its_own(words: tuple[str, ...]) -> None:
    name = exits._document([*words, "--json"]).replace(" ", "-")
    assert name in NAMES
    assert name != "error"


def test_the_list_has_every_schema_and_what_it_describes(run: Run) -> None:
    ran = run("schema")
    assert [line.split()[0] for line in ran.lines] == NAMES
    listed = json.loads(run("schema", "--json").out)["schemas"]
    assert [one["name"] for one in listed] == NAMES
    assert all(one["description"] == schema_of(one["name"])["description"] for one in listed)


@pytest.mark.parametrize("words", [["snp", "verify"], ["snp-verify"]], ids=" ".join)
def test_a_schema_is_printed_as_it_is(run: Run, words: list[str]) -> None:
    path = files("sev_attest") / "schemas" / "snp-verify.schema.json"
    assert run("schema", *words).out == path.read_text()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["snp", "verfy"],
         "did you mean snp-verify, verify, snp-certs? (`sev-attest schema` lists them)"),
        (["host", "expor"],
         "did you mean host-export, host-csr, simulate-export? (`sev-attest schema` lists them)"),
        (["xyzzy"], "`sev-attest schema` lists them"),
        (["x" * 100_000], "`sev-attest schema` lists them"),
        (["../pyproject"], "`sev-attest schema` lists them"),
    ],
    ids=["near", "group", "none", "long", "path"],
)  # fmt: skip
def test_an_unknown_name_is_told_what_is_near(run: Run, words: list[str], hint: str) -> None:
    ran = run("schema", *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: No such schema: {'-'.join(words)}\nhint: {hint}\n"


def test_an_empty_name_is_shown_as_one(run: Run) -> None:
    assert run("schema", "").err.startswith("error: No such schema: '' (an empty name)\n")


def test_a_group_of_commands_is_told_its_schemas(run: Run) -> None:
    hint = run("schema", "guest").err.splitlines()[1].removeprefix("hint: did you mean ")
    assert set(hint.partition("?")[0].split(", ")) == {"guest-check", "guest-open", "guest-request"}


@pytest.mark.parametrize("words", [["nonsense"], ["vmsa"], ["../verify"], [], ["demo"]], ids=str)
def test_a_command_line_without_a_document_gets_that_of_errors(run: Run, words: list[str]) -> None:
    ran = run(*words, "--json")
    assert (ran.code, json.loads(ran.out)["schema"]) == (2, "sev-attest/error/1")


def test_what_does_not_fit_is_found() -> None:
    good = {"schema": "sev-attest/policy/1", "ok": True, "policies": []}
    assert misfits(good) == []
    assert misfits_of(json.dumps(good)) == misfits_of(b"no document") == misfits_of("[1]") == []
    assert len(misfits(good | {"extra": 1})) == 1
    assert len(misfits(good | {"policies": None})) == 1
    assert len(misfits({"schema": "sev-attest/policy/1", "ok": True})) == 1
    assert len(misfits(good | {"ok": False})) == 1


def test_what_commands_print_on_success_fits(run: Run, here: Path, milan: Platform) -> None:
    Path("chain").write_bytes(milan.export().to_bytes())
    Path("tk").write_bytes(bytes(range(32)))
    Path("s").write_bytes(b"a secret")
    measurement = ["-m", "A" * 64]
    known = ["--generation", "milan", "--api", "1.55"]
    for words in (
        ["advisories"], ["advisories", *known], ["advisories", "--snp"],
        ["advisories", "--product", "milan"],
        ["requirements", "init"], ["requirements", "check", "owner.toml"],
        ["secret", "build", "h", "p", "--tk", "tk", *measurement, "-s", "luks-key:s", "--insecure"],
        ["certs", "split", "chain", "--out", "parts"], ["certs", "generate-oca", "oca.key", "oca"],
        ["vmsa", "build", "page", "--cpu-model-name", "EPYC"], ["vmsa", "show", "page"],
        ["vmsa", "diff", "page", "page"], ["policy", "es"], ["certs", "show", "chain"],
        ["snp", "challenge", "--name", "vm1"],
    ):  # fmt: skip
        ran = run(*words, "--json")
        assert (ran.code, json.loads(ran.out)["ok"]) == (0, True), ran


def test_a_launch_record_and_manifests_fit(run: Run, here: Path, session: sev.Session) -> None:
    record = LaunchRecord.of(session, "vm1", datetime.now(UTC))
    assert misfits(json.loads(record.to_bytes())) == []
    fields = {field.name for field in dataclasses.fields(LaunchRecord)}
    assert schema_of("launch-record")["properties"].keys() == fields | {"schema"}
    Path("OVMF.fd").write_bytes(ovmf_image())
    guest = ["-f", "OVMF.fd", "-n", "1-2", "--cpu-model-name", "EPYC,EPYC-Milan"]
    for words in (["measure", "--policy", "5", *guest], ["measure", "-f", "OVMF.fd"]):
        assert run(*words, "--manifest", "m", "--force").code == 0
        assert misfits(json.loads(Path("m").read_bytes())) == []


def test_the_lists_of_weaknesses_fit() -> None:
    for name in ("advisories", "snp_advisories"):
        text = (files("sev_attest.owner") / f"{name}.toml").read_text()
        assert misfits(tomllib.loads(text), f"{name.replace('_', '-')}-file") == []


def test_the_template_of_owner_toml_fits() -> None:
    text = (files("sev_attest.owner") / "template.toml").read_text()
    assert misfits(tomllib.loads(text)) == []


def test_every_file_that_says_what_it_is_has_a_schema() -> None:
    for said, name in OF_FILES.items():
        assert schema_of(name)["properties"]["schema"]["const"] == said


def values_of(kind: Any) -> list[str]:
    (rules,) = kind.__metadata__
    found: list[str] = json.loads(rules)["enum"]
    return found


def test_names_in_the_schemas_are_those_of_the_program() -> None:
    assert values_of(parts.AnyGeneration) == list(GENERATIONS)
    assert values_of(parts.SnpName) == list(PRODUCTS)
    assert values_of(parts.SnpProduct) == [product.value for product in PRODUCTS.values()]
    assert values_of(parts.Affects) == [verdict.value for verdict in AdvisoryVerdict]
    assert values_of(parts.Sureness) == list(SURE)
    assert values_of(advisory_files.PolicyName) == list(POLICY_NAMES)
    assert values_of(advisory_files.SnpPolicyName) == [*PERMIT_NAMES, *DEMAND_NAMES]
    assert values_of(advisory_files.PlatformName) == list(PLATFORM_NAMES)
    assert list(snp.Report.__annotations__) == [*(row.name for row in LAYOUT), "signature"]
    assert file_types.LaunchRecord.__annotations__.keys() == {
        "schema", *(field.name for field in dataclasses.fields(LaunchRecord)),
    }  # fmt: skip


def test_a_file_that_is_not_as_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_schemas, "PLACE", tmp_path / "schemas")
    assert make_schemas.main([]) == 0
    assert capsys.readouterr().out == f"{len(NAMES)} schemas, {len(NAMES)} changed\n"
    (tmp_path / "schemas" / "old.schema.json").write_text("{}")
    (tmp_path / "schemas" / "policy.schema.json").write_text("{}")
    assert make_schemas.main(["--check"]) == 1
    assert capsys.readouterr().out.split("\n")[:2] == [
        f"{name}.schema.json: not what tools/make_schemas.py writes" for name in ("old", "policy")
    ]
    assert make_schemas.main([]) == 0
    assert make_schemas.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('"""A module."""\n\n\nclass Two(TypedDict):\n    """Words."""\n\n    one: int\n',
         "Two.one is not described"),
        ('class Two(TypedDict):\n    one: int\n    """Words."""\n', "Two has no docstring"),
        ('class Two(TypedDict):\n    """Words."""\n    one: bytes\n    """Words."""\n',
         "a-file: there is no schema for <class 'bytes'>"),
    ],
    ids=["field", "class", "type"],
)  # fmt: skip
def test_what_cannot_be_described_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "made_up.py").write_text(f"from typing import TypedDict\n{source}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_up", raising=False)
    import made_up  # type: ignore[import-not-found]

    with pytest.raises(SystemExit, match=re.escape(said)):
        make_schemas._Schema("a-file", "sev-attest/a-file/1").of_file(made_up.Two)


def test_two_classes_of_one_name_are_refused_in_one_schema() -> None:
    made = make_schemas._Schema("a-file", "sev-attest/a-file/1")
    made._reference(parts.Failure)
    other = SimpleNamespace(__name__="Failure")
    with pytest.raises(SystemExit, match="there are two classes Failure in it"):
        made._reference(other)  # type: ignore[arg-type]


def test_the_page_lists_every_schema() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (?:`(.*)`)? ?\| (.*) \|$", PAGE, re.MULTILINE)
    assert [row for row in rows if row[0] in NAMES] == [
        (name, title if title != name else "", words)
        for name in NAMES
        for title, words in [(schema_of(name)["title"], schema_of(name)["description"])]
    ]


def test_the_page_shows_what_is_printed(tmp_path: Path) -> None:
    show_what_they_print(commands(PAGE), tmp_path)


def test_the_page_s_python_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = code.replace('["sev-attest",', '[sys.executable, "-m", "sev_attest",')
    exec(f"import sys\n{code}", {})
    with pytest.raises(jsonschema.ValidationError):
        exec(f"import sys\n{code.replace('document,', '{}, ')}", {})


def test_what_any_test_prints_is_held_to_its_schema(unfit: list[str]) -> None:
    render.any_document("policy", ok=True, made_up=1)
    assert len(unfit) == 2  # it lacks a field, and has an unknown one
    words = [sys.executable, "-c", """print('{"schema": "sev-attest/policy/1", "ok": true}')"""]
    subprocess.run(words, stdout=subprocess.PIPE, check=True)
    assert len(unfit) == 3
    unfit.clear()
