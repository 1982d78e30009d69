"""The launch digest of an SEV-SNP guest, by the second implementation.

It is written for plainness: a list of pages, each as type, address and contents; then one hash
after the other.
"""

import base64
import struct
from collections.abc import Iterator
from hashlib import sha384
from typing import NamedTuple

from judge_parts import (
    FOLDER,
    Case,
    Refused,
    cpu_signature,
    footer_entry,
    hash_table,
    little,
    vcpu_page,
)

RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
HASH_AREA = "7255371f-3a3b-4b04-927b-1da6efa8d454"
METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
SVSM_INFO = "a789a612-0597-4c4b-a49f-cbb1fe9d1ddd"
NORMAL, VMSA, ZERO, UNMEASURED, SECRETS, CPUID = range(1, 7)
FOUR_GIB, PAGE = 1 << 32, 4096
VMSA_ADDRESS = 0xFFFFFFFFF000
SVSM = ("svsm", "svsm-init2")
AMAZON = ("ec2", "ec2-old")
Section = tuple[int, int, int]
"""Address, size and type."""


class Page(NamedTuple):
    """A page of the guest; contents that are not measured are empty."""

    kind: int
    address: int
    contents: bytes = b""


def chain(pages: Iterator[Page], digest: bytes = bytes(48)) -> Iterator[bytes]:
    """Yield the digest after each page: SHA-384 of its PAGE_INFO."""
    for page in pages:
        content = sha384(page.contents).digest() if page.contents else bytes(48)
        info = struct.pack(
            "<48s48sHBBBBBBQ", digest, content, 112, page.kind, *[0] * 5, page.address
        )
        digest = sha384(info).digest()
        yield digest


def image_pages(image: bytes, top: int) -> Iterator[Page]:
    """Yield the pages of an image that ends below ``top``."""
    for at in range(0, len(image), PAGE):
        yield Page(NORMAL, top - len(image) + at, image[at : at + PAGE])


def sections(image: bytes) -> list[Section]:
    """Read address, size and type of each section that an image asks for."""
    entry = footer_entry(image, METADATA)
    if not entry:
        raise Refused("firmware.snp-metadata")
    at = len(image) - little(entry)
    magic, _, version, count = struct.unpack_from("<4sIII", image, at)
    if magic != b"ASEV":
        raise Refused("firmware-sev-metadata.signature")
    if version != 1:
        raise Refused("firmware-sev-metadata.version")
    return [struct.unpack_from("<III", image, at + 16 + 12 * n) for n in range(count)]


def check_places(found: list[Section], top: int) -> None:
    """Refuse sections that are not whole pages, overlap, or reach into the images."""
    if sum(size for _, size, _ in found) > 256 << 20:
        raise Refused("firmware-sev-metadata.section size")
    taken: set[int] = set()
    for address, size, _ in found:
        pages = range(address, address + size, PAGE)
        if address % PAGE or size % PAGE or not size or taken & {*pages} or address + size > top:
            raise Refused("firmware-sev-metadata.section")
        taken |= {*pages}


def section_pages(
    found: list[Section], layout: str, table: bytes | None, area: int
) -> Iterator[Page]:
    """Yield the pages of all sections, in the order in which this VMM loads them."""
    if layout in AMAZON:
        found = [s for s in found if s[2] != 3] + [s for s in found if s[2] == 3]
    for address, size, kind in found:
        if kind not in (1, 2, 3, 4, 0x10) and layout != "qemu":
            raise Refused("firmware.section")
        for at in range(0, size, PAGE):
            if kind == 0x10 and table is not None:
                first = (bytes(area % PAGE) + table).ljust(PAGE, b"\0")
                yield Page(NORMAL, address + at, bytes(PAGE) if at else first)
            else:
                loaded = {2: SECRETS, 3: CPUID}.get(kind, ZERO)
                if layout == "gce" and kind == 1:
                    loaded = UNMEASURED
                yield Page(loaded, address + at)


def vcpus(layout: str, signature: int, features: int, start: int) -> Iterator[bytes]:
    """Yield the page of the boot vCPU, then that of each other one, without end."""
    boot, other = (
        bytearray(vcpu_page(signature, address)) for address in (0xFFFFFFF0, start & 0xFFFFFFFF)
    )
    for page, first in ((boot, True), (other, False)):
        struct.pack_into("<Q", page, 0x3B0, features)
        if layout in ("qemu", "svsm-init2"):
            struct.pack_into("<I", page, 0x408, 0x1F80)
            struct.pack_into("<H", page, 0x410, 0x37F)
        if layout in (*AMAZON, "krun"):
            struct.pack_into("<H", page, 0x12, 0x9A if first or layout == "krun" else 0x9B)
            struct.pack_into("<H", page, 0x22, 0x92)
            struct.pack_into("<H", page, 0x92, 0x83)
        if layout in ("ec2", "gce"):
            struct.pack_into("<Q", page, 0x310, 0x600)
        if layout == "ec2-old":
            struct.pack_into("<Q", page, 0x310, 0)
        if layout == "gce":
            struct.pack_into("<Q", page, 0x268, 0x70106)
        if layout == "krun":
            krun(page, first=first)
        if layout in SVSM:
            flat(page, start)
    yield bytes(boot)
    while True:
        yield bytes(other)


