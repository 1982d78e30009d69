"""Rules for what the guest starts from: domain type, machine, firmware, kernel."""

import re
from collections.abc import Iterator

from sev_attest.domain_xml.domain import NON_TRANSITIONAL
from sev_attest.domain_xml.lint import (
    GUIDE,
    LIBVIRT,
    QEMU,
    VALIDATE,
    VALIDATION,
    Found,
    Rule,
    Severity,
    Subject,
    before,
    rule,
)
from sev_attest.domain_xml.xml import Edit, Element
from sev_attest.errors import MalformedInput, NotAttestable

RULES: list[Rule] = []
_E, _W, _I = Severity
_X86 = "QEMU hw/i386/x86.c"
_SMM_BUILD = re.compile(r"\.ms\.fd$|secboot|snakeoil|[.-]secure\b", re.IGNORECASE)
"""Names that Debian, Fedora and QEMU give to firmware that requires SMM."""


@rule(RULES, "domain.type", _E, "the domain's type is kvm", "QEMU, sev-guest")
def _type(subject: Subject) -> Iterator[Found]:
    root = subject.domain.root
    if root.get("type") != "kvm":
        yield Found(
            root,
            f"the domain's type is {root.get('type') or 'missing'}: SEV needs KVM",
            "type='kvm', on a host where KVM is usable",
        )


@rule(RULES, "domain.arch", _E, "the guest is an x86_64 machine of its own (hvm)", LIBVIRT)
def _arch(subject: Subject) -> Iterator[Found]:
    kind = subject.domain.root.find("os/type")
    if kind is None:
        yield Found(subject.domain.place("os"), "there is no <os><type>", "<type>hvm</type>")
    elif kind.text != "hvm" or kind.get("arch") not in (None, "x86_64"):
        arch = kind.get("arch")
        where = "" if arch is None else f" on {arch}"
        yield Found(
            kind,
            f"the guest's type is {kind.text[:40]!r}{where}: SEV guests are hvm, on x86_64",
            "<type arch='x86_64' machine='q35'>hvm</type>",
        )


@rule(RULES, "domain.machine.i440fx", _W, "the machine is a Q35", GUIDE)
def _i440fx(subject: Subject) -> Iterator[Found]:
    if subject.domain.i440fx:
        yield Found(
            subject.domain.place("os/type"),
            f"machine {subject.domain.machine}: i440fx is discouraged for SEV guests, and firmware "
            "may need a Q35",
            "machine='q35' (PCI addresses change: best made anew)",
        )


@rule(RULES, "domain.machine.unknown", _W, "the machine is one that SEV guests are run on", GUIDE)
def _machine(subject: Subject) -> Iterator[Found]:
    if not (subject.domain.q35 or subject.domain.i440fx):
        yield Found(
            subject.domain.place("os/type"),
            f"machine {subject.domain.machine}: neither Q35 nor i440fx, which OVMF is built for",
            "machine='q35'",
        )


@rule(
    RULES, "domain.virtio.model", _E,
    "no virtio device speaks virtio 0.9: none is transitional, and on i440fx each is "
    "virtio-non-transitional (W where QEMU 6.0 or later makes it so by itself)",
    GUIDE, mends=True,
)  # fmt: skip
def _virtio_model(subject: Subject) -> Iterator[Found]:
    for device in subject.domain.virtio:
        transitional = device.model == "virtio-transitional"
        modern = device.model == NON_TRANSITIONAL or not subject.domain.i440fx
        if device.named is not None and (transitional or not modern):
            old = transitional or before(subject.versions.qemu, (6, 0))
            edit = subject.document.set_attribute(device.named, device.attribute, NON_TRANSITIONAL)
            yield Found(
                device.named,
                f"{device.model} <{device.element.name}>: SEV does not work with virtio before 1.0",
                f"{device.attribute}='{NON_TRANSITIONAL}'",
                (edit,),
                _E if old else _W,
            )


