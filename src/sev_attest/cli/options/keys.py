"""The options that name a session's keys, and the reading of keys and secrets."""

import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sev_attest._encoding import blob
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE, STDIN, read_small
from sev_attest.cli.usage import usage
from sev_attest.errors import MalformedInput, Unsupported, reading

if TYPE_CHECKING:
    from sev_attest.sev.keys import TransportKeys

_NEEDED = "the session's keys are needed: --tik and --tek, or --tk"


class KeyOptions(Options, title="Keys"):
    """The files of TIK and TEK, 16 bytes each, or of both in one."""

    tik: str | None = option("--tik", type=FILE, metavar="FILE", help="TIK of the session.")
    tek: str | None = option("--tek", type=FILE, metavar="FILE", help="TEK of the session.")
    tk: str | None = option(
        "--tk", type=FILE, metavar="FILE", help="TEK and TIK in one file, in this order."
    )

    @classmethod
    def lacking(cls, given: AbstractSet[str]) -> Iterator[Unsupported]:
        """Yield an error if a key is missing."""
        if "tk" not in given and not given >= {"tik", "tek"}:
            yield usage(_NEEDED)

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for keys that are missing or contradict each other."""
        yield from self.lacking({name for name, path in vars(self).items() if path is not None})
        if self.tk is not None and self.stated("tik", "tek"):
            yield usage("--tk excludes --tik and --tek")

    def read(self) -> "TransportKeys":
        """Read the keys; raises Unsupported if they are missing."""
        from sev_attest.sev.keys import TransportKeys

        if self.tk is not None:
            with reading(self.tk):
                return TransportKeys.from_tk(read_small(self.tk, "TK"))
        if self.tik is None or self.tek is None:
            raise usage(_NEEDED)
        return TransportKeys(tek=read_key(self.tek, "TEK"), tik=read_key(self.tik, "TIK"))


def read_key(path: str, name: str) -> bytes:
    """Read a key of 16 bytes; ``name`` is what an error calls it."""
    with reading(path):
        return blob(read_small(path, name), (16,), name)


def read_secrets(texts: tuple[str, ...]) -> dict[str, bytes]:
    """Read the secrets of ALIAS-OR-GUID:PATH options, by GUID or alias."""
    return {name: _read_secret(name, path) for name, path in _places(texts).items()}


def find_secrets(texts: tuple[str, ...]) -> None:
    """Check that the secrets of such options have files, and read none; raises OSError."""
    for name, path in _places(texts).items():
        with _file_of(name):
            if path != STDIN:
                os.stat(path)  # noqa: PTH116 - pathlib takes longer to import


def secret_errors(texts: tuple[str, ...]) -> Iterator[Unsupported]:
    """Yield an error for each ALIAS-OR-GUID:PATH option that is malformed, or given twice."""
    from sev_attest.sev.secret import guid_of

    seen: set[bytes] = set()
    for text in texts:
        name, _, path = text.partition(":")
        if not path:
            # The text stays out of the message: it may be the secret itself.
            yield usage("a secret is given as ALIAS-OR-GUID:PATH")
            continue
        try:
            guid = guid_of(name)
        except MalformedInput as error:
            yield usage(error.reason)
            continue
        if guid in seen:
            yield Unsupported(f"there are two secrets for {name}", check="secret.twice")
        seen.add(guid)


def _places(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the files of secrets by name; :func:`secret_errors` finds nothing wrong in them."""
    return {name: path for name, _, path in (text.partition(":") for text in texts)}


def _read_secret(name: str, path: str) -> bytes:
    with _file_of(name):
        secret = read_small(path, "secret")
    if not secret:
        raise Unsupported(f"the secret {name} is empty", check="secret.empty")
    return secret


@contextmanager
def _file_of(name: str) -> Iterator[None]:
    """Name the secret in an error of its file; the path may be the secret itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"the file of secret {name}") from None
