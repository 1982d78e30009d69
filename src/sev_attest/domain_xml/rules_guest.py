"""Rules for the guest's memory, CPUs and devices, and for what happens to it."""

from collections.abc import Iterator

from sev_attest.domain_xml.domain import NON_TRANSITIONAL, Virtio, disk_is_virtio, number, size
from sev_attest.domain_xml.lint import (
    GUIDE,
    LIBVIRT,
    Found,
    Rule,
    Severity,
    Subject,
    before,
    rule,
)
from sev_attest.domain_xml.xml import Edit
from sev_attest.errors import Unsupported
from sev_attest.guest.cpu import CpuModel

RULES: list[Rule] = []
_E, _W, _I = Severity
_MARGIN = 256 << 20
"""What the guide adds to the guest's memory for QEMU's own, in bytes."""
_LIMITS = (((9, 0), 4096), ((8, 1), 1024), ((2, 8), 288), ((0, 0), 255))
"""The most vCPUs of QEMU's Q35 machine, by the version from which on."""
_LIMIT_I440FX = 255


# memory


@rule(
    RULES, "domain.memory.locked", _E, "the guest's memory may be locked, or has a hard limit",
    GUIDE, mends=True,
)  # fmt: skip
def _locked(subject: Subject) -> Iterator[Found]:
    root = subject.domain.root
    if root.find("memoryBacking/locked") is not None or root.find("memtune/hard_limit") is not None:
        return
    backing = root.find("memoryBacking")
    if backing is None:
        lines = "<memoryBacking>\n  <locked/>\n</memoryBacking>"
        edit = subject.document.append(root, lines)
    else:
        edit = subject.document.append(backing, "<locked/>")
    yield Found(
        root if backing is None else backing,
        "libvirt lets QEMU lock no memory, and SEV pins all of the guest's",
        "<memoryBacking><locked/></memoryBacking>, or <memtune><hard_limit> with 256 MiB more "
        "than the guest has",
        (edit,),
    )