@rule(RULES, "domain.virtio.gpu", _E, "an i440fx machine has no virtio GPU", GUIDE)
def _virtio_gpu(subject: Subject) -> Iterator[Found]:
    for device in subject.domain.virtio if subject.domain.i440fx else ():
        if device.named is None:
            yield Found(
                device.element,
                "a virtio GPU on i440fx: there is no virtio-non-transitional one",
                "another <model type=...>, or a Q35 machine",
            )


@rule(
    RULES, "domain.acpi", _E,
    "there is <acpi/>: libvirt takes no UEFI without it (W where it does not see that it is UEFI)",
    VALIDATION, mends=True,
)  # fmt: skip
def _acpi(subject: Subject) -> Iterator[Found]:
    domain = subject.domain
    place, loader = domain.place("features"), domain.root.find("os/loader")
    refused = domain.selects_firmware or (loader is not None and loader.get("type") == "pflash")
    if domain.root.find("features/acpi") is not None or not (refused or domain.loader_path):
        return
    lines = "<acpi/>" if place is not domain.root else "<features>\n  <acpi/>\n</features>"
    what = "libvirt refuses UEFI without it" if refused else "OVMF describes the machine with it"
    yield Found(
        place,
        f"there is no <acpi/>: {what}",
        "<features><acpi/></features>",
        (subject.document.append(place, lines),),
        _E if refused else _W,
    )


@rule(
    RULES, "domain.loader.missing", _E, "the guest's firmware is UEFI (OVMF), not SeaBIOS", GUIDE,
    mends=True,
)  # fmt: skip
def _no_loader(subject: Subject) -> Iterator[Found]:
    place, loader = subject.domain.root.find("os"), subject.domain.root.find("os/loader")
    if subject.domain.loader_path or subject.domain.selects_firmware or place is None:
        return
    what = "no <loader> and no firmware='efi'"
    if place.get("type") == "efi":
        what = "<os type='efi'> means nothing (the attribute is firmware)"
    yield Found(
        place,
        f"{what}: this starts SeaBIOS, and SEV needs OVMF",
        "<os firmware='efi'> and <loader stateless='yes'/>, or the path of a stateless OVMF in "
        "<loader>",
        (_efi(subject, place), _chosen(subject, place, loader)),
    )


def _efi(subject: Subject, place: Element) -> Edit:
    if place.get("type") == "efi":
        return subject.document.rename_attribute(place, "type", "firmware")
    return subject.document.set_attribute(place, "firmware", "efi")


def _chosen(subject: Subject, place: Element, loader: Element | None) -> Edit:
    """Have libvirt choose a stateless loader; then it takes no other attribute."""
    if loader is None:
        return subject.document.append(place, "<loader stateless='yes'/>")
    return subject.document.replace(loader, "<loader stateless='yes'/>")


def _stateless(subject: Subject, place: Element, loader: Element | None) -> list[Edit]:
    if loader is None:
        return [subject.document.append(place, "<loader stateless='yes'/>")]
    edits = [subject.document.set_attribute(loader, "stateless", "yes")]
    # A libvirt that chose a firmware with an NVRAM refuses to have it stateless.
    if subject.domain.loader_path and _selected(subject):
        edits += _named(subject, place)
    return edits


def _stores(subject: Subject) -> list[Element]:
    return subject.domain.root.all("os/nvram") + subject.domain.root.all("os/varstore")


@rule(
    RULES, "domain.loader.nvram", _E,
    "nothing keeps UEFI variables from one start to the next: they are not measured", VALIDATE,
    mends=True,
)  # fmt: skip
def _nvram(subject: Subject) -> Iterator[Found]:
    place, loader = subject.domain.place("os"), subject.domain.root.find("os/loader")
    flash = loader is not None or subject.domain.selects_firmware
    stateless = loader is not None and loader.get("stateless") == "yes"
    stores = _stores(subject)
    needed = stores and flash and not stateless
    beside = _stateless(subject, place, loader) if needed else []
    for store in stores:
        edits = [subject.document.remove(store), *beside]
        yield Found(
            store,
            f"<{store.name}>: its UEFI variables are not measured, and can change what boots",
            f"stateless='yes' on <loader>, and no <{store.name}>",
            tuple(edits),
        )


