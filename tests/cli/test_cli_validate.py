"""``sev-attest validate``."""

import base64
import hashlib
import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Run
from sev_attest import sev
from sev_attest.guest import CpuModel, KernelHashes, VmsaProfile
from sev_attest.guest.spec import OVMF_SVSM_INFO
from sev_attest.owner import LaunchRecord
from sev_attest.sev.launch import expected_measure
from sev_attest.testing import Guest, Platform, launch_guest, ovmf_image
from sev_attest.testing.images import with_footer

OVMF = ovmf_image()
UNKNOWN_PLATFORM = (
    "note: INSECURE: without --record, nothing says whether the platform was verified"
)
LUKS = "736869E5-84f0-4973-92ec-06879ce3da0b"
SKU = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
PAGES = VmsaProfile(cpu=CpuModel.named("EPYC-Milan")).pages(0x80B004)


@dataclass
class Lab:
    """A platform, a session on it, and the files of its owner."""

    platform: Platform
    run: Run
    session: sev.Session

    def launch(self, *, vcpus: int = 0, **guest: Any) -> Guest:
        """Start a guest and write info, as its host reports it."""
        started = launch_guest(
            self.platform,
            policy=self.session.policy.value,
            godh=self.session.godh.to_bytes(),
            session=self.session.blob,
            firmware=guest.pop("firmware", OVMF),
            vcpus=vcpus or 1,
            **guest,
        )
        Path("info").write_text(started.domlaunchsecinfo())
        return started

    def validate(self, *options: object, firmware: bool = True, keys: bool = True) -> Ran:
        """Validate with the usual files, unless told otherwise."""
        usual = ["--firmware", "fw"] if firmware else []
        usual += ["--tik", "tik", "--tek", "tek"] if keys else []
        usual += ["--diagnose-budget", "0"]  # what it finds: test_cli_diagnosis.py
        usual += ["--ledger", "none"]  # what it keeps: test_cli_owner.py
        return self.run("validate", *usual, *options)


def new_lab(platform: Platform, run: Run, policy: int) -> Lab:
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(policy))
    Path("fw").write_bytes(OVMF)
    Path("tik").write_bytes(session.keys.tik)
    Path("tek").write_bytes(session.keys.tek)
    Path("tk").write_bytes(session.keys.tek + session.keys.tik)
    Path("kernel").write_bytes(b"a kernel")
    Path("initrd").write_bytes(b"an initrd")
    Path("vmsa0").write_bytes(PAGES.boot)
    Path("vmsa1").write_bytes(PAGES.ap or b"")
    return Lab(platform, run, session)


@pytest.fixture
def sev_lab(run: Run, here: Path) -> Lab:
    """Give a lab for plain SEV guests."""
    return new_lab(Platform(b"lab"), run, 0x1)


@pytest.fixture
def es_lab(run: Run, here: Path) -> Lab:
    """Give a lab for SEV-ES guests."""
    return new_lab(Platform(b"lab"), run, 0x5)


def test_a_launch_validates_from_its_report(sev_lab: Lab) -> None:
    sev_lab.launch()
    ran = sev_lab.validate("--launch-info", "info")
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[0] == "OK: Looks good to me"
    assert ran.notes[0].startswith("note: policy 0x0001 is what the host reports")


def test_every_short_and_long_option_of_the_libvirt_tool_is_taken(es_lab: Lab) -> None:
    guest = es_lab.launch(vcpus=3, kernel=b"a kernel", initrd=b"an initrd", cmdline=b"a  b ")
    measurement = base64.b64encode(guest.measurement).decode()
    numbers = ["--api-major", "1", "--api-minor", "0x37", "--build-id", "24", "--policy", "5"]
    short = ("-m", measurement, *numbers, "-f", "fw", "-k", "kernel", "-r", "initrd", "-e", "a  b ")
    long = (
        *("--measurement", measurement, *numbers, "--firmware", "fw", "--kernel", "kernel"),
        *("--initrd", "initrd", "--cmdline", "a  b "),
    )
    for given in (
        (*short, "-n", "3", "-0", "vmsa0", "-1", "vmsa1", "--tk", "tk", "-i", "-g", "-d"),
        (*long, "--num-cpus", "3", *SKU, "--tik", "tik", "--tek", "tek", "--insecure"),
        (*long, "--num-cpus", "3", "--vmsa-cpu0", "vmsa0", "--vmsa-cpu1", "vmsa1", "--tk", "tk"),
    ):
        ran = es_lab.run("validate", *given)
        assert (ran.code, ran.lines[0], ran.errors) == (0, "OK: Looks good to me", [])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_report_comes_from_a_file_or_standard_input(
    sev_lab: Lab, monkeypatch: pytest.MonkeyPatch, newline: str
) -> None:
    text = "$ virsh domlaunchsecinfo vm1\n" + sev_lab.launch().domlaunchsecinfo()
    data = text.replace("\n", newline).encode()
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(data)))
    assert sev_lab.validate("--launch-info", "-").code == 0
    Path("info").write_bytes(data)
    assert sev_lab.validate("--launch-info", "info").code == 0


