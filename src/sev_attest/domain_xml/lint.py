"""What a rule for domain XML is made of: what it looks at, what it finds, how it is listed."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from sev_attest.domain_xml.capabilities import SevCapabilities
from sev_attest.domain_xml.domain import Domain, es
from sev_attest.domain_xml.xml import Document, Edit, Element
from sev_attest.errors import Unsupported
from sev_attest.guest.firmware import Firmware
from sev_attest.owner.record import LaunchRecord

_VERSION = re.compile(r"v?([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})(?:[^0-9.].*)?")
_MOST_WORDS = 400
Version = tuple[int, ...]
Used = Callable[[str], str | None]
"""Tells of a session, by the SHA-256 of its blob (hex), how it was used already; None if not."""

GUIDE = "libvirt kbase/launch_security_sev"
QEMU = "QEMU docs/system/i386/amd-memory-encryption"
VALIDATE = "virt-qemu-sev-validate"
LIBVIRT = "libvirt formatdomain"
VALIDATION = "libvirt domain_validate.c, qemu_validate.c"
API = "AMD 55766, guest policy"


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "E"
    """The guest will not start, or cannot be attested."""
    WARNING = "W"
    """A risk, or something that attestation depends on and the XML leaves open."""
    INFO = "I"
    """Good to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place in the XML that breaks one rule.

    ``id`` and ``source`` are the rule's; ``line`` counts from 1, ``path`` is XPath-like. ``edits``
    mend it, if that can be done without knowing more than the XML and the session.
    """

    id: str
    severity: Severity
    line: int
    path: str
    message: str
    fix: str
    source: str
    edits: tuple[Edit, ...] = field(default=(), repr=False)

    @property
    def mendable(self) -> bool:
        """Tell whether ``prepare`` can mend it."""
        return bool(self.edits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Versions on the host, as far as the owner knows them; None is taken to be current."""

    libvirt: Version | None = None
    qemu: Version | None = None
    guest_kernel: Version | None = None


def read_version(text: str) -> Version:
    """Read a version; raises Unsupported for what is none.

    >>> read_version("6.1.0-13-amd64")
    (6, 1, 0)
    """
    found = _VERSION.fullmatch(text.strip())
    if not found:
        raise Unsupported(f"{text!r} is no version (9.0, or 11.3.0)", check="version")
    return tuple(map(int, found[1].split(".")))


def before(version: Version | None, least: Version) -> bool:
    """Tell whether a version is known and older than ``least``."""
    if version is None:
        return False
    length = max(len(version), len(least))
    padded = [(*v, *[0] * (length - len(v))) for v in (version, least)]
    return padded[0] < padded[1]


def dotted(version: Version) -> str:
    """Write a version."""
    return ".".join(map(str, version))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the rules look at: the domain, and what the owner knows beside it.

    ``godh`` and ``blob`` are the session's in base64, for those who want it put in.
    """

    domain: Domain
    versions: Versions = field(default_factory=Versions)
    record: LaunchRecord | None = None
    godh: str | None = None
    blob: str | None = None
    firmware: Firmware | None = None
    capabilities: SevCapabilities | None = None
    used: Used | None = None

    @property
    def document(self) -> Document:
        """Give the XML."""
        return self.domain.document

    @cached_property
    def policy(self) -> int | None:
        """Give the policy: the XML's, or else the record's."""
        recorded = self.record.policy if self.record else None
        return recorded if self.domain.policy is None else self.domain.policy

    @cached_property
    def es(self) -> bool:
        """Tell whether the guest is to be an SEV-ES guest."""
        return es(self.policy)


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found, and where; ``severity`` if it is not the rule's."""

    element: Element
    message: str
    fix: str
    edits: tuple[Edit, ...] = ()
    severity: Severity | None = None


Check = Callable[[Subject], Iterator[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: its id, the worst it finds, what it holds, who says so; whether it can mend."""

    id: str
    severity: Severity
    says: str
    source: str
    mends: bool
    check: Check

    def findings(self, subject: Subject) -> Iterator[Finding]:
        """Look at a domain."""
        for found in self.check(subject):
            yield Finding(
                id=self.id,
                severity=found.severity or self.severity,
                line=found.element.line,
                path=found.element.path,
                message=_bounded(found.message),
                fix=found.fix,
                source=self.source,
                edits=found.edits,
            )


def _bounded(message: str) -> str:
    """Cut a message short that quotes too much of the XML."""
    return message if len(message) <= _MOST_WORDS else f"{message[:_MOST_WORDS]}..."


def rule(
    table: list[Rule], name: str, severity: Severity, says: str, source: str, *, mends: bool = False
) -> Callable[[Check], Check]:
    """Put a function into a table of rules."""

    def decorate(check: Check) -> Check:
        table.append(
            Rule(id=name, severity=severity, says=says, source=source, mends=mends, check=check)
        )
        return check

    return decorate
