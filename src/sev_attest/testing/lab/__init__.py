"""A lab: real libvirt and real QEMU (TCG) on a machine without SEV. See docs/lab.md.

In place of QEMU, libvirt starts a stand-in that has the firmware model answer whatever is about
SEV. What it is told to measure is what libvirt gave QEMU on its command line.
"""

from sev_attest.testing.lab.libvirtd import Lab, LabError, Ran

__all__ = ["Lab", "LabError", "Ran"]
