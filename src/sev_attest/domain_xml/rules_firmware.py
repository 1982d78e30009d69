"""Rules for what the firmware is: no Secure Boot, no SMM, and what its image must contain."""

import re
from collections.abc import Iterator

from sev_attest.domain_xml.rule import GUIDE, QEMU, SEV_C, Severity, Subject, Violation, rule
from sev_attest.errors import MalformedInput, NotAttestable

_E, _W, _I = Severity
_SMM_BUILD = re.compile(r"\.ms\.fd$|secboot|snakeoil|[.-]secure\b", re.IGNORECASE)
"""Matches the names that Debian, Fedora and QEMU give to firmware that requires SMM."""

_KERNEL_HASHES = 0x10
"""Type of the section for kernel hashes in the SEV metadata."""


@rule(
    "domain.loader.secure", _E,
    "no Secure Boot: its keys are UEFI variables, which are not measured, and it needs SMM", QEMU,
    mends=True,
)  # fmt: skip
def _secure(subject: Subject) -> Iterator[Violation]:
    wanted = [
        (element, "secure") for element in subject.domain.root.all("os/loader")
        if element.get("secure") == "yes"
    ] + [
        (element, "enabled") for element in subject.domain.root.all("os/firmware/feature")
        if element.get("enabled") == "yes"
    ]  # fmt: skip
    kind = "SEV-SNP" if subject.snp else "SEV-ES"
    for element, attribute in wanted:
        edit = subject.document.set_attribute(element, attribute, "no")
        # libvirt before 9.2 refuses secure='no' if it selects the firmware.
        if attribute == "secure" and subject.domain.selected_firmware:
            edit = subject.document.remove_attribute(element, attribute)
        yield Violation(
            element,
            f"{attribute}='yes': Secure Boot needs SMM, which {kind} guests do not have, and a "
            "variable store, which stateless firmware does not have",
            f"{attribute}='no'",
            (edit,),
        )


@rule(
    "domain.loader.smm", _W,
    "the name of an SEV-ES or SEV-SNP guest's firmware does not say that it is built for SMM", QEMU,
)  # fmt: skip
def _smm_build(subject: Subject) -> Iterator[Violation]:
    if subject.encrypts_state and _SMM_BUILD.search(subject.domain.loader_path.rpartition("/")[2]):
        yield Violation(
            subject.domain.place("os/loader"),
            "by its name, this firmware is built for Secure Boot, and does not start without SMM",
            "an OVMF build for SEV",
        )


@rule("domain.smm", _E, "SMM is off (W for plain SEV)", QEMU, mends=True)
def _smm(subject: Subject) -> Iterator[Violation]:
    smm = subject.domain.root.find("features/smm")
    if smm is None or smm.get("state") == "off":
        return
    without = subject.encrypts_state
    what = f"{subject.technology} guests do not have it" if without else "only Secure Boot needs it"
    edit = subject.document.set_attribute(smm, "state", "off")
    severity = _E if without else _W
    yield Violation(smm, f"SMM is on: {what}", "<smm state='off'/>", (edit,), severity)


@rule(
    "domain.firmware.hash-area", _E,
    "the firmware has an area for kernel hashes if kernelHashes='yes' (if the image is known)",
    QEMU,
)  # fmt: skip
def _hash_area(subject: Subject) -> Iterator[Violation]:
    firmware = subject.firmware
    if firmware is None or firmware.unfit or not subject.domain.kernel_hashes:
        return
    try:
        firmware.require_hash_table()
    except NotAttestable as error:
        yield Violation(
            subject.domain.place("os/loader"),
            f"{error}: QEMU will not start it",
            "an OVMF build for SEV direct boot (OvmfPkg/AmdSev)",
        )


@rule(
    "domain.firmware.es", _E,
    "the firmware can start the vCPUs of SEV-ES and SEV-SNP guests (if the image is known)", QEMU,
)  # fmt: skip
def _es_reset(subject: Subject) -> Iterator[Violation]:
    firmware = subject.firmware
    if firmware is None or firmware.unfit or not subject.encrypts_state:
        return
    try:
        firmware.reset_address()
    except (MalformedInput, NotAttestable) as error:
        what = str(error)
        if subject.snp:
            what = "the firmware does not say where the vCPUs of SEV-SNP guests start"
        fix = f"an OVMF build with {subject.technology} support"
        yield Violation(subject.domain.place("os/loader"), what, fix)


@rule(
    "domain.firmware.snp", _E,
    "an SEV-SNP guest's firmware has SEV metadata, and in it a section for kernel hashes if "
    "kernelHashes='yes' (if the image is known)", SEV_C,
)  # fmt: skip
def _snp_metadata(subject: Subject) -> Iterator[Violation]:
    firmware = subject.firmware
    if firmware is None or firmware.unfit or not subject.snp:
        return
    what = ""
    try:
        kinds = {kind for _, _, kind in firmware.sections()}
    except MalformedInput as error:
        what = str(error)
    else:
        if not kinds:
            what = "the firmware has no SEV metadata: QEMU cannot start SEV-SNP guests with it"
        elif subject.domain.kernel_hashes and _KERNEL_HASHES not in kinds:
            what = "the firmware has no section for kernel hashes in its SEV metadata"
    if what:
        fix = "an OVMF build with SEV-SNP support; for a kernel, OvmfPkg/AmdSev"
        yield Violation(subject.domain.place("os/loader"), what, fix)


@rule("domain.firmware.kind", _E, "the firmware is an OVMF image (if the image is known)", GUIDE)
def _kind(subject: Subject) -> Iterator[Violation]:
    if subject.firmware is None:
        return
    what = {
        "VARS": "a store for UEFI variables",
        "unknown": "not an OVMF image: it has no footer table",
    }.get(subject.firmware.kind, subject.firmware.unfit)
    if what:
        place = subject.domain.place("os/loader")
        yield Violation(place, f"the firmware is {what}", "an OVMF image with code in it")
