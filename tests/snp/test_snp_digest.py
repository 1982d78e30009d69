"""snp/: the launch digest of SEV-SNP guests, from images, parsed metadata and hardware figures."""

import hashlib
from io import BytesIO
from pathlib import Path

import pytest

from sev_attest import MalformedInput, NotAttestable, Unsupported
from sev_attest.guest import CpuModel, KernelHashes, SnpProfile, VmsaPages, vmsa
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.snp.digest import SnpGuest, launch_digest, snp_pages_for
from sev_attest.snp.firmware import Section, SnpFirmware, Svsm
from sev_attest.snp.pages import PageHasher
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image

OVMF = ovmf_image(sections=SNP_SECTIONS)
EPYC, MILAN = CpuModel.named("EPYC-v4"), CpuModel.named("EPYC-Milan")
PREFIX = bytes(range(48))


def sections(*found: tuple[int, int, int]) -> tuple[Section, ...]:
    return tuple(Section(*one) for one in found)


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


# the chain, spelled out


def info(digest: bytes, contents: bytes, kind: int, address: int) -> bytes:
    """Return PAGE_INFO as AMD's document lays it out, byte by byte."""
    page = bytearray(112)
    page[0x00:0x30], page[0x30:0x60] = digest, contents
    page[0x60:0x62] = (112).to_bytes(2, "little")
    page[0x62] = kind
    page[0x68:0x70] = address.to_bytes(8, "little")
    return bytes(page)


def test_a_digest_is_the_chain_of_its_pages() -> None:
    """One page of firmware, one of each section, two vCPUs: every step written out."""
    image = ovmf_image(
        4096,
        sections=[(0x1000, 0x1000, 1), (0x3000, 0x1000, 0x10), (0x2000, 0x1000, 2)],
        hash_table=(0x3400, 0x400),
    )
    kernel = KernelHashes.of(b"kernel", b"initrd", b"quiet")
    table = bytes(0x400) + kernel.to_bytes()
    pages = SnpProfile(cpu=MILAN).pages(0x80_B004)
    digest = bytes(48)
    for contents, kind, address in (
        (sha384(image), 1, 0xFFFF_F000),
        (bytes(48), 3, 0x1000),
        (sha384(table.ljust(4096, b"\0")), 1, 0x3000),
        (bytes(48), 5, 0x2000),
        (sha384(pages.boot), 2, 0xFFFF_FFFF_F000),
        (sha384(pages.ap or b""), 2, 0xFFFF_FFFF_F000),
    ):
        digest = sha384(info(digest, contents, kind, address))
    assert launch_digest(image, kernel=kernel, vcpus=2, vmsa=MILAN) == digest


def test_an_image_is_given_as_bytes_path_or_file(tmp_path: Path) -> None:
    (tmp_path / "fw").write_bytes(OVMF)
    expected = launch_digest(OVMF, vcpus=1, vmsa=MILAN)
    for source in (tmp_path / "fw", str(tmp_path / "fw"), BytesIO(OVMF)):
        assert launch_digest(source, vcpus=1, vmsa=MILAN) == expected
    firmware = SnpFirmware.read(OVMF)
    assert launch_digest(firmware, vcpus=1, vmsa=MILAN) == expected
    assert launch_digest(OVMF, vcpus=1, vmsa=SnpProfile(cpu=MILAN)) == expected
    pages = snp_pages_for(SnpProfile(cpu=MILAN), firmware)
    assert launch_digest(OVMF, vcpus=1, vmsa=pages) == expected


@pytest.mark.parametrize("step", [1, 4095, 4096, 4097, 10_000])
def test_pages_are_the_same_in_chunks_of_any_size(step: int) -> None:
    data = bytes(8192) + OVMF[:8192] + b"\xff" * 12288 + bytes(4096)
    hasher = PageHasher()
    for offset in range(0, len(data), step):
        hasher.take(data[offset : offset + step])
    assert hasher.rest == b""
    assert hasher.contents == [sha384(data[o : o + 4096]) for o in range(0, len(data), 4096)]


def test_each_distinct_page_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def count(data: bytes) -> "hashlib._Hash":
        hashed.append(data)
        return hashlib.sha384(data)

    monkeypatch.setattr("sev_attest.snp.pages.sha384", count)
    one, two = b"a" * 4096, b"b" * 4096
    PageHasher().take(one + one + two + one + two + two)
    assert hashed == [one, two]


