"""Connections to hosts, by libvirt or QMP. What a host says is its claim and proves nothing.

``libvirt`` and ``qmp`` each need an extra, which is imported only when a connection is made.
"""

from sev_attest.host.connection import (
    DomainConfig,
    HostConnection,
    HostDomain,
    HostError,
    RunningGuest,
)

__all__ = ["DomainConfig", "HostConnection", "HostDomain", "HostError", "RunningGuest"]
