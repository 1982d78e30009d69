"""testing/: the simulated platform refuses what the firmware refuses, and what it says is real."""

import base64
import hmac
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sev_attest import ChainInvalid, NotVerified, _crypto, sev
from sev_attest._keys import Algorithm, Curve, EccPublicKey
from sev_attest.guest import CpuModel, Firmware, VmsaPages, VmsaProfile
from sev_attest.owner import Ledger, PendingSessions
from sev_attest.sev.chain.certificate import Signature
from sev_attest.sev.spec import Usage
from sev_attest.sev.states import GuestState, PlatformState, Status
from sev_attest.testing import (
    Authority,
    Fault,
    FirmwareError,
    Guest,
    GuestInputs,
    Host,
    Platform,
    QemuError,
    SnpFault,
    guest_of_domain,
    launch_guest,
    ovmf_image,
    vcpu_pages,
)
from sev_attest.testing.pytest import SERVER, MakeRequirements, _schema
from sev_attest.testing.qemu import CPUS, read_secret_area
from test_ledger import Server

OVMF = ovmf_image(4096)


def status(call: Callable[..., object], *arguments: Any, **options: Any) -> Status:
    """Call a command that must fail, and give its status code."""
    with pytest.raises(FirmwareError) as caught:
        call(*arguments, **options)
    assert caught.value.status.name in str(caught.value)
    return caught.value.status


# platform


def test_the_same_seed_gives_the_same_platform_byte_for_byte() -> None:
    one, two = Platform(b"seed"), Platform(b"seed")
    assert one.export() == two.export()
    assert launch_guest(one, policy=1, firmware=OVMF).measurement == (
        launch_guest(two, policy=1, firmware=OVMF).measurement
    )
    assert Platform(b"other").export() != one.export()


def test_its_status_says_what_it_is_and_does() -> None:
    platform = Platform(b"p", api=(0, 24), build=15)
    found = platform.platform_status()
    assert (found.api_major, found.api_minor, found.build) == (0, 24, 15)
    assert (found.state, found.guest_count) == (PlatformState.INIT, 0)
    handle = platform.launch_start(1)
    assert platform.platform_status().guest_count == 1
    assert platform.state is PlatformState.WORKING
    platform.decommission(platform.launch_start(1))
    assert platform.state is PlatformState.WORKING
    platform.decommission(handle)
    assert platform.platform_status() == found


def test_its_states_are_held_to() -> None:
    platform = Platform(b"p")
    assert status(platform.init) is Status.INVALID_PLATFORM_STATE
    assert status(platform.platform_reset) is Status.INVALID_PLATFORM_STATE
    handle = platform.launch_start(1)
    assert status(platform.pek_gen) is Status.INVALID_PLATFORM_STATE
    assert status(platform.pek_cert_import, b"", b"") is Status.INVALID_PLATFORM_STATE
    platform.shutdown()
    commands: list[Callable[..., object]] = [
        platform.pek_gen,
        platform.pek_csr,
        platform.pdh_gen,
        platform.pdh_cert_export,
        lambda: platform.launch_start(1),
        lambda: platform.guest_status(handle),
    ]
    for command in commands:
        assert status(command) is Status.INVALID_PLATFORM_STATE
    platform.init()
    assert status(platform.guest_status, handle) is Status.INVALID_GUEST


def test_new_keys_are_new_and_still_verify() -> None:
    platform = Platform(b"keys")
    before = platform.export()
    platform.pdh_gen()
    assert platform.export().pek == before.pek
    assert platform.export().pdh != before.pdh
    platform.pek_gen()
    assert platform.export().pek != before.pek
    assert platform.export().cek == before.cek
    assert sev.verify_chain(platform.export(), roots=[platform.authority.root])


def test_the_exported_cek_is_unsigned_as_the_real_one() -> None:
    platform = Platform(b"p")
    pdh, rest = platform.pdh_cert_export()
    assert (len(pdh), len(rest)) == (2084, 6252)
    chain = sev.Chain.from_bytes(pdh + rest)
    assert chain.cek.unsigned
    assert len(platform.get_id()) == 64
    signed = chain.with_cek(platform.authority.sign_cek(chain.cek))
    assert sev.verify_chain(signed, roots=[platform.authority.root])


