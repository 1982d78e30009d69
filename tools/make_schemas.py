"""Write the JSON Schemas of the package: one for each document of ``cli/documents/``, and evidence.

    python tools/make_schemas.py [--check]

The schemas are closed: no object has a field that is not described. ``--check`` writes nothing,
and fails if a file is not what this would write.
"""

import ast
import inspect
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from sev_attest.cli import documents
from sev_attest.cli.documents import advisory_files, files, owner_toml, parts, printer
from sev_attest.cli.documents.advisory_files import UNVERSIONED
from sev_attest.cli.evidence import document as evidence

PLACE = Path(documents.__file__).parent.parent.parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
VERSION = "1"
"""Of every command's document: ``render.document`` writes no other yet."""
Json = dict[str, Any]
_SIMPLE: Mapping[Any, Json] = {
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    object: {},
    str: {"type": "string"},
}


def main(arguments: list[str]) -> int:
    """Write or check every schema; return the exit code."""
    made = {f"{name}.schema.json": text_of(schema) for name, schema in schemas().items()}
    there = {path.name: path.read_text() for path in PLACE.glob("*.json")}
    wrong = sorted(name for name in made.keys() | there if made.get(name) != there.get(name))
    if arguments == ["--check"]:
        for name in wrong:
            print(f"{name}: not what tools/make_schemas.py writes")
        return 1 if wrong else 0
    PLACE.mkdir(exist_ok=True)
    for name in wrong:
        if name in made:
            (PLACE / name).write_text(made[name])
        else:
            (PLACE / name).unlink()
    print(f"{len(made)} schemas, {len(wrong)} changed")
    return 0


def text_of(schema: Json) -> str:
    """Return a schema as it is written."""
    return json.dumps(schema, indent=2) + "\n"


def schemas() -> dict[str, Json]:
    """Return every schema by its name."""
    made = {}
    for command, kinds in _commands().items():
        name = command.replace(" ", "-")
        made[name] = _Schema(name, f"sev-attest/{command}/{VERSION}").of_command(kinds)
    for kind in _files():
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
        said = "" if kind in UNVERSIONED else _said(kind)
        made[name] = _Schema(name, said).of_file(kind)
    return dict(sorted(made.items()))


def _commands() -> dict[str, list[type]]:
    """Return the documents of each command, as ``printer.py`` has them; an error has one too."""
    found: dict[str, list[type]] = defaultdict(list, error=[])
    for row in _bodies(printer)["Printer"].body:
        if isinstance(row, ast.FunctionDef):
            command = ast.literal_eval(_inside(row.args.posonlyargs[1].annotation))
            document = _inside(row.args.kwarg.annotation if row.args.kwarg else None)
            found[command].append(getattr(printer, ast.unparse(document)))
    return found


def _inside(annotation: ast.expr | None) -> ast.expr:
    """Return what is between the brackets of an annotation."""
    if not isinstance(annotation, ast.Subscript):
        raise SystemExit("Printer: a row is not of the usual form")
    return annotation.slice


def _files() -> Iterator[type]:
    """Yield the class of every file."""
    for module in (advisory_files, evidence, files, owner_toml):
        for name in _bodies(module):
            kind = getattr(module, name)
            if "schema" in kind.__annotations__ or kind in UNVERSIONED:
                yield kind


def _said(kind: type) -> str:
    """Return what the field ``schema`` of a file says."""
    said: str = get_args(get_type_hints(kind, include_extras=True)["schema"])[0]
    return said