@rule(
    RULES, "domain.loader.stateless", _E,
    "the firmware is stateless (W where libvirt chooses it, or how it is loaded)", GUIDE,
    mends=True,
)  # fmt: skip
def _state(subject: Subject) -> Iterator[Found]:
    place, loader = subject.domain.place("os"), subject.domain.root.find("os/loader")
    asked = None if loader is None else loader.get("stateless")
    kind = loader.get("type") if loader is not None and subject.domain.loader_path else "efi"
    if (
        _stores(subject)
        or asked == "yes"
        or (kind == "efi" and not subject.domain.selects_firmware)
    ):
        return
    if asked is None and (kind == "rom" or _writable(subject) is not None):
        return
    message = {
        "pflash": "libvirt gives this flash an NVRAM, whose UEFI variables are not measured",
        "efi": "firmware='efi' alone may choose one with Secure Boot, SMM and NVRAM",
    }.get(kind or "", "a loader without a type may become a flash with an NVRAM")
    if asked is not None:
        message = "this asks for an NVRAM, whose UEFI variables are not measured"
        if kind != "pflash" and not _selected(subject):
            message += "; libvirt refuses it for what is no flash"
    yield Found(
        place if loader is None else loader,
        message,
        "<loader stateless='yes' ...>",
        tuple(_stateless(subject, place, loader)),
        _E if kind == "pflash" or asked is not None else _W,
    )


def _selected(subject: Subject) -> str | None:
    """Return the kind of firmware that libvirt is to look for (``<os firmware=...>``), if any."""
    return subject.domain.place("os").get("firmware")


def _writable(subject: Subject) -> Element | None:
    """Return the loader if it is a flash that the guest can write to."""
    loader = subject.domain.root.find("os/loader")
    if loader is None or not subject.domain.loader_path or _selected(subject):
        return None
    return loader if loader.get("type") == "pflash" and loader.get("readonly") != "yes" else None


@rule(
    RULES, "domain.loader.readonly", _E,
    "a flash cannot be written to by the guest, and no ROM is said to be writable (libvirt up to "
    "11.3 does not mind)", "libvirt qemu_firmware.c; libvirt 12.8, run", mends=True,
)  # fmt: skip
def _read_only(subject: Subject) -> Iterator[Found]:
    loader, flash = subject.domain.root.find("os/loader"), _writable(subject)
    if flash is not None:
        yield Found(
            flash,
            "a writable flash: what the guest writes there changes the next launch's measurement",
            "<loader type='pflash' readonly='yes' stateless='yes'>",
            tuple(
                subject.document.set_attribute(flash, name, "yes")
                for name in ("readonly", "stateless")
            ),
        )
    elif (
        loader is not None
        and loader.get("readonly") == "no"
        and not _selected(subject)
        and not before(subject.versions.libvirt, (11, 4))
    ):
        edit = subject.document.remove_attribute(loader, "readonly")
        yield Found(loader, "readonly='no' on a ROM: libvirt refuses it", "no readonly=", (edit,))


