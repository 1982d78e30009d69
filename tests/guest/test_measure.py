"""measure/: firmware, kernel hashes, vCPU state, the launch digest."""

import hashlib
import json
import threading
from io import BytesIO
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sevsnpmeasure import guest as peer
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import SevEsSaveArea, VmcbSeg

from sev_attest import MalformedInput, NotAttestable, SevAttestError, Unsupported, sev
from sev_attest.guest import CpuModel, Firmware, KernelHashes, VmsaPages, VmsaProfile
from sev_attest.guest import firmware as ovmf
from sev_attest.guest import vmsa as layout
from sev_attest.guest.firmware import sha256_of, sha256_of_both
from sev_attest.guest.spec import OVMF_FOOTER, OVMF_SEV_INFO, OVMF_SVSM_INFO
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import with_footer

MILAN = CpuModel(family=25, model=1, stepping=1)
OVMF = ovmf_image()


@pytest.mark.parametrize("size", [1, 31, 32, 48, 50, 4096, (1 << 20) - 1, 1 << 20, 3 << 20])
def test_firmware_is_hashed_whole_from_bytes_path_or_file(size: int, tmp_path: Path) -> None:
    image = hashlib.shake_128(b"x").digest(size)
    path = tmp_path / "fw"
    path.write_bytes(image)
    for source in (image, path, str(path), BytesIO(image)):
        firmware = Firmware.read(source)
        assert (firmware.size, firmware.sha256) == (size, hashlib.sha256(image).digest())
        assert firmware.tables() == {}


