"""launch_info.py, launch.py and secret.py: from the host's report to the verdict and the secret."""

import base64
import hashlib
import json
import traceback
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import (
    Insecure,
    LaunchRefused,
    MalformedInput,
    MeasurementMismatch,
    SevAttestError,
    Unsupported,
    _crypto,
    sev,
)
from sev_attest.guest import CpuModel, VmsaPages
from sev_attest.sev import secret
from sev_attest.sev.launch import CHECKS, expected_measure
from sev_attest.sev.launch_info import Claims, from_claims, read_report
from sev_attest.sev.states import Status
from sev_attest.testing import FirmwareError, Guest, Platform, launch_guest, ovmf_image

OVMF = ovmf_image()
PLAIN = hashlib.sha256(OVMF).digest()
CPU = CpuModel(family=25, model=1, stepping=1)
DIGEST = sev.launch_digest(OVMF, vcpus=1, vmsa=CPU)
MEASUREMENT = base64.b64encode(bytes(range(48))).decode()
TEXT = f"""sev-measurement: {MEASUREMENT}
sev-api-major  : 1
sev-api-minor  : 55
sev-build-id   : 24
sev-policy     : 5

"""


def launched(
    platform: Platform, session: sev.Session, **changes: Any
) -> tuple[Guest, sev.LaunchInfo]:
    """Start a guest in that session, and read what the host reports of it."""
    honest: dict[str, Any] = {
        "policy": session.policy.value,
        "godh": session.godh.to_bytes(),
        "session": session.blob,
        "firmware": OVMF,
    }
    guest = launch_guest(platform, **(honest | changes))
    return guest, sev.LaunchInfo.from_text(guest.domlaunchsecinfo().encode())


@pytest.fixture
def honest(milan: Platform, session: sev.Session) -> dict[str, Any]:
    """Return the arguments of a verify_launch that succeeds."""
    _, info = launched(milan, session)
    return {"info": info, "keys": session.keys, "policy": session.policy, "digest": DIGEST}


# what the host reports


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        "$ virsh domlaunchsecinfo vm1\n" + TEXT + "$ ",
        "root@host:~# virsh domlaunchsecinfo vm1\r\n" + TEXT,
        TEXT.replace("sev-", "   sev-"),
        "\n".join(reversed(TEXT.splitlines())),
        TEXT + TEXT,
    ],
)
def test_the_report_of_virsh_is_read_however_it_was_copied(text: str) -> None:
    info = sev.LaunchInfo.from_text(text.encode())
    assert info.measurement == bytes(range(48))
    assert (info.measure, info.nonce) == (bytes(range(32)), bytes(range(32, 48)))
    assert (info.api_major, info.api_minor, info.build_id, info.policy) == (1, 55, 24, 5)


def test_the_model_prints_what_virsh_prints(milan: Platform, session: sev.Session) -> None:
    guest, info = launched(milan, session)
    assert guest.domlaunchsecinfo() == TEXT.replace(
        MEASUREMENT, base64.b64encode(info.measurement).decode()
    )


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        (TEXT, "", "launch-info.format"),
        (TEXT, "\x00\xff", "launch-info.format"),
        (": 55", ": 256", "launch-info.sev-api-minor"),
        (": 55", ": -1", "launch-info.sev-api-minor"),
        (": 55", ": 0x37", "launch-info.sev-api-minor"),
        (": 55", ": ²", "launch-info.sev-api-minor"),
        (": 55", ":", "launch-info.sev-api-minor"),
        (": 24", ": " + "9" * 5000, "launch-info.sev-build-id"),
        (": 24", ": " + "0" * 5000 + "1", "launch-info.sev-build-id"),
        ("sev-policy     : 5", "sev-x:\nsev-policy: 1\nsev-policy: 5", "launch-info.sev-policy"),
        ("sev-policy     : 5", "sev-x:\nsev-snp-policy: 1", "launch-info.snp"),
        ("policy     : 5", "policy     : 4294967296", "launch-info.sev-policy"),
        ("sev-policy     : 5", "sev-policy : 5\nsev-policy : 4", "launch-info.sev-policy"),
        (MEASUREMENT, MEASUREMENT[:-4], "measurement.length"),
        (MEASUREMENT, MEASUREMENT + "AAAA", "measurement.length"),
        (MEASUREMENT, "?" * 64, "measurement.length"),
        (MEASUREMENT, "", "measurement.length"),
        ("sev-measurement", "measurement", "launch-info.incomplete"),
        ("sev-build-id   : 24\n", "", "launch-info.incomplete"),
        ("sev-policy", "sev-snp-policy", "launch-info.snp"),
    ],
)
def test_a_report_that_does_not_fit_is_refused(old: str, new: str, check: str) -> None:
    with pytest.raises(SevAttestError) as caught:
        sev.LaunchInfo.from_text(TEXT.replace(old, new).encode())
    assert caught.value.check == check


