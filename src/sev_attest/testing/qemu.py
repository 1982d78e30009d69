"""A model of QEMU: it launches a guest, reports on it, and passes secrets to it.

It does not use ``sev_attest.guest`` or the digests of ``sev_attest.sev``, because it checks them:
GUIDs, layouts and sizes are written again here, from other sources.

Sources: QEMU's target/i386/sev.c and cpu.c; Linux arch/x86/kvm/svm.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict
from uuid import UUID
from xml.etree import ElementTree as ET

from sev_attest.testing.platform import Platform

_TABLE = UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_ENTRIES = (
    ("cmdline", UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")),
    ("initrd", UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")),
    ("kernel", UUID("4de79437-abd2-427f-b835-d5b172d2045b")),
)
_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_SECRETS = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
_SEV_INFO = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
HASH_AREA = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
_SECRET_AREA = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
_MAX_FIRMWARE = 8 << 20
_MAX_SECRET = 0x4000
PAGE_SIZE = 4096
_HASH_TABLE_SIZE = 176
_SECRETS_HEADER_SIZE = 20
"""A GUID and a length (4 bytes): of the table of secrets, and of each entry."""
_FOOTER_HEADER_SIZE = 18
"""A GUID and a length (2 bytes): of an entry of OVMF's footer table."""
_ES = 4

CPUS: Mapping[str, int] = {
    "EPYC": 0x800F12,
    "EPYC-Rome": 0x830F10,
    "EPYC-Milan": 0xA00F11,
    "EPYC-Genoa": 0xA10F10,
    "EPYC-Turin": 0xB00F00,
}
"""CPUID signatures of QEMU's models."""
PROFILES: tuple[str, str] = ("qemu-legacy", "qemu-init2")
"""VMSA layouts, of KVM_SEV_ES_INIT and KVM_SEV_INIT2. "+debug-swap" can follow each."""


class QemuError(Exception):
    """What QEMU refuses."""


class LacksSev(QemuError):
    """A domain that is no SEV guest."""


class LacksCpu(QemuError):
    """A domain of an SEV-ES guest that leaves the CPU model to the host."""


class BootInputs(TypedDict):
    """What a guest of any kind is started with; ``cpu`` is a CPUID signature."""

    firmware: bytes
    kernel: NotRequired[bytes | None]
    initrd: NotRequired[bytes]
    cmdline: NotRequired[bytes]
    vcpus: NotRequired[int]
    cpu: NotRequired[int]
    profile: NotRequired[str]


class GuestInputs(BootInputs):
    """The arguments of :func:`launch_guest`."""

    policy: int
    godh: NotRequired[bytes | None]
    session: NotRequired[bytes | None]


def launch_text(measurement: bytes, api: tuple[int, int], build: int, policy: int) -> str:
    """Return the values of a launch as ``virsh domlaunchsecinfo`` prints them."""
    values = {
        "sev-measurement": base64.b64encode(measurement).decode(),
        "sev-api-major": api[0],
        "sev-api-minor": api[1],
        "sev-build-id": build,
        "sev-policy": policy,
    }
    return "".join(f"{key:<15}: {value}\n" for key, value in values.items()) + "\n"


@dataclass(slots=True, kw_only=True)
class Guest:
    """A launched guest, paused before its first instruction."""

    platform: Platform
    handle: int
    policy: int
    measurement: bytes
    """MEASURE and MNONCE, 48 bytes."""
    api: tuple[int, int]
    build: int
    secret_area: tuple[int, int]
    """Base and size of its firmware's area for secrets; zeros if it has none."""
    secrets: dict[str, bytes] = field(default_factory=dict)
    """Secrets that were passed to it: bytes by GUID."""

    def domlaunchsecinfo(self) -> str:
        """Return what ``virsh domlaunchsecinfo`` prints."""
        return launch_text(self.measurement, self.api, self.build, self.policy)

    def inject(self, header: bytes, secret: bytes) -> dict[str, bytes]:
        """Pass a packet to the firmware. Returns the secrets that the guest reads: bytes by GUID.

        Raises FirmwareError if the firmware refuses it, QemuError if it does not fit.
        """
        base, size = self.secret_area
        if not base or len(secret) > min(size, _MAX_SECRET):
            raise QemuError(f"{len(secret)} bytes do not fit into the secret area of {size}")
        area = self.platform.launch_secret(self.handle, header, secret)
        self.secrets = read_secret_area(area)
        return self.secrets

    def resume(self) -> None:
        """Let the guest run. Raises FirmwareError."""
        self.platform.launch_finish(self.handle)