def test_empty_firmware_is_refused() -> None:
    with pytest.raises(MalformedInput, match="firmware: the file is empty"):
        sev.launch_digest(b"")


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sev.launch_digest(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        sev.launch_digest(tmp_path)


class Endless:
    """A file of ``size`` bytes that counts how much of it was asked for at once."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.largest = 0

    def read(self, size: int) -> bytes:
        self.largest = max(self.largest, size)
        taken = min(size, self.left)
        self.left -= taken
        return bytes(taken)


def test_files_are_streamed_never_held_whole() -> None:
    kernel, initrd = Endless(40 << 20), Endless(60 << 20)
    sev.launch_digest(OVMF, kernel=kernel, initrd=initrd)  # type: ignore[arg-type]
    assert (kernel.left, initrd.left) == (0, 0)
    assert max(kernel.largest, initrd.largest) <= 1 << 20


def test_two_sources_are_hashed_side_by_side_only_if_both_are_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovmf, "_LARGE", 1000)
    (tmp_path / "small").write_bytes(b"s" * 999)
    (tmp_path / "large").write_bytes(b"l" * 1000)
    (tmp_path / "larger").write_bytes(b"m" * (1 << 20))
    threads: set[int] = set()
    whole = ovmf.sha256_of

    def watched(source: ovmf.Source) -> bytes:
        threads.add(threading.get_ident())
        return whole(source)

    monkeypatch.setattr(ovmf, "sha256_of", watched)
    places = [tmp_path / name for name in ("small", "large", "larger")]
    sources: dict[ovmf.Source, bytes] = {place: place.read_bytes() for place in places}
    sources[b"l" * 5000] = b"l" * 5000
    for pair in product(sources, repeat=2):
        threads.clear()
        expected = tuple(hashlib.sha256(sources[source]).digest() for source in pair)
        assert sha256_of_both(*pair) == expected
        assert len(threads) == (2 if all(source in places[1:] for source in pair) else 1)


def test_one_open_file_is_not_read_by_two_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovmf, "_LARGE", 1000)
    (tmp_path / "large").write_bytes(b"l" * 5000)
    with (tmp_path / "large").open("rb") as file:
        hashes = sha256_of_both(file, file)
    assert hashes == (hashlib.sha256(b"l" * 5000).digest(), hashlib.sha256(b"").digest())


def test_what_goes_wrong_beside_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovmf, "_LARGE", 1000)
    (tmp_path / "large").write_bytes(b"l" * 5000)
    with (tmp_path / "large").open("rb") as good, (tmp_path / "large").open("rb") as bad:

        class Broken:
            fileno = bad.fileno

            def read(self, _size: int) -> bytes:
                raise OSError(5, "Input/output error")

        for pair in ((good, Broken()), (Broken(), good)):
            with pytest.raises(OSError, match="Input/output"):
                sha256_of_both(*pair)


def test_the_footer_says_what_the_image_declares() -> None:
    firmware = Firmware.read(OVMF)
    assert firmware.reset_address() == 0x80B004
    firmware.require_hash_table()
    assert set(firmware.tables()) == {
        "00f771de-1a7e-4fcb-890e-68c77e2fb44e",
        "4c2eb361-7d9b-4cc3-8081-127c90d3d294",
        "7255371f-3a3b-4b04-927b-1da6efa8d454",
    }


def footer(entries: bytes, length: int | None = None) -> bytes:
    """Make an image of 4 KiB with that footer table, and that length in it."""
    length = len(entries) + 18 if length is None else length
    table = entries + length.to_bytes(2, "little") + UUID(OVMF_FOOTER).bytes_le
    return bytes(4096 - 32 - len(table)) + table + bytes(32)


def entry(data: bytes, guid: str = OVMF_SEV_INFO, length: int | None = None) -> bytes:
    """Make a footer entry, and that length in it."""
    length = len(data) + 18 if length is None else length
    return data + length.to_bytes(2, "little") + UUID(guid).bytes_le


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (footer(b"", 0), "footer: its length is 0"),
        (footer(b"", 17), "footer: its length is 17"),
        (footer(b"", 4065), "footer: its length is 4065, but 18 to 4064 bytes are there"),
        (footer(b"", 0xFFFF), "footer: its length is 65535"),
        (footer(bytes(17)), "footer entry: 17 bytes are too few"),
        (footer(entry(bytes(4), length=0)), "footer entry: its length is 0"),
        (footer(entry(bytes(4), length=17)), "footer entry: its length is 17"),
        (footer(entry(bytes(4), length=23)), "footer entry: its length is 23"),
        (footer(entry(bytes(4)) * 2), "is there twice"),
        (footer(entry(bytes(3))), "reset block: 3 bytes, expected 4"),
        (footer(entry(bytes(5))), "reset block: 5 bytes, expected 4"),
        (UUID(OVMF_FOOTER).bytes_le + bytes(32), "footer: 16 bytes are too few"),
    ],
)
def test_a_footer_whose_lengths_lie_is_refused(image: bytes, words: str) -> None:
    with pytest.raises(MalformedInput, match=words):
        sev.launch_digest(image, vcpus=1, vmsa=MILAN)


def test_firmware_without_a_reset_address_starts_no_sev_es_guest() -> None:
    with pytest.raises(NotAttestable, match="has no SEV-ES reset block"):
        sev.launch_digest(ovmf_image(8192, reset_address=None), vcpus=1, vmsa=MILAN)
    for image in (bytes(4096), footer(b"")):
        with pytest.raises(MalformedInput, match="footer: there is none"):
            sev.launch_digest(image, vcpus=1, vmsa=MILAN)


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_reset_address_of_0_starts_no_sev_es_guest(vcpus: int) -> None:
    """Nor with pages of one's own; plain SEV has no use for it."""
    image = ovmf_image(8192, reset_address=0)
    pages = VmsaProfile(cpu=MILAN).pages(0x80B004)
    for state in (MILAN, pages):
        with pytest.raises(NotAttestable, match="reset address is 0") as refused:
            sev.launch_digest(image, vcpus=vcpus, vmsa=state)
        assert (refused.value.check, refused.value.exit_code) == ("firmware.sev-es-reset", 4)
    assert sev.launch_digest(image) == hashlib.sha256(image).digest()
    bare = ovmf_image(8192, reset_address=None)
    assert sev.launch_digest(bare, vcpus=vcpus, vmsa=pages)


def descriptor(**mapping: object) -> bytes:
    return b" " + json.dumps({"description": "UEFI", "mapping": mapping}).encode()


SVSM = with_footer({OVMF_SEV_INFO: b"\xf0\xff\xff\xff", OVMF_SVSM_INFO: bytes(4)}, size=8192)
UNFIT = {
    "SVSM": (SVSM, "an SVSM, which is for SEV-SNP"),
    "flash": (descriptor(device="flash", executable={"filename": "/a/CODE.fd"}), "is /a/CODE.fd"),
    "memory": (descriptor(device="memory", filename="/a/OVMF.fd"), "the firmware is /a/OVMF.fd"),
    "long": (descriptor(device="memory", filename="x" * 999), f"is {'x' * 200}$"),
    "qcow2": (b"QFI\xfb" + bytes(508), "QEMU measures the firmware in it"),
    "IGVM": (b"IGVM" + bytes(508), "an IGVM file"),
}


@pytest.mark.parametrize(("data", "words"), UNFIT.values(), ids=UNFIT)
def test_what_is_no_firmware_of_sev_guests_is_not_measured(data: bytes, words: str) -> None:
    pages = VmsaProfile(cpu=MILAN).pages(0x80B004)
    for state in (None, MILAN, pages):
        with pytest.raises((MalformedInput, NotAttestable), match=words):
            sev.launch_digest(data, vcpus=None if state is None else 1, vmsa=state)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b"{}",
        b'{"mapping": []}',
        b'{"mapping": {"executable": []}}',
        b'{"mapping": {"filename": 5}}',
        b'{"mapping": {"executable": "x"}}',
        b"{" + b"9" * 60_000 + b"}",
        b'{"\xff"}',
        descriptor(device="memory", filename="/a/OVMF.fd") + b" " * (1 << 16),
    ],
)
def test_other_text_is_no_firmware_descriptor(data: bytes) -> None:
    firmware = Firmware.read(data)
    assert (firmware.kind, firmware.described, firmware.unfit) == ("unknown", None, "")