@given(st.text() | st.binary().map(lambda noise: "sev-policy: " + noise.decode("latin-1")))
def test_a_random_report_gives_only_our_errors(text: str) -> None:
    try:
        read_report(text.encode("utf-8", "surrogatepass"))
    except SevAttestError:
        return


@pytest.mark.parametrize(
    "noise", [b"\n", b" ", b"sev-a:x" + b" " * 9, b"sev-", b":", b"\r\n\t", b"{} "]
)
def test_a_megabyte_of_noise_is_read_at_once(noise: bytes) -> None:
    data = (noise * (1 << 20))[: 1 << 20]
    with pytest.raises(SevAttestError):
        sev.LaunchInfo.from_text(data)
    with pytest.raises(SevAttestError):
        sev.Chain.from_bytes(data.replace(b"sev-a", b"pdh") + b"x")


def test_a_report_may_be_text_already() -> None:
    assert sev.LaunchInfo.from_text(TEXT) == sev.LaunchInfo.from_text(TEXT.encode())


def test_old_libvirt_reports_only_the_measurement() -> None:
    claims = read_report(f"sev-measurement: {MEASUREMENT}".encode())
    assert claims == Claims(measurement=bytes(range(48)))
    with pytest.raises(MalformedInput) as caught:
        from_claims(claims)
    assert str(caught.value) == ("launch info: sev-api-major, sev-api-minor, sev-build-id missing")
    assert caught.value.hint.startswith("libvirt before 8.0 prints only the measurement")


@pytest.mark.parametrize(
    "change",
    [
        {"measurement": bytes(47)},
        {"measurement": bytes(49)},
        {"api_major": 256},
        {"api_minor": -1},
        {"build_id": 256},
        {"policy": 1 << 32},
    ],
)
def test_a_launch_info_out_of_range_cannot_be_made(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"measurement": bytes(48), "api_major": 0, "api_minor": 0, "build_id": 0}
    assert sev.LaunchInfo(**good)
    with pytest.raises(MalformedInput):
        sev.LaunchInfo(**(good | change))


# the verdict


def test_an_honest_launch_verifies(honest: dict[str, Any]) -> None:
    launch = sev.verify_launch(**honest)
    assert (launch.info, launch.digest) == (honest["info"], DIGEST)


def test_a_report_without_policy_is_held_to_the_session_s(honest: dict[str, Any]) -> None:
    info = replace(honest["info"], policy=None)
    assert sev.verify_launch(**(honest | {"info": info}))
    with pytest.raises(MeasurementMismatch):
        sev.verify_launch(**(honest | {"info": info, "policy": sev.GuestPolicy(1)}))