class _Schema:
    """The schema of one document, which may have several forms."""

    def __init__(self, name: str, said: str) -> None:
        """Begin the schema of this name; ``said`` is what the field ``schema`` says."""
        self.name: str = name
        self.said: str = said
        self.parts: dict[str, tuple[type, Json]] = {}

    def of_file(self, kind: type) -> Json:
        """Return the schema of a file."""
        return self._whole(kind, self._object(kind))

    def of_command(self, kinds: list[type]) -> Json:
        """Return the schema of a command's document: its forms, and that of a failure."""
        first = kinds[0] if kinds else parts.Failed
        forms = [self._form(kind) for kind in kinds]
        failed = getattr(sys.modules[first.__module__], f"{first.__name__}Refused", parts.Failed)
        failure = self._form(failed)
        if "Refused" in _bases(failed):
            for form in forms:
                failure["properties"] = form["properties"] | failure["properties"]
        return self._whole(first, {"anyOf": [*forms, failure]})

    def _whole(self, kind: type, body: Json) -> Json:
        """Return a schema with its head and its parts."""
        version = self.said.rpartition("/")[2] or VERSION
        head = {
            "$schema": DIALECT,
            "$id": f"urn:sev-attest:schema:{self.name}:{version}",
            "title": self.said or self.name,
            "description": _words(kind),
        }
        shared = {name: part for name, (_, part) in sorted(self.parts.items())}
        return head | body | ({"$defs": shared} if shared else {})

    def _form(self, kind: type) -> Json:
        """Return one form of a command's document."""
        made = self._object(kind)
        made["properties"] = self._names_itself() | made["properties"]
        made["required"] = ["schema", *made["required"]]
        return {"description": _words(kind), **made}

    def _names_itself(self) -> Json:
        words = "What this document is, and its version."
        return {"schema": {"description": words, "const": self.said}}

    def _object(self, kind: type) -> Json:
        """Return the closed schema of a TypedDict."""
        described = _fields(kind)
        hints = get_type_hints(kind, include_extras=True)
        properties: Json = {}
        for field, hint in hints.items():
            if field == "schema":
                properties |= self._names_itself()
            else:
                properties[field] = {"description": described[field], **self._of(hint)}
        return {
            "type": "object",
            "properties": properties,
            "required": [field for field in properties if field in kind.__required_keys__],  # type: ignore[attr-defined]
            "additionalProperties": False,
        }

    def _of(self, hint: Any) -> Json:
        """Return the schema of a type."""
        hint = _plain(hint)
        origin, arguments = get_origin(hint), get_args(hint)
        if is_typeddict(hint):
            return self._reference(hint)
        if hint in _SIMPLE:
            return dict(_SIMPLE[hint])
        made: Mapping[Any, Callable[..., Json]] = {
            Annotated: lambda kind, rules: self._of(kind) | json.loads(rules),
            Literal: lambda *values: {"enum": [*values]} if values[1:] else {"const": values[0]},
            UnionType: lambda *kinds: self._union(kinds),
            Union: lambda *kinds: self._union(kinds),
            dict: self._mapping,
            Iterable: self._list,
            list: self._list,
        }
        if origin in made:
            return made[origin](*arguments)
        raise SystemExit(f"{self.name}: there is no schema for {hint}")

    def _reference(self, kind: type) -> Json:
        name = kind.__name__
        if name not in self.parts:
            self.parts[name] = kind, {"description": _words(kind), **self._object(kind)}
        if self.parts[name][0] is not kind:
            raise SystemExit(f"{self.name}: there are two classes {name} in it")
        return {"$ref": f"#/$defs/{name}"}

    def _list(self, kind: Any) -> Json:
        return {"type": "array", "items": self._of(kind)}

    def _mapping(self, key: Any, value: Any) -> Json:
        names = {} if key is str else {"propertyNames": self._of(key)}
        return {"type": "object", **names, "additionalProperties": self._of(value)}

    def _union(self, kinds: tuple[Any, ...]) -> Json:
        forms = [self._of(kind) for kind in kinds]
        if all(form.keys() >= {"type"} and "enum" not in form for form in forms):
            types = [form["type"] for form in forms]
            rest = {name: value for form in forms for name, value in form.items()}
            if len(set(types)) == len(types) == 2 and types[-1] == "null":  # a value or null
                return rest | {"type": types}
        return {"anyOf": forms}


def _plain(hint: Any) -> Any:
    """Return a type without Required and NotRequired."""
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint


def _words(kind: type) -> str:
    """Return what a class is: its docstring in one line."""
    words = inspect.cleandoc(kind.__doc__ or "")
    if not words or kind.__doc__ is dict.__doc__:
        raise SystemExit(f"{kind.__name__} has no docstring")
    return " ".join(words.split())


@cache
def _bodies(module: ModuleType) -> Mapping[str, ast.ClassDef]:
    """Return the classes of a module, as they are written."""
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _body(kind: type) -> ast.ClassDef:
    return _bodies(sys.modules[kind.__module__])[kind.__name__]


def _bases(kind: type) -> list[str]:
    """Return the names of a class's bases; a TypedDict forgets them."""
    return [base.id for base in _body(kind).bases if isinstance(base, ast.Name)]


def _fields(kind: type) -> dict[str, str]:
    """Return the description of each field: the string below it."""
    found: dict[str, str] = {}
    for base in _bases(kind):
        if base != "TypedDict":
            found |= _fields(getattr(sys.modules[kind.__module__], base))
    body = _body(kind).body
    for field, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            name = field.target.id
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[name] = " ".join(str(below.value.value).split())
            elif name != "schema":
                raise SystemExit(f"{kind.__name__}.{name} is not described")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
