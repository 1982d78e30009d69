"""Known weaknesses of SEV-SNP, and which of them affect a guest, by its report.

The weaknesses are data (``snp_advisories.toml``). They are compared with what a report says: TCBs,
firmware versions, bits of the platform and of the policy.

A report has several TCBs, normally in this order: reported <= committed <= current. The signing key
proves the reported one. The host can go back to the committed one. The current one runs. So a fix
is in force only if all of them have it, and so does the launch TCB: the guest started with that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from types import MappingProxyType

from sev_attest.owner.advisories import (
    Advisory,
    AdvisoryVerdict,
    Exposure,
    Format,
    are_of,
    contradictions,
    fields_of,
    parse_as,
)
from sev_attest.snp.policy import DEMANDS, PERMITS, PLATFORM, GuestPolicy
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.tcb import Product, Tcb

PRODUCTS: Mapping[str, Product] = {product.value.lower(): product for product in Product}
"""Products by the names that owner.toml and the advisories use."""
PERMIT_NAMES: tuple[str, ...] = tuple(meaning.name for meaning in PERMITS.values())
DEMAND_NAMES: tuple[str, ...] = tuple(meaning.name for meaning in DEMANDS.values())
PLATFORM_NAMES: tuple[str, ...] = tuple(meaning.name for meaning in PLATFORM.values())
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    name: tuple(Tcb.from_bytes(bytes(8), product).components) for name, product in PRODUCTS.items()
}
"""Names of the components of each product's TCB."""
_NAMES = tuple(PRODUCTS)
_POLICY_NAMES = PERMIT_NAMES + DEMAND_NAMES
_MAX_BYTE = 0xFF


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpAdvisory(Advisory):
    """One known weakness of SEV-SNP.

    ``generations`` are products, by the names of :data:`PRODUCTS`. ``fixed`` is the first fixed
    firmware (major, minor, build), ``tcb`` the first fixed version of components, both by product.
    ``platform`` are bits of platform_info that the fix sets. All of these that a product has must
    show the fix.
    ``if_policy`` and ``unless_policy`` are names of :data:`PERMIT_NAMES` and :data:`DEMAND_NAMES`.
    ``forges``: whoever uses the weakness can make a report say anything. No figure in a report of
    these products rules a weakness out.
    """

    tcb: Mapping[str, Mapping[str, int]] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )
    platform: tuple[str, ...] = ()
    forges: bool = False

    @property
    def every(self) -> tuple[str, ...]:
        """Names of all products that there are."""
        return _NAMES

    @property
    def more(self) -> dict[str, object]:
        """Fields that only advisories of SEV-SNP have, for JSON."""
        tcb = {product: dict(versions) for product, versions in self.tcb.items()}
        return {"tcb": tcb, "platform": list(self.platform), "forges": self.forges}

    def fixed_texts(self) -> Iterator[str]:
        """Yield what shows the fix, for each product."""
        bits = "".join(f", platform_info {name}" for name in self.platform)
        for product, firmware in self.fixed.items():
            yield f"{product} firmware {version_text(firmware)}{bits}"
        for product, versions in self.tcb.items():
            words = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield f"{product} TCB {words}{bits}"


@cache
def _shipped() -> tuple[date, tuple[SnpAdvisory, ...]]:
    return parse(resources.files(__package__).joinpath("snp_advisories.toml").read_text("utf-8"))


def load() -> tuple[SnpAdvisory, ...]:
    """Return the advisories that are part of this package."""
    return _shipped()[1]


def as_of() -> date:
    """Return the day on which the advisories of :func:`load` were last checked."""
    return _shipped()[0]


def evaluate(product: str | None, report: AttestationReport | None) -> tuple[Exposure, ...]:
    """Return the verdict on every advisory, in the order of :func:`load`.

    ``product`` is a name of :data:`PRODUCTS`. What is not known is None, and never counts in the
    guest's favour.

    Does not verify: the report. Take both from a VerifiedReport.
    """
    forging = [one.id for one in load() if one.forges and product in one.generations]
    return tuple(_judge(one, product, report, forging) for one in load())


def _judge(
    advisory: SnpAdvisory,
    product: str | None,
    report: AttestationReport | None,
    forging: list[str],
) -> Exposure:
    excluded = "" if report is None else _excluded(advisory, report.policy)
    missing = _missing(advisory, product, report)
    if excluded:
        verdict, reason = AdvisoryVerdict.NOT_AFFECTED, excluded
    elif missing:
        verdict, reason = AdvisoryVerdict.UNSEEN, missing
    elif product is not None and report is not None and _has_figures(advisory):
        verdict, reason = _by_figures(advisory, product, report, forging)
    elif advisory.unseen:
        verdict, reason = AdvisoryVerdict.UNSEEN, advisory.unseen
    else:
        verdict, reason = AdvisoryVerdict.AFFECTED, _touched(advisory, product)
    return Exposure(advisory=advisory, verdict=verdict, reason=reason)


def _excluded(advisory: SnpAdvisory, policy: GuestPolicy) -> str:
    """Return what of the policy rules the weakness out, or an empty text."""
    if not (advisory.if_policy or advisory.unless_policy):
        return ""
    has = {*policy.permits, *policy.demands}
    against = has.intersection(advisory.unless_policy)
    if against:
        return f"the policy has {' and '.join(sorted(against))}"
    if advisory.if_policy and has.isdisjoint(advisory.if_policy):
        return f"the policy lacks {' and '.join(advisory.if_policy)}"
    return ""


