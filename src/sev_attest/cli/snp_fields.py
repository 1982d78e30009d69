"""The fields of an SEV-SNP report, for JSON and for people."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from sev_attest.snp.policy import (
    DEMANDS,
    PERMITS,
    PLATFORM,
    GuestPolicy,
    KeyInfo,
    Meaning,
    PlatformInfo,
    unknown_bits,
)
from sev_attest.snp.report import LAYOUT, AttestationReport
from sev_attest.snp.spec import HOST_VMPL, NO_MIGRATION_AGENT, SIGNATURE_ALGO, SigningKey
from sev_attest.snp.tcb import Product, Tcb

if TYPE_CHECKING:
    from sev_attest.cli.documents.snp import PolicyMeaning
    from sev_attest.cli.documents.snp_shown import ReportMeaning

DEBUG = "the policy lets the host read the guest's memory with the debug commands"
MIGRATION = "the policy lets the host give the guest a migration agent, which can move it"
_TCBS = ("current", "reported", "committed", "launch")


def facts(report: AttestationReport) -> dict[str, object]:
    """Return every field by name: numbers, and bytes as hex; None if the version lacks it."""
    r, s = report.signature
    fields = {row.name: getattr(report, row.name) for row in LAYOUT}
    return {
        name: value.hex() if isinstance(value, bytes) else value and int(value)
        for name, value in fields.items()
    } | {"signature": {"r": f"{r:096x}", "s": f"{s:096x}"}}


def meanings(report: AttestationReport) -> "ReportMeaning":
    """Return what the bits of a report stand for, and its TCBs by component, for JSON."""
    product, platform, key = report.product, report.platform_info, report.key_info
    return {
        "product": product.value if product else None,
        "tcb": None
        if product is None
        else {name: report.tcb(name, product).components for name in _TCBS},
        "policy": policy_meaning(report.policy),
        "platform_info": {"names": platform.names, "unknown": platform.unknown},
        "key_info": {
            "author_key_en": key.author_key_en,
            "mask_chip_key": key.mask_chip_key,
            "signing_key": key.signing_key.name,
            "unknown": key.unknown,
        },
        "reserved": [str(one) for one in report.reserved],
    }


def policy_meaning(policy: GuestPolicy) -> "PolicyMeaning":
    """Return what the bits of a policy stand for, for JSON."""
    return {
        "min_abi": list(policy.min_abi),
        "permits": policy.permits,
        "demands": policy.demands,
        "reserved": policy.reserved,
    }


def lines(report: AttestationReport) -> Iterator[str]:
    """Yield every field with its meaning, for people."""
    for row in LAYOUT:
        value = getattr(report, row.name)
        if value is None:
            yield f"{row.name:<20} not in version {report.version}"
            continue
        shown = value.hex() if isinstance(value, bytes) else _number(row.name, int(value))
        remark = _REMARKS[row.name](report) if row.name in _REMARKS else ""
        yield f"{row.name:<20} {shown}{remark and f'  ({remark})'}"
        if row.name in _DETAILS:
            yield from (f"    {line}" for line in _DETAILS[row.name](report))
    r, s = report.signature
    yield f"{'signature R':<20} {r:096x}"
    yield f"{'signature S':<20} {s:096x}"
    for one in report.reserved:
        yield f"in use, though reserved: {one}"


def _number(name: str, value: int) -> str:
    return f"{value:#x}" if name in _HEX else str(value)


_HEX = ("policy", "platform_info", "key_info", "cpuid_family", "cpuid_model",
        "launch_mit_vector", "current_mit_vector")  # fmt: skip


def _if_zero(name: str, words: str) -> Callable[[AttestationReport], str]:
    return lambda report: "" if any(getattr(report, name)) else words


def _vmpl(report: AttestationReport) -> str:
    if report.vmpl == HOST_VMPL:
        return "the host asked for this report, not the guest"
    return "the most privileged level" if report.vmpl == 0 else ""


def _author(report: AttestationReport) -> str:
    return "" if report.key_info.author_key_en else "no author key"


def _agent(report: AttestationReport) -> str:
    return "no migration agent" if report.report_id_ma == NO_MIGRATION_AGENT else ""


def _product(report: AttestationReport) -> str:
    return report.product.value if report.product else "an unknown product"


def _provisional(report: AttestationReport) -> str:
    if report.current_version == report.committed_version:
        return ""
    return "not the current one: the host can go back to it"


def _vector(name: str) -> Callable[[AttestationReport], str]:
    def remark(report: AttestationReport) -> str:
        value: int = getattr(report, name)
        bits = [str(at) for at in range(value.bit_length()) if value >> at & 1]
        return f"mitigations {', '.join(bits)} of AMD's list, which is not public" if bits else ""

    return remark


_REMARKS: Mapping[str, Callable[[AttestationReport], str]] = {
    "vmpl": _vmpl,
    "signature_algo": lambda report: (
        "ECDSA P-384 with SHA-384" if report.signature_algo == SIGNATURE_ALGO else "unknown"
    ),
    "report_data": lambda _: "chosen by the guest",
    "measurement": lambda _: "launch digest",
    "host_data": lambda _: "chosen by the host, not measured",
    "id_key_digest": _if_zero("id_key_digest", "no ID block"),
    "author_key_digest": _author,
    "report_id_ma": _agent,
    "cpuid_family": _product,
    "chip_id": _if_zero("chip_id", "masked, or the key is a VLEK"),
    "committed_build": _provisional,
    "launch_mit_vector": _vector("launch_mit_vector"),
    "current_mit_vector": _vector("current_mit_vector"),
}


def policy_lines(policy: GuestPolicy) -> Iterator[str]:
    """Yield what each bit of a policy says, for people."""
    major, minor = policy.min_abi
    yield f"ABI at least {major}.{minor}" if major or minor else "ABI any"
    yield from _bits("permits ", policy.value, PERMITS)
    yield from _bits("demands ", policy.value, DEMANDS)
    for name in unknown_bits(policy.reserved, 0):
        yield f"reserved, with a wrong value: {name.removesuffix(' (unknown)')}"


def _platform(report: AttestationReport) -> Iterator[str]:
    info: PlatformInfo = report.platform_info
    yield from _bits("", info.value, PLATFORM)
    yield from (f"set   {name}" for name in info.unknown)


def _bits(kind: str, value: int, table: Mapping[int, Meaning]) -> Iterator[str]:
    for bit, meaning in table.items():
        state, words = ("set", meaning.when_set) if value & bit else ("clear", meaning.when_clear)
        yield f"{state:<6}{kind}{meaning.name + '  ':<26}{words}"


_SIGNERS = {
    SigningKey.VCEK: "VCEK: a key of this chip",
    SigningKey.VLEK: "VLEK: a key of the cloud provider",
    SigningKey.NONE: "none: nothing signs this report",
    SigningKey.UNKNOWN: "an unknown kind",
}


def _key(report: AttestationReport) -> Iterator[str]:
    info: KeyInfo = report.key_info
    yield f"signing key   {_SIGNERS[info.signing_key]}"
    if info.mask_chip_key:
        yield "MASK_CHIP_KEY the host masks the chip's key: the signature is zero"
    yield "author key    " + ("yes" if info.author_key_en else "no")
    yield from (f"set   {name}" for name in info.unknown)


def _tcb(name: str) -> Callable[[AttestationReport], Iterator[str]]:
    def shown(report: AttestationReport) -> Iterator[str]:
        if report.product:
            yield _components(report.tcb(name, report.product))
        else:  # two layouts: nothing in the report says which
            yield f"on Milan or Genoa: {_components(report.tcb(name, Product.MILAN))}"
            yield f"on Turin: {_components(report.tcb(name, Product.TURIN))}"

    return shown


def _components(tcb: Tcb) -> str:
    parts = [f"{component} {version}" for component, version in tcb.components.items()]
    return ", ".join([*parts, f"reserved {tcb.reserved.hex()}"] if any(tcb.reserved) else parts)


_DETAILS: Mapping[str, Callable[[AttestationReport], Iterator[str]]] = {
    "policy": lambda report: policy_lines(report.policy),
    "platform_info": _platform,
    "key_info": _key,
    **{f"{name}_tcb": _tcb(name) for name in _TCBS},
}