def test_firmware_and_keys_come_through_standard_input_too(
    sev_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sev_lab.launch()
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(OVMF)))
    options = ("--launch-info", "info", "--firmware", "-", "--tk", "tk")
    assert sev_lab.validate(*options, firmware=False, keys=False).code == 0
    tk = base64.encodebytes(Path("tk").read_bytes())
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(tk)))
    assert sev_lab.validate("--launch-info", "info", "--tk", "-", keys=False).code == 0


def test_options_beside_the_report_win(sev_lab: Lab) -> None:
    honest = sev_lab.launch().domlaunchsecinfo()
    Path("info").write_text(honest.replace("sev-build-id   : 24", "sev-build-id   : 23"))
    assert sev_lab.validate("--launch-info", "info").code == 1
    assert sev_lab.validate("--launch-info", "info", "--build-id", "24").code == 0
    assert sev_lab.validate("--launch-info", "info", "--build-id", "24", "--policy", "3").code == 1


def write_record(lab: Lab, **changes: Any) -> None:
    """Write the record of the lab's session, as if its platform had been verified."""
    record = LaunchRecord.of(lab.session, "vm", datetime.now(UTC))
    verified = {"root": "AMD Milan", "generation": "milan"}
    made = replace(record, **(verified | changes)).signed(lab.session.keys)
    Path("record").write_bytes(made.to_bytes())


def test_the_record_holds_the_launch_to_its_policy(es_lab: Lab) -> None:
    write_record(es_lab)
    es_lab.launch(vcpus=1)
    given = ("--launch-info", "info", "--record", "record", "-n", "1", *SKU)
    for options in ([], ["--policy", "5"]):
        ran = es_lab.validate(*given, *options)
        assert (ran.code, ran.lines[0]) == (0, "OK: Looks good to me")
    honest = Path("info").read_text()
    Path("info").write_text(honest.replace("sev-policy     : 5", ""))
    assert es_lab.validate(*given).code == 0
    for claimed in ("1", "7"):
        # also where the claim is plain SEV, for which the vCPU options would be wrong
        Path("info").write_text(honest.replace("policy     : 5", f"policy     : {claimed}"))
        ran = es_lab.validate(*given)
        assert ran.code == 1
        assert "the session was made for 0x0005" in ran.err
        assert "hint: do not trust this launch; make a new session\n" in ran.err
    ran = es_lab.validate(*given, "--policy", "1")
    assert ran.code == 2
    assert "--policy contradicts --record, which says 0x0005" in ran.err
    Path("record").write_text("{}")
    assert es_lab.validate(*given).code == 6


def test_the_record_of_another_session_is_refused(sev_lab: Lab) -> None:
    sev_lab.launch()
    other = sev.TransportKeys(tek=bytes(16), tik=bytes(16))
    write_record(sev_lab, session_id=other.session_id)
    ran = sev_lab.validate("--launch-info", "info", "--record", "record")
    assert ran.code == 1
    assert "the keys are not those of the session in the record" in ran.err


def test_the_record_of_an_unverified_platform_needs_insecure(sev_lab: Lab) -> None:
    sev_lab.launch()
    write_record(sev_lab, root=None, generation=None)
    given = ("--launch-info", "info", "--record", "record")
    ran = sev_lab.validate(*given)
    assert (ran.code, ran.out) == (3, "")
    assert "nobody verified the platform" in ran.err
    ran = sev_lab.validate(*given, "--insecure")
    assert ran.code == 0
    assert ran.notes[0].startswith("note: INSECURE")
    write_record(sev_lab, root="not AMD's: ARK 00", generation=None)
    assert (
        "note: this session's platform has a root that is not AMD's" in sev_lab.validate(*given).err
    )


def test_a_session_without_kernel_hashes_is_noted_where_a_kernel_is_given(sev_lab: Lab) -> None:
    sev_lab.launch()
    write_record(sev_lab)
    ran = sev_lab.validate("--launch-info", "info", "--record", "record", "-k", "kernel")
    assert ran.code == 1
    assert "note: the record has no kernelHashes='yes'" in ran.err


NO_KERNEL = (
    "this session was made with --kernel-hashes, but no kernel was given: the host would choose it"
)
ADD_A_KERNEL = "add --kernel (and --initrd, --cmdline), or make a session without --kernel-hashes"


def test_a_session_with_kernel_hashes_is_held_to_a_kernel_of_its_owner(sev_lab: Lab) -> None:
    # The host started the guest without kernel hashes, so the firmware alone fits.
    sev_lab.launch()
    write_record(sev_lab, kernel_hashes=True)
    Path("key").write_bytes(b"hunter2")
    packet = ("--secret-header", "h", "--secret-payload", "p")
    given = ("--launch-info", "info", "--record", "record", "-s", "luks-key:key", *packet)
    ran = sev_lab.validate(*given)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        f"error: {NO_KERNEL}",
        f"hint: {ADD_A_KERNEL}; for tests, --insecure goes on",
    ]
    assert not Path("h").exists()
    assert json.loads(sev_lab.validate(*given, "--json").out)["errors"][0]["check"] == (
        "record.kernel-hashes"
    )
    assert sev_lab.validate(*given, "--kernel", "kernel").code == 1
    ran = sev_lab.validate(*given, "--insecure")
    assert (ran.code, f"note: INSECURE: {NO_KERNEL}" in ran.notes) == (0, True)


