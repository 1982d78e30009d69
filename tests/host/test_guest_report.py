"""``sev_attest.host``: a guest's report through configfs-tsm and /dev/sev-guest; every refusal."""

import errno
import os
from pathlib import Path

import pytest

from guest_kernel import FOLDER, GET_EXT_REPORT, GET_REPORT, Firmware, SevGuest, Tsm
from sev_attest.errors import NotAttestable, SevAttestError
from sev_attest.host import sev_guest, tsm
from sev_attest.host.connection import HostError
from sev_attest.host.guest_report import Answer, Way, request_report
from sev_attest.snp.report import AttestationReport
from snp_material import MILAN, VCEK_GUID, table

ASKED = bytes(range(64))
TABLE = table((VCEK_GUID, MILAN.vek()))


def through(kernel: Tsm | SevGuest) -> dict[str, Way]:
    """Return the one way to a simulated kernel."""
    if isinstance(kernel, Tsm):
        return {tsm.FOLDER: lambda data, vmpl: tsm.request(data, vmpl, files=kernel)}
    return {
        sev_guest.DEVICE: lambda data, vmpl: sev_guest.request(
            data, vmpl, path=os.devnull, ioctl=kernel.ioctl
        )
    }


def ask(kernel: Tsm | SevGuest, vmpl: int | None = None) -> Answer:
    return request_report(ASKED, vmpl=vmpl, ways=through(kernel))


def refused(kernel: Tsm | SevGuest, vmpl: int | None = None) -> SevAttestError:
    with pytest.raises(SevAttestError) as caught:
        ask(kernel, vmpl)
    if isinstance(kernel, Tsm):
        assert kernel.entries == {}
    return caught.value


KERNELS = [Tsm, SevGuest]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("certificates", [b"", TABLE], ids=["none", "table"])
def test_the_answer_has_the_report_and_the_host_s_table(
    kind: type[Tsm | SevGuest], certificates: bytes
) -> None:
    kernel = kind(Firmware(certificates))
    answer = ask(kernel)
    report = AttestationReport.from_bytes(answer.report)
    assert (report.report_data, report.vmpl) == (ASKED, 0)
    # The device's buffer is longer than the table, which says itself where it ends.
    assert answer.certificates.rstrip(b"\0") == certificates.rstrip(b"\0")
    assert answer.source == next(iter(through(kernel)))


@pytest.mark.parametrize("kind", KERNELS)
def test_a_vmpl_is_asked_for(kind: type[Tsm | SevGuest]) -> None:
    kernel = kind()
    assert AttestationReport.from_bytes(ask(kernel, 2).report).vmpl == 2
    assert kernel.firmware.asked == [(ASKED, 2)]


@pytest.mark.parametrize("kind", KERNELS)
def test_a_report_for_another_question_is_refused(kind: type[Tsm | SevGuest]) -> None:
    error = refused(kind(Firmware(lies=bytes(63) + b"\x01")))
    assert (error.check, error.exit_code) == ("guest.report-data", 6)


@pytest.mark.parametrize("kind", KERNELS)
def test_a_report_of_another_vmpl_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: type[Tsm | SevGuest]
) -> None:
    kernel = kind()
    report = kernel.firmware.report(ASKED, 0)
    monkeypatch.setattr(kernel.firmware, "report", lambda _data, _vmpl: report)
    assert refused(kernel, 1).check == "guest.vmpl"


@pytest.mark.parametrize("kind", KERNELS)
def test_a_report_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: type[Tsm | SevGuest]
) -> None:
    kernel = kind()
    monkeypatch.setattr(kernel.firmware, "report", lambda _data, _vmpl: bytes(1184))
    error = refused(kernel)
    assert error.check == "guest.report.format"
    assert "SEV-SNP report version" in str(error)


def test_outside_a_guest_it_says_so(tmp_path: Path) -> None:
    absent = str(tmp_path / "sev-guest")
    ways: dict[str, Way] = {
        "tsm": lambda data, vmpl: tsm.request(data, vmpl, files=Tsm(fails={"make": errno.ENOENT})),
        "device": lambda data, vmpl: sev_guest.request(data, vmpl, path=absent),
    }
    with pytest.raises(NotAttestable, match=r"offers no SEV-SNP report: neither /sys") as caught:
        request_report(ASKED, ways=ways)
    assert (caught.value.check, caught.value.exit_code) == ("guest.report", 4)
    assert "modprobe sev-guest" in caught.value.hint


def test_the_second_way_is_taken_if_the_first_is_not_there() -> None:
    kernel, device = Tsm(fails={"make": errno.ENXIO}), SevGuest()
    answer = request_report(ASKED, ways=through(kernel) | through(device))
    assert answer.source == "/dev/sev-guest"
    assert kernel.firmware.asked == []


def test_a_first_way_that_fails_is_not_passed_over() -> None:
    kernel, device = Tsm(fails={"outblob": errno.EIO}), SevGuest()
    with pytest.raises(HostError):
        request_report(ASKED, ways=through(kernel) | through(device))
    assert device.seen == []


def test_this_machine_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsm, "System", lambda: Tsm(Firmware(TABLE)))
    assert request_report(ASKED).source == FOLDER


# configfs-tsm


