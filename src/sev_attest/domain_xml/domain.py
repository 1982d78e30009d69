"""A libvirt domain, as its XML describes it: the facts that rules need. Untrusted."""

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

from sev_attest.domain_xml.launch_security import BLOB_SIZES
from sev_attest.domain_xml.xml import Document, Element, short
from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.sev.spec import PolicyBit

STRUCTURE = "domain XML"
NON_TRANSITIONAL = "virtio-non-transitional"
_POLICY = re.compile(r"[ \t\r\n]*\+?(?:0[xX])?0*([0-9A-Fa-f]{1,16})")
_MOST_POLICY = {False: 0xFFFF_FFFF, True: 0xFFFF_FFFF_FFFF_FFFF}
"""The largest policy: 32 bits of SEV, 64 of SEV-SNP."""
_NUMBER = re.compile(r"[0-9]{1,18}")
_MACHINE_VERSION = re.compile(r"-([0-9]{1,4})\.([0-9]{1,4})(?:\.|$)")
_UNITS = {"b": 1, "bytes": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_UNITS |= {f"{unit}ib": size for unit, size in _UNITS.items() if len(unit) == 1}
_UNITS |= {f"{unit}b": 1000**power for power, unit in enumerate("kmgtp", 1)}
_ONCE = (
    "cpu", "cpu/model", "currentMemory", "devices", "features", "features/smm", "launchSecurity",
    "launchSecurity/cbitpos", "launchSecurity/dhCert", "launchSecurity/guestVisibleWorkarounds",
    "launchSecurity/hostData", "launchSecurity/idAuth", "launchSecurity/idBlock",
    "launchSecurity/policy", "launchSecurity/reducedPhysBits", "launchSecurity/session", "memory",
    "memoryBacking", "memtune", "memtune/hard_limit", "on_reboot", "os", "os/cmdline",
    "os/firmware", "os/initrd", "os/kernel", "os/loader", "os/nvram", "os/type", "os/varstore",
    "vcpu",
)  # fmt: skip
"""Elements that may occur once. Which of two counts would depend on libvirt's code."""


class Virtio(NamedTuple):
    """A virtio device.

    ``named`` is the element whose ``attribute`` names the model; None if no model can be named.
    """

    element: Element
    named: Element | None
    attribute: str = "model"

    @property
    def model(self) -> str:
        """The model that the XML names, or else "virtio"."""
        return (self.named and self.named.get(self.attribute)) or "virtio"


class Domain:
    """A domain whose root is ``<domain>``, and which has no element twice that may occur once."""

    def __init__(self, document: Document) -> None:
        """Check what :func:`parse_domain` read. Raises MalformedInput."""
        self.document: Document = document
        self.root: Element = document.root
        for path in _ONCE:
            for element in self.root.all(path)[1:]:
                reason = f"line {element.line}: <{element.name}> is there twice"
                raise MalformedInput(STRUCTURE, path, reason)

    @cached_property
    def launch_security(self) -> Element | None:
        """The ``<launchSecurity>`` element, if it is one for SEV or SEV-ES."""
        return self._security("sev")

    @cached_property
    def snp(self) -> Element | None:
        """The ``<launchSecurity>`` element, if it is one for SEV-SNP."""
        return self._security("sev-snp")

    @cached_property
    def protection(self) -> Element | None:
        """The ``<launchSecurity>`` element, if it is one for SEV, SEV-ES or SEV-SNP."""
        return self.launch_security or self.snp

    def _security(self, kind: str) -> Element | None:
        found = self.root.find("launchSecurity")
        return found if found is not None and found.get("type") == kind else None

    def refuse_snp(self) -> None:
        """Raise Unsupported if it is an SEV-SNP guest, where one of SEV or SEV-ES is needed."""
        if self.snp is not None:
            raise snp_guest()

    def refuse_sev(self) -> None:
        """Raise Unsupported if it is a guest of SEV or SEV-ES, where one of SEV-SNP is needed."""
        if self.launch_security is not None:
            raise Unsupported(
                "this is a guest of SEV or SEV-ES (type='sev'): it has a session, and no ID block "
                "or host data",
                check="domain.sev",
                hint="put a session in; or make it type='sev-snp' first, if it is to be one",
            )

    @cached_property
    def policy(self) -> int | None:
        """The guest policy as libvirt reads it, always as hex; None if there is no valid one."""
        found = self.protection and self.protection.find("policy")
        return read_policy(found.text, snp=self.snp is not None) if found is not None else None

    @cached_property
    def machine(self) -> str:
        """The machine type; ``pc``, libvirt's default, if none is named."""
        kind = self.root.find("os/type")
        return (kind is not None and kind.get("machine")) or "pc"

    @cached_property
    def q35(self) -> bool:
        """Whether the machine is a Q35."""
        return "q35" in self.machine

    @cached_property
    def i440fx(self) -> bool:
        """Whether the machine is an i440fx ("legacy PC")."""
        known = self.machine in ("pc", "ubuntu") or self.machine.startswith("pc-")
        return "i440fx" in self.machine or (known and not self.q35)

    @cached_property
    def machine_version(self) -> tuple[int, int] | None:
        """The version of QEMU in the name of the machine type (pc-q35-7.2), if there is one."""
        found = _MACHINE_VERSION.search(self.machine)
        return (int(found[1]), int(found[2])) if found else None

    @cached_property
    def kernel(self) -> Element | None:
        """The ``<kernel>`` element, if the guest boots a kernel directly."""
        found = self.root.find("os/kernel")
        # To libvirt, blanks are a path.
        return found if found is not None and found.text else None

    @cached_property
    def loader_path(self) -> str:
        """The path of the firmware; empty if the XML names none."""
        found = self.root.find("os/loader")
        return "" if found is None else found.text

    @cached_property
    def kernel_hashes(self) -> bool:
        """Whether it has kernelHashes='yes'."""
        return self.protection is not None and self.protection.get("kernelHashes") == "yes"

    @cached_property
    def has_session(self) -> bool:
        """Whether both dhCert and session are there and not empty."""
        found = self.launch_security
        blobs = [found and found.find(name) for name in BLOB_SIZES]
        return all(blob is not None and blob.text for blob in blobs)

    @cached_property
    def selected_firmware(self) -> str | None:
        """The kind of firmware that libvirt selects (``<os firmware=...>``), if it does."""
        return self.place("os").get("firmware")

    @cached_property
    def selects_uefi(self) -> bool:
        """Whether libvirt selects a UEFI firmware (firmware='efi')."""
        return self.selected_firmware == "efi"

    def place(self, path: str) -> Element:
        """Return the element at ``path``; its nearest existing ancestor if it is missing."""
        found = self.root
        for name in path.split("/"):
            inner = found.find(name)
            if inner is None:
                break
            found = inner
        return found

    def devices(self, name: str) -> list[Element]:
        """Return the devices of one name."""
        return self.root.all(f"devices/{name}")

    @cached_property
    def virtio(self) -> tuple[Virtio, ...]:
        """The virtio devices that can have a ``<driver>``."""
        place = self.root.find("devices")
        found = [
            _VIRTIO[device.name](device)
            for device in (place.children if place is not None else ())
            if device.name in _VIRTIO
        ]
        return tuple(device for device in found if device is not None)

    @cached_property
    def boot_disk(self) -> Element | None:
        """The disk that the guest boots from: the first in boot order, or the first of all."""
        disks = [d for d in self.devices("disk") if d.get("device") in (None, "disk", "lun")]
        ordered = [disk for disk in disks if disk.find("boot") is not None]

        def order(disk: Element) -> int:
            text = next(iter(disk.all("boot"))).get("order") or ""
            return number(text) or 0

        return min(ordered, key=order) if ordered else next(iter(disks), None)


def _disk_bus(disk: Element) -> str | None:
    target = disk.find("target")
    if target is None:
        return None
    guessed = "virtio" if (target.get("dev") or "").startswith("vd") else None
    return target.get("bus") or guessed


def disk_is_virtio(disk: Element) -> bool:
    """Return whether a disk is a virtio-blk device."""
    return _disk_bus(disk) == "virtio"


def _disk(disk: Element) -> Virtio | None:
    return Virtio(element=disk, named=disk) if disk_is_virtio(disk) else None


def _controller(controller: Element) -> Virtio | None:
    kind, model = controller.get("type"), controller.get("model") or ""
    virtio = kind == "virtio-serial" or (kind == "scsi" and model.startswith("virtio"))
    return Virtio(element=controller, named=controller) if virtio else None


def _interface(card: Element) -> Virtio | None:
    named = card.find("model")
    if named is None or not (named.get("type") or "").startswith("virtio"):
        return None
    return Virtio(element=card, named=named, attribute="type")


def _video(video: Element) -> Virtio | None:
    virtio = any(model.get("type") == "virtio" for model in video.all("model"))
    return Virtio(element=video, named=None) if virtio else None


def _plain(attribute: str, default: str) -> Callable[[Element], Virtio | None]:
    """Return the reader for devices that are virtio devices by an attribute."""

    def read(device: Element) -> Virtio | None:
        virtio = (device.get(attribute) or default).startswith("virtio")
        return Virtio(element=device, named=device) if virtio else None

    return read


_VIRTIO: Mapping[str, Callable[[Element], Virtio | None]] = {
    "controller": _controller,
    "disk": _disk,
    "filesystem": _plain("model", "virtio"),
    "input": _plain("bus", ""),
    "interface": _interface,
    "memballoon": _plain("model", ""),
    "rng": _plain("model", ""),
    "video": _video,
    "vsock": _plain("model", "virtio"),
}
VIRTIO: tuple[str, ...] = tuple(_VIRTIO)
"""Names of the devices that can be virtio devices with a ``<driver>``."""


def parse_domain(data: bytes) -> Domain:
    """Return the domain in libvirt's XML (UTF-8, 1 MiB at most), as ``virsh dumpxml`` prints it.

    Raises MalformedInput, with the line, for XML that is not well-formed or has a DOCTYPE, for
    another root, and for two elements where only one may be.
    """
    document = Document.parse(data, STRUCTURE)
    if document.root.name != "domain":
        reason = f"<{short(document.root.name)}>, expected <domain>"
        hint = "give what `virsh dumpxml DOMAIN` prints"
        raise MalformedInput(STRUCTURE, "root", reason, hint=hint)
    return Domain(document)


def snp_guest() -> Unsupported:
    """Return the error for an SEV-SNP guest where one of SEV or SEV-ES is needed."""
    return Unsupported(
        "this is an SEV-SNP guest (type='sev-snp'): it has no session, and neither a measurement "
        "nor a secret goes through its host",
        check="domain.snp",
        hint="start it as it is: it asks for a report from inside, which `sev-attest snp verify` "
        "checks",
    )


def read_policy(text: str, *, snp: bool = False) -> int | None:
    """Return a policy as libvirt reads it: base 16, with or without 0x, nothing after it.

    It has 32 bits, with ``snp`` 64. Returns None for text that libvirt refuses.

    >>> read_policy("10")
    16
    """
    found = _POLICY.fullmatch(text)
    policy = int(found[1], 16) if found else None
    return None if policy is None or policy > _MOST_POLICY[snp] else policy


def number(text: str) -> int | None:
    """Return a decimal number, None if it is not one. Leading blanks are allowed, as in libvirt."""
    return int(text) if text.isascii() and _NUMBER.fullmatch(text.lstrip()) else None


def size(element: Element | None) -> int | None:
    """Return an amount of memory in bytes, None if it is not one. The default unit is KiB."""
    if element is None:
        return None
    count = number(element.text)
    unit = _UNITS.get((element.get("unit") or "KiB").lower())
    return None if count is None or unit is None else count * unit


def is_es(policy: int | None) -> bool:
    """Return whether a policy asks for SEV-ES."""
    return bool((policy or 0) & PolicyBit.ES)
