"""Rules for the machine: domain type, architecture, chipset, ACPI, arguments to QEMU."""

from collections.abc import Iterator

from sev_attest.domain_xml.rule import (
    GUIDE,
    LIBVIRT,
    QEMU,
    VALIDATION,
    Severity,
    Subject,
    Violation,
    rule,
)
from sev_attest.domain_xml.versions import before

_E, _W, _I = Severity


@rule("domain.type", _E, "the domain's type is kvm", "QEMU, sev-guest")
def _type(subject: Subject) -> Iterator[Violation]:
    root = subject.domain.root
    if root.get("type") != "kvm":
        yield Violation(
            root,
            f"the domain's type is {root.get('type') or 'missing'}: {subject.technology} needs KVM",
            "type='kvm', on a host where KVM is usable",
        )


@rule("domain.arch", _E, "the guest is a full x86_64 virtual machine (hvm)", LIBVIRT)
def _arch(subject: Subject) -> Iterator[Violation]:
    kind = subject.domain.root.find("os/type")
    if kind is None:
        yield Violation(subject.domain.place("os"), "there is no <os><type>", "<type>hvm</type>")
    elif kind.text != "hvm" or kind.get("arch") not in (None, "x86_64"):
        arch = kind.get("arch")
        where = "" if arch is None else f" on {arch}"
        yield Violation(
            kind,
            f"the guest's type is {kind.text[:40]!r}{where}: SEV guests are hvm, on x86_64",
            "<type arch='x86_64' machine='q35'>hvm</type>",
        )


@rule("domain.machine.i440fx", _W, "the machine is a Q35", GUIDE)
def _i440fx(subject: Subject) -> Iterator[Violation]:
    if subject.domain.i440fx and not subject.snp:
        yield Violation(
            subject.domain.place("os/type"),
            f"machine {subject.domain.machine}: i440fx is discouraged for SEV guests, and firmware "
            "may need a Q35",
            "machine='q35' (PCI addresses change: it is best to create the domain anew)",
        )


@rule("domain.machine.unknown", _W, "the machine is a Q35 or an i440fx", GUIDE)
def _machine(subject: Subject) -> Iterator[Violation]:
    if not (subject.domain.q35 or subject.domain.i440fx or subject.snp):
        yield Violation(
            subject.domain.place("os/type"),
            f"machine {subject.domain.machine}: neither Q35 nor i440fx, which OVMF is built for",
            "machine='q35'",
        )


@rule("domain.machine.snp", _E, "the machine of an SEV-SNP guest is a Q35", QEMU)
def _snp_machine(subject: Subject) -> Iterator[Violation]:
    if subject.snp and not subject.domain.q35:
        yield Violation(
            subject.domain.place("os/type"),
            f"machine {subject.domain.machine}: SEV-SNP guests need a Q35",
            "machine='q35' (PCI addresses change: it is best to create the domain anew)",
        )


@rule(
    "domain.acpi", _E,
    "there is an <acpi/>: libvirt refuses UEFI without it (W if it cannot tell that it is UEFI)",
    VALIDATION, mends=True,
)  # fmt: skip
def _acpi(subject: Subject) -> Iterator[Violation]:
    domain = subject.domain
    place, loader = domain.place("features"), domain.root.find("os/loader")
    refused = domain.selects_uefi or (loader is not None and loader.get("type") == "pflash")
    if domain.root.find("features/acpi") is not None or not (refused or domain.loader_path):
        return
    lines = "<acpi/>" if place is not domain.root else "<features>\n  <acpi/>\n</features>"
    what = "libvirt refuses UEFI without it" if refused else "OVMF describes the machine with it"
    yield Violation(
        place,
        f"there is no <acpi/>: {what}",
        "<features><acpi/></features>",
        (subject.document.append(place, lines),),
        _E if refused else _W,
    )


@rule(
    "domain.acpi.table", _E,
    "ACPI tables are of types that libvirt knows: slic (once); since 11.2 also msdm (once) and raw",
    "libvirt domain_conf.c",
)  # fmt: skip
def _acpi_tables(subject: Subject) -> Iterator[Violation]:
    old = before(subject.versions.libvirt, (11, 2))
    known = ("slic",) if old else ("slic", "msdm", "raw")
    seen: set[str] = set()
    for table in subject.domain.root.all("os/acpi/table"):
        kind = table.get("type") or ""
        if kind not in known:
            what = f"an ACPI table of type {kind[:40]!r}: libvirt knows {', '.join(known)}"
            yield Violation(table, what, "no <table>")
        elif kind in seen:
            yield Violation(table, f"a second ACPI table of type {kind}: libvirt refuses it", "one")
        seen |= {kind} - {"raw"}


@rule("domain.unmeasured", _I, "no ACPI tables or fw_cfg files, which are not measured", LIBVIRT)
def _unmeasured(subject: Subject) -> Iterator[Violation]:
    for table in subject.domain.root.all("os/acpi/table"):
        yield Violation(table, "an ACPI table that is not measured", "no <table>")
    for info in subject.domain.root.all("sysinfo"):
        if info.get("type") == "fwcfg":
            yield Violation(info, "fw_cfg files are not measured", "no <sysinfo type='fwcfg'>")


@rule("domain.qemu-commandline", _W, "no arguments are passed to QEMU past libvirt", LIBVIRT)
def _qemu(subject: Subject) -> Iterator[Violation]:
    for child in subject.domain.root.children:
        namespace, _, name = child.name.rpartition(" ")
        if "/schemas/domain/qemu/" in namespace and [*child.children]:
            what = "arguments that libvirt does not know can change what is measured"
            yield Violation(child, f"<qemu:{name}>: {what}", f"no <qemu:{name}>")
