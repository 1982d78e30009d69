"""Rules for ``<launchSecurity>``, for what the host must be, and for values that mean nothing."""

import hashlib
from collections.abc import Iterator

from sev_attest._encoding import from_base64
from sev_attest.domain_xml.domain import VIRTIO, number, read_policy, size
from sev_attest.domain_xml.lint import (
    API,
    GUIDE,
    LIBVIRT,
    QEMU,
    VALIDATE,
    Found,
    Rule,
    Severity,
    Subject,
    Version,
    before,
    dotted,
    rule,
)
from sev_attest.domain_xml.xml import Edit, Element
from sev_attest.errors import MalformedInput
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.spec import PolicyBit

RULES: list[Rule] = []
_E, _W, _I = Severity
_MAX_REDUCED = 63
_FIRST: dict[str, Version] = {"libvirt": (4, 5), "QEMU": (2, 12)}
"""The first version with SEV; if nothing later is needed, nothing is said."""
_BLOBS = {"dhCert": 2084, "session": 128}
"""What the session's elements hold, in bytes."""


@rule(RULES, "domain.launch-security.missing", _E, "there is a <launchSecurity>", GUIDE, mends=True)
def _missing(subject: Subject) -> Iterator[Found]:
    root = subject.domain.root
    if root.find("launchSecurity") is not None:
        return
    edits: tuple[Edit, ...] = ()
    if subject.record is not None and subject.godh is not None:
        hashes = " kernelHashes='yes'" if subject.record.kernel_hashes else ""
        lines = [
            f"<launchSecurity type='sev'{hashes}>",
            f"  <policy>{GuestPolicy(subject.record.policy)}</policy>",
            f"  <dhCert>{subject.godh}</dhCert>",
            f"  <session>{subject.blob}</session>",
            "</launchSecurity>",
        ]
        edits = (subject.document.append(root, "\n".join(lines)),)
    yield Found(
        root,
        "there is no <launchSecurity>: the host can read all of the guest's memory",
        "the element that `sev-attest session` prints (`domain prepare --session NAME` puts it in)",
        edits,
    )


@rule(RULES, "domain.launch-security.type", _E, "<launchSecurity> is of type sev", LIBVIRT)
def _type(subject: Subject) -> Iterator[Found]:
    element = subject.domain.root.find("launchSecurity")
    if element is not None and subject.domain.security is None:
        what = f"type {element.get('type') or 'missing'}: only SEV and SEV-ES guests are checked"
        yield Found(element, what, "type='sev' (the policy tells SEV-ES from SEV)")


# the policy


def _recorded(subject: Subject) -> str | None:
    return str(GuestPolicy(subject.record.policy)) if subject.record else None


def _policy_edits(subject: Subject) -> tuple[Edit, ...]:
    """Put the record's policy in, for those who want the session put in."""
    security, recorded = subject.domain.security, _recorded(subject)
    if security is None or recorded is None or subject.godh is None:
        return ()
    element = security.find("policy")
    if element is None:
        return (subject.document.append(security, f"<policy>{recorded}</policy>"),)
    return (subject.document.set_text(element, recorded),)


@rule(RULES, "domain.policy.missing", _E, "there is a <policy>", LIBVIRT, mends=True)
def _no_policy(subject: Subject) -> Iterator[Found]:
    security = subject.domain.security
    if security is not None and security.find("policy") is None:
        fix = f"<policy>{_recorded(subject) or '0x0007'}</policy>"
        yield Found(security, "there is no <policy>", fix, _policy_edits(subject))


@rule(
    RULES, "domain.policy.format", _E, "the policy is a hexadecimal number of 32 bits, no more",
    "libvirt domain_conf.c", mends=True,
)  # fmt: skip
def _policy_format(subject: Subject) -> Iterator[Found]:
    element = subject.domain.place("launchSecurity/policy")
    if subject.domain.security is None or element.name != "policy":
        return
    if subject.domain.policy is None:
        bare = element.text.strip()
        edits = _policy_edits(subject)
        if not edits and read_policy(bare) is not None:
            edits = (subject.document.set_text(element, bare),)
        what = f"libvirt reads no policy in {element.text[:40]!r}"
        yield Found(element, what, "a hexadecimal number with nothing behind it: 0x5", edits)