def _missing(advisory: SnpAdvisory, product: str | None, report: AttestationReport | None) -> str:
    """Return which fact is needed and unknown, or an empty text."""
    if product is None and (advisory.generations or _has_figures(advisory)):
        return "the product is not known"
    if advisory.generations and product not in advisory.generations:
        return f"the sources do not say whether it affects {product}"
    if report is None and (advisory.if_policy or advisory.unless_policy or _has_figures(advisory)):
        return "there is no report"
    return ""


def _has_figures(advisory: SnpAdvisory) -> bool:
    return bool(advisory.fixed or advisory.tcb or advisory.platform)


def _by_figures(
    advisory: SnpAdvisory, product: str, report: AttestationReport, forging: list[str]
) -> tuple[AdvisoryVerdict, str]:
    if product not in ({*advisory.fixed, *advisory.tcb} or PRODUCTS):
        return AdvisoryVerdict.UNSEEN, f"no fixed version is public for {product}"
    behind = [*_behind(advisory, product, report)]
    if behind:
        return AdvisoryVerdict.AFFECTED, "; ".join(behind)
    if advisory.unseen:
        return AdvisoryVerdict.UNSEEN, advisory.unseen
    if forging:
        words = f"the report shows the fix, but one of {product} can be forged"
        return AdvisoryVerdict.UNSEEN, f"{words} ({', '.join(forging)})"
    return AdvisoryVerdict.NOT_AFFECTED, "the report shows the fix"


def _behind(advisory: SnpAdvisory, product: str, report: AttestationReport) -> Iterator[str]:
    """Yield what of a report does not show the fix, in words."""
    good = advisory.fixed.get(product, (0, 0, 0))
    if report.current_version < good:
        yield f"firmware {version_text(report.current_version)} is before {version_text(good)}"
    elif report.committed_version < good:
        yield (
            f"firmware {version_text(report.current_version)} runs, but the host can go back to "
            f"{version_text(report.committed_version)}, before {version_text(good)}"
        )
    for component, least in advisory.tcb.get(product, {}).items():
        found = {name: getattr(tcb, component) for name, tcb in _tcbs(report, product).items()}
        if min(found.values()) < least:
            yield _lag(component, found, least)
    lacking = [name for name in advisory.platform if name not in report.platform_info.names]
    if lacking:
        yield f"platform_info lacks {', '.join(lacking)}"


def _tcbs(report: AttestationReport, product: str) -> dict[str, Tcb]:
    names = ("reported", "committed", "current", "launch")
    return {name: report.tcb(name, PRODUCTS[product]) for name in names}


_LAGS = {
    "current": "it runs without the fix",
    "committed": "the host can go back to it, though a fixed one runs",
    "reported": "the signature proves no more, though a fixed one is committed",
    "launch": "the guest started without the fix",
}


def _lag(component: str, found: Mapping[str, int], least: int) -> str:
    """Return which version of a component, of one that is below ``least``, matters most."""
    name = next(name for name in _LAGS if found[name] < least)
    return f"{component} {found[name]} ({name}) is below {least}: {_LAGS[name]}"


def _touched(advisory: SnpAdvisory, product: str | None) -> str:
    if advisory.if_policy:
        return f"the policy has {' or '.join(advisory.if_policy)}"
    if advisory.unless_policy:
        return f"the policy lacks {' and '.join(advisory.unless_policy)}"
    return f"known of {product if advisory.generations else 'every product'}"


def standing(product: str, report: AttestationReport) -> list[str]:
    """Return what a report's versions say of each other: a sentence for each that differs."""
    found = []
    current, committed = report.current_version, report.committed_version
    if current != committed:
        found.append(
            f"firmware: {version_text(current)} runs, the host can go back to "
            f"{version_text(committed)}"
        )
    tcbs = _tcbs(report, product)
    for component in COMPONENTS[product]:
        reported, committed_, running, launch = (getattr(tcb, component) for tcb in tcbs.values())
        if not reported == committed_ == running == launch:
            found.append(
                f"{component}: reported {reported} (what the signature proves), committed "
                f"{committed_} (what the host can go back to), current {running} (what runs), "
                f"launch {launch} (what the guest started with)"
            )
    return found


def version_text(version: tuple[int, ...]) -> str:
    """Return a firmware version as text: "1.55.22"."""
    return ".".join(map(str, version))


def parse(text: str) -> tuple[date, tuple[SnpAdvisory, ...]]:
    """Return ``as_of`` and the advisories in TOML, tables like :class:`SnpAdvisory`.

    Raises MalformedInput for any other format, field or value.
    """
    return parse_as(_SNP, text)


def _is_tcb(value: object) -> bool:
    return (
        isinstance(value, dict) and value.keys() <= COMPONENTS.keys() and bool(value)
        and all(_are_components(name, entry) for name, entry in value.items())
    )  # fmt: skip


def _are_components(product: str, value: object) -> bool:
    return (
        isinstance(value, dict) and value.keys() <= {*COMPONENTS[product]} and bool(value)
        and all(type(entry) is int and 0 < entry <= _MAX_BYTE for entry in value.values())
    )  # fmt: skip


_SNP = Format(
    SnpAdvisory,
    fields_of(_NAMES, _POLICY_NAMES)
    | {"tcb": _is_tcb, "platform": are_of(PLATFORM_NAMES), "forges": lambda value: value is True},
    lambda row: contradictions(row, _NAMES),
)
