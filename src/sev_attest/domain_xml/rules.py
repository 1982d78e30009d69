"""Every rule that domain XML has to meet for its guest to be attested.

Does not verify: anything. The XML is what somebody wrote; only the measurement shows what a host
then starts. Rules that depend on versions, the firmware or the host find more if these are known.
An unknown version is assumed to be current, and a note says what depends on it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from sev_attest.domain_xml import (  # noqa: F401 - importing them declares their rules
    rules_devices,
    rules_firmware,
    rules_guest,
    rules_host,
    rules_kernel,
    rules_launch_security,
    rules_loader,
    rules_machine,
    rules_policy,
    rules_session,
    rules_snp,
    rules_values,
)
from sev_attest.domain_xml.rule import DECLARED, Finding, Rule, Severity, Subject

RULES: Mapping[str, Rule] = {rule.id: rule for rule in sorted(DECLARED, key=lambda one: one.id)}
"""Every rule by its id, sorted."""


def apply_rules(subject: Subject) -> list[Finding]:
    """Return what breaks a rule, in the order of the XML's lines.

    One finding with :attr:`Severity.ERROR` means that the guest will not start, or cannot be
    attested. Raises MalformedInput for firmware whose footer table is malformed.
    """
    found = [finding for rule in RULES.values() for finding in rule.findings(subject)]
    return sorted(found, key=lambda finding: (finding.line, finding.id))


def tally(findings: Sequence[Finding]) -> str:
    """Return the number of findings in words, for example "2 errors, 1 warning"."""
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
    count = Counter(finding.severity for finding in findings)
    return ", ".join(
        f"{count[kind]} {word}{'s' * (count[kind] > 1)}"
        for kind, word in words.items()
        if count[kind]
    )