@rule(
    RULES, "domain.policy.decimal", _W, "the policy has 0x before it where it could be decimal",
    "libvirt domain_conf.c", mends=True,
)  # fmt: skip
def _decimal(subject: Subject) -> Iterator[Found]:
    element, policy = subject.domain.place("launchSecurity/policy"), subject.domain.policy
    text = element.text.strip()
    decimal = number(text)
    if policy is not None and decimal not in (None, policy):
        yield Found(
            element,
            f"libvirt reads {text} as hexadecimal: policy {policy:#x}, decimal {policy}",
            f"{policy:#x}, if that is meant; {decimal:#x} for decimal {text}",
            (subject.document.set_text(element, f"{policy:#x}"),),
        )


def _policy_finding(subject: Subject, *, bad: bool, message: str, fix: str) -> Iterator[Found]:
    """Report a policy that is there, if it is bad."""
    if bad and subject.domain.policy is not None:
        yield Found(subject.domain.place("launchSecurity/policy"), message, fix)


def _clear(subject: Subject, bit: PolicyBit) -> bool:
    return bit not in PolicyBit((subject.domain.policy or 0) & 0x3F)


@rule(RULES, "domain.policy.debug", _E, "the policy forbids debugging (bit 0)", API)
def _debug(subject: Subject) -> Iterator[Found]:
    return _policy_finding(
        subject,
        bad=_clear(subject, PolicyBit.NODBG),
        message="the policy lets the host read the guest's memory with the debug commands",
        fix="a session with bit 0 (no-debug) in its policy",
    )


@rule(RULES, "domain.policy.key-sharing", _W, "the policy forbids key sharing (bit 1)", API)
def _key_sharing(subject: Subject) -> Iterator[Found]:
    return _policy_finding(
        subject,
        bad=_clear(subject, PolicyBit.NOKS),
        message="the policy lets the host start another guest with the same memory key",
        fix="a session with bit 1 (no-key-sharing) in its policy",
    )


@rule(RULES, "domain.policy.es", _W, "the policy asks for SEV-ES (bit 2)", API)
def _no_es(subject: Subject) -> Iterator[Found]:
    return _policy_finding(
        subject,
        bad=_clear(subject, PolicyBit.ES),
        message="plain SEV: the host sees and changes registers, and vCPUs are not measured",
        fix="a session with bit 2 (es) in its policy",
    )


@rule(RULES, "domain.policy.reserved", _E, "the policy has no reserved bits (6-15)", API)
def _reserved(subject: Subject) -> Iterator[Found]:
    reserved = GuestPolicy(subject.domain.policy or 0).reserved
    return _policy_finding(
        subject,
        bad=bool(reserved),
        message=f"bits {reserved:#x} of the policy are reserved",
        fix="a session with a policy that firmware defines",
    )


@rule(
    RULES, "domain.policy.differs", _E, "the policy is the session's (--session)",
    "AMD 55766, LAUNCH_START", mends=True,
)  # fmt: skip
def _other_policy(subject: Subject) -> Iterator[Found]:
    policy = subject.domain.policy
    recorded = subject.record.policy if subject.record else None
    if policy is None or recorded is None or policy == recorded:
        return
    yield Found(
        subject.domain.place("launchSecurity/policy"),
        f"the session was made for policy {_recorded(subject)}: the firmware refuses another",
        f"<policy>{_recorded(subject)}</policy>, or a session for this policy",
        _policy_edits(subject),
    )


# the session


def _blob_edits(subject: Subject, name: str) -> tuple[Edit, ...]:
    security, value = (
        subject.domain.security,
        {"dhCert": subject.godh, "session": subject.blob}[name],
    )
    if security is None or value is None:
        return ()
    element = security.find(name)
    if element is None:
        return (subject.document.append(security, f"<{name}>{value}</{name}>"),)
    return (subject.document.set_text(element, value),)


def _blobs(subject: Subject) -> Iterator[tuple[str, Element]]:
    """List the session's elements that have something in them."""
    for name in _BLOBS:
        for element in subject.domain.security.all(name) if subject.domain.security else ():
            if element.text.strip():
                yield name, element


def _decoded(element: Element) -> bytes | None:
    try:
        return from_base64(element.text.encode(), element.name)
    except MalformedInput:
        return None


@rule(
    RULES, "domain.session.missing", _E, "dhCert and session are there, both", VALIDATE, mends=True
)
def _no_session(subject: Subject) -> Iterator[Found]:
    security = subject.domain.security
    if security is None:
        return
    there = [name for name, _ in _blobs(subject)]
    for name in (name for name in _BLOBS if name not in there):
        yield Found(
            security.find(name) or security,
            f"no <{name}>: without the session there is no key to check the measurement with",
            f"the <{name}> that `sev-attest session` prints",
            _blob_edits(subject, name),
        )


