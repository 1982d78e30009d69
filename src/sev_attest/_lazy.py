"""What is imported on first use (PEP 562).

The public names of packages: commands import modules directly, so that checking a measurement does
not load OpenSSL. And modules of others that most commands never use.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
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


def import_when_used(name: str) -> None:
    """Delay the import of a module until one of its attributes is read, whoever imports it.

    For the command line only: a library leaves ``sys.modules`` alone.
    """
    if name in sys.modules:
        return
    stand_in = ModuleType(name)

    def get(attribute: str) -> Any:
        if sys.modules.get(name) is stand_in:
            sys.modules.pop(name, None)
        return getattr(import_module(name), attribute)

    stand_in.__getattr__ = get  # type: ignore[method-assign]
    sys.modules[name] = stand_in
