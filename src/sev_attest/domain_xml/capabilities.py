"""What a host offers, as ``virsh domcapabilities`` prints it. It is the host's claim."""

import re
from dataclasses import dataclass

from sev_attest.domain_xml.xml import Document, Element, short
from sev_attest.errors import MalformedInput

_STRUCTURE = "domcapabilities XML"
_NUMBER = re.compile(r"\s*([0-9]{1,9})\s*")
_SHOWN = 40
"""Characters of a value in a message."""
_NO_GUESTS = (
    "no guests, neither SEV nor SEV-ES: the host has no ASIDs for them (a BIOS setting, or this "
    "host is itself a virtual machine)"
)
_CLAIM = (
    "libvirt lists sev-snp if QEMU knows it: whether the CPU, the BIOS and the kernel (6.11 or "
    "later) have it on is not reported"
)
_OBSTACLES = (
    "the CPU has no SEV, or the BIOS turned it off: `grep -w sev /proc/cpuinfo` prints nothing",
    (
        "the kernel has it off: add mem_encrypt=on kvm_amd.sev=1 to its command line; then "
        "/sys/module/kvm_amd/parameters/sev contains 1 or Y"
    ),
    (
        "libvirt before 6.5 caches an earlier result: stop libvirtd, remove "
        "/var/cache/libvirt/qemu/capabilities/*, start it"
    ),
    (
        "QEMU cannot open /dev/sev: libvirt up to 5.1 needs other permissions on it, "
        "selinux-policy before 3.14.2.40 another label"
    ),
)
"""Reasons why a host does not offer SEV (libvirt kbase/launch_security_sev)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SevCapabilities:
    """What a host offers to SEV, SEV-ES and SEV-SNP guests, as libvirt reports it.

    ``arch`` is the guests' architecture, empty if it is not reported. ``listed`` is whether libvirt
    mentions SEV, ``supported`` whether it is supported. Numbers are None if they are not reported
    (libvirt before 8.0 has no guest counts). ``types`` are the types of launchSecurity (libvirt
    10.5 and later), ``firmware`` the values of firmware='...', ``loaders`` the types of loader.
    """

    domain_type: str
    machine: str
    arch: str
    listed: bool
    supported: bool
    cbitpos: int | None
    reduced_phys_bits: int | None
    max_guests: int | None
    max_es_guests: int | None
    types: tuple[str, ...]
    firmware: tuple[str, ...]
    loaders: tuple[str, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> "SevCapabilities":
        """Return what ``virsh domcapabilities`` printed. Raises MalformedInput."""
        root = Document.parse(data, _STRUCTURE).root
        if root.name != "domainCapabilities":
            reason = f"<{short(root.name)}>, expected <domainCapabilities>"
            hint = "use what `virsh domcapabilities` prints (not `virsh capabilities`, or a domain)"
            raise MalformedInput(_STRUCTURE, "root", reason, hint=hint)
        found = root.all("features/sev")
        if found[1:]:
            reason = f"line {found[1].line}: <sev> is there twice"
            raise MalformedInput(_STRUCTURE, "sev", reason)
        sev = found[0] if found else None
        return cls(
            domain_type=_text(root, "domain"),
            machine=_text(root, "machine"),
            arch=_text(root, "arch"),
            listed=sev is not None,
            supported=sev is not None and sev.get("supported") == "yes",
            cbitpos=_number(sev, "cbitpos"),
            reduced_phys_bits=_number(sev, "reducedPhysBits"),
            max_guests=_number(sev, "maxGuests"),
            max_es_guests=_number(sev, "maxESGuests"),
            types=_values(root, "features/launchSecurity", "sectype"),
            firmware=_values(root, "os", "firmware"),
            loaders=_values(root, "os/loader", "type"),
        )

    @property
    def foreign(self) -> str:
        """Why this host cannot offer SEV: another architecture, or Intel TDX; else empty."""
        if self.arch not in ("", "x86_64"):
            return (
                f"these are the capabilities for {self.arch[:_SHOWN]} guests: SEV is for x86_64 "
                "guests, on AMD's CPUs"
            )
        if "tdx" in self.types and not self.supported:
            return "these are the capabilities of a host with Intel TDX: SEV needs an AMD host"
        return ""

    @property
    def sev(self) -> bool:
        """Whether plain SEV guests can start, as far as libvirt knows."""
        return self.supported and not self.foreign and self.max_guests != 0

    @property
    def es(self) -> bool:
        """Whether SEV-ES guests can start, as far as libvirt knows."""
        return self.supported and not self.foreign and self.max_es_guests != 0

    @property
    def snp(self) -> bool:
        """Whether SEV-SNP guests can start, as far as libvirt knows.

        They use the ASIDs of SEV-ES guests. Not even a host that lists sev-snp need have it: that
        the CPU, the BIOS and the kernel have SEV-SNP on is not reported.
        """
        return self.es and "sev-snp" in self.types

    def obstacles(self) -> list[str]:
        """Return possible reasons why the host offers neither SEV nor SEV-ES; empty if it does."""
        if self.sev or self.es:
            return []
        if self.foreign:
            return [self.foreign]
        if self.supported:
            return [_NO_GUESTS]
        found = []
        if self.domain_type not in ("", "kvm"):
            found.append(
                f"these are the capabilities for domains of type {self.domain_type}: KVM is not "
                "usable there, or `virsh domcapabilities --virttype kvm` prints its own"
            )
        if not self.listed:
            found.append(
                "libvirt does not mention SEV: it needs libvirt 4.5 and QEMU 2.12 or later"
            )
        return [*found, *_OBSTACLES]

    def limits(self) -> list[str]:
        """Return what a host that offers SEV or SEV-ES does not offer."""
        found = []
        if self.es and not self.sev:
            found.append(
                "no plain SEV guests: the BIOS keeps every ASID for SEV-ES (minimum SEV ASID)"
            )
        if self.sev and not self.es:
            found.append(
                "no SEV-ES guests: the BIOS keeps no ASIDs for them (minimum SEV ASID: it must be "
                "above 1)"
            )
        if (self.sev or self.es) and "sev-snp" not in self.types:
            found.append(
                "no SEV-SNP guests: libvirt does not list sev-snp (it needs libvirt 10.5 and QEMU "
                "9.1 or later)"
            )
        return found

    def notes(self) -> list[str]:
        """Return :meth:`limits`, and what libvirt's claim of SEV-SNP does not say."""
        return [*self.limits(), *([_CLAIM] if self.snp else [])]


def _text(root: Element, path: str) -> str:
    found = root.find(path)
    return "" if found is None else found.text.strip()


def _number(sev: Element | None, name: str) -> int | None:
    found = None if sev is None else sev.find(name)
    if found is None:
        return None
    digits = _NUMBER.fullmatch(found.text)
    if not digits or not found.text.isascii():
        raise MalformedInput(_STRUCTURE, name, f"line {found.line}: is not a number")
    return int(digits[1])


def _values(root: Element, path: str, name: str) -> tuple[str, ...]:
    place = root.find(path)
    if place is None or place.get("supported") == "no":
        return ()
    enums = [enum for enum in place.all("enum") if enum.get("name") == name]
    return tuple(value.text.strip() for enum in enums for value in enum.all("value"))
