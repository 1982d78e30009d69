"""Products, and the versions of their trusted computing base (TCB).

A TCB_VERSION is 8 bytes, whose order depends on the product:

=============  ==========================================================================
product        bytes
=============  ==========================================================================
Milan, Genoa   0 bootloader, 1 tee, 2-5 reserved, 6 snp, 7 microcode
Turin          0 fmc, 1 bootloader, 2 tee, 3 snp, 4-6 reserved, 7 microcode
=============  ==========================================================================

Source: AMD 56860, TCB_VERSION, as read by virtee/sev and google/go-sev-guest; held against the
TCB extensions of real VCEKs of each product.
"""

from dataclasses import dataclass
from enum import Enum

from sev_attest.errors import MalformedInput

TCB_SIZE = 8


class Product(Enum):
    """A family of chips with SEV-SNP; its value is the name that AMD's certificates use."""

    MILAN = "Milan"
    GENOA = "Genoa"
    """Bergamo and Siena too."""
    TURIN = "Turin"

    @classmethod
    def of_cpuid(cls, family: int | None, model: int | None) -> "Product | None":
        """Return the product with this CPUID family and model; None for others."""
        if family is None or model is None:
            return None
        for known, models, product in _CPUIDS:
            if family == known and model in models:
                return product
        return None


# The last range is inclusive, as AMD's are: snpguest and trustee miss model 0xaf.
_CPUIDS = (
    (0x19, range(0x10), Product.MILAN),
    (0x19, range(0x10, 0x20), Product.GENOA),
    (0x19, range(0xA0, 0xB0), Product.GENOA),
    (0x1A, range(0x12), Product.TURIN),
)
_MILAN = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TURIN = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
_LAYOUTS = {Product.MILAN: _MILAN, Product.GENOA: _MILAN, Product.TURIN: _TURIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """The versions of a product's firmware and microcode, each 0 to 255."""

    product: Product
    fmc: int | None = None
    """Turin's first mutable code; None for other products."""
    bootloader: int
    tee: int
    snp: int
    microcode: int
    reserved: bytes
    """The reserved bytes, in their order; zero in all real reports."""

    @classmethod
    def from_bytes(cls, data: bytes, product: Product) -> "Tcb":
        """Read 8 bytes; raises MalformedInput for another size."""
        if len(data) != TCB_SIZE:
            raise MalformedInput("TCB version", "length", f"{len(data)} bytes, expected {TCB_SIZE}")
        layout = _LAYOUTS[product]
        reserved = bytes(byte for at, byte in enumerate(data) if at not in layout.values())
        return cls(
            product=product, reserved=reserved, **{name: data[at] for name, at in layout.items()}
        )

    @property
    def components(self) -> dict[str, int]:
        """Versions by name, in the order of the product's bytes."""
        return {name: getattr(self, name) for name in _LAYOUTS[self.product]}

    def behind(self, other: "Tcb") -> list[str]:
        """Return the components that are lower than in ``other``, a TCB of the same product.

        Raises TypeError for another product: its numbers cannot be compared.
        """
        if other.product is not self.product:
            raise TypeError(f"a TCB of {self.product.value} and one of {other.product.value}")
        mine = self.components
        return [name for name, version in other.components.items() if mine[name] < version]
