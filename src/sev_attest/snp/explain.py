"""Why a step of a report's verification failed, in words, and what to do about it.

Nothing here decides, and nothing connects: addresses are only named.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sev_attest.errors import Failure
from sev_attest.snp.certificates import Certificate, Kind
from sev_attest.snp.chain import Chain, rsa
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.roots import Root, amd_roots, fingerprint
from sev_attest.snp.spec import SIGNATURE_ALGO, SigningKey
from sev_attest.snp.tcb import Product, Tcb

if TYPE_CHECKING:
    from sev_attest.snp.revocation import RevocationList

_SHOWN = 16
"""Hex digits of a chip's id, or of a key's fingerprint, that a message shows."""
_FROM_PROVIDER = "a VLEK comes from the cloud provider, in the certificate table beside the report"


def notes_on(chain: Chain, root: Root, at: datetime, *, at_is_now: bool) -> Iterator[str]:
    """Yield what a verdict at a time rests on."""
    if root.product is None:
        yield "this root is not AMD's: it was trusted only because it was named"
    elif chain.missing:
        names = " and ".join(kind.name for kind in chain.missing)
        yield f"no certificate of the {names} was given: the verdict rests on AMD's pinned key"
    if not at_is_now:
        yield f"the certificates were judged at {moment(at)}, not now"
    if chain.crls:
        newest = max(
            (crl for crl in chain.signed_lists if crl.in_force(at)), key=lambda crl: crl.this_update
        )
        yield f"the revocation list is {_dated(newest)}"
        yield "the revocation list covers the ASK and ASVK only: AMD revokes no chip in this way"


def _dated(crl: "RevocationList") -> str:
    """Return the name and the dates of a revocation list."""
    due = f"the next is due {moment(crl.next_update)}" if crl.next_update else "no next is stated"
    return f"{crl.issuer}'s of {moment(crl.this_update)} ({due})"


def moment(when: datetime) -> str:
    """Return a time in words: "2026-05-04 12:00:00 UTC"."""
    return f"{when:%Y-%m-%d %H:%M:%S} {when.tzname()}"


def untrusted(chain: Chain) -> Failure:
    """Explain an ARK that is no trusted root."""
    if chain.ark is None:
        message = f"there is no ARK, and no trusted root for {chain.vek.issuer}"
    else:
        message = f"the {chain.ark.subject} is no trusted root: its key is none of AMD's"
        names = [f"ARK-{root.product.value}" for root in amd_roots() if root.product]
        if chain.ark.subject.common_name in names:
            message = f"the ARK has the name of AMD's {chain.ark.subject}, but another key"
    hint = "a test platform's root can be named on purpose"
    return Failure("snp.ark.trusted", message, hint, certificate=Kind.ARK.name)


def broken(check: str, signed: Kind, by: str) -> Failure:
    """Explain a signature over a certificate that does not hold."""
    message = f"{by} signature over the {signed.name} does not hold"
    return Failure(check, message, certificate=signed.name)


def namesake(root: Root, signed: Certificate, signer: Certificate) -> Failure:
    """Explain an ASK of an ARK that has the name of the trusted one, and another key."""
    message = (
        f"the {signed.kind.name} is signed by another {signer.subject} than the trusted one: "
        f"the signer's key is {fingerprint(rsa(signer))[:_SHOWN]}, "
        f"the trusted one is {fingerprint(root.ark)[:_SHOWN]}"
    )
    hint = "the chain is forged, or of another root that has the same name"
    return Failure("snp.ask.signed-by-ark", message, hint, certificate=signed.kind.name)


def no_ca(chain: Chain) -> Failure:
    """Explain a chain that lacks its ASK, where no pinned key can stand in."""
    name = chain.ca_kind.name
    message = f"there is no {name} that is called {chain.vek.issuer}, and none is pinned"
    hint = f"pass the {name} of this platform too"
    return Failure("snp.ask.signed-by-ark", message, hint, certificate=name)


def revoked(chain: Chain) -> Failure:
    """Explain an ASK that is revoked."""
    name = chain.ca_kind.name
    message = f"the ARK has revoked this {name}: trust nothing that it signed"
    return Failure("snp.ask.not-revoked", message, certificate=name)


def no_list(chain: Chain, signed: "Sequence[RevocationList]", when: datetime) -> Failure:
    """Explain that no list counts at a time; ``signed`` are those with the ARK's signature."""
    issuers = ", ".join(sorted({crl.issuer.common_name for crl in chain.crls}))
    message = f"the revocation list is of {issuers}, not of this chain's ARK"
    if chain.named_lists:
        message = "the ARK's signature over the revocation list does not hold"
    if signed:
        message = _not_in_force(signed, when)
    hint = ""
    if chain.root is not None and chain.root.product is not None:
        from sev_attest.snp.kds import AMD, crl_path

        hint = f"AMD serves it at {AMD}{crl_path(chain.root.product, chain.vek.kind)}"
    return Failure("snp.ask.not-revoked", message, hint, certificate=chain.ca_kind.name)


def _not_in_force(signed: "Sequence[RevocationList]", when: datetime) -> str:
    """Return why none of these lists is in force: the dates of the one that is nearest."""
    past = [crl for crl in signed if crl.this_update <= when]
    if past:
        newest = max(past, key=lambda crl: crl.this_update)
        return f"the revocation list is out of date at {moment(when)}: it is {_dated(newest)}"
    first = min(signed, key=lambda crl: crl.this_update)
    return f"the revocation list is not valid yet at {moment(when)}: it is {_dated(first)}"


