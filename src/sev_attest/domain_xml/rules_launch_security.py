"""Rules for ``<launchSecurity>``: its type, what belongs to that, and what the CPU needs."""

from collections.abc import Iterator

from sev_attest.domain_xml.domain import number
from sev_attest.domain_xml.launch_security import BLOB_SIZES, SNP_BLOB_SIZES, launch_security
from sev_attest.domain_xml.rule import (
    GUIDE,
    LIBVIRT,
    QEMU,
    Severity,
    Subject,
    Violation,
    rule,
)

_E, _W, _I = Severity
_MAX_REDUCED = 63
_FOREIGN = {
    "sev": ("SEV-SNP", [*SNP_BLOB_SIZES], ["authorKey", "vcek"]),
    "sev-snp": ("SEV", [*BLOB_SIZES, "handle"], []),
}
"""What each type does not have: whose it is, elements and attributes."""


@rule("domain.launch-security.missing", _E, "there is a <launchSecurity>", GUIDE, mends=True)
def _missing(subject: Subject) -> Iterator[Violation]:
    root = subject.domain.root
    if root.find("launchSecurity") is not None:
        return
    xml = _element(subject)
    yield Violation(
        root,
        "there is no <launchSecurity>: the host can read all of the guest's memory",
        "the <launchSecurity> element of a session, or of SEV-SNP with a policy",
        (subject.document.append(root, xml),) if xml else (),
    )


def _element(subject: Subject) -> str:
    """Return the element of what is to be put in; empty if nothing is, or no policy is known."""
    record, launch = subject.record, subject.launch
    if record is not None and subject.godh is not None and subject.blob is not None:
        from sev_attest.sev.policy import GuestPolicy

        policy = GuestPolicy(record.policy)
        hashes = record.kernel_hashes
        return launch_security(policy, subject.godh, subject.blob, kernel_hashes=hashes)
    if launch is not None and launch.wanted_policy is not None:
        from sev_attest.domain_xml.snp_launch import snp_launch_security

        return snp_launch_security(launch, launch.wanted_policy)
    return ""


@rule("domain.launch-security.type", _E, "<launchSecurity> is of type sev or sev-snp", LIBVIRT)
def _type(subject: Subject) -> Iterator[Violation]:
    element = subject.domain.root.find("launchSecurity")
    if element is not None and subject.domain.protection is None:
        kind = (element.get("type") or "missing")[:40]
        what = f"type {kind}: only SEV, SEV-ES and SEV-SNP guests are checked"
        fix = "type='sev' (for SEV-ES too: the policy asks for it), or type='sev-snp'"
        yield Violation(element, what, fix)


@rule(
    "domain.launch-security.foreign", _E,
    "what is in <launchSecurity> belongs to its type: libvirt ignores the rest, or refuses it with "
    "--validate", "libvirt schema", mends=True,
)  # fmt: skip
def _foreign(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.protection
    if security is None:
        return
    kind = security.get("type") or ""
    whose, elements, attributes = _FOREIGN[kind]
    for element in (one for name in elements for one in security.all(name)):
        edit = subject.document.remove(element)
        what = f"<{element.name}> is {whose}'s: type='{kind}' does not have it"
        yield Violation(element, what, f"no <{element.name}>", (edit,))
    for name in (name for name in attributes if security.get(name) is not None):
        edit = subject.document.remove_attribute(security, name)
        what = f"{name}= is {whose}'s: type='{kind}' does not have it"
        yield Violation(security, what, f"no {name}=", (edit,))


@rule(
    "domain.launch-security.handle", _W, "no <handle>: it asks for key sharing", LIBVIRT,
    mends=True,
)  # fmt: skip
def _handle(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.launch_security
    for element in security.all("handle") if security is not None else ():
        edit = subject.document.remove(element)
        yield Violation(element, "a <handle>: libvirt ignores it", "no <handle>", (edit,))


@rule(
    "domain.launch-security.cbitpos", _E,
    "cbitpos is the host's (I if the host's capabilities are unknown: libvirt fills it in)", QEMU,
    mends=True,
)  # fmt: skip
def _cbitpos(subject: Subject) -> Iterator[Violation]:
    security, host = subject.domain.protection, subject.capabilities
    element = None if security is None else security.find("cbitpos")
    if element is None or (host and host.cbitpos and number(element.text) == host.cbitpos):
        return
    what = "cbitpos depends on the host's CPU (47 up to Rome, 51 since Milan); QEMU refuses another"
    severity = _I
    if host and host.cbitpos:
        what, severity = f"cbitpos must be {host.cbitpos} on this host", _E
    if number(element.text) is None:
        what, severity = "cbitpos is not a number", _E
    fix = "leave it out: libvirt fills it in"
    yield Violation(element, what, fix, (subject.document.remove(element),), severity)


@rule(
    "domain.launch-security.reduced-phys-bits", _E, "reducedPhysBits is in 1..63", QEMU, mends=True,
)  # fmt: skip
def _reduced(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.protection
    element = None if security is None else security.find("reducedPhysBits")
    if element is not None and not 1 <= (number(element.text) or 0) <= _MAX_REDUCED:
        edit = subject.document.remove(element)
        what = f"reducedPhysBits is not in 1..{_MAX_REDUCED}"
        yield Violation(element, what, "leave it out: libvirt fills it in", (edit,))
