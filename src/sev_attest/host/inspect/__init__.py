"""What the files of a host or guest say about SEV: ``host check`` and ``guest check``.

Files are read below a root folder, which may be a copy or a simulated tree. Nothing in it is run.
What is found is the machine's own word and proves nothing.
"""

from sev_attest.host.inspect.check import Check, Finding, Need, Status
from sev_attest.host.inspect.machine import Live, Machine
from sev_attest.host.inspect.reports import GUEST, HOST, Report, inspect_guest, inspect_host
from sev_attest.host.inspect.tree import Tree

__all__ = [
    "GUEST", "HOST", "Check", "Finding", "Live", "Machine", "Need", "Report", "Status", "Tree",
    "inspect_guest", "inspect_host",
]  # fmt: skip