@pytest.mark.parametrize("named", ["kernel", "kernel-hashes", "launch-digest"])
def test_a_kernel_a_hash_or_a_digest_is_the_owner_s_word(sev_lab: Lab, named: str) -> None:
    sev_lab.launch(kernel=b"a kernel")
    write_record(sev_lab, kernel_hashes=True)
    value = {
        "kernel": "kernel",
        "kernel-hashes": f"{hashlib.sha256(b'a kernel').hexdigest()}::",
        "launch-digest": sev.launch_digest(OVMF, kernel=KernelHashes.of(b"a kernel")).hex(),
    }[named]
    firmware = named != "launch-digest"
    given = ("--launch-info", "info", "--record", "record", f"--{named}", value)
    ran = sev_lab.validate(*given, firmware=firmware)
    assert (ran.code, "INSECURE" in ran.out, ran.errors) == (0, False, [])


def test_a_policy_of_yours_that_the_host_denies_is_noted(es_lab: Lab) -> None:
    es_lab.launch(vcpus=1)
    Path("info").write_text(Path("info").read_text().replace("policy     : 5", "policy     : 1"))
    ran = es_lab.validate("--launch-info", "info", "--policy", "5", "-n", "1", *SKU)
    assert ran.code == 0
    assert "note: the host reports policy 0x0001, not yours" in ran.err


@pytest.mark.parametrize(
    ("launch", "options"),
    [
        ({"firmware": OVMF[:-1] + b"\0"}, []),
        ({"kernel": b"a kernel"}, []),
        ({}, ["-k", "kernel"]),
        ({"kernel": b"another"}, ["-k", "kernel"]),
        ({"kernel": b"a kernel"}, ["-k", "kernel", "-r", "initrd"]),
        ({"kernel": b"a kernel"}, ["-k", "kernel", "-e", " "]),
        ({"kernel": b"a kernel", "cmdline": b"a"}, ["-k", "kernel", "-e", "a "]),
        ({}, ["--api-minor", "54"]),
        ({}, ["--tik", "tek", "--tek", "tik"]),
    ],
)
def test_a_launch_of_something_else_is_refused(
    sev_lab: Lab, launch: dict[str, Any], options: list[str]
) -> None:
    sev_lab.launch(**launch)
    ran = sev_lab.validate("--launch-info", "info", *options)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[0] == "error: Measurement does not match, VM is not trustworthy"
    assert "\nhint: " in ran.err


