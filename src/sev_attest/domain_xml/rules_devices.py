"""Rules for devices: virtio devices that work with encrypted memory, and no passthrough."""

from collections.abc import Iterator

from sev_attest.domain_xml.domain import NON_TRANSITIONAL, Virtio, disk_is_virtio
from sev_attest.domain_xml.rule import GUIDE, LIBVIRT, Severity, Subject, Violation, rule
from sev_attest.domain_xml.versions import before
from sev_attest.domain_xml.xml import Edit

_E, _W, _I = Severity


@rule(
    "domain.virtio.model", _E,
    "virtio devices use virtio 1.0: none is transitional, and on i440fx each is "
    "virtio-non-transitional (W with QEMU 6.0 or later, which does so by itself)",
    GUIDE, mends=True,
)  # fmt: skip
def _virtio_model(subject: Subject) -> Iterator[Violation]:
    for device in subject.domain.virtio:
        transitional = device.model == "virtio-transitional"
        modern = device.model == NON_TRANSITIONAL or not subject.domain.i440fx
        if device.named is not None and (transitional or not modern):
            old = transitional or before(subject.versions.qemu, (6, 0))
            edit = subject.document.set_attribute(device.named, device.attribute, NON_TRANSITIONAL)
            yield Violation(
                device.named,
                f"{device.model} <{device.element.name}>: SEV does not work with virtio before 1.0",
                f"{device.attribute}='{NON_TRANSITIONAL}'",
                (edit,),
                _E if old else _W,
            )


@rule("domain.virtio.gpu", _E, "no virtio GPU on an i440fx machine", GUIDE)
def _virtio_gpu(subject: Subject) -> Iterator[Violation]:
    for device in subject.domain.virtio if subject.domain.i440fx else ():
        if device.named is None:
            yield Violation(
                device.element,
                "a virtio GPU on i440fx: there is no virtio-non-transitional one",
                "another <model type=...>, or a Q35 machine",
            )


@rule(
    "domain.virtio.iommu", _E,
    "virtio devices have <driver iommu='on'/> with QEMU before 6.0 (later ones turn it on by "
    "themselves), and none turns it off", GUIDE, mends=True,
)  # fmt: skip
def _iommu(subject: Subject) -> Iterator[Violation]:
    old = before(subject.versions.qemu, (6, 0))
    for device in subject.domain.virtio:
        driver = device.element.find("driver")
        state = driver.get("iommu") if driver is not None else None
        if state == "off" or (old and state is None):
            what = "iommu is off" if state else "iommu is not on, and QEMU is older than 6.0"
            yield Violation(
                device.element,
                f"{what}: the guest cannot share memory with this virtio device",
                "<driver iommu='on'/>",
                (_turned_on(subject, device),),
            )
    place = subject.domain.place("devices")
    for name, lines in _implicit(subject) if old and place.name == "devices" else ():
        yield Violation(
            place,
            f"there is no {name}: libvirt adds one, with iommu off",
            " ".join(lines.split()),
            (subject.document.append(place, lines),),
        )


def _turned_on(subject: Subject, device: Virtio) -> Edit:
    driver = device.element.find("driver")
    if driver is None:
        return subject.document.append(device.element, "<driver iommu='on'/>")
    return subject.document.set_attribute(driver, "iommu", "on")


def _implicit(subject: Subject) -> Iterator[tuple[str, str]]:
    """Return name and XML of the virtio devices that libvirt adds because the XML lacks them."""
    domain = subject.domain
    model = f"model='{NON_TRANSITIONAL if domain.i440fx else 'virtio'}'"
    driver = "  <driver iommu='on'/>"
    if not domain.devices("memballoon"):
        yield "memory balloon", f"<memballoon {model}>\n{driver}\n</memballoon>"
    ports = domain.devices("channel/target") + domain.devices("console/target")
    kinds = [controller.get("type") for controller in domain.devices("controller")]
    if "virtio-serial" not in kinds and any(port.get("type") == "virtio" for port in ports):
        head = f"<controller type='virtio-serial' index='0' {model}>"
        yield "virtio-serial controller", f"{head}\n{driver}\n</controller>"


@rule(
    "domain.virtio.rom", _W,
    "virtio network cards have no option ROM: iPXE does not support SEV", GUIDE, mends=True,
)  # fmt: skip
def _rom(subject: Subject) -> Iterator[Violation]:
    cards = [device.element for device in subject.domain.virtio if device.attribute == "type"]
    for card in cards:
        rom = card.find("rom")
        if rom is not None and (rom.get("enabled") == "no" or rom.get("bar") == "off"):
            continue
        if rom is None:
            edit = subject.document.append(card, "<rom enabled='no'/>")
        else:
            edit = subject.document.replace(rom, "<rom enabled='no'/>")
        yield Violation(
            card,
            "the network card has an iPXE ROM, which is not measured and does not support SEV",
            "<rom enabled='no'/>",
            (edit,),
        )


@rule(
    "domain.disk.virtio-blk", _E,
    "a guest with a kernel before 5.1 does not boot from virtio-blk (I if its version is unknown)",
    GUIDE,
)  # fmt: skip
def _virtio_blk(subject: Subject) -> Iterator[Violation]:
    disk, kernel = subject.domain.boot_disk, subject.versions.guest_kernel
    if disk is None or not disk_is_virtio(disk) or subject.snp:  # SEV-SNP needs a later kernel
        return
    if kernel is None or before(kernel, (5, 1)):
        yield Violation(
            disk,
            "a virtio-blk boot disk needs a guest kernel of 5.1 or later",
            "bus='scsi' and a virtio-scsi controller"
            if kernel
            else "nothing, if the kernel is that new",
            severity=_E if kernel else _I,
        )


@rule(
    "domain.rng.backend", _E, "each <rng> has a <backend>: libvirt refuses one without",
    LIBVIRT, mends=True,
)  # fmt: skip
def _rng_backend(subject: Subject) -> Iterator[Violation]:
    lines = "<backend model='random'>/dev/urandom</backend>"
    for device in subject.domain.devices("rng"):
        if device.find("backend") is None:
            edit = subject.document.append(device, lines)
            yield Violation(device, "<rng> without a <backend>: libvirt refuses it", lines, (edit,))


@rule("domain.hostdev", _W, "no host device is passed through", "QEMU, VFIO and migration blockers")
def _hostdev(subject: Subject) -> Iterator[Violation]:
    cards = subject.domain.devices("interface")
    passed = [card for card in cards if card.get("type") == "hostdev"]
    for device in subject.domain.devices("hostdev") + passed:
        yield Violation(
            device,
            "a host device can access only memory that the guest shares, and reads what is in it",
            "an emulated or virtio device",
        )
