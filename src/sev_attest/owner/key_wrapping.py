"""Key-encryption keys (KEK): each wraps data keys, which seal what is stored.

=========================  ====================================================================
text                       key
=========================  ====================================================================
PATH, file:PATH            a file of exactly 32 random bytes
credential:NAME            the same as a credential of systemd: $CREDENTIALS_DIRECTORY/NAME
vault:https://...          a key of the transit engine of HashiCorp Vault or OpenBao
command:PATH [ARG...]      a command, for anything else: a cloud's service, a security module
=========================  ====================================================================
"""

import base64
import binascii
import hashlib
import os
import re
from typing import TYPE_CHECKING, Protocol

from sev_attest import _crypto
from sev_attest.errors import Unsupported
from sev_attest.owner._private_file import private_file
from sev_attest.owner.key_errors import KeyAccessError, damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sev_attest.owner._vault import Vault

KEY_SIZE = 32
"""Bytes of a key-encryption key in a file, and of a data key."""
MAX_WRAPPED = 4096
"""Bytes of a wrapped data key."""
MAX_ID = 128
"""Characters of the id of a key-encryption key."""
CHECK = "pending.kek"
VAULT_FORM = "vault:https://HOST[:PORT]/MOUNT/NAME[?token-file=PATH&namespace=NAME&ca=PATH]"
_PURPOSE = b"sev-attest data key"
_NONCE, _TAG = 12, 16
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.@:+-]{1,100}")
_CIPHERTEXT = re.compile(r"vault:v[0-9]{1,9}:[A-Za-z0-9+/]+={0,2}")


class KeyEncryption(Protocol):
    """A key-encryption key. Threads may use it concurrently."""

    @property
    def id(self) -> str:
        """The name that is stored with what it wraps: 1 to 128 characters of printable ASCII."""

    def wrap(self, data_key: bytes) -> bytes:
        """Return a data key of 32 bytes, encrypted: 1 to 4096 bytes.

        Raises KeyAccessError if the key cannot be used.
        """

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the data key of 32 bytes that :meth:`wrap` encrypted under this id.

        Raises SealError if ``wrapped`` was changed, KeyAccessError if the key cannot be used.
        """


class KeyFile:
    """32 bytes of a file, for AES-256-GCM. The id depends on the bytes, not on the file's name.

    A wrapped key is a nonce of 12 bytes, then ciphertext and tag. The associated data are the
    purpose ("sev-attest data key") and the id.
    """

    def __init__(self, path: str, *, credential: bool = False) -> None:
        """Read the file, a regular file of this user or root that no other can read or replace.

        ``credential`` accepts the mode that systemd gives to credentials.
        Raises KeyAccessError for any other file, and one that is not 32 bytes long.
        """
        key = private_file(path, KEY_SIZE, check=CHECK, credential=credential)
        if len(key) != KEY_SIZE:
            raise KeyAccessError(
                f"{path}: it has {len(key)} bytes, expected {KEY_SIZE}",
                check=CHECK,
                hint=f"make a new one: (umask 077; set -C; head -c {KEY_SIZE} /dev/urandom > FILE)",
            )
        self._key = key
        self.id: str = key_id(key)

    def __repr__(self) -> str:
        """Return the id."""
        return f"KeyFile({self.id!r})"

    def wrap(self, data_key: bytes) -> bytes:
        """Return the data key, encrypted: 60 bytes."""
        # Random nonces are safe for 2**32 data keys. A process makes few a day.
        nonce = _crypto.random_bytes(_NONCE)
        return nonce + _crypto.aes_gcm(self._key, nonce, data_key, self._associated_data)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the data key. Raises SealError for anything that this key did not wrap."""
        data_key = None
        if len(wrapped) == _NONCE + KEY_SIZE + _TAG:
            nonce, ciphertext = wrapped[:_NONCE], wrapped[_NONCE:]
            data_key = _crypto.aes_gcm_opened(self._key, nonce, ciphertext, self._associated_data)
        if data_key is None:
            raise damaged("the key-encryption key does not open its data key")
        return data_key

    @property
    def _associated_data(self) -> bytes:
        return _PURPOSE + b"\0" + self.id.encode()


def key_id(key: bytes) -> str:
    """Return the id of a key in a file: "key:" and 16 hex digits, of a labelled SHA-256."""
    return f"key:{hashlib.sha256(b'sev-attest key id' + bytes(1) + key).hexdigest()[:16]}"


