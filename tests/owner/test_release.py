"""owner/release.py: a secret leaves once, for a launch in which everything holds, or not at all."""

import base64
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import release_worker
from ledger_worker import everything as in_ledger
from release_worker import SECRETS, case_line, demands
from sev_attest import (
    ChainInvalid,
    Insecure,
    LaunchRefused,
    MalformedInput,
    MeasurementMismatch,
    NotAttestable,
    RequirementsNotMet,
    SevAttestError,
    Unsupported,
    WrongState,
    sev,
)
from sev_attest.owner import LaunchRecord, Ledger, Requirements, release
from sev_attest.owner.key_release import KeyRelease, verify_any
from sev_attest.owner.ledger import LedgerError
from sev_attest.owner.requirements import Minimum, ReferenceValue
from sev_attest.sev.launch import expected_measure
from sev_attest.testing import (
    Authority,
    Fault,
    FirmwareError,
    Guest,
    Host,
    Platform,
    launch_guest,
    ovmf_image,
)
from workers import racers

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
OVMF = ovmf_image(1 << 13)
DIGEST = sev.launch_digest(OVMF)
OTHER = ovmf_image(1 << 13, seed=b"another firmware")
NUMBERS = "sev-api-major: 1\nsev-api-minor: 55\nsev-build-id: 24\n"
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Case:
    """A session of a verified platform, as its owner keeps it."""

    platform: Platform
    session: sev.Session
    record: LaunchRecord
    ledger: Ledger
    clock: Clock

    def start(self, firmware: bytes = OVMF, **guest: Any) -> Guest:
        """Start a guest in this session."""
        inputs: dict[str, Any] = {
            "policy": self.session.policy.value,
            "godh": self.session.godh.to_bytes(),
            "session": self.session.blob,
        }
        return launch_guest(self.platform, firmware=firmware, **(inputs | guest))

    def release(self, info: sev.LaunchInfo, **changes: Any) -> sev.SecretPacket:
        """Ask for the secret, with everything as it should be but for the changes."""
        given: dict[str, Any] = {
            "keys": self.session.keys,
            "record": self.record,
            "requirements": demands(DIGEST),
            "ledger": self.ledger,
            "secrets": SECRETS,
        }
        return release(info, **(given | changes))

    def refusal(self, info: sev.LaunchInfo, **changes: Any) -> SevAttestError:
        """Ask for the secret, and be refused."""
        with pytest.raises(SevAttestError) as refused:
            self.release(info, **changes)
        return refused.value

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.ledger.events(self.session.keys.session_id)]


def steps(case: Case, launch: sev.VerifiedLaunch, **changes: Any) -> KeyRelease:
    """Prepare the steps after a right measurement, with the changes."""
    given: dict[str, Any] = {"secrets": SECRETS, "record": case.record, "ledger": case.ledger}
    return KeyRelease(launch, **(given | changes))


def take(going: KeyRelease) -> sev.SecretPacket | None:
    """Take the steps in their order."""
    with going:
        going.check()
        going.build()
        return going.commit()


def told(guest: Guest) -> sev.LaunchInfo:
    """Read what the host reports of a guest."""
    return sev.LaunchInfo.from_text(guest.domlaunchsecinfo())


def new_session(case: Case, verified: sev.VerifiedChain) -> Case:
    session = sev.Session.create(verified, policy=case.session.policy)
    case.ledger.create(session.keys.session_id, name="next")
    return replace(case, session=session, record=LaunchRecord.of(session, "next", NOW))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def case(milan: Platform, verified: sev.VerifiedChain, place: Path) -> Iterator[Case]:
    """Give a session for a plain SEV guest, open in a ledger."""
    session = sev.Session.create(verified, policy=sev.GuestPolicy(1))
    clock = Clock()
    with Ledger.open(place, timeout=0, clock=clock) as ledger:
        ledger.create(session.keys.session_id, name="vm")
        record = LaunchRecord.of(session, "vm", NOW)
        yield Case(milan, session, record, ledger, clock)


