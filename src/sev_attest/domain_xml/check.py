"""Is this domain's XML fit for a guest that is to be attested? One rule at a time.

Does not verify: anything. The XML is what somebody wrote down; what a host then starts, only the
measurement tells. Rules that depend on versions, firmware or the host are the better for being told
of them: a version that nobody names is taken to be current, and what hangs on it is noted.
"""

from collections import Counter
from collections.abc import Sequence

from sev_attest.domain_xml import rules_boot, rules_guest, rules_security
from sev_attest.domain_xml.capabilities import SevCapabilities
from sev_attest.domain_xml.domain import Domain, parse_domain
from sev_attest.domain_xml.lint import Finding, Severity, Subject, Used, Versions, read_version
from sev_attest.guest.firmware import Firmware
from sev_attest.owner.record import LaunchRecord

__all__ = [
    "RULES",
    "Domain",
    "Finding",
    "Severity",
    "Subject",
    "Used",
    "Versions",
    "check_domain",
    "look",
    "parse_domain",
    "read_version",
    "tally",
]

RULES = {rule.id: rule for rule in sorted(
    [*rules_boot.RULES, *rules_guest.RULES, *rules_security.RULES], key=lambda rule: rule.id
)}  # fmt: skip
"""Every rule by its id."""


def check_domain(
    domain: Domain,
    *,
    versions: Versions | None = None,
    record: LaunchRecord | None = None,
    firmware: Firmware | None = None,
    capabilities: SevCapabilities | None = None,
    used: Used | None = None,
) -> list[Finding]:
    """List what is wrong with a domain, in the order of its lines.

    ``record`` is the launch that the domain is for, ``firmware`` the owner's own copy of the image,
    ``capabilities`` those of the host. ``used`` tells of a session, by the SHA-256 of its blob in
    hex, how it was used already (None if it was not). One finding with :attr:`Severity.ERROR` means
    that the guest will not start, or cannot be attested. Raises MalformedInput for firmware whose
    footer lies.
    """
    return look(
        Subject(
            domain=domain,
            versions=versions or Versions(),
            record=record,
            firmware=firmware,
            capabilities=capabilities,
            used=used,
        )
    )


def look(subject: Subject) -> list[Finding]:
    """Apply every rule to a subject."""
    found = [finding for rule in RULES.values() for finding in rule.findings(subject)]
    return sorted(found, key=lambda finding: (finding.line, finding.id))


def tally(findings: Sequence[Finding]) -> str:
    """Count findings in words ("2 errors, 1 warning")."""
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
    count = Counter(finding.severity for finding in findings)
    return ", ".join(
        f"{count[kind]} {word}{'s' * (count[kind] > 1)}"
        for kind, word in words.items()
        if count[kind]
    )
