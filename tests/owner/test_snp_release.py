"""owner/snp_release.py: secrets leave once, to the guest that answered the owner's challenge."""

import base64
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import release_worker
from ledger_worker import everything as in_ledger
from ledger_worker import locked
from release_worker import snp_case_line
from sev_attest import (
    Insecure,
    LaunchRefused,
    MalformedInput,
    NotVerified,
    ReportInvalid,
    RequirementsNotMet,
    SevAttestError,
    Unsupported,
    WrongState,
    _crypto,
)
from sev_attest._keys import Kem
from sev_attest.owner import Ledger, Requirements, create_challenge, release_snp
from sev_attest.owner.key_errors import KeyAccessError
from sev_attest.owner.ledger import LedgerError, State, Technology
from sev_attest.owner.snp_challenges import attempt_of, find_challenge
from sev_attest.owner.snp_release import SnpRelease
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.sealed import SealedSecrets
from sev_attest.snp.spec import HOST_VMPL
from snp_answers import DEMANDS, SECRETS, Answer, answer
from snp_demands import MET, WEB, minimum, reported
from snp_material import KEMS, needs
from workers import racers

pytestmark = needs(Kem.X25519)
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
UNMET = Requirements(snp=minimum(firmware=(1, 55, 44)))
OTHER_LAUNCH = replace(WEB, name="db", digests={b"o" * 48: ""})


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Case:
    """A challenge of an owner, and the honest guest's answer."""

    ledger: Ledger
    clock: Clock
    challenge: Challenge
    answer: Answer

    def release(self, by: Answer | None = None, **changes: Any) -> SealedSecrets:
        """Ask for the secrets, with everything as it should be but for the changes."""
        by = by or self.answer
        given: dict[str, Any] = {
            "key": by.key,
            "challenge": self.challenge,
            "ledger": self.ledger,
            "requirements": DEMANDS,
            "secrets": SECRETS,
        }
        return release_snp(by.report, **(given | changes))

    def refusal(self, by: Answer | None = None, **changes: Any) -> SevAttestError:
        """Ask for the secrets, and be refused."""
        with pytest.raises(SevAttestError) as refused:
            self.release(by, **changes)
        return refused.value

    def next(self, name: str = "next", **changes: Any) -> "Case":
        """Make another challenge in the same ledger."""
        made = create_challenge(self.ledger, name, **changes)
        return replace(self, challenge=made, answer=answer(made))

    @property
    def attempt(self) -> str:
        return attempt_of(self.challenge)

    @property
    def state(self) -> State:
        entry = self.ledger.get(self.attempt)
        assert entry is not None
        return entry.state

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.ledger.events(self.attempt)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def case(place: Path) -> Iterator[Case]:
    clock = Clock()
    with Ledger.open(place, timeout=0, clock=clock) as ledger:
        made = create_challenge(ledger, "vm1")
        yield Case(ledger, clock, made, answer(made))


class Source:
    """A source of secrets that notes what it was asked for."""

    def __init__(self, found: Mapping[str, bytes] | KeyAccessError = SECRETS) -> None:
        self.found = found
        self.asked: list[str] = []

    def secrets(self, launch: str) -> Mapping[str, bytes]:
        self.asked.append(launch)
        if isinstance(self.found, KeyAccessError):
            raise self.found
        return self.found


# what happens when all holds


@pytest.mark.parametrize("kem", KEMS)
def test_an_honest_guest_gets_its_secrets(case: Case, kem: Kem) -> None:
    by = answer(case.challenge, kem)
    sealed = case.release(by)
    assert by.open(sealed) == SECRETS
    assert case.kinds == ["created", "measured", "released"]
    entry = case.ledger.get(case.attempt)
    assert entry is not None
    assert entry.measurement == sealed.report_digest
    assert entry.technology is Technology.SNP


def test_a_service_needs_no_file_but_the_ledger(case: Case, place: Path) -> None:
    with Ledger.open(place, clock=case.clock) as elsewhere:
        sealed = case.release(challenge="vm1", ledger=elsewhere)
    assert case.answer.open(sealed) == SECRETS
    by_id = case.next()
    assert by_id.answer.open(by_id.release(challenge=by_id.attempt[:8])) == SECRETS