@rule(
    RULES, "domain.session.base64", _E, "dhCert and session are base64", "libvirt, QEMU", mends=True
)
def _not_base64(subject: Subject) -> Iterator[Found]:
    for name, element in _blobs(subject):
        if _decoded(element) is None:
            what = f"<{name}> is not base64; libvirt passes it on as it is"
            fix = f"what is in NAME_{'godh' if name == 'dhCert' else name}.b64"
            yield Found(element, what, fix, _blob_edits(subject, name))


def _swapped(subject: Subject) -> bool:
    """Return whether dhCert and session are in each other's place, by their sizes."""
    sizes = {name: len(_decoded(element) or b"") for name, element in _blobs(subject)}
    return sizes == {"dhCert": _BLOBS["session"], "session": _BLOBS["dhCert"]}


@rule(
    RULES, "domain.session.swapped", _E, "dhCert and session are not in each other's place",
    "AMD 55766", mends=True,
)  # fmt: skip
def _in_each_other_s_place(subject: Subject) -> Iterator[Found]:
    if not _swapped(subject):
        return
    (_, first), (_, second) = _blobs(subject)
    edits = [*_blob_edits(subject, "dhCert"), *_blob_edits(subject, "session")]
    if not edits:
        texts = ((first, second.text), (second, first.text))
        edits = [subject.document.set_text(one, text.strip()) for one, text in texts]
    yield Found(
        first,
        "<dhCert> and <session> are in each other's place: each has the other's size",
        "swap what is in them",
        tuple(edits),
    )


@rule(
    RULES,
    "domain.session.length",
    _E,
    "dhCert is 2084 bytes, session 128 bytes",
    "AMD 55766",
    mends=True,
)
def _length(subject: Subject) -> Iterator[Found]:
    for name, element in () if _swapped(subject) else _blobs(subject):
        data = _decoded(element)
        if data is not None and len(data) != _BLOBS[name]:
            what = f"<{name}> is {len(data)} bytes (decoded), expected {_BLOBS[name]}"
            fix = f"what is in NAME_{'godh' if name == 'dhCert' else name}.b64"
            yield Found(element, what, fix, _blob_edits(subject, name))


@rule(
    RULES, "domain.session.differs", _E, "dhCert and session are the session's (--session)",
    VALIDATE, mends=True,
)  # fmt: skip
def _other_session(subject: Subject) -> Iterator[Found]:
    if subject.record is None:
        return
    recorded = {"dhCert": subject.record.godh_sha256, "session": subject.record.session_sha256}
    for name, element in _blobs(subject):
        data = _decoded(element)
        if data is None or len(data) != _BLOBS[name]:
            continue
        if hashlib.sha256(data).hexdigest() != recorded[name]:
            what = f"<{name}> is not that of the session {subject.record.name}"
            yield Found(element, what, "that of one session, in both", _blob_edits(subject, name))


@rule(RULES, "domain.session.reused", _E, "the session was used for no other launch", GUIDE)
def _reused(subject: Subject) -> Iterator[Found]:
    for name, element in _blobs(subject):
        data = _decoded(element)
        if subject.used is None or name != "session" or data is None:
            continue
        state = subject.used(hashlib.sha256(data).hexdigest())
        if state is not None:
            yield Found(
                element,
                f"this session was used already: {state}",
                "a new one for each launch: `sev-attest session`, then `domain prepare`",
            )


@rule(
    RULES, "domain.kernel-hashes.differs", _E,
    "kernelHashes is what the session was made with (--session; I if it is more)", VALIDATE,
    mends=True,
)  # fmt: skip
def _other_hashes(subject: Subject) -> Iterator[Found]:
    security, record = subject.domain.security, subject.record
    if security is None or record is None or record.kernel_hashes == subject.domain.kernel_hashes:
        return
    if record.kernel_hashes:
        yield Found(
            security,
            "the session was made with --kernel-hashes, and the XML asks for none",
            "kernelHashes='yes', and a <kernel> in <os>",
            (subject.document.set_attribute(security, "kernelHashes", "yes"),),
        )
    else:
        what = "the record of the session knows of no kernel hashes: `validate` will say so"
        yield Found(security, what, "`sev-attest session --kernel-hashes`", severity=_I)