def owner_signs(platform: Platform, owner: Platform) -> tuple[bytes, bytes]:
    """Sign a platform's PEK with another's OCA key: the PEK and the OCA certificate."""
    csr = platform.pek_csr()
    signature = owner.sign(Usage.OCA, csr.body)
    return replace(csr, signatures=(signature, Signature())).to_bytes(), (
        owner.export().oca.to_bytes()
    )


def test_an_owner_s_oca_takes_over_until_the_platform_is_reset() -> None:
    platform, owner = Platform(b"p"), Platform(b"owner")
    before = platform.export()
    pek, oca = owner_signs(platform, owner)
    platform.pek_cert_import(pek, oca)
    chain = platform.export()
    assert chain.oca == owner.export().oca
    assert chain.pek.body == before.pek.body
    assert chain.pdh != before.pdh
    assert sev.verify_chain(chain, roots=[platform.authority.root])
    assert platform.platform_status().externally_owned
    assert status(platform.pek_cert_import, pek, oca) is Status.ALREADY_OWNED
    platform.shutdown()
    platform.platform_reset()
    platform.init()
    assert not platform.platform_status().externally_owned
    assert platform.export().oca not in (before.oca, chain.oca)


def test_an_import_that_is_not_right_is_refused() -> None:
    platform, owner, other = Platform(b"p"), Platform(b"owner"), Platform(b"other")
    pek, oca = owner_signs(platform, owner)
    others_pek, _ = owner_signs(other, owner)
    csr = platform.pek_csr().to_bytes()
    key = owner.export().oca.public_key
    off_curve = sev.Certificate.build(
        usage=Usage.OCA, algorithm=Algorithm.ECDSA_SHA256, public_key=replace(key, y=key.y ^ 1)
    )
    for odd_pek, odd_oca, expected in (
        (pek[:-1], oca, Status.INVALID_CERTIFICATE),
        (pek, pek, Status.INVALID_CERTIFICATE),
        (oca, oca, Status.INVALID_CERTIFICATE),
        (others_pek, oca, Status.INVALID_CERTIFICATE),
        (csr, oca, Status.BAD_SIGNATURE),
        (pek, other.export().oca.to_bytes(), Status.BAD_SIGNATURE),
        (pek, off_curve.to_bytes(), Status.INVALID_CERTIFICATE),
    ):
        assert status(platform.pek_cert_import, odd_pek, odd_oca) is expected
    wrong = platform.sign(Usage.OCA, b"something else")
    right = sev.Certificate.from_bytes(pek).signatures[0]
    twice = replace(platform.pek_csr(), signatures=(wrong, right)).to_bytes()
    unsigned = replace(owner.export().oca, signatures=(Signature(), Signature()))
    assert status(platform.pek_cert_import, pek, unsigned.to_bytes()) is Status.BAD_SIGNATURE
    platform.pek_cert_import(twice, oca)
    assert sev.verify_chain(platform.export(), roots=[platform.authority.root])


# guests


def test_guest_commands_out_of_turn_are_refused() -> None:
    platform = Platform(b"p")
    assert status(platform.launch_measure, 1) is Status.INVALID_GUEST
    handle = platform.launch_start(1)
    for early in (
        lambda: platform.launch_secret(handle, bytes(52), bytes(16)),
        lambda: platform.launch_finish(handle),
        lambda: platform.attestation(handle, bytes(16)),
    ):
        assert status(early) is Status.INVALID_GUEST_STATE
    platform.launch_measure(handle)
    assert platform.guest_status(handle).state is GuestState.LSECRET
    for late in (
        lambda: platform.launch_update_data(handle, bytes(16)),
        lambda: platform.launch_measure(handle),
    ):
        assert status(late) is Status.INVALID_GUEST_STATE
    platform.launch_finish(handle)
    assert platform.guest_status(handle).state is GuestState.RUNNING
    assert status(platform.launch_secret, handle, bytes(52), bytes(16)) is (
        Status.INVALID_GUEST_STATE
    )