@pytest.mark.parametrize(
    "options",
    [
        ["-n", "2", *SKU],
        ["-n", "4", *SKU],
        ["-n", "3", "--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "0"],
        ["-n", "3", "-0", "vmsa1", "-1", "vmsa0"],
        ["-n", "3", "-0", "vmsa0", "-1", "vmsa0"],
    ],
)
def test_another_vcpu_state_is_refused(es_lab: Lab, options: list[str]) -> None:
    es_lab.launch(vcpus=3)
    assert es_lab.validate("--launch-info", "info", "-n", "3", *SKU).code == 0
    assert es_lab.validate("--launch-info", "info", *options).code == 1


def test_plain_sev_measures_no_vcpus_and_says_so(sev_lab: Lab) -> None:
    sev_lab.launch()
    ran = sev_lab.validate("--launch-info", "info", "-n", "3", *SKU, "--policy", "1")
    assert ran.code == 0
    assert "note: policy 0x0001 is plain SEV: vCPU options play no part" in ran.err
    assert sev_lab.validate("--launch-info", "info", "-n", "3").code == 0


def test_the_host_does_not_choose_that_the_vcpu_state_is_left_out(sev_lab: Lab) -> None:
    sev_lab.launch()
    for given in (SKU, ("-0", "vmsa0"), ("--vmsa-profile", "gce")):
        ran = sev_lab.validate("--launch-info", "info", "-n", "3", *given)
        assert (ran.code, ran.out) == (2, "")
        assert "is measured for SEV-ES guests alone, and policy 0x0001 is plain SEV" in ran.err


def test_digest_or_hashes_stand_in_for_the_files(sev_lab: Lab) -> None:
    sev_lab.launch(kernel=b"a kernel", initrd=b"an initrd", cmdline=b"c")
    parts = [hashlib.sha256(part).hexdigest() for part in (b"a kernel", b"an initrd", b"c\0")]
    given = ("--launch-info", "info")
    assert sev_lab.validate(*given, "--kernel-hashes", ":".join(parts)).code == 0
    assert sev_lab.validate(*given, "--kernel-hashes", f"{parts[0]}::").code == 1
    sev_lab.launch(kernel=b"a kernel")
    assert sev_lab.validate(*given, "--kernel-hashes", f"{parts[0]}::").code == 0
    sev_lab.launch()
    digest = hashlib.sha256(OVMF).digest()
    for form in (digest.hex(), base64.b64encode(digest).decode()):
        assert sev_lab.validate(*given, "--launch-digest", form, firmware=False).code == 0
    assert sev_lab.validate(*given, "--launch-digest", bytes(32).hex(), firmware=False).code == 1


def test_json_tells_what_was_checked_and_measured(sev_lab: Lab) -> None:
    guest = sev_lab.launch(kernel=b"a kernel")
    ran = sev_lab.validate("--launch-info", "info", "-k", "kernel", "--json")
    good = json.loads(ran.out)
    assert (ran.code, good["schema"], good["ok"]) == (0, "sev-attest/validate/1", True)
    assert good["measurement"] == base64.b64encode(guest.measurement).decode()
    assert good["digest"] == sev.launch_digest(OVMF, kernel=b"a kernel").hex()
    checks = {check["id"]: check["ok"] for check in good["checks"]}
    # Nobody demanded an API or a build.
    assert checks == {
        "launch.policy": True,
        "launch.api": None,
        "launch.build": None,
        "launch.measurement": True,
    }
    least = sev_lab.validate("--launch-info", "info", "-k", "kernel", "--policy", "1", "-v")
    assert any(line.startswith("-    launch.api") for line in least.lines)
    assert good["kernel_hashes"]["kernel"] == hashlib.sha256(b"a kernel").hexdigest()
    assert [part["what"] for part in good["measured"]] == ["firmware", "kernel hashes"]
    assert good["measured"][1]["offset"] == len(OVMF)
    assert good["notes"]
    ran = sev_lab.validate("--launch-info", "info", "--json")
    bad = json.loads(ran.out)
    assert (ran.code, bad["ok"], bad["exit"], ran.err) == (1, False, 1, "")
    assert bad["errors"][0]["check"] == "launch.measurement"
    assert bad["checks"][-1] == {"id": "launch.measurement", "ok": False}
    assert bad["digest"] == hashlib.sha256(OVMF).hexdigest()


def test_checks_behind_the_one_that_failed_are_not_claimed(sev_lab: Lab) -> None:
    sev_lab.launch()
    ran = sev_lab.validate("--launch-info", "info", "--policy", "0x38010001", "--json")
    checks = {check["id"]: check["ok"] for check in json.loads(ran.out)["checks"]}
    assert checks == {
        "launch.policy": None,
        "launch.api": False,
        "launch.build": None,
        "launch.measurement": None,
    }


@pytest.mark.parametrize("packet", ["files", "standard input"])
def test_secrets_are_wrapped_for_the_launch_that_verified(
    sev_lab: Lab, monkeypatch: pytest.MonkeyPatch, packet: str
) -> None:
    guest = sev_lab.launch()
    Path("key").write_bytes(b"hunter2")
    other = "e6f5a162-d67f-4750-a67c-5d065f2a9910"
    second = "-" if packet == "standard input" else "fw:with:colons"
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"second")))
    Path("fw:with:colons").write_bytes(b"second")
    given = ("--launch-info", "info", "-s", "luks-key:key", "--inject-secret", f"{other}:{second}")
    files = ("--secret-header", "h", "--secret-payload", "p")
    ran = sev_lab.validate(*given, *files)
    assert UNKNOWN_PLATFORM in ran.notes
    assert (ran.code, ran.lines[:2]) == (0, ["OK: Looks good to me", "OK: Injected 2 secrets"])
    header, payload = (base64.b64decode(Path(name).read_bytes()) for name in "hp")
    assert guest.inject(header, payload) == {
        "736869e5-84f0-4973-92ec-06879ce3da0b": b"hunter2",
        other: b"second",
    }
    again = ("--launch-info", "info", "-s", "luks-key:key", *files)
    refused = sev_lab.validate(*again)
    assert (refused.code, refused.out) == (6, "")
    assert "h: exists already" in refused.err
    assert json.loads(sev_lab.validate(*again, "--force", "--json").out)["secrets"] == 1


def test_no_secret_leaves_for_a_launch_that_does_not_verify(sev_lab: Lab) -> None:
    sev_lab.launch(firmware=OVMF[:-1] + b"\0")
    Path("key").write_bytes(b"hunter2")
    ran = sev_lab.validate(
        "--launch-info", "info", "-s", "luks-key:key", "--secret-header", "h",
        "--secret-payload", "p",
    )  # fmt: skip
    assert ran.code == 1
    assert not Path("h").exists()
    assert not Path("p").exists()


def test_firmware_without_an_area_for_secrets_is_noted(sev_lab: Lab) -> None:
    for area in (None, (0, 0)):
        bare = ovmf_image(secret_area=area)
        Path("fw").write_bytes(bare)
        sev_lab.launch(firmware=bare)
        ran = sev_lab.validate(
            "--launch-info", "info", "--policy", "1", "-s", "luks-key:tik", "--secret-header", "h",
            "--secret-payload", "p", "--force",
        )  # fmt: skip
        assert ran.code == 0
        assert "note: the firmware image declares no area for secrets" in ran.err
        assert UNKNOWN_PLATFORM in ran.err