def wrong_kind(report: AttestationReport, chain: Chain) -> Failure:
    """Explain a VLEK where a VCEK signs, or the reverse, or an issuer of the other kind."""
    vek, stated = chain.vek, report.key_info.signing_key
    message = f"the report says that a {stated.name} signs it; this is a {vek.kind.name}"
    if stated is SigningKey.NONE:
        message = "the report says that no key signs it"
    if stated is SigningKey.UNKNOWN:
        message = (
            f"the report names a kind of key that is not known (key_info {int(report.key_info):#x})"
        )
    if stated.name == vek.kind.name:
        message = (
            f"a {vek.kind.name} is signed by an {chain.ca_kind.name}, this one by {vek.issuer}"
        )
    hint = _FROM_PROVIDER if stated is SigningKey.VLEK else _served(report, vek)
    return Failure("snp.vek.kind", message, hint, certificate=vek.kind.name)


def wrong_product(report: AttestationReport, chain: Chain) -> Failure:
    """Explain a certificate for another product than the report's, or the chain's."""
    vek = chain.vek
    stated = f"the {vek.kind.name} is for {vek.product_name!r} and signed by {vek.issuer}"
    if report.cpuid_family is None:
        message = stated
    else:
        numbers = f"CPUID family {report.cpuid_family:#x}, model {report.cpuid_model:#x}"
        found = f"of {report.product.value}" if report.product else "of no known product"
        message = f"{stated}, the report is {found} ({numbers})"
    return Failure("snp.vek.product", message, _served(report, vek), certificate=vek.kind.name)


def wrong_tcb(report: AttestationReport, vek: Certificate) -> Failure:
    """Explain a certificate for another TCB: each component, and where the right one is."""
    stated = vek.extensions.tcb if vek.extensions else b""
    message = (
        f"the {vek.kind.name} is for TCB {stated.hex()}, reported is {report.reported_tcb.hex()}"
    )
    product = _product(vek)
    if product is not None:
        theirs, ours = Tcb.from_bytes(stated, product), report.tcb("reported", product)
        parts = [
            f"{name} {theirs.components[name]} (reported: {ours.components[name]})"
            for name in ours.components
            if theirs.components[name] != ours.components[name]
        ]
        if parts:
            message = (
                f"the {vek.kind.name} is for another TCB than the reported: {', '.join(parts)}"
            )
    return Failure("snp.vek.tcb", message, _served(report, vek), certificate=vek.kind.name)


def wrong_chip(report: AttestationReport, vek: Certificate) -> Failure:
    """Explain a certificate of another chip, or a report that names none, or should not."""
    hwid = vek.extensions.hwid if vek.extensions else b""
    chip = f"{report.chip_id.hex()[:_SHOWN]}..."
    hint = _served(report, vek)
    if not hwid:
        message = f"a report that a VLEK signs names no chip, this one names {chip}"
        hint = ""
    elif not any(report.chip_id):
        message = (
            "the report names no chip (the host masks the chip's id), so no VCEK can be its own"
        )
        hint = "the host has to report its chip's id (MASK_CHIP_ID is set there)"
    else:
        message = f"the VCEK is another chip's: {hwid.hex()[:_SHOWN]}..., the report names {chip}"
    return Failure("snp.vek.hwid", message, hint, certificate=vek.kind.name)


def out_of_date(outside: Sequence[Certificate], when: datetime) -> Failure:
    """Explain certificates that are not valid at a time."""
    parts = [
        f"the {one.kind.name} expired on {moment(one.not_after)}"
        if one.not_after < when
        else f"the {one.kind.name} is valid from {moment(one.not_before)} on"
        for one in outside
    ]
    message = f"{', '.join(parts)}; judged at {moment(when)}"
    hint = "an old report can be judged at the time when it was made"
    return Failure("snp.vek.validity", message, hint, certificate=outside[0].kind.name)


def wrong_signature(report: AttestationReport, vek: Certificate) -> Failure:
    """Explain a report whose signature does not hold."""
    name = vek.kind.name
    message, hint = f"the {name}'s signature over the report does not hold", ""
    if vek.point is None:
        message = f"the {name}'s key is no point on P-384"
    if not any(report.signature):
        message = "the report's signature is all zeros"
        if report.key_info.mask_chip_key:
            message += ": the host masks the chip's key (MASK_CHIP_KEY), so firmware signs nothing"
            hint = "the host has to clear MASK_CHIP_KEY, or use a VLEK"
    if report.signature_algo != SIGNATURE_ALGO:
        message = (
            f"signature_algo is {report.signature_algo}; only 1, ECDSA P-384 with SHA-384, exists"
        )
    return Failure("snp.report.signature", message, hint, certificate=name)


def _product(vek: Certificate) -> Product | None:
    return next((one for one in Product if one.value == vek.product_name), None)


def _served(report: AttestationReport, vek: Certificate) -> str:
    """Return where AMD serves the certificate of a report; "" if nobody can know."""
    if vek.kind is Kind.VLEK and report.key_info.signing_key is SigningKey.VLEK:
        return _FROM_PROVIDER
    product = report.product or _product(vek)
    if product is None or not any(report.chip_id):
        return ""
    from sev_attest.snp.kds import vcek_address

    return f"AMD serves the right one at {vcek_address(report, product)}"