def test_a_compressed_secret_is_not_supported() -> None:
    platform = Platform(b"p")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(1))
    guest = launch_guest(
        platform,
        policy=1,
        firmware=OVMF,
        godh=session.godh.to_bytes(),
        session=session.blob,
    )
    flags, iv, payload, size = b"\1\0\0\0", bytes(16), bytes(16), b"\x10\0\0\0"
    message = b"\1" + flags + iv + size + size + payload + guest.measurement[:32]
    mac = hmac.digest(session.keys.tik, message, "sha256")
    assert status(guest.inject, flags + iv + mac, payload) is Status.UNSUPPORTED


def test_a_policy_has_32_bits() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        Platform(b"p").launch_start(1 << 32)


def test_wrong_sizes_are_refused() -> None:
    platform = Platform(b"p")
    plain, es = platform.launch_start(1), platform.launch_start(5)
    for size in (0, 15, 17):
        assert status(platform.launch_update_data, plain, bytes(size)) is Status.INVALID_LEN
    assert status(platform.launch_update_vmsa, plain, bytes(4096)) is Status.POLICY_FAILURE
    assert status(platform.launch_update_vmsa, es, bytes(4095)) is Status.INVALID_LEN
    platform.launch_measure(plain)
    for header, payload in ((51, 16), (52, 0), (52, 15)):
        assert status(platform.launch_secret, plain, bytes(header), bytes(payload)) is (
            Status.INVALID_LEN
        )
    assert status(platform.attestation, plain, bytes(15)) is Status.INVALID_PARAM


def test_guests_share_a_key_only_if_both_policies_say_so() -> None:
    platform = Platform(b"p")
    sharing, alone = platform.launch_start(1), platform.launch_start(3)
    assert platform.launch_start(1, share_with=sharing)
    assert status(platform.launch_start, 1, share_with=99) is Status.INVALID_GUEST
    assert status(platform.launch_start, 5, share_with=sharing) is Status.POLICY_FAILURE
    assert status(platform.launch_start, 3, share_with=alone) is Status.POLICY_FAILURE


def test_the_policy_s_minimum_api_is_held_to() -> None:
    platform = Platform(b"p", api=(0, 24))
    assert platform.launch_start(0x18000001)
    assert status(platform.launch_start, 0x19000001) is Status.POLICY_FAILURE
    assert status(platform.launch_start, 0x00010001) is Status.POLICY_FAILURE


def test_a_malformed_owner_s_certificate_or_session_is_refused() -> None:
    platform = Platform(b"p")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(1))
    godh, key = session.godh, session.godh.public_key

    def other(algorithm: Algorithm = godh.algorithm, public_key: EccPublicKey = key) -> bytes:
        made = sev.Certificate.build(usage=Usage.PDH, algorithm=algorithm, public_key=public_key)
        return made.to_bytes()

    assert status(platform.launch_start, 1, godh.to_bytes(), b"") is Status.INVALID_LEN
    for odd in (
        godh.to_bytes()[:-1],
        bytes(2084),
        platform.export().pek.to_bytes(),
        other(algorithm=Algorithm.ECDSA_SHA256),
        other(public_key=replace(key, curve=Curve.P256)),
        other(public_key=replace(key, y=key.y ^ 1)),
    ):
        assert status(platform.launch_start, 1, odd, session.blob) is Status.INVALID_CERTIFICATE


def test_every_flipped_bit_of_the_owner_s_certificate_that_matters_is_refused() -> None:
    # What is not read (the versions of its API, the signature slots) is not missed either.
    platform = Platform(b"p")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(1))
    data = session.godh.to_bytes()
    for at in (*range(4), *range(6, 0x414)):
        changed = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        assert status(platform.launch_start, 1, changed, session.blob) in (
            Status.INVALID_CERTIFICATE,
            Status.BAD_MEASUREMENT,
        )


def test_the_attestation_report_is_signed_by_the_pek_over_nonce_digest_and_policy() -> None:
    platform = Platform(b"p")
    guest = launch_guest(platform, policy=1, firmware=OVMF)
    report = platform.attestation(guest.handle, bytes(range(16)))
    assert len(report) == 208
    assert report[:16] == bytes(range(16))
    assert report[16:48] == sev.launch_digest(OVMF)
    assert report[48:64].hex() == "01000000" + "02100000" + "02000000" + "00000000"
    numbers = Signature(value=report[64:].ljust(512, b"\0")).ecdsa_numbers()
    pek = _crypto.p384_point(platform.export().pek.public_key)
    assert numbers is not None
    assert pek is not None
    assert _crypto.ecdsa_sha256_holds(pek, numbers, report[:52])
    guest.resume()
    assert platform.attestation(guest.handle, bytes(16))[16:48] == report[16:48]


