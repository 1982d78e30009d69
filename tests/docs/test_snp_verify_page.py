"""``docs/snp-verify.md``: its tables of checks and of JSON fields are complete."""

import json
import re
from pathlib import Path

from conftest import Run
from sev_attest.guest import CpuModel
from sev_attest.snp import expected, verify
from sev_attest.snp.digest import launch_digest
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS
from snp_material import AMD, MILAN

PAGE = Path(__file__).parents[2] / "docs" / "snp-verify.md"


def test_the_page_lists_every_check() -> None:
    listed = re.findall(r"^\| `(snp\.[a-z.-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [*verify.CHECKS, *expected.CHECKS]


def test_the_page_lists_every_field_of_both_documents(run: Run, here: Path) -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("## JSON")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", rest, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    image = ovmf_image(8192, sections=SNP_SECTIONS)
    right = launch_digest(image, vcpus=2, vmsa=CpuModel.named("EPYC-Milan"))
    seen = set()
    for name, data in {"c": MILAN.certificates(), "root": AMD.ark, "fw": image}.items():
        Path(name).write_bytes(data)
    for digest, code in ((right, 0), (bytes(48), 1)):
        Path("r").write_bytes(MILAN.report(measurement=digest))
        guest = ("-f", "fw", "-n", "2", "--cpu-model-name", "EPYC-Milan")
        ran = run("snp", "verify", "r", "c", "--trust-root", "root", *guest, "--json")
        assert ran.code == code
        seen |= json.loads(ran.out).keys()
    assert listed == seen - {"schema"}
