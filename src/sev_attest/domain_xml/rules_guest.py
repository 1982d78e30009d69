"""Rules for the guest's memory and CPUs, and for restarting and suspending it."""

from collections.abc import Iterator

from sev_attest.domain_xml.domain import number, size
from sev_attest.domain_xml.rule import GUIDE, SEV_C, Severity, Subject, Violation, rule
from sev_attest.errors import Unsupported

_E, _W, _I = Severity
_MARGIN = 256 << 20
"""Bytes that QEMU itself needs besides the guest's memory, according to libvirt's guide."""
_LIMITS = (((9, 0), 4096), ((8, 1), 1024), ((2, 8), 288), ((0, 0), 255))
"""The most vCPUs of a Q35 machine, by the version since which that is the limit (QEMU pc_q35.c)."""
_LIMIT_I440FX = 255
_BACKINGS = ("access", "allocation", "hugepages", "locked", "source")
"""What <memoryBacking> says of the memory that an SEV-SNP guest shares with its host."""


@rule(
    "domain.memory.locked", _E,
    "the memory of an SEV or SEV-ES guest may be locked, or has a hard limit", GUIDE, mends=True,
)  # fmt: skip
def _locked(subject: Subject) -> Iterator[Violation]:
    root = subject.domain.root
    if subject.snp:  # its memory is guest_memfd's, which is never moved or swapped
        return
    if root.find("memoryBacking/locked") is not None or root.find("memtune/hard_limit") is not None:
        return
    backing = root.find("memoryBacking")
    if backing is None:
        lines = "<memoryBacking>\n  <locked/>\n</memoryBacking>"
        edit = subject.document.append(root, lines)
    else:
        edit = subject.document.append(backing, "<locked/>")
    yield Violation(
        root if backing is None else backing,
        "libvirt does not let QEMU lock memory, and SEV pins all of the guest's",
        "<memoryBacking><locked/></memoryBacking>, or <memtune><hard_limit> with 256 MiB more "
        "than the guest has",
        (edit,),
    )