@rule(
    RULES, "domain.loader.choice", _E,
    "libvirt chooses the firmware or is told of it, not both: before 9.2 it refuses both "
    "(--libvirt; I without), and it chooses none that is writable or no UEFI",
    VALIDATION, mends=True,
)  # fmt: skip
def _choice(subject: Subject) -> Iterator[Found]:
    place, loader = subject.domain.root.find("os"), subject.domain.root.find("os/loader")
    firmware, version = _selected(subject), subject.versions.libvirt
    if place is None or loader is None or firmware is None:
        return
    never = firmware != "efi" or loader.get("readonly") == "no"
    if not (never or before(version or (0,), (9, 2))):
        return
    path = subject.domain.loader_path
    told = [name for name in ("type", "readonly") if loader.get(name) is not None]
    told += ["secure"] if loader.get("secure") == "no" else []
    if not (path or told):
        return
    edits = [subject.document.remove_attribute(loader, name) for name in told]
    if path:
        edits = _named(subject, place)
    what = "a path" if path else " and ".join(told)
    why = "libvirt finds no such firmware" if never else "libvirt before 9.2 refuses both"
    yield Found(
        loader,
        f"<loader> with {what} beside firmware={firmware[:40]!r}: {why}",
        "one of them: <os> without firmware=, or <loader stateless='yes'/> alone",
        tuple(edits),
        _E if never or version is not None else _I,
    )


def _named(subject: Subject, place: Element) -> list[Edit]:
    """Have libvirt choose no firmware: the path of one is there."""
    edits = [subject.document.remove(one) for one in place.all("firmware")]
    return [*edits, subject.document.remove_attribute(place, "firmware")]


@rule(
    RULES, "domain.loader.feature", _E,
    "no <feature> of a firmware that libvirt does not choose (W before 8.6, which ignores it)",
    VALIDATION, mends=True,
)  # fmt: skip
def _feature(subject: Subject) -> Iterator[Found]:
    if _selected(subject):
        return
    ignored = before(subject.versions.libvirt, (8, 6))
    for element in subject.domain.root.all("os/firmware"):
        if element.find("feature") is not None:
            does = "ignores" if ignored else "refuses"
            yield Found(
                element,
                f"a <feature> of the firmware without firmware='efi': libvirt {does} it",
                "no <firmware>",
                (subject.document.remove(element),),
                _W if ignored else _E,
            )


@rule(
    RULES, "domain.loader.chosen", _W, "libvirt does not choose the firmware: most hosts have none "
    "that is stateless and for SEV", "libvirt 9.0, run",
)  # fmt: skip
def _chosen_firmware(subject: Subject) -> Iterator[Found]:
    path = subject.domain.loader_path
    if not subject.domain.selects_firmware or (path and before(subject.versions.libvirt, (9, 2))):
        return
    feature = "amd-sev-es" if subject.es else "amd-sev"
    yield Found(
        subject.domain.place("os"),
        f"libvirt needs a firmware descriptor{' of this path' if path else ''} that is stateless, "
        f"with the feature {feature}: Debian 12 has none, the package ovmf-amdsev of Debian forky "
        "and sid brings one; libvirt 11.8 fixed the selection of stateless firmware",
        "the path of an OVMF build for SEV in <loader type='rom'>, without firmware='efi'",
    )


@rule(
    RULES, "domain.loader.secure", _E,
    "no Secure Boot: it keeps its keys in variables, which are not measured, and needs SMM", QEMU,
    mends=True,
)  # fmt: skip
def _secure(subject: Subject) -> Iterator[Found]:
    wanted = [
        (element, "secure") for element in subject.domain.root.all("os/loader")
        if element.get("secure") == "yes"
    ] + [
        (element, "enabled") for element in subject.domain.root.all("os/firmware/feature")
        if element.get("enabled") == "yes"
    ]  # fmt: skip
    for element, attribute in wanted:
        edit = subject.document.set_attribute(element, attribute, "no")
        # libvirt before 9.2 refuses secure='no' where it chooses the firmware.
        if attribute == "secure" and _selected(subject):
            edit = subject.document.remove_attribute(element, attribute)
        yield Found(
            element,
            f"{attribute}='yes': Secure Boot needs SMM, which SEV-ES guests do not have, and a "
            "store for variables, which a stateless firmware does not have",
            f"{attribute}='no'",
            (edit,),
        )


