"""Reads files that hold a key, a token or a secret: nobody else may read or replace them."""

import errno
import os
import stat

from sev_attest.owner._safe_path import UnsafePlace, absolute, check_folders
from sev_attest.owner.key_errors import KeyAccessError

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO without a writer must not hang
)
_HAS_OWNERS = hasattr(os, "geteuid")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# systemd gives a credential to a service's user by an ACL. The mask of an ACL shows as the group's
# bits: such a file is root's with mode 0440, though no group can read it.
# Source: systemd issue 29435.
_NOT_A_CREDENTIAL = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


def private_file(
    path: str,
    most: int,
    *,
    check: str,
    credential: bool = False,
    folder: int | None = None,
    shown: str = "",
) -> bytes:
    """Return the content of a regular file of this user or root, at most ``most`` bytes.

    ``credential`` accepts the mode that systemd gives to credentials, in a folder of its own. Of
    any other file, nobody else may be able to replace it: the folders on the way are checked.
    ``folder`` is the descriptor of the folder that ``path`` is in, which the caller has checked;
    ``shown`` then is its whole path, for messages. ``check`` is the id of the error.

    Raises KeyAccessError for anything else, a symbolic link too.
    """
    name = shown or path
    try:
        descriptor = os.open(path, _FLAGS, dir_fd=folder)
        try:
            forbidden = _NOT_A_CREDENTIAL if credential else _OTHERS
            reason, hint = _unsafe(os.fstat(descriptor), name, forbidden)
            if not (reason or credential or folder is not None):
                check_folders(os.path.dirname(absolute(path)), make=False)
            data = b"" if reason else _read(descriptor, most + 1)
        finally:
            os.close(descriptor)
    except UnsafePlace as error:
        reason, hint = error.reason, error.hint
    except OSError as error:
        reason, hint = str(error.strerror), ""
        if error.errno == errno.ELOOP:
            reason, hint = "it is a symbolic link", "name the file itself"
    if not reason and len(data) > most:
        reason = f"it has more than {most} bytes"
    if reason:
        raise KeyAccessError(f"{name}: {reason}", check=check, hint=hint)
    return data


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while chunk := os.read(descriptor, size - len(data)):
        data += chunk
    return data


def _unsafe(found: os.stat_result, name: str, forbidden: int) -> tuple[str, str]:
    """Return why a file must not be used and what to do; empty if it may."""
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file", ""
    if _HAS_OWNERS and found.st_uid not in (0, os.geteuid()):
        return "it belongs to another user", "make this user its owner"
    if _HAS_OWNERS and found.st_mode & forbidden:
        from shlex import quote

        return "others can read or change it", f"chmod 600 {quote(name)}"
    return "", ""