def test_a_prefix_takes_the_place_of_the_image_s_pages() -> None:
    whole = SnpFirmware.read(OVMF)
    for one, two in ((whole, SnpFirmware.read(OVMF[-4096:], prefix=whole.prefix)),):
        assert launch_digest(one, vcpus=3, vmsa=MILAN) == launch_digest(two, vcpus=3, vmsa=MILAN)
    with pytest.raises(MalformedInput, match="firmware digest: 47 bytes, expected 48"):
        SnpFirmware.read(OVMF, prefix=bytes(47))


def test_every_count_comes_from_one_pass() -> None:
    firmware = SnpFirmware.read(OVMF)
    guest = SnpGuest(firmware=firmware, vmsa=snp_pages_for(SnpProfile(cpu=MILAN), firmware))
    digests = guest.digests(8)
    assert digests == [launch_digest(OVMF, vcpus=n, vmsa=MILAN) for n in range(1, 9)]
    assert len({*digests}) == 8
    for count in (0, 4097):
        with pytest.raises(Unsupported, match="expected 1 to 4096"):
            guest.digests(count)
    boot = SnpGuest(firmware=firmware, vmsa=VmsaPages(boot=guest.vmsa.boot))
    assert [*boot.each()] == digests[:1]
    with pytest.raises(Unsupported, match="need the page of the additional ones"):
        boot.digests(2)


def test_ranges_are_what_is_measured_in_order() -> None:
    firmware = SnpFirmware.read(OVMF)
    kernel = KernelHashes.of(b"kernel")
    vmsa_pages = snp_pages_for(SnpProfile(cpu=MILAN), firmware)
    guest = SnpGuest(firmware=firmware, vmsa=vmsa_pages, kernel=kernel)
    ranges = guest.ranges(2)
    assert [(one.what, one.pages, one.type) for one in ranges] == [
        ("firmware", 16, "NORMAL"),
        ("SEC_MEM", 9, "ZERO"),
        ("SEC_MEM", 3, "ZERO"),
        ("SECRETS", 1, "SECRETS"),
        ("CPUID", 1, "CPUID"),
        ("SVSM_CAA", 1, "ZERO"),
        ("SEC_MEM", 15, "ZERO"),
        ("KERNEL_HASHES", 1, "NORMAL"),
        ("VMSA of vCPU 0", 1, "VMSA"),
        ("VMSA of vCPU 1", 1, "VMSA"),
    ]
    assert ranges[0].address == (1 << 32) - len(OVMF)
    assert ranges[-3].digest == guest.loaded().hex()
    assert [one.digest for one in ranges[-2:]] == [one.hex() for one in guest.digests(2)]


# layouts


@pytest.mark.parametrize("name", [name for name in SNP_LAYOUTS if "svsm" not in name])
def test_every_layout_has_a_digest_of_its_own(name: str) -> None:
    profile = SnpProfile(name=name, cpu=MILAN)
    others = {
        launch_digest(OVMF, vcpus=1, vmsa=SnpProfile(name=other, cpu=MILAN))
        for other in SNP_LAYOUTS
        if "svsm" not in other and other != name
    }
    assert launch_digest(OVMF, vcpus=1, vmsa=profile) not in others


def test_features_are_in_every_page() -> None:
    pages = SnpProfile(cpu=MILAN, features=0x221).pages(0x80_B004)
    for page in (pages.boot, pages.ap or b""):
        assert vmsa.values_of(page)["sev_features"] == 0x221
    with pytest.raises(Unsupported, match=r"0x10000000000000000 are not in 0\.\.2\^64-1"):
        SnpProfile(cpu=MILAN, features=1 << 64)


def test_a_profile_of_qemu_s_needs_a_cpu_model() -> None:
    with pytest.raises(Unsupported, match="profile qemu needs a CPU model"):
        SnpProfile()
    with pytest.raises(Unsupported, match="no VMSA profile 'xen': qemu, qemu-old"):
        SnpProfile(name="xen")
    assert SnpProfile(name="ec2").cpu is None


def test_google_s_first_stage_memory_is_unmeasured_and_amazon_s_cpuid_page_comes_last() -> None:
    def types(name: str) -> list[str]:
        firmware = SnpFirmware.read(OVMF)
        pages = snp_pages_for(SnpProfile(name=name), firmware)
        return [one.type for one in SnpGuest(firmware=firmware, vmsa=pages, layout=name).ranges(1)]

    assert types("gce").count("UNMEASURED") == 3
    for name in ("ec2", "ec2-old"):
        assert types(name)[-2:] == ["CPUID", "VMSA"]


