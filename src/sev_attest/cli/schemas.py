"""The JSON Schemas of the package, which ``tools/make_schemas.py`` writes."""

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_END = ".schema.json"


def names() -> list[str]:
    """Return the names of all schemas."""
    return sorted(one.name.removesuffix(_END) for one in _place().iterdir())


def read(name: str) -> bytes:
    """Return the schema of a name that :func:`names` has."""
    return (_place() / f"{name}{_END}").read_bytes()


def _place() -> "Traversable":
    return files("sev_attest") / "schemas"
