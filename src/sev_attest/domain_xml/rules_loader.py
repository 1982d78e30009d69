"""Rules for ``<loader>``: which firmware is loaded, how, and that it keeps no variables."""

from collections.abc import Iterator

from sev_attest.domain_xml.rule import (
    GUIDE,
    SEV_C,
    VALIDATE,
    VALIDATION,
    Severity,
    Subject,
    Violation,
    rule,
)
from sev_attest.domain_xml.versions import before
from sev_attest.domain_xml.xml import Edit, Element

_E, _W, _I = Severity


@rule(
    "domain.loader.missing", _E, "the guest's firmware is UEFI (OVMF), not SeaBIOS", GUIDE,
    mends=True,
)  # fmt: skip
def _no_loader(subject: Subject) -> Iterator[Violation]:
    place, loader = subject.domain.root.find("os"), subject.domain.root.find("os/loader")
    if subject.domain.loader_path or subject.domain.selects_uefi or place is None:
        return
    what = "no <loader> and no firmware='efi'"
    if place.get("type") == "efi":
        what = "<os type='efi'> means nothing (the attribute is firmware)"
    yield Violation(
        place,
        f"{what}: this starts SeaBIOS, and {subject.technology} needs OVMF",
        "<os firmware='efi'> and <loader stateless='yes'/>, or the path of a stateless OVMF in "
        "<loader>",
        (_efi(subject, place), _selection(subject, place, loader)),
    )


def _efi(subject: Subject, place: Element) -> Edit:
    if place.get("type") == "efi":
        return subject.document.rename_attribute(place, "type", "firmware")
    return subject.document.set_attribute(place, "firmware", "efi")


def _selection(subject: Subject, place: Element, loader: Element | None) -> Edit:
    """Return the edit for a loader that libvirt selects, which must have no other attribute."""
    if loader is None:
        return subject.document.append(place, "<loader stateless='yes'/>")
    return subject.document.replace(loader, "<loader stateless='yes'/>")


def _stateless(subject: Subject, place: Element, loader: Element | None) -> list[Edit]:
    if loader is None:
        return [subject.document.append(place, "<loader stateless='yes'/>")]
    edits = [subject.document.set_attribute(loader, "stateless", "yes")]
    # If libvirt selected this path for its NVRAM, it refuses stateless='yes' for it.
    if subject.domain.loader_path and subject.domain.selected_firmware:
        edits += _no_selection(subject, place)
    return edits


def _stores(subject: Subject) -> list[Element]:
    return subject.domain.root.all("os/nvram") + subject.domain.root.all("os/varstore")


@rule(
    "domain.loader.nvram", _E,
    "no store keeps UEFI variables from one start to the next: they are not measured", VALIDATE,
    mends=True,
)  # fmt: skip
def _nvram(subject: Subject) -> Iterator[Violation]:
    place, loader = subject.domain.place("os"), subject.domain.root.find("os/loader")
    flash = loader is not None or subject.domain.selects_uefi
    stateless = loader is not None and loader.get("stateless") == "yes"
    stores = _stores(subject)
    needed = stores and flash and not stateless
    other = _stateless(subject, place, loader) if needed else []
    for store in stores:
        edits = [subject.document.remove(store), *other]
        yield Violation(
            store,
            f"<{store.name}>: its UEFI variables are not measured, and can change what boots",
            f"stateless='yes' on <loader>, and no <{store.name}>",
            tuple(edits),
        )


@rule(
    "domain.loader.stateless", _E,
    "the firmware is stateless (W if libvirt selects the firmware, or how to load it)", GUIDE,
    mends=True,
)  # fmt: skip
def _state(subject: Subject) -> Iterator[Violation]:
    place, loader = subject.domain.place("os"), subject.domain.root.find("os/loader")
    asked = None if loader is None else loader.get("stateless")
    kind = loader.get("type") if loader is not None and subject.domain.loader_path else "efi"
    if _stores(subject) or asked == "yes" or (kind == "efi" and not subject.domain.selects_uefi):
        return
    if asked is None and (kind == "rom" or _writable(subject) is not None):
        return
    message = {
        "pflash": "libvirt adds an NVRAM to this flash, whose UEFI variables are not measured",
        "efi": "firmware='efi' alone may select firmware with Secure Boot, SMM and an NVRAM",
    }.get(kind or "", "a loader without a type may become a flash with an NVRAM")
    if asked is not None:
        message = "this asks for an NVRAM, whose UEFI variables are not measured"
        if kind != "pflash" and not subject.domain.selected_firmware:
            message += "; libvirt refuses it unless the loader is a flash"
    yield Violation(
        place if loader is None else loader,
        message,
        "<loader stateless='yes' ...>",
        tuple(_stateless(subject, place, loader)),
        _E if kind == "pflash" or asked is not None else _W,
    )


def _writable(subject: Subject) -> Element | None:
    """Return the loader if it is a flash that the guest can write to, else None."""
    loader = subject.domain.root.find("os/loader")
    if loader is None or not subject.domain.loader_path or subject.domain.selected_firmware:
        return None
    if subject.snp:  # no flash at all: domain.loader.rom
        return None
    return loader if loader.get("type") == "pflash" and loader.get("readonly") != "yes" else None