@pytest.mark.parametrize("bit", range(48 * 8))
def test_every_flipped_bit_of_a_measurement_is_refused(honest: dict[str, Any], bit: int) -> None:
    measurement = bytearray(honest["info"].measurement)
    measurement[bit // 8] ^= 1 << bit % 8
    info = replace(honest["info"], measurement=bytes(measurement))
    with pytest.raises(MeasurementMismatch):
        sev.verify_launch(**(honest | {"info": info}))


def test_another_number_digest_key_or_policy_is_refused(honest: dict[str, Any]) -> None:
    info, keys = honest["info"], honest["keys"]
    for change in (
        *({"info": replace(info, api_major=n)} for n in (0, 2, 255)),
        *({"info": replace(info, api_minor=n)} for n in range(256) if n != info.api_minor),
        *({"info": replace(info, build_id=n)} for n in range(256) if n != info.build_id),
        {"digest": hashlib.sha256(OVMF + b"\0").digest()},
        {"digest": bytes(32)},
        {"keys": sev.TransportKeys(tek=keys.tek, tik=bytes(16))},
        {"keys": sev.TransportKeys(tek=keys.tik, tik=keys.tek)},
    ):
        with pytest.raises(MeasurementMismatch, match="Measurement does not match"):
            sev.verify_launch(**(honest | change))


def test_a_policy_that_the_host_reports_must_be_the_session_s(honest: dict[str, Any]) -> None:
    for claimed in (0, 1, 4, 7, 0x80000005):
        info = replace(honest["info"], policy=claimed)
        with pytest.raises(LaunchRefused) as caught:
            sev.verify_launch(**(honest | {"info": info}))
        assert caught.value.check == "launch.policy"
        assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("demand", "check"),
    [
        ({"min_api": (1, 56)}, "launch.api"),
        ({"min_api": (2, 0)}, "launch.api"),
        ({"min_build": 25}, "launch.build"),
    ],
)
def test_less_firmware_than_the_owner_demands_is_refused(
    honest: dict[str, Any], demand: dict[str, Any], check: str
) -> None:
    with pytest.raises(LaunchRefused) as caught:
        sev.verify_launch(**honest, **demand)
    assert caught.value.check == check
    assert check in CHECKS
    assert sev.verify_launch(**honest, min_api=(1, 55), min_build=24)


def test_less_firmware_than_the_policy_demands_is_refused(honest: dict[str, Any]) -> None:
    # A real platform does not even start such a guest.
    policy = sev.GuestPolicy(0x38010005)
    info = replace(honest["info"], policy=policy.value)
    with pytest.raises(LaunchRefused, match=r"reports SEV API 1\.55, the policy demands 1\.56"):
        sev.verify_launch(**(honest | {"info": info, "policy": policy}))
    with pytest.raises(FirmwareError) as caught:
        Platform(b"p").launch_start(policy.value)
    assert caught.value.status is Status.POLICY_FAILURE


def test_the_measurement_of_another_session_or_launch_is_refused(
    milan: Platform, verified: sev.VerifiedChain, session: sev.Session
) -> None:
    other = sev.Session.create(verified, policy=session.policy)
    _, info = launched(milan, other)
    with pytest.raises(MeasurementMismatch):
        sev.verify_launch(info, keys=session.keys, policy=session.policy, digest=DIGEST)


def test_changed_firmware_or_guest_is_refused(milan: Platform, session: sev.Session) -> None:
    for change in (
        {"firmware": OVMF[:-1] + bytes((OVMF[-1] ^ 1,))},
        {"firmware": bytes(4096) + OVMF},
        {"kernel": b"kernel"},
        {"vcpus": 2},
    ):
        _, info = launched(milan, session, **change)
        with pytest.raises(MeasurementMismatch):
            sev.verify_launch(info, keys=session.keys, policy=session.policy, digest=DIGEST)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_digest_has_32_bytes(honest: dict[str, Any], size: int) -> None:
    with pytest.raises(MalformedInput, match="launch digest"):
        sev.verify_launch(**(honest | {"digest": bytes(size)}))


def test_a_mismatch_does_not_tell_the_expected_measurement(honest: dict[str, Any]) -> None:
    with pytest.raises(MeasurementMismatch) as caught:
        sev.verify_launch(**(honest | {"digest": bytes(32)}))
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    expected = expected_measure(
        honest["keys"].tik,
        api=(1, 55),
        build_id=24,
        policy=honest["policy"],
        digest=bytes(32),
        nonce=honest["info"].nonce,
    )
    shown = f"{caught.value!r}{vars(caught.value)}{''.join(trace.format())}"
    for form in (expected.hex(), base64.b64encode(expected).decode(), repr(expected)):
        assert form not in shown


def test_only_verify_launch_makes_a_verified_launch(honest: dict[str, Any]) -> None:
    launch = sev.verify_launch(**honest)
    assert launch.keys.tik.hex() not in repr(launch)
    with pytest.raises(TypeError, match="only verify_launch"):
        sev.VerifiedLaunch(**{f.name: getattr(launch, f.name) for f in fields(launch)})
    with pytest.raises(TypeError):
        replace(launch, digest=bytes(32))


# the secret