@given(st.binary(max_size=200), st.integers(0, 0xFFFF))
def test_random_footers_give_only_our_errors(noise: bytes, length: int) -> None:
    firmware = Firmware.read(footer(noise, length))
    try:
        firmware.reset_address()
    except SevAttestError:
        return


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (bytes(4096), "declares no kernel-hash area"),
        (ovmf_image(hash_table=None), "declares no kernel-hash area"),
        (ovmf_image(hash_table=(0, 0)), "declares an empty kernel-hash area"),
        (ovmf_image(hash_table=(0x1000, 0)), "declares an empty kernel-hash area"),
        (ovmf_image(hash_table=(0, 176)), "declares an empty kernel-hash area"),
        (ovmf_image(hash_table=(0x1000, 175)), "declares a kernel-hash area of 175 bytes"),
    ],
)
def test_firmware_without_a_place_for_kernel_hashes_takes_no_kernel(
    image: bytes, words: str
) -> None:
    with pytest.raises(NotAttestable, match=words) as caught:
        sev.launch_digest(image, kernel=b"kernel")
    assert (caught.value.check, caught.value.exit_code) == ("firmware.hash-table", 4)


def test_what_is_absent_is_hashed_as_qemu_hashes_it() -> None:
    plain = KernelHashes.of(b"kernel")
    assert plain.initrd == hashlib.sha256(b"").digest()
    assert plain.cmdline == hashlib.sha256(b"\0").digest()
    assert KernelHashes.of(b"kernel", b"", "") == plain
    assert KernelHashes.of(b"kernel", cmdline="a  b ").cmdline == (
        hashlib.sha256(b"a  b \0").digest()
    )
    assert KernelHashes.of(b"kernel", cmdline=b"\xff").cmdline == (
        hashlib.sha256(b"\xff\0").digest()
    )


def test_the_table_of_hashes_has_qemu_s_layout() -> None:
    table = KernelHashes(kernel=b"k" * 32, initrd=b"i" * 32, cmdline=b"c" * 32).to_bytes()
    assert len(table) == 176
    assert table[16:18] == b"\xa8\0"
    assert (table[36:68], table[86:118], table[136:168]) == (b"c" * 32, b"i" * 32, b"k" * 32)
    assert table[168:] == bytes(8)