@rule(
    "domain.loader.readonly", _E,
    "a flash is read-only, and no ROM has readonly='no' (libvirt up to 11.3 accepts that)",
    "libvirt qemu_firmware.c; libvirt 12.8, run", mends=True,
)  # fmt: skip
def _read_only(subject: Subject) -> Iterator[Violation]:
    loader, flash = subject.domain.root.find("os/loader"), _writable(subject)
    if flash is not None:
        yield Violation(
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
        and not subject.domain.selected_firmware
        and not before(subject.versions.libvirt, (11, 4))
    ):
        edit = subject.document.remove_attribute(loader, "readonly")
        yield Violation(
            loader, "readonly='no' on a ROM: libvirt refuses it", "no readonly=", (edit,)
        )


@rule(
    "domain.loader.rom", _E,
    "an SEV-SNP guest's firmware is loaded as a ROM: QEMU measures no flash (W if the type is left "
    "to libvirt)", SEV_C, mends=True,
)  # fmt: skip
def _rom(subject: Subject) -> Iterator[Violation]:
    loader = subject.domain.root.find("os/loader")
    kind = None if loader is None else loader.get("type")
    left = kind is None and bool(subject.domain.loader_path)
    if loader is None or not subject.snp or not (kind == "pflash" or left):
        return
    edits = [_as_rom(subject, loader)]
    if loader.get("readonly") not in (None, "yes"):
        edits.append(subject.document.remove_attribute(loader, "readonly"))
    what = "a loader without a type may become a flash" if left else "the firmware is a flash"
    yield Violation(
        loader,
        f"{what}: QEMU loads and measures the firmware of SEV-SNP guests with -bios only",
        "<loader type='rom' stateless='yes'>",
        tuple(edits),
        _W if left else _E,
    )


def _as_rom(subject: Subject, loader: Element) -> Edit:
    """Return the edit after which a loader is a ROM, or of the type that libvirt selects."""
    if subject.domain.selected_firmware and not subject.domain.loader_path:
        return subject.document.remove_attribute(loader, "type")
    return subject.document.set_attribute(loader, "type", "rom")


@rule(
    "domain.loader.choice", _E,
    "the XML names a firmware or libvirt selects one, not both: libvirt before 9.2 refuses both "
    "(I if its version is unknown), and it selects only UEFI that is read-only",
    VALIDATION, mends=True,
)  # fmt: skip
def _choice(subject: Subject) -> Iterator[Violation]:
    place, loader = subject.domain.root.find("os"), subject.domain.root.find("os/loader")
    firmware, version = subject.domain.selected_firmware, subject.versions.libvirt
    if place is None or loader is None or firmware is None:
        return
    never = firmware != "efi" or loader.get("readonly") == "no"
    if not (never or before(version or (0,), (9, 2))):
        return
    path = subject.domain.loader_path
    named = [name for name in ("type", "readonly") if loader.get(name) is not None]
    named += ["secure"] if loader.get("secure") == "no" else []
    if not (path or named):
        return
    edits = [subject.document.remove_attribute(loader, name) for name in named]
    if path:
        edits = _no_selection(subject, place)
    what = "a path" if path else " and ".join(named)
    why = "libvirt has no such firmware" if never else "libvirt before 9.2 refuses both"
    yield Violation(
        loader,
        f"<loader> with {what} and firmware={firmware[:40]!r}: {why}",
        "one of them: <os> without firmware=, or <loader stateless='yes'/> alone",
        tuple(edits),
        _E if never or version is not None else _I,
    )


def _no_selection(subject: Subject, place: Element) -> list[Edit]:
    """Return the edits after which libvirt selects no firmware, because the XML names one."""
    edits = [subject.document.remove(one) for one in place.all("firmware")]
    return [*edits, subject.document.remove_attribute(place, "firmware")]


@rule(
    "domain.loader.feature", _E,
    "no firmware <feature> unless libvirt selects the firmware (W before 8.6, which ignores it)",
    VALIDATION, mends=True,
)  # fmt: skip
def _feature(subject: Subject) -> Iterator[Violation]:
    if subject.domain.selected_firmware:
        return
    ignored = before(subject.versions.libvirt, (8, 6))
    for element in subject.domain.root.all("os/firmware"):
        if element.find("feature") is not None:
            does = "ignores" if ignored else "refuses"
            yield Violation(
                element,
                f"a firmware <feature> without firmware='efi': libvirt {does} it",
                "no <firmware>",
                (subject.document.remove(element),),
                _W if ignored else _E,
            )


@rule(
    "domain.loader.chosen", _W,
    "the XML names the firmware: most hosts have no stateless SEV firmware that libvirt can select",
    "libvirt 9.0, run",
)  # fmt: skip
def _selected_firmware(subject: Subject) -> Iterator[Violation]:
    path = subject.domain.loader_path
    if not subject.domain.selects_uefi or (path and before(subject.versions.libvirt, (9, 2))):
        return
    feature = f"amd-{subject.technology.lower()}"
    yield Violation(
        subject.domain.place("os"),
        f"libvirt needs a firmware descriptor{' for this path' if path else ''} that is stateless, "
        f"with the feature {feature}: Debian 12 has none, the package ovmf-amdsev of Debian forky "
        "and sid brings one; libvirt 11.8 fixed the selection of stateless firmware",
        "the path of an OVMF build for SEV in <loader type='rom'>, without firmware='efi'",
    )
