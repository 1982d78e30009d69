"""The JSON Schemas of the package, which ``tools/make_schemas.py`` writes."""

from importlib.resources import files

_END = ".schema.json"
_PLACE = files("sev_attest") / "schemas"


def names() -> list[str]:
    """Return the names of all schemas."""
    return sorted(one.name.removesuffix(_END) for one in _PLACE.iterdir())


def read(name: str) -> bytes:
    """Return the schema of a name that :func:`names` has."""
    return (_PLACE / f"{name}{_END}").read_bytes()
