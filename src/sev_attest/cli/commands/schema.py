"""``sev-attest schema``."""

import json
from typing import TYPE_CHECKING

import click

from sev_attest.cli import completion, render, schemas
from sev_attest.cli.bundle import Command
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported

if TYPE_CHECKING:
    from sev_attest.cli.documents.schemas import ListedSchema

_LONGEST = 80
"""Characters of a name that is looked for among the known ones."""


@click.command(
    "schema",
    cls=Command,
    examples=(
        "sev-attest schema",
        "sev-attest schema snp verify",
        "sev-attest schema requirements",
    ),
)
@click.argument("name", nargs=-1, metavar="[NAME]", shell_complete=completion.schema_names)
@OutputOptions.given("output")
def command(*, name: tuple[str, ...], output: OutputOptions) -> None:
    """Print the JSON Schema of a document, or list all of them.

    NAME is a command (`snp verify`), whose --json it describes, or a file as the list has it
    (`requirements` is owner.toml). The schemas are closed: they allow no field that they do not
    describe.
    """
    known = schemas.names()
    if name:
        wanted = "-".join(name)
        if wanted not in known:
            raise _unknown(wanted, known)
        click.echo(schemas.read(wanted), nl=False)
        return
    found = {each: json.loads(schemas.read(each)) for each in known}
    listed: list[ListedSchema] = [
        {"name": each, "id": one["$id"], "description": one["description"]}
        for each, one in found.items()
    ]
    if output.as_json:
        render.document("schema", ok=True, schemas=listed)
        return
    width = max(map(len, known))
    for each in listed:
        click.echo(f"{each['name']:<{width}}  {each['description']}")


def _unknown(wanted: str, known: list[str]) -> Unsupported:
    from difflib import get_close_matches

    near = get_close_matches(wanted, known) if len(wanted) <= _LONGEST else []
    near += [each for each in known if each.startswith(f"{wanted}-") and each not in near]
    hint = "`sev-attest schema` lists them"
    if near:
        hint = f"did you mean {', '.join(near)}? ({hint})"
    shown = wanted or "'' (an empty name)"
    return usage(f"No such schema: {shown}", hint=hint)