@rule(
    RULES, "domain.memory.hard-limit", _W, "the hard limit is 256 MiB above the guest's memory",
    GUIDE, mends=True,
)  # fmt: skip
def _hard_limit(subject: Subject) -> Iterator[Found]:
    element = subject.domain.root.find("memtune/hard_limit")
    limit, memory = size(element), size(subject.domain.root.find("memory"))
    if element is None or limit is None or memory is None or limit >= memory + _MARGIN:
        return
    enough = -(-(memory + _MARGIN) // 1024)
    edits = (
        subject.document.set_attribute(element, "unit", "KiB"),
        subject.document.set_text(element, str(enough)),
    )
    yield Found(
        element,
        "the hard limit leaves QEMU less than 256 MiB beside the guest's memory: it may be killed",
        f"<hard_limit unit='KiB'>{enough}</hard_limit>",
        edits,
    )


@rule(RULES, "domain.memory.unlimited", _I, "locked memory has a limit", GUIDE)
def _unlimited(subject: Subject) -> Iterator[Found]:
    locked = subject.domain.root.find("memoryBacking/locked")
    if locked is not None and subject.domain.root.find("memtune/hard_limit") is None:
        yield Found(
            locked,
            "without a limit, a malicious QEMU can lock all of the host's memory",
            "<memtune><hard_limit>, or MemoryMax= for machine.slice on the host",
        )


@rule(
    RULES, "domain.memory.hotplug", _W, "no memory comes or goes while the guest runs",
    "QEMU, RAM discard under SEV",
)  # fmt: skip
def _memory_hotplug(subject: Subject) -> Iterator[Found]:
    for element in subject.domain.root.all("maxMemory") + subject.domain.devices("memory"):
        yield Found(
            element, "memory that is plugged later: not for SEV guests", f"no <{element.name}>"
        )


# CPUs


@rule(
    RULES, "domain.cpu.mode", _W, "an SEV-ES guest names its CPU model: its signature is measured",
    "QEMU target/i386/cpu.c, libvirt cpu",
)  # fmt: skip
def _cpu_mode(subject: Subject) -> Iterator[Found]:
    cpu = subject.domain.root.find("cpu")
    mode = "custom" if cpu is None else cpu.get("mode") or "custom"
    named = mode == "custom" and cpu is not None and cpu.find("model") is not None
    if not subject.es or named:
        return
    what = "no CPU model is named: QEMU takes its own default"
    if mode == "host-model":
        what = "host-model: libvirt chooses a model at each start, and the XML does not tell which"
    elif mode != "custom":
        what = f"{mode}: the vCPUs have the signature of the host's CPU, which you must know"
    yield Found(
        subject.domain.root if cpu is None else cpu,
        what,
        "<cpu mode='custom'><model>EPYC-Milan</model></cpu>, say; the same in --cpu-model-name",
    )


@rule(
    RULES, "domain.cpu.model", _W, "the CPU model's signature is known (SEV-ES)",
    "QEMU target/i386/cpu.c",
)  # fmt: skip
def _cpu_model(subject: Subject) -> Iterator[Found]:
    cpu, model = subject.domain.root.find("cpu"), subject.domain.root.find("cpu/model")
    if not subject.es or cpu is None or model is None or (cpu.get("mode") or "custom") != "custom":
        return
    try:
        CpuModel.named(model.text.strip())
    except Unsupported:
        yield Found(
            model,
            f"{model.text.strip()}: the signature of this CPU model is not known here",
            "one of the EPYC models, or give --cpu-family, --cpu-model and --cpu-stepping",
        )


@rule(
    RULES, "domain.vcpu.hotplug", _E, "all vCPUs of an SEV-ES guest are there when it starts",
    "QEMU target/i386/sev.c",
)  # fmt: skip
def _vcpu_hotplug(subject: Subject) -> Iterator[Found]:
    if not subject.es:
        return
    vcpu = subject.domain.root.find("vcpu")
    current = vcpu is not None and vcpu.get("current")
    later = [one for one in subject.domain.root.all("vcpus/vcpu") if one.get("enabled") == "no"]
    if vcpu is not None and current and number(current) != number(vcpu.text):
        later = [vcpu]
    for element in later:
        yield Found(
            element,
            "vCPUs that are plugged later are not measured, and cannot start under SEV-ES",
            "the same number in <vcpu> and its current=, every <vcpu> enabled='yes'",
        )


@rule(RULES, "domain.vcpu.limit", _E, "the machine takes that many vCPUs", "QEMU pc_q35.c")
def _vcpu_limit(subject: Subject) -> Iterator[Found]:
    vcpu = subject.domain.root.find("vcpu")
    count = None if vcpu is None else number(vcpu.text)
    domain = subject.domain
    version = domain.machine_version or (subject.versions.qemu or (9999,))[:2]
    most = _LIMIT_I440FX if domain.i440fx else next(n for v, n in _LIMITS if version >= v)
    if vcpu is not None and count is not None and not 1 <= count <= most:
        yield Found(
            vcpu,
            f"{count} vCPUs: a {domain.machine} machine takes 1 to {most}",
            "fewer vCPUs, or a newer machine type",
        )


# devices


@rule(
    RULES, "domain.virtio.iommu", _E,
    "virtio devices have <driver iommu='on'/> on QEMU before 6.0 (later ones turn it on by "
    "themselves), and nothing turns it off", GUIDE, mends=True,
)  # fmt: skip
def _iommu(subject: Subject) -> Iterator[Found]:
    old = before(subject.versions.qemu, (6, 0))
    for device in subject.domain.virtio:
        driver = device.element.find("driver")
        state = driver.get("iommu") if driver is not None else None
        if state == "off" or (old and state is None):
            what = "iommu is off" if state else "iommu is not on, and QEMU is older than 6.0"
            yield Found(
                device.element,
                f"{what}: the guest cannot share memory with this virtio device",
                "<driver iommu='on'/>",
                (_turned_on(subject, device),),
            )
    place = subject.domain.place("devices")
    for name, lines in _implicit(subject) if old and place.name == "devices" else ():
        yield Found(
            place,
            f"there is no {name}: libvirt adds one by itself, with iommu off",
            " ".join(lines.split()),
            (subject.document.append(place, lines),),
        )


def _turned_on(subject: Subject, device: Virtio) -> Edit:
    driver = device.element.find("driver")
    if driver is None:
        return subject.document.append(device.element, "<driver iommu='on'/>")
    return subject.document.set_attribute(driver, "iommu", "on")


def _implicit(subject: Subject) -> Iterator[tuple[str, str]]:
    """Name the virtio devices that libvirt adds to XML that has none of their kind."""
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
    RULES, "domain.virtio.rom", _W,
    "virtio network cards have no option ROM: iPXE knows nothing of SEV", GUIDE, mends=True,
)  # fmt: skip
def _rom(subject: Subject) -> Iterator[Found]:
    cards = [device.element for device in subject.domain.virtio if device.attribute == "type"]
    for card in cards:
        rom = card.find("rom")
        if rom is not None and (rom.get("enabled") == "no" or rom.get("bar") == "off"):
            continue
        if rom is None:
            edit = subject.document.append(card, "<rom enabled='no'/>")
        else:
            edit = subject.document.replace(rom, "<rom enabled='no'/>")
        yield Found(
            card,
            "the network card has an iPXE ROM, which is not measured and knows nothing of SEV",
            "<rom enabled='no'/>",
            (edit,),
        )


