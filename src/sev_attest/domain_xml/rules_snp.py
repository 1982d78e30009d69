"""Rules for what only SEV-SNP's ``<launchSecurity>`` has: ID block, ID authentication, keys."""

import re
from collections.abc import Iterator

from sev_attest._encoding import from_base64, to_base64
from sev_attest.domain_xml.launch_security import SNP_BLOB_SIZES, has_author_key, id_block_policy
from sev_attest.domain_xml.rule import LIBVIRT, Severity, Subject, Violation, rule
from sev_attest.domain_xml.xml import Edit, Element
from sev_attest.errors import MalformedInput

_E, _W, _I = Severity
_ID = "AMD 56860, SNP_LAUNCH_FINISH"
_QEMU_BASE64 = re.compile(r"[A-Za-z0-9+/=\n]*")
"""Characters that QEMU allows (util/base64.c): no blank, so no indented text."""


def _blobs(subject: Subject) -> Iterator[tuple[str, Element]]:
    """Yield name and element of every blob in an SEV-SNP element."""
    security = subject.domain.snp
    for name in SNP_BLOB_SIZES if security is not None else ():
        element = security and security.find(name)
        if element is not None:
            yield name, element


def _decoded(element: Element) -> bytes | None:
    try:
        return from_base64(element.text.encode(), element.name)
    except MalformedInput:
        return None


def _blob(subject: Subject, name: str) -> bytes | None:
    """Return a blob in the XML if it is there and has its size."""
    found = dict(_blobs(subject)).get(name)
    data = None if found is None else _decoded(found)
    return None if data is None or len(data) != SNP_BLOB_SIZES[name] else data


def _padded(element: Element) -> bool:
    """Return whether base64 has blanks that QEMU refuses."""
    return not _QEMU_BASE64.fullmatch(element.text)


def _given(subject: Subject, name: str) -> bool:
    """Return whether a blob is to be put in."""
    return subject.launch is not None and name in subject.launch.blobs


@rule(
    "domain.snp.base64", _E,
    "idBlock, idAuth, hostData and guestVisibleWorkarounds are base64 without blanks",
    "QEMU util/base64.c", mends=True,
)  # fmt: skip
def _not_base64(subject: Subject) -> Iterator[Violation]:
    for name, element in _blobs(subject):
        data = _decoded(element)
        if data is None:
            what = f"<{name}> is not base64; libvirt passes it on unchanged"
            yield Violation(element, what, f"{SNP_BLOB_SIZES[name]} bytes in base64")
        elif _padded(element) and not _given(subject, name):
            what = f"<{name}> has blanks in its base64: QEMU refuses it"
            edit = subject.document.set_text(element, to_base64(data))
            yield Violation(element, what, "the base64 without blanks", (edit,))


@rule(
    "domain.snp.length", _E,
    ", ".join(f"{name} is {size} bytes" for name, size in SNP_BLOB_SIZES.items()),
    "QEMU target/i386/sev.c; libvirt 11.3, run",
)  # fmt: skip
def _length(subject: Subject) -> Iterator[Violation]:
    for name, element in _blobs(subject):
        data, size = _decoded(element), SNP_BLOB_SIZES[name]
        if data is not None and len(data) != size:
            what = f"<{name}> is {len(data)} bytes (decoded), expected {size}"
            yield Violation(element, what, f"{size} bytes in base64")


@rule("domain.snp.id-pair", _E, "there are both idBlock and idAuth, or neither", _ID)
def _pair(subject: Subject) -> Iterator[Violation]:
    found = dict(_blobs(subject))
    block, auth = found.get("idBlock"), found.get("idAuth")
    if _given(subject, "idBlock"):
        return
    if block is not None and auth is None:
        what = "an <idBlock> without an <idAuth>: the firmware refuses the launch"
        yield Violation(block, what, "the <idAuth> that was made with it")
    if auth is not None and block is None:
        what = "an <idAuth> without an <idBlock>: nothing checks it, and no report names its keys"
        yield Violation(auth, what, "the <idBlock> that it signs")


@rule("domain.snp.id-policy", _E, "the policy is that of the ID block", _ID)
def _approved_policy(subject: Subject) -> Iterator[Violation]:
    block, policy = _blob(subject, "idBlock"), subject.domain.policy
    if block is None or policy is None or _given(subject, "idBlock"):
        return
    approved = id_block_policy(block)
    if approved != policy:
        shown = f"{approved:#x}"
        yield Violation(
            subject.domain.place("launchSecurity/policy"),
            f"the ID block approves policy {shown}: the firmware refuses to launch with another",
            f"<policy>{shown}</policy>, or an ID block for this policy",
        )


@rule(
    "domain.snp.author-key", _E,
    "authorKey='yes' if idAuth has an author key (W if it has one and authorKey is not 'yes')",
    LIBVIRT, mends=True,
)  # fmt: skip
def _author_key(subject: Subject) -> Iterator[Violation]:
    security, launch = subject.domain.snp, subject.launch
    if security is None:
        return
    given = launch is not None and launch.id_auth is not None
    auth = launch.id_auth if launch is not None and given else _blob(subject, "idAuth")
    there, asked = auth is not None and has_author_key(auth), security.get("authorKey") == "yes"
    if asked and not there:
        edit = subject.document.remove_attribute(security, "authorKey")
        what = "authorKey='yes', and there is no <idAuth> with an author key"
        yield Violation(security, what, "no authorKey=, or an <idAuth> with one", (edit,))
    elif there and not asked:
        edit = subject.document.set_attribute(security, "authorKey", "yes")
        what = "<idAuth> has an author key, which is not used without authorKey='yes'"
        yield Violation(security, what, "authorKey='yes'", (edit,), _E if given else _W)


@rule("domain.snp.vcek", _I, "reports are signed by the chip's own key: no vcek='no'", LIBVIRT)
def _vcek(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.snp
    if security is not None and security.get("vcek") == "no":
        yield Violation(
            security,
            "vcek='no' turns the VCEK off: the guest gets a report only if its host has a VLEK",
            "nothing, if its host has a VLEK and you accept its provider's",
        )


@rule(
    "domain.snp.differs", _E,
    "idBlock, idAuth, hostData and kernelHashes are as given (if any are)",
    LIBVIRT, mends=True,
)  # fmt: skip
def _other(subject: Subject) -> Iterator[Violation]:
    security, launch = subject.domain.snp, subject.launch
    if security is None or launch is None:
        return
    for name, data in launch.blobs.items():
        element = security.find(name)
        if element is None or _decoded(element) != data or _padded(element):
            what = f"<{name}> is not the one that was given"
            edit = _put(subject, security, name, to_base64(data))
            yield Violation(element or security, what, f"<{name}> as given", (edit,))
    if launch.kernel_hashes and not subject.domain.kernel_hashes:
        edit = subject.document.set_attribute(security, "kernelHashes", "yes")
        what = "the XML does not ask for kernel hashes"
        yield Violation(security, what, "kernelHashes='yes', and a <kernel> in <os>", (edit,))


def _put(subject: Subject, security: Element, name: str, text: str) -> Edit:
    element = security.find(name)
    if element is None:
        return subject.document.append(security, f"<{name}>{text}</{name}>")
    return subject.document.set_text(element, text)
