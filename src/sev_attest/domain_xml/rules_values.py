"""The rule for values that libvirt does not know, and for attributes that it requires."""

from collections.abc import Iterator

from sev_attest.domain_xml.domain import VIRTIO, number, size
from sev_attest.domain_xml.rule import Severity, Subject, Violation, rule
from sev_attest.domain_xml.xml import Element

_YES_NO = ("yes", "no")
_ON_OFF = ("on", "off")
_VALUES = (
    ("launchSecurity", "kernelHashes", _YES_NO),
    ("launchSecurity", "authorKey", _YES_NO),
    ("launchSecurity", "vcek", _YES_NO),
    ("os", "firmware", ("efi", "bios")),
    ("os/firmware/feature", "enabled", _YES_NO),
    ("os/loader", "stateless", _YES_NO),
    ("os/loader", "secure", _YES_NO),
    ("os/loader", "readonly", _YES_NO),
    ("os/loader", "type", ("rom", "pflash")),
    ("os/loader", "format", ("raw", "qcow2")),
    ("os/firmware/feature", "name", ("secure-boot", "enrolled-keys")),
    ("os/boot", "dev", ("hd", "network", "cdrom", "fd")),
    ("os/bootmenu", "enable", _YES_NO),
    ("features/smm", "state", _ON_OFF),
    ("features/vmport", "state", _ON_OFF),
    ("pm/suspend-to-mem", "enabled", _YES_NO),
    ("pm/suspend-to-disk", "enabled", _YES_NO),
    ("devices/interface/rom", "enabled", _YES_NO),
    *((f"devices/{name}/driver", "iommu", _ON_OFF) for name in VIRTIO),
)  # fmt: skip
"""Elements, an attribute, and the values that libvirt allows for it."""
_REQUIRED = (
    ("os/firmware/feature", "name"),
    ("os/firmware/feature", "enabled"),
    ("os/boot", "dev"),
)
"""Elements, and an attribute that libvirt requires."""
_SIZES = ("memory", "currentMemory", "memtune/hard_limit")


@rule("domain.value", Severity.ERROR, "values are ones that libvirt knows", "libvirt schema")
def _value(subject: Subject) -> Iterator[Violation]:
    root = subject.domain.root
    yield from _absent(root)
    for path, attribute, known in _VALUES:
        for element in [*root.all(path)]:
            value = element.get(attribute)
            if value is not None and value not in known:
                what = f"{attribute}={value[:40]!r} is not one of {', '.join(known)}"
                yield Violation(element, what, f"{attribute}='{known[0]}' or '{known[1]}'")
    for path in _SIZES:
        for element in root.all(path):
            if size(element) is None:
                yield Violation(
                    element,
                    f"<{element.name}> is not an amount of memory",
                    "a number, and for example unit='KiB'",
                )
    for vcpu in root.all("vcpu"):
        if None in (number(vcpu.text), number(vcpu.get("current") or "1")):
            yield Violation(vcpu, "<vcpu> is not a number", "a number: <vcpu>4</vcpu>")


def _absent(root: Element) -> Iterator[Violation]:
    for path, attribute in _REQUIRED:
        for element in root.all(path):
            if element.get(attribute) is None:
                what = f"<{element.name}> without {attribute}=: libvirt refuses it"
                yield Violation(element, what, f"<{element.name} {attribute}=...>")
