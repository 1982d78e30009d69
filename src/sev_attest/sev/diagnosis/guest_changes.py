"""Differences in what was booted: kernel, vCPUs, firmware, SEV or SEV-ES.

A kernel that was measured although none was stated cannot be tried: nothing says which one.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict

from sev_attest._wire import Reader
from sev_attest.errors import SevAttestError
from sev_attest.guest.cpu import QEMU_MODELS, CpuModel
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import NO_INITRD
from sev_attest.guest.spec import VMSA_PROFILES
from sev_attest.guest.vmsa import VmsaProfile, values_of
from sev_attest.sev.diagnosis.hypotheses import MOST_VCPUS, Change, Clues, Launch
from sev_attest.sev.policy import BITS, GuestPolicy
from sev_attest.sev.spec import PolicyBit

_LIKELY_VCPUS = 128
_LIKELY_LINES = 16 + 2 * 64  # what is done to a whole line, and to each of 64 words
_KERNEL = "what is booted is yours to decide: state it so only if it makes no difference to you"
_FIRMWARE = (
    "firmware decides what the guest runs, and can lie about it: state this one only if you know "
    "where it comes from"
)
_VMM = (
    "that is another VMM's or another kernel's vCPU state: state it only if you know that the host "
    "runs it"
)
_PAGES = (
    "then its vCPUs did not start as your pages say, but as the host set them up: state it so only "
    "if you know why"
)
_QEMU = tuple(name for name in VMSA_PROFILES if VmsaProfile.needs_cpu(name))


def kernel_changes(stated: Launch, clues: Clues) -> Iterator[Change]:
    """Yield other kernels' hashes: none, no initrd, the two swapped, other command lines."""
    yield Change(
        hypothesis="kernel.hashes-off",
        detail="it was launched without kernelHashes='yes'",
        parts={"hashes": False},
        options={"kernel": None},
        meaning="then nothing of kernel, initrd and command line was measured: the host chose them",
    )
    if stated.initrd != NO_INITRD:
        yield Change(
            hypothesis="kernel.no-initrd",
            detail="it was launched without the initrd",
            parts={"initrd": NO_INITRD},
            options={"initrd": None},
            meaning=_KERNEL,
        )
        yield Change(
            hypothesis="kernel.swapped",
            detail="kernel and initrd are swapped",
            parts={"kernel": stated.initrd, "initrd": stated.kernel},
            options={"kernel": "the initrd", "initrd": "the kernel"},
            meaning=f"if you named them in the wrong order, swap them; {_KERNEL}",
        )
    seen = {stated.cmdline}
    lines = _command_lines(clues.cmdline) if clues.cmdline is not None else ()
    for number, (what, measured) in enumerate(lines):
        digest = hashlib.sha256(measured).digest()
        if digest not in seen:
            seen.add(digest)
            yield Change(
                hypothesis="cmdline",
                detail=f"the command line {what}",
                parts={"cmdline": digest},
                options={"cmdline": measured.removesuffix(b"\0").decode(errors="backslashreplace")},
                meaning=_KERNEL,
                likely=number < _LIKELY_LINES,
            )


