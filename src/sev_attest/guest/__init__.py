"""What a VMM boots and what is measured of it; shared by SEV and SEV-SNP.

========================  ======================================================================
subject                   names
========================  ======================================================================
the firmware image        :class:`Firmware`
kernel, initrd, cmdline   :class:`KernelHashes`
vCPU state (VMSA)         :class:`VmsaProfile`, :class:`SnpProfile`, :class:`VmsaPages`,
                          :class:`CpuModel`
========================  ======================================================================
"""

from sev_attest._lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sev_attest.guest._api import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy(__name__)
