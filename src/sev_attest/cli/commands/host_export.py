"""``sev-attest host export``."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Command, Options, bare_option, option
from sev_attest.cli.inputs import FILE, OUTPUT, read_small, stdin_errors
from sev_attest.cli.options.chain import RootOptions
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.device import DeviceOptions
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported

if TYPE_CHECKING:
    from sev_attest.host.device import Device
    from sev_attest.host.kds import KeyServer
    from sev_attest.sev.chain.chain import Chain
    from sev_attest.sev.chain.verify import VerifiedChain


_UNSIGNED = "the CEK is as the firmware exports it, without AMD's signature"


class CekOptions(Options, title="Certificates of AMD"):
    """Where the CEK that AMD signed comes from, and whether to add AMD's own certificates."""

    full: bool = option("--full", is_flag=True, help="Add AMD's ASK and ARK.")
    fetch: bool = option(
        "--fetch", is_flag=True, help="Fetch the CEK that AMD signed, from AMD's key server."
    )
    cek: str | None = option(
        "--cek", type=FILE, metavar="FILE", help="Take the CEK that AMD signed from here."
    )
    kds: str | None = option(
        "--kds", metavar="URL", help="Fetch it from this mirror of AMD's key server."
    )

    @property
    def signed(self) -> bool:
        """Whether the chain gets the CEK that AMD signed."""
        return self.fetch or self.cek is not None

    def errors(self, roots: RootOptions) -> Iterator[Unsupported]:
        """Yield an error for options that contradict each other, or play no part."""
        if self.fetch and self.cek is not None:
            yield usage("--fetch and --cek both name the CEK that AMD signed")
        if self.full and not self.signed:
            reason = "--full needs the CEK that AMD signed: it shows which ASK and ARK belong to it"
            yield usage(reason, hint="--fetch gets it from AMD, --cek reads it from a file")
        if self.kds is not None and not self.fetch:
            yield usage("--kds is for --fetch")
        if roots.trust_root and not self.signed:
            yield usage("--trust-root is for --fetch or --cek")
        yield from stdin_errors(self.cek, *roots.trust_root)

    def server(self) -> "KeyServer | None":
        """Return the server to fetch the CEK from, if that is wanted; raises Unsupported."""
        if not self.fetch:
            return None
        from sev_attest.host.kds import AMD, KeyServer

        return KeyServer(self.kds or AMD)


@click.command(
    "export", cls=Command, examples=("sev-attest host export host.chain --fetch --full",)
)
@click.argument("out", type=OUTPUT)
@bare_option("--force", is_flag=True, help="Write over a file that exists.")
@CekOptions.given("amd")
@RootOptions.given("trusted")
@DeviceOptions.given("device")
@OutputOptions.given("output")
def command(
    *,
    out: str,
    force: bool,
    amd: CekOptions,
    trusted: RootOptions,
    device: DeviceOptions,
    output: OutputOptions,
) -> None:
    """Write the platform's chain for guest owners.

    OUT is what `sevctl export` writes: PDH, PEK, OCA and CEK, with --full also AMD's ASK and ARK.
    The firmware exports the CEK without AMD's signature, which guest owners need: --fetch gets the
    signed one over the network, --cek reads it from a file. The chain is then verified up to AMD's
    root before it is written.
    """
    from sev_attest.host.certificates import exported_chain, verify_exported

    refuse(amd.errors(trusted))
    server = amd.server()
    roots = trusted.roots()
    path = Path(out)
    check_writable([path], force=force)
    with device.open() as firmware:
        chain = exported_chain(firmware)
        if amd.signed:
            chain = _signed(chain, amd, server, firmware, output)
    verified = verify_exported(chain, roots=roots, signed=amd.signed)
    if verified is not None and amd.full:
        chain = verified.chain
    write_all([(path, chain.to_bytes())], force=force)
    _show(out, chain, verified, output)


def _signed(
    chain: "Chain",
    amd: CekOptions,
    server: "KeyServer | None",
    firmware: "Device",
    output: OutputOptions,
) -> "Chain":
    """Return the chain with the CEK that AMD signed."""
    from sev_attest.host.certificates import with_signed_cek

    if server is None:
        source = str(amd.cek)
        return with_signed_cek(chain, read_small(source, "CEK"), source)
    chip = chain.platform_id or firmware.get_id()  # the latter says why there is none
    address = server.cek_address(chip)

    def wait(seconds: int) -> None:
        if not output.quiet:
            render.notes([f"{address}: it asks to wait {seconds} seconds"])
        time.sleep(seconds)

    return with_signed_cek(chain, server.cek(chip, wait=wait), address)


def _show(
    out: str, chain: "Chain", verified: "VerifiedChain | None", output: OutputOptions
) -> None:
    from sev_attest.sev.chain.certificate import cek_address
    from sev_attest.sev.chain.verify import CHECKS

    address = cek_address(chain.platform_id)
    if verified is None:
        notes = [f"{_UNSIGNED}: AMD serves the signed one at {address} (--fetch gets it)"]
    else:
        notes = render.platform_notes(verified)
    root = None if verified is None else verified.root.name
    if output.as_json:
        render.document(
            "host export",
            ok=True,
            files=[out],
            fingerprints=render.fingerprints(chain),
            cek_signed=verified is not None,
            cek_address=address,
            generation=None if verified is None else verified.generation,
            root=root,
            notes=notes,
        )
    elif output.text:
        click.echo(f"wrote {render.one_line(out)}: {', '.join(c.role for c in chain.certificates)}")
        if verified is not None and output.verbose:
            render.tree(verified.chain, CHECKS.keys())
        if root is not None:
            terminal.say(f"OK: the chain leads to a trusted root: {root}")
        render.notes(notes)
