"""``sev_attest.host.device``: every command, every status code, every error of the system."""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sev_driver
from sev_attest import sev
from sev_attest.errors import SevAttestError, WrongState
from sev_attest.host import device_errors
from sev_attest.host.connection import HostError
from sev_attest.host.device import Command, Device
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.oca import OwnerKey
from sev_attest.sev.states import PlatformState, Status
from sev_attest.testing import Platform
from sev_driver import CSR, EXPORT, GET_ID2, PDH_GEN, PEK_GEN, RESET, Driver

STATUS = sev_driver.STATUS
IMPORT = sev_driver.IMPORT
CALLS: dict[int, Callable[[Device], object]] = {
    RESET: Device.factory_reset,
    STATUS: Device.platform_status,
    PEK_GEN: Device.pek_gen,
    CSR: Device.pek_csr,
    PDH_GEN: Device.pdh_gen,
    EXPORT: Device.pdh_cert_export,
    IMPORT: lambda device: device.pek_cert_import(b"pek", b"oca"),
    GET_ID2: Device.get_id,
}
NAMES = {int(command): command.name for command in Command}


@pytest.fixture
def driver(sev_platform: Platform) -> Driver:
    return Driver(sev_platform)


@pytest.fixture
def device(driver: Driver) -> Device:
    return Device(os.devnull, ioctl=driver.ioctl)


def refused(device: Device, command: int) -> SevAttestError:
    with device, pytest.raises(SevAttestError) as caught:
        CALLS[command](device)
    return caught.value


# what the firmware answers


def test_the_status_is_the_platform_s(device: Device, driver: Driver) -> None:
    driver.platform.launch_start(0)
    with device:
        found = device.platform_status()
    assert (found.api_major, found.api_minor, found.build) == (*driver.platform.api, 24)
    assert (found.state, found.guest_count) == (PlatformState.WORKING, 1)
    assert (found.externally_owned, found.es) == (False, True)


def test_the_flags_are_told_apart(device: Device, driver: Driver) -> None:
    driver.es = False
    owner = OwnerKey.generate()
    with device:
        pek = owner.sign_pek(Certificate.from_bytes(device.pek_csr()))
        device.pek_cert_import(pek.to_bytes(), owner.certificate().to_bytes())
        found = device.platform_status()
    assert (found.externally_owned, found.es) == (True, False)


def test_the_chain_is_the_platform_s(device: Device, driver: Driver) -> None:
    with device:
        pdh, rest = device.pdh_cert_export()
    chain = sev.Chain.from_bytes(pdh + rest)
    assert chain.to_bytes() == driver.platform.export(signed_cek=False).to_bytes()


@pytest.mark.parametrize("sockets", [1, 2])
def test_the_id_is_the_first_socket_s(device: Device, driver: Driver, sockets: int) -> None:
    driver.sockets = sockets
    with device:
        assert device.get_id() == driver.platform.get_id()


def test_a_longer_reply_than_expected_is_asked_for_again(device: Device, driver: Driver) -> None:
    driver.sockets = 8
    with device:
        assert device.get_id() == driver.platform.get_id()
    assert driver.seen == [GET_ID2, GET_ID2]


def test_new_keys_are_made(device: Device, driver: Driver) -> None:
    def keys() -> tuple[str, ...]:
        return tuple(link.fingerprint for link in driver.platform.export().certificates[:4])

    first = keys()
    with device:
        device.pdh_gen()
        second = keys()
        device.pek_gen()
        third = keys()
        device.factory_reset()
    assert first[0] != second[0]
    assert first[1:] == second[1:]
    assert not set(second[:3]) & set(third[:3])
    assert not set(third[:3]) & set(keys()[:3])
    assert driver.platform.state is PlatformState.UNINIT
    assert first[3] == keys()[3]


def test_a_reset_while_guests_run_is_the_wrong_state(device: Device, driver: Driver) -> None:
    driver.platform.launch_start(0)
    error = refused(device, RESET)
    assert isinstance(error, WrongState)
    assert (error.check, error.exit_code) == ("device.busy", 5)
    assert str(error) == f"{os.devnull}: FACTORY_RESET: guests are running"
    assert "if there are none, the secure processor may have stopped" in error.hint


