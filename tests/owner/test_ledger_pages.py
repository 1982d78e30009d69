"""A ledger is read in pages: their size changes nothing, and an index finds each of them."""

import sqlite3
from pathlib import Path

import pytest

from ledger_bulk import fill, name_of, session_of
from sev_attest.owner.ledger import Head, Ledger, LedgerDamaged, reading
from sev_attest.owner.ledger.store import StoreConnection

COUNT = 8


@pytest.fixture(params=[1, 2, 3, 4, COUNT, COUNT + 1])
def paged(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Head]:
    """Make a ledger with some sessions, read in pages of some size; give its place and head."""
    monkeypatch.setattr(reading, "PAGE", request.param)
    place = str(tmp_path / "ledger.sqlite3")
    return place, fill(place, COUNT)


def test_pages_of_any_size_have_the_same(paged: tuple[str, Head]) -> None:
    place, head = paged
    with Ledger.open(place) as ledger:
        found = [entry.session_id for entry in ledger.entries()]
        assert found == sorted(map(session_of, range(COUNT)))  # created in the same second
        assert [event.seq for event in ledger.events()] == [*range(1, head.count + 1)]
        for number in range(COUNT):
            kinds = [event.kind for event in ledger.events(session_of(number))]
            assert kinds == ["created", "measured", "released"]
        assert ledger.verify(head) == head


@pytest.mark.parametrize("number", range(COUNT))
def test_a_row_that_was_changed_is_found_on_any_page(paged: tuple[str, Head], number: int) -> None:
    place, _ = paged
    with sqlite3.connect(place) as file:
        change = "UPDATE sev_attest_session SET state = 'measured' WHERE session_id = ?"
        file.execute(change, (session_of(number),))
    file.close()
    with Ledger.open(place) as ledger, pytest.raises(LedgerDamaged) as damaged:
        ledger.verify()
    assert damaged.value.findings == (
        f"the row of session {session_of(number)[:12]} contradicts its events",
    )


def test_a_name_is_found_by_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "ledger.sqlite3")
    fill(place, 1)
    plans: list[str] = []
    execute = StoreConnection.execute

    def explained(connection: StoreConnection, sql: str, values: tuple[object, ...] = ()) -> object:
        if sql.startswith("SELECT {session}"):
            rows = execute(connection, f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            plans.extend(row[3] for row in rows)
        return execute(connection, sql, values)

    monkeypatch.setattr(StoreConnection, "execute", explained)
    with Ledger.open(place) as ledger:
        assert [entry.name for entry in ledger.find(name_of(0))] == [name_of(0)]
    assert plans == ["SEARCH sev_attest_session USING INDEX sev_attest_named (<expr>=?)"]