# the rest of <launchSecurity>


@rule(
    RULES, "domain.launch-security.handle", _W, "no <handle>: that asks for key sharing", LIBVIRT,
    mends=True,
)  # fmt: skip
def _handle(subject: Subject) -> Iterator[Found]:
    for element in subject.domain.security.all("handle") if subject.domain.security else ():
        edit = subject.document.remove(element)
        yield Found(element, "a <handle>: libvirt passes over it", "no <handle>", (edit,))


@rule(
    RULES, "domain.launch-security.cbitpos", _E,
    "cbitpos is the host's (--capabilities; I without: libvirt fills it in itself)", QEMU,
    mends=True,
)  # fmt: skip
def _cbitpos(subject: Subject) -> Iterator[Found]:
    security, host = subject.domain.security, subject.capabilities
    element = None if security is None else security.find("cbitpos")
    if element is None or (host and host.cbitpos and number(element.text) == host.cbitpos):
        return
    what = (
        "cbitpos depends on the host's CPU (47 up to Rome, 51 from Milan on); QEMU refuses another"
    )
    severity = _I
    if host and host.cbitpos:
        what, severity = f"cbitpos must be {host.cbitpos} on this host", _E
    if number(element.text) is None:
        what, severity = "cbitpos is no number", _E
    fix = "leave it out: libvirt fills it in"
    yield Found(element, what, fix, (subject.document.remove(element),), severity)


@rule(
    RULES, "domain.launch-security.reduced-phys-bits", _E, "reducedPhysBits is in 1..63", QEMU,
    mends=True,
)  # fmt: skip
def _reduced(subject: Subject) -> Iterator[Found]:
    security = subject.domain.security
    element = None if security is None else security.find("reducedPhysBits")
    if element is not None and not 1 <= (number(element.text) or 0) <= _MAX_REDUCED:
        edit = subject.document.remove(element)
        what = f"reducedPhysBits is not in 1..{_MAX_REDUCED}"
        yield Found(element, what, "leave it out: libvirt fills it in", (edit,))


# the host


@rule(
    RULES, "domain.libvirt", _E,
    "libvirt is new enough for what the XML asks for (--libvirt; I without)", "libvirt NEWS",
)  # fmt: skip
def _libvirt(subject: Subject) -> Iterator[Found]:
    domain = subject.domain
    loader = domain.root.find("os/loader")
    needs: list[tuple[Version, str]] = [(_FIRST["libvirt"], "SEV")]
    if any(device.model.endswith("-transitional") for device in domain.virtio):
        needs.append(((5, 2), "virtio-non-transitional"))
    if domain.kernel_hashes:
        needs.append(((8, 0), "kernelHashes"))
    if domain.place("os").get("firmware"):
        needs.append(((5, 2), "firmware='efi'"))
    if loader is not None and loader.get("stateless"):
        needs.append(((8, 6), "a stateless loader"))
    if loader is not None and loader.get("format") == "qcow2":
        needs.append(((9, 2), "a loader in qcow2"))
    if _snp(subject):
        needs.append(((10, 5), "SEV-SNP"))
    if domain.root.find("os/shim") is not None:
        needs.append(((11, 2), "<shim>"))
    return _needs(subject, "libvirt", subject.versions.libvirt, needs)


@rule(
    RULES, "domain.qemu", _E, "QEMU is new enough for what the XML asks for (--qemu; I without)",
    "QEMU qapi/qom.json",
)  # fmt: skip
def _qemu(subject: Subject) -> Iterator[Found]:
    needs: list[tuple[Version, str]] = [(_FIRST["QEMU"], "SEV")]
    drivers = [device.element.find("driver") for device in subject.domain.virtio]
    if subject.versions.qemu is None and any(d is None or not d.get("iommu") for d in drivers):
        needs.append(((6, 0), "virtio without <driver iommu='on'/>"))
    if subject.domain.kernel_hashes:
        needs.append(((6, 2), "kernelHashes"))
    if _snp(subject):
        needs.append(((9, 1), "SEV-SNP"))
    return _needs(subject, "QEMU", subject.versions.qemu, needs)


def _snp(subject: Subject) -> bool:
    return subject.domain.place("launchSecurity").get("type") == "sev-snp"


