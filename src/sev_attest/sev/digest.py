"""The launch digest: SHA-256 over everything that is loaded into the guest before it runs.

Source: QEMU's target/i386/sev.c and hw/i386/pc_sysfw.c. In order: the firmware image (without its
NVRAM file), the table of kernel hashes if there is one, and for SEV-ES each vCPU's page.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from sev_attest.errors import Unsupported
from sev_attest.guest.firmware import Firmware, Source
from sev_attest.guest.spec import MAX_VCPUS

if TYPE_CHECKING:
    from sev_attest.guest.cpu import CpuModel
    from sev_attest.guest.kernel_hashes import KernelHashes
    from sev_attest.guest.vmsa import VmsaPages, VmsaProfile


class MeasuredRange(NamedTuple):
    """One measured piece: its offset in the whole, its size in bytes, its SHA-256 in hex."""

    what: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredGuest:
    """What is measured of a guest: firmware, kernel hashes, vCPU pages.

    ``vmsa`` is None for a plain SEV guest.
    """

    firmware: Firmware
    kernel: "KernelHashes | None" = None
    vmsa: "VmsaPages | None" = None

    def __post_init__(self) -> None:
        """Check that the firmware can start this guest.

        Raises MalformedInput if it is not a firmware image, NotAttestable if it cannot start an
        SEV-ES guest or has no area for kernel hashes.
        """
        self.firmware.require_firmware(es=self.vmsa is not None)
        if self.kernel is not None:
            self.firmware.require_hash_table()

    def digests(self, most: int | None = None) -> list[bytes]:
        """Return the launch digests for 1, 2, ... ``most`` vCPUs, 32 bytes each, in one pass.

        A plain SEV guest has one digest for any number of vCPUs. Raises Unsupported for a count out
        of range, and for SEV-ES without a count.
        """
        if self.vmsa is None:
            return list(self.each())
        if most is None:
            raise Unsupported("SEV-ES needs the number of vCPUs", check="vcpus.missing")
        self.vmsa.for_vcpus(most)
        return list(islice(self.each(), most))

    def each(self) -> Iterator[bytes]:
        """Yield the launch digests for 1, 2, ... vCPUs, 32 bytes each, computed on demand.

        Ends at the most vCPUs that are possible; a plain SEV guest has one digest.
        """
        digest = self.firmware.hasher()
        if self.kernel is not None:
            digest.update(self.kernel.to_bytes())
        if self.vmsa is None:
            yield digest.digest()
            return
        for page in self.vmsa.for_vcpus(MAX_VCPUS if self.vmsa.ap else 1):
            digest.update(page)
            yield digest.digest()

    def ranges(self, vcpus: int | None = None) -> list[MeasuredRange]:
        """Return what is measured, in order; raises as :meth:`digests`."""
        found = [
            MeasuredRange(
                what="firmware",
                offset=0,
                size=self.firmware.size,
                sha256=self.firmware.sha256.hex(),
            )
        ]

        def add(what: str, data: bytes) -> None:
            end = found[-1].offset + found[-1].size
            digest = hashlib.sha256(data).hexdigest()
            found.append(MeasuredRange(what=what, offset=end, size=len(data), sha256=digest))

        if self.kernel is not None:
            add("kernel hashes", self.kernel.to_bytes())
        if self.vmsa is not None:
            for number, page in enumerate(self.vmsa.for_vcpus(vcpus or 0)):
                add(f"VMSA of vCPU {number}", page)
        return found


def pages_for(profile: "VmsaProfile", firmware: Firmware) -> "VmsaPages":
    """Return the vCPUs' pages; raises NotAttestable if the firmware cannot start SEV-ES.

    libkrun starts vCPUs at its own fixed address.
    """
    return profile.pages(0 if profile.layout == "krun" else firmware.reset_address())


def launch_digest(
    firmware: Firmware | Source,
    *,
    kernel: "KernelHashes | Source | None" = None,
    initrd: Source | None = None,
    cmdline: str | bytes | None = None,
    vcpus: int | None = None,
    vmsa: "VmsaPages | VmsaProfile | CpuModel | None" = None,
) -> bytes:
    """Return the launch digest of a guest: 32 bytes, SHA-256.

    ``firmware``, ``kernel`` and ``initrd`` are bytes, paths or open files; they are streamed.
    ``cmdline`` is hashed exactly as given, with one NUL appended.
    ``vcpus`` (1 to 4096) and ``vmsa`` are for SEV-ES, both or none. ``vmsa`` is the pages, a
    profile to build them from, or a CPU model for QEMU's legacy profile.

    Raises OSError; MalformedInput if ``firmware`` is not an image, or its footer is damaged;
    NotAttestable if the firmware cannot start such a guest, or has no area for kernel hashes;
    Unsupported for a missing part.

    >>> launch_digest(b"firmware").hex()[:16]
    'c3bf47ea1f4a4a60'
    """
    from sev_attest.guest.cpu import CpuModel
    from sev_attest.guest.kernel_hashes import KernelHashes
    from sev_attest.guest.vmsa import VmsaProfile

    if kernel is None and (initrd is not None or cmdline is not None):
        raise Unsupported("an initrd or a command line needs a kernel", check="kernel.missing")
    if (vcpus is None) is not (vmsa is None):
        raise Unsupported(
            "SEV-ES needs both the number of vCPUs and their state (pages or CPU model)",
            check="vmsa.missing" if vmsa is None else "vcpus.missing",
        )
    if not isinstance(firmware, Firmware):
        firmware = Firmware.read(firmware)
    if kernel is not None and not isinstance(kernel, KernelHashes):
        firmware.require_hash_table()
        kernel = KernelHashes.of(kernel, initrd, cmdline)
    if isinstance(vmsa, CpuModel):
        vmsa = VmsaProfile(cpu=vmsa)
    if isinstance(vmsa, VmsaProfile):
        vmsa = pages_for(vmsa, firmware)
    return MeasuredGuest(firmware=firmware, kernel=kernel, vmsa=vmsa).digests(vcpus)[-1]
