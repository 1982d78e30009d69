"""Rules for ``<launchSecurity>``, except for its session: type, policy, and what the CPU needs."""

from collections.abc import Iterator

from sev_attest.domain_xml.domain import number, read_policy
from sev_attest.domain_xml.launch_security import launch_security
from sev_attest.domain_xml.rule import (
    API,
    GUIDE,
    LIBVIRT,
    QEMU,
    Severity,
    Subject,
    Violation,
    rule,
)
from sev_attest.domain_xml.xml import Edit
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.spec import PolicyBit

_E, _W, _I = Severity
_MAX_REDUCED = 63


@rule("domain.launch-security.missing", _E, "there is a <launchSecurity>", GUIDE, mends=True)
def _missing(subject: Subject) -> Iterator[Violation]:
    root = subject.domain.root
    if root.find("launchSecurity") is not None:
        return
    edits: tuple[Edit, ...] = ()
    if subject.record is not None and subject.godh is not None and subject.blob is not None:
        xml = launch_security(
            GuestPolicy(subject.record.policy),
            subject.godh,
            subject.blob,
            kernel_hashes=subject.record.kernel_hashes,
        )
        edits = (subject.document.append(root, xml),)
    yield Violation(
        root,
        "there is no <launchSecurity>: the host can read all of the guest's memory",
        "the <launchSecurity> element of a session",
        edits,
    )


@rule("domain.launch-security.type", _E, "<launchSecurity> is of type sev", LIBVIRT)
def _type(subject: Subject) -> Iterator[Violation]:
    element = subject.domain.root.find("launchSecurity")
    if element is not None and subject.domain.launch_security is None:
        what = f"type {element.get('type') or 'missing'}: only SEV and SEV-ES guests are checked"
        yield Violation(element, what, "type='sev' (for SEV-ES too: the policy asks for it)")


def _recorded(subject: Subject) -> str | None:
    return str(GuestPolicy(subject.record.policy)) if subject.record else None


def _policy_edits(subject: Subject) -> tuple[Edit, ...]:
    """Return the edits that put the record's policy in; none if no session is to be put in."""
    security, recorded = subject.domain.launch_security, _recorded(subject)
    if security is None or recorded is None or subject.godh is None:
        return ()
    element = security.find("policy")
    if element is None:
        return (subject.document.append(security, f"<policy>{recorded}</policy>"),)
    return (subject.document.set_text(element, recorded),)


@rule("domain.policy.missing", _E, "there is a <policy>", LIBVIRT, mends=True)
def _no_policy(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.launch_security
    if security is not None and security.find("policy") is None:
        fix = f"<policy>{_recorded(subject) or '0x0007'}</policy>"
        yield Violation(security, "there is no <policy>", fix, _policy_edits(subject))


@rule(
    "domain.policy.format", _E,
    "the policy is a hexadecimal number of up to 32 bits and nothing else",
    "libvirt domain_conf.c", mends=True,
)  # fmt: skip
def _policy_format(subject: Subject) -> Iterator[Violation]:
    element = subject.domain.place("launchSecurity/policy")
    if subject.domain.launch_security is None or element.name != "policy":
        return
    if subject.domain.policy is None:
        bare = element.text.strip()
        edits = _policy_edits(subject)
        if not edits and read_policy(bare) is not None:
            edits = (subject.document.set_text(element, bare),)
        what = f"libvirt cannot read the policy {element.text[:40]!r}"
        yield Violation(element, what, "a hexadecimal number with nothing after it: 0x5", edits)


@rule(
    "domain.policy.decimal", _W, "a policy that could be read as decimal begins with 0x",
    "libvirt domain_conf.c", mends=True,
)  # fmt: skip
def _decimal(subject: Subject) -> Iterator[Violation]:
    element, policy = subject.domain.place("launchSecurity/policy"), subject.domain.policy
    text = element.text.strip()
    decimal = number(text)
    if policy is not None and decimal not in (None, policy):
        yield Violation(
            element,
            f"libvirt reads {text} as hexadecimal: policy {policy:#x}, decimal {policy}",
            f"{policy:#x} if that is meant, {decimal:#x} for decimal {text}",
            (subject.document.set_text(element, f"{policy:#x}"),),
        )


def _policy_finding(subject: Subject, *, bad: bool, message: str, fix: str) -> Iterator[Violation]:
    """Report the policy if there is one and it is ``bad``."""
    if bad and subject.domain.policy is not None:
        yield Violation(subject.domain.place("launchSecurity/policy"), message, fix)


def _clear(subject: Subject, bit: PolicyBit) -> bool:
    return bit not in PolicyBit((subject.domain.policy or 0) & 0x3F)


@rule("domain.policy.debug", _E, "the policy forbids debugging (bit 0)", API)
def _debug(subject: Subject) -> Iterator[Violation]:
    return _policy_finding(
        subject,
        bad=_clear(subject, PolicyBit.NODBG),
        message="the policy lets the host read the guest's memory with the debug commands",
        fix="a session with bit 0 (no-debug) in its policy",
    )


@rule("domain.policy.key-sharing", _W, "the policy forbids key sharing (bit 1)", API)
def _key_sharing(subject: Subject) -> Iterator[Violation]:
    return _policy_finding(
        subject,
        bad=_clear(subject, PolicyBit.NOKS),
        message="the policy lets the host start another guest with the same memory key",
        fix="a session with bit 1 (no-key-sharing) in its policy",
    )


@rule("domain.policy.es", _W, "the policy asks for SEV-ES (bit 2)", API)
def _no_es(subject: Subject) -> Iterator[Violation]:
    return _policy_finding(
        subject,
        bad=_clear(subject, PolicyBit.ES),
        message="plain SEV: the host sees and changes registers, and vCPUs are not measured",
        fix="a session with bit 2 (es) in its policy",
    )


@rule("domain.policy.reserved", _E, "the policy has no reserved bits (6-15)", API)
def _reserved(subject: Subject) -> Iterator[Violation]:
    reserved = GuestPolicy(subject.domain.policy or 0).reserved
    return _policy_finding(
        subject,
        bad=bool(reserved),
        message=f"bits {reserved:#x} of the policy are reserved",
        fix="a session whose policy has no reserved bits",
    )


@rule(
    "domain.policy.differs", _E, "the policy is the session's (if a session is known)",
    "AMD 55766, LAUNCH_START", mends=True,
)  # fmt: skip
def _other_policy(subject: Subject) -> Iterator[Violation]:
    policy = subject.domain.policy
    recorded = subject.record.policy if subject.record else None
    if policy is None or recorded is None or policy == recorded:
        return
    yield Violation(
        subject.domain.place("launchSecurity/policy"),
        f"the session was made for policy {_recorded(subject)}: the firmware refuses another",
        f"<policy>{_recorded(subject)}</policy>, or a session for this policy",
        _policy_edits(subject),
    )


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
    security, host = subject.domain.launch_security, subject.capabilities
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
    security = subject.domain.launch_security
    element = None if security is None else security.find("reducedPhysBits")
    if element is not None and not 1 <= (number(element.text) or 0) <= _MAX_REDUCED:
        edit = subject.document.remove(element)
        what = f"reducedPhysBits is not in 1..{_MAX_REDUCED}"
        yield Violation(element, what, "leave it out: libvirt fills it in", (edit,))
