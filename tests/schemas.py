"""The schemas of the package, and what fits them."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema

PLACE = files("sev_attest") / "schemas"
OF_FILES = {
    "sev-attest/evidence/1": "evidence",
    "sev-attest/launch/1": "launch-record",
    "sev-attest/manifest/1": "manifest",
    "sev-attest/requirements/1": "requirements",
    "sev-attest/snp-challenge/1": "snp-challenge",
    "sev-attest/snp-manifest/1": "snp-manifest",
    "sev-attest/snp-sealed/1": "snp-sealed",
    "sev-attest/snp-transport-key/1": "snp-transport-key",
    "sev-attest/snp-transport-private-key/1": "snp-transport-private-key",
}
"""The schemas of files, by what their field ``schema`` says."""


@cache
def schema_of(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((PLACE / f"{name}.schema.json").read_text())
    return schema


def name_of(document: dict[str, Any]) -> str:
    """Return the name of the schema of a document: of a command's if it has ``ok``."""
    said: str = document["schema"]
    return said.split("/")[1].replace(" ", "-") if "ok" in document else OF_FILES[said]


@cache
def _forms_of(name: str) -> list[jsonschema.Draft202012Validator]:
    """Return what holds a document to each form of a schema."""
    schema = schema_of(name)
    shared = {"$defs": schema.get("$defs", {})}
    forms = schema.get("anyOf", [schema])
    return [jsonschema.Draft202012Validator({**shared, **form}) for form in forms]


def misfits(document: dict[str, Any], name: str | None = None) -> list[str]:
    """Return why a document does not fit its schema; nothing if it does."""
    # Of several forms, the one that it fits best says most.
    found = min((_errors(form, document) for form in _forms_of(name or name_of(document))), key=len)
    return [f"{document.get('schema')}: {where}" for where in found]


def _errors(form: jsonschema.Draft202012Validator, document: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in form.iter_errors(document)]


def misfits_of(printed: str | bytes | None) -> list[str]:
    """Return why what was printed does not fit its schema; nothing if it is no document."""
    try:
        document = json.loads(printed or b"")
    except ValueError:
        return []
    return misfits(document) if isinstance(document, dict) and "schema" in document else []
