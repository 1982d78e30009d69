"""What a check is, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from sev_attest.host.inspect.machine import Machine
from sev_attest.host.inspect.tree import Unreadable

_MAX_TEXT = 400
"""Characters of what was found: it may quote files of any content."""
_HIDDEN = "not seen from inside a container, which may hide it"


class Status(StrEnum):
    """The result of a check."""

    OK = "OK"
    MISSING = "missing"
    UNKNOWN = "cannot tell"
    NOTE = "note"


class Need(IntEnum):
    """What the guests need: each includes those before it."""

    SEV = 1
    ES = 2
    SNP = 3

    @property
    def title(self) -> str:
        """The name of the technology."""
        return ("SEV", "SEV-ES", "SEV-SNP")[self - 1]

    @property
    def parameter(self) -> str:
        """The name of its CPU flag, and of its parameter of kvm_amd."""
        return ("sev", "sev_es", "sev_snp")[self - 1]

    @property
    def feature(self) -> str:
        """The name of its feature in a firmware descriptor."""
        return ("amd-sev", "amd-sev-es", "amd-sev-snp")[self - 1]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check's function returns: the status, what was found, and what to do about it.

    ``absent`` is whether something was looked for and not there, so that a container may hide it.
    """

    status: Status
    found: str
    fix: str = ""
    absent: bool = False


def ok(found: str) -> Answer:
    """Return the answer for what is as it should be."""
    return Answer(Status.OK, found)


def missing(found: str, fix: str, *, absent: bool = False) -> Answer:
    """Return the answer for what prevents SEV, with the command or line that fixes it."""
    return Answer(Status.MISSING, found, fix, absent)


def unknown(found: str, fix: str = "") -> Answer:
    """Return the answer for what the files do not tell; ``fix`` says how to find out."""
    return Answer(Status.UNKNOWN, found, fix)


def note(found: str, fix: str = "", *, absent: bool = False) -> Answer:
    """Return the answer for what does not prevent SEV, but should be known."""
    return Answer(Status.NOTE, found, fix, absent)


def needed(least: Need, need: Need, found: str, fix: str, *, absent: bool = False) -> Answer:
    """Return :func:`missing` if guests of ``need`` need it, else :func:`note`."""
    return (missing if need >= least else note)(found, fix, absent=absent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    ``id`` is stable (``host.cpu.sev``), ``subject`` its group. ``found`` is for people; it may
    quote the machine's files. ``fix`` is what to do, "" if there is nothing to do. ``essential`` is
    whether the machine is not ready if the check cannot tell. The rest is the check's own.
    """

    id: str
    subject: str
    status: Status
    found: str
    fix: str
    essential: bool
    says: str
    reads: str
    source: str


Function = Callable[[Machine, Need], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    ``says`` states what it looks for, ``reads`` names the files, ``source`` who asks for it.
    ``essential`` is the least need for which the verdict depends on it, None if none does.
    ``within`` are folders: where all are missing or empty, as in a copy of few files, the check
    cannot tell.
    """

    id: str
    says: str
    reads: str
    source: str
    essential: Need | None
    within: tuple[str, ...]
    function: Function

    def run(self, subject: str, machine: Machine, need: Need) -> Finding:
        """Apply the check; what cannot be read becomes "cannot tell"."""
        try:
            answer = self._answer(machine, need)
        except Unreadable as error:
            answer = unknown(str(error), error.hint)
        if answer.absent and machine.container:
            answer = unknown(f"{answer.found}: {_HIDDEN}", "run this on the host itself")
        return Finding(
            id=self.id,
            subject=subject,
            status=answer.status,
            found=_shortened(answer.found),
            fix=answer.fix,
            essential=self.essential is not None and need >= self.essential,
            says=self.says,
            reads=self.reads,
            source=self.source,
        )

    def _answer(self, machine: Machine, need: Need) -> Answer:
        if self.within and not any(map(machine.tree.filled, self.within)):
            return unknown(f"no {' or '.join(self.within)} here", "run this on the machine itself")
        return self.function(machine, need)


def check(
    name: str,
    says: str,
    reads: str,
    source: str,
    *,
    essential: Need | None = None,
    within: tuple[str, ...] = (),
) -> Callable[[Function], Check]:
    """Return a decorator that makes a function a check (:class:`Check`)."""

    def decorate(function: Function) -> Check:
        return Check(
            id=name,
            says=says,
            reads=reads,
            source=source,
            essential=essential,
            within=within,
            function=function,
        )

    return decorate


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
