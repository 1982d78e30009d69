"""The guest owner's half of an AMD SEV or SEV-ES launch.

==========================  =====================================================================
question                    names
==========================  =====================================================================
Is this platform AMD's?     :class:`Chain`, :func:`verify_chain` -> :class:`VerifiedChain`
A channel to it alone       :class:`Session`, :class:`GuestPolicy`, :class:`TransportKeys`
Did it start what I meant?  :func:`launch_digest`, :class:`LaunchInfo`, :func:`verify_launch`
                            -> :class:`VerifiedLaunch`
Why does it not match?      :func:`explain_mismatch` -> :class:`Diagnosis`
Only then, the secret       :func:`build_secret` -> :class:`SecretPacket`
All of it, once for each    :func:`release`, :class:`Requirements`, :class:`Ledger`
What went wrong             :class:`SevAttestError` and what derives from it
==========================  =====================================================================

The names are imported when one is first used: a command that checks a measurement imports its rooms
directly, and then no OpenSSL bindings.
"""

# Nothing is imported here: the command's handling of signals comes before any import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sev_attest._api import *  # noqa: F403

__version__ = "0.1.0"


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return sorted({*globals(), *__getattr__("__all__")})


def __getattr__(name: str) -> "Any":
    """Fetch a public name (or ``__all__``) on first use."""
    # Private names are rooms, which import each other while this module is being filled.
    if name == "__all__" or not name.startswith("_"):
        from importlib import import_module

        api = import_module("sev_attest._api")
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
