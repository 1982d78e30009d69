"""libvirt-python, simulated: domains are defined, started on a simulated platform, and removed.

As the library does, a call fails with an error of a code. A test can have any call fail, before or
after it took effect (:attr:`Host.before`, :attr:`Host.after`).
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from sev_attest.domain_xml.domain import parse_domain
from sev_attest.testing import FirmwareError, Guest, Platform, launch_guest

INTERNAL, FAILED, NO_DOMAIN, INVALID, TIMED_OUT, RPC, UNSUPPORTED = 1, 9, 42, 55, 68, 39, 84
RUNNING, PAUSED, SHUT_OFF = 1, 3, 5
_INACTIVE, _SECURE, _PAUSED, _KEEP_NVRAM = 2, 1, 1, 64

BROKEN = "<domain>"
"""What a host may say of the XML of a guest that runs."""
Value = TypeVar("Value")
Act = Callable[[], object] | BaseException


class LibvirtError(Exception):
    """What libvirt-python raises."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    def get_error_code(self) -> int:
        return self.code

    def get_error_message(self) -> str:
        return str(self)


@dataclass
class Domain:
    """A domain; ``guest`` is its guest while it is active."""

    host: "Host"
    name: str
    uuid: UUID
    xml: str
    live: str = ""
    id: int = -1
    state: int = SHUT_OFF
    guest: Guest | None = None

    def isActive(self) -> bool:  # noqa: N802 - libvirt's
        return self.host.did("isActive", lambda: self.id >= 0)

    def ID(self) -> int:  # noqa: N802
        return self.host.did("ID", lambda: self.id)

    def UUIDString(self) -> str:  # noqa: N802
        return str(self.uuid)

    def XMLDesc(self, flags: int = 0) -> str:  # noqa: N802
        def read() -> str:
            assert flags in (0, _INACTIVE | _SECURE)
            return self.live if not flags and self.live else self.xml

        return self.host.did(f"XMLDesc {flags}", read)

    def info(self) -> list[int]:
        return self.host.did("info", lambda: [self.state, 0, 0, 2, 0])

    def createWithFlags(self, flags: int) -> int:  # noqa: N802
        def create() -> int:
            assert flags == _PAUSED
            if self.id >= 0:
                raise LibvirtError(INVALID, "domain is already running")
            self.host.boot(self)
            return 0

        return self.host.did("create", create)

    def launchSecurityInfo(self) -> dict[str, object]:  # noqa: N802
        def read() -> dict[str, object]:
            assert self.guest is not None
            lines = self.guest.domlaunchsecinfo().split("\n")
            pairs = (line.split(":") for line in lines if line)
            return {key.strip(): value.strip() for key, value in pairs}

        return self.host.did("launchSecurityInfo", read)

    def setLaunchSecurityState(self, parameters: dict[str, str], flags: int) -> None:  # noqa: N802
        def inject() -> None:
            assert flags == 0
            assert self.guest is not None
            names = ("sev-secret-header", "sev-secret")
            try:
                self.guest.inject(*(base64.b64decode(parameters[name]) for name in names))
            except FirmwareError as error:
                what = f"SEV: failed to inject secret ret=-5 fw_error={error.status.value}"
                raise LibvirtError(INTERNAL, what) from None
            self.host.sent.update(self.guest.secrets)

        self.host.did("inject", inject)

    def resume(self) -> None:
        def resume() -> None:
            assert self.guest is not None
            self.guest.resume()
            self.state = RUNNING

        self.host.did("resume", resume)

    def destroy(self) -> None:
        def destroy() -> None:
            if self.id < 0:
                raise LibvirtError(INVALID, "domain is not running")
            self.id, self.live, self.state, self.guest = -1, "", SHUT_OFF, None
            if not self.xml:
                del self.host.domains[self.name]

        self.host.did("destroy", destroy)

    def undefineFlags(self, flags: int) -> None:  # noqa: N802
        def undefine() -> None:
            assert flags == _KEEP_NVRAM
            del self.host.domains[self.name]

        self.host.did("undefine", undefine)


