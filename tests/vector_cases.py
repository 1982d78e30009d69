"""The cases of the vectors, each under its id."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "vectors"


def cases(kind: str) -> list[Any]:
    """List the cases of a file, each under its id; a missing file is an error."""
    document = json.loads((FOLDER / f"{kind}.json").read_bytes())
    return [pytest.param(case, id=case["id"]) for case in document["cases"]]
