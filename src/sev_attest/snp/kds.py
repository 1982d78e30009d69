"""Addresses at AMD's key distribution server (KDS), which serves the certificates of a report.

Source: AMD 57230, as used by virtee/snpguest and google/go-sev-guest kds/. Nothing here connects.
"""

from sev_attest.sev.spec import CEK_ADDRESS
from sev_attest.snp.certificates import Kind
from sev_attest.snp.report import AttestationReport
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


def possible_products(report: AttestationReport) -> tuple[Product, ...]:
    """Return the products that a report may be of, by its CPUID; by its chip id in version 2.

    Turin uses 8 bytes of the chip id. Does not verify: anything.
    """
    if report.cpuid_family is not None:
        return (report.product,) if report.product else ()
    if any(report.chip_id[_TURIN_CHIP_ID:]):
        return Product.MILAN, Product.GENOA
    return tuple(Product)
