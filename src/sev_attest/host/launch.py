"""A domain that its owner defines and starts for one launch, and that is removed if it is refused.

1. :meth:`OneLaunch.check`: the host has no domain of this name, or one that is shut off and that
   differs from this one in its session only.
2. :meth:`OneLaunch.define`: after that check once more, the domain is defined.
3. :meth:`OneLaunch.start`: its guest is started, with no vCPU running.
4. :meth:`OneLaunch.undo`: after a refusal, the guest is destroyed and the host's definitions are
   what they were before step 2.

A call may end without an answer, or the host may change what it was told. So the last step asks the
host what is there: a domain is this launch's if it has the session blob of this launch, which no
other domain has. Its guest is destroyed through the handle that step 2 got, and only if it is known
by the id that step 3 got or by that blob.

Does not verify: anything. What the host says of its domains is its claim.
"""

from contextlib import suppress
from dataclasses import dataclass

from sev_attest.domain_xml.compare import same_but_session
from sev_attest.domain_xml.domain import Domain, parse_domain
from sev_attest.errors import SevAttestError, WrongState
from sev_attest.host.connection import HostConnection, HostDomain, HostError, RunningGuest
from sev_attest.host.limits import UNREADABLE

UNDO_SECONDS = 60
"""Seconds that a host has to undo a launch: no signal ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a refused launch leaves on its host.

    ``guest`` is "none" (no guest was started), "destroyed", the host's word for its state if it is
    still there ("paused"), or "unknown". ``words`` say it in one sentence. ``over``: there is no
    guest and, as far as the host answered, there will be none.
    """

    guest: str
    words: str
    over: bool = False


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
        self._defining = False
        self._started = False
        self._unanswered = ""

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
        try:
            self._domain = self._host.define(self._xml)
        except HostError as error:
            self._note_unanswered(
                error, ", but domain {} may still be defined, in this session: look after it"
            )
            raise

    def start(self) -> RunningGuest:
        """Start the guest, paused, and return it. Raises HostError, WrongState."""
        if self._domain is None:
            raise RuntimeError("start() comes after define()")
        try:
            self._domain.start_paused()
            self._started = True
        except HostError as error:
            self._note_unanswered(error, " yet, but may be still: look after domain {}")
            raise
        return self._domain.running()

    def _note_unanswered(self, error: HostError, words: str) -> None:
        """Note, in words, what may still happen if the host did not answer in time."""
        if error.check == "host.timeout":
            self._unanswered = words.format(self._name)

    def undo(self, *, leave: bool) -> Remains:
        """Destroy the guest, and bring the definitions back; return what is left. Raises nothing.

        ``leave`` leaves a guest that is paused, and its definition. One that runs is destroyed all
        the same: it was refused. The host has :data:`UNDO_SECONDS` seconds for all its answers.
        """
        if not self._defining:
            return Remains(guest="none", words="nothing was changed on the host", over=True)
        try:
            self._host.hurry(UNDO_SECONDS)
            return self._undo(leave=leave)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not hide the first one
            there = f"a guest of domain {self._name} may still be there, paused or not"
            words = f"the host could not be asked: {there}: {_reason(error)}"
            return Remains(guest="unknown", words=words)

    def _undo(self, *, leave: bool) -> Remains:
        # A name may lead to another domain by now; the handle of the definition does not.
        domain = self._domain or self._host.find(self._name)
        if domain is None or not _may_run(domain):
            return self._without_guest(leave=leave)
        if not self._owns(domain):
            restored = self._restored(beside_guest=True)
            words = f"domain {self._name} runs in another session: its guest was not touched"
            return Remains(guest="unknown", words=words + restored)
        state = _state(domain)
        if leave and state == "paused":
            return Remains(guest=state, words=f"the guest is left on the host, {state}")
        try:
            _destroy(domain)
        except SevAttestError as error:
            words = f"the guest could not be destroyed, and is still there, {state}: {error}"
            return Remains(guest=state, words=words)
        words = f"the guest was destroyed{self._restored()}"
        return Remains(guest="destroyed", words=words, over=True)

    def _without_guest(self, *, leave: bool) -> Remains:
        """Bring the definitions back after a launch whose guest is not there (any more)."""
        words = "the guest is gone from the host" if self._started else "no guest was started"
        words += self._unanswered
        if not leave:
            words += self._restored()
        elif self._host.find(self._name) is not None:
            words += ", and the domain is left defined"
        return Remains(guest="none", words=words, over=not self._unanswered)

    def _owns(self, domain: HostDomain) -> bool:
        """Return whether this launch started the guest, or it was started in this session.

        Either is enough. Raises SevAttestError if neither is known, because a question failed.
        """
        unknown: SevAttestError | None = None
        for proof in (domain.started_here, lambda: self._has(domain.live_session())):
            try:
                if proof():
                    return True
            except SevAttestError as error:
                unknown = error
        if unknown is not None:
            raise unknown
        return False

    def _has(self, text: str) -> bool:
        """Return whether a text has the session blob; a host may break it into lines."""
        return self._session in "".join(text.split())

    def _restored(self, *, beside_guest: bool = False) -> str:
        """Bring the definition back that was there before; return that in words.

        ``beside_guest``: a guest of somebody else's runs. Without its definition it would be lost
        when it is shut down, so the definition is replaced, but not removed.
        """
        try:
            domain = self._host.find(self._name)
            if domain is None:
                return ""
            if not self._has(domain.xml()):
                return ", and the domain is still defined, in another session"
            if self._before is not None:
                self._host.define(self._before)
                return ", and the domain has the definition that it had before"
            if beside_guest:
                return ", and the domain is still defined, in this session"
            domain.undefine()
        except SevAttestError as error:
            return f", but the definition of domain {self._name} could not be removed: {error}"
        return ", and the domain is not defined any more"


def _may_run(domain: HostDomain) -> bool:
    """Return whether a domain is active; yes if the host knows the domain, but does not answer."""
    try:
        return domain.active()
    except SevAttestError as error:
        return error.check != "host.gone"


def _state(domain: HostDomain) -> str:
    """Return the state of a guest, in the host's words, or that it is not known."""
    try:
        return domain.state()
    except SevAttestError:
        return "unknown"


def _destroy(domain: HostDomain) -> None:
    """Destroy a guest; one that ended by itself meanwhile is fine. Raises HostError, WrongState."""
    try:
        domain.destroy()
    except WrongState:
        if _may_run(domain):
            raise
        return
    still = False
    with suppress(SevAttestError):  # a question that fails makes the host's first answer no lie
        still = domain.active()
    if still:
        raise HostError("the host says that it was, and that it is active", check="host.state")


def _reason(error: Exception) -> str:
    """Return why the host could not be asked; only the words of our own errors are known."""
    return str(error) if isinstance(error, SevAttestError) else UNREADABLE


def _parsed(xml: str) -> Domain:
    return parse_domain(xml.encode("utf-8", "surrogatepass"))