STRANGER = sev.TransportKeys(tek=bytes(16), tik=bytes(16))
UNMET = replace(demands(DIGEST), minimum={"test": Minimum(api=(1, 55), build=25)})
LARGE = {"luks-key": bytes(1 << 15)}
ALLOWED = (
    ReferenceValue(name="web", digests={DIGEST: ""}),
    ReferenceValue(name="db", digests={sev.launch_digest(OTHER): ""}),
)


# what happens when all holds


def test_an_honest_launch_gets_its_secret_into_the_guest(case: Case) -> None:
    guest = case.start()
    packet = case.release(told(guest))
    assert guest.inject(packet.header, packet.payload) == {GUID: SECRETS["luks-key"]}
    assert case.kinds == ["created", "measured", "released"]
    case.ledger.verify()


def test_without_a_digest_any_allowed_launch_will_do(case: Case) -> None:
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(3)]
    many = demands(digests[0], digests[1], DIGEST, digests[2])
    assert case.release(told(case.start()), requirements=many)


def test_a_digest_that_is_given_must_be_right_and_allowed(
    case: Case, verified: sev.VerifiedChain
) -> None:
    info = told(case.start(OTHER))
    both = demands(DIGEST, sev.launch_digest(OTHER))
    wrong = case.refusal(info, digest=DIGEST, requirements=both)
    assert isinstance(wrong, MeasurementMismatch)
    refused = case.refusal(info, digest=sev.launch_digest(OTHER))
    assert refused.check == "requirements.launch.digest"
    second = new_session(case, verified)
    assert second.release(told(second.start(OTHER)), digest=sev.launch_digest(OTHER),
                          requirements=both)  # fmt: skip


def test_every_allowed_digest_is_tried_whichever_fits(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bytes] = []

    def spy(info: sev.LaunchInfo, **given: Any) -> sev.VerifiedLaunch:
        tried.append(given["digest"])
        return sev.verify_launch(info, **given)

    monkeypatch.setattr("sev_attest.owner.key_release.verify_launch", spy)
    digests = (DIGEST, bytes(32), bytes(31) + b"\1")
    found = verify_any(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digests=digests
    )
    assert (found.digest, tried) == (DIGEST, [*digests])


# the steps, and their order


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"keys": STRANGER}, "record.session"),
        ({}, "record.unverified"),
        ({"root": "not AMD's: ARK 0123"}, "launch.policy"),
        ({"root": "not AMD's: ARK 0123", "policy": 1}, "launch.measurement"),
    ],
)
def test_the_first_step_that_fails_is_named_and_the_ledger_untouched(
    case: Case, changes: dict[str, Any], check: str
) -> None:
    # Everything is wrong; each case mends one thing more. No later step is reached.
    info = replace(told(case.start(OTHER)), policy=changes.get("policy", 3))
    before = in_ledger(case.ledger)
    error = case.refusal(
        info,
        keys=changes.get("keys", case.session.keys),
        record=replace(case.record, root=changes.get("root")).signed(case.session.keys),
        requirements=UNMET,
        secrets=LARGE,
    )
    assert error.check == check
    assert in_ledger(case.ledger) == before


@pytest.mark.parametrize(
    "change",
    [
        {"root": "AMD Milan", "generation": "milan"},
        {"cek": "0f" * 32},
        {"pdh": "0f" * 32},
        {"claimed_platform_id": None},
        {"policy": 3},
        {"kernel_hashes": True},
        {"name": "another"},
        {"created": "2026-07-01T12:00:00+00:00"},
        {"godh_sha256": "0f" * 32},
        {"session_sha256": "0f" * 32},
        {"mac": "0" * 64},
        {"mac": ""},
    ],
)
def test_a_record_that_was_edited_gets_nothing(case: Case, change: dict[str, Any]) -> None:
    info = told(case.start())
    error = case.refusal(info, record=replace(case.record, **change))
    assert isinstance(error, LaunchRefused)
    assert (error.check, error.exit_code) == ("record.mac", 1)
    assert case.kinds == ["created"]


def test_a_record_goes_with_the_keys_of_its_session(case: Case) -> None:
    info, keys = told(case.start()), case.session.keys
    assert case.record.signed(keys) == case.record
    for foreign, check in (
        (replace(keys, tek=bytes(16)), "record.mac"),
        (replace(keys, tik=bytes(16)), "record.session"),
    ):
        assert case.refusal(info, keys=foreign).check == check
    forged = case.record.signed(STRANGER)
    assert case.refusal(info, record=forged).check == "record.mac"
    assert case.refusal(info, record=forged, keys=STRANGER).check == "record.session"
    assert case.kinds == ["created"]
    assert case.release(info)


