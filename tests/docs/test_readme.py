"""README.md: its commands and its library example do what it says, on a simulated platform."""

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from console import commands, outputs, show_what_they_print
from sev_attest import Insecure, NotAttestable, NotVerified, Unsupported, sev
from sev_attest.cli import exits, interrupts
from sev_attest.testing import Platform, launch_guest, ovmf_image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OVMF = ovmf_image()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Lay out a fresh clone in which pip has done its work: what tools/demo needs of it."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "tools", clone / "tools")
    shutil.copy(ROOT / "pyproject.toml", clone)
    venv.create(clone / ".venv", with_pip=False)
    (clone / ".venv" / "bin" / "python").unlink()
    (clone / ".venv" / "bin" / "python").symlink_to("python3")
    with (clone / "pyproject.toml").open() as project:
        cksum = subprocess.check_output(["cksum"], stdin=project, text=True).strip()
    (clone / ".venv" / "base").write_text(f"{sys.version} {cksum}\n")
    (clone / ".venv" / "with-").touch()
    return clone


def test_a_newcomer_gets_word_for_word_to_a_released_secret(clone: Path) -> None:
    """Every command runs in one shell, as it stands, and prints what README.md shows of it."""
    (demo, _), (tests, _), *story = commands(README)
    assert demo.split("#")[0].strip() == "tools/demo"
    assert tests.split("#")[0].strip() == "tools/test"  # this is what runs now
    shown = outputs([demo], clone)[0]
    assert shown.endswith("# That was the whole story.\n")
    show_what_they_print(story, clone)
    assert (clone / "try" / "arrived.key").stat().st_size == 32


@pytest.fixture
def platform(here: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Lay out the files of the library's example; its platform's root passes for AMD's."""
    platform = Platform(b"readme")
    root = sev.Root(
        ark=platform.authority.ark, ask=platform.authority.ask, generation=sev.Generation.NAPLES
    )
    for module in ("sev_attest.sev.chain.verify", "sev_attest.sev.chain.roots"):
        monkeypatch.setattr(f"{module}.amd_roots", lambda: (root,))
    Path("host.chain").write_bytes(platform.export().to_bytes())
    Path("OVMF.amdsev.fd").write_bytes(OVMF)
    Path("vmlinuz").write_bytes(b"a kernel")
    return platform


def test_on_a_real_platform_no_root_is_named(platform: Platform, run: Run) -> None:
    ran = run("verify", "host.chain")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[-1] == "OK: the chain leads to a trusted root: AMD Naples"
    ran = run("session", "--name", "vm1", "host.chain", "0x5")
    assert (ran.code, ran.err) == (0, "")


def test_its_library_example_runs(platform: Platform) -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    before, info, after = block[1].partition("info = ")
    names: dict[str, Any] = {}
    exec(before, names)
    names["domlaunchsecinfo"] = launch_guest(
        platform,
        policy=5,
        godh=names["session"].godh.to_bytes(),
        session=names["session"].blob,
        firmware=OVMF,
        kernel=b"a kernel",
        cmdline=b"console=ttyS0",
        vcpus=2,
    ).domlaunchsecinfo()
    exec(info + after, names)
    assert len(names["packet"].header) == 52


def test_its_exit_codes_are_the_program_s() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    codes = {"0", str(exits.INTERNAL), str(interrupts.INTERRUPTED)} | {
        str(error.exit_code) for error in (NotVerified, Unsupported, Insecure, NotAttestable)
    }
    assert codes | {"5", "6"} == table.keys()