@rule(
    RULES, "domain.loader.smm", _W,
    "the firmware of an SEV-ES guest is not one that is built for SMM, by its name", QEMU,
)  # fmt: skip
def _smm_build(subject: Subject) -> Iterator[Found]:
    if subject.es and _SMM_BUILD.search(subject.domain.loader_path.rpartition("/")[2]):
        yield Found(
            subject.domain.place("os/loader"),
            "by its name this firmware is built for Secure Boot, and does not start without SMM",
            "an OVMF build for SEV",
        )


@rule(RULES, "domain.smm", _E, "SMM is off (W for plain SEV)", QEMU, mends=True)
def _smm(subject: Subject) -> Iterator[Found]:
    smm = subject.domain.root.find("features/smm")
    if smm is None or smm.get("state") == "off":
        return
    what = "SEV-ES guests have none" if subject.es else "only Secure Boot needs it"
    edit = subject.document.set_attribute(smm, "state", "off")
    severity = _E if subject.es else _W
    yield Found(smm, f"SMM is on: {what}", "<smm state='off'/>", (edit,), severity)


@rule(
    RULES, "domain.kernel-hashes.missing", _E,
    "kernelHashes='yes' where libvirt boots a <kernel>", VALIDATE, mends=True,
)  # fmt: skip
def _unmeasured_kernel(subject: Subject) -> Iterator[Found]:
    security, kernel = subject.domain.security, subject.domain.kernel
    if kernel is None or security is None or subject.domain.kernel_hashes:
        return
    yield Found(
        kernel,
        "kernel, initrd and command line are not measured: the host can boot any",
        "kernelHashes='yes' on <launchSecurity>",
        (subject.document.set_attribute(security, "kernelHashes", "yes"),),
    )


@rule(
    RULES, "domain.kernel-hashes.unused", _E, "no kernelHashes='yes' without a <kernel>", VALIDATE,
    mends=True,
)  # fmt: skip
def _unused_hashes(subject: Subject) -> Iterator[Found]:
    security = subject.domain.security
    if security is None or not subject.domain.kernel_hashes or subject.domain.kernel is not None:
        return
    asked = subject.record is not None and subject.record.kernel_hashes
    yield Found(
        security,
        "kernelHashes='yes' without a <kernel>: QEMU measures none",
        "name <kernel> (and <initrd>, <cmdline>) in <os>, or leave kernelHashes out",
        () if asked else (subject.document.remove_attribute(security, "kernelHashes"),),
    )


@rule(
    RULES, "domain.kernel.shim", _E,
    "no <shim>: kernelHashes does not cover it (W), and libvirt refuses it without a <kernel>",
    LIBVIRT, mends=True,
)  # fmt: skip
def _shim(subject: Subject) -> Iterator[Found]:
    for shim in subject.domain.root.all("os/shim"):
        if subject.domain.kernel is None:
            edit = subject.document.remove(shim)
            what = "a shim without a <kernel>: libvirt refuses it"
            yield Found(shim, what, "no <shim>", (edit,))
        else:
            what = "the shim is not measured: the host can boot any"
            yield Found(shim, what, "no <shim>", severity=_W)


@rule(RULES, "domain.kernel.dtb", _W, "no <dtb>, which changes the measured kernel", _X86)
def _dtb(subject: Subject) -> Iterator[Found]:
    for dtb in subject.domain.root.all("os/dtb"):
        what = "QEMU puts it behind the kernel: its hash is no longer the file's"
        yield Found(dtb, what, "no <dtb>: x86 guests need none")


@rule(
    RULES, "domain.kernel.rng-seed", _E, "no QEMU 7.2.0 where a kernel is measured",
    _X86,
)  # fmt: skip
def _rng_seed(subject: Subject) -> Iterator[Found]:
    version = subject.domain.machine_version or (7, 2)
    exact = subject.versions.qemu == (7, 2, 0)
    if exact and version >= (7, 2) and subject.domain.kernel is not None:
        yield Found(
            subject.domain.place("os/type"),
            "QEMU 7.2.0 puts a random seed behind the kernel: nobody can foresee its hash",
            "QEMU 7.2.1 or later, or a machine type of 7.1",
        )