@pytest.mark.parametrize("part", ["kernel", "initrd", "cmdline"])
def test_a_kernel_hash_has_32_bytes(part: str) -> None:
    with pytest.raises(MalformedInput, match=f"kernel hashes {part}: 31 bytes"):
        KernelHashes(**({"kernel": bytes(32)} | {part: bytes(31)}))


@pytest.mark.parametrize(
    ("cpu", "signature"),
    [
        ((23, 1, 2), 0x800F12),
        ((23, 49, 0), 0x830F10),
        ((25, 1, 1), 0xA00F11),
        ((25, 17, 0), 0xA10F10),
        ((26, 0, 0), 0xB00F00),
        ((21, 2, 0), 0x600F20),
        ((24, 0, 1), 0x900F01),
        ((16, 2, 3), 0x100F23),
        ((15, 107, 1), 0x060FB1),
        ((15, 6, 1), 0xF61),
        ((6, 0, 0), 0x600),
    ],
)
def test_cpu_signatures_are_those_of_qemu_s_models(
    cpu: tuple[int, int, int], signature: int
) -> None:
    family, model, stepping = cpu
    assert CpuModel(family=family, model=model, stepping=stepping).signature == signature


QEMU_SIGNATURES = {
    **{name: signature for name, signature in CPU_SIGS.items() if "IBPB" not in name},
    "EPYC-IBPB": 0x800F12,
    "EPYC-IBPB-v1": 0x800F12,
    "Dhyana": 0x900F01,
    "Dhyana-v2": 0x900F01,
    "Opteron_G1": 0xF61,
    "Opteron_G2": 0xF61,
    "Opteron_G3": 0x100F23,
    "Opteron_G4": 0x600F12,
    "Opteron_G5": 0x600F20,
    "phenom": 0x100F23,
    "qemu64": 0x60FB1,
    "kvm64": 0xF61,
}
"""What QEMU's models show: EPYC's by sev-snp-measure, the others by QEMU's target/i386/cpu.c."""


@pytest.mark.parametrize("name", QEMU_SIGNATURES)
def test_a_model_of_qemu_s_has_its_signature(name: str) -> None:
    assert CpuModel.named(name).signature == QEMU_SIGNATURES[name]


@pytest.mark.parametrize("odd", [(-1, 0, 0), (271, 0, 0), (25, 256, 0), (25, 1, 16)])
def test_a_cpu_that_cpuid_cannot_name_is_refused(odd: tuple[int, int, int]) -> None:
    with pytest.raises(Unsupported, match=r"is not in 0\.\."):
        CpuModel(family=odd[0], model=odd[1], stepping=odd[2])


def test_boot_and_other_vcpus_differ_in_where_they_start() -> None:
    pages = VmsaProfile(cpu=MILAN).pages(0x80B004)
    assert pages.ap is not None
    differing = {at for at in range(4096) if pages.boot[at] != pages.ap[at]}
    assert differing <= {*range(0x18, 0x20), *range(0x178, 0x180)}
    assert pages.ap[0x18:0x20] == (0x800000).to_bytes(8, "little")
    assert pages.ap[0x178:0x180] == (0xB004).to_bytes(8, "little")


@pytest.mark.parametrize("count", [0, -1, 4097])
def test_a_vcpu_count_that_qemu_cannot_start_is_refused(count: int) -> None:
    with pytest.raises(Unsupported, match="1 to 4096"):
        sev.launch_digest(OVMF, vcpus=count, vmsa=MILAN)


def test_more_than_one_vcpu_needs_the_other_page() -> None:
    boot = VmsaPages(boot=bytes(4096))
    assert sev.launch_digest(OVMF, vcpus=1, vmsa=boot)
    with pytest.raises(Unsupported, match="page of the additional ones"):
        sev.launch_digest(OVMF, vcpus=2, vmsa=boot)


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_a_vcpu_page_has_4096_bytes(size: int) -> None:
    with pytest.raises(MalformedInput, match=f"{size} bytes, expected 4096"):
        VmsaPages(boot=bytes(4096), ap=bytes(size))