def test_the_ledger_s_copy_of_a_challenge_is_the_whole_challenge(case: Case) -> None:
    made = create_challenge(
        case.ledger, "all", valid_for=None, kems=(Kem.MLKEM768_X25519,), requirements=DEMANDS
    )
    own = find_challenge(case.ledger, "all")
    assert own.challenge == made
    assert own.challenge.digest == made.digest
    assert own.requirements == DEMANDS.fingerprint
    assert (made.created, made.expires) == (NOW, None)
    assert case.challenge.expires == NOW + timedelta(hours=24)


def test_a_source_is_asked_for_the_launch_that_is_allowed_once_it_is(case: Case) -> None:
    source = Source()
    several = Requirements(snp=replace(MET, launches=(WEB, OTHER_LAUNCH)))
    case.refusal(requirements=UNMET, secrets=source)
    assert source.asked == []
    sealed = case.release(requirements=several, secrets=source)
    assert source.asked == ["web"]
    assert case.answer.open(sealed) == SECRETS
    case.refusal(requirements=several, secrets=source)
    assert source.asked == ["web"]  # not for what was released already


def test_of_several_launches_the_one_that_the_secrets_are_for_is_named(case: Case) -> None:
    several = Requirements(snp=replace(MET, launches=(OTHER_LAUNCH, WEB)))
    error = case.refusal(requirements=several)
    assert (error.check, str(error)) == (
        "launch.name", "nothing says which launch the secret is for: db, web",
    )  # fmt: skip
    assert case.refusal(requirements=several, launch="mail").check == "launch.name"
    assert case.kinds == ["created"]
    error = case.refusal(requirements=several, launch="db")
    assert error.check == "requirements.snp.launch.digest"
    assert case.answer.open(case.release(requirements=several, launch="web")) == SECRETS


# what is refused before anything is written


def _edited(case: Case, **changes: Any) -> dict[str, Any]:
    return {"challenge": replace(case.challenge, **changes)}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"expires": NOW + timedelta(days=400)}, "expires"),
        ({"expires": None}, "expires"),
        ({"kems": (Kem.X25519,)}, "kems"),
        ({"kems": (Kem.MLKEM768_X25519, Kem.X25519)}, "kems"),
        ({"name": "vm2"}, "name"),
        ({"created": NOW - timedelta(1), "name": "vm2"}, "name, created"),
    ],
)
def test_a_challenge_that_somebody_edited_is_refused(
    case: Case, changes: dict[str, Any], named: str
) -> None:
    error = case.refusal(**_edited(case, **changes))
    assert isinstance(error, LaunchRefused)
    assert error.check == "challenge.changed"
    assert str(error) == f"the challenge vm1 is not as the ledger has it: {named}"
    assert case.kinds == ["created"]


def test_a_challenge_with_another_nonce_is_unknown(case: Case, tmp_path: Path) -> None:
    other = replace(case.challenge, nonce=bytes(32))
    error = case.refusal(answer(other), challenge=other)
    assert isinstance(error, WrongState)
    assert error.check == "ledger.unknown"
    with Ledger.open(tmp_path / "other") as empty:
        assert case.refusal(ledger=empty).check == "ledger.unknown"
        assert case.refusal(ledger=empty, challenge="vm1").check == "ledger.unknown"
        assert [*empty.events()] == []


def test_a_report_for_anything_else_gets_nothing_and_writes_nothing(case: Case) -> None:
    other, first = case.next(), case.answer
    for by, changes in (
        (other.answer, {}),  # another challenge's
        (first, {"key": other.answer.key}),  # another key
        (replace(first, report=reported(report_data=bytes(64))), {}),
        (answer(case.challenge, vmpl=HOST_VMPL), {}),  # the host asked, and chose report_data
        (first, {"challenge": "next"}),  # the same report for two challenges
    ):
        error = case.refusal(by, **changes)
        assert isinstance(error, ReportInvalid)
        assert error.check == "snp.report-data"
    assert (case.kinds, other.kinds) == (["created"], ["created"])
    assert first.open(case.release()) == SECRETS


def test_a_kind_of_key_that_the_challenge_does_not_accept_is_refused(case: Case) -> None:
    only = case.next(kems=(Kem.MLKEM768_X25519,))
    error = only.refusal()
    assert isinstance(error, NotVerified)
    assert error.check == "snp.transport-key.kem"
    assert only.kinds == ["created"]


