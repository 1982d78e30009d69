"""Rules for the guest policy in ``<launchSecurity>``: SEV's, of 32 bits, and SEV-SNP's, of 64."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from sev_attest.domain_xml.domain import number, read_policy
from sev_attest.domain_xml.rule import (
    API,
    LIBVIRT,
    POLICIES,
    SNP_API,
    Severity,
    Subject,
    Violation,
    rule,
)
from sev_attest.domain_xml.xml import Edit
from sev_attest.sev.spec import RESERVED_POLICY, PolicyBit

if TYPE_CHECKING:
    from sev_attest.snp.policy import GuestPolicy, Meaning

_E, _W, _I = Severity
_EXAMPLES = {False: "0x0007", True: "0x30000"}
"""A policy of SEV-ES, and QEMU's default for SEV-SNP."""


def _meant(subject: Subject) -> str | None:
    """Return the owner's policy as it is written in the element, None if it is not known."""
    meant = subject.meant_policy
    if meant is None:
        return None
    from sev_attest.sev import policy as sev
    from sev_attest.snp import policy as snp

    return str(snp.GuestPolicy(meant) if subject.snp else sev.GuestPolicy(meant))


def _policy_edits(subject: Subject) -> tuple[Edit, ...]:
    """Return the edits that put the owner's policy in; none if nothing is to be put in."""
    security, meant = subject.domain.protection, _meant(subject)
    if security is None or meant is None or (subject.godh is None and subject.launch is None):
        return ()
    element = security.find("policy")
    if element is None:
        return (subject.document.append(security, f"<policy>{meant}</policy>"),)
    return (subject.document.set_text(element, meant),)