def test_a_wrong_measurement_tells_nothing_of_the_requirements(case: Case) -> None:
    before = in_ledger(case.ledger)
    error = case.refusal(told(case.start(OTHER)), requirements=UNMET)
    assert type(error) is MeasurementMismatch
    assert (error.check, error.facts, error.hint) == ("launch.measurement", {}, "")
    assert error.__context__ is None
    assert in_ledger(case.ledger) == before


def test_unmet_requirements_bind_the_session_and_are_noted(case: Case) -> None:
    guest = case.start()
    strict = replace(UNMET, denied_pdhs=frozenset({case.record.pdh}))
    error = case.refusal(told(guest), requirements=strict, secrets=LARGE)
    assert isinstance(error, RequirementsNotMet)
    checks = ["requirements.platform.denied-pdh", "requirements.minimum.build"]
    assert [failure.check for failure in error.failures] == checks
    assert case.kinds == ["created", "measured", "requirements"]
    last = tuple(case.ledger.events())[-1]
    assert json.loads(last.detail) == {"text": " ".join(checks)}
    # The owner changes their mind: for that launch, and for no other.
    assert case.refusal(told(case.start())).check == "ledger.reused"
    assert case.release(told(guest))


def test_the_packet_is_made_before_the_ledger_is_asked(case: Case) -> None:
    info = told(case.start())
    case.release(info)
    assert case.refusal(info, secrets=LARGE).check == "secret.size"
    assert case.refusal(info).check == "ledger.released"


@pytest.mark.parametrize(
    ("secrets", "size", "check"),
    [
        (LARGE, None, "secret.size"),
        (SECRETS, 32, "secret.size"),
        ({"luks-key": b""}, None, "secret.empty"),
        ({"luks-key": b"a", GUID: b"b"}, None, "secret.twice"),
        ({"disk": b"a"}, None, "secret.GUID"),
    ],
)
def test_a_packet_that_cannot_be_made_is_no_release_but_binds_the_session(
    case: Case, secrets: dict[str, bytes], size: int | None, check: str
) -> None:
    info = told(case.start())
    assert case.refusal(info, secrets=secrets, secret_area_size=size).check == check
    assert case.kinds == ["created", "measured"]
    assert case.refusal(told(case.start())).check == "ledger.reused"
    assert case.release(info)


def test_nothing_to_release_is_an_error(case: Case) -> None:
    info = told(case.start())
    several = replace(UNMET, launches=ALLOWED)
    for changes in ({}, {"keys": STRANGER, "record": None, "requirements": several}):
        error = case.refusal(info, secrets={}, **changes)
        assert isinstance(error, Unsupported)
        assert (error.check, error.exit_code) == ("secret.none", 2)
    assert case.kinds == ["created"]
    assert case.release(info)


def test_of_several_launches_the_one_that_the_secret_is_for_is_named(case: Case) -> None:
    several = replace(demands(), launches=ALLOWED)
    info = told(case.start())
    for name in (None, "mail"):
        error = case.refusal(info, requirements=several, launch=name, keys=STRANGER)
        assert isinstance(error, Unsupported)
        assert (error.check, error.exit_code) == ("launch.name", 2)
        assert "web, db" in str(error)
    # The right measurement of a launch that this secret is not for.
    assert case.refusal(info, requirements=several, launch="db").check == "launch.measurement"
    assert case.kinds == ["created"]
    error = case.refusal(info, requirements=several, launch="db", digest=DIGEST)
    assert error.check == "requirements.launch.digest"
    assert case.release(info, requirements=several, launch="web")


def test_a_digest_tells_which_launch_the_secret_is_for(case: Case) -> None:
    several = replace(demands(), launches=ALLOWED)
    assert case.release(told(case.start()), requirements=several, digest=DIGEST)


