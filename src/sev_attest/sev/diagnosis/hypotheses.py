"""What may have been different from what the owner stated: the catalogue behind :mod:`diagnose`.

A :class:`Launch` is everything that goes into one measurement; a :class:`Change` replaces a part of
it. To add a hypothesis: its id in :data:`RULED_OUT`, and a function that yields its changes.

A kernel that was measured though none was stated cannot be tried: nothing tells which one.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations, permutations, product
from typing import NamedTuple

from sev_attest._wire import Reader
from sev_attest.errors import SevAttestError
from sev_attest.guest.cpu import QEMU_MODELS, CpuModel
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import NO_CMDLINE, NO_INITRD
from sev_attest.guest.vmsa import PROFILES, VmsaPages, VmsaProfile, values_of
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.policy import BITS, GuestPolicy
from sev_attest.sev.spec import PolicyBit

MOST_VCPUS = 512
_LIKELY_VCPUS = 128
_LIKELY_LINES = 16 + 2 * 64  # what is done to a whole line, and to each of 64 words
_BYTE = 0xFF
_POLICY_LIMIT = 0xFFFF_FFFF
_NUMBERS = ("api_major", "api_minor", "build_id")
_KERNEL = "what is booted is yours to decide: state it so only if it makes no difference to you"
_FIRMWARE = (
    "firmware decides what the guest runs, and can lie about it: state this one only if you know "
    "where it comes from"
)
_OLDER = (
    "then it ran on older firmware than these numbers say: if the host reported them for this "
    "launch, take that for an attack"
)
_CLAIMED = (
    "it may be of another launch, or the host reports numbers of firmware that it did not run: ask "
    "for measurement and numbers of one launch, and use no session for two"
)
_VMM = (
    "that is another VMM's or another kernel's vCPU state: state it only if you know that the host "
    "runs it"
)
_PAGES = (
    "then its vCPUs did not start as your pages say, but as the host set them up: state it so only "
    "if you know why (`sev-attest vmsa diff` compares pages)"
)
_QEMU = tuple(name for name in PROFILES if VmsaProfile.needs_cpu(name))

RULED_OUT = {
    "keys.swapped": "TIK and TEK in each other's place",
    "kernel.hashes-off": "a launch without kernelHashes='yes'",
    "vcpus": f"another number of vCPUs (1 to {MOST_VCPUS})",
    "vmsa.profile": "another VMSA profile",
    "cpu.model": "another CPU model of QEMU's",
    "cmdline": "a command line with other blanks, quotes, newline or NUL, or none",
    "kernel.no-initrd": "a launch without the initrd",
    "kernel.swapped": "kernel and initrd in each other's place",
    "firmware.other": "another firmware image that was at hand",
    "firmware.joined": "firmware code and variables in one image, either way",
    "firmware.code-alone": "the firmware's code without its variables",
    "keys.other": "other keys that were at hand",
    "numbers.swapped": "API and build in each other's place",
    "numbers.base": "API, build or policy read as hex instead of decimal, or the reverse",
    "policy.session": "the policy of the session's record",
    "policy.bit": "a policy with one other bit",
    "es.off": "a launch as plain SEV",
    "es.on": "a launch as SEV-ES, with any vCPU state that is known here",
    "vmsa.swapped": "the vCPUs' pages in each other's place",
    "vmsa.boot-for-all": "the boot vCPU's page for all vCPUs",
    "vmsa.none": "a launch whose vCPU state was not measured",
    "numbers.one": "another API major, API minor or build",
    "cpu.stepping": "another CPU stepping",
    "policy.bits": "a policy with two other bits",
    "launch.other": "API 0.x and 1.x with any build, as of another launch",
}
"""Every hypothesis, likeliest first, and what is ruled out where none of its changes fits."""
RANK = {hypothesis: rank for rank, hypothesis in enumerate(RULED_OUT)}


class Launch(NamedTuple):
    """Everything that goes into one measurement.

    ``given`` are the vCPUs' pages unless a ``layout`` or ``cpu`` to build them by is there.
    """

    keys: TransportKeys
    api_major: int
    api_minor: int
    build_id: int
    policy: int
    firmware: Firmware | None = None
    hashes: bool = False
    kernel: bytes = b""
    initrd: bytes = NO_INITRD
    cmdline: bytes = NO_CMDLINE
    es: bool = False
    vcpus: int = 1
    given: VmsaPages | None = None
    layout: str | None = None
    cpu: CpuModel | None = None
    order: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One way in which the launch may differ.

    ``detail`` ends the sentence "it fits if ...". ``parts`` replaces fields of :class:`Launch`,
    ``options`` says the same as the command line's options. ``meaning`` is there for what its owner
    decided: what the difference means for security. A ``likely`` one is tried in pairs too.
    """

    hypothesis: str
    detail: str
    parts: Mapping[str, object] = field(repr=False)
    options: Mapping[str, object]
    meaning: str = ""
    likely: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """What else is at hand: keys and firmware images by name, and how the owner stated the rest.

    ``verified`` names those keys whose session's record has a verified platform and this policy.
    ``image`` is the stated firmware, ``cmdline`` the stated command line, and ``recorded`` the
    policy in a record of this session. ``typed`` names what the owner typed of "api_major",
    "api_minor" and "build_id"; the rest is the host's claim. ``left_out`` names the hypotheses of
    which not all was looked at; it may grow as ``images`` are read.
    """

    keys: Mapping[str, TransportKeys] = field(default_factory=dict)
    verified: Collection[str] = ()
    images: Iterable[tuple[str, bytes]] = ()
    image: bytes | None = None
    cmdline: bytes | None = None
    recorded: int | None = None
    typed: Collection[str] = ()
    left_out: Collection[str] = ()