# QEMU


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS)
def test_its_vcpu_pages_are_the_library_s(cpu: int) -> None:
    models = [(23, 1, 2), (23, 49, 0), (25, 1, 1), (25, 17, 0), (26, 0, 0)]
    cpus = [CpuModel(family=f, model=m, stepping=s) for f, m, s in models]
    ours = VmsaProfile(cpu=next(c for c in cpus if c.signature == cpu)).pages(0x80B004)
    assert vcpu_pages(OVMF, 3, cpu, "qemu-legacy") == list(ours.for_vcpus(3))


def test_its_profiles_differ_where_kvm_differs() -> None:
    (legacy,) = vcpu_pages(OVMF, 1, 0xA00F11, "qemu-legacy")

    def changed(profile: str) -> dict[int, int]:
        (page,) = vcpu_pages(OVMF, 1, 0xA00F11, profile)
        return {at: page[at] for at in range(4096) if page[at] != legacy[at]}

    init2 = {0x408: 0x80, 0x409: 0x1F, 0x410: 0x7F, 0x411: 0x03}
    assert changed("qemu-init2") == init2
    assert changed("qemu-legacy+debug-swap") == {0x3B0: 0x20}
    assert changed("qemu-init2+debug-swap") == init2 | {0x3B0: 0x20}


def test_qemu_refuses_what_it_cannot_start() -> None:
    platform = Platform(b"p")
    bare = ovmf_image(4096, reset_address=None, hash_table=None, secret_area=None)
    inputs = GuestInputs(policy=5, firmware=bare)
    with pytest.raises(QemuError, match="SEV information block"):
        launch_guest(platform, **inputs)
    lying = bytearray(OVMF)
    footer = OVMF.index(bytes.fromhex("de82b596b21ff745baeaa366c55a082d"))
    lying[footer - 2 : footer] = b"\xff\xff"
    entry = bytearray(OVMF)
    entry[footer - 20 : footer - 18] = bytes(2)
    for firmware in (bare, bytes(4096), bytes(lying[:1]) * 4096, bytes(entry)):
        with pytest.raises(QemuError, match="no hashes table GUID"):
            launch_guest(platform, policy=1, firmware=firmware, kernel=b"kernel")
    for area in ((0, 176), (4096, 175)):
        hashless = ovmf_image(4096, hash_table=area)
        words = f"invalid .base={area[0]:#x} size={area[1]:#x}"
        with pytest.raises(QemuError, match=words):
            launch_guest(platform, policy=1, firmware=hashless, kernel=b"kernel")
    assert launch_guest(platform, policy=1, firmware=bytes(lying), kernel=b"kernel")
    for size in (0, 16, 4095, (8 << 20) + 4096):
        with pytest.raises(QemuError, match="not a multiple of 4096"):
            launch_guest(platform, policy=1, firmware=bytes(size))
    with pytest.raises(QemuError, match="at least one vCPU"):
        launch_guest(platform, policy=5, firmware=OVMF, vcpus=0)
    for profile in ("krunch", "qemu-legacy+other"):
        with pytest.raises(QemuError, match="unknown profile"):
            launch_guest(platform, policy=5, firmware=OVMF, profile=profile)
    assert platform.platform_status().guest_count == 1  # what QEMU refused is not there
    guest = launch_guest(platform, policy=1, firmware=ovmf_image(4096, secret_area=(4096, 64)))
    with pytest.raises(QemuError, match="80 bytes do not fit"):
        guest.inject(bytes(52), bytes(80))


def test_an_image_declares_only_what_it_is_told_to() -> None:
    bare = Firmware.read(ovmf_image(reset_address=None, hash_table=None, secret_area=None))
    assert bare.size == 1 << 16
    assert bare.tables() == {}


TABLE = bytes.fromhex("42f5741edd71664d963eef4287ff173b")


