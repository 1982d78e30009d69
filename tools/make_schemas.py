"""Write the JSON Schemas of the package: one for each document of ``cli/documents/``.

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
from collections.abc import Iterator, Mapping
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
from sev_attest.cli.documents import parts
from sev_attest.cli.documents.advisory_files import UNVERSIONED

PLACE = Path(documents.__file__).parent.parent.parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VERSIONED = re.compile(r"sev-attest/([a-z- ]+)/([0-9]+)")
_SIMPLE: Mapping[Any, Json] = {
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    object: {},
    str: {"type": "string"},
}

Json = dict[str, Any]


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
    found: dict[str, list[type]] = defaultdict(list)
    for kind in _kinds():
        found[_name_of(kind)].append(kind)
    return {name: _Schema(name, kinds).whole() for name, kinds in sorted(found.items())}


def _kinds() -> Iterator[type]:
    """Yield every class of a document."""
    for path in sorted(Path(documents.__file__).parent.glob("[a-z]*.py")):
        module = _module(path.stem)
        for name in _bodies(module):
            kind = getattr(module, name)
            if "schema" in kind.__annotations__ or kind in UNVERSIONED:
                yield kind


def _module(name: str) -> ModuleType:
    return __import__(f"{documents.__name__}.{name}", fromlist=["_"])


def _name_of(kind: type) -> str:
    """Return the name of a document's schema: its command's, or that of the file's class."""
    if "ok" in kind.__annotations__:
        return _version_of(kind)[0].replace(" ", "-")
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def _version_of(kind: type) -> tuple[str, str]:
    """Return what a document's field ``schema`` names, and the version."""
    if kind in UNVERSIONED:
        return "", "1"
    (value,) = get_args(_plain(get_type_hints(kind, include_extras=True)["schema"]))
    found = _VERSIONED.fullmatch(value)
    if found is None:
        raise SystemExit(f"{kind.__name__}: {value!r} is no versioned name")
    return found[1], found[2]


class _Schema:
    """The schema of one document, which may have several forms."""

    def __init__(self, name: str, kinds: list[type]) -> None:
        self.name: str = name
        self.kinds: list[type] = kinds
        self.parts: dict[str, Json] = {}

    def whole(self) -> Json:
        """Return the schema."""
        first = self.kinds[0]
        head = {
            "$schema": DIALECT,
            "$id": f"urn:sev-attest:schema:{self.name}:{_version_of(first)[1]}",
            "title": _version_of(first)[0] or self.name,
            "description": _words(first),
        }
        forms = [self._form(kind) for kind in self.kinds]
        if "ok" in first.__annotations__ and not any(map(_fails, self.kinds)):
            forms.append(self._failed("/".join(("sev-attest", *_version_of(first)))))
        body = forms[0] if len(forms) == 1 else {"anyOf": forms}
        return head | body | ({"$defs": dict(sorted(self.parts.items()))} if self.parts else {})

    def _form(self, kind: type) -> Json:
        """Return one form; a refusal may have any field of the successes."""
        made = self._object(kind)
        if "Refused" in _bases(kind):
            for other in self.kinds:
                if not _fails(other):
                    made["properties"] = self._object(other)["properties"] | made["properties"]
        return (
            made
            if len(self.kinds) == 1 and "ok" not in kind.__annotations__
            else {"description": _words(kind), **made}
        )

    def _failed(self, value: str) -> Json:
        """Return what a command says on failure that says nothing else."""
        made = {"description": _words(parts.Failed), **self._object(parts.Failed)}
        made["properties"] = _const_schema(value) | made["properties"]
        made["required"] = ["schema", *made["required"]]
        return made

    def _object(self, kind: type) -> Json:
        """Return the closed schema of a TypedDict."""
        described = _fields(kind)
        hints = get_type_hints(kind, include_extras=True)
        properties = {}
        for field in sorted(hints, key=lambda field: field != "schema"):
            if field == "schema":
                properties |= _const_schema(get_args(_plain(hints[field]))[0])
                continue
            properties[field] = {"description": described[field], **self._of(hints[field])}
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
        made = {
            Annotated: lambda kind, rules: self._of(kind) | json.loads(rules),
            Literal: lambda *values: {"enum": [*values]} if values[1:] else {"const": values[0]},
            UnionType: lambda *kinds: self._union(kinds),
            Union: lambda *kinds: self._union(kinds),
            dict: self._mapping,
            list: lambda kind: {"type": "array", "items": self._of(kind)},
        }
        if origin in made:
            found: Json = made[origin](*arguments)
            return found
        raise SystemExit(f"{self.name}: there is no schema for {hint}")

    def _reference(self, kind: type) -> Json:
        if kind.__name__ not in self.parts:
            self.parts[kind.__name__] = {}  # it is known from here on, also to itself
            self.parts[kind.__name__] = {"description": _words(kind), **self._object(kind)}
        return {"$ref": f"#/$defs/{kind.__name__}"}

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


def _const_schema(value: str) -> Json:
    return {"schema": {"description": "What this document is, and its version.", "const": value}}


def _plain(hint: Any) -> Any:
    """Return a type without Required and NotRequired."""
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint


def _fails(kind: type) -> bool:
    return "errors" in kind.__annotations__


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