def _command_lines(line: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what may have been measured for this command line, including its final NUL."""
    plain = {
        "ended in a newline": line + b"\n",
        "ended in CR and LF": line + b"\r\n",
        "had no newline at its end": line.rstrip(b"\r\n"),
        "had two NULs at its end": line + b"\0",
        "had a blank at its end": line + b" ",
        "had a blank at its start": b" " + line,
        "had no blank at its end": line.rstrip(),
        "had no blank at its start": line.lstrip(),
        "had no blanks at its ends": line.strip(),
        "had single blanks": b" ".join(part for part in line.split(b" ") if part),
        "stood in double quotes": b'"' + line + b'"',
        "stood in single quotes": b"'" + line + b"'",
        "had no double quotes": line.replace(b'"', b""),
        "had no single quotes": line.replace(b"'", b""),
        "was empty": b"",
    }
    yield from ((what, text + b"\0") for what, text in plain.items())
    yield "was measured without its NUL", line
    words = line.split(b" ")
    for at, word in enumerate(words):
        shown = word.decode(errors="backslashreplace")
        name, equals, value = word.partition(b"=")
        spaced = b" ".join([*words[: at + 1], b"", *words[at + 1 :]])
        quoted = b" ".join([*words[:at], name + equals + b'"' + value + b'"', *words[at + 1 :]])
        yield f"had two blanks after {shown!r}", spaced + b"\0"
        yield f"had {shown!r} in double quotes", quoted + b"\0"


def vcpu_changes(stated: Launch) -> Iterator[Change]:
    """Yield other vCPUs: their number, profile, CPU model and stepping, and their pages."""
    yield from counts(stated.vcpus)
    if stated.given is None:
        yield from layouts(stated)
        yield from cpus(stated)
        yield from _steppings(stated.cpu)
    elif stated.given.ap is not None:
        slip = _at_reset_vector(stated.given.ap) and not _at_reset_vector(stated.given.boot)
        other = "then the boot vCPU started as you meant the others to: do not trust it"
        yield Change(
            hypothesis="vmsa.swapped",
            detail="the vCPUs' pages are swapped",
            parts={"order": "swapped"},
            options={"vmsa": "swapped"},
            meaning="" if slip else other,
        )
    yield Change(
        hypothesis="vmsa.boot-for-all",
        detail="all vCPUs were launched with the boot vCPU's page",
        parts={"order": "boot"},
        options={"vmsa_cpu1": "the boot vCPU's page"},
        meaning="then every vCPU starts at the reset vector, which no VMM does that is known here",
    )
    yield Change(
        hypothesis="vmsa.none",
        detail="no vCPU's state was measured",
        parts={"es": False},
        options={"num_cpus": 0},
        meaning="then the host chose it: it can start each vCPU where it likes",
    )


def _at_reset_vector(page: bytes) -> bool:
    values = values_of(page)
    return (values["cs.base"], values["rip"]) == (0xFFFF_0000, 0xFFF0)


def counts(stated: int) -> Iterator[Change]:
    """Yield every other number of vCPUs."""
    for count in range(1, MOST_VCPUS + 1):
        if count != stated:
            plural = "s" if count > 1 else ""
            yield Change(
                hypothesis="vcpus",
                detail=f"it was launched with {count} vCPU{plural}, not {stated}",
                parts={"vcpus": count},
                options={"num_cpus": count},
                likely=count <= _LIKELY_VCPUS,
            )


def layouts(stated: Launch) -> Iterator[Change]:
    """Yield every other VMSA profile."""
    assumed = stated.layout or VMSA_PROFILES[0]
    for name in VMSA_PROFILES:
        if name != stated.layout:
            yield Change(
                hypothesis="vmsa.profile",
                detail=f"its vCPUs were set up as in VMSA profile {name}",
                parts={"layout": name},
                options={"vmsa_profile": name},
                meaning=_PAGES if stated.given else _set_up(assumed, name),
            )


def _set_up(stated: str, name: str) -> str:
    """Return what another profile means for security; empty between QEMU's two."""
    dropped = "+" in stated and "+" not in name  # without debug-swap, the host controls more
    if stated in _QEMU and name in _QEMU and not dropped:
        return ""
    krun = "; krun's other vCPUs start outside the measured firmware" if name == "krun" else ""
    return _VMM + krun


def cpus(stated: Launch) -> Iterator[Change]:
    """Yield QEMU's other CPU models; the first of those that share a signature."""
    seen = {stated.cpu and stated.cpu.signature}
    for name in QEMU_MODELS:
        cpu = CpuModel.named(name)
        if cpu.signature not in seen:
            seen.add(cpu.signature)
            yield Change(
                hypothesis="cpu.model",
                detail=f"its CPU model was {name}",
                parts={"cpu": cpu},
                options={"cpu_model_name": name},
                meaning=_PAGES if stated.given else "",
            )


def _steppings(stated: CpuModel | None) -> Iterator[Change]:
    models = [CpuModel.named(name) for name in QEMU_MODELS]
    known = {cpu.signature for cpu in (*models, stated) if cpu}
    for model in (*([stated] if stated else []), *models):
        for stepping in range(16):
            cpu = CpuModel(family=model.family, model=model.model, stepping=stepping)
            if cpu.signature not in known:
                known.add(cpu.signature)
                numbers = f"{cpu.family}, model {cpu.model}, stepping {cpu.stepping}"
                yield Change(
                    hypothesis="cpu.stepping",
                    detail=f"its CPU was family {numbers}",
                    parts={"cpu": cpu},
                    options={f"cpu_{name}": number for name, number in asdict(cpu).items()},
                    likely=False,
                )


def firmware_changes(clues: Clues) -> Iterator[Change]:
    """Yield the other images at hand, and images joined with or freed from their variables."""
    image = clues.image or b""
    kind = _kind(Firmware.read(image)) if image else ""
    for name, data in clues.images:
        if not data or data == image:
            continue
        firmware = Firmware.read(data)
        yield _other_firmware("firmware.other", name, firmware)
        if {kind, _kind(firmware)} == {"CODE", "VARS"}:
            behind, before = f"yours with {name} behind it", f"yours with {name} before it"
            yield _other_firmware("firmware.joined", behind, Firmware.read(image + data))
            yield _other_firmware("firmware.joined", before, Firmware.read(data + image))
    if kind == "whole":
        # Source: UEFI PI, EFI_FIRMWARE_VOLUME_HEADER.FvLength of the volume of variables
        size = Reader(image[32:40], "firmware volume", 8).number(8, "length")
        if size < len(image):  # else the header lies
            words = "yours without the variables that it begins with"
            yield _other_firmware("firmware.code-alone", words, Firmware.read(image[size:]))


def _kind(firmware: Firmware) -> str:
    try:
        return firmware.kind
    except SevAttestError:  # a footer that lies
        return "unknown"


def _other_firmware(hypothesis: str, what: str, firmware: Firmware) -> Change:
    return Change(
        hypothesis=hypothesis,
        detail=f"its firmware was {what}",
        parts={"firmware": firmware},
        options={"firmware": what},
        meaning=_FIRMWARE,
    )


def plain_sev(stated: Launch) -> Iterator[Change]:
    """Yield the same guest as plain SEV."""
    policy = GuestPolicy(stated.policy & ~PolicyBit.ES)
    yield Change(
        hypothesis="es.off",
        detail=f"it was launched as plain SEV, with policy {policy}",
        parts={"es": False, "policy": policy.value},
        options={"policy": policy.value},
        meaning=f"then {BITS[PolicyBit.ES][2]}",
    )


def encrypted_state(stated: Launch) -> Change:
    """Return the same guest as SEV-ES; which vCPU state it then has is another change."""
    policy = GuestPolicy(stated.policy | PolicyBit.ES)
    return Change(
        hypothesis="es.on",
        detail=f"it was launched as SEV-ES, with policy {policy}",
        parts={"es": True, "policy": policy.value},
        options={"policy": policy.value},
        meaning=f"then {BITS[PolicyBit.ES][1]}: make a session with that policy if you want it",
    )


def machines(stated: Launch) -> Iterator[tuple[Change, ...]]:
    """Yield every known vCPU state: profile, CPU model and number of vCPUs together."""
    if stated.firmware is None:
        return
    none: tuple[Change | None, ...] = (None,)
    head = () if stated.es else (encrypted_state(stated),)
    numbers = (*none, *counts(stated.vcpus))
    for layout in (*none, *layouts(stated)):
        name = layout.options["vmsa_profile"] if layout else stated.layout
        shows_cpu = name is None or VmsaProfile.shows_cpu(str(name))
        for cpu in (*none, *(cpus(stated) if shows_cpu else ())):
            for number in numbers:
                yield tuple(change for change in (*head, number, cpu, layout) if change)
