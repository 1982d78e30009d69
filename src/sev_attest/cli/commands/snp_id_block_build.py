"""``sev-attest snp id-block build``."""

import base64
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import click

from sev_attest.cli import id_blocks, render
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import FILE, Number, read_small, stdin_errors
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.options.snp import HexBytes
from sev_attest.cli.options.snp_guest import (
    SnpGuestOptions,
    SnpMeasured,
    measure_snp_guest,
    read_digest,
)
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.usage import name_errors, refuse, usage
from sev_attest.errors import Unsupported, reading
from sev_attest.snp.id_block import IdBlock, policy_fault, sign_id_block
from sev_attest.snp.id_block_verify import CHECKS, VerifiedIdBlock, verify_id_block
from sev_attest.snp.id_key import IdPrivateKey
from sev_attest.snp.policy import GuestPolicy

_QEMU_POLICY = 0x30000
"""QEMU's default: SMT is permitted, nothing else (target/i386/sev.c)."""
_KERNEL = "if that launch digest covers a kernel's hashes, the domain needs kernelHashes='yes' too"


class SnpPolicy(Number):
    """A guest policy of SEV-SNP, 64 bits, with which a guest can start."""

    def __init__(self) -> None:
        """Accept 64 bits."""
        super().__init__(0xFFFF_FFFF_FFFF_FFFF)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read the number; refuse reserved bits of another value."""
        number = super().convert(value, param, ctx)
        fault = policy_fault(GuestPolicy(number))
        if fault:
            self.fail(fault, param, ctx)
        return number


class BlockOptions(Options, title="ID block"):
    """What is approved."""

    launch_digest: str | None = option(
        "--launch-digest",
        metavar="HEX|B64",
        help="Launch digest of the guest (48 bytes); without it, the options of the guest.",
    )
    policy: int = option(
        "--policy",
        type=SnpPolicy(),
        default=hex(_QEMU_POLICY),
        metavar="HEX",
        help=f"Guest policy (default: {_QEMU_POLICY:#x}, as QEMU's).",
    )
    guest_svn: int = option(
        "--guest-svn",
        type=Number(0xFFFF_FFFF),
        default="0",
        metavar="N",
        help="Security version of the guest, for reports (default: 0).",
    )
    family_id: bytes | None = option(
        "--family-id", type=HexBytes(16), metavar="HEX", help="16 bytes, for reports."
    )
    image_id: bytes | None = option(
        "--image-id", type=HexBytes(16), metavar="HEX", help="16 bytes, for reports."
    )

    def errors(self, guest: SnpGuestOptions) -> Iterator[Unsupported]:
        """Yield an error unless exactly one launch digest is given, or can be computed."""
        stated = guest.stated(*guest.declared())
        if self.launch_digest is not None:
            if stated:
                yield usage(f"--launch-digest excludes {', '.join(stated)}")
        elif not stated:
            yield usage("--launch-digest is needed, or the options of the guest (--firmware ...)")
        else:
            yield from guest.errors()
            if guest.num_cpus is not None and len(guest.num_cpus) > 1:
                yield usage("an ID block approves one launch digest: one number of vCPUs")


class IdKeyOptions(Options, title="Keys"):
    """The keys that sign."""

    id_key: str = option(
        "--id-key",
        type=FILE,
        metavar="FILE",
        required=True,
        help="Private key that approves the launch: P-384, PEM, not encrypted.",
    )
    author_key: str | None = option(
        "--author-key", type=FILE, metavar="FILE", help="Private key that signs the ID key."
    )

    def read(self) -> tuple[IdPrivateKey, IdPrivateKey | None]:
        """Read the keys; raises OSError, MalformedInput."""
        return _key(self.id_key), None if self.author_key is None else _key(self.author_key)


def _key(path: str) -> IdPrivateKey:
    with reading(path):
        return IdPrivateKey.from_pem(read_small(path, "private key"))


class FileOptions(Options, title="Files"):
    """Where the files go."""

    name: str = option("--name", required=True, help="What the files' names begin with.")
    out: str = option(
        "--out",
        type=FILE,
        default=".",
        metavar="DIR",
        help="Folder for the files (default: here).",
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")

    @property
    def places(self) -> tuple[Path, Path]:
        """The files of the ID block and of the ID auth."""
        folder = Path(self.out)
        return folder / f"{self.name}_idblock.b64", folder / f"{self.name}_idauth.b64"


@click.command(
    "build",
    cls=Command,
    examples=(
        (
            "sev-attest snp id-block build --name vm1 --id-key id.pem --firmware OVMF.fd "
            "--num-cpus 4 --cpu-model-name EPYC-Milan"
        ),
    ),
)
@BlockOptions.given("options")
@IdKeyOptions.given("keys")
@FileOptions.given("files")
@SnpGuestOptions.given("guest")
@OutputOptions.given("output")
def command(
    *,
    options: BlockOptions,
    keys: IdKeyOptions,
    files: FileOptions,
    guest: SnpGuestOptions,
    output: OutputOptions,
) -> None:
    """Approve one launch: make an ID block, and sign it.

    The launch digest is given, or computed from the options of the guest (as `snp measure` has
    them). Writes NAME_idblock.b64 and NAME_idauth.b64, for the host, and prints libvirt's
    <launchSecurity> element with both. The platform then launches no other guest with them; a
    report of the guest carries the digest of the ID key.
    """
    refuse(
        name_errors(files.name),
        options.errors(guest),
        stdin_errors(
            keys.id_key, keys.author_key, guest.firmware, guest.kernel, guest.initrd, guest.svsm
        ),
    )
    id_key, author_key = keys.read()
    check_writable([*files.places], force=files.force)
    measured, digest = _digest(options, guest, progress=output.text)
    block = IdBlock(
        ld=digest,
        family_id=options.family_id or bytes(16),
        image_id=options.image_id or bytes(16),
        guest_svn=options.guest_svn,
        policy=GuestPolicy(options.policy),
    )
    made = verify_id_block(block, sign_id_block(block, id_key, author_key))
    write_all(zip(files.places, _blobs(made), strict=True), force=files.force)
    _print(made, measured, files, output)


def _digest(
    options: BlockOptions, guest: SnpGuestOptions, *, progress: bool
) -> tuple[SnpMeasured | None, bytes]:
    """Return the launch digest, and the guest if it was computed."""
    if options.launch_digest is not None:
        given = read_digest("--launch-digest", options.launch_digest, "launch digest")
        return None, given
    measured = measure_snp_guest(guest, progress=progress)
    return measured, measured.digest


def _blobs(made: VerifiedIdBlock) -> tuple[bytes, bytes]:
    return base64.b64encode(made.block.to_bytes()), base64.b64encode(made.auth.to_bytes())


def _print(
    made: VerifiedIdBlock, measured: SnpMeasured | None, files: FileOptions, output: OutputOptions
) -> None:
    """Print the <launchSecurity> element, and beside it what was made."""
    block, auth = (blob.decode() for blob in _blobs(made))
    hashes = measured is not None and measured.guest.kernel is not None
    xml = id_blocks.element(made, block, auth, hashes=hashes)
    notes = [*(measured.notes if measured else [_KERNEL]), *id_blocks.policy_notes(made.block)]
    author = made.author_key_digest
    if output.as_json:
        render.document(
            "snp-id-block-build",
            ok=True,
            id_block=id_blocks.block_facts(made.block),
            id_auth=id_blocks.auth_facts(made.auth),
            id_block_base64=block,
            id_auth_base64=auth,
            id_key_digest=made.id_key_digest.hex(),
            author_key_digest=author.hex() if author else None,
            files=[str(path) for path in files.places],
            launch_security=xml,
            qemu=id_blocks.qemu_properties(made, block, auth, hashes=hashes),
            notes=notes,
        )
        return
    # The element alone is standard output, ready to paste; the rest goes to standard error.
    click.echo(xml)
    if output.quiet:
        return
    if output.verbose:
        render.steps(CHECKS, made.held, err=True)
        for path in files.places:
            click.echo(f"wrote {render.one_line(str(path))}", err=True)
    contents = (f'"$(cat {quote(str(path))})"' for path in files.places)
    said = {
        "launch digest": made.block.ld.hex(),
        "id_key_digest": made.id_key_digest.hex(),
        "author_key_digest": author.hex() if author else "none",
        "QEMU": id_blocks.qemu_properties(made, *contents, hashes=hashes),
    }
    for name, value in said.items():
        click.echo(f"{name}: {render.one_line(value)}", err=True)
    render.notes(notes)
