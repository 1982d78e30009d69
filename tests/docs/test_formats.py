"""docs/formats.md: the fields of its tables are those of the code."""

import hashlib
import hmac
import json
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from sev_attest import owner, sev
from sev_attest.cli import manifest
from sev_attest.sev.keys import TransportKeys
from sev_attest.testing import Platform

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


def rows(heading: str) -> list[list[str]]:
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in part.splitlines() if line[:2] == "| "]
    return table[1:]


def record() -> tuple[owner.LaunchRecord, TransportKeys]:
    platform = Platform(b"formats")
    pdh = platform.export().pdh
    session = sev.Session.create_unverified(pdh, policy=sev.GuestPolicy(5))
    return owner.LaunchRecord.of(session, "vm1", datetime(2026, 1, 2, tzinfo=UTC)), session.keys


def test_a_record_has_the_fields_of_the_page() -> None:
    named = [row[0].strip("`") for row in rows("The record of a session")]
    assert named == ["schema", *(field.name for field in fields(owner.LaunchRecord))]
    document = json.loads(record()[0].to_bytes())
    for name, kind, _ in rows("The record of a session"):
        value = document[name.strip("`")]
        digits = re.match(r"(\d+) hex digits", kind)
        assert (value is None and "null" in kind) or digits is None or len(value) == int(digits[1])
        assert ("or null" in kind) or value is not None


def test_the_mac_and_the_id_are_made_as_the_page_says() -> None:
    made, keys = record()
    document = json.loads(made.to_bytes())
    mac = document.pop("mac")
    del document["schema"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
    message = b"sev-attest record" + hashlib.sha256(keys.tek).digest() + text
    assert hmac.digest(keys.tik, message, "sha256").hex() == mac
    assert hmac.digest(keys.tik, b"sev-attest session", "sha256").hex() == document["session_id"]
    assert "the 17 bytes `sev-attest record`" in PAGE
    assert "the 18 bytes `sev-attest session`" in PAGE.replace("\n", " ")
    assert (len(b"sev-attest record"), len(b"sev-attest session")) == (17, 18)


def test_the_tables_of_bytes_have_no_gap_and_the_size_that_is_named() -> None:
    for heading, size in (("The session blob", 128), ("The packet of a secret", 52)):
        at = 0
        for offset, length, _ in rows(heading):
            assert int(offset, 16) == at
            at += int(length)
        assert at == size
        assert f"{size} bytes" in PAGE


def test_the_schemas_are_named() -> None:
    manifests = (vars(manifest)[name] for name in ("MANIFEST_SCHEMA", "SNP_MANIFEST_SCHEMA"))
    for schema in (*manifests, json.loads(record()[0].to_bytes())["schema"]):
        assert f"`{schema}`" in PAGE
