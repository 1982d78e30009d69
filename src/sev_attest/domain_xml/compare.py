"""Whether two domains differ in more than their session."""

from sev_attest.domain_xml.domain import Domain
from sev_attest.domain_xml.xml import Element

_SESSION = ("launchSecurity",)


def same_but_session(one: Domain, other: Domain) -> bool:
    """Return whether two domains have the same XML, except for ``<launchSecurity>``.

    Comments, the order of attributes and blanks around text do not count; the id of a domain that
    runs does not either. Everything else counts, also what libvirt would read as the same: MiB and
    KiB, for one.
    """
    return _shape(one.root, _SESSION, ("id",)) == _shape(other.root, _SESSION, ("id",))


def _shape(
    element: Element, without: tuple[str, ...] = (), unsaid: tuple[str, ...] = ()
) -> tuple[object, ...]:
    """Return what counts of an element, without these elements in it and these attributes."""
    text = "".join(part for part in element.content if isinstance(part, str))
    attributes = {name: each for name, each in element.attributes.items() if name not in unsaid}
    inner = [_shape(child) for child in element.children if child.name not in without]
    return element.name, attributes, text.strip(), inner