@pytest.mark.parametrize(
    "area",
    [
        b"",
        bytes(32),
        TABLE,
        TABLE + b"\x18\0\0\0" + bytes(8),
        TABLE + b"\x13\0\0\0",
        TABLE + b"\xff\0\0\0",
        TABLE + b"\x28\0\0\0" + bytes(16) + b"\x13\0\0\0",
        TABLE + b"\x28\0\0\0" + bytes(16) + b"\x15\0\0\0",
    ],
)
def test_what_is_no_table_of_secrets_is_not_read(area: bytes) -> None:
    with pytest.raises(ValueError, match="table"):
        read_secret_area(area)


DOMAIN = """
<domain type='kvm'>
  <name>vm1</name>
  <vcpu>3</vcpu>
  <os><loader>fw</loader>{kernel}</os>
  <cpu mode='custom'><model>EPYC-Rome</model></cpu>
  <launchSecurity type='sev'{hashes}>
    <policy>0x0005</policy><dhCert>{godh}</dhCert><session>{session}</session>
  </launchSecurity>
</domain>
"""


@pytest.mark.parametrize("hashes", [True, False])
def test_a_domain_is_launched_as_libvirt_would(here: Path, *, hashes: bool) -> None:
    platform = Platform(b"p")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(5))
    for name, data in (("fw", OVMF), ("vmlinuz", b"kernel"), ("initrd", b"initrd")):
        Path(name).write_bytes(data)
    xml = DOMAIN.format(
        kernel="<kernel>vmlinuz</kernel><initrd>initrd</initrd><cmdline>a  b </cmdline>",
        hashes=" kernelHashes='yes'" if hashes else "",
        godh=base64.b64encode(session.godh.to_bytes()).decode(),
        session=base64.b64encode(session.blob).decode(),
    )
    guest = launch_guest(platform, **guest_of_domain(xml))
    parts: Any = {"kernel": b"kernel", "initrd": b"initrd", "cmdline": "a  b "} if hashes else {}
    rome = CpuModel(family=23, model=49, stepping=0)
    sev.verify_launch(
        sev.LaunchInfo.from_text(guest.domlaunchsecinfo().encode()),
        keys=session.keys,
        policy=session.policy,
        digest=sev.launch_digest(OVMF, vcpus=3, vmsa=rome, **parts),
    )


def test_a_domain_need_not_be_attested_but_must_be_sev(here: Path) -> None:
    Path("fw").write_bytes(OVMF)
    bare = guest_of_domain(DOMAIN.format(kernel="", hashes="", godh="", session=""))
    assert (bare["godh"], bare["session"], bare["kernel"]) == (None, None, None)
    current = DOMAIN.replace("<vcpu>3<", "<vcpu current='2'>8<").replace("Rome", "Rome-v4")
    counted = guest_of_domain(
        current.format(kernel="", hashes="", godh="", session=""), profile="qemu-init2"
    )
    assert (counted["vcpus"], counted["cpu"]) == (2, CPUS["EPYC-Rome"])
    assert counted["profile"] == "qemu-init2"
    for xml in ("<domain/>", "<domain><launchSecurity type='sev'/></domain>"):
        with pytest.raises(QemuError, match="no <launchSecurity"):
            guest_of_domain(xml)
    with pytest.raises(QemuError, match="names no CPU model"):
        guest_of_domain(
            "<domain><launchSecurity type='sev'><policy>5</policy></launchSecurity></domain>"
        )


# hosts, honest and otherwise

GUIDS = st.uuids().map(str)
SECRETS = st.dictionaries(GUIDS, st.binary(min_size=1, max_size=200), min_size=1, max_size=4)
POLICIES = st.integers(0, 63) | st.integers(0, 63).map(lambda bits: bits | 0x10000000)
PROFILES = st.sampled_from(
    ["qemu-legacy", "qemu-init2", "qemu-legacy+debug-swap", "qemu-init2+debug-swap"]
)
AUTHORITIES = {bits: Authority(bits) for bits in (2048, 4096)}
FIRMWARE = {0: OVMF, 1: ovmf_image(8192, seed=b"another")}
PLATFORMS = st.builds(
    lambda seed, bits, api, build: Platform(
        seed, authority=AUTHORITIES[bits], api=api, build=build
    ),
    seed=st.binary(max_size=4),
    bits=st.sampled_from([2048, 4096]),
    api=st.sampled_from([(0, 17), (0, 24), (1, 55), (255, 255)]),
    build=st.integers(1, 255),
)
GUESTS = st.fixed_dictionaries(
    {
        "policy": POLICIES,
        "firmware": st.integers(0, 1).map(lambda number: FIRMWARE[number]),
        "vcpus": st.integers(1, 5),
        "cpu": st.sampled_from(sorted(CPUS.values())),
        "profile": PROFILES,
        "kernel": st.none() | st.binary(max_size=40),
        "initrd": st.binary(max_size=40),
        "cmdline": st.binary(max_size=40),
    }
)


