"""snp/firmware.py: images and metadata that lie are refused in words, at bounded cost."""

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import MalformedInput, NotAttestable
from sev_attest._wire import guid_bytes, le
from sev_attest.guest import CpuModel
from sev_attest.guest.spec import EFI_NV_DATA_VOLUME, OVMF_SEV_INFO, OVMF_SEV_METADATA
from sev_attest.snp.digest import launch_digest
from sev_attest.snp.firmware import MAX_SECTION_PAGES, Section, SnpFirmware, Svsm
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image, with_footer

MILAN = CpuModel.named("EPYC-Milan")
OVMF = ovmf_image(8192, sections=SNP_SECTIONS)
TOP = (1 << 32) - 8192


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([(0x1000, 0x2000, 1), (0x2000, 0x1000, 2)], "overlaps section SEC_MEM at 0x1000, 0x2000"),
        ([(0x1000, 0x1000, 1), (0x1000, 0x1000, 1)], "overlaps"),
        ([(0x3000, 0x1000, 2), (0x1000, 0x3000, 1)], "section SECRETS at 0x3000"),
        ([(0x1001, 0x1000, 1)], "not whole pages of 4096"),
        ([(0x1000, 0x1001, 1)], "not whole pages of 4096"),
        ([(0x1000, 0, 1)], "not whole pages of 4096"),
        ([(0x1000, 1, 3)], "not whole pages of 4096"),
        ([(TOP, 0x1000, 1)], "it ends above 0xffffe000, where the firmware begins"),
        ([(TOP - 0x1000, 0x2000, 1)], "where the firmware begins"),
        ([(0xFFFF_F000, 0x1000, 1)], "where the firmware begins"),
        ([(0xFFFF_F000, 0xFFF_F000, 1)], "where the firmware begins"),
        ([(0, 0xFFFF_F000, 1)], "more than 256 MiB in all sections"),
        ([(0, 0xFFFF_FFFF, 1)], "more than 256 MiB in all sections"),
        ([(0, 0x800_0000, 1), (0x1000_0000, 0x800_1000, 1)], "more than 256 MiB in all sections"),
        ([(number * 0x1000, 0x1000, 1) for number in range(MAX_SECTION_PAGES // 32)], ""),
    ],
)
def test_sections_that_no_platform_can_load_are_refused(
    found: list[tuple[int, int, int]], words: str
) -> None:
    image = ovmf_image(8192 if len(found) < 9 else 1 << 15, sections=found)
    if not words:  # many, and all of them possible
        assert launch_digest(image, vcpus=1, vmsa=MILAN)
        return
    with pytest.raises(MalformedInput, match=words) as caught:
        launch_digest(image, vcpus=1, vmsa=MILAN)
    assert caught.value.structure == "firmware SEV metadata"


def test_sections_may_fill_what_is_below_the_firmware() -> None:
    image = ovmf_image(8192, sections=[(TOP - 0x1000, 0x1000, 1)])
    assert SnpFirmware.read(image).sections == (Section(TOP - 0x1000, 0x1000, 1),)


def test_the_bounds_hold_for_sections_that_come_without_an_image() -> None:
    with pytest.raises(MalformedInput, match="more than 256 MiB"):
        SnpFirmware(prefix=bytes(48), sections=[Section(0, 0xFFFF_F000, 1)])
    with pytest.raises(NotAttestable, match="no SEV metadata"):
        SnpFirmware(prefix=bytes(48), sections=[])


@pytest.mark.parametrize("size", [4095, 4097, 8191, 65535])
def test_odd_sizes_are_refused(size: int) -> None:
    image = ovmf_image(size, sections=SNP_SECTIONS)
    with pytest.raises(MalformedInput, match=f"firmware: {size} bytes are not whole pages of 4096"):
        SnpFirmware.read(image)


def test_no_and_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MalformedInput, match="the file is empty"):
        SnpFirmware.read(b"")
    monkeypatch.setattr("sev_attest.snp.firmware.MAX_IMAGE", 1 << 20)

    class Endless:
        taken = 0

        def read(self, size: int) -> bytes:
            self.taken += size
            return bytes(size)

    source = Endless()
    with pytest.raises(MalformedInput, match="more than 1 MiB: no guest starts from such an image"):
        SnpFirmware.read(source)  # type: ignore[arg-type] # a file, as far as it is used
    assert source.taken <= 2 << 20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(4096), "there is none, so it cannot start SEV-SNP guests"),
        (svsm_image(), "this is an SVSM, which is loaded beside the firmware"),
        (b"QFI\xfb".ljust(4096, b"\0"), "qcow2"),
        (b"IGVM".ljust(4096, b"\0"), "this is an IGVM file"),
        (
            (bytes(16) + guid_bytes(EFI_NV_DATA_VOLUME)).ljust(4096, b"\xff"),
            "there is none, so it cannot start SEV-SNP guests",
        ),
    ],
)
def test_other_files_are_named(data: bytes, words: str) -> None:
    with pytest.raises(MalformedInput, match=words):
        SnpFirmware.read(data)