@pytest.mark.parametrize("profile", ["qemu-legacy", "qemu-init2", "qemu-init2+debug-swap"])
def test_the_vcpus_are_named_by_model_and_profile(es_lab: Lab, profile: str) -> None:
    es_lab.launch(vcpus=2, profile=profile)
    given = ("--launch-info", "info", "-n", "2", "--cpu-model-name", "EPYC-Milan-v2")
    assert es_lab.validate(*given, "--vmsa-profile", profile).code == 0
    assert es_lab.validate(*given).code == (0 if profile == "qemu-legacy" else 1)


def test_the_host_s_claim_is_held_against_the_record_whatever_the_option(es_lab: Lab) -> None:
    write_record(es_lab)
    es_lab.launch(vcpus=1)
    Path("info").write_text(Path("info").read_text().replace("policy     : 5", "policy     : 1"))
    given = ("--launch-info", "info", "--record", "record", "--policy", "5", "-n", "1", *SKU)
    ran = es_lab.validate(*given)
    assert ran.code == 1
    assert "the host reports policy 0x0001" in ran.err


@pytest.mark.parametrize("option", ["-m", "--launch-digest", "--kernel-hashes"])
def test_bytes_that_are_no_text_are_malformed(sev_lab: Lab, option: str) -> None:
    sev_lab.launch()
    odd = "\udcff::" if option == "--kernel-hashes" else "\udcff"
    ran = sev_lab.validate(
        "--launch-info", "info", option, odd, firmware=option != "--launch-digest"
    )
    assert ran.code == 6


def test_firmware_that_binds_no_secret_to_a_launch_needs_insecure(run: Run, here: Path) -> None:
    lab = new_lab(Platform(b"old", api=(0, 16)), run, 1)
    guest = lab.launch()
    Path("key").write_bytes(b"hunter2")
    given = ("--launch-info", "info", "-s", "luks-key:key", "--secret-header", "h",
             "--secret-payload", "p")  # fmt: skip
    ran = lab.validate(*given)
    assert (ran.code, ran.out) == (3, "")
    assert "before API 0.17" in ran.err
    ran = lab.validate(*given, "--insecure")
    assert ran.code == 0
    assert "note: INSECURE: this firmware binds the secret to no launch" in ran.err
    assert guest.inject(*(base64.b64decode(Path(name).read_bytes()) for name in "hp"))


def test_quiet_and_verbose(es_lab: Lab) -> None:
    es_lab.launch(vcpus=2, kernel=b"a kernel")
    given = ("--launch-info", "info", "-n", "2", "-k", "kernel", *SKU)
    assert es_lab.validate(*given, "-q").out == ""
    for flag in ("-v", "-d"):
        shown = es_lab.validate(*given, flag).out
        for part in ("firmware", "kernel", "initrd", "cmdline", "launch digest", "nonce", "policy"):
            assert f"{part}: " in shown
        assert hashlib.sha256(PAGES.boot).hexdigest() in shown
        assert "ok   launch.measurement" in shown
    refused = es_lab.validate(*given, "-v", "-n", "1")
    assert "FAIL launch.measurement" in refused.out
    assert es_lab.validate(*given, "-n", "1", "-q").out == ""
    single = es_lab.validate("--launch-info", "info", "-n", "1", "-0", "vmsa0", "-v")
    assert "VMSA of vCPU 0: sha256 " in single.out
    assert "VMSA of vCPU 1" not in single.out


def test_no_output_ever_shows_a_key_or_the_expected_measurement(es_lab: Lab) -> None:
    guest = es_lab.launch(vcpus=2)
    keys = es_lab.session.keys
    expected = expected_measure(
        keys.tik,
        api=(1, 55),
        build_id=24,
        policy=sev.GuestPolicy(5),
        digest=sev.launch_digest(OVMF, vcpus=3, vmsa=PAGES),
        nonce=guest.measurement[32:],
    )
    secrets = [
        form(secret)
        for secret in (keys.tik, keys.tek, expected)
        for form in (bytes.hex, lambda b: base64.b64encode(b).decode().rstrip("="), repr)
    ]
    for options in ([], ["-v"], ["-d"], ["--json"], ["-d", "--json"]):
        for count in ("2", "3"):
            ran = es_lab.validate("--launch-info", "info", "-n", count, *SKU, *options)
            assert ran.code == (0 if count == "2" else 1)
            assert not any(secret in ran.out + ran.err for secret in secrets)


def test_a_policy_that_leaves_memory_open_is_noted(run: Run, here: Path) -> None:
    lab = new_lab(Platform(b"lab"), run, 0)
    lab.launch()
    assert "lets the host read the guest's memory" in lab.validate("--launch-info", "info").err


