"""Verify an SEV-SNP attestation report, from its signature up to a trusted root.

The steps, each under its number in the code:

1. The ARK is a trusted root, compared by its key and never by name, and signs itself.
2. The ARK signs the ASK (for a VLEK: the ASVK). Where that is missing, AMD's pinned key stands in.
3. If revocation lists are given: the ARK's is among them, in date, and names the ASK by no serial
   number that its key was certified with.
4. The ASK signs the VCEK (the ASVK: the VLEK).
5. The certificate is of the kind of key that the report says it is signed with.
6. The chain, the certificate and the report's CPUID (from version 3 on) name one product.
7. The certificate is for the reported TCB, in every component.
8. A VCEK is of the chip that the report names; for a VLEK the report names none.
9. Every certificate is valid at the time that counts.
10. The certificate's key signs the report, over the bytes that were received.
11. What the report's version reserves is zero.

Every failed step is reported, not only the first. A step that cannot be made does not count as
held.

Source: AMD 56860 (ATTESTATION_REPORT) and 57230 (VCEK certificates); what binds a report to its key
is what these say together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from sev_attest import _crypto
from sev_attest._keys import RsaPublicKey
from sev_attest._seal import Seal
from sev_attest.errors import Failure, ReportInvalid, Unsupported
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.chain import Chain, choose, hwid_fits, in_date, kind_fits, signs, tcb_fits
from sev_attest.snp.explain import (
    broken,
    no_ca,
    no_list,
    notes_on,
    out_of_date,
    revoked,
    untrusted,
    wrong_chip,
    wrong_kind,
    wrong_product,
    wrong_signature,
    wrong_tcb,
)
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.revocation import RevocationList
from sev_attest.snp.roots import Root, amd_roots
from sev_attest.snp.tcb import Product

CHECKS = {
    "snp.ark.trusted": "the ARK is a trusted root, by its key",
    "snp.ask.signed-by-ark": "the ARK signs the ASK (VLEK: the ASVK)",
    "snp.ask.not-revoked": "the ARK's revocation list does not name it",
    "snp.vek.signed-by-ask": "the ASK signs the VCEK (the ASVK: the VLEK)",
    "snp.vek.kind": "the certificate is of the kind of key that the report states",
    "snp.vek.product": "chain, certificate and report are of one product",
    "snp.vek.tcb": "the certificate is for the reported TCB",
    "snp.vek.hwid": "the certificate is of the chip that the report names",
    "snp.vek.validity": "every certificate is in date",
    "snp.report.signature": "the certificate's key signs the report",
    "snp.report.reserved": "the report's reserved bytes are zero",
}
"""Every check id of a report, in the order of the steps, and what it guarantees."""

REVOCATION = "snp.ask.not-revoked"
"""The one check that is made only if there is something to make it with."""

_SEAL = Seal("snp.verify_report()")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReport:
    """A report that a key of a trusted root signed. Only :func:`verify_report` makes one.

    Does not verify: that the report is fresh (``report_data``), that the guest is the one expected
    (``measurement``, ``vmpl``), that its policy, firmware and platform are good enough, or that the
    chip's keys have not leaked.
    """

    report: AttestationReport
    chain: Chain
    """With the certificates that it was verified with."""
    root: Root
    at: datetime
    """The time at which the certificates had to be valid."""
    at_is_now: bool
    """Whether that was the time of the verification; else the caller chose it."""
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Raise TypeError for a value made by hand: the type is the proof."""
        _SEAL.require(_seal, self)

    @property
    def vek(self) -> Certificate:
        """The certificate of the key that signed the report."""
        return self.chain.vek

    @property
    def product(self) -> Product:
        """The product of the chip, verified."""
        return Product(self.chain.vek.product_name)

    @property
    def held(self) -> frozenset[str]:
        """The ids of the checks that were made, and held."""
        return frozenset(CHECKS if self.chain.crls else CHECKS.keys() - {REVOCATION})

    @property
    def notes(self) -> tuple[str, ...]:
        """What the verdict rests on beside the certificates, a sentence each."""
        return tuple(notes_on(self.chain, self.root, self.at, at_is_now=self.at_is_now))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the steps look at."""

    report: AttestationReport
    chain: Chain
    when: datetime


def verify_report(
    report: AttestationReport,
    certificates: Iterable[Certificate | RevocationList],
    *,
    roots: Sequence[Root] | None = None,
    at: datetime | None = None,
) -> VerifiedReport:
    """Verify that a key of one of ``roots`` (default: AMD's pinned roots) signed a report.

    ``certificates`` are in any order, and may be of several platforms. They must include the VCEK
    or VLEK; AMD's ASK, ASVK and ARK may be missing. Revocation lists among them are held against
    the chain. ``at`` is the time at which the certificates must be valid, with a time zone: an old
    report may be judged at the time when it was made (default: now). To accept another root, name
    it: ``roots=[*amd_roots(), Root.of(ark)]``.

    Raises ReportInvalid with every failed step in ``failures``; MalformedInput if there is no VCEK
    or VLEK; Unsupported for an empty list of roots, or a time without zone.

    Does not verify: what :class:`VerifiedReport` says.
    """
    roots = amd_roots() if roots is None else roots
    if not roots:
        raise Unsupported("no trusted root was given: nothing can be verified", check="snp.roots")
    when = datetime.now(UTC) if at is None else at
    if when.utcoffset() is None:
        raise Unsupported("the time has no time zone", check="snp.at")
    chains = choose(report, certificates, roots, when)
    judged = [_judged(Case(report=report, chain=chain, when=when)) for chain in chains]
    # Of several certificates that fit, the one that fails the fewest checks is the report's.
    chain, failures, held = max(judged, key=lambda one: len(one.held))
    # Fail closed: a check that was not made does not hold.
    wanted = CHECKS.keys() if chain.crls else CHECKS.keys() - {REVOCATION}
    if failures or chain.root is None or held != wanted:
        raise ReportInvalid(failures, held)
    return VerifiedReport(
        report=report, chain=chain, root=chain.root, at=when, at_is_now=at is None, _seal=_SEAL
    )


class _Judged(NamedTuple):
    """A chain, which checks of it failed, and which held."""

    chain: Chain
    failures: tuple[Failure, ...]
    held: frozenset[str]


def _judged(case: Case) -> _Judged:
    made = [(check, step(case)) for check, step in _STEPS.items()]
    failures = tuple(found for _, found in made if isinstance(found, Failure))
    held = frozenset(check for check, found in made if found is None)
    return _Judged(case.chain, failures, held)


class _NotMade:
    """The result of a step that has nothing to work with."""


_NOT_MADE = _NotMade()
Result = Failure | _NotMade | None
"""What a step finds: a failure; nothing to work with; None if it holds."""


def _ark_trusted(case: Case) -> Result:
    # 1. the ARK is a trusted root, by its key
    chain = case.chain
    if chain.root is None:
        return untrusted(chain)
    if chain.ark is not None and not _ca_signs(chain.root.ark, chain.ark):
        return broken("snp.ark.trusted", Kind.ARK, "its own")
    return None


def _ask_signed(case: Case) -> Result:
    # 2. the ARK signs the ASK
    chain = case.chain
    if chain.ca is None and chain.pinned is None:
        return no_ca(chain)
    if chain.ark_key is None or (chain.ca is None and chain.root is None):
        return _NOT_MADE
    if chain.ca is None or _ca_signs(chain.ark_key, chain.ca):
        return None
    return broken("snp.ask.signed-by-ark", chain.ca.kind, "the ARK's")


def _not_revoked(case: Case) -> Result:
    # 3. the ARK's revocation list does not name the ASK
    chain = case.chain
    if not chain.crls or chain.ark_key is None:
        return _NOT_MADE
    lists = chain.signed_lists
    # A list that is not in force still counts against it: what was revoked stays so.
    if _is_revoked(chain, chain.ark_key, lists):
        return revoked(chain)
    in_force = any(crl.in_force(case.when) for crl in lists)
    return None if in_force else no_list(chain, lists, case.when)


def _is_revoked(chain: Chain, ark: RsaPublicKey, lists: Sequence[RevocationList]) -> bool:
    """Return whether a list names a certificate of the ASK's key.

    It is the key that is revoked: another certificate of it does not help, whoever brings that.
    """
    pinned = chain.pinned_serial
    return any(crl.names(pinned) for crl in lists if pinned is not None) or any(
        any(crl.names(one.serial) for crl in lists) and _ca_signs(ark, one) for one in chain.cas
    )


def _vek_signed(case: Case) -> Result:
    # 4. the ASK signs the VCEK
    chain = case.chain
    if chain.ca_key is None:
        return _NOT_MADE
    if chain.vek.signed_by(chain.ca_key):
        return None
    return broken("snp.vek.signed-by-ask", chain.vek.kind, f"the {chain.ca_kind.name}'s")


def _kind(case: Case) -> Result:
    # 5. the certificate is of the kind that the report states, and so is its issuer
    signer = case.chain.vek.signer
    issued = signer is not None and signer[0] is case.chain.ca_kind
    if issued and kind_fits(case.chain.vek, case.report):
        return None
    return wrong_kind(case.report, case.chain)


def _product(case: Case) -> Result:
    # 6. one product: of the root, of the chain's names, of the certificate, of the report
    chain, report = case.chain, case.report
    found = {chain.product_name, chain.vek.product_name}
    if chain.root is not None and chain.root.product is not None:
        found.add(chain.root.product.value)
    if report.cpuid_family is not None:
        found.add(report.product.value if report.product else "")
    if len(found) == 1 and found < {product.value for product in Product}:
        return None
    return wrong_product(report, chain)


def _tcb(case: Case) -> Result:
    # 7. the reported TCB, in every component
    if tcb_fits(case.chain.vek, case.report):
        return None
    return wrong_tcb(case.report, case.chain.vek)


def _hwid(case: Case) -> Result:
    # 8. the chip that the report names
    if hwid_fits(case.chain.vek, case.report):
        return None
    return wrong_chip(case.report, case.chain.vek)


def _validity(case: Case) -> Result:
    # 9. every certificate is in date
    outside = [one for one in case.chain.certificates if not in_date(one, case.when)]
    return out_of_date(outside, case.when) if outside else None


def _signature(case: Case) -> Result:
    # 10. the signature over the bytes that were received
    if signs(case.chain.vek, case.report):
        return None
    return wrong_signature(case.report, case.chain.vek)


def _reserved(case: Case) -> Result:
    # 11. reserved bytes of this version
    used = case.report.reserved
    if not used:
        return None
    places = ", ".join(map(str, used))
    words = f"the report, of version {case.report.version}, has reserved bytes in use: {places}"
    return Failure("snp.report.reserved", words)


_STEPS: Mapping[str, Callable[[Case], Result]] = {
    "snp.ark.trusted": _ark_trusted,
    "snp.ask.signed-by-ark": _ask_signed,
    REVOCATION: _not_revoked,
    "snp.vek.signed-by-ask": _vek_signed,
    "snp.vek.kind": _kind,
    "snp.vek.product": _product,
    "snp.vek.tcb": _tcb,
    "snp.vek.hwid": _hwid,
    "snp.vek.validity": _validity,
    "snp.report.signature": _signature,
    "snp.report.reserved": _reserved,
}


def _ca_signs(key: RsaPublicKey, certificate: Certificate) -> bool:
    return _remembered(key, certificate.signature, certificate.body)


@lru_cache(maxsize=64)
def _remembered(key: RsaPublicKey, signature: bytes, body: bytes) -> bool:
    """Return whether a signature over a CA's certificate holds.

    The few CAs of a process are the same in every chain. A certificate has at most 16 KiB.
    """
    return _crypto.rsa_pss_holds(key, signature, body)
