"""Differences in what was booted that SEV and SEV-SNP share: kernel, vCPUs, firmware images.

A kernel that was measured although none was stated cannot be tried: nothing says which one.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

from sev_attest._wire import Reader
from sev_attest.errors import SevAttestError
from sev_attest.guest.cpu import QEMU_MODELS, CpuModel
from sev_attest.guest.diagnosis.search import Change
from sev_attest.guest.footer import Ends
from sev_attest.guest.kernel_hashes import NO_INITRD
from sev_attest.guest.vmsa import VmsaPages, values_of

MOST_VCPUS = 512
_WORDS = {
    "kernel.hashes-off": "a launch without kernelHashes='yes'",
    "vcpus": f"another number of vCPUs (1 to {MOST_VCPUS})",
    "vmsa.profile": "another VMSA profile",
    "cpu.model": "another CPU model of QEMU's",
    "cmdline": "a command line with other blanks, quotes, newline or NUL, or none",
    "kernel.no-initrd": "a launch without the initrd",
    "kernel.swapped": "kernel and initrd swapped",
    "firmware.other": "another firmware image that was at hand",
    "firmware.joined": "firmware code and variables in one image, either way",
    "firmware.code-alone": "the firmware's code without its variables",
    "vmsa.swapped": "the vCPUs' pages swapped",
    "vmsa.boot-for-all": "the boot vCPU's page for all vCPUs",
    "cpu.stepping": "another CPU stepping",
}
_LIKELY_VCPUS = 128
_LIKELY_LINES = 16 + 2 * 64  # what is done to a whole line, and to each of 64 words
_KERNEL = "what is booted is yours to decide: state it so only if it makes no difference to you"
_FIRMWARE = (
    "firmware decides what the guest runs, and can lie about it: state this one only if you know "
    "where it comes from"
)


def words(*hypotheses: str) -> dict[str, str]:
    """Return what is ruled out if no change of these hypotheses fits."""
    return {hypothesis: _WORDS[hypothesis] for hypothesis in hypotheses}


class Booted(Protocol):
    """The part of a launch that a kernel is: its hash, the initrd's and the command line's."""

    @property
    def kernel(self) -> bytes:
        """SHA-256 of the kernel, 32 bytes."""

    @property
    def initrd(self) -> bytes:
        """SHA-256 of the initrd, 32 bytes."""

    @property
    def cmdline(self) -> bytes:
        """SHA-256 of the command line with its NUL, 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestClues:
    """Further inputs of a search: other firmware ``images`` by name, and what the owner stated.

    ``image`` is the stated firmware, ``cmdline`` the stated command line. ``left_out`` names the
    hypotheses that were not looked at completely; it may grow while ``images`` are read.
    """

    images: Iterable[tuple[str, bytes]] = ()
    image: bytes | None = None
    cmdline: bytes | None = None
    left_out: Collection[str] = ()


def kernel_changes(stated: Booted, clues: GuestClues) -> Iterator[Change]:
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


def page_changes(given: VmsaPages | None) -> Iterator[Change]:
    """Yield the vCPUs' pages the other way round, and the boot vCPU's page for all."""
    if given is not None and given.ap is not None:
        slip = _at_reset_vector(given.ap) and not _at_reset_vector(given.boot)
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


def ordered(pages: VmsaPages, order: str) -> VmsaPages:
    """Return the pages with one of the changes of :func:`page_changes`; as they are for ""."""
    if order == "boot":
        return VmsaPages(boot=pages.boot, ap=pages.boot)
    if order == "swapped":
        return VmsaPages(boot=pages.ap or pages.boot, ap=pages.boot)
    return pages


def _at_reset_vector(page: bytes) -> bool:
    values = values_of(page)
    return (values["cs.base"], values["rip"]) == (0xFFFF_0000, 0xFFF0)


def counts(stated: int) -> Iterator[Change]:
    """Yield every other number of vCPUs."""
    for count in range(1, MOST_VCPUS + 1):
        if count != stated:
            yield count_change(stated, count)


def count_change(stated: int, count: int) -> Change:
    """Return another number of vCPUs."""
    plural = "s" if count > 1 else ""
    return Change(
        hypothesis="vcpus",
        detail=f"it was launched with {count} vCPU{plural}, not {stated}",
        parts={"vcpus": count},
        options={"num_cpus": count},
        likely=count <= _LIKELY_VCPUS,
    )


def cpus(stated: CpuModel | None, meaning: str = "") -> Iterator[Change]:
    """Yield QEMU's other CPU models; the first of those that share a signature."""
    seen = {stated and stated.signature}
    for name in QEMU_MODELS:
        cpu = CpuModel.named(name)
        if cpu.signature not in seen:
            seen.add(cpu.signature)
            yield Change(
                hypothesis="cpu.model",
                detail=f"its CPU model was {name}",
                parts={"cpu": cpu},
                options={"cpu_model_name": name},
                meaning=meaning,
            )


def steppings(stated: CpuModel | None) -> Iterator[Change]:
    """Yield every other stepping of the stated CPU and of QEMU's models."""
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


def firmware_changes(clues: GuestClues, read: Callable[[bytes], object]) -> Iterator[Change]:
    """Yield the other images at hand, and images joined with or freed from their variables.

    ``read`` makes of an image what a launch has as its firmware; images for which it raises
    SevAttestError are left alone.
    """
    for hypothesis, what, image in _other_images(clues):
        try:
            firmware = read(image)
        except SevAttestError:
            continue
        yield Change(
            hypothesis=hypothesis,
            detail=f"its firmware was {what}",
            parts={"firmware": firmware},
            options={"firmware": what},
            meaning=_FIRMWARE,
        )


def _other_images(clues: GuestClues) -> Iterator[tuple[str, str, bytes]]:
    """Yield images with their hypothesis and what they are."""
    image = clues.image or b""
    kind = _kind(image) if image else ""
    for name, data in clues.images:
        if not data or data == image:
            continue
        yield "firmware.other", name, data
        if {kind, _kind(data)} == {"CODE", "VARS"}:
            yield "firmware.joined", f"yours with {name} behind it", image + data
            yield "firmware.joined", f"yours with {name} before it", data + image
    if kind == "whole":
        # Source: UEFI PI, EFI_FIRMWARE_VOLUME_HEADER.FvLength of the volume of variables
        size = Reader(image[32:40], "firmware volume", 8).number(8, "length")
        if size < len(image):  # else the header lies
            words = "yours without the variables that it begins with"
            yield "firmware.code-alone", words, image[size:]


def _kind(image: bytes) -> str:
    ends = Ends()
    ends.take(image)
    try:
        return ends.footer().kind
    except SevAttestError:  # a footer that lies
        return "unknown"
