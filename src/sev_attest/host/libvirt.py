"""A guest in libvirt's care (extra ``libvirt``).

Source: libvirt's API (include/libvirt/libvirt-domain.h, libvirt-host.h) and domain XML.
"""

import base64
import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.xml import Document, Element
from sev_attest.errors import (
    Insecure,
    MalformedInput,
    NotAttestable,
    SevAttestError,
    Unsupported,
    WrongState,
)
from sev_attest.host import (
    UNREADABLE,
    UNSURE,
    DomainConfig,
    HostError,
    bounded,
    within,
    words,
)
from sev_attest.host.place import leads_here, named_here, public, shown
from sev_attest.sev.launch_info import Claims, read_report

Value = TypeVar("Value")

_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_ID = re.compile(r"[0-9]{1,9}")
_GRACE = 1.0
"""Seconds to disconnect in."""
_STATES = ("no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed",
           "pmsuspended")  # fmt: skip
"""virDomainState, in the words of virsh."""


def _module() -> Any:
    try:
        import libvirt
    except ImportError:
        raise Unsupported(
            "libvirt-python is not installed",
            check="extra.libvirt",
            hint="pip install 'sev-attest[libvirt]'",
        ) from None
    # Otherwise it prints every error beside raising it.
    libvirt.registerErrorHandler(lambda *_error: None, None)
    return libvirt


class Connection:
    """A connection to libvirt; every call is bound to ``timeout`` seconds."""

    def __init__(self, uri: str, timeout: float) -> None:
        """Connect; raises HostError, Unsupported without the extra."""
        self._libvirt = _module()
        self._timeout = timeout
        self._uri = uri
        self._connection = self.call(f"connecting to {shown(uri)}", lambda: self._libvirt.open(uri))

    def call(self, what: str, function: Callable[[], Value]) -> Value:
        """Make a call; raises HostError, or WrongState where libvirt says that it is that."""
        library = self._libvirt
        try:
            return within(self._timeout, what, function)
        except library.libvirtError as error:
            said = public(error.get_error_message() or str(error), self._uri)
            message = f"{what}: {words(said)}"
            if error.get_error_code() == library.VIR_ERR_NO_DOMAIN:
                raise WrongState(f"{message} (it is gone)", check="host.gone") from None
            if error.get_error_code() == library.VIR_ERR_OPERATION_INVALID:
                raise WrongState(message, check="host.state") from None
            if error.get_error_code() == library.VIR_ERR_OPERATION_UNSUPPORTED:
                raise NotOffered(message, check="host.libvirt") from None
            raise HostError(message, check="host.libvirt") from None
        except SevAttestError:
            raise
        except Exception:  # noqa: BLE001 - whatever the library makes of it
            raise HostError(f"{what}: {UNREADABLE}", check="host.libvirt") from None

    def close(self) -> None:
        """Disconnect."""
        # What waits already may be waiting for ever: then closing would, too.
        with suppress(HostError, self._libvirt.libvirtError):
            within(_GRACE, "disconnecting", self._connection.close)

    def is_local(self) -> bool:
        """Tell whether the URI leads to this machine, or the host has its name, or none.

        Does not verify: anything; it guards against a mistake, since the host chooses its name.
        """
        uri = self.call("its URI", self._connection.getURI)  # it may have had another name for it
        name = self.call("the host's name", self._connection.getHostname)
        return within(
            self._timeout, "this machine's addresses", lambda: leads_here(uri) or named_here(name)
        )

    def chain(self) -> bytes:
        """Fetch the node's SEV info."""
        info = self.call("the host's SEV info", lambda: json.dumps(self._connection.getSEVInfo()))
        return bounded(info, "host's SEV info").encode()

    def capabilities(self) -> Element:
        """Read the host's capabilities."""
        text = self.call("the host's capabilities", self._connection.getCapabilities)
        return Document.parse(text.encode("utf-8", "surrogatepass"), "capabilities XML").root

    def guest(self, name: str | None) -> "Domain":
        """Look a domain up by id, UUID or name, as virsh does."""
        if name is None:
            raise Unsupported("--domain is needed", check="usage")
        return Domain(self, self._lookup(name))

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
            hint="`virsh list --all` shows which there are",
        )

    def same(self, domain: Any) -> Any:
        """Look a domain up again by its UUID."""
        return self.call(
            "the domain", lambda: self._connection.lookupByUUIDString(domain.UUIDString())
        )


class NotOffered(HostError):
    """What libvirt does not do for this guest or with this QEMU: it says so before it tries."""


