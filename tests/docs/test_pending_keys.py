"""docs/pending-keys.md: its command works, and every text in it is one that is understood."""

import re
import shlex
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from conftest import Run
from sev_attest import sev
from sev_attest.cli.options.store import _MAKE_ONE
from sev_attest.owner import (
    _command,
    _vault,
    key_encryption,
    key_wrapping,
    sealing,
    secret_source,
    secret_sources,
)
from sev_attest.owner.advisories import load
from sev_attest.testing import Platform, launch_guest, ovmf_image

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


def test_the_commands_that_make_a_kek_never_replace_one(here: Path) -> None:
    made = re.findall(r"\(umask 077; .*\)", PAGE) + re.findall(r"\(umask.*?\)", _MAKE_ONE)
    assert len(made) == 3
    for line in made:
        command = line.replace("/etc/sev-attest/kek", "kek")
        Path("kek").unlink(missing_ok=True)
        assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
        kek = Path("kek").read_bytes()
        assert (len(kek), Path("kek").stat().st_mode & 0o777) == (32, 0o600)
        again = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        assert again.returncode != 0
        assert Path("kek").read_bytes() == kek


def test_the_commands_of_the_page_release_a_secret(run: Run, here: Path, milan: Platform) -> None:
    firmware = ovmf_image(1 << 13)
    authority = milan.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("host.chain").write_bytes(milan.export().to_bytes())
    advisories = ", ".join(f'"{advisory.id}"' for advisory in load())
    Path("owner.toml").write_text(f"""
schema = "sev-attest/requirements/1"
platform = {{ generations = ["test"], ceks = ["*"], platform_ids = ["*"], pdhs = ["*"] }}
minimum.test = {{ api = "1.55", build = 24 }}
launch = [{{ name = "web", digest = "{sev.launch_digest(firmware).hex()}" }}]
advisories.acknowledged = [{advisories}]
""")
    Path("disk.key").write_bytes(bytes(range(32)))
    shown = (
        PAGE.partition("```console\n")[2]
        .partition("```")[0]
        .replace("\\\n", "")
        .replace(" 0x3701000f", " 1")
    )
    kek, secrets, *lines = (line.removeprefix("$ ") for line in shown.strip().split("\n"))
    for line in (kek, secrets):
        subprocess.run(["sh", "-c", line], check=True)
    session, report, validate = (shlex.split(line, comments=True) for line in lines)
    assert report == ["virsh", "domlaunchsecinfo", "web", ">", "report.txt"]
    ran = run(*session[1:], "--trust-root", "root")
    assert ran.code == 0, ran.err
    godh, blob = (
        b64decode(Path(f"web-17_{name}.b64").read_bytes()) for name in ("godh", "session")
    )
    guest = launch_guest(milan, policy=1, godh=godh, session=blob, firmware=firmware)
    Path("report.txt").write_text(guest.domlaunchsecinfo())
    ran = run(*validate[1:])
    assert ran.code == 0, ran.err
    header, payload = (b64decode(Path(name).read_bytes()) for name in "hp")
    assert [*guest.inject(header, payload).values()] == [bytes(range(32))]