@rule(
    RULES, "domain.firmware.hash-area", _E,
    "the firmware has an area for kernel hashes where they are asked for (--firmware)", QEMU,
)  # fmt: skip
def _hash_area(subject: Subject) -> Iterator[Found]:
    firmware = subject.firmware
    if firmware is None or firmware.unfit or not subject.domain.kernel_hashes:
        return
    try:
        firmware.require_hash_table()
    except NotAttestable as error:
        yield Found(
            subject.domain.place("os/loader"),
            f"{error}: QEMU will not start it",
            "an OVMF build for SEV direct boot (OvmfPkg/AmdSev)",
        )


@rule(RULES, "domain.firmware.es", _E, "the firmware can start SEV-ES guests (--firmware)", QEMU)
def _es_reset(subject: Subject) -> Iterator[Found]:
    firmware = subject.firmware
    if firmware is None or firmware.unfit or not subject.es:
        return
    try:
        firmware.reset_address()
    except (MalformedInput, NotAttestable) as error:
        yield Found(
            subject.domain.place("os/loader"), str(error), "an OVMF build with SEV-ES support"
        )


@rule(RULES, "domain.firmware.kind", _E, "the firmware is an OVMF image (--firmware)", GUIDE)
def _kind(subject: Subject) -> Iterator[Found]:
    if subject.firmware is None:
        return
    what = {
        "VARS": "a store for UEFI variables",
        "unknown": "no OVMF image: it has no footer table",
    }.get(subject.firmware.kind, subject.firmware.unfit)
    if what:
        place = subject.domain.place("os/loader")
        yield Found(place, f"the firmware is {what}", "an OVMF image with code in it")


@rule(
    RULES, "domain.acpi.table", _E,
    "ACPI tables are of types that libvirt knows: slic, from 11.2 on also msdm (each once) and raw",
    "libvirt domain_conf.c",
)  # fmt: skip
def _acpi_tables(subject: Subject) -> Iterator[Found]:
    old = before(subject.versions.libvirt, (11, 2))
    known = ("slic",) if old else ("slic", "msdm", "raw")
    seen: set[str] = set()
    for table in subject.domain.root.all("os/acpi/table"):
        kind = table.get("type") or ""
        if kind not in known:
            what = f"an ACPI table of type {kind[:40]!r}: libvirt knows {', '.join(known)}"
            yield Found(table, what, "no <table>")
        elif kind in seen:
            yield Found(table, f"a second ACPI table of type {kind}: libvirt refuses it", "one")
        seen |= {kind} - {"raw"}


@rule(
    RULES, "domain.unmeasured", _I, "no ACPI tables or fw_cfg files beside what is measured",
    LIBVIRT,
)  # fmt: skip
def _unmeasured(subject: Subject) -> Iterator[Found]:
    for table in subject.domain.root.all("os/acpi/table"):
        yield Found(table, "an ACPI table of the host's: not measured", "no <table>")
    for info in subject.domain.root.all("sysinfo"):
        if info.get("type") == "fwcfg":
            yield Found(info, "fw_cfg files are not measured", "no <sysinfo type='fwcfg'>")


@rule(
    RULES, "domain.qemu-commandline", _W, "QEMU is started with what libvirt gives it, no more",
    LIBVIRT,
)  # fmt: skip
def _qemu(subject: Subject) -> Iterator[Found]:
    for child in subject.domain.root.children:
        namespace, _, name = child.name.rpartition(" ")
        if "/schemas/domain/qemu/" in namespace and [*child.children]:
            what = "arguments to QEMU past libvirt can change what is measured, or what is not"
            yield Found(child, f"<qemu:{name}>: {what}", f"no <qemu:{name}>")
