"""A connection to libvirt, and its guests (extra ``libvirt``).

Source: libvirt's API (include/libvirt/libvirt-domain.h, libvirt-host.h) and domain XML.
"""

import base64
import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sev_attest.domain_xml.versions import Version, Versions
from sev_attest.domain_xml.xml import MAX_SIZE, Document, Element
from sev_attest.errors import MalformedInput, SevAttestError, Unsupported, WrongState
from sev_attest.host.config import read_config
from sev_attest.host.connection import NOT_TAKEN, UNSURE, DomainConfig, HostError
from sev_attest.host.limits import UNREADABLE, call_within, excerpt, within_limit
from sev_attest.host.place import leads_here, named_here, public, shown
from sev_attest.sev.launch_info import Claims, read_report

Value = TypeVar("Value")

_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_ID = re.compile(r"[0-9]{1,9}")
_GRACE = 1.0
"""Seconds that disconnecting may take."""
_STATES = ("no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed",
           "pmsuspended")  # fmt: skip
"""virDomainState, as virsh prints it."""


def _module() -> Any:
    """Return libvirt-python. Raises Unsupported if it is not installed."""
    try:
        import libvirt
    except ImportError:
        raise Unsupported(
            "libvirt-python is not installed",
            check="extra.libvirt",
            hint="`pip install '.[libvirt]'` in sev-attest's folder installs it",
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
            return call_within(self._timeout, what, function)
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
        uri = self.call("its URI", self._connection.getURI)
        name = self.call("the host's name", self._connection.getHostname)
        return call_within(
            self._timeout, "this machine's addresses", lambda: leads_here(uri) or named_here(name)
        )

    def chain(self) -> bytes:
        """Return the SEV info of the node, as JSON with QMP's names."""
        info = self.call("the host's SEV info", lambda: json.dumps(self._connection.getSEVInfo()))
        return within_limit(info, "host's SEV info").encode()

    def capabilities(self) -> Element:
        """Return the root of the host's capabilities. Raises MalformedInput."""
        text = self.call("the host's capabilities", self._connection.getCapabilities)
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


class NotOffered(HostError):
    """A call that libvirt does not support for this guest or this QEMU. It did nothing."""


def _version(number: object) -> Version:
    """Return a version that libvirt reports as one number: 1000000 * major + 1000 * minor + ..."""
    if type(number) is not int or number < 0:
        raise MalformedInput("libvirt", "version", "is not a number")
    return number // 1_000_000, number // 1000 % 1000, number % 1000


class LibvirtDomain:
    """A domain that is defined, whether it runs or not."""

    def __init__(self, host: LibvirtConnection, domain: Any) -> None:
        """Take a domain of the library's."""
        self._host = host
        self._domain: Any = domain

    def _call(self, what: str, function: Callable[[], Value]) -> Value:
        return self._host.call(f"the domain: {what}", function)

    def xml(self) -> str:
        """Return its definition, with passwords: they would be lost when it is defined again."""
        flags = self._host.flag("VIR_DOMAIN_XML_INACTIVE") | self._host.flag(
            "VIR_DOMAIN_XML_SECURE"
        )
        text: str = self._call("its XML", lambda: self._domain.XMLDesc(flags))
        if len(text) > MAX_SIZE:
            raise MalformedInput("domain XML", "length", f"more than {MAX_SIZE} bytes")
        return text

    def active(self) -> bool:
        """Return whether it runs or is paused."""
        return bool(self._call("its state", self._domain.isActive))

    def state(self) -> str:
        """Return its state, as virsh prints it."""
        state = self._call("its state", lambda: int(self._domain.info()[0]))
        return _STATES[state] if 0 <= state < len(_STATES) else f"in state {state}"

    def start_paused(self) -> None:
        """Start it without running its vCPUs."""
        paused = self._host.flag("VIR_DOMAIN_START_PAUSED")
        self._call("starting it", lambda: self._domain.createWithFlags(paused))

    def running(self) -> "LibvirtGuest":
        """Return its guest."""
        return LibvirtGuest(self._host, self._domain)

    def destroy(self) -> None:
        """End its guest."""
        self._call("destroying it", self._domain.destroy)

    def undefine(self) -> None:
        """Remove its definition; a store for UEFI variables stays."""
        keep = self._host.flag("VIR_DOMAIN_UNDEFINE_KEEP_NVRAM")
        self._call("undefining it", lambda: self._domain.undefineFlags(keep))


class LibvirtGuest(LibvirtDomain):
    """A domain that runs."""

    starts: str = "`virsh start --paused`"
    resumes: str = "`virsh resume`"

    def __init__(self, host: LibvirtConnection, domain: Any) -> None:
        """Read its XML. Raises WrongState if it does not run, MalformedInput for its XML."""
        super().__init__(host, domain)
        if not self.active():
            raise WrongState(
                "the domain does not run",
                check="host.state",
                hint=f"{self.starts} starts it",
            )
        self._id: int = self._call("its id", domain.ID)
        self.config: DomainConfig = read_config(self._call("its XML", domain.XMLDesc))

    def claims(self) -> Claims:
        """Return its launch security info."""

        def read() -> str:
            info = self._domain.launchSecurityInfo()
            return "".join(f"{name}: {value}\n" for name, value in info.items())

        info = self._call("its launch security info", read)
        return read_report(within_limit(info, "launch info"))

    def vcpus(self) -> int:
        """Return the number of its vCPUs."""
        return self._call("its vCPUs", lambda: int(self._domain.info()[3]))

    def cpu(self) -> tuple[int, int, int] | None:
        """Return family, model and stepping of the host's CPU, from the capabilities."""
        signature = self._host.capabilities().find("host/cpu/signature")
        if signature is None:
            return None
        numbers = [signature.get(name) or "" for name in ("family", "model", "stepping")]
        if not all(_ID.fullmatch(number) for number in numbers):
            raise MalformedInput("capabilities", "signature", "is not a CPU signature")
        family, model, stepping = map(int, numbers)
        return family, model, stepping

    def confirm(self) -> None:
        """Raise WrongState if the domain was started anew: each start has an id of its own."""
        if self._call("its id", self._host.same(self._domain).ID) != self._id:
            raise WrongState("the domain was started anew in the meantime", check="host.state")

    def inject(self, header: bytes, payload: bytes) -> None:
        """Set the launch security state; raises as RunningGuest says."""
        parameters = {
            "sev-secret-header": base64.b64encode(header).decode(),
            "sev-secret": base64.b64encode(payload).decode(),
        }
        try:
            self._call("its secret", lambda: self._domain.setLaunchSecurityState(parameters, 0))
        except NotOffered as error:
            raise WrongState(str(error), check="host.secret") from None
        except HostError as error:
            said = str(error)
            if "fw_error=" in said or "SEV: " in said:  # QEMU's words (target/i386/sev.c)
                raise WrongState(said, check="host.secret", hint=NOT_TAKEN) from None
            error.hint = UNSURE
            raise

    def resume(self) -> None:
        """Let it run."""
        self._call("resuming it", self._domain.resume)
