"""``sev-attest simulate``: a simulated SEV and SEV-SNP host in a folder."""

import base64
from collections.abc import Iterator
from pathlib import Path

import click

from sev_attest._encoding import blob, from_base64, looks_like_text
from sev_attest.cli import render
from sev_attest.cli.bundle import Group, Options, option
from sev_attest.cli.inputs import FILE, OUTPUT, STDIN, read_small, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.keys import secret_errors
from sev_attest.cli.options.simulated import HOST, HostOptions, StartOptions, fault_option
from sev_attest.cli.options.simulated_snp import SnpReportOptions, SnpStartOptions
from sev_attest.cli.outputs import made_folder, require_new, write_all
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported, WrongState, reading
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.secret import ALIASES
from sev_attest.snp.policy import GuestPolicy as SnpPolicy
from sev_attest.testing.folder import HostFolder
from sev_attest.testing.host import Fault, fault_name
from sev_attest.testing.state import AnyGuest, SavedGuest, SavedSnpGuest

_HEADER_SIZE = 52
_NAMES = {guid: alias for alias, guid in ALIASES.items()}


class ExportOptions(Options, title="Export"):
    """How the chain is exported."""

    fault: Fault | None = fault_option(in_chain=True)
    force: bool = option("--force", is_flag=True, help="Write over a file that exists.")


class PacketOptions(Options, title="Secrets"):
    """The packet that `validate --inject-secret` wrote."""

    secrethdr: str = option(
        "--secrethdr", type=FILE, metavar="FILE", required=True, help="The header."
    )
    secret: str = option(
        "--secret", type=FILE, metavar="FILE", required=True, help="The secrets, encrypted."
    )