def test_krun_starts_aps_at_its_own_address() -> None:
    image = ovmf_image(sections=SNP_SECTIONS, reset_address=None)
    assert launch_digest(image, vcpus=2, vmsa=SnpProfile(name="krun"))
    with pytest.raises(NotAttestable, match="no SEV-ES reset block") as caught:
        launch_digest(image, vcpus=1, vmsa=MILAN)
    assert caught.value.check == "firmware.sev-es-reset"


def test_a_reset_address_of_0_is_refused_as_qemu_does() -> None:
    with pytest.raises(NotAttestable, match="reset address is 0"):
        launch_digest(ovmf_image(sections=SNP_SECTIONS, reset_address=0), vcpus=1, vmsa=MILAN)


# refusals


def test_an_image_without_metadata_is_refused() -> None:
    with pytest.raises(NotAttestable, match="has no SEV metadata") as caught:
        launch_digest(ovmf_image(), vcpus=1, vmsa=MILAN)
    assert caught.value.check == "firmware.snp-metadata"
    with pytest.raises(NotAttestable, match="has no SEV metadata"):
        launch_digest(ovmf_image(sections=()), vcpus=1, vmsa=MILAN)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (
            ovmf_image(sections=SNP_SECTIONS[:-1]),
            "has no section for kernel hashes in its SEV metadata",
        ),
        (ovmf_image(sections=SNP_SECTIONS, hash_table=None), "declares no kernel-hash area"),
        (ovmf_image(sections=SNP_SECTIONS, hash_table=(0, 0)), "declares no kernel-hash area"),
        (
            ovmf_image(sections=SNP_SECTIONS, hash_table=(0x80_0C00, 0x400)),
            "declares a kernel-hash area outside the section that is measured for it",
        ),
        (
            ovmf_image(sections=SNP_SECTIONS, hash_table=(0x81_0F51, 0x400)),
            "declares a kernel-hash area outside the section",
        ),
    ],
)
def test_a_kernel_needs_a_place_for_its_hashes(image: bytes, words: str) -> None:
    assert launch_digest(image, vcpus=1, vmsa=MILAN)
    with pytest.raises(NotAttestable, match=words) as caught:
        launch_digest(image, kernel=b"kernel", vcpus=1, vmsa=MILAN)
    assert caught.value.check == "firmware.hash-section"


def test_the_table_of_hashes_may_end_where_its_page_ends() -> None:
    image = ovmf_image(sections=SNP_SECTIONS, hash_table=(0x81_0F50, 0x400))
    assert launch_digest(image, kernel=b"kernel", vcpus=1, vmsa=MILAN)


def test_an_initrd_needs_a_kernel() -> None:
    for given in ({"initrd": b"x"}, {"cmdline": "x"}):
        with pytest.raises(Unsupported, match="needs a kernel"):
            launch_digest(OVMF, vcpus=1, vmsa=MILAN, **given)


def test_sections_that_only_new_qemu_knows_are_refused_elsewhere() -> None:
    image = ovmf_image(sections=[*SNP_SECTIONS, (0x90_0000, 0x1000, 0x77)])
    firmware = SnpFirmware.read(image)
    zero = SnpFirmware.read(ovmf_image(sections=[*SNP_SECTIONS, (0x90_0000, 0x1000, 1)]))
    assert firmware.sections[-1].name == "type 0x77"
    same = SnpFirmware(prefix=zero.prefix, sections=firmware.sections, reset_address=0x80_B004)
    assert launch_digest(same, vcpus=1, vmsa=MILAN) == launch_digest(zero, vcpus=1, vmsa=MILAN)
    for name in ("qemu-old", "ec2", "gce", "krun"):
        with pytest.raises(NotAttestable, match="a section of type 0x77 at 0x900000"):
            launch_digest(image, vcpus=1, vmsa=SnpProfile(name=name, cpu=MILAN))


def test_a_layout_is_one_of_those_known() -> None:
    with pytest.raises(Unsupported, match="no VMSA profile 'xen'") as caught:
        SnpGuest(
            firmware=SnpFirmware.read(OVMF),
            vmsa=SnpProfile(cpu=MILAN).pages(0x80_B004),
            layout="xen",
        )
    assert caught.value.check == "vmsa.profile"


# SVSM


