"""A simulated SEV-SNP platform: AMD's authority for a product, a chip, and its reports.

Source: AMD 56860 (ATTESTATION_REPORT), AMD 57230 (VCEK certificate); the shapes of certificates are
those of real ones. What real firmware refuses is not modelled: any report can be made.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sev_attest.snp.certificates import Kind
from sev_attest.snp.extensions import PREFIX
from sev_attest.snp.report import LAYOUT
from sev_attest.snp.roots import Root
from sev_attest.snp.spec import REPORT_SIZE, SIGNATURE_ALGO, SIGNED_SIZE
from sev_attest.snp.tcb import Product
from sev_attest.testing import x509
from sev_attest.testing.authority import SigningKey
from sev_attest.testing.x509 import DEFAULT, Shape

_CURVE = ec.SECP384R1()
_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
_CAS = (Kind.ARK, Kind.ASK, Kind.ASVK)
_SERIALS = {Kind.ARK: 0x00, Kind.ASK: 0x01, Kind.ASVK: 0x101}
_BASIC_CONSTRAINTS, _KEY_USAGE = "2.5.29.19", "2.5.29.15"
_CERT_SIGN = bytes.fromhex("03020204")
_CHIP_ID = 64
_TURIN_CHIP_ID = 8
_NUMBERS = {Product.MILAN: 1, Product.GENOA: 2, Product.TURIN: 3}
_CPUIDS = {
    Product.MILAN: (0x19, 0x01, 0x01),
    Product.GENOA: (0x19, 0x11, 0x01),
    Product.TURIN: (0x1A, 0x02, 0x01),
}
TCBS = {
    Product.MILAN: bytes.fromhex("04000000000018db"),
    Product.GENOA: bytes.fromhex("0a00000000001754"),
    Product.TURIN: bytes.fromhex("0102030400000050"),
}
"""The TCB of a simulated chip, 8 bytes."""
_NAMES = {Product.MILAN: "Milan-B0", Product.GENOA: "Genoa", Product.TURIN: "Turin"}
_POLICY, _PLATFORM_INFO = 0x30000, 0x25
_SPLS = ("3.1", "3.2", "3.4", "3.5", "3.6", "3.7", "3.3", "3.8")
_TURIN_SPLS = ("3.9", "3.1", "3.2", "3.3", "3.5", "3.6", "3.7", "3.8")
"""Object ids of the patch levels, in the order of the TCB's bytes."""


class SnpAuthority:
    """AMD's keys for one product: ARK, ASK and ASVK, with certificates as the real ones.

    All authorities have the same keys, unless they are ``forged``. ``shape`` is that of the three
    certificates.
    """

    def __init__(
        self, product: Product = Product.MILAN, *, forged: bool = False, shape: Shape = DEFAULT
    ) -> None:
        """Choose the keys. Each certificate is built when it is first asked for."""
        names = ("ASK", "ASVK", "ARK") if forged else ("ARK", "ASK", "ASVK")
        self.product: Product = product
        self._shape = shape
        self.keys: dict[Kind, SigningKey] = {
            kind: SigningKey.named(4096, key) for kind, key in zip(_CAS, names, strict=True)
        }

    @cached_property
    def ark(self) -> bytes:
        """The ARK's certificate, DER."""
        return self.ca(Kind.ARK, shape=self._shape)

    @cached_property
    def ask(self) -> bytes:
        """The ASK's certificate, DER."""
        return self.ca(Kind.ASK, shape=self._shape)

    @cached_property
    def asvk(self) -> bytes:
        """The ASVK's certificate, DER."""
        return self.ca(Kind.ASVK, shape=self._shape)

    @property
    def root(self) -> Root:
        """The root to pass to a check that has to accept this authority's reports."""
        return Root(ark=self.keys[Kind.ARK].public)

    def name(self, kind: Kind) -> str:
        """Return the common name of a CA."""
        prefix = {Kind.ARK: "ARK", Kind.ASK: "SEV", Kind.ASVK: "SEV-VLEK"}[kind]
        return f"{prefix}-{self.product.value}"

    def ca(
        self,
        kind: Kind,
        *,
        signer: Kind = Kind.ARK,
        shape: Shape = DEFAULT,
        serial: int | None = None,
    ) -> bytes:
        """Return the certificate of a CA; ``signer`` is whose key signs it."""
        number = (_NUMBERS[self.product] << 16) + _SERIALS[kind]
        return x509.certificate(
            issuer=self.name(Kind.ARK),
            subject=self.name(kind),
            key=x509.rsa_key(self.keys[kind].public),
            serial=number if serial is None else serial,
            found={_BASIC_CONSTRAINTS: bytes.fromhex("30030101ff"), _KEY_USAGE: _CERT_SIGN},
            critical=(_BASIC_CONSTRAINTS, _KEY_USAGE),
            signer=self.keys[signer],
            shape=shape,
        )

    def vek(
        self,
        kind: Kind,
        key: ec.EllipticCurvePublicKey,
        *,
        tcb: bytes,
        hwid: bytes = b"",
        issuer: Kind | None = None,
        signer: Kind | None = None,
        product_name: str | None = None,
        shape: Shape = DEFAULT,
    ) -> bytes:
        """Return the certificate of a VCEK or VLEK; ``issuer`` and ``signer`` may be wrong ones."""
        own = Kind.ASK if kind is Kind.VCEK else Kind.ASVK
        turin = self.product is Product.TURIN
        found = {
            "1": x509.integer(int(turin)),
            "2": x509.ia5_string(product_name or _NAMES[self.product]),
            **{
                which: x509.integer(spl)
                for which, spl in zip(_TURIN_SPLS if turin else _SPLS, tcb, strict=True)
            },
        }
        if kind is Kind.VCEK:
            found["4"] = x509.tlv(0x04, hwid) if shape.wrapped_hwid else hwid
        else:
            found["2"] = x509.ia5_string(product_name or self.product.value)
            found["5"] = x509.ia5_string("CN=cc-test.example.com")
        numbers = key.public_numbers()
        return x509.certificate(
            issuer=self.name(issuer or own),
            subject=f"SEV-{kind.name}",
            key=x509.ec_key(numbers.x, numbers.y),
            serial=0,
            found={PREFIX + which: value for which, value in found.items()},
            signer=self.keys[signer or own],
            shape=shape,
        )

    def crl(
        self,
        *serials: int,
        this_update: datetime = DEFAULT.not_before,
        next_update: datetime | None = DEFAULT.not_after,
        signer: Kind = Kind.ARK,
    ) -> bytes:
        """Return the ARK's revocation list."""
        return x509.revocation_list(
            issuer=self.name(Kind.ARK),
            serials=serials,
            this_update=this_update,
            next_update=next_update,
            signer=self.keys[signer],
        )