def test_a_report_that_was_not_verified_is_no_argument(case: Case) -> None:
    with pytest.raises(TypeError, match="VerifiedReport"):
        release_snp(
            case.answer.report.report,  # type: ignore[arg-type]
            key=case.answer.key,
            challenge="vm1",
            ledger=case.ledger,
            requirements=DEMANDS,
            secrets=SECRETS,
        )


def test_certificates_must_be_valid_when_the_secrets_leave(case: Case) -> None:
    case.clock.now = datetime(2050, 1, 1, tzinfo=UTC)  # the report was verified in 2026
    late = case.next("late")
    error = late.refusal()
    assert isinstance(error, ReportInvalid)
    assert (error.check, late.kinds) == ("snp.vek.validity", ["created"])
    assert error.failures[0].hint.startswith("get new certificates")
    assert error.check not in error.held


def test_nothing_to_release_is_an_error(case: Case) -> None:
    assert case.refusal(secrets={}).check == "secret.none"
    assert case.kinds == ["created"]
    assert case.refusal(secrets=Source({})).check == "secret.none"
    assert case.kinds == ["created", "measured"]


def test_an_older_cryptography_refuses_before_the_ledger_is_written(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(kem: Kem) -> None:
        raise Unsupported(f"the installed cryptography cannot seal to {kem.label}", check="hpke")

    monkeypatch.setattr(_crypto, "require_hpke", older)
    source = Source()
    assert case.refusal(secrets=source).check == "hpke"
    assert (case.kinds, source.asked) == (["created"], [])


def test_a_name_of_several_attempts_is_no_name(case: Case) -> None:
    case.ledger.create("a" * 64, name="vm1")  # a session without store may have the same name
    error = case.refusal(challenge="vm1")
    assert isinstance(error, Unsupported)
    assert error.check == "pending.several"
    case.ledger.close("a" * 64)
    assert case.answer.open(case.release(challenge="vm1")) == SECRETS


def test_a_name_that_waits_is_not_given_twice(case: Case) -> None:
    with pytest.raises(WrongState) as refused:
        create_challenge(case.ledger, "vm1")
    assert refused.value.check == "pending.name"
    case.ledger.close(case.attempt)
    again = create_challenge(case.ledger, "vm1")
    assert find_challenge(case.ledger, "vm1").challenge == again
    with pytest.raises(MalformedInput):
        create_challenge(case.ledger, "../vm1")


# what is refused once the report answers the challenge


def test_unmet_requirements_bind_the_challenge_and_are_noted(case: Case) -> None:
    error = case.refusal(requirements=UNMET)
    assert isinstance(error, RequirementsNotMet)
    assert [failure.check for failure in error.failures] == ["requirements.snp.minimum.firmware"]
    assert case.kinds == ["created", "measured", "requirements"]
    assert case.refusal(answer(case.challenge)).check == "ledger.reused"
    assert case.answer.open(case.release()) == SECRETS  # the cause is fixed


def test_requirements_without_snp_allow_nothing(case: Case) -> None:
    assert case.refusal(requirements=Requirements()).check == "requirements.snp"
    assert case.state is State.MEASURED


def test_after_16_refusals_it_fails(case: Case) -> None:
    for _ in range(16):
        case.refusal(requirements=UNMET)
    assert case.state is State.FAILED
    error = case.refusal()
    assert isinstance(error, WrongState)
    assert error.check == "ledger.failed"
    assert "make a new challenge" in str(error)


def test_a_second_report_for_a_challenge_is_refused_and_noted(case: Case) -> None:
    second = answer(case.challenge)
    case.refusal(requirements=UNMET)
    for kept in (second, second):
        error = case.refusal(kept)
        assert isinstance(error, Insecure)
        assert error.check == "ledger.reused"
    first = case.release().report_digest.hex()
    assert str(error).startswith("challenge vm1 was answered with another report: since 2026-06-30")
    assert str(error).endswith(f"bound to the one with the SHA-384 {first}")
    assert error.hint == "do not trust this launch; a challenge is for one report: make a new one"
    assert case.refusal(second).check == "ledger.reused"  # also after the release
    assert case.kinds == ["created", "measured", "requirements", "refused", "released"]


def test_a_second_release_is_refused_with_what_to_do(case: Case) -> None:
    case.release()
    error = case.refusal()
    assert isinstance(error, WrongState)
    assert error.check == "ledger.released"
    assert "if the guest never got it, make a new challenge" in str(error)


def test_what_is_over_gets_nothing(case: Case) -> None:
    short = case.next("short", valid_for=timedelta(hours=1))
    case.clock.now += timedelta(hours=1)
    assert short.refusal().check == "ledger.expired"
    assert short.state is State.EXPIRED
    case.ledger.close(case.attempt, "not needed")
    error = case.refusal()
    assert error.check == "ledger.closed"
    assert "not needed; make a new challenge for another report" in str(error)
    failed = case.next("failed")
    failed.ledger.fail(failed.attempt, "lost")
    assert failed.refusal().check == "ledger.failed"


def test_other_requirements_than_those_it_was_made_under_are_refused(case: Case) -> None:
    bound = case.next(requirements=UNMET)
    error = bound.refusal()
    assert isinstance(error, LaunchRefused)
    assert error.check == "requirements.changed"
    assert str(error).startswith("challenge next was made under other requirements: ")
    assert error.hint == "use those, make a new challenge, or say that those of now count"
    assert bound.kinds == ["created", "measured"]
    assert bound.refusal(answer(bound.challenge)).check == "ledger.reused"
    assert bound.answer.open(bound.release(requirements_now=True)) == SECRETS
    same = case.next("same", requirements=DEMANDS)
    assert same.answer.open(same.release(launch="web")) == SECRETS


@pytest.mark.parametrize(
    ("secrets", "check"),
    [
        ({"no name": b"x"}, "snp.secrets"),
        ({"empty": b""}, "snp.secrets"),
        ({"large": bytes(1 << 20)}, "snp.secrets"),
        (Source(KeyAccessError("away", check="secrets.source")), "secrets.source"),
    ],
)
def test_secrets_that_cannot_be_sealed_are_no_release_but_bind_the_challenge(
    case: Case, secrets: Any, check: str
) -> None:
    assert case.refusal(secrets=secrets).check == check
    assert case.kinds == ["created", "measured"]
    assert case.refusal(answer(case.challenge)).check == "ledger.reused"
    assert case.answer.open(case.release()) == SECRETS


def test_a_key_that_is_none_is_refused_before_the_release(case: Case) -> None:
    key = replace(case.answer.key, public=bytes(32))  # a point of low order
    report = reported(report_data=case.challenge.report_data(key))
    error = case.refusal(replace(case.answer, report=report), key=key)
    assert isinstance(error, MalformedInput)
    assert case.state is State.MEASURED


# the steps, one by one


def steps(case: Case, **changes: Any) -> SnpRelease:
    given: dict[str, Any] = {
        "key": case.answer.key,
        "challenge": "vm1",
        "ledger": case.ledger,
        "requirements": DEMANDS,
        "secrets": SECRETS,
    }
    return SnpRelease(case.answer.report, **(given | changes))


def test_no_secret_without_the_steps_before_it(case: Case) -> None:
    going = steps(case)
    with pytest.raises(RuntimeError):
        going.build()
    with pytest.raises(RuntimeError):
        going.commit()
    met = going.check(None)
    assert met.name == "web"
    with pytest.raises(RuntimeError):
        going.commit()
    going.build()
    assert going.secret_count == 2
    going._requirements = UNMET
    with pytest.raises(RequirementsNotMet):
        going.check(None)
    with pytest.raises(RuntimeError):  # what a step found is not kept for the next time
        going.commit()
    assert case.state is State.MEASURED


def test_a_block_that_ends_early_binds_the_challenge(case: Case) -> None:
    with steps(case) as going:
        going.check(None)
    assert case.kinds == ["created", "measured"]
    with pytest.raises(Insecure), steps(replace(case, answer=answer(case.challenge))):
        pass  # what the ledger says comes out at the end
    assert case.answer.open(case.release()) == SECRETS


# the ledger


def test_a_session_is_no_challenge_and_a_challenge_is_no_session(case: Case) -> None:
    session = "5" * 64
    case.ledger.create(session, name="sev", root=None)
    with pytest.raises(WrongState, match="sev is a session in the ledger") as refused:
        case.release(challenge="sev")
    assert refused.value.check == "ledger.technology"
    data = bytes(48)
    for step, technology, attempt in (
        (case.ledger.bind, Technology.SNP, session),
        (case.ledger.release, Technology.SNP, session),
        (case.ledger.bind, Technology.SEV, case.attempt),
        (case.ledger.release, Technology.SEV, case.attempt),
    ):
        with pytest.raises(WrongState) as refused:
            step(attempt, data, technology=technology)
        assert refused.value.check == "ledger.technology"
    with pytest.raises(WrongState):
        case.ledger.release(case.attempt, data, insecure=True)
    assert [event.kind for event in case.ledger.events(session)] == ["created"]
    assert case.kinds == ["created"]
    # The platform of the session stays unverified.
    with pytest.raises(Insecure):
        case.ledger.release(session, data)


def _locked(case: Case) -> Any:
    return locked(case.ledger)


def test_nothing_is_released_while_the_ledger_fails(case: Case, place: Path) -> None:
    with locked(case.ledger):
        error = case.refusal()
        assert (type(error), error.check) == (LedgerError, "ledger.locked")
    assert case.kinds == ["created"]
    with sqlite3.connect(place) as file:
        file.execute("UPDATE sev_attest_session SET technology = 'tdx'")
    file.close()
    assert case.refusal().check == "ledger.damaged"
    with sqlite3.connect(place) as file:
        file.execute("UPDATE sev_attest_session SET technology = 'snp'")
    file.close()
    assert case.answer.open(case.release()) == SECRETS


def test_of_many_threads_one_gets_the_secrets(case: Case, place: Path) -> None:
    patient = Ledger.open(place, timeout=60, clock=case.clock)
    sealed: list[SealedSecrets] = []
    refused: list[str] = []
    ready = threading.Barrier(16)

    def go() -> None:
        ready.wait()
        try:
            sealed.append(case.release(ledger=patient))
        except SevAttestError as error:
            refused.append(error.check)

    threads = [threading.Thread(target=go) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    patient.disconnect()
    assert (len(sealed), refused) == (1, ["ledger.released"] * 15)
    assert case.kinds == ["created", "measured", "released"]


def test_of_many_processes_one_gets_the_secrets(place: Path) -> None:
    with Ledger.open(place, timeout=60) as ledger, racers(release_worker.__file__, place, 4) as go:
        for number in range(5):
            made = create_challenge(ledger, f"vm{number}")
            answers = go(snp_case_line(made, number))
            assert sorted(answers) == ["ledger.released"] * 3 + ["won"]
        ledger.verify()
        assert {entry.state for entry in ledger.entries()} == {"released"}


# secrets


def test_no_secret_and_no_private_key_is_anywhere_but_in_the_sealed_secrets(
    case: Case, place: Path
) -> None:
    canary = {"luks-key": b"canary 7f3a9c41"}
    said: list[object] = []

    def refused(by: Answer | None = None, **changes: Any) -> None:
        error = case.refusal(by, secrets=canary, **changes)
        said.extend((error, vars(error), error.args, getattr(error, "failures", ()), [
            vars(linked) for linked in (error.__cause__, error.__context__) if linked
        ]))  # fmt: skip

    other = answer(case.challenge)
    refused(key=other.key)
    refused(**_edited(case, name="x"))
    refused(requirements=UNMET)
    refused(other)
    with locked(case.ledger):
        refused()
    sealed = case.release(secrets=canary)
    refused()
    refused(challenge="nobody")
    error = case.next().refusal(secrets={**canary, "no name": canary["luks-key"]})
    said += [error, vars(error), in_ledger(case.ledger), case.ledger, case.answer, other, sealed]
    said += [case.answer.private, case.answer.key, case.challenge, steps, DEMANDS]
    kept = b"".join(path.read_bytes() for path in sorted(place.parent.iterdir()))
    assert case.challenge.nonce.hex().encode() in kept  # the search would find what is there
    everything = kept + sealed.to_json() + sealed.ciphertext
    everything += "\n".join(f"{thing!r} {thing}" for thing in said).encode()
    for value in (case.answer.private.private, other.private.private, canary["luks-key"]):
        for form in (
            value, value.hex().encode(), repr(value).encode(),
            *(base64.b64encode(bytes(pad) + value)[4 if pad else 0:-4] for pad in range(3)),
        ):  # fmt: skip
            assert form not in everything
    assert case.answer.open(sealed) == canary
    assert json.loads(sealed.to_json())["challenge"] == "vm1"