def test_an_svsm_lies_below_the_firmware_and_its_variables() -> None:
    """The sections and the start of every vCPU are the SVSM's; the firmware needs no metadata."""
    image, module = ovmf_image(8192), svsm_image(8192, entry=0x234)
    start = (1 << 32) - 8192 - 0x3000 - 8192
    page = SnpProfile(name="svsm", cpu=EPYC).pages(start + 0x234).boot
    values = vmsa.values_of(page)
    assert (values["rip"], values["cs.base"], values["cr0"]) == (start + 0x234, 0, 0x11)
    digest = bytes(48)
    for data, base in ((image, (1 << 32) - 8192), (module, start)):
        for offset in (0, 4096):
            contents = sha384(data[offset : offset + 4096])
            digest = sha384(info(digest, contents, 1, base + offset))
    for kind, address in ((5, 0x80_0000), (5, 0x80_1000), (6, 0x80_2000)):
        digest = sha384(info(digest, bytes(48), kind, address))
    for _ in range(2):
        digest = sha384(info(digest, sha384(page), 2, 0xFFFF_FFFF_F000))
    assert launch_digest(image, svsm=module, vars_size=0x3000, vcpus=2, vmsa=EPYC) == digest
    firmware = SnpFirmware.with_svsm(image, Svsm.read(module), 0x3000)
    assert launch_digest(firmware, vcpus=2, vmsa=EPYC) == digest
    guest = SnpGuest(firmware=firmware, vmsa=VmsaPages(boot=page, ap=page), layout="svsm")
    assert guest.ranges(1)[0][:4] == ("firmware and SVSM", start, 4, "NORMAL")
    later = SnpProfile(name="svsm-init2", cpu=EPYC)
    assert launch_digest(firmware, vcpus=2, vmsa=later) != digest
    with pytest.raises(Unsupported, match="has its SVSM already"):
        launch_digest(firmware, svsm=module, vcpus=1, vmsa=EPYC)


def test_an_svsm_and_its_layout_belong_together() -> None:
    firmware = SnpFirmware.with_svsm(OVMF, Svsm.read(svsm_image()), 0)
    with pytest.raises(Unsupported, match="profile qemu does not start from an SVSM"):
        launch_digest(firmware, vcpus=1, vmsa=SnpProfile(cpu=EPYC))
    with pytest.raises(Unsupported, match="profile svsm is for an SVSM"):
        launch_digest(OVMF, vcpus=1, vmsa=SnpProfile(name="svsm", cpu=EPYC))
    with pytest.raises(Unsupported, match="with an SVSM no kernel is measured"):
        launch_digest(firmware, kernel=b"kernel", vcpus=1, vmsa=EPYC)


@pytest.mark.parametrize(
    ("module", "size", "words"),
    [
        (OVMF, 0, "this is not an SVSM"),
        (svsm_image(8192, entry=8192), 0, "SVSM info entry: 0x2000 is behind its end"),
        (svsm_image(), 1, "1 bytes of variables are not whole pages"),
        (svsm_image(), -4096, "-4096 bytes of variables"),
        (svsm_image(), 1 << 32, "4294967296 bytes of variables"),
        (svsm_image() + b"x", 0, "SVSM: 32769 bytes are not whole pages"),
    ],
)
def test_what_is_no_svsm_is_refused(module: bytes, size: int, words: str) -> None:
    with pytest.raises(MalformedInput, match=words):
        SnpFirmware.with_svsm(OVMF, Svsm.read(module), size)


# hardware


AMAZON = sections(
    (0x80_0000, 0x9000, 1), (0x80_A000, 0x3000, 1), (0x80_D000, 0x1000, 2), (0x80_E000, 0x1000, 3),
    (0x80_F000, 0x11000, 1),
)  # fmt: skip
BLYSS = KernelHashes(
    kernel=bytes.fromhex("ff5e53ccc981594fbbdf6433011ef18227aa981ee85680af5e5f21ff23ae67dc"),
    initrd=bytes.fromhex("5e15926b19a1ee3d9d5182438286b74f5060829b1ba8f560bf0a748d6510e611"),
)
QEMU = SnpFirmware(
    prefix=bytes.fromhex(
        "3aae96c63f605fe10b77807f8db149b0cfafd78e5ade12f7c05a8f679aa2822a"
         "fd02c0ef7fa5897a2120dbd808cb0be5"
    ),
    sections=sections(
        (0x80_0000, 0x9000, 1), (0x80_A000, 0x3000, 1), (0x80_D000, 0x1000, 2),
        (0x80_E000, 0x1000, 3), (0x80_F000, 0x1000, 0x10), (0x81_0000, 0x10000, 1),
    ),
    reset_address=0x80_B004,
    hash_table=0x80_FC00,
)  # fmt: skip