class Owner:
    """The owner's side of one launch: what a careful service does."""

    def __init__(self, host: Host, meant: GuestInputs) -> None:
        self.host = host
        self.meant = meant
        platform = host.platform
        self.min_build = platform.build
        roots = [*sev.amd_roots(), platform.authority.root]
        verified = sev.verify_chain(host.chain(), roots=roots)
        self.session = sev.Session.create(verified, policy=sev.GuestPolicy(meant["policy"]))

    def launch(self) -> Guest:
        own = GuestInputs(**self.meant)
        own["godh"], own["session"] = self.session.godh.to_bytes(), self.session.blob
        return self.host.launch(**own)

    def digest(self) -> bytes:
        meant = self.meant
        parts: dict[str, Any] = {}
        if meant["kernel"] is not None:
            parts = {"kernel": meant["kernel"]}
            parts |= {"initrd": meant.get("initrd"), "cmdline": meant.get("cmdline")}
        if meant["policy"] & 4:
            pages = vcpu_pages(meant["firmware"], 2, meant["cpu"], meant["profile"])
            vmsa = VmsaPages(boot=pages[0], ap=pages[1])
            parts |= {"vcpus": meant["vcpus"], "vmsa": vmsa}
        return sev.launch_digest(meant["firmware"], **parts)

    def verify(self, guest: Guest) -> sev.VerifiedLaunch:
        return sev.verify_launch(
            sev.LaunchInfo.from_text(guest.domlaunchsecinfo().encode()),
            keys=self.session.keys,
            policy=self.session.policy,
            digest=self.digest(),
            min_build=self.min_build,
        )


def whole_run(host: Host, meant: GuestInputs, secrets: dict[str, bytes]) -> dict[str, bytes]:
    """Go from the chain to the secret in the guest."""
    owner = Owner(host, meant)
    guest = owner.launch()
    packet = sev.build_secret(owner.verify(guest), secrets)
    return guest.inject(packet.header, packet.payload)


def named(error: Exception) -> str:
    """Return the check id of a refusal, or the firmware's status."""
    return error.status.name if isinstance(error, FirmwareError) else str(vars(error)["check"])


class Launches(RuleBasedStateMachine):
    """One host, honest or lying in turn; its owner launches, verifies and sends secrets."""

    @initialize(platform=PLATFORMS)
    def start(self, platform: Platform) -> None:
        self.host = Host(platform)
        self.owner: Owner | None = None
        self.guest: Guest | None = None
        self.launch: sev.VerifiedLaunch | None = None

    @rule(meant=GUESTS)
    def make_a_session(self, meant: GuestInputs) -> None:
        self.owner, self.guest, self.launch = Owner(self.host, meant), None, None

    @precondition(lambda self: self.owner is not None)
    @rule()
    def start_the_guest(self) -> None:
        assert self.owner is not None
        self.guest, self.launch = self.owner.launch(), None

    @precondition(lambda self: self.guest is not None)
    @rule()
    def an_honest_launch_verifies(self) -> None:
        assert self.owner is not None
        assert self.guest is not None
        self.launch = self.owner.verify(self.guest)

    @precondition(lambda self: self.launch is not None)
    @rule(secrets=SECRETS)
    def the_guest_reads_exactly_what_was_sent(self, secrets: dict[str, bytes]) -> None:
        assert self.guest is not None
        assert self.launch is not None
        packet = sev.build_secret(self.launch, secrets)
        assert self.guest.inject(packet.header, packet.payload) == secrets

    @precondition(lambda self: self.launch is not None)
    @rule()
    def a_guest_that_runs_takes_no_more_secrets(self) -> None:
        assert self.guest is not None
        assert self.launch is not None
        self.guest.resume()
        packet = sev.build_secret(self.launch, {"luks-key": b"late"})
        with pytest.raises(FirmwareError):
            self.guest.inject(packet.header, packet.payload)
        self.owner = self.guest = self.launch = None

    @rule(fault=st.sampled_from(Fault), meant=GUESTS, secrets=SECRETS)
    def a_single_fault_is_refused_by_name(
        self, fault: Fault, meant: GuestInputs, secrets: dict[str, bytes]
    ) -> None:
        if fault is Fault.OTHER_VCPU_COUNT:
            meant["policy"] |= 4  # plain SEV does not measure them
        self.host.fault = fault
        try:
            with pytest.raises((NotVerified, FirmwareError)) as caught:
                whole_run(self.host, meant, secrets)
        finally:
            self.host.fault = None
        assert named(caught.value) == fault.check