def read_secret_area(area: bytes) -> dict[str, bytes]:
    """Return the secrets of a table, as a guest reads it: bytes by GUID. Raises ValueError."""
    if area[:16] != _SECRETS.bytes_le or len(area) < _SECRETS_HEADER_SIZE:
        raise ValueError("this is not a table of secrets")
    (size,) = struct.unpack_from("<I", area, 16)
    if not _SECRETS_HEADER_SIZE <= size <= len(area):
        raise ValueError("the length of the table does not fit")
    secrets = {}
    at = _SECRETS_HEADER_SIZE
    while at < size:
        data = at + _SECRETS_HEADER_SIZE
        header = area[at : min(data, size)].ljust(_SECRETS_HEADER_SIZE, b"\0")
        guid, length = struct.unpack("<16sI", header)
        if not _SECRETS_HEADER_SIZE <= length <= size - at:
            raise ValueError("an entry of the table does not fit")
        secrets[str(UUID(bytes_le=guid))] = area[data : at + length]
        at += length
    return secrets


def launch_guest(
    platform: Platform,
    *,
    policy: int,
    firmware: bytes,
    godh: bytes | None = None,
    session: bytes | None = None,
    kernel: bytes | None = None,
    initrd: bytes = b"",
    cmdline: bytes = b"",
    vcpus: int = 1,
    cpu: int = CPUS["EPYC-Milan"],
    profile: str = "qemu-legacy",
) -> Guest:
    """Return a guest that was launched, measured and paused.

    With ``kernel`` it boots directly with kernel-hashes=on. ``vcpus``, ``cpu`` (the CPUID
    signature) and ``profile`` (see :data:`PROFILES`) are used for SEV-ES policies only.

    Raises QemuError for a guest that QEMU refuses, FirmwareError for one that the firmware refuses.
    """
    pieces = [firmware]
    check_size(firmware)
    if kernel is not None:
        pieces.append(hash_table(firmware, kernel, initrd, cmdline))
    pages = vcpu_pages(firmware, vcpus, cpu, profile) if policy & _ES else []
    handle = platform.launch_start(policy, godh, session)
    for piece in pieces:
        platform.launch_update_data(handle, piece)
    for page in pages:
        platform.launch_update_vmsa(handle, page)
    return Guest(
        platform=platform,
        handle=handle,
        policy=policy,
        measurement=platform.launch_measure(handle),
        api=platform.api,
        build=platform.build,
        secret_area=area_of(firmware, _SECRET_AREA),
    )


def check_size(firmware: bytes) -> None:
    """Raise QemuError for an image that QEMU does not load."""
    if not firmware or len(firmware) % PAGE_SIZE or len(firmware) > _MAX_FIRMWARE:
        raise QemuError("the firmware's size is not a multiple of 4096, or above 8 MiB")


def hash_table(firmware: bytes, kernel: bytes, initrd: bytes, cmdline: bytes) -> bytes:
    """Return the table of kernel hashes. Raises QemuError if the firmware has no area for it."""
    if not footer_entry(firmware, HASH_AREA):
        raise QemuError("SEV: kernel specified but guest firmware has no hashes table GUID")
    base, size = area_of(firmware, HASH_AREA)
    if not base or size < _HASH_TABLE_SIZE:
        where = f"(base={base:#x} size={size:#x})"
        raise QemuError(f"SEV: guest firmware hashes table area is invalid {where}")
    blobs = {"kernel": kernel, "initrd": initrd, "cmdline": cmdline + b"\0"}
    table = _TABLE.bytes_le + struct.pack("<H", 168)
    for name, guid in _ENTRIES:
        table += guid.bytes_le + struct.pack("<H", 50) + hashlib.sha256(blobs[name]).digest()
    return table.ljust(_HASH_TABLE_SIZE, b"\0")


def vcpu_pages(
    firmware: bytes, vcpus: int, cpu: int, profile: str, features: int = 0
) -> list[bytes]:
    """Return the page (4096 bytes) of each vCPU.

    The first vCPU starts at the reset vector, the others at OVMF's reset address. ``features`` are
    bits of SEV_FEATURES, beside those of the profile. Raises QemuError.
    """
    layout, _, debug_swap = profile.partition("+")
    if layout not in PROFILES or debug_swap not in ("", "debug-swap"):
        raise QemuError(f"unknown profile {profile}")
    if vcpus < 1:
        raise QemuError("a guest has at least one vCPU")
    entry = footer_entry(firmware, _SEV_INFO)
    if not entry:
        raise QemuError("SEV information block/Firmware GUID Table block not found in pflash rom")
    if not any(entry):
        raise QemuError("SEV-ES reset address is zero")
    starts = [0xFFFF_FFF0] + [struct.unpack("<I", entry)[0]] * (vcpus - 1)
    features |= 0x20 if debug_swap else 0
    return [_vcpu_page(start, cpu, layout, features) for start in starts]


