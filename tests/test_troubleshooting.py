"""docs/troubleshooting.md: what it says of the firmware's errors happens on the firmware model."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest import sev
from sev_attest.domain_xml.rules import RULES
from sev_attest.sev.diagnosis.hypotheses import RULED_OUT
from sev_attest.testing import FirmwareError, Guest, Platform, QemuError, launch_guest, ovmf_image

PAGE = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text()
LAUNCH, _, SECRET = PAGE.partition("## The secret does not arrive")
OVMF = ovmf_image(1 << 14)


def session(platform: Platform, policy: int = 1) -> sev.Session:
    return sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(policy))


def start(platform: Platform, made: sev.Session, **changed: object) -> Guest:
    inputs = {"policy": made.policy.value, "godh": made.godh.to_bytes(), "session": made.blob}
    return launch_guest(platform, **{"firmware": OVMF, **inputs, **changed})  # type: ignore[arg-type] # by name


def packet(made: sev.Session, guest: Guest) -> sev.SecretPacket:
    launch = sev.verify_launch(
        sev.LaunchInfo.from_text(guest.domlaunchsecinfo()),
        keys=made.keys,
        policy=made.policy,
        digest=sev.launch_digest(OVMF),
    )
    return sev.build_secret(launch, {"luks-key": b"the disk key"})


def other_policy(platform: Platform) -> object:
    return start(platform, session(platform), policy=3)


def other_blob(platform: Platform) -> object:
    return start(platform, session(platform), session=session(platform).blob)


def other_platform(platform: Platform) -> object:
    return start(platform, session(Platform(b"another one")))


def renewed_pdh(platform: Platform) -> object:
    made = session(platform)
    platform.pdh_gen()
    return start(platform, made)


def a_files_name(platform: Platform) -> object:
    return start(platform, session(platform), session=b"vm1_session.b64")


def swapped(platform: Platform) -> object:
    made = session(platform)
    return start(platform, made, godh=made.blob, session=made.godh.to_bytes())


def no_certificate(platform: Platform) -> object:
    return start(platform, session(platform), godh=b"vm1_godh.b64")


def demanding_policy(platform: Platform) -> object:
    return start(platform, session(platform, 0x3702_0001))


def off(platform: Platform) -> object:
    made = session(platform)
    platform.shutdown()
    return start(platform, made)


def measured_twice(platform: Platform) -> object:
    return platform.launch_measure(start(platform, session(platform)).handle)


@pytest.mark.parametrize(
    ("number", "does"),
    [
        *((11, does) for does in (other_policy, other_blob, other_platform, renewed_pdh)),
        *((4, does) for does in (a_files_name, swapped)),
        (6, no_certificate),
        (7, demanding_policy),
        (1, off),
        (2, measured_twice),
    ],
)
def test_a_launch_fails_as_the_page_says(number: int, does: Callable[[Platform], object]) -> None:
    with pytest.raises(FirmwareError) as refused:
        does(Platform(does.__name__.encode()))
    assert refused.value.status == number
    assert f"fw_error={number}" in LAUNCH


def test_every_error_of_the_page_is_tried() -> None:
    beyond_the_model = {"0", "21"}  # KVM's own refusal; a host where SEV-SNP is initialised
    tried = {"1", "2", "4", "6", "7", "11"} | beyond_the_model
    assert set(re.findall(r"fw_error=(\d+)", LAUNCH)) == tried
    assert set(re.findall(r"fw_error=(\d+)", SECRET)) == {"2", "4", "11"}


@pytest.mark.parametrize("number", [11, 4, 2])
def test_a_secret_is_refused_as_the_page_says(milan: Platform, number: int) -> None:
    made = session(milan)
    guest, another = start(milan, made), start(milan, made)
    sent = packet(made, another if number == 11 else guest)
    if number == 2:
        guest.resume()
    header = sent.header[:-1] if number == 4 else sent.header
    with pytest.raises(FirmwareError) as refused:
        guest.inject(header, sent.payload)
    assert refused.value.status == number


@pytest.mark.parametrize(
    ("lacks", "guest", "words"),
    [
        (
            {"hash_table": None},
            {"kernel": b"k"},
            "SEV: kernel specified but guest firmware has no hashes table GUID",
        ),
        (
            {"hash_table": (0, 0)},
            {"kernel": b"k"},
            "SEV: guest firmware hashes table area is invalid (base=0x0 size=0x0)",
        ),
        (
            {"reset_address": None},
            {},
            "SEV information block/Firmware GUID Table block not found in pflash rom",
        ),
        ({"reset_address": 0}, {}, "SEV-ES reset address is zero"),
    ],
)
def test_firmware_that_lacks_something_starts_nothing(
    milan: Platform, lacks: dict[str, Any], guest: dict[str, object], words: str
) -> None:
    with pytest.raises(QemuError, match=f"^{re.escape(words)}$"):
        start(milan, session(milan, 5), firmware=ovmf_image(1 << 14, **lacks), **guest)
    assert f"`{words}`" in PAGE


def test_the_rules_that_the_page_names_mend_what_libvirt_refuses() -> None:
    refusals = PAGE.split("## libvirt refuses the domain")[1].split("## ")[0]
    named = set(re.findall(r"`(domain\.[a-z.-]+)`", refusals))
    assert len(named) == 9
    assert named - {"domain.loader.chosen"} <= {rule.id for rule in RULES.values() if rule.mends}


def test_the_page_has_every_hypothesis_and_no_other() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([a-z]+\.?[a-z-]*)`", row)]
    known = {name for name in named if name.split(".")[0] in {n.split(".")[0] for n in RULED_OUT}}
    assert known == RULED_OUT.keys()


def test_every_option_of_the_page_exists(run: Run) -> None:
    shown = "".join(run(command, "--help").out for command in ("validate", "session", "measure"))
    virsh = {"--paused"}
    for option in set(re.findall(r"--[a-z][a-z0-9-]+", PAGE)) - virsh:
        assert re.search(rf"{option}\b", shown), option