def test_a_packet_that_could_not_get_out_is_no_release(case: Case) -> None:
    launch = sev.verify_launch(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )

    def stop_after(going: KeyRelease) -> None:
        with going:
            going.check()
            going.build()
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        stop_after(steps(case, launch))
    assert case.kinds == ["created", "measured"]


def test_no_packet_without_the_steps_before_it(case: Case) -> None:
    launch = sev.verify_launch(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )
    with pytest.raises(TypeError, match="requirements need"):
        steps(case, launch, requirements=UNMET, record=None)
    unbuilt = steps(case, launch)
    unbuilt.check()
    unmet = steps(case, launch, requirements=UNMET)
    with pytest.raises(RequirementsNotMet):
        unmet.check()
    unmet.build()
    for going in (steps(case, launch), unmet, unbuilt):
        with pytest.raises(RuntimeError, match="comes after check"):
            going.commit()
    assert case.kinds == ["created", "measured", "requirements"]  # by check() alone


def test_a_block_that_ends_early_binds_the_session(case: Case) -> None:
    launch = sev.verify_launch(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )
    with steps(case, launch) as going, suppress(ValueError):
        going.check()
        raise ValueError
    assert case.kinds == ["created", "measured"]
    assert case.refusal(told(case.start())).check == "ledger.reused"


def test_what_a_step_found_is_not_kept_for_the_next_time(case: Case) -> None:
    launch = sev.verify_launch(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )
    secrets: dict[str, bytes] = {}
    later = steps(case, launch, secrets=secrets)
    later.check()
    secrets.update(SECRETS)
    later.build()
    assert later.commit() is None  # the secrets are those that it was given
    stale = steps(case, launch)
    stale.check()
    stale.build()
    stale._requirements = UNMET
    with pytest.raises(RequirementsNotMet):
        stale.check()
    with pytest.raises(RuntimeError):
        stale.commit()
    stale = steps(case, launch)
    stale.check()
    stale.build()
    stale._secrets = LARGE
    with pytest.raises(Unsupported):
        stale.build()
    with pytest.raises(RuntimeError):
        stale.commit()
    assert "released" not in case.kinds


def test_a_session_that_the_ledger_does_not_know_is_adopted_only_if_that_is_said(
    case: Case, tmp_path: Path
) -> None:
    launch = sev.verify_launch(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )
    with Ledger.open(tmp_path / "another") as empty:
        with pytest.raises(WrongState) as refused:
            take(steps(case, launch, record=None, ledger=empty))
        assert refused.value.check == "ledger.unknown"
        assert take(steps(case, launch, record=None, ledger=empty, adopt=True))


def test_what_the_ledger_says_of_a_session_goes_before_all_else_that_is_wrong(case: Case) -> None:
    case.release(told(case.start()))
    second = told(case.start())
    assert case.refusal(second, secrets=LARGE).check == "ledger.reused"
    assert case.refusal(second, requirements=UNMET).check == "ledger.reused"
    assert "requirements" not in case.kinds


@pytest.mark.parametrize(
    ("root", "check"), [(None, "ledger.unverified"), ("not AMD's: ARK 0123", "record.root")]
)
def test_a_record_cannot_say_more_of_the_platform_than_the_ledger(
    case: Case, verified: sev.VerifiedChain, root: str | None, check: str
) -> None:
    session = sev.Session.create(verified, policy=case.session.policy)
    case.ledger.create(session.keys.session_id, name="next", root=root)
    claimed = replace(
        LaunchRecord.of(session, "next", NOW), root="AMD Milan", generation="milan"
    ).signed(session.keys)
    second = replace(case, session=session, record=claimed)
    error = second.refusal(told(second.start()), requirements=demands(DIGEST))
    assert error.check == check
    assert second.kinds == ["created", "measured"]


def test_the_steps_can_do_without_ledger_requirements_and_secret(case: Case) -> None:
    launch = sev.verify_launch(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )
    looked = steps(case, launch, ledger=None, secrets={}, record=None)
    assert (take(looked), looked.met) == (None, None)
    allowed = steps(case, launch, ledger=None, requirements=demands(DIGEST))
    assert take(allowed)
    assert (allowed.met and allowed.met.name) == "web"
    with pytest.raises(RequirementsNotMet):
        take(steps(case, launch, ledger=None, requirements=UNMET))
    assert case.kinds == ["created"]