def changes(stated: Launch, clues: Clues) -> Iterator[Change]:
    """Give every single change, likely and cheap ones first."""
    yield from _keys(stated, clues)
    if stated.hashes:
        yield from _kernel(stated, clues)
    if stated.es:
        yield from _vcpus(stated)
        yield from _plain(stated)
    yield from _numbers(stated, clues)
    yield from _policies(stated, clues)
    if stated.firmware is not None:
        yield from _firmware(clues)


def _keys(stated: Launch, clues: Clues) -> Iterator[Change]:
    swapped = TransportKeys(tek=stated.keys.tik, tik=stated.keys.tek)
    yield Change(
        hypothesis="keys.swapped",
        detail="TIK and TEK are in each other's place",
        parts={"keys": swapped},
        options={"keys": "swapped"},
    )
    for name, keys in clues.keys.items():
        unknown = (
            f"then the measurement was made in another session ({name}), of which no record of a "
            "verified platform and this policy is at hand: do not trust it"
        )
        yield Change(
            hypothesis="keys.other",
            detail=f"the keys are those of {name}",
            parts={"keys": keys},
            options={"keys": name},
            meaning="" if name in clues.verified else unknown,
        )


def _kernel(stated: Launch, clues: Clues) -> Iterator[Change]:
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
            detail="kernel and initrd are in each other's place",
            parts={"kernel": stated.initrd, "initrd": stated.kernel},
            options={"kernel": "the initrd", "initrd": "the kernel"},
            meaning=f"if you named them in the wrong order, swap --kernel and --initrd; {_KERNEL}",
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
    """Give what may have been measured for this command line, with its final NUL."""
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


