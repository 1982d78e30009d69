"""Which of the certificates at hand are behind a report, and which pinned keys fill the gaps.

No verdict rests on a choice made here: every choice is then held to every check.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sev_attest import _crypto
from sev_attest._keys import RsaPublicKey
from sev_attest.errors import MalformedInput
from sev_attest.snp.certificates import VEKS, Certificate, Kind
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.roots import PinnedKey, Root
from sev_attest.snp.spec import SIGNATURE_ALGO, SigningKey

if TYPE_CHECKING:
    from sev_attest.snp.revocation import RevocationList

SIGNERS = {Kind.VCEK: Kind.ASK, Kind.VLEK: Kind.ASVK}
"""The kind of key that signs each kind of VEK."""
_MOST_SIGNATURES = 64
"""Most keys that are tried on a report. Whoever brings more equal VEKs only hides the right one."""
_MOST_CHAINS = 4
"""Most chains of a report: each is held to every check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The certificates behind a report, chosen. Does not verify: anything."""

    vek: Certificate
    ca: Certificate | None
    """The ASK or ASVK, if there is one."""
    ark: Certificate | None
    pinned: PinnedKey | None
    """AMD's key in place of a missing ASK or ASVK."""
    root: Root | None
    """The trusted root with the ARK's key; without an ARK, the one that the rest leads to."""
    crls: "tuple[RevocationList, ...]"
    cas: tuple[Certificate, ...]
    """Every ASK or ASVK at hand that has the chosen one's key, whoever signed it."""
    namesakes: tuple[Certificate, ...]
    """Every ARK at hand that has the chosen one's name, and another key."""

    @property
    def ca_kind(self) -> Kind:
        """The kind of key that signs a VEK of this kind."""
        return SIGNERS[self.vek.kind]

    @property
    def ca_key(self) -> RsaPublicKey | None:
        """The key of the ASK or ASVK."""
        if self.ca is not None:
            return rsa(self.ca)
        return self.pinned.public_key if self.pinned else None

    @property
    def pinned_serial(self) -> int | None:
        """The serial number that AMD published the ASK's or ASVK's key with, if it is pinned."""
        pinned = self.root.pinned(self.ca_kind) if self.root else None
        return pinned.serial if pinned and pinned.public_key == self.ca_key else None

    @property
    def ark_key(self) -> RsaPublicKey | None:
        """The key of the ARK."""
        if self.ark is not None:
            return rsa(self.ark)
        return self.root.ark if self.root else None

    @property
    def product_name(self) -> str:
        """The product of the chain, by the name of the VEK's issuer; "" if that is not AMD's."""
        signer = self.vek.signer
        return signer[1] if signer else ""

    @property
    def named_lists(self) -> "tuple[RevocationList, ...]":
        """The revocation lists that have the name of this product's ARK."""
        name = f"ARK-{self.product_name}"
        return tuple(crl for crl in self.crls if crl.issuer.common_name == name)

    @property
    def signed_lists(self) -> "tuple[RevocationList, ...]":
        """Those of them that the ARK's key signs; none without an ARK."""
        key = self.ark_key
        return tuple(crl for crl in self.named_lists if key is not None and crl.signed_by(key))

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The certificates that are there, from the VEK up."""
        return tuple(c for c in (self.vek, self.ca, self.ark) if c is not None)

    @property
    def missing(self) -> tuple[Kind, ...]:
        """The kinds of the certificates in whose place a pinned or trusted key stands."""
        there = {certificate.kind for certificate in self.certificates}
        return tuple(kind for kind in (self.ca_kind, Kind.ARK) if kind not in there)


def rsa(certificate: Certificate) -> RsaPublicKey:
    """Return the key of a CA; raises TypeError for a VCEK or VLEK."""
    if not isinstance(certificate.public_key, RsaPublicKey):
        raise TypeError(f"{certificate!r} has no RSA key")
    return certificate.public_key


def choose(
    report: AttestationReport,
    given: "Iterable[Certificate | RevocationList]",
    roots: Sequence[Root],
    when: datetime,
) -> tuple[Chain, ...]:
    """Choose the chains of a report among certificates in any order, of any number of platforms.

    There are several, at most 4, if several VEKs fit the report equally well: a host can make one
    that does, for the key of the right one. Raises MalformedInput if there is no VCEK or VLEK.
    """
    every = list(dict.fromkeys(given))
    certificates = [one for one in every if isinstance(one, Certificate)]
    veks = [one for one in certificates if one.kind in VEKS]
    if not veks:
        raise _no_vek(report)
    crls = tuple(one for one in every if not isinstance(one, Certificate))
    return tuple(_chain(vek, certificates, crls, roots) for vek in _best(veks, report, when))


def _best(
    veks: list[Certificate], report: AttestationReport, when: datetime
) -> Sequence[Certificate]:
    """Return the VEKs that fit a report best, at most 4: first those whose key signs it."""
    fitting = [_fitting(one, report, when) for one in veks]
    best = [one for one, fits in zip(veks, fitting, strict=True) if fits == max(fitting)]
    if len(best) == 1:
        return best
    # Stable: of those that are equal in this too, the first one given comes first.
    best.sort(key=lambda one: not product_fits(one, report))
    tried = best[:_MOST_SIGNATURES]
    return sorted(tried, key=lambda one: not signs(one, report))[:_MOST_CHAINS]


def _chain(
    vek: Certificate,
    certificates: list[Certificate],
    crls: "tuple[RevocationList, ...]",
    roots: Sequence[Root],
) -> Chain:
    """Choose what is above a VEK."""
    ca = _ca(vek, certificates)
    product = vek.signer[1] if vek.signer else ""
    ark = _ark(ca, product, certificates, roots)
    own = next((one for one in roots if one.product and one.product.value == product), None)
    root = _root(ca, ark, roots, own)
    # Without a trusted root nothing is verified, but the other steps can still say more.
    pinning = root or own
    pinned = pinning.pinned(SIGNERS[vek.kind]) if pinning and ca is None else None
    key = ca.public_key if ca else pinned.public_key if pinned else None
    cas = [one for one in certificates if one.kind is SIGNERS[vek.kind] and one.public_key == key]
    return Chain(
        vek=vek, ca=ca, ark=ark, pinned=pinned, root=root, crls=crls, cas=tuple(cas),
        namesakes=_namesakes(ark, certificates),
    )  # fmt: skip


def _fitting(vek: Certificate, report: AttestationReport, when: datetime) -> int:
    """Return how well a VEK fits a report: how many of its statements agree."""
    return sum((
        kind_fits(vek, report),
        tcb_fits(vek, report),
        hwid_fits(vek, report),
        in_date(vek, when),
    ))  # fmt: skip


def kind_fits(vek: Certificate, report: AttestationReport) -> bool:
    """Return whether a report says that a key of this kind signed it."""
    return report.key_info.signing_key is SigningKey[vek.kind.name]


def tcb_fits(vek: Certificate, report: AttestationReport) -> bool:
    """Return whether a VEK is for the reported TCB, in all 8 bytes."""
    return vek.extensions is not None and vek.extensions.tcb == report.reported_tcb


def hwid_fits(vek: Certificate, report: AttestationReport) -> bool:
    """Return whether a VCEK is of the chip that a report names; for a VLEK it must name none."""
    hwid = vek.extensions.hwid if vek.extensions else b""
    return report.chip_id == hwid.ljust(len(report.chip_id), b"\0")


def product_fits(vek: Certificate, report: AttestationReport) -> bool:
    """Return whether a VEK is for the product of a report, if the report says one."""
    return report.product is None or report.product.value == vek.product_name


def signs(vek: Certificate, report: AttestationReport) -> bool:
    """Return whether a VEK's key signs a report, over the bytes that were received."""
    return (
        report.signature_algo == SIGNATURE_ALGO
        and vek.point is not None
        and _crypto.ecdsa_sha384_holds(vek.point, report.signature, report.signed)
    )


