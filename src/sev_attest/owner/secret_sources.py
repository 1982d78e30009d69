"""Where the secrets of a launch come from, when it is time to release them.

==========================  ===================================================================
text                        source
==========================  ===================================================================
PATH, folder:PATH           a folder with one file for each secret
vault:https://...           a secret of the KV engine, version 2, of HashiCorp Vault or OpenBao
command:PATH [ARG...]       a command, for anything else
==========================  ===================================================================

``{launch}`` in a folder or a path stands for the name of the launch.
"""

import binascii
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from sev_attest.errors import Unsupported
from sev_attest.owner._answers import json_object, table
from sev_attest.owner._private_file import private_file
from sev_attest.owner._safe_path import quoted_path
from sev_attest.owner.key_errors import KeyAccessError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sev_attest.owner._vault import Vault

LAUNCH = "{launch}"
MAX_SECRET = 0x4000
"""Bytes of a secret: KVM passes 16 KiB to a guest at most, for all of them."""
MAX_SECRETS = 64
CHECK = "secrets.source"
VAULT_FORM = "vault:https://HOST[:PORT]/MOUNT/PATH[?token-file=PATH&namespace=NAME&ca=PATH]"
_MAX_ANSWER = 1 << 17
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_BASE64 = ".base64"
_OTHERS_WRITE = 0o022
_RENAME = "rename the file to luks-key or a GUID, or remove it"


class SecretSource(Protocol):
    """A source of secrets. Threads may use it concurrently."""

    def secrets(self, launch: str) -> Mapping[str, bytes]:
        """Return the secrets for the launch of that name in the requirements, at least one.

        The names are GUIDs or aliases ("luks-key"), the values 1 to 16384 bytes.
        Raises KeyAccessError with check ``secrets.source`` if there is none, or the source fails.
        """