@pytest.mark.parametrize("api", [(0, 14), (0, 16), (0, 17), (0, 24), (1, 55)])
def test_the_guest_gets_exactly_the_secrets_that_were_sent(api: tuple[int, int]) -> None:
    platform = Platform(b"p", api=api)
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(1))
    guest, info = launched(platform, session)
    launch = sev.verify_launch(info, keys=session.keys, policy=session.policy, digest=PLAIN)
    other = "e6f5a162-d67f-4750-a67c-5d065f2a9910"
    secrets = {"luks-key": b"hunter2", other: b"\0" * 24}
    if api < (0, 17):
        with pytest.raises(Insecure, match=r"before API 0\.17 does not bind a secret"):
            sev.build_secret(launch, secrets)
    packet = sev.build_secret(launch, secrets, insecure=True)
    assert len(packet.header) == 52
    plaintext = platform.launch_secret(guest.handle, packet.header, packet.payload)
    assert len(plaintext) % 16 == 0
    assert plaintext[:16].hex() == "42f5741edd71664d963eef4287ff173b"
    assert int.from_bytes(plaintext[16:20], "little") == 20 + 27 + 44
    assert plaintext[40:47] == b"hunter2"
    assert plaintext[47 + 20 : 47 + 44] == bytes(24)


@pytest.mark.parametrize("where", ["header", "payload"])
def test_a_changed_packet_or_another_launch_s_is_refused(
    milan: Platform, verified: sev.VerifiedChain, session: sev.Session, where: str
) -> None:
    guest, info = launched(milan, session)
    launch = sev.verify_launch(info, keys=session.keys, policy=session.policy, digest=DIGEST)
    packet = sev.build_secret(launch, {"luks-key": b"hunter2"})
    data = getattr(packet, where)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        odd = replace(packet, **{where: bytes(changed)})
        with pytest.raises(FirmwareError) as caught:
            milan.launch_secret(guest.handle, odd.header, odd.payload)
        assert caught.value.status is Status.BAD_MEASUREMENT
    # the same session once more: other nonce, other measurement
    again, _ = launched(milan, session)
    with pytest.raises(FirmwareError):
        milan.launch_secret(again.handle, packet.header, packet.payload)


def test_a_secret_takes_a_verified_launch_only(honest: dict[str, Any]) -> None:
    for launch in (honest["info"], None, replace(honest["info"])):
        with pytest.raises(TypeError, match="VerifiedLaunch"):
            sev.build_secret(launch, {"luks-key": b"x"})  # type: ignore[arg-type]


def test_no_iv_is_used_twice(honest: dict[str, Any]) -> None:
    launch = sev.verify_launch(**honest)
    packets = [sev.build_secret(launch, {"luks-key": b"x"}) for _ in range(8)]
    assert len({packet.header[4:20] for packet in packets}) == len(packets)


@pytest.mark.parametrize(
    ("secrets", "check"),
    [
        ({}, "secret.none"),
        ({"luks-key": b""}, "secret.empty"),
        ({"luks-key": b"a", "736869E5-84f0-4973-92ec-06879ce3da0b": b"b"}, "secret.twice"),
        ({"luks-key": bytes(0x4000)}, "secret.size"),
        ({"disk-key": b"a"}, "secret.GUID"),
        ({"736869e5-84f0-4973-92ec-06879ce3da0": b"a"}, "secret.GUID"),
        ({"736869e584f0497392ec06879ce3da0b": b"a"}, "secret.GUID"),
        ({"736869e5-84f0-4973-92ec-06879ce3da0ß": b"a"}, "secret.GUID"),
    ],
)
def test_secrets_that_cannot_be_sent_are_refused(
    honest: dict[str, Any], secrets: dict[str, bytes], check: str
) -> None:
    launch = sev.verify_launch(**honest)
    with pytest.raises(SevAttestError) as caught:
        sev.build_secret(launch, secrets)
    assert caught.value.check == check


# real launches

REAL_FILES = ("firmware", "kernel", "initrd")


def real_cases() -> list[str]:
    return ["digest-given", "firmware", "kernel-hashes", "sev-es-4-vcpus"]


