"""A domain that its owner defines and starts for one launch, and that is removed if it is refused.

1. :meth:`OneLaunch.check`: the host has no domain of this name, or one that is shut off and that
   differs from this one in its session only.
2. :meth:`OneLaunch.define`: after that check once more, the domain is defined.
3. :meth:`OneLaunch.start`: its guest is started, with no vCPU running.
4. :meth:`OneLaunch.undo`: after a refusal, the guest is destroyed and the host's definitions are
   what they were before step 2.

A call may end without an answer, or the host may change what it was told. So the last step asks the
host what is there: a domain is this launch's if it has the session blob of this launch, which no
other domain has.

Does not verify: anything. What the host says of its domains is its claim.
"""

from contextlib import suppress
from dataclasses import dataclass

from sev_attest.domain_xml.compare import same_but_session
from sev_attest.domain_xml.domain import Domain, parse_domain
from sev_attest.errors import SevAttestError, WrongState
from sev_attest.host.connection import HostConnection, HostDomain, HostError, RunningGuest


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a refused launch leaves on its host.

    ``guest`` is "none" (no guest was started), "destroyed", the host's word for its state if it is
    still there ("paused"), or "unknown". ``words`` say it in one sentence.
    """

    guest: str
    words: str


class OneLaunch:
    """A domain for one launch. It is used by one thread."""

    def __init__(self, host: HostConnection, *, name: str, xml: bytes, session: str) -> None:
        """Take the domain's name, and its XML with the session blob ``session`` (base64) in it."""
        self._host = host
        self._name = name
        self._xml: str = xml.decode()
        self._session = session
        self._before: str | None = None
        self._domain: HostDomain | None = None
        self._guest: RunningGuest | None = None
        self._defining = False
        self._started = False
        self._unanswered = False

    @property
    def exists(self) -> bool:
        """Whether :meth:`check` found a domain of this name."""
        return self._before is not None

    def check(self) -> None:
        """Raise WrongState if a domain of this name runs, or differs in more than its session."""
        found = self._host.find(self._name)
        if found is None:
            self._before = None
            return
        if found.active():
            raise WrongState(
                f"domain {self._name} runs on the host already: it was not touched",
                check="launch.running",
                hint="a guest that runs cannot be attested any more: shut it down, or launch "
                "under another name",
            )
        before = found.xml()
        if not same_but_session(_parsed(before), _parsed(self._xml)):
            raise WrongState(
                f"domain {self._name} exists on the host, and differs from the one to be defined: "
                "it was not touched",
                check="launch.differs",
                hint="launch it as the host has it (--domain), undefine it (`virsh undefine`), or "
                "launch under another name",
            )
        self._before = before

    def define(self) -> None:
        """Define the domain; raises as :meth:`check` does, and HostError."""
        self.check()
        self._defining = True
        self._domain = self._host.define(self._xml)

    def start(self) -> RunningGuest:
        """Start the guest, paused, and return it. Raises HostError, WrongState."""
        if self._domain is None:
            raise RuntimeError("start() comes after define()")
        try:
            self._domain.start_paused()
            self._started = True
        except HostError as error:
            self._unanswered = error.check == "host.timeout"
            raise
        self._guest = self._domain.running()
        return self._guest

    def undo(self, *, leave: bool) -> Remains:
        """Destroy the guest, and bring the definitions back; return what is left. Raises nothing.

        ``leave`` leaves a guest that is paused, and its definition. One that runs is destroyed all
        the same: it was refused.
        """
        if not self._defining:
            return Remains(guest="none", words="nothing was changed on the host")
        try:
            return self._undo(leave=leave)
        except SevAttestError as error:
            there = f"a guest of domain {self._name} may still be there, paused or not"
            return Remains(guest="unknown", words=f"the host could not be asked: {there}: {error}")

    def _undo(self, *, leave: bool) -> Remains:
        domain = self._host.find(self._name)
        if domain is None or not domain.active():
            return self._without_guest(domain, leave=leave)
        if not self._owns(domain):
            words = f"domain {self._name} runs in another session: it was not touched"
            return Remains(guest="unknown", words=words)
        state = domain.state()
        if leave and state == "paused":
            return Remains(guest=state, words=f"the guest is left on the host, {state}")
        try:
            _destroy(domain)
        except SevAttestError as error:
            words = f"the guest could not be destroyed, and is still there, {state}: {error}"
            return Remains(guest=state, words=words)
        return Remains(guest="destroyed", words=f"the guest was destroyed{self._restored()}")

    def _without_guest(self, domain: HostDomain | None, *, leave: bool) -> Remains:
        """Bring the definitions back after a launch whose guest is not there (any more)."""
        words = "the guest is gone from the host" if self._started else "no guest was started"
        if self._unanswered:
            words = f"{words} yet, but may be still: look after domain {self._name}"
        if domain is None or leave:
            left = "" if domain is None else ", and the domain is left defined"
            return Remains(guest="none", words=words + left)
        return Remains(guest="none", words=words + self._restored())

    def _owns(self, domain: HostDomain) -> bool:
        """Return whether this launch started the guest, or it was started in this session."""
        with suppress(WrongState):
            if self._guest is not None:
                self._guest.confirm()
            if self._started:
                return True
        config = domain.running().config
        return config is not None and config.session == self._session

    def _restored(self) -> str:
        """Bring the definition back that was there before; return that in words."""
        try:
            domain = self._host.find(self._name)
            if domain is None or self._session not in domain.xml():
                return ""
            if self._before is not None:
                self._host.define(self._before)
                return ", and the domain has the definition that it had before"
            domain.undefine()
        except SevAttestError as error:
            return f", but the definition of domain {self._name} could not be removed: {error}"
        return ", and the domain is not defined any more"


def _destroy(domain: HostDomain) -> None:
    """Destroy a guest; one that ended by itself meanwhile is fine."""
    try:
        domain.destroy()
    except WrongState:
        if domain.active():
            raise


def _parsed(xml: str) -> Domain:
    return parse_domain(xml.encode("utf-8", "surrogatepass"))
