"""Usage errors: a command reports all of them at once, not only the first."""

import re
from collections.abc import Iterable, Iterator

from sev_attest.errors import Failure, Unsupported

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"


class UsageErrors(Unsupported):
    """Several usage errors; ``failures`` holds them in order."""

    def __init__(self, errors: list[Unsupported]) -> None:
        """Collect errors; there are at least two."""
        super().__init__("; ".join(map(str, errors)), check="usage", hint=errors[0].hint)
        self.failures: tuple[Failure, ...] = tuple(
            Failure(error.check, str(error), error.hint) for error in errors
        )


def usage(message: str, *, hint: str = "") -> Unsupported:
    """Return the error for options that are missing or contradict each other."""
    return Unsupported(message, check="usage", hint=hint)


def name_errors(name: str) -> Iterator[Unsupported]:
    """Yield an error for a name that files' names cannot begin with."""
    if not re.fullmatch(_NAME, name):
        yield Unsupported(
            f"--name {name!r} cannot begin a file's name: letters, digits and _ . + - can",
            check="name",
        )


def combined(errors: list[Unsupported]) -> Unsupported:
    """Return one error for all: a single one as it is, several as :class:`UsageErrors`."""
    return errors[0] if len(errors) == 1 else UsageErrors(errors)


def refuse(*found: Iterable[Unsupported]) -> None:
    """Raise the errors that several checks found, as one; do nothing if there is none."""
    errors = [error for each in found for error in each]
    if errors:
        raise combined(errors)
