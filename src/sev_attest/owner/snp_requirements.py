"""What an owner requires of a report of SEV-SNP, beyond that AMD's key signed it.

:mod:`sev_attest.owner.snp_requirements_file` describes the part of owner.toml and reads it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sev_attest.errors import Failure, MalformedInput, RequirementsNotMet
from sev_attest.owner.requirements import ANY, TEST, Allowed, Met, weaknesses
from sev_attest.owner.snp_advisories import (
    DEMAND_NAMES,
    PLATFORM_NAMES,
    PRODUCTS,
    evaluate,
    version_text,
)
from sev_attest.owner.snp_minimum import SnpMinimum
from sev_attest.owner.snp_reference import SnpReferenceValue, allowed_by
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.spec import HOST_VMPL, SigningKey

if TYPE_CHECKING:
    from sev_attest.snp.verify import VerifiedReport


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SnpRequirements:
    """What an owner requires of a report of SEV-SNP. Every field allows nothing by default.

    ``products`` are names of PRODUCTS; ``test`` among them allows roots that are not AMD's, whose
    product has to be there too. ``chip_ids`` (128 hex digits) allow reports that a VCEK signed,
    ``csp_ids`` those that a VLEK of this cloud provider signed, which name no chip. ``cpuids`` are
    family, model and stepping ("19-01-01", hex). ``vmpls`` are 0 to 3. ``minimum`` has an entry for
    each allowed product. ``permits`` are the bits of the policy that permit the host something and
    may be set, ``demands`` those that demand something of it and must be; ``min_abi`` is the lowest
    ABI version (major, minor) that the policy itself must demand. ``platform_set`` and
    ``platform_clear`` are bits of platform_info. ``provisional``: whether firmware may run that is
    not committed yet. ``acknowledged`` and ``refused`` are ids of advisories.
    """

    products: Allowed = frozenset()
    chip_ids: Allowed = frozenset()
    denied_chip_ids: Allowed = frozenset()
    csp_ids: Allowed = frozenset()
    cpuids: Allowed = frozenset()
    vmpls: frozenset[int] = frozenset()
    minimum: Mapping[str, SnpMinimum] = field(default_factory=dict)
    permits: Allowed = frozenset()
    demands: Allowed = frozenset()
    min_abi: tuple[int, int] = (0, 0)
    platform_set: Allowed = frozenset()
    platform_clear: Allowed = frozenset()
    provisional: bool = False
    launches: tuple[SnpReferenceValue, ...] = ()
    acknowledged: Allowed = frozenset()
    refused: Allowed = frozenset()

    def __repr__(self) -> str:
        """Return the allowed products and the number of launches."""
        products = ", ".join(sorted(self.products)[:8])
        return f"SnpRequirements(products={{{products}}}, {len(self.launches)} launches)"

    @property
    def allowed_products(self) -> list[str]:
        """Names of the allowed products."""
        return [name for name in PRODUCTS if self.products & {name, ANY}]

    def check(self) -> None:
        """Raise MalformedInput for requirements that no report can meet or that contradict."""
        for name, minimum in self.minimum.items():
            reason = minimum.misfit(name)
            if reason:
                raise _malformed(f"minimum.{name}", reason)
        for name in self.allowed_products:
            if name not in self.minimum:
                raise _malformed(f"minimum.{name}", f"is missing, though {name} is allowed")
        for where, one, other, words in (
            ("platform", self.platform_set, self.platform_clear, "required both set and clear"),
            ("advisories", self.acknowledged, self.refused, "both acknowledged and refused"),
        ):
            if both := one & other:
                raise _malformed(where, f"{words}: {', '.join(sorted(both))}")
        self._check_launches()

    def _check_launches(self) -> None:
        for name, count in Counter(launch.name for launch in self.launches).items():
            if count > 1:
                raise _malformed("launch", f"there are two with the name {name!r}")
        for launch in self.launches:
            if launch.unproven:
                words = f"{launch.name!r} asks for {launch.unproven} without id_keys or author_keys"
                raise _malformed("launch", f"{words}: whoever starts a guest can sign its ID block")

    def required(self) -> dict[str, object]:
        """Return what is required, for JSON: the same for what differs in words only."""
        sets = {
            name: sorted(getattr(self, name))
            for name in (*LISTS, "vmpls", "permits", "demands", "platform_set", "platform_clear",
                         "acknowledged", "refused")
        }  # fmt: skip
        return sets | {
            "minimum": {name: one.required() for name, one in self.minimum.items()},
            "min_abi": [*self.min_abi],
            "provisional": self.provisional,
            "launches": [one.required() for one in self.launches],
        }

    def require(self, verified: "VerifiedReport", *, at: datetime) -> Met:
        """Return how a verified report meets the requirements at a time (with time zone).

        Raises RequirementsNotMet with every failure.
        """
        report, product = verified.report, verified.product.value.lower()
        exposures = evaluate(product, report)
        launch, refusals = allowed_by(self.launches, report, at)
        failures = (
            *self._signer(verified, product),
            *self._minimum(report, product),
            *self._provisional(report),
            *self._policy(report),
            *self._platform(report),
            *refusals,
            *weaknesses(exposures, self.acknowledged, self.refused, "snp."),
        )
        if failures or launch is None:
            raise RequirementsNotMet(failures)
        guest = (launch.digests or {}).get(report.measurement, "")
        return Met(name=launch.name, guest=guest, exposures=exposures)

    def _signer(self, verified: "VerifiedReport", product: str) -> Iterator[Failure]:
        """Yield what of root, product, chip and VMPL is not allowed."""
        report, extensions = verified.report, verified.vek.extensions
        if verified.root.product is None and TEST not in self.products:
            yield _failure("root", "its root is not AMD's, which is not allowed")
        if product not in self.allowed_products:
            yield _failure("product", f"it is of {product}, which is not among those allowed")
        chip, csp = report.chip_id.hex(), extensions.csp_id if extensions else ""
        if report.key_info.signing_key is SigningKey.VCEK:
            yield from _among("chip-id", "chip id", chip, self.chip_ids)
        else:
            yield from _among("csp-id", "the VLEK's CSP id", csp or None, self.csp_ids)
            chip = ""
        if self.denied_chip_ids and not chip:
            words = "a VLEK signed the report, which names no chip: it may be a denied one"
            yield _failure("denied-chip-id", words)
        elif self.denied_chip_ids & {chip, ANY}:
            yield _failure("denied-chip-id", f"chip id {chip} is denied")
        yield from _among("cpuid", "CPUID", _cpuid(report), self.cpuids)
        if report.vmpl == HOST_VMPL:
            yield _failure("vmpl", "the host asked for this report, not the guest")
        elif report.vmpl not in self.vmpls:
            yield _failure("vmpl", f"VMPL {report.vmpl} is not among those allowed")

    def _minimum(self, report: AttestationReport, product: str) -> Iterator[Failure]:
        minimum = self.minimum.get(product)
        if minimum is None:
            yield _failure("minimum", f"no minimum is set for {product}")
        elif reason := minimum.misfit(product):
            # A file with it is refused when it is read. A component that is left out would pass.
            yield _failure("minimum", f"the minimum of {product} cannot be met: {reason}")
        else:
            yield from minimum.failures(report, product)

    def _provisional(self, report: AttestationReport) -> Iterator[Failure]:
        same = (report.current_version, report.current_tcb) == (
            report.committed_version,
            report.committed_tcb,
        )
        if not (same or self.provisional):
            words = "firmware or microcode runs that is not committed: the host can go back to"
            old = f"{version_text(report.committed_version)}, TCB {report.committed_tcb.hex()}"
            hint = "the host commits it (SNP_COMMIT), or owner.toml allows it (provisional = true)"
            yield _failure("provisional", f"{words} {old}", hint)

    def _policy(self, report: AttestationReport) -> Iterator[Failure]:
        policy = report.policy
        for name in policy.permits:
            if name not in self.permits:
                yield _failure(f"policy.{name}", f"policy {policy} permits {name}")
        for name in DEMAND_NAMES:
            if name in self.demands and name not in policy.demands:
                yield _failure(f"policy.{name}", f"policy {policy} does not demand {name}")
        if policy.min_abi < self.min_abi:
            found, least = version_text(policy.min_abi), version_text(self.min_abi)
            yield _failure("policy.min-abi", f"policy {policy} demands ABI {found}, below {least}")

    def _platform(self, report: AttestationReport) -> Iterator[Failure]:
        found = report.platform_info.names
        for name in PLATFORM_NAMES:
            if name in self.platform_set and name not in found:
                yield _failure(f"platform.{name}", f"platform_info lacks {name}")
            if name in self.platform_clear and name in found:
                yield _failure(f"platform.{name}", f"platform_info has {name} set")


LISTS = ("products", "chip_ids", "denied_chip_ids", "csp_ids", "cpuids")


def _among(check: str, words: str, value: str | None, allowed: Allowed) -> Iterator[Failure]:
    if ANY in allowed:
        return
    if value is None:
        yield _failure(check, f"{words} is not known: this version of the report lacks it")
    elif value not in allowed:
        yield _failure(check, f"{words} {value} is not among those allowed")


def _cpuid(report: AttestationReport) -> str | None:
    """Return CPUID family, model and stepping in hex ("19-01-01"); None in version 2."""
    numbers = (report.cpuid_family, report.cpuid_model, report.cpuid_stepping)
    known = [number for number in numbers if number is not None]
    return "-".join(f"{number:02x}" for number in known) or None


def _failure(check: str, message: str, hint: str = "") -> Failure:
    return Failure(f"requirements.snp.{check}", message, hint)


def _malformed(name: str, reason: str) -> MalformedInput:
    return MalformedInput("requirements", f"snp.{name}", reason)
