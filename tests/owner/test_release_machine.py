"""Sessions of SEV and challenges of SEV-SNP in one ledger: a state machine over both kinds.

An honest run ends in the secret at the guest; each single fault ends in the refusal that names it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from release_worker import OVMF, demands
from sev_attest import SevAttestError, sev
from sev_attest._keys import Kem
from sev_attest.owner import LaunchRecord, Ledger, create_challenge, release, release_snp
from sev_attest.owner.requirements import Minimum
from sev_attest.owner.snp_challenges import attempt_of
from sev_attest.testing import Guest, Platform, launch_guest
from snp_answers import Answer, answer
from snp_demands import MET, minimum
from snp_material import needs

pytestmark = needs(Kem.X25519)
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = b"the disk key"
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
BOTH = replace(demands(sev.launch_digest(OVMF)), snp=MET)
UNMET = replace(
    BOTH,
    minimum={"test": Minimum(api=(1, 55), build=25)},
    snp=minimum(firmware=(1, 55, 44)),
)


@cache
def platform() -> tuple[Platform, sev.VerifiedChain]:
    made = Platform(b"a test platform")
    return made, sev.verify_chain(made.export(), roots=[made.authority.root])


@dataclass(eq=False)
class Session:
    """An attempt of SEV, and the guests that were started in it."""

    ledger: Ledger
    ends: datetime
    state: str = "created"
    bound: object = None
    guests: list[Guest] = field(default_factory=list)
    faults: dict[str, str] = field(
        default_factory=lambda: {
            "other guest": "launch.measurement",
            "unmet": "requirements.minimum.build",
        }
    )

    def __post_init__(self) -> None:
        self.session = sev.Session.create(platform()[1], policy=sev.GuestPolicy(1))
        self.record = LaunchRecord.of(self.session, "vm", NOW)
        self.id = self.session.keys.session_id
        self.ledger.create(self.id, expires=self.ends, root=self.record.root)

    def start(self) -> None:
        self.guests.append(
            launch_guest(
                platform()[0],
                firmware=OVMF,
                policy=1,
                godh=self.session.godh.to_bytes(),
                session=self.session.blob,
            )
        )

    def release(self, number: int, fault: str) -> None:
        """Release to a guest, which opens what it gets."""
        guest = self.guests[number]
        packet = release(
            sev.LaunchInfo.from_text(guest.domlaunchsecinfo()),
            keys=self.session.keys,
            record=self.record,
            requirements=UNMET if fault == "unmet" else BOTH,
            digest=bytes(32) if fault == "other guest" else None,
            ledger=self.ledger,
            secrets={"luks-key": KEY},
        )
        assert guest.inject(packet.header, packet.payload) == {GUID: KEY}


@dataclass(eq=False)
class Challenge:
    """An attempt of SEV-SNP, and the answers of guests to it."""

    ledger: Ledger
    ends: datetime
    state: str = "created"
    bound: object = None
    guests: list[Answer] = field(default_factory=list)
    faults: dict[str, str] = field(
        default_factory=lambda: {
            "edited": "challenge.changed",
            "other key": "snp.report-data",
            "unmet": "requirements.snp.minimum.firmware",
        }
    )

    def __post_init__(self) -> None:
        name = f"vm{os.urandom(4).hex()}"
        self.made = create_challenge(self.ledger, name, valid_for=HOUR)
        self.id = attempt_of(self.made)

    def start(self) -> None:
        self.guests.append(answer(self.made))

    def release(self, number: int, fault: str) -> None:
        """Release to a guest, which opens what it gets."""
        guest = self.guests[number]
        other = answer(self.made).key if fault == "other key" else guest.key
        sealed = release_snp(
            guest.report,
            key=other,
            challenge=replace(self.made, expires=None) if fault == "edited" else self.made,
            requirements=UNMET if fault == "unmet" else BOTH,
            ledger=self.ledger,
            secrets={"luks-key": KEY},
        )
        assert guest.open(sealed) == {"luks-key": KEY}


class Releases(RuleBasedStateMachine):
    """Each attempt is released once, to the first guest that was verified for it."""

    attempts = Bundle[Any]("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        folder = Path(os.environ["XDG_STATE_HOME"], os.urandom(8).hex())
        self.ledger = Ledger.open(folder / "ledger", clock=lambda: self.now)
        self.every: list[Session | Challenge] = []

    def teardown(self) -> None:
        self.ledger.disconnect()

    @rule(target=attempts, kind=st.sampled_from([Session, Challenge]))
    def create(self, kind: Callable[[Ledger, datetime], Any]) -> Any:
        made = kind(self.ledger, self.now + HOUR)
        made.start()
        made.start()
        self.every.append(made)
        return made

    def expect(self, attempt: Session | Challenge, number: int, fault: str) -> str:
        """Return the check of the refusal; empty if the guest gets its secret."""
        named = attempt.faults.get(fault, "")
        if named and fault != "unmet":
            return named  # nothing is written
        if attempt.bound not in (None, number):
            return "ledger.reused"
        if attempt.state in ("created", "measured") and self.now >= attempt.ends:
            attempt.state = "expired"
        if attempt.state in ("created", "measured"):
            attempt.bound = number
            attempt.state = "measured" if named else "released"
            return named
        if named and attempt.state == "released" and isinstance(attempt, Session):
            return named  # its keys are at hand: the requirements are looked at first
        return f"ledger.{attempt.state}"

    @rule(
        attempt=attempts,
        number=st.integers(0, 1),
        fault=st.sampled_from(["", "", "unmet", "other guest", "edited", "other key"]),
    )
    def release(self, attempt: Session | Challenge, number: int, fault: str) -> None:
        expected = self.expect(attempt, number, fault)
        found = ""
        try:
            attempt.release(number, fault)
        except SevAttestError as error:
            found = error.check
        assert found == expected

    @rule(attempt=attempts)
    def close(self, attempt: Session | Challenge) -> None:
        if attempt.state in ("created", "measured"):
            self.ledger.close(attempt.id)
            attempt.state = "closed"

    @rule()
    def wait(self) -> None:
        self.now += HOUR / 2

    @invariant()
    def the_ledger_says_the_same(self) -> None:
        self.ledger.verify()
        assert {entry.session_id: entry.state for entry in self.ledger.entries()} == {
            attempt.id: attempt.state for attempt in self.every
        }
        released = [event.session_id for event in self.ledger.events() if event.kind == "released"]
        assert len(released) == len(set(released))


TestReleases = Releases.TestCase
TestReleases.settings = settings(settings.default, max_examples=15, stateful_step_count=12)
