"""testing/: the simulated SEV-SNP platform measures as hardware does, and is wrong in one way."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sev_attest import snp
from sev_attest.errors import ReportInvalid, Unsupported
from sev_attest.guest import CpuModel, KernelHashes, SnpProfile
from sev_attest.sev.states import Status
from sev_attest.snp import Expected, Kind, Product
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.packaging import read_evidence, read_folder
from sev_attest.snp.verify import CHECKS, REVOCATION, VerifiedReport
from sev_attest.testing import (
    FirmwareError,
    QemuError,
    SnpAnswer,
    SnpAuthority,
    SnpFault,
    SnpGuest,
    SnpHost,
    SnpInputs,
    SnpPlatform,
    launch_snp_guest,
    ovmf_image,
)
from sev_attest.testing.images import SNP_SECTIONS
from sev_attest.testing.qemu import CPUS
from sev_attest.testing.snp_launch import SnpLaunch

OVMF = ovmf_image(8192, sections=SNP_SECTIONS)
NONCE = bytes(range(64))
PLATFORMS = {p: SnpPlatform.of(b"a test chip", SnpAuthority(p)) for p in Product}
MILAN = PLATFORMS[Product.MILAN]
BOOTED = SnpInputs(firmware=OVMF, kernel=b"kernel", initrd=b"initrd", cmdline=b"quiet", vcpus=2)
DIGEST = snp.launch_digest(
    OVMF, vcpus=2, vmsa=CpuModel.named("EPYC-Milan"), kernel=b"kernel", initrd=b"initrd",
    cmdline="quiet",
)  # fmt: skip


def judge(
    answer: SnpAnswer, platform: SnpPlatform, certificates: bytes | None = None
) -> tuple[VerifiedReport | None, list[str]]:
    """Verify as an owner does who expects :data:`DIGEST` and :data:`NONCE`; return what fails."""
    evidence = read_evidence(answer.report)
    found = read_certificates(answer.chain if certificates is None else certificates)
    expected = Expected(report_data=NONCE, launch_digest=DIGEST)
    roots = [*snp.amd_roots(), platform.authority.root]
    try:
        verified = snp.verify_report(evidence.report, found, roots=roots)
    except ReportInvalid as error:
        return None, [f.check for f in expected.added_to(error, evidence.report).failures]
    return verified, [failure.check for failure in expected.failures(evidence.report)]


# what is measured


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("profile", ["qemu", "qemu-old"])
@pytest.mark.parametrize("features", [0x1, 0x21, 0x201])
def test_the_launch_digest_is_the_one_that_the_library_computes(
    cpu: str, profile: str, features: int
) -> None:
    guest = launch_snp_guest(
        MILAN, firmware=OVMF, vcpus=3, cpu=CPUS[cpu], profile=profile, features=features
    )
    vmsa = SnpProfile(name=profile, cpu=CpuModel.named(cpu), features=features)
    assert guest.measurement == snp.launch_digest(OVMF, vcpus=3, vmsa=vmsa)


SECTIONS = {
    "as OVMF has them": SNP_SECTIONS,
    "kernel hashes first": SNP_SECTIONS[::-1],
    "two pages of kernel hashes": [*SNP_SECTIONS[:5], (0x81_0000, 0x2000, 0x10)],
    "an unknown type": [*SNP_SECTIONS, (0x90_0000, 0x2000, 0x77)],
}


@pytest.mark.parametrize("kernel", [None, b"", b"kernel"])
@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS)
def test_sections_are_measured_in_the_firmware_s_order(sections: Any, kernel: bytes | None) -> None:
    firmware = ovmf_image(8192, sections=sections)
    guest = launch_snp_guest(MILAN, firmware=firmware, kernel=kernel, initrd=b"i", cmdline=b"c")
    booted = None if kernel is None else KernelHashes.of(kernel, b"i", b"c")
    vmsa = CpuModel.named("EPYC-Milan")
    assert guest.measurement == snp.launch_digest(firmware, vcpus=1, vmsa=vmsa, kernel=booted)


@pytest.mark.parametrize("name", ["OVMF.amdsev.debian-sid.fd", "OVMF.blyss.fd"])
@pytest.mark.parametrize("kernel", [None, b"kernel"])
def test_real_firmware_starts_a_guest(real: Path, name: str, kernel: bytes | None) -> None:
    firmware = (real / "snp" / "firmware" / name).read_bytes()
    guest = launch_snp_guest(MILAN, firmware=firmware, kernel=kernel, vcpus=4)
    vmsa = CpuModel.named("EPYC-Milan")
    assert guest.measurement == snp.launch_digest(firmware, vcpus=4, vmsa=vmsa, kernel=kernel)


def metadata(change: dict[int, int]) -> bytes:
    """Return the image with other numbers (4 bytes) at offsets of its SEV metadata."""
    image = bytearray(OVMF)
    start = OVMF.index(b"ASEV")
    for at, value in change.items():
        struct.pack_into("<I", image, start + at, value)
    return bytes(image)


def pointed(offset: int) -> bytes:
    """Return the image whose footer says that the metadata is this far from its end."""
    image = bytearray(OVMF)
    place = len(OVMF) - OVMF.index(b"ASEV")
    at = OVMF.rindex(place.to_bytes(4, "little") + b"\x16\0")
    struct.pack_into("<I", image, at, offset)
    return bytes(image)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"firmware": ovmf_image(8192)}, "Failed to locate SEV metadata header"),
        ({"firmware": pointed(1 << 20)}, "Failed to locate SEV metadata header"),
        ({"firmware": pointed(15)}, "Failed to locate SEV metadata header"),
        ({"firmware": metadata({0: 0})}, "Invalid SEV metadata header"),
        ({"firmware": metadata({8: 2})}, "Invalid SEV metadata header"),
        ({"firmware": metadata({4: 15})}, "Invalid SEV metadata header"),
        ({"firmware": metadata({4: 16 + 12000, 12: 1000})}, "cut short"),
        ({"firmware": metadata({16: 0x80_0001})}, "not whole pages"),
        ({"firmware": metadata({20: 0x9001})}, "not whole pages"),
        ({"firmware": metadata({20: 0xFFFF_F000})}, "more than 256 MiB"),
        ({"firmware": bytes(4095)}, "not a multiple of 4096"),
        (
            {"firmware": ovmf_image(8192, sections=SNP_SECTIONS, reset_address=None)},
            "SEV information block",
        ),
        (
            {"firmware": ovmf_image(8192, sections=SNP_SECTIONS[:-1]), "kernel": b"k"},
            "no section for kernel hashes",
        ),
        (
            {"firmware": ovmf_image(8192, sections=SNP_SECTIONS, hash_table=None), "kernel": b"k"},
            "no hashes table GUID",
        ),
        (
            {
                "firmware": ovmf_image(8192, sections=SNP_SECTIONS, hash_table=(0x81_0F60, 0x400)),
                "kernel": b"k",
            },
            "does not fit into its page",
        ),
        (
            {"firmware": ovmf_image(8192, sections=SNP_SECTIONS, reset_address=0)},
            "reset address is zero",
        ),
        ({"profile": "ec2"}, "unknown profile ec2"),
        ({"vcpus": 0}, "at least one vCPU"),
        ({"policy": 0x10000}, "KVM takes no SEV-SNP policy 0x10000"),
        ({"policy": 0x4030000}, "KVM takes no SEV-SNP policy 0x4030000"),
        ({"host_data": bytes(31)}, "host-data has 32 bytes, not 31"),
        ({"id_auth": bytes(4096)}, "id-auth needs an id-block"),
        ({"id_block": bytes(95), "id_auth": bytes(4096)}, "id-block has 96 bytes"),
        ({"id_block": bytes(96)}, "id-block has 96 bytes and id-auth 4096"),
    ],
)
def test_qemu_refuses_what_it_cannot_start(changes: Any, words: str) -> None:
    with pytest.raises(QemuError, match=words):
        launch_snp_guest(MILAN, **({"firmware": OVMF} | changes))


# the ID block


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    x, y = (number.to_bytes(72, "little") for number in (numbers.x, numbers.y))
    return (b"\2\0\0\0" + x + y).ljust(0x404, b"\0")


def signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    parts = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))
    return b"".join(part.to_bytes(72, "little") for part in parts).ljust(512, b"\0")


ID_KEY, AUTHOR = (ec.derive_private_key(number, ec.SECP384R1()) for number in (7, 9))


def id_block(
    *,
    digest: bytes = DIGEST,
    policy: int = 0x30000,
    version: int = 1,
    algorithms: tuple[int, int] = (1, 1),
    signer: ec.EllipticCurvePrivateKey = ID_KEY,
    author: ec.EllipticCurvePrivateKey = AUTHOR,
) -> dict[str, bytes]:
    """Return an ID block and its authentication, laid out by hand."""
    block = digest + b"f" * 16 + b"i" * 16 + struct.pack("<IIQ", version, 5, policy)
    whole = bytearray(4096)
    struct.pack_into("<II", whole, 0, *algorithms)
    for at, data in {
        0x040: signature(signer, block), 0x240: key_bytes(ID_KEY),
        0x680: signature(author, key_bytes(ID_KEY)), 0x880: key_bytes(AUTHOR),
    }.items():  # fmt: skip
        whole[at : at + len(data)] = data
    return {"id_block": block, "id_auth": bytes(whole)}


@pytest.mark.parametrize("author", [0, 1])
def test_a_report_says_who_approved_the_guest(author: int) -> None:
    guest = launch_snp_guest(MILAN, **BOOTED, **id_block(algorithms=(1, author)))
    report = snp.AttestationReport.from_bytes(guest.report())
    assert (report.family_id, report.image_id, report.guest_svn) == (b"f" * 16, b"i" * 16, 5)
    assert report.id_key_digest == hashlib.sha384(key_bytes(ID_KEY)).digest()
    digest = hashlib.sha384(key_bytes(AUTHOR)).digest() if author else bytes(48)
    assert report.author_key_digest == digest
    assert report.key_info.author_key_en == bool(author)


def bad_curve() -> dict[str, bytes]:
    made = id_block()
    auth = bytearray(made["id_auth"])
    auth[0x240] = 1
    return made | {"id_auth": bytes(auth)}


def off_curve() -> dict[str, bytes]:
    made = id_block()
    auth = bytearray(made["id_auth"])
    auth[0x244] ^= 1
    return made | {"id_auth": bytes(auth)}


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (id_block(digest=bytes(48)), Status.BAD_MEASUREMENT),
        (id_block(policy=0x20000), Status.POLICY_FAILURE),
        (id_block(version=2), Status.INVALID_PARAM),
        (id_block(algorithms=(0, 1)), Status.INVALID_PARAM),
        (id_block(algorithms=(1, 2)), Status.INVALID_PARAM),
        (id_block(signer=AUTHOR), Status.BAD_SIGNATURE),
        (id_block(author=ID_KEY), Status.BAD_SIGNATURE),
        (bad_curve(), Status.BAD_SIGNATURE),
        (off_curve(), Status.BAD_SIGNATURE),
    ],
)
def test_the_firmware_refuses_an_id_block_that_is_not_for_the_guest(
    made: dict[str, bytes], status: Status
) -> None:
    with pytest.raises(FirmwareError, match="SNP_LAUNCH_FINISH") as caught:
        launch_snp_guest(MILAN, **BOOTED, **made)
    assert caught.value.status is status


@pytest.mark.parametrize("name", ["virtee", "sev-snp-measure", "lit"])
def test_real_id_blocks_are_accepted_for_their_guest(real: Path, name: str) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_text())["id_blocks"][name]
    block, auth = ((folder / known[part]).read_bytes() for part in ("block", "auth"))
    policy = int.from_bytes(block[0x58:], "little")
    guest = SnpLaunch(MILAN, policy, block[:48]).finish(id_block=block, id_auth=auth)
    assert guest.id_key_digest.hex() == known["keys"]["id_key_digest"]
    author = bytes.fromhex(known["keys"].get("author_key_digest") or "00" * 48)
    assert guest.author_key_digest == author


# reports


@pytest.mark.parametrize("kind", [Kind.VCEK, Kind.VLEK], ids=["VCEK", "VLEK"])
@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("product", Product)
def test_an_honest_host_s_report_verifies_and_says_what_was_chosen(
    product: Product, version: int, kind: Kind
) -> None:
    host = SnpHost(PLATFORMS[product])
    chosen = SnpInputs(**BOOTED, policy=0x1B0000, host_data=b"h" * 32)
    guest = host.launch(**chosen)
    current = bytes(byte + 1 for byte in host.platform.tcb[:1]) + host.platform.tcb[1:]
    answer = host.report(guest, NONCE, kind=kind, version=version, vmpl=2, current_tcb=current)
    verified, failed = judge(answer, host.platform)
    assert verified is not None
    assert failed == []
    report = verified.report
    assert (verified.product, verified.vek.kind, report.version) == (product, kind, version)
    assert (report.vmpl, report.policy.value, report.host_data) == (2, 0x1B0000, b"h" * 32)
    assert (report.current_tcb, report.reported_tcb) == (current, host.platform.tcb)
    assert report.current_version == report.committed_version > (1, 55, 0)
    assert (report.id_key_digest, report.author_key_digest) == (bytes(48), bytes(48))
    assert bool(report.launch_mit_vector) == (version == 5)


def test_guests_that_are_launched_in_the_same_way_have_ids_of_their_own() -> None:
    host = SnpHost(MILAN)
    one, two, again = (host.launch(instance=name, **BOOTED) for name in (b"1", b"2", b"1"))
    assert one == again
    assert one.report_id != two.report_id
    assert one.measurement == two.measurement == DIGEST


def test_what_a_guest_gets_is_read_as_configfs_tsm_leaves_it() -> None:
    host = SnpHost(MILAN)
    answer = host.report(host.launch(**BOOTED), NONCE)
    evidence = read_folder(answer.files(NONCE))
    assert (evidence.report.raw, evidence.notes) == (answer.report, ())
    found = [one.content for one in evidence.certificates]
    assert found == list(answer.certificates.values())
    assert [*answer.certificates] == [Kind.VCEK, Kind.ASK, Kind.ARK]
    assert read_evidence(answer.report + answer.table).certificates == evidence.certificates


# faults

FAULTY = [
    (fault, product, kind, version)
    for fault in SnpFault
    for product in Product
    for kind in (Kind.VCEK, Kind.VLEK)
    for version in (2, 3, 5)
    if not (fault is SnpFault.RESERVED_188 and version != 2)
    and not (fault is SnpFault.RESERVED_1F8 and version == 5)
]


def faulty(
    fault: SnpFault, product: Product, kind: Kind, version: int
) -> tuple[SnpGuest, SnpAnswer]:
    host = SnpHost(PLATFORMS[product], fault)
    guest = host.launch(**BOOTED)
    return guest, host.report(guest, NONCE, kind=kind, version=version)


@pytest.mark.parametrize("fault", SnpFault)
def test_each_fault_fails_exactly_its_check(fault: SnpFault) -> None:
    expected = [fault.check] if fault.check else []
    for which in (case for case in FAULTY if case[0] is fault):
        _, answer = faulty(*which)
        verified, failed = judge(answer, PLATFORMS[which[1]])
        assert failed == expected, which
        assert (verified is None) == (fault.check in CHECKS), which


def test_there_is_a_fault_for_every_check() -> None:
    checks = {fault.check for fault in SnpFault}
    expected = {"snp.report-data", "snp.launch-digest", ""}
    assert checks == CHECKS.keys() - {REVOCATION} | expected


def test_every_reserved_range_of_every_version_has_a_fault() -> None:
    hit: dict[int, set[str]] = {2: set(), 3: set(), 5: set()}
    gaps = dict.fromkeys(hit, 0)
    for fault, product, kind, version in FAULTY:
        if fault.check == "snp.report.reserved" and (product, kind) == (Product.MILAN, Kind.VCEK):
            _, answer = faulty(fault, product, kind, version)
            (gap,) = snp.AttestationReport.from_bytes(answer.report).reserved
            hit[version].add(str(gap))
    everywhere = dict.fromkeys((0x4C, 0x188, 0x18B, 0x1EB, 0x1EF, 0x1F8, 0x208), b"\1")
    for version in hit:
        used = MILAN.report(version=version, policy=(1 << 64) - 1, poked=everywhere)
        gaps[version] = len(snp.AttestationReport.from_bytes(used).reserved)
    assert {version: len(names) for version, names in hit.items()} == gaps == {2: 6, 3: 6, 5: 6}


def test_a_debug_policy_verifies_and_is_shown() -> None:
    guest, answer = faulty(SnpFault.DEBUG_POLICY, Product.MILAN, Kind.VCEK, 3)
    verified, _ = judge(answer, MILAN)
    assert verified is not None
    assert verified.report.policy.debug
    assert not snp.GuestPolicy(guest.policy).debug


@pytest.mark.parametrize("product", Product)
def test_an_old_tcb_verifies_and_is_shown(product: Product) -> None:
    _, answer = faulty(SnpFault.OLD_TCB, product, Kind.VCEK, 3)
    verified, _ = judge(answer, PLATFORMS[product])
    assert verified is not None
    old = verified.report.tcb("reported", product)
    assert "microcode" in old.behind(snp.Tcb.from_bytes(PLATFORMS[product].tcb, product))


def test_a_forged_root_is_refused_also_beside_the_genuine_one() -> None:
    _, answer = faulty(SnpFault.FORGED_ROOT, Product.MILAN, Kind.VCEK, 3)
    _, failed = judge(answer, MILAN, answer.chain + MILAN.authority.ark)
    assert failed == ["snp.ask.signed-by-ark"]


@pytest.mark.parametrize(
    ("fault", "version", "words"),
    [
        (SnpFault.RESERVED_188, 3, "reserved-188 shows in reports of version 2, not 3"),
        (SnpFault.RESERVED_1F8, 5, "reserved-1f8 shows in reports of version 2 or 3, not 5"),
    ],
)
def test_a_fault_that_would_not_show_is_refused(fault: SnpFault, version: int, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        faulty(fault, Product.MILAN, Kind.VCEK, version)


def test_a_fault_of_the_launch_changes_the_guest_and_no_other_fault_does() -> None:
    for fault in SnpFault:
        guest = SnpHost(MILAN, fault).launch(**BOOTED)
        assert (guest.measurement != DIGEST) == fault.in_launch


# fixtures


def test_its_fixtures_give_a_host_and_the_roots_that_admit_it(
    snp_host: SnpHost, snp_platform: SnpPlatform, snp_roots: list[snp.Root]
) -> None:
    assert snp_host.platform is snp_platform
    answer = snp_host.report(snp_host.launch(**BOOTED), NONCE)
    report, certificates = read_evidence(answer.report).report, read_certificates(answer.chain)
    assert snp.verify_report(report, certificates, roots=snp_roots).root.product is None
    with pytest.raises(ReportInvalid):
        snp.verify_report(report, certificates)