@pytest.mark.parametrize(
    ("arguments", "check"),
    [
        ({"initrd": b""}, "kernel.missing"),
        ({"cmdline": ""}, "kernel.missing"),
        ({"vcpus": 1}, "vmsa.missing"),
        ({"vmsa": MILAN}, "vcpus.missing"),
    ],
)
def test_half_of_what_belongs_together_is_refused(arguments: dict[str, object], check: str) -> None:
    with pytest.raises(Unsupported) as caught:
        sev.launch_digest(OVMF, **arguments)  # type: ignore[arg-type]
    assert caught.value.check == check


def test_the_digest_covers_firmware_then_hashes_then_each_page() -> None:
    hashes = KernelHashes.of(b"kernel", b"initrd", "cmdline")
    pages = VmsaPages(boot=b"0" * 4096, ap=b"1" * 4096)
    whole = OVMF + hashes.to_bytes() + pages.boot + b"1" * 8192
    digest = hashlib.sha256(whole).digest()
    given_files = {"kernel": b"kernel", "initrd": b"initrd", "cmdline": "cmdline"}
    assert sev.launch_digest(OVMF, **given_files, vcpus=3, vmsa=pages) == digest  # type: ignore[arg-type]
    firmware = Firmware.read(OVMF)
    for _ in range(2):  # the firmware's hash is not used up
        assert sev.launch_digest(firmware, kernel=hashes, vcpus=3, vmsa=pages) == digest


def test_an_sev_es_guest_has_no_digest_without_a_count() -> None:
    firmware = Firmware.read(OVMF)
    guest = sev.MeasuredGuest(firmware=firmware, vmsa=VmsaPages(boot=bytes(4096)))
    for ask in (guest.digests, guest.ranges):
        with pytest.raises(Unsupported):
            ask()
    assert len(sev.MeasuredGuest(firmware=firmware).digests()) == 1


# against sev-snp-measure


@pytest.mark.parametrize("append", [None, "", "console=ttyS0 quiet", "a  b "])
@pytest.mark.parametrize("boot", ["firmware", "kernel", "kernel and initrd"])
def test_plain_sev_digests_equal_those_of_sev_snp_measure(
    append: str | None, boot: str, tmp_path: Path
) -> None:
    firmware, kernel, initrd = (tmp_path / name for name in ("fw", "kernel", "initrd"))
    firmware.write_bytes(OVMF)
    kernel.write_bytes(b"kernel" * 1000)
    initrd.write_bytes(b"initrd" * 1000)
    parts: dict[str, str] = {}
    if boot != "firmware":
        parts["kernel"] = str(kernel)
    if boot == "kernel and initrd":
        parts["initrd"] = str(initrd)
    cmdline = append if parts else None
    theirs = peer.sev_calc_launch_digest(
        str(firmware), parts.get("kernel"), parts.get("initrd"), cmdline
    )
    assert sev.launch_digest(firmware, **parts, cmdline=cmdline) == theirs  # type: ignore[arg-type]


def test_the_sev_es_page_is_sev_snp_measure_s_but_for_the_fpu(tmp_path: Path) -> None:
    # It makes the page of KVM_SEV_INIT2 only, where KVM also writes MXCSR and the x87 control word.
    path = tmp_path / "fw"
    path.write_bytes(OVMF)
    pages = VmsaProfile(cpu=MILAN).pages(0x80B004)
    changed = []
    for page in (pages.boot, pages.ap or b""):
        new = bytearray(page)
        new[0x408:0x40A], new[0x410:0x412] = b"\x80\x1f", b"\x7f\x03"
        changed.append(bytes(new))
    theirs = peer.seves_calc_launch_digest(
        3, MILAN.signature, str(path), None, None, None, vmm_type=VMMType.QEMU
    )
    init2 = VmsaPages(boot=changed[0], ap=changed[1])
    assert sev.launch_digest(path, vcpus=3, vmsa=init2) == theirs