class Domain:
    """A domain that runs."""

    starts = "`virsh start --paused`"
    resumes = "`virsh resume`"

    def __init__(self, host: Connection, domain: Any) -> None:
        """Read its XML; raises WrongState if it does not run."""
        self._host = host
        self._domain = domain
        if not self._call("its state", domain.isActive):
            raise WrongState(
                "the domain does not run",
                check="host.state",
                hint=f"{self.starts} starts it",
            )
        self._id = self._call("its id", domain.ID)
        self.config = read_config(self._call("its XML", domain.XMLDesc))

    def _call(self, what: str, function: Callable[[], Value]) -> Value:
        return self._host.call(f"the domain: {what}", function)

    def state(self) -> str:
        """Tell its state."""
        state = self._call("its state", lambda: int(self._domain.info()[0]))
        return _STATES[state] if 0 <= state < len(_STATES) else f"in state {state}"

    def claims(self) -> Claims:
        """Read its launch security info."""

        def read() -> str:
            info = self._domain.launchSecurityInfo()
            return "".join(f"{name}: {value}\n" for name, value in info.items())

        return read_report(bounded(self._call("its launch security info", read), "launch info"))

    def vcpus(self) -> int:
        """Count its vCPUs."""
        return self._call("its vCPUs", lambda: int(self._domain.info()[3]))

    def cpu(self) -> tuple[int, int, int] | None:
        """Read the signature of the host's CPU from the capabilities."""
        signature = self._host.capabilities().find("host/cpu/signature")
        if signature is None:
            return None
        numbers = [signature.get(name) or "" for name in ("family", "model", "stepping")]
        if not all(_ID.fullmatch(number) for number in numbers):
            raise MalformedInput("capabilities", "signature", "is no CPU signature")
        family, model, stepping = map(int, numbers)
        return family, model, stepping

    def confirm(self) -> None:
        """Hold the id of what runs to the id of what was measured."""
        if self._call("its id", self._host.same(self._domain).ID) != self._id:
            raise WrongState("the domain was started anew meanwhile", check="host.state")

    def inject(self, header: bytes, payload: bytes) -> None:
        """Set the launch security state."""
        parameters = {
            "sev-secret-header": base64.b64encode(header).decode(),
            "sev-secret": base64.b64encode(payload).decode(),
        }
        try:
            self._call("its secret", lambda: self._domain.setLaunchSecurityState(parameters, 0))
        except NotOffered as error:
            raise WrongState(str(error), check="host.secret") from None
        except HostError as error:
            if "fw_error=" in str(error) or "SEV: " in str(error):  # QEMU's words
                raise WrongState(
                    str(error),
                    check="host.secret",
                    hint="the guest is not the one that was measured, or runs already",
                ) from None
            error.hint = UNSURE
            raise

    def resume(self) -> None:
        """Let it run."""
        self._call("resuming it", self._domain.resume)


def read_config(xml: str) -> DomainConfig:
    """Read what matters of a domain's XML; raises MalformedInput."""
    domain = parse_domain(xml.encode("utf-8", "surrogatepass"))

    def text(path: str) -> str | None:
        element = domain.root.find(path)
        return None if element is None else element.text

    cpu = domain.root.find("cpu")
    return DomainConfig(
        sev=domain.launch_security is not None,
        owner_keys=domain.has_session,
        kernel_hashes=domain.kernel_hashes,
        nvram=domain.root.find("os/nvram") is not None,
        firmware=text("os/loader"),
        kernel=text("os/kernel"),
        initrd=text("os/initrd"),
        cmdline=text("os/cmdline"),
        cpu_mode=(cpu is not None and cpu.get("mode")) or "",
        cpu_model=text("cpu/model") or "",
    )


def check_config(config: DomainConfig, *, kernel: bool, insecure: bool) -> list[str]:
    """Hold a domain's configuration to what can be attested; gives notes.

    ``kernel`` tells whether its owner means a kernel to be measured. Raises NotAttestable,
    Unsupported, and without ``insecure`` Insecure for what could be but is not measured.
    """
    faults = (
        (not config.sev, "the domain has no <launchSecurity type='sev'>"),
        (not config.owner_keys, "the domain has not both <dhCert> and <session>"),
        (not config.firmware, "the domain names no firmware: <os><loader>"),
    )
    for broken, message in faults:
        if broken:
            raise NotAttestable(message, check="domain.config", hint="--ignore-config goes on")
    booted = any((config.kernel, config.initrd, config.cmdline))
    if kernel and not config.kernel_hashes:
        raise Unsupported(
            "a kernel is given, but the domain has not kernelHashes='yes': none was measured",
            check="domain.kernel-hashes",
        )
    if config.kernel_hashes and not booted:
        raise NotAttestable(
            "the domain has kernelHashes='yes', but no kernel", check="domain.kernel-hashes"
        )
    risks = (
        (config.nvram, "the domain has an <nvram>, which is not measured", "domain.nvram"),
        (
            booted and not config.kernel_hashes,
            "the domain boots a kernel that is not measured: it has not kernelHashes='yes'",
            "domain.kernel-hashes",
        ),
    )
    found = [(message, check) for broken, message, check in risks if broken]
    if found and not insecure:
        message, check = found[0]
        raise Insecure(message, check=check, hint="for tests, --insecure goes on")
    return [f"INSECURE: {message}" for message, _ in found]
