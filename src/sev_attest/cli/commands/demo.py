"""``sev-attest demo``: a whole attestation on a simulated host, of SEV-ES or of SEV-SNP."""

import os
import secrets
import shlex
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, chdir, redirect_stdout
from pathlib import Path

import click

from sev_attest.cli import exits
from sev_attest.cli.bundle import Command, bare_option
from sev_attest.cli.environment import unset
from sev_attest.cli.inputs import OUTPUT
from sev_attest.cli.interrupts import INTERRUPTED, running
from sev_attest.cli.outputs import make_folder, require_new
from sev_attest.errors import SevAttestError

_POLICY = 0x5
_GUEST = (
    "--firmware host/OVMF.fd --kernel host/vmlinuz --initrd host/initrd.img "
    "--cmdline console=ttyS0 --num-cpus 2 --cpu-model-name EPYC-Milan"
)


@click.command(
    "demo",
    cls=Command,
    examples=(
        "sev-attest demo",
        "sev-attest demo --snp --keep try",
    ),
)
@bare_option(
    "--keep",
    type=OUTPUT,
    metavar="DIR",
    help="Leave the owner's files in this folder, which must be new, and the host in DIR/host: "
    "`simulate` goes on with it.",
)
@bare_option("--snp", is_flag=True, help="Show an SEV-SNP guest (default: an SEV-ES guest).")
def command(*, keep: str | None, snp: bool) -> None:
    """Run a whole attestation on a simulated host, in a few seconds.

    The host is a model; its root is not trusted by default. All commands but `simulate` are those
    that you would type for a real platform.
    """
    tell = _tell_snp if snp else _tell
    if keep is not None:
        require_new(Path(keep))
        make_folder(Path(keep), mode=0o700)
        tell(Path(keep))
        host = shlex.quote(str(Path(keep, "host")))
        click.echo(f"The host is left in {host}: `sev-attest simulate list {host}`.")
    else:
        with tempfile.TemporaryDirectory() as folder:
            tell(Path(folder))


def _tell(folder: Path) -> None:
    with chdir(folder):
        _say("A simulated host stands in for the real one. Its admin exports its certificates.")
        _run("simulate host host")
        _run("simulate export host host.chain")
        _say("You check that they lead to AMD. These do not: the host is a model.")
        _run("verify host.chain", expected=1)
        _say("To go on, trust the model's root on purpose.")
        _run("verify host.chain --trust-root host/test-root.cert")

        _say("You make the keys and the session for one launch. The keys stay with you.")
        _session("vm1")
        _show("ls")
        click.echo("  ".join(sorted(os.listdir())))  # noqa: PTH208 - names are what is shown

        _say("The host starts the guest, paused, and reports its measurement.")
        _start("vm1")
        click.echo(Path("vm1.info").read_text().rstrip())

        _say("You check that it is the guest you meant, and wrap the disk key for it alone.")
        _show("head -c 32 /dev/urandom > disk.key")
        Path("disk.key").write_bytes(secrets.token_bytes(32))
        _run(f"{_validate('vm1')} --inject-secret luks-key:disk.key "
             "--secret-header vm1_header.b64 --secret-payload vm1_payload.b64")  # fmt: skip

        _say("The host passes it on, and can read none of it.")
        _run("simulate domsetlaunchsecstate host vm1 --secrethdr vm1_header.b64 "
             "--secret vm1_payload.b64")  # fmt: skip
        _run("simulate resume host vm1")
        _run("simulate guest host vm1 --secret luks-key:arrived.key")
        _show("cmp disk.key arrived.key")
        arrived = Path("arrived.key").read_bytes()
        _expect("the disk key in the guest", arrived == Path("disk.key").read_bytes())

        _say("Another launch, with a session of its own, on a host that changed one firmware byte.")
        _session("vm2")
        _start("vm2", "--fault wrong-firmware-byte")
        _run(_validate("vm2"), expected=1)
        _say(
            "Refused, as it must be: no secret leaves. The ledger knows each session's one launch."
        )
        _run("ledger list --ledger launches.sqlite3")
    _say("That was the whole story.")