def test_every_status_code_of_the_api_has_words_and_advice() -> None:
    codes = set(device_errors.STATUS)
    assert set(range(1, 0x28)) - codes == {0x1E}  # the one that has no name
    assert all(len(row) == 3 and all(row) for row in device_errors.STATUS.values())
    renamed = {"HWSEV_RET_PLATFORM": "HW_PLATFORM", "HWSEV_RET_UNSAFE": "HW_UNSAFE"}
    for status in Status:
        if status:
            name = device_errors.STATUS[status][0]
            assert renamed.get(name, name) == status.name


@pytest.mark.parametrize("command", CALLS)
@pytest.mark.parametrize("code", [*range(1, 0x2A), 0xFFFF])
def test_every_status_code_comes_out_in_words(
    device: Device, driver: Driver, command: int, code: int
) -> None:
    driver.fails[command] = (errno.EIO, code)
    error = refused(device, command)
    name, words, hint = device_errors.STATUS.get(code, ("", "a code that is not known here", ""))
    if code == Status.INVALID_LEN and command in (CSR, EXPORT, GET_ID2):
        assert driver.seen == [command, command]
    assert str(error).startswith(f"{os.devnull}: {NAMES[command]}: {words} (")
    assert f"code {code:#x})" in str(error)
    assert name in str(error)
    assert error.hint.startswith(hint)
    assert error.hint
    assert error.check == f"device.{name.lower().replace('_', '-') or 'status'}"
    assert error.exit_code == (5 if code in (1, 2, 5, 0x12, 0x20, 0x23) else 6)


def test_a_status_code_without_an_error_of_the_call_is_a_failure_too(
    device: Device, driver: Driver
) -> None:
    driver.fails[PDH_GEN] = (0, Status.HW_UNSAFE)
    assert refused(device, PDH_GEN).check == "device.hwsev-ret-unsafe"


def test_a_call_that_the_kernel_answers_itself_is_a_success(device: Device, driver: Driver) -> None:
    driver.fails[PDH_GEN] = (0, 0xFFFF_FFFF)
    with device:
        device.pdh_gen()


# what lies about sizes


@pytest.mark.parametrize("command", [CSR, EXPORT, GET_ID2])
@pytest.mark.parametrize("size", [0x4001, 0xFFFF_FFFF])
def test_no_firmware_gets_buffers_of_any_size(
    device: Device, driver: Driver, monkeypatch: pytest.MonkeyPatch, command: int, size: int
) -> None:
    error = lying(device, driver, monkeypatch, command, Status.INVALID_LEN, size)
    assert f"the firmware replied with a size of {size} bytes" in str(error)
    assert driver.seen == [command]


@pytest.mark.parametrize("command", [CSR, EXPORT, GET_ID2])
@pytest.mark.parametrize("size", [0, 1, 0x4000])
def test_a_firmware_that_asks_for_ever_is_asked_twice(
    device: Device, driver: Driver, monkeypatch: pytest.MonkeyPatch, command: int, size: int
) -> None:
    error = lying(device, driver, monkeypatch, command, Status.INVALID_LEN, size)
    assert error.check == "device.invalid-len"
    assert driver.seen == [command, command]


@pytest.mark.parametrize("command", [CSR, EXPORT, GET_ID2])
def test_a_reply_that_claims_more_than_there_was_room_for_is_refused(
    device: Device, driver: Driver, monkeypatch: pytest.MonkeyPatch, command: int
) -> None:
    error = lying(device, driver, monkeypatch, command, Status.SUCCESS, 0xFFFF_FFFF)
    assert "4294967295 bytes, more than there was room for" in str(error)
    assert error.check == "device.reply"


def lying(
    device: Device,
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    command: int,
    status: int,
    size: int,
) -> SevAttestError:
    """Return what comes of a firmware that leaves a status code and a size."""

    def issue(number: int, data: bytes, blobs: list[bytes]) -> sev_driver.Reply:
        driver.seen.append(number)
        sized = b"".join(struct.pack("<QI", at, size) for at, _ in struct.iter_unpack("<QI", data))
        return sev_driver.Reply(errno.EIO if status else 0, status, sized, blobs)

    monkeypatch.setattr(driver, "issue", issue)
    return refused(device, command)


@pytest.mark.parametrize("found", [b"", bytes(63), b"\1" * 63, bytes(64), bytes(128)])
def test_an_id_that_is_none_is_refused(
    device: Device, driver: Driver, monkeypatch: pytest.MonkeyPatch, found: bytes
) -> None:
    monkeypatch.setattr(driver.platform, "get_id", lambda: found)
    error = refused(device, GET_ID2)
    assert "which is no id" in str(error)
    assert error.check == "device.reply"


