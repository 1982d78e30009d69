"""Public names that are imported on first use (PEP 562).

Commands import modules directly, so that checking a measurement does not load OpenSSL.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package; its ``_api`` has the names."""

    def get(name: str) -> Any:
        # Private names are modules, which import each other while the package is being filled.
        if name == "__all__" or not name.startswith("_"):
            api = import_module(f"{package}._api")
            if name == "__all__" or name in api.__all__:
                return getattr(api, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        own = (name for name in vars(sys.modules[package]) if name.startswith("__"))
        return sorted({*own, *get("__all__")})

    return get, names
