"""testing/: the simulated platform refuses what the firmware refuses."""

from dataclasses import replace

import pytest

import sev_attest as sev
from sev_attest.spec import Curve, PlatformState, Status, Usage
from sev_attest.testing import FirmwareError, Platform, launch_guest, ovmf_image


def status(call: object, *arguments: object) -> Status:
    """Call a command that must fail, and give its status code."""
    with pytest.raises(FirmwareError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert caught.value.status.name in str(caught.value)
    return caught.value.status


def test_the_same_seed_gives_the_same_platform_byte_for_byte() -> None:
    one, two = Platform(b"seed"), Platform(b"seed")
    assert one.export() == two.export()
    assert launch_guest(one, policy=1, firmware=bytes(16)).measurement == (
        launch_guest(two, policy=1, firmware=bytes(16)).measurement
    )
    assert Platform(b"other").export() != one.export()


def test_new_keys_are_new_and_still_verify(milan: Platform) -> None:
    platform = Platform(b"keys")
    before = platform.export()
    platform.pdh_gen()
    assert platform.export().pek == before.pek
    assert platform.export().pdh != before.pdh
    platform.pek_gen()
    assert platform.export().pek != before.pek
    assert sev.verify_chain(platform.export(), roots=[platform.authority.root])


def test_commands_out_of_turn_are_refused() -> None:
    platform = Platform(b"p")
    assert status(platform.launch_measure, 1) is Status.INVALID_GUEST
    handle = platform.launch_start(1)
    assert status(platform.pek_gen) is Status.INVALID_PLATFORM_STATE
    assert status(platform.launch_secret, handle, bytes(52), bytes(16)) is (
        Status.INVALID_GUEST_STATE
    )
    assert status(platform.launch_finish, handle) is Status.INVALID_GUEST_STATE
    platform.launch_measure(handle)
    assert status(platform.launch_update_data, handle, bytes(16)) is Status.INVALID_GUEST_STATE
    platform.launch_finish(handle)
    assert status(platform.launch_measure, handle) is Status.INVALID_GUEST_STATE
    platform.state = PlatformState.UNINIT
    assert status(platform.launch_start, 1) is Status.INVALID_PLATFORM_STATE


def test_wrong_sizes_are_refused() -> None:
    platform = Platform(b"p")
    plain, es = platform.launch_start(1), platform.launch_start(5)
    assert status(platform.launch_update_data, plain, bytes(15)) is Status.INVALID_LEN
    assert status(platform.launch_update_vmsa, plain, bytes(4096)) is Status.POLICY_FAILURE
    assert status(platform.launch_update_vmsa, es, bytes(4095)) is Status.INVALID_LEN
    platform.launch_measure(plain)
    for header, payload in ((51, 16), (52, 0), (52, 15)):
        assert status(platform.launch_secret, plain, bytes(header), bytes(payload)) is (
            Status.INVALID_LEN
        )


def test_a_malformed_owner_s_certificate_or_session_is_refused(milan: Platform) -> None:
    platform = Platform(b"p")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(1))
    godh, key = session.godh, session.godh.public_key
    assert status(platform.launch_start, 1, godh.to_bytes(), b"") is Status.INVALID_LEN
    for odd in (
        godh.to_bytes()[:-1],
        bytes(2084),
        replace(godh, body=bytes(godh.body[:0x14]) + bytes(1024)).to_bytes(),
        milan.export().pek.to_bytes(),
        sev.Certificate.build(
            usage=Usage.PDH,
            algorithm=godh.algorithm,
            public_key=replace(key, curve=Curve.P256),
        ).to_bytes(),
    ):
        assert status(platform.launch_start, 1, odd, session.blob) is Status.INVALID_CERTIFICATE


def test_an_image_declares_only_what_it_is_told_to() -> None:
    bare = sev.Firmware.read(ovmf_image(reset_address=None, hash_table=None))
    assert bare.size == 1 << 16
    assert bare.tables() == {}
