"""README.md: its commands and its library example do what it says, on a simulated platform."""

import re
import shlex
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest import Insecure, NotAttestable, NotVerified, Unsupported, sev
from sev_attest.cli import exits, interrupts
from sev_attest.guest import CpuModel, VmsaProfile
from sev_attest.testing import Platform, launch_guest, ovmf_image

README = (Path(__file__).parents[2] / "README.md").read_text()
OVMF = ovmf_image()


@pytest.fixture
def platform(here: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Lay out the files that the README names; its platform's root passes for AMD's."""
    platform = Platform(b"readme")
    root = sev.Root(
        ark=platform.authority.ark, ask=platform.authority.ask, generation=sev.Generation.NAPLES
    )
    for module in ("sev_attest.sev.chain.verify", "sev_attest.sev.chain.roots"):
        monkeypatch.setattr(f"{module}.amd_roots", lambda: (root,))
    Path("host.chain").write_bytes(platform.export().to_bytes())
    Path("OVMF.amdsev.fd").write_bytes(OVMF)
    Path("vmlinuz").write_bytes(b"a kernel")
    Path("initrd.img").write_bytes(b"an initrd")
    return platform


def launch(platform: Platform, godh: bytes, session: bytes, **guest: Any) -> str:
    """Start the README's guest; give what virsh prints of it."""
    VmsaProfile(cpu=CpuModel.named("EPYC-Milan")).pages(0x80B004)
    return launch_guest(
        platform,
        policy=5,
        godh=godh,
        session=session,
        firmware=OVMF,
        kernel=b"a kernel",
        cmdline=b"console=ttyS0",
        vcpus=2,
        **guest,
    ).domlaunchsecinfo()


def test_its_commands_do_what_it_shows(platform: Platform, run: Run) -> None:
    text = README.replace("\\\n", " ")
    blocks = re.findall(r"^\$ sev-attest (.*?)\n(.*?)^(?:\$|```)", text, re.MULTILINE | re.DOTALL)
    assert [command.split()[0] for command, _ in blocks] == ["verify", "session", "validate"]
    for command, shown in blocks:
        arguments, _, redirected = command.partition(" > ")
        if command.startswith("validate"):
            godh, session = (Path(f"vm1_{n}.b64").read_bytes() for n in ("godh", "session"))
            report = launch(platform, b64decode(godh), b64decode(session), initrd=b"an initrd")
            Path("vm1.info").write_text(report)
        ran = run(*shlex.split(arguments))
        assert (ran.code, ran.err) == (0, "")
        if redirected:
            Path(redirected).write_text(ran.out)
        else:
            hidden = re.compile(r"[0-9a-f]{64,}|R\d{4} R\d{3}")
            assert hidden.sub("", ran.out) == hidden.sub("", shown)
    files = re.search(r"^\$ ls\n(.*)", README, re.MULTILINE)
    assert files is not None
    beside = {"OVMF.amdsev.fd", "vmlinuz", "initrd.img", "vm1.info"}
    assert set(files[1].split()) == {path.name for path in Path().iterdir()} - beside


def test_its_library_example_runs(platform: Platform) -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    before, info, after = block[1].partition("info = ")
    names: dict[str, Any] = {}
    exec(before, names)
    names["domlaunchsecinfo"] = launch(
        platform, names["session"].godh.to_bytes(), names["session"].blob
    ).encode()
    exec(info + after, names)
    assert len(names["packet"].header) == 52


def test_its_exit_codes_are_the_program_s() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    codes = {"0", str(exits.INTERNAL), str(interrupts.INTERRUPTED)} | {
        str(error.exit_code) for error in (NotVerified, Unsupported, Insecure, NotAttestable)
    }
    assert codes | {"5", "6"} == table.keys()
