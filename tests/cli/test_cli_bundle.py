"""Options as types, and usage errors that are collected."""

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import sev_attest.cli
from conftest import Run
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.main import cli
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.usage import UsageErrors, refuse, usage
from sev_attest.errors import Unsupported

SOURCE = Path(sev_attest.cli.__file__).parent


def option_bags(tree: ast.AST) -> Iterator[str]:
    """List the parameters that would take options without their types."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            plain = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            extra = [part for part in (node.args.vararg, node.args.kwarg) if part]
            for part in (*plain, *extra):
                shown = ast.unparse(part.annotation) if part.annotation else ""
                bare = part in extra and shown == "Any"
                if bare or ("Any" in shown and ("dict" in shown or "Mapping" in shown)):
                    yield f"{node.name}({part.arg}: {shown})"


def test_no_options_are_passed_without_their_types() -> None:
    found = [
        bag for path in SOURCE.rglob("*.py") for bag in option_bags(ast.parse(path.read_bytes()))
    ]
    assert found == []
    bad = "def f(given: dict[str, Any], *a: Any, other: 'Mapping[str, Any]', **more: Any): ..."
    assert len([*option_bags(ast.parse(bad))]) == 4


class First(Options, title="First things"):
    one: str | None = option("-o", "--one", help="One.")
    two: int = option("--two", type=click.INT, default=2, help="Two.")


class Second(First, title="Second things"):
    three: bool = option("--three", is_flag=True, help="Three.")


def test_a_bundle_cannot_be_changed_but_replaced() -> None:
    second = Second(one="1", two=2, three=False)
    with pytest.raises(AttributeError, match="cannot be set"):
        second.one = "2"  # type: ignore[misc]
    other = second.replace(one="2")
    assert (second.one, other.one, other.two, other.three) == ("1", "2", 2, False)
    assert [*Second.declared()] == ["one", "two", "three"]
    assert second.stated("one", "two") == ["--one", "--two"]
    assert second.replace(one=None).stated("one", "two") == ["--two"]


def test_a_bundle_has_all_its_fields_and_no_other() -> None:
    for values in ({"one": "1"}, {"one": "1", "two": 2, "four": 4}):
        with pytest.raises(TypeError):
            First(**values)


def test_what_was_typed_does_not_show() -> None:
    assert "hunter2" not in repr(First(one="hunter2", two=2))


def test_the_help_lists_each_bundle_under_its_title(run: Run) -> None:
    shown = run("validate", "--help").out
    for title in ("The host's report:", "The guest:", "Keys:", "Ledger:", "Diagnosis:", "Output:"):
        assert f"\n{title}\n" in shown
    assert run("certs", "show", "--help").out.count("Certificates:\n") == 1


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found)
        elif found is not None:
            yield found


def test_no_two_options_of_a_command_share_a_name_or_a_field() -> None:
    for command in commands(cli):
        fields = [parameter.name for parameter in command.params]
        names = [name for parameter in command.params for name in parameter.opts]
        assert len(set(fields)) == len(fields), command.name
        assert len(set(names)) == len(names), command.name


NO_CHAIN = "no chain was given"
NO_STATE = (
    "an SEV-ES policy needs the vCPUs' state: --vmsa-cpu0 (and --vmsa-cpu1), --cpu-model-name, or "
    "--cpu-family, --cpu-model and --cpu-stepping"
)
NO_KEYS = "the session's keys are needed: --tik and --tek, or --tk"


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ("session", ["Missing argument 'POLICY'.", "Missing option '--name'.", NO_CHAIN]),
        ("session --timeout 9 --out x 5", ["Missing option '--name'.", NO_CHAIN]),
        ("session --name n", ["Missing argument 'POLICY'.", NO_CHAIN]),
        ("session chain 5", ["Missing option '--name'."]),
        ("session --sev chain 5", ["Missing option '--name'."]),
        ("session --connect qemu:///system", ["Missing argument 'POLICY'.",
                                              "Missing option '--name'."]),
        ("secret build h", ["Missing argument 'PAYLOAD'.",
                            "Missing option '-m' / '--measurement'.",
                            "Missing option '-s' / '--secret'.", NO_KEYS]),
        ("secret build h p -s luks-key:x --tek tek", ["Missing option '-m' / '--measurement'.",
                                                      NO_KEYS]),
        ("secret build h p -m m --tik tik --tek tek", ["Missing option '-s' / '--secret'."]),
        ("secret build h p -m m -s luks-key:x", [NO_KEYS]),
        ("domain check", ["Missing argument 'XML'."]),
        ("domain prepare --force", ["Missing argument 'XML'."]),
        ("report verify", ["Missing argument 'REPORT'.", "Missing option '--nonce'.", NO_CHAIN]),
        ("certs join", ["Missing option '-o' / '--output'.", NO_CHAIN]),
        ("verify", [NO_CHAIN]),
        ("measure --policy 5 --tik tik --nonce n", [
            "--firmware (or --launch-digest) is needed",
            "an SEV-ES policy needs the number of vCPUs: --num-cpus",
            NO_STATE,
            "--tik needs --api-major, --api-minor, --build-id too",
        ]),
    ],
)  # fmt: skip
def test_everything_that_is_missing_is_named_at_once(
    run: Run, arguments: str, missing: list[str]
) -> None:
    ran = run(*arguments.split())
    errors = [line for line in ran.err.splitlines() if not line.startswith("hint: ")]
    assert (ran.code, ran.out) == (2, "")
    assert errors == [f"error: {one}" for one in missing]
    lacks = any(one.startswith("Missing") for one in missing)
    assert (" --help` shows the options" in ran.err) is lacks


def test_keys_that_are_missing_are_an_error_when_they_are_read_too() -> None:
    with pytest.raises(Unsupported, match="keys are needed"):
        KeyOptions(tik="tik", tek=None, tk=None).read()


def test_a_single_usage_error_stays_what_it_is() -> None:
    refuse([], [])
    with pytest.raises(Unsupported, match=r"^one$") as caught:
        refuse([usage("one", hint="h")], [])
    assert not isinstance(caught.value, UsageErrors)
    with pytest.raises(UsageErrors, match=r"^one; two$") as several:
        refuse([usage("one", hint="h")], [Unsupported("two", check="c")])
    assert several.value.exit_code == 2
    assert [(f.check, f.message, f.hint) for f in several.value.failures] == [
        ("usage", "one", "h"),
        ("c", "two", ""),
    ]
