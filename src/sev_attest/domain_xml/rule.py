"""The parts of a rule for domain XML: what it reads, what it reports, how it is listed."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from sev_attest.domain_xml.domain import Domain, is_es
from sev_attest.domain_xml.versions import Versions
from sev_attest.domain_xml.xml import Document, Edit, Element

if TYPE_CHECKING:
    from sev_attest.domain_xml.capabilities import SevCapabilities
    from sev_attest.domain_xml.snp_launch import SnpLaunch
    from sev_attest.guest.firmware import Firmware
    from sev_attest.owner.record import LaunchRecord

_MAX_MESSAGE = 400
"""Characters. A message may quote the XML, which can be long."""

Used = Callable[[str], str | None]
"""Takes the SHA-256 of a session blob (hex); returns how that session was used, None if it was not.
"""

# Sources that several rules cite.
GUIDE = "libvirt kbase/launch_security_sev"
QEMU = "QEMU docs/system/i386/amd-memory-encryption"
VALIDATE = "virt-qemu-sev-validate"
LIBVIRT = "libvirt formatdomain"
VALIDATION = "libvirt domain_validate.c, qemu_validate.c"
API = "AMD 55766, guest policy"
POLICIES = "AMD 55766, AMD 56860, guest policy"
SNP_API = "AMD 56860, guest policy"
SEV_C = "QEMU target/i386/sev.c"


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "E"
    """The guest will not start, or cannot be attested."""
    WARNING = "W"
    """A risk, or a setting that attestation depends on and the XML leaves open."""
    INFO = "I"
    """Good to know."""


class Finding(NamedTuple):
    """One place in the XML that breaks one rule.

    ``id`` and ``source`` are the rule's. ``line`` counts from 1, ``path`` is XPath-like. ``edits``
    fix it; they are empty if that takes more than the XML and the session.
    """

    id: str
    severity: Severity
    line: int
    path: str
    message: str
    fix: str
    source: str
    edits: tuple[Edit, ...] = ()

    @property
    def mendable(self) -> bool:
        """Whether it has edits that fix it."""
        return bool(self.edits)


class Subject(NamedTuple):
    """The input of every rule: a domain, and what the owner knows besides it.

    ``record`` is the launch that the domain is for, ``firmware`` the owner's own copy of the image,
    ``capabilities`` are the host's. ``godh`` and ``blob`` are the session's, in base64; with them,
    rules offer edits that put the session in. ``launch`` is what goes into the element of an
    SEV-SNP guest, which has no session.
    """

    domain: Domain
    versions: Versions = Versions()
    record: "LaunchRecord | None" = None
    godh: str | None = None
    blob: str | None = None
    launch: "SnpLaunch | None" = None
    firmware: "Firmware | None" = None
    capabilities: "SevCapabilities | None" = None
    used: Used | None = None

    @property
    def document(self) -> Document:
        """The XML."""
        return self.domain.document

    @property
    def policy(self) -> int | None:
        """The guest policy in the XML, or else the one that is to be put in."""
        return self.meant_policy if self.domain.policy is None else self.domain.policy

    @property
    def meant_policy(self) -> int | None:
        """The guest policy that the owner means: the record's, or that of ``launch``."""
        if self.record is not None:
            return self.record.policy
        return self.launch.wanted_policy if self.launch else None

    @property
    def snp(self) -> bool:
        """Whether it is an SEV-SNP guest, or is to be one."""
        wanted = self.launch is not None and self.domain.protection is None
        return wanted or self.domain.snp is not None

    @property
    def es(self) -> bool:
        """Whether it is an SEV-ES guest: the policy asks for it."""
        return not self.snp and is_es(self.policy)

    @property
    def encrypts_state(self) -> bool:
        """Whether the registers of its vCPUs are encrypted, and measured: SEV-ES and SEV-SNP."""
        return self.es or self.snp

    @property
    def technology(self) -> str:
        """What protects it: SEV, SEV-ES or SEV-SNP."""
        return "SEV-SNP" if self.snp else "SEV-ES" if self.es else "SEV"


class Violation(NamedTuple):
    """A place that breaks a rule, as the rule's function reports it.

    ``severity`` is None if it is the rule's own.
    """

    element: Element
    message: str
    fix: str
    edits: tuple[Edit, ...] = ()
    severity: Severity | None = None


Violations = Callable[[Subject], Iterator[Violation]]
"""The function of a rule."""


class Rule(NamedTuple):
    """One rule.

    ``severity`` is the worst that it reports, ``says`` states what it demands, ``source`` is the
    document that demands it. ``mends`` is whether its findings can have edits.
    """

    id: str
    severity: Severity
    says: str
    source: str
    mends: bool
    violations: Violations

    def findings(self, subject: Subject) -> Iterator[Finding]:
        """Apply the rule. Raises MalformedInput for firmware whose footer table is malformed."""
        for violation in self.violations(subject):
            yield Finding(
                id=self.id,
                severity=violation.severity or self.severity,
                line=violation.element.line,
                path=violation.element.path,
                message=_shortened(violation.message),
                fix=violation.fix,
                source=self.source,
                edits=violation.edits,
            )


def _shortened(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."


DECLARED: list[Rule] = []
"""The rules of the modules that were imported; :mod:`sev_attest.domain_xml.rules` has them all."""


def rule(
    name: str, severity: Severity, says: str, source: str, *, mends: bool = False
) -> Callable[[Violations], Violations]:
    """Return a decorator that makes a function a rule (:class:`Rule`)."""

    def decorate(violations: Violations) -> Violations:
        DECLARED.append(
            Rule(
                id=name,
                severity=severity,
                says=says,
                source=source,
                mends=mends,
                violations=violations,
            )
        )
        return violations

    return decorate