def test_a_second_launch_may_be_looked_at_but_gets_no_secret(case: Case) -> None:
    case.release(told(case.start()))
    second = sev.verify_launch(
        told(case.start()), keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )
    before = case.kinds
    for requirements in (demands(DIGEST), UNMET):
        with pytest.raises(Insecure, match="used for another launch"):
            take(steps(case, second, requirements=requirements, insecure=True))
    looked = steps(case, second, requirements=demands(DIGEST), insecure=True, secrets={})
    assert take(looked) is None
    assert looked.reused is not None
    with pytest.raises(RequirementsNotMet):
        take(steps(case, second, requirements=UNMET, insecure=True, secrets={}))
    assert case.kinds == [*before, "refused"]


# once


def test_a_second_release_is_refused_with_what_to_do(case: Case) -> None:
    info = told(case.start())
    case.release(info)
    error = case.refusal(info)
    assert isinstance(error, WrongState)
    assert (error.check, error.exit_code) == ("ledger.released", 5)
    assert "if the guest never got it, make a new session" in str(error)
    assert case.kinds.count("released") == 1


def test_a_session_that_the_ledger_does_not_know_gets_nothing(case: Case, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "another") as empty:
        error = case.refusal(told(case.start()), ledger=empty)
        assert (error.check, error.exit_code) == ("ledger.unknown", 5)
        assert case.refusal(told(case.start()), ledger=empty, requirements=UNMET).exit_code == 5
        assert in_ledger(empty) == ()


def test_a_session_past_its_time_gets_nothing(case: Case, verified: sev.VerifiedChain) -> None:
    session = sev.Session.create(verified, policy=sev.GuestPolicy(1))
    case.ledger.create(session.keys.session_id, name="v", expires=NOW + timedelta(hours=1))
    late = replace(case, session=session, record=LaunchRecord.of(session, "v", NOW))
    info = told(late.start())
    case.clock.now += timedelta(hours=1)
    assert late.refusal(info).check == "ledger.expired"
    assert late.kinds == ["created", "expired"]


def test_the_time_of_a_launch_is_the_ledger_s(case: Case) -> None:
    allowed = demands(DIGEST)
    until = NOW + timedelta(days=1)
    ending = replace(allowed, launches=(replace(allowed.launches[0], expires=until),))
    info = told(case.start())
    case.clock.now = until
    assert case.refusal(info, requirements=ending).check == "requirements.launch.expired"
    case.clock.now = until - timedelta(seconds=1)
    assert case.release(info, requirements=ending)