INFO = "--launch-info info"
NUMBERS = "--api-major 1 --api-minor 55 --build-id 24 --policy 1"
PACKET = "--secret-header h --secret-payload p"
B64 = base64.b64encode(bytes(48)).decode()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        # usage
        (
            "",
            2,
            "--measurement, --api-major, --api-minor, --build-id, --policy (or --launch-info) are",
        ),
        (f"-m {B64}", 2, "--api-major, --api-minor, --build-id, --policy (or --launch-info) are"),
        (NUMBERS, 2, "--measurement (or --launch-info) is needed"),
        (f"-m {B64} {NUMBERS[:-11]}", 2, "--policy (or --launch-info) is needed"),
        (f"{INFO} --tk tk", 2, "--tk excludes --tik and --tek"),
        (f"{INFO} --initrd initrd", 2, "--kernel is needed for --initrd"),
        (f"{INFO} --cmdline a", 2, "--kernel is needed for --cmdline"),
        (f"{INFO} --policy 5 {' '.join(SKU)}", 2, "needs the number of vCPUs"),
        (f"{INFO} --policy 5 -n 1", 2, "needs the vCPUs' state"),
        (f"{INFO} --policy 5 -n 2 -0 vmsa0", 2, "need the page of the additional ones"),
        (f"{INFO} -1 vmsa1", 2, "--vmsa-cpu1 needs --vmsa-cpu0"),
        (f"{INFO} -0 vmsa0 {' '.join(SKU)}", 2, "--vmsa-cpu0/1 exclude"),
        (f"{INFO} --cpu-family 25", 2, "go together"),
        (f"{INFO} --cpu-model-name EPYC {' '.join(SKU)}", 2, "--cpu-model-name excludes"),
        (f"{INFO} --cpu-model-name Xeon", 2, "'Xeon' is not one of QEMU's CPU models: EPYC, "),
        (f"{INFO} --vmsa-profile xen", 2, "no VMSA profile 'xen': qemu-legacy, "),
        (f"{INFO} --vmsa-profile gce -0 vmsa0", 2, "--vmsa-cpu0/1 exclude --vmsa-profile"),
        (f"{INFO} --policy 5 -n 1 --vmsa-profile qemu-init2", 2, "needs the vCPUs' state"),
        (f"{INFO} -n 0", 2, "0 is not in 1..4096"),
        (f"{INFO} -n 5000", 2, "5000 is not in 1..4096"),
        (f"{INFO} --api-major 256", 2, "256 is not in 0..255"),
        (f"{INFO} --policy 4294967296", 2, "is not in 0..4294967295"),
        (f"{INFO} --build-id -1", 2, "-1 is not in 0..255"),
        (f"{INFO} --launch-digest {'00' * 32}", 2, "--launch-digest excludes --firmware"),
        (f"{INFO} --kernel kernel --kernel-hashes x", 2, "--kernel-hashes excludes --kernel"),
        (f"{INFO} --kernel-hashes {'00' * 32}", 2, "takes KERNEL:INITRD:CMDLINE"),
        (f"{INFO} --kernel-hashes ::", 2, "takes KERNEL:INITRD:CMDLINE"),
        ("--launch-info - --firmware -", 2, "only one of --launch-info, --firmware can be"),
        # connections
        ("-c qemu+ssh://host/system", 2, "--connect needs --domain"),
        (f"{INFO} -o vm1", 2, "--launch-info cannot be combined with"),
        # secrets
        (f"{INFO} -s luks-key:tik", 2, "--inject-secret needs --secret-header and"),
        (f"{INFO} -s luks-key:tik --secret-header h", 2, "--inject-secret needs --secret-header"),
        (f"{INFO} --secret-header h", 2, "--secret-header and --secret-payload go together"),
        (f"{INFO} --secret-payload p", 2, "--secret-header and --secret-payload go together"),
        (f"{INFO} -s luks-key:tik --secret-header h --secret-payload ./h", 2, "are one file"),
        (f"{INFO} -s luks-key:tik --secret-header - --secret-payload p", 2, "written to a file"),
        (f"{INFO} {PACKET} -s luks-key:large", 2, "the secrets take 3120 bytes, the firmware has"),
        (f"{INFO} {PACKET} -s luks-key:", 2, "given as ALIAS-OR-GUID:PATH"),
        (f"{INFO} {PACKET} -s hunter2", 2, "given as ALIAS-OR-GUID:PATH"),
        (f"{INFO} {PACKET} -s luks-key:tik -s luks-key:tek", 2, "two secrets for luks-key"),
        (f"{INFO} {PACKET} -s luks-key:- --firmware -", 2, "can be standard input"),
        (f"{INFO} {PACKET} -s luks-key:nowhere", 6, "error: the file of secret luks-key: No such"),
        (
            f"{INFO} {PACKET} -s luks-key:folder",
            6,
            "the file of secret luks-key: this is a folder, not a file",
        ),
        (f"{INFO} {PACKET} -s luks-key:empty", 2, "error: the secret luks-key is empty"),
        (f"{INFO} {PACKET} -s disk:tik", 2, "'disk' is neither a GUID nor an alias (luks-key)"),
        (f"{INFO} {PACKET} -s {LUKS}:tik -s luks-key:tek", 2, "two secrets for luks-key"),
        # the guest
        (
            f"{INFO} -f nohashes -k kernel",
            4,
            "nohashes: the firmware declares an empty kernel-hash area",
        ),
        (f"{INFO} -f nofooter -k kernel", 4, "declares no kernel-hash area"),
        (
            f"{INFO} -f nofooter --policy 5 -n 1 {' '.join(SKU)}",
            6,
            "nofooter: firmware footer: there is none",
        ),
        (
            f"{INFO} -f zero --policy 5 -n 1 {' '.join(SKU)}",
            4,
            "zero: the firmware's SEV-ES reset address is 0",
        ),
        (f"{INFO} -f svsm", 4, "svsm: this is an SVSM, which is for SEV-SNP guests"),
        # input
        (f"{INFO} -f descriptor", 6, "descriptor: firmware: this is a firmware descriptor (JSON)"),
        (f"{INFO} -f lying -k kernel", 6, "lying: firmware footer: its length is 65535"),
        (f"{INFO} -f empty", 6, "empty: firmware: the file is empty"),
        (f"{INFO} -f nowhere", 6, "nowhere: No such file or directory"),
        (f"{INFO} -f folder", 6, "folder: this is a folder, not a file"),
        (f"{INFO} -k nowhere", 6, "nowhere: No such file or directory"),
        (f"{INFO} --tik nowhere", 6, "nowhere: No such file or directory"),
        (f"{INFO} --tik folder", 6, "folder: this is a folder, not a file"),
        (f"{INFO} --tik short", 6, "short: TIK: 15 bytes, expected 16"),
        (f"{INFO} --tik tk", 6, "tk: TIK: 32 bytes, expected 16"),
        (f"{INFO} --tek empty", 6, "empty: TEK: 0 bytes, expected 16"),
        (f"{INFO} --policy 5 -n 1 -0 short", 6, "short: VMSA page: 15 bytes, expected 4096"),
        (f"{INFO} --policy 5 -n 1 -0 nowhere", 6, "nowhere: No such file"),
        ("--launch-info nowhere", 6, "nowhere: No such file or directory"),
        ("--launch-info fw", 6, "fw: launch info: it has no `sev-...: value` line"),
        (f"-m AAAA {NUMBERS}", 6, "--measurement: measurement: 3 bytes (decoded from text)"),
        (f"-m ?? {NUMBERS}", 6, "--measurement: measurement: 2 characters that are no base64"),
        (f"-m {B64[:-1]} {NUMBERS}", 6, "63 characters that are no base64"),
        ("--launch-info part", 2, "part lacks values: also give --build-id, --policy"),
        (f"{INFO} --api-major 1_0", 2, "'1_0' is no number"),
        (f"{INFO} --api-major \uff15", 2, "is no number"),
        (f"-m {B64}AAAA {NUMBERS}", 6, "51 bytes (decoded from text), expected 48"),
        (f"{INFO} --record fw", 6, "fw: launch record: this is not JSON"),
        (
            f"{INFO} --kernel-hashes 00:00:00",
            6,
            "--kernel-hashes: kernel: 1 bytes (decoded from text), expected 32",
        ),
    ],
)
def test_bad_input_gets_one_clear_line(sev_lab: Lab, options: str, code: int, words: str) -> None:
    sev_lab.launch()
    Path("nohashes").write_bytes(ovmf_image(hash_table=(0, 0)))
    Path("nofooter").write_bytes(bytes(4096))
    Path("zero").write_bytes(ovmf_image(reset_address=0))
    Path("svsm").write_bytes(with_footer({OVMF_SVSM_INFO: bytes(4)}, size=4096))
    Path("descriptor").write_text('{"mapping": {"device": "memory", "filename": "/a/OVMF.fd"}}')
    footer = OVMF.index(bytes.fromhex("de82b596b21ff745baeaa366c55a082d"))
    Path("lying").write_bytes(OVMF[: footer - 2] + b"\xff\xff" + OVMF[footer:])
    Path("empty").touch()
    Path("short").write_bytes(bytes(15))
    Path("folder").mkdir()
    Path("large").write_bytes(bytes(3072))
    lines = Path("info").read_text().splitlines()
    Path("part").write_text("\n".join(lines[:3]))
    ran = sev_lab.validate(*options.split())
    assert words in ran.err
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.count("error: ") == 1


