"""What an SEV-SNP guest gets when it asks for a report, and what it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

from sev_attest.snp.certificates import Kind
from sev_attest.snp.spec import SIGNED_SIZE
from sev_attest.testing.snp import SnpPlatform
from sev_attest.testing.snp_launch import SnpGuest


class SnpAnswer(NamedTuple):
    """What a guest gets when it asks for a report: the report, and what the host adds to it."""

    report: bytes
    certificates: Mapping[Kind, bytes]
    """The DER of the VCEK or VLEK, of its ASK or ASVK, and of the ARK."""

    @property
    def chain(self) -> bytes:
        """The DER of the certificates, in a row."""
        return b"".join(self.certificates.values())

    @property
    def table(self) -> bytes:
        """The certificates as a certificate table."""
        return certificate_table({_GUIDS[kind]: der for kind, der in self.certificates.items()})

    def files(self, report_data: bytes) -> dict[str, bytes]:
        """Return the files of configfs-tsm for a request with this ``report_data``, by name."""
        return {
            "inblob": report_data,
            "outblob": self.report,
            "auxblob": self.table,
            "provider": b"sev_guest\n",
        }


_GUIDS = {
    Kind.VCEK: "63da758d-e664-4564-adc5-f4b93be8accd",
    Kind.VLEK: "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    Kind.ASK: "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    Kind.ASVK: "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    Kind.ARK: "c0b406a4-a803-4952-9743-3fb6014cd0ae",
}


def certificate_table(contents: Mapping[str, bytes]) -> bytes:
    """Return a certificate table: contents by GUID, in this order.

    Source: AMD 56421 (GHCB). Entries of GUID (in the order of its text), offset, length; zeros.
    """
    at = 24 * (len(contents) + 1)
    entries = b""
    for guid, data in contents.items():
        entries += UUID(guid).bytes + at.to_bytes(4, "little") + len(data).to_bytes(4, "little")
        at += len(data)
    return entries + bytes(24) + b"".join(contents.values())


@dataclass(slots=True, kw_only=True)
class Request:
    """What an answer is made of; a fault changes it."""

    guest: SnpGuest
    platform: SnpPlatform
    kind: Kind
    version: int
    fields: dict[str, Any]
    poked: dict[int, bytes] = field(default_factory=dict)
    """Bytes to put at offsets of the report before it is signed."""
    signer: SnpPlatform | None = None
    """The chip whose key signs, if it is another one."""
    signed: bool = True
    vek: dict[str, Any] = field(default_factory=dict)
    """Arguments of the authority's ``vek``."""
    ca_signer: Kind = Kind.ARK

    @property
    def other_chip(self) -> SnpPlatform:
        """Another chip of the same product, at the same TCB."""
        return replace(self.platform, seed=b"another chip" + self.platform.seed)

    def answer(self) -> SnpAnswer:
        """Return the report of the guest, and the certificates."""
        authority, kind = self.platform.authority, self.kind
        own = Kind.ASK if kind is Kind.VCEK else Kind.ASVK
        guest = replace(self.guest, platform=self.platform)
        report = guest.report(
            kind=kind,
            version=self.version,
            poked=self.poked,
            signed_by=(self.signer or self.platform).key(kind),
            **self.fields,
        )
        if not self.signed:
            report = report[:SIGNED_SIZE] + bytes(len(report) - SIGNED_SIZE)
        certificates = {
            kind: self.platform.vek(kind, **self.vek),
            own: authority.ca(own, signer=self.ca_signer),
            Kind.ARK: authority.ark,
        }
        return SnpAnswer(report, certificates)