class TransitKey:
    """A key of the transit engine of HashiCorp Vault or OpenBao, which never leaves it.

    The key must be of a type with associated data: aes256-gcm96, its default. A wrapped key is
    the ciphertext of transit (``vault:vN:...``), so a key may be rotated there: old versions open
    what they wrapped. The id is "vault:", the namespace, the mount and the name.
    """

    def __init__(self, vault: "Vault", mount: str, name: str) -> None:
        """Take a server, and a key there. Raises Unsupported if the id is too long."""
        self._vault, self._mount, self._name = vault, mount, name
        self.id: str = "vault:" + "/".join(filter(None, (vault.namespace, mount, name)))
        if len(self.id) > MAX_ID:
            raise Unsupported(f"{VAULT_FORM}: the names are too long", check="usage")

    def __repr__(self) -> str:
        """Return the id and the server."""
        return f"TransitKey({self.id!r}, {self._vault!r})"

    def wrap(self, data_key: bytes) -> bytes:
        """Return the data key, encrypted by the server; raises KeyAccessError."""
        answer = self._ask("encrypt", "plaintext", _base64(data_key)).get("ciphertext")
        # Nothing else may be stored: a server that answers the plaintext would end up there.
        if not isinstance(answer, str) or not _CIPHERTEXT.fullmatch(answer):
            raise self._vault.error("the answer has no ciphertext")
        return answer.encode()

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the data key, decrypted by the server; raises SealError or KeyAccessError."""
        text = wrapped.decode("latin-1")
        if not _CIPHERTEXT.fullmatch(text):
            raise damaged("its data key is no ciphertext of Vault")
        data_key = _from_base64(self._ask("decrypt", "ciphertext", text).get("plaintext"))
        if data_key is None:
            raise self._vault.error("the answer has no data key")
        return data_key

    def _ask(self, verb: str, name: str, value: str) -> dict[str, object]:
        # A server before Vault 1.13 ignores the associated data.
        body = {name: value, "associated_data": _base64(_PURPOSE)}
        return self._vault.call("POST", (self._mount, verb, self._name), body)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: object) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None


class CommandKey:
    """A command, run as ``COMMAND [ARG...] wrap ID`` and ``COMMAND [ARG...] unwrap ID``.

    Standard input is the data key (32 bytes) or what was wrapped; standard output is the other.
    The id is "command:" and the file name of COMMAND, ID is this name: under another name (a link)
    it is another key.
    """

    def __init__(self, argv: "Sequence[str]") -> None:
        """Take the command, by an absolute path, and its arguments. Raises Unsupported."""
        self._argv = tuple(argv)
        self._name = self._argv[0].rpartition("/")[2]
        if not _NAME.fullmatch(self._name):
            raise Unsupported(
                "command:PATH [ARG...]: the file's name is not 1 to 100 letters, digits and .@:+-_",
                check="usage",
            )
        self.id: str = f"command:{self._name}"

    def __repr__(self) -> str:
        """Return the id."""
        return f"CommandKey({self.id!r})"

    def wrap(self, data_key: bytes) -> bytes:
        """Return the data key, encrypted by the command; raises KeyAccessError."""
        return self._ask("wrap", data_key, MAX_WRAPPED)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the data key, decrypted by the command; raises KeyAccessError."""
        return self._ask("unwrap", wrapped, KEY_SIZE)

    def _ask(self, verb: str, given: bytes, most: int) -> bytes:
        from sev_attest.owner._command import ask_command

        return ask_command((*self._argv, verb, self._name), given, most=most, check=CHECK)


def key_encryption(text: str) -> KeyEncryption:
    """Return the key-encryption key that a text names.

    - ``PATH`` or ``file:PATH``: a file of exactly 32 bytes, of this user or root, with mode 0600
      or 0400.
    - ``credential:NAME``: a credential of systemd with the same content.
    - ``vault:https://HOST[:PORT]/MOUNT/NAME[?token-file=PATH&namespace=NAME&ca=PATH]``: a key of
      the transit engine. A slash within MOUNT is %2F. The token is in the file, which is read for
      every call, or in the environment variable VAULT_TOKEN.
    - ``command:PATH [ARG...]``: a command by its absolute path, split as a shell does.

    A key in a file is read now, any other is asked when it is first used.

    Raises Unsupported for any other text, KeyAccessError for a file that cannot be used.
    """
    kind, colon, rest = text.partition(":")
    if "\0" in text or not text or (colon and kind in _KINDS and not rest):
        raise Unsupported(
            "a key-encryption key is a PATH, file:PATH, credential:NAME, vault:URL or command:PATH",
            check="usage",
        )
    return _KINDS[kind](rest) if colon and kind in _KINDS else KeyFile(text)


def _credential(name: str) -> KeyFile:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or not _NAME.fullmatch(name):
        raise Unsupported(
            "credential:NAME: systemd passes no credentials to this process"
            if not folder
            else "credential:NAME: this is not the name of a credential",
            check="usage",
            hint="add LoadCredential=NAME:PATH to the unit",
        )
    return KeyFile(f"{folder}/{name}", credential=True)


def _transit(url: str) -> TransitKey:
    from sev_attest.owner._vault import parse_vault

    vault, segments = parse_vault(url, check=CHECK, form=VAULT_FORM)
    if len(segments) != 2:  # noqa: PLR2004 - MOUNT and NAME
        raise Unsupported(
            f"{VAULT_FORM}: the path is not a mount and a name",
            check="usage",
            hint="write a slash within the mount as %2F",
        )
    return TransitKey(vault, *segments)


def _command(text: str) -> CommandKey:
    from sev_attest.owner._command import parse_command

    return CommandKey(parse_command(text))


_KINDS: "Mapping[str, Callable[[str], KeyEncryption]]" = {
    "file": KeyFile,
    "credential": _credential,
    "vault": _transit,
    "command": _command,
}