class SeenOptions(Options, title="Secrets"):
    """Where secrets that arrived are written."""

    secrets: tuple[str, ...] = option(
        "-s",
        "--secret",
        metavar="ALIAS-OR-GUID:FILE",
        multiple=True,
        help="Write this secret to a file (alias: luks-key); can be repeated.",
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")


@click.group(
    "simulate",
    cls=Group,
    examples=(
        "sev-attest simulate host host",
        "sev-attest simulate list host",
    ),
)
def command() -> None:
    """Simulate a host in a folder: DIR is the host in each of these commands.

    Nothing of it is a real platform. Its roots are trusted only where --trust-root names
    DIR/test-root.cert (SEV, SEV-ES) or DIR/snp-root.der (SEV-SNP), and its keys are no secret.
    """


@command.command("host", examples=("sev-attest simulate host host --generation milan",))
@click.argument("folder", type=OUTPUT, metavar="DIR")
@HostOptions.given("options")
@OutputOptions.given("output")
def host(*, folder: str, options: HostOptions, output: OutputOptions) -> None:
    """Make a simulated host in DIR, a new folder.

    It holds the host's state, the root of its chain (test-root.cert), that of its SEV-SNP reports
    from Milan on (snp-root.der), and images to launch (OVMF.fd, vmlinuz, initrd.img). With --seed,
    all are the same each time.
    """
    refuse(options.errors())
    require_new(Path(folder))
    made = HostFolder.create(Path(folder), options.state())
    files = sorted(path.name for path in made.folder.iterdir())
    line = f"{_described(made)}, in {render.one_line(folder)}"
    _tell(output, "host", line, *files, folder=folder, files=files, **_facts(made))


@command.command("export", examples=("sev-attest simulate export host host.chain",))
@click.argument("host", type=HOST, metavar="DIR")
@click.argument("out", type=OUTPUT, default="host.chain", metavar="[OUT]")
@ExportOptions.given("options")
@OutputOptions.given("output")
def export(*, host: HostFolder, out: str, options: ExportOptions, output: OutputOptions) -> None:
    """Write the certificates of DIR to OUT.

    As `sevctl export --full` does; OUT is host.chain by default.
    """
    chain = host.chain(options.fault)
    write_all([(Path(out), chain.to_bytes())], force=options.force)
    links = [f"{link.role} {link.fingerprint}" for link in chain.certificates]
    shown = f"{render.one_line(out)} has the chain of this host, under a root that is not AMD's"
    _tell(output, "export", shown, *links, file=out, fingerprints=render.fingerprints(chain))


@command.command(
    "start",
    examples=(
        (
            "sev-attest simulate start host --name vm1 --policy 0x5 --godh vm1_godh.b64 "
            "--session vm1_session.b64 --firmware host/OVMF.fd --num-cpus 2"
        ),
        (
            "sev-attest simulate start host --name vm2 --snp --firmware host/OVMF.fd "
            "--kernel host/vmlinuz"
        ),
    ),
)
@click.argument("host", type=HOST, metavar="DIR")
@StartOptions.given("options")
@SnpStartOptions.given("snp")
@OutputOptions.given("output")
def start(
    *, host: HostFolder, options: StartOptions, snp: SnpStartOptions, output: OutputOptions
) -> None:
    """Launch a guest, measured and paused; with --snp, measured and running.

    As `virsh start --paused` does. With --kernel, the hashes of kernel, initrd and command line are
    measured too.
    """
    refuse(options.errors(snp=snp.snp), snp.errors(options))
    if snp.snp:
        name, booted, fault = snp.guest(options)
        made = host.start_snp(name, booted, fault)
        line = f"{name} runs as an SEV-SNP guest, and is measured"
        _tell(output, "start", line, *_snp_steps(made), **_guest(name, made))
        return
    name, inputs = options.guest()
    guest = host.start(name, inputs, options.fault)
    _tell(output, "start", f"{name} is paused, and measured", *_steps(guest), **_guest(name, guest))


@command.command(
    "snp-report",
    examples=('sev-attest simulate snp-report host vm2 --report-data "$(cat nonce.hex)"',),
)
@click.argument("host", type=HOST, metavar="DIR")
@click.argument("name")
@SnpReportOptions.given("options")
@OutputOptions.given("output")
def snp_report(
    *, host: HostFolder, name: str, options: SnpReportOptions, output: OutputOptions
) -> None:
    """Ask for a report in the SEV-SNP guest NAME.

    As a guest does through configfs-tsm: the folder of --out has the report (outblob), the host's
    certificates (auxblob) and the request (inblob). `snp verify` and `snp show` read such folders.
    """
    answer = host.snp_report(name, options.report_data, options.fault, **options.choices)
    out = Path(options.out or f"{name}.report")
    files = {out / each: data for each, data in answer.files(options.report_data).items()}
    with made_folder(out, mode=0o700):
        write_all(files.items(), force=options.force)
    shown = f"{render.one_line(str(out))} has the report of {name}, under a root that is not AMD's"
    facts = {"guest": name, "folder": str(out), "files": [path.name for path in files]}
    details = [f"{kind.name} {len(der)} bytes" for kind, der in answer.certificates.items()]
    _tell(output, "snp-report", shown, *details, report=answer.report.hex(), **facts)


@command.command(
    "domlaunchsecinfo", examples=("sev-attest simulate domlaunchsecinfo host vm1 > vm1.info",)
)
@click.argument("host", type=HOST, metavar="DIR")
@click.argument("name")
@OutputOptions.given("output")
def domlaunchsecinfo(*, host: HostFolder, name: str, output: OutputOptions) -> None:
    """Print the measurement of guest NAME.

    As `virsh domlaunchsecinfo` does. A line "simulated" is added, which `validate` ignores.
    """
    guest = host.guest(name)
    if output.as_json:
        _tell(output, "domlaunchsecinfo", "", **_guest(name, guest))
        return
    click.echo(f"{guest.domlaunchsecinfo().rstrip()}\n{'simulated':<15}: yes\n")


@command.command(
    "domsetlaunchsecstate",
    examples=(
        (
            "sev-attest simulate domsetlaunchsecstate host vm1 --secrethdr header.b64 "
            "--secret payload.b64"
        ),
    ),
)
@click.argument("host", type=HOST, metavar="DIR")
@click.argument("name")
@PacketOptions.given("packet")
@OutputOptions.given("output")
def domsetlaunchsecstate(
    *, host: HostFolder, name: str, packet: PacketOptions, output: OutputOptions
) -> None:
    """Pass secrets to the paused guest NAME.

    As `virsh domsetlaunchsecstate` does. The firmware checks that they are for this launch.
    """
    refuse(stdin_errors(packet.secrethdr, packet.secret))
    with reading(packet.secrethdr):
        header = blob(read_small(packet.secrethdr, "header"), (_HEADER_SIZE,), "header")
    with reading(packet.secret):
        payload = read_small(packet.secret, "secret")
        if looks_like_text(payload):
            payload = from_base64(payload, "secret")
    host.inject(name, header, payload)
    _tell(output, "domsetlaunchsecstate", f"the firmware gave the secrets to {name}", guest=name)


@command.command("resume", examples=("sev-attest simulate resume host vm1",))
@click.argument("host", type=HOST, metavar="DIR")
@click.argument("name")
@OutputOptions.given("output")
def resume(*, host: HostFolder, name: str, output: OutputOptions) -> None:
    """Let the paused guest NAME run."""
    host.resume(name)
    _tell(output, "resume", f"{name} runs", guest=name)


@command.command("destroy", examples=("sev-attest simulate destroy host vm1",))
@click.argument("host", type=HOST, metavar="DIR")
@click.argument("name")
@OutputOptions.given("output")
def destroy(*, host: HostFolder, name: str, output: OutputOptions) -> None:
    """End the guest NAME, and forget it."""
    host.destroy(name)
    _tell(output, "destroy", f"{name} is gone", guest=name)


@command.command("list", examples=("sev-attest simulate list host",))
@click.argument("host", type=HOST, metavar="DIR")
@OutputOptions.given("output")
def list_guests(*, host: HostFolder, output: OutputOptions) -> None:
    """Describe the host DIR, and list its guests."""
    guests = host.guests()
    if output.as_json:
        listed = [_guest(name, guest) for name, guest in guests.items()]
        _tell(output, "list", "", guests=listed, **_facts(host))
        return
    click.echo(f"simulated: {_described(host)}")
    for name, guest in guests.items():
        click.echo(f"{_state(guest):<8} {render.one_line(name)}  {_policy(guest)}")


@command.command(
    "guest", examples=("sev-attest simulate guest host vm1 --secret luks-key:arrived.key",)
)
@click.argument("host", type=HOST, metavar="DIR")
@click.argument("name")
@SeenOptions.given("options")
@OutputOptions.given("output")
def guest_view(*, host: HostFolder, name: str, options: SeenOptions, output: OutputOptions) -> None:
    """Print what the running guest NAME sees.

    Whether SEV is active, and which secrets arrived: GUID and size. --secret writes one to a file.
    """
    refuse(secret_errors(options.secrets), _place_errors(options.secrets))
    guest = host.any_guest(name)
    if isinstance(guest, SavedSnpGuest):
        _snp_view(name, guest, options, output)
        return
    if not guest.running:
        raise WrongState(
            f"{name} is paused: a guest sees nothing before it runs",
            check="simulate.paused",
        )
    written = [_secret(name, guest, text) for text in options.secrets]
    write_all(written, force=options.force)
    es = GuestPolicy(guest.policy).es
    lines = [f"SEV: active, SEV-ES: {'active' if es else 'not active'}"]
    lines += [
        f"secret {guid}{f' ({_NAMES[guid]})' if guid in _NAMES else ''}: {len(secret)} bytes"
        for guid, secret in guest.secrets.items()
    ] or ["no secret arrived"]
    if output.as_json:
        sizes = {guid: len(secret) for guid, secret in guest.secrets.items()}
        files = [str(path) for path, _ in written]
        _tell(output, "guest", "", sev=True, sev_es=es, secrets=sizes, files=files,
              **_guest(name, guest))  # fmt: skip
        return
    for line in (f"simulated: what {name} sees", *lines):
        click.echo(render.one_line(line))


def _snp_view(name: str, guest: SavedSnpGuest, options: SeenOptions, output: OutputOptions) -> None:
    """Print what an SEV-SNP guest sees: no secret is passed to it by its firmware."""
    if options.secrets:
        words = f"{name} is an SEV-SNP guest: no secret arrives through its firmware"
        raise WrongState(words, check="simulate.is-snp")
    if output.as_json:
        _tell(output, "guest", "", sev=True, sev_es=True, sev_snp=True, **_guest(name, guest))
        return
    for line in (f"simulated: what {name} sees", "SEV: active, SEV-ES: active, SEV-SNP: active"):
        click.echo(render.one_line(line))


def _place_errors(texts: tuple[str, ...]) -> Iterator[Unsupported]:
    """Yield an error for each secret that would go to standard output."""
    for text in texts:
        name, _, path = text.partition(":")
        if path == STDIN:
            yield usage(f"the secret {name} is written to a file, not to standard output")


def _secret(name: str, guest: SavedGuest, text: str) -> tuple[Path, bytes]:
    """Return the file of an ALIAS-OR-GUID:FILE option, and the secret."""
    wanted, _, path = text.partition(":")
    guid = ALIASES.get(wanted, wanted).lower()
    if guid not in guest.secrets:
        raise WrongState(f"no secret {wanted} arrived in {name}", check="simulate.secret")
    return Path(path), guest.secrets[guid]


def _described(host: HostFolder) -> str:
    """Return what a host is, in words."""
    state = host.state
    wrong = f", with the fault {fault_name(state.fault)}" if state.fault else ""
    api = ".".join(map(str, state.api))
    return f"a host like {state.generation.title()}, API {api} build {state.build}{wrong}"


def _facts(host: HostFolder) -> dict[str, object]:
    """Return a host's fields of a JSON document."""
    state = host.state
    return {
        "generation": state.generation,
        "api": list(state.api),
        "build": state.build,
        "fault": state.fault and fault_name(state.fault),
    }


def _state(guest: AnyGuest) -> str:
    return "running" if guest.running else "paused"


def _policy(guest: AnyGuest) -> str:
    if isinstance(guest, SavedSnpGuest):
        return f"SEV-SNP, policy {SnpPolicy(guest.policy)}"
    return f"policy {GuestPolicy(guest.policy)}"


def _guest(name: str, guest: AnyGuest) -> dict[str, object]:
    """Return a guest's fields of a JSON document."""
    known: dict[str, object] = {"guest": name, "state": _state(guest), "policy": guest.policy}
    if isinstance(guest, SavedSnpGuest):
        return {**known, "snp": True, "launch_digest": guest.measurement.hex()}
    return {
        **known,
        "measurement": base64.b64encode(guest.measurement).decode(),
        "api": list(guest.api),
        "build_id": guest.build,
    }


def _steps(guest: SavedGuest) -> list[str]:
    """Return what --verbose says of a launch."""
    return [
        f"LAUNCH_START: policy {GuestPolicy(guest.policy)}",
        f"launch digest: {guest.digest.hex()}",
        f"nonce: {guest.measurement[32:].hex()}",
    ]


def _snp_steps(guest: SavedSnpGuest) -> list[str]:
    return [
        f"SNP_LAUNCH_START: policy {SnpPolicy(guest.policy)}",
        f"launch digest: {guest.measurement.hex()}",
        f"report_id: {guest.report_id.hex()}",
    ]


def _tell(output: OutputOptions, name: str, line: str, *details: str, **facts: object) -> None:
    """Print a verdict, or a JSON document; each says that this is a simulation."""
    if output.as_json:
        render.any_document(f"simulate {name}", ok=True, simulated=True, **facts)
        return
    for each in (f"simulated: {line}", *(details if output.verbose else ())) if output.text else ():
        click.echo(render.one_line(each))