TestLaunches = Launches.TestCase
TestLaunches.settings = settings(max_examples=15, stateful_step_count=12)


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_is_refused_by_name(sev_host: Host, fault: Fault) -> None:
    meant = GuestInputs(
        policy=5, firmware=OVMF, vcpus=2, cpu=0xA00F11, profile="qemu-legacy", kernel=None
    )
    assert whole_run(sev_host, meant, {"luks-key": b"key"})
    sev_host.fault = fault
    with pytest.raises((NotVerified, FirmwareError)) as caught:
        whole_run(sev_host, meant, {"luks-key": b"key"})
    assert named(caught.value) == fault.check


def test_its_fixtures_give_a_host_and_the_roots_that_admit_it(
    sev_host: Host, sev_platform: Platform, sev_roots: list[sev.Root]
) -> None:
    assert sev_host.platform is sev_platform
    assert sev.verify_chain(sev_host.chain(), roots=sev_roots).generation is None
    with pytest.raises(ChainInvalid):
        sev.verify_chain(sev_host.chain())


def test_its_fixtures_give_an_empty_ledger_a_store_and_requirements(
    sev_ledger: Ledger, sev_store: PendingSessions, sev_requirements: MakeRequirements
) -> None:
    assert sev_store.ledger is sev_ledger
    assert [*sev_ledger.entries()] == []
    made = sev_requirements(web=bytes(32), db=b"1" * 32)
    made.check()
    assert [launch.name for launch in made.launches] == ["web", "db"]


def test_a_ledger_on_a_server_has_a_schema_of_its_own(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path / "server")
    told: list[bytes] = []
    urls: list[str] = []

    class Admin:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def execute(self, sql: bytes) -> None:
            told.append(sql)

    def connect(url: str, **options: Any) -> object:
        urls.append(url)
        return server.connect(url, **options) if "connect_timeout" in options else Admin()

    monkeypatch.setattr(psycopg, "connect", connect)
    with suppress(RuntimeError), _schema("postgresql:///keys?user=owner") as place:
        assert place.startswith("postgresql:///keys?user=owner&options=-csearch_path%3Dsev_attest_")
        raise RuntimeError
    created, dropped = (sql.decode().split() for sql in told)
    assert created[:2] + dropped[:2] == ["CREATE", "SCHEMA", "DROP", "SCHEMA"]
    assert created[2] == dropped[2]
    monkeypatch.setenv(SERVER, "postgresql:///keys")
    ledger: Ledger = request.getfixturevalue("sev_ledger")
    ledger.create("0" * 64)
    assert urls[-1] == f"postgresql:///keys?options=-csearch_path%3D{told[-1].decode().split()[2]}"


def test_the_examples_of_its_page_run(here: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    blocks = page.split("```python\n")[1:]
    names = ("conftest.py", "test_host.py", "test_store.py", "test_snp.py")
    for name, block in zip(names, blocks, strict=True):
        Path(name).write_text(block.partition("```")[0])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "27 passed" in ran.stdout, ran.stdout
    first, second = page.split("## Faults of SEV-SNP")
    for fault in Fault:
        assert f"| `{fault.name}` |" in first
    for one in SnpFault:
        (row,) = re.findall(rf"^\| .*`{one.name}`.*$", second, re.MULTILINE)
        assert f"| `{one.check}`" in row if one.check else "| verifies" in row