def _vcpus(stated: Launch) -> Iterator[Change]:
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
            detail="--vmsa-cpu0 and --vmsa-cpu1 are in each other's place",
            parts={"order": "swapped"},
            options={"vmsa": "swapped"},
            meaning="" if slip else other,
        )
    yield Change(
        hypothesis="vmsa.boot-for-all",
        detail="all vCPUs were launched with the boot vCPU's page",
        parts={"order": "boot"},
        options={"vmsa_cpu1": "that of --vmsa-cpu0"},
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
    """Every other number of vCPUs."""
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
    """Every other VMSA profile."""
    for name in PROFILES:
        if name != stated.layout:
            yield Change(
                hypothesis="vmsa.profile",
                detail=f"its vCPUs were set up as in VMSA profile {name}",
                parts={"layout": name},
                options={"vmsa_profile": name},
                meaning=_PAGES if stated.given else _set_up(stated.layout or PROFILES[0], name),
            )


def _set_up(stated: str, name: str) -> str:
    """Say what it means if vCPUs were set up otherwise; nothing for QEMU's two ways."""
    dropped = "+" in stated and "+" not in name  # debug-swap: without it, more is the host's
    if stated in _QEMU and name in _QEMU and not dropped:
        return ""
    krun = "; krun's other vCPUs start outside the measured firmware" if name == "krun" else ""
    return _VMM + krun


def cpus(stated: Launch) -> Iterator[Change]:
    """Every other CPU model of QEMU's; of those with one signature, the first."""
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


def _firmware(clues: Clues) -> Iterator[Change]:
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


def _plain(stated: Launch) -> Iterator[Change]:
    policy = GuestPolicy(stated.policy & ~PolicyBit.ES)
    yield Change(
        hypothesis="es.off",
        detail=f"it was launched as plain SEV, with policy {policy}",
        parts={"es": False, "policy": policy.value},
        options={"policy": policy.value},
        meaning=f"then {BITS[PolicyBit.ES][2]}",
    )


def _encrypted_state(stated: Launch) -> Change:
    policy = GuestPolicy(stated.policy | PolicyBit.ES)
    return Change(
        hypothesis="es.on",
        detail=f"it was launched as SEV-ES, with policy {policy}",
        parts={"es": True, "policy": policy.value},
        options={"policy": policy.value},
        meaning=f"then {BITS[PolicyBit.ES][1]}: make a session with that policy if you want it",
    )


def _numbers(stated: Launch, clues: Clues) -> Iterator[Change]:
    values = {name: getattr(stated, name) for name in _NUMBERS}
    for order in list(permutations(_NUMBERS))[1:]:
        parts = {
            name: values[other]
            for name, other in zip(_NUMBERS, order, strict=True)
            if values[other] != values[name]
        }
        if parts:
            yield _number("numbers.swapped", stated, clues, parts)
    hexed = {name: _other_base(value) for name, value in values.items()}
    for size in range(1, len(_NUMBERS) + 1):
        for names in combinations(_NUMBERS, size):
            for bases in product((0, 1), repeat=size):
                parts = {n: hexed[n][base] for n, base in zip(names, bases, strict=True)}
                if all(0 <= part <= _BYTE and part != values[n] for n, part in parts.items()):
                    yield _number("numbers.base", stated, clues, parts)
    for name in reversed(_NUMBERS):
        for value in range(_BYTE + 1):
            if value != values[name]:
                yield _number("numbers.one", stated, clues, {name: value}, likely=False)


def _other_base(value: int) -> tuple[int, int]:
    """Read a number's decimal digits as hex, and its hex digits as decimal (-1: they are none)."""
    digits = f"{value:x}"
    return int(str(value), 16), int(digits) if digits.isdigit() else -1


def _number(
    hypothesis: str,
    stated: Launch,
    clues: Clues,
    parts: Mapping[str, int],
    *,
    likely: bool = True,
) -> Change:
    words = {"api_major": "API major", "api_minor": "API minor", "build_id": "build"}
    found = [
        f"{words[name]} was {value}, not {getattr(stated, name)}" for name, value in parts.items()
    ]
    claimed = "" if set(parts) <= set(clues.typed) else _CLAIMED
    older = _firmware_of(stated._replace(**parts)) < _firmware_of(stated)  # type: ignore[arg-type] # numbers alone
    return Change(
        hypothesis=hypothesis,
        detail=" and ".join(found),
        parts=parts,
        options=parts,
        meaning=_OLDER if older else claimed,
        likely=likely,
    )


def _firmware_of(launch: Launch) -> tuple[int, int, int]:
    return launch.api_major, launch.api_minor, launch.build_id


def _policies(stated: Launch, clues: Clues) -> Iterator[Change]:
    seen = {stated.policy}

    def change(hypothesis: str, value: int, *, likely: bool = True) -> Iterator[Change]:
        if value not in seen and 0 <= value <= _POLICY_LIMIT:
            seen.add(value)
            yield _policy(hypothesis, stated, value, likely=likely)

    if clues.recorded is not None:
        yield from change("policy.session", clues.recorded)
    if stated.firmware is not None:
        seen.add(stated.policy ^ PolicyBit.ES)  # that is es.off or es.on
    for value in _other_base(stated.policy):
        yield from change("numbers.base", value)
    for bit in range(32):
        yield from change("policy.bit", stated.policy ^ 1 << bit, likely=1 << bit <= max(PolicyBit))
    for one, two in combinations(range(32), 2):
        yield from change("policy.bits", stated.policy ^ 1 << one ^ 1 << two, likely=False)


def _policy(hypothesis: str, stated: Launch, value: int, *, likely: bool) -> Change:
    policy, other = GuestPolicy(value), GuestPolicy(stated.policy)
    meaning = [words[1 if bit in policy.bits else 2] for bit, words in BITS.items()
               if (bit in policy.bits) is not (bit in other.bits)]  # fmt: skip
    if policy.min_api != other.min_api:
        meaning.append(f"it starts on SEV API {policy.min_api[0]}.{policy.min_api[1]} and later")
    if policy.reserved != other.reserved:
        whose = "it has" if policy.reserved else "you stated"
        meaning.append(f"{whose} reserved bits, which no firmware takes")
    return Change(
        hypothesis=hypothesis,
        detail=f"its policy was {policy}, not {other}",
        parts={"policy": value, "es": policy.es} if stated.firmware else {"policy": value},
        options={"policy": value},
        meaning=f"then {'; '.join(meaning)}",
        likely=likely,
    )


def other_launches(stated: Launch) -> Iterator[Change]:
    """Every API and build at once: the numbers of another launch, or of other firmware."""
    majors = dict.fromkeys((stated.api_major, 1, 0))
    reported = _firmware_of(stated)
    for major, minor, build in product(majors, range(256), range(256)):
        parts = {"api_major": major, "api_minor": minor, "build_id": build}
        yield Change(
            hypothesis="launch.other",
            detail=f"it was made on API {major}.{minor} build {build}",
            parts=parts,
            options=parts,
            meaning=_OLDER if (major, minor, build) < reported else _CLAIMED,
        )


def machines(stated: Launch) -> Iterator[tuple[Change, ...]]:
    """Every vCPU state that is known: profile, CPU model and number of vCPUs, all at once."""
    if stated.firmware is None:
        return
    none: tuple[Change | None, ...] = (None,)
    head = () if stated.es else (_encrypted_state(stated),)
    numbers = (*none, *counts(stated.vcpus))
    for layout in (*none, *layouts(stated)):
        name = layout.options["vmsa_profile"] if layout else stated.layout
        shows_cpu = name is None or VmsaProfile.shows_cpu(str(name))
        for cpu in (*none, *(cpus(stated) if shows_cpu else ())):
            for number in numbers:
                yield tuple(change for change in (*head, number, cpu, layout) if change)