def _vcpu_page(start: int, cpu: int, layout: str, features: int) -> bytes:
    page = bytearray(PAGE_SIZE)

    def segment(at: int, attributes: int, selector: int = 0, base: int = 0) -> None:
        struct.pack_into("<HHIQ", page, at, selector, attributes, 0xFFFF, base)

    for data in (0x00, 0x20, 0x30, 0x40, 0x50):  # es, ss, ds, fs, gs
        segment(data, 0x93)
    segment(0x10, 0x9B, 0xF000, start & 0xFFFF_0000)  # cs
    for at, attributes in ((0x60, 0), (0x70, 0x82), (0x80, 0), (0x90, 0x8B)):
        segment(at, attributes)  # gdtr, ldtr, idtr, tr
    registers = {
        0xD0: 0x1000,  # efer
        0x148: 0x40,  # cr4
        0x158: 0x10,  # cr0
        0x160: 0x400,  # dr7
        0x168: 0xFFFF_0FF0,  # dr6
        0x170: 2,  # rflags
        0x178: start & 0xFFFF,  # rip
        0x268: 0x0007_0406_0007_0406,  # g_pat
        0x310: cpu,  # rdx
        0x3B0: features,  # sev_features
        0x3E8: 1,  # xcr0
    }
    if layout == "qemu-init2":
        registers |= {0x408: 0x1F80, 0x410: 0x037F}  # mxcsr, x87_fcw
    for at, value in registers.items():
        struct.pack_into("<Q", page, at, value)
    return bytes(page)


def footer_entry(firmware: bytes, wanted: UUID) -> bytes:
    """Return the data of an entry in OVMF's footer table, which is read from its end; or b""."""
    end = len(firmware) - 50
    if end < 0 or firmware[end + 2 : end + 18] != _FOOTER.bytes_le:
        return b""
    start = max(0, end + 18 - struct.unpack_from("<H", firmware, end)[0])
    while end - start >= _FOOTER_HEADER_SIZE:
        data_end = end - _FOOTER_HEADER_SIZE
        size = struct.unpack_from("<H", firmware, data_end)[0]
        if not _FOOTER_HEADER_SIZE <= size <= end - start:
            break
        if firmware[end - 16 : end] == wanted.bytes_le:
            return firmware[end - size : data_end]
        end -= size
    return b""


def cpu_signature(name: str) -> int:
    """Return the CPUID signature of a model of :data:`CPUS`, in any version. Raises QemuError."""
    model = re.sub(r"(-IBPB)?(-v\d+)?$", "", name)
    if model not in CPUS:
        raise QemuError(f"{model!r} is not one of the CPU models {', '.join(CPUS)}")
    return CPUS[model]


def area_of(firmware: bytes, wanted: UUID) -> tuple[int, int]:
    """Return base and size of an area in the footer table; zeros if there is none."""
    base, size = struct.unpack("<II", footer_entry(firmware, wanted).ljust(8, b"\0"))
    return base, size


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def guest_of_domain(
    xml: str, *, profile: str = "qemu-legacy", read: Callable[[str], bytes] = _read_file
) -> GuestInputs:
    """Return what libvirt starts QEMU with for a domain's XML.

    For trusted XML only. ``profile`` is the host's. ``read`` returns the content of a file that the
    XML names. Raises LacksSev, LacksCpu, QemuError for an unknown CPU model; OSError for its files.
    """
    domain = ET.fromstring(xml)  # noqa: S314 - the tester's own XML
    security = domain.find("launchSecurity[@type='sev']")
    policy = domain.findtext("launchSecurity/policy")
    if security is None or policy is None:
        raise LacksSev("the domain has no <launchSecurity type='sev'> with a <policy>")
    model = domain.findtext("cpu/model")
    if int(policy, 16) & _ES and not model:
        raise LacksCpu(
            "the domain names no CPU model, which SEV-ES needs: "
            "<cpu><model>EPYC-Milan</model></cpu>"
        )
    cpu = cpu_signature(model or "") if int(policy, 16) & _ES else 0
    vcpu = domain.find("vcpu")
    count = "1" if vcpu is None else vcpu.get("current") or vcpu.text or "1"

    def file(path: str) -> bytes:
        name = domain.findtext(path)
        return read(name) if name else b""

    def blob(path: str) -> bytes | None:
        value = domain.findtext(path)
        return base64.b64decode(value) if value else None

    measured = security.get("kernelHashes") == "yes" and domain.findtext("os/kernel")
    return GuestInputs(
        policy=int(policy, 16),
        firmware=file("os/loader"),
        godh=blob("launchSecurity/dhCert"),
        session=blob("launchSecurity/session"),
        kernel=file("os/kernel") if measured else None,
        initrd=file("os/initrd"),
        cmdline=(domain.findtext("os/cmdline") or "").encode(),
        vcpus=int(count),
        cpu=cpu,
        profile=profile,
    )