@rule(
    RULES, "domain.disk.virtio-blk", _E,
    "a guest with a kernel before 5.1 does not boot from virtio-blk (--guest-kernel; I without)",
    GUIDE,
)  # fmt: skip
def _virtio_blk(subject: Subject) -> Iterator[Found]:
    disk, kernel = subject.domain.boot_disk, subject.versions.guest_kernel
    if disk is None or not disk_is_virtio(disk):
        return
    if kernel is None or before(kernel, (5, 1)):
        yield Found(
            disk,
            "a virtio-blk boot disk needs a guest kernel of 5.1 or later",
            "bus='scsi' and a virtio-scsi controller" if kernel else "--guest-kernel tells",
            severity=_E if kernel else _I,
        )


@rule(
    RULES, "domain.rng.backend", _E, "each <rng> has a <backend>: libvirt takes none without",
    LIBVIRT, mends=True,
)  # fmt: skip
def _rng_backend(subject: Subject) -> Iterator[Found]:
    lines = "<backend model='random'>/dev/urandom</backend>"
    for device in subject.domain.devices("rng"):
        if device.find("backend") is None:
            edit = subject.document.append(device, lines)
            yield Found(device, "<rng> without a <backend>: libvirt refuses it", lines, (edit,))


@rule(
    RULES, "domain.hostdev", _W, "no device of the host's is passed through",
    "QEMU, VFIO and migration blockers",
)  # fmt: skip
def _hostdev(subject: Subject) -> Iterator[Found]:
    cards = subject.domain.devices("interface")
    passed = [card for card in cards if card.get("type") == "hostdev"]
    for device in subject.domain.devices("hostdev") + passed:
        yield Found(
            device,
            "a host's device reaches only memory that the guest shares, and sees what is in it",
            "an emulated or virtio device",
        )


# what happens to it


@rule(
    RULES, "domain.reboot", _W, "an SEV-ES guest is not restarted: before QEMU 11.0 it cannot "
    "reboot, since then that is a launch that nobody attests",
    "QEMU qapi/qom.json, confidential-guest-reset", mends=True,
)  # fmt: skip
def _reboot(subject: Subject) -> Iterator[Found]:
    element = subject.domain.root.find("on_reboot")
    if not subject.es or (element is not None and element.text.strip() != "restart"):
        return
    if element is None:
        edit = subject.document.append(subject.domain.root, "<on_reboot>destroy</on_reboot>")
    else:
        edit = subject.document.set_text(element, "destroy")
    yield Found(
        subject.domain.root if element is None else element,
        "on_reboot is restart: before QEMU 11.0 an SEV-ES guest cannot reboot; since then QEMU "
        "launches it again in the same session, unattested, without a pause and without its secret",
        "<on_reboot>destroy</on_reboot>",
        (edit,),
    )


@rule(
    RULES, "domain.power", _I, "suspending to memory or disk, and the VMware port, are off", GUIDE,
    mends=True,
)  # fmt: skip
def _power(subject: Subject) -> Iterator[Found]:
    for path, attribute, on, off in (
        ("pm/suspend-to-mem", "enabled", "yes", "no"),
        ("pm/suspend-to-disk", "enabled", "yes", "no"),
        ("features/vmport", "state", "on", "off"),
    ):
        for element in subject.domain.root.all(path):
            if element.get(attribute) == on:
                edit = subject.document.set_attribute(element, attribute, off)
                what = f"<{element.name}> is on, which SEV guests do not need"
                yield Found(element, what, f"{attribute}='{off}'", (edit,))