def _needs(
    subject: Subject, program: str, version: Version | None, needs: list[tuple[Version, str]]
) -> Iterator[Found]:
    missed = [need for need in needs if before(version, need[0])]
    least, feature = max(missed or needs)
    what = f"{feature} takes {program} {dotted(least)} or later"
    fix = f"a newer {program}"
    if version is None:
        if least > _FIRST[program]:
            yield Found(subject.domain.root, what, f"--{program.lower()} tells", severity=_I)
    elif missed:
        yield Found(subject.domain.root, f"{what}, not {dotted(version)}", fix)


@rule(RULES, "domain.libvirt.dev-sev", _I, "QEMU can open /dev/sev (libvirt up to 5.1.0)", GUIDE)
def _dev_sev(subject: Subject) -> Iterator[Found]:
    if before(subject.versions.libvirt, (5, 1, 1)):
        yield Found(
            subject.domain.root,
            "libvirt up to 5.1.0 does not let QEMU open /dev/sev while it looks for SEV",
            "a newer libvirt, or other permissions on /dev/sev",
        )


@rule(
    RULES, "domain.host", _E, "the host offers what the policy asks for (--capabilities)",
    "libvirt domcapabilities",
)  # fmt: skip
def _host(subject: Subject) -> Iterator[Found]:
    host = subject.capabilities
    if host is None or subject.domain.security is None:
        return
    if host.obstacles():
        what = "this host does not offer SEV (`sev-attest domain capabilities` says why)"
        yield Found(subject.domain.security, host.foreign or what, "another host")
    elif subject.es and not host.es:
        what = "this host takes no SEV-ES guests"
        yield Found(subject.domain.security, what, "another host, or plain SEV")
    elif not subject.es and not host.sev:
        what = "this host takes SEV-ES guests alone"
        yield Found(subject.domain.security, what, "a session with bit 2 (es) in its policy")


# values that mean nothing

_YES_NO = ("yes", "no")
_ON_OFF = ("on", "off")
_VALUES = (
    ("launchSecurity", "kernelHashes", _YES_NO),
    ("os", "firmware", ("efi", "bios")),
    ("os/firmware/feature", "enabled", _YES_NO),
    ("os/loader", "stateless", _YES_NO),
    ("os/loader", "secure", _YES_NO),
    ("os/loader", "readonly", _YES_NO),
    ("os/loader", "type", ("rom", "pflash")),
    ("os/loader", "format", ("raw", "qcow2")),
    ("os/firmware/feature", "name", ("secure-boot", "enrolled-keys")),
    ("os/boot", "dev", ("hd", "network", "cdrom", "fd")),
    ("os/bootmenu", "enable", _YES_NO),
    ("features/smm", "state", _ON_OFF),
    ("features/vmport", "state", _ON_OFF),
    ("pm/suspend-to-mem", "enabled", _YES_NO),
    ("pm/suspend-to-disk", "enabled", _YES_NO),
    ("devices/interface/rom", "enabled", _YES_NO),
    *((f"devices/{name}/driver", "iommu", _ON_OFF) for name in VIRTIO),
)  # fmt: skip
"""Attributes that take one of a few words, and which."""
_REQUIRED = (
    ("os/firmware/feature", "name"),
    ("os/firmware/feature", "enabled"),
    ("os/boot", "dev"),
)
"""Attributes that libvirt takes no element without."""
_SIZES = ("memory", "currentMemory", "memtune/hard_limit")


@rule(RULES, "domain.value", _E, "values are ones that libvirt knows", "libvirt schema")
def _value(subject: Subject) -> Iterator[Found]:
    root = subject.domain.root
    yield from _absent(root)
    for path, attribute, known in _VALUES:
        for element in [*root.all(path)]:
            value = element.get(attribute)
            if value is not None and value not in known:
                what = f"{attribute}={value[:40]!r} is none of {', '.join(known)}"
                yield Found(element, what, f"{attribute}='{known[0]}' or '{known[1]}'")
    for path in _SIZES:
        for element in root.all(path):
            if size(element) is None:
                yield Found(element, f"<{element.name}> is no amount of memory", "unit='KiB', say")
    for vcpu in root.all("vcpu"):
        if None in (number(vcpu.text), number(vcpu.get("current") or "1")):
            yield Found(vcpu, "<vcpu> is no number", "<vcpu>4</vcpu>, say")


def _absent(root: Element) -> Iterator[Found]:
    for path, attribute in _REQUIRED:
        for element in root.all(path):
            if element.get(attribute) is None:
                what = f"<{element.name}> without {attribute}=: libvirt refuses it"
                yield Found(element, what, f"<{element.name} {attribute}=...>")