@pytest.mark.parametrize("case_id", real_cases())
def test_a_real_measurement_verifies_and_any_other_does_not(real: Path, case_id: str) -> None:
    known = json.loads((real / "expected.json").read_bytes())["measurement"]
    case = next(case for case in known if case["id"] == case_id)
    info = sev.LaunchInfo(
        measurement=base64.b64decode(case["measurement"]),
        api_major=case["api_major"],
        api_minor=case["api_minor"],
        build_id=case["build_id"],
        policy=case["policy"],
    )
    tik = (real / case["tik"]).read_bytes()
    arguments: dict[str, Any] = {
        "keys": sev.TransportKeys(tek=bytes(16), tik=tik),
        "policy": sev.GuestPolicy(case["policy"]),
        "digest": real_digest(real, case),
    }
    assert sev.verify_launch(info, **arguments)
    for at in range(48):
        changed = bytearray(info.measurement)
        changed[at] ^= 0x10
        with pytest.raises(MeasurementMismatch):
            sev.verify_launch(replace(info, measurement=bytes(changed)), **arguments)


def real_digest(real: Path, case: dict[str, Any]) -> bytes:
    """Compute the digest that a case of expected.json describes, or take the one it gives."""
    if "launch_digest" in case:
        return base64.b64decode(case["launch_digest"])
    files = {name: real / case[name] for name in ("kernel", "initrd") if name in case}
    vcpus = {}
    if "num_cpus" in case:
        pages = [(real / case[name]).read_bytes() for name in ("vmsa_cpu0", "vmsa_cpu1")]
        vcpus = {"vcpus": case["num_cpus"], "vmsa": VmsaPages(boot=pages[0], ap=pages[1])}
    return sev.launch_digest(real / case["firmware"], cmdline=case.get("cmdline"), **files, **vcpus)


def test_a_real_hmac_is_recomputed(real: Path) -> None:
    known = json.loads((real / "expected.json").read_bytes())["measurement"]
    case = next(case for case in known if case["id"] == "hmac-only")
    measure = expected_measure(
        bytes.fromhex(case["tik_hex"]),
        api=(case["api_major"], case["api_minor"]),
        build_id=case["build_id"],
        policy=sev.GuestPolicy(case["policy"]),
        digest=bytes.fromhex(case["launch_digest_hex"]),
        nonce=bytes.fromhex(case["nonce_hex"]),
    )
    assert measure.hex() == case["measure_hex"]


