"""Every check, in order, and the verdict on what they find."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sev_attest.host.inspect import cpu, descriptors, device, inside, kernel, memory, virt
from sev_attest.host.inspect.check import Check, Finding, Need, Status
from sev_attest.host.inspect.machine import Machine

HOST: Mapping[str, tuple[Check, ...]] = {
    "CPU": cpu.CHECKS,
    "kernel": kernel.CHECKS,
    "SEV firmware": device.CHECKS,
    "virtualization": (*virt.CHECKS, *descriptors.CHECKS),
    "memory": memory.CHECKS,
    "environment": device.PLACE,
}
GUEST: Mapping[str, tuple[Check, ...]] = {
    "encryption": inside.ACTIVE,
    "secrets": inside.SECRETS,
    "reports": inside.REPORTS,
    "environment": inside.PLACE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What all checks found. It is the machine's own word."""

    findings: tuple[Finding, ...]

    @property
    def missing(self) -> tuple[Finding, ...]:
        """What is missing."""
        return tuple(one for one in self.findings if one.status is Status.MISSING)

    @property
    def untold(self) -> tuple[Finding, ...]:
        """What is essential, and cannot be told."""
        return tuple(one for one in self.findings if one.essential and one.status is Status.UNKNOWN)

    @property
    def ready(self) -> bool:
        """Whether nothing is missing, and everything essential is known."""
        return not (self.missing or self.untold)

    def subjects(self) -> Iterator[tuple[str, list[Finding]]]:
        """Yield the findings by subject."""
        for subject in dict.fromkeys(one.subject for one in self.findings):
            yield subject, [one for one in self.findings if one.subject == subject]


def inspect_host(machine: Machine, need: Need = Need.SEV) -> Report:
    """Check whether a host can run guests of ``need``.

    Does not verify: anything. A host says of itself what it likes.
    """
    return _report(HOST, machine, need)


def inspect_guest(machine: Machine) -> Report:
    """Check whether SEV is active in a guest, and which secrets arrived.

    Does not verify: anything. The proof is the launch that the owner validated.
    """
    return _report(GUEST, machine, Need.SEV)


def _report(checks: Mapping[str, tuple[Check, ...]], machine: Machine, need: Need) -> Report:
    return Report(
        findings=tuple(
            each.run(subject, machine, need) for subject, group in checks.items() for each in group
        )
    )
