"""Errors of keys and secrets that come from outside the process, and of what they seal."""

from sev_attest.errors import SevAttestError


class KeyAccessError(SevAttestError):
    """A key-encryption key or a source of secrets cannot be used: missing, unsafe, out of reach.

    The check id is ``pending.kek`` or ``secrets.source``. It never shows a key, secret or token.
    """

    exit_code: int = 6


class SealError(SevAttestError):
    """What was sealed cannot be opened: it is damaged, or its key-encryption key is not here.

    The check id is ``pending.damaged`` or ``pending.key``.
    """

    exit_code: int = 6


def damaged(reason: str) -> SealError:
    """Return the error for a box or a wrapped key that was changed."""
    return SealError(
        f"the sealed data is damaged: {reason}",
        check="pending.damaged",
        hint="make a new session; find out who changed it",
    )
