"""The certificates of an SEV-SNP report, from AMD's key server."""

from collections.abc import Callable
from dataclasses import dataclass

from sev_attest.errors import MalformedInput, Unsupported, reading
from sev_attest.host.kds import KeyServer, NotServed, Wanted
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.kds import VCEK, Address, addresses
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import SigningKey
from sev_attest.snp.tcb import Product

_CHECK = "kds.snp"
_UNKNOWN_CHIP = (
    "it has no VCEK of this chip at this TCB",
    "the chip is not registered (a pre-production part), or the report's TCB or chip id is wrong",
)
_UNKNOWN_CHAIN = ("it has no certificates of this product", "check the server's address")
_ROLES = {
    "VCEK": {Kind.VCEK},
    "ASK, ARK": {Kind.ASK, Kind.ARK},
    "ASVK, ARK": {Kind.ASVK, Kind.ARK},
}
Wait = Callable[[str, int], None]
"""Called with the address, and the seconds that the server asks to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What the server had, as it came. Does not verify: anything."""

    vcek: bytes
    """Empty for a report that a VLEK signs."""
    chain: bytes
    """ASK and ARK, or ASVK and ARK."""


def fetch_certificates(server: KeyServer, report: AttestationReport, *, wait: Wait) -> Fetched:
    """Fetch the VCEK of a report, and the certificates above it.

    A report of version 2 does not say its product: the server is asked for each that it may be of.
    For a VLEK there are then the certificates of each.

    Raises Unsupported if the report names no chip, or its product is not known; HostError as the
    server does; MalformedInput if it serves anything else.
    """
    wanted = [*addresses(report)]
    vlek = report.key_info.signing_key is SigningKey.VLEK
    products = list(dict.fromkeys(one.product for one in wanted))
    if not wanted:
        raise Unsupported("the report's CPUID is of no known product", check="snp.product")
    vcek = b""
    if not vlek:
        product, vcek = _vcek(server, wanted, wait)
        products = [product]
    chains = [one for one in wanted if one.product in products and one.what not in (VCEK, "CRL")]
    return Fetched(vcek=vcek, chain=b"".join(_served(server, one, wait) for one in chains))


def _vcek(server: KeyServer, wanted: list[Address], wait: Wait) -> tuple[Product, bytes]:
    """Return the VCEK, and its product: that of the first address where there is one."""
    places = [one for one in wanted if one.what == VCEK]
    if not places:
        reason = "the report names no chip (the host masks the chip's id), so no VCEK can be found"
        raise Unsupported(reason, check="snp.chip-id")
    *others, last = places
    for place in others:
        try:
            return place.product, _served(server, place, wait)
        except NotServed:
            continue
    return last.product, _served(server, last, wait)


def _served(server: KeyServer, place: Address, wait: Wait) -> bytes:
    """Return what is at an address; raises MalformedInput unless it is what belongs there."""
    unknown = _UNKNOWN_CHIP if place.what == VCEK else _UNKNOWN_CHAIN
    asked = Wanted(path=place.path, check=_CHECK, unknown=unknown)
    address = server.address(asked)
    data = server.fetch(asked, wait=lambda seconds: wait(address, seconds))
    with reading(address):
        found = read_certificates(data)
        kinds = [one.kind for one in found if isinstance(one, Certificate)]
        if len(kinds) != len(found) or set(kinds) != _ROLES[place.what]:
            names = ", ".join(kind.name for kind in kinds)
            reason = f"it serves {names or 'no certificate'}, expected {place.what}"
            raise MalformedInput("certificates", "format", reason)
    return data
