"""``docs/snp-release.md``: its vectors, formats, checks and options are those of the program."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from console import commands, show_what_they_print
from sev_attest._keys import Kem
from sev_attest.owner import Ledger
from sev_attest.snp import sealed, transport
from sev_attest.snp import verify as snp_verify
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.sealed import SealedSecrets
from sev_attest.snp.transport import SIZES, TransportKey, TransportPrivateKey, report_data
from snp_answers import DEMANDS, SECRETS, raw_answer
from snp_demands import GENOA
from snp_material import AMD, MILAN, needs, verify
from test_snp_sealed import written
from test_snp_transport import KEY, PRIVATE_KEY

PAGE_OF_SERVICES = (Path(__file__).parents[2] / "docs" / "key-release.md").read_text()
PAGE = (Path(__file__).parents[2] / "docs" / "snp-release.md").read_text(encoding="utf-8")


COMMANDS = (
    "guest request", "guest open", "snp challenge", "snp release", "snp verify", "snp measure",
    "simulate host", "simulate start", "simulate snp-report",
)  # fmt: skip
CHECKS = (
    "challenge.changed", "ledger.unknown", "ledger.reused", "snp.report-data",
    "snp.transport-key.kem", "snp.vek.validity", "requirements.changed", "secret.none",
    "secrets.source", "snp.secrets",
    *(f"ledger.{state}" for state in ("released", "expired", "closed", "failed")),
)  # fmt: skip


def section(title: str) -> str:
    found = re.search(rf"^### {title}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_its_vector_of_report_data_is_right() -> None:
    row = re.compile(r"^\| ([a-zA-Z_ ]+) \| `([0-9a-f]+)` \|$", re.MULTILINE)
    values = {name: bytes.fromhex(text) for name, text in row.findall(section("report_data"))}
    kem = Kem(int.from_bytes(values["KEM"], "big"))
    private = TransportPrivateKey(kem=kem, private=values["private key"])
    key = TransportKey(kem=kem, public=values["public key"])
    assert private.public == key
    assert report_data(values["nonce"], key) == values["report_data"]
    assert f'"{transport.LABEL[:-1].decode()}"' in section("report_data")


def test_its_challenge_has_the_digest_that_it_shows() -> None:
    text = section("Challenge")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    challenge = Challenge.from_json(example.encode())
    assert challenge.to_json().decode() == example
    assert f"`{challenge.digest.hex()}`" in text


def test_its_table_of_keys_is_that_of_the_program() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (\d+) \(0x(\w{4})\) \| (\d+) bytes.* \| (\d+) bytes.* \| (\d+)",
        PAGE, re.MULTILINE,
    )  # fmt: skip
    assert [(name, int(code), int(code16, 16)) for name, code, code16, *_ in rows] == [
        (kem.label, int(kem), int(kem)) for kem in Kem
    ]
    for row, kem in zip(rows, Kem, strict=True):
        assert tuple(map(int, row[3:])) == SIZES[kem]


@pytest.mark.parametrize(
    ("title", "document"),
    [
        ("Transport key", KEY.to_json()),
        (
            "Challenge",
            Challenge.create("vm1", created=datetime(2026, 1, 1, tzinfo=UTC)).to_json(),
        ),
        ("Sealed secrets", written().to_json()),
    ],
    ids=["transport key", "challenge", "sealed secrets"],
)
def test_its_tables_of_fields_are_complete(title: str, document: bytes) -> None:
    fields = json.loads(document)
    rows = re.findall(r"^\| (`[a-z_0-9`, ]+`) \| ", section(title), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)]
    assert [name for name in named if name != "x25519"] == [*fields]
    assert f"`{fields['schema']}`" in section(title)


def test_it_names_the_schema_of_the_private_key_and_the_label_of_info() -> None:
    assert f"`{json.loads(PRIVATE_KEY.to_json())['schema']}`" in PAGE
    assert f"`{sealed.LABEL[:-1].decode()}`" in PAGE


def test_its_options_exist(run: Run) -> None:
    used = PAGE.partition("## Formats")[0]
    shown = "".join(run(*name.split(), "--help").out for name in COMMANDS)
    names = re.findall(r"(?<![a-z-])--[a-z][a-z-]+", used)
    assert len(names) > 10
    for name in set(names) - {"--key-file", "--at"}:  # cryptsetup's; the one that there is not
        assert name in shown, name
    assert "--at " not in run("snp", "release", "--help").out


@needs(Kem.X25519)
def test_its_commands_print_what_it_shows(here: Path) -> None:
    walk = PAGE.partition("### What a release checks")[0]
    waits = "sev-attest snp challenge --name vm1 --quiet"  # in the reader's own ledger
    show_what_they_print([(waits, ""), *commands(walk)], here)


def test_its_table_names_every_refusal_of_a_challenge() -> None:
    table = PAGE.partition("### What a release checks")[2].partition("## In the guest")[0]
    for check in CHECKS:
        assert f"`{check}`" in table, check


@needs(Kem.X25519)
def test_its_example_in_python_works(monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    before, after = example.split("# the owner, with")
    values: dict[str, object] = {"created": datetime(2026, 5, 4, tzinfo=UTC), "secret": b"s"}
    exec(before, values)
    asked = values["report_data"]
    assert isinstance(asked, bytes)
    report = MILAN.report(report_data=asked)
    values["verified"] = verify(report, MILAN.vek(), AMD.ask, AMD.ark)
    exec(after.partition("\n")[2], values)
    assert values["opened"] == {"luks-key": b"s"}


@needs(Kem.X25519)
def test_the_example_of_a_service_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE_OF_SERVICES.partition("## Guests of SEV-SNP")[2]
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    before, after = example.split("# with what the guest answers")
    monkeypatch.setattr(snp_verify, "amd_roots", lambda: [GENOA.authority.root])
    with Ledger.open(tmp_path / "ledger") as ledger:
        values: dict[str, Any] = {"ledger": ledger, "requirements": DEMANDS, "secrets": SECRETS}
        exec(before, values)
        report, key = raw_answer(values["challenge"], 7)
        values |= {"answer": report, "key": key, "chain": GENOA.certificates()}
        exec(after.partition("\n")[2], values)
        assert isinstance(values["sealed"], SealedSecrets)
        assert [entry.state for entry in ledger.entries()] == ["released"]
