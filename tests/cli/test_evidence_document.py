"""cli/evidence/document.py: the JSON of evidence is closed, and a stranger's file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest import MalformedInput
from sev_attest.cli.evidence.document import SCHEMA, Evidence
from sev_attest.cli.evidence.reader import MAX_FILE, decoded, from_bytes, to_bytes, unhexed

WHOLE: Evidence = {
    "schema": SCHEMA,
    "command": "launch",
    "ok": True,
    "exit": 0,
    "summary": "fine",
    "errors": [{"check": "c", "message": "m", "hint": ""}],
    "checks": [{"id": "launch.measurement", "ok": True, "meaning": "it is right"}],
    "notes": ["a note"],
    "chain": {
        "root": None,
        "generation": None,
        "platform_id": "00",
        "certificates": [
            {"role": "PDH", "fingerprint": "00" * 32, "subject": None, "not_before": None,
             "not_after": None, "bytes": "AAAA"},
        ],
    },
    "record": {
        "name": "vm", "session_id": "00" * 32, "created": "now", "root": None, "generation": None,
        "cek": None, "pdh": "00" * 32, "kernel_hashes": False,
    },
    "launch": {
        "measurement": "A" * 64, "nonce": "00" * 16, "api_major": 1, "api_minor": 55,
        "build_id": 24, "policy": 5, "reported_policy": None,
    },
    "report": None,
    "measured": {
        "digest": "00" * 32,
        "vcpus": 1,
        "ranges": [{"what": "firmware", "at": 0, "size": 4096, "digest": "00" * 32}],
        "kernel_hashes": {"kernel": "00", "initrd": "00", "cmdline": "00"},
    },
    "requirements": {"fingerprint": "00" * 32, "met": False, "launch": None, "guest": None},
    "advisories": [{"id": "CVE-1", "title": "t", "verdict": "affected", "reason": "r"}],
    "ledger": [
        {"seq": 1, "time": "now", "session_id": "00", "kind": "created", "detail": "{}",
         "previous": "", "hash": "00"},
    ],
    "steps": [{"step": "verify", "detail": "d"}],
    "inputs": [{"what": "firmware", "name": "fw", "size": None, "sha256": "00"}],
    "repeat": "sev-attest evidence verify",
    "software": {"sev_attest": "1", "python": "3", "cryptography": "43", "made": "2026"},
}  # fmt: skip


def copy() -> Any:
    return json.loads(to_bytes(WHOLE))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value of a document."""
    yield path
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(one, (*path, key))


def changed(path: tuple[Any, ...], change: Callable[[Any, Any], object]) -> bytes:
    """Return the document with a change at a place: of its container, by its key."""
    document = copy()
    place = document
    for key in path[:-1]:
        place = place[key]
    change(place, path[-1])
    return json.dumps(document).encode()


PLACES = [path for path in places(copy()) if path]
FIELDS = [path for path in PLACES if isinstance(path[-1], str)]


def set_to(value: object) -> Callable[[Any, Any], object]:
    return lambda place, key: place.__setitem__(key, value)


def test_what_is_written_is_read() -> None:
    assert from_bytes(to_bytes(WHOLE)) == WHOLE


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_no_field_may_be_missing(path: tuple[Any, ...]) -> None:
    with pytest.raises(MalformedInput):
        from_bytes(changed(path, lambda place, key: place.pop(key)))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", [{}, [[]], 1.5, -1, 1 << 64], ids=repr)
def test_no_value_may_be_of_another_type(path: tuple[Any, ...], value: object) -> None:
    with pytest.raises(MalformedInput):
        from_bytes(changed(path, set_to(value)))


@pytest.mark.parametrize(
    "path", [p for p in [(), *PLACES] if isinstance(p, tuple)],
    ids=lambda path: ".".join(map(str, path)) or "whole",
)  # fmt: skip
def test_no_object_has_other_fields(path: tuple[Any, ...]) -> None:
    document = place = copy()
    for key in path:
        place = place[key]
    if isinstance(place, dict):
        place["more"] = ""
        with pytest.raises(MalformedInput):
            from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 200_000,
        b'{"a": ' * 100_000,
        b"1" * 10_000,
        b'{"schema": "sev-attest/evidence/2"}',
        b'{"schema": NaN}',
        b'{"schema": 1, "schema": 1}',
        to_bytes(WHOLE).replace(b'"exit": 0', b'"exit": 0, "exit": 1'),
        to_bytes(WHOLE).replace(b'"exit": 0', b'"exit": 1e400'),
        to_bytes(WHOLE).replace(b'"exit": 0', b'"exit": Infinity'),
        to_bytes(WHOLE).replace(b'"exit": 0', b'"exit": ' + b"9" * 5000),
        to_bytes(WHOLE)[:-3],
    ],
)
def test_what_is_no_evidence_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        from_bytes(data)


@pytest.mark.parametrize(
    ("command", "part"),
    [("verify", "launch"), ("verify", "record"), ("validate", "chain"), ("snp-verify", "chain"),
     ("other", "")],
)  # fmt: skip
def test_no_command_has_the_parts_of_another(command: str, part: str) -> None:
    document = copy() | {"command": command}
    for name in ("chain", "launch", "record", "measured"):
        document[name] = document[name] if name == part else None
    with pytest.raises(MalformedInput, match=part or "is none of verify"):
        from_bytes(json.dumps(document).encode())


def test_a_value_that_is_not_encoded_names_its_field() -> None:
    for wrong, bad in ((decoded, "é"), (decoded, "A"), (unhexed, "é"), (unhexed, "0")):
        with pytest.raises(MalformedInput, match="field"):
            wrong(bad, "field")


def test_a_large_file_is_not_read(run: Run, here: Path) -> None:
    Path("e.json").write_bytes(b" " * (MAX_FILE + 1))
    ran = run("evidence", "verify", "e.json")
    assert (ran.code, f"more than {MAX_FILE} bytes" in ran.err) == (6, True)