@pytest.mark.parametrize(
    ("vcpus", "cmdline", "digest"),
    [
        (
            4,
            "ed20fc1471c77923b52238e0567dfcb94f0499499274ca5dd1d21f7231d1a356",
            (
                "a1eee53ffd7abf1b740c4dce8a9aec99a59ba7d9fe06a57fe06590da08660a24"
                "3be7fd5e3e6a86ded84b94cfedb1c019"
            ),
        ),
        (
            8,
            "b376012f241206d09e466f8558f3dd5a865ff585bf86b5a0f6a85c82ff582c5e",
            (
                "1ee2a500b58a0c6935b29d0c7cc64cbdf25100a75b574163b8cf8a24bb4aa0a5"
                "66bfa34a75610f2c7927d2353704131a"
            ),
        ),
    ],
)
def test_qemu_on_hardware(vcpus: int, cmdline: str, digest: str) -> None:
    """Two Genoa reports of December 2023, from blyss-verifier 0.1.8."""
    kernel = KernelHashes(kernel=BLYSS.kernel, initrd=BLYSS.initrd, cmdline=bytes.fromhex(cmdline))
    profile = SnpProfile(name="qemu-old", cpu=EPYC)
    assert launch_digest(QEMU, kernel=kernel, vcpus=vcpus, vmsa=profile).hex() == digest


@pytest.mark.parametrize(
    ("prefix", "vcpus", "digest"),
    [
        (
            (
                "2027a27bb9f7acfd280e4c7bd68a73973b94bf0756e5b282e004b9395f597b8d"
                "0eb4defa7d8f6549375aa4d2b146f0f3"
            ),
            2,
            (
                "c2c84b9364fc9f0f54b04534768c860c6e0e386ad98b96e8b98eca46ac8971d0"
                "5c531ba48373f054c880cfd1f4a0a84e"
            ),
        ),
        (
            (
                "2027a27bb9f7acfd280e4c7bd68a73973b94bf0756e5b282e004b9395f597b8d"
                "0eb4defa7d8f6549375aa4d2b146f0f3"
            ),
            4,
            (
                "25ac810f5c4750890fb1a158f097962e04d4d7fb640d1d08a99829cf4a70543a"
                "47cc6fb192bbe90aa713142361a66155"
            ),
        ),
    ],
)
def test_amazon_on_hardware(prefix: str, vcpus: int, digest: str) -> None:
    """A report in constellation's tests, and one on an m6a.xlarge (aws/uefi issue 10), 2023."""
    firmware = SnpFirmware(prefix=bytes.fromhex(prefix), sections=AMAZON, reset_address=0x80_B004)
    profile = SnpProfile(name="ec2-old")
    assert launch_digest(firmware, vcpus=vcpus, vmsa=profile).hex() == digest


@pytest.mark.parametrize(
    ("vcpus", "digest"),
    [
        (
            2,
            (
                "4ae03ca013690e956bc1eb16bc1c6465788dba64ad88a650db09216fa9cdddf0"
                "6167bfce810eba8988108e71458dd68b"
            ),
        ),
        (
            4,
            (
                "265aed64f2454253f6b19e49e17041ef052dedf964dd8d2740794a06aee3a720"
                "c475e3643a1b7e26b9efce7a107bf77f"
            ),
        ),
    ],
)
def test_an_svsm_on_hardware(vcpus: int, digest: str) -> None:
    """COCONUT-SVSM, January 2024: the values in sev-snp-measure's history."""
    firmware = SnpFirmware(
        prefix=bytes.fromhex(
            "ebf48785b708f9397dd8098fd64ba2d961aa6fcb15ee55616d19208f236a2828"
            "c50ebee83800be4d54bb3ac0ae1fcc7e"
        ),
        sections=sections((0, 0x9E000, 1), (0x9E000, 0x1000, 2), (0x9F000, 0x1000, 3)),
        reset_address=0xFFAE_A000,
        svsm=True,
        start=0xFFAE_A000,
    )
    assert launch_digest(firmware, vcpus=vcpus, vmsa=EPYC).hex() == digest