def in_date(certificate: Certificate, when: datetime) -> bool:
    """Return whether a certificate is valid at a time."""
    return certificate.not_before <= when <= certificate.not_after


def _ca(vek: Certificate, certificates: list[Certificate]) -> Certificate | None:
    """Return the ASK or ASVK with the name of the VEK's issuer: of several, the one that signs."""
    named = [
        one
        for one in certificates
        if one.kind in SIGNERS.values() and one.subject == vek.issuer
    ]  # fmt: skip
    if len(named) > 1:
        named = [*(one for one in named if vek.signed_by(rsa(one))), *named]
    return named[0] if named else None


def _ark(
    ca: Certificate | None, product: str, certificates: list[Certificate], roots: Sequence[Root]
) -> Certificate | None:
    """Return the ARK with the name of the issuer: of several, a trusted one."""
    arks = [one for one in certificates if one.kind is Kind.ARK]
    if ca is not None:
        named = [one for one in arks if one.subject == ca.issuer]
    else:
        named = [one for one in arks if one.product_name == product]
    trusted = [one for one in named if any(root.ark == one.public_key for root in roots)]
    return next(iter([*trusted, *named]), None)


def _namesakes(ark: Certificate | None, certificates: list[Certificate]) -> tuple[Certificate, ...]:
    """Return the ARKs that have the chosen one's name, and another key."""
    if ark is None:
        return ()
    named = (one for one in certificates if one.kind is Kind.ARK and one.subject == ark.subject)
    return tuple(one for one in named if one.public_key != ark.public_key)


def _root(
    ca: Certificate | None, ark: Certificate | None, roots: Sequence[Root], own: Root | None
) -> Root | None:
    """Return the root of a chain; ``own`` is AMD's of its product."""
    if ark is not None:
        return next((root for root in roots if root.ark == ark.public_key), None)
    signing = (root for root in roots if ca is not None and ca.signed_by(root.ark))
    return next(signing, own)


def _no_vek(report: AttestationReport) -> MalformedInput:
    from sev_attest.snp.kds import possible_products, vcek_address

    addresses = [vcek_address(report, product) for product in possible_products(report)]
    hint = f"AMD serves the VCEK at {' or '.join(addresses)}"
    if report.key_info.signing_key is SigningKey.VLEK:
        hint = "a VLEK comes from the cloud provider, in the certificate table beside the report"
    reason = "there is no VCEK and no VLEK among them"
    return MalformedInput("certificates", "incomplete", reason, hint=hint if addresses else "")
