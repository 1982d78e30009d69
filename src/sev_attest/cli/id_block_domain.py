"""Whether a domain's XML starts a guest with an ID block.

Source: libvirt 11.3, formatdomain.html, "Launch Security", and its src/conf/domain_conf.c: the
policy is hex. Does not verify: the other parts of the domain, which `domain check` looks at.
"""

from collections.abc import Iterator
from contextlib import suppress

from sev_attest._encoding import from_base64
from sev_attest.domain_xml.domain import Domain, parse_domain, read_policy
from sev_attest.domain_xml.xml import Element
from sev_attest.errors import Failure, MalformedInput
from sev_attest.snp.id_block import IdAuth, IdBlock

CHECKS = {
    "snp.id-block.domain.type": "the domain is one of SEV-SNP",
    "snp.id-block.domain.block": "the domain has this ID block",
    "snp.id-block.domain.auth": "the domain has this ID auth",
    "snp.id-block.domain.author-key": "the domain enables the author key if there is one",
    "snp.id-block.domain.policy": "the domain's policy is the block's",
    "snp.id-block.domain.kernel-hashes": "a kernel that is booted directly is measured",
}
"""Every check id of a domain that is held against an ID block, and what it guarantees."""

TYPE = "snp.id-block.domain.type"
_REFUSED = "the platform would refuse the launch"


def domain_failures(data: bytes, block: IdBlock, auth: IdAuth) -> Iterator[Failure]:
    """Yield how a domain's XML differs from what a launch with this ID block needs.

    If it is no domain of SEV-SNP, that is the only failure. Raises MalformedInput.
    """
    domain = parse_domain(data)
    found = domain.root.find("launchSecurity")
    if found is None or found.get("type") != "sev-snp":
        words = "the domain has no <launchSecurity type='sev-snp'>"
        yield Failure(TYPE, words, "`sev-attest snp id-block build` prints one")
        return
    yield from _blob(found, "idBlock", "snp.id-block.domain.block", block.to_bytes())
    yield from _blob(found, "idAuth", "snp.id-block.domain.auth", auth.to_bytes())
    yield from _author_key(found, auth)
    yield from _policy(found, block)
    yield from _kernel(domain, found)


def _blob(parent: Element, name: str, check: str, expected: bytes) -> Iterator[Failure]:
    element = parent.find(name)
    if element is None:
        yield Failure(check, f"the domain has no <{name}>", "put it into <launchSecurity>")
        return
    with suppress(MalformedInput):  # libvirt takes anything; QEMU then refuses it
        if from_base64(element.text.encode(), name) == expected:
            return
    yield Failure(check, f"line {element.line}: <{name}> is another one", _REFUSED)


def _author_key(found: Element, auth: IdAuth) -> Iterator[Failure]:
    check = "snp.id-block.domain.author-key"
    enabled = found.get("authorKey") == "yes"
    if auth.author_key is not None and not enabled:
        hint = "without it, reports do not name the author key"
        yield Failure(check, "there is an author key, but no authorKey='yes'", hint)
    if auth.author_key is None and enabled:
        yield Failure(check, "authorKey='yes', but the ID auth has no author key", _REFUSED)


def _policy(found: Element, block: IdBlock) -> Iterator[Failure]:
    element = found.find("policy")
    policy = None if element is None else read_policy(element.text)
    if policy == int(block.policy):
        return
    said = "missing, or no known one in hex" if policy is None else f"{policy:#x}"
    words = f"the domain's policy is {said}, the ID block's {block.policy}"
    yield Failure("snp.id-block.domain.policy", words, _REFUSED)


def _kernel(domain: Domain, found: Element) -> Iterator[Failure]:
    if domain.kernel is not None and found.get("kernelHashes") != "yes":
        words = "the domain boots a kernel, which is not measured: no kernelHashes='yes'"
        hint = "the host can boot another kernel under the same ID block"
        yield Failure("snp.id-block.domain.kernel-hashes", words, hint)
