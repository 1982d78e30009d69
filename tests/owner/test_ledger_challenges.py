"""Challenges of SEV-SNP in the ledger: they are audited, and no session can pass for one."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sev_attest import Insecure, WrongState
from sev_attest._keys import Kem
from sev_attest.owner.ledger import (
    KeptChallenge,
    Ledger,
    LedgerDamaged,
    LedgerError,
    SealedKeys,
    State,
    Technology,
)
from sev_attest.owner.ledger.story import applied, to_json
from sev_attest.owner.snp_challenges import find_challenge

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
KEPT = KeptChallenge(
    nonce=bytes(range(32)),
    created="2026-06-30T12:00:00+00:00",
    kems=(Kem.X25519,),
    requirements="f" * 64,
)
ONE = KEPT.attempt
REPORT, OTHER = b"r" * 48, b"o" * 48


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(place: Path) -> Iterator[Ledger]:
    with Ledger.open(place, clock=lambda: NOW) as opened:
        opened.create(ONE, name="vm1", expires=NOW + timedelta(hours=1), challenge=KEPT)
        yield opened


def change(place: Path, *statements: str) -> None:
    """Change a ledger behind its back."""
    with closing(sqlite3.connect(place, isolation_level=None)) as file:
        for (name,) in file.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            file.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            file.execute(statement)


def test_the_id_of_a_challenge_is_documented() -> None:
    label = b"sev-attest/snp/challenge-id/1\0"
    assert hashlib.sha256(label + KEPT.nonce).hexdigest() == ONE


def test_a_challenge_is_bound_to_one_report_and_released_once(ledger: Ledger) -> None:
    ledger.bind(ONE, REPORT, technology=Technology.SNP)
    ledger.bind(ONE, REPORT, technology=Technology.SNP)
    with pytest.raises(Insecure):
        ledger.release(ONE, OTHER, technology=Technology.SNP)
    entry = ledger.release(ONE, REPORT, technology=Technology.SNP)
    assert (entry.state, entry.technology) == (State.RELEASED, Technology.SNP)
    with pytest.raises(WrongState):
        ledger.release(ONE, REPORT, technology=Technology.SNP)
    kinds = [event.kind for event in ledger.events(ONE)]
    assert kinds == ["created", "measured", "refused", "released"]
    ledger.verify()


def test_what_is_kept_of_a_challenge_comes_back(ledger: Ledger) -> None:
    assert ledger.snapshot(lambda reader: reader.challenge(ONE)) == KEPT
    assert ledger.snapshot(lambda reader: reader.challenge("0" * 64)) is None
    ledger.create("5" * 64)
    assert ledger.snapshot(lambda reader: reader.challenge("5" * 64)) is None


def test_a_nonce_that_comes_again_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Insecure) as refused:
        ledger.create(ONE, challenge=KEPT)
    assert str(refused.value).startswith("challenge vm1 is in the ledger already: created")
    assert refused.value.hint == "a challenge is for one report: make a new one"


def test_no_session_is_created_as_a_challenge(ledger: Ledger) -> None:
    session = "5" * 64
    with pytest.raises(ValueError, match="not the one of its challenge"):
        ledger.create(session, challenge=KEPT)
    for more in ({"root": None}, {"root": "AMD"}, {"sealed": SealedKeys(box=b"")}):
        given: dict[str, Any] = more
        with pytest.raises(ValueError, match="neither a root nor keys"):
            ledger.create(ONE, challenge=KEPT, **given)
    with pytest.raises(ValueError, match="not adopted"):
        ledger.bind(session, REPORT, technology=Technology.SNP, adopt=True)
    with pytest.raises(ValueError, match="not adopted"):
        ledger.release(session, REPORT, technology=Technology.SNP, adopt=True)
    with pytest.raises(WrongState):
        ledger.release(session, REPORT, technology=Technology.SNP)
    assert ledger.get(session) is None
    ledger.verify()


def test_an_unverified_session_does_not_become_a_challenge_behind_its_back(
    ledger: Ledger, place: Path
) -> None:
    session = "5" * 64
    ledger.create(session, name="sev", root=None)
    change(place, "UPDATE sev_attest_session SET technology = 'snp' WHERE name = 'sev'")
    with pytest.raises(WrongState) as refused:
        ledger.release(session, REPORT)
    assert refused.value.check == "ledger.technology"
    with pytest.raises(LedgerDamaged) as found:
        ledger.verify()
    assert found.value.findings == ("the row of session 555555555555 contradicts its events",)
    # Its row alone makes no challenge: that is in the log.
    with pytest.raises(WrongState) as refused:
        find_challenge(ledger, session)
    assert refused.value.check == "ledger.technology"


@pytest.mark.parametrize("technology", ["sev", "tdx", "", "SNP"])
def test_another_technology_in_the_row_is_found(
    ledger: Ledger, place: Path, technology: str
) -> None:
    change(place, f"UPDATE sev_attest_session SET technology = '{technology}'")
    with pytest.raises(LedgerDamaged):
        ledger.verify()
    with pytest.raises((WrongState, LedgerError)):
        ledger.release(ONE, REPORT, technology=Technology.SNP)
    assert [event.kind for event in ledger.events(ONE)] == ["created"]


DETAIL = {"name": "vm1", "expires": None, "note": "", "challenge": dict(KEPT.to_detail())}


@pytest.mark.parametrize("lacking", [(), ("nonce", "created", "kems")], ids=["", "lacking"])
@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": KEPT.nonce.hex().upper().replace("0", "A")},
        {"nonce": 5},
        {"nonce": "zz"},
        {"created": "yesterday"},
        {"created": None},
        {"kems": [5]},
        {"kems": "x"},
        {"kems": None},
        {"requirements": "f" * 63},
        {"requirements": 5},
        {"more": 1},
        {"nonce": None},
    ],
    ids=json.dumps,
)
def test_a_challenge_that_the_ledger_does_not_write_is_found(
    ledger: Ledger, place: Path, changed: dict[str, Any], lacking: tuple[str, ...]
) -> None:
    told = {name: value for name, value in KEPT.to_detail().items() if name not in lacking}
    detail = DETAIL | {"challenge": told | changed}
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        applied(None, time=KEPT.created, session_id=ONE, kind="created", detail=detail)
    change(place, f"UPDATE sev_attest_event SET detail = '{to_json(detail)}'")
    with pytest.raises(LedgerError) as refused:
        ledger.snapshot(lambda reader: reader.challenge(ONE))
    assert refused.value.check == "ledger.damaged"
    with pytest.raises(LedgerDamaged):
        ledger.verify()


def test_a_challenge_is_ended_expired_exported_and_pruned_as_a_session_is(
    ledger: Ledger, place: Path
) -> None:
    other = KeptChallenge(nonce=bytes(32), created=KEPT.created, kems=(Kem.X25519,))
    ledger.create(other.attempt, name="vm2", challenge=other)
    ledger.close(other.attempt, "not needed")
    gone: list[object] = []
    with Ledger.open(place, clock=lambda: NOW + timedelta(days=2)) as later:
        assert later.expire() == 1
        later.prune(NOW + timedelta(days=1), lambda _head, going: gone.extend(going))
        later.verify()
        assert [entry.name for entry in later.entries()] == ["vm1"]
        with pytest.raises(WrongState) as refused:
            later.release(other.attempt, REPORT, technology=Technology.SNP)
    assert refused.value.check == "ledger.unknown"
    assert len(gone) == 1


def test_a_ledger_of_version_1_takes_challenges(tmp_path: Path) -> None:
    old = tmp_path / "old.sqlite3"
    with closing(sqlite3.connect(old)) as file:
        file.executescript((Path(__file__).parent / "ledger_version_1.sql").read_text())
    old.chmod(0o600)
    with Ledger.open(old) as ledger:
        before = {entry.technology for entry in ledger.entries()}
        assert before == {Technology.SEV}
        ledger.create(ONE, challenge=KEPT)
        ledger.release(ONE, REPORT, technology=Technology.SNP)
        ledger.verify()
