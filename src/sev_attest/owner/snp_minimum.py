"""The oldest versions of a product of SEV-SNP that an owner accepts, and how a report fits them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sev_attest.errors import Failure
from sev_attest.owner.snp_advisories import COMPONENTS, PRODUCTS, version_text
from sev_attest.snp.report import AttestationReport

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpMinimum:
    """The oldest versions that are accepted of a product.

    ``firmware`` is that of the firmware that runs, ``committed_firmware`` that of the oldest one
    that the host can go back to: major, minor, build, each 0 to 255. ``reported`` has a version, 0
    to 255, for every component of the product's TCB, as have ``committed`` and ``launch``.
    ``current_mitigations`` and ``launch_mitigations`` are the bits that must be set in the report's
    mitigation vectors, 64 bits each; AMD's list of them is not public. None, and no bits, ask for
    nothing.
    """

    firmware: Version
    reported: Mapping[str, int]
    committed_firmware: Version | None = None
    committed: Mapping[str, int] | None = None
    launch: Mapping[str, int] | None = None
    current_mitigations: int = 0
    launch_mitigations: int = 0

    def required(self) -> list[object]:
        """Return it for JSON."""
        return [
            [*self.firmware], self.committed_firmware and [*self.committed_firmware],
            *(tcb and dict(tcb) for tcb in (self.reported, self.committed, self.launch)),
            self.current_mitigations, self.launch_mitigations,
        ]  # fmt: skip

    def misfit(self, product: str) -> str:
        """Return why this cannot be the minimum of a product, or an empty text."""
        if product not in PRODUCTS:
            return "is not a product"
        components = COMPONENTS[product]
        for name in _TCBS:
            tcb = getattr(self, name)
            if tcb is not None and {*tcb} != {*components}:
                return f"{name} has not exactly the components {', '.join(components)}"
        return ""

    def failures(self, report: AttestationReport, product: str) -> Iterator[Failure]:
        """Yield what of a report is below this minimum of its product."""
        for check, found, least in (
            ("firmware", report.current_version, self.firmware),
            ("committed-firmware", report.committed_version, self.committed_firmware),
        ):
            if least is not None and found < least:
                words = f"{check.replace('-', ' ')} {version_text(found)} is below"
                yield _failure(check, f"{words} {version_text(least)}")
        for name in _TCBS:
            versions = report.tcb(name, PRODUCTS[product]).components
            for component, lowest in (getattr(self, name) or {}).items():
                if versions[component] < lowest:
                    words = f"{name} {component} {versions[component]} is below {lowest}"
                    yield _failure(f"{name}.{component}", words)
        yield from _mitigations("current", report.current_mit_vector, self.current_mitigations)
        yield from _mitigations("launch", report.launch_mit_vector, self.launch_mitigations)


_TCBS = ("reported", "committed", "launch")


def _mitigations(name: str, found: int | None, wanted: int) -> Iterator[Failure]:
    """Yield a failure if not all of these bits are set, or if the report's version has none."""
    check = f"{name}-mitigations"
    if wanted and found is None:
        words = f"the report's version does not tell its {name} mitigations"
        yield _failure(check, f"{words}: {wanted:#x} must be in force")
    elif found is not None and wanted & ~found:
        yield _failure(check, f"{name} mitigations {found:#x} lack {wanted & ~found:#x}")


def _failure(check: str, message: str) -> Failure:
    return Failure(f"requirements.snp.minimum.{check}", message)