@dataclass(frozen=True, slots=True)
class SnpPlatform:
    """A chip of a product, with the same keys for the same ``seed``; ``tcb`` is its firmware's."""

    seed: bytes
    authority: SnpAuthority
    tcb: bytes

    @classmethod
    def of(
        cls, seed: bytes, authority: SnpAuthority | None = None, *, tcb: bytes | None = None
    ) -> "SnpPlatform":
        """Return a chip; by default of Milan, with the TCB of :data:`TCBS`."""
        authority = authority or SnpAuthority()
        return cls(seed, authority, TCBS[authority.product] if tcb is None else tcb)

    @property
    def hwid(self) -> bytes:
        """The chip's id: 64 bytes, or 8 for Turin."""
        product = self.authority.product
        size = _TURIN_CHIP_ID if product is Product.TURIN else _CHIP_ID
        return hashlib.shake_256(product.value.encode() + self.seed).digest(size)

    def key(self, kind: Kind) -> ec.EllipticCurvePrivateKey:
        """Return the VCEK or VLEK of the chip at its TCB."""
        drawn = hashlib.shake_256(kind.name.encode() + self.tcb + self.seed).digest(64)
        return ec.derive_private_key(int.from_bytes(drawn, "big") % (_ORDER - 1) + 1, _CURVE)

    def vek(self, kind: Kind = Kind.VCEK, *, shape: Shape = DEFAULT, **changes: object) -> bytes:
        """Return the certificate of a key; ``changes`` are arguments of the authority's ``vek``."""
        arguments = {"tcb": self.tcb, "hwid": self.hwid, "shape": shape, **changes}
        return self.authority.vek(kind, self.key(kind).public_key(), **arguments)  # type: ignore[arg-type]

    def certificates(self, kind: Kind = Kind.VCEK) -> bytes:
        """Return the DER of the VEK, its ASK or ASVK, and the ARK, in a row."""
        own = self.authority.ask if kind is Kind.VCEK else self.authority.asvk
        return self.vek(kind) + own + self.authority.ark

    def report(
        self,
        kind: Kind = Kind.VCEK,
        *,
        version: int = 3,
        poked: Mapping[int, bytes] | None = None,
        signed_by: ec.EllipticCurvePrivateKey | None = None,
        **fields: int | bytes,
    ) -> bytes:
        """Return a report, signed by a key of the chip.

        ``fields`` are those of :data:`~sev_attest.snp.report.LAYOUT`; ``poked`` are bytes to put at
        offsets before it is signed; ``signed_by`` is another key to sign with.
        """
        family, model, stepping = _CPUIDS[self.authority.product]
        chip_id = self.hwid.ljust(_CHIP_ID, b"\0") if kind is Kind.VCEK else bytes(_CHIP_ID)
        values: dict[str, int | bytes] = {
            "version": version,
            "policy": _POLICY,
            "signature_algo": SIGNATURE_ALGO,
            "platform_info": _PLATFORM_INFO,
            "key_info": 0 if kind is Kind.VCEK else 1 << 2,
            "report_id": hashlib.sha256(self.seed).digest(),
            "report_id_ma": b"\xff" * 32,
            "chip_id": chip_id,
            "cpuid_family": family,
            "cpuid_model": model,
            "cpuid_stepping": stepping,
            **dict.fromkeys(
                ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), self.tcb
            ),
            **fields,
        }
        whole = bytearray(SIGNED_SIZE)
        for row in LAYOUT:
            if row.since <= version:
                value = values.get(row.name, 0)
                number = value if isinstance(value, int) else int.from_bytes(value, "little")
                whole[row.offset : row.offset + row.size] = number.to_bytes(row.size, "little")
        for offset, data in (poked or {}).items():
            whole[offset : offset + len(data)] = data
        return bytes(whole) + self.sign(bytes(whole), signed_by or self.key(kind))

    @staticmethod
    def sign(signed: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return the signature part of a report: R and S little-endian, each in 72 bytes."""
        scheme = ec.ECDSA(hashes.SHA384(), deterministic_signing=True)
        r, s = decode_dss_signature(key.sign(signed, scheme))
        parts = r.to_bytes(72, "little") + s.to_bytes(72, "little")
        return parts.ljust(REPORT_SIZE - SIGNED_SIZE, b"\0")
