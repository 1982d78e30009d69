"""SEV and SEV-ES: platform certificates, sessions, launch measurements, secrets.

==========================  =====================================================================
question                    names
==========================  =====================================================================
Is this platform AMD's?     :class:`Chain`, :func:`verify_chain` -> :class:`VerifiedChain`
A channel to it alone       :class:`Session`, :class:`GuestPolicy`, :class:`TransportKeys`
Did it start what I meant?  :func:`launch_digest`, :class:`LaunchInfo`, :func:`verify_launch`
                            -> :class:`VerifiedLaunch`
Why does it not match?      :func:`explain_mismatch` -> :class:`Diagnosis`
Only then, the secret       :func:`build_secret` -> :class:`SecretPacket`
Is it still what started?   :class:`AttestationReport`, :func:`verify_report`
==========================  =====================================================================
"""

from sev_attest._lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sev_attest.sev._api import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy(__name__)
