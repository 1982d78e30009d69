"""``sev_attest.host.certificates``, and ``verify_owned``, which it relies on."""

import errno
import os
from dataclasses import replace

import pytest

import sev_driver
from sev_attest import sev
from sev_attest.errors import ChainInvalid, MalformedInput, NotVerified, WrongState
from sev_attest.host.certificates import (
    exported_chain,
    require_no_guests,
    verify_exported,
    verify_import,
    with_signed_cek,
)
from sev_attest.host.device import Device
from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.chain.oca import OwnerKey
from sev_attest.sev.chain.verify import verify_owned
from sev_attest.testing import Platform
from sev_driver import Driver


@pytest.fixture(scope="module")
def owner() -> OwnerKey:
    return OwnerKey.generate()


@pytest.fixture(scope="module")
def oca(owner: OwnerKey) -> Certificate:
    return owner.certificate()


@pytest.fixture(scope="module")
def pek(owner: OwnerKey, milan: Platform) -> Certificate:
    return owner.sign_pek(milan.pek_csr())


def failed(pek: Certificate, oca: Certificate) -> set[str]:
    with pytest.raises(ChainInvalid) as caught:
        verify_owned(pek=pek, oca=oca)
    return {failure.check for failure in caught.value.failures}


# verify_owned


def test_a_pek_that_its_owner_signed_is_one(pek: Certificate, oca: Certificate) -> None:
    verify_owned(pek=pek, oca=oca)


def test_the_two_in_each_other_s_place_are_refused(pek: Certificate, oca: Certificate) -> None:
    assert failed(oca, pek) == {
        "chain.oca.role", "chain.pek.role", "chain.oca.self-signed", "chain.pek.signed-by-oca",
    }  # fmt: skip


def test_the_oca_of_another_is_refused(pek: Certificate) -> None:
    other = OwnerKey.generate().certificate()
    assert failed(pek, other) == {"chain.pek.signed-by-oca"}


def test_every_certificate_needs_a_signature(pek: Certificate, oca: Certificate) -> None:
    none = (Signature(), Signature())
    assert failed(replace(pek, signatures=none), oca) == {"chain.pek.signed-by-oca"}
    assert failed(pek, replace(oca, signatures=none)) == {"chain.oca.self-signed"}


def test_a_key_must_be_a_point_on_its_curve(pek: Certificate, oca: Certificate) -> None:
    off = replace(oca.public_key, y=oca.public_key.y ^ 1)
    assert "chain.oca.point" in failed(pek, replace(oca, public_key=off))
    off = replace(pek.public_key, y=pek.public_key.y ^ 1)
    assert "chain.pek.point" in failed(replace(pek, public_key=off), oca)


@pytest.mark.parametrize("at", [0x04, 0x05, 0x06, 0x14, 0x43, 0x5C, 0x8B, 0xA4, 0x413])
def test_no_signed_byte_can_be_changed(pek: Certificate, oca: Certificate, at: int) -> None:
    for name in ("pek", "oca"):
        found = {"pek": pek, "oca": oca}
        data = bytearray(found[name].to_bytes())
        data[at] ^= 1
        found[name] = Certificate.from_bytes(bytes(data))
        assert failed(**found)


# a platform


@pytest.fixture
def driver(sev_platform: Platform) -> Driver:
    return Driver(sev_platform)


@pytest.fixture
def device(driver: Driver) -> Device:
    return Device(os.devnull, ioctl=driver.ioctl)


def test_the_exported_chain_is_complete_but_for_amd_s_signature(
    device: Device, driver: Driver
) -> None:
    with device:
        chain = exported_chain(device)
    assert chain == driver.platform.export(signed_cek=False)
    assert verify_exported(chain, roots=sev.amd_roots(), signed=False) is None
    with pytest.raises(ChainInvalid) as caught:
        verify_exported(chain, roots=sev.amd_roots(), signed=True)
    assert caught.value.check == "chain.cek.unsigned"


def test_an_id_that_is_not_reported_is_none(device: Device, driver: Driver) -> None:
    driver.fails[sev_driver.GET_ID2] = (errno.EINVAL, 0)
    with device:
        assert exported_chain(device).platform_id is None


def test_the_signed_cek_makes_it_whole(device: Device, driver: Driver) -> None:
    platform = driver.platform
    with device:
        chain = exported_chain(device)
    signed = with_signed_cek(chain, platform.export().cek.to_bytes(), "cek")
    verified = verify_exported(signed, roots=[platform.authority.root], signed=True)
    assert verified is not None
    assert signed == platform.export()
    with pytest.raises(NotVerified, match="another chip") as caught:
        with_signed_cek(chain, Platform(b"another").export().cek.to_bytes(), "cek")
    assert platform.get_id().hex() in caught.value.hint
    with pytest.raises(MalformedInput, match="cek: "):
        with_signed_cek(chain, b"", "cek")


def test_an_owner_may_be_imported_into_a_platform_of_its_own_without_guests(
    device: Device, driver: Driver, owner: OwnerKey, oca: Certificate, pek: Certificate
) -> None:
    own = owner.sign_pek(driver.platform.pek_csr())
    with device:
        status = device.platform_status()
        verify_import(device, status, pek=own, oca=oca)
        require_no_guests(device, status)
        with pytest.raises(NotVerified, match="not the one of this platform"):
            verify_import(device, status, pek=pek, oca=oca)
        with pytest.raises(ChainInvalid):
            verify_import(device, status, pek=oca, oca=own)
        with pytest.raises(WrongState, match="has an external owner"):
            verify_import(device, replace(status, externally_owned=True), pek=own, oca=oca)
        driver.platform.launch_start(0)
        for guests in (0, 1):  # either is enough
            with pytest.raises(WrongState, match="SEV guests are running"):
                require_no_guests(device, replace(device.platform_status(), guest_count=guests))
        with pytest.raises(WrongState, match="SEV guests are running"):
            require_no_guests(device, replace(status, guest_count=3))