@rule(
    "domain.memory.hard-limit", _W, "the hard limit is at least 256 MiB above the guest's memory",
    GUIDE, mends=True,
)  # fmt: skip
def _hard_limit(subject: Subject) -> Iterator[Violation]:
    element = subject.domain.root.find("memtune/hard_limit")
    limit, memory = size(element), size(subject.domain.root.find("memory"))
    if element is None or limit is None or memory is None or limit >= memory + _MARGIN:
        return
    enough = -(-(memory + _MARGIN) // 1024)
    edits = (
        subject.document.set_attribute(element, "unit", "KiB"),
        subject.document.set_text(element, str(enough)),
    )
    yield Violation(
        element,
        "the hard limit leaves QEMU less than 256 MiB besides the guest's memory: it may be killed",
        f"<hard_limit unit='KiB'>{enough}</hard_limit>",
        edits,
    )


@rule("domain.memory.unlimited", _I, "locked memory has a limit", GUIDE)
def _unlimited(subject: Subject) -> Iterator[Violation]:
    locked = subject.domain.root.find("memoryBacking/locked")
    if locked is not None and subject.domain.root.find("memtune/hard_limit") is None:
        yield Violation(
            locked,
            "without a limit, a malicious QEMU can lock all of the host's memory",
            "<memtune><hard_limit>, or MemoryMax= for machine.slice on the host",
        )


@rule(
    "domain.memory.backing", _W,
    "an SEV-SNP guest's memory has no backing: its private memory comes from guest_memfd",
    "QEMU accel/kvm/kvm-all.c",
)  # fmt: skip
def _backing(subject: Subject) -> Iterator[Violation]:
    for path in _BACKINGS if subject.snp else ():
        for element in subject.domain.root.all(f"memoryBacking/{path}"):
            yield Violation(
                element,
                f"<{element.name}>: it only holds what the guest shares; private memory comes from "
                "guest_memfd beside it, so the host may need twice the memory",
                f"no <{element.name}>, unless a device needs it (virtiofs, vhost-user)",
            )


@rule(
    "domain.memory.hotplug", _W, "no memory is plugged while the guest runs",
    "QEMU, RAM discard under SEV",
)  # fmt: skip
def _memory_hotplug(subject: Subject) -> Iterator[Violation]:
    for element in subject.domain.root.all("maxMemory") + subject.domain.devices("memory"):
        yield Violation(
            element,
            f"memory that is plugged later does not work in {subject.technology} guests",
            f"no <{element.name}>",
        )


@rule(
    "domain.cpu.mode", _W,
    "an SEV-ES or SEV-SNP guest names its CPU model: its signature is measured",
    "QEMU target/i386/cpu.c, libvirt cpu",
)  # fmt: skip
def _cpu_mode(subject: Subject) -> Iterator[Violation]:
    cpu = subject.domain.root.find("cpu")
    mode = "custom" if cpu is None else cpu.get("mode") or "custom"
    named = mode == "custom" and cpu is not None and cpu.find("model") is not None
    if not subject.encrypts_state or named:
        return
    what = "no CPU model is named: QEMU takes its own default"
    if mode == "host-model":
        what = "host-model: libvirt chooses a model at each start, which the XML does not name"
    elif mode != "custom":
        what = f"{mode}: the vCPUs have the signature of the host's CPU, which you must know"
    yield Violation(
        subject.domain.root if cpu is None else cpu,
        what,
        "for example <cpu mode='custom'><model>EPYC-Milan</model></cpu>; measure the same model",
    )


@rule(
    "domain.cpu.model", _W, "the signature of an SEV-ES or SEV-SNP guest's CPU model is known",
    "QEMU target/i386/cpu.c",
)  # fmt: skip
def _cpu_model(subject: Subject) -> Iterator[Violation]:
    cpu, model = subject.domain.root.find("cpu"), subject.domain.root.find("cpu/model")
    custom = cpu is not None and (cpu.get("mode") or "custom") == "custom"
    if not subject.encrypts_state or model is None or not custom:
        return
    from sev_attest.guest.cpu import CpuModel

    try:
        CpuModel.named(model.text.strip())
    except Unsupported:
        yield Violation(
            model,
            f"{model.text.strip()}: the signature of this CPU model is not known here",
            "one of the EPYC models, or measure with the CPU's family, model and stepping",
        )


@rule(
    "domain.vcpu.hotplug", _E,
    "all vCPUs of an SEV-ES or SEV-SNP guest are present when it starts", SEV_C,
)  # fmt: skip
def _vcpu_hotplug(subject: Subject) -> Iterator[Violation]:
    if not subject.encrypts_state:
        return
    vcpu = subject.domain.root.find("vcpu")
    current = vcpu is not None and vcpu.get("current")
    later = [one for one in subject.domain.root.all("vcpus/vcpu") if one.get("enabled") == "no"]
    if vcpu is not None and current and number(current) != number(vcpu.text):
        later = [vcpu]
    for element in later:
        yield Violation(
            element,
            "vCPUs that are plugged later are not measured, and cannot start in an "
            f"{subject.technology} guest",
            "<vcpu> without current=, and every <vcpu> in <vcpus> with enabled='yes'",
        )


@rule("domain.vcpu.limit", _E, "the machine supports the number of vCPUs", "QEMU pc_q35.c")
def _vcpu_limit(subject: Subject) -> Iterator[Violation]:
    vcpu = subject.domain.root.find("vcpu")
    count = None if vcpu is None else number(vcpu.text)
    domain = subject.domain
    version = domain.machine_version or (subject.versions.qemu or (9999,))[:2]
    most = _LIMIT_I440FX if domain.i440fx else next(n for v, n in _LIMITS if version >= v)
    if vcpu is not None and count is not None and not 1 <= count <= most:
        yield Violation(
            vcpu,
            f"{count} vCPUs: a {domain.machine} machine supports 1 to {most}",
            "fewer vCPUs, or a newer machine type",
        )


@rule(
    "domain.reboot", _W, "an SEV-ES or SEV-SNP guest is not restarted: before QEMU 11.0 it cannot "
    "reboot, since then a reboot is a launch that nobody attests",
    "QEMU qapi/qom.json, confidential-guest-reset", mends=True,
)  # fmt: skip
def _reboot(subject: Subject) -> Iterator[Violation]:
    element = subject.domain.root.find("on_reboot")
    if not subject.encrypts_state or (element is not None and element.text.strip() != "restart"):
        return
    again = "in the same session, unattested, without a pause and without its secret"
    if subject.snp:
        again = "without the secrets that it was given: it must be attested anew"
    if element is None:
        edit = subject.document.append(subject.domain.root, "<on_reboot>destroy</on_reboot>")
    else:
        edit = subject.document.set_text(element, "destroy")
    yield Violation(
        subject.domain.root if element is None else element,
        f"on_reboot is restart: before QEMU 11.0 an {subject.technology} guest cannot reboot; "
        f"since then QEMU launches it again {again}",
        "<on_reboot>destroy</on_reboot>",
        (edit,),
    )


@rule(
    "domain.power", _I, "suspending to memory or disk, and the VMware port, are off", GUIDE,
    mends=True,
)  # fmt: skip
def _power(subject: Subject) -> Iterator[Violation]:
    for path, attribute, on, off in (
        ("pm/suspend-to-mem", "enabled", "yes", "no"),
        ("pm/suspend-to-disk", "enabled", "yes", "no"),
        ("features/vmport", "state", "on", "off"),
    ):
        for element in subject.domain.root.all(path):
            if element.get(attribute) == on:
                edit = subject.document.set_attribute(element, attribute, off)
                what = f"<{element.name}> is on, which SEV guests do not need"
                yield Violation(element, what, f"{attribute}='{off}'", (edit,))