def test_an_unknown_state_is_refused(
    device: Device, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = sev_driver.Reply(data=bytes((1, 55, 3)) + bytes(9))
    monkeypatch.setattr(driver, "issue", lambda *_: reply)
    assert "an unknown platform state, 3" in str(refused(device, STATUS))


# what the system says


@pytest.mark.parametrize("command", CALLS)
@pytest.mark.parametrize(
    ("number", "check", "words"),
    [
        (errno.ENOTTY, "not-sev", "it is no SEV device"),
        (errno.ENODEV, "absent", "no SEV firmware is behind it"),
        (errno.EPERM, "permission", "not permitted"),
        (errno.EACCES, "permission", "permission denied"),
        (errno.EINVAL, "kernel", "the device does not know this command"),
        (errno.EOPNOTSUPP, "kernel", "does not support it"),
        (524, "kernel", "does not support it"),
        (errno.EBUSY, "busy", "the platform is busy"),
        (errno.ETIMEDOUT, "timeout", "the firmware did not answer"),
        (errno.EIO, "io", "the firmware could not be called"),
        (errno.EFAULT, "io", "the kernel could not copy the data"),
        (errno.ENOMEM, "memory", "the kernel has no memory left"),
        (errno.EXDEV, "io", os.strerror(errno.EXDEV)),
    ],
)
def test_every_error_of_a_call_comes_out_in_words(
    device: Device, driver: Driver, command: int, number: int, check: str, words: str
) -> None:
    driver.fails[command] = (number, 0xFFFF_FFFF)
    error = refused(device, command)
    if (command, number) == (RESET, errno.EBUSY):
        assert isinstance(error, WrongState)
        return
    assert isinstance(error, HostError)
    assert (error.check, error.exit_code) == (f"device.{check}", 6)
    assert str(error).startswith(f"{os.devnull}: {NAMES[command]}: ")
    assert words in str(error)
    assert error.hint


def test_an_error_of_the_kernel_is_not_taken_for_the_firmware_s(
    device: Device, driver: Driver
) -> None:
    driver.fails[PDH_GEN] = (errno.ENODEV, 5)
    assert refused(device, PDH_GEN).check == "device.absent"


@pytest.mark.parametrize(
    ("number", "check", "words"),
    [
        (errno.ENOENT, "missing", "there is no such device"),
        (errno.ENOTDIR, "missing", "there is no such device"),
        (errno.ENODEV, "absent", "no SEV firmware is behind it"),
        (errno.ENXIO, "absent", "no SEV firmware is behind it"),
        (errno.EACCES, "permission", "permission denied"),
        (errno.EPERM, "permission", "not permitted"),
        (errno.EISDIR, "not-sev", "it is a folder, no device"),
        (errno.EBUSY, "busy", "it is in use"),
        (errno.ELOOP, "io", os.strerror(errno.ELOOP)),
    ],
)
def test_every_error_of_opening_comes_out_in_words(
    monkeypatch: pytest.MonkeyPatch, number: int, check: str, words: str
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(number, "text")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(HostError) as caught:
        Device("/dev/sev")
    assert (str(caught.value), caught.value.check) == (f"/dev/sev: {words}", f"device.{check}")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["nothing", "."])
def test_real_places_that_are_no_device(tmp_path: Path, name: str) -> None:
    with pytest.raises(HostError, match=r"no such device|a folder"):
        Device(str(tmp_path / name))


def test_a_real_file_is_no_sev_device(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refused(Device(str(tmp_path / "file")), STATUS)
    assert error.check == "device.not-sev"
    assert "/dev/sev" in error.hint


def test_who_may_only_read_the_device_reads(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, modes = os.open, []

    def only_reading(path: str, flags: int) -> int:
        modes.append(flags)
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "text")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", only_reading)
    driver.writable = False
    with Device(os.devnull, ioctl=driver.ioctl) as device:
        assert device.platform_status().build == 24
        assert len(device.pdh_cert_export()[0]) == 2084
    error = refused(Device(os.devnull, ioctl=driver.ioctl), PDH_GEN)
    assert error.hint.startswith("it needs the right to write to the device")
    assert modes == [os.O_RDWR, os.O_RDONLY] * 2


def test_it_is_closed_once(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Any] = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda file: closed.append(close(file)))
    with Device(os.devnull, ioctl=driver.ioctl) as device:
        device.close()
    assert len(closed) == 1
