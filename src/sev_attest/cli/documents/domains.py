"""Documents of `domain`."""

from typing import TypedDict

from sev_attest.cli.documents.parts import Count, Done, Finding, Refused


class DomainCheck(Done):
    """The findings in a domain's XML."""

    findings: list[Finding]
    """Every finding, in order of the XML."""


class DomainCheckRefused(Refused):
    """A domain that cannot be attested."""


class PreparedFacts(TypedDict):
    """XML that was prepared for a launch."""

    notes: list[str]
    """Remarks for people."""
    output: str | None
    """The file that was written; null if the XML is in this document."""
    xml: str | None
    """The XML that results; null if it was written to a file."""
    diff: list[str]
    """The lines of the diff."""
    mended: list[Finding]
    """What was fixed."""
    findings: list[Finding]
    """What is left."""


class DomainPrepare(Done, PreparedFacts):
    """XML that was prepared for a launch."""


class DomainPrepareRefused(Refused):
    """A domain that cannot be attested after all that can be fixed is."""


class CapabilitiesFacts(TypedDict):
    """Whether a host offers SEV."""

    notes: list[str]
    """Remarks for people."""
    sev: bool
    """Whether libvirt offers SEV."""
    sev_es: bool
    """Whether it offers SEV-ES."""
    sev_snp: bool
    """Whether it knows SEV-SNP."""
    arch: str
    """The architecture; empty if it is not told."""
    cbitpos: Count | None
    """The C-bit; null if it is not told."""
    reduced_phys_bits: Count | None
    """How many bits of physical addresses are lost; null if it is not told."""
    max_guests: Count | None
    """How many guests of SEV there can be; null if it is not told."""
    max_es_guests: Count | None
    """How many guests of SEV-ES there can be; null if it is not told."""
    types: list[str]
    """The types of <launchSecurity>."""
    firmware: list[str]
    """The kinds of firmware that libvirt chooses by itself."""
    loaders: list[str]
    """The types of <loader>."""
    obstacles: list[str]
    """Why SEV may be missing; empty if it is offered."""


class DomainCapabilities(Done, CapabilitiesFacts):
    """Whether a host offers SEV."""


class DomainCapabilitiesRefused(Refused):
    """A host that does not offer SEV."""