def test_the_entry_is_removed_after_every_step_that_fails() -> None:
    whole = Tsm()
    ask(whole)
    assert whole.entries == {}
    assert whole.log == [
        "make", "provider", "generation", "privlevel_floor", "privlevel", "inblob", "outblob",
        "auxblob", "generation", "remove",
    ]  # fmt: skip
    for step in whole.log[1:-1]:
        kernel = Tsm(fails={step: errno.EIO})
        error = refused(kernel)
        assert str(error) == f"{FOLDER}: {step}: the firmware or the host refused"
        assert kernel.log[-1] == "remove"


@pytest.mark.parametrize("name", ["provider", "generation", "outblob"])
def test_an_entry_without_a_file_that_is_needed_is_refused(name: str) -> None:
    assert f"the entry has no {name}" in str(refused(Tsm(absent={name})))


def test_an_older_kernel_has_no_floor_and_no_auxblob() -> None:
    kernel = Tsm(Firmware(TABLE), absent={"privlevel_floor", "auxblob"})
    assert ask(kernel).certificates == b""
    assert "privlevel" not in kernel.log


def test_the_level_of_the_kernel_is_the_default() -> None:
    kernel = Tsm(Firmware(level=2))
    assert AttestationReport.from_bytes(ask(kernel).report).vmpl == 2


def test_a_level_below_the_kernel_s_is_refused_by_its_name() -> None:
    error = refused(Tsm(Firmware(level=2)), 1)
    assert str(error) == f"{FOLDER}: this guest can ask for VMPL 2 and above, not for 1"
    assert error.check == "guest.vmpl"


def test_another_kind_of_guest_is_named() -> None:
    error = refused(Tsm(provider="tdx_guest"))
    assert isinstance(error, NotAttestable)
    assert "tdx_guest makes the reports of this machine" in str(error)


def test_a_request_that_the_kernel_dropped_is_refused() -> None:
    kernel = Tsm(deaf=True)
    assert f"{FOLDER}: outblob: the kernel does not accept" in str(refused(kernel))
    assert "inblob" in kernel.log
    assert kernel.firmware.asked == []


def test_another_writer_to_the_entry_is_noticed() -> None:
    assert refused(Tsm(other_writes=1)).check == "guest.report.generation"


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"1" * 5000])
def test_a_generation_that_is_no_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    kernel = Tsm()
    read = kernel.read
    monkeypatch.setattr(
        kernel, "read", lambda path: text if path.endswith("generation") else read(path)
    )
    assert "generation is no number" in str(refused(kernel))


def test_no_right_to_make_an_entry_is_refused_and_not_another_way_tried() -> None:
    error = refused(Tsm(fails={"make": errno.EACCES}))
    assert (str(error), error.hint) == (f"{FOLDER}: permission denied", "be root")


def test_an_interrupt_leaves_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Tsm()

    def interrupted(_data: bytes, _vmpl: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(kernel.firmware, "report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(kernel)
    assert kernel.entries == {}


def test_the_system_s_files_are_real_ones(tmp_path: Path) -> None:
    files, entry = tsm.System(), tmp_path / "entry"
    files.make(str(entry))
    with pytest.raises(FileNotFoundError):  # configfs makes the files: nothing else may
        files.write(str(entry / "inblob"), b"x")
    (entry / "inblob").write_bytes(b"")
    files.write(str(entry / "inblob"), ASKED)
    assert files.read(str(entry / "inblob")) == ASKED
    (entry / "inblob").write_bytes(bytes(1 << 17))
    assert len(files.read(str(entry / "inblob"))) == 1 << 15
    (entry / "inblob").unlink()
    files.remove(str(entry))
    assert not entry.exists()


# /dev/sev-guest


def test_a_table_larger_than_linux_takes_is_left_out() -> None:
    kernel = SevGuest(Firmware(bytes(0x4001)))
    assert ask(kernel).certificates == b""
    assert kernel.seen == [GET_EXT_REPORT, GET_REPORT]


@pytest.mark.parametrize(
    ("code", "exitinfo2", "words"),
    [
        (errno.EIO, 0x16, "the firmware refused: a parameter is not valid (INVALID_PARAM, code"),
        (errno.EIO, 0x99, "the firmware refused: a code that is not known here (code 0x99)"),
        (errno.EIO, 2 << 32, "the host refused (error 0x2)"),
        (errno.EIO, 0xFFFF_FFFF, "the firmware or the host refused"),
        (errno.EIO, 0, "the firmware or the host refused"),
        (errno.ENOTTY, 0xFFFF_FFFF, "the guest's key to the firmware is disabled"),
        (errno.EINVAL, 0xFFFF_FFFF, "the kernel does not accept this request"),
        (errno.EBADFD, 0xFFFF_FFFF, "File descriptor in bad state"),
    ],
)
def test_what_the_device_refuses_is_named(code: int, exitinfo2: int, words: str) -> None:
    error = refused(SevGuest(fails={GET_EXT_REPORT: (code, exitinfo2)}))
    assert words in str(error)
    assert (error.check, error.exit_code) == ("guest.report.refused", 6)
    assert error.hint


def test_a_refusal_in_the_response_is_named() -> None:
    assert "INVALID_PARAM" in str(refused(SevGuest(status=0x16)))
    assert "a report of 4 bytes" in str(refused(SevGuest(size=4)))


def test_a_device_without_the_right_to_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_arguments: object) -> int:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "open", denied)
    assert str(refused(SevGuest())) == f"{os.devnull}: permission denied"
