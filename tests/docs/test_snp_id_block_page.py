"""docs/snp-id-block.md: its commands print what it shows, its tables are complete."""

import re
from pathlib import Path

import pytest

from conftest import Run
from console import commands, show_what_they_print
from id_material import AUTHOR_KEY, ID_KEY, auth, block, digest, pem, verified
from sev_attest.cli.id_block_domain import CHECKS as DOMAIN_CHECKS
from sev_attest.snp.id_block_verify import CHECKS, REPORT_CHECKS
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS
from snp_reports import report

PAGE = (Path(__file__).parents[2] / "docs" / "snp-id-block.md").read_text(encoding="utf-8")
OPTIONS = re.findall(r"(?<![a-z-])--[a-z][a-z0-9-]+", PAGE)


@pytest.fixture
def guest(here: Path, run: Run) -> bytes:
    """Lay out the keys, the guest and a report of its launch; return its launch digest."""
    for name, data in (
        ("id-key.pem", pem(ID_KEY)), ("author-key.pem", pem(AUTHOR_KEY)),
        ("OVMF.fd", ovmf_image(sections=SNP_SECTIONS)), ("vmlinuz", b"kernel"),
        ("initrd.img", b"initrd"),
    ):  # fmt: skip
        (here / name).write_bytes(data)
    measured = bytes.fromhex(re.findall(r"^launch digest: ([0-9a-f]{96})$", PAGE, re.MULTILINE)[0])
    (here / "report.bin").write_bytes(report(
        3, measurement=measured, family_id=bytes(16), image_id=bytes(16), guest_svn=1,
        policy=0x30000, id_key_digest=digest(ID_KEY), author_key_digest=digest(AUTHOR_KEY),
        key_info=1,
    ))  # fmt: skip
    return measured


def test_its_commands_print_what_it_shows(here: Path, guest: bytes) -> None:
    show_what_they_print(commands(PAGE), here)


def test_its_tables_are_complete() -> None:
    listed = re.findall(r"^\| `(snp\.id-block\.[a-z.-]+)` \|", PAGE, re.MULTILINE)
    assert listed == [*CHECKS, *REPORT_CHECKS, *DOMAIN_CHECKS]


def test_its_options_exist(run: Run) -> None:
    shown = "".join(
        run("snp", "id-block", name, "--help").out for name in ("build", "show", "check")
    ) + "".join(run("snp", "verify", "--help").out)
    assert OPTIONS
    for name in OPTIONS:
        assert name in shown, name


def test_its_example_in_python_works(here: Path, guest: bytes) -> None:
    signed = block(guest, svn=1)
    (here / "block").write_bytes(signed)
    (here / "auth").write_bytes(auth(signed, author_key=AUTHOR_KEY))
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    values: dict[str, object] = {"digest": guest, "report": None}
    exec(example, values)
    made = values["approved"]
    assert made.id_key_digest == digest(ID_KEY)  # type: ignore[attr-defined]
    page = (here / "web.id-auth").read_bytes()
    assert verified((here / "web.id-block").read_bytes(), page)[0] == digest(ID_KEY)