MISSING = [
    "--measurement, --api-major, --api-minor, --build-id, --policy (or --launch-info) are needed",
    "--firmware (or --launch-digest) is needed",
    "the session's keys are needed: --tik and --tek, or --tk",
]


def test_everything_that_is_missing_is_named_at_once(run: Run) -> None:
    ran = run("validate")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [f"error: {words}" for words in MISSING]
    document = json.loads(run("validate", "--json").out)
    assert (document["schema"], document["exit"]) == ("sev-attest/validate/1", 2)
    assert document["errors"] == [{"check": "usage", "message": m, "hint": ""} for m in MISSING]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (f"{INFO} --policy 5", ["needs the number of vCPUs", "needs the vCPUs' state"]),
        (f"{INFO} {PACKET} -s luks-key:- --tk -",
         ["--tk excludes", "--tk, --inject-secret can be"]),
        ("-c qemu:///x --launch-info i --cmdline a --cpu-family 1 -1 vmsa1 --launch web",
         ["--connect needs --domain", "--launch-info cannot be", "--kernel is needed for",
          "--vmsa-cpu0/1 exclude", "go together", "--launch needs --requirements"]),
        (f"{INFO} --requirements owner.toml --secret-header h --cpu-model-name Xeon",
         ["'Xeon' is not one of QEMU's", "--requirements needs --record", "go together"]),
    ],
)  # fmt: skip
def test_contradictions_are_named_at_once(sev_lab: Lab, options: str, words: list[str]) -> None:
    sev_lab.launch()
    ran = sev_lab.validate(*options.split())
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert ran.code == 2
    assert len(lines) == len(words)
    assert all(one in line for one, line in zip(words, lines, strict=True)), lines


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "--tik and --tek, or --tk"),
        (["--tik", "tik"], "--tik and --tek, or --tk"),
        (["--tek", "tek"], "--tik and --tek, or --tk"),
        (["--tk", "tik"], "tik: TK: 16 bytes, expected 32"),
    ],
)
def test_the_session_s_keys_are_needed(sev_lab: Lab, given: list[str], words: str) -> None:
    sev_lab.launch()
    ran = sev_lab.validate("--launch-info", "info", *given, keys=False)
    assert ran.code == (6 if "tk" in given[0:1] or "--tk" in given else 2)
    assert words in ran.err


