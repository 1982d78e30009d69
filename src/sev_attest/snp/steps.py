"""The steps that verify a report: each looks at one thing, and none relies on another's result.

:mod:`sev_attest.snp.verify` numbers them, and draws the verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sev_attest import _crypto
from sev_attest._keys import RsaPublicKey
from sev_attest.errors import Failure
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.chain import Chain, hwid_fits, in_date, kind_fits, rsa, signs, tcb_fits
from sev_attest.snp.explain import (
    broken,
    namesake,
    no_ca,
    no_list,
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
from sev_attest.snp.tcb import Product

if TYPE_CHECKING:
    from sev_attest.snp.revocation import RevocationList


class Case(NamedTuple):
    """What the steps look at."""

    report: AttestationReport
    chain: Chain
    when: datetime


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
    signer = next((one for one in chain.namesakes if chain.ca.signed_by(rsa(one))), None)
    if signer is not None and chain.root is not None:
        return namesake(chain.root, chain.ca, signer)
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


def _is_revoked(chain: Chain, ark: RsaPublicKey, lists: "Sequence[RevocationList]") -> bool:
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


STEPS: Mapping[str, Callable[[Case], Result]] = {
    "snp.ark.trusted": _ark_trusted,
    "snp.ask.signed-by-ark": _ask_signed,
    "snp.ask.not-revoked": _not_revoked,
    "snp.vek.signed-by-ask": _vek_signed,
    "snp.vek.kind": _kind,
    "snp.vek.product": _product,
    "snp.vek.tcb": _tcb,
    "snp.vek.hwid": _hwid,
    "snp.vek.validity": _validity,
    "snp.report.signature": _signature,
    "snp.report.reserved": _reserved,
}
"""Every step by the id of its check, in their order."""


def _ca_signs(key: RsaPublicKey, certificate: Certificate) -> bool:
    return _remembered(key, certificate.signature, certificate.body)


@lru_cache(maxsize=64)
def _remembered(key: RsaPublicKey, signature: bytes, body: bytes) -> bool:
    """Return whether a signature over a CA's certificate holds.

    The few CAs of a process are the same in every chain. A certificate has at most 16 KiB.
    """
    return _crypto.rsa_pss_holds(key, signature, body)
