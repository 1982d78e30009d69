"""A model of QEMU for SEV-SNP: what it loads of a guest, in its order.

It does not use ``sev_attest.guest`` or ``sev_attest.snp.digest``, because it checks them.

Sources: QEMU's target/i386/sev.c (9.1 and later: it loads sections of unknown types as zero
pages); OVMF's OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm; Linux arch/x86/kvm/svm/sev.c.
"""

import struct
from collections.abc import Iterator
from typing import NotRequired
from uuid import UUID

from sev_attest.testing.qemu import (
    CPUS,
    HASH_AREA,
    PAGE_SIZE,
    BootInputs,
    QemuError,
    area_of,
    check_size,
    footer_entry,
    hash_table,
    vcpu_pages,
)
from sev_attest.testing.snp import SnpPlatform
from sev_attest.testing.snp_launch import (
    CPUID,
    ID_AUTH_SIZE,
    ID_BLOCK_SIZE,
    NORMAL,
    SECRETS,
    VMSA,
    ZERO,
    SnpGuest,
    SnpLaunch,
)

SNP_POLICY = 0x30000
"""QEMU's default: bit 17, which is always one, and SMT allowed."""
SNP_PROFILES = {"qemu": "qemu-init2", "qemu-old": "qemu-legacy"}
"""Names of vCPU states as `snp measure` has them, and as :func:`vcpu_pages` does."""
_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
_HEADER = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")
_TYPES = {2: SECRETS, 3: CPUID}
_KERNEL_HASHES = 0x10
_TOP = 1 << 32
_VMSA_ADDRESS = 0xFFFF_FFFF_F000
_ACTIVE = 1
_MUST_BE_ONE, _DEFINED = 1 << 17, (1 << 26) - 1
_HOST_DATA_SIZE = 32
_MOST_MEMORY = 256 << 20
"""Our own limit, so that no image takes long."""


class SnpInputs(BootInputs):
    """The arguments of :func:`launch_snp_guest` that describe the guest."""

    policy: NotRequired[int]
    features: NotRequired[int]
    host_data: NotRequired[bytes]
    id_block: NotRequired[bytes | None]
    id_auth: NotRequired[bytes]


def launch_snp_guest(
    platform: SnpPlatform,
    *,
    firmware: bytes,
    policy: int = SNP_POLICY,
    kernel: bytes | None = None,
    initrd: bytes = b"",
    cmdline: bytes = b"",
    vcpus: int = 1,
    cpu: int = CPUS["EPYC-Milan"],
    profile: str = "qemu",
    features: int = 0,
    host_data: bytes = bytes(32),
    id_block: bytes | None = None,
    id_auth: bytes = b"",
    instance: bytes = b"",
) -> SnpGuest:
    """Return a guest that was launched, measured and runs.

    With ``kernel`` it boots directly with kernel-hashes=on. ``cpu`` is the CPUID signature,
    ``profile`` one of :data:`SNP_PROFILES`, ``features`` bits of SEV_FEATURES beside "SNP active".
    ``host_data`` has 32 bytes, ``id_block`` 96 and ``id_auth`` 4096. ``instance`` tells guests
    apart that are launched in the same way.

    Raises QemuError for a guest that QEMU or KVM refuses, FirmwareError for one that the firmware
    refuses.
    """
    _check(firmware, policy, host_data, id_block, id_auth)
    sections = _sections(firmware)
    hashes = None if kernel is None else _hash_page(firmware, kernel, initrd, cmdline)
    if hashes is not None and _KERNEL_HASHES not in (kind for _, _, kind in sections):
        raise QemuError("SEV: guest firmware has no section for kernel hashes")
    if profile not in SNP_PROFILES:
        raise QemuError(f"unknown profile {profile}")
    states = vcpu_pages(firmware, vcpus, cpu, SNP_PROFILES[profile], features | _ACTIVE)
    launch = SnpLaunch(platform, policy)
    for at in range(0, len(firmware), PAGE_SIZE):
        launch.update(NORMAL, _TOP - len(firmware) + at, firmware[at : at + PAGE_SIZE])
    for kind, address, page in _loaded(sections, hashes):
        launch.update(kind, address, page)
    for state in states:
        launch.update(VMSA, _VMSA_ADDRESS, state)
    return launch.finish(host_data=host_data, id_block=id_block, id_auth=id_auth, instance=instance)


def _check(
    firmware: bytes, policy: int, host_data: bytes, id_block: bytes | None, id_auth: bytes
) -> None:
    """Raise QemuError for what QEMU and KVM look at before the launch."""
    check_size(firmware)
    # KVM answers EINVAL (snp_launch_start in arch/x86/kvm/svm/sev.c).
    if not policy & _MUST_BE_ONE or policy & ~_DEFINED:
        raise QemuError(f"KVM takes no SEV-SNP policy {policy:#x}: bit 17 is one, 26-63 are zero")
    if len(host_data) != _HOST_DATA_SIZE:
        raise QemuError(f"host-data has {_HOST_DATA_SIZE} bytes, not {len(host_data)}")
    if id_block is None and id_auth:
        raise QemuError("id-auth needs an id-block")
    if id_block is not None and (len(id_block), len(id_auth)) != (ID_BLOCK_SIZE, ID_AUTH_SIZE):
        raise QemuError(f"id-block has {ID_BLOCK_SIZE} bytes and id-auth {ID_AUTH_SIZE}")


def _sections(firmware: bytes) -> list[tuple[int, int, int]]:
    """Return address, size and type of each section of the firmware's SEV metadata, in order."""
    entry = footer_entry(firmware, _METADATA)
    place = len(firmware) - int.from_bytes(entry, "little")
    header = firmware[max(place, 0) : max(place, 0) + _HEADER.size]
    if not entry or place < 0 or len(header) < _HEADER.size:
        raise QemuError("Failed to locate SEV metadata header")
    magic, size, version, count = _HEADER.unpack(header)
    if magic != b"ASEV" or version != 1 or size != _HEADER.size + count * _SECTION.size:
        raise QemuError("Invalid SEV metadata header")
    body = firmware[place + _HEADER.size : place + size]
    if len(body) != count * _SECTION.size:
        raise QemuError("the SEV metadata is cut short")
    found = [*_SECTION.iter_unpack(body)]
    if any(address % PAGE_SIZE or length % PAGE_SIZE for address, length, _ in found):
        raise QemuError("a section of the SEV metadata is not whole pages")
    if sum(length for _, length, _ in found) > _MOST_MEMORY:
        raise QemuError("the sections of the SEV metadata have more than 256 MiB")
    return found


def _hash_page(firmware: bytes, kernel: bytes, initrd: bytes, cmdline: bytes) -> bytes:
    """Return the page with the table of kernel hashes, at its place in the page."""
    table = hash_table(firmware, kernel, initrd, cmdline)
    offset = area_of(firmware, HASH_AREA)[0] % PAGE_SIZE
    page = (bytes(offset) + table).ljust(PAGE_SIZE, b"\0")
    if len(page) > PAGE_SIZE:
        raise QemuError("SEV: the table of kernel hashes does not fit into its page")
    return page


def _loaded(
    sections: list[tuple[int, int, int]], hashes: bytes | None
) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, address and contents of each page of the sections."""
    for address, length, section in sections:
        kind, first = _TYPES.get(section, ZERO), bytes(PAGE_SIZE)
        if section == _KERNEL_HASHES and hashes is not None:
            kind, first = NORMAL, hashes
        for at in range(0, length, PAGE_SIZE):
            yield kind, address + at, bytes(PAGE_SIZE) if at else first
