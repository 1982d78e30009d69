"""Domains of a libvirt host, and their guests.

Source: libvirt's API (include/libvirt/libvirt-domain.h) and domain XML.
"""

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sev_attest.domain_xml.xml import MAX_SIZE
from sev_attest.errors import MalformedInput, SevAttestError, WrongState
from sev_attest.host.config import read_config
from sev_attest.host.connection import NOT_TAKEN, UNSURE, DomainConfig, HostError
from sev_attest.host.limits import within_limit
from sev_attest.sev.launch_info import Claims, read_report

if TYPE_CHECKING:
    from sev_attest.host.libvirt import LibvirtConnection

Value = TypeVar("Value")

_NUMBER = re.compile(r"[0-9]{1,9}")
_STATES = ("no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed",
           "pmsuspended")  # fmt: skip
"""virDomainState, as virsh prints it."""


class NotOffered(HostError):
    """A call that libvirt does not support for this guest or this QEMU. It did nothing."""


class LibvirtDomain:
    """A domain that is defined, whether it runs or not."""

    def __init__(self, host: "LibvirtConnection", domain: Any) -> None:
        """Take a domain of the library's."""
        self._host = host
        self._domain: Any = domain
        self._started: object = None

    def _call(self, what: str, function: Callable[[], Value]) -> Value:
        return self._host.call(f"the domain: {what}", function)

    def _text(self, what: str, function: Callable[[], object]) -> str:
        return self._host.text(f"the domain: {what}", function)

    def xml(self) -> str:
        """Return its definition, with passwords: they would be lost when it is defined again."""
        flags = self._host.flag("VIR_DOMAIN_XML_INACTIVE") | self._host.flag(
            "VIR_DOMAIN_XML_SECURE"
        )
        text = self._text("its XML", lambda: self._domain.XMLDesc(flags))
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
        with suppress(SevAttestError):  # it was started all the same
            self._started = self._call("its id", self._domain.ID)

    def started_here(self) -> bool:
        """Return whether its guest is the one that :meth:`start_paused` started."""
        return self._started is not None and self._number() == self._started

    def _number(self) -> object:
        """Return the id of its guest as it is now: each start has one of its own."""
        return self._call("its id", self._host.same(self._domain).ID)

    def live_session(self) -> str:
        """Return the session blob that its guest was started in (base64), "" if it has none."""
        return self._live().session

    def _live(self) -> DomainConfig:
        return read_config(self._text("its XML", self._domain.XMLDesc))

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

    def __init__(self, host: "LibvirtConnection", domain: Any) -> None:
        """Read its XML. Raises WrongState if it does not run, MalformedInput for its XML."""
        super().__init__(host, domain)
        if not self.active():
            raise WrongState(
                "the domain does not run",
                check="host.state",
                hint=f"{self.starts} starts it",
            )
        self._id: object = self._call("its id", domain.ID)
        self.config: DomainConfig = self._live()

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
        if not all(_NUMBER.fullmatch(number) for number in numbers):
            raise MalformedInput("capabilities", "signature", "is not a CPU signature")
        family, model, stepping = map(int, numbers)
        return family, model, stepping

    def confirm(self) -> None:
        """Raise WrongState if the domain was started anew: each start has an id of its own."""
        if self._number() != self._id:
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
