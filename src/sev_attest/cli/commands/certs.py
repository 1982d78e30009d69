"""``sev-attest certs``: show, split and join certificates; a platform owner's OCA."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from sev_attest.cli import render
from sev_attest.cli.bundle import Group, bare_option
from sev_attest.cli.inputs import FILE, OUTPUT, read_small, stdin_errors
from sev_attest.cli.options.chain import CertificateOptions
from sev_attest.cli.options.common import OutputOptions
from sev_attest.cli.outputs import make_folder, write_all
from sev_attest.cli.usage import refuse
from sev_attest.errors import MalformedInput, reading
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.oca import OwnerKey
from sev_attest.sev.chain.packaging import certificate_of
from sev_attest.sev.spec import Usage

if TYPE_CHECKING:
    from sev_attest.cli.documents.certs import ShownCertificate

_ORDER = ("PDH", "PEK", "OCA", "CEK", "ASK", "ARK")
_force = bare_option("--force", is_flag=True, help="Write over files that exist.")
_inputs = click.argument("inputs", nargs=-1, type=FILE, metavar="INPUT...")


@click.group("certs", cls=Group, examples=("sev-attest certs show host.chain",))
def command() -> None:
    """Show, split and join platform certificates; make an OCA and sign a PEK with it."""


@command.command(
    "show",
    examples=(
        "sev-attest certs show host.chain",
        "sev-attest certs show --verbose pdh.cert cek.cert",
    ),
)
@_inputs
@CertificateOptions.given("certificates")
@OutputOptions.given("output")
def show(
    *, inputs: tuple[str, ...], certificates: CertificateOptions, output: OutputOptions
) -> None:
    """Show every certificate in INPUT (as for `verify`). Verifies nothing."""
    found = _found(inputs, certificates)
    described = [_describe(certificate) for certificate in found]
    if output.as_json:
        render.document(
            "certs show", ok=True, certificates=cast("list[ShownCertificate]", described)
        )
        return
    for facts in described:
        click.echo(f"{facts['role']} {facts['key']} {facts['fingerprint']}")
        for name in ("api", "key_id", "certifying_id", "signed_by", "reserved"):
            if output.verbose and name in facts:
                value = facts[name]
                text = ", ".join(value) if isinstance(value, list) else str(value)
                click.echo(f"    {name}: {text or 'none'}")


@command.command("split", examples=("sev-attest certs split host.chain --out certs",))
@_inputs
@bare_option("--out", type=OUTPUT, default=".", metavar="DIR", help="Folder for the files.")
@_force
@CertificateOptions.given("certificates")
@OutputOptions.given("output")
def split(
    *,
    inputs: tuple[str, ...],
    out: str,
    force: bool,
    certificates: CertificateOptions,
    output: OutputOptions,
) -> None:
    """Write each certificate in INPUT to a file of its own (pdh.cert, pek.cert and so on)."""
    found = _found(inputs, certificates)
    make_folder(Path(out))
    files = [(Path(out) / f"{c.role.lower()}.cert", c.to_bytes()) for c in found]
    _write("certs split", files, force=force, output=output)


@command.command("join", examples=("sev-attest certs join certs --output host.chain",))
@_inputs
@bare_option(
    "-o", "--output", "place", type=OUTPUT, metavar="FILE", required=True, help="Write it here."
)
@_force
@CertificateOptions.given("certificates")
@OutputOptions.given("output")
def join(
    *,
    inputs: tuple[str, ...],
    place: str,
    force: bool,
    certificates: CertificateOptions,
    output: OutputOptions,
) -> None:
    """Write the certificates in INPUT into one file, as `sevctl export` (--full) does."""
    data = b"".join(certificate.to_bytes() for certificate in _found(inputs, certificates))
    files = [(Path(place), data)]
    _write("certs join", files, force=force, output=output)


@command.command("generate-oca", examples=("sev-attest certs generate-oca oca.cert oca.key",))
@click.argument("certificate", type=OUTPUT)
@click.argument("key", type=OUTPUT)
@_force
@OutputOptions.given("output")
def generate_oca(*, certificate: str, key: str, force: bool, output: OutputOptions) -> None:
    """Make an OCA: its CERTIFICATE, and its private KEY (PEM; keep it private)."""
    owner = OwnerKey.generate()
    files = [
        (Path(certificate), owner.certificate().to_bytes()),
        (Path(key), owner.to_pem()),
    ]
    _write("certs generate-oca", files, force=force, output=output)


@command.command("sign-pek", examples=("sev-attest certs sign-pek pek.csr pek.cert --key oca.key",))
@click.argument("csr", type=FILE)
@click.argument("out", type=OUTPUT)
@bare_option("--key", type=FILE, metavar="FILE", required=True, help="Private key of the OCA.")
@_force
@OutputOptions.given("output")
def sign_pek(*, csr: str, out: str, key: str, force: bool, output: OutputOptions) -> None:
    """Sign a platform's PEK (CSR: the output of PEK_CSR) with an OCA, for PEK_CERT_IMPORT."""
    refuse(stdin_errors(csr, key))
    with reading(key):
        owner = OwnerKey.from_pem(read_small(key, "OCA key"))
    with reading(csr):
        pek = certificate_of(Usage.PEK, read_small(csr, "PEK CSR"))
    files = [(Path(out), owner.sign_pek(cast("Certificate", pek)).to_bytes())]
    _write("certs sign-pek", files, force=force, output=output)


def _found(
    inputs: tuple[str, ...], certificates: CertificateOptions
) -> list[Certificate | AmdCaCertificate]:
    """Read the certificates, one of each role; raises MalformedInput if there is none."""
    refuse(certificates.errors(inputs))
    collected = certificates.collect(inputs)
    if not collected.by_role:
        if collected.of_snp is not None:
            raise collected.of_snp
        reason = "; ".join(["there is no certificate in it", *collected.skipped[:3]])
        with reading(", ".join(inputs)):
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


Written = Literal["certs split", "certs join", "certs generate-oca", "certs sign-pek"]
"""The commands that write files."""


def _write(
    name: Written, files: list[tuple[Path, bytes]], *, force: bool, output: OutputOptions
) -> None:
    write_all(files, force=force)
    if output.as_json:
        render.document(name, ok=True, files=[str(path) for path, _ in files])
    elif output.text:
        for path, data in files:
            size = f", {len(data)} bytes" if output.verbose else ""
            click.echo(f"wrote {render.one_line(str(path))}{size}")
