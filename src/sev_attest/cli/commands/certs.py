"""``sev-attest certs``: show, split and join certificates; a platform owner's OCA."""

from pathlib import Path
from typing import Any, cast

import click

from sev_attest.cli import render
from sev_attest.cli.inputs import (
    FILE,
    OUTPUT,
    collect,
    input_options,
    one_stdin,
    output_options,
    read_small,
)
from sev_attest.cli.outputs import write_all
from sev_attest.errors import MalformedInput, reading
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.chain import Collected
from sev_attest.sev.chain.oca import OwnerKey
from sev_attest.sev.chain.packaging import certificate_of
from sev_attest.sev.spec import Usage

_ORDER = ("PDH", "PEK", "OCA", "CEK", "ASK", "ARK")
_force = click.option("--force", is_flag=True, help="Write over files that exist.")
_inputs = click.argument("inputs", nargs=-1, type=FILE, metavar="INPUT...")


@click.group("certs", no_args_is_help=False)
def command() -> None:
    """Certificates of platforms: look at them, repackage them; an owner's own OCA."""


@command.command("show")
@_inputs
@input_options
@output_options
def show(
    *,
    inputs: tuple[str, ...],
    as_json: bool,
    quiet: bool,  # noqa: ARG001 - all of it was asked for
    verbose: bool,
    **given: Any,
) -> None:
    """Show every certificate in INPUT (as for `verify`). Verifies nothing."""
    found = _found(collect(inputs, given))
    described = [_describe(certificate) for certificate in found]
    if as_json:
        render.document("certs show", ok=True, certificates=described)
        return
    for facts in described:
        click.echo(f"{facts['role']} {facts['key']} {facts['fingerprint']}")
        for name in ("api", "key_id", "certifying_id", "signed_by", "reserved") if verbose else ():
            if name in facts:
                click.echo(f"    {name}: {facts[name]}")


@command.command("split")
@_inputs
@click.option("--out", type=OUTPUT, default=".", metavar="DIR", help="Folder for the files.")
@_force
@input_options
@output_options
def split(
    *, inputs: tuple[str, ...], out: str, force: bool, as_json: bool, quiet: bool, verbose: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Write each certificate in INPUT to a file of its own: pdh.cert, pek.cert, ..."""
    found = _found(collect(inputs, given))
    Path(out).mkdir(exist_ok=True)
    files = [(Path(out) / f"{c.role.lower()}.cert", c.to_bytes()) for c in found]
    _write("certs split", files, force=force, as_json=as_json, quiet=quiet, verbose=verbose)


@command.command("join")
@_inputs
@click.option("-o", "--output", type=OUTPUT, metavar="FILE", required=True, help="Write it here.")
@_force
@input_options
@output_options
def join(
    *, inputs: tuple[str, ...], output: str, force: bool, as_json: bool, quiet: bool,
    verbose: bool, **given: Any,
) -> None:  # fmt: skip
    """Write the certificates in INPUT into one file, as `sevctl export` (--full) does."""
    data = b"".join(certificate.to_bytes() for certificate in _found(collect(inputs, given)))
    files = [(Path(output), data)]
    _write("certs join", files, force=force, as_json=as_json, quiet=quiet, verbose=verbose)


@command.command("generate-oca")
@click.argument("certificate", type=OUTPUT)
@click.argument("key", type=OUTPUT)
@_force
@output_options
def generate_oca(
    *, certificate: str, key: str, force: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Make an OCA: its CERTIFICATE, and its private KEY (PEM; keep it private)."""
    owner = OwnerKey.generate()
    files = [
        (Path(certificate), owner.certificate().to_bytes()),
        (Path(key), owner.to_pem()),
    ]
    _write("certs generate-oca", files, force=force, as_json=as_json, quiet=quiet, verbose=verbose)


@command.command("sign-pek")
@click.argument("csr", type=FILE)
@click.argument("out", type=OUTPUT)
@click.option("--key", type=FILE, metavar="FILE", required=True, help="Private key of the OCA.")
@_force
@output_options
def sign_pek(
    *, csr: str, out: str, key: str, force: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Sign a platform's PEK (CSR: what PEK_CSR gave) with an OCA, for PEK_CERT_IMPORT."""
    one_stdin((csr, key))
    with reading(key):
        owner = OwnerKey.from_pem(read_small(key, "OCA key"))
    with reading(csr):
        pek = certificate_of(Usage.PEK, read_small(csr, "PEK CSR"))
    files = [(Path(out), owner.sign_pek(cast("Certificate", pek)).to_bytes())]
    _write("certs sign-pek", files, force=force, as_json=as_json, quiet=quiet, verbose=verbose)


def _found(collected: Collected) -> list[Certificate | AmdCaCertificate]:
    if not collected.by_role:
        reason = "; ".join(["there is no certificate in it", *collected.skipped[:3]])
        raise MalformedInput("chain", "incomplete", reason)
    return [collected.by_role[role][0] for role in _ORDER if role in collected.by_role]


def _describe(certificate: Certificate | AmdCaCertificate) -> dict[str, object]:
    facts: dict[str, object] = {
        "role": certificate.role,
        "key": certificate.key_name,
        "fingerprint": certificate.fingerprint,
    }
    if certificate.reserved:
        facts["reserved"] = list(certificate.reserved)
    if isinstance(certificate, AmdCaCertificate):
        signed = bool(certificate.signature)
        ids = {"key_id": certificate.key_id.hex(), "certifying_id": certificate.certifying_id.hex()}
        return facts | ids | {"signed_by": ["ARK"] if signed else []}
    signers = [slot.usage.name for slot in certificate.signatures if not slot.empty]
    api = f"{certificate.api_major}.{certificate.api_minor}"
    return facts | {"api": api, "signed_by": signers}


def _write(
    name: str,
    files: list[tuple[Path, bytes]],
    *,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    write_all(files, force=force)
    if as_json:
        render.document(name, ok=True, files=[str(path) for path, _ in files])
    elif not quiet:
        for path, data in files:
            size = f", {len(data)} bytes" if verbose else ""
            click.echo(f"wrote {render.one_line(str(path))}{size}")
