"""The options that help with an error of the library, by its check id.

The library's hints say what to do in any program; the command line adds the option for it.
"""

from collections.abc import Mapping
from typing import Protocol

HINTS: Mapping[str, str] = {
    "chain.ark.trusted": "{} (--trust-root)",
    "chain.cek.unsigned": "{}; pass it with --cek",
    "firmware.hash-table": "{} (--kernel)",
    "firmware.sev-es-reset": "{} (--vmsa-cpu0, --vmsa-cpu1)",
    "secret.unbound": "{}; for tests, --insecure goes on",
    "vmsa.ap": "{}--vmsa-cpu1 takes it",
}
"""What is shown; ``{}`` is the library's hint."""


class Explained(Protocol):
    """An error, or one of several that it carries."""

    @property
    def check(self) -> str:
        """The check id."""

    @property
    def hint(self) -> str:
        """The library's hint."""


def hint_for(error: Explained) -> str:
    """Return the hint that a command shows for an error."""
    return HINTS.get(error.check, "{}").format(error.hint).removeprefix("; ")