# real pages


def test_the_pages_are_those_of_a_real_launch(real: Path) -> None:
    firmware = Firmware.read(real / "firmware" / "OVMF.amdsev.tail.fd")
    pages = VmsaProfile(cpu=MILAN).pages(firmware.reset_address())
    assert pages.boot == (real / "measurement" / "vmsa0.bin").read_bytes()
    assert pages.ap == (real / "measurement" / "vmsa1.bin").read_bytes()


def test_a_real_firmware_declares_what_it_can(real: Path) -> None:
    firmware = Firmware.read(real / "firmware" / "OVMF.amdsev.fd")
    assert firmware.size == 4194304
    assert firmware.reset_address() == 0x80B004
    firmware.require_hash_table()
    assert sha256_of(real / "firmware" / "OVMF.amdsev.fd").hex().startswith("3e4fd0b3")


# exact bounds, and what no profile sets


@pytest.mark.parametrize("size", [176, 177, 4096])
def test_an_area_of_176_bytes_takes_the_kernel_hashes(size: int) -> None:
    image = ovmf_image(hash_table=(0x1000, size))
    assert Firmware.read(image).hash_area() == (0x1000, size)
    assert len(sev.launch_digest(image, kernel=b"kernel")) == 32


THEIR_NAMES = {
    **{f"pl{n}_ssp": f"vmpl{n}_ssp" for n in range(4)},
    "dbgctl": "dbgctrl",
    **{name: f"guest_{name}" for name in ("exit_info_1", "exit_info_2", "exit_int_info", "nrip")},
    "exit_code": "guest_exit_code",
}
"""What sev-snp-measure calls the fields that go by another name there (Linux's name, mostly)."""


def test_every_named_field_is_where_sev_snp_measure_has_it() -> None:
    theirs = {
        name: (getattr(SevEsSaveArea, name).offset, getattr(SevEsSaveArea, name).size)
        for name, *_ in SevEsSaveArea._fields_
        if not name.startswith(("reserved", "manual"))
    }
    ours = dict(layout.REGISTERS)
    assert {THEIR_NAMES.get(name, name) for name in ours} == theirs.keys() - layout.SEGMENTS.keys()
    for name, place in ours.items():
        assert theirs[THEIR_NAMES.get(name, name)] == place, name
    for segment, offset in layout.SEGMENTS.items():
        assert theirs[segment] == (offset, 16)
        for name, *_ in VmcbSeg._fields_:
            part = getattr(VmcbSeg, name)
            assert layout.FIELDS[f"{segment}.{name}"] == (offset + part.offset, part.size)
    assert len(layout.FIELDS) == len(ours) + 4 * len(layout.SEGMENTS)


@pytest.mark.parametrize("name", layout.FIELDS)
def test_a_field_is_written_and_read_in_its_own_bytes_alone(name: str) -> None:
    size = layout.FIELDS[name][1]
    area = SevEsSaveArea()
    part, _, inner = name.partition(".")
    holder, field = (getattr(area, part), inner) if inner else (area, THEIR_NAMES.get(name, name))
    value = int.from_bytes(range(1, 1 + size), "little") if size < 256 else (1 << 8 * size) - 1
    data = value.to_bytes(size, "little")
    if isinstance(getattr(holder, field), int):
        setattr(holder, field, value)
    else:
        getattr(holder, field)[:] = data
    page = layout.page_of({name: value})
    assert page == bytes(area)
    assert layout.unnamed(page) == []
    read = layout.values_of(page)
    assert (read.pop(name), set(read.values())) == (value, {0})


def test_bytes_between_the_fields_have_no_name() -> None:
    named = {at for start, size in layout.FIELDS.values() for at in range(start, start + size)}
    assert layout.unnamed(b"\xff" * 4096) == [at for at in range(4096) if at not in named]
    assert layout.unnamed(bytes(4096)) == []
