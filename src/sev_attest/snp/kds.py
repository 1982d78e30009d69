"""Addresses at AMD's key distribution server (KDS), which serves the certificates of a report.

Source: AMD 57230, as used by virtee/snpguest and google/go-sev-guest kds/. Nothing here connects.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sev_attest.sev.spec import CEK_ADDRESS
from sev_attest.snp.certificates import Kind
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import SigningKey
from sev_attest.snp.tcb import Product, Tcb

AMD = CEK_ADDRESS.partition("/cek/")[0]
"""The address of AMD's server."""
_PARAMETERS = {
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}
_TURIN_CHIP_ID = 8
"""Bytes of a chip id that Turin uses."""
CHIP_ID_SIZES = {Product.MILAN: 64, Product.GENOA: 64, Product.TURIN: _TURIN_CHIP_ID}


def vcek_path(chip_id: bytes, tcb: Tcb) -> str:
    """Return the path of the VCEK of a chip at a TCB; ``chip_id`` is the report's 64 bytes."""
    product = tcb.product
    chip = chip_id[: CHIP_ID_SIZES[product]].hex()
    query = "&".join(f"{_PARAMETERS[n]}={spl:02}" for n, spl in tcb.components.items())
    return f"/vcek/v1/{product.value}/{chip}?{query}"


def chain_path(product: Product, kind: Kind) -> str:
    """Return the path of the ASK and ARK of VCEKs, or of the ASVK and ARK of VLEKs."""
    return f"/{kind.name.lower()}/v1/{product.value}/cert_chain"


def crl_path(product: Product, kind: Kind) -> str:
    """Return the path of the ARK's revocation list, for the ASK of VCEKs or the ASVK of VLEKs."""
    return f"/{kind.name.lower()}/v1/{product.value}/crl"


def vcek_address(report: AttestationReport, product: Product) -> str:
    """Return the address of the VCEK that signs a report, of a chip of this product."""
    return AMD + vcek_path(report.chip_id, report.tcb("reported", product))


class Address(NamedTuple):
    """A path at the server, and what it serves; ``product`` is one of several in version 2."""

    what: str
    product: Product
    path: str


VCEK = "VCEK"
"""What :func:`addresses` calls the chip's own certificate."""


def addresses(report: AttestationReport) -> Iterator[Address]:
    """Yield where the certificates of a report are: for each product that it may be of.

    The VCEK, unless a VLEK signs or the report names no chip; ASK or ASVK with the ARK; the
    revocation list.
    """
    vlek = report.key_info.signing_key is SigningKey.VLEK
    kind, ca = (Kind.VLEK, "ASVK, ARK") if vlek else (Kind.VCEK, "ASK, ARK")
    for product in possible_products(report):
        if not vlek and any(report.chip_id):
            tcb = report.tcb("reported", product)
            yield Address(VCEK, product, vcek_path(report.chip_id, tcb))
        yield Address(ca, product, chain_path(product, kind))
        yield Address("CRL", product, crl_path(product, kind))


def possible_products(report: AttestationReport) -> tuple[Product, ...]:
    """Return the products that a report may be of, by its CPUID; by its chip id in version 2.

    Turin uses 8 bytes of the chip id. Does not verify: anything.
    """
    if report.cpuid_family is not None:
        return (report.product,) if report.product else ()
    if any(report.chip_id[_TURIN_CHIP_ID:]):
        return Product.MILAN, Product.GENOA
    return tuple(Product)