@pytest.mark.parametrize("option", ["-f", "-k", "--tk", "--launch-info", "--record"])
def test_an_empty_name_is_a_usage_error(sev_lab: Lab, option: str) -> None:
    sev_lab.launch()
    ran = sev_lab.validate("--launch-info", "info", option, "")
    assert ran.code == 2
    assert "the file's name is empty" in ran.err


def test_firmware_is_needed(sev_lab: Lab) -> None:
    sev_lab.launch()
    ran = sev_lab.validate("--launch-info", "info", firmware=False)
    assert (ran.code, ran.err) == (2, "error: --firmware (or --launch-digest) is needed\n")


def test_a_command_line_is_hashed_byte_for_byte(sev_lab: Lab) -> None:
    raw = b"caf\xe9 \xff"
    sev_lab.launch(kernel=b"a kernel", cmdline=raw)
    given = ("--launch-info", "info", "-k", "kernel", "-e", raw.decode("utf-8", "surrogateescape"))
    assert sev_lab.validate(*given).code == 0


def test_a_search_that_fails_leaves_the_verdict(
    sev_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sev_attest.cli.diagnosis.diagnose", lambda *_, **__: 1 / 0)
    sev_lab.launch(kernel=b"a kernel")
    ran = sev_lab.validate("--launch-info", "info")
    assert (ran.code, ran.out) == (1, "")
    assert "note: the search for what fits failed (ZeroDivisionError): a bug" in ran.err


# real launches


@pytest.mark.parametrize("case_id", ["digest-given", "firmware", "kernel-hashes", "sev-es-4-vcpus"])
def test_real_launches_validate(run: Run, real: Path, here: Path, case_id: str) -> None:
    known = json.loads((real / "expected.json").read_bytes())["measurement"]
    case = next(case for case in known if case["id"] == case_id)
    Path("tek").write_bytes(bytes(16))
    options: list[object] = ["--tik", real / case["tik"], "--tek", "tek", "-m", case["measurement"]]
    for name in (
        "api_major",
        "api_minor",
        "build_id",
        "policy",
        "num_cpus",
        "launch_digest",
        "cmdline",
    ):
        if name in case:
            options += [f"--{name.replace('_', '-')}", case[name]]
    for name in ("firmware", "kernel", "initrd", "vmsa_cpu0", "vmsa_cpu1"):
        if name in case:
            options += [f"--{name.replace('_', '-')}", real / case[name]]
    assert run("validate", *options).code == 0
    assert run("validate", *options, "--build-id", "41").code == 1
    if "num_cpus" in case:
        pages = options.index("--vmsa-cpu0")
        without = options[:pages]
        assert run("validate", *without, *SKU).code == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--secret-header", "h", "--secret-payload", "p"), "--secret-header needs --inject-sec"),
    ],
)
def test_options_that_would_play_no_part_are_refused(
    sev_lab: Lab, given: tuple[str, ...], words: str
) -> None:
    sev_lab.launch()
    ran = sev_lab.validate("--launch-info", "info", *given)
    assert (ran.code, ran.out, words in ran.err) == (2, "", True)


def test_the_report_of_an_sev_snp_guest_is_called_what_it_is(sev_lab: Lab) -> None:
    report = bytes((3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0)).ljust(1184, b"\0")
    Path("info").write_bytes(report)
    ran = sev_lab.validate("--launch-info", "info")
    assert ran.code == 6
    assert "error: info: launch info: this is an SEV-SNP attestation report" in ran.err


def test_qemu_s_error_is_told_in_its_own_words(sev_lab: Lab) -> None:
    reply = {"error": {"class": "GenericError", "desc": "SEV is not enabled"}}
    Path("info").write_text(json.dumps(reply))
    ran = sev_lab.validate("--launch-info", "info")
    assert ran.code == 6
    assert "launch info: QEMU answered with an error: SEV is not enabled" in ran.err
