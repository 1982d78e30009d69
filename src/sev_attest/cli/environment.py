"""The environment variables that are defaults of options; no other option has one.

Options that are secret, or that lower what is checked (--insecure, --force, --yes, --trust-root,
--ignore-config), must stand on the command line, where they can be seen.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.core import ParameterSource

from sev_attest.cli.help import Option

LEDGER = "SEV_ATTEST_LEDGER"
STORE = "SEV_ATTEST_STORE"
REQUIREMENTS = "SEV_ATTEST_REQUIREMENTS"
_VARIABLES = {"ledger": LEDGER, "store": STORE, "requirements": REQUIREMENTS}
_NONE = "cannot be none: only the option can, where it can be seen"


class VariableOption(Option):
    """An option with such a variable, which its help shows."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        """Take click's own settings."""
        super().__init__(*arguments, **settings)  # type: ignore[arg-type] # click's own settings
        self.show_envvar = True

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the variable's value; raises BadParameter for one that would turn checks off.

        An empty value is refused: a variable that it was made from was not set, and to ignore it
        would drop the owner's requirements.
        """
        value = os.environ.get(str(self.envvar))
        if value in ("", "none") and not ctx.resilient_parsing:
            reason = _NONE if value else "is empty: unset it"
            raise click.BadParameter(f"{self.envvar} {reason}", ctx, self)
        return value or None


@contextmanager
def unset() -> Iterator[None]:
    """Run commands without these variables: the demo has a ledger of its own."""
    before = {name: os.environ.pop(name) for name in _VARIABLES.values() if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def origin(field: str) -> str:
    """Return what to call the value of a field: its option, or the variable that it is from."""
    return _VARIABLES[field] if from_environment(field) else f"--{field}"


def from_environment(field: str) -> bool:
    """Return whether the running command has the value of a field from the environment."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and ctx.get_parameter_source(field) is ParameterSource.ENVIRONMENT
