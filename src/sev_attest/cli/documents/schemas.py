"""The document of `schema`."""

from typing import TypedDict

from sev_attest.cli.documents.parts import Done


class ListedSchema(TypedDict):
    """A JSON Schema of the package."""

    name: str
    """Its name, for `schema NAME`."""
    id: str
    """Its id, with its version."""
    description: str
    """What it describes."""


class Schema(Done):
    """The JSON Schemas of the package."""

    schemas: list[ListedSchema]
    """Every schema, by name."""