def krun(page: bytearray, *, first: bool) -> None:
    """Put libkrun's registers into a page: its APs start at an address of their own."""
    if first:
        for at, value in ((0x1D8, 0x8FF0), (0x328, 0x8FF0), (0x330, 0x7000)):
            struct.pack_into("<Q", page, at, value)
    else:
        struct.pack_into("<HHIQ", page, 0x10, 0x9100, 0x9A, 0xFFFF, 0x91000)
        struct.pack_into("<Q", page, 0x178, 0)


def flat(page: bytearray, start: int) -> None:
    """Let a vCPU start an SVSM: in flat 32-bit mode."""
    for at in (0x00, 0x20, 0x30, 0x40):
        struct.pack_into("<HHIQ", page, at, 0x10, 0xC93, 0xFFFFFFFF, 0)
    struct.pack_into("<HHIQ", page, 0x10, 0x8, 0xC9B, 0xFFFFFFFF, 0)
    struct.pack_into("<Q", page, 0x158, 0x11)
    struct.pack_into("<Q", page, 0x178, start)


class Loaded(NamedTuple):
    """What a VMM knows once its images are loaded."""

    digest: bytes
    """The launch digest so far."""
    sections: list[Section]
    top: int
    """Where the lowest image begins."""
    start: int
    """Where the APs start; with an SVSM, every vCPU."""
    area: int = 0
    """Where the firmware looks for kernel hashes."""
    svsm: bool = False


def loaded(firmware: bytes, layout: str, svsm: bytes = b"", vars_size: int = 0) -> Loaded:
    """Load the firmware, and an SVSM below it."""
    *_, digest = chain(image_pages(firmware, FOUR_GIB))
    top = FOUR_GIB - len(firmware)
    if not svsm:
        area = little(footer_entry(firmware, HASH_AREA)[:4])
        return Loaded(digest, sections(firmware), top, reset_address(firmware, layout), area)
    *_, digest = chain(image_pages(svsm, top - vars_size), digest)
    top -= vars_size + len(svsm)
    start = top + little(footer_entry(svsm, SVSM_INFO))
    return Loaded(digest, sections(svsm), top, start, svsm=True)


def launch_digests(
    guest: Loaded,
    most: int,
    *,
    layout: str = "qemu",
    signature: int = 0,
    features: int = 1,
    table: bytes | None = None,
) -> list[bytes]:
    """Return the digests for 1 to ``most`` vCPUs; ``table`` is that of kernel hashes."""
    check_places(guest.sections, guest.top)
    if guest.svsm is not (layout in SVSM):
        raise Refused("svsm.layout")
    if table and guest.svsm:
        raise Refused("svsm.kernel")
    if table and not any(
        kind == 0x10 and address <= guest.area <= address + PAGE - 176
        for address, _, kind in guest.sections
    ):
        raise Refused("firmware.hash-section")
    pages = [*section_pages(guest.sections, layout, table, guest.area)]
    states = vcpus(layout, signature, features, guest.start)
    pages += [Page(VMSA, VMSA_ADDRESS, next(states)) for _ in range(most)]
    return [*chain(iter(pages), guest.digest)][-most:]


def reset_address(firmware: bytes, layout: str) -> int:
    """Return where the APs start; libkrun has its own address for that."""
    start = little(footer_entry(firmware, RESET))
    if not start and (layout != "krun" or footer_entry(firmware, RESET)):
        raise Refused("firmware.sev-es-reset")
    return start


def digests_of(case: Case, most: int) -> list[bytes]:
    """Compute the digests of a case."""
    guest = case["guest"]
    parts = (base64.b64decode(guest.get(key, "")) for key in ("kernel", "initrd", "cmdline"))
    svsm = (FOLDER / guest["svsm"]).read_bytes() if "svsm" in guest else b""
    firmware = (FOLDER / guest["firmware"]).read_bytes()
    return launch_digests(
        loaded(firmware, guest["layout"], svsm, guest.get("vars_size", 0)),
        most,
        layout=guest["layout"],
        signature=cpu_signature(guest["cpu"]) if guest["cpu"] else 0,
        features=int(guest["features"], 16),
        table=hash_table(*parts) if "kernel" in guest else None,
    )


def problems(case: Case) -> list[str]:
    """Compare the digests of a case, or the check that refuses it."""
    counts = [int(count) for count in case["digests"] or {"1": ""}]
    try:
        found, refused = digests_of(case, max(counts)), None
    except Refused as error:
        found, refused = [], error.check
    if refused != case["failed_check"]:
        return [f"{refused or 'nothing'} refuses it"]
    digests = {str(count): found[count - 1].hex() for count in counts} if found else None
    return [] if digests == case["digests"] else ["other digests"]