def test_a_real_secret_is_rebuilt(
    real: Path, honest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = json.loads((real / "expected.json").read_bytes())["secret"][0]
    info = replace(honest["info"], measurement=base64.b64decode(case["measurement"]))
    keys = sev.TransportKeys(
        tek=(real / case["tek"]).read_bytes(), tik=(real / case["tik"]).read_bytes()
    )
    # The case has no launch behind it: put its measurement into one that verified.
    launch = sev.verify_launch(**honest)
    object.__setattr__(launch, "info", info)
    object.__setattr__(launch, "keys", keys)
    monkeypatch.setattr(_crypto, "random_bytes", lambda _size: base64.b64decode(case["iv"]))
    secrets = {guid: (real / path).read_bytes() for guid, path in case["secrets"].items()}
    packet = secret.build_secret(launch, secrets)
    assert base64.b64encode(packet.header).decode() == case["header"]
    assert base64.b64encode(packet.payload).decode() == case["payload"]


# exact bounds


@pytest.mark.parametrize("number", [0, 255])
def test_numbers_of_a_report_go_up_to_255_and_32_bits(number: int) -> None:
    policy = number * 0x01010101
    lines = (f"sev-api-major: {number}", f"sev-api-minor: {number}", f"sev-build-id: {number}")
    text = "\n".join((f"sev-measurement: {MEASUREMENT}", *lines, f"sev-policy: {policy}"))
    info = sev.LaunchInfo.from_text(text)
    assert (info.api_major, info.api_minor, info.build_id, info.policy) == (*[number] * 3, policy)
    for name in ("api-major", "api-minor", "build-id"):
        with pytest.raises(MalformedInput, match=r"is not in 0\.\.255"):
            read_report(f"sev-{name}: 256")
        assert read_report(f"sev-{name}: 0000000255")  # ten digits
        with pytest.raises(MalformedInput, match=r"is not in 0\.\.255"):
            read_report(f"sev-{name}: 00000000255")


def test_a_policy_of_ten_digits_is_read() -> None:
    assert read_report("sev-policy: 4294967295").policy == 0xFFFF_FFFF
    assert read_report("sev-policy: 1000000000").policy == 1000000000
    for odd in ("4294967296", "9999999999", "00000000005", "42949672950"):
        with pytest.raises(MalformedInput, match=r"is not in 0\.\.4294967295"):
            read_report(f"sev-policy: {odd}")


@pytest.mark.parametrize("name", ["api_major", "api_minor", "build_id", "policy"])
def test_a_launch_info_takes_each_number_up_to_its_limit(name: str) -> None:
    most = 0xFFFF_FFFF if name == "policy" else 0xFF
    good: dict[str, Any] = {"measurement": bytes(48), "api_major": 0, "api_minor": 0, "build_id": 0}
    assert getattr(sev.LaunchInfo(**(good | {name: most})), name) == most
    for odd in (-1, most + 1):
        with pytest.raises(MalformedInput, match=rf"{odd} is not in 0\.\.{most}"):
            sev.LaunchInfo(**(good | {name: odd}))


@pytest.mark.parametrize("api", [(0, 0), (0, 1), (1, 0)])
def test_without_a_minimum_every_firmware_may_be(api: tuple[int, int]) -> None:
    keys, policy = sev.TransportKeys(tek=bytes(16), tik=bytes(16)), sev.GuestPolicy(1)
    measure = expected_measure(
        keys.tik, api=api, build_id=0, policy=policy, digest=PLAIN, nonce=bytes(16)
    )
    info = sev.LaunchInfo(
        measurement=measure + bytes(16), api_major=api[0], api_minor=api[1], build_id=0
    )
    expected = {"keys": keys, "policy": policy, "digest": PLAIN}
    assert sev.verify_launch(info, **expected)  # type: ignore[arg-type] # as they are above
    for demand, check in (
        ({"min_api": (api[0], api[1] + 1)}, "launch.api"),
        ({"min_build": 1}, "launch.build"),
    ):
        with pytest.raises(LaunchRefused) as caught:
            sev.verify_launch(info, **expected, **demand)  # type: ignore[arg-type] # likewise
        assert caught.value.check == check


TABLE = 20 + 20
"""What stands before one secret: the table's header and its entry's."""


def test_a_secret_fills_what_kvm_takes_and_no_more(honest: dict[str, Any]) -> None:
    launch = sev.verify_launch(**honest)
    full = {"luks-key": bytes(0x4000 - TABLE)}
    assert len(sev.build_secret(launch, full).payload) == 0x4000
    packet = sev.build_secret_unverified(launch.keys, launch.info.measure, full)
    assert len(packet.payload) == 0x4000
    more = {"luks-key": bytes(0x4000 - TABLE + 1)}
    with pytest.raises(Unsupported, match="take 16400 bytes, KVM passes 16384 at most"):
        sev.build_secret(launch, more)
    with pytest.raises(Unsupported, match="take 16400 bytes, KVM passes 16384 at most"):
        sev.build_secret_unverified(launch.keys, launch.info.measure, more)


@pytest.mark.parametrize("room", [48, 49, 4096])
def test_a_secret_fills_the_guest_s_area_and_no_more(honest: dict[str, Any], room: int) -> None:
    launch = sev.verify_launch(**honest)
    fits = room // 16 * 16 - TABLE
    assert sev.build_secret(launch, {"luks-key": bytes(fits)}, secret_area_size=room)
    with pytest.raises(Unsupported, match=f"the firmware has room for {room}") as caught:
        sev.build_secret(launch, {"luks-key": bytes(fits + 1)}, secret_area_size=room)
    assert caught.value.check == "secret.size"


@pytest.mark.parametrize("size", range(1, 34))
def test_the_table_of_secrets_ends_where_its_last_block_does(size: int) -> None:
    table = secret.table({"luks-key": b"\xff" * size})
    assert len(table) == -(-(TABLE + size) // 16) * 16
    assert table[TABLE:] == b"\xff" * size + bytes(len(table) - TABLE - size)


@pytest.mark.parametrize("text", ["sev-snp-policy : 0x30000\n", '{"sev-type": "sev-snp"}'])
def test_an_sev_snp_guest_s_values_lead_to_the_commands_for_it(text: str) -> None:
    with pytest.raises(Unsupported, match="attested by its report") as caught:
        read_report(text)
    assert "`sev-attest snp verify`" in caught.value.hint
