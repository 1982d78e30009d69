"""``sev-attest demo``: the main job from end to end, on a simulated platform."""

import os
import secrets
import shlex
import tempfile
from base64 import b64decode
from contextlib import chdir
from pathlib import Path

import click

from sev_attest.cli import exits
from sev_attest.errors import SevAttestError
from sev_attest.measure.vmsa import CpuModel, VmsaPages
from sev_attest.testing import Authority, Platform, launch_guest, ovmf_image

_POLICY = 0x5
_VCPUS = 2
_VALIDATE = (
    "validate --launch-info {name}.info --record {name}.launch.json "
    "--firmware OVMF.fd --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0 "
    "--num-cpus 2 --cpu-family 25 --cpu-model 1 --cpu-stepping 1 "
    "--tik {name}_tik.bin --tek {name}_tek.bin"
)


@click.command("demo")
@click.option("--keep", metavar="DIR", help="Leave the files in this folder, which must be new.")
def command(*, keep: str | None) -> None:
    """Show the whole story on a simulated platform, in a few seconds.

    The platform is a model of the SEV firmware whose root nobody trusts; everything else is what
    you would type for a real one.
    """
    if keep is not None:
        Path(keep).mkdir(mode=0o700)
        _tell(Path(keep))
    else:
        with tempfile.TemporaryDirectory() as folder:
            _tell(Path(folder))


def _tell(folder: Path) -> None:
    platform = Platform(secrets.token_bytes(32), authority=Authority())
    with chdir(folder):
        _say("The host's admin exports the platform's certificates (simulated).")
        _show("sevctl export --full host.chain")
        chain = platform.export()
        ask, ark = platform.authority.ask, platform.authority.ark
        _write("host.chain", chain.to_bytes() + ask.to_bytes() + ark.to_bytes())
        _write("test-root.cert", ark.to_bytes())

        _say("You check that they lead to AMD. These do not: the platform is a model.")
        _run("verify host.chain", expected=1)
        _say("To go on, trust the model's root on purpose.")
        _run("verify host.chain --trust-root test-root.cert")

        _say("You make the keys and the session for one launch. The keys stay with you.")
        _session("vm1")
        _show("ls")
        click.echo("  ".join(sorted(os.listdir())))  # noqa: PTH208 - names are what is shown

        firmware = ovmf_image(4 << 20)
        _write("OVMF.fd", firmware)
        _write("vmlinuz", secrets.token_bytes(1 << 20))
        _write("initrd.img", secrets.token_bytes(1 << 20))
        _say("The host starts the guest, paused, and reports its measurement (simulated).")
        _launch(platform, "vm1", firmware)
        click.echo(Path("vm1.info").read_text().rstrip())

        _say("You check that it is the guest you meant.")
        _run(_VALIDATE.format(name="vm1"))

        _say("Another launch, with a session of its own, on a host that changed one firmware byte.")
        _session("vm2")
        _launch(platform, "vm2", firmware[:1000] + bytes((firmware[1000] ^ 1,)) + firmware[1001:])
        _run(_VALIDATE.format(name="vm2"), expected=1)
    _say("Refused, as it must be. That was the whole story.")


def _session(name: str) -> None:
    _run(f"session --name {name} host.chain {_POLICY:#x} --kernel-hashes "
         "--trust-root test-root.cert --quiet")  # fmt: skip


def _launch(platform: Platform, name: str, firmware: bytes) -> None:
    _show(f"virsh start --paused {name}")
    cpu = CpuModel(family=25, model=1, stepping=1)
    pages = VmsaPages.qemu_legacy(cpu, 0x80_B004)
    guest = launch_guest(
        platform,
        policy=_POLICY,
        godh=b64decode(Path(f"{name}_godh.b64").read_bytes()),
        session=b64decode(Path(f"{name}_session.b64").read_bytes()),
        firmware=firmware,
        kernel=Path("vmlinuz").read_bytes(),
        initrd=Path("initrd.img").read_bytes(),
        cmdline=b"console=ttyS0",
        vmsa=tuple(pages.for_vcpus(_VCPUS)),
    )
    _show(f"virsh domlaunchsecinfo {name} > {name}.info")
    _write(f"{name}.info", guest.domlaunchsecinfo().encode())


def _write(name: str, data: bytes) -> None:
    Path(name).write_bytes(data)


def _say(text: str) -> None:
    click.echo(f"\n# {text}")


def _show(line: str) -> None:
    click.echo(f"$ {line}")


def _run(line: str, *, expected: int = 0) -> None:
    """Run one of our own commands, as it would be typed, and hold it to its exit code."""
    from sev_attest.cli.main import cli

    _show(f"sev-attest {line}")
    code = exits.run(cli, shlex.split(line))
    if code != expected:
        raise SevAttestError(f"the demo expected exit code {expected}, not {code}", check="demo")
    if code:
        click.echo(f"(exit code {code})")