class SecretFolder:
    """A folder of this user or root, with one file for each secret and nothing else.

    A file's name is that of the secret, its content the secret, with a line break if it ends with
    one. Only its owner may read it, and only he may write in the folder.
    """

    def __init__(self, path: str) -> None:
        """Take the path of the folder, in which ``{launch}`` stands for the launch's name."""
        self._path = path

    def __repr__(self) -> str:
        """Return the folder."""
        return f"SecretFolder({self._path!r})"

    def secrets(self, launch: str) -> Mapping[str, bytes]:
        """Return the content of its files; raises KeyAccessError."""
        path = self._path.replace(LAUNCH, _safe(launch))
        flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            folder = os.open(path, flags)
            try:
                return self._read(path, folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _error(path, str(error.strerror)) from None

    @staticmethod
    def _read(path: str, folder: int) -> Mapping[str, bytes]:
        found = os.fstat(folder)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & _OTHERS_WRITE:
            own = found.st_uid in (0, os.geteuid())
            hint = f"chmod go-w {quoted_path(path)}" if own else "make it a folder of your own"
            raise _error(path, "others can change what is in it", hint)
        names: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if len(names) == MAX_SECRETS:
                    raise _error(path, f"more than {MAX_SECRETS} files")
                names.append(entry.name)
        read = {}
        for name in names:
            shown = f"{path}/{name}"
            if not _NAME.fullmatch(name):
                raise _error(shown, "this is not the name of a secret", _RENAME)
            read[name] = private_file(name, MAX_SECRET, check=CHECK, folder=folder, shown=shown)
        return _checked(path, read)


class VaultSecret:
    """A secret of the KV engine, version 2: its latest version. Each key is one secret's name."""

    def __init__(self, vault: "Vault", mount: str, path: "Sequence[str]") -> None:
        """Take a server and the place there, in which ``{launch}`` stands for the launch's name."""
        self._vault, self._mount, self._path = vault, mount, tuple(path)

    def __repr__(self) -> str:
        """Return the place and the server."""
        return f"VaultSecret({'/'.join((self._mount, *self._path))!r}, {self._vault!r})"

    def secrets(self, launch: str) -> Mapping[str, bytes]:
        """Return its values; raises KeyAccessError. For binary see :func:`secret_source`."""
        launch = _safe(launch)
        path = [part.replace(LAUNCH, launch) for part in (self._mount, *self._path)]
        values = self._vault.call("GET", (path[0], "data", *path[1:])).get("data")
        return _from_text(self._vault.place, table(values))


class SecretCommand:
    """A command, run as ``COMMAND [ARG...] secrets LAUNCH``. It prints one JSON object."""

    def __init__(self, argv: "Sequence[str]") -> None:
        """Take the command, by an absolute path, and its arguments."""
        self._argv = tuple(argv)

    def __repr__(self) -> str:
        """Return the command, without its arguments."""
        return f"SecretCommand({self._argv[0]!r})"

    def secrets(self, launch: str) -> Mapping[str, bytes]:
        """Return its values; raises KeyAccessError. For binary see :func:`secret_source`."""
        from sev_attest.owner._command import ask_command

        argv = (*self._argv, "secrets", _safe(launch))
        found = json_object(ask_command(argv, b"", most=_MAX_ANSWER, check=CHECK))
        if found is None:
            raise _error(self._argv[0], "it did not answer with one JSON object")
        return _from_text(self._argv[0], found)


def _from_text(place: str, values: Mapping[str, object]) -> Mapping[str, bytes]:
    """Return the secrets in a JSON object; raises KeyAccessError."""
    found: dict[str, bytes] = {}
    for given, value in values.items():
        if not _NAME.fullmatch(given):
            raise _error(place, "a key is not the name of a secret")
        name = given.removesuffix(_BASE64)
        secret = _bytes(value, base64=name != given)
        if secret is None:
            raise _error(place, f"the value of {given} cannot be read")
        if name in found:
            raise _error(place, f"there are both {name} and {name}{_BASE64}")
        found[name] = secret
    return _checked(place, found)


def _bytes(value: object, *, base64: bool) -> bytes | None:
    try:
        text = value.encode() if isinstance(value, str) else None
        return binascii.a2b_base64(text, strict_mode=True) if base64 and text else text
    except ValueError:  # not base64, or half of a surrogate pair
        return None


def _checked(place: str, secrets: Mapping[str, bytes]) -> Mapping[str, bytes]:
    if not secrets:
        raise _error(place, "there is no secret")
    if len(secrets) > MAX_SECRETS:
        raise _error(place, f"more than {MAX_SECRETS} secrets")
    for name, secret in secrets.items():
        if not 1 <= len(secret) <= MAX_SECRET:
            raise _error(place, f"{name} has {len(secret)} bytes, 1 to {MAX_SECRET} are possible")
    return secrets


def _safe(launch: str) -> str:
    """Return the name of a launch, which becomes a part of a path; raises KeyAccessError."""
    if not _NAME.fullmatch(launch):
        raise _error(ascii(launch[:80]), "this cannot be the name of a launch")
    return launch


def _error(place: str, reason: str, hint: str = "") -> KeyAccessError:
    return KeyAccessError(f"{place}: {reason}", check=CHECK, hint=hint)


def secret_source(text: str) -> SecretSource:
    """Return the source of secrets that a text names.

    - ``PATH`` or ``folder:PATH``: a folder of private files, one for each secret.
    - ``vault:https://HOST[:PORT]/MOUNT/PATH[?token-file=PATH&namespace=NAME&ca=PATH]``: a secret
      of the KV engine, version 2. A slash within MOUNT is %2F. The token is in the file, which is
      read for every call, or in the environment variable VAULT_TOKEN.
    - ``command:PATH [ARG...]``: a command by its absolute path, split as a shell does.

    ``{launch}`` in a folder or a path of KV stands for the name of the launch. Values from Vault
    and commands are text, used as UTF-8. A name that ends in ".base64" has a value in base64, and
    is the secret's without that ending.

    Nothing is read or asked before :meth:`SecretSource.secrets`. Raises Unsupported for any other
    text.
    """
    kind, colon, rest = text.partition(":")
    if "\0" in text or not text or (colon and kind in _KINDS and not rest):
        raise Unsupported(
            "a source of secrets is a PATH, folder:PATH, vault:URL or command:PATH", check="usage"
        )
    return _KINDS[kind](rest) if colon and kind in _KINDS else SecretFolder(text)


def _vault(url: str) -> VaultSecret:
    from sev_attest.owner._vault import parse_vault

    vault, segments = parse_vault(url, check=CHECK, form=VAULT_FORM, blank=LAUNCH)
    if len(segments) < 2:  # noqa: PLR2004 - MOUNT and PATH
        raise Unsupported(f"{VAULT_FORM}: the path is not a mount and a path", check="usage")
    return VaultSecret(vault, segments[0], segments[1:])


def _command(text: str) -> SecretCommand:
    from sev_attest.owner._command import parse_command

    return SecretCommand(parse_command(text))


_KINDS: Mapping[str, "Callable[[str], SecretSource]"] = {
    "folder": SecretFolder,
    "vault": _vault,
    "command": _command,
}
