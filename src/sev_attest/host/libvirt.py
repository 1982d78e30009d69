"""A connection to libvirt (extra ``libvirt``).

Source: libvirt's API (include/libvirt/libvirt-domain.h, libvirt-host.h) and domain XML.
"""

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sev_attest.domain_xml.versions import Version, Versions
from sev_attest.domain_xml.xml import Document, Element
from sev_attest.errors import MalformedInput, SevAttestError, Unsupported, WrongState
from sev_attest.host.connection import HostError
from sev_attest.host.libvirt_domain import LibvirtDomain, LibvirtGuest, NotOffered
from sev_attest.host.limits import UNREADABLE, call_within, excerpt, within_limit
from sev_attest.host.place import leads_here, named_here, public, shown

Value = TypeVar("Value")

_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_ID = re.compile(r"[0-9]{1,9}")
_GRACE = 1.0
"""Seconds that disconnecting may take."""


def _module() -> Any:
    """Return libvirt-python. Raises Unsupported if it is not installed."""
    try:
        import libvirt
    except ImportError:
        raise Unsupported(
            "libvirt-python is not installed",
            check="extra.libvirt",
            hint="`pip install '.[libvirt]'` in sev-attest's folder installs it; "
            "with Debian's package of sev-attest, `apt-get install python3-libvirt`",
        ) from None
    # By default it prints every error, besides raising it.
    libvirt.registerErrorHandler(lambda *_error: None, None)
    return libvirt


class LibvirtConnection:
    """A connection to libvirt. Every call may take ``timeout`` seconds."""

    def __init__(self, uri: str, timeout: float) -> None:
        """Connect. Raises HostError, and Unsupported if libvirt-python is not installed."""
        self._libvirt: Any = _module()
        self._timeout = timeout
        self._end: float | None = None
        self._uri = uri
        self._connection: Any = self.call(
            f"connecting to {shown(uri)}", lambda: self._libvirt.open(uri)
        )

    def call(self, what: str, function: Callable[[], Value]) -> Value:
        """Return what ``function`` returns.

        Raises WrongState if the domain is gone or its state does not allow the call, NotOffered if
        libvirt does not support the call, HostError for any other failure. ``what`` begins the
        message.
        """
        library = self._libvirt
        try:
            return call_within(self._left(), what, function)
        except library.libvirtError as error:
            said = public(error.get_error_message() or str(error), self._uri)
            message = f"{what}: {excerpt(said)}"
            if error.get_error_code() == library.VIR_ERR_NO_DOMAIN:
                raise WrongState(f"{message} (it is gone)", check="host.gone") from None
            if error.get_error_code() == library.VIR_ERR_OPERATION_INVALID:
                raise WrongState(message, check="host.state") from None
            if error.get_error_code() == library.VIR_ERR_OPERATION_UNSUPPORTED:
                raise NotOffered(message, check="host.libvirt") from None
            raise HostError(message, check="host.libvirt") from None
        except SevAttestError:
            raise
        except Exception:  # noqa: BLE001 - the library may raise anything on a bad answer
            raise HostError(f"{what}: {UNREADABLE}", check="host.libvirt") from None

    def text(self, what: str, function: Callable[[], object]) -> str:
        """Return what ``function`` returns, which must be a text. Raises as :meth:`call` does."""

        def read() -> str:
            found = function()
            if not isinstance(found, str):
                raise TypeError
            return found

        return self.call(what, read)

    def hurry(self, seconds: float) -> None:
        """Let all later answers together take ``seconds`` at most."""
        self._end = time.monotonic() + seconds

    def _left(self) -> float:
        """Return how many seconds the next answer may take."""
        if self._end is None:
            return self._timeout
        return max(0.0, min(self._timeout, self._end - time.monotonic()))

    def close(self) -> None:
        """Disconnect."""
        # A call that still waits may block closing for ever.
        with suppress(HostError, self._libvirt.libvirtError):
            call_within(_GRACE, "disconnecting", self._connection.close)

    def is_local(self) -> bool:
        """Return whether the URI leads to this machine, or the host has its name or no name.

        Does not verify: anything. It protects against mistakes: a host can choose its own name.
        """
        # libvirt.conf may have an alias for the URI that was given.
        uri = self.text("its URI", self._connection.getURI)
        name = self.text("the host's name", self._connection.getHostname)
        return call_within(
            self._left(), "this machine's addresses", lambda: leads_here(uri) or named_here(name)
        )

    def chain(self) -> bytes:
        """Return the SEV info of the node, as JSON with QMP's names."""
        info = self.call("the host's SEV info", lambda: json.dumps(self._connection.getSEVInfo()))
        return within_limit(info, "host's SEV info").encode()

    def capabilities(self) -> Element:
        """Return the root of the host's capabilities. Raises MalformedInput."""
        text = self.text("the host's capabilities", self._connection.getCapabilities)
        return Document.parse(text.encode("utf-8", "surrogatepass"), "capabilities XML").root

    def guest(self, name: str | None) -> "LibvirtGuest":
        """Return the domain of this id, UUID or name; virsh looks it up in the same order."""
        if name is None:
            raise Unsupported("libvirt may have several domains: name one", check="usage")
        return LibvirtGuest(self, self._lookup(name))

    def _lookup(self, name: str) -> Any:
        connection = self._connection
        ways: list[Callable[[], Any]] = [lambda: connection.lookupByName(name)]
        if _UUID.fullmatch(name):
            ways.insert(0, lambda: connection.lookupByUUIDString(name))
        if _ID.fullmatch(name):
            ways.insert(0, lambda: connection.lookupByID(int(name)))
        for way in ways:
            try:
                return self.call(f"domain {name}", way)
            except WrongState:
                continue
        raise HostError(
            f"there is no domain {name}",
            check="host.domain",
            hint="`virsh list --all` lists the domains",
        )

    def versions(self) -> Versions:
        """Return the versions of libvirt and QEMU on the host."""
        connection = self._connection
        return Versions(
            libvirt=_version(self.call("its libvirt's version", connection.getLibVersion)),
            qemu=_version(self.call("its QEMU's version", connection.getVersion)),
        )

    def find(self, name: str) -> "LibvirtDomain | None":
        """Return the domain of this name, None if there is none."""
        try:
            domain = self.call(f"domain {name}", lambda: self._connection.lookupByName(name))
        except WrongState as error:
            if error.check != "host.gone":
                raise
            return None
        return LibvirtDomain(self, domain)

    def define(self, xml: str) -> "LibvirtDomain":
        """Define a domain; libvirt refuses a name or a UUID that another domain has."""
        return LibvirtDomain(
            self, self.call("defining the domain", lambda: self._connection.defineXML(xml))
        )

    def flag(self, name: str) -> int:
        """Return one of libvirt's constants."""
        return int(getattr(self._libvirt, name))

    def same(self, domain: Any) -> Any:
        """Return the domain of the same UUID, as it is now."""
        return self.call(
            "the domain", lambda: self._connection.lookupByUUIDString(domain.UUIDString())
        )


def _version(number: object) -> Version:
    """Return a version that libvirt reports as one number: 1000000 * major + 1000 * minor + ..."""
    if type(number) is not int or number < 0:
        raise MalformedInput("libvirt", "version", "is not a number")
    return number // 1_000_000, number // 1000 % 1000, number % 1000
