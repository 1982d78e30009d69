"""Rules for the session in ``<launchSecurity>``: dhCert, session and kernelHashes."""

from collections.abc import Iterator

from sev_attest._encoding import from_base64
from sev_attest.domain_xml.launch_security import BLOB_SIZES
from sev_attest.domain_xml.rule import GUIDE, VALIDATE, Severity, Subject, Violation, rule
from sev_attest.domain_xml.xml import Edit, Element
from sev_attest.errors import MalformedInput

_E, _W, _I = Severity


def _blob_edits(subject: Subject, name: str) -> tuple[Edit, ...]:
    """Return the edits that put dhCert or session in; none if no session is to be put in."""
    security = subject.domain.launch_security
    value = {"dhCert": subject.godh, "session": subject.blob}[name]
    if security is None or value is None:
        return ()
    element = security.find(name)
    if element is None:
        return (subject.document.append(security, f"<{name}>{value}</{name}>"),)
    return (subject.document.set_text(element, value),)


def _blobs(subject: Subject) -> list[tuple[str, Element]]:
    """Return name and element of dhCert and session, unless they are empty."""
    security = subject.domain.launch_security
    found = [(name, security.find(name)) for name in BLOB_SIZES] if security else []
    return [(name, one) for name, one in found if one is not None and one.text.strip()]


def _decoded(element: Element) -> bytes | None:
    try:
        return from_base64(element.text.encode(), element.name)
    except MalformedInput:
        return None


@rule("domain.session.missing", _E, "there are a dhCert and a session", VALIDATE, mends=True)
def _no_session(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.launch_security
    if security is None:
        return
    there = [name for name, _ in _blobs(subject)]
    for name in (name for name in BLOB_SIZES if name not in there):
        yield Violation(
            security.find(name) or security,
            f"no <{name}>: without the session there is no key to check the measurement with",
            f"the <{name}> of a session",
            _blob_edits(subject, name),
        )


@rule("domain.session.base64", _E, "dhCert and session are base64", "libvirt, QEMU", mends=True)
def _not_base64(subject: Subject) -> Iterator[Violation]:
    for name, element in _blobs(subject):
        if _decoded(element) is None:
            what = f"<{name}> is not base64; libvirt passes it on unchanged"
            fix = f"the <{name}> of a session"
            yield Violation(element, what, fix, _blob_edits(subject, name))


def _swapped(subject: Subject) -> bool:
    """Return whether dhCert has the size of a session, and session that of a dhCert."""
    sizes = {name: len(_decoded(element) or b"") for name, element in _blobs(subject)}
    return sizes == {"dhCert": BLOB_SIZES["session"], "session": BLOB_SIZES["dhCert"]}


@rule("domain.session.swapped", _E, "dhCert and session are not swapped", "AMD 55766", mends=True)
def _swapped_blobs(subject: Subject) -> Iterator[Violation]:
    if not _swapped(subject):
        return
    (_, first), (_, second) = _blobs(subject)
    edits = [*_blob_edits(subject, "dhCert"), *_blob_edits(subject, "session")]
    if not edits:
        texts = ((first, second.text), (second, first.text))
        edits = [subject.document.set_text(one, text.strip()) for one, text in texts]
    yield Violation(
        first,
        "<dhCert> and <session> are swapped: each has the size of the other",
        "swap their contents",
        tuple(edits),
    )


@rule(
    "domain.session.length", _E,
    f"dhCert is {BLOB_SIZES['dhCert']} bytes, session {BLOB_SIZES['session']} bytes",
    "AMD 55766", mends=True,
)  # fmt: skip
def _length(subject: Subject) -> Iterator[Violation]:
    for name, element in () if _swapped(subject) else _blobs(subject):
        data = _decoded(element)
        if data is not None and len(data) != BLOB_SIZES[name]:
            what = f"<{name}> is {len(data)} bytes (decoded), expected {BLOB_SIZES[name]}"
            fix = f"the <{name}> of a session"
            yield Violation(element, what, fix, _blob_edits(subject, name))


@rule(
    "domain.session.differs", _E, "dhCert and session are the session's (if a session is known)",
    VALIDATE, mends=True,
)  # fmt: skip
def _other_session(subject: Subject) -> Iterator[Violation]:
    if subject.record is None:
        return
    from hashlib import sha256

    recorded = {"dhCert": subject.record.godh_sha256, "session": subject.record.session_sha256}
    for name, element in _blobs(subject):
        data = _decoded(element)
        if data is None or len(data) != BLOB_SIZES[name]:
            continue
        if sha256(data).hexdigest() != recorded[name]:
            what = f"<{name}> is not that of the session {subject.record.name}"
            yield Violation(element, what, "both of the same session", _blob_edits(subject, name))


@rule("domain.session.reused", _E, "the session was not used for another launch", GUIDE)
def _reused(subject: Subject) -> Iterator[Violation]:
    if subject.used is None:
        return
    from hashlib import sha256

    for name, element in _blobs(subject):
        data = _decoded(element)
        if name != "session" or data is None:
            continue
        state = subject.used(sha256(data).hexdigest())
        if state is not None:
            yield Violation(
                element,
                f"this session was used already: {state}",
                "a new session: each is for one launch only",
            )


@rule(
    "domain.kernel-hashes.differs", _E,
    "kernelHashes is as the session was made (if a session is known; I if only the XML has it)",
    VALIDATE, mends=True,
)  # fmt: skip
def _other_hashes(subject: Subject) -> Iterator[Violation]:
    security, record = subject.domain.launch_security, subject.record
    if security is None or record is None or record.kernel_hashes == subject.domain.kernel_hashes:
        return
    if record.kernel_hashes:
        yield Violation(
            security,
            "the session was made for kernel hashes, and the XML does not ask for them",
            "kernelHashes='yes', and a <kernel> in <os>",
            (subject.document.set_attribute(security, "kernelHashes", "yes"),),
        )
    else:
        what = "the XML asks for kernel hashes, and the session was made without them"
        yield Violation(security, what, "a session that is made for kernel hashes", severity=_I)