def test_of_many_threads_one_gets_the_packet(case: Case, place: Path) -> None:
    info = told(case.start())
    patient = Ledger.open(place, timeout=60, clock=case.clock)
    packets: list[sev.SecretPacket] = []
    refused: list[str] = []
    ready = threading.Barrier(16)

    def go() -> None:
        ready.wait()
        try:
            packets.append(case.release(info, ledger=patient))
        except SevAttestError as error:
            refused.append(error.check)

    threads = [threading.Thread(target=go) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    patient.disconnect()
    assert (len(packets), refused) == (1, ["ledger.released"] * 15)
    assert case.kinds == ["created", "measured", "released"]


def test_of_many_processes_one_gets_the_packet(
    case: Case, place: Path, verified: sev.VerifiedChain
) -> None:
    with racers(release_worker.__file__, place, 4) as race:
        for _ in range(5):
            case = new_session(case, verified)
            report = case.start().domlaunchsecinfo()
            answers = race(case_line(case.session.keys, case.record, report, DIGEST))
            assert sorted(answers) == ["ledger.released"] * 3 + ["won"]
            assert case.kinds == ["created", "measured", "released"]
    case.ledger.verify()


# the attacker


@pytest.mark.parametrize("bits", [2048, 4096])
@pytest.mark.parametrize("fault", [Fault.FORGED_ROOT, Fault.OFF_CURVE_PDH])
def test_a1_a_platform_of_the_host_s_own_making_gets_no_session(bits: int, fault: Fault) -> None:
    platform = Platform(b"forged", authority=Authority(bits))
    roots = [*sev.amd_roots(), platform.authority.root]
    with pytest.raises(ChainInvalid) as refused:
        sev.verify_chain(Host(platform, fault).chain(), roots=roots)
    assert fault.check in {failure.check for failure in refused.value.failures}
    with pytest.raises(TypeError):
        sev.Session.create(Host(platform, fault).chain(), policy=sev.GuestPolicy(1))  # type: ignore[arg-type] # what an attacker would like


def changed_chain_verifies(platform: Platform, role: str, data: bytes) -> None:
    changed: dict[str, Any] = {role: sev.Certificate.from_bytes(data)}
    sev.verify_chain(replace(platform.export(), **changed), roots=[platform.authority.root])


@pytest.mark.parametrize("role", ["pdh", "pek", "oca", "cek"])
def test_a2_a_chain_with_one_changed_bit_gets_no_session(milan: Platform, role: str) -> None:
    certificate = getattr(milan.export(), role)
    for at in (0x10, 0x200, 0x418 + 8):  # the key, its padding, the signature
        data = bytearray(certificate.to_bytes())
        data[at] ^= 1
        with pytest.raises(SevAttestError):
            changed_chain_verifies(milan, role, bytes(data))


def test_a1_a2_a_session_of_an_unverified_platform_gets_nothing(case: Case) -> None:
    session = sev.Session.create_unverified(case.platform.export().pdh, policy=sev.GuestPolicy(1))
    case.ledger.create(session.keys.session_id)
    bare = replace(case, session=session, record=LaunchRecord.of(session, "bare", NOW))
    assert bare.record.root is None
    error = bare.refusal(told(bare.start()))
    assert isinstance(error, Insecure)
    assert (error.check, error.exit_code) == ("record.unverified", 3)
    assert bare.kinds == ["created"]


def test_a3_what_the_host_claims_does_not_decide(case: Case) -> None:
    guest = case.start()
    info = told(guest)
    for policy in (0, 3, 5, 0xFFFF_FFFF):
        assert case.refusal(replace(info, policy=policy)).check == "launch.policy"
    for name, too_large, another in (
        ("api_major", 256 + 1, 2),
        ("api_minor", 256 + 55, 54),
        ("build_id", 256 + 24, 25),
    ):
        claims: list[dict[str, Any]] = [{name: too_large}, {name: another}]
        with pytest.raises(MalformedInput):
            replace(info, **claims[0])
        assert case.refusal(replace(info, **claims[1])).check == "launch.measurement"
    assert case.kinds == ["created"]


def test_a3_firmware_below_the_owner_s_minimum_gets_nothing(
    case: Case, milan: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milan, "build", 23)
    assert case.refusal(told(case.start())).check == "requirements.minimum.build"
    assert "released" not in case.kinds


def test_a4_a_measurement_of_anything_else_gets_nothing(case: Case) -> None:
    info = told(case.start())
    keys = case.session.keys
    right: dict[str, Any] = {
        "api": (1, 55), "build_id": 24, "policy": sev.GuestPolicy(1), "digest": DIGEST,
        "nonce": info.nonce,
    }  # fmt: skip
    for other in (
        {"api": (1, 54)}, {"api": (55, 1)}, {"build_id": 23}, {"policy": sev.GuestPolicy(0)},
        {"digest": bytes(32)}, {"nonce": bytes(16)},
    ):  # fmt: skip
        measure = expected_measure(keys.tik, **(right | other))
        made_up = replace(info, measurement=measure + info.nonce)
        assert case.refusal(made_up).check == "launch.measurement"
    stranger = expected_measure(STRANGER.tik, **right) + info.nonce
    assert case.refusal(replace(info, measurement=stranger)).check == "launch.measurement"
    for bit in range(0, 48 * 8, 7):
        flipped = bytearray(info.measurement)
        flipped[bit // 8] ^= 1 << bit % 8
        error = case.refusal(replace(info, measurement=bytes(flipped)))
        assert error.check == "launch.measurement"
    for text in (info.measurement[:47], info.measurement + b"\0", b""):
        lines = f"sev-measurement: {base64.b64encode(text).decode()}\n{NUMBERS}"
        with pytest.raises(MalformedInput):
            sev.LaunchInfo.from_text(lines)
    assert case.kinds == ["created"]


def test_a5_a_session_seen_with_another_measurement_gets_nothing(case: Case) -> None:
    first, second = case.start(), case.start()
    case.release(told(first))
    error = case.refusal(told(second))
    assert isinstance(error, Insecure)
    assert (error.check, error.exit_code) == ("ledger.reused", 3)
    assert base64.b64encode(first.measurement).decode() in str(error)
    assert case.kinds == ["created", "measured", "released", "refused"]


def test_a5_a_session_that_was_closed_gets_nothing(case: Case) -> None:
    guest = case.start()
    case.ledger.close(case.session.keys.session_id, "not needed")
    assert case.refusal(told(guest)).check == "ledger.closed"
    assert case.refusal(told(guest), requirements=UNMET).check == "ledger.closed"
    assert "released" not in case.kinds


def test_a6_what_is_empty_denies(case: Case, milan: Platform) -> None:
    info = told(case.start())
    for requirements in (Requirements(), demands()):
        error = case.refusal(info, requirements=requirements)
        assert type(error) is MeasurementMismatch
    assert case.kinds == ["created"]
    with pytest.raises(SevAttestError):
        sev.verify_chain(milan.export(), roots=[])
    for name in ("generations", "ceks", "platform_ids", "pdhs", "acknowledged"):
        nothing: dict[str, Any] = {name: frozenset()}
        empty = replace(demands(DIGEST), **nothing)
        assert isinstance(case.refusal(info, requirements=empty), RequirementsNotMet)
    error = case.refusal(info, requirements=replace(demands(DIGEST), minimum={}))
    assert error.check == "requirements.minimum"
    assert isinstance(case.refusal(info, requirements=Requirements(), digest=DIGEST),
                      RequirementsNotMet)  # fmt: skip
    assert "released" not in case.kinds


def test_a7_a_launch_of_another_session_gets_nothing(
    case: Case, verified: sev.VerifiedChain
) -> None:
    other = new_session(case, verified)
    info = told(other.start())
    assert case.refusal(info).check == "launch.measurement"
    assert case.refusal(info, keys=other.session.keys).check == "record.session"
    assert case.refusal(info, record=other.record).check == "record.session"
    launch = sev.verify_launch(
        info, keys=other.session.keys, policy=other.session.policy, digest=DIGEST
    )
    with pytest.raises(LaunchRefused):
        take(steps(case, launch, requirements=demands(DIGEST)))
    assert (case.kinds, other.kinds) == (["created"], ["created", "measured"])


def test_a7_a_packet_is_of_use_to_its_launch_alone(case: Case) -> None:
    guest, second = case.start(), case.start()
    packet = case.release(told(guest))
    with pytest.raises(FirmwareError):
        second.inject(packet.header, packet.payload)
    assert guest.inject(packet.header, packet.payload)


def test_a7_what_was_not_verified_cannot_be_settled(case: Case) -> None:
    info = told(case.start())
    with pytest.raises(TypeError):
        sev.VerifiedLaunch(
            info=info, policy=case.session.policy, digest=DIGEST, keys=case.session.keys
        )


def test_a7_firmware_that_binds_no_secret_to_a_launch_gets_none(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform(b"old", api=(0, 16))
    session = sev.Session.create(
        sev.verify_chain(platform.export(), roots=[platform.authority.root]),
        policy=sev.GuestPolicy(1),
    )
    case.ledger.create(session.keys.session_id)
    record = LaunchRecord.of(session, "old", NOW)
    old = replace(case, platform=platform, session=session, record=record)
    lax = replace(demands(DIGEST), minimum={"test": Minimum(api=(0, 0), build=0)})
    error = old.refusal(told(old.start()), requirements=lax)
    assert (error.check, error.exit_code) == ("secret.unbound", 3)
    assert old.kinds == ["created", "measured"]


@pytest.mark.parametrize(
    "firmware",
    [
        ovmf_image(1 << 13, hash_table=None),
        ovmf_image(1 << 13, hash_table=(0, 0)),
        hashlib.shake_128(b"noise").digest(1 << 13),
    ],
    ids=["no hash table", "an empty one", "random bytes"],
)
def test_a8_firmware_that_cannot_hold_kernel_hashes_has_no_digest_with_a_kernel(
    case: Case, firmware: bytes
) -> None:
    with pytest.raises(NotAttestable):
        sev.launch_digest(firmware, kernel=b"a kernel")
    both = demands(sev.launch_digest(OVMF, kernel=b"a kernel"))
    assert case.refusal(told(case.start(firmware)), requirements=both).check == "launch.measurement"


# a ledger that fails


def _locked(case: Case, place: Path) -> Any:
    other = sqlite3.connect(place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def _read_only(case: Case, place: Path) -> None:
    ((connection, _),) = case.ledger._here._idle
    connection.execute("PRAGMA query_only = 1")


def _corrupt(case: Case, place: Path) -> None:
    case.ledger.disconnect()
    place.write_bytes(b"no database" * 1000)


def _gone(case: Case, place: Path) -> None:
    case.ledger.disconnect()
    place.unlink()
    place.mkdir()


@pytest.mark.parametrize(
    ("break_it", "check"),
    [
        (_locked, "ledger.locked"),
        (_read_only, "ledger.read-only"),
        (_corrupt, "ledger.damaged"),
        (_gone, "ledger.permission"),
    ],
)
@pytest.mark.parametrize("requirements", [demands(DIGEST), UNMET], ids=["met", "unmet"])
def test_nothing_is_released_while_the_ledger_fails(
    case: Case,
    place: Path,
    break_it: Callable[[Case, Path], Any],
    check: str,
    requirements: Requirements,
) -> None:
    info = told(case.start())
    other = break_it(case, place)
    error = case.refusal(info, requirements=requirements)
    assert isinstance(error, LedgerError)
    assert (error.check, error.exit_code) == (check, 6)
    if check in ("ledger.locked", "ledger.read-only"):  # it passes
        if other:
            other.close()
        assert case.kinds == ["created"]
        assert case.release(info)


# secrets


def test_no_key_and_no_secret_is_anywhere_but_in_the_packet(
    case: Case, place: Path, verified: sev.VerifiedChain
) -> None:
    canary = {"luks-key": b"canary 7f3a9c41"}
    said: list[object] = []

    def refused(which: Case, info: sev.LaunchInfo, **changes: Any) -> None:
        error = which.refusal(info, secrets=canary, **changes)
        said.extend((error, vars(error), error.args, getattr(error, "failures", ()), [
            vars(linked) for linked in (error.__cause__, error.__context__) if linked
        ]))  # fmt: skip

    other = new_session(case, verified)
    guest = case.start()
    info = told(guest)
    refused(case, told(case.start(OTHER)))
    refused(case, info, keys=other.session.keys)
    refused(case, info, requirements=UNMET)
    refused(case, info, secret_area_size=16)
    lock = _locked(case, place)
    refused(case, info)
    lock.close()
    packet = case.release(info, secrets=canary)
    refused(case, info)
    refused(case, told(case.start()))
    case.ledger.fail(case.session.keys.session_id, "lost")
    refused(case, info)
    said += [case.session, case.session.keys, case.record, case.record.to_bytes(), case.ledger]
    said += [in_ledger(case.ledger), demands(DIGEST), info, packet]
    launch = sev.verify_launch(
        info, keys=case.session.keys, policy=case.session.policy, digest=DIGEST
    )
    said.append(launch)
    kept = b"".join(path.read_bytes() for path in sorted(place.parent.iterdir()))
    assert case.session.keys.session_id.encode() in kept  # the search would find what is there
    everything = kept + packet.header + packet.payload
    everything += "\n".join(f"{thing!r} {thing}" for thing in said).encode()
    for keys in (case.session.keys, other.session.keys):
        for value in (keys.tik, keys.tek, canary["luks-key"]):
            for form in (
                value, value.hex().encode(), value.hex().upper().encode(), repr(value).encode(),
                *(base64.b64encode(bytes(pad) + value)[4 if pad else 0:-4] for pad in range(3)),
            ):  # fmt: skip
                assert form not in everything
    with suppress(FirmwareError):
        assert guest.inject(packet.header, packet.payload) == {GUID: canary["luks-key"]}