@dataclass
class Host:
    """libvirt-python and the host that it reaches; ``firmware`` is what the host's guests boot."""

    platform: Platform
    firmware: bytes
    vcpus: int = 2
    kernel: bytes | None = None
    signed_cek: bool = True
    bare: bool = False
    hostname: str = "host"
    numbers: tuple[object, object] = (9_000_000, 7_002_003)
    domains: dict[str, Domain] = field(default_factory=dict)
    before: dict[str, Act] = field(default_factory=dict)
    after: dict[str, Act] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sent: dict[str, bytes] = field(default_factory=dict)
    ids: int = 0
    change: Callable[[str], str] = lambda xml: xml
    """What the host makes of a domain's XML when it starts it."""
    libvirtError = LibvirtError  # noqa: N815 - libvirt's
    VIR_ERR_NO_DOMAIN = NO_DOMAIN
    VIR_ERR_OPERATION_INVALID = INVALID
    VIR_ERR_OPERATION_UNSUPPORTED = UNSUPPORTED
    VIR_DOMAIN_XML_INACTIVE = _INACTIVE
    VIR_DOMAIN_XML_SECURE = _SECURE
    VIR_DOMAIN_START_PAUSED = _PAUSED
    VIR_DOMAIN_UNDEFINE_KEEP_NVRAM = _KEEP_NVRAM

    def did(self, call: str, act: Callable[[], Value]) -> Value:
        """Make a call, with what a test wants before and after it."""
        self.calls.append(call)
        self._act(self.before, call)
        found = act()
        self._act(self.after, call)
        return found

    @staticmethod
    def _act(acts: dict[str, Act], call: str) -> None:
        act = acts.get(call)
        if isinstance(act, KeyboardInterrupt):
            del acts[call]  # it comes once
        if isinstance(act, BaseException):
            raise act
        if act is not None:
            act()

    def registerErrorHandler(self, handler: Callable[..., None], context: object) -> None:  # noqa: N802
        handler(context, "nothing is printed")

    def open(self, uri: str) -> "Host":
        self.uri = uri
        return self

    def close(self) -> None:
        self.calls.append("close")

    def getURI(self) -> str:  # noqa: N802
        return self.uri

    def getHostname(self) -> str:  # noqa: N802
        return self.hostname

    def getLibVersion(self) -> object:  # noqa: N802
        return self.did("getLibVersion", lambda: self.numbers[0])

    def getVersion(self) -> object:  # noqa: N802
        return self.numbers[1]

    def getSEVInfo(self) -> dict[str, object]:  # noqa: N802
        def read() -> dict[str, object]:
            chain = self.platform.export(signed_cek=self.signed_cek)
            links = () if self.bare else (chain.pek, chain.oca, chain.cek)
            pdh = base64.b64encode(chain.pdh.to_bytes()).decode()
            rest = base64.b64encode(b"".join(c.to_bytes() for c in links)).decode()
            return {"pdh": pdh, "cert-chain": rest, "cbitpos": 51}

        return self.did("getSEVInfo", read)

    def lookupByName(self, name: str) -> Domain:  # noqa: N802
        return self.did("lookupByName", lambda: self._found(self.domains.get(name)))

    def lookupByUUIDString(self, text: str) -> Domain:  # noqa: N802
        found = [domain for domain in self.domains.values() if str(domain.uuid) == text]
        return self.did("lookupByUUIDString", lambda: self._found(found[0] if found else None))

    def _found(self, domain: Domain | None) -> Domain:
        if domain is None:
            raise LibvirtError(NO_DOMAIN, "Domain not found")
        return domain

    def defineXML(self, xml: str) -> Domain:  # noqa: N802
        def define() -> Domain:
            root = parse_domain(xml.encode()).root
            name, uuid = root.find("name"), root.find("uuid")
            assert name is not None
            there = self.domains.get(name.text)
            if there is not None and (uuid is None or str(there.uuid) != uuid.text):
                raise LibvirtError(FAILED, f"domain '{name.text}' already exists with another UUID")
            new = there or Domain(self, name.text, UUID(int=len(self.domains) + 7), "")
            with_uuid = f"</name><uuid>{new.uuid}</uuid>"
            new.xml = xml if uuid is not None else xml.replace("</name>", with_uuid, 1)
            self.domains[new.name] = new
            return new

        return self.did("define", define)

    def boot(self, domain: Domain) -> None:
        """Start a domain's guest on the platform, as its XML says after the host's changes."""
        domain.live = self.change(domain.xml)
        started = domain.xml if domain.live == BROKEN else domain.live
        security = parse_domain(started.encode()).launch_security
        blobs = {}
        for name in ("dhCert", "session"):
            found = security.find(name) if security is not None else None
            blobs[name] = base64.b64decode(found.text) if found is not None else None
        policy = re.search("<policy>([^<]*)", started)
        try:
            domain.guest = launch_guest(
                self.platform,
                policy=int(policy[1], 16) if policy else 1,
                godh=blobs["dhCert"],
                session=blobs["session"],
                firmware=self.firmware,
                vcpus=self.vcpus,
                kernel=self.kernel,
            )
        except FirmwareError as error:
            domain.live = ""
            raise LibvirtError(INTERNAL, f"LAUNCH_START fw_error={error.status.value}") from None
        self.ids += 1
        domain.id, domain.state = self.ids, PAUSED
