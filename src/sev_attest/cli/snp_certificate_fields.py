"""The fields of SEV-SNP's certificates and revocation lists, for JSON and for people."""

import hashlib
from collections.abc import Iterator, Mapping

from sev_attest._keys import RsaPublicKey
from sev_attest.snp.certificate_files import X509Value
from sev_attest.snp.certificates import VEKS, Certificate
from sev_attest.snp.explain import moment
from sev_attest.snp.extensions import VekExtensions
from sev_attest.snp.revocation import RevocationList
from sev_attest.snp.roots import pinned_name

_WIDTH = 20
_MOST_SHOWN = 64
"""Most serial numbers of a revocation list that are shown to people; JSON has all of them."""


def title(value: X509Value) -> str:
    """Return what it is, in a few words."""
    if isinstance(value, RevocationList):
        return f"a revocation list of {value.issuer}"
    article = "an" if value.kind.name.startswith("A") else "a"
    return f"{article} {value.kind.name} of {value.product_name}"


def facts(value: X509Value) -> dict[str, object]:
    """Return every field by name: times in ISO 8601, bytes and serial numbers as hex."""
    if isinstance(value, RevocationList):
        return _list_facts(value)
    return {
        "kind": value.kind.name,
        "subject": value.subject.common_name,
        "issuer": value.issuer.common_name,
        "product": value.product_name,
        "serial": f"{value.serial:#x}",
        "not_before": value.not_before.isoformat(),
        "not_after": value.not_after.isoformat(),
        "fingerprint": value.fingerprint,
        "public_key": {
            "algorithm": _algorithm(value),
            "sha256": hashlib.sha256(value.key_info).hexdigest(),
            "pinned": pinned_name(value.public_key) or None,
        },
        "extensions": value.extensions and _extension_facts(value.extensions),
    }


def _list_facts(crl: RevocationList) -> dict[str, object]:
    return {
        "kind": "CRL",
        "issuer": crl.issuer.common_name,
        "this_update": crl.this_update.isoformat(),
        "next_update": crl.next_update and crl.next_update.isoformat(),
        "serials": [f"{serial:#x}" for serial in crl.serials],
    }


def _extension_facts(found: VekExtensions) -> dict[str, object]:
    return {
        "struct_version": found.struct_version,
        "product_name": found.product_name,
        "spls": dict(found.spls),
        "tcb": found.tcb.hex(),
        "hwid": found.hwid.hex() or None,
        "csp_id": found.csp_id or None,
    }


def lines(value: X509Value) -> Iterator[str]:
    """Yield every field with its meaning, for people."""
    shown = _list_lines(value) if isinstance(value, RevocationList) else _certificate_lines(value)
    yield from (f"{name:<{_WIDTH}} {text}" for name, text in shown)


def _list_lines(crl: RevocationList) -> Iterator[tuple[str, str]]:
    yield "issuer", crl.issuer.common_name
    yield "this update", moment(crl.this_update)
    yield "next update", moment(crl.next_update) if crl.next_update else "not stated"
    if not crl.serials:
        yield "revoked", "none"
    for serial in crl.serials[:_MOST_SHOWN]:
        yield "revoked", f"serial {serial:#x}"
    if crl.serials[_MOST_SHOWN:]:
        yield "revoked", f"{len(crl.serials) - _MOST_SHOWN} more (--json has all)"


def _certificate_lines(value: Certificate) -> Iterator[tuple[str, str]]:
    yield "subject", f"{value.subject.common_name}  ({value.kind.value})"
    yield "issuer", value.issuer.common_name
    yield "product", value.product_name
    yield "serial", f"{value.serial:#x}"
    yield "not before", moment(value.not_before)
    yield "not after", moment(value.not_after)
    yield "fingerprint", f"{value.fingerprint}  (SHA-256 of the certificate)"
    yield "public key", _algorithm(value)
    sha256 = hashlib.sha256(value.key_info).hexdigest()
    yield "public key SHA-256", f"{sha256}{_pinned(value)}"
    if value.extensions is not None:
        yield from _extension_lines(value.extensions)


def _pinned(value: Certificate) -> str:
    """Return whether a CA's key is one that is built in; AMD's VCEKs and VLEKs never are."""
    if value.kind in VEKS:
        return ""
    name = pinned_name(value.public_key)
    return f"  (pinned: {name})" if name else "  (none of AMD's pinned keys)"


def _algorithm(value: Certificate) -> str:
    key = value.public_key
    return f"RSA {key.bits}" if isinstance(key, RsaPublicKey) else "EC P-384"


def _extension_lines(found: VekExtensions) -> Iterator[tuple[str, str]]:
    yield "structVersion", str(found.struct_version)
    yield "productName", found.product_name
    yield "TCB", f"{found.tcb.hex()}  (to compare with reported_tcb)"
    yield from ((name, _spl(name, found.spls)) for name in found.spls)
    if found.hwid:
        yield "hwID", f"{found.hwid.hex()}  (the chip)"
    if found.csp_id:
        yield "cspID", f"{found.csp_id}  (the cloud provider)"


_COMPONENTS = {
    "blSPL": "bootloader",
    "teeSPL": "tee",
    "snpSPL": "snp",
    "ucodeSPL": "microcode",
    "fmcSPL": "fmc",
}


def _spl(name: str, spls: Mapping[str, int]) -> str:
    return f"{spls[name]}  ({_COMPONENTS.get(name, 'reserved')})"