def _tell_snp(folder: Path) -> None:
    with chdir(folder):
        _say("A simulated host stands in for the real one. It starts an SEV-SNP guest.")
        _run("simulate host host")
        _run(f"simulate start host --name vm1 --snp {_GUEST}")

        _say("You compute the launch digest of the guest that you mean, from its files.")
        _run(f"snp measure {_GUEST}", output="digest.hex")
        _show("cat digest.hex")
        digest = Path("digest.hex").read_text(encoding="utf-8").strip()
        click.echo(digest)

        _say("You draw a nonce. The guest asks the chip for a report that has it.")
        _show("head -c 64 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > nonce.hex")
        nonce = secrets.token_hex(64)
        Path("nonce.hex").write_text(nonce, encoding="utf-8")
        expected = {'"$(cat nonce.hex)"': nonce, '"$(cat digest.hex)"': digest}
        _report("vm1", expected)

        _say("You check that AMD's key signed it. It did not: the host is a model.")
        _run("snp verify vm1.report", expected=1)
        _say("To go on, trust the model's root on purpose. The verdict says that it is not AMD's.")
        _check("vm1", expected)

        _say("Another guest: the host changed one byte of its firmware. The chip tells on it.")
        _run(f"simulate start host --name vm2 --snp {_GUEST} --fault wrong-firmware-byte")
        _report("vm2", expected)
        _check("vm2", expected, code=1)
        _say("Refused, as it must be: the report is genuine, and it is of another guest.")
    _say("That was the whole story. No verdict here says anything of a chip of AMD's.")


def _report(name: str, values: Mapping[str, str]) -> None:
    line = f'simulate snp-report host {name} --report-data "$(cat nonce.hex)"'
    _run(line, values=values)


def _check(name: str, values: Mapping[str, str], code: int = 0) -> None:
    line = (
        f"snp verify {name}.report --trust-root host/snp-root.der "
        '--report-data "$(cat nonce.hex)" --launch-digest "$(cat digest.hex)"'
    )
    _run(line, expected=code, values=values)


def _session(name: str) -> None:
    _run(f"session --name {name} host.chain {_POLICY:#x} --kernel-hashes "
         "--trust-root host/test-root.cert --ledger launches.sqlite3 --quiet",
         output=f"{name}.xml")  # fmt: skip


def _start(name: str, fault: str = "") -> None:
    _run(f"simulate start host --name {name} --policy {_POLICY:#x} --godh {name}_godh.b64 "
         f"--session {name}_session.b64 {_GUEST} {fault}".rstrip())  # fmt: skip
    _run(f"simulate domlaunchsecinfo host {name}", output=f"{name}.info")


def _validate(name: str) -> str:
    return (
        f"validate --launch-info {name}.info --record {name}.launch.json {_GUEST} "
        f"--tik {name}_tik.bin --tek {name}_tek.bin --ledger launches.sqlite3"
    )


def _say(text: str) -> None:
    click.echo(f"\n# {text}")


def _show(line: str) -> None:
    click.echo(f"$ {line}")


def _expect(what: str, there: bool) -> None:  # noqa: FBT001
    if not there:
        raise SevAttestError(f"the demo expected {what}", check="demo")


def _run(
    line: str,
    *,
    expected: int = 0,
    output: str | None = None,
    values: Mapping[str, str] | None = None,
) -> None:
    """Run one of our own commands, as it would be typed; raise if its exit code is another.

    ``values`` are what a shell would put in place of parts of the line.
    """
    from sev_attest.cli.main import cli

    _show(f"sev-attest {line}" + (f" > {output}" if output else ""))
    for part, value in (values or {}).items():
        line = line.replace(part, value)
    with ExitStack() as stack:
        stack.enter_context(unset())
        if output:
            file = stack.enter_context(Path(output).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(file))
        signals = running.signals
        code = exits.run(cli, shlex.split(line))
    if code == INTERRUPTED or running.signals != signals:  # the search after a mismatch swallows it
        raise KeyboardInterrupt
    _expect(f"exit code {expected}, not {code}", code == expected)
    if code:
        click.echo(f"(exit code {code})")
