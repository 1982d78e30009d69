"""Verify an SEV-SNP attestation report, from its signature up to a trusted root.

The steps, each under its number in :mod:`sev_attest.snp.steps`:

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

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from sev_attest._seal import Seal
from sev_attest.errors import Failure, ReportInvalid, Unsupported
from sev_attest.snp.certificates import Certificate
from sev_attest.snp.chain import Chain, choose
from sev_attest.snp.explain import notes_on
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.roots import Root, amd_roots
from sev_attest.snp.steps import STEPS, Case
from sev_attest.snp.tcb import Product

if TYPE_CHECKING:
    from sev_attest.snp.revocation import RevocationList

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


def verify_report(
    report: AttestationReport,
    certificates: "Iterable[Certificate | RevocationList]",
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
    made = [(check, step(case)) for check, step in STEPS.items()]
    failures = tuple(found for _, found in made if isinstance(found, Failure))
    held = frozenset(check for check, found in made if found is None)
    return _Judged(case.chain, failures, held)
