"""docs/pending-keys.md: its command works, and every text in it is one that is understood."""

import re
import sys
from pathlib import Path

import pytest

from sev_attest.owner import (
    _command,
    _vault,
    key_encryption,
    key_wrapping,
    sealing,
    secret_source,
    secret_sources,
)

PAGE = (Path(__file__).parents[2] / "docs" / "pending-keys.md").read_text()
CREDS = """
import sys
verb, name = sys.argv[1], sys.argv[3]
assert sys.argv[2:] == ["--quiet", "--name=tpm-wrap", "-", "-"]
sys.stdout.buffer.write(bytes(byte ^ 0x55 for byte in sys.stdin.buffer.read()))
"""
"""A stand-in for systemd-creds: it encrypts nothing."""


def test_the_command_of_the_page_wraps_and_unwraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("tpm-wrap", PAGE.partition("```sh\n")[2].partition("```")[0]),
        ("systemd-creds", f"#!{sys.executable}{CREDS}"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    kek = key_encryption(f"command:{tmp_path}/tpm-wrap")
    assert kek.unwrap(kek.wrap(b"k" * 32)) == b"k" * 32


def test_the_sources_of_the_page_are_understood() -> None:
    named = re.findall(r"`((?:vault|folder):[^`\[]*\{launch\})`", PAGE)
    assert len(named) == 2
    for text in named:
        secret_source(text)


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    for words in (
        f"up to {sealing.MAX_OPENED} of them",
        f"1 to {key_wrapping.MAX_ID} ",
        f"1 to {key_wrapping.MAX_WRAPPED} ",
        f"up to {sealing.MAX_PLAINTEXT >> 10} KiB",
        f"exactly {key_wrapping.KEY_SIZE} bytes",
        f"within {_command.SECONDS:g} seconds",
        f"may take {_vault.SECONDS:g} seconds",
        f"1 to {secret_sources.MAX_SECRET} bytes; there are 1 to {secret_sources.MAX_SECRETS}",
    ):
        assert words in PAGE, words