def image_with(metadata: bytes) -> bytes:
    return with_footer({OVMF_SEV_INFO: le(0x80_B004, 4)}, size=8192, metadata=metadata)


SECTION = le(0x1000, 4) + le(0x1000, 4) + le(1, 4)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"ASEV" + le(27, 4) + le(1, 4) + le(1, 4) + SECTION, "27 bytes do not hold 1 sections"),
        (b"ASEV" + le(28, 4) + le(1, 4) + le(2, 4) + SECTION, "28 bytes do not hold 2 sections"),
        (b"ASEV" + le(28, 4) + le(2, 4) + le(1, 4) + SECTION, "version: 2, expected 1"),
        (b"XSEV" + le(28, 4) + le(1, 4) + le(1, 4) + SECTION, "is not ASEV"),
        (
            b"ASEV" + le(0xFFFF_FFFF, 4) + le(1, 4) + le(0xFFFF_FFFF, 4) + SECTION,
            "do not hold 4294967295 sections",
        ),
        (
            b"ASEV" + le(0xFFFF_FFFF, 4) + le(1, 4) + le(0x1555_5553, 4) + SECTION,
            "bytes left, 4 needed",
        ),
    ],
)
def test_metadata_that_lies_about_itself_is_refused(metadata: bytes, words: str) -> None:
    with pytest.raises(MalformedInput, match=words):
        SnpFirmware.read(image_with(metadata))


@pytest.mark.parametrize("offset", [0, 1, 0xFFFF, 0x10_0000, 0xFFFF_FFFF])
def test_an_offset_that_lies_is_refused(offset: int) -> None:
    image = with_footer({OVMF_SEV_METADATA: le(offset, 4)}, size=8192)
    with pytest.raises(MalformedInput, match="firmware SEV metadata"):
        SnpFirmware.read(image)


def test_of_damaged_images_only_our_errors_come() -> None:
    """A seeded sample of flipped and cut images: a digest, or an error of the library."""
    pick = random.Random(384)
    for image, read in ((OVMF, SnpFirmware.read), (svsm_image(8192), Svsm.read)):
        for _ in range(300):
            damaged = bytearray(image)
            for _ in range(pick.randrange(1, 4)):
                damaged[-pick.randrange(1, 400)] ^= 1 << pick.randrange(8)
            with suppress(MalformedInput, NotAttestable):
                read(bytes(damaged))


@given(st.lists(st.tuples(*[st.integers(0, 0xFFFF_FFFF)] * 3), max_size=20))
def test_any_sections_are_read_or_refused(found: list[tuple[int, int, int]]) -> None:
    try:
        SnpFirmware.read(ovmf_image(8192, sections=found))
    except (MalformedInput, NotAttestable):
        return
    assert sum(size for _, size, _ in found) <= MAX_SECTION_PAGES * 4096