@rule("domain.policy.missing", _E, "there is a <policy>", LIBVIRT, mends=True)
def _no_policy(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.protection
    if security is not None and security.find("policy") is None:
        fix = f"<policy>{_meant(subject) or _EXAMPLES[subject.snp]}</policy>"
        yield Violation(security, "there is no <policy>", fix, _policy_edits(subject))


@rule(
    "domain.policy.format", _E,
    "the policy is a hexadecimal number of up to 32 bits (SEV-SNP: 64) and nothing else",
    "libvirt domain_conf.c", mends=True,
)  # fmt: skip
def _policy_format(subject: Subject) -> Iterator[Violation]:
    element = subject.domain.place("launchSecurity/policy")
    if subject.domain.protection is None or element.name != "policy":
        return
    if subject.domain.policy is None:
        bare = element.text.strip()
        edits = _policy_edits(subject)
        if not edits and read_policy(bare, snp=subject.snp) is not None:
            edits = (subject.document.set_text(element, bare),)
        what = f"libvirt cannot read the policy {element.text[:40]!r}"
        fix = f"a hexadecimal number with nothing after it: {_EXAMPLES[subject.snp]}"
        yield Violation(element, what, fix, edits)


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


def _found(subject: Subject, message: str, fix: str) -> Iterator[Violation]:
    """Report the policy."""
    yield Violation(subject.domain.place("launchSecurity/policy"), message, fix)


def _sev_clear(subject: Subject, bit: PolicyBit) -> bool:
    """Return whether this is a policy of SEV or SEV-ES without a bit."""
    policy = subject.domain.policy
    return policy is not None and not subject.snp and bit not in PolicyBit(policy & 0x3F)


def _snp_policy(subject: Subject) -> "GuestPolicy | None":
    policy = subject.domain.policy
    if policy is None or not subject.snp:
        return None
    from sev_attest.snp.policy import GuestPolicy

    return GuestPolicy(policy)


@rule(
    "domain.policy.debug", _E, "the policy forbids debugging (bit 0; SEV-SNP: bit 19 is clear)",
    POLICIES,
)  # fmt: skip
def _debug(subject: Subject) -> Iterator[Violation]:
    message = "the policy lets the host read the guest's memory with the debug commands"
    policy = _snp_policy(subject)
    if policy is not None and policy.debug:
        yield from _found(subject, message, "a policy without bit 19 (debug)")
    if _sev_clear(subject, PolicyBit.NODBG):
        yield from _found(subject, message, "a session with bit 0 (no-debug) in its policy")


@rule("domain.policy.key-sharing", _W, "SEV's policy forbids key sharing (bit 1)", API)
def _key_sharing(subject: Subject) -> Iterator[Violation]:
    if _sev_clear(subject, PolicyBit.NOKS):
        yield from _found(
            subject,
            "the policy lets the host start another guest with the same memory key",
            "a session with bit 1 (no-key-sharing) in its policy",
        )


@rule("domain.policy.es", _W, "SEV's policy asks for SEV-ES (bit 2)", API)
def _no_es(subject: Subject) -> Iterator[Violation]:
    if _sev_clear(subject, PolicyBit.ES):
        yield from _found(
            subject,
            "plain SEV: the host sees and changes registers, and vCPUs are not measured",
            "a session with bit 2 (es) in its policy",
        )


@rule(
    "domain.policy.migration", _W, "SEV-SNP's policy allows no migration agent (bit 18 is clear)",
    SNP_API,
)  # fmt: skip
def _migration(subject: Subject) -> Iterator[Violation]:
    policy = _snp_policy(subject)
    if policy is not None and policy.migration_agent:
        yield from _found(
            subject,
            "the policy lets the host give the guest a migration agent, which can move it",
            "a policy without bit 18 (migrate-ma)",
        )


def _said(policy: int, bits: Iterable[int], meanings: Mapping[int, "Meaning"]) -> str:
    said = [meanings[bit] for bit in bits if policy & bit]
    return "; ".join(f"{meaning.name}: {meaning.when_set}" for meaning in said)


@rule(
    "domain.policy.permits", _I,
    "SEV-SNP's policy permits the host neither SMT nor CXL (bits 16 and 21 are clear)", SNP_API,
)  # fmt: skip
def _permits(subject: Subject) -> Iterator[Violation]:
    policy = _snp_policy(subject)
    if policy is None:
        return
    from sev_attest.snp.policy import PERMITS
    from sev_attest.snp.spec import PolicyBit as SnpBit

    # The other two have a rule of their own.
    said = _said(policy.value, PERMITS.keys() - {SnpBit.MIGRATE_MA, SnpBit.DEBUG}, PERMITS)
    if said:
        yield from _found(subject, said, "a policy without it, if your hosts do without it")


@rule(
    "domain.policy.demands", _I,
    "SEV-SNP's policy demands nothing of the host that it may lack (bits 20 and 22-25)", SNP_API,
)  # fmt: skip
def _demands(subject: Subject) -> Iterator[Violation]:
    policy = _snp_policy(subject)
    if policy is None:
        return
    from sev_attest.snp.policy import DEMANDS

    said = _said(policy.value, DEMANDS, DEMANDS)
    if said:
        fix = "nothing, if your hosts can do that: on others the guest does not start"
        yield from _found(subject, said, fix)


@rule(
    "domain.policy.reserved", _E,
    "the policy has no reserved bits (6-15; SEV-SNP: 26-63, and bit 17 is set)", POLICIES,
)  # fmt: skip
def _reserved(subject: Subject) -> Iterator[Violation]:
    reserved = (subject.domain.policy or 0) & RESERVED_POLICY
    policy = _snp_policy(subject)
    if policy is not None:
        from sev_attest.snp.spec import PolicyBit as SnpBit

        wrong = policy.reserved
        zero = wrong & ~int(SnpBit.RESERVED_ONE)
        if zero:
            fix = "a policy without reserved bits"
            yield from _found(subject, f"bits {zero:#x} of the policy are reserved", fix)
        if wrong & SnpBit.RESERVED_ONE:
            fix = f"for example {_EXAMPLES[True]}"
            message = "bit 17 (0x20000) of the policy is clear: firmware refuses it"
            yield from _found(subject, message, fix)
    elif reserved:
        yield from _found(
            subject,
            f"bits {reserved:#x} of the policy are reserved",
            "a session whose policy has no reserved bits",
        )


@rule(
    "domain.policy.differs", _E,
    "the policy is the session's, or the one given for an SEV-SNP guest (if one is known)",
    "AMD 55766, LAUNCH_START", mends=True,
)  # fmt: skip
def _other_policy(subject: Subject) -> Iterator[Violation]:
    policy, meant = subject.domain.policy, subject.meant_policy
    if policy is None or meant is None or policy == meant:
        return
    shown = _meant(subject)
    what = f"the session was made for policy {shown}: the firmware refuses another"
    fix = f"<policy>{shown}</policy>, or a session for this policy"
    if subject.snp:
        what, fix = f"the policy is not {shown}, as given", f"<policy>{shown}</policy>"
    element = subject.domain.place("launchSecurity/policy")
    yield Violation(element, what, fix, _policy_edits(subject))
