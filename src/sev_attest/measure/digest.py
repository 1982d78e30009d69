"""The launch digest: SHA-256 over everything that was put into the guest before it ran.

Source: QEMU's target/i386/sev.c and hw/i386/pc_sysfw.c. In order: the firmware image (never its
NVRAM file), the table of kernel hashes if there is one, and for SEV-ES each vCPU's page.
"""

from sev_attest.errors import Unsupported
from sev_attest.measure.kernel_hashes import KernelHashes
from sev_attest.measure.ovmf import Firmware, Source
from sev_attest.measure.vmsa import CpuModel, VmsaPages


def launch_digest(
    firmware: Firmware | Source,
    *,
    kernel: KernelHashes | Source | None = None,
    initrd: Source | None = None,
    cmdline: str | bytes | None = None,
    vcpus: int | None = None,
    vmsa: VmsaPages | CpuModel | None = None,
) -> bytes:
    """Compute the launch digest (32 bytes) of what the owner means to start.

    Sources are bytes, paths or open files, and are streamed. ``vcpus`` and ``vmsa`` belong to
    SEV-ES, both or none: pages, or the CPU model to build QEMU's pages for.

    Raises OSError; MalformedInput for firmware that cannot be read where it must be; NotAttestable
    for a kernel with firmware that has no place for its hash; Unsupported for what is missing.

    >>> launch_digest(b"firmware").hex()[:16]
    'c3bf47ea1f4a4a60'
    """
    if kernel is None and (initrd is not None or cmdline is not None):
        raise Unsupported("an initrd or a command line needs a kernel", check="kernel.missing")
    if (vcpus is None) is not (vmsa is None):
        raise Unsupported(
            "SEV-ES needs both the number of vCPUs and their state (pages or CPU model)",
            check="vmsa.missing" if vmsa is None else "vcpus.missing",
        )
    if not isinstance(firmware, Firmware):
        firmware = Firmware.read(firmware)
    digest = firmware.hasher()
    if kernel is not None:
        firmware.require_hash_table()
        if not isinstance(kernel, KernelHashes):
            kernel = KernelHashes.of(kernel, initrd, cmdline)
        digest.update(kernel.to_bytes())
    if vmsa is not None and vcpus is not None:
        if isinstance(vmsa, CpuModel):
            vmsa = VmsaPages.qemu_legacy(vmsa, firmware.reset_address())
        for page in vmsa.for_vcpus(vcpus):
            digest.update(page)
    return digest.digest()
