"""``sev-attest demo``: a whole attestation on a simulated platform."""

import os
import secrets
import shlex
import tempfile
from base64 import b64decode
from contextlib import ExitStack, chdir, redirect_stdout
from pathlib import Path

import click

from sev_attest.cli import exits
from sev_attest.errors import SevAttestError
from sev_attest.sev.secret import ALIASES
from sev_attest.testing import Fault, Guest, Host, Platform, ovmf_image

_POLICY = 0x5
_GUEST = (
    "--firmware OVMF.fd --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0 "
    "--num-cpus 2 --cpu-family 25 --cpu-model 1 --cpu-stepping 1"
)


@click.command("demo")
@click.option("--keep", metavar="DIR", help="Leave the files in this folder, which must be new.")
def command(*, keep: str | None) -> None:
    """Run a whole attestation on a simulated platform, in a few seconds.

    The platform is a model of the SEV firmware; its root is not trusted by default. All commands
    are those that you would type for a real platform.
    """
    if keep is not None:
        Path(keep).mkdir(mode=0o700)
        _tell(Path(keep))
    else:
        with tempfile.TemporaryDirectory() as folder:
            _tell(Path(folder))


def _tell(folder: Path) -> None:
    host = Host(Platform(secrets.token_bytes(32)))
    with chdir(folder):
        _prepare(host)
        _say("You check that they lead to AMD. These do not: the platform is a model.")
        _run("verify host.chain", expected=1)
        _say("To go on, trust the model's root on purpose.")
        _run("verify host.chain --trust-root test-root.cert")

        _say("You make the keys and the session for one launch. The keys stay with you.")
        _session("vm1")
        _show("ls")
        click.echo("  ".join(sorted(os.listdir())))  # noqa: PTH208 - names are what is shown

        _say("The host starts the guest, paused, and reports its measurement (simulated).")
        guest = _launch(host, "vm1")
        click.echo(guest.domlaunchsecinfo().rstrip())

        _say("You check that it is the guest you meant, and wrap the disk key for it alone.")
        _run(f"{_validate('vm1')} --inject-secret luks-key:disk.key "
             "--secret-header vm1_header.b64 --secret-payload vm1_payload.b64")  # fmt: skip

        _say("The host passes it on, and can read none of it (simulated).")
        _show("virsh domsetlaunchsecstate vm1 --secrethdr vm1_header.b64 --secret vm1_payload.b64")
        guest.inject(_read("vm1_header.b64"), _read("vm1_payload.b64"))
        _show("virsh resume vm1")
        guest.resume()
        arrived = guest.secrets.get(ALIASES["luks-key"])
        _expect("the disk key in the guest", arrived == Path("disk.key").read_bytes())
        click.echo("in the guest: the disk key is there")

        _say("Another launch, with a session of its own, on a host that changed one firmware byte.")
        host.fault = Fault.WRONG_FIRMWARE_BYTE
        _session("vm2")
        _launch(host, "vm2")
        _run(_validate("vm2"), expected=1)
        _say(
            "Refused, as it must be: no secret leaves. The ledger knows each session's one launch."
        )
        _run("ledger list --ledger launches.sqlite3")
    _say("That was the whole story.")


def _prepare(host: Host) -> None:
    _say("The host's admin exports the platform's certificates (simulated).")
    _show("sevctl export --full host.chain")
    files = {
        "host.chain": host.chain().to_bytes(),
        "test-root.cert": host.platform.authority.ark.to_bytes(),
        "OVMF.fd": ovmf_image(4 << 20),
        "vmlinuz": secrets.token_bytes(1 << 20),
        "initrd.img": secrets.token_bytes(1 << 20),
        "disk.key": secrets.token_bytes(32),
    }
    for name, data in files.items():
        Path(name).write_bytes(data)


def _session(name: str) -> None:
    _run(f"session --name {name} host.chain {_POLICY:#x} --kernel-hashes "
         "--trust-root test-root.cert --ledger launches.sqlite3 --quiet",
         output=f"{name}.xml")  # fmt: skip


def _launch(host: Host, name: str) -> Guest:
    _show(f"virsh start --paused {name}")
    guest = host.launch(
        policy=_POLICY,
        godh=_read(f"{name}_godh.b64"),
        session=_read(f"{name}_session.b64"),
        firmware=Path("OVMF.fd").read_bytes(),
        kernel=Path("vmlinuz").read_bytes(),
        initrd=Path("initrd.img").read_bytes(),
        cmdline=b"console=ttyS0",
        vcpus=2,
    )
    _show(f"virsh domlaunchsecinfo {name} > {name}.info")
    Path(f"{name}.info").write_text(guest.domlaunchsecinfo())
    return guest


def _validate(name: str) -> str:
    return (
        f"validate --launch-info {name}.info --record {name}.launch.json {_GUEST} "
        f"--tik {name}_tik.bin --tek {name}_tek.bin --ledger launches.sqlite3"
    )


def _read(name: str) -> bytes:
    return b64decode(Path(name).read_bytes())


def _say(text: str) -> None:
    click.echo(f"\n# {text}")


def _show(line: str) -> None:
    click.echo(f"$ {line}")


def _expect(what: str, there: bool) -> None:  # noqa: FBT001
    if not there:
        raise SevAttestError(f"the demo expected {what}", check="demo")


def _run(line: str, *, expected: int = 0, output: str | None = None) -> None:
    """Run one of our own commands, as it would be typed; raise if its exit code is another."""
    from sev_attest.cli.main import cli

    _show(f"sev-attest {line}" + (f" > {output}" if output else ""))
    with ExitStack() as stack:
        if output:
            file = stack.enter_context(Path(output).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(file))
        code = exits.run(cli, shlex.split(line))
    _expect(f"exit code {expected}, not {code}", code == expected)
    if code:
        click.echo(f"(exit code {code})")
