"""A lab: real libvirt and real QEMU (TCG) on a machine without SEV. See docs/lab.md.

In place of QEMU, libvirt starts a stand-in. Everything about SEV is answered by the simulated
firmware, which measures what libvirt names on QEMU's command line.
"""

from sev_attest.testing.lab.fault import AnyFault, MonitorFault
from sev_attest.testing.lab.libvirtd import Lab, LabError, Ran

__all__ = ["AnyFault", "Lab", "LabError", "MonitorFault", "Ran"]
